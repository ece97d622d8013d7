import type * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import type * as SqlConnection from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import Sqlite from "better-sqlite3"
import { Context, Effect, Exit, Option, type Scope, Stream } from "effect"
import { isTraced } from "../Telemetry/traced.js"

/** Compiled statements kept; beyond it, the one compiled first is compiled anew when it is next used. */
const maxPrepared = 500

type Compiled = Sqlite.Statement<Array<unknown>>

const isStatement = (made: object): made is Statement.Statement<unknown> => Effect.isEffect(made)

/** Runs statements on a connection, each compiled once. What cannot be compiled is not remembered. */
const runner = (db: Sqlite.Database) => {
  const compiled = new Map<string, Compiled>()

  const prepare = (sql: string): Compiled => {
    const known = compiled.get(sql)
    if (known !== undefined) return known
    const made = db.prepare<Array<unknown>>(sql)
    compiled.set(sql, made)
    if (compiled.size > maxPrepared) {
      for (const first of compiled.keys()) {
        compiled.delete(first)
        break
      }
    }
    return made
  }

  return <A>(
    sql: string,
    params: ReadonlyArray<unknown>,
    use: (statement: Compiled, params: ReadonlyArray<unknown>) => A
  ): Exit.Exit<A, SqlError> => {
    // the driver's own way to say that a statement failed
    try {
      return Exit.succeed(use(prepare(sql), params))
    } catch (cause) {
      return Exit.fail(new SqlError({ cause, message: "Failed to execute statement" }))
    }
  }
}

const rowsOf = (statement: Compiled, params: ReadonlyArray<unknown>): ReadonlyArray<unknown> => {
  if (statement.reader) return statement.all(...params)
  statement.run(...params)
  return []
}

const rawOf = (statement: Compiled, params: ReadonlyArray<unknown>): unknown =>
  statement.reader ? statement.all(...params) : statement.run(...params)

const valuesOf = (statement: Compiled, params: ReadonlyArray<unknown>): ReadonlyArray<ReadonlyArray<unknown>> => {
  if (!statement.reader) {
    statement.run(...params)
    return []
  }
  statement.raw(true)
  try {
    return statement.all(...params).map((row) => (Array.isArray(row) ? row : [row]))
  } finally {
    statement.raw(false)
  }
}

/**
 * A client of one SQLite file, in WAL mode; `readonly` changes nothing of the file, its mode neither. It has one
 * connection, which runs a statement at once: SQLite is called, not asked. So a statement inside its own transaction, or
 * while there is none, goes straight to the driver where nobody wants a span of it; by way of permits, scopes and spans it
 * would cost several times what SQLite takes for it. That is why the connection is our own: the one that @effect/sql has for
 * SQLite looks each statement up through Effect's Cache.
 */
export const makeSqlite = (
  filename: string,
  options: { readonly readonly?: boolean } = {}
): Effect.Effect<SqlClient.SqlClient, SqlError, Scope.Scope | Reactivity.Reactivity> =>
  Effect.gen(function* () {
    const db = yield* Effect.acquireRelease(
      Effect.try({
        try: () => {
          const opened = new Sqlite(filename, options)
          if (options.readonly !== true) opened.pragma("journal_mode = WAL")
          return opened
        },
        catch: (cause) => new SqlError({ cause, message: "Failed to open the database" })
      }),
      (opened) => Effect.sync(() => opened.close())
    )
    const run = runner(db)
    const executeNow: SqlConnection.Connection["execute"] = (sql, params) => run(sql, params, rowsOf)
    const connection: SqlConnection.Connection = {
      execute: (...statement) => Effect.suspend(() => executeNow(...statement)),
      executeRaw: (sql, params) => Effect.suspend(() => run(sql, params, rawOf)),
      executeValues: (sql, params) => Effect.suspend(() => run(sql, params, valuesOf)),
      executeUnprepared: (sql, params) => Effect.suspend(() => run(sql, params, rowsOf)),
      executeStream: (sql, params) => Stream.fromIterableEffect(Effect.suspend(() => run(sql, params, rowsOf)))
    }

    const permit = yield* Effect.makeSemaphore(1)
    const client = yield* SqlClient.make({
      acquirer: permit.withPermits(1)(Effect.succeed(connection)),
      transactionAcquirer: Effect.uninterruptibleMask((restore) =>
        Effect.as(
          Effect.zipRight(
            restore(permit.take(1)),
            Effect.addFinalizer(() => permit.release(1))
          ),
          connection
        )
      ),
      compiler: Statement.makeCompilerSqlite(),
      spanAttributes: [["db.system.name", "sqlite"]]
    })
    let transactions = 0

    const withTransaction: SqlClient.SqlClient["withTransaction"] = (effect) =>
      Effect.acquireUseRelease(
        Effect.sync(() => {
          transactions += 1
        }),
        () => client.withTransaction(effect),
        () =>
          Effect.sync(() => {
            transactions -= 1
          })
      )

    const direct = <A>(statement: Statement.Statement<A>): Statement.Statement<A> =>
      Object.assign(statement, {
        commit: () =>
          Effect.withFiberRuntime<ReadonlyArray<A>, SqlError>((fiber) => {
            const isOwn = Option.isSome(Context.getOption(fiber.currentContext, SqlClient.TransactionConnection))
            if ((transactions > 0 && !isOwn) || isTraced(fiber)) return statement.withoutTransform
            return executeNow(...statement.compile(), undefined)
          })
      })

    return new Proxy<SqlClient.SqlClient>(client, {
      apply: (target, self, args) => {
        const made: unknown = Reflect.apply(target, self, args)
        return Statement.isFragment(made) && isStatement(made) ? direct(made) : made
      },
      get: (target, name, receiver) =>
        name === "withTransaction" ? withTransaction : Reflect.get(target, name, receiver)
    })
  })
