import { SqlClient } from "@effect/sql/SqlClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Stream } from "effect"
import type { ServiceEvent } from "../../src/Domain/Event.js"
import { JobId, type TenantId } from "../../src/Domain/Task.js"
import { type EventFilter, Events } from "../../src/Events.js"
import { SqlWriter } from "../../src/Sql/Writer.js"
import { Sql } from "../../src/Sql.js"
import { TaskStore } from "../../src/TaskStore.js"
import { codex, eventually, other, qwen, settle, storeLayer, tenant } from "../Coordinator/harness.js"
import { describeOnEachDatabase } from "../support/databases.js"
import { idOf, taskOf } from "../TaskStore/fixtures.js"

const id = idOf(1)
const job = JobId.make("01900000-0000-7000-8000-00000000000a")
const counts = { total: 1, succeeded: 0, failed: 0, cancelled: 0 }

/** Stores events of one job, `perWrite` in each write. */
const store = (count: number, perWrite = 1, owner = tenant) =>
  Effect.gen(function* () {
    const events = yield* Events
    const { write } = yield* SqlWriter
    const some = Array.from({ length: perWrite }, () => ({ type: "job.progress" as const, ...counts }))
    yield* Effect.forEach(
      Array.from({ length: count / perWrite }),
      () => write(events.appendJob(job, owner, 0, some)),
      { concurrency: 64, discard: true }
    )
  })

const status = (platform = codex) =>
  Effect.gen(function* () {
    const events = yield* Events
    const { write } = yield* SqlWriter
    const body = { type: "platform.status", from: "available", to: "degraded", reasons: [] } as const
    yield* write(events.appendPlatform([{ platform, at: 0, body }]))
  })

/** Follows in a fiber of its own, from where it stands now. */
const following = (filter: Omit<EventFilter, "tenant"> & { readonly tenant?: TenantId } = {}, after?: number) =>
  Effect.gen(function* () {
    const events = yield* Events
    const seen: Array<ServiceEvent> = []
    const from = after ?? (yield* events.newest)
    const followed = yield* events.follow({ tenant, ...filter }, from)
    const fiber = yield* followed.pipe(
      Stream.runForEach((event) => Effect.sync(() => seen.push(event))),
      Effect.fork
    )
    return { seen, fiber }
  })

const oneTask = Effect.gen(function* () {
  const tasks = yield* TaskStore
  const { id: classId } = yield* tasks.classOf([codex], "MEDIUM")
  yield* tasks.insert(taskOf(1, classId))
  return { cancel: tasks.cancel(tenant, id) }
})

const ids = (events: Iterable<{ readonly id: number }>) => Array.from(events, (event) => event.id)
const upTo = (count: number) => Array.from({ length: count }, (_, n) => n + 1)

const reads = (seen: ReadonlyArray<ServiceEvent>, count: number) =>
  eventually(
    Effect.sync(() => seen.length),
    (length) => length >= count
  )

describeOnEachDatabase("All events", (database) => {
  const onIt = storeLayer.pipe(Layer.provideMerge(database))

  it.scoped("follows tasks, jobs and platforms in one order, and the own ones only", () =>
    Effect.gen(function* () {
      const all = yield* following()
      const others = yield* following({ tenant: other })
      const { cancel } = yield* oneTask
      yield* store(1)
      yield* store(1, 1, other)
      yield* status()
      yield* cancel
      yield* reads(all.seen, 4)
      yield* reads(others.seen, 2)
      assert.deepStrictEqual(
        all.seen.map(({ type }) => type),
        ["task.queued", "job.progress", "platform.status", "task.cancelled"]
      )
      assert.deepStrictEqual(ids(all.seen), [1, 2, 4, 5])
      assert.deepStrictEqual(ids(others.seen), [3, 4])
      assert.deepInclude(all.seen[0], { taskId: id })
      assert.deepInclude(all.seen[1], { jobId: job })
      assert.deepInclude(all.seen[2], { platform: codex })
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("goes on after any event, from the store into what is live, without loss or repetition", () =>
    Effect.gen(function* () {
      yield* store(2_500, 50)
      const readers = yield* Effect.forEach([0, 1, 1_234, 2_499, 2_500], (after) =>
        Effect.map(following({}, after), (reader) => ({ ...reader, after }))
      )
      const writing = yield* Effect.fork(store(2_500, 5))
      const late = yield* Effect.forEach([700, 1_700], (after) =>
        Effect.map(following({}, after), (reader) => ({ ...reader, after }))
      )
      yield* Fiber.join(writing)
      for (const { after, seen } of [...readers, ...late]) {
        yield* reads(seen, Math.max(0, 5_000 - after))
        assert.deepStrictEqual(ids(seen), upTo(5_000).slice(after), String(after))
      }
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("refuses to go on after an event that never was, not after one that is no longer kept", () =>
    Effect.gen(function* () {
      const events = yield* Events
      const sql = yield* SqlClient
      const refused = (after: number) => Effect.flip(events.follow({ tenant }, after))
      const unused = yield* refused(1)
      assert(unused._tag === "InvalidRequest")
      assert.match(unused.message, /no event 1\b.*has had none/)
      yield* following({}, 0)
      yield* store(3)
      yield* sql`DELETE FROM events`
      yield* following({}, 3)
      const ahead = yield* refused(4)
      assert(ahead._tag === "InvalidRequest")
      assert.match(ahead.message, /no event 4\b.*the newest is 3\b.*another database/)
      assert.deepStrictEqual(
        ahead.problems.map(({ field }) => field),
        ["after"]
      )
      assert.strictEqual((yield* Effect.flip(events.stream(id, 4)))._tag, "InvalidRequest")
    }).pipe(Effect.provide(onIt))
  )
})

describe("All events", () => {
  const onMemory = storeLayer.pipe(Layer.provideMerge(Layer.orDie(Sql.layerMemory)))

  it.scoped("filters by type, kind, task, job and platform, live and from the store alike", () =>
    Effect.gen(function* () {
      const { cancel } = yield* oneTask
      yield* store(1)
      yield* status()
      yield* status(qwen)
      const filters: ReadonlyArray<readonly [Omit<EventFilter, "tenant">, ReadonlyArray<number>]> = [
        [{}, [1, 2, 3, 4]],
        [{ types: ["task.*"] }, [1]],
        [{ types: ["task.queued", "platform.*"] }, [1, 3, 4]],
        [{ types: ["task.failed", "session.*"] }, []],
        [{ kind: "task" }, [1]],
        [{ kind: "job" }, [2]],
        [{ kind: "platform" }, [3, 4]],
        [{ task: id }, [1]],
        [{ job }, [2]],
        [{ platform: qwen }, [4]],
        [{ platform: qwen, kind: "task" }, []],
        [{ kind: "platform", types: ["breaker.*"] }, []]
      ]
      for (const [filter, expected] of filters) {
        const { fiber, seen } = yield* following(filter, 0)
        yield* settle
        assert.deepStrictEqual(ids(seen), expected, JSON.stringify(filter))
        yield* Fiber.interrupt(fiber)
      }
      const live = yield* Effect.forEach(filters, ([filter]) => following(filter))
      yield* cancel
      yield* store(1)
      yield* status()
      yield* status(qwen)
      yield* settle
      live.forEach(({ seen }, index) => {
        const [filter, expected] = filters[index] ?? [{}, []]
        const ended = expected.includes(1) && filter.types?.includes("task.queued") !== true ? [5] : []
        const rest = expected.filter((known) => known > 1).map((known) => known + 4)
        assert.deepStrictEqual(ids(seen), [...ended, ...rest], JSON.stringify(filter))
      })
    }).pipe(Effect.provide(onMemory))
  )

  it.scoped("lets a reader that takes nothing hold up neither the writer nor others", () =>
    Effect.gen(function* () {
      const events = yield* Events
      const followed = yield* events.follow({ tenant }, 0)
      const stuck = yield* followed.pipe(
        Stream.runForEach(() => Effect.never),
        Effect.fork
      )
      const { seen } = yield* following()
      yield* store(20_000, 500)
      yield* eventually(
        Effect.sync(() => seen.length),
        (count) => count === 20_000
      )
      assert.strictEqual(seen.at(-1)?.id, 20_000)
      yield* Fiber.interrupt(stuck)
    }).pipe(Effect.provide(onMemory))
  )

  it.scoped("passes over what another version has written", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient
      yield* store(1)
      yield* sql`INSERT INTO events (tenant, job_id, type, at, body)
        VALUES (${tenant}, ${job}, 'job.tomorrow', 0, '{"type":"job.tomorrow"}'), (${tenant}, ${job}, '', 0, 'no JSON')`
      yield* store(1)
      const { seen } = yield* following({}, 0)
      yield* settle
      assert.deepStrictEqual(ids(seen), [1, 4])
    }).pipe(Effect.provide(onMemory))
  )

  it.scoped("reads by an index whatever is asked for", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient
      for (const whose of ["task_id = 'a'", "job_id = 'a'", "platform = 'a'", "tenant = 'a'", "tenant IS NULL"]) {
        const plan = yield* sql.unsafe<{ readonly detail: string }>(
          `EXPLAIN QUERY PLAN SELECT * FROM events WHERE ${whose} AND id > 5 ORDER BY id LIMIT 500`
        )
        assert.strictEqual(plan.length, 1, whose)
        assert.match(plan[0]?.detail ?? "", /^SEARCH events USING INDEX/, whose)
      }
    }).pipe(Effect.provide(onMemory))
  )
})
