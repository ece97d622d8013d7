import Sqlite from "better-sqlite3"
import { Effect, Layer, Logger, LogLevel } from "effect"
import { Events } from "../../../src/Events.js"
import { Settings } from "../../../src/Settings.js"
import { Sql } from "../../../src/Sql.js"
import { TaskStore } from "../../../src/TaskStore.js"
import { codex } from "../../Coordinator/harness.js"
import { complete, taskOf } from "../../TaskStore/fixtures.js"

// One measurement of the store in a process of its own, bundled as the product is: `store.ts` runs it.

/** Claimed and finished by one drain. */
const drained = 5_000
const claimedAtOnce = 64
const deadline = 86_400_000_000_000

const newTask = (n: number, classId: number) =>
  taskOf(n, classId, { deadline, submission: { system: "s".repeat(200) } })

const withStore = <A>(
  database: string,
  use: (store: TaskStore["Type"], classId: number) => Effect.Effect<A, unknown>
): Effect.Effect<A> =>
  Effect.gen(function* () {
    const store = yield* TaskStore
    const { id } = yield* store.classOf([codex], "MEDIUM")
    return yield* use(store, id)
  }).pipe(
    Effect.provide(
      TaskStore.layer.pipe(
        Layer.provideMerge(Events.layer),
        Layer.provide(Sql.layer),
        Layer.provide(Settings.layer(Settings.make({ database })))
      )
    ),
    Effect.orDie
  )

/** Tasks accepted per second by as many fibers, each with one submission after the other. */
const insert = (database: string, from: number, tasks: number, fibers: number) =>
  withStore(database, (store, classId) =>
    Effect.gen(function* () {
      const inserting = (first: number, count: number) => {
        let next = first
        return Effect.forEach(
          Array.from({ length: fibers }),
          () =>
            Effect.whileLoop({
              while: () => next < first + count,
              body: () => store.insert(newTask(next++, classId)),
              step: () => undefined
            }),
          { concurrency: "unbounded", discard: true }
        )
      }
      const warm = Math.floor(tasks / 4)
      yield* inserting(from, warm)
      const start = performance.now()
      yield* inserting(from + warm, tasks - warm)
      return (tasks - warm) / ((performance.now() - start) / 1_000)
    })
  )

/** The same rows by better-sqlite3 alone, prepared, each row with a commit of its own on disk: a task is two. */
const raw = (database: string, from: number, tasks: number) =>
  Effect.sync(() => {
    const sqlite = new Sqlite(database)
    sqlite.pragma("synchronous = FULL")
    const insertTask = sqlite.prepare(
      `INSERT INTO tasks (id, tenant, class_id, type, priority, state, preview, submission, request, deadline, allowed_ms,
        created_at, updated_at) VALUES (?, 'local', 1, 'testing', 1, 'queued', ?, ?, ?, ?, ?, ?, ?)`
    )
    const insertEvent = sqlite.prepare(
      `INSERT INTO events (tenant, task_id, type, at, body)
       VALUES ('local', ?, 'task.queued', ?, '{"type":"task.queued"}')`
    )
    const insertEach = (n: number) => {
      const { id, request, submission } = newTask(n, 1)
      const now = Date.now()
      const texts = [submission.prompt, JSON.stringify(submission), JSON.stringify(request)]
      insertTask.run(id, ...texts, deadline, deadline, now, now)
      insertEvent.run(id, now)
    }
    const start = performance.now()
    for (let n = from; n < from + tasks; n++) insertEach(n)
    const perSecond = tasks / ((performance.now() - start) / 1_000)
    sqlite.close()
    return perSecond
  })

/** Leaves `queued` tasks in the database, as copies of one. */
const fill = (database: string, queued: number) =>
  Effect.map(
    withStore(database, (store, classId) => store.insert(newTask(0, classId))),
    () => {
      const sqlite = new Sqlite(database)
      sqlite.pragma("synchronous = OFF")
      const columns = sqlite
        .prepare<[], { readonly name: string }>(
          "SELECT name FROM pragma_table_info('tasks') WHERE name NOT IN ('seq', 'id')"
        )
        .all()
        .map(({ name }) => `"${name}"`)
        .join(", ")
      const copy = sqlite.prepare(
        `INSERT INTO tasks (id, ${columns})
         WITH RECURSIVE n (i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i < ?)
         SELECT printf('01900000-0000-7000-8000-%012d', i), ${columns} FROM n, tasks WHERE tasks.seq = 1`
      )
      for (let from = 1; from < queued; from += 50_000) copy.run(from, Math.min(from + 49_999, queued - 1))
      sqlite.pragma("wal_checkpoint(TRUNCATE)")
      sqlite.close()
      return queued
    }
  )

/** What one task costs that is claimed and finished, ms of CPU, and the memory that the process has then, MB. */
const drain = (database: string) =>
  withStore(database, (store, classId) =>
    Effect.gen(function* () {
      const some = Effect.flatMap(store.claim(classId, claimedAtOnce), (claims) =>
        Effect.as(
          Effect.forEach(claims, (claim) => complete(store, claim), { concurrency: "unbounded", discard: true }),
          claims.length
        )
      )
      let done = 0
      while (done < drained / 5) done += yield* some
      const from = done
      const before = process.cpuUsage()
      while (done < drained) done += yield* some
      const { system, user } = process.cpuUsage(before)
      return { cpuMs: (system + user) / 1_000 / (done - from), rssMb: process.memoryUsage().rss / 1_048_576 }
    })
  )

const [, , what, database = "", ...numbers] = process.argv
const [first = 0, second = 0, third = 0] = numbers.map(Number)
const measure: Record<string, Effect.Effect<unknown>> = {
  insert: insert(database, first, second, third),
  raw: raw(database, first, second),
  fill: fill(database, first),
  drain: drain(database)
}
const measured = measure[what ?? ""] ?? Effect.dieMessage(`what is ${what}?`)
// Nothing but the figure is written to stdout.
console.log(JSON.stringify(await Effect.runPromise(Logger.withMinimumLogLevel(measured, LogLevel.Warning))))
