import type { Recorded } from "./Recorded.js"

/** Attempts that one window remembers. */
const maxAttempts = 256
/** How long an attempt is remembered, ms. */
export const maxAgeMs = 10 * 60_000

/** The latest attempts, at most 256 and none older than ten minutes. */
export interface SlidingWindow {
  readonly add: (attempt: Recorded) => void
  /** In no order. */
  readonly within: (now: number) => ReadonlyArray<Recorded>
}

export const make = (): SlidingWindow => {
  const ring: Array<Recorded> = []
  let next = 0
  return {
    add: (attempt) => {
      ring[next] = attempt
      next = (next + 1) % maxAttempts
    },
    within: (now) => ring.filter(({ at }) => now - at <= maxAgeMs)
  }
}
