import type { HttpClient } from "@effect/platform/HttpClient"
import type { SqlClient } from "@effect/sql/SqlClient"
import { Effect, Layer } from "effect"
import { AgentRouter } from "./AgentRouter.js"
import { Benchmark } from "./Benchmark.js"
import { Budgets } from "./Budgets.js"
import { CCRWatcher } from "./CCRWatcher.js"
import * as WakeOnChange from "./Coordinator/WakeOnChange.js"
import { Coordinator } from "./Coordinator.js"
import { Delegation } from "./Delegation.js"
import { ServiceUnavailable } from "./Domain/ApiError.js"
import { Events } from "./Events.js"
import { Gateway } from "./Gateway.js"
import { PlatformDetector } from "./PlatformDetector.js"
import { Platforms } from "./Platforms.js"
import { ResourceManager } from "./ResourceManager.js"
import { Settings } from "./Settings.js"
import type { SqlWriter } from "./Sql/Writer.js"
import { type DatabaseUnavailable, type Ownership, Sql } from "./Sql.js"
import { Retention } from "./TaskStore/Retention.js"
import { TaskStore } from "./TaskStore.js"
import { TaskValidator } from "./TaskValidator.js"
import * as Watching from "./Team/Watching.js"
import { WebhookSender } from "./Webhooks/Sender.js"
import { Webhooks } from "./Webhooks.js"

export { Retention } from "./TaskStore/Retention.js"

/** Every service of the team. */
export type Team =
  | AgentRouter
  | Benchmark
  | Budgets
  | CCRWatcher
  | Coordinator
  | Delegation
  | Events
  | Gateway
  | Ownership
  | PlatformDetector
  | ResourceManager
  | Retention
  | SqlClient
  | SqlWriter
  | TaskStore
  | TaskValidator

/** Whoever brings platforms brings their settings with them: what limits, routes and watches them goes by these. */
const settingsOfPlatforms = Layer.effect(
  Settings,
  Effect.gen(function* () {
    const settings = yield* Settings
    const { all } = yield* Platforms
    const mistaken = all.find((client) => client.id !== client.settings.id)
    return mistaken === undefined
      ? { ...settings, platforms: all.map((client) => client.settings) }
      : yield* Effect.dieMessage(
          `The platform ${mistaken.id} has the settings of ${mistaken.settings.id}: give both the same id`
        )
  })
)

// One below the other, because the end runs upwards: the Coordinator stops first, the database closes last.
const core: Layer.Layer<
  Exclude<Team, CCRWatcher>,
  DatabaseUnavailable | ServiceUnavailable,
  Platforms | Settings | WebhookSender
> = WakeOnChange.layer.pipe(
  Layer.provideMerge(Coordinator.layer),
  Layer.provideMerge(Webhooks.layer),
  Layer.provideMerge(Gateway.layer),
  Layer.provideMerge(TaskValidator.layer),
  Layer.provideMerge(Delegation.layer),
  Layer.provideMerge(AgentRouter.layerStored),
  Layer.provideMerge(PlatformDetector.layer),
  Layer.provideMerge(
    Layer.mapError(
      ResourceManager.layerStored,
      (failed) => new ServiceUnavailable({ message: `The limits' books cannot be read: ${failed.message}` })
    )
  ),
  Layer.provideMerge(Benchmark.layer),
  Layer.provideMerge(Budgets.layerStored),
  Layer.provideMerge(Retention.layer),
  Layer.provideMerge(TaskStore.layer),
  Layer.provideMerge(Events.layer),
  Layer.provideMerge(Sql.layer),
  Layer.provide(settingsOfPlatforms)
)

const layerWith: Layer.Layer<Team, DatabaseUnavailable | ServiceUnavailable, Platforms | Settings | WebhookSender> =
  Layer.merge(CCRWatcher.layerOff, core)

const layerWithPlatforms = Layer.provide(layerWith, WebhookSender.layer)

/** The whole service as one Layer, without its HTTP door (`Http.layer` opens it). */
export const Team = {
  /** Over platforms that a program brings itself: its own, or scripted ones. */
  layerWithPlatforms,

  /** Over platforms and a way to send webhooks that a program brings itself. */
  layerWith,

  /** Over the platforms of the settings, reached by HTTP. */
  layer: Layer.provideMerge(layerWithPlatforms, Platforms.layer) satisfies Layer.Layer<
    Team | Platforms,
    DatabaseUnavailable | ServiceUnavailable,
    HttpClient | Settings
  >,

  /** The same, with the Claude Code sessions of this machine watched where the settings say so. */
  layerWatching: Watching.layer.pipe(
    Layer.provideMerge(core),
    Layer.provide(WebhookSender.layer),
    Layer.provideMerge(Platforms.layer)
  ) satisfies Layer.Layer<
    Team | Platforms,
    DatabaseUnavailable | ServiceUnavailable,
    HttpClient | Settings | Watching.Surroundings
  >
}
