import { type Answer, answerOf, inputTokensOf } from "./Answer.js"
import { openAiDuration } from "./Errors.js"
import { Limiter, minuteMs, type RollingWindow, shortest, type Violation } from "./Limits.js"
import {
  basePathOf,
  type Dialect,
  defaultContextWindow,
  defaultMaxOutputTokens,
  dialectOf,
  type SimulatedPlatform
} from "./Options.js"
import type { SimulatedRequest } from "./Request.js"
import type { PlatformStats } from "./Stats.js"
import { SubscriptionState } from "./Subscription.js"

export type PlatformCounters = {
  -readonly [Key in
    | "received"
    | "answered"
    | "streams"
    | "refused"
    | "inputTokens"
    | "outputTokens"
    | "aborted"
    | "faultsInjected"
    | "refusedBySubscription"
    | "otherRequests"]: PlatformStats[Key]
}

/** One simulated platform: what it is told to be, its limits, and what it has seen. */
export class PlatformState {
  readonly id: string
  readonly options: SimulatedPlatform
  readonly dialect: Dialect
  /** Below the platform's prefix. */
  readonly basePath: string
  readonly contextWindow: number
  readonly limiter: Limiter
  /** Of a platform of the dialect `anthropic`: what its subscription allows. */
  readonly subscription: SubscriptionState | undefined
  readonly violations = { requests: 0, tokens: 0, credits: 0, concurrency: 0 }
  readonly counters: PlatformCounters = {
    received: 0,
    answered: 0,
    streams: 0,
    refused: 0,
    inputTokens: 0,
    outputTokens: 0,
    aborted: 0,
    faultsInjected: 0,
    refusedBySubscription: 0,
    otherRequests: 0
  }
  private readonly models: ReadonlySet<string>
  private readonly seed: number
  private readonly latencyScale: number

  /** `wallMs`: now, epoch ms. */
  constructor(id: string, options: SimulatedPlatform, seed: number, latencyScale: number, wallMs: number) {
    this.id = id
    this.options = options
    this.dialect = dialectOf(options)
    this.basePath = basePathOf(this.dialect)
    this.contextWindow = options.contextWindow ?? defaultContextWindow
    this.limiter = new Limiter(options.limits, options.prices)
    this.subscription = this.dialect === "anthropic" ? new SubscriptionState(wallMs) : undefined
    this.models = new Set(options.models)
    this.seed = seed
    this.latencyScale = latencyScale
  }

  knows(model: string): boolean {
    return this.models.has(model)
  }

  inputTokens(request: SimulatedRequest): number {
    return inputTokensOf(request)
  }

  /** What a request counts as output where tokens are counted as reserved. */
  reservedOutput(request: SimulatedRequest): number {
    return request.maxOutputTokens ?? this.options.maxOutputTokens ?? defaultMaxOutputTokens
  }

  /** `said`: what it says in place of its own words. */
  answer(request: SimulatedRequest, inputTokens: number, said?: string): Answer {
    return answerOf({
      seed: this.seed,
      platformId: this.id,
      platform: this.options,
      latencyScale: this.latencyScale,
      request,
      inputTokens,
      said
    })
  }

  /** The windows that a ChatGPT plan speaks of: the primary one, and the secondary one. */
  private planWindows(): ReadonlyArray<RollingWindow> {
    if (this.dialect !== "openai" || this.options.plan !== true) return []
    return this.limiter.requests
      .filter(({ windowMs }) => windowMs > minuteMs)
      .sort((left, right) => left.windowMs - right.windowMs)
      .slice(0, 2)
  }

  /** Whether it is a window of a ChatGPT plan that is used up. */
  isOfPlan({ kind, model, windowMs }: Violation): boolean {
    return (
      kind === "requests" && model === undefined && this.planWindows().some((window) => window.windowMs === windowMs)
    )
  }

  /** What the platform's answers say of its limits: OpenAI's and Anthropic's do. `wallMs` is epoch ms. */
  limitHeaders(now: number, wallMs: number): Readonly<Record<string, string>> {
    if (this.subscription !== undefined) return this.subscription.headers(wallMs)
    if (this.dialect !== "openai") return {}
    const headers: Record<string, string> = {}
    for (const [index, window] of this.planWindows().entries()) {
      const used = window.used(now)
      const isUsedUp = used > window.limit - 1
      // While some is left it is whole when nothing is used; once nothing is left the next request is what counts.
      const resetsInMs = isUsedUp ? window.untilAtMost(window.limit - 1, now) : window.untilEmpty(now)
      const prefix = `x-codex-${index === 0 ? "primary" : "secondary"}`
      headers[`${prefix}-used-percent`] = String(isUsedUp ? 100 : Math.floor((used / window.limit) * 10_000) / 100)
      headers[`${prefix}-window-minutes`] = String(window.windowMs / minuteMs)
      headers[`${prefix}-reset-at`] = String(Math.ceil((wallMs + resetsInMs) / 1_000))
    }
    for (const unit of ["requests", "tokens"] as const) {
      const window = shortest(this.limiter[unit])
      if (this.options.plan === true || window === undefined) continue
      headers[`x-ratelimit-limit-${unit}`] = String(window.limit)
      headers[`x-ratelimit-remaining-${unit}`] = String(Math.max(0, window.limit - window.used(now)))
      headers[`x-ratelimit-reset-${unit}`] = openAiDuration(window.untilEmpty(now))
    }
    return headers
  }

  stats(now: number): PlatformStats {
    return {
      ...this.counters,
      violations: { ...this.violations },
      inFlight: this.limiter.inFlight,
      maxInFlight: this.limiter.maxInFlight,
      limits: {
        requests: this.limiter.requests.map((window) => window.read(now)),
        tokens: this.limiter.tokens.map((window) => window.read(now)),
        credits: this.limiter.credits.map((window) => window.read(now)),
        models: Object.fromEntries(
          [...this.limiter.models].map(([model, { requests, tokens }]) => [
            model,
            {
              requests: requests.map((window) => window.read(now)),
              tokens: tokens.map((window) => window.read(now))
            }
          ])
        )
      }
    }
  }
}
