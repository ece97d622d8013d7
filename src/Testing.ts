import { Layer } from "effect"
import { AgentRouter } from "./AgentRouter.js"
import { Benchmark } from "./Benchmark.js"
import { Coordinator } from "./Coordinator.js"
import { Delegation } from "./Delegation.js"
import { Events } from "./Events.js"
import { PlatformDetector } from "./PlatformDetector.js"
import type { Platforms } from "./Platforms.js"
import { ResourceManager } from "./ResourceManager.js"
import { Settings, type SettingsOptions, type SettingsShape } from "./Settings.js"
import { Sql } from "./Sql.js"
import { TaskStore } from "./TaskStore.js"
import { TaskValidator } from "./TaskValidator.js"
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
  Coordinator.layer.pipe(
    Layer.provideMerge(Delegation.layer),
    Layer.provideMerge(Layer.mergeAll(TaskValidator.layer, PlatformDetector.layer, TaskStore.layer)),
    Layer.provideMerge(Layer.mergeAll(AgentRouter.layer, ResourceManager.layer, Events.layer)),
    Layer.provideMerge(Layer.mergeAll(Benchmark.layer, Sql.layerMemory, platforms(scripts))),
    Layer.provideMerge(Settings.layer(settings(scripts, options)))
  )
