import { Effect, Stream } from "effect"
import type { Call } from "../Domain/Call.js"
import { type AttemptFailure, PlatformFailure } from "../Domain/Failure.js"
import { monotonicMs } from "../Domain/Time.js"
import type { PlatformSettings } from "../Settings.js"
import type { PlatformClient, TakeDeltas } from "./Client.js"
import { watched } from "./Watchdog.js"

/** How long a platform has been waited for. Monotonic, ms. */
export interface Waits {
  readonly startedAt: number
  readonly now: number
  /** For how long nothing has come, of an answer that has begun. */
  readonly silentMs: number | undefined
}

/** Until when the next piece is waited for, and what it means when it does not come. */
export interface Patience {
  /** Monotonic, ms. */
  readonly at: number
  readonly reason: "timeout" | "stalled"
  readonly message: string
}

/** The timeouts of an attempt, as they bear on what is waited for next. */
export const patienceOf =
  ({ attemptMs, betweenTokensMs, firstTokenMs }: PlatformSettings["timeouts"]) =>
  ({ now, silentMs, startedAt }: Waits): Patience => {
    const attempt: Patience = {
      at: startedAt + attemptMs,
      message: `the attempt took longer than ${attemptMs} ms`,
      reason: "timeout"
    }
    const token: Patience =
      silentMs === undefined
        ? {
            at: startedAt + firstTokenMs,
            message: `the answer did not begin within ${firstTokenMs} ms`,
            reason: "timeout"
          }
        : {
            at: now + betweenTokensMs - silentMs,
            message: `nothing came for ${betweenTokensMs} ms in mid-answer`,
            reason: "stalled"
          }
    return token.at < attempt.at ? token : attempt
  }

/** Reads a platform's `stream` to its end within its timeouts. What `take` takes of the time is not the platform's. */
export const streamWithin = (
  { id, settings, stream }: Pick<PlatformClient, "id" | "settings" | "stream">,
  model: string,
  call: Call,
  take: TakeDeltas
): Effect.Effect<void, AttemptFailure> =>
  watched<void, AttemptFailure, never>((watch) =>
    Effect.flatMap(monotonicMs, (startedAt) => {
      const patience = patienceOf(settings.timeouts)
      let hasBegun = false
      const wait = Effect.flatMap(monotonicMs, (now) => {
        const { at, message, reason } = patience({ startedAt, now, silentMs: hasBegun ? 0 : undefined })
        return watch.until(at, () => Effect.fail(new PlatformFailure({ platform: id, model, reason, message })))
      })
      const read = Stream.runForEachChunk(stream(model, call), (deltas) => {
        watch.rest()
        for (const { _tag } of deltas) if (_tag !== "Start") hasBegun = true
        return Effect.zipRight(take(deltas), wait)
      })
      return Effect.zipRight(wait, read)
    })
  )
