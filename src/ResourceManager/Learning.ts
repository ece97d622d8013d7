import { MINUTE } from "./Now.js"

/** What is left of the amount at which the provider refused. */
const DECREASE = 0.7
/** Gained in every minute in which all of it was used and nothing refused: this part of the whole, one at least. */
const INCREASE = 0.05
/** Used this far it counts as saturated. */
const SATURATED = 0.9
/** A limit that nobody came near for this long is forgotten: whatever caused it is over. */
const FORGOTTEN_AFTER_MS = 15 * MINUTE
/** Refused with fewer of our own attempts in the window, a rest as long as the provider asks for is all there is to learn. */
const LEAST_IN_USE = 5
/** Of a configured limit no less than this is left: below it others use the key, which no limit of ours mends. */
const LEAST_PART = 0.1

/**
 * A limit that is learned from refusals: additive increase, multiplicative decrease. It never exceeds the ceiling that is
 * configured; where none is, it is forgotten with time. Instants are monotonic ms.
 */
export interface Learned {
  /** As it stands now; undefined = nothing is learned. */
  readonly limit: (ceiling: number, at: number) => number | undefined
  /** Refused with `inUse` held by others of our own attempts; whether that is news. */
  readonly refused: (inUse: number, ceiling: number, grantedAt: number, at: number) => boolean
  /** So much is in use now. */
  readonly saw: (inUse: number, at: number) => void
  /** What was learned before the process started. */
  readonly restore: (limit: number, at: number) => void
  readonly forget: () => void
  /** When time alone changes it next. */
  readonly changesAt: () => number
}

export const make = (): Learned => {
  let limit: number | undefined
  let refusedAt = Number.NEGATIVE_INFINITY
  let reviewAt = 0
  let nearAt = 0
  let isSaturated = false

  const set = (next: number, at: number): void => {
    limit = next
    reviewAt = at + MINUTE
    nearAt = at
    isSaturated = false
  }

  return {
    limit: (ceiling, at) => {
      if (limit === undefined) return undefined
      if (at >= reviewAt) {
        const whole = Number.isFinite(ceiling) ? ceiling : limit
        if (isSaturated) limit += Math.max(1, Math.floor(whole * INCREASE))
        isSaturated = false
        reviewAt = at + MINUTE
      }
      if (limit >= ceiling || at >= nearAt + FORGOTTEN_AFTER_MS) limit = undefined
      return limit
    },

    refused: (inUse, ceiling, grantedAt, at) => {
      // attempts that ran side by side are refused for one and the same reason, and few for no fault of ours
      if (grantedAt <= refusedAt || inUse < LEAST_IN_USE) return false
      refusedAt = at
      const least = Number.isFinite(ceiling) ? ceiling * LEAST_PART : 1
      const next = Math.max(1, Math.floor(least), Math.floor(inUse * DECREASE))
      if (next >= Math.min(limit ?? ceiling, ceiling)) return false
      set(next, at)
      return true
    },

    saw: (inUse, at) => {
      if (limit === undefined || inUse < limit * SATURATED) return
      isSaturated = true
      nearAt = at
    },

    restore: set,
    changesAt: () =>
      limit === undefined
        ? Number.POSITIVE_INFINITY
        : Math.min(nearAt + FORGOTTEN_AFTER_MS, isSaturated ? reviewAt : Number.POSITIVE_INFINITY),
    forget: () => {
      limit = undefined
    }
  }
}
