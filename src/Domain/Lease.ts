import { Schema } from "effect"
import type { AttemptFailure } from "./Failure.js"
import { BreakerState, type Capability, PlatformId, PlatformStatus, TokensCounted, WireFormat } from "./Platform.js"
import { Instant } from "./Time.js"
import type { Usage } from "./Usage.js"

/** What a call needs of the platform and model that serve it. */
export interface Requirement {
  readonly capabilities: ReadonlyArray<Capability>
  /** Input and output together, tokens: the context window must hold it. */
  readonly contextTokens: number
  readonly model?: string | undefined
  readonly platform?: PlatformId | undefined
  readonly deny?: ReadonlyArray<PlatformId> | undefined
}

/** A platform that can serve a call, and how well it suits (weight > 0). */
export interface Candidate {
  readonly platform: PlatformId
  readonly model: string
  readonly weight: number
}

/** How an attempt ended, for the books of the one who lent the capacity. */
export type Settlement =
  | { readonly _tag: "Succeeded"; readonly usage: Usage }
  | { readonly _tag: "Failed"; readonly failure: AttemptFailure }
  /** Our deadline, a cancel, shutdown: says nothing about the platform. */
  | { readonly _tag: "Ignored" }

/** One limit of a platform as it stands. */
export const BucketView = Schema.Struct({
  /** Such as `requests/60s` or `requests/5h`. */
  name: Schema.String,
  unit: Schema.Literal("requests", "tokens"),
  tokensCounted: Schema.optional(TokensCounted),
  windowMs: Schema.Number,
  capacity: Schema.Number,
  /** What counts against the window now, reservations of running attempts included. */
  used: Schema.Number,
  /** When something of it comes free again, if any of it is used. */
  nextFreeAt: Schema.optional(Instant),
  source: Schema.Literal("configured", "learned", "provider")
}).annotations({ identifier: "Bucket" })
export type BucketView = typeof BucketView.Type

export const BreakerView = Schema.Struct({
  state: BreakerState,
  consecutiveFailures: Schema.Int,
  /** When an open breaker lets a probe through. */
  probesAt: Schema.optional(Instant)
}).annotations({ identifier: "Breaker" })
export type BreakerView = typeof BreakerView.Type

export const PlatformResources = Schema.Struct({
  platform: PlatformId,
  buckets: Schema.Array(BucketView),
  permits: Schema.Struct({ inUse: Schema.Int, max: Schema.Int }),
  breaker: BreakerView,
  /** Used up until this instant, as the provider said it. */
  exhaustedUntil: Schema.optional(Instant)
}).annotations({ identifier: "PlatformResources" })
export type PlatformResources = typeof PlatformResources.Type

const QueueDepth = Schema.Struct({ depth: Schema.Int, oldestWaitMs: Schema.Number })

/** Every limit, permit, breaker and queue as it stands now. */
export const ResourcesView = Schema.Struct({
  platforms: Schema.Array(PlatformResources),
  /** Calls that wait for a lease in this process. */
  queue: Schema.Struct({ HIGH: QueueDepth, MEDIUM: QueueDepth, LOW: QueueDepth })
}).annotations({ identifier: "Resources" })
export type ResourcesView = typeof ResourcesView.Type

/** What was measured of a platform over its latest attempts (at most 256, at most 10 minutes old). */
export const Performance = Schema.Struct({
  attempts: Schema.Int,
  /** Share of them that failed by the platform's fault, 0 to 1. */
  errorRate: Schema.Number,
  durationMsP50: Schema.optional(Schema.Number),
  durationMsP95: Schema.optional(Schema.Number),
  timeToFirstTokenMsP50: Schema.optional(Schema.Number),
  timeToFirstTokenMsP95: Schema.optional(Schema.Number),
  tokens: Schema.Int
}).annotations({ identifier: "Performance" })
export type Performance = typeof Performance.Type

/** A platform as `/v1/platforms` shows it. */
export const PlatformView = Schema.Struct({
  id: PlatformId,
  wire: WireFormat,
  baseUrl: Schema.String,
  model: Schema.String,
  capabilities: Schema.Array(Schema.String),
  status: PlatformStatus,
  /** Why it is not `available`. */
  reasons: Schema.Array(Schema.String),
  checkedAt: Schema.optional(Instant),
  breaker: BreakerState,
  inFlight: Schema.Int,
  performance: Performance
}).annotations({ identifier: "Platform" })
export type PlatformView = typeof PlatformView.Type
