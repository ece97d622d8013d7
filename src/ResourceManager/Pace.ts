/**
 * Paces starts for everyone: `burst` at once, then one every interval. One number, the instant at which it will be whole
 * again. Instants are monotonic ms.
 */
export interface Pace {
  readonly burst: number
  readonly earliest: (at: number) => number
  /** The same if `unsent` starts were given back first. */
  readonly earliestWithout: (unsent: number, at: number) => number
  /** The same after one more has started now. */
  readonly earliestAfter: (at: number) => number
  /** How many can start until `until` at the very most, if `unsent` starts were given back first. */
  readonly room: (until: number, unsent: number, at: number) => number
  readonly take: (at: number) => void
  readonly giveBack: () => void
  /** Starts drawn of the burst, and when the next one is there again. */
  readonly state: (at: number) => { readonly used: number; readonly nextFreeAt?: number | undefined }
  readonly set: (burst: number, intervalMs: number) => void
  readonly intervalMs: () => number
}

/** Sums of instants are exact to this, ms. */
const EXACT_MS = 1e-6

export const make = (initialBurst: number, initialIntervalMs: number): Pace => {
  let burst = initialBurst
  let intervalMs = initialIntervalMs
  let wholeAt = 0
  const slack = (): number => (burst - 1) * intervalMs
  return {
    get burst() {
      return burst
    },
    intervalMs: () => intervalMs,
    earliest: (at) => (wholeAt - slack() <= at + EXACT_MS ? at : wholeAt - slack()),
    earliestAfter: (at) => Math.max(at, Math.max(wholeAt, at) + intervalMs - slack()),
    earliestWithout: (unsent, at) => Math.max(at, wholeAt - unsent * intervalMs - slack()),
    room: (until, unsent, at) =>
      Math.max(0, Math.floor((until + slack() - Math.max(wholeAt - unsent * intervalMs, at)) / intervalMs) + 1),
    take: (at) => {
      wholeAt = Math.max(wholeAt, at) + intervalMs
    },
    giveBack: () => {
      wholeAt -= intervalMs
    },
    state: (at) => {
      const used = Math.min(burst, Math.ceil(Math.max(0, wholeAt - at) / intervalMs))
      return { used, nextFreeAt: used === 0 ? undefined : wholeAt - (used - 1) * intervalMs }
    },
    set: (nextBurst, nextIntervalMs) => {
      burst = nextBurst
      intervalMs = nextIntervalMs
    }
  }
}
