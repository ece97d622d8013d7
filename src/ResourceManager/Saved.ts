import { Schema } from "effect"
import { BreakerState } from "../Domain/Platform.js"
import { TaskType } from "../Domain/Task.js"
import { Instant } from "../Domain/Time.js"

/** A limit's window as it was saved. */
export const SavedBucket = Schema.Struct({
  /** The bucket's name, such as `requests/60s`. */
  name: Schema.String,
  model: Schema.optional(Schema.String),
  /** What counts against it, by the instant since which it ages. */
  aged: Schema.Array(Schema.Tuple(Instant, Schema.Number)),
  /** What running attempts held. */
  pending: Schema.Number,
  /** What could be granted from then until the next save: after a crash it counts as spent. */
  allowance: Schema.Number,
  /** Set where its capacity was learned. */
  learned: Schema.optional(Schema.Number)
})
export type SavedBucket = typeof SavedBucket.Type

export const SavedQuota = Schema.Struct({
  window: Schema.String,
  model: Schema.optional(Schema.String),
  until: Instant,
  why: Schema.String
})
export type SavedQuota = typeof SavedQuota.Type

/** How far estimates were from what was really used, for one type of task. */
export const SavedRatio = Schema.Struct({
  type: TaskType,
  /** Real input over estimated input, the latest ones. */
  inputRatios: Schema.Array(Schema.Number),
  /** Real output, tokens, the latest ones. */
  outputs: Schema.Array(Schema.Number)
})
export type SavedRatio = typeof SavedRatio.Type

export const SavedBudget = Schema.Struct({
  buckets: Schema.Array(SavedBucket),
  quotas: Schema.Array(SavedQuota),
  ratios: Schema.Array(SavedRatio)
})
export type SavedBudget = typeof SavedBudget.Type

export const SavedBreaker = Schema.Struct({
  model: Schema.optional(Schema.String),
  state: BreakerState,
  consecutiveFailures: Schema.Int,
  doublings: Schema.Int,
  /** When an open breaker lets a probe through, or the next step of the ramp begins. */
  until: Schema.optional(Instant),
  capacityPercent: Schema.Number
})
export type SavedBreaker = typeof SavedBreaker.Type

/** What a platform's books hold over a restart. */
export const SavedPlatform = Schema.Struct({
  savedAt: Instant,
  /** Whether nothing was granted after it. */
  isClean: Schema.Boolean,
  budget: SavedBudget,
  breakers: Schema.Array(SavedBreaker)
})
export type SavedPlatform = typeof SavedPlatform.Type
