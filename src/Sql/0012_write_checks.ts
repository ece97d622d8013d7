import * as SqlClient from "@effect/sql/SqlClient"
import { Effect } from "effect"
import { columnTypes } from "./types.js"

/** Empty but while the writer finds out whether the database takes writes again. */
export const writeChecks = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { integer } = columnTypes(sql)

  yield* sql`CREATE TABLE write_checks (
    one ${integer} PRIMARY KEY CHECK (one = 1),
    filler TEXT NOT NULL
  )`
  yield* sql.onDialectOrElse({
    // Compressed it would need no room to speak of.
    pg: () => sql`ALTER TABLE write_checks ALTER COLUMN filler SET STORAGE EXTERNAL`,
    orElse: () => Effect.void
  })
})
