import { Schema } from "effect"
import {
  CallbackUrl,
  JobId,
  maxDependencies,
  TaskError,
  TaskId,
  TaskName,
  TaskResult,
  TaskState,
  TaskSubmission,
  TaskType,
  TenantId,
  WebhookStatus
} from "./Task.js"
import { Instant } from "./Time.js"
import { Usage } from "./Usage.js"

export { JobId, TaskName } from "./Task.js"

/**
 * `parallel`: as many at a time as the job allows. `sequential`: one after another in order, each with the results before
 * it as context. `auto`: documentation and question-answering tasks as in `parallel`, the others as in `sequential`.
 */
export const JobMode = Schema.Literal("parallel", "sequential", "auto").annotations({ identifier: "JobMode" })
export type JobMode = typeof JobMode.Type

/**
 * What it means for the others that a task failed or was cancelled. `skip`: those that depend on it, directly or not, are
 * cancelled. `stop`: no further task of the job starts, and those not started are cancelled. `continue`: all run.
 */
export const OnFailure = Schema.Literal("skip", "stop", "continue").annotations({ identifier: "OnFailure" })
export type OnFailure = typeof OnFailure.Type

/** `running` until every task has ended; then `cancelled` if the job was, else as good as the worst of its tasks. */
export const JobState = Schema.Literal("running", "succeeded", "failed", "cancelled").annotations({
  identifier: "JobState"
})
export type JobState = typeof JobState.Type

/** Tasks of one job. */
const maxTasksPerJob = 10_000
/** Tasks of one job that may be under way at a time. */
const maxParallelBound = 200

const Metadata = Schema.Record({ key: Schema.String, value: Schema.String })

/** A task as part of a job: a submission with a name and with the tasks it waits for, which may be of the same job. */
export const JobTaskSubmission = Schema.Struct({
  ...TaskSubmission.fields,
  name: Schema.optional(TaskName).annotations({ description: "What the other tasks of the job call it." }),
  dependsOn: Schema.optional(
    Schema.Array(Schema.Union(TaskName, TaskId)).pipe(Schema.maxItems(maxDependencies))
  ).annotations({
    description:
      "Names of tasks of this job, or ids of own earlier tasks, that this one waits for. Their results become part of " +
      "its context."
  })
}).annotations({ identifier: "JobTaskSubmission" })
export type JobTaskSubmission = typeof JobTaskSubmission.Type

/** Several tasks that belong together. Fields left out take the defaults named here. */
export const JobSubmission = Schema.Struct({
  mode: Schema.optional(JobMode).annotations({
    description:
      "`parallel`: as many at a time as `maxParallel` allows. `sequential`: one after another in order, each with the " +
      "results before it as context. `auto` (the default): documentation and question-answering tasks in parallel, the " +
      "others one after another."
  }),
  tasks: Schema.Array(JobTaskSubmission)
    .pipe(Schema.minItems(1), Schema.maxItems(maxTasksPerJob))
    .annotations({ description: `1 to ${maxTasksPerJob} tasks.` }),
  onFailure: Schema.optional(OnFailure).annotations({
    description:
      "What it means for the others that a task failed or was cancelled. `skip` (the default): those that depend on it " +
      "are cancelled, the others go on. `stop`: no further task of the job starts. `continue`: all run."
  }),
  maxParallel: Schema.optional(Schema.Int.pipe(Schema.between(1, maxParallelBound))).annotations({
    description: "Tasks of the job that may be under way at a time. Default 16."
  }),
  deadline: TaskSubmission.fields.deadline.annotations({
    description: "Of every task that has none of its own: an ISO 8601 instant (text), or seconds from now (number)."
  }),
  metadata: Schema.optional(Metadata).annotations({
    description: "Kept with the job and given back, never sent to a platform."
  }),
  maxCostUsd: Schema.optional(Schema.Number.pipe(Schema.finite(), Schema.positive())).annotations({
    description: "What all tasks of the job together may cost at list prices, USD."
  }),
  maxTokens: Schema.optional(Schema.Int.pipe(Schema.positive())).annotations({
    description: "Tokens that all tasks of the job together may use."
  }),
  callbackUrl: Schema.optional(CallbackUrl).annotations({
    description: "Told of the job's end."
  })
}).annotations({ identifier: "JobSubmission" })
export type JobSubmission = typeof JobSubmission.Type

/** A job without its tasks. */
const fields = {
  id: JobId,
  tenant: TenantId,
  mode: JobMode,
  onFailure: OnFailure,
  maxParallel: Schema.Int,
  state: JobState,
  createdAt: Instant,
  updatedAt: Instant,
  finishedAt: Schema.optional(Instant),
  metadata: Schema.optional(Metadata),
  maxCostUsd: Schema.optional(Schema.Number),
  maxTokens: Schema.optional(Schema.Int),
  callbackUrl: Schema.optional(Schema.String),
  /** Tasks by how they ended; `open` have not. */
  counts: Schema.Struct({
    total: Schema.NonNegativeInt,
    open: Schema.NonNegativeInt,
    succeeded: Schema.NonNegativeInt,
    failed: Schema.NonNegativeInt,
    cancelled: Schema.NonNegativeInt
  }),
  /** Of all results together. */
  usage: Usage,
  /** Of all results together, USD at the configured list prices; results of unknown price are left out. */
  costUsd: Schema.Number
}

export const Job = Schema.Struct(fields).annotations({ identifier: "Job" })
export type Job = typeof Job.Type

/** One task of a job, with how it ended. */
export const JobTask = Schema.Struct({
  id: TaskId,
  name: Schema.optional(TaskName),
  type: TaskType,
  state: TaskState,
  /** Why it waits. */
  waiting: Schema.optional(Schema.String),
  result: Schema.optional(TaskResult),
  error: Schema.optional(TaskError)
}).annotations({ identifier: "JobTask" })
export type JobTask = typeof JobTask.Type

/** A job with a page of its tasks, in their order, and their results. */
export const JobResult = Schema.Struct({
  ...fields,
  /** What became of telling its end to `callbackUrl`. */
  webhook: Schema.optional(WebhookStatus),
  tasks: Schema.Array(JobTask),
  next: Schema.optional(Schema.String).annotations({
    description: "Cursor of the next page of tasks; absent on the last one."
  })
}).annotations({ identifier: "JobResult" })
export type JobResult = typeof JobResult.Type
