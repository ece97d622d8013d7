import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, TestClock } from "effect"
import { Coordinator } from "../../src/Coordinator.js"
import { TenantId } from "../../src/Domain/Task.js"
import * as Testing from "../../src/Testing.js"

const { answer, fail, failures } = Testing

const tenant = TenantId.make("local")

/** Fails so many attempts, then answers. */
const after = (times: number, failing: Testing.Failing): ReadonlyArray<Testing.Step> => [
  ...Array.from({ length: times }, () => fail(failing)),
  answer("Because.")
]

const submitAndWait = Effect.gen(function* () {
  const coordinator = yield* Coordinator
  const { task } = yield* coordinator.submit(tenant, { prompt: "Why?" }, Option.none())
  // Within two hours, and no longer than it takes.
  yield* Effect.zipRight(TestClock.adjust("1 minute"), coordinator.get(tenant, task.id)).pipe(
    Effect.repeat({ times: 119, until: ({ state }) => state === "succeeded" || state === "failed" })
  )
  return {
    task: yield* coordinator.get(tenant, task.id),
    attempts: yield* coordinator.attempts(tenant, task.id)
  }
})

describe("an outage of every platform", () => {
  it.effect("is waited out by a durable task where none can be reached: such attempts spend nothing", () =>
    Effect.gen(function* () {
      const { task, attempts } = yield* submitAndWait
      assert.strictEqual(task.state, "succeeded")
      assert.isAbove(attempts.length, 6)
      assert.strictEqual(attempts.at(-1)?.outcome, "succeeded")
    }).pipe(
      Effect.provide(
        Testing.layer([
          { id: "codex", attempts: after(7, failures.platform({ reason: "unreachable" })) },
          { id: "gemini", attempts: after(7, failures.platform({ reason: "unreachable" })) }
        ])
      )
    )
  )

  it.effect("uses up the attempts where they answer with errors", () =>
    Effect.gen(function* () {
      const { task, attempts } = yield* submitAndWait
      assert.strictEqual(task.state, "failed")
      assert.strictEqual(task.error?.type, "attempts-exhausted")
      assert.strictEqual(attempts.length, 6)
    }).pipe(
      Effect.provide(
        Testing.layer([
          { id: "codex", attempts: after(7, failures.platform()) },
          { id: "gemini", attempts: after(7, failures.platform()) }
        ])
      )
    )
  )
})
