import type { Clock } from "effect"
import { monotonicMsOf } from "../Domain/Time.js"

/** Ms. */
export const MINUTE = 60_000

/** One look at both clocks, so that a decision is made at one instant. */
export interface Now {
  /** Monotonic, ms: for everything that elapses. */
  readonly ms: number
  /** Milliseconds since the Unix epoch: for instants that providers and people name. */
  readonly epochMs: number
}

export const read = (clock: Clock.Clock): Now => ({
  ms: monotonicMsOf(clock),
  epochMs: clock.unsafeCurrentTimeMillis()
})

/** The wall-clock instant of a monotonic one; `undefined` where it is not a finite instant. */
export const epochOf = (ms: number, at: Now): number | undefined =>
  Number.isFinite(ms) ? Math.ceil(at.epochMs + (ms - at.ms)) : undefined

/** The monotonic instant of a wall-clock one, as the two clocks stand to each other now. */
export const monotonicOf = (epochMs: number, at: Now): number => at.ms + (epochMs - at.epochMs)
