import { Schema } from "effect"
import { FailureView } from "./Failure.js"
import { PlatformId } from "./Platform.js"
import { TaskError, TaskId } from "./Task.js"
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
