import type { AttemptName } from "../Domain/Event.js"
import type { BreakerView } from "../Domain/Lease.js"
import type { BreakerState, PlatformId } from "../Domain/Platform.js"
import { epochOf, monotonicOf, type Now } from "./Now.js"
import type { SavedBreaker } from "./Saved.js"

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
  /** The part of rate and concurrency that may be used from now on, percent; 0 while it is not closed. */
  readonly capacityPercent: number
}

/** A transition, as published; a step of the ramp leads from `closed` to `closed`. */
export interface BreakerTransition extends Transition {
  readonly platform: PlatformId
  /** Set where it is the breaker of this model alone. */
  readonly model?: string | undefined
  /** The attempt whose outcome brought it about. */
  readonly attempt?: AttemptName | undefined
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
 * A circuit breaker as a value: `closed` counts, `open` admits nothing until `until`, `half-open` admits a counted number
 * of probes. With a probe's success it closes, and the capacity that may be used grows in steps. Outcomes of an earlier
 * generation (admitted before the last change of state) change nothing.
 */
export interface Breaker {
  readonly state: BreakerState
  readonly generation: number
  readonly consecutiveFailures: number
  readonly slices: ReadonlyArray<Slice>
  /** While open: when a probe may go. While closed: nothing before it, as a failure asked for. Monotonic ms. */
  readonly until: number
  /** Probes under way. */
  readonly probes: number
  /** How often the open time is doubled when it opens next; every success takes one away. */
  readonly doublings: number
  /** While closed: where on the ramp it is, and when the next step begins, monotonic ms (Infinity on the last). */
  readonly step: number
  readonly stepUntil: number
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
/** Probes under way at once while half-open. */
const PROBES = 1
/** The parts of its capacity, percent, that a platform gets one after the other when its breaker has closed. */
const RAMP: ReadonlyArray<number> = [10, 25, 50, 100]
const FULL = RAMP.length - 1
/** A step of the ramp lasts this part of the open time, and a second at least. */
const STEP_PART = 1 / 6
const STEP_MIN_MS = 1_000
/** What trips it while the ramp lasts. */
const RAMP_FAILURES = 2
const RAMP_RATE_MINIMUM = 4

export const initial: Breaker = {
  state: "closed",
  generation: 0,
  consecutiveFailures: 0,
  slices: [],
  until: 0,
  probes: 0,
  doublings: 0,
  step: FULL,
  stepUntil: Number.POSITIVE_INFINITY
}

export interface Step {
  readonly breaker: Breaker
  readonly transition?: Transition | undefined
}

const percentOf = (state: BreakerState, step: number): number => (state === "closed" ? (RAMP[step] ?? 100) : 0)

/** The part of rate and concurrency that may be used, percent; 0 while it is not closed. */
export const capacityPercent = ({ state, step }: Breaker): number => percentOf(state, step)

const stepMs = ({ openMs }: Policy): number => Math.max(STEP_MIN_MS, openMs * STEP_PART)

const move = (breaker: Breaker, to: BreakerState, why: string, change: Partial<Breaker>): Step => {
  const next = { ...breaker, ...change, state: to, generation: breaker.generation + 1, probes: 0 }
  return { breaker: next, transition: { from: breaker.state, to, why, capacityPercent: capacityPercent(next) } }
}

/**
 * The passing of time alone: an open breaker becomes half-open when its time is over, and the ramp goes on. One change
 * at a time: after a long while there may be another one due.
 */
export const tick = (breaker: Breaker, policy: Policy, at: number): Step => {
  if (breaker.state === "open" && breaker.until <= at) {
    return move(breaker, "half-open", "its open time is over: a probe may go", {})
  }
  if (breaker.state !== "closed" || breaker.stepUntil > at) return { breaker }
  const step = Math.min(breaker.step + 1, FULL)
  const percent = percentOf("closed", step)
  const why = step === FULL ? "it has recovered" : `it recovers: ${percent} % of its capacity may be used`
  return {
    // attempts under way still count: nothing was decided anew
    breaker: {
      ...breaker,
      step,
      stepUntil: step === FULL ? Number.POSITIVE_INFINITY : breaker.stepUntil + stepMs(policy)
    },
    transition: { from: "closed", to: "closed", why, capacityPercent: percent }
  }
}

/** When `tick` changes it next, monotonic ms; Infinity = never by time alone. */
export const changesAt = (breaker: Breaker): number =>
  breaker.state === "open" ? breaker.until : breaker.state === "closed" ? breaker.stepUntil : Number.POSITIVE_INFINITY

export const admits = (breaker: Breaker, at: number): boolean =>
  breaker.until <= at && (breaker.state === "closed" || (breaker.state === "half-open" && breaker.probes < PROBES))

/** Only for a breaker that `admits`. */
export const admit = (breaker: Breaker): { readonly breaker: Breaker; readonly permit: Permit } => ({
  breaker: breaker.state === "half-open" ? { ...breaker, probes: breaker.probes + 1 } : breaker,
  permit: { generation: breaker.generation }
})

const count = (slices: ReadonlyArray<Slice>, hasFailed: boolean, at: number): ReadonlyArray<Slice> => {
  const index = Math.floor(at / SLICE_MS)
  const counted: Array<Slice> = []
  let successes = hasFailed ? 0 : 1
  let failures = hasFailed ? 1 : 0
  for (const slice of slices) {
    if (slice.index === index) {
      successes += slice.successes
      failures += slice.failures
    } else if (slice.index > index - SLICES) counted.push(slice)
  }
  counted.push({ index, successes, failures })
  return counted
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
    doublings: Math.min(breaker.doublings + 1, 30),
    step: FULL,
    stepUntil: Number.POSITIVE_INFINITY
  })
}

/** Why it trips with these outcomes counted, if it does. */
const trips = (breaker: Breaker, policy: Policy, last: string): string | undefined => {
  const isRamping = breaker.step < FULL
  const limit = isRamping ? Math.min(RAMP_FAILURES, policy.failures) : policy.failures
  const { consecutiveFailures, slices } = breaker
  if (consecutiveFailures >= limit) {
    return consecutiveFailures === 1
      ? `a failure: ${last}`
      : `${consecutiveFailures} failures in a row, the last: ${last}`
  }
  const failures = slices.reduce((sum, slice) => sum + slice.failures, 0)
  const outcomes = slices.reduce((sum, slice) => sum + slice.successes, failures)
  return outcomes >= (isRamping ? RAMP_RATE_MINIMUM : RATE_MINIMUM) && failures >= outcomes * RATE_THRESHOLD
    ? `${failures} of ${outcomes} attempts within a minute failed, the last: ${last}`
    : undefined
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
  const probes = Math.max(0, breaker.probes - 1)
  switch (outcome._tag) {
    case "Ignored":
      return { breaker: probes === breaker.probes ? breaker : { ...breaker, probes } }
    case "Success": {
      const doublings = Math.max(0, breaker.doublings - 1)
      if (breaker.state !== "half-open") {
        const slices = count(breaker.slices, false, at)
        return { breaker: { ...breaker, probes, doublings, consecutiveFailures: 0, slices } }
      }
      const why = `its probe got an answer: ${percentOf("closed", 0)} % of its capacity may be used`
      const change = { doublings, consecutiveFailures: 0, slices: [], step: 0, stepUntil: at + stepMs(policy) }
      return move(breaker, "closed", why, change)
    }
    case "Failure": {
      const retryAfterMs = Math.min(outcome.retryAfterMs ?? 0, retryAfterMaxMs)
      const slices = count(breaker.slices, true, at)
      const counted = { ...breaker, probes, consecutiveFailures: breaker.consecutiveFailures + 1, slices }
      const why =
        breaker.state === "half-open" ? `its probe failed: ${outcome.why}` : trips(counted, policy, outcome.why)
      if (why !== undefined) return open(counted, policy, retryAfterMs, why, at, random)
      return {
        breaker: retryAfterMs === 0 ? counted : { ...counted, until: Math.max(breaker.until, at + retryAfterMs) }
      }
    }
  }
}

export const view = (breaker: Breaker, now: Now): BreakerView => ({
  state: breaker.state,
  consecutiveFailures: breaker.consecutiveFailures,
  probesAt: breaker.state === "open" ? epochOf(breaker.until, now) : undefined,
  capacityPercent: capacityPercent(breaker)
})

export const save = (breaker: Breaker, now: Now): SavedBreaker => ({
  state: breaker.state,
  consecutiveFailures: breaker.consecutiveFailures,
  doublings: breaker.doublings,
  until: epochOf(changesAt(breaker), now),
  capacityPercent: capacityPercent(breaker)
})

/** Goes on from what was saved: open for what is left of its time, half-open with its probe still to be made. */
export const restore = (saved: SavedBreaker, policy: Policy, now: Now): Breaker => {
  const until = saved.until === undefined ? now.ms : monotonicOf(saved.until, now)
  // a wall clock that was set back must not keep it longer than it could have stayed
  const within = (longestMs: number): number => Math.min(until, now.ms + longestMs)
  const { consecutiveFailures, doublings, state } = saved
  const kept = { ...initial, state, consecutiveFailures, doublings }
  switch (state) {
    case "open":
      return { ...kept, until: within(Math.max(retryAfterMaxMs, policy.openMs * (1 + JITTER))) }
    case "half-open":
      return kept
    case "closed": {
      const step = RAMP.indexOf(saved.capacityPercent)
      return step < 0 || step === FULL ? kept : { ...kept, step, stepUntil: within(stepMs(policy)) }
    }
  }
}
