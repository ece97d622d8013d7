import { Schema } from "effect"
import { FailureView } from "./Failure.js"
import { LimitsPatch } from "./Lease.js"
import { BreakerState, PlatformId, PlatformStatus } from "./Platform.js"
import { TaskError, TaskId, TenantId } from "./Task.js"
import { Instant } from "./Time.js"

const attempt = { number: Schema.Int, platform: PlatformId, model: Schema.String }

/** What happened to a task, by type. */
export const TaskEventBody = Schema.Union(
  Schema.Struct({ type: Schema.Literal("task.queued") }),
  Schema.Struct({ type: Schema.Literal("task.waiting"), until: Instant, why: Schema.String }),
  Schema.Struct({ type: Schema.Literal("attempt.started"), ...attempt, waitedMs: Schema.NonNegative }),
  Schema.Struct({ type: Schema.Literal("attempt.succeeded"), ...attempt }),
  Schema.Struct({ type: Schema.Literal("attempt.failed"), ...attempt, failure: FailureView }),
  Schema.Struct({ type: Schema.Literal("attempt.interrupted"), ...attempt }),
  Schema.Struct({ type: Schema.Literal("attempt.ignored"), ...attempt }),
  Schema.Struct({ type: Schema.Literal("task.succeeded"), platform: PlatformId }),
  Schema.Struct({ type: Schema.Literal("task.failed"), error: TaskError }),
  Schema.Struct({ type: Schema.Literal("task.cancelled") }),
  Schema.Struct({ type: Schema.Literal("task.retried") })
)
export type TaskEventBody = typeof TaskEventBody.Type

/** One stored event of a task. `id` grows with every event of the service, so a reader can go on after the last it saw. */
export const TaskEvent = Schema.extend(
  Schema.Struct({ id: Schema.Int, taskId: TaskId, at: Instant }),
  TaskEventBody
).annotations({ identifier: "TaskEvent" })
export type TaskEvent = typeof TaskEvent.Type

/** The event that ends a task's stream. */
export const isFinal = (event: TaskEventBody): boolean =>
  event.type === "task.succeeded" || event.type === "task.failed" || event.type === "task.cancelled"

const by = Schema.optional(
  Schema.Struct({
    id: Schema.propertySignature(Schema.String).annotations({ description: "The task, or the call, it was made for." }),
    number: Schema.Int
  })
).annotations({ description: "The attempt that brought it about." })
const model = Schema.optional(Schema.String).annotations({ description: "Set where only this model is meant." })

const byHand = Schema.propertySignature(TenantId).annotations({ description: "Whose API key made the change." })

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
    })
  }),
  Schema.Struct({ type: Schema.Literal("platform.drained"), tenant: byHand, why: Schema.optional(Schema.String) }),
  Schema.Struct({ type: Schema.Literal("platform.resumed"), tenant: byHand, why: Schema.optional(Schema.String) })
)
export type PlatformEventBody = typeof PlatformEventBody.Type

/** One stored event of a platform. `id` grows with every one of them. */
export const PlatformEvent = Schema.extend(
  Schema.Struct({ id: Schema.Int, platform: PlatformId, at: Instant }),
  PlatformEventBody
).annotations({ identifier: "PlatformEvent" })
export type PlatformEvent = typeof PlatformEvent.Type
