import { Schema } from "effect"
import { Message, ResponseFormat, Tool, ToolCall } from "./Call.js"
import { Decision, FailureView, PlatformReason, weighing } from "./Failure.js"
import { Capability, PlatformId, RoutingPolicy } from "./Platform.js"
import { Instant, InstantText } from "./Time.js"
import { Usage } from "./Usage.js"

export { Decision } from "./Failure.js"

/** Identity of a task: a UUIDv7, so that ids sort by the time of submission. */
export const TaskId = Schema.UUID.pipe(Schema.brand("TaskId"), Schema.annotations({ identifier: "TaskId" }))
export type TaskId = typeof TaskId.Type

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

export const isTerminal = (state: TaskState): boolean =>
  state === "succeeded" || state === "failed" || state === "cancelled"

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
    description: "Only where one attempt cannot cost more than this at list prices, USD."
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
  })
}).annotations({ identifier: "TaskSubmission" })
export type TaskSubmission = typeof TaskSubmission.Type

export const TaskResult = Schema.Struct({
  text: Schema.String,
  toolCalls: Schema.optional(Schema.Array(ToolCall)),
  platform: PlatformId,
  model: Schema.String,
  usage: Usage,
  /** USD at the configured list price; absent where the price is unknown. */
  costUsd: Schema.optional(Schema.Number)
}).annotations({ identifier: "TaskResult" })
export type TaskResult = typeof TaskResult.Type

export const TaskError = Schema.Struct({
  /** One of `deadline`, `attempts-exhausted`, `refused`, `no-capable-platform`, `poison`, `internal`. */
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
  /** When the first attempt started. */
  startedAt: Schema.optional(Instant),
  finishedAt: Schema.optional(Instant)
}

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
  maxOutputTokens: Schema.optional(Schema.Int),
  tools: Schema.optional(Schema.Array(Tool)),
  responseFormat: Schema.optional(ResponseFormat),
  metadata: Schema.optional(Schema.Record({ key: Schema.String, value: Schema.String })),
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
  patientUntil: Schema.optional(Instant).annotations({
    description:
      "Until when it would leave those free unused for one of more than twice their weight that is known to be free by then."
  })
}).annotations({ identifier: "TaskPreview" })
export type TaskPreview = typeof TaskPreview.Type
