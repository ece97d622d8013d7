import { Effect, Layer } from "effect"
import { Coordinator } from "../Coordinator.js"
import { ResourceManager } from "../ResourceManager.js"
import { wakeOn } from "./wakeOn.js"

/**
 * Tasks wait in the database until the instant that a platform's former limits told. Whoever changes these by hand, over
 * HTTP or in the program itself, makes them look again at once.
 */
export const layer: Layer.Layer<never, never, Coordinator | ResourceManager> = Layer.scopedDiscard(
  Effect.gen(function* () {
    const coordinator = yield* Coordinator
    const { changes } = yield* ResourceManager
    yield* wakeOn(changes, coordinator.wake, "Tasks that wait for changed limits could not be woken")
  })
)
