import * as SqlClient from "@effect/sql/SqlClient"
import { Effect } from "effect"
import { columnTypes } from "./types.js"

/**
 * Webhooks: each row is one end of a task or a job that is told to one URL. The index of what is still to be delivered
 * holds nothing else, so it stays small however long the history grows. Instants are epoch milliseconds.
 */
export const deliveries = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { integer, serial } = columnTypes(sql)

  yield* sql`ALTER TABLE tasks ADD COLUMN callback_url TEXT`
  yield* sql`CREATE TABLE deliveries (
    seq ${serial},
    tenant TEXT NOT NULL,
    task_id TEXT REFERENCES tasks (id) ON DELETE CASCADE,
    job_id TEXT REFERENCES jobs (id) ON DELETE CASCADE,
    type TEXT NOT NULL,
    url TEXT NOT NULL,
    host TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts ${integer} NOT NULL DEFAULT 0,
    last_status ${integer},
    last_error TEXT,
    next_at ${integer},
    at ${integer} NOT NULL,
    expires_at ${integer} NOT NULL,
    updated_at ${integer} NOT NULL
  )`
  yield* sql`CREATE INDEX deliveries_due ON deliveries (host, next_at, seq) WHERE state = 'pending'`
  yield* sql`CREATE INDEX deliveries_by_task ON deliveries (task_id, seq) WHERE task_id IS NOT NULL`
  yield* sql`CREATE INDEX deliveries_by_job ON deliveries (job_id, seq) WHERE job_id IS NOT NULL`
})
