import * as SqlClient from "@effect/sql/SqlClient"
import { Effect } from "effect"
import { columnTypes } from "./types.js"

/**
 * Tasks, their journal and their events. Instants are epoch milliseconds, JSON is text.
 * Every query of the store has an index; the partial ones hold only unfinished tasks, so they stay small
 * however long the history grows.
 */
export const tasks = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { integer, real, serial, withoutRowId } = columnTypes(sql)

  yield* sql`CREATE TABLE epochs (
    epoch ${serial},
    started_at ${integer} NOT NULL
  )`

  yield* sql`CREATE TABLE classes (
    id ${serial},
    candidates TEXT NOT NULL,
    priority ${integer} NOT NULL,
    UNIQUE (candidates, priority)
  )`

  yield* sql`CREATE TABLE tasks (
    seq ${serial},
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    class_id ${integer} NOT NULL REFERENCES classes (id),
    type TEXT NOT NULL,
    priority ${integer} NOT NULL,
    state TEXT NOT NULL,
    idempotency_key TEXT,
    request_hash TEXT,
    preview TEXT NOT NULL,
    submission TEXT NOT NULL,
    request TEXT NOT NULL,
    deadline ${integer} NOT NULL,
    allowed_ms ${integer} NOT NULL,
    wake_at ${integer},
    waiting_why TEXT,
    claims ${integer} NOT NULL DEFAULT 0,
    claim_epoch ${integer},
    attempts ${integer} NOT NULL DEFAULT 0,
    attempts_spent ${integer} NOT NULL DEFAULT 0,
    owner_deaths ${integer} NOT NULL DEFAULT 0,
    platform TEXT,
    created_at ${integer} NOT NULL,
    updated_at ${integer} NOT NULL,
    started_at ${integer},
    finished_at ${integer},
    result TEXT,
    error TEXT
  )`
  yield* sql`CREATE UNIQUE INDEX tasks_by_key ON tasks (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL`
  yield* sql`CREATE INDEX tasks_by_tenant ON tasks (tenant, seq)`
  yield* sql`CREATE INDEX tasks_by_state ON tasks (tenant, state, seq)`
  yield* sql`CREATE INDEX tasks_by_type ON tasks (tenant, type, seq)`
  yield* sql`CREATE INDEX tasks_by_priority ON tasks (tenant, priority, seq)`
  yield* sql`CREATE INDEX tasks_by_platform ON tasks (tenant, platform, seq) WHERE platform IS NOT NULL`
  yield* sql`CREATE INDEX tasks_claimable ON tasks (class_id, seq) WHERE state = 'queued' AND claim_epoch IS NULL`
  yield* sql`CREATE INDEX tasks_claimed ON tasks (claim_epoch) WHERE claim_epoch IS NOT NULL`
  yield* sql`CREATE INDEX tasks_unclaimed_deadline ON tasks (deadline) WHERE state = 'queued' AND claim_epoch IS NULL`
  yield* sql`CREATE INDEX tasks_waking ON tasks (wake_at) WHERE state = 'waiting'`
  yield* sql`CREATE INDEX tasks_waiting ON tasks (class_id, seq) WHERE state = 'waiting'`

  yield* sql`CREATE TABLE attempts (
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    number ${integer} NOT NULL,
    platform TEXT NOT NULL,
    model TEXT NOT NULL,
    outcome TEXT NOT NULL,
    started_at ${integer} NOT NULL,
    ended_at ${integer},
    time_to_first_token_ms ${real},
    duration_ms ${real},
    cost_usd ${real},
    failure TEXT,
    usage TEXT,
    decision TEXT NOT NULL,
    PRIMARY KEY (task_id, number)
  )${withoutRowId}`

  yield* sql`CREATE TABLE events (
    id ${serial},
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    at ${integer} NOT NULL,
    body TEXT NOT NULL
  )`
  yield* sql`CREATE INDEX events_by_task ON events (task_id, id)`
})
