import type * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import type * as SqlConnection from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import Sqlite from "better-sqlite3"
import { Effect, Effectable, Exit, Fiber, identity, Option, type Scope, Stream } from "effect"
import { isTraced } from "../Telemetry/traced.js"

/** Compiled statements kept; beyond it, the one compiled first is compiled anew when it is next used. */
const maxPrepared = 500

type Compiled = Sqlite.Statement<Array<unknown>>

type Rows = Effect.Effect.Success<ReturnType<SqlConnection.Connection["execute"]>>

/** Whether the text of a template is that of its statement: no parameter is a fragment, or a helper to make one. */
const isPlain = (args: ReadonlyArray<unknown>): boolean => {
  for (const arg of args) if (typeof arg === "object" && arg !== null) return false
  return true
}

/** Runs statements on a connection, each compiled once. What cannot be compiled is not remembered. */
const runner = (db: Sqlite.Database) => {
  const byText = new Map<string, Compiled>()
  // There is one such array for each place in the program that writes a template.
  const byTemplate = new WeakMap<TemplateStringsArray, Compiled>()

  const prepare = (sql: string): Compiled => {
    const known = byText.get(sql)
    if (known !== undefined) return known
    const made = db.prepare<Array<unknown>>(sql)
    byText.set(sql, made)
    if (byText.size > maxPrepared) {
      for (const first of byText.keys()) {
        byText.delete(first)
        break
      }
    }
    return made
  }

  const prepareTemplate = (strings: TemplateStringsArray): Compiled => {
    const known = byTemplate.get(strings)
    if (known !== undefined) return known
    const made = prepare(strings.join("?"))
    byTemplate.set(strings, made)
    return made
  }

  /** A template is one whose parameters are plain. */
  return <A>(
    sql: string | TemplateStringsArray,
    params: ReadonlyArray<unknown>,
    use: (statement: Compiled, params: ReadonlyArray<unknown>) => A
  ): Exit.Exit<A, SqlError> => {
    // the driver's own way to say that a statement failed
    try {
      return Exit.succeed(use(typeof sql === "string" ? prepare(sql) : prepareTemplate(sql), params))
    } catch (cause) {
      return Exit.fail(new SqlError({ cause, message: "Failed to execute statement" }))
    }
  }
}

const rowsOf = (statement: Compiled, params: ReadonlyArray<unknown>): Rows => {
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
    const connection: SqlConnection.Connection = {
      execute: (sql, params) => Effect.suspend(() => run(sql, params, rowsOf)),
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

    /**
     * Whether a statement of the running fiber has to wait for a transaction of another one, or is to have a span. The fiber
     * is asked for by a call, not by an effect, which would be one more step for every statement.
     */
    const isForTheClient = (): boolean => {
      const fiber = Option.getOrUndefined(Fiber.getCurrentFiber())
      if (fiber === undefined || isTraced(fiber)) return true
      return transactions > 0 && !fiber.currentContext.unsafeMap.has(SqlClient.TransactionConnection.key)
    }

    /** What a template stands for. Most are run where they are written, and @effect/sql's statement is never made. */
    class Direct<A extends object>
      extends Effectable.Class<ReadonlyArray<A>, SqlError>
      implements Statement.Statement<A>
    {
      readonly strings: TemplateStringsArray
      readonly args: Array<unknown>
      private known: Statement.Statement<A> | undefined
      constructor(strings: TemplateStringsArray, args: Array<unknown>) {
        super()
        this.strings = strings
        this.args = args
        this.known = undefined
      }
      private get statement(): Statement.Statement<A> {
        this.known ??= client<A>(this.strings, ...this.args)
        return this.known
      }
      private run<B>(use: (statement: Compiled, params: ReadonlyArray<unknown>) => B): Exit.Exit<B, SqlError> {
        if (isPlain(this.args)) return run(this.strings, this.args, use)
        const [sql, params] = this.statement.compile()
        return run(sql, params, use)
      }
      commit(): Effect.Effect<ReadonlyArray<A>, SqlError> {
        return isForTheClient() ? this.statement.withoutTransform : this.run(rowsOf)
      }
      get [Statement.FragmentId]() {
        return identity
      }
      get segments() {
        return this.statement.segments
      }
      get raw(): Effect.Effect<unknown, SqlError> {
        return Effect.suspend(() => (isForTheClient() ? this.statement.raw : this.run(rawOf)))
      }
      get withoutTransform() {
        return this.statement.withoutTransform
      }
      get stream() {
        return this.statement.stream
      }
      get values() {
        return this.statement.values
      }
      get unprepared() {
        return this.statement.unprepared
      }
      compile(withoutTransform?: boolean) {
        return this.statement.compile(withoutTransform)
      }
    }

    function make<A extends object = SqlConnection.Row>(
      strings: TemplateStringsArray,
      ...args: Array<unknown>
    ): Statement.Statement<A>
    function make(name: string): Statement.Identifier
    function make<A extends object = SqlConnection.Row>(
      first: TemplateStringsArray | string,
      ...args: Array<unknown>
    ): Statement.Statement<A> | Statement.Identifier {
      return typeof first === "string" ? client(first) : new Direct<A>(first, args)
    }
    return Object.assign(make, client, { withTransaction })
  })
