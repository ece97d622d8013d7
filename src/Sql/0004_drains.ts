import * as SqlClient from "@effect/sql/SqlClient"
import { Effect } from "effect"

/** Platforms that were taken out of service by hand, by whom, when and why, as JSON text. */
export const drains = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient

  yield* sql`CREATE TABLE platform_drains (
    platform TEXT PRIMARY KEY,
    drained TEXT NOT NULL
  )`
})
