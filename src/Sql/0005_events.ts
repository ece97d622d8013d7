import * as SqlClient from "@effect/sql/SqlClient"
import { Effect } from "effect"
import { columnTypes } from "./types.js"

/**
 * Every event of the service in one table, so that one growing id orders them all: those of tasks and jobs belong to a
 * tenant, those of platforms to everybody (no tenant). Instants are epoch milliseconds, JSON is text.
 */
export const events = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { integer, serial } = columnTypes(sql)

  yield* sql`DROP INDEX IF EXISTS events_by_task`
  yield* sql`ALTER TABLE events RENAME TO task_events`
  yield* sql`CREATE TABLE events (
    id ${serial},
    tenant TEXT,
    task_id TEXT REFERENCES tasks (id) ON DELETE CASCADE,
    job_id TEXT,
    platform TEXT,
    type TEXT NOT NULL,
    at ${integer} NOT NULL,
    body TEXT NOT NULL
  )`
  yield* sql.onDialectOrElse({
    // No version that stored events had PostgreSQL.
    pg: () => Effect.void,
    orElse: () =>
      Effect.zipRight(
        sql`
          INSERT INTO events (id, tenant, task_id, type, at, body)
          SELECT old.id, tasks.tenant, old.task_id, COALESCE(json_extract(old.body, '$.type'), ''), old.at, old.body
          FROM task_events AS old JOIN tasks ON tasks.id = old.task_id ORDER BY old.id`,
        sql`
          INSERT INTO events (platform, type, at, body)
          SELECT platform, CASE WHEN json_valid(body) THEN COALESCE(json_extract(body, '$.type'), '') ELSE '' END, at, body
          FROM platform_events ORDER BY id`
      )
  })
  yield* sql`DROP TABLE task_events`
  yield* sql`DROP TABLE platform_events`
  yield* sql`CREATE INDEX events_by_task ON events (task_id, id) WHERE task_id IS NOT NULL`
  yield* sql`CREATE INDEX events_by_job ON events (job_id, id) WHERE job_id IS NOT NULL`
  yield* sql`CREATE INDEX events_by_platform ON events (platform, id) WHERE platform IS NOT NULL`
  yield* sql`CREATE INDEX events_by_tenant ON events (tenant, id)`
})
