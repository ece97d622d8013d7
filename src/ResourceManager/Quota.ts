import type { QuotaFailure } from "../Domain/Failure.js"
import type { Now } from "./Now.js"

/**
 * A platform's quota as the provider itself speaks of it. Where it says that a quota is used up but not until when,
 * it rests for a floor that doubles each time it says so again and shrinks with success.
 */
export interface Quota {
  /** Used up until this wall-clock instant, epoch ms: a reset the provider has named. */
  readonly untilEpochMs: number
  /** Not before this monotonic instant, ms: a wait that it asked for, or a floor. */
  readonly restUntil: number
  readonly rateFloorMs: number
  readonly windowFloorMs: number
  /** When it last said so, monotonic ms: what started before cannot have known. */
  readonly refusedAt: number
}

const RATE_FLOOR_MS = 1_000
const RATE_FLOOR_MAX_MS = 60_000
const WINDOW_FLOOR_MS = 60_000
const WINDOW_FLOOR_MAX_MS = 30 * 60_000
/** How long a platform rests that says too many attempts run at once: about as long as one of them takes. */
const CONCURRENCY_REST_MS = 1_000
/** No provider's quota period is longer than a month: a later instant is a mistake and must not lock a platform for ever. */
const LONGEST_MS = 31 * 24 * 3_600_000

export const initial: Quota = {
  untilEpochMs: 0,
  restUntil: 0,
  rateFloorMs: RATE_FLOOR_MS,
  windowFloorMs: WINDOW_FLOOR_MS,
  refusedAt: Number.NEGATIVE_INFINITY
}

/** Used up until `epochMs`; the later of the old and the new instant holds. */
export const exhaust = (quota: Quota, epochMs: number, now: Now): Quota => ({
  ...quota,
  untilEpochMs: Math.max(quota.untilEpochMs, Math.min(epochMs, now.epochMs + LONGEST_MS))
})

const restFor = (quota: Quota, ms: number, now: Now): Quota => ({
  ...quota,
  restUntil: Math.max(quota.restUntil, now.ms + Math.min(ms, LONGEST_MS))
})

/** An attempt granted at `grantedAt` (monotonic ms) was refused. */
export const refused = (quota: Quota, failure: QuotaFailure, grantedAt: number, now: Now): Quota => {
  const saidUntil = failure.resetsAt === undefined ? quota : exhaust(quota, failure.resetsAt, now)
  const said = failure.retryAfterMs === undefined ? saidUntil : restFor(saidUntil, failure.retryAfterMs, now)
  // a wait of nothing, or a reset that our clock has passed already, would have the next attempt refused at once
  if ((failure.retryAfterMs ?? 0) > 0 || (failure.resetsAt ?? 0) > now.epochMs) return said
  if (failure.reason === "concurrency") return restFor(said, CONCURRENCY_REST_MS, now)
  // attempts that ran side by side are refused for one and the same reason: they count once
  const isNews = grantedAt > quota.refusedAt
  const rested = isNews ? { ...said, refusedAt: now.ms } : said
  return failure.reason === "rate"
    ? {
        ...(isNews ? restFor(rested, quota.rateFloorMs, now) : rested),
        rateFloorMs: isNews ? Math.min(quota.rateFloorMs * 2, RATE_FLOOR_MAX_MS) : quota.rateFloorMs
      }
    : {
        ...(isNews ? restFor(rested, quota.windowFloorMs, now) : rested),
        windowFloorMs: isNews ? Math.min(quota.windowFloorMs * 2, WINDOW_FLOOR_MAX_MS) : quota.windowFloorMs
      }
}

/** An attempt granted at `grantedAt` (monotonic ms) got its answer: the quota is there again, the floors shrink. */
export const answered = (quota: Quota, grantedAt: number): Quota =>
  grantedAt <= quota.refusedAt
    ? quota
    : {
        ...quota,
        rateFloorMs: Math.max(quota.rateFloorMs / 2, RATE_FLOOR_MS),
        windowFloorMs: WINDOW_FLOOR_MS
      }

/** When it is there again, monotonic ms; in the past where it is. */
export const freeAt = (quota: Quota, now: Now): number =>
  Math.max(quota.restUntil, now.ms + (quota.untilEpochMs - now.epochMs))
