import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Option, Scope, TestClock } from "effect"
import { Coordinator } from "../../../src/Coordinator.js"
import { PlatformId } from "../../../src/Domain/Platform.js"
import { Events } from "../../../src/Events.js"
import { Settings } from "../../../src/Settings.js"
import { Sql } from "../../../src/Sql.js"
import type { Branch, NewChild } from "../../../src/TaskStore/Outcomes.js"
import { type ClaimedTask, TaskStore } from "../../../src/TaskStore.js"
import * as Testing from "../../../src/Testing.js"
import { idOf, taskOf } from "../../TaskStore/fixtures.js"
import { eventually, settle, tenant } from "../harness.js"

const { answer, fail, failures, hang } = Testing

const file = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "dream-team-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
).pipe(Effect.map((folder) => join(folder, "tasks.db")))

const serviceOn = (database: string, attempts: Testing.Script["attempts"]) =>
  Testing.layer([{ id: "solo", attempts, settings: { classes: { best: "large" } } }], {
    database,
    tasks: { maxAttempts: 1 },
    alternatives: { order: ["class"] }
  })

const alone = (database: string) =>
  TaskStore.layer.pipe(
    Layer.provideMerge(Events.layer),
    Layer.provide(Sql.layer),
    Layer.provide(Settings.layer(Testing.settings([], { database })))
  )

/** An owner that does something with the store, and is gone without giving anything back. */
const deadOwner = <A, E>(database: string, work: (store: TaskStore["Type"]) => Effect.Effect<A, E>) =>
  Effect.flatMap(TaskStore, work).pipe(Effect.provide(alone(database)), Effect.scoped)

const failure = { scope: "platform", message: "down" } as const
const where = { number: 1, platform: PlatformId.make("solo"), model: "solo-model" }

/** A HIGH task whose one attempt has failed, in the hands of an owner. */
const usedUp = (store: TaskStore["Type"]) =>
  Effect.gen(function* () {
    const { id: classId } = yield* store.classOf([where.platform], "HIGH")
    yield* store.insert({ ...taskOf(1, classId), priority: "HIGH" })
    const [claim = assert.fail("nothing to claim")] = yield* store.claim(classId, 1)
    yield* store.attemptStarted(claim, { ...where, decision: { candidates: [], excluded: [], waitedMs: 0 } })
    yield* store.attemptEnded(claim, { ...where, durationMs: 1, outcome: { _tag: "Failed", failure } })
    return { claim, classId }
  })

const branchOf = (task: ClaimedTask, classId: number, n: number): Branch => {
  const { idempotency: _, ...child } = taskOf(n, classId)
  const made: NewChild = { ...child, priority: "HIGH", alternative: { kind: "class", step: "class-1" } }
  return {
    ladder: {
      round: 1,
      startedAt: 0,
      order: ["class"],
      at: 0,
      error: { type: "attempts-exhausted", message: "1 attempt failed" },
      isContext: false,
      notes: []
    },
    until: task.deadline,
    children: [made]
  }
}

const broken = fail(failures.platform())

describe("alternatives after a restart", () => {
  it.scoped("go on with the task that was under way, and make no second one", () =>
    Effect.gen(function* () {
      const database = yield* file
      const first = yield* Scope.make()
      const id = yield* Effect.gen(function* () {
        const coordinator = yield* Coordinator
        const received = yield* Testing.Received
        const { task } = yield* coordinator.submit(tenant, { prompt: "Write", priority: "HIGH" }, Option.none())
        yield* eventually(received.calls, (calls) => calls.some(({ model }) => model === "large"))
        return task.id
      }).pipe(
        Effect.provide(
          yield* Layer.buildWithScope(
            serviceOn(database, ({ model }) => (model === "large" ? hang : broken)),
            first
          )
        )
      )
      // what hangs gets its grace, and no more
      const closing = yield* Effect.fork(Scope.close(first, Exit.void))
      yield* settle
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(closing)

      yield* Effect.gen(function* () {
        const coordinator = yield* Coordinator
        yield* Testing.advanceUntilIdle()
        const task = yield* coordinator.get(tenant, id)
        assert.strictEqual(task.result?.text, "done")
        assert.deepStrictEqual(
          task.alternatives?.map(({ state, step }) => `${step} ${state}`),
          ["class-1 succeeded"]
        )
      }).pipe(Effect.provide(serviceOn(database, () => answer("done"))))
    })
  )

  it.scoped("begin where the owner died between the last attempt and them", () =>
    Effect.gen(function* () {
      const database = yield* file
      yield* deadOwner(database, usedUp)
      yield* Effect.gen(function* () {
        const coordinator = yield* Coordinator
        yield* Testing.advanceUntilIdle()
        const task = yield* coordinator.get(tenant, idOf(1))
        assert.deepInclude(task.result, { text: "done", model: "large" })
        assert.lengthOf(task.alternatives ?? [], 1)
      }).pipe(Effect.provide(serviceOn(database, ({ model }) => (model === "large" ? answer("done") : broken))))
    })
  )

  it.scoped("go on where the owner died just after it had made one", () =>
    Effect.gen(function* () {
      const database = yield* file
      yield* deadOwner(database, (store) =>
        Effect.flatMap(usedUp(store), ({ claim, classId }) => store.branch(claim, branchOf(claim, classId, 2)))
      )
      yield* Effect.gen(function* () {
        const coordinator = yield* Coordinator
        yield* Testing.advanceUntilIdle()
        const task = yield* coordinator.get(tenant, idOf(1))
        assert.strictEqual(task.result?.text, "done")
        assert.deepStrictEqual(
          task.alternatives?.map((made) => made.id),
          [idOf(2)]
        )
      }).pipe(Effect.provide(serviceOn(database, () => answer("done"))))
    })
  )
})
