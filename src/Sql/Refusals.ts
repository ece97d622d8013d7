import { type Cause, Effect, Option } from "effect"
import type { ServiceUnavailable } from "../Domain/ApiError.js"
import { monotonicMs } from "../Domain/Time.js"

/** The log hears of refusals for the same reason this often at most, ms: what is full is full for every write. */
const toldEveryMs = 60_000

interface Told {
  readonly at: number
  /** Refused since then for the same reason. */
  more: number
}

/** What is known of the writes that the database refuses. */
export interface Refusals {
  /** Why the latest writes were refused; none once one was taken after them. */
  readonly current: () => Option.Option<ServiceUnavailable>
  /** `count` writes were refused, for a reason that the database calls `code`. */
  readonly add: (
    count: number,
    code: string,
    answer: ServiceUnavailable,
    cause: Cause.Cause<unknown>
  ) => Effect.Effect<void>
  /** The same where the log has it already. */
  readonly addTold: (answer: ServiceUnavailable) => void
  /** Writes were taken. */
  readonly end: Effect.Effect<void>
  /** Waits until writes are refused. */
  readonly begun: Effect.Effect<void>
}

export const makeRefusals: Effect.Effect<Refusals> = Effect.map(Effect.makeLatch(false), (latch) => {
  // As many as the database has names for what went wrong.
  const told = new Map<string, Told>()
  let current = Option.none<ServiceUnavailable>()
  let refused = 0
  let isTold = false

  const addTold = (answer: ServiceUnavailable): void => {
    current = Option.some(answer)
    latch.unsafeOpen()
  }

  return {
    current: () => current,
    add: (count, code, answer, cause) =>
      Effect.flatMap(monotonicMs, (now) => {
        addTold(answer)
        refused += count
        const before = told.get(code)
        if (before !== undefined && now - before.at < toldEveryMs) {
          before.more += count
          return Effect.void
        }
        told.set(code, { at: now, more: 0 })
        isTold = true
        return Effect.annotateLogs(Effect.logError("The task database refused a write", cause), {
          writes: count + (before?.more ?? 0)
        })
      }),
    addTold,
    end: Effect.suspend(() => {
      const writes = refused
      const tell = isTold
      current = Option.none()
      refused = 0
      isTold = false
      latch.unsafeClose()
      return tell
        ? Effect.annotateLogs(Effect.logInfo("The task database takes writes again"), { writes })
        : Effect.void
    }),
    begun: latch.await
  }
})
