import type { TokensCounted } from "../Domain/Platform.js"
import type { SimulatedLimits, SimulatedPlatform, WindowLimit } from "./Options.js"

/** Sums of fractions (costs, credits) are held to be equal within this. */
const rounding = 1e-9

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
    if (left <= allowed + rounding) return 0
    for (let index = this.head; index < this.times.length; index++) {
      left -= this.amounts[index] ?? 0
      if (left <= allowed + rounding) return (this.times[index] ?? now) + this.windowMs - now
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
    if (this.head === this.times.length) this.sum = 0
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

export type ViolationKind = "requests" | "tokens" | "credits" | "concurrency"

/** A request that a limit forbids. */
export interface Violation {
  readonly kind: ViolationKind
  /** Set where it is the limit of this model alone. */
  readonly model?: string | undefined
  /** Until the same request would be admitted by this limit, ms. */
  readonly waitMs: number
  /** The limit's figure, its window (0 for concurrency), what of it was used and what was asked. */
  readonly limit: number
  readonly windowMs: number
  readonly used: number
  readonly asked: number
}

/** What a platform, or one of its models, allows in windows. */
interface Windows {
  readonly requests: ReadonlyArray<RollingWindow>
  readonly tokens: ReadonlyArray<RollingWindow>
}

const windowsOf = (limits: ReadonlyArray<WindowLimit> | undefined): ReadonlyArray<RollingWindow> =>
  (limits ?? []).map((limit) => new RollingWindow(limit))

export const minuteMs = 60_000
/** A request finds out only later that a place is free again, ms. */
const concurrencyWaitMs = 1_000

/** A platform's limits, enforced. Refused requests count against none of them. */
export class Limiter implements Windows {
  readonly requests: ReadonlyArray<RollingWindow>
  readonly tokens: ReadonlyArray<RollingWindow>
  readonly credits: ReadonlyArray<RollingWindow>
  /** By model: what is allowed of it alone. */
  readonly models: ReadonlyMap<string, Windows>
  readonly tokensCounted: TokensCounted
  inFlight = 0
  maxInFlight = 0
  private readonly limits: SimulatedLimits
  private readonly prices: NonNullable<SimulatedPlatform["prices"]>
  private readonly inFlightOf = new Map<string, number>()

  constructor(limits: SimulatedLimits = {}, prices: SimulatedPlatform["prices"] = {}) {
    this.limits = limits
    this.prices = prices
    this.requests = windowsOf(limits.requests)
    this.tokens = windowsOf(limits.tokens)
    this.credits = windowsOf(limits.credits?.map(({ limitUsd, windowMs }) => ({ limit: limitUsd, windowMs })))
    this.models = new Map(
      Object.entries(limits.models ?? {}).map(([model, own]) => [
        model,
        { requests: windowsOf(own.requests), tokens: windowsOf(own.tokens) }
      ])
    )
    this.tokensCounted = limits.tokensCounted ?? "reserved"
  }

  /** Why no further request of the model may run now, if none may. */
  full(model: string): Violation | undefined {
    const { maxConcurrent, maxConcurrentPerModel, models = {} } = this.limits
    const ofModel = this.inFlightOf.get(model) ?? 0
    const own = Math.min(
      maxConcurrentPerModel ?? Number.POSITIVE_INFINITY,
      models[model]?.maxConcurrent ?? Number.POSITIVE_INFINITY
    )
    const violation = { kind: "concurrency", waitMs: concurrencyWaitMs, windowMs: 0, asked: 1 } as const
    if (maxConcurrent !== undefined && this.inFlight >= maxConcurrent) {
      return { ...violation, limit: maxConcurrent, used: this.inFlight }
    }
    return ofModel >= own ? { ...violation, model, limit: own, used: ofModel } : undefined
  }

  /** Counts the request and takes its place, or says which limit forbids it and changes nothing. */
  admit(model: string, inputTokens: number, maxOutputTokens: number, now: number): Violation | undefined {
    const full = this.full(model)
    if (full !== undefined) return full
    const cost =
      this.tokensCounted === "reserved"
        ? inputTokens + maxOutputTokens
        : this.tokensCounted === "input"
          ? inputTokens
          : 0
    const requestCost = this.limits.models?.[model]?.requestCost ?? 1
    const costIn = ({ windowMs }: RollingWindow) => (windowMs > minuteMs ? requestCost : 1)
    // A provider that counts at completion cannot know the cost yet: it refuses once the window is used up.
    const isActual = this.tokensCounted === "actual"
    const tokensAsked = () => (isActual ? 1 : cost)
    const own = this.models.get(model)
    const violation = longestWait([
      ...over(this.requests, "requests", costIn, now),
      ...over(own?.requests ?? [], "requests", costIn, now, model),
      ...over(this.tokens, "tokens", tokensAsked, now),
      ...over(own?.tokens ?? [], "tokens", tokensAsked, now, model),
      ...over(this.credits, "credits", () => 0, now)
    ])
    if (violation !== undefined) return violation
    for (const { requests, tokens } of this.counting(model)) {
      for (const window of requests) window.add(costIn(window), now)
      if (!isActual) for (const window of tokens) window.add(cost, now)
    }
    this.inFlight++
    this.inFlightOf.set(model, (this.inFlightOf.get(model) ?? 0) + 1)
    this.maxInFlight = Math.max(this.maxInFlight, this.inFlight)
    return undefined
  }

  /** Ends an admitted request that used so many tokens. */
  release(model: string, inputTokens: number, outputTokens: number, now: number): void {
    this.inFlight--
    const left = (this.inFlightOf.get(model) ?? 0) - 1
    if (left > 0) this.inFlightOf.set(model, left)
    else this.inFlightOf.delete(model)
    if (this.tokensCounted === "actual") {
      for (const { tokens } of this.counting(model)) {
        for (const window of tokens) window.add(inputTokens + outputTokens, now)
      }
    }
    const { input = 0, output = 0 } = this.prices[model] ?? {}
    for (const window of this.credits) window.add((inputTokens * input + outputTokens * output) / 1e6, now)
  }

  private counting(model: string): ReadonlyArray<Windows> {
    const own = this.models.get(model)
    return own === undefined ? [this] : [this, own]
  }
}

/** The windows that what is asked of them does not fit into; of nothing asked, those that are used up. */
const over = (
  windows: ReadonlyArray<RollingWindow>,
  kind: ViolationKind,
  askedOf: (window: RollingWindow) => number,
  now: number,
  model?: string
): ReadonlyArray<Violation> =>
  windows.flatMap((window) => {
    const asked = askedOf(window)
    const used = window.used(now)
    const { limit, windowMs } = window
    const fits = asked === 0 ? used < limit - rounding : used + asked <= limit + rounding
    // Where nothing is asked the least bit has to come back.
    const allowed = asked === 0 ? limit - 2 * rounding : limit - asked
    return fits ? [] : [{ kind, model, waitMs: window.untilAtMost(allowed, now), limit, windowMs, used, asked }]
  })

const longestWait = (violations: ReadonlyArray<Violation>): Violation | undefined =>
  violations.reduce<Violation | undefined>(
    (found, violation) => (found === undefined || violation.waitMs > found.waitMs ? violation : found),
    undefined
  )

/** The window a platform speaks of in its headers: the shortest. */
export const shortest = (windows: ReadonlyArray<RollingWindow>): RollingWindow | undefined =>
  windows.reduce<RollingWindow | undefined>(
    (found, window) => (found === undefined || window.windowMs < found.windowMs ? window : found),
    undefined
  )

/** The window of exactly that length, where one is kept. */
export const windowOf = (windows: ReadonlyArray<RollingWindow>, windowMs: number): RollingWindow | undefined =>
  windows.find((window) => window.windowMs === windowMs)
