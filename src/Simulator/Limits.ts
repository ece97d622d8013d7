import type { TokensCounted } from "../Domain/Platform.js"
import type { SimulatedLimits, WindowLimit } from "./Options.js"

/** Whole windows kept for the utilisation figures. */
const historyLength = 120

export interface WindowUse {
  readonly limit: number
  readonly windowMs: number
  /** Counted in the window that ends now. */
  readonly used: number
  /** The most that was ever counted in one window. */
  readonly peak: number
  /** Counted since the start. */
  readonly total: number
  /** Counted in each whole window since the start laid end to end, the latest 120, the running one last. */
  readonly history: ReadonlyArray<number>
}

/** Sum over the entries younger than the window. Times are ms and must not go back. */
export class RollingWindow {
  readonly limit: number
  readonly windowMs: number
  private readonly times: Array<number> = []
  private readonly amounts: Array<number> = []
  private head = 0
  private sum = 0
  private peak = 0
  private total = 0
  private history: Array<number> = [0]
  private historyWindow = 0

  constructor({ limit, windowMs }: WindowLimit) {
    this.limit = limit
    this.windowMs = windowMs
  }

  used(now: number): number {
    this.forget(now)
    return this.sum
  }

  add(amount: number, now: number): void {
    this.forget(now)
    this.turnHistory(now)
    if (amount <= 0) return
    this.times.push(now)
    this.amounts.push(amount)
    this.sum += amount
    this.total += amount
    this.peak = Math.max(this.peak, this.sum)
    this.history[this.history.length - 1] = (this.history[this.history.length - 1] ?? 0) + amount
  }

  /** How long until at most `allowed` is used, ms; the whole window where that can never be. */
  untilAtMost(allowed: number, now: number): number {
    this.forget(now)
    let left = this.sum
    if (left <= allowed) return 0
    for (let index = this.head; index < this.times.length; index++) {
      left -= this.amounts[index] ?? 0
      if (left <= allowed) return (this.times[index] ?? now) + this.windowMs - now
    }
    return this.windowMs
  }

  /** How long until nothing is used, ms. */
  untilEmpty(now: number): number {
    this.forget(now)
    const last = this.times[this.times.length - 1]
    return last === undefined || this.head === this.times.length ? 0 : last + this.windowMs - now
  }

  read(now: number): WindowUse {
    const used = this.used(now)
    this.turnHistory(now)
    return {
      limit: this.limit,
      windowMs: this.windowMs,
      used,
      peak: this.peak,
      total: this.total,
      history: [...this.history]
    }
  }

  private forget(now: number): void {
    while (this.head < this.times.length && now - (this.times[this.head] ?? 0) >= this.windowMs) {
      this.sum -= this.amounts[this.head] ?? 0
      this.head++
    }
    if (this.head > 256 && this.head * 2 > this.times.length) {
      this.times.splice(0, this.head)
      this.amounts.splice(0, this.head)
      this.head = 0
    }
  }

  private turnHistory(now: number): void {
    const current = Math.floor(now / this.windowMs)
    const passed = Math.min(current - this.historyWindow, historyLength)
    for (let index = 0; index < passed; index++) this.history.push(0)
    if (this.history.length > historyLength) this.history = this.history.slice(-historyLength)
    this.historyWindow = Math.max(this.historyWindow, current)
  }
}

export type ViolationKind = "requests" | "tokens" | "concurrency"

/** A request that a limit forbids. */
export interface Violation {
  readonly kind: ViolationKind
  /** Until the same request would be admitted by this limit, ms. */
  readonly waitMs: number
  /** The limit's figure, its window (0 for concurrency), what of it was used and what was asked. */
  readonly limit: number
  readonly windowMs: number
  readonly used: number
  readonly asked: number
}

/** A platform's limits, enforced. Refused requests count against none of them. */
export class Limiter {
  readonly requests: ReadonlyArray<RollingWindow>
  readonly tokens: ReadonlyArray<RollingWindow>
  readonly tokensCounted: TokensCounted
  readonly maxConcurrent: number
  inFlight = 0
  maxInFlight = 0

  constructor(limits: SimulatedLimits | undefined) {
    this.requests = (limits?.requests ?? []).map((window) => new RollingWindow(window))
    this.tokens = (limits?.tokens ?? []).map((window) => new RollingWindow(window))
    this.tokensCounted = limits?.tokensCounted ?? "reserved"
    this.maxConcurrent = limits?.maxConcurrent ?? Number.POSITIVE_INFINITY
  }

  get full(): boolean {
    return this.inFlight >= this.maxConcurrent
  }

  /** Counts the request and takes its place, or says which limit forbids it and changes nothing. */
  admit(inputTokens: number, maxOutputTokens: number, now: number): Violation | undefined {
    if (this.full) {
      return {
        kind: "concurrency",
        waitMs: 1_000,
        limit: this.maxConcurrent,
        windowMs: 0,
        used: this.inFlight,
        asked: 1
      }
    }
    const cost =
      this.tokensCounted === "reserved"
        ? inputTokens + maxOutputTokens
        : this.tokensCounted === "input"
          ? inputTokens
          : 0
    // A provider that counts at completion cannot know the cost yet: it refuses once the window is used up.
    const asked = this.tokensCounted === "actual" ? 1 : cost
    const violation = longestWait(this.requests, "requests", 1, now) ?? longestWait(this.tokens, "tokens", asked, now)
    if (violation !== undefined) return violation
    for (const window of this.requests) window.add(1, now)
    if (this.tokensCounted !== "actual") for (const window of this.tokens) window.add(cost, now)
    this.inFlight++
    this.maxInFlight = Math.max(this.maxInFlight, this.inFlight)
    return undefined
  }

  /** Ends an admitted request that used so many tokens. */
  release(usedTokens: number, now: number): void {
    this.inFlight--
    if (this.tokensCounted === "actual") for (const window of this.tokens) window.add(usedTokens, now)
  }
}

const longestWait = (
  windows: ReadonlyArray<RollingWindow>,
  kind: "requests" | "tokens",
  asked: number,
  now: number
): Violation | undefined => {
  let longest: Violation | undefined
  for (const window of windows) {
    const used = window.used(now)
    if (used + asked <= window.limit) continue
    const waitMs = window.untilAtMost(window.limit - asked, now)
    if (longest === undefined || waitMs > longest.waitMs) {
      longest = { kind, waitMs, limit: window.limit, windowMs: window.windowMs, used, asked }
    }
  }
  return longest
}

/** The window a platform speaks of in its headers: the shortest. */
export const shortest = (windows: ReadonlyArray<RollingWindow>): RollingWindow | undefined =>
  windows.reduce<RollingWindow | undefined>(
    (found, window) => (found === undefined || window.windowMs < found.windowMs ? window : found),
    undefined
  )

export const longest = (windows: ReadonlyArray<RollingWindow>): RollingWindow | undefined =>
  windows.reduce<RollingWindow | undefined>(
    (found, window) => (found === undefined || window.windowMs > found.windowMs ? window : found),
    undefined
  )
