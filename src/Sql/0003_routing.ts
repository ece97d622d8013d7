import * as SqlClient from "@effect/sql/SqlClient"
import { Effect } from "effect"

/** What the router has learned of each model, as factors of its weight. Instants are epoch milliseconds. */
export const routing = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient

  yield* sql`CREATE TABLE routing_quality (
    platform TEXT NOT NULL,
    model TEXT NOT NULL,
    reliability REAL NOT NULL,
    speed REAL NOT NULL,
    saved_at INTEGER NOT NULL,
    PRIMARY KEY (platform, model)
  )`
})
