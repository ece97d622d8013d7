import type { PlatformId } from "../Domain/Platform.js"
import type { TaskType } from "../Domain/Task.js"

/** One attempt, as measured. */
export interface Measurement {
  readonly platform: PlatformId
  readonly model: string
  readonly type: TaskType
  /**
   * `platform-failure` only where the platform is to blame (scope `platform`). `cut`: given up before it was answered,
   * for the call's deadline or because another attempt was faster; it was neither answered nor did it fail.
   */
  readonly outcome: "succeeded" | "platform-failure" | "other-failure" | "cut"
  readonly durationMs: number
  readonly timeToFirstTokenMs?: number | undefined
  /** Input and output tokens. */
  readonly tokens: number
  /** Those of `tokens` that were output; default 0. */
  readonly outputTokens?: number | undefined
}

/** A measurement and its monotonic instant, ms. */
export interface Recorded extends Measurement {
  readonly at: number
}

/** How long an answer's text took after its first piece, ms; the whole of it where no first piece was seen. */
export const generationMs = ({ durationMs, timeToFirstTokenMs = 0 }: Measurement): number =>
  Math.max(0, durationMs - timeToFirstTokenMs)
