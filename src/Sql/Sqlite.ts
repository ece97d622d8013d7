import type * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { Context, DefaultServices, Duration, Effect, type Fiber, FiberRef, Option, type Scope, Tracer } from "effect"

/** Compiled statements kept. */
const maxPrepared = 500
/** The client remembers failed compilations as well, and those of a moment's trouble must not last. */
const preparedFor = Duration.seconds(5)

const nobodysTracer = Context.get(DefaultServices.liveServices, Tracer.Tracer)

/** Whether anybody sees a fiber's spans: the tracer that is there by default shows them to nobody. */
export const isTraced = (fiber: Fiber.RuntimeFiber<unknown, unknown>): boolean =>
  fiber.currentTracer !== nobodysTracer && fiber.getFiberRef(FiberRef.currentTracerEnabled)

const isStatement = (made: object): made is Statement.Statement<unknown> => Effect.isEffect(made)

/**
 * A client of one SQLite file. It has one connection, which runs a statement at once: SQLite is called, not asked. So a
 * statement inside its own transaction, or while there is none, goes straight to the connection where nobody wants a span
 * of it; by way of permits, scopes and spans it would cost several times what SQLite takes for it.
 */
export const makeSqlite = (
  filename: string
): Effect.Effect<SqlClient.SqlClient, SqlError, Scope.Scope | Reactivity.Reactivity> =>
  Effect.gen(function* () {
    const client = yield* SqliteClient.make({
      filename,
      prepareCacheSize: maxPrepared,
      prepareCacheTTL: preparedFor
    })
    const connection = yield* Effect.scoped(client.reserve)
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
            return connection.execute(...statement.compile(), undefined)
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
