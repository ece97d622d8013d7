import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Option, TestClock } from "effect"
import { Coordinator } from "../../src/Coordinator.js"
import { RateLimited, ServiceUnavailable, TaskRefused } from "../../src/Domain/ApiError.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { ResourceManager } from "../../src/ResourceManager.js"
import * as Testing from "../../src/Testing.js"
import { ask, failureOf, fresh, reaches, submitted, tenant } from "./harness.js"

const codex = PlatformId.make("codex")

/** The whole team, whose one platform takes one request a minute. */
const team = Testing.layer([
  { id: "codex", settings: { limits: { requestsPerMinute: 1, tokensCounted: "reserved", maxConcurrent: 4 } } }
]).pipe(Layer.orDie)

describe("a task that cannot start before its deadline", () => {
  it.effect("is refused where the limits are used up for so long, and taken where it can wait for them", () =>
    Effect.gen(function* () {
      const coordinator = yield* Coordinator
      const key = Option.some("order-1")
      const first = yield* coordinator.submit(tenant, ask("one", { deadline: 10 }), key)
      yield* reaches(coordinator, first.task.id, "succeeded")
      yield* TestClock.adjust("5 seconds")

      const refused = yield* Effect.flip(coordinator.submit(tenant, ask("two", { deadline: 10 }), Option.none()))
      assert.instanceOf(refused, RateLimited)
      if (refused._tag !== "RateLimited") return
      const [reason] = refused.reasons
      assert.include(reason, { platform: codex, kind: "limit" })
      // A minute from the first request on, and a little more, as our clock is not the provider's.
      assert.approximately(refused.retryAfterMs, 55_000, 100)
      assert.strictEqual(reason?.earliestAt, 5_000 + refused.retryAfterMs)
      assert.lengthOf((yield* coordinator.list(tenant, {})).tasks, 1)

      // What was accepted before is given back all the same.
      assert.isTrue((yield* coordinator.submit(tenant, ask("one", { deadline: 10 }), key)).replayed)
      const { id } = yield* submitted(coordinator, ask("three", { deadline: 90 }))
      yield* TestClock.adjust("56 seconds")
      yield* reaches(coordinator, id, "succeeded")
    }).pipe(Effect.provide(team))
  )

  it.effect("is refused where its platform is out for so long, and taken where that may end at any moment", () =>
    Effect.gen(function* () {
      const coordinator = yield* Coordinator
      const resources = yield* ResourceManager
      yield* resources.setOut({ platform: codex }, { reason: "it is drained", until: 30_000 })
      const refused = yield* Effect.flip(coordinator.submit(tenant, ask("one", { deadline: 10 }), Option.none()))
      assert.instanceOf(refused, ServiceUnavailable)
      assert.deepInclude(refused, {
        retryAfterMs: 30_000,
        reasons: [{ platform: codex, reason: "it is drained", kind: "out", earliestAt: 30_000 }]
      })
      yield* resources.setOut({ platform: codex }, { reason: "its key is refused" })
      const { id } = yield* submitted(coordinator, ask("two", { deadline: 10 }))
      yield* resources.setOut({ platform: codex }, undefined)
      yield* TestClock.adjust("1 second")
      yield* reaches(coordinator, id, "succeeded")
    }).pipe(Effect.provide(team))
  )
})

describe("a deadline that passes while the task is looked at", () => {
  it.scoped("is refused: nothing is stored that was late before it began", () =>
    Effect.gen(function* () {
      const { coordinator } = yield* fresh()
      const late = ask("late", { deadline: "1969-12-31T23:59:59.999Z" })
      const problem = "it passed while the task was looked at: leave it more time"
      const problemsOf = (submitted: Effect.Effect<unknown, unknown>) =>
        Effect.map(Effect.exit(submitted), (exit) => {
          const failure = failureOf(exit)
          assert(Exit.isFailure(exit) && failure instanceof TaskRefused)
          return failure.problems
        })
      const field = "deadline"
      assert.deepStrictEqual(yield* problemsOf(submitted(coordinator, late)), [{ field, problem }])
      assert.deepStrictEqual(yield* problemsOf(coordinator.preview(tenant, late)), [{ field, problem }])
      assert.deepStrictEqual(
        yield* problemsOf(coordinator.jobs.submit(tenant, { tasks: [ask("fine"), late] }, Option.none())),
        [{ field: "tasks.1.deadline", problem }]
      )
      assert.deepStrictEqual((yield* coordinator.list(tenant, {})).tasks, [])
    })
  )
})
