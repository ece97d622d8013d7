import { Layer } from "effect"
import type { Platforms } from "./Platforms.js"
import { Settings, type SettingsOptions, type SettingsShape } from "./Settings.js"
import { Team } from "./Team.js"
import type { Script } from "./Testing/Script.js"
import { type Received, scriptedPlatforms, scriptedSettings } from "./Testing/ScriptedPlatforms.js"

export {
  answer,
  breakWith,
  type CheckStep,
  type Failing,
  fail,
  failures,
  hang,
  pass,
  type Script,
  type ScriptedAttempt,
  type Step
} from "./Testing/Script.js"
export { Received, type ReceivedCall } from "./Testing/ScriptedPlatforms.js"

/** Platforms that do as they are told. `Received` says what they saw. */
export const platforms = (scripts: ReadonlyArray<Script>): Layer.Layer<Platforms | Received> =>
  scriptedPlatforms(scripts)

/** Complete settings with the scripted platforms, an in-memory database, and over them what is given. */
export const settings = (
  scripts: ReadonlyArray<Script>,
  options: Omit<SettingsOptions, "platforms"> = {}
): SettingsShape => Settings.make({ database: ":memory:", ...options, platforms: scripts.map(scriptedSettings) })

/**
 * The whole service in memory, over scripted platforms: every concern, none of the doors. Under a `TestClock` and a
 * seeded `Random` it does the same at the same instants each time.
 */
export const layer = (scripts: ReadonlyArray<Script>, options: Omit<SettingsOptions, "platforms"> = {}) =>
  Team.layerWithPlatforms.pipe(
    Layer.provideMerge(platforms(scripts)),
    Layer.provideMerge(Settings.layer(settings(scripts, options)))
  )
