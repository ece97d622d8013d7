import { SqlClient } from "@effect/sql/SqlClient"
import { assert, it } from "@effect/vitest"
import { Effect, Layer, Option, TestClock } from "effect"
import { Settings } from "../../src/Settings.js"
import { SqlWriter } from "../../src/Sql/Writer.js"
import { Retention } from "../../src/TaskStore/Retention.js"
import { TaskStore } from "../../src/TaskStore.js"
import { codex, eventually, failureOf, settings, storeLayer, tenant } from "../Coordinator/harness.js"
import { describeOnEachDatabase } from "../support/databases.js"
import { complete, idOf, taskOf } from "./fixtures.js"

const withRetention = Retention.layer.pipe(Layer.provide(Settings.layer(settings)))

const hours = (count: number) => count * 3_600_000

const setUp = Effect.gen(function* () {
  const store = yield* TaskStore
  const sql = yield* SqlClient
  const { id: classId } = yield* store.classOf([codex], "MEDIUM")
  const rows = (table: "tasks" | "attempts" | "events" | "dependencies") =>
    Effect.map(sql<{ readonly count: number }>`SELECT COUNT(*) AS count FROM ${sql(table)}`, ([row]) => row?.count)
  const finish = (n: number) =>
    Effect.gen(function* () {
      yield* store.insert(taskOf(n, classId))
      const claim = (yield* store.claim(classId, 10)).find(({ id }) => id === idOf(n))
      assert(claim !== undefined)
      yield* complete(store, claim)
    })
  return { store, sql, classId, rows, finish }
})

/** A run, with the clock moved on through its pauses. */
const runAll = Effect.gen(function* () {
  const { run } = yield* Retention
  const fiber = yield* Effect.fork(run)
  yield* eventually(Effect.zipRight(TestClock.adjust("100 millis"), fiber.poll), Option.isSome)
  return yield* fiber
})

describeOnEachDatabase("Retention", (database) => {
  const onIt = Layer.provideMerge(storeLayer, database)

  it.scoped("deletes a task 30 days after its end, with its attempts, and events after 7 days", () =>
    Effect.gen(function* () {
      const { classId, finish, rows, store } = yield* setUp
      yield* finish(1)
      yield* store.insert(taskOf(2, classId, { deadline: hours(24 * 365) }))
      yield* TestClock.adjust("7 days")
      yield* finish(3)
      // Provided for each run alone: what runs every hour by itself would do so hundreds of times meanwhile.
      const deleted = Effect.provide(runAll, withRetention)
      assert.deepInclude(yield* deleted, { events: 5, tasks: 0 })
      assert.deepStrictEqual([yield* rows("tasks"), yield* rows("attempts"), yield* rows("events")], [3, 2, 4])
      yield* TestClock.adjust("22 days")
      assert.deepInclude(yield* deleted, { tasks: 0 })
      yield* TestClock.adjust("1 day")
      assert.deepInclude(yield* deleted, { tasks: 1 })
      assert.strictEqual(failureOf(yield* Effect.exit(store.get(tenant, idOf(1))))?._tag, "NotFound")
      assert.strictEqual((yield* store.get(tenant, idOf(2))).state, "queued")
      assert.strictEqual((yield* store.get(tenant, idOf(3))).state, "succeeded")
      assert.deepStrictEqual([yield* rows("tasks"), yield* rows("attempts"), yield* rows("events")], [2, 1, 0])
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("deletes however many there are, a bounded number in one write", () =>
    Effect.gen(function* () {
      const { classId, rows, sql, store } = yield* setUp
      const writer = yield* SqlWriter
      yield* Effect.forEach(
        Array.from({ length: 450 }, (_, n) => n),
        (n) => store.insert(taskOf(n, classId)),
        {
          concurrency: "unbounded"
        }
      )
      yield* sql`UPDATE tasks SET state = 'cancelled', finished_at = 0`
      // One with more events than a write may delete, the youngest of them not old enough by themselves.
      yield* sql`
        INSERT INTO events (tenant, task_id, type, at, body)
        SELECT tenant, ${idOf(0)}, 'task.queued', ${hours(24 * 29)}, '{"type":"task.queued"}' FROM tasks`
      yield* TestClock.adjust("30 days")
      const changed: Array<number> = []
      const counting = Layer.succeed(SqlWriter, {
        ...writer,
        write: (operation) =>
          Effect.tap(writer.write(operation), (result) =>
            Effect.sync(() => changed.push(Array.isArray(result) ? result.length : 0))
          )
      })
      const deleted = yield* runAll.pipe(Effect.provide(withRetention), Effect.provide(counting))
      assert.deepStrictEqual(deleted, { keys: 0, events: 450, tasks: 450, jobs: 0 })
      assert.deepStrictEqual([yield* rows("tasks"), yield* rows("events")], [0, 0])
      assert.isAtMost(Math.max(...changed), 200)
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("keeps a task for what waits for it, and until its webhooks are done", () =>
    Effect.gen(function* () {
      const { classId, finish, sql, store } = yield* setUp
      yield* finish(1)
      yield* finish(2)
      yield* store.insert(taskOf(3, classId, { deadline: hours(24 * 90), submission: { dependsOn: [idOf(1)] } }))
      yield* sql`
        INSERT INTO deliveries (tenant, task_id, type, url, host, state, at, expires_at, updated_at)
        VALUES ('local', ${idOf(2)}, 'task.succeeded', 'http://a', 'a', 'pending', 0, 0, 0)`
      yield* TestClock.adjust("31 days")
      yield* Effect.gen(function* () {
        assert.deepInclude(yield* runAll, { tasks: 0 })
        yield* store.cancel(tenant, idOf(3))
        yield* sql`UPDATE deliveries SET state = 'delivered'`
        assert.deepInclude(yield* runAll, { tasks: 2 })
      }).pipe(Effect.provide(withRetention))
      assert.strictEqual((yield* store.get(tenant, idOf(3))).state, "cancelled")
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("lets a key stand for its task for 24 h to the millisecond, and frees it afterwards", () =>
    Effect.gen(function* () {
      const { classId, sql, store } = yield* setUp
      const again = (n: number) => store.insert(taskOf(n, classId, { key: "k" }))
      const replayed = Effect.map(
        store.replay(tenant, { key: "k", hash: "hash of 1" }),
        Option.map(({ id }) => id)
      )
      yield* again(1)
      yield* TestClock.adjust(hours(24) - 1)
      assert.deepStrictEqual(yield* replayed, Option.some(idOf(1)))
      assert.strictEqual(failureOf(yield* Effect.exit(again(2)))?._tag, "Conflict")
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* replayed, Option.none())
      assert.deepInclude(yield* again(2), { replayed: false })
      assert.strictEqual(failureOf(yield* Effect.exit(replayed))?._tag, "Conflict")
      assert.deepInclude(yield* store.insert({ ...taskOf(2, classId, { key: "k" }), id: idOf(9) }), { replayed: true })
      yield* TestClock.adjust(hours(24))
      assert.deepInclude(yield* Effect.provide(runAll, withRetention), { keys: 1, tasks: 0 })
      assert.lengthOf(yield* sql`SELECT id FROM tasks WHERE idempotency_key IS NOT NULL OR request_hash IS NOT NULL`, 0)
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("answers with the task of a key that is freed at the same moment", () =>
    Effect.gen(function* () {
      const { classId, store } = yield* setUp
      yield* store.insert(taskOf(1, classId, { key: "k" }))
      yield* TestClock.adjust(hours(24) - 1)
      // as by a clock that is a little ahead
      const ahead = Settings.layer(Settings.make({ retention: { keysMs: hours(23) } }))
      const { run } = yield* Effect.provide(Retention, Retention.layer.pipe(Layer.provide(ahead)))
      const [again, { keys }] = yield* Effect.all([store.insert(taskOf(1, classId, { key: "k" })), run], {
        concurrency: "unbounded"
      })
      assert.strictEqual(keys, 1)
      assert.deepInclude(again, { replayed: true })
      assert.strictEqual(again.task.id, idOf(1))
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("runs by itself a minute after the start and every hour, also after it failed", () =>
    Effect.gen(function* () {
      const { finish, rows, sql } = yield* setUp
      yield* finish(1)
      yield* TestClock.adjust("31 days")
      yield* sql`ALTER TABLE deliveries RENAME TO deliveries_away`
      yield* Layer.build(withRetention)
      yield* TestClock.adjust("59 seconds")
      assert.strictEqual(yield* rows("events"), 4)
      yield* TestClock.adjust("1 seconds")
      yield* eventually(rows("events"), (count) => count === 0)
      yield* sql`ALTER TABLE deliveries_away RENAME TO deliveries`
      yield* eventually(Effect.zipRight(TestClock.adjust("10 minutes"), rows("tasks")), (count) => count === 0)
    }).pipe(Effect.provide(onIt))
  )
})
