import { Either, Schema } from "effect"
import { FailureView } from "./Failure.js"
import { LimitsPatch, ModelHealth, Performance } from "./Lease.js"
import { nearest } from "./nearest.js"
import { BreakerState, PlatformId, PlatformStatus } from "./Platform.js"
import { SessionEventBody, SessionId } from "./Session.js"
import { AlternativeKind, JobId, TaskError, TaskId, TenantId, Verdict } from "./Task.js"
import { Instant } from "./Time.js"

const attempt = { number: Schema.Int, platform: PlatformId, model: Schema.String }

const webhook = {
  webhookId: Schema.propertySignature(Schema.String).annotations({
    description: "The `webhook-id` of every attempt to deliver it."
  }),
  attempts: Schema.propertySignature(Schema.NonNegativeInt).annotations({
    description: "Attempts made to deliver it."
  })
}

/** What became of telling a task's or a job's end to its `callbackUrl`. */
const webhookBodies = [
  Schema.Struct({ type: Schema.Literal("webhook.delivered"), ...webhook, status: Schema.Int }),
  Schema.Struct({ type: Schema.Literal("webhook.failed"), ...webhook, why: Schema.String })
] as const

/** What happened to a task, by type. */
export const TaskEventBody = Schema.Union(
  Schema.Struct({ type: Schema.Literal("task.queued") }),
  Schema.Struct({ type: Schema.Literal("task.validated"), verdict: Verdict }),
  Schema.Struct({
    type: Schema.Literal("task.alternative"),
    kind: AlternativeKind,
    step: Schema.String,
    child: Schema.propertySignature(TaskId).annotations({ description: "The task that was made for it." }),
    note: Schema.optional(Schema.String)
  }),
  Schema.Struct({ type: Schema.Literal("task.waiting"), until: Instant, why: Schema.String }),
  Schema.Struct({ type: Schema.Literal("attempt.started"), ...attempt, waitedMs: Schema.NonNegative }),
  Schema.Struct({ type: Schema.Literal("attempt.succeeded"), ...attempt }),
  Schema.Struct({ type: Schema.Literal("attempt.failed"), ...attempt, failure: FailureView }),
  Schema.Struct({ type: Schema.Literal("attempt.interrupted"), ...attempt }),
  Schema.Struct({ type: Schema.Literal("attempt.ignored"), ...attempt }),
  Schema.Struct({ type: Schema.Literal("task.succeeded"), platform: PlatformId }),
  Schema.Struct({ type: Schema.Literal("task.failed"), error: TaskError }),
  Schema.Struct({ type: Schema.Literal("task.cancelled") }),
  Schema.Struct({ type: Schema.Literal("task.retried") }),
  ...webhookBodies
)
export type TaskEventBody = typeof TaskEventBody.Type

/** One stored event of a task. `id` grows with every event of the service, so a reader can go on after the last it saw. */
export const TaskEvent = Schema.extend(
  Schema.Struct({ id: Schema.Int, taskId: TaskId, at: Instant }),
  TaskEventBody
).annotations({ identifier: "TaskEvent" })
export type TaskEvent = typeof TaskEvent.Type

/** The event that ends a task. What was delivered of it follows. */
export const isFinal = (event: TaskEventBody): boolean =>
  event.type === "task.succeeded" || event.type === "task.failed" || event.type === "task.cancelled"

/** Whether a task's stream may end with this event. */
export const mayBeLast = (event: TaskEventBody): boolean =>
  isFinal(event) || event.type === "webhook.delivered" || event.type === "webhook.failed"

const jobCounts = {
  total: Schema.NonNegativeInt,
  succeeded: Schema.NonNegativeInt,
  failed: Schema.NonNegativeInt,
  cancelled: Schema.NonNegativeInt
}

/** What happened to a job, by type, with its tasks by how they had ended then. */
export const JobEventBody = Schema.Union(
  Schema.Struct({ type: Schema.Literal("job.queued"), ...jobCounts }),
  Schema.Struct({ type: Schema.Literal("job.progress"), ...jobCounts }),
  Schema.Struct({ type: Schema.Literal("job.succeeded"), ...jobCounts }),
  Schema.Struct({ type: Schema.Literal("job.failed"), ...jobCounts }),
  Schema.Struct({ type: Schema.Literal("job.cancelled"), ...jobCounts }),
  Schema.Struct({ type: Schema.Literal("job.reopened"), ...jobCounts }),
  ...webhookBodies
)
export type JobEventBody = typeof JobEventBody.Type

/** The event that ends a job. */
export const isFinalOfJob = (event: JobEventBody): boolean =>
  event.type === "job.succeeded" || event.type === "job.failed" || event.type === "job.cancelled"

/** One stored event of a job. */
export const JobEvent = Schema.extend(
  Schema.Struct({ id: Schema.Int, jobId: JobId, at: Instant }),
  JobEventBody
).annotations({ identifier: "JobEvent" })
export type JobEvent = typeof JobEvent.Type

/** The attempt that something is for, or that brought it about. */
export const AttemptName = Schema.Struct({
  id: Schema.propertySignature(Schema.String).annotations({ description: "The task, or the call, it was made for." }),
  number: Schema.Int
})
export type AttemptName = typeof AttemptName.Type

const by = Schema.optional(AttemptName).annotations({ description: "The attempt that brought it about." })
const model = Schema.optional(Schema.String).annotations({ description: "Set where only this model is meant." })

const byHand = Schema.propertySignature(TenantId).annotations({ description: "Whose API key made the change." })

/** What happened to the budget of a day, a platform's or an API key's. */
const budgetBodies = [
  Schema.Struct({
    type: Schema.Literal("budget.exhausted"),
    until: Instant,
    why: Schema.String
  }),
  Schema.Struct({ type: Schema.Literal("budget.reset") })
] as const

/** What happened to a platform, by type. */
export const PlatformEventBody = Schema.Union(
  Schema.Struct({
    type: Schema.Literal("breaker.changed"),
    model,
    from: BreakerState,
    to: BreakerState,
    capacityPercent: Schema.propertySignature(Schema.Number).annotations({
      description: "The part of rate and concurrency that may be used from now on, percent."
    }),
    why: Schema.String,
    attempt: by
  }),
  Schema.Struct({
    type: Schema.Literal("quota.exhausted"),
    model,
    window: Schema.String,
    until: Instant,
    why: Schema.String,
    attempt: by
  }),
  Schema.Struct({ type: Schema.Literal("quota.reset"), model, window: Schema.String, why: Schema.String }),
  Schema.Struct({
    type: Schema.Literal("limit.learned"),
    model,
    bucket: Schema.propertySignature(Schema.String).annotations({ description: "Its name, such as `requests/60s`." }),
    from: Schema.optional(Schema.Number),
    to: Schema.Number,
    why: Schema.String,
    attempt: by
  }),
  Schema.Struct({
    type: Schema.Literal("limits.changed"),
    tenant: byHand,
    limits: Schema.propertySignature(Schema.NullOr(LimitsPatch)).annotations({
      description: "The change; `null`: back to the settings."
    })
  }),
  Schema.Struct({ type: Schema.Literal("platform.out"), model, why: Schema.String, until: Schema.optional(Instant) }),
  Schema.Struct({ type: Schema.Literal("platform.back"), model }),
  Schema.Struct({
    type: Schema.Literal("platform.status"),
    from: PlatformStatus,
    to: PlatformStatus,
    reasons: Schema.propertySignature(Schema.Array(Schema.String)).annotations({
      description: "Why it is not `available` now."
    }),
    performance: Schema.optional(Performance).annotations({
      description: "What was measured of it by then: latency and errors, of all its models together."
    }),
    models: Schema.optional(Schema.Array(ModelHealth)).annotations({
      description: "The same of each of its models that was used of late."
    })
  }),
  Schema.Struct({ type: Schema.Literal("platform.drained"), tenant: byHand, why: Schema.optional(Schema.String) }),
  Schema.Struct({ type: Schema.Literal("platform.resumed"), tenant: byHand, why: Schema.optional(Schema.String) }),
  ...budgetBodies
)
export type PlatformEventBody = typeof PlatformEventBody.Type

/** One stored event of a platform. */
export const PlatformEvent = Schema.extend(
  Schema.Struct({ id: Schema.Int, platform: PlatformId, at: Instant }),
  PlatformEventBody
).annotations({ identifier: "PlatformEvent" })
export type PlatformEvent = typeof PlatformEvent.Type

/** What happened to an API key, by type. */
export const KeyEventBody = Schema.Union(...budgetBodies)
export type KeyEventBody = typeof KeyEventBody.Type

/** One stored event of an API key. */
export const KeyEvent = Schema.extend(
  Schema.Struct({ id: Schema.Int, tenant: TenantId, at: Instant }),
  KeyEventBody
).annotations({ identifier: "KeyEvent" })
export type KeyEvent = typeof KeyEvent.Type

/** One stored event of a Claude Code session. */
export const SessionEvent = Schema.extend(
  Schema.Struct({ id: Schema.Int, sessionId: SessionId, at: Instant }),
  SessionEventBody
).annotations({ identifier: "SessionEvent" })
export type SessionEvent = typeof SessionEvent.Type

/** Any stored event of the service. `id` grows with every one of them, whatever it belongs to. */
export const ServiceEvent = Schema.Union(TaskEvent, JobEvent, PlatformEvent, KeyEvent, SessionEvent).annotations({
  identifier: "ServiceEvent"
})
export type ServiceEvent = typeof ServiceEvent.Type

/** What an event belongs to. */
export const EventKind = Schema.Literal("task", "job", "platform", "key", "session")
export type EventKind = typeof EventKind.Type

export type EventType = ServiceEvent["type"]

type FamilyOf<Type extends string> = Type extends `${infer Family}.${string}` ? `${Family}.*` : never

const typesOf = <Type extends EventType>(union: {
  readonly members: ReadonlyArray<{ readonly fields: { readonly type: { readonly literals: readonly [Type] } } }>
}): ReadonlyArray<Type> => union.members.flatMap(({ fields }) => fields.type.literals)

/** Every type of event there is. */
export const eventTypes: ReadonlyArray<EventType> = [
  ...new Set<EventType>([
    ...typesOf(TaskEventBody),
    ...typesOf(JobEventBody),
    ...typesOf(PlatformEventBody),
    ...typesOf(KeyEventBody),
    ...typesOf(SessionEventBody)
  ])
]

const families: ReadonlySet<string> = new Set(eventTypes.map((type) => `${type.slice(0, type.indexOf("."))}.*`))
const filters: ReadonlySet<string> = new Set([...eventTypes, ...families])

const isEventTypeFilter = (written: string): written is EventTypeFilter => filters.has(written)

/** A type of event, whole (`task.failed`), or a family of them (`task.*`). */
export const EventTypeFilter = Schema.String.pipe(Schema.filter(isEventTypeFilter))
export type EventTypeFilter = EventType | FamilyOf<EventType>

/** As many as one list of them may hold. */
const maxTypes = 32

/** What a list with commas between asks for; else what is wrong with it. */
export const parseEventTypes = (list: string): Either.Either<ReadonlyArray<EventTypeFilter>, string> => {
  const written = list.split(",")
  if (written.length > maxTypes) return Either.left(`expected at most ${maxTypes} types, got ${written.length}`)
  const unknown = written.filter((type) => !isEventTypeFilter(type))
  if (unknown.length === 0) return Either.right(written.filter(isEventTypeFilter))
  const suggestions = unknown.map((type) => ({ type, meant: nearest(type, filters) }))
  const problems = suggestions.map(
    ({ meant, type }) =>
      `'${type.slice(0, 60)}' is not a known type of event${meant === undefined ? "" : `, did you mean ${meant}?`}`
  )
  const known = suggestions.some(({ meant }) => meant === undefined) ? [`known are ${[...families].join(", ")}`] : []
  return Either.left([...problems, ...known].join("; "))
}
