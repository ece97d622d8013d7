import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option, Random, Stream, TestClock } from "effect"
import type { TaskFilter } from "../src/Coordinator.js"
import { TaskRefused } from "../src/Domain/ApiError.js"
import { isFinal } from "../src/Domain/Event.js"
import {
  AttemptsExhausted,
  CallRefused,
  DeadlineExceeded,
  LeaseUnavailable,
  NoCapablePlatform,
  viewOf
} from "../src/Domain/Failure.js"
import { TaskId } from "../src/Domain/Task.js"
import {
  ask,
  broken,
  codex,
  error,
  eventually,
  failAttempt,
  failureOf,
  firstEvents,
  fresh,
  other,
  qwen,
  reaches,
  settle,
  start,
  submitted,
  succeed,
  tenant
} from "./Coordinator/harness.js"

const noLease = (earliestAt?: number) => error(new LeaseUnavailable({ message: "all busy", reasons: [], earliestAt }))

describe("Coordinator", () => {
  it.scoped("carries a task from its submission to its result", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      yield* TestClock.adjust("5 seconds")
      const task = yield* submitted(coordinator, ask("hello", { priority: "HIGH", metadata: { a: "b" } }))
      assert.strictEqual(task.state, "queued")
      assert.strictEqual(task.createdAt, 5_000)
      assert.strictEqual(task.deadline, 5_000 + 86_400_000)
      assert.deepStrictEqual(yield* coordinator.get(tenant, task.id), yield* coordinator.get(tenant, task.id))
      yield* script.say("hello", start)
      const running = yield* reaches(coordinator, task.id, "running")
      assert.strictEqual(running.attempts, 1)
      assert.strictEqual(running.startedAt, 5_000)
      yield* TestClock.adjust("2 seconds")
      yield* script.say("hello", succeed("world"))
      const done = yield* reaches(coordinator, task.id, "succeeded")
      assert.deepStrictEqual(done.result, {
        text: "world",
        platform: codex,
        model: "gpt-1",
        usage: { inputTokens: 3, cachedInputTokens: 0, outputTokens: 5, reasoningTokens: 0 },
        costUsd: 0.25
      })
      assert.strictEqual(done.finishedAt, 7_000)
      assert.deepStrictEqual(done.metadata, { a: "b" })
      const [attempt, ...more] = yield* coordinator.attempts(tenant, task.id)
      assert.deepStrictEqual(more, [])
      assert.strictEqual(attempt?.outcome, "succeeded")
      assert.strictEqual(attempt?.durationMs, 13)
      assert.strictEqual(attempt?.timeToFirstTokenMs, 2)
      assert.strictEqual(attempt?.decision.waitedMs, 7)
      assert.strictEqual(attempt?.costUsd, 0.25)
    })
  )

  it.scoped("shows a task to its tenant alone", () =>
    Effect.gen(function* () {
      const { coordinator } = yield* fresh()
      const task = yield* submitted(coordinator, ask("mine"))
      const missing = TaskId.make("01900000-0000-7000-8000-000000000000")
      for (const [who, id] of [
        [other, task.id],
        [tenant, missing]
      ] as const) {
        const lookups: ReadonlyArray<Effect.Effect<void, { readonly _tag: string }>> = [
          Effect.asVoid(coordinator.get(who, id)),
          Effect.asVoid(coordinator.cancel(who, id)),
          Effect.asVoid(coordinator.retry(who, id)),
          Effect.asVoid(coordinator.attempts(who, id)),
          Effect.asVoid(coordinator.events(who, id, Option.none()))
        ]
        for (const lookup of lookups) assert.strictEqual(failureOf(yield* Effect.exit(lookup))?._tag, "NotFound")
      }
      assert.deepStrictEqual((yield* coordinator.list(other, {})).tasks, [])
      assert.strictEqual((yield* coordinator.get(tenant, task.id)).state, "queued")
    })
  )

  it.scoped("refuses to go on after an event that is of another database", () =>
    Effect.gen(function* () {
      const { coordinator } = yield* fresh()
      const task = yield* submitted(coordinator, ask("followed"))
      const ahead = yield* Effect.exit(coordinator.events(tenant, task.id, Option.some(1_000)))
      assert.strictEqual(failureOf(ahead)?._tag, "InvalidRequest")
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(coordinator.events(tenant, task.id, Option.some(1)))))
    })
  )

  it.scoped("stores nothing of a task that is refused", () =>
    Effect.gen(function* () {
      const { coordinator } = yield* fresh()
      const exit = yield* Effect.exit(coordinator.submit(tenant, ask(""), Option.some("key")))
      assert.strictEqual(failureOf(exit)?._tag, "TaskRefused")
      assert.deepStrictEqual((yield* coordinator.list(tenant, {})).tasks, [])
      const long = yield* Effect.exit(coordinator.submit(tenant, ask("a"), Option.some("k".repeat(256))))
      assert.strictEqual(failureOf(long)?._tag, "TaskRefused")
    })
  )

  it.scoped("lists newest first, page by page, through every filter", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const ids: Array<string> = []
      for (let i = 0; i < 7; i++) {
        const task = yield* submitted(
          coordinator,
          ask(`task ${i}`, { priority: i % 2 === 0 ? "HIGH" : "LOW", type: i < 3 ? "analysis" : "testing" })
        )
        ids.unshift(task.id)
      }
      yield* script.say("task 0", start, succeed("done"))
      const first = ids.at(-1) ?? ""
      yield* reaches(coordinator, TaskId.make(first), "succeeded")

      const seen: Array<string> = []
      let cursor: string | undefined
      do {
        const page = yield* coordinator.list(tenant, { limit: 3, cursor })
        assert.isAtMost(page.tasks.length, 3)
        seen.push(...page.tasks.map((task) => task.id))
        cursor = page.next
      } while (cursor !== undefined)
      assert.deepStrictEqual(seen, ids)

      const count = (filter: TaskFilter) => Effect.map(coordinator.list(tenant, filter), ({ tasks }) => tasks.length)
      assert.strictEqual(yield* count({ priority: "HIGH" }), 4)
      assert.strictEqual(yield* count({ type: "analysis" }), 3)
      assert.strictEqual(yield* count({ state: "succeeded" }), 1)
      assert.strictEqual(yield* count({ platform: codex }), 1)
      assert.strictEqual(yield* count({ platform: qwen }), 0)
      assert.strictEqual(yield* count({ priority: "LOW", type: "testing" }), 2)
      assert.strictEqual(yield* count({ state: "succeeded", priority: "LOW" }), 0)
      const [summary] = (yield* coordinator.list(tenant, { platform: codex })).tasks
      assert.strictEqual(summary?.preview, "task 0")
      assert.strictEqual(summary?.platform, codex)

      for (const filter of [{ limit: 0 }, { limit: 201 }, { limit: 1.5 }, { cursor: "!" }, { cursor: "bm8" }]) {
        const exit = yield* Effect.exit(coordinator.list(tenant, filter))
        assert.strictEqual(failureOf(exit)?._tag, "InvalidRequest")
      }
      const { message } = yield* Effect.flip(coordinator.list(tenant, { limit: 0, cursor: "!" }))
      assert.match(message, /limit: it must be a whole number from 1 to 200.*cursor: it must be the `next`/)
    })
  )

  it.scoped("refuses what the types of a submission allow and its schema does not", () =>
    Effect.gen(function* () {
      const { coordinator } = yield* fresh()
      const refusals: ReadonlyArray<readonly [string, Effect.Effect<unknown, unknown>]> = [
        ["maxOutputTokens", coordinator.submit(tenant, ask("a", { maxOutputTokens: 0 }), Option.none())],
        ["maxTokens", coordinator.submit(tenant, ask("a", { maxTokens: Number.NaN }), Option.none())],
        ["deadline", coordinator.submit(tenant, ask("a", { deadline: Number.NaN }), Option.none())],
        ["maxCostUsd", coordinator.preview(tenant, ask("a", { maxCostUsd: -1 }))],
        ["tasks", coordinator.jobs.submit(tenant, { tasks: [] }, Option.none())],
        ["maxParallel", coordinator.jobs.submit(tenant, { tasks: [ask("a")], maxParallel: 0 }, Option.none())],
        [
          "tasks.1.maxOutputTokens",
          coordinator.jobs.submit(tenant, { tasks: [ask("a"), ask("b", { maxOutputTokens: 1.5 })] }, Option.none())
        ]
      ]
      for (const [field, submitting] of refusals) {
        const refused = failureOf(yield* Effect.exit(submitting))
        assert.isTrue(refused instanceof TaskRefused, field)
        assert.deepStrictEqual(refused instanceof TaskRefused && refused.problems.map((problem) => problem.field), [
          field
        ])
      }
      assert.deepStrictEqual((yield* coordinator.list(tenant, {})).tasks, [])
    })
  )

  it.scoped("gives one key and body one task, whatever its state, and refuses the key for another body", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const key = Option.some("once")
      const all = yield* Effect.all(
        Array.from({ length: 5 }, () => coordinator.submit(tenant, ask("a", { type: "testing" }), key)),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(all.map(({ task }) => task.id)).size, 1)
      assert.strictEqual(all.filter(({ replayed }) => !replayed).length, 1)
      const id = all[0]?.task.id ?? TaskId.make("")
      yield* script.say("a", start, succeed("b"))
      yield* reaches(coordinator, id, "succeeded")
      const again = yield* coordinator.submit(tenant, { type: "testing", prompt: "a" }, key)
      assert.isTrue(again.replayed)
      assert.strictEqual(again.task.result?.text, "b")
      const conflict = yield* Effect.exit(coordinator.submit(tenant, ask("other"), key))
      assert.strictEqual(failureOf(conflict)?._tag, "Conflict")
      assert.isFalse((yield* coordinator.submit(other, ask("other"), key)).replayed)
      assert.strictEqual(script.count("a", "called"), 1)
    })
  )

  it.scoped("cancels: the running call is interrupted and the task has no other outcome", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const task = yield* submitted(coordinator, ask("long"))
      yield* script.say("long", start)
      yield* reaches(coordinator, task.id, "running")
      const cancelled = yield* coordinator.cancel(tenant, task.id)
      assert.strictEqual(cancelled.state, "cancelled")
      assert.strictEqual(script.count("long", "interrupted"), 1)
      assert.strictEqual((yield* coordinator.cancel(tenant, task.id)).state, "cancelled")
      const [attempt] = yield* coordinator.attempts(tenant, task.id)
      assert.strictEqual(attempt?.outcome, "ignored")
      assert.deepStrictEqual(
        (yield* firstEvents(coordinator, task.id, 10)).map(({ type }) => type),
        ["task.queued", "attempt.started", "attempt.ignored", "task.cancelled"]
      )
      const done = yield* submitted(coordinator, ask("short"))
      yield* script.say("short", start, succeed("ok"))
      yield* reaches(coordinator, done.id, "succeeded")
      assert.strictEqual(failureOf(yield* Effect.exit(coordinator.cancel(tenant, done.id)))?._tag, "Conflict")
    })
  )

  it.scoped("lets a cancel and a success that race have exactly one outcome", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      for (let i = 0; i < 20; i++) {
        const prompt = `race ${i}`
        const task = yield* submitted(coordinator, ask(prompt))
        yield* script.say(prompt, start)
        yield* reaches(coordinator, task.id, "running")
        const [cancel] = yield* Effect.all(
          [Effect.exit(coordinator.cancel(tenant, task.id)), script.say(prompt, succeed("won"))],
          { concurrency: "unbounded" }
        )
        const after = yield* eventually(coordinator.get(tenant, task.id), ({ state }) => state !== "running")
        assert.strictEqual(after.state, Exit.isSuccess(cancel) ? "cancelled" : "succeeded")
        assert.strictEqual(after.result === undefined, after.state === "cancelled")
        const finals = (yield* firstEvents(coordinator, task.id, 10)).filter(isFinal)
        assert.strictEqual(finals.length, 1)
      }
    })
  )

  it.scoped("retries what failed or was cancelled with a fresh budget, and nothing else", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const task = yield* submitted(coordinator, ask("again", { deadline: 60 }))
      assert.strictEqual(failureOf(yield* Effect.exit(coordinator.retry(tenant, task.id)))?._tag, "Conflict")
      const exhausted = new AttemptsExhausted({ message: "1 attempt failed", attempts: 1, last: viewOf(broken) })
      yield* script.say("again", start, failAttempt, error(exhausted))
      const failed = yield* reaches(coordinator, task.id, "failed")
      assert.strictEqual(failed.error?.type, "attempts-exhausted")
      assert.strictEqual(failed.error?.details?.failure?.status, 500)
      yield* TestClock.adjust("2 minutes")
      const retried = yield* coordinator.retry(tenant, task.id)
      assert.strictEqual(retried.state, "queued")
      assert.strictEqual(retried.error, undefined)
      assert.strictEqual(retried.deadline, 120_000 + 60_000)
      yield* script.say("again", start, succeed("second"))
      const done = yield* reaches(coordinator, task.id, "succeeded")
      assert.strictEqual(done.attempts, 2)
      assert.deepStrictEqual(
        script.seen.filter(({ what }) => what === "called").map(({ made, spent }) => ({ made, spent })),
        [
          { made: 0, spent: 0 },
          { made: 1, spent: 0 }
        ]
      )
      assert.deepStrictEqual(
        (yield* coordinator.attempts(tenant, task.id)).map(({ number, outcome }) => ({ number, outcome })),
        [
          { number: 1, outcome: "failed" },
          { number: 2, outcome: "succeeded" }
        ]
      )
      assert.strictEqual(failureOf(yield* Effect.exit(coordinator.retry(tenant, task.id)))?._tag, "Conflict")
    })
  )

  it.scoped("fails a task with the reason its delegation gave", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const reasons = [{ platform: codex, reason: "no vision" }]
      const cases = [
        [error(new NoCapablePlatform({ message: "nobody can", reasons })), "no-capable-platform"],
        [error(new CallRefused({ message: "no", platform: codex, failure: viewOf(broken) })), "refused"],
        [error(new DeadlineExceeded({ message: "late", attempts: 0 })), "deadline"],
        [noLease(86_400_001), "deadline"],
        [{ _tag: "Die" }, "internal"]
      ] as const
      for (const [step, type] of cases) {
        const task = yield* submitted(coordinator, ask(type))
        yield* script.say(type, step)
        assert.strictEqual((yield* reaches(coordinator, task.id, "failed")).error?.type, type)
      }
    })
  )

  it.scoped("parks a task nobody can start and wakes it at the earliest instant known", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const task = yield* submitted(coordinator, ask("patient"))
      yield* script.say("patient", noLease(90_000))
      const waiting = yield* reaches(coordinator, task.id, "waiting")
      assert.deepStrictEqual(waiting.waiting, { until: 90_000, why: "all busy" })
      yield* TestClock.adjust("89 seconds")
      yield* settle
      assert.strictEqual(script.count("patient", "called"), 1)
      yield* TestClock.adjust("1 second")
      yield* eventually(
        Effect.sync(() => script.count("patient", "called")),
        (count) => count === 2
      )
      // Without a known time: half a minute.
      yield* script.say("patient", noLease())
      const again = yield* reaches(coordinator, task.id, "waiting")
      assert.strictEqual(again.waiting?.until, 120_000)
      yield* TestClock.adjust("30 seconds")
      yield* script.say("patient", start, succeed("at last"))
      yield* reaches(coordinator, task.id, "succeeded")
      assert.deepStrictEqual(
        (yield* firstEvents(coordinator, task.id, 20)).map(({ type }) => type),
        ["task.queued", "task.waiting", "task.waiting", "attempt.started", "attempt.succeeded", "task.succeeded"]
      )
    })
  )

  it.scoped("wakes waiting tasks when a platform that can serve them is back", () =>
    Effect.gen(function* () {
      const { coordinator, detector, script } = yield* fresh()
      const mine = yield* submitted(coordinator, ask("for codex"))
      const others = yield* submitted(coordinator, ask("for qwen"))
      yield* script.say("for codex", noLease(3_600_000))
      yield* script.say("for qwen", noLease(3_600_000))
      yield* reaches(coordinator, mine.id, "waiting")
      yield* reaches(coordinator, others.id, "waiting")
      yield* detector.publish({ platform: codex, status: "unavailable", reasons: ["down"] })
      yield* settle
      assert.strictEqual(script.count("for codex", "called"), 1)
      yield* detector.publish({ platform: codex, status: "available", reasons: [] })
      yield* eventually(
        Effect.sync(() => script.count("for codex", "called")),
        (count) => count === 2
      )
      assert.strictEqual((yield* coordinator.get(tenant, others.id)).state, "waiting")
    })
  )

  it.scoped("fails a task whose deadline passes while it waits or is queued", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const waiting = yield* submitted(coordinator, ask("waits", { deadline: 40 }))
      yield* script.say("waits", noLease())
      yield* reaches(coordinator, waiting.id, "waiting")
      // Four live tasks fill the class; the fifth is queued only.
      for (let i = 0; i < 4; i++) yield* submitted(coordinator, ask(`live ${i}`))
      const queued = yield* submitted(coordinator, ask("queued", { deadline: 50 }))
      yield* eventually(
        Effect.sync(() => script.count("live 3", "called")),
        (count) => count === 1
      )
      yield* TestClock.adjust("20 seconds")
      yield* settle
      yield* TestClock.adjust("20 seconds")
      const late = yield* reaches(coordinator, waiting.id, "failed")
      assert.strictEqual(late.error?.type, "deadline")
      assert.strictEqual((yield* coordinator.get(tenant, queued.id)).state, "queued")
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* reaches(coordinator, queued.id, "failed")).error?.type, "deadline")
      assert.strictEqual(script.count("queued", "called"), 0)
    })
  )

  it.scoped("keeps a bounded number of tasks of each class alive, oldest first, and no class idles another", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      for (let i = 0; i < 10; i++) yield* submitted(coordinator, ask(`codex ${i}`))
      const free = yield* submitted(coordinator, ask("qwen"))
      yield* script.say("qwen", start, succeed("ok"))
      yield* reaches(coordinator, free.id, "succeeded")
      const called = () => script.seen.filter(({ what }) => what === "called").map(({ prompt }) => prompt)
      yield* settle
      assert.deepStrictEqual(
        called().filter((prompt) => prompt !== "qwen"),
        ["codex 0", "codex 1", "codex 2", "codex 3"]
      )
      yield* script.say("codex 2", start, succeed("ok"))
      yield* eventually(Effect.sync(called), (prompts) => prompts.includes("codex 4"))
      assert.notInclude(called(), "codex 5")
    })
  )

  it.scoped("streams events from any point, stored and live, and ends with the task", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const task = yield* submitted(coordinator, ask("watched"))
      const stream = yield* coordinator.events(tenant, task.id, Option.none())
      const whole = yield* Effect.fork(Stream.runCollect(stream))
      yield* settle
      yield* script.say("watched", start, failAttempt, start)
      const early = yield* firstEvents(coordinator, task.id, 4)
      const resume = early[1]?.id ?? 0
      const rest = yield* Effect.flatMap(coordinator.events(tenant, task.id, Option.some(resume)), (events) =>
        Effect.fork(Stream.runCollect(events))
      )
      yield* script.say("watched", succeed("seen"))
      const all = [...(yield* Fiber.join(whole))]
      assert.deepStrictEqual(
        all.map(({ type }) => type),
        ["task.queued", "attempt.started", "attempt.failed", "attempt.started", "attempt.succeeded", "task.succeeded"]
      )
      assert.deepStrictEqual(
        all.map(({ id }) => id),
        all.map(({ id }) => id).sort((a, b) => a - b)
      )
      assert.deepStrictEqual([...(yield* Fiber.join(rest))], all.slice(2))
      const last = all.at(-1)?.id ?? 0
      const over = yield* coordinator.events(tenant, task.id, Option.some(last))
      assert.deepStrictEqual([...(yield* Stream.runCollect(over))], [])
    })
  )

  it.scoped("goes on streaming the events of a task that is retried", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const task = yield* submitted(coordinator, ask("twice"))
      yield* coordinator.cancel(tenant, task.id)
      yield* coordinator.retry(tenant, task.id)
      const stream = yield* coordinator.events(tenant, task.id, Option.none())
      const collected = yield* Effect.fork(Stream.runCollect(stream))
      yield* settle
      yield* script.say("twice", start, succeed("ok"))
      const types = [...(yield* Fiber.join(collected))].map(({ type }) => type)
      assert.deepStrictEqual(types.slice(0, 3), ["task.queued", "task.cancelled", "task.retried"])
      assert.strictEqual(types.at(-1), "task.succeeded")
    })
  )

  it.scoped("makes ids that are the same for the same seed and sort by submission", () =>
    Effect.gen(function* () {
      const submitSome = Effect.gen(function* () {
        const { coordinator } = yield* fresh()
        const tasks = yield* Effect.forEach(["a", "b", "c"], (prompt) => submitted(coordinator, ask(prompt)))
        return tasks.map(({ id }) => id)
      }).pipe(Effect.scoped)
      const ids = yield* Effect.withRandom(submitSome, Random.make("seed"))
      assert.deepStrictEqual(yield* Effect.withRandom(submitSome, Random.make("seed")), ids)
      assert.notDeepEqual(yield* Effect.withRandom(submitSome, Random.make("another")), ids)
      assert.deepStrictEqual([...ids].sort(), ids)
      for (const id of ids) assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    })
  )
})
