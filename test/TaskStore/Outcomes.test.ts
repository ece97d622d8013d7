import { assert, it } from "@effect/vitest"
import { Effect, Layer, Option, TestClock } from "effect"
import type { Verdict } from "../../src/Domain/Task.js"
import type { Branch } from "../../src/TaskStore/Outcomes.js"
import { type ClaimedTask, TaskStore } from "../../src/TaskStore.js"
import { codex, storeLayer, tenant } from "../Coordinator/harness.js"
import { describeOnEachDatabase } from "../support/databases.js"
import { idOf, taskOf } from "./fixtures.js"

const failure = { scope: "platform", message: "down" } as const
const error = { type: "attempts-exhausted", message: "1 attempt failed" }
const failed = { _tag: "Failed", error } as const
const usage = { inputTokens: 1, cachedInputTokens: 0, outputTokens: 1, reasoningTokens: 0 }
const result = { text: "yes", platform: codex, model: "gpt", usage }

const attempt = (store: TaskStore["Type"], claim: ClaimedTask, number: number, partial?: string) => {
  const where = { number, platform: codex, model: "gpt" }
  return Effect.zipRight(
    store.attemptStarted(claim, { ...where, decision: { candidates: [], excluded: [], waitedMs: 0 } }),
    store.attemptEnded(claim, { ...where, durationMs: 1, outcome: { _tag: "Failed", failure }, partial })
  )
}

/** A task whose one attempt has failed, in the hands of an owner. */
const usedUp = (store: TaskStore["Type"]) =>
  Effect.gen(function* () {
    const { id: classId } = yield* store.classOf([codex], "MEDIUM")
    yield* store.insert(taskOf(1, classId))
    const [claim = assert.fail("nothing to claim")] = yield* store.claim(classId, 1)
    yield* attempt(store, claim, 1)
    return { claim, classId }
  })

const branchOf = (claim: ClaimedTask, classId: number, steps: Readonly<Record<string, number>>): Branch => ({
  ladder: {
    round: claim.rounds + 1,
    startedAt: 0,
    order: ["class"],
    at: 0,
    error,
    isContext: false,
    notes: []
  },
  until: claim.deadline,
  children: Object.entries(steps).map(([step, n]) => {
    const { idempotency: _, ...child } = taskOf(n, classId)
    return { ...child, alternative: { kind: "class", step } }
  })
})

describeOnEachDatabase("what is made for a task", (database) => {
  const onIt = storeLayer.pipe(Layer.provideMerge(database))

  it.scoped("waits for nothing any more once it was cancelled and is tried again", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const { claim, classId } = yield* usedUp(store)
      yield* store.branch(claim, branchOf(claim, classId, { "class-1": 2 }))
      yield* store.cancel(tenant, claim.id)
      yield* store.retry(tenant, claim.id)
      const [again = assert.fail()] = yield* store.claim(classId, 5)
      assert.strictEqual(again.id, claim.id)
      yield* store.park(again, 5_000, "busy")
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* store.wakeDue, [classId])
      assert.deepStrictEqual(
        (yield* store.claim(classId, 5)).map(({ id }) => id),
        [claim.id]
      )
    }).pipe(Effect.provide(onIt))
  )

  it.scoped(
    "keeps no incomplete answer of a task that was cancelled or whose deadline passed, but for its parent",
    () =>
      Effect.gen(function* () {
        const store = yield* TaskStore
        const { id: classId } = yield* store.classOf([codex], "MEDIUM")
        const left = (n: number) => Effect.map(store.bestPartial([idOf(n)]), Option.isSome)
        for (const n of [1, 2, 3]) yield* store.insert(taskOf(n, classId, { deadline: 10_000 * n }))
        const claims = yield* store.claim(classId, 5)
        for (const claim of claims) yield* attempt(store, claim, 1, "Once")
        const [cancelled = assert.fail(), late = assert.fail(), parent = assert.fail()] = claims
        yield* store.cancel(tenant, cancelled.id)
        yield* store.park(late, late.deadline, "busy")
        yield* store.branch(parent, branchOf(parent, classId, { "class-1": 4 }))
        const [child = assert.fail()] = yield* store.claim(classId, 5)
        yield* attempt(store, child, 1, "Once upon")
        yield* store.cancel(tenant, child.id)
        yield* TestClock.adjust(20_000)
        yield* store.expire
        assert.deepStrictEqual(yield* Effect.forEach([1, 2, 3, 4], left), [false, false, true, true])
        const [again = assert.fail("it was not released")] = yield* store.claim(classId, 5)
        yield* store.park(again, again.deadline, "busy")
        yield* TestClock.adjust(10_000)
        yield* store.expire
        assert.deepStrictEqual(yield* Effect.forEach([3, 4], left), [false, false])
      }).pipe(Effect.provide(onIt))
  )

  it.scoped("lets it wait until all of it has ended, however", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const { claim, classId } = yield* usedUp(store)
      yield* store.branch(claim, branchOf(claim, classId, { "part-1": 2, "part-2": 3 }))
      const waiting = yield* store.get(tenant, claim.id)
      assert.deepInclude(waiting, { state: "waiting", attempts: 1 })
      assert.deepStrictEqual(
        waiting.alternatives?.map(({ id, state, step }) => ({ id, state, step })),
        [
          { id: idOf(2), state: "queued", step: "part-1" },
          { id: idOf(3), state: "queued", step: "part-2" }
        ]
      )
      yield* store.wakeClass(classId)
      const children = yield* store.claim(classId, 5)
      assert.deepStrictEqual(
        children.map(({ id, parentId }) => [id, parentId]),
        [
          [idOf(2), idOf(1)],
          [idOf(3), idOf(1)]
        ]
      )
      const [first = assert.fail(), second = assert.fail()] = children
      yield* attempt(store, first, 1)
      yield* store.finish(first, failed)
      assert.lengthOf(yield* store.claim(classId, 5), 0)
      yield* store.finish(second, { _tag: "Succeeded", attempt: Option.none(), result })
      const [again = assert.fail("it was not released")] = yield* store.claim(classId, 5)
      assert.strictEqual(again.id, claim.id)
      assert.strictEqual(Option.getOrThrow(yield* again.ladder).round, 1)
      assert.deepStrictEqual(
        (yield* store.children(claim.id, 1)).map(({ error, result, state }) => [state, result?.text, error?.type]),
        [
          ["failed", undefined, "attempts-exhausted"],
          ["succeeded", "yes", undefined]
        ]
      )
      assert.deepStrictEqual(yield* store.tried([claim.id, idOf(2)]), [{ platform: codex, model: "gpt" }])
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("is made once, whoever tries", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const { claim, classId } = yield* usedUp(store)
      yield* store.branch(claim, branchOf(claim, classId, { "class-1": 2 }))
      // the claim went with the write
      const late = yield* Effect.flip(store.branch(claim, branchOf(claim, classId, { "class-2": 3 })))
      assert.strictEqual(late._tag, "OwnershipLost")
      const [child = assert.fail("no child to claim")] = yield* store.claim(classId, 5)
      yield* store.finish(child, failed)
      const [again = assert.fail("it was not released")] = yield* store.claim(classId, 5)
      const twice = yield* Effect.flip(store.branch(again, branchOf(again, classId, { "class-1": 3 })))
      assert.strictEqual(twice._tag, "ServiceUnavailable")
      assert.lengthOf(yield* store.children(claim.id, 1), 1)
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("ends with it: by a cancel, or at its deadline", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const { claim, classId } = yield* usedUp(store)
      yield* store.branch(claim, branchOf(claim, classId, { "class-1": 2 }))
      yield* store.cancel(tenant, claim.id)
      assert.deepInclude((yield* store.get(tenant, idOf(2))).error, { type: "parent-ended" })
      yield* store.insert(taskOf(4, classId, { deadline: 1_000 }))
      const [other = assert.fail()] = yield* store.claim(classId, 1)
      yield* attempt(store, other, 1)
      yield* store.branch(other, branchOf(other, classId, { "class-1": 5 }))
      yield* TestClock.adjust(1_000)
      yield* store.expire
      assert.strictEqual((yield* store.get(tenant, idOf(4))).state, "failed")
      assert.strictEqual((yield* store.get(tenant, idOf(5))).state, "cancelled")
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("begins anew with a retry", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const { claim, classId } = yield* usedUp(store)
      yield* store.branch(claim, branchOf(claim, classId, { "class-1": 2 }))
      const [child = assert.fail()] = yield* store.claim(classId, 1)
      yield* store.finish(child, failed)
      const [again = assert.fail()] = yield* store.claim(classId, 1)
      yield* store.finish(again, { ...failed, attention: true })
      assert.isTrue((yield* store.get(tenant, claim.id)).attention)
      yield* store.retry(tenant, claim.id)
      const [retried = assert.fail()] = yield* store.claim(classId, 1)
      assert.isTrue(Option.isNone(yield* retried.ladder))
      assert.strictEqual(retried.rounds, 1)
      yield* store.branch(retried, branchOf(retried, classId, { "class-1": 3 }))
      const task = yield* store.get(tenant, claim.id)
      assert.isUndefined(task.attention)
      assert.lengthOf(task.alternatives ?? [], 2)
      assert.lengthOf(yield* store.children(claim.id, 2), 1)
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("leaves the longest incomplete answer, bounded, until the task has ended", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const { claim } = yield* usedUp(store)
      yield* attempt(store, claim, 2, `\u0000${"ä".repeat(200_000)}`)
      yield* attempt(store, claim, 3, "short")
      const best = Option.getOrThrow(yield* store.bestPartial([claim.id]))
      assert.strictEqual(best.number, 2)
      assert.isAtMost(Buffer.byteLength(best.text), 256 * 1024)
      assert.isAbove(Buffer.byteLength(best.text), 256 * 1024 - 8)
      assert.notInclude(best.text.slice(1), "\uFFFD")
      yield* store.finish(claim, { ...failed, hadPartials: true })
      assert.isTrue(Option.isNone(yield* store.bestPartial([claim.id])))
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("stands beside what was found of a task before it was accepted, and whether its answer is whole", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      const { id: classId } = yield* store.classOf([codex], "MEDIUM")
      const verdict: Verdict = { status: "invalid", problems: ["It has no meaning."], platform: codex }
      yield* store.insert({ ...taskOf(1, classId), verdict })
      const [claim = assert.fail()] = yield* store.claim(classId, 1)
      yield* attempt(store, claim, 1)
      const half = { ...result, text: "Once", partial: true } as const
      yield* store.finish(claim, { _tag: "Succeeded", attempt: Option.none(), result: half })
      assert.deepInclude(yield* store.get(tenant, claim.id), { validation: verdict, partial: true, result: half })
      const [listed] = (yield* store.list(tenant, { limit: 1 })).tasks
      assert.isTrue(listed?.partial)
    }).pipe(Effect.provide(onIt))
  )
})
