import type { BreakerState, PlatformId } from "../Domain/Platform.js"

/** When a breaker trips, and for how long. All times in ms. */
export interface Policy {
  /** Consecutive failures that trip it. */
  readonly failures: number
  /** How long it stays open the first time; each time it opens anew doubles it. */
  readonly openMs: number
}

/** How an attempt ended, for the breaker. `Ignored`: it says nothing about the platform's health. */
export type Outcome =
  | { readonly _tag: "Success" }
  | { readonly _tag: "Failure"; readonly why: string; readonly retryAfterMs?: number | undefined }
  | { readonly _tag: "Ignored" }

export interface Transition {
  readonly from: BreakerState
  readonly to: BreakerState
  readonly why: string
}

/** A transition, as published. */
export interface BreakerTransition extends Transition {
  readonly platform: PlatformId
  /** Epoch ms. */
  readonly at: number
}

/** What an admitted attempt gives back with its outcome. */
export interface Permit {
  readonly generation: number
}

/** Successes and failures of one slice of the sliding window. */
interface Slice {
  readonly index: number
  readonly successes: number
  readonly failures: number
}

/**
 * A circuit breaker as a value: `closed` counts, `open` admits nothing until `until`, `half-open` admits one probe at a
 * time. Outcomes of an earlier generation (admitted before the last change of state) change nothing.
 */
export interface Breaker {
  readonly state: BreakerState
  readonly generation: number
  readonly consecutiveFailures: number
  readonly slices: ReadonlyArray<Slice>
  /** While open: when a probe may go. While closed: nothing before it, as a failure asked for. Monotonic ms. */
  readonly until: number
  readonly isProbeOut: boolean
  /** How often the open time is doubled when it opens next; every success takes one away. */
  readonly doublings: number
}

const SLICE_MS = 6_000
const SLICES = 10
/** The rate rule: at least this many outcomes within a minute, half of them failures. */
const RATE_MINIMUM = 20
const RATE_THRESHOLD = 0.5
/** The longest open time that doubling leads to, where the first one is not longer. */
const OPEN_MAX_MS = 15 * 60_000
/** The open time is up to this part longer, so that many instances do not probe a recovering platform at one instant. */
const JITTER = 0.1
/** A sick platform's own wait is kept up to here, ms; then it is probed. */
export const retryAfterMaxMs = 3_600_000

export const initial: Breaker = {
  state: "closed",
  generation: 0,
  consecutiveFailures: 0,
  slices: [],
  until: 0,
  isProbeOut: false,
  doublings: 0
}

export interface Step {
  readonly breaker: Breaker
  readonly transition?: Transition | undefined
}

const move = (breaker: Breaker, to: BreakerState, why: string, change: Partial<Breaker>): Step => ({
  breaker: { ...breaker, ...change, state: to, generation: breaker.generation + 1, isProbeOut: false },
  transition: { from: breaker.state, to, why }
})

/** The passing of time alone: an open breaker becomes half-open when its time is over. */
export const tick = (breaker: Breaker, at: number): Step =>
  breaker.state === "open" && breaker.until <= at
    ? move(breaker, "half-open", "its open time is over: one probe may go", {})
    : { breaker }

export const admits = (breaker: Breaker, at: number): boolean =>
  breaker.until <= at && (breaker.state === "closed" || (breaker.state === "half-open" && !breaker.isProbeOut))

/** Only for a breaker that `admits`. */
export const admit = (breaker: Breaker): { readonly breaker: Breaker; readonly permit: Permit } => ({
  breaker: breaker.state === "half-open" ? { ...breaker, isProbeOut: true } : breaker,
  permit: { generation: breaker.generation }
})

const count = (slices: ReadonlyArray<Slice>, hasFailed: boolean, at: number): ReadonlyArray<Slice> => {
  const index = Math.floor(at / SLICE_MS)
  const kept = slices.filter((slice) => slice.index > index - SLICES && slice.index !== index)
  const current = slices.find((slice) => slice.index === index) ?? { index, successes: 0, failures: 0 }
  return [
    ...kept,
    {
      index,
      successes: current.successes + (hasFailed ? 0 : 1),
      failures: current.failures + (hasFailed ? 1 : 0)
    }
  ]
}

const open = (
  breaker: Breaker,
  policy: Policy,
  retryAfterMs: number,
  why: string,
  at: number,
  random: number
): Step => {
  const doubled = Math.min(policy.openMs * 2 ** breaker.doublings, Math.max(policy.openMs, OPEN_MAX_MS))
  return move(breaker, "open", why, {
    until: Math.max(breaker.until, at + Math.max(doubled * (1 + JITTER * random), retryAfterMs)),
    slices: [],
    doublings: Math.min(breaker.doublings + 1, 30)
  })
}

/** An admitted attempt has ended. `random` (0 to 1) is the jitter of the open time, should it trip. */
export const settle = (
  breaker: Breaker,
  policy: Policy,
  permit: Permit,
  outcome: Outcome,
  at: number,
  random: number
): Step => {
  if (permit.generation !== breaker.generation) return { breaker }
  const returned = { ...breaker, isProbeOut: false }
  switch (outcome._tag) {
    case "Ignored":
      return { breaker: returned }
    case "Success": {
      const doublings = Math.max(0, breaker.doublings - 1)
      return breaker.state === "half-open"
        ? move(breaker, "closed", "its probe got an answer", { doublings, consecutiveFailures: 0, slices: [] })
        : { breaker: { ...returned, doublings, consecutiveFailures: 0, slices: count(breaker.slices, false, at) } }
    }
    case "Failure": {
      const retryAfterMs = Math.min(outcome.retryAfterMs ?? 0, retryAfterMaxMs)
      const slices = count(breaker.slices, true, at)
      const counted = { ...returned, consecutiveFailures: breaker.consecutiveFailures + 1, slices }
      if (breaker.state === "half-open") {
        return open(counted, policy, retryAfterMs, `its probe failed: ${outcome.why}`, at, random)
      }
      if (counted.consecutiveFailures >= policy.failures) {
        const why = `${counted.consecutiveFailures} failures in a row, the last: ${outcome.why}`
        return open(counted, policy, retryAfterMs, why, at, random)
      }
      const failures = slices.reduce((sum, slice) => sum + slice.failures, 0)
      const outcomes = slices.reduce((sum, slice) => sum + slice.successes, failures)
      if (outcomes >= RATE_MINIMUM && failures >= outcomes * RATE_THRESHOLD) {
        const why = `${failures} of ${outcomes} attempts within a minute failed, the last: ${outcome.why}`
        return open(counted, policy, retryAfterMs, why, at, random)
      }
      return {
        breaker: retryAfterMs === 0 ? counted : { ...counted, until: Math.max(breaker.until, at + retryAfterMs) }
      }
    }
  }
}
