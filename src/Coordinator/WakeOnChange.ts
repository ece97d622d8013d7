import { Effect, Layer, Stream } from "effect"
import { Coordinator } from "../Coordinator.js"
import { ResourceManager } from "../ResourceManager.js"
import { wakeOn } from "./wakeOn.js"

/**
 * Tasks wait in the database until the instant that a platform's former limits told, or for a while where its running
 * calls are in their way. Whoever changes the limits by hand, over HTTP or in the program itself, makes them look again at
 * once, and so does a platform that has room sooner.
 */
export const layer: Layer.Layer<never, never, Coordinator | ResourceManager> = Layer.scopedDiscard(
  Effect.gen(function* () {
    const coordinator = yield* Coordinator
    const { changes, room } = yield* ResourceManager
    yield* wakeOn(Stream.merge(changes, room), coordinator.wake, "Tasks that wait for limits could not be woken")
  })
)
