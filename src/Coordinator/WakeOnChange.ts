import { Effect, Layer, Schedule, Stream } from "effect"
import { Coordinator } from "../Coordinator.js"
import { ResourceManager } from "../ResourceManager.js"

/**
 * Tasks wait in the database until the instant that a platform's former limits told. Whoever changes these by hand, over
 * HTTP or in the program itself, makes them look again at once.
 */
export const layer: Layer.Layer<never, never, Coordinator | ResourceManager> = Layer.scopedDiscard(
  Effect.gen(function* () {
    const coordinator = yield* Coordinator
    const { changes } = yield* ResourceManager
    yield* changes.pipe(
      Stream.runForEach((platform) => Effect.retry(coordinator.wake(platform), Schedule.spaced("1 second"))),
      Effect.tapErrorCause((cause) => Effect.logError("Tasks that wait for changed limits could not be woken", cause)),
      Effect.sandbox,
      Effect.retry(Schedule.spaced("1 second")),
      Effect.forkScoped
    )
  })
)
