import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Clock, Context, Duration, Effect, Layer } from "effect"
import type { ServiceUnavailable } from "../Domain/ApiError.js"
import { Settings } from "../Settings.js"
import { SqlWriter } from "../Sql/Writer.js"

/** Rows deleted by one write, so that it never holds others up for long. */
const batch = 200
/** Between two such writes: a long backlog is deleted beside the work, not in its place. */
const pause = Duration.millis(100)
const firstAfter = Duration.minutes(1)
const every = Duration.hours(1)

/** What one run deleted. */
export interface Deleted {
  /** Idempotency keys that no longer stand for their task or job. */
  readonly keys: number
  readonly events: number
  /** With their attempts, and what was left of their events. */
  readonly tasks: number
  readonly jobs: number
}

/**
 * Deletes what the `retention` settings no longer keep: idempotency keys, events, and tasks and jobs after their end. A job
 * goes as a whole, a task not before what waits for it, and neither before its webhooks are delivered or given up. A
 * platform's own events are not among them: of each platform the latest are kept.
 */
export class Retention extends Context.Tag("dream-team/Retention")<
  Retention,
  {
    /** One run; the layer makes one soon after the start and one each hour. */
    readonly run: Effect.Effect<Deleted, ServiceUnavailable>
  }
>() {
  static readonly layer: Layer.Layer<Retention, never, Settings | SqlClient.SqlClient | SqlWriter> = Layer.scoped(
    Retention,
    Effect.gen(function* () {
      const { retention } = yield* Settings
      const sql = yield* SqlClient.SqlClient
      const writer = yield* SqlWriter

      /** Repeats a write until it has no whole batch any more; answers how many rows it changed. */
      const inBatches = (
        write: Effect.Effect<ReadonlyArray<unknown>, SqlError>
      ): Effect.Effect<number, ServiceUnavailable> =>
        Effect.gen(function* () {
          let all = 0
          while (true) {
            const { length } = yield* writer.write(write)
            all += length
            if (length < batch) return all
            yield* Effect.sleep(pause)
          }
        })

      const freeKeys = (table: "tasks" | "jobs", until: number) =>
        inBatches(sql`
          UPDATE ${sql(table)} SET idempotency_key = NULL, request_hash = NULL WHERE seq IN (
            SELECT seq FROM ${sql(table)} WHERE idempotency_key IS NOT NULL AND created_at <= ${until} LIMIT ${batch})
          RETURNING seq`)

      const deleteEvents = (until: number) =>
        inBatches(sql`
          DELETE FROM events WHERE id IN (
            SELECT id FROM events WHERE platform IS NULL AND at <= ${until} LIMIT ${batch})
          RETURNING id`)

      /** Tasks may have many events, so these go first, in batches of their own. */
      const deleteEventsOf = (column: "task_id" | "job_id", ids: ReadonlyArray<string>) =>
        inBatches(sql`
          DELETE FROM events WHERE id IN (SELECT id FROM events WHERE ${sql.in(column, ids)} LIMIT ${batch})
          RETURNING id`)

      const pending = (column: "task_id" | "job_id", table: "tasks" | "jobs") => sql`EXISTS (
        SELECT 1 FROM deliveries WHERE ${sql(column)} = ${sql.literal(table)}.id AND deliveries.state = 'pending')`

      interface Ended {
        readonly seq: number
        readonly id: string
        readonly finished_at: number
        readonly is_over: number
      }

      /** Goes through what has ended, the oldest first, and deletes what `isOver`; nothing is looked at twice. */
      const deleteEnded = (
        table: "tasks" | "jobs",
        column: "task_id" | "job_id",
        isOver: ReturnType<typeof pending>,
        until: number
      ): Effect.Effect<number, ServiceUnavailable> =>
        Effect.gen(function* () {
          let after = { finished_at: -1, seq: -1 }
          let all = 0
          while (true) {
            const page = yield* writer.write(sql<Ended>`
              SELECT seq, id, finished_at, CASE WHEN ${isOver} THEN 1 ELSE 0 END AS is_over FROM ${sql(table)}
              WHERE finished_at IS NOT NULL AND finished_at <= ${until}
                AND (finished_at, seq) > (${after.finished_at}, ${after.seq})
              ORDER BY finished_at, seq LIMIT ${batch}`)
            const ids = page.filter((row) => row.is_over === 1).map(({ id }) => id)
            if (ids.length > 0) {
              yield* deleteEventsOf(column, ids)
              // What was opened again meanwhile has no end any more.
              const gone = yield* writer.write(sql`
                DELETE FROM ${sql(table)} WHERE ${sql.in("id", ids)} AND finished_at <= ${until} RETURNING seq`)
              all += gone.length
            }
            const last = page.at(-1)
            if (last === undefined || page.length < batch) return all
            after = last
            yield* Effect.sleep(pause)
          }
        })

      const run = Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const keysUntil = now - retention.keysMs
        const tasksUntil = now - retention.tasksMs
        const keys = (yield* freeKeys("tasks", keysUntil)) + (yield* freeKeys("jobs", keysUntil))
        const events = yield* deleteEvents(now - retention.eventsMs)
        const taskIsOver = sql`
          (job_id IS NULL OR NOT EXISTS (
            SELECT 1 FROM jobs WHERE jobs.id = tasks.job_id
              AND (jobs.finished_at IS NULL OR jobs.finished_at > ${tasksUntil})))
          AND (awaited = 0 OR NOT EXISTS (
            SELECT 1 FROM dependencies JOIN tasks AS waiting ON waiting.id = dependencies.task_id
            WHERE dependencies.depends_on = tasks.id AND waiting.finished_at IS NULL))
          AND NOT ${pending("task_id", "tasks")}`
        const tasks = yield* deleteEnded("tasks", "task_id", taskIsOver, tasksUntil)
        const jobIsOver = sql`
          NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.job_id = jobs.id) AND NOT ${pending("job_id", "jobs")}`
        const jobs = yield* deleteEnded("jobs", "job_id", jobIsOver, tasksUntil)
        const deleted: Deleted = { keys, events, tasks, jobs }
        return deleted
      })

      yield* run.pipe(
        Effect.tap((deleted) =>
          deleted.events + deleted.tasks + deleted.jobs === 0
            ? Effect.void
            : Effect.annotateLogs(Effect.logInfo("What is no longer kept was deleted"), { ...deleted })
        ),
        Effect.catchAllCause((cause) =>
          Effect.logWarning("What is no longer kept could not be deleted; tried again in an hour", cause)
        ),
        Effect.zipRight(Effect.sleep(every)),
        Effect.forever,
        Effect.delay(firstAfter),
        Effect.forkScoped
      )

      return { run }
    })
  )
}
