import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type { Fragment } from "@effect/sql/Statement"
import { Array as Arr, Clock, Effect, Option, Queue, Schedule, Schema, type Scope, type Stream } from "effect"
import type { ServiceUnavailable } from "../Domain/ApiError.js"
import type { JobEventBody, TaskEventBody } from "../Domain/Event.js"
import type { JobState, OnFailure } from "../Domain/Job.js"
import {
  isTerminal,
  type JobId,
  type TaskError,
  type TaskId,
  TaskResult,
  type TaskState,
  type TenantId
} from "../Domain/Task.js"
import type { Events, TaskBelonging } from "../Events.js"
import { jsonColumn } from "../Sql/jsonColumn.js"
import { SqlWriter, type Steps } from "../Sql/Writer.js"
import { makeNotices } from "./Notices.js"

/** Rows changed by one write of the store's own accord, so that it never holds others up for long. */
export const batch = 200
/** Of these, tasks that are ended or released in one write: each takes several statements, and nobody else has a turn. */
export const settledAtOnce = 50
/** A job tells of its progress this often at most. */
const maxProgressEvents = 100

export type EndEvent = Extract<TaskEventBody, { type: "task.succeeded" | "task.failed" | "task.cancelled" }>
export type JobEndEvent = Extract<JobEventBody, { type: "job.succeeded" | "job.failed" | "job.cancelled" }>

/**
 * One task waits for another. `skip`: it is cancelled where that one does not succeed; `run`: it goes on whatever becomes
 * of it.
 */
export interface Edge {
  readonly task: TaskId
  readonly dependsOn: TaskId
  readonly onFailure: "skip" | "run"
}

/** A task that has ended, as far as that concerns others. */
export interface EndedTask extends TaskBelonging {
  /** Whether anything waits, or waited, for it: 0 or 1. */
  readonly awaited: number
  /** How many tasks were made for it. */
  readonly children: number
}

export interface ConsequencesOptions {
  readonly appendTask: Events["Type"]["appendOf"]
  readonly appendJob: Events["Type"]["appendJob"]
  /** Ends whatever attempts of a task are still running, as ignored; answers with their events. */
  readonly cutAttempts: (id: TaskId, at: number) => Effect.Effect<ReadonlyArray<TaskEventBody>, SqlError>
  /** What belongs to the end of any task; it leads back to `ofTask`. */
  readonly ended: (task: EndedTask, at: number, attempts: ReadonlyArray<TaskEventBody>, end: EndEvent) => Steps<void>
  /** What belongs to the end of a job. */
  readonly jobEnded: (id: JobId, tenant: TenantId, at: number, end: JobEndEvent) => Effect.Effect<void, SqlError>
}

/**
 * What the end of a task means for others: dependants are released or cancelled, its job counts it, gives the turn on and
 * ends with its last task. All of it is part of the write that ends the task, as far as that is no more than 50 tasks; what
 * is beyond is written down there (`settling`) and follows in writes of its own, over restarts too.
 */
export interface Consequences {
  /** Part of the write that ended the task. */
  readonly ofTask: (task: EndedTask, at: number, end: EndEvent) => Effect.Effect<void, SqlError>
  /**
   * Stores what tasks wait for, in the write that stores these. The tasks must be there with their `blocked_by`; call
   * `settle` afterwards, for what they wait for may have ended already.
   */
  readonly addEdges: (edges: ReadonlyArray<Edge>) => Effect.Effect<void, SqlError>
  /** Marks tasks as awaited; those that have ended already are settled with the next `settle`. */
  readonly await: (ids: ReadonlyArray<TaskId>) => Effect.Effect<void, SqlError>
  /** Begins a job that was just accepted. */
  readonly begin: (job: JobId, at: number) => Effect.Effect<void, SqlError>
  /** Lets the next `settle` cancel what is left of a job that closes. */
  readonly close: (job: JobId) => Effect.Effect<void, SqlError>
  /** One batch of what is to be settled. */
  readonly settle: (at: number) => Effect.Effect<void, SqlError>
  /** Tasks settled so far, for a write that ends many: each of them may have a batch of its own. */
  readonly settled: () => number
  /**
   * Puts tasks back to where they wait, with what they wait for counted anew and a fresh attempt budget. What was cancelled
   * on account of `retried` is about to be put back as well, so nobody is told that it did not succeed.
   */
  readonly waitAgain: (ids: ReadonlyArray<TaskId>, at: number, retried: TaskId) => Effect.Effect<void, SqlError>
  /**
   * Opens again the job of a retried task, as part of the write that retries it, and what was cancelled on its account, as
   * far as a batch goes; answers whether more of it may be left to `sweep`.
   */
  readonly reopened: (task: {
    readonly id: TaskId
    readonly job: JobId | null
    readonly was: TaskState
    readonly at: number
  }) => Effect.Effect<void, SqlError>
  /** Settles, in bounded writes, all there is to settle. */
  readonly sweep: Effect.Effect<void, ServiceUnavailable>
  /** Classes that got queued tasks by other writes than those of the tasks' owners. For one reader. */
  readonly queued: Stream.Stream<number>
  /** Tasks that were ended while this process worked on them. For one reader. */
  readonly dropped: Stream.Stream<TaskId>
}

interface JobRow {
  readonly id: JobId
  readonly tenant: TenantId
  readonly on_failure: OnFailure
  readonly state: JobState | "accepting"
  readonly closing: "stopped" | "cancelled" | null
  readonly total: number
  readonly succeeded: number
  readonly failed: number
  readonly cancelled: number
}
const jobColumns = "id, tenant, on_failure, state, closing, total, succeeded, failed, cancelled"

export const turnWhy = "waits for its turn in its job"
export const blockedWhy = (count: number): string => `waits for ${count} ${count === 1 ? "task" : "tasks"}`

const nothingUsed = { inputTokens: 0, cachedInputTokens: 0, outputTokens: 0, reasoningTokens: 0, costUsd: 0 }
const decodeResult = Schema.decodeOption(jsonColumn(TaskResult))

export const makeConsequences = (
  options: ConsequencesOptions
): Effect.Effect<Consequences, never, SqlClient.SqlClient | SqlWriter | Scope.Scope> =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const writer = yield* SqlWriter
    const queued = yield* makeNotices<number>(writer.afterCommit)
    const dropped = yield* makeNotices<TaskId>(writer.afterCommit)
    const leftover = yield* Queue.sliding<void>(1)
    const sweepSoon = Effect.asVoid(Queue.offer(leftover, undefined))

    /** Jobs that may have a turn to give, noted and served in one and the same write. */
    const mayGiveTurns = new Set<JobId>()
    /** True while a batch is being settled: the ends it brings about are settled by its own rounds. */
    let isSettling = false
    let settled = 0

    /** Why a task waits that so many others keep, in SQL. */
    const whyBlockedBy = (count: Fragment) =>
      sql`CASE ${count} WHEN 0 THEN ${turnWhy} WHEN 1 THEN ${blockedWhy(1)} ELSE 'waits for ' || (${count}) || ' tasks' END`

    /** Queues tasks that nothing keeps any more. */
    const enqueue = (ids: ReadonlyArray<TaskId>, at: number): Effect.Effect<void, SqlError> =>
      Effect.gen(function* () {
        if (ids.length === 0) return
        const rows = yield* sql<TaskBelonging & { readonly class_id: number }>`
          UPDATE tasks SET state = 'queued', held = 0, wake_at = NULL, waiting_why = NULL, updated_at = ${at}
          WHERE ${sql.in("id", ids)} AND state = 'waiting' RETURNING id, tenant, job_id, class_id`
        const byId = new Map(rows.map((row) => [row.id, row]))
        // In the order of `ids`, which is not that of the rows.
        for (const id of ids) {
          const task = byId.get(id)
          if (task !== undefined) yield* options.appendTask(task, at, [{ type: "task.queued" }])
        }
        yield* queued.add(rows.map((row) => row.class_id))
      })

    const giveTurns = (at: number): Effect.Effect<void, SqlError> =>
      Effect.suspend(() => {
        const jobs = [...mayGiveTurns]
        mayGiveTurns.clear()
        return Effect.forEach(
          jobs,
          (id) =>
            Effect.gen(function* () {
              const [job] = yield* sql<{ readonly free: number }>`
                SELECT max_parallel - (
                  SELECT COUNT(*) FROM tasks
                  WHERE job_id = ${id} AND held = 0 AND state IN ('queued', 'running', 'waiting')) AS free
                FROM jobs WHERE id = ${id} AND state = 'running' AND closing IS NULL`
              if (job === undefined || job.free <= 0) return
              const rows = yield* sql<{ readonly id: TaskId }>`
                SELECT id FROM tasks WHERE job_id = ${id} AND state = 'waiting' AND held = 1 AND blocked_by = 0
                ORDER BY position LIMIT ${job.free}`
              yield* enqueue(
                rows.map((row) => row.id),
                at
              )
            }),
          { discard: true }
        )
      })

    const cancelOne = (
      id: TaskId,
      at: number,
      error: TaskError | undefined,
      skippedFor: TaskId | null
    ): Effect.Effect<void, SqlError> =>
      Effect.gen(function* () {
        const [task] = yield* sql<EndedTask>`
          UPDATE tasks SET state = 'cancelled', error = ${error === undefined ? null : JSON.stringify(error)},
            skipped_for = ${skippedFor}, wake_at = NULL, waiting_why = NULL, claim_epoch = NULL, updated_at = ${at},
            finished_at = ${at}
          WHERE id = ${id} AND state IN ('queued', 'running', 'waiting')
          RETURNING id, tenant, job_id, awaited, children`
        if (task === undefined) return
        yield* options.ended(task, at, yield* options.cutAttempts(id, at), { type: "task.cancelled" })
      })

    /** What was made for a task ends with it. */
    const cancelChildren = (parent: TaskId, at: number): Effect.Effect<void, SqlError> =>
      Effect.gen(function* () {
        const rows = yield* sql<{ readonly id: TaskId; readonly claim_epoch: number | null }>`
          SELECT id, claim_epoch FROM tasks WHERE parent_id = ${parent} AND state IN ('queued', 'running', 'waiting')
          LIMIT ${batch}`
        if (rows.length === 0) return
        const error: TaskError = {
          type: "parent-ended",
          message: `The task ${parent}, which it was made for, has ended without it`
        }
        yield* Effect.forEach(rows, (row) => cancelOne(row.id, at, error, null), { discard: true })
        yield* dropped.add(rows.filter((row) => row.claim_epoch !== null).map((row) => row.id))
      })

    /** Tells dependants of an ended task, `limit` at most; answers how many that were. */
    const tellDependants = (seq: number, id: TaskId, at: number, limit: number): Effect.Effect<number, SqlError> =>
      Effect.gen(function* () {
        const [task] = yield* sql<{
          readonly state: TaskState
          readonly name: string | null
          readonly skipped_for: TaskId | null
        }>`SELECT state, name, skipped_for FROM tasks WHERE id = ${id}`
        const isOver = task !== undefined && isTerminal(task.state)
        const edges = isOver
          ? yield* sql<{ readonly task_id: TaskId; readonly on_failure: Edge["onFailure"] }>`
              UPDATE dependencies SET is_open = 0 WHERE depends_on = ${id} AND is_open = 1 AND task_id IN (
                SELECT task_id FROM dependencies WHERE depends_on = ${id} AND is_open = 1 ORDER BY task_id LIMIT ${limit})
              RETURNING task_id, on_failure`
          : []
        if (edges.length < limit) yield* sql`DELETE FROM settling WHERE seq = ${seq}`
        if (!isOver) return 1
        const sorted = [...edges].sort((a, b) => (a.task_id < b.task_id ? -1 : 1))
        const isSkipped = (edge: (typeof sorted)[number]) => task.state !== "succeeded" && edge.on_failure === "skip"

        const released = sorted.filter((edge) => !isSkipped(edge)).map((edge) => edge.task_id)
        if (released.length > 0) {
          const rows = yield* sql<{
            readonly id: TaskId
            readonly blocked_by: number
            readonly held: number
            readonly job_id: JobId | null
          }>`
            UPDATE tasks SET blocked_by = blocked_by - 1, updated_at = ${at},
              waiting_why = ${whyBlockedBy(sql`blocked_by - 1`)}
            WHERE ${sql.in("id", released)} AND state = 'waiting' AND blocked_by > 0
            RETURNING id, blocked_by, held, job_id`
          const free = new Set(rows.filter((row) => row.blocked_by === 0 && row.held === 0).map((row) => row.id))
          for (const row of rows) {
            if (row.blocked_by === 0 && row.held === 1 && row.job_id !== null) mayGiveTurns.add(row.job_id)
          }
          yield* enqueue(
            released.filter((dependant) => free.has(dependant)),
            at
          )
        }

        const error: TaskError = {
          type: "dependency",
          message: `The task ${task.name ?? id}, which it waited for, ${task.state === "failed" ? "failed" : "was cancelled"}`
        }
        yield* Effect.forEach(
          sorted.filter(isSkipped),
          (edge) => cancelOne(edge.task_id, at, error, task.skipped_for ?? id),
          { discard: true }
        )
        return Math.max(1, edges.length)
      })

    const stopped = (job: {
      readonly closing: string | null
      readonly closed_for: TaskId | null
      readonly name: string | null
    }): TaskError | undefined =>
      job.closing === "stopped"
        ? { type: "stopped", message: `The task ${job.name ?? job.closed_for ?? ""} of the same job did not succeed` }
        : undefined

    /** Cancels what a closing job must not do any more, `limit` tasks at most; answers how many they were. */
    const cancelRest = (seq: number, id: JobId, at: number, limit: number): Effect.Effect<number, SqlError> =>
      Effect.gen(function* () {
        const [job] = yield* sql<{
          readonly closing: JobRow["closing"]
          readonly closed_for: TaskId | null
          readonly name: string | null
        }>`
          SELECT closing, closed_for, (SELECT name FROM tasks WHERE tasks.id = closed_for) AS name
          FROM jobs WHERE id = ${id} AND closing IS NOT NULL`
        const rows =
          job === undefined
            ? []
            : yield* sql<{ readonly id: TaskId; readonly claim_epoch: number | null }>`
                SELECT id, claim_epoch FROM tasks
                WHERE job_id = ${id} AND state IN ('queued', 'running', 'waiting')
                  AND ${job.closing === "cancelled" ? sql`1 = 1` : sql`attempts = 0`}
                ORDER BY held, position LIMIT ${limit}`
        if (rows.length < limit) yield* sql`DELETE FROM settling WHERE seq = ${seq}`
        if (job === undefined) return 1
        yield* Effect.forEach(rows, (row) => cancelOne(row.id, at, stopped(job), job.closed_for), { discard: true })
        yield* dropped.add(rows.filter((row) => row.claim_epoch !== null).map((row) => row.id))
        return Math.max(1, rows.length)
      })

    const settleBatch = (at: number): Effect.Effect<void, SqlError> =>
      Effect.gen(function* () {
        let left = settledAtOnce
        while (left > 0) {
          // The latest first: what this write has ended is settled by it, whatever else is under way.
          const [row] = yield* sql<
            | { readonly seq: number; readonly kind: "task" | "retried"; readonly id: TaskId }
            | { readonly seq: number; readonly kind: "job"; readonly id: JobId }
          >`SELECT seq, kind, id FROM settling ORDER BY seq DESC LIMIT 1`
          if (row === undefined) break
          switch (row.kind) {
            case "task":
              left -= yield* tellDependants(row.seq, row.id, at, left)
              break
            case "job":
              left -= yield* cancelRest(row.seq, row.id, at, left)
              break
            case "retried":
              left -= yield* putBackMore(row.seq, row.id, at, left)
          }
        }
        settled += settledAtOnce - left
        // Whom the end of a task has released may have its turn before those after it.
        yield* giveTurns(at)
        if (left <= 0) yield* writer.afterCommit(sweepSoon)
      })

    const settle = (at: number): Effect.Effect<void, SqlError> =>
      Effect.suspend(() => {
        if (isSettling) return Effect.void
        isSettling = true
        return Effect.ensuring(
          settleBatch(at),
          Effect.sync(() => {
            isSettling = false
          })
        )
      })

    const close = (id: JobId): Effect.Effect<void, SqlError> =>
      Effect.asVoid(sql`INSERT INTO settling (kind, id) VALUES ('job', ${id})`)

    const countsOf = ({ cancelled, failed, succeeded, total }: JobRow) => ({ total, succeeded, failed, cancelled })

    const usageOf = (id: TaskId) =>
      Effect.map(sql<{ readonly result: string | null }>`SELECT result FROM tasks WHERE id = ${id}`, ([row]) =>
        Option.match(decodeResult(row?.result ?? ""), {
          onNone: () => nothingUsed,
          onSome: ({ costUsd = 0, usage }) => ({ ...usage, costUsd })
        })
      )

    /** Ends or closes a job as its counts demand; `cause` is the task that ended last. */
    const judge = (job: JobRow, at: number, cause: TaskId | null): Effect.Effect<void, SqlError> =>
      Effect.gen(function* () {
        const isWhole = job.failed === 0 && job.cancelled === 0
        if (!isWhole && job.on_failure === "stop" && job.closing === null) {
          yield* sql`UPDATE jobs SET closing = 'stopped', closed_for = ${cause} WHERE id = ${job.id}`
          yield* close(job.id)
        }
        const ended = job.succeeded + job.failed + job.cancelled
        if (ended < job.total) {
          mayGiveTurns.add(job.id)
          if (ended > 0 && ended % Math.ceil(job.total / maxProgressEvents) === 0) {
            yield* options.appendJob(job.id, job.tenant, at, [{ type: "job.progress", ...countsOf(job) }])
          }
          return
        }
        const isCancelled = job.closing === "cancelled" || (job.failed === 0 && job.cancelled > 0)
        const state = isCancelled ? "cancelled" : job.failed > 0 ? "failed" : "succeeded"
        yield* sql`UPDATE jobs SET state = ${state}, finished_at = ${at} WHERE id = ${job.id}`
        yield* options.jobEnded(job.id, job.tenant, at, { type: `job.${state}`, ...countsOf(job) })
      })

    const countEnd = (id: TaskId, jobId: JobId, at: number, end: EndEvent): Effect.Effect<void, SqlError> =>
      Effect.gen(function* () {
        const used = end.type === "task.succeeded" ? yield* usageOf(id) : nothingUsed
        const [job] = yield* sql<JobRow>`
          UPDATE jobs SET updated_at = ${at},
            succeeded = succeeded + ${end.type === "task.succeeded" ? 1 : 0},
            failed = failed + ${end.type === "task.failed" ? 1 : 0},
            cancelled = cancelled + ${end.type === "task.cancelled" ? 1 : 0},
            input_tokens = input_tokens + ${used.inputTokens},
            cached_input_tokens = cached_input_tokens + ${used.cachedInputTokens},
            output_tokens = output_tokens + ${used.outputTokens},
            reasoning_tokens = reasoning_tokens + ${used.reasoningTokens},
            cost_usd = cost_usd + ${used.costUsd}
          WHERE id = ${jobId} RETURNING ${sql.literal(jobColumns)}`
        // One that is still being accepted is judged when it is.
        if (job !== undefined && job.state === "running") yield* judge(job, at, id)
      })

    const settleEnd = Effect.fnUntraced(function* (task: EndedTask, at: number, end: EndEvent) {
      const { awaited, children, id, job_id } = task
      if (children > 0) yield* cancelChildren(id, at)
      if (job_id === null && awaited === 0) return
      if (awaited === 1) yield* sql`INSERT INTO settling (kind, id) VALUES ('task', ${id})`
      if (job_id !== null) yield* countEnd(id, job_id, at, end)
      yield* settle(at)
    })

    // Most tasks concern nobody else.
    const ofTask = (task: EndedTask, at: number, end: EndEvent): Effect.Effect<void, SqlError> =>
      task.children === 0 && task.job_id === null && task.awaited === 0 ? Effect.void : settleEnd(task, at, end)

    const awaitTasks = (ids: ReadonlyArray<TaskId>): Effect.Effect<void, SqlError> =>
      Effect.forEach(
        chunksOf(ids),
        (some) =>
          Effect.gen(function* () {
            const rows = yield* sql<{ readonly id: TaskId; readonly state: TaskState }>`
              UPDATE tasks SET awaited = 1 WHERE ${sql.in("id", some)} RETURNING id, state`
            const over = rows.filter((row) => isTerminal(row.state))
            if (over.length === 0) return
            yield* sql`INSERT INTO settling ${sql.insert(over.map((row) => ({ kind: "task", id: row.id })))}`
          }),
        { discard: true }
      )

    const addEdges = (edges: ReadonlyArray<Edge>): Effect.Effect<void, SqlError> =>
      Effect.forEach(
        chunksOf(edges),
        (some) =>
          sql`INSERT INTO dependencies ${sql.insert(
            some.map((edge) => ({ task_id: edge.task, depends_on: edge.dependsOn, on_failure: edge.onFailure }))
          )}`,
        { discard: true }
      )

    const waitAgain: Consequences["waitAgain"] = (ids, at, retried) =>
      Effect.gen(function* () {
        const which = sql.in("task_id", ids)
        // What has not succeeded is told of again, should it have ended already.
        yield* sql`
          UPDATE dependencies SET is_open = 1 WHERE ${which} AND depends_on IN (
            SELECT id FROM tasks WHERE id = dependencies.depends_on AND state <> 'succeeded')`
        yield* sql`
          UPDATE tasks SET blocked_by = (
            SELECT COUNT(*) FROM dependencies WHERE dependencies.task_id = tasks.id AND is_open = 1)
          WHERE ${sql.in("id", ids)}`
        yield* sql`
          UPDATE tasks SET state = 'waiting', held = CASE WHEN job_id IS NULL THEN 0 ELSE 1 END, error = NULL,
            skipped_for = NULL, attempts_spent = 0, owner_deaths = 0, finished_at = NULL, updated_at = ${at},
            deadline = CASE WHEN deadline <= ${at} THEN ${at} + allowed_ms ELSE deadline END,
            wake_at = CASE WHEN deadline <= ${at} THEN ${at} + allowed_ms ELSE deadline END,
            waiting_why = ${whyBlockedBy(sql`blocked_by`)}
          WHERE ${sql.in("id", ids)}`
        yield* sql`
          INSERT INTO settling (kind, id) SELECT DISTINCT 'task', tasks.id
          FROM dependencies JOIN tasks ON tasks.id = dependencies.depends_on
          WHERE ${sql.in("dependencies.task_id", ids)} AND dependencies.is_open = 1
            AND tasks.state IN ('failed', 'cancelled') AND (tasks.skipped_for IS NULL OR tasks.skipped_for <> ${retried})`
        const free = yield* sql<{ readonly id: TaskId }>`
          SELECT id FROM tasks WHERE ${sql.in("id", ids)} AND held = 0 AND blocked_by = 0 ORDER BY seq`
        yield* enqueue(
          free.map((row) => row.id),
          at
        )
      })

    const reopenJob = (
      id: JobId,
      at: number,
      opened: { readonly failed: number; readonly cancelled: number },
      isTold: boolean
    ): Effect.Effect<void, SqlError> =>
      Effect.gen(function* () {
        const [before] = yield* sql<Pick<JobRow, "state">>`SELECT state FROM jobs WHERE id = ${id}`
        const [job] = yield* sql<JobRow>`
          UPDATE jobs SET state = 'running', finished_at = NULL, closing = NULL, closed_for = NULL, updated_at = ${at},
            failed = failed - ${opened.failed}, cancelled = cancelled - ${opened.cancelled}
          WHERE id = ${id} RETURNING ${sql.literal(jobColumns)}`
        if (job === undefined) return
        mayGiveTurns.add(id)
        const isReopened = before?.state !== "running"
        if (!isReopened && !isTold) return
        const type = isReopened ? "job.reopened" : "job.progress"
        yield* options.appendJob(id, job.tenant, at, [{ type, ...countsOf(job) }])
      })

    /** Puts back what was cancelled on account of a task that is retried, one batch; answers whose jobs, and how many each. */
    const putBack = (id: TaskId, at: number, limit: number) =>
      Effect.gen(function* () {
        // Neither a job that was cancelled as a whole goes on, nor one that was stopped by another task.
        const rows = yield* sql<TaskBelonging>`
          SELECT id, tenant, job_id FROM tasks WHERE skipped_for = ${id} AND state = 'cancelled' AND (
            job_id IS NULL OR NOT EXISTS (
              SELECT 1 FROM jobs WHERE jobs.id = tasks.job_id AND (closing = 'cancelled' OR (
                closing = 'stopped' AND closed_for NOT IN (
                  SELECT cause.id FROM tasks AS cause WHERE cause.skipped_for = ${id} AND cause.state = 'cancelled')))))
          ORDER BY seq LIMIT ${limit}`
        const jobs = new Map<JobId, number>()
        for (const { job_id } of rows) if (job_id !== null) jobs.set(job_id, (jobs.get(job_id) ?? 0) + 1)
        for (const row of rows) yield* options.appendTask(row, at, [{ type: "task.retried" }])
        if (rows.length > 0) {
          yield* waitAgain(
            rows.map((row) => row.id),
            at,
            id
          )
        }
        return { jobs, count: rows.length }
      })

    /** What is not put back, and never will be: whoever was put back and waits for it is told that it did not succeed. */
    const tellOfTheRest = (id: TaskId): Effect.Effect<unknown, SqlError> => sql`
      INSERT INTO settling (kind, id) SELECT DISTINCT 'task', tasks.id
      FROM tasks JOIN dependencies ON dependencies.depends_on = tasks.id
      WHERE tasks.skipped_for = ${id} AND tasks.state = 'cancelled' AND dependencies.is_open = 1`

    /** Goes on to put back what was cancelled on account of a task; answers how many that were. */
    const putBackMore = (seq: number, id: TaskId, at: number, limit: number): Effect.Effect<number, SqlError> =>
      Effect.gen(function* () {
        const [task] = yield* sql<{ readonly state: TaskState }>`SELECT state FROM tasks WHERE id = ${id}`
        // Where it did not succeed once more, the rest stays as it is.
        const goesOn = task !== undefined && (task.state === "succeeded" || !isTerminal(task.state))
        const { count, jobs } = goesOn ? yield* putBack(id, at, limit) : { count: 0, jobs: new Map<JobId, number>() }
        const isLast = count < limit
        yield* Effect.forEach(jobs, ([job, cancelled]) => reopenJob(job, at, { failed: 0, cancelled }, isLast), {
          discard: true
        })
        if (isLast) {
          yield* sql`DELETE FROM settling WHERE seq = ${seq}`
          yield* tellOfTheRest(id)
        }
        return Math.max(1, count)
      })

    const reopened: Consequences["reopened"] = ({ at, id, job, was }) =>
      Effect.gen(function* () {
        if (job !== null) yield* sql`UPDATE jobs SET closing = NULL, closed_for = NULL WHERE id = ${job}`
        const { count, jobs } = yield* putBack(id, at, settledAtOnce)
        const failed = job !== null && was === "failed" ? 1 : 0
        if (job !== null) jobs.set(job, (jobs.get(job) ?? 0) + 1 - failed)
        yield* Effect.forEach(
          jobs,
          ([jobId, cancelled]) => reopenJob(jobId, at, { failed: jobId === job ? failed : 0, cancelled }, true),
          { discard: true }
        )
        const isMore = count === settledAtOnce
        yield* isMore ? sql`INSERT INTO settling (kind, id) VALUES ('retried', ${id})` : tellOfTheRest(id)
        yield* settle(at)
        return isMore
      })

    const sweep: Effect.Effect<void, ServiceUnavailable> = Effect.flatMap(Clock.currentTimeMillis, (now) =>
      writer.write(
        Effect.zipRight(
          settle(now),
          Effect.map(sql`SELECT 1 FROM settling LIMIT 1`, (rows) => rows.length > 0)
        )
      )
    ).pipe(Effect.repeat({ while: (isMore) => isMore }), Effect.asVoid)

    yield* Queue.take(leftover).pipe(
      Effect.zipRight(Effect.retry(sweep, Schedule.spaced("1 second"))),
      Effect.catchAllCause((cause) => Effect.logError("What follows from ended tasks could not be settled", cause)),
      Effect.forever,
      Effect.forkScoped
    )

    return {
      ofTask,
      addEdges,
      await: awaitTasks,
      begin: (id, at) =>
        Effect.gen(function* () {
          const [job] = yield* sql<JobRow>`SELECT ${sql.literal(jobColumns)} FROM jobs WHERE id = ${id}`
          if (job === undefined) return
          yield* options.appendJob(id, job.tenant, at, [{ type: "job.queued", ...countsOf(job) }])
          yield* judge(job, at, null)
          yield* settle(at)
        }),
      close,
      settle,
      settled: () => settled,
      waitAgain,
      reopened,
      sweep,
      queued: queued.stream,
      dropped: dropped.stream
    }
  })

/** Parts small enough for one statement. */
export const chunksOf = <A>(items: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> => Arr.chunksOf(items, batch)
