import { Effect, type Layer, Logger, LogLevel, Random, TestClock, TestContext } from "effect"
import { type Agenda, makeAgenda } from "./Agenda.js"

/** A world whose time is TestClock's: it starts at 0 and goes from event to event. */
export interface World {
  readonly agenda: Agenda<Effect.Effect<void>>
  /** Ms since the world began. */
  readonly now: () => number
}

/** Whatever the event just acted on set going has come to rest, or to a sleep. */
const atRest = Effect.async<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

/**
 * TestClock waits for three timers of 0 ms at every step, each of which Node makes a millisecond: most of the time that a
 * simulation of a hundred thousand steps would take. What they are for, to let every other fiber run first, an immediate
 * does as well.
 */
const withImmediateTimers = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      const inEarnest = globalThis.setTimeout
      globalThis.setTimeout = new Proxy(inEarnest, {
        apply: (target, self, given) => (given[1] === 0 ? setImmediate(given[0]) : Reflect.apply(target, self, given))
      })
      return inEarnest
    }),
    () => effect,
    (inEarnest) =>
      Effect.sync(() => {
        globalThis.setTimeout = inEarnest
      })
  )

/** Runs a world over `layer` from event to event, be it its agenda's or a sleeping fiber's, until `isOver`. */
export const runWorld = <A, R>(
  seed: string,
  layer: Layer.Layer<R>,
  begin: (world: World) => Effect.Effect<{ readonly isOver: () => boolean; readonly outcome: () => A }, never, R>
): Effect.Effect<A> =>
  Effect.gen(function* () {
    const agenda = makeAgenda<Effect.Effect<void>>()
    let now = 0
    const { isOver, outcome } = yield* begin({ agenda, now: () => now })
    for (;;) {
      yield* atRest
      if (isOver()) return outcome()
      let next = agenda.nextAt()
      for (const wakesAt of yield* TestClock.sleeps()) next = Math.min(next, wakesAt)
      if (!Number.isFinite(next)) return yield* Effect.dieMessage("the simulated world stands still before its end")
      // first, for who is woken asks at once
      now = next
      yield* TestClock.setTime(next)
      for (let event = agenda.take(now); event !== undefined; event = agenda.take(now)) yield* event
    }
  }).pipe(
    Effect.provide(layer),
    Effect.provide(TestContext.TestContext),
    Effect.withRandom(Random.make(seed)),
    // TestClock warns of worlds that take longer than 5 s of real time
    Logger.withMinimumLogLevel(LogLevel.Error),
    withImmediateTimers
  )
