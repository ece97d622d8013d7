import type { SqlError } from "@effect/sql/SqlError"
import { Effect, Option, type ParseResult, Schema } from "effect"
import type { ServiceUnavailable } from "../Domain/ApiError.js"
import { usdOf } from "../Domain/Budget.js"
import { Call } from "../Domain/Call.js"
import { FailureView } from "../Domain/Failure.js"
import { Capability, PlatformId, RoutingPolicy } from "../Domain/Platform.js"
import {
  Alternative,
  type Attempt,
  Decision,
  type JobId,
  type Priority,
  type Task,
  TaskError,
  type TaskId,
  type TaskName,
  TaskResult,
  type TaskState,
  TaskSubmission,
  type TaskSummary,
  type TaskType,
  type TenantId,
  Verdict
} from "../Domain/Task.js"
import { Usage } from "../Domain/Usage.js"
import { decodeColumn } from "../Sql/jsonColumn.js"

/** Characters of a prompt that a list shows. */
const previewLength = 200

/** What a task sends and what that needs, as accepted. */
export const StoredRequest = Schema.Struct({
  call: Schema.typeSchema(Call),
  requirement: Schema.Struct({
    capabilities: Schema.Array(Capability),
    contextTokens: Schema.Number,
    inputTokens: Schema.optional(Schema.Number),
    outputTokens: Schema.optional(Schema.Number),
    model: Schema.optional(Schema.String),
    platform: Schema.optional(PlatformId),
    deny: Schema.optional(Schema.Array(PlatformId)),
    policy: Schema.optional(RoutingPolicy),
    affinityKey: Schema.optional(Schema.String),
    maxCostUsd: Schema.optional(Schema.Number),
    maxTokens: Schema.optional(Schema.Number)
  }),
  /** What the results of the tasks it waits for may add to the call, tokens. */
  roomTokens: Schema.optional(Schema.Number)
})
export type StoredRequest = typeof StoredRequest.Type

const decodeSubmission = decodeColumn(TaskSubmission)
export const decodeResult = decodeColumn(TaskResult)
export const decodeError = decodeColumn(TaskError)
const decodeVerdict = decodeColumn(Verdict)
export const decodeAlternative = decodeColumn(Alternative)
const decodeDecision = decodeColumn(Decision)
const decodeFailure = decodeColumn(FailureView)
const decodeUsage = decodeColumn(Usage)
export const decodeRequest = decodeColumn(StoredRequest)

export const nullable = <A>(
  text: string | null,
  decode: (text: string) => Effect.Effect<A, ParseResult.ParseError>
): Effect.Effect<A | undefined, ParseResult.ParseError> => (text === null ? Effect.succeed(undefined) : decode(text))

const priorities: ReadonlyArray<Priority> = ["HIGH", "MEDIUM", "LOW"]
/** Priorities are stored as their rank, so that the database can order by them. */
export const rankOf = (priority: Priority): number => priorities.indexOf(priority)
export const priorityOf = (rank: number): Priority => priorities[rank] ?? "MEDIUM"

interface CommonRow {
  readonly seq: number
  readonly id: TaskId
  readonly tenant: TenantId
  readonly type: TaskType
  readonly priority: number
  readonly state: TaskState
  readonly deadline: number
  readonly wake_at: number | null
  readonly waiting_why: string | null
  readonly attempts: number
  readonly platform: PlatformId | null
  readonly created_at: number
  readonly updated_at: number
  readonly started_at: number | null
  readonly finished_at: number | null
  readonly error: string | null
  readonly job_id: JobId | null
  readonly name: TaskName | null
  readonly parent_id: TaskId | null
  readonly partial: number
  readonly attention: number
  readonly spent_nano_usd: number
  readonly spent_tokens: number
}

export interface TaskRow extends CommonRow {
  readonly submission: string
  readonly result: string | null
  readonly request_hash: string | null
  readonly validation: string | null
  readonly alternative: string | null
  readonly children: number
}

export interface SummaryRow extends CommonRow {
  readonly preview: string
}

const commonColumns =
  "seq, id, tenant, type, priority, state, deadline, wake_at, waiting_why, attempts, platform, created_at, updated_at, started_at, finished_at, error, job_id, name, parent_id, partial, attention, spent_nano_usd, spent_tokens"
export const taskColumns = `${commonColumns}, submission, result, request_hash, validation, alternative, children`
export const summaryColumns = `${commonColumns}, preview`

const commonOf = (row: CommonRow) => ({
  id: row.id,
  tenant: row.tenant,
  type: row.type,
  priority: priorityOf(row.priority),
  state: row.state,
  waiting:
    row.state === "waiting" && row.wake_at !== null ? { until: row.wake_at, why: row.waiting_why ?? "" } : undefined,
  attempts: row.attempts,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
  deadline: row.deadline,
  jobId: row.job_id ?? undefined,
  name: row.name ?? undefined,
  parentId: row.parent_id ?? undefined,
  partial: row.partial === 1 ? (true as const) : undefined,
  attention: row.attention === 1 ? (true as const) : undefined,
  spent: { costUsd: usdOf(row.spent_nano_usd), tokens: row.spent_tokens },
  startedAt: row.started_at ?? undefined,
  finishedAt: row.finished_at ?? undefined
})

/** The fields of a submission that its task shows again as they came. */
export const shownOf = (submission: TaskSubmission) => ({
  prompt: submission.prompt,
  system: submission.system,
  context: submission.context,
  requires: submission.requires,
  platform: submission.platform,
  deny: submission.deny,
  model: submission.model,
  policy: submission.policy,
  affinityKey: submission.affinityKey,
  maxCostUsd: submission.maxCostUsd,
  maxTokens: submission.maxTokens,
  maxOutputTokens: submission.maxOutputTokens,
  tools: submission.tools,
  responseFormat: submission.responseFormat,
  metadata: submission.metadata,
  dependsOn: submission.dependsOn,
  callbackUrl: submission.callbackUrl
})

export const taskOf = (row: TaskRow): Effect.Effect<Task, ParseResult.ParseError> =>
  Effect.gen(function* () {
    const submission = yield* decodeSubmission(row.submission)
    const result = yield* nullable(row.result, decodeResult)
    const error = yield* nullable(row.error, decodeError)
    const validation = yield* nullable(row.validation, decodeVerdict)
    const alternative = yield* nullable(row.alternative, decodeAlternative)
    return { ...commonOf(row), ...shownOf(submission), validation, alternative, result, error }
  })

export const summaryOf = (row: SummaryRow): Effect.Effect<TaskSummary, ParseResult.ParseError> =>
  Effect.map(nullable(row.error, decodeError), (error) => ({
    ...commonOf(row),
    preview: row.preview,
    platform: row.platform ?? undefined,
    error: error === undefined ? undefined : { type: error.type, message: error.message }
  }))

export interface AttemptRow {
  readonly number: number
  readonly platform: PlatformId
  readonly model: string
  readonly outcome: Attempt["outcome"]
  readonly started_at: number
  readonly ended_at: number | null
  readonly time_to_first_token_ms: number | null
  readonly duration_ms: number | null
  readonly cost_usd: number | null
  readonly failure: string | null
  readonly usage: string | null
  readonly decision: string
}

export const attemptOf = (row: AttemptRow): Effect.Effect<Attempt, ParseResult.ParseError> =>
  Effect.gen(function* () {
    return {
      number: row.number,
      platform: row.platform,
      model: row.model,
      outcome: row.outcome,
      startedAt: row.started_at,
      endedAt: row.ended_at ?? undefined,
      timeToFirstTokenMs: row.time_to_first_token_ms ?? undefined,
      durationMs: row.duration_ms ?? undefined,
      failure: yield* nullable(row.failure, decodeFailure),
      usage: yield* nullable(row.usage, decodeUsage),
      costUsd: row.cost_usd ?? undefined,
      decision: yield* decodeDecision(row.decision)
    }
  })

/** PostgreSQL keeps no text with a NUL in it. (As JSON it is written as an escape.) */
export const storable = (text: string): string => text.replaceAll("\u0000", "\uFFFD")

/** The first characters of a prompt, never half a character. */
export const previewOf = (prompt: string): string => {
  const cut = storable(prompt.slice(0, previewLength))
  return /[\uD800-\uDBFF]$/.test(cut) ? cut.slice(0, -1) : cut
}

/** Runs a query; its failure is logged, and told as no more than that the database does not answer. */
export type Read = <A>(
  query: Effect.Effect<A, SqlError | ParseResult.ParseError>
) => Effect.Effect<A, ServiceUnavailable>

export const firstOf = <A>(rows: ReadonlyArray<A>): Option.Option<A> => Option.fromNullable(rows[0])
