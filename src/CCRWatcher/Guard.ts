import { type Clock, Effect, Random } from "effect"
import * as Breaker from "../ResourceManager/Breaker.js"
import { read } from "../ResourceManager/Now.js"
import { SessionsUnavailable } from "../SessionStore.js"

/** As the platforms' by default. */
const policy: Breaker.Policy = { failures: 5, openMs: 60_000 }

/** Calls of the sessions database, which are refused without being made while it is given up. */
export interface Guard {
  readonly guarded: <A, R>(effect: Effect.Effect<A, SessionsUnavailable, R>) => Effect.Effect<A, SessionsUnavailable, R>
  readonly isOpen: Effect.Effect<boolean>
}

/** A breaker of its own: a database that hangs or is broken is left alone for a while, and then tried with one call. */
export const makeGuard: Effect.Effect<Guard> = Effect.sync(() => {
  let breaker = Breaker.initial

  const at = Effect.map(Effect.clock, (clock: Clock.Clock) => read(clock).ms)
  const move = ({ breaker: next, transition }: Breaker.Step): Effect.Effect<void> => {
    breaker = next
    return transition === undefined || transition.from === transition.to
      ? Effect.void
      : Effect.logWarning(
          `The sessions database is ${transition.to === "open" ? "left alone" : transition.to === "closed" ? "there again" : "tried again"}: ${transition.why}`
        )
  }
  const settle = (permit: Breaker.Permit, outcome: Breaker.Outcome) =>
    Effect.flatMap(Effect.all([at, Random.next]), ([ms, random]) =>
      Effect.suspend(() => move(Breaker.settle(breaker, policy, permit, outcome, ms, random)))
    )

  return {
    isOpen: Effect.sync(() => breaker.state === "open"),
    guarded: (effect) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          const now = yield* at
          yield* move(Breaker.tick(breaker, policy, now))
          if (!Breaker.admits(breaker, now)) {
            return yield* new SessionsUnavailable({
              message: "The sessions database failed several times in a row and is left alone for a while"
            })
          }
          const { breaker: next, permit } = Breaker.admit(breaker)
          breaker = next
          return yield* restore(effect).pipe(
            Effect.onExit((exit) =>
              settle(
                permit,
                exit._tag === "Success"
                  ? { _tag: "Success" }
                  : exit.cause._tag === "Fail"
                    ? { _tag: "Failure", why: exit.cause.error.message }
                    : { _tag: "Ignored" }
              )
            )
          )
        })
      )
  }
})
