import type { HttpClient } from "@effect/platform/HttpClient"
import type { SqlClient } from "@effect/sql/SqlClient"
import { Layer } from "effect"
import { AgentRouter } from "./AgentRouter.js"
import { Benchmark } from "./Benchmark.js"
import { Coordinator } from "./Coordinator.js"
import { Delegation } from "./Delegation.js"
import { ServiceUnavailable } from "./Domain/ApiError.js"
import { Events } from "./Events.js"
import { PlatformDetector } from "./PlatformDetector.js"
import { Platforms } from "./Platforms.js"
import { ResourceManager } from "./ResourceManager.js"
import type { Settings } from "./Settings.js"
import { type DatabaseUnavailable, Sql } from "./Sql.js"
import { TaskStore } from "./TaskStore.js"
import { TaskValidator } from "./TaskValidator.js"

/** Every service of the team. */
export type Team =
  | AgentRouter
  | Benchmark
  | Coordinator
  | Delegation
  | Events
  | PlatformDetector
  | ResourceManager
  | SqlClient
  | TaskStore
  | TaskValidator

// One below the other, because the end runs upwards: the Coordinator stops first, the database closes last.
const layerWithPlatforms: Layer.Layer<Team, DatabaseUnavailable | ServiceUnavailable, Platforms | Settings> =
  Coordinator.layer.pipe(
    Layer.provideMerge(Delegation.layer),
    Layer.provideMerge(TaskValidator.layer),
    Layer.provideMerge(AgentRouter.layerStored),
    Layer.provideMerge(PlatformDetector.layer),
    Layer.provideMerge(
      Layer.mapError(
        ResourceManager.layerStored,
        (failed) => new ServiceUnavailable({ message: `The limits' books cannot be read: ${failed.message}` })
      )
    ),
    Layer.provideMerge(Benchmark.layer),
    Layer.provideMerge(TaskStore.layer),
    Layer.provideMerge(Events.layer),
    Layer.provideMerge(Sql.layer)
  )

/** The whole service as one Layer, without its HTTP door (`Http.layer` opens it). */
export const Team = {
  /** Over platforms that a program brings itself: its own, or scripted ones. */
  layerWithPlatforms,

  /** Over the platforms of the settings, reached by HTTP. */
  layer: Layer.provideMerge(layerWithPlatforms, Platforms.layer) satisfies Layer.Layer<
    Team | Platforms,
    DatabaseUnavailable | ServiceUnavailable,
    HttpClient | Settings
  >
}
