import * as SqlClient from "@effect/sql/SqlClient"
import { Effect } from "effect"
import { columnTypes } from "./types.js"

/** What the router has learned of each model, as factors of its weight. Instants are epoch milliseconds. */
export const routing = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { integer, real } = columnTypes(sql)

  yield* sql`CREATE TABLE routing_quality (
    platform TEXT NOT NULL,
    model TEXT NOT NULL,
    reliability ${real} NOT NULL,
    speed ${real} NOT NULL,
    saved_at ${integer} NOT NULL,
    PRIMARY KEY (platform, model)
  )`
})
