import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema, TestClock } from "effect"
import { AgentRouter } from "../src/AgentRouter.js"
import { estimateInputTokens } from "../src/Domain/Call.js"
import { PlatformId } from "../src/Domain/Platform.js"
import { TaskSubmission } from "../src/Domain/Task.js"
import { Settings } from "../src/Settings.js"
import { TaskValidator } from "../src/TaskValidator.js"
import * as Testing from "../src/Testing.js"

const team: ReadonlyArray<Testing.Script> = [
  { id: "codex", settings: { contextWindow: 100_000 } },
  { id: "qwen", settings: { contextWindow: 20_000, capabilities: ["text", "tools"] } }
]

const layer = TaskValidator.layer.pipe(
  Layer.provide(AgentRouter.layer),
  Layer.provide(Testing.platforms(team)),
  Layer.provide(
    Settings.layer(
      Testing.settings(team, {
        tasks: { deadlineMs: 60_000, maxOutputTokens: 1_000 },
        absent: [{ id: PlatformId.make("gemini"), reason: "it has no API key" }]
      })
    )
  )
)

const decode = Schema.decodeUnknownSync(TaskSubmission)

const validate = (wire: unknown) => Effect.flatMap(TaskValidator, ({ validate }) => validate(decode(wire)))

const problemsOf = (wire: unknown) =>
  Effect.map(Effect.flip(validate(wire)), ({ problems }) =>
    problems.map(({ field, problem }) => `${field}: ${problem}`)
  )

const image = { type: "image", source: { kind: "base64", mediaType: "image/png", data: "AAAA" } }

describe("TaskValidator", () => {
  it.effect("fills in what a submission leaves out", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(1_000_000)
      const task = yield* validate({ prompt: "Why?" })
      assert.strictEqual(task.type, "question-answering")
      assert.strictEqual(task.priority, "MEDIUM")
      assert.strictEqual(task.deadline, 1_060_000)
      assert.strictEqual(task.call.maxOutputTokens, 1_000)
      assert.deepStrictEqual(task.call.messages, [{ role: "user", content: "Why?" }])
      assert.deepStrictEqual(task.requirement.capabilities, [])
      assert.strictEqual(task.requirement.contextTokens, estimateInputTokens(task.call) + 1_000)
      assert.deepStrictEqual(
        task.route.candidates.map(({ platform }) => platform),
        [PlatformId.make("codex"), PlatformId.make("qwen")]
      )
    }).pipe(Effect.provide(layer))
  )

  it.effect("makes the call of the submission, its prompt last", () =>
    Effect.gen(function* () {
      const tools = [{ name: "look", parameters: { type: "object" } }]
      const { call, requirement } = yield* validate({
        type: "testing",
        prompt: "And this?",
        system: "Be brief.",
        context: [
          { role: "user", content: "Hello" },
          { role: "assistant", content: "Hi" }
        ],
        maxOutputTokens: 50,
        tools,
        responseFormat: { type: "json" },
        requires: ["code"]
      })
      assert.deepStrictEqual(call, {
        system: "Be brief.",
        messages: [
          { role: "user", content: "Hello" },
          { role: "assistant", content: "Hi" },
          { role: "user", content: "And this?" }
        ],
        maxOutputTokens: 50,
        responseFormat: { type: "json" },
        tools
      })
      assert.sameMembers([...requirement.capabilities], ["code", "tools", "json"])
    }).pipe(Effect.provide(layer))
  )

  it.effect("sees from the call that it needs vision", () =>
    Effect.gen(function* () {
      const { requirement, route } = yield* validate({
        prompt: "What is it?",
        context: [{ role: "user", content: [image] }],
        requires: ["vision"],
        tools: []
      })
      assert.deepStrictEqual(requirement.capabilities, ["vision"])
      assert.deepStrictEqual(route.excluded, [{ platform: PlatformId.make("qwen"), reason: "it lacks vision" }])
    }).pipe(Effect.provide(layer))
  )

  it.effect("reads a deadline as an instant or as seconds from now", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(Date.parse("2026-11-22T12:00:00Z"))
      const deadlineOf = (deadline: unknown) =>
        Effect.map(validate({ prompt: "x", deadline }), (task) => new Date(task.deadline).toISOString())
      assert.strictEqual(
        yield* deadlineOf("2026-11-22T13:00:00+01:00").pipe(
          Effect.flip,
          Effect.map((e) => e._tag)
        ),
        "TaskRefused"
      )
      assert.strictEqual(yield* deadlineOf("2026-11-22T14:00:00+01:00"), "2026-11-22T13:00:00.000Z")
      assert.strictEqual(yield* deadlineOf(90), "2026-11-22T12:01:30.000Z")
      assert.strictEqual(yield* deadlineOf(0.5), "2026-11-22T12:00:00.500Z")
    }).pipe(Effect.provide(layer))
  )

  it("refuses at the schema what is no instant", () => {
    for (const deadline of ["tomorrow", "2026-11-22", "2026-11-22T12:00:00", "2026-13-22T12:00:00Z", 0, -1]) {
      assert.throws(() => decode({ prompt: "x", deadline }))
    }
  })

  it.effect("names every field that is wrong at once", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(Date.parse("2026-11-22T12:00:00Z"))
      assert.deepStrictEqual(
        yield* problemsOf({
          prompt: " \n ",
          deadline: "2026-11-22T11:59:59Z",
          platform: "nobody",
          deny: ["gemini", "nobody", "typo"]
        }),
        [
          "prompt: it is empty",
          "deadline: it lies in the past",
          "platform: no platform nobody is configured; there are: codex, qwen",
          "deny.1: no platform nobody is configured; there are: codex, qwen",
          "deny.2: no platform typo is configured; there are: codex, qwen",
          "deny: it denies nobody, the one platform the task asks for"
        ]
      )
      assert.deepStrictEqual(yield* problemsOf({ prompt: "x", platform: "gemini", deadline: 1e300 }), [
        "deadline: it lies more than ten years ahead",
        "platform: the platform gemini is left out: it has no API key"
      ])
    }).pipe(Effect.provide(layer))
  )

  it.effect("refuses what is too large for everybody capable, with each platform's reason", () =>
    Effect.gen(function* () {
      const refused = yield* Effect.flip(validate({ prompt: "x".repeat(500_000) }))
      assert.deepStrictEqual(
        refused.problems.map(({ field }) => field),
        ["prompt"]
      )
      assert.deepStrictEqual(
        refused.reasons.map(({ platform }) => platform),
        [PlatformId.make("codex"), PlatformId.make("qwen"), PlatformId.make("gemini")]
      )
      assert.include(refused.message, "codex: its context window of 100,000 tokens is smaller than")
    }).pipe(Effect.provide(layer))
  )

  it.effect("names the field that leaves nobody", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* problemsOf({ prompt: "x", model: "unheard-of" }), [
        "model: no platform that could serve the task has the model unheard-of"
      ])
      assert.deepStrictEqual(yield* problemsOf({ prompt: "x", platform: "qwen", requires: ["vision"] }), [
        "requires: no platform that could serve the task has all of vision",
        "platform: qwen cannot serve the task, though another platform could"
      ])
      assert.deepStrictEqual(yield* problemsOf({ prompt: "x", deny: ["codex", "qwen"] }), [
        "deny: every platform that could serve the task is denied"
      ])
    }).pipe(Effect.provide(layer))
  )
})
