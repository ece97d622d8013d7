import type { BucketView } from "../Domain/Lease.js"
import * as Allowance from "./Allowance.js"
import * as Learning from "./Learning.js"
import { MINUTE } from "./Now.js"
import { type Meter, makeMeter } from "./Utilization.js"
import * as Window from "./Window.js"

const hourMs = 3_600_000
/** What the provider said of a limit that nobody configured is forgotten when it has not said it for this long. */
const TOLD_FOR_MS = 15 * MINUTE
/** How far the even pace of requests may be caught up, ms, so that late timers cost nothing. */
const LATE_TIMERS_MS = 1_000
/** The same of tokens and credits, as a part of the window. */
const CATCH_UP_PART = 1 / 20
/** The same of tokens and credits at most, ms. */
const CATCH_UP_MAX_MS = 3_000
/**
 * This part of a window is kept for HIGH calls, one request at least, where that is not more than `RESERVE_MOST` of it:
 * of a longer window always, of the minute's while they draw on it.
 */
const RESERVE_PART = 0.01
const RESERVE_MOST = 0.02
/** Of the minute's burst this part is kept for HIGH calls after a burst. */
const BURST_PART = 0.1
/** Of a longer window lower calls draw this part evenly over its length. */
const EVEN_PART = 0.5
/**
 * Of the minute's requests lower calls draw this part evenly while they wait for them: more would cost the use of the
 * limit, less would leave HIGH calls to wait where little comes free.
 */
const PACED_PART = 0.55
/** Requests may be drawn whole only: less than this of one is not kept. */
const WHOLE_ROUNDING = 0.6
/** What may be drawn of a limit between two saves: a part of it, but as many requests at least. */
const MINUTE_ALLOWANCE = 0.25
const WINDOW_ALLOWANCE = 0.02
const ALLOWED_REQUESTS = 8
/** Others' use of a limit of which only the next refill is told comes back in so many equal steps a window. */
const REFILLS = 20

export type Unit = "requests" | "tokens" | "usd"

export interface Identity {
  readonly unit: Unit
  readonly windowMs: number
  /** Set where it is the limit of one model alone. */
  readonly model?: string | undefined
}

export const nameOf = ({ unit, windowMs }: Identity): string =>
  `${unit}/${windowMs % hourMs === 0 ? `${windowMs / hourMs}h` : `${windowMs / 1_000}s`}`

/** What `nameOf` gave its name to. */
export const identityOf = (name: string, model: string | undefined): Identity | undefined => {
  const [, unit, count, of] = /^(requests|tokens|usd)\/(\d+(?:\.\d+)?)([hs])$/.exec(name) ?? []
  const windowMs = Number(count) * (of === "h" ? hourMs : 1_000)
  return (unit === "requests" || unit === "tokens" || unit === "usd") && windowMs > 0
    ? { unit, windowMs, model }
    : undefined
}

export const keyOf = (identity: Identity): string => `${nameOf(identity)} ${identity.model ?? ""}`

/** What the provider says of one limit. */
export interface Told {
  readonly limit?: number | undefined
  readonly remaining?: number | undefined
  readonly resetsInMs?: number | undefined
  readonly refillsInMs?: number | undefined
}

/** When a reading was taken, as far as we know it. */
export interface Taken {
  /** Grants before it, this one included, may have been counted by then. */
  readonly order: number
  /** What of ours it may have counted at most. */
  readonly own: number
  /** What began to age before this instant had certainly been counted, monotonic ms. */
  readonly countedBefore: number
}

/** Everything that decides how much a limit allows, beside what is configured. */
export interface Rules {
  readonly adapt: boolean
  /** The part of the minute's limits that may be used. */
  readonly fraction: number
  /** Requests that may start at once, where that is configured. */
  readonly burst?: number | undefined
}

/** One limit: its window, and what its whole is as configured, told by the provider, or learned. */
export interface Bucket {
  readonly identity: () => Identity
  readonly isLong: () => boolean
  readonly window: Window.Window
  readonly allowance: Allowance.Allowance
  readonly meter: Meter
  readonly configured: () => number | undefined
  readonly configure: (identity: Identity, limit: number | undefined, rules: Rules, at: number) => void
  /** Its whole without a ramp; Infinity where it is no limit. */
  readonly whole: (at: number) => number
  /** More than this it cannot become by itself; Infinity where the provider's word may raise it. */
  readonly ceiling: () => number
  /** When time alone changes how much it allows, beside what ages: it is reviewed then. */
  readonly changesAt: () => number
  /** Looks again at what time and use have changed. */
  readonly review: (rules: Rules, at: number) => void
  readonly saw: (at: number) => void
  /** A limit the provider names, lower than what holds: what held before, where it changed. */
  readonly tellLimit: (limit: number, rules: Rules, at: number) => { readonly from: number } | undefined
  readonly read: (told: Told, taken: Taken, rules: Rules, at: number) => void
  /** The provider refused a call, and our books do not say why: what held before, where something was learned. */
  readonly refused: (
    amount: number,
    grantedAt: number,
    rules: Rules,
    at: number
  ) => { readonly from: number } | undefined
  /** What is to be saved of what was learned. */
  readonly learned: (at: number) => number | undefined
  readonly restoreLearned: (limit: number, rules: Rules, at: number) => void
  readonly usualAllowance: () => number
  readonly source: (at: number) => BucketView["source"]
}

export const make = (initial: Identity, rules: Rules): Bucket => {
  let identity = initial
  let configured: number | undefined
  let told: { readonly limit: number; readonly at: number } | undefined
  let lastReading = -1
  let adapts = rules.adapt
  const window = Window.make(initial.windowMs)
  const learned = Learning.make()
  const isLong = (): boolean => identity.windowMs > MINUTE
  const isRequests = (): boolean => identity.unit === "requests"
  let applied: { readonly capacity: number; readonly burst: number | undefined } | undefined

  const named = (): number => {
    if (told !== undefined && adapts) return told.limit
    return Math.min(configured ?? Number.POSITIVE_INFINITY, told?.limit ?? Number.POSITIVE_INFINITY)
  }

  const whole = (at: number): number => {
    if (configured === undefined && told !== undefined && at >= told.at + TOLD_FOR_MS) told = undefined
    const most = named()
    return Math.min(most, learned.limit(most, at) ?? Number.POSITIVE_INFINITY)
  }

  const apply = ({ adapt, burst, fraction }: Rules, at: number): void => {
    adapts = adapt
    const full = whole(at)
    const ramped = full * (isLong() ? 1 : fraction)
    const capacity = isRequests() && Number.isFinite(full) && fraction < 1 ? Math.max(1, Math.floor(ramped)) : ramped
    if (applied?.capacity === capacity && applied.burst === burst) return
    applied = { capacity, burst }
    if (capacity === Number.POSITIVE_INFINITY) {
      window.setLevels({ capacity, reserve: 0, isLasting: true, spread: 0, pacedSpread: 0, rounding: 0, catchUpMs: 0 })
      return
    }
    const least = isRequests() ? 1 : 0
    const rounding = isRequests() ? WHOLE_ROUNDING : 0
    const kept = Math.max(least, isRequests() ? Math.floor(capacity * RESERVE_PART) : capacity * RESERVE_PART)
    // a part of the minute's tokens would hold small calls only, and those find room within moments
    const isReserved = kept <= capacity * RESERVE_MOST && (isLong() || isRequests())
    const reserve = isReserved ? kept : 0
    // calls take one request each, but more or fewer tokens: one that waits for its many must not cost the pace
    const catchUpMs = isRequests() ? LATE_TIMERS_MS : Math.min(identity.windowMs * CATCH_UP_PART, CATCH_UP_MAX_MS)
    if (isLong()) {
      const spread = Math.max(0, capacity * EVEN_PART - reserve)
      window.setLevels({ capacity, reserve, isLasting: true, spread, pacedSpread: spread, rounding, catchUpMs })
    } else {
      const atOnce = isRequests() && identity.model === undefined ? Math.min(burst ?? capacity, capacity) : capacity
      const spread = isRequests() ? Math.floor(atOnce * BURST_PART) : atOnce * BURST_PART
      const pacedSpread = isRequests() ? Math.max(spread, Math.floor(capacity * PACED_PART)) : spread
      window.setLevels({ capacity, reserve, isLasting: false, spread, pacedSpread, rounding, catchUpMs })
    }
  }

  const tellLimit: Bucket["tellLimit"] = (limit, rules, at) => {
    if (limit < 1) return undefined
    const from = whole(at)
    told = { limit, at }
    apply(rules, at)
    return whole(at) < from ? { from } : undefined
  }

  const othersFrom = (amount: number, { refillsInMs, resetsInMs }: Told, at: number): ReadonlyArray<Window.Held> => {
    const longest = at + Window.keptMs(identity.windowMs)
    const until = Math.min(longest, at + (resetsInMs ?? identity.windowMs))
    if (refillsInMs === undefined || refillsInMs >= until - at) return [{ until, amount }]
    const step = window.capacity() / REFILLS
    return Array.from({ length: Math.ceil(amount / step) }, (_, index) => ({
      until: Math.min(until, at + refillsInMs + (index * identity.windowMs) / REFILLS),
      amount: Math.min(step, amount - index * step)
    }))
  }

  apply(rules, 0)

  return {
    identity: () => identity,
    isLong,
    window,
    allowance: Allowance.make(),
    meter: makeMeter(),
    configured: () => configured,
    configure: (next, limit, rules, at) => {
      if (next.windowMs !== identity.windowMs) window.setLength(next.windowMs)
      identity = next
      // what was learned below another limit says nothing of this one
      if (limit !== configured) learned.forget()
      configured = limit
      applied = undefined
      apply(rules, at)
    },
    whole,
    ceiling: () => (adapts ? Number.POSITIVE_INFINITY : (configured ?? Number.POSITIVE_INFINITY)),
    changesAt: () =>
      Math.min(
        learned.changesAt(),
        configured === undefined && told !== undefined ? told.at + TOLD_FOR_MS : Number.POSITIVE_INFINITY
      ),
    review: apply,
    saw: (at) => {
      learned.saw(window.own(at), at)
    },
    tellLimit,

    read: (reading, { countedBefore, order, own }, rules, at) => {
      if (order < lastReading) return
      lastReading = order
      const { limit, remaining } = reading
      if (limit !== undefined) tellLimit(limit, rules, at)
      const capacity = window.capacity()
      if (remaining === undefined || capacity === Number.POSITIVE_INFINITY) return
      const left = Math.max(0, remaining)
      // more of ours than the provider counts in all has left its window already
      if (rules.adapt && limit !== undefined) {
        window.hold([], at)
        window.keepAtMost(Math.max(0, limit - left), countedBefore, at)
      }
      const ours = rules.adapt && limit !== undefined ? window.own(at) : Math.max(own, window.own(at))
      window.hold(othersFrom(Math.max(0, capacity - ours - left), reading, at), at)
    },

    refused: (amount, grantedAt, rules, at) => {
      const own = window.own(at)
      const capacity = window.capacity()
      const isExplained = own > capacity || (window.used(at) > own && window.used(at) >= capacity)
      const from = whole(at)
      if (isExplained || !learned.refused(own - amount, named(), grantedAt, at)) return undefined
      apply(rules, at)
      return { from }
    },

    learned: (at) => {
      const full = whole(at)
      return Number.isFinite(full) && full !== configured ? full : undefined
    },
    restoreLearned: (limit, rules, at) => {
      learned.restore(limit, at)
      apply(rules, at)
    },
    usualAllowance: () =>
      Math.max(
        window.capacity() * (isLong() ? WINDOW_ALLOWANCE : MINUTE_ALLOWANCE),
        isRequests() ? ALLOWED_REQUESTS : 0
      ),
    source: (at) => {
      if (configured === undefined) return "learned"
      return whole(at) === configured ? "configured" : "provider"
    }
  }
}
