import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option, Schema, Stream } from "effect"
import { Coordinator } from "../../src/Coordinator.js"
import { TenantId } from "../../src/Domain/Task.js"
import type { SettingsOptions } from "../../src/Settings.js"
import * as Testing from "../../src/Testing.js"

const local = TenantId.make("local")

/** Finds every prompt that says `nonsense` invalid. */
const checking: Testing.Script["attempts"] = ({ call }) =>
  call.system?.startsWith("You check tasks") === true
    ? Testing.answer(
        JSON.stringify(call.messages.at(-1)?.content).includes("nonsense")
          ? '{"valid": false, "problems": ["It has no meaning."], "suggestion": "Say what is to be done."}'
          : '{"valid": true}'
      )
    : Testing.answer("done")

const layer = (validation: NonNullable<SettingsOptions["validation"]> = {}) =>
  Testing.MemoryHttp.layer().pipe(
    Layer.provideMerge(
      Testing.layer(
        [
          {
            id: "codex",
            settings: { contextWindow: 20_000, prices: { "codex-model": { input: 5, output: 9, asOf: "2026-11-01" } } }
          },
          { id: "qwen", attempts: checking, settings: { contextWindow: 20_000, capabilities: ["text", "json"] } }
        ],
        { validation: { enabled: true, ...validation } }
      )
    )
  )

const checks = Effect.flatMap(Testing.Received, ({ calls }) =>
  Effect.map(calls, (all) => all.filter(({ call }) => call.system?.startsWith("You check tasks")).length)
)

const Refusal = Schema.Struct({
  error: Schema.Struct({
    type: Schema.String,
    message: Schema.String,
    details: Schema.Struct({
      problems: Schema.Array(Schema.Struct({ field: Schema.String, problem: Schema.String })),
      suggestion: Schema.optional(Schema.String)
    })
  })
})

const post = (body: unknown) =>
  Effect.gen(function* () {
    const http = yield* Testing.MemoryHttp
    const response = yield* Effect.promise(() =>
      http.fetch("/v1/tasks", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body)
      })
    )
    return { status: response.status, body: yield* Effect.promise((): Promise<unknown> => response.json()) }
  })

describe("the check of tasks over HTTP", () => {
  it.effect("is stored with the task, told in its events, and not made again for a replay", () =>
    Effect.gen(function* () {
      const { client } = yield* Testing.MemoryHttp
      const payload = { prompt: "Write a haiku", type: "documentation" } as const
      const headers = { "idempotency-key": "one" }
      const task = yield* client.tasks.submit({ payload, headers })
      assert.strictEqual(task.validation?.status, "valid")
      const again = yield* client.tasks.submit({ payload, headers })
      assert.strictEqual(again.id, task.id)
      assert.strictEqual(again.validation?.status, "valid")
      assert.strictEqual(yield* checks, 1)
      yield* Testing.advanceUntilIdle()
      const shown = yield* client.tasks.get({ path: { id: task.id } })
      assert.deepStrictEqual(shown.validation, task.validation)
      const coordinator = yield* Coordinator
      const events = yield* Effect.flatMap(coordinator.events(local, task.id, Option.none()), Stream.runCollect)
      assert.deepStrictEqual([...events].map(({ type }) => type).slice(0, 2), ["task.validated", "task.queued"])
    }).pipe(Effect.provide(layer()))
  )

  it.effect("refuses with 422, its problems and the suggestion, in a dry run too", () =>
    Effect.gen(function* () {
      const { client } = yield* Testing.MemoryHttp
      const { status, body } = yield* post({ prompt: "nonsense" })
      assert.strictEqual(status, 422)
      const { details } = (yield* Schema.decodeUnknown(Refusal)(body)).error
      assert.deepStrictEqual(details, {
        problems: [{ field: "prompt", problem: "It has no meaning." }],
        suggestion: "Say what is to be done."
      })
      const refused = yield* Effect.flip(client.tasks.preview({ prompt: "nonsense" }))
      assert.deepInclude(refused, { _tag: "TaskRefused", suggestion: "Say what is to be done." })
      assert.lengthOf((yield* client.tasks.list({ urlParams: {} })).tasks, 0)
      const preview = yield* client.tasks.preview({ prompt: "Write a haiku" })
      assert.strictEqual(preview.validation?.status, "valid")
      assert.strictEqual(yield* checks, 2)
    }).pipe(Effect.provide(layer()))
  )

  it.effect("takes an invalid task where it is only to be noted", () =>
    Effect.gen(function* () {
      const { client } = yield* Testing.MemoryHttp
      const task = yield* client.tasks.submit({ payload: { prompt: "nonsense" }, headers: {} })
      assert.deepInclude(task.validation, { status: "invalid", suggestion: "Say what is to be done." })
      const preview = yield* client.tasks.preview({ prompt: "nonsense" })
      assert.strictEqual(preview.validation?.status, "invalid")
    }).pipe(Effect.provide(layer({ onInvalid: "note" })))
  )

  it.effect("checks each line of many, equal ones once", () =>
    Effect.gen(function* () {
      const { client } = yield* Testing.MemoryHttp
      const lines = ["Write a haiku", "nonsense", "Write a haiku", "Write an ode"].map((prompt) => ({ prompt }))
      const verdicts = [...(yield* Stream.runCollect(client.tasks.submitAll(Stream.fromIterable(lines))))]
      assert.deepStrictEqual(
        verdicts.map((verdict) => ("error" in verdict ? verdict.error.type : "accepted")),
        ["accepted", "task-refused", "accepted", "accepted"]
      )
      assert.strictEqual(yield* checks, 3)
      const { id } = yield* client.jobs.submit({
        payload: { tasks: [{ prompt: "Write an ode" }, { prompt: "Write a song" }] },
        headers: {}
      })
      yield* Testing.advanceUntilIdle()
      const job = yield* client.jobs.get({ path: { id }, urlParams: {} })
      for (const task of job.tasks) {
        assert.strictEqual((yield* client.tasks.get({ path: { id: task.id } })).validation?.status, "valid")
      }
      assert.strictEqual(yield* checks, 4)
    }).pipe(Effect.provide(layer()))
  )
})

describe("what is refused without it", () => {
  for (const [what, body, status, field, says] of [
    ["an empty prompt", { prompt: "  " }, 422, "prompt", /it is empty/],
    ["no prompt", {}, 400, "prompt", /missing/],
    ["an unknown type", { prompt: "x", type: "poetry" }, 400, "type", /implementation/],
    ["an unknown capability", { prompt: "x", requires: ["magic"] }, 400, "requires.0", /reasoning/],
    ["a capability nobody has", { prompt: "x", requires: ["vision"], platform: "qwen" }, 422, "requires", /vision/],
    ["too large a task", { prompt: "word ".repeat(40_000) }, 422, "prompt", /more than any platform .* holds/],
    ["a deadline in the past", { prompt: "x", deadline: "1969-01-01T00:00:00Z" }, 422, "deadline", /past/],
    ["a budget nothing is cheap enough for", { prompt: "x", maxCostUsd: 0.000001 }, 422, "maxCostUsd", /cost more/],
    ["a budget of nothing", { prompt: "x", maxCostUsd: 0 }, 400, "maxCostUsd", /positive|greater/],
    ["an unknown field", { prompt: "x", prioritty: "HIGH" }, 400, "prioritty", /./]
  ] as const) {
    it.effect(`says so of ${what}`, () =>
      Effect.gen(function* () {
        const refused = yield* post(body)
        assert.strictEqual(refused.status, status)
        const { problems } = (yield* Schema.decodeUnknown(Refusal)(refused.body)).error.details
        const problem = problems.find((one) => one.field === field)
        assert.match(problem?.problem ?? JSON.stringify(refused.body), says)
        assert.strictEqual(yield* checks, 0)
      }).pipe(Effect.provide(layer()))
    )
  }
})
