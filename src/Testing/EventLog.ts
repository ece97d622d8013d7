import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Effect } from "effect"

/** Events read at once. */
const pageSize = 1000

/**
 * All events as they are stored, in their order, one JSON object a line. Two runs did the same where these texts are the
 * same.
 */
export const eventLog: Effect.Effect<string, SqlError, SqlClient.SqlClient> = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const lines: Array<string> = []
  let after = 0
  while (true) {
    const rows = yield* sql<{ readonly id: number }>`
      SELECT * FROM events WHERE id > ${after} ORDER BY id LIMIT ${pageSize}`
    for (const row of rows) lines.push(JSON.stringify(row))
    const last = rows.at(-1)
    if (last === undefined || rows.length < pageSize) return lines.join("\n")
    after = last.id
  }
})
