import { Duration, Effect, Ref, Schedule } from "effect"
import type { SessionsUnavailable } from "../SessionStore.js"

/** Looks again and again until it is interrupted; a trouble is told once, not at each look. */
export const looks = (
  look: Effect.Effect<unknown, SessionsUnavailable>,
  options: { readonly everyMs: number; readonly trouble: string }
): Effect.Effect<never> =>
  Effect.gen(function* () {
    const told = yield* Ref.make<string | undefined>(undefined)
    return yield* Effect.matchEffect(look, {
      onSuccess: () => Ref.set(told, undefined),
      onFailure: ({ message }) =>
        Effect.flatMap(Ref.getAndSet(told, message), (before) =>
          before === message ? Effect.void : Effect.logWarning(`${options.trouble}: ${message}`)
        )
    }).pipe(Effect.repeat(Schedule.spaced(Duration.millis(options.everyMs))), Effect.zipRight(Effect.never))
  })
