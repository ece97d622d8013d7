import * as SqlClient from "@effect/sql/SqlClient"
import { Effect } from "effect"
import { columnTypes } from "./types.js"

/**
 * What attempts have used and may use: of each UTC day by platform and by API key, and in all by task and by job. Money is
 * in billionths of a dollar. An attempt is booked with what it may use at most when it starts, and corrected when its end
 * is known; so whatever never ended counts whole.
 */
export const budgets = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { integer } = columnTypes(sql)

  yield* sql`CREATE TABLE spending (
    day TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    nano_usd ${integer} NOT NULL,
    tokens ${integer} NOT NULL,
    exhausted_at ${integer},
    PRIMARY KEY (day, kind, name)
  )`
  yield* sql`CREATE INDEX spending_exhausted ON spending (day) WHERE exhausted_at IS NOT NULL`

  yield* Effect.forEach(
    [
      sql`max_nano_usd ${integer}`,
      sql`max_tokens ${integer}`,
      sql`spent_nano_usd ${integer} NOT NULL DEFAULT 0`,
      sql`spent_tokens ${integer} NOT NULL DEFAULT 0`
    ],
    (column) => sql`ALTER TABLE tasks ADD COLUMN ${column}`,
    { discard: true }
  )
  yield* sql`ALTER TABLE jobs ADD COLUMN spent_nano_usd ${integer} NOT NULL DEFAULT 0`
  yield* sql`ALTER TABLE jobs ADD COLUMN spent_tokens ${integer} NOT NULL DEFAULT 0`
})
