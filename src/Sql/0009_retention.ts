import * as SqlClient from "@effect/sql/SqlClient"
import { Effect } from "effect"

/** Finds what is old enough to be deleted, and nothing else: keys still in use, tasks and jobs that have ended, events. */
export const retention = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient

  yield* sql`CREATE INDEX tasks_by_end ON tasks (finished_at, seq) WHERE finished_at IS NOT NULL`
  yield* sql`CREATE INDEX tasks_by_key_age ON tasks (created_at) WHERE idempotency_key IS NOT NULL`
  yield* sql`CREATE INDEX jobs_by_end ON jobs (finished_at, seq) WHERE finished_at IS NOT NULL`
  yield* sql`CREATE INDEX jobs_by_key_age ON jobs (created_at) WHERE idempotency_key IS NOT NULL`
  yield* sql`CREATE INDEX events_by_age ON events (at) WHERE platform IS NULL`
  yield* sql`CREATE INDEX dependencies_by_target ON dependencies (depends_on)`
})
