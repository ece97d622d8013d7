import * as SqlClient from "@effect/sql/SqlClient"
import { Effect } from "effect"
import { columnTypes } from "./types.js"

/**
 * What the resource manager keeps over restarts: each platform's books, the changes made to its limits by hand, and its
 * history. Instants are epoch milliseconds, JSON is text.
 */
export const resources = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { integer, serial } = columnTypes(sql)

  yield* sql`CREATE TABLE platform_books (
    platform TEXT PRIMARY KEY,
    books TEXT NOT NULL
  )`

  yield* sql`CREATE TABLE platform_limits (
    platform TEXT PRIMARY KEY,
    patch TEXT NOT NULL
  )`

  yield* sql`CREATE TABLE platform_events (
    id ${serial},
    platform TEXT NOT NULL,
    at ${integer} NOT NULL,
    body TEXT NOT NULL
  )`
  yield* sql`CREATE INDEX platform_events_by_platform ON platform_events (platform, id)`
})
