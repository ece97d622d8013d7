import * as Reactivity from "@effect/experimental/Reactivity"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Chunk, Deferred, Effect, Exit, Fiber, Option, type Scope, Stream, TestClock, Tracer } from "effect"
import { makeSqlite } from "../../src/Sql/Sqlite.js"

const inMemory = <A, E>(
  test: (sql: Effect.Effect.Success<ReturnType<typeof makeSqlite>>) => Effect.Effect<A, E, Scope.Scope>
) => Effect.flatMap(makeSqlite(":memory:"), test).pipe(Effect.provide(Reactivity.layer))

describe("the SQLite client", () => {
  it.scoped("forgets within seconds that a statement could not be compiled", () =>
    inMemory((sql) =>
      Effect.gen(function* () {
        const count = sql`SELECT COUNT(*) AS count FROM late`
        assert.isTrue(Exit.isFailure(yield* Effect.exit(count)))
        yield* sql`CREATE TABLE late (n INTEGER)`
        yield* TestClock.adjust("6 seconds")
        assert.deepStrictEqual(yield* count, [{ count: 0 }])
      })
    )
  )

  it.scoped("lets a statement of another fiber wait until a transaction has ended", () =>
    inMemory((sql) =>
      Effect.gen(function* () {
        yield* sql`CREATE TABLE numbers (n INTEGER)`
        const begun = yield* Deferred.make<void>()
        const goOn = yield* Deferred.make<void>()
        const transaction = yield* Effect.fork(
          sql.withTransaction(
            Effect.gen(function* () {
              yield* sql`INSERT INTO numbers VALUES (1)`
              yield* Deferred.succeed(begun, undefined)
              yield* Deferred.await(goOn)
              yield* sql`INSERT INTO numbers VALUES (2)`
              return yield* Effect.fail("undone")
            })
          )
        )
        yield* Deferred.await(begun)
        const other = yield* Effect.fork(sql<{ readonly count: number }>`SELECT COUNT(*) AS count FROM numbers`)
        yield* Effect.yieldNow()
        assert.isTrue(Option.isNone(yield* Fiber.poll(other)))
        yield* Deferred.succeed(goOn, undefined)
        assert.isTrue(Exit.isFailure(yield* Fiber.await(transaction)))
        assert.deepStrictEqual(yield* Fiber.join(other), [{ count: 0 }])
      })
    )
  )

  it.scoped("keeps statements apart, however many there are", () =>
    inMemory((sql) =>
      Effect.gen(function* () {
        for (let round = 0; round < 2; round++) {
          for (let n = 0; n < 700; n++) {
            const [row] = yield* sql<{ readonly n: number }>`SELECT ${sql.literal(String(n))} AS n`
            assert.strictEqual(row?.n, n)
          }
        }
        assert.deepStrictEqual(yield* sql`SELECT 1 AS one`.values, [[1]])
        assert.deepStrictEqual(yield* sql`SELECT 1 AS one`, [{ one: 1 }])
      })
    )
  )

  it.scoped("takes what is written at one place for what it is each time, a value or a part of a statement", () =>
    inMemory((sql) =>
      Effect.gen(function* () {
        yield* sql`CREATE TABLE numbers (n INTEGER)`
        yield* Effect.forEach([1, 2, 3], (n) => sql`INSERT INTO numbers VALUES (${n})`)
        const greater = (than: unknown) =>
          sql<{ readonly n: number }>`SELECT n FROM numbers WHERE n > ${than} ORDER BY n`
        const all = [1, sql`1 + ${1}`, sql.literal("0"), 2, null].map(greater)
        for (let round = 0; round < 2; round++) {
          const found = yield* Effect.all(all)
          assert.deepStrictEqual(
            found.map((rows) => rows.map(({ n }) => n)),
            [[2, 3], [3], [1, 2, 3], [3], []]
          )
        }
      })
    )
  )

  it.scoped("has a statement of plain values be all that a statement is", () =>
    inMemory((sql) =>
      Effect.gen(function* () {
        const one = sql<{ readonly n: number }>`SELECT ${1} AS n`
        assert.deepStrictEqual(yield* sql`SELECT n + ${1} AS more FROM (${one}) AS own`, [{ more: 2 }])
        assert.deepStrictEqual(one.compile(), ["SELECT ? AS n", [1]])
        assert.deepStrictEqual(yield* one.values, [[1]])
        assert.deepStrictEqual(yield* one.raw, [{ n: 1 }])
        assert.deepStrictEqual(yield* one.unprepared, [{ n: 1 }])
        assert.deepStrictEqual(yield* one.withoutTransform, [{ n: 1 }])
        assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Stream.runCollect(one.stream)), [{ n: 1 }])
        assert.deepStrictEqual(yield* sql.withTransaction(one), [{ n: 1 }])
      })
    )
  )

  it.scoped("fails with the database's own error", () =>
    inMemory((sql) =>
      Effect.gen(function* () {
        yield* sql`CREATE TABLE numbers (n INTEGER PRIMARY KEY)`
        yield* sql`INSERT INTO numbers VALUES (1)`
        const exit = yield* Effect.exit(sql`INSERT INTO numbers VALUES (1)`)
        const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.failureOption(exit.cause)) : undefined
        assert.strictEqual(error?._tag, "SqlError")
        assert.include(String(error?.cause), "UNIQUE")
      })
    )
  )

  it.scoped("makes spans of statements where somebody reads them", () =>
    inMemory((sql) =>
      Effect.gen(function* () {
        const names: Array<string> = []
        const own = yield* Effect.tracer
        const tracer = Tracer.make({
          context: own.context,
          span: (name, ...rest) => {
            names.push(name)
            return own.span(name, ...rest)
          }
        })
        yield* Effect.withTracer(sql`SELECT 1`, tracer)
        assert.deepStrictEqual(names, ["sql.execute"])
      })
    )
  )
})
