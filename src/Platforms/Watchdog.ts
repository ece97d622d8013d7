import { Effect, Fiber, FiberId, Runtime } from "effect"
import { makeOneShot } from "../Domain/OneShot.js"
import { monotonicMs } from "../Domain/Time.js"

/**
 * Rings at one instant after another. A race with a sleep for each piece of an answer costs more than the piece: here one
 * timer goes on from instant to instant, and another is started only where one is sooner.
 */
export interface Alarm {
  /** It rings once, at the instant `at` (monotonic, ms), and at none that was set before. */
  readonly set: (at: number, ring: () => void) => void
  /** It does not ring before it is set again. */
  readonly rest: () => void
  /** It is needed no more: its timer ends. */
  readonly stop: () => void
}

interface Timer {
  wakesAt: number
  fiber: Fiber.RuntimeFiber<void> | undefined
}

/** An alarm whose timer runs on `runtime`. */
export const makeAlarm = (runtime: Runtime.Runtime<never>): Alarm => {
  let awaited: { readonly at: number; readonly ring: () => void } | undefined
  let timer: Timer | undefined

  const run = (self: Timer): Effect.Effect<void> =>
    Effect.flatMap(monotonicMs, (now) => {
      if (timer !== self) return Effect.void
      if (awaited !== undefined && awaited.at > now) {
        self.wakesAt = awaited.at
        return Effect.zipRight(Effect.sleep(awaited.at - now), run(self))
      }
      timer = undefined
      const due = awaited
      awaited = undefined
      due?.ring()
      return Effect.void
    })

  const endTimer = () => {
    timer?.fiber?.unsafeInterruptAsFork(FiberId.none)
    timer = undefined
  }

  return {
    set: (at, ring) => {
      awaited = { at, ring }
      if (timer !== undefined && timer.wakesAt <= at) return
      endTimer()
      const started: Timer = { wakesAt: at, fiber: undefined }
      timer = started
      started.fiber = Runtime.runFork(runtime, Effect.interruptible(run(started)))
    },
    rest: () => {
      awaited = undefined
    },
    stop: () => {
      awaited = undefined
      endTimer()
    }
  }
}

/** By when what some work waits for has to come. */
export interface Watch<A, E> {
  /** From now on the work has to go on by the instant `at` (monotonic, ms); else it is interrupted, and `late` is done instead. */
  readonly until: (at: number, late: () => Effect.Effect<A, E>) => Effect.Effect<void>
  /** It waits for nothing that has to come. */
  readonly rest: () => void
}

/** Work that waits for one thing after another, each for its own time. */
export const watched = <A, E, R>(work: (watch: Watch<A, E>) => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.runtime<R>(), (runtime) => {
      const outcome = makeOneShot<A, E>()
      const alarm = makeAlarm(runtime)
      let first: { readonly at: number; readonly ring: () => void } | undefined
      let isWaiting = false

      const watch: Watch<A, E> = {
        until: (at, late) =>
          Effect.sync(() => {
            const ring = () => outcome.done(Effect.zipRight(stopWork, Effect.suspend(late)))
            if (isWaiting) alarm.set(at, ring)
            else first = { at, ring }
          }),
        rest: () => {
          first = undefined
          alarm.rest()
        }
      }

      // Begun at once and not by the scheduler: work that never waits, as that of a platform in this process, is done by
      // now, and needs neither a timer nor anybody to wait for it.
      const worker = Runtime.runFork(runtime, restore(work(watch)))
      const exit = worker.unsafePoll()
      if (exit !== null) return exit

      const stopWork = Effect.suspend(() => (worker.unsafePoll() === null ? Fiber.interrupt(worker) : Effect.void))
      isWaiting = true
      if (first !== undefined) alarm.set(first.at, first.ring)
      worker.addObserver(outcome.done)
      return Effect.onExit(restore(outcome.wait), () => Effect.map(stopWork, alarm.stop))
    })
  )
