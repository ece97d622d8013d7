import { Effect, Fiber, FiberId } from "effect"
import { makeOneShot } from "../Domain/OneShot.js"
import { monotonicMs } from "../Domain/Time.js"

/** By when what some work waits for has to come. */
export interface Watch<A, E> {
  /** From now on the work has to go on by the instant `at` (monotonic, ms); else it is interrupted, and `late` is done instead. */
  readonly until: (at: number, late: () => Effect.Effect<A, E>) => Effect.Effect<void>
  /** It waits for nothing that has to come. */
  readonly rest: () => void
}

interface Timer {
  wakesAt: number
  fiber: Fiber.RuntimeFiber<void> | undefined
}

/**
 * Work that waits for one thing after another, each for its own time. A race with a sleep for each piece of an answer costs
 * more than the piece: here one timer goes on from wait to wait, and another is started only where one has to end sooner.
 */
export const watched = <A, E, R>(work: (watch: Watch<A, E>) => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.suspend(() => {
      const outcome = makeOneShot<A, E>()
      let awaited: { readonly at: number; readonly late: () => Effect.Effect<A, E> } | undefined
      let timer: Timer | undefined
      let worker: Fiber.RuntimeFiber<A, E> | undefined

      const stopWork = Effect.suspend(() =>
        worker === undefined || worker.unsafePoll() !== null ? Effect.void : Fiber.interrupt(worker)
      )

      const run = (self: Timer): Effect.Effect<void> =>
        Effect.gen(function* () {
          while (awaited !== undefined && timer === self) {
            const { at, late } = awaited
            const leftMs = at - (yield* monotonicMs)
            if (leftMs <= 0) {
              awaited = undefined
              outcome.done(Effect.zipRight(stopWork, Effect.suspend(late)))
            } else {
              self.wakesAt = at
              yield* Effect.sleep(leftMs)
            }
          }
          if (timer === self) timer = undefined
        })

      const watch: Watch<A, E> = {
        until: (at, late) =>
          Effect.suspend(() => {
            awaited = { at, late }
            if (timer !== undefined && timer.wakesAt <= at) return Effect.void
            timer?.fiber?.unsafeInterruptAsFork(FiberId.none)
            const started: Timer = { wakesAt: at, fiber: undefined }
            timer = started
            // No interruption may come between the start of a timer and the note of it.
            return Effect.uninterruptible(
              Effect.map(Effect.forkDaemon(Effect.interruptible(run(started))), (fiber) => {
                started.fiber = fiber
              })
            )
          }),
        rest: () => {
          awaited = undefined
        }
      }

      return Effect.flatMap(Effect.forkDaemon(restore(work(watch))), (fiber) => {
        worker = fiber
        fiber.addObserver(outcome.done)
        return Effect.onExit(restore(outcome.wait), () =>
          Effect.map(stopWork, () => timer?.fiber?.unsafeInterruptAsFork(FiberId.none))
        )
      })
    })
  )
