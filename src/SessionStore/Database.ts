import { chmodSync } from "node:fs"
import { resolve } from "node:path"
import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import { Context, Data, Duration, Effect, Exit, Option, Schedule, type Scope } from "effect"
import { ensureFile } from "../Feed/Paths.js"
import { schemaVersion, upgradeFrom } from "../Feed/Schema.js"
import { codeOf, explain, rootOf, textOf } from "../Sql/Ownership.js"
import { makeSqlite } from "../Sql/Sqlite.js"

/** How long SQLite itself waits for another writer. Nothing else runs in the process meanwhile, ms. */
const blockedMs = 20
/** And how long we wait in all, with others running. */
const patience = Schedule.exponential(Duration.millis(10)).pipe(
  Schedule.either(Schedule.spaced(Duration.millis(200))),
  Schedule.jittered,
  Schedule.upTo(Duration.seconds(5))
)

const isBusy = (error: unknown): boolean => codeOf(rootOf(error)).startsWith("SQLITE_BUSY")

/** Another process held the write lock at the beginning of a transaction, of which nothing was done then. */
class NotBegun extends Data.TaggedError("NotBegun")<{ readonly cause: SqlError }> {}

const waiting = <A, E, R>(statement: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.retry(statement, { schedule: patience, while: isBusy })

const isStatement = (made: object): made is Statement.Statement<unknown> => Effect.isEffect(made)

/**
 * The client of a database into which other processes write as well. A statement that finds it locked is made again for
 * a while. A transaction takes the write lock before anything else: one that only read so far could not get it later,
 * once another process has written.
 */
const shared = (client: SqlClient.SqlClient): SqlClient.SqlClient => {
  const inTransaction = Effect.map(Effect.context<never>(), (context) =>
    Option.isSome(Context.getOption(context, SqlClient.TransactionConnection))
  )

  const patient = <A>(statement: Statement.Statement<A>): Statement.Statement<A> =>
    Object.assign(statement, {
      commit: () =>
        Effect.flatMap(inTransaction, (isInside) =>
          isInside ? statement.withoutTransform : waiting(statement.withoutTransform)
        )
    })

  const lock = client.unsafe("DELETE FROM handoffs WHERE 0")
  const withTransaction: SqlClient.SqlClient["withTransaction"] = (effect) =>
    Effect.flatMap(inTransaction, (isInside) =>
      isInside
        ? client.withTransaction(effect)
        : client
            .withTransaction(
              Effect.zipRight(
                Effect.mapError(lock, (cause) => new NotBegun({ cause })),
                effect
              )
            )
            .pipe(
              Effect.retry({ schedule: patience, while: (error) => error instanceof NotBegun && isBusy(error.cause) }),
              Effect.mapError((error) => (error instanceof NotBegun ? error.cause : error))
            )
    )

  return new Proxy<SqlClient.SqlClient>(client, {
    apply: (target, self, args) => {
      const made: unknown = Reflect.apply(target, self, args)
      return Statement.isFragment(made) && isStatement(made) ? patient(made) : made
    },
    get: (target, name, receiver) => {
      if (name === "withTransaction") return withTransaction
      if (name === "unsafe") {
        const unsafe: SqlClient.SqlClient["unsafe"] = (sql, params) => patient(target.unsafe(sql, params))
        return unsafe
      }
      return Reflect.get(target, name, receiver)
    }
  })
}

/** What is wrong with a sessions database, for the person who runs the service. */
export const explainSessions = (file: string, error: unknown): string => {
  if (isBusy(error)) return `The sessions database ${file} is locked by another program.`
  return error instanceof SqlError || codeOf(error) !== ""
    ? explain(file, rootOf(error)).message.replaceAll("DREAM_TEAM_DATABASE", "DREAM_TEAM_SESSIONS_DB")
    : textOf(error)
}

/** Opens the file, makes it where it is missing, and brings its tables to this version. Fails with what to say. */
export const openSessions = (path: string): Effect.Effect<SqlClient.SqlClient, string, Scope.Scope> =>
  Effect.gen(function* () {
    const file = path === ":memory:" ? path : resolve(path)
    yield* Effect.try(() => {
      if (file === ":memory:") return
      ensureFile(file)
      // It may have been there before, and others able to read it.
      chmodSync(file, 0o600)
    }).pipe(Effect.mapError((error) => explainSessions(file, error.error)))
    const client = yield* makeSqlite(file).pipe(
      waiting,
      Effect.mapError((error) => explainSessions(file, error))
    )
    return yield* Effect.gen(function* () {
      yield* Effect.forEach(
        [`busy_timeout = ${blockedMs}`, "synchronous = NORMAL", "foreign_keys = ON"],
        (pragma) => client.unsafe(`PRAGMA ${pragma}`),
        { discard: true }
      )
      yield* waiting(upgrade(client))
      const version = yield* versionOf(client)
      if (version > schemaVersion) {
        return yield* Effect.fail(
          `The sessions database ${file} was written by a newer version of Dream Team. Start that version, or name another one in DREAM_TEAM_SESSIONS_DB.`
        )
      }
      return shared(client)
    }).pipe(Effect.mapError((error) => (typeof error === "string" ? error : explainSessions(file, error))))
  }).pipe(Effect.provide(Reactivity.layer))

const versionOf = (client: SqlClient.SqlClient): Effect.Effect<number, SqlError> =>
  Effect.map(client<{ readonly user_version: number }>`PRAGMA user_version`, ([row]) => row?.user_version ?? 0)

// The write lock comes before the look at the version, so that of two processes only one finds an old one.
const upgrade = (client: SqlClient.SqlClient): Effect.Effect<void, SqlError> =>
  Effect.gen(function* () {
    if ((yield* versionOf(client)) >= schemaVersion) return
    yield* Effect.acquireUseRelease(
      client.unsafe("BEGIN IMMEDIATE"),
      () =>
        Effect.gen(function* () {
          const version = yield* versionOf(client)
          if (version >= schemaVersion) return
          yield* Effect.forEach(upgradeFrom(version), (statement) => client.unsafe(statement), { discard: true })
        }),
      (_, exit) => Effect.orDie(client.unsafe(Exit.isSuccess(exit) ? "COMMIT" : "ROLLBACK"))
    )
  })
