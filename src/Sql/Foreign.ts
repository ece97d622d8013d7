import { existsSync } from "node:fs"
import type { SqlClient } from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import Sqlite from "better-sqlite3"
import { Effect } from "effect"
import { DatabaseUnavailable, explain } from "./Ownership.js"

/** Which migrations were made; by its rows a database is known to be our own. */
export const migrationsTable = "dream_team_migrations"

/** Who works on a PostgreSQL database; made before its migrations, and so no sign of another program where it is alone. */
const leaseTable = "ownership"
const leaseColumns = ["one", "epoch", "expires_at"]

/** The names of the tables on PostgreSQL, also of those that only earlier migrations have. */
export const tableNames: ReadonlyArray<string> = [
  migrationsTable,
  leaseTable,
  "account_limits",
  "attempts",
  "classes",
  "deliveries",
  "dependencies",
  "epochs",
  "events",
  "jobs",
  "limit_readings",
  "partials",
  "platform_books",
  "platform_drains",
  "platform_events",
  "platform_limits",
  "routing_quality",
  "settling",
  "spending",
  "task_events",
  "tasks",
  "write_checks"
]

const maxNamed = 5
const named = (names: ReadonlyArray<string>): string =>
  names.length <= maxNamed
    ? names.join(", ")
    : `${names.slice(0, maxNamed).join(", ")} and ${names.length - maxNamed} more`

/** What another program has in a file; nothing where it is empty or our own. */
const foreignIn = (file: string): ReadonlyArray<string> => {
  // A reader that may not write leaves files behind beside a database in WAL mode, and one that may moves into it what
  // waits beside it: so each where it does neither.
  const db = new Sqlite(file, { readonly: existsSync(`${file}-wal`), fileMustExist: true })
  try {
    return db.transaction(() => {
      const names = db
        .prepare<[], { readonly name: string }>(
          "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT GLOB 'sqlite_*' ORDER BY name"
        )
        .all()
        .map(({ name }) => name)
      const isOurs =
        names.includes(migrationsTable) && db.prepare(`SELECT 1 FROM ${migrationsTable} LIMIT 1`).get() !== undefined
      return isOurs ? [] : names.filter((name) => name !== migrationsTable)
    })()
  } finally {
    db.close()
  }
}

/** Refuses an SQLite file that holds tables and was never ours, before anything of it is changed. */
export const refuseForeignFile = (file: string): Effect.Effect<void, DatabaseUnavailable> =>
  Effect.flatMap(Effect.try({ try: () => foreignIn(file), catch: (cause) => explain(file, cause) }), (foreign) =>
    foreign.length === 0
      ? Effect.void
      : new DatabaseUnavailable({
          database: file,
          message: `${file} is the database of another program (${named(foreign)}). It was left as it is. Point DREAM_TEAM_DATABASE at a file of Dream Team's own; one that is not there is made.`
        })
  )

/**
 * The same for a PostgreSQL database whose schema has tables of our names that are not ours. Others in it are nobody's
 * concern.
 */
export const refuseForeignTables = (
  sql: SqlClient,
  database: string
): Effect.Effect<void, DatabaseUnavailable | SqlError> =>
  Effect.flatMap(
    // One statement sees all tables or none, where another process is just making them.
    sql<{ readonly name: string; readonly lease_columns: number }>`
      SELECT relname AS name, (
        SELECT COUNT(*) FROM pg_attribute
        WHERE attrelid = pg_class.oid AND NOT attisdropped AND ${sql.in("attname", leaseColumns)}
      ) AS lease_columns
      FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
      WHERE nspname = current_schema() AND ${sql.in("relname", tableNames)} ORDER BY relname`,
    (found) => {
      if (found.some(({ name }) => name === migrationsTable)) return Effect.void
      const foreign = found.filter(
        ({ lease_columns, name }) => name !== leaseTable || lease_columns < leaseColumns.length
      )
      return foreign.length === 0
        ? Effect.void
        : new DatabaseUnavailable({
            database,
            message: `The database ${database} has tables of another program where Dream Team's own would be (${named(foreign.map(({ name }) => name))}). It was left as it is. Point DREAM_TEAM_DATABASE at an empty one.`
          })
    }
  )
