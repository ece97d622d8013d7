import * as SqlClient from "@effect/sql/SqlClient"
import { Effect } from "effect"
import { columnTypes } from "./types.js"

/**
 * Jobs, and what tasks wait for: other tasks (`blocked_by` counts those that have not ended) or their turn in their job
 * (`held`). The indexes of what is unfinished hold nothing else, so they stay small however long the history grows.
 */
export const jobs = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { integer, real, serial } = columnTypes(sql)

  yield* sql`CREATE TABLE jobs (
    seq ${serial},
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    idempotency_key TEXT,
    request_hash TEXT,
    mode TEXT NOT NULL,
    on_failure TEXT NOT NULL,
    max_parallel ${integer} NOT NULL,
    state TEXT NOT NULL,
    accepting_epoch ${integer},
    closing TEXT,
    closed_for TEXT,
    total ${integer} NOT NULL,
    succeeded ${integer} NOT NULL DEFAULT 0,
    failed ${integer} NOT NULL DEFAULT 0,
    cancelled ${integer} NOT NULL DEFAULT 0,
    input_tokens ${integer} NOT NULL DEFAULT 0,
    cached_input_tokens ${integer} NOT NULL DEFAULT 0,
    output_tokens ${integer} NOT NULL DEFAULT 0,
    reasoning_tokens ${integer} NOT NULL DEFAULT 0,
    cost_usd ${real} NOT NULL DEFAULT 0,
    max_cost_usd ${real},
    max_tokens ${integer},
    callback_url TEXT,
    metadata TEXT,
    created_at ${integer} NOT NULL,
    updated_at ${integer} NOT NULL,
    finished_at ${integer}
  )`
  yield* sql`CREATE UNIQUE INDEX jobs_by_key ON jobs (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL`
  yield* sql`CREATE INDEX jobs_by_tenant ON jobs (tenant, seq)`
  yield* sql`CREATE INDEX jobs_by_state ON jobs (tenant, state, seq)`
  yield* sql`CREATE INDEX jobs_accepting ON jobs (id) WHERE state = 'accepting'`

  yield* Effect.forEach(
    [
      sql`blocked_by ${integer} NOT NULL DEFAULT 0`,
      sql`held ${integer} NOT NULL DEFAULT 0`,
      // Whether anything waits, or waited, for the task.
      sql`awaited ${integer} NOT NULL DEFAULT 0`,
      // Whether it waits, or waited, for others, whose results are its context.
      sql`depends ${integer} NOT NULL DEFAULT 0`,
      // Whether it sees the results of all such tasks before it in its job.
      sql`chained ${integer} NOT NULL DEFAULT 0`,
      sql`job_id TEXT`,
      sql`position ${integer}`,
      sql`name TEXT`,
      // The task on whose account it was cancelled.
      sql`skipped_for TEXT`
    ],
    (column) => sql`ALTER TABLE tasks ADD COLUMN ${column}`,
    { discard: true }
  )
  yield* sql`DROP INDEX tasks_waiting`
  yield* sql`
    CREATE INDEX tasks_waiting ON tasks (class_id, seq) WHERE state = 'waiting' AND blocked_by = 0 AND held = 0`
  yield* sql`CREATE INDEX tasks_of_job ON tasks (job_id, position) WHERE job_id IS NOT NULL`
  yield* sql`CREATE INDEX tasks_open_of_job ON tasks (job_id, held, position)
    WHERE job_id IS NOT NULL AND state IN ('queued', 'running', 'waiting')`
  yield* sql`CREATE INDEX tasks_held_of_job ON tasks (job_id, position)
    WHERE job_id IS NOT NULL AND state = 'waiting' AND held = 1 AND blocked_by = 0`
  yield* sql`CREATE INDEX tasks_skipped ON tasks (skipped_for) WHERE skipped_for IS NOT NULL`

  yield* sql`CREATE TABLE dependencies (
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    depends_on TEXT NOT NULL,
    on_failure TEXT NOT NULL,
    is_open ${integer} NOT NULL DEFAULT 1,
    PRIMARY KEY (task_id, depends_on)
  )`
  yield* sql`CREATE INDEX dependencies_open ON dependencies (depends_on, task_id) WHERE is_open = 1`

  // What ended, and those it concerns have not all been told.
  yield* sql`CREATE TABLE settling (
    seq ${serial},
    kind TEXT NOT NULL,
    id TEXT NOT NULL
  )`
})
