import { Deferred, Effect, Fiber, FiberId, type Scope } from "effect"
import { monotonicMs } from "../Domain/Time.js"

/** Bounds one wait after another by one timer. */
export interface Watchdog {
  /**
   * `effect`; or, if it is not done by the instant `at` (monotonic, ms), the failure that `late` gives, once `effect` is
   * interrupted. One at a time.
   */
  readonly within: <A, E, R>(effect: Effect.Effect<A, E, R>, at: number, late: () => E) => Effect.Effect<A, E, R>
}

interface Timer {
  wakesAt: number
  fiber: Fiber.RuntimeFiber<void> | undefined
}

/**
 * A race with a sleep for each piece of an answer costs more than the piece: here the timer of one wait goes on as the
 * next one's, and another is started only where that one has to end sooner.
 */
export const makeWatchdog: Effect.Effect<Watchdog, never, Scope.Scope> = Effect.gen(function* () {
  let timer: Timer | undefined
  let awaited: { readonly at: number; readonly late: () => void } | undefined

  const run = (self: Timer): Effect.Effect<void> =>
    Effect.gen(function* () {
      while (awaited !== undefined && timer === self) {
        const leftMs = awaited.at - (yield* monotonicMs)
        if (leftMs <= 0) {
          awaited.late()
          awaited = undefined
        } else {
          self.wakesAt = awaited.at
          yield* Effect.sleep(leftMs)
        }
      }
      if (timer === self) timer = undefined
    })

  const wakeBy = (at: number): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (timer !== undefined && timer.wakesAt <= at) return Effect.void
      timer?.fiber?.unsafeInterruptAsFork(FiberId.none)
      const started: Timer = { wakesAt: at, fiber: undefined }
      timer = started
      return Effect.map(Effect.forkDaemon(Effect.interruptible(run(started))), (fiber) => {
        started.fiber = fiber
      })
    })

  yield* Effect.addFinalizer(() => (timer?.fiber === undefined ? Effect.void : Fiber.interrupt(timer.fiber)))

  return {
    within: <A, E, R>(effect: Effect.Effect<A, E, R>, at: number, late: () => E) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(Effect.forkDaemon(restore(effect)), (fiber) => {
          const outcome = Deferred.unsafeMake<A, E>(FiberId.none)
          fiber.addObserver((exit) => Deferred.unsafeDone(outcome, exit))
          awaited = {
            at,
            late: () =>
              Deferred.unsafeDone(
                outcome,
                Effect.suspend(() => Effect.fail(late()))
              )
          }
          return Effect.onExit(Effect.zipRight(wakeBy(at), restore(Deferred.await(outcome))), () => {
            awaited = undefined
            return fiber.unsafePoll() === null ? Fiber.interrupt(fiber) : Effect.void
          })
        })
      )
  }
})
