import { Duration, Effect, Schedule, type Scope } from "effect"

/** Runs in the background, for as long as the scope. Where it breaks the log says `trouble`, and it is begun anew after a pause. */
export const supervised = (
  trouble: string,
  effect: Effect.Effect<unknown, unknown>,
  pauseMs = 1_000
): Effect.Effect<void, never, Scope.Scope> =>
  effect.pipe(
    Effect.tapErrorCause((cause) => Effect.logError(trouble, cause)),
    Effect.sandbox,
    Effect.retry(Schedule.spaced(Duration.millis(pauseMs))),
    Effect.forkScoped,
    Effect.asVoid
  )
