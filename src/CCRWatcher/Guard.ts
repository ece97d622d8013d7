import { Effect, Random } from "effect"
import { monotonicMs } from "../Domain/Time.js"
import * as Breaker from "../ResourceManager/Breaker.js"
import { SessionsUnavailable } from "../SessionStore.js"

/** As the platforms' by default. */
const policy: Breaker.Policy = { failures: 5, openMs: 60_000 }

/** Makes a call of the sessions database, or refuses it without making it while that is given up. */
export type Guard = <A, R>(effect: Effect.Effect<A, SessionsUnavailable, R>) => Effect.Effect<A, SessionsUnavailable, R>

/** A breaker of its own: a database that hangs or is broken is left alone for a while, and then tried with one call. */
export const makeGuard: Effect.Effect<Guard> = Effect.sync(() => {
  let breaker = Breaker.initial

  const move = ({ breaker: next, transition }: Breaker.Step): Effect.Effect<void> => {
    breaker = next
    return transition === undefined || transition.from === transition.to
      ? Effect.void
      : Effect.logWarning(
          `The sessions database is ${transition.to === "open" ? "left alone" : transition.to === "closed" ? "there again" : "tried again"}: ${transition.why}`
        )
  }
  const settle = (permit: Breaker.Permit, outcome: Breaker.Outcome) =>
    Effect.flatMap(Effect.all([monotonicMs, Random.next]), ([ms, random]) =>
      Effect.suspend(() => move(Breaker.settle(breaker, policy, permit, outcome, ms, random)))
    )

  return (effect) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const now = yield* monotonicMs
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
})
