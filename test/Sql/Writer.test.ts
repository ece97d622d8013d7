import { SqlClient } from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, HashMap, Layer, Logger, Option, TestClock } from "effect"
import { SqlWriter } from "../../src/Sql/Writer.js"
import { Sql } from "../../src/Sql.js"
import { failureOf, settle } from "../Coordinator/harness.js"

const memory = Layer.orDie(Sql.layerMemory)

const writer = Effect.gen(function* () {
  const sql = yield* SqlClient
  yield* sql`CREATE TABLE notes (n INTEGER UNIQUE)`
  const counts = { committed: 0 }
  const { afterCommit, write } = yield* SqlWriter
  const countCommit = Effect.sync(() => {
    counts.committed += 1
  })
  const note = (n: number) => Effect.zipRight(afterCommit(countCommit), sql`INSERT INTO notes VALUES (${n})`)
  const notes = Effect.map(sql<{ readonly n: number }>`SELECT n FROM notes ORDER BY n`, (rows) =>
    rows.map(({ n }) => n)
  )
  return { counts, note, notes, write, sql }
})

const numbers = (count: number) => Array.from({ length: count }, (_, n) => n)

describe("the writer", () => {
  it.scoped("commits what is queued together in one transaction, up to a bound", () =>
    Effect.gen(function* () {
      const { counts, note, notes, write } = yield* writer
      yield* Effect.forEach(numbers(100), (n) => write(note(n)), { concurrency: "unbounded" })
      assert.strictEqual(counts.committed, 1)
      yield* Effect.forEach(numbers(600), (n) => write(note(1_000 + n)), { concurrency: "unbounded" })
      assert.strictEqual(counts.committed, 1 + 3)
      assert.strictEqual((yield* notes).length, 700)
    }).pipe(Effect.provide(memory))
  )

  it.scoped("takes more writes than its queue holds, and loses none", () =>
    Effect.gen(function* () {
      const { note, notes, write } = yield* writer
      yield* Effect.forEach(numbers(6_000), (n) => write(note(n)), { concurrency: "unbounded", discard: true })
      assert.strictEqual((yield* notes).length, 6_000)
    }).pipe(Effect.provide(memory))
  )

  it.scoped("keeps the place of a write whose caller leaves, but not of one that still waited for room", () =>
    Effect.gen(function* () {
      const { note, notes, write } = yield* writer
      const callers = yield* Effect.forEach(numbers(4_098), (n) => Effect.fork(write(note(n))))
      yield* Effect.yieldNow()
      for (const left of [5, 4_096]) {
        const caller = callers[left]
        assert(caller !== undefined)
        yield* Fiber.interrupt(caller)
      }
      yield* Effect.forEach(callers, Fiber.await, { discard: true })
      assert.deepStrictEqual(
        yield* notes,
        numbers(4_098).filter((n) => n !== 4_096)
      )
    }).pipe(Effect.provide(memory))
  )

  it.scoped("runs the steps of a write again where another one of its group failed, with the time of the call", () =>
    Effect.gen(function* () {
      const { notes, sql } = yield* writer
      const { write, writeSteps } = yield* SqlWriter
      yield* TestClock.setTime(7_000)
      const steps = function* (now: number) {
        yield* sql`INSERT INTO notes VALUES (${now})`
        return yield* sql<{ readonly n: number }>`SELECT n FROM notes`
      }
      const failing = Effect.fail(new SqlError({ message: "no" }))
      const [own, other] = yield* Effect.all([writeSteps(steps), Effect.exit(write(failing))], {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(own, [{ n: 7_000 }])
      assert.isTrue(Exit.isFailure(other))
      assert.deepStrictEqual(yield* notes, [7_000])
    }).pipe(Effect.provide(memory))
  )

  it.scoped("undoes a failed write alone, even what it did before it failed", () =>
    Effect.gen(function* () {
      const { note, notes, write } = yield* writer
      const failing = Effect.zipRight(note(50), Effect.fail(new SqlError({ message: "no" })))
      const exits = yield* Effect.all(
        [
          write(note(1)),
          write(failing),
          write(note(2)),
          write(Effect.zipRight(note(51), Effect.dieMessage("a bug")))
        ].map(Effect.exit),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(exits.map(Exit.isSuccess), [true, false, true, false])
      assert.strictEqual(exits.map((exit) => failureOf(exit)?._tag)[1], "ServiceUnavailable")
      assert.deepStrictEqual(yield* notes, [1, 2])
    }).pipe(Effect.provide(memory))
  )

  it.scoped("goes on after a commit that failed", () =>
    Effect.gen(function* () {
      const { note, notes, sql, write } = yield* writer
      yield* sql`CREATE TABLE parents (id INTEGER PRIMARY KEY)`
      yield* sql`CREATE TABLE children (parent INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)`
      const orphan = Effect.zipRight(note(7), sql`INSERT INTO children VALUES (1)`)
      const exits = yield* Effect.all([write(note(1)), write(orphan), write(note(2))].map(Effect.exit), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(exits.map(Exit.isSuccess), [true, false, true])
      yield* write(note(3))
      assert.deepStrictEqual(yield* notes, [1, 2, 3])
    }).pipe(Effect.provide(memory))
  )

  describe("whose database is full", () => {
    const logged = Effect.gen(function* () {
      const entries: Array<string> = []
      const logger = Logger.make(({ annotations, logLevel, message }) => {
        const writes = Option.getOrElse(HashMap.get(annotations, "writes"), () => "")
        entries.push(`${logLevel.label} ${String(Array.isArray(message) ? message[0] : message)} ${String(writes)}`)
      })
      return { entries, layer: Logger.replace(Logger.defaultLogger, logger) }
    })
    const full = (sql: SqlClient) => sql`PRAGMA max_page_count = 1`
    const roomy = (sql: SqlClient) => sql`PRAGMA max_page_count = 1073741823`
    const long = (sql: SqlClient) => sql`CREATE TABLE more AS SELECT ${"s".repeat(100_000)} AS text`

    it.scoped("says why it refuses writes, and by itself when it takes them again", () =>
      Effect.gen(function* () {
        const { entries, layer } = yield* logged
        yield* Effect.gen(function* () {
          const { sql, write } = yield* writer
          const { refusal } = yield* SqlWriter
          assert.deepStrictEqual(yield* refusal, Option.none())
          yield* full(sql)
          assert.isTrue(Exit.isFailure(yield* Effect.exit(write(long(sql)))))
          for (const _ of numbers(3)) {
            yield* TestClock.adjust("1 second")
            yield* settle
            const message = Option.map(yield* refusal, (error) => error.message)
            assert.deepStrictEqual(
              message,
              Option.some("The disk of the task database is full. Nothing was changed; try again once there is room.")
            )
          }
          yield* roomy(sql)
          yield* TestClock.adjust("1 second")
          yield* settle
          assert.deepStrictEqual(yield* refusal, Option.none())
          const left = yield* sql<{ readonly n: number }>`SELECT COUNT(*) AS n FROM write_checks`
          assert.deepStrictEqual(left, [{ n: 0 }])
        }).pipe(Effect.provide(memory), Effect.provide(layer))
        assert.deepStrictEqual(
          entries.map((entry) => entry.replace(/\d+$/, "n")),
          ["ERROR The task database refused a write n", "INFO The task database takes writes again n"]
        )
      })
    )

    it.scoped("tells the log of it once a minute, and how many writes it was", () =>
      Effect.gen(function* () {
        const { entries, layer } = yield* logged
        yield* Effect.gen(function* () {
          const { sql, write } = yield* writer
          yield* full(sql)
          for (const _ of numbers(10)) {
            yield* Effect.forEach(numbers(5), () => Effect.exit(write(long(sql))), { concurrency: "unbounded" })
            yield* TestClock.adjust("20 seconds")
            yield* settle
          }
        }).pipe(Effect.provide(memory), Effect.provide(layer))
        const errors = entries.filter((entry) => entry.startsWith("ERROR The task database refused a write"))
        assert.strictEqual(errors.length, 4)
        assert.isAtLeast(Number(errors[1]?.split(" ").at(-1)), 15)
        assert.strictEqual(entries.length, errors.length)
      })
    )

    it.scoped("is not held to be so for a write that was wrong by itself", () =>
      Effect.gen(function* () {
        const { note, write } = yield* writer
        const { refusal } = yield* SqlWriter
        yield* write(note(1))
        assert.isTrue(Exit.isFailure(yield* Effect.exit(write(note(1)))))
        yield* settle
        assert.deepStrictEqual(yield* refusal, Option.none())
      }).pipe(Effect.provide(memory))
    )
  })

  it.scoped("shows nobody what is not committed yet", () =>
    Effect.gen(function* () {
      const { note, notes, write } = yield* writer
      const seen: Array<number> = []
      const watcher = yield* Effect.fork(
        Effect.forever(
          Effect.zipRight(
            Effect.map(notes, (all) => seen.push(all.length)),
            Effect.yieldNow()
          )
        )
      )
      yield* Effect.forEach(numbers(200), (n) => write(note(n)), { concurrency: "unbounded" })
      yield* settle
      yield* watcher.interruptAsFork(watcher.id())
      for (const count of seen) assert.include([0, 200], count)
    }).pipe(Effect.provide(memory))
  )

  it.scoped("commits what is queued when it closes, and takes nothing after", () =>
    Effect.gen(function* () {
      const client = Layer.succeedContext(yield* Layer.build(memory))
      const late = yield* Effect.gen(function* () {
        const { note, write } = yield* writer
        yield* Effect.forkDaemon(write(note(1)))
        yield* Effect.yieldNow()
        return write(note(2))
      }).pipe(Effect.provide(Layer.fresh(SqlWriter.layer).pipe(Layer.provideMerge(client))))
      assert.strictEqual(failureOf(yield* Effect.exit(late))?._tag, "ServiceUnavailable")
      const sql = yield* Effect.provide(SqlClient, client)
      assert.deepStrictEqual(yield* sql`SELECT n FROM notes`, [{ n: 1 }])
    })
  )
})
