import { rankOf } from "./percentile.js"

/** Values that one window remembers. */
const maxValues = 256

/** The latest values, at most 256 and none older than the window's age, in their order of size: asked for at every attempt. */
export interface RankedWindow {
  /** The instants of values never go back, ms. */
  readonly add: (value: number, at: number) => void
  readonly size: (now: number) => number
  /** Nearest rank, as `percentile` has it. */
  readonly percentile: (share: number, now: number) => number | undefined
}

export const make = (maxAgeMs: number): RankedWindow => {
  /** The oldest first. */
  let values: Array<{ readonly value: number; readonly at: number }> = []
  let oldest = 0
  /** The smallest first. */
  const ranked: Array<number> = []

  /** The first place whose value is not smaller. */
  const placeOf = (value: number): number => {
    let low = 0
    let high = ranked.length
    while (low < high) {
      const middle = (low + high) >> 1
      if ((ranked[middle] ?? 0) < value) low = middle + 1
      else high = middle
    }
    return low
  }

  const forget = (value: number): void => {
    ranked.splice(placeOf(value), 1)
    oldest += 1
    if (oldest < maxValues) return
    values = values.slice(oldest)
    oldest = 0
  }

  const forgetOld = (now: number): void => {
    for (let first = values[oldest]; first !== undefined && now - first.at > maxAgeMs; first = values[oldest]) {
      forget(first.value)
    }
  }

  return {
    add: (value, at) => {
      values.push({ value, at })
      ranked.splice(placeOf(value), 0, value)
      const first = values[oldest]
      if (ranked.length > maxValues && first !== undefined) forget(first.value)
    },
    size: (now) => {
      forgetOld(now)
      return ranked.length
    },
    percentile: (share, now) => {
      forgetOld(now)
      return ranked[rankOf(ranked.length, share)]
    }
  }
}
