import * as SqlClient from "@effect/sql/SqlClient"
import { Effect } from "effect"

/** Events of Claude Code sessions, which belong to everybody as those of platforms do (no tenant). */
export const sessionEvents = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient

  yield* sql`ALTER TABLE events ADD COLUMN session_id TEXT`
  yield* sql`CREATE INDEX events_by_session ON events (session_id, id) WHERE session_id IS NOT NULL`
})
