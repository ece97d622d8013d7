import * as Reactivity from "@effect/experimental/Reactivity"
import * as Migrator from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { Cause, Context, Effect, Layer, Predicate } from "effect"
import { Settings } from "./Settings.js"
import { tasks } from "./Sql/0001_tasks.js"
import { resources } from "./Sql/0002_resources.js"
import { routing } from "./Sql/0003_routing.js"
import { drains } from "./Sql/0004_drains.js"
import { DatabaseUnavailable, explain, locate, own } from "./Sql/Ownership.js"
import { SqlWriter } from "./Sql/Writer.js"

export { DatabaseUnavailable } from "./Sql/Ownership.js"

const migrations = { "0001_tasks": tasks, "0002_resources": resources, "0003_routing": routing, "0004_drains": drains }
const newest = Object.keys(migrations).length
const migrationsTable = "dream_team_migrations"

/** The error SQLite itself gave, under whatever wrappers. */
const root = (error: unknown): unknown =>
  Predicate.hasProperty(error, "cause") && error.cause !== undefined ? root(error.cause) : error

const migrate = (file: string): Effect.Effect<void, DatabaseUnavailable | SqlError, SqlClient.SqlClient> =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* Migrator.make({})({ loader: Migrator.fromRecord(migrations), table: migrationsTable }).pipe(
      Effect.mapError((error) => explain(file, root(error)))
    )
    const [latest] = yield* sql<{ readonly id: number | null }>`
      SELECT MAX(migration_id) AS id FROM ${sql(migrationsTable)}`
    if ((latest?.id ?? 0) > newest) {
      return yield* new DatabaseUnavailable({
        file,
        message: `The database ${file} was written by a newer version of Dream Team. Start that version, or use another file.`
      })
    }
  })

const open = (filename: string) =>
  Effect.gen(function* () {
    const client = yield* SqliteClient.make({ filename })
    yield* Effect.forEach(
      ["synchronous = FULL", "busy_timeout = 5000", "foreign_keys = ON"],
      (pragma) => client.unsafe(`PRAGMA ${pragma}`),
      { discard: true }
    )
    yield* migrate(filename).pipe(Effect.provideService(SqlClient.SqlClient, client))
    return Context.make(SqlClient.SqlClient, client)
  }).pipe(
    Effect.catchAllCause((cause) => {
      if (Cause.isInterruptedOnly(cause)) return Effect.interrupt
      const error = Cause.squash(cause)
      return Effect.fail(error instanceof DatabaseUnavailable ? error : explain(filename, root(error)))
    }),
    Effect.provide(Reactivity.layer)
  )

/** A database and the one fiber that writes to it. */
type Database = SqlClient.SqlClient | SqlWriter

/** The database: SQLite, every commit on disk before it is answered, one process per file. */
export const Sql = {
  /** The file of the settings (`:memory:` for none). Fails where it is damaged, not writable, or another process's. */
  layer: Layer.provideMerge(
    SqlWriter.layer,
    Layer.scopedContext(
      Effect.gen(function* () {
        const { database } = yield* Settings
        if (database === ":memory:") return yield* open(database)
        const file = yield* locate(database)
        yield* own(file)
        return yield* open(file)
      })
    )
  ) satisfies Layer.Layer<Database, DatabaseUnavailable, Settings>,

  /** A database in memory, empty, gone with its scope. */
  layerMemory: Layer.provideMerge(SqlWriter.layer, Layer.scopedContext(open(":memory:"))) satisfies Layer.Layer<
    Database,
    DatabaseUnavailable
  >
}
