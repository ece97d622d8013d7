import { Schema } from "effect"
import { PlatformId, RoutingPolicy } from "./Platform.js"
import { Instant } from "./Time.js"

/**
 * Whose fault a failed attempt was. Only that scope's state changes:
 * `request` (the call itself), `model`, `credential`, `quota`, `platform`,
 * or `ignored` (our own deadline, a cancel, shutdown: nobody's).
 */
export const FailureScope = Schema.Literal(
  "request",
  "model",
  "credential",
  "quota",
  "platform",
  "ignored"
).annotations({ identifier: "FailureScope" })
export type FailureScope = typeof FailureScope.Type

const said = {
  platform: PlatformId,
  model: Schema.optional(Schema.String),
  /** HTTP status, where there was one. */
  status: Schema.optional(Schema.Int),
  /** The provider's own code or type, as it sent it. */
  code: Schema.optional(Schema.String),
  /** The provider's own message, shortened to 500 characters, without secrets. */
  message: Schema.String
}

/** The call itself cannot work there: 400s, too long, refused by policy. Never retried on the same platform. */
export class RequestFailure extends Schema.TaggedError<RequestFailure>()("RequestFailure", {
  ...said,
  /** `context`: a bigger window may do; `policy`: never retried anywhere; `invalid`: anything else. */
  reason: Schema.Literal("invalid", "context", "policy")
}) {}

/** That model is not to be had there: unknown, or locked out until `resetsAt`. */
export class ModelFailure extends Schema.TaggedError<ModelFailure>()("ModelFailure", {
  ...said,
  resetsAt: Schema.optional(Instant)
}) {}

/** The key is missing, wrong, forbidden or unpaid: the platform is out until configuration changes or a check passes. */
export class CredentialFailure extends Schema.TaggedError<CredentialFailure>()("CredentialFailure", said) {}

/** A limit of the provider's is reached: nothing is sick, it is used up until it resets. */
export class QuotaFailure extends Schema.TaggedError<QuotaFailure>()("QuotaFailure", {
  ...said,
  /** `rate`: a limit that refills within a minute or so; `window`: a quota used up until its reset; `concurrency`. */
  reason: Schema.Literal("rate", "window", "concurrency"),
  /** Wait at least this long, ms, as the provider said it. */
  retryAfterMs: Schema.optional(Schema.NonNegative),
  /** Used up until this instant, as the provider said it. */
  resetsAt: Schema.optional(Instant),
  /** The provider's own name of the quota that is used up, such as `PerDay` or `primary`. */
  window: Schema.optional(Schema.String),
  /** What that limit counts, where the provider says it. */
  unit: Schema.optional(Schema.Literal("requests", "tokens")),
  /** The size of that limit, where the provider says it. */
  limit: Schema.optional(Schema.NonNegative),
  /** Length of that limit's window, ms, where the provider says it. */
  windowMs: Schema.optional(Schema.NonNegative),
  /** Whether the provider counts it for that model alone; its other models are not used up then. */
  perModel: Schema.optional(Schema.Boolean)
}) {}

/** The platform is sick or out of reach: 5xx, network, its timeouts, malformed replies, stalled streams. Feeds its breaker. */
export class PlatformFailure extends Schema.TaggedError<PlatformFailure>()("PlatformFailure", {
  ...said,
  /** `unreachable`: no connection was made, so nothing was sent; `network`: it broke off. */
  reason: Schema.Literal("overloaded", "server", "unreachable", "network", "timeout", "malformed", "stalled"),
  retryAfterMs: Schema.optional(Schema.NonNegative)
}) {}

/** Why an attempt on one platform failed. Classified once, at the wire. */
export type AttemptFailure = RequestFailure | ModelFailure | CredentialFailure | QuotaFailure | PlatformFailure

/**
 * Whether a failed attempt counts against its call's attempt budget. One that never reached its platform does not:
 * it says nothing of the call, and an outage of our own network must not use up a durable task within a second. The
 * platform's rest, its breaker and the call's deadline bound such attempts.
 */
export const spendsAttempt = (failure: Pick<FailureView, "reason" | "scope">): boolean =>
  !(failure.scope === "platform" && failure.reason === "unreachable")

/** Whose fault a failure is. */
export const scopeOf = (failure: AttemptFailure): FailureScope => {
  switch (failure._tag) {
    case "RequestFailure":
      return "request"
    case "ModelFailure":
      return "model"
    case "CredentialFailure":
      return "credential"
    case "QuotaFailure":
      return "quota"
    case "PlatformFailure":
      return "platform"
  }
}

/** A failed attempt as stored, shown and sent. */
export const FailureView = Schema.Struct({
  scope: FailureScope,
  reason: Schema.optional(Schema.String),
  status: Schema.optional(Schema.Int),
  code: Schema.optional(Schema.String),
  message: Schema.String,
  retryAfterMs: Schema.optional(Schema.NonNegative),
  resetsAt: Schema.optional(Instant)
}).annotations({ identifier: "Failure" })
export type FailureView = typeof FailureView.Type

/** A failure as it is stored and shown. */
export const viewOf = (failure: AttemptFailure): FailureView => ({
  scope: scopeOf(failure),
  reason: "reason" in failure ? failure.reason : undefined,
  status: failure.status,
  code: failure.code,
  message: failure.message,
  retryAfterMs: "retryAfterMs" in failure ? failure.retryAfterMs : undefined,
  resetsAt: "resetsAt" in failure ? failure.resetsAt : undefined
})

/** Why one platform cannot take a call, and when it could. */
export const PlatformReason = Schema.Struct({
  platform: PlatformId,
  reason: Schema.String,
  kind: Schema.optional(Schema.Literal("limit", "failure", "out", "budget")).annotations({
    description:
      "What stands in the way: `limit`, its limits and quotas, or calls that go first; `failure`, it rests or is shut " +
      "off after failures; `out`, it is out of service; `budget`, the call may use more than a budget leaves. Absent where it is none of them, as with what it lacks."
  }),
  /** The earliest instant at which it can, where that is known. */
  earliestAt: Schema.optional(Instant)
}).annotations({ identifier: "PlatformReason" })
export type PlatformReason = typeof PlatformReason.Type

/** What the weight of a candidate is made of. */
export const weighing = {
  weight: Schema.Number.annotations({
    description: "What routing divides the work by: calls go to the platforms that are free by their weights."
  }),
  suitability: Schema.Number.annotations({ description: "How well it suits the type of task, as configured, 0 to 1." }),
  quality: Schema.Number.annotations({
    description: "What is measured of the model, as a factor of the weight: 0.05 to 2, 1 is neutral."
  }),
  preferred: Schema.Boolean.annotations({
    description: "Whether its weight is raised because it served the last task with the same affinity key."
  })
}

/** A platform that could serve the call, as it stood at the choice. Rows of earlier versions lack what is optional. */
const DecisionCandidate = Schema.Struct({
  platform: PlatformId,
  model: Schema.String,
  weight: weighing.weight,
  suitability: Schema.optional(weighing.suitability),
  quality: Schema.optional(weighing.quality),
  preferred: Schema.optional(weighing.preferred),
  free: Schema.optional(Schema.Boolean.annotations({ description: "Whether it could take the call at that moment." })),
  busy: Schema.optional(Schema.String.annotations({ description: "Why it could not take the call at that moment." }))
})

/** Why a platform was chosen: who could, who could not and why. */
export const Decision = Schema.Struct({
  candidates: Schema.Array(DecisionCandidate).annotations({
    description: "Who could serve the call, the greatest weight first."
  }),
  excluded: Schema.Array(PlatformReason).annotations({ description: "Who could not serve it, and why." }),
  chosen: Schema.optional(PlatformId.annotations({ description: "Who of those free got it." })),
  policy: Schema.optional(RoutingPolicy.annotations({ description: "What the weights went by." })),
  hedge: Schema.optional(
    Schema.Boolean.annotations({
      description: "Whether it is the second attempt beside one that took unusually long; the first good answer wins."
    })
  ),
  waitedMs: Schema.NonNegative.annotations({ description: "How long the call waited for its turn, ms." })
}).annotations({ identifier: "Decision" })
export type Decision = typeof Decision.Type

/** One attempt of a call, as its delegation remembers it: who was chosen, why, and what came of it. */
export const TraceEntry = Schema.Struct({
  /** Counted from a task's first attempt, those of earlier owners included. */
  number: Schema.Int.pipe(Schema.positive()),
  platform: PlatformId,
  model: Schema.String,
  decision: Decision,
  /** `ignored`: cut by the call's own deadline, or because the other of two attempts at once was faster. */
  outcome: Schema.Literal("succeeded", "failed", "ignored"),
  durationMs: Schema.NonNegative,
  /** Until the first piece of the answer, ms. */
  timeToFirstTokenMs: Schema.optional(Schema.NonNegative),
  failure: Schema.optional(FailureView)
}).annotations({ identifier: "TraceEntry" })
export type TraceEntry = typeof TraceEntry.Type

/** The attempts made since the call was last taken up, in their order. */
const trace = Schema.optionalWith(Schema.Array(TraceEntry), { default: () => [] })

/** No configured platform can ever serve this call: `reasons` says why for each. */
export class NoCapablePlatform extends Schema.TaggedError<NoCapablePlatform>()("NoCapablePlatform", {
  message: Schema.String,
  reasons: Schema.Array(PlatformReason)
}) {}

/**
 * No platform can start this call within the time the caller gave. None can before `earliestAt`; it is absent where one
 * may at any moment, and where nobody knows.
 */
export class LeaseUnavailable extends Schema.TaggedError<LeaseUnavailable>()("LeaseUnavailable", {
  message: Schema.String,
  reasons: Schema.Array(PlatformReason),
  earliestAt: Schema.optional(Instant)
}) {}

/** The call's own deadline passed before an answer was there. */
export class DeadlineExceeded extends Schema.TaggedError<DeadlineExceeded>()("DeadlineExceeded", {
  message: Schema.String,
  attempts: Schema.NonNegativeInt,
  last: Schema.optional(FailureView),
  trace
}) {}

/** Every attempt the call was allowed has failed. */
export class AttemptsExhausted extends Schema.TaggedError<AttemptsExhausted>()("AttemptsExhausted", {
  message: Schema.String,
  attempts: Schema.NonNegativeInt,
  last: Schema.optional(FailureView),
  trace
}) {}

/** The budgets leave no room for a further attempt anywhere, now or later. */
export class BudgetExhausted extends Schema.TaggedError<BudgetExhausted>()("BudgetExhausted", {
  message: Schema.String,
  reasons: Schema.Array(PlatformReason),
  attempts: Schema.NonNegativeInt,
  last: Schema.optional(FailureView),
  trace
}) {}

/** The platform refused the call itself (invalid, too long, policy) and no other platform would do better. */
export class CallRefused extends Schema.TaggedError<CallRefused>()("CallRefused", {
  message: Schema.String,
  platform: PlatformId,
  failure: FailureView,
  trace
}) {}

/** The answer broke off after its reader had got the beginning of it: no other platform may go on. */
export class AnswerBroken extends Schema.TaggedError<AnswerBroken>()("AnswerBroken", {
  message: Schema.String,
  platform: PlatformId,
  failure: FailureView,
  trace
}) {}
