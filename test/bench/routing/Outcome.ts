import type { PlatformId } from "../../../src/Domain/Platform.js"
import type { DayTask } from "./Day.js"

/** From a task's arrival on, ms: who has no answer by then has failed. */
export const DEADLINE_MS = 10 * 60_000

/** How one task ended. */
export interface Ended {
  readonly task: DayTask
  /** Ms since the day began. */
  readonly at: number
  /** Who answered; absent where the task failed. */
  readonly by?: PlatformId | undefined
  /** Why it failed. */
  readonly why?: string | undefined
}

/** What one policy made of a day. */
export interface Outcome {
  readonly ended: ReadonlyArray<Ended>
  readonly attempts: number
  /** 429s of all platforms. */
  readonly refused: number
}
