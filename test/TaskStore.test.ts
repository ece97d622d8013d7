import { SqlClient } from "@effect/sql/SqlClient"
import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Option, TestClock } from "effect"
import { amountOf } from "../src/Budgets/Amount.js"
import { type TaskClaim, TaskStore } from "../src/TaskStore.js"
import { ask, codex, failureOf, qwen, storeLayer, tenant } from "./Coordinator/harness.js"
import { describeOnEachDatabase } from "./support/databases.js"
import { answered, idOf, started, success, taskOf } from "./TaskStore/fixtures.js"

describeOnEachDatabase("TaskStore", (database) => {
  const onIt = storeLayer.pipe(Layer.provideMerge(database))

  it.scoped("hands each write of a group its own failure, and the others their success", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const { id } = yield* store.classOf([codex], "MEDIUM")
      const missingClass = 999
      const exits = yield* Effect.forEach(
        [1, 2, 3, 4, 5],
        (n) => Effect.exit(store.insert(taskOf(n, n === 3 ? missingClass : id))),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        exits.map((exit) => failureOf(exit)?._tag),
        [undefined, undefined, "ServiceUnavailable", undefined, undefined]
      )
      const { tasks } = yield* store.list(tenant, { limit: 10 })
      assert.deepStrictEqual(
        tasks.map((task) => task.preview),
        ["task 5", "task 4", "task 2", "task 1"]
      )
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("keeps all that a task's requirement says, and reads one of before it could say so much", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const { id } = yield* store.classOf([codex], "MEDIUM")
      const full = {
        capabilities: ["code" as const],
        contextTokens: 30,
        inputTokens: 10,
        outputTokens: 20,
        model: "best",
        policy: "cheapest" as const,
        affinityKey: "local/session",
        maxCostUsd: 0.5
      }
      const first = taskOf(1, id)
      const submission = { ...first.submission, policy: "cheapest" as const, affinityKey: "session", maxCostUsd: 0.5 }
      yield* store.insert({ ...first, submission, request: { ...first.request, requirement: full } })
      yield* store.insert(taskOf(2, id))
      const claims = yield* store.claim(id, 10)
      assert.deepStrictEqual(
        yield* Effect.forEach(claims, (claim) => Effect.map(claim.request, ({ requirement }) => requirement)),
        [full, { capabilities: [], contextTokens: 10 }]
      )
      assert.deepInclude(yield* store.get(tenant, idOf(1)), {
        policy: "cheapest",
        affinityKey: "session",
        maxCostUsd: 0.5
      })
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("says that a row cannot be read, and not that the database is away", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const sql = yield* SqlClient
      const { id } = yield* store.classOf([codex], "MEDIUM")
      yield* store.insert(taskOf(1, id))
      yield* sql`UPDATE tasks SET result = '{"text": 1}'`
      const failure = failureOf(yield* Effect.exit(store.get(tenant, idOf(1))))
      assert.match(failure?.message ?? "", /cannot be read/)
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("keeps a write whose caller went away", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const { id } = yield* store.classOf([codex], "MEDIUM")
      const fiber = yield* Effect.fork(store.insert(taskOf(1, id)))
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(fiber)
      // What is written after it comes after it.
      yield* store.insert(taskOf(2, id))
      assert.strictEqual((yield* store.get(tenant, idOf(1))).prompt, "task 1")
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("takes every write of a former owner for void", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const { id: classId } = yield* store.classOf([codex], "MEDIUM")
      const write: ReadonlyArray<(claim: TaskClaim) => Effect.Effect<void, unknown>> = [
        (claim) => store.attemptStarted(claim, started),
        (claim) => store.attemptEnded(claim, { ...answered, outcome: { _tag: "Ignored" } }),
        (claim) => store.finish(claim, success),
        (claim) => store.finish(claim, { _tag: "Failed", error: { type: "deadline", message: "late" } }),
        (claim) => store.park(claim, 5, "busy"),
        (claim) => store.release(claim)
      ]
      const lose: ReadonlyArray<(claim: TaskClaim) => Effect.Effect<unknown, unknown>> = [
        (claim) => store.finish(claim, success),
        (claim) => store.cancel(tenant, claim.id),
        (claim) => store.park(claim, 5, "busy"),
        // Claimed anew by the same process: the former claim is void all the same.
        (claim) => Effect.zipRight(store.release(claim), store.claim(classId, 10)),
        (claim) =>
          store
            .cancel(tenant, claim.id)
            .pipe(Effect.zipRight(store.retry(tenant, claim.id)), Effect.zipRight(store.claim(classId, 10)))
      ]
      let n = 0
      for (const losing of lose) {
        n += 1
        yield* store.insert(taskOf(n, classId))
        const [claim] = yield* store.claim(classId, 1)
        assert(claim !== undefined)
        yield* store.attemptStarted(claim, started)
        yield* losing(claim)
        const before = [yield* store.get(tenant, claim.id), yield* store.attempts(tenant, claim.id)]
        for (const late of write) {
          const failure = failureOf(yield* Effect.exit(late(claim)))
          assert.deepInclude(failure, { _tag: "OwnershipLost", id: claim.id })
        }
        assert.deepStrictEqual([yield* store.get(tenant, claim.id), yield* store.attempts(tenant, claim.id)], before)
      }
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("gives each task to one owner, oldest first, and only those of the class", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const mine = yield* store.classOf([codex, qwen], "HIGH")
      assert.deepStrictEqual(yield* store.classOf([qwen, codex], "HIGH"), mine)
      const theirs = yield* store.classOf([codex], "HIGH")
      for (let n = 0; n < 6; n++) yield* store.insert(taskOf(n, n === 1 ? theirs.id : mine.id))
      const claims = yield* Effect.all([store.claim(mine.id, 2), store.claim(mine.id, 2), store.claim(mine.id, 2)], {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(
        claims.map((claimed) => claimed.map(({ id }) => id)),
        [[idOf(0), idOf(2)], [idOf(3), idOf(4)], [idOf(5)]]
      )
      const request = yield* claims[2]?.[0]?.request ?? Effect.die("no claim")
      assert.deepStrictEqual(request.call.messages, [{ role: "user", content: "task 5" }])
      assert.deepStrictEqual(yield* store.classes, [mine, theirs])
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("knows when it has something to do next", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      assert.deepStrictEqual(yield* store.nextInstant, Option.none())
      const { id } = yield* store.classOf([codex], "MEDIUM")
      yield* store.insert(taskOf(1, id))
      assert.deepStrictEqual(yield* store.nextInstant, Option.some(86_400_000))
      const [claim] = yield* store.claim(id, 1)
      assert(claim !== undefined)
      assert.deepStrictEqual(yield* store.nextInstant, Option.none())
      yield* store.park(claim, 7_000, "busy")
      assert.deepStrictEqual(yield* store.nextInstant, Option.some(7_000))
      assert.deepStrictEqual(yield* store.wakeDue, [])
      yield* TestClock.adjust("7 seconds")
      assert.deepStrictEqual(yield* store.wakeDue, [id])
      assert.strictEqual((yield* store.get(tenant, claim.id)).waiting, undefined)
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("ends a task whose platform reports more tokens than there are", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const { id } = yield* store.classOf([codex], "MEDIUM")
      yield* store.insert(taskOf(1, id))
      const [claim = assert.fail()] = yield* store.claim(id, 1)
      yield* store.attemptStarted(claim, started)
      const tokens = Number.MAX_SAFE_INTEGER
      const correction = {
        day: "1970-01-01",
        tenant,
        platform: codex,
        parents: [],
        amount: amountOf((tokens * 10) / 1e6, tokens)
      }
      const end = success._tag === "Succeeded" ? success : assert.fail()
      yield* store.finish(claim, { ...end, attempt: Option.some({ ...answered, correction }) })
      assert.deepInclude(yield* store.get(tenant, idOf(1)), { state: "succeeded" })
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("accepts a budget larger than it can count, as one that nobody uses up", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const { id } = yield* store.classOf([codex], "MEDIUM")
      const budget = { maxCostUsd: 1e300, maxTokens: Number.MAX_SAFE_INTEGER }
      yield* store.insert(taskOf(1, id, { submission: budget }))
      assert.deepInclude(yield* store.get(tenant, idOf(1)), budget)
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("shows texts of any script whole, and previews without half characters", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const { id } = yield* store.classOf([codex], "MEDIUM")
      const prompt = `${"a".repeat(199)}😀 'quoted' \u0000 ${"字".repeat(1000)}`
      yield* store.insert({ ...taskOf(1, id), submission: ask(prompt, { system: "s", context: [] }) })
      assert.strictEqual((yield* store.get(tenant, idOf(1))).prompt, prompt)
      const [summary] = (yield* store.list(tenant, { limit: 1 })).tasks
      assert.strictEqual(summary?.preview, "a".repeat(199))
    }).pipe(Effect.provide(onIt))
  )
})
