import { SqlClient } from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer } from "effect"
import { afterAll, beforeAll } from "vitest"
import { JobId } from "../../src/Domain/Job.js"
import { Settings } from "../../src/Settings.js"
import { type Fate, Ownership } from "../../src/Sql/Ownership.js"
import { SqlWriter } from "../../src/Sql/Writer.js"
import { Sql } from "../../src/Sql.js"
import { TaskStore } from "../../src/TaskStore.js"
import { codex, failureOf, storeLayer, tenant } from "../Coordinator/harness.js"
import { type Postgres, startPostgres, startTimeout } from "../support/Postgres.js"
import { idOf, started, taskOf } from "../TaskStore/fixtures.js"

let server: Postgres
beforeAll(async () => {
  server = await startPostgres()
}, startTimeout)
afterAll(() => server.remove())

const postgres = Layer.unwrapEffect(
  Effect.map(
    Effect.promise(() => server.database()),
    (database) => Layer.provide(Sql.layer, Settings.layer(Settings.make({ database })))
  )
).pipe(Layer.orDie)

let toLose = 0
/** The next commits are made, and told as failed. */
const lose = (commits: number) =>
  Effect.sync(() => {
    toLose = commits
  })

const forgetful = Layer.effect(
  SqlClient,
  Effect.map(SqlClient, (sql) => {
    const withTransaction: SqlClient["withTransaction"] = (effect) =>
      Effect.tap(sql.withTransaction(effect), () => {
        if (toLose === 0) return Effect.void
        toLose -= 1
        return new SqlError({ message: "the connection was cut" })
      })
    return new Proxy(sql, {
      get: (client, key) => (key === "withTransaction" ? withTransaction : Reflect.get(client, key))
    })
  })
)

const onIt = storeLayer.pipe(
  // not the one of the database below, which hears of everything
  Layer.provideMerge(Layer.fresh(SqlWriter.layer)),
  Layer.provideMerge(forgetful),
  Layer.provideMerge(postgres)
)

const failure = { scope: "platform", message: "down" } as const
const booking = { day: "1970-01-01", tenant, platform: codex, parents: [], amount: { nanoUsd: 1_000, tokens: 10 } }
const correction = { ...booking, amount: { nanoUsd: -400, tokens: -4 } }

describe("a commit of which nobody heard", () => {
  for (const together of [1, 3]) {
    it.scoped(`has accepted its tasks, ${together} of them, once`, () =>
      Effect.gen(function* () {
        const store = yield* TaskStore
        const { id } = yield* store.classOf([codex], "MEDIUM")
        const tasks = Array.from({ length: together }, (_, n) => taskOf(n, id, n === 1 ? { key: "key" } : {}))
        yield* lose(1)
        const accepted = yield* Effect.forEach(tasks, store.insert, { concurrency: "unbounded" })
        assert.deepStrictEqual(
          accepted.map(({ replayed, task }) => [task.id, task.state, replayed]),
          tasks.map((task) => [task.id, "queued", false])
        )
        assert.lengthOf((yield* store.list(tenant, { limit: 10 })).tasks, together)
      }).pipe(Effect.provide(onIt))
    )
  }

  it.scoped("has accepted a job, whichever of its commits it was", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const { id: classId } = yield* store.classOf([codex], "MEDIUM")
      const { idempotency, tenant: _, ...task } = taskOf(1, classId)
      yield* lose(3)
      const { job, replayed } = yield* store.jobs.insert({
        id: JobId.make(idOf(9)),
        tenant,
        mode: "parallel",
        onFailure: "skip",
        maxParallel: 1,
        metadata: undefined,
        maxCostUsd: undefined,
        maxTokens: undefined,
        callbackUrl: undefined,
        idempotency,
        tasks: [{ ...task, name: undefined, chained: false, dependsOn: [] }]
      })
      assert.strictEqual(toLose, 0)
      assert.deepStrictEqual([job.state, replayed], ["running", false])
      assert.lengthOf(yield* store.claim(classId, 10), 1)
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("has ended an attempt, and what it used is counted once", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const { id } = yield* store.classOf([codex], "MEDIUM")
      yield* store.insert(taskOf(1, id))
      const [claim = assert.fail()] = yield* store.claim(id, 1)
      const { decision, ...where } = started
      yield* lose(2)
      yield* store.attemptStarted(claim, { ...where, decision, booking })
      const end = { ...where, durationMs: 1, correction, outcome: { _tag: "Failed", failure } } as const
      // in one commit with another write
      yield* Effect.all([store.attemptEnded(claim, end), store.insert(taskOf(2, id))], { concurrency: "unbounded" })
      assert.strictEqual(toLose, 0)
      assert.deepInclude(yield* store.get(tenant, idOf(1)), { attempts: 1, spent: { costUsd: 6e-7, tokens: 6 } })
      yield* store.release(claim)
      assert.deepInclude((yield* store.claim(id, 1))[0], { id: idOf(1), attempts: 1, attemptsSpent: 1 })
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("has cancelled a task, and queued it again", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const { id } = yield* store.classOf([codex], "MEDIUM")
      yield* store.insert(taskOf(1, id))
      yield* lose(2)
      assert.isTrue((yield* store.cancel(tenant, idOf(1))).changed)
      assert.strictEqual((yield* store.retry(tenant, idOf(1))).task.state, "queued")
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("is told from one that was undone", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient
      const { write } = yield* SqlWriter
      yield* write(
        Effect.all([
          sql`CREATE TABLE parents (id INTEGER PRIMARY KEY)`,
          sql`CREATE TABLE children (parent INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)`
        ])
      )
      const writes = [
        sql`INSERT INTO parents VALUES (1)`,
        sql`INSERT INTO children VALUES (7)`,
        sql`INSERT INTO parents VALUES (2)`
      ]
      const exits = yield* Effect.all(
        writes.map((statement) => Effect.exit(write(statement))),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(exits.map(Exit.isSuccess), [true, false, true])
      assert.deepStrictEqual(yield* sql`SELECT id FROM parents ORDER BY id`, [{ id: 1 }, { id: 2 }])
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("is not called void where nobody can say what became of it", () => {
    const fate = (known: Fate) => ({ ...Ownership.certain, check: Effect.succeed(Effect.succeed(known)) })
    const lost = Layer.fresh(SqlWriter.layer).pipe(
      Layer.provideMerge(forgetful),
      Layer.provide(Layer.succeed(Ownership, fate("unknown"))),
      Layer.provideMerge(Layer.orDie(Sql.layerMemory))
    )
    return Effect.gen(function* () {
      const sql = yield* SqlClient
      const { write } = yield* SqlWriter
      yield* sql`CREATE TABLE notes (n INTEGER)`
      yield* lose(1)
      const exit = yield* Effect.exit(write(sql`INSERT INTO notes VALUES (1)`))
      assert.include(failureOf(exit)?.message, "nobody can say")
      assert.lengthOf(yield* sql`SELECT * FROM notes`, 1)
    }).pipe(Effect.provide(lost))
  })
})
