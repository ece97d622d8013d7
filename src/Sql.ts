import * as Reactivity from "@effect/experimental/Reactivity"
import * as Migrator from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Cause, Context, Effect, Layer, Redacted } from "effect"
import { type DatabaseSetting, databaseName, databaseSetting } from "./Settings/Database.js"
import { Settings } from "./Settings.js"
import { tasks } from "./Sql/0001_tasks.js"
import { resources } from "./Sql/0002_resources.js"
import { routing } from "./Sql/0003_routing.js"
import { drains } from "./Sql/0004_drains.js"
import { events } from "./Sql/0005_events.js"
import { jobs } from "./Sql/0006_jobs.js"
import { outcomes } from "./Sql/0007_outcomes.js"
import { budgets } from "./Sql/0008_budgets.js"
import { retention } from "./Sql/0009_retention.js"
import { deliveries } from "./Sql/0010_deliveries.js"
import { sessionEvents } from "./Sql/0011_session_events.js"
import { writeChecks } from "./Sql/0012_write_checks.js"
import { migrationsTable, refuseForeignFile, refuseForeignTables } from "./Sql/Foreign.js"
import { takeLease } from "./Sql/Lease.js"
import { DatabaseUnavailable, explain, locate, Ownership, own, rootOf } from "./Sql/Ownership.js"
import { makeSqlite } from "./Sql/Sqlite.js"
import { SqlWriter } from "./Sql/Writer.js"

export { DatabaseUnavailable, Ownership } from "./Sql/Ownership.js"
export { Arrivals, SqlWriter } from "./Sql/Writer.js"

const migrations = {
  "0001_tasks": tasks,
  "0002_resources": resources,
  "0003_routing": routing,
  "0004_drains": drains,
  "0005_events": events,
  "0006_jobs": jobs,
  "0007_outcomes": outcomes,
  "0008_budgets": budgets,
  "0009_retention": retention,
  "0010_deliveries": deliveries,
  "0011_session_events": sessionEvents,
  "0012_write_checks": writeChecks
}
const newest = Math.max(...Object.keys(migrations).map((name) => Number.parseInt(name, 10)))

const migrate = (
  database: string,
  explainFailure: (database: string, error: unknown) => DatabaseUnavailable
): Effect.Effect<void, DatabaseUnavailable | SqlError, SqlClient.SqlClient> =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* Migrator.make({})({ loader: Migrator.fromRecord(migrations), table: migrationsTable }).pipe(
      Effect.mapError((error) => explainFailure(database, rootOf(error)))
    )
    const [latest] = yield* sql<{ readonly id: number | null }>`
      SELECT MAX(migration_id) AS id FROM ${sql(migrationsTable)}`
    if ((latest?.id ?? 0) > newest) {
      return yield* new DatabaseUnavailable({
        database,
        message: `The database ${database} was written by a newer version of Dream Team. Start that version, or use another database.`
      })
    }
  })

/** Whatever goes wrong while a database is opened, as the person who starts the service is told it. */
const explained =
  (database: string, explainFailure: (database: string, error: unknown) => DatabaseUnavailable) =>
  <A, E, R>(opening: Effect.Effect<A, E, R>): Effect.Effect<A, DatabaseUnavailable, R> =>
    Effect.catchAllCause(opening, (cause) => {
      if (Cause.isInterruptedOnly(cause)) return Effect.interrupt
      const error = Cause.squash(cause)
      return Effect.fail(error instanceof DatabaseUnavailable ? error : explainFailure(database, rootOf(error)))
    })

const open = (filename: string) =>
  Effect.gen(function* () {
    const client = yield* makeSqlite(filename)
    yield* Effect.forEach(
      ["synchronous = FULL", "busy_timeout = 5000", "foreign_keys = ON"],
      (pragma) => client.unsafe(`PRAGMA ${pragma}`),
      { discard: true }
    )
    yield* migrate(filename, explain).pipe(Effect.provideService(SqlClient.SqlClient, client))
    return Context.make(SqlClient.SqlClient, client).pipe(Context.add(Ownership, Ownership.certain))
  }).pipe(explained(filename, explain), Effect.provide(Reactivity.layer))

const openFile = (path: string) =>
  Effect.gen(function* () {
    const { file, made } = yield* locate(path)
    // Whoever has mistyped a path would wonder where everything is.
    if (made !== undefined) yield* Effect.logInfo(`Created ${made}`)
    yield* refuseForeignFile(file)
    yield* own(file)
    return yield* open(file)
  })

const openPostgres = (url: Redacted.Redacted<string>) =>
  Effect.gen(function* () {
    const database = databaseName(url)
    // Loaded where it is used: most databases are files.
    const { connect, explainPostgres } = yield* Effect.promise(() => import("./Sql/Postgres.js"))
    return yield* Effect.gen(function* () {
      const client = yield* connect(url)
      yield* refuseForeignTables(client, database)
      const ownership = yield* takeLease(client, database)
      yield* client
        .withTransaction(
          Effect.gen(function* () {
            yield* Effect.asVoid(ownership.check)
            // The Migrator looks for its table by a query that fails where there is none, and so would end the transaction.
            yield* client`CREATE TABLE IF NOT EXISTS ${client(migrationsTable)} (
              migration_id INTEGER PRIMARY KEY,
              created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
              name TEXT NOT NULL
            )`
            yield* migrate(database, explainPostgres)
          })
        )
        .pipe(Effect.provideService(SqlClient.SqlClient, client))
      return Context.make(SqlClient.SqlClient, client).pipe(Context.add(Ownership, ownership))
    }).pipe(explained(database, explainPostgres))
  }).pipe(Effect.provide(Reactivity.layer))

const openSetting = (setting: DatabaseSetting) => {
  const database = typeof setting === "string" ? databaseSetting(setting) : setting
  if (Redacted.isRedacted(database)) return openPostgres(database)
  return database === ":memory:" ? open(database) : openFile(database)
}

/** A database, the proof that it is this process's alone, and the one fiber that writes to it. */
type Database = SqlClient.SqlClient | SqlWriter | Ownership

/**
 * The database, with every commit on disk before it is answered, and worked on by one process at a time.
 * An SQLite file refuses a second process. On PostgreSQL a second one stands by: the layer is not built until the first
 * has ended or has not renewed its lease for 10 s.
 */
export const Sql = {
  /** That of the settings. Fails where it is damaged, cannot be written or reached, or belongs to another process or program. */
  layer: Layer.provideMerge(
    SqlWriter.layer,
    Layer.scopedContext(Effect.flatMap(Settings, ({ database }) => openSetting(database)))
  ) satisfies Layer.Layer<Database, DatabaseUnavailable, Settings>,

  /** A database in memory, empty, gone with its scope. */
  layerMemory: Layer.provideMerge(SqlWriter.layer, Layer.scopedContext(open(":memory:"))) satisfies Layer.Layer<
    Database,
    DatabaseUnavailable
  >
}
