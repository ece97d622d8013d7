import { Effect, Layer } from "effect"
import type { Platforms } from "./Platforms.js"
import { Settings, type SettingsOptions, type SettingsShape } from "./Settings.js"
import { Arrivals } from "./Sql/Writer.js"
import { Team } from "./Team.js"
import type { Script } from "./Testing/Script.js"
import { type Received, scriptedPlatforms, scriptedSettings } from "./Testing/ScriptedPlatforms.js"
import { scriptedWebhooks } from "./Testing/ScriptedWebhooks.js"

export {
  type Advanced,
  type AdvanceOptions,
  advanceUntilIdle,
  NotIdle,
  settled,
  UnfinishedTask
} from "./Testing/Advance.js"
export { eventLog } from "./Testing/EventLog.js"
export { MemoryHttp } from "./Testing/Memory.js"
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
export { type Receiver, SentWebhooks } from "./Testing/ScriptedWebhooks.js"

/** Platforms that do as they are told. `Received` says what they saw. */
export const platforms = (scripts: ReadonlyArray<Script>): Layer.Layer<Platforms | Received> =>
  scriptedPlatforms(scripts)

/** Complete settings with the scripted platforms, an in-memory database, no grace at the end, and over them what is given. */
export const settings = (
  scripts: ReadonlyArray<Script>,
  options: Omit<SettingsOptions, "platforms"> = {}
): SettingsShape =>
  // At the end nobody moves the clock any more, so no grace would ever be over.
  Settings.make({ database: ":memory:", shutdownGraceMs: 0, ...options, platforms: scripts.map(scriptedSettings) })

/**
 * The whole service in memory, over scripted platforms: every concern, none of the doors (`MemoryHttp.layer` opens them
 * without a socket). Under a `TestClock` and a seeded `Random` it does the same at the same instants each time.
 */
export const layer = (scripts: ReadonlyArray<Script>, options: Omit<SettingsOptions, "platforms"> = {}) =>
  Team.layerWith.pipe(
    Layer.provideMerge(scriptedWebhooks),
    Layer.provideMerge(platforms(scripts)),
    Layer.provideMerge(Settings.layer(settings(scripts, options))),
    Layer.provide(Layer.succeed(Arrivals, Effect.yieldNow()))
  )
