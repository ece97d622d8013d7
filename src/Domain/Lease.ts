import { Schema } from "effect"
import type { AttemptFailure } from "./Failure.js"
import {
  BreakerState,
  type Capability,
  PlatformId,
  PlatformStatus,
  PlatformWire,
  type RoutingPolicy,
  TokensCounted
} from "./Platform.js"
import { TenantId } from "./Task.js"
import { Instant } from "./Time.js"
import type { Usage } from "./Usage.js"

/** What a call needs of the platform and model that serve it. */
export interface Requirement {
  readonly capabilities: ReadonlyArray<Capability>
  /** Input and output together, tokens: the context window must hold it. */
  readonly contextTokens: number
  /** The estimate of the input in `contextTokens`. */
  readonly inputTokens?: number | undefined
  /** The bound of the output in `contextTokens`. */
  readonly outputTokens?: number | undefined
  /** A model's name, alone or as `platform/model`, or a class of models. */
  readonly model?: string | undefined
  readonly platform?: PlatformId | undefined
  readonly deny?: ReadonlyArray<PlatformId> | undefined
  /** What the choice goes by; default as configured. */
  readonly policy?: RoutingPolicy | undefined
  /** Calls with the same key go to the same platform where that is fair to the others. */
  readonly affinityKey?: string | undefined
  /** What the call may cost at most at list prices, USD. */
  readonly maxCostUsd?: number | undefined
  /** Input and output that the call may use at most, tokens. */
  readonly maxTokens?: number | undefined
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

/** A field, with the sentence that describes it to users of the API. */
const field = <A, I>(schema: Schema.Schema<A, I>, description: string) =>
  Schema.propertySignature(schema).annotations({ description })
const maybe = <A, I>(schema: Schema.Schema<A, I>, description: string) =>
  Schema.optional(schema).annotations({ description })

/** Which part of what a limit allows was used, of late. */
export const Utilization = Schema.Struct({
  oneMinute: field(Schema.Number, "The part used over the last minute, 0 to 1."),
  fiveMinutes: field(Schema.Number, "The part used over the last five minutes, 0 to 1.")
}).annotations({ identifier: "Utilization" })
export type Utilization = typeof Utilization.Type

/** One limit of a platform as it stands. */
export const BucketView = Schema.Struct({
  name: field(Schema.String, "Such as `requests/60s` or `requests/5h`."),
  model: maybe(Schema.String, "Set where it is the limit of one model alone."),
  unit: field(
    Schema.Literal("requests", "tokens", "usd", "percent"),
    "What is counted; `percent` where the provider tells only the used part of a limit."
  ),
  tokensCounted: maybe(TokensCounted, "How the provider counts an attempt's tokens."),
  windowMs: field(Schema.Number, "Length of the rolling window, ms."),
  capacity: field(
    Schema.Number,
    "Its whole, as configured, learned or told by the provider; less of it while a breaker's ramp lasts."
  ),
  used: field(Schema.Number, "What counts against the window now, reservations of running attempts included."),
  level: field(Schema.Number, "What is free now: `capacity` less `used`, never below 0."),
  keptForHigh: field(Schema.Number, "The part of `level` that only HIGH calls may draw now."),
  refillPerSecond: field(Schema.Number, "What comes free per second, over the whole window."),
  nextRefillAt: maybe(Instant, "When something of it comes free again; absent where none of it is used."),
  source: field(
    Schema.Literal("configured", "learned", "provider"),
    "`configured`; `provider`: its word holds in place of the configured limit; `learned`: nobody configured it."
  ),
  utilization: field(Utilization, "How far it was used of late.")
}).annotations({ identifier: "Bucket" })
export type BucketView = typeof BucketView.Type

/** A circuit breaker as it stands. */
export const BreakerView = Schema.Struct({
  state: BreakerState,
  consecutiveFailures: field(Schema.Int, "Failures in a row."),
  probesAt: maybe(Instant, "When an open breaker lets a probe through."),
  capacityPercent: field(
    Schema.Number,
    "The part of rate and concurrency that may be used, percent: less than 100 while it recovers."
  )
}).annotations({ identifier: "Breaker" })
export type BreakerView = typeof BreakerView.Type

/** A quota that is used up until its reset, as the provider said it. */
export const ExhaustedQuota = Schema.Struct({
  window: field(Schema.String, "The provider's name of the quota, or `quota`."),
  model: maybe(Schema.String, "Set where only this model's is used up."),
  until: field(Instant, "When it resets."),
  why: field(Schema.String, "What the provider said.")
}).annotations({ identifier: "ExhaustedQuota" })
export type ExhaustedQuota = typeof ExhaustedQuota.Type

/** Taken out of service by hand: no new attempts, whatever its health, until it is resumed. */
export const Drained = Schema.Struct({
  tenant: field(TenantId, "Whose API key drained it."),
  at: field(Instant, "Since when."),
  reason: maybe(Schema.String, "Why, as it was given.")
}).annotations({ identifier: "Drained" })
export type Drained = typeof Drained.Type

/** The same as a reason that stands after a platform's name. */
export const drainedInWords = ({ reason, tenant }: Drained): string =>
  `drained by ${tenant}${reason === undefined ? "" : `: ${reason}`}`

/** Limits, permits, breakers and quotas of a platform as they stand. */
export const PlatformResources = Schema.Struct({
  platform: PlatformId,
  buckets: field(Schema.Array(BucketView), "Each limit of a rolling window."),
  permits: field(
    Schema.Struct({
      inUse: field(Schema.Int, "Attempts in flight."),
      max: field(Schema.Int, "Attempts that may be in flight at once."),
      keptForHigh: field(Schema.Int, "Of `max`, those that only HIGH calls may take."),
      utilization: field(Utilization, "How far they were used of late."),
      models: field(
        Schema.Array(Schema.Struct({ model: Schema.String, inUse: Schema.Int, max: Schema.Int })),
        "Models with a limit of their own."
      )
    }),
    "Attempts at once."
  ),
  breaker: field(BreakerView, "The platform's own breaker."),
  modelBreakers: field(
    Schema.Array(Schema.Struct({ model: Schema.String, ...BreakerView.fields })),
    "Breakers of single models, where the platform serves several."
  ),
  exhausted: field(
    Schema.Array(ExhaustedQuota),
    "Quotas that are used up. The platform is back when all that are its own, not a model's, have reset."
  ),
  exhaustedUntil: maybe(
    Instant,
    "Until when it rests: the latest reset of its own quotas in `exhausted`, or a shorter wait that it asked for."
  ),
  drained: maybe(Drained, "Set while it is drained.")
}).annotations({ identifier: "PlatformResources" })
export type PlatformResources = typeof PlatformResources.Type

const QueueDepth = Schema.Struct({
  depth: field(Schema.Int, "Calls that wait."),
  oldestWaitMs: field(Schema.Number, "For how long the oldest of them has, ms.")
})

/** Everything the resource manager holds. */
export const ResourcesView = Schema.Struct({
  platforms: field(Schema.Array(PlatformResources), "In the order of the settings."),
  queue: field(
    Schema.Struct({ HIGH: QueueDepth, MEDIUM: QueueDepth, LOW: QueueDepth }),
    "Calls that wait for a lease in this process, by priority."
  ),
  admission: field(
    Schema.Struct({
      waiting: field(Schema.Int, "Calls that wait in memory."),
      maxWaiting: field(Schema.Int, "Calls that may wait in memory; durable tasks beyond it wait in the database."),
      bytes: field(Schema.Int, "Bytes of request bodies being read, and of the calls that wait."),
      maxBytes: field(Schema.Int, "As many of these bytes as there may be.")
    }),
    "What this process takes in at most."
  )
}).annotations({ identifier: "Resources" })
export type ResourcesView = typeof ResourcesView.Type

/**
 * What was measured of a platform, or of one model of it, over its latest attempts (at most 256, at most 10 minutes old).
 * Times are those of answers. `Ewma` is the exponentially weighted average, in which an attempt counts half after a minute
 * or after 8 more, whichever is later, and after 10 minutes at the latest; attempts that were cut count in it as far as
 * their time so far shows that the platform is slow.
 */
export const Performance = Schema.Struct({
  attempts: Schema.Int,
  /** Share of them that failed by the platform's fault, 0 to 1. */
  errorRate: Schema.Number,
  durationMsP50: Schema.optional(Schema.Number),
  durationMsP95: Schema.optional(Schema.Number),
  durationMsEwma: Schema.optional(Schema.Number),
  timeToFirstTokenMsP50: Schema.optional(Schema.Number),
  timeToFirstTokenMsP95: Schema.optional(Schema.Number),
  timeToFirstTokenMsEwma: Schema.optional(Schema.Number),
  /** From the first token on. */
  msPerOutputTokenP50: Schema.optional(Schema.Number),
  msPerOutputTokenP95: Schema.optional(Schema.Number),
  msPerOutputTokenEwma: Schema.optional(Schema.Number),
  /** What `msPerOutputTokenEwma` makes in a second. */
  outputTokensPerSecond: Schema.optional(Schema.Number),
  /** Input and output. */
  tokens: Schema.Int
}).annotations({ identifier: "Performance" })
export type Performance = typeof Performance.Type

/** One model of a platform, as it was used of late. */
export const ModelHealth = Schema.Struct({
  model: Schema.String,
  status: field(PlatformStatus, "Of this model alone; `available` where nothing speaks against it."),
  reasons: field(Schema.Array(Schema.String), "Why it is not `available`."),
  performance: Performance
}).annotations({ identifier: "ModelHealth" })
export type ModelHealth = typeof ModelHealth.Type

/** A platform as `/v1/platforms` shows it. */
export const PlatformView = Schema.Struct({
  id: PlatformId,
  wire: PlatformWire,
  baseUrl: Schema.String,
  model: Schema.String,
  capabilities: Schema.Array(Schema.String),
  status: PlatformStatus,
  reasons: field(Schema.Array(Schema.String), "Why it is not `available`."),
  checkedAt: maybe(Instant, "When it was last checked or used."),
  breaker: BreakerState,
  inFlight: Schema.Int,
  drained: maybe(Drained, "Set while it is drained."),
  performance: field(Performance, "Of all its models together."),
  models: field(
    Schema.Array(ModelHealth),
    "Each model that was used of late or is out, the one used last first; at most 32 are remembered."
  )
}).annotations({ identifier: "Platform" })
export type PlatformView = typeof PlatformView.Type

const Positive = Schema.Number.pipe(Schema.positive())
const PositiveInt = Schema.Int.pipe(Schema.positive())
/** `null` lifts a limit; a limit that is left out stays as it is. */
const limit = <A, I>(schema: Schema.Schema<A, I>, description: string) => maybe(Schema.NullOr(schema), description)

/** A change of a platform's limits while the service runs. `null` lifts a limit, what is left out stays. */
export const LimitsPatch = Schema.Struct({
  requestsPerMinute: limit(PositiveInt, "Requests in any 60 s."),
  tokensPerMinute: limit(PositiveInt, "Tokens in any 60 s, counted as `tokensCounted` says."),
  tokensCounted: maybe(TokensCounted, "How the provider counts an attempt's tokens."),
  burst: limit(PositiveInt, "Requests that may start at once before `requestsPerMinute` paces them."),
  windowRequests: limit(PositiveInt, "Requests in any `windowMs`."),
  windowTokens: limit(PositiveInt, "Tokens in any `windowMs`."),
  windowMs: limit(Positive, "Length of the rolling window of `windowRequests` and `windowTokens`, ms."),
  maxConcurrent: maybe(PositiveInt, "Attempts in flight at once."),
  maxConcurrentPerModel: limit(PositiveInt, "Attempts in flight at once on any one model."),
  adapt: maybe(Schema.Boolean, "Whether the provider's own word may raise a limit above the configured one.")
}).annotations({ identifier: "LimitsPatch", description: "`null` lifts a limit; what is left out stays as it is." })
export type LimitsPatch = typeof LimitsPatch.Type

/** What `PATCH /v1/platforms/{id}` takes. */
export const PlatformPatch = Schema.Struct({
  limits: maybe(
    Schema.NullOr(LimitsPatch),
    "Limits to change; `null` takes back every change, so that they are again those of the settings."
  ),
  exhausted: maybe(
    Schema.Null,
    "`null` forgets what the provider said of quotas that are used up, for when it was bought anew."
  ),
  drained: maybe(
    Schema.Boolean,
    "`true`: no new attempts from now on, running ones end in peace; `false`: it gets attempts again."
  ),
  reason: maybe(
    Schema.String.pipe(Schema.minLength(1), Schema.maxLength(300)),
    "Why it is drained or resumed, for those who read its status and its history."
  )
}).annotations({ identifier: "PlatformPatch" })
export type PlatformPatch = typeof PlatformPatch.Type
