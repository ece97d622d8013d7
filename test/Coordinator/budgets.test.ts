import type { SqlClient } from "@effect/sql/SqlClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, TestClock } from "effect"
import { Budgets } from "../../src/Budgets.js"
import { Coordinator } from "../../src/Coordinator.js"
import { PlatformFailure } from "../../src/Domain/Failure.js"
import type { JobSubmission } from "../../src/Domain/Job.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { type TaskId, type TaskSubmission, TenantId } from "../../src/Domain/Task.js"
import type { SettingsOptions } from "../../src/Settings.js"
import * as Testing from "../../src/Testing.js"

const { advanceUntilIdle, answer, fail, failures, hang, settled } = Testing

/** Nobody knows how far the answer had come. */
const timeout: Testing.Failing = (platform, model) =>
  new PlatformFailure({ platform, model, reason: "timeout", message: "nothing came" })

const tenant = TenantId.make("local")
const dayMs = 86_400_000
const midnight = 20_001 * dayMs
const untilMidnightMs = 10 * 60_000

/** A dollar for a million tokens in and a dollar for a million out, so that a token is a millionth of a dollar. */
const priced = (id: string): Testing.Script["settings"] => ({
  prices: { [`${id}-model`]: { input: 1, output: 1, asOf: "2026-11-01" } }
})

const usage = (tokens: number) => ({
  inputTokens: tokens - 1,
  cachedInputTokens: 0,
  outputTokens: 1,
  reasoningTokens: 0
})

const run = <A, E>(
  scripts: ReadonlyArray<Testing.Script>,
  options: Omit<SettingsOptions, "platforms">,
  body: Effect.Effect<A, E, Coordinator | Budgets | SqlClient | Testing.Received>
) =>
  // the clock is set before anything periodic looks at it
  Effect.zipRight(TestClock.setTime(midnight - untilMidnightMs), Effect.provide(body, Testing.layer(scripts, options)))

/** Input of about 10 tokens, an answer of 1,000 at most: an attempt may use 1,000 and a few. */
const submit = (rest: Partial<TaskSubmission> = {}) =>
  Effect.flatMap(Coordinator, (coordinator) =>
    Effect.map(
      coordinator.submit(tenant, { prompt: "Why?", maxOutputTokens: 1_000, ...rest }, Option.none()),
      ({ task }) => task.id
    )
  )

const get = (id: TaskId) => Effect.flatMap(Coordinator, (coordinator) => coordinator.get(tenant, id))

const view = Effect.flatMap(Budgets, (budgets) => budgets.view(tenant))

const received = Effect.flatMap(Testing.Received, ({ calls }) => calls)

describe("a task's budget", () => {
  it.scoped("is that of all its attempts together", () =>
    run(
      [{ id: "codex", settings: priced("codex"), attempts: [fail(timeout)] }],
      {},
      Effect.gen(function* () {
        // two attempts of 1,012 tokens, each of which may have been used whole
        const id = yield* submit({ maxTokens: 2_500 })
        yield* advanceUntilIdle()
        const { attempts, error, spent } = yield* get(id)
        assert.strictEqual(error?.type, "budget")
        assert.match(error?.message ?? "", /codex: of the task's budget of 2,500 tokens, 2,024 tokens are used/)
        assert.strictEqual(attempts, 2)
        assert.deepStrictEqual(spent, { costUsd: 0.0020225, tokens: 2_024 })
      })
    )
  )

  it.scoped("is not touched by attempts that were refused", () =>
    run(
      [
        {
          id: "codex",
          settings: priced("codex"),
          attempts: [fail(failures.platform()), fail(failures.quota()), answer("Because.", { usage: usage(700) })]
        }
      ],
      {},
      Effect.gen(function* () {
        const id = yield* submit({ maxCostUsd: 0.0011 })
        yield* advanceUntilIdle()
        const { attempts, spent, state } = yield* get(id)
        assert.deepStrictEqual(
          { attempts, spent, state },
          {
            attempts: 3,
            spent: { costUsd: 0.0007, tokens: 700 },
            state: "succeeded"
          }
        )
      })
    )
  )

  it.scoped("that no attempt can keep to is refused, with each platform's reason", () =>
    run(
      [{ id: "codex", settings: priced("codex") }],
      {},
      Effect.gen(function* () {
        const refused = yield* Effect.flip(submit({ maxTokens: 900 }))
        assert.strictEqual(refused._tag, "TaskRefused")
        if (refused._tag !== "TaskRefused") return
        assert.deepStrictEqual(refused.problems, [
          { field: "maxTokens", problem: "with the longest answer it may have, the task may use 1012 tokens" }
        ])
        assert.deepStrictEqual(refused.reasons, [
          {
            platform: PlatformId.make("codex"),
            reason: "the call may use 1,012 tokens, more than the 900 it may use at most"
          }
        ])
      })
    )
  )
})

describe("a job's budget", () => {
  it.scoped("is that of all its tasks together", () =>
    run(
      [{ id: "codex", settings: priced("codex"), attempts: [answer("Because.", { usage: usage(900) })] }],
      {},
      Effect.gen(function* () {
        const { jobs } = yield* Coordinator
        const task = { prompt: "Why?", maxOutputTokens: 1_000 }
        const { job } = yield* jobs.submit(
          tenant,
          { mode: "parallel", onFailure: "continue", maxTokens: 3_000, tasks: [task, task, task, task] },
          Option.none()
        )
        yield* advanceUntilIdle()
        const { tasks } = yield* jobs.get(tenant, job.id, {})
        assert.deepStrictEqual(
          tasks.map(({ error, state }) => error?.type ?? state).sort(),
          ["budget", "succeeded", "succeeded", "succeeded"].slice(0, 4)
        )
      })
    )
  )

  it.scoped("holds for what is tried for one of its tasks as well", () =>
    run(
      [
        {
          id: "codex",
          settings: { ...priced("codex"), classes: { best: "large" } },
          attempts: ({ model }) => (model === "large" ? answer("Because.", { usage: usage(900) }) : fail(timeout))
        }
      ],
      { tasks: { maxAttempts: 1 }, alternatives: { order: ["class"] } },
      Effect.gen(function* () {
        const { jobs } = yield* Coordinator
        const task = { prompt: "Why?", priority: "HIGH", maxOutputTokens: 1_000 } as const
        const ask = (maxTokens: number) =>
          Effect.gen(function* () {
            const { job } = yield* jobs.submit(tenant, { maxTokens, tasks: [task] }, Option.none())
            yield* advanceUntilIdle()
            return yield* jobs.get(tenant, job.id, {})
          })
        // the attempt that timed out counts as 1,012 tokens, and the other model may use as many
        assert.strictEqual((yield* ask(1_500)).state, "failed")
        assert.strictEqual((yield* ask(2_100)).state, "succeeded")
      })
    )
  )

  it.scoped("that one of its tasks can never keep to is refused, and named as the job's", () =>
    run(
      [{ id: "codex", settings: priced("codex") }],
      {},
      Effect.gen(function* () {
        const { jobs } = yield* Coordinator
        const problemsOf = (submission: JobSubmission) =>
          Effect.map(Effect.flip(jobs.submit(tenant, submission, Option.none())), (refused) => {
            assert(refused._tag === "TaskRefused")
            return refused.problems.map(({ field, problem }) => `${field}: ${problem}`)
          })
        const task = { prompt: "Why?", maxOutputTokens: 1_000 }
        const [cost, ...others] = yield* problemsOf({ maxCostUsd: 0.0001, tasks: [task, task, task] })
        assert.match(String(cost), /^maxCostUsd: the task may cost more .* \(of tasks\.0 and 2 others\)$/)
        assert.deepStrictEqual(others, [])

        const [tokens, own, ...rest] = yield* problemsOf({
          maxTokens: 20,
          tasks: [
            { ...task, maxTokens: 10_000 },
            { ...task, maxTokens: 10 }
          ]
        })
        assert.match(String(tokens), /^maxTokens: with the longest answer .* \(of tasks\.0\)$/)
        assert.match(String(own), /^tasks\.1\.maxTokens: with the longest answer/)
        assert.deepStrictEqual(rest, [])

        const past = "1969-12-31T23:59:59Z"
        const late = "it lies in the past: name an instant to come, or seconds from now"
        assert.deepStrictEqual(
          yield* problemsOf({ deadline: past, tasks: [task, { ...task, deadline: 60 }, { ...task, deadline: past }] }),
          [`deadline: ${late} (of tasks.0)`, `tasks.2.deadline: ${late}`]
        )
      })
    )
  )
})

describe("a platform's budget of the day", () => {
  it.scoped("sends what it cannot take to others, and what only it could take to the next day", () =>
    run(
      [
        { id: "codex", settings: priced("codex"), attempts: [answer("Yes.", { usage: usage(900) })] },
        { id: "gemini", settings: priced("gemini"), attempts: [answer("No.", { usage: usage(900) })] }
      ],
      { budgets: { platforms: { codex: { tokensPerDay: 1_500 } } } },
      Effect.gen(function* () {
        const first = yield* submit({ platform: PlatformId.make("codex") })
        yield* settled
        assert.strictEqual((yield* get(first)).state, "succeeded")
        const elsewhere = yield* submit()
        const waits = yield* submit({ platform: PlatformId.make("codex") })
        yield* settled
        assert.strictEqual((yield* get(elsewhere)).result?.platform, PlatformId.make("gemini"))
        const { waiting } = yield* get(waits)
        assert.strictEqual(waiting?.until, midnight)
        assert.match(waiting?.why ?? "", /codex: of its budget of the day of 1,500 tokens, 900 tokens are used/)
        const { elapsedMs } = yield* advanceUntilIdle()
        assert.strictEqual(elapsedMs, untilMidnightMs)
        assert.strictEqual((yield* get(waits)).state, "succeeded")
        const { platforms } = yield* view
        assert.deepStrictEqual(platforms[0]?.tokens, { limit: 1_500, spent: 900, reserved: 0 })
      })
    )
  )

  it.scoped("in USD excludes what has no price, and one in tokens does not", () =>
    run(
      [{ id: "codex" }, { id: "gemini" }],
      { budgets: { platforms: { codex: { usdPerDay: 5 }, gemini: { tokensPerDay: 5_000 } } } },
      Effect.gen(function* () {
        const refused = yield* Effect.flip(submit({ platform: PlatformId.make("codex") }))
        assert.strictEqual(refused._tag, "TaskRefused")
        assert.match(refused.message, /codex: the model has no price in the settings/)
        const ids = yield* Effect.replicateEffect(submit(), 4)
        yield* advanceUntilIdle()
        for (const id of ids) assert.strictEqual((yield* get(id)).result?.platform, PlatformId.make("gemini"))
      })
    )
  )

  it.scoped("is never exceeded by tasks that start at once, and used to the end", () =>
    run(
      [
        {
          id: "codex",
          settings: { ...priced("codex"), limits: { maxConcurrent: 50 } },
          attempts: [answer("Because.", { afterMs: 1_000, usage: usage(100) })]
        }
      ],
      { budgets: { platforms: { codex: { tokensPerDay: 3_500 } } } },
      Effect.gen(function* () {
        const ids = yield* Effect.replicateEffect(submit(), 20)
        yield* settled
        assert.deepStrictEqual((yield* view).platforms[0]?.tokens, { limit: 3_500, spent: 0, reserved: 3_036 })
        assert.lengthOf(yield* received, 3)
        // their real use leaves room for others, which need not wait for midnight
        const { elapsedMs } = yield* advanceUntilIdle()
        assert.isAtMost(elapsedMs, 60_000)
        for (const id of ids) assert.strictEqual((yield* get(id)).state, "succeeded")
        assert.deepStrictEqual((yield* view).platforms[0]?.tokens, { limit: 3_500, spent: 2_000, reserved: 0 })
      })
    )
  )
})

describe("an API key's budget of the day", () => {
  it.scoped("has tasks wait for the next day, and refuses those that cannot", () =>
    run(
      [{ id: "codex", settings: priced("codex"), attempts: [answer("Because.", { usage: usage(900) })] }],
      { budgets: { perKey: { usdPerDay: 0.0015 } } },
      Effect.gen(function* () {
        yield* submit()
        yield* settled
        const refused = yield* Effect.flip(submit({ deadline: 300 }))
        assert.strictEqual(refused._tag, "RateLimited")
        if (refused._tag === "RateLimited") assert.strictEqual(refused.retryAfterMs, untilMidnightMs)
        const waits = yield* submit()
        const { elapsedMs } = yield* advanceUntilIdle()
        assert.strictEqual(elapsedMs, untilMidnightMs)
        assert.strictEqual((yield* get(waits)).state, "succeeded")
        assert.deepStrictEqual((yield* view).key, {
          tenant,
          usd: { limit: 0.0015, spent: 0.0009, reserved: 0 },
          tokens: { spent: 900, reserved: 0 }
        })
      })
    )
  )

  it.scoped("counts a cancelled attempt as what it may have used", () =>
    run(
      [{ id: "codex", settings: priced("codex"), attempts: [hang] }],
      {},
      Effect.gen(function* () {
        const coordinator = yield* Coordinator
        const id = yield* submit()
        yield* settled
        assert.deepStrictEqual((yield* view).key.tokens, { spent: 0, reserved: 1_012 })
        yield* coordinator.cancel(tenant, id)
        yield* settled
        assert.deepStrictEqual((yield* view).key.tokens, { spent: 1_012, reserved: 0 })
        assert.deepStrictEqual((yield* get(id)).spent, { costUsd: 0.00101125, tokens: 1_012 })
      })
    )
  )
})

describe("a hedge", () => {
  it.scoped("reserves what it may use as well", () =>
    run(
      [
        { id: "codex", settings: { ...priced("codex"), weight: 100 }, attempts: [answer("Yes.", { afterMs: 60_000 })] },
        { id: "gemini", settings: priced("gemini"), attempts: [answer("No.", { afterMs: 1_000, usage: usage(10) })] }
      ],
      { routing: { hedging: true }, budgets: { perKey: { tokensPerDay: 100_000 } } },
      Effect.gen(function* () {
        const id = yield* submit({ priority: "HIGH" })
        yield* advanceUntilIdle()
        const { state } = yield* get(id)
        assert.strictEqual(state, "succeeded")
        assert.strictEqual((yield* view).key.tokens.reserved, 0)
      })
    )
  )
})
