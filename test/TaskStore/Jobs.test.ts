import { SqlClient } from "@effect/sql/SqlClient"
import { assert, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Option, TestClock } from "effect"
import { JobId } from "../../src/Domain/Job.js"
import { Arrivals } from "../../src/Sql/Writer.js"
import type { NewJob, NewJobTask } from "../../src/TaskStore/Jobs.js"
import { TaskStore } from "../../src/TaskStore.js"
import { codex, failureOf, other, storeLayer, tenant } from "../Coordinator/harness.js"
import { describeOnEachDatabase } from "../support/databases.js"
import { complete, idOf, started, taskOf } from "./fixtures.js"

const jobIdOf = (n: number): JobId => JobId.make(`01900000-0000-7000-9000-${String(n).padStart(12, "0")}`)

const failed = { _tag: "Failed", error: { type: "refused", message: "no" } } as const

const jobTask = (n: number, classId: number, rest: Partial<NewJobTask> = {}): NewJobTask => {
  const { idempotency: _, tenant: _own, ...task } = taskOf(n, classId)
  return { ...task, name: `t${n}`, chained: false, dependsOn: [], ...rest }
}

const jobOf = (n: number, tasks: ReadonlyArray<NewJobTask>, rest: Partial<NewJob> = {}): NewJob => ({
  id: jobIdOf(n),
  tenant,
  mode: "parallel",
  onFailure: "skip",
  maxParallel: 2,
  metadata: { of: "a test" },
  maxCostUsd: undefined,
  maxTokens: undefined,
  callbackUrl: undefined,
  idempotency: Option.none(),
  tasks,
  ...rest
})

const setUp = Effect.gen(function* () {
  const store = yield* TaskStore
  const { id: classId } = yield* store.classOf([codex], "MEDIUM")
  const end = (ids: ReadonlyArray<number>, how: "succeed" | "fail" = "succeed") =>
    Effect.gen(function* () {
      const claims = yield* store.claim(classId, 10)
      assert.deepStrictEqual(
        claims.map(({ id }) => id),
        ids.map(idOf)
      )
      yield* Effect.forEach(claims, (claim) =>
        how === "succeed" ? complete(store, claim) : store.finish(claim, failed)
      )
    })
  const states = (job: number) =>
    Effect.map(store.jobs.result(tenant, jobIdOf(job), { after: 0, limit: 200 }), ({ job: { state, tasks } }) => [
      state,
      ...tasks.map((task) => task.state)
    ])
  return { store, classId, end, states }
})

/** All that follows from what has ended was done: a start does it before anything else. */
const settled = (store: TaskStore["Type"]) => store.recover

const counts = (succeeded: number, failures: number, cancelled: number, total: number) => ({
  total,
  open: total - succeeded - failures - cancelled,
  succeeded,
  failed: failures,
  cancelled
})

describeOnEachDatabase("Jobs", (database) => {
  const onIt = storeLayer.pipe(Layer.provideMerge(database))

  it.scoped("accepts a job whole, and gives its tasks their turns in order, as many at a time as it may have", () =>
    Effect.gen(function* () {
      const { classId, end, states, store } = yield* setUp
      const tasks = [1, 2, 3, 4, 5].map((n) => jobTask(n, classId))
      const { job, replayed } = yield* store.jobs.insert(jobOf(1, tasks))
      assert.isFalse(replayed)
      assert.deepInclude(job, { state: "running", metadata: { of: "a test" }, counts: counts(0, 0, 0, 5) })
      yield* end([1, 2])
      yield* end([3, 4])
      assert.deepStrictEqual((yield* store.jobs.get(tenant, job.id)).counts, counts(4, 0, 0, 5))
      yield* end([5])
      assert.deepStrictEqual(yield* states(1), ["succeeded", ...tasks.map(() => "succeeded")])
      const { finishedAt, usage } = yield* store.jobs.get(tenant, job.id)
      assert.isDefined(finishedAt)
      assert.deepStrictEqual(usage, { inputTokens: 5, cachedInputTokens: 0, outputTokens: 5, reasoningTokens: 0 })
      assert.strictEqual(failureOf(yield* Effect.exit(store.jobs.get(other, job.id)))?._tag, "NotFound")
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("knows a job by its key, and refuses another one under it", () =>
    Effect.gen(function* () {
      const { classId, store } = yield* setUp
      const under = (hash: string) => ({ idempotency: Option.some({ key: "k", hash }) })
      const first = yield* store.jobs.insert(jobOf(1, [jobTask(1, classId)], under("one")))
      const again = yield* store.jobs.insert(jobOf(2, [jobTask(2, classId)], under("one")))
      assert.deepStrictEqual([again.replayed, again.job.id], [true, first.job.id])
      const another = yield* Effect.exit(store.jobs.insert(jobOf(3, [jobTask(3, classId)], under("two"))))
      assert.strictEqual(failureOf(another)?._tag, "Conflict")
      // what was staged for those that were not accepted is gone
      assert.lengthOf((yield* store.list(tenant, { limit: 10 })).tasks, 1)
      assert.lengthOf((yield* store.jobs.list(tenant, { limit: 10 })).jobs, 1)
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("accepts one of a hundred equal jobs that come at once", () =>
    Effect.gen(function* () {
      const { classId, store } = yield* setUp
      const key = Option.some({ key: "k", hash: "h" })
      const exits = yield* Effect.forEach(
        Array.from({ length: 100 }, (_, n) => n),
        (n) => Effect.exit(store.jobs.insert(jobOf(n, [jobTask(n, classId)], { idempotency: key }))),
        { concurrency: "unbounded" }
      )
      assert.isTrue(exits.every(Exit.isSuccess))
      const accepted = exits.flatMap((exit) =>
        Exit.isSuccess(exit) && !exit.value.replayed ? [exit.value.job.id] : []
      )
      assert.lengthOf(accepted, 1)
      assert.lengthOf((yield* store.list(tenant, { limit: 10 })).tasks, 1)
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("releases what waits with the last of what it waits for, and lets it see the results", () =>
    Effect.gen(function* () {
      const { classId, end, states, store } = yield* setUp
      yield* store.insert(taskOf(9, classId))
      yield* store.jobs.insert(
        jobOf(1, [
          jobTask(1, classId),
          jobTask(2, classId, { dependsOn: [idOf(1), idOf(9)] }),
          jobTask(3, classId, { dependsOn: [idOf(1), idOf(2)] })
        ])
      )
      yield* end([9, 1])
      const [claim = assert.fail("nothing to claim")] = yield* store.claim(classId, 10)
      assert.strictEqual(claim.id, idOf(2))
      const { call } = yield* claim.request
      assert.include(JSON.stringify(call.messages), "yes")
      yield* complete(store, claim)
      yield* end([3])
      assert.deepStrictEqual(yield* states(1), ["succeeded", "succeeded", "succeeded", "succeeded"])
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("lets everybody have a turn after each result that it reads for another task", () => {
    let turns = 0
    const counted = Effect.sync(() => {
      turns += 1
    })
    return Effect.gen(function* () {
      const { classId, end, store } = yield* setUp
      const sources = [1, 2, 3, 4, 5]
      for (const n of sources) yield* store.insert(taskOf(n, classId))
      yield* end(sources)
      yield* store.insert(taskOf(6, classId, { submission: { dependsOn: sources.map(idOf) } }))
      const [claim = assert.fail("nothing to claim")] = yield* store.claim(classId, 10)
      turns = 0
      yield* claim.request
      assert.strictEqual(turns, sources.length)
    }).pipe(Effect.provide(Layer.provideMerge(onIt, Layer.succeed(Arrivals, counted))))
  })

  it.scoped("does after a failure what the job says: cancels what waits for it, stops, or goes on", () =>
    Effect.gen(function* () {
      const { classId, end, states, store } = yield* setUp
      const tasks = (from: number) => [
        jobTask(from, classId),
        jobTask(from + 1, classId, { dependsOn: [idOf(from)] }),
        jobTask(from + 2, classId, { dependsOn: [idOf(from + 1)] }),
        jobTask(from + 3, classId)
      ]
      yield* store.jobs.insert(jobOf(1, tasks(1), { onFailure: "skip", maxParallel: 1 }))
      yield* end([1], "fail")
      yield* end([4])
      assert.deepStrictEqual(yield* states(1), ["failed", "failed", "cancelled", "cancelled", "succeeded"])

      yield* store.jobs.insert(jobOf(2, tasks(11), { onFailure: "stop", maxParallel: 1 }))
      yield* end([11], "fail")
      assert.deepStrictEqual(yield* states(2), ["failed", "failed", "cancelled", "cancelled", "cancelled"])
      assert.strictEqual((yield* store.get(tenant, idOf(14))).error?.type, "stopped")

      yield* store.jobs.insert(jobOf(3, tasks(21), { onFailure: "continue", maxParallel: 1 }))
      yield* end([21], "fail")
      yield* end([22])
      yield* end([23])
      yield* end([24])
      assert.deepStrictEqual(yield* states(3), ["failed", "failed", "succeeded", "succeeded", "succeeded"])
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("opens a job again with the task that is retried, and with what was cancelled on its account", () =>
    Effect.gen(function* () {
      const { classId, end, states, store } = yield* setUp
      yield* store.jobs.insert(jobOf(1, [jobTask(1, classId), jobTask(2, classId, { dependsOn: [idOf(1)] })]))
      yield* end([1], "fail")
      assert.deepStrictEqual(yield* states(1), ["failed", "failed", "cancelled"])
      yield* store.retry(tenant, idOf(1))
      assert.deepStrictEqual((yield* store.jobs.get(tenant, jobIdOf(1))).counts, counts(0, 0, 0, 2))
      yield* end([1])
      yield* end([2])
      assert.deepStrictEqual(yield* states(1), ["succeeded", "succeeded", "succeeded"])
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("tells that a job is open again only where it had ended", () =>
    Effect.gen(function* () {
      const { classId, end, store } = yield* setUp
      const sql = yield* SqlClient
      const told = Effect.map(
        sql<{ readonly type: string }>`
          SELECT type FROM events WHERE job_id = ${jobIdOf(1)} AND task_id IS NULL ORDER BY id`,
        (rows) => rows.map(({ type }) => type)
      )
      const before = ["job.queued", "job.progress"]
      yield* store.jobs.insert(
        jobOf(1, [jobTask(1, classId), jobTask(2, classId)], { onFailure: "continue", maxParallel: 1 })
      )
      yield* end([1], "fail")
      yield* store.retry(tenant, idOf(1))
      assert.deepStrictEqual(yield* told, [...before, "job.progress"])
      yield* end([2], "fail")
      yield* end([1], "fail")
      yield* store.retry(tenant, idOf(1))
      assert.deepStrictEqual((yield* told).slice(-2), ["job.failed", "job.reopened"])
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("cancels all of a job that is larger than one write, and what it has done stays", () =>
    Effect.gen(function* () {
      const { classId, end, store } = yield* setUp
      const tasks = Array.from({ length: 450 }, (_, n) => jobTask(n, classId))
      yield* store.jobs.insert(jobOf(1, tasks))
      yield* end([0, 1])
      const cancelling = yield* Effect.fork(store.jobs.cancel(tenant, jobIdOf(1)))
      yield* store.insert(taskOf(999, classId))
      const { counts: meanwhile } = yield* store.jobs.get(tenant, jobIdOf(1))
      assert.isAbove(meanwhile.open, 0, "others have their turn in between")
      const cancelled = yield* Fiber.join(cancelling)
      assert.deepInclude(cancelled, { state: "cancelled", counts: counts(2, 0, 448, 450) })
      assert.deepStrictEqual(yield* store.jobs.cancel(tenant, jobIdOf(1)), cancelled)
      assert.deepStrictEqual(
        (yield* store.claim(classId, 10)).map(({ id }) => id),
        [idOf(999)]
      )
      const page = yield* store.jobs.result(tenant, jobIdOf(1), { after: 0, limit: 200 })
      assert.deepStrictEqual([page.job.tasks.length, page.next], [200, Option.some(200)])
      const last = yield* store.jobs.result(tenant, jobIdOf(1), { after: 400, limit: 200 })
      assert.deepStrictEqual([last.job.tasks.length, last.next], [50, Option.none()])
    }).pipe(Effect.provide(onIt))
  )

  // Each waits for the one after it, and the last for the first: those that wait are put back before what they wait for.
  const backwards = (count: number, classId: number) =>
    Array.from({ length: count }, (_, index) =>
      jobTask(index + 1, classId, { dependsOn: index === 0 ? [] : [idOf(index + 1 === count ? 1 : index + 2)] })
    )

  it.scoped("puts back more tasks than one write holds, whatever their order, and others have their turn", () =>
    Effect.gen(function* () {
      const { classId, end, store } = yield* setUp
      yield* store.jobs.insert(jobOf(1, backwards(160, classId)))
      yield* end([1], "fail")
      const ended = Effect.map(store.jobs.get(tenant, jobIdOf(1)), (job) => [job.state, job.counts])
      yield* settled(store)
      const retrying = yield* Effect.fork(store.retry(tenant, idOf(1)))
      yield* store.insert(taskOf(999, classId))
      assert.isAbove((yield* store.jobs.get(tenant, jobIdOf(1))).counts.cancelled, 0, "not all in one write")
      yield* Fiber.join(retrying)
      assert.deepStrictEqual(yield* ended, ["running", counts(0, 0, 0, 160)])
      yield* end([1, 999])
      for (const n of [160, 159, 158, 157]) yield* end([n])
      assert.deepStrictEqual(yield* ended, ["running", counts(5, 0, 0, 160)])
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("puts nothing more back once the retried task did not succeed again, nor in a cancelled job", () =>
    Effect.gen(function* () {
      const { classId, end, store } = yield* setUp
      yield* store.jobs.insert(jobOf(1, backwards(160, classId)))
      yield* end([1], "fail")
      const ended = (job: number) =>
        Effect.map(store.jobs.get(tenant, jobIdOf(job)), ({ counts, state }) => [state, counts])
      yield* settled(store)
      yield* Effect.all([store.retry(tenant, idOf(1)), store.cancel(tenant, idOf(1))], { concurrency: "unbounded" })
      yield* settled(store)
      assert.deepStrictEqual(yield* ended(1), ["cancelled", counts(0, 0, 160, 160)])

      yield* store.insert(taskOf(500, classId))
      const outside = Array.from({ length: 160 }, (_, n) => jobTask(600 + n, classId, { dependsOn: [idOf(500)] }))
      yield* store.jobs.insert(jobOf(2, outside))
      yield* end([500], "fail")
      yield* settled(store)
      yield* Effect.all([store.retry(tenant, idOf(500)), store.jobs.cancel(tenant, jobIdOf(2))], {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(yield* ended(2), ["cancelled", counts(0, 0, 160, 160)])
      assert.deepStrictEqual(
        (yield* store.claim(classId, 10)).map(({ id }) => id),
        [idOf(500)]
      )
    }).pipe(Effect.provide(onIt))
  )

  /** Processes one after the other, each with a store of its own, on one database. */
  const processes = Effect.map(Layer.build(database), (context) => {
    const shared = Layer.succeedContext(context)
    return <A, E>(work: Effect.Effect<A, E, TaskStore | SqlClient>) =>
      Effect.scoped(Effect.provide(work, Layer.fresh(Layer.provideMerge(storeLayer, shared))))
  })

  it.scoped("removes at the next start what was never accepted, and goes on with what was", () =>
    Effect.gen(function* () {
      const inProcess = yield* processes
      yield* inProcess(
        Effect.gen(function* () {
          const { classId, store } = yield* setUp
          const sql = yield* SqlClient
          const many = (from: number) => Array.from({ length: 250 }, (_, n) => jobTask(from + n, classId))
          yield* store.jobs.insert(jobOf(1, many(0)))
          yield* store.jobs.insert(jobOf(2, many(1_000)))
          // as the writes before the last one leave it
          yield* sql`UPDATE tasks SET state = 'waiting', held = 1 WHERE job_id = ${jobIdOf(2)}`
          yield* sql`DELETE FROM events WHERE job_id = ${jobIdOf(2)}`
          yield* sql`UPDATE jobs SET state = 'accepting', accepting_epoch = ${store.epoch} WHERE id = ${jobIdOf(2)}`
        })
      )
      yield* inProcess(
        Effect.gen(function* () {
          const { end, store } = yield* setUp
          const sql = yield* SqlClient
          yield* store.recover
          assert.deepStrictEqual(yield* sql`SELECT id FROM jobs`, [{ id: jobIdOf(1) }])
          assert.deepStrictEqual(
            (yield* sql<{ readonly count: number }>`SELECT COUNT(*) AS count FROM tasks`).map(({ count }) =>
              Number(count)
            ),
            [250]
          )
          yield* end([0, 1])
          assert.deepInclude(yield* store.jobs.get(tenant, jobIdOf(1)), { counts: counts(2, 0, 0, 250) })
        })
      )
    })
  )

  it.scoped("ends what waits for tasks whose deadlines pass together in several writes", () => {
    let groups = 0
    const counted = Effect.sync(() => {
      groups += 1
    })
    return Effect.gen(function* () {
      const { classId, store } = yield* setUp
      const numbers = Array.from({ length: 20 }, (_, n) => n)
      for (const n of numbers) yield* store.insert(taskOf(n, classId, { deadline: 1_000 }))
      const dependants = numbers.flatMap((n) =>
        Array.from({ length: 10 }, (_, k) =>
          taskOf(100 + 10 * n + k, classId, { submission: { dependsOn: [idOf(n)] } })
        )
      )
      yield* Effect.forEach(dependants, store.insert, { concurrency: "unbounded" })
      yield* TestClock.adjust(1_000)
      groups = 0
      yield* store.expire
      assert.isAtLeast(groups, 4)
      yield* settled(store)
      assert.lengthOf((yield* store.list(tenant, { limit: 1, state: "waiting" })).tasks, 0)
      assert.lengthOf((yield* store.list(tenant, { limit: 200, state: "failed" })).tasks, 20)
    }).pipe(Effect.provide(Layer.provideMerge(onIt, Layer.succeed(Arrivals, counted))))
  })

  it.scoped("counts each task once where deadlines pass together, and the end of one ends another", () =>
    Effect.gen(function* () {
      const { classId, states, store } = yield* setUp
      const sql = yield* SqlClient
      const deadline = 1_000
      yield* store.jobs.insert(
        jobOf(1, [
          jobTask(1, classId, { deadline }),
          jobTask(2, classId, { deadline, dependsOn: [idOf(1)] }),
          jobTask(3, classId, { deadline, dependsOn: [idOf(2)] })
        ])
      )
      yield* TestClock.adjust(deadline)
      yield* store.expire
      // in which order those of one deadline are told of it is the database's to say
      const [state, ...ends] = yield* states(1)
      assert.deepStrictEqual([state, ends[0]], ["failed", "failed"])
      const those = (how: string) => ends.filter((end) => end === how).length
      assert.deepInclude(yield* store.jobs.get(tenant, jobIdOf(1)), {
        counts: counts(0, those("failed"), those("cancelled"), 3)
      })
      const ended = yield* sql<{ readonly task_id: string | null; readonly type: string }>`
        SELECT task_id, type FROM events WHERE job_id = ${jobIdOf(1)} AND type IN ('job.failed', 'task.failed', 'task.cancelled')`
      assert.deepStrictEqual(
        ended.map(({ task_id, type }) => `${task_id ?? ""} ${type}`).sort(),
        [` job.failed`, ...ends.map((end, index) => `${idOf(index + 1)} task.${end}`)].sort()
      )
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("leaves cancelled, at the next start, what the end of another interrupted task has cancelled", () =>
    Effect.gen(function* () {
      const inProcess = yield* processes
      yield* inProcess(
        Effect.gen(function* () {
          const { classId, store } = yield* setUp
          const sql = yield* SqlClient
          yield* store.jobs.insert(jobOf(1, [jobTask(1, classId), jobTask(2, classId)], { onFailure: "stop" }))
          const [first = assert.fail("nothing to claim")] = yield* store.claim(classId, 2)
          yield* store.attemptStarted(first, started)
          // its owners have died during its attempts before
          yield* sql`UPDATE tasks SET owner_deaths = 2 WHERE id = ${first.id}`
        })
      )
      yield* inProcess(
        Effect.gen(function* () {
          const { classId, states, store } = yield* setUp
          yield* store.recover
          assert.deepStrictEqual(yield* states(1), ["failed", "failed", "cancelled"])
          assert.deepInclude(yield* store.jobs.get(tenant, jobIdOf(1)), { counts: counts(0, 1, 1, 2) })
          assert.lengthOf(yield* store.claim(classId, 2), 0)
        })
      )
    })
  )

  it.scoped("lists jobs, newest first, by state and mode", () =>
    Effect.gen(function* () {
      const { classId, end, store } = yield* setUp
      yield* store.jobs.insert(jobOf(1, [jobTask(1, classId)]))
      yield* end([1])
      yield* store.jobs.insert(jobOf(2, [jobTask(2, classId)], { mode: "sequential" }))
      yield* store.jobs.insert(jobOf(3, [jobTask(3, classId)], { tenant: other }))
      const ids = (query: Parameters<typeof store.jobs.list>[1]) =>
        Effect.map(store.jobs.list(tenant, query), ({ jobs }) => jobs.map(({ id }) => id))
      assert.deepStrictEqual(yield* ids({ limit: 10 }), [jobIdOf(2), jobIdOf(1)])
      assert.deepStrictEqual(yield* ids({ limit: 10, state: "succeeded" }), [jobIdOf(1)])
      assert.deepStrictEqual(yield* ids({ limit: 10, mode: "sequential" }), [jobIdOf(2)])
      const { next } = yield* store.jobs.list(tenant, { limit: 1 })
      assert.deepStrictEqual(yield* ids({ limit: 1, before: Option.getOrUndefined(next) }), [jobIdOf(1)])
    }).pipe(Effect.provide(onIt))
  )
})
