import { Schema } from "effect"
import { Message, ResponseFormat, Tool, ToolCall } from "./Call.js"
import { Decision, FailureView, PlatformReason, weighing } from "./Failure.js"
import { Capability, PlatformId, RoutingPolicy } from "./Platform.js"
import { Instant, InstantText } from "./Time.js"
import { Spent, Usage } from "./Usage.js"

export { Decision } from "./Failure.js"

/** Identity of a task: a UUIDv7, so that ids sort by the time of submission. */
export const TaskId = Schema.UUID.pipe(Schema.brand("TaskId"), Schema.annotations({ identifier: "TaskId" }))
export type TaskId = typeof TaskId.Type

/** Identity of a job: a UUIDv7, so that ids sort by the time of submission. */
export const JobId = Schema.UUID.pipe(Schema.brand("JobId"), Schema.annotations({ identifier: "JobId" }))
export type JobId = typeof JobId.Type

/** What a task is called inside its job. */
export const TaskName = Schema.String.pipe(
  Schema.pattern(/^[A-Za-z0-9_.-]{1,64}$/, { message: () => "expected 1 to 64 letters, digits, `_`, `.` or `-`" }),
  Schema.annotations({ identifier: "TaskName" })
)
export type TaskName = typeof TaskName.Type

/** The owner of tasks: the name of the API key that submitted them, `local` when the service runs without keys. */
export const TenantId = Schema.String.pipe(
  Schema.pattern(/^[A-Za-z0-9_.-]{1,64}$/),
  Schema.brand("TenantId"),
  Schema.annotations({ identifier: "TenantId" })
)
export type TenantId = typeof TenantId.Type

export const TaskType = Schema.Literal(
  "implementation",
  "documentation",
  "testing",
  "architecture",
  "analysis",
  "question-answering"
).annotations({ identifier: "TaskType" })
export type TaskType = typeof TaskType.Type

export const Priority = Schema.Literal("HIGH", "MEDIUM", "LOW").annotations({ identifier: "Priority" })
export type Priority = typeof Priority.Type

export const TaskState = Schema.Literal("queued", "running", "waiting", "succeeded", "failed", "cancelled").annotations(
  { identifier: "TaskState" }
)
export type TaskState = typeof TaskState.Type

/**
 * What is tried for a HIGH task whose attempts are used up. `class`: another class of models, or platforms without a
 * capability that only the submission asks for; `shrink`: the context shortened; `split`: parts, and their results put
 * together; `partial`: the best incomplete answer.
 */
export const AlternativeKind = Schema.Literal("class", "shrink", "split", "partial").annotations({
  identifier: "AlternativeKind"
})
export type AlternativeKind = typeof AlternativeKind.Type

/** Whether a task in this state has ended; only a retry leads back. */
export const isTerminal = (state: TaskState): boolean =>
  state === "succeeded" || state === "failed" || state === "cancelled"

/** Tasks that one task may name as those it waits for. */
export const maxDependencies = 100

/** Where the end of a task or a job is told. */
export const CallbackUrl = Schema.String.pipe(
  Schema.pattern(/^https?:\/\//, {
    message: () => "expected a URL that begins with https:// (or http:// where the service allows private addresses)"
  }),
  Schema.maxLength(2048)
)

/** What a user asks for. Fields left out take the defaults named here. */
export const TaskSubmission = Schema.Struct({
  type: Schema.optional(TaskType).annotations({
    description: "What kind of work it is: decides which platform suits. Default `question-answering`."
  }),
  prompt: Schema.propertySignature(Schema.String).annotations({ description: "What is to be done." }),
  system: Schema.optional(Schema.String).annotations({ description: "Instructions that stand above the prompt." }),
  context: Schema.optional(Schema.Array(Message)).annotations({
    description: "Earlier turns of the conversation, oldest first."
  }),
  priority: Schema.optional(Priority).annotations({ description: "Default `MEDIUM`." }),
  requires: Schema.optional(Schema.Array(Capability)).annotations({
    description: "Capabilities the model must have, beside those the call itself shows it needs."
  }),
  platform: Schema.optional(PlatformId).annotations({ description: "Only this platform." }),
  deny: Schema.optional(Schema.Array(PlatformId)).annotations({ description: "Never these platforms." }),
  model: Schema.optional(Schema.String.pipe(Schema.minLength(1))).annotations({
    description:
      "Only this model, by its name or as `platform/model`; or a class of models: `fast`, `balanced` or `best`, which each platform's settings map to one."
  }),
  policy: Schema.optional(RoutingPolicy).annotations({
    description: "What the choice among the platforms goes by. Default as configured (`balanced`)."
  }),
  affinityKey: Schema.optional(Schema.String.pipe(Schema.minLength(1), Schema.maxLength(128))).annotations({
    description: "Tasks with the same key go to the same platform, where that is fair to the others."
  }),
  maxCostUsd: Schema.optional(Schema.Number.pipe(Schema.finite(), Schema.positive())).annotations({
    description:
      "What all attempts together may cost at list prices, USD. A platform where a single one could cost more is never asked."
  }),
  maxTokens: Schema.optional(Schema.Int.pipe(Schema.positive())).annotations({
    description: "Tokens, input and output, that all attempts together may use."
  }),
  maxOutputTokens: Schema.optional(Schema.Int.pipe(Schema.between(1, 1_000_000))).annotations({
    description: "Upper bound of the answer, tokens. Default as configured."
  }),
  tools: Schema.optional(Schema.Array(Tool)).annotations({
    description: "Functions the model may ask to have called; the calls are part of the result, nobody makes them."
  }),
  responseFormat: Schema.optional(ResponseFormat).annotations({ description: "Default plain text." }),
  deadline: Schema.optional(Schema.Union(InstantText, Schema.Number.pipe(Schema.positive()))).annotations({
    description: "An ISO 8601 instant (text), or seconds from now (number). Default 24 hours from now."
  }),
  metadata: Schema.optional(Schema.Record({ key: Schema.String, value: Schema.String })).annotations({
    description: "Kept with the task and given back, never sent to a platform."
  }),
  callbackUrl: Schema.optional(CallbackUrl).annotations({
    description: "Told of the task's end by a signed webhook, tried again until it is accepted or 3 days have passed."
  }),
  dependsOn: Schema.optional(Schema.Array(TaskId).pipe(Schema.maxItems(maxDependencies))).annotations({
    description:
      "Own earlier tasks this one waits for. Their results become part of its context; if one of them does not succeed, " +
      "this one is cancelled."
  })
}).annotations({ identifier: "TaskSubmission" })
export type TaskSubmission = typeof TaskSubmission.Type

/** What a task was made for, where it is one of the alternatives of another. */
const alternative = {
  kind: AlternativeKind,
  step: Schema.propertySignature(Schema.String).annotations({
    description: "Such as `class-1`, `summary`, `shrunk`, `plan`, `part-2` or `combine`."
  }),
  note: Schema.optional(Schema.String).annotations({ description: "What is different from the task it was made for." })
}
export const Alternative = Schema.Struct(alternative).annotations({ identifier: "Alternative" })
export type Alternative = typeof Alternative.Type

/** A task that was made for another one, as that one shows it. */
export const AlternativeView = Schema.Struct({ id: TaskId, ...alternative, state: TaskState }).annotations({
  identifier: "AlternativeView"
})
export type AlternativeView = typeof AlternativeView.Type

/** What a model found of a task before it was accepted. */
export const Verdict = Schema.Struct({
  status: Schema.Literal("valid", "invalid", "unchecked").annotations({
    description: "`unchecked`: no verdict was to be had, and the task was accepted without one."
  }),
  problems: Schema.Array(Schema.String).annotations({ description: "Why the task cannot work as it stands." }),
  suggestion: Schema.optional(Schema.String).annotations({ description: "What would work." }),
  why: Schema.optional(Schema.String).annotations({ description: "Why there is no verdict." }),
  platform: Schema.propertySignature(PlatformId).annotations({ description: "Who was asked." }),
  model: Schema.optional(Schema.String).annotations({ description: "The model that answered." }),
  costUsd: Schema.optional(Schema.Number).annotations({
    description: "Of the check, USD at list price: 0 where the verdict on an equal task was used; absent where unknown."
  })
}).annotations({ identifier: "Verdict" })
export type Verdict = typeof Verdict.Type

export const TaskResult = Schema.Struct({
  text: Schema.String,
  toolCalls: Schema.optional(Schema.Array(ToolCall)),
  platform: PlatformId,
  model: Schema.String,
  /** Of the tasks made for it as well, where there are any. */
  usage: Usage,
  /** USD at the configured list price; absent where the price is unknown. */
  costUsd: Schema.optional(Schema.Number),
  /** The answer is not whole. */
  partial: Schema.optional(Schema.Literal(true)),
  /** Where the text comes from, if it is not the whole answer to the task as it was submitted. */
  note: Schema.optional(Schema.String)
}).annotations({ identifier: "TaskResult" })
export type TaskResult = typeof TaskResult.Type

export const TaskError = Schema.Struct({
  /**
   * One of `deadline`, `attempts-exhausted`, `refused`, `no-capable-platform`, `budget`, `poison`, `internal`; of a cancelled task
   * `dependency` (one it waited for did not succeed) or `stopped` (another task of its job failed).
   */
  type: Schema.String,
  message: Schema.String,
  details: Schema.optional(
    Schema.Struct({ failure: Schema.optional(FailureView), reasons: Schema.optional(Schema.Array(PlatformReason)) })
  )
}).annotations({ identifier: "TaskError" })
export type TaskError = typeof TaskError.Type

const common = {
  id: TaskId,
  tenant: TenantId,
  type: TaskType,
  priority: Priority,
  state: TaskState,
  /** Why the task is `waiting`, and the instant at which it is looked at again. */
  waiting: Schema.optional(Schema.Struct({ until: Instant, why: Schema.String })),
  /** Attempts started so far. */
  attempts: Schema.NonNegativeInt,
  createdAt: Instant,
  updatedAt: Instant,
  deadline: Instant,
  /** The job it is part of. */
  jobId: Schema.optional(JobId),
  /** What it is called there. */
  name: Schema.optional(TaskName),
  /** The task that it is an alternative of. */
  parentId: Schema.optional(TaskId),
  /** Its result is not whole. */
  partial: Schema.optional(Schema.Literal(true)),
  /** A person should look: everything that was to be tried was tried. */
  attention: Schema.optional(Schema.Literal(true)),
  /** What its attempts have used. Shown of every stored task. */
  spent: Schema.optional(Spent),
  /** When the first attempt started. */
  startedAt: Schema.optional(Instant),
  finishedAt: Schema.optional(Instant)
}

/** What became of telling an end to its `callbackUrl`. */
export const WebhookStatus = Schema.Struct({
  state: Schema.Literal("pending", "delivered", "failed"),
  /** Attempts made so far. */
  attempts: Schema.NonNegativeInt,
  /** The HTTP status of the latest one that was answered. */
  lastStatus: Schema.optional(Schema.Int),
  /** Why the latest one was in vain. */
  lastError: Schema.optional(Schema.String),
  /** When the next one is due. */
  nextAt: Schema.optional(Instant)
}).annotations({ identifier: "WebhookStatus" })
export type WebhookStatus = typeof WebhookStatus.Type

/** A durable task, whole. */
export const Task = Schema.Struct({
  ...common,
  prompt: Schema.String,
  system: Schema.optional(Schema.String),
  context: Schema.optional(Schema.Array(Message)),
  requires: Schema.optional(Schema.Array(Capability)),
  platform: Schema.optional(PlatformId),
  deny: Schema.optional(Schema.Array(PlatformId)),
  model: Schema.optional(Schema.String),
  policy: Schema.optional(RoutingPolicy),
  affinityKey: Schema.optional(Schema.String),
  maxCostUsd: Schema.optional(Schema.Number),
  maxTokens: Schema.optional(Schema.Int),
  maxOutputTokens: Schema.optional(Schema.Int),
  tools: Schema.optional(Schema.Array(Tool)),
  responseFormat: Schema.optional(ResponseFormat),
  metadata: Schema.optional(Schema.Record({ key: Schema.String, value: Schema.String })),
  dependsOn: Schema.optional(Schema.Array(TaskId)),
  callbackUrl: Schema.optional(Schema.String),
  /** What became of telling its end to `callbackUrl`. */
  webhook: Schema.optional(WebhookStatus),
  /** What the check before it was accepted found; absent where none was made. */
  validation: Schema.optional(Verdict),
  /** Which alternative it is, where it was made for another task. */
  alternative: Schema.optional(Alternative),
  /** The tasks made for it when its attempts were used up, oldest first; shown where it is asked for by its id. */
  alternatives: Schema.optional(Schema.Array(AlternativeView)),
  result: Schema.optional(TaskResult),
  error: Schema.optional(TaskError)
}).annotations({ identifier: "Task" })
export type Task = typeof Task.Type

/** A task as listed: without its texts, so that a page stays small. */
export const TaskSummary = Schema.Struct({
  ...common,
  /** The first 200 characters of the prompt. */
  preview: Schema.String,
  /** The platform of the latest attempt, or of the result. */
  platform: Schema.optional(PlatformId),
  error: Schema.optional(Schema.Struct({ type: Schema.String, message: Schema.String }))
}).annotations({ identifier: "TaskSummary" })
export type TaskSummary = typeof TaskSummary.Type

/** One call made to one platform for a task. */
export const Attempt = Schema.Struct({
  /** 1 for a task's first attempt. */
  number: Schema.Int.pipe(Schema.positive()),
  platform: PlatformId,
  model: Schema.String,
  /**
   * `interrupted`: cut by our own shutdown or crash; `ignored`: cut by a cancel, the task's deadline, or the faster answer
   * of another attempt made at the same time.
   */
  outcome: Schema.Literal("running", "succeeded", "failed", "interrupted", "ignored"),
  startedAt: Instant,
  endedAt: Schema.optional(Instant),
  /** Until the first piece of the answer, ms. */
  timeToFirstTokenMs: Schema.optional(Schema.NonNegative),
  durationMs: Schema.optional(Schema.NonNegative),
  failure: Schema.optional(FailureView),
  usage: Schema.optional(Usage),
  costUsd: Schema.optional(Schema.Number),
  decision: Decision
}).annotations({ identifier: "Attempt" })
export type Attempt = typeof Attempt.Type

/** A platform that could serve a task, as it stands now. */
export const PreviewCandidate = Schema.Struct({
  platform: PlatformId,
  model: Schema.String.annotations({ description: "The model that would serve the task there." }),
  ...weighing,
  preferred: Schema.optional(weighing.preferred),
  share: Schema.Number.annotations({
    description: "The part of such tasks it gets while all candidates are free, 0 to 1: its part of the weights."
  }),
  free: Schema.Boolean.annotations({ description: "Whether it could start the task now." }),
  busy: Schema.optional(PlatformReason).annotations({
    description: "Why it could not start the task now, and when it could at the earliest, where that is known."
  }),
  maxCostUsd: Schema.optional(Schema.Number).annotations({
    description: "What one attempt may cost there at most at list prices, USD; absent where the price is unknown."
  })
})
export type PreviewCandidate = typeof PreviewCandidate.Type

/** What would become of a task, were it submitted now. Nothing of it is stored, and nothing is kept free for it. */
export const TaskPreview = Schema.Struct({
  accepted: Schema.Literal(true).annotations({
    description: "It would be accepted: what would be refused gets the same error as its submission."
  }),
  type: TaskType,
  priority: Priority,
  policy: RoutingPolicy,
  deadline: Schema.propertySignature(Instant).annotations({ description: "Until when it would have to be done." }),
  tokens: Schema.Struct({
    input: Schema.Number.annotations({ description: "Estimated from the texts." }),
    maxOutput: Schema.Number.annotations({ description: "The bound of the answer." })
  }),
  candidates: Schema.Array(PreviewCandidate).annotations({
    description: "Who could serve it, the greatest weight first; never empty."
  }),
  excluded: Schema.Array(PlatformReason).annotations({ description: "Who could not serve it, and why." }),
  choice: Schema.optional(PlatformId).annotations({
    description: "Who would get it now; absent where it would wait."
  }),
  validation: Schema.optional(Verdict).annotations({
    description: "What the check by a model finds; absent where none is configured."
  }),
  patientUntil: Schema.optional(Instant).annotations({
    description:
      "Until when it would leave those free unused for one of more than twice their weight that is known to be free by then."
  })
}).annotations({ identifier: "TaskPreview" })
export type TaskPreview = typeof TaskPreview.Type
