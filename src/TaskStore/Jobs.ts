import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Effect, Option, type ParseResult, Schema } from "effect"
import { Conflict, NotFound, type ServiceUnavailable } from "../Domain/ApiError.js"
import type { Job, JobMode, JobResult, JobState, JobTask, OnFailure } from "../Domain/Job.js"
import type { JobId, TaskId, TaskName, TaskState, TaskType, TenantId } from "../Domain/Task.js"
import { Settings } from "../Settings.js"
import { decodeColumn } from "../Sql/jsonColumn.js"
import { unavailable } from "../Sql/Writer.js"
import type { NewTask } from "../TaskStore.js"
import { batch, blockedWhy, type Consequences, chunksOf, type Edge, turnWhy } from "./Consequences.js"
import { webhookOf } from "./Deliveries.js"
import { type Idempotency, makeKeys } from "./Keys.js"
import { decodeError, decodeResult, firstOf, nullable, previewOf, type Read, rankOf } from "./Rows.js"
import { budgetColumns } from "./Spending.js"

/** Results shown in one page of a job at most, bytes; the first is shown whatever its size. */
const maxPageBytes = 4_000_000

/** A task as part of a new job. */
export interface NewJobTask extends Omit<NewTask, "idempotency" | "tenant"> {
  readonly name: TaskName | undefined
  /** Whether it sees the results of all such tasks before it in the job. */
  readonly chained: boolean
  readonly dependsOn: ReadonlyArray<TaskId>
}

export interface NewJob {
  readonly id: JobId
  readonly tenant: TenantId
  readonly mode: JobMode
  readonly onFailure: OnFailure
  readonly maxParallel: number
  readonly metadata: Readonly<Record<string, string>> | undefined
  readonly maxCostUsd: number | undefined
  readonly maxTokens: number | undefined
  readonly callbackUrl: string | undefined
  readonly idempotency: Option.Option<Idempotency>
  /** In their order. What they depend on is among them or of the same tenant. */
  readonly tasks: ReadonlyArray<NewJobTask>
}

export interface JobQuery {
  readonly state?: JobState | undefined
  readonly mode?: JobMode | undefined
  /** Only jobs older than this one's `seq`. */
  readonly before?: number | undefined
  readonly limit: number
}

export interface JobStore {
  /** The job a tenant submitted under a key; another request under the same key is a conflict. */
  readonly replay: (
    tenant: TenantId,
    idempotency: Idempotency
  ) => Effect.Effect<Option.Option<Job>, Conflict | ServiceUnavailable>
  /**
   * Accepts a job whole or not at all: its tasks are stored part by part, unseen, and one write makes all of them count.
   * What a crash leaves of one is removed by the next start.
   */
  readonly insert: (
    job: NewJob
  ) => Effect.Effect<{ readonly job: Job; readonly replayed: boolean }, Conflict | ServiceUnavailable>
  readonly get: (tenant: TenantId, id: JobId) => Effect.Effect<Job, NotFound | ServiceUnavailable>
  /** With the tasks after the position `after`, up to `limit` and to a few megabytes of results. */
  readonly result: (
    tenant: TenantId,
    id: JobId,
    page: { readonly after: number; readonly limit: number }
  ) => Effect.Effect<
    { readonly job: Omit<JobResult, "next">; readonly next: Option.Option<number> },
    NotFound | ServiceUnavailable
  >
  /** Newest first; `next` is the `before` of the page that follows. */
  readonly list: (
    tenant: TenantId,
    query: JobQuery
  ) => Effect.Effect<{ readonly jobs: ReadonlyArray<Job>; readonly next: Option.Option<number> }, ServiceUnavailable>
  /** Cancels every task that has not ended; answers when all are. A job that ended otherwise is a conflict. */
  readonly cancel: (tenant: TenantId, id: JobId) => Effect.Effect<Job, NotFound | Conflict | ServiceUnavailable>
}

interface JobRow {
  readonly seq: number
  readonly id: JobId
  readonly tenant: TenantId
  readonly request_hash: string | null
  readonly mode: JobMode
  readonly on_failure: OnFailure
  readonly max_parallel: number
  readonly state: JobState
  readonly total: number
  readonly succeeded: number
  readonly failed: number
  readonly cancelled: number
  readonly input_tokens: number
  readonly cached_input_tokens: number
  readonly output_tokens: number
  readonly reasoning_tokens: number
  readonly cost_usd: number
  readonly max_cost_usd: number | null
  readonly max_tokens: number | null
  readonly callback_url: string | null
  readonly metadata: string | null
  readonly created_at: number
  readonly updated_at: number
  readonly finished_at: number | null
}
const jobColumns =
  "seq, id, tenant, request_hash, mode, on_failure, max_parallel, state, total, succeeded, failed, cancelled, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, max_cost_usd, max_tokens, callback_url, metadata, created_at, updated_at, finished_at"

const decodeMetadata = decodeColumn(Schema.Record({ key: Schema.String, value: Schema.String }))

const jobOf = (row: JobRow): Effect.Effect<Job, ParseResult.ParseError> =>
  Effect.map(nullable(row.metadata, decodeMetadata), (metadata) => ({
    id: row.id,
    tenant: row.tenant,
    mode: row.mode,
    onFailure: row.on_failure,
    maxParallel: row.max_parallel,
    state: row.state,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    finishedAt: row.finished_at ?? undefined,
    metadata,
    maxCostUsd: row.max_cost_usd ?? undefined,
    maxTokens: row.max_tokens ?? undefined,
    callbackUrl: row.callback_url ?? undefined,
    counts: {
      total: row.total,
      open: row.total - row.succeeded - row.failed - row.cancelled,
      succeeded: row.succeeded,
      failed: row.failed,
      cancelled: row.cancelled
    },
    usage: {
      inputTokens: row.input_tokens,
      cachedInputTokens: row.cached_input_tokens,
      outputTokens: row.output_tokens,
      reasoningTokens: row.reasoning_tokens
    },
    costUsd: row.cost_usd
  }))

interface JobTaskRow {
  readonly id: TaskId
  readonly name: TaskName | null
  readonly type: TaskType
  readonly state: TaskState
  readonly waiting_why: string | null
  readonly result: string | null
  readonly error: string | null
}

const jobTaskOf = (row: JobTaskRow): Effect.Effect<JobTask, ParseResult.ParseError> =>
  Effect.gen(function* () {
    return {
      id: row.id,
      name: row.name ?? undefined,
      type: row.type,
      state: row.state,
      waiting: row.state === "waiting" ? (row.waiting_why ?? undefined) : undefined,
      result: yield* nullable(row.result, decodeResult),
      error: yield* nullable(row.error, decodeError)
    }
  })

/** A write that gets the current wall time, epoch ms. */
export type Write = <A>(operation: (now: number) => Effect.Effect<A, SqlError>) => Effect.Effect<A, ServiceUnavailable>

export interface JobsOptions {
  readonly epoch: number
  readonly consequences: Consequences
  readonly read: Read
  readonly write: Write
}

export const makeJobs = ({ consequences, epoch, read, write }: JobsOptions) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const { retention } = yield* Settings

    const jobRow = (tenant: TenantId, id: JobId) =>
      Effect.map(
        sql<JobRow>`
          SELECT ${sql.literal(jobColumns)} FROM jobs WHERE id = ${id} AND tenant = ${tenant} AND state <> 'accepting'`,
        firstOf
      )

    const get = (tenant: TenantId, id: JobId): Effect.Effect<Job, NotFound | ServiceUnavailable> =>
      Effect.flatMap(
        read(jobRow(tenant, id)),
        (row): Effect.Effect<Job, NotFound | ServiceUnavailable> =>
          Option.isNone(row) ? new NotFound({ message: `There is no job ${id}` }) : read(jobOf(row.value))
      )

    const keys = makeKeys<JobRow, Job>(sql, {
      table: "jobs",
      columns: jobColumns,
      keptMs: retention.keysMs,
      read,
      valueOf: jobOf
    })

    const stage = (job: NewJob) =>
      write(
        (now) =>
          sql`INSERT INTO jobs ${sql.insert({
            id: job.id,
            tenant: job.tenant,
            mode: job.mode,
            on_failure: job.onFailure,
            max_parallel: job.maxParallel,
            state: "accepting",
            accepting_epoch: epoch,
            total: job.tasks.length,
            max_cost_usd: job.maxCostUsd ?? null,
            max_tokens: job.maxTokens ?? null,
            callback_url: job.callbackUrl ?? null,
            metadata: job.metadata === undefined ? null : JSON.stringify(job.metadata),
            created_at: now,
            updated_at: now
          })}`
      )

    const rowOf = (job: NewJob, task: NewJobTask, position: number, now: number) => ({
      id: task.id,
      tenant: job.tenant,
      class_id: task.classId,
      type: task.type,
      priority: rankOf(task.priority),
      state: "waiting",
      preview: previewOf(task.submission.prompt),
      submission: JSON.stringify(task.submission),
      request: JSON.stringify(task.request),
      deadline: Math.round(task.deadline),
      allowed_ms: Math.round(task.deadline) - now,
      wake_at: Math.round(task.deadline),
      waiting_why: task.dependsOn.length === 0 ? turnWhy : blockedWhy(task.dependsOn.length),
      blocked_by: task.dependsOn.length,
      held: 1,
      depends: task.dependsOn.length === 0 ? 0 : 1,
      chained: task.chained ? 1 : 0,
      job_id: job.id,
      position,
      name: task.name ?? null,
      callback_url: task.submission.callbackUrl ?? null,
      ...budgetColumns(task.submission),
      validation: task.verdict === undefined ? null : JSON.stringify(task.verdict),
      created_at: now,
      updated_at: now
    })

    const stageTasks = (job: NewJob) => {
      const awaited = new Set(job.tasks.flatMap((task) => task.dependsOn))
      const numbered = job.tasks.map((task, index) => ({ task, position: index + 1 }))
      return Effect.forEach(
        chunksOf(numbered),
        (part) =>
          write((now) =>
            Effect.zipRight(
              sql`INSERT INTO tasks ${sql.insert(
                part.map(({ position, task }) => ({
                  ...rowOf(job, task, position, now),
                  awaited: awaited.has(task.id) ? 1 : 0
                }))
              )}`,
              consequences.addEdges(
                part.flatMap(({ task }) =>
                  task.dependsOn.map(
                    (dependsOn): Edge => ({
                      task: task.id,
                      dependsOn,
                      onFailure: job.onFailure === "continue" ? "run" : "skip"
                    })
                  )
                )
              )
            )
          ),
        { discard: true }
      )
    }

    /** Makes a staged job count, where nobody else has used its key meanwhile. */
    const accept = (job: NewJob) => {
      const own = new Set(job.tasks.map((task) => task.id))
      const foreign = [...new Set(job.tasks.flatMap((task) => task.dependsOn))].filter((id) => !own.has(id))
      const key = Option.getOrNull(Option.map(job.idempotency, (given) => given.key))
      const hash = Option.getOrNull(Option.map(job.idempotency, (given) => given.hash))
      return write((now) =>
        Effect.gen(function* () {
          if (key !== null) {
            const earlier = yield* keys.rowOf(job.tenant, key, now)
            if (Option.isSome(earlier)) return { _tag: "Used", earlier: earlier.value } as const
            yield* sql`
              UPDATE jobs SET idempotency_key = NULL, request_hash = NULL
              WHERE tenant = ${job.tenant} AND idempotency_key = ${key}`
          }
          const rows = yield* sql`
            UPDATE jobs SET state = 'running', accepting_epoch = NULL, idempotency_key = ${key}, request_hash = ${hash},
              created_at = ${now}, updated_at = ${now}
            WHERE id = ${job.id} AND state = 'accepting' RETURNING id`
          if (rows.length === 0) return { _tag: "Gone" } as const
          yield* consequences.await(foreign)
          yield* consequences.begin(job.id, now)
          return { _tag: "Accepted" } as const
        })
      )
    }

    /** Removes what was staged of jobs that were never accepted, those `which` says. */
    const discard = (which: ReturnType<typeof sql.and>) =>
      write(() =>
        Effect.gen(function* () {
          const rows = yield* sql`
            DELETE FROM tasks WHERE seq IN (
              SELECT tasks.seq FROM tasks JOIN jobs ON jobs.id = tasks.job_id
              WHERE jobs.state = 'accepting' AND ${which} LIMIT ${batch})
            RETURNING seq`
          if (rows.length < batch) yield* sql`DELETE FROM jobs WHERE state = 'accepting' AND ${which}`
          return rows.length === batch
        })
      ).pipe(Effect.repeat({ while: (isMore) => isMore }), Effect.asVoid)

    const insert = (job: NewJob) =>
      Effect.gen(function* () {
        yield* stage(job)
        yield* stageTasks(job)
        const accepted = yield* accept(job)
        switch (accepted._tag) {
          case "Accepted":
            return { job: yield* Effect.catchTag(get(job.tenant, job.id), "NotFound", Effect.die), replayed: false }
          // A later owner of the database took it for what a dead one left.
          case "Gone":
            return yield* unavailable
          case "Used": {
            yield* discard(sql.and([sql`jobs.id = ${job.id}`]))
            const hash = Option.match(job.idempotency, { onNone: () => "", onSome: (given) => given.hash })
            return { job: yield* keys.sameRequest(accepted.earlier, hash), replayed: true }
          }
        }
      }).pipe(
        // What cannot be removed now is removed by the next start.
        Effect.tapErrorTag("ServiceUnavailable", () => Effect.ignore(discard(sql.and([sql`jobs.id = ${job.id}`])))),
        Effect.uninterruptible
      )

    const result: JobStore["result"] = (tenant, id, { after, limit }) =>
      Effect.gen(function* () {
        const job = yield* get(tenant, id)
        const webhook =
          job.callbackUrl === undefined || job.state === "running"
            ? undefined
            : yield* read(webhookOf(sql, "job_id", id, job.callbackUrl))
        const { next, tasks } = yield* read(
          Effect.gen(function* () {
            // Of octets, because the length in characters takes reading all of a text.
            const sizes = yield* sql<{ readonly position: number; readonly size: number | null }>`
              SELECT position, OCTET_LENGTH(result) AS size FROM tasks WHERE job_id = ${id} AND position > ${after}
              ORDER BY position LIMIT ${limit + 1}`
            let bytes = 0
            const fitting = sizes.slice(0, limit).filter(({ size }, index) => {
              bytes += size ?? 0
              return index === 0 || bytes <= maxPageBytes
            })
            const last = fitting.at(-1)?.position ?? after
            const rows = yield* sql<JobTaskRow>`
              SELECT id, name, type, state, waiting_why, result, error FROM tasks
              WHERE job_id = ${id} AND position > ${after} AND position <= ${last} ORDER BY position`
            return {
              tasks: yield* Effect.forEach(rows, jobTaskOf),
              next: fitting.length < sizes.length ? Option.some(last) : Option.none<number>()
            }
          })
        )
        return { job: { ...job, webhook, tasks }, next }
      })

    const list: JobStore["list"] = (tenant, query) => {
      const conditions = [
        sql`tenant = ${tenant}`,
        sql`state <> 'accepting'`,
        ...(query.state === undefined ? [] : [sql`state = ${query.state}`]),
        ...(query.mode === undefined ? [] : [sql`mode = ${query.mode}`]),
        ...(query.before === undefined ? [] : [sql`seq < ${query.before}`])
      ]
      return read(
        Effect.gen(function* () {
          const rows = yield* sql<JobRow>`
            SELECT ${sql.literal(jobColumns)} FROM jobs WHERE ${sql.and(conditions)}
            ORDER BY seq DESC LIMIT ${query.limit + 1}`
          const shown = rows.slice(0, query.limit)
          const next = rows.length > query.limit ? Option.fromNullable(shown.at(-1)?.seq) : Option.none()
          return { jobs: yield* Effect.forEach(shown, jobOf), next }
        })
      )
    }

    const cancel: JobStore["cancel"] = (tenant, id) =>
      Effect.gen(function* () {
        yield* write((now) =>
          Effect.gen(function* () {
            const rows = yield* sql`
              UPDATE jobs SET closing = 'cancelled', closed_for = NULL, updated_at = ${now}
              WHERE id = ${id} AND tenant = ${tenant} AND state = 'running' RETURNING id`
            if (rows.length === 0) return
            yield* consequences.close(id)
            yield* consequences.settle(now)
          })
        )
        yield* consequences.sweep
        const job = yield* get(tenant, id)
        if (job.state === "succeeded" || job.state === "failed") {
          return yield* new Conflict({ message: `The job has ended already: it ${job.state}` })
        }
        return job
      })

    return {
      store: {
        replay: keys.replay,
        insert,
        get,
        result,
        list,
        cancel
      } satisfies JobStore,
      /** Takes away what earlier owners staged, and settles what they left. */
      recover: Effect.zipRight(discard(sql.and([sql`jobs.accepting_epoch < ${epoch}`])), consequences.sweep)
    }
  })
