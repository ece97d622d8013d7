import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Effect, Exit, Option, Random, Ref } from "effect"
import { Coordinator } from "../../src/Coordinator.js"
import { TenantId } from "../../src/Domain/Task.js"
import * as Testing from "../../src/Testing.js"

const tenant = TenantId.make("local")

const withTeam =
  (...attempts: ReadonlyArray<Testing.Step>) =>
  <A, E>(test: Effect.Effect<A, E, Effect.Effect.Context<ReturnType<typeof submit>> | Needed>) =>
    test.pipe(Effect.provide(Testing.layer([{ id: "codex", attempts }])), Effect.withRandom(Random.make("seed")))

type Needed = Effect.Effect.Context<ReturnType<typeof Testing.advanceUntilIdle>>

const submit = (prompt: string, deadline?: number) =>
  Effect.flatMap(Coordinator, (coordinator) => coordinator.submit(tenant, { prompt, deadline }, Option.none()))

describe("Testing.advanceUntilIdle", () => {
  it.effect("moves the clock as far as the tasks need it, and no further", () =>
    Effect.gen(function* () {
      yield* submit("one")
      const { elapsedMs, steps, tasks } = yield* Testing.advanceUntilIdle()
      assert.strictEqual(elapsedMs, 7_000)
      assert.isAbove(steps, 0)
      assert.deepStrictEqual(tasks, { succeeded: 1 })
      assert.strictEqual((yield* Testing.advanceUntilIdle()).elapsedMs, 0)
    }).pipe(withTeam(Testing.answer("slowly", { afterMs: 7_000 })))
  )

  it.effect("goes through a wait until a limit is reset", () =>
    Effect.gen(function* () {
      yield* submit("one")
      const { elapsedMs, tasks } = yield* Testing.advanceUntilIdle()
      assert.isAtLeast(elapsedMs, 60_000)
      assert.deepStrictEqual(tasks, { succeeded: 1 })
    }).pipe(withTeam(Testing.fail(Testing.failures.quota({ retryAfterMs: 60_000 })), Testing.answer("at last")))
  )

  it.effect("says which tasks have not ended when its horizon is reached", () =>
    Effect.gen(function* () {
      const { task } = yield* submit("one")
      const failed = yield* Effect.flip(Testing.advanceUntilIdle({ horizon: "1 minute" }))
      assert.strictEqual(failed._tag, "NotIdle")
      if (failed._tag !== "NotIdle") return
      assert.deepStrictEqual([failed.reason, failed.unfinished, failed.at], ["horizon", 1, 60_000])
      assert.deepStrictEqual(
        failed.tasks.map(({ id, state }) => [id, state]),
        [[task.id, "running"]]
      )
      assert.include(failed.message, task.id)
    }).pipe(withTeam(Testing.hang))
  )

  it.effect("gives up after so many steps", () =>
    Effect.gen(function* () {
      yield* submit("one")
      const failed = yield* Effect.flip(Testing.advanceUntilIdle({ maxSteps: 3 }))
      assert.strictEqual(failed._tag === "NotIdle" ? failed.reason : failed._tag, "steps")
    }).pipe(withTeam(Testing.hang))
  )

  it.effect(
    "goes through hours in seconds",
    () =>
      Effect.gen(function* () {
        yield* submit("one")
        const { elapsedMs, tasks } = yield* Testing.advanceUntilIdle()
        assert.deepStrictEqual([elapsedMs, tasks], [6 * 3_600_000, { succeeded: 1 }])
      }).pipe(
        withTeam(Testing.fail(Testing.failures.quota({ retryAfterMs: 6 * 3_600_000 })), Testing.answer("at last"))
      ),
    60_000
  )

  it.effect("lets a fiber that goes on from real timers come to its end before it moves the clock on", () =>
    Effect.gen(function* () {
      const spun = yield* Ref.make(Number.NaN)
      // As many turns of the scheduler as make it go on from a timer, several times over.
      const spin = Effect.zipRight(
        Effect.repeatN(Effect.yieldNow(), 10_000),
        Effect.flatMap(Clock.currentTimeMillis, (at) => Ref.set(spun, at))
      )
      yield* Effect.fork(Effect.zipRight(Effect.sleep(1_500), spin))
      yield* Effect.fork(Effect.forever(Effect.sleep(10)))
      yield* submit("one")
      yield* Testing.advanceUntilIdle()
      assert.strictEqual(yield* Ref.get(spun), 1_500)
    }).pipe(withTeam(Testing.answer("slowly", { afterMs: 3_000 })))
  )

  it.effect("leaves a task alone that waits until its horizon or longer, and moves the clock no further for it", () =>
    Effect.gen(function* () {
      yield* submit("one")
      yield* Testing.settled
      for (const horizon of ["10 minutes", "1 hour"] as const) {
        const { elapsedMs, tasks } = yield* Testing.advanceUntilIdle({ horizon })
        assert.deepStrictEqual([elapsedMs, tasks], [0, { waiting: 1 }], horizon)
      }
      const { elapsedMs, tasks } = yield* Testing.advanceUntilIdle({ horizon: "61 minutes" })
      assert.deepStrictEqual([elapsedMs, tasks], [3_600_000, { succeeded: 1 }])
    }).pipe(withTeam(Testing.fail(Testing.failures.quota({ retryAfterMs: 3_600_000 })), Testing.answer("at last")))
  )

  it.effect("leaves those alone that wait for such a task, by name or for their turn", () =>
    Effect.gen(function* () {
      const { jobs } = yield* Coordinator
      yield* jobs.submit(
        tenant,
        {
          mode: "auto",
          maxParallel: 1,
          tasks: [
            { name: "first", prompt: "one" },
            { name: "second", prompt: "two", dependsOn: ["first"] },
            { prompt: "three", dependsOn: ["second"] },
            { prompt: "in its turn" }
          ]
        },
        Option.none()
      )
      const early = yield* Testing.advanceUntilIdle({ horizon: "10 minutes" })
      assert.deepStrictEqual([early.elapsedMs, early.tasks], [0, { waiting: 4 }])
      const { tasks } = yield* Testing.advanceUntilIdle()
      assert.deepStrictEqual(tasks, { succeeded: 4 })
    }).pipe(withTeam(Testing.fail(Testing.failures.quota({ retryAfterMs: 3_600_000 })), Testing.answer("at last")))
  )

  it.effect("counts those that wait for one that goes on", () =>
    Effect.gen(function* () {
      const { jobs } = yield* Coordinator
      yield* jobs.submit(
        tenant,
        {
          mode: "parallel",
          tasks: [
            { name: "first", prompt: "one" },
            { prompt: "two", dependsOn: ["first"] }
          ]
        },
        Option.none()
      )
      const failed = yield* Effect.flip(Testing.advanceUntilIdle({ horizon: "1 minute" }))
      if (failed._tag !== "NotIdle") return assert.fail(failed._tag)
      assert.deepStrictEqual([failed.unfinished, failed.tasks.map(({ state }) => state)], [2, ["running", "waiting"]])
      assert.match(failed.message, /^The horizon of 1m is reached, and 2 tasks have not ended: /)
    }).pipe(withTeam(Testing.hang))
  )

  it.effect("refuses bounds that are none, and says what to give", () =>
    Effect.gen(function* () {
      for (const horizon of [-1, Number.NaN, Number.POSITIVE_INFINITY, "-1 minutes", -1n, [-1, 0]] as const) {
        const exit = yield* Effect.exit(Testing.advanceUntilIdle({ horizon }))
        assert.match(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "", /horizon.*24 hours/, String(horizon))
      }
      for (const maxSteps of [-1, Number.NaN, Number.POSITIVE_INFINITY, 1.5]) {
        const exit = yield* Effect.exit(Testing.advanceUntilIdle({ maxSteps }))
        assert.match(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "", /maxSteps.*whole number/, String(maxSteps))
      }
      assert.deepStrictEqual((yield* Testing.advanceUntilIdle({ horizon: 0, maxSteps: 0 })).tasks, {})
      yield* submit("one")
      const failed = yield* Effect.flip(Testing.advanceUntilIdle({ horizon: 0 }))
      assert.include(failed.message, "and 1 task has not ended")
    }).pipe(withTeam(Testing.hang))
  )

  it.effect("tells the tasks by states that there are", () =>
    Effect.gen(function* () {
      const { tasks } = yield* Testing.advanceUntilIdle()
      assert.isUndefined(tasks.succeeded)
      // @ts-expect-error there is no such state
      assert.isUndefined(tasks.suceeded)
    }).pipe(withTeam(Testing.hang))
  )
})
