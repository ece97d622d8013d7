import * as SqlClient from "@effect/sql/SqlClient"
import { Effect } from "effect"
import { columnTypes } from "./types.js"

/**
 * What a model found of a task before it was accepted; the tasks made for another one, each for one step of what is tried
 * for it; and the longest incomplete answer of a task that has none.
 */
export const outcomes = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { integer } = columnTypes(sql)

  yield* Effect.forEach(
    [
      sql`validation TEXT`,
      sql`partial ${integer} NOT NULL DEFAULT 0`,
      sql`attention ${integer} NOT NULL DEFAULT 0`,
      // The task it was made for, the step there, and what is shown of it.
      sql`parent_id TEXT`,
      sql`parent_step TEXT`,
      sql`alternative TEXT`,
      // How far what is tried for it has come; how often that began; how many tasks were made for it.
      sql`ladder TEXT`,
      sql`ladder_round ${integer} NOT NULL DEFAULT 0`,
      sql`children ${integer} NOT NULL DEFAULT 0`
    ],
    (column) => sql`ALTER TABLE tasks ADD COLUMN ${column}`,
    { discard: true }
  )
  yield* sql`CREATE UNIQUE INDEX tasks_by_step ON tasks (parent_id, parent_step) WHERE parent_id IS NOT NULL`

  yield* sql`CREATE TABLE partials (
    task_id TEXT NOT NULL PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
    number ${integer} NOT NULL,
    platform TEXT NOT NULL,
    model TEXT NOT NULL,
    length ${integer} NOT NULL,
    text TEXT NOT NULL
  )`
})
