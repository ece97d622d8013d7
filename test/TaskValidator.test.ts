import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema, Stream, TestClock } from "effect"
import { AgentRouter } from "../src/AgentRouter.js"
import { Benchmark } from "../src/Benchmark.js"
import { Budgets } from "../src/Budgets.js"
import { Delegation } from "../src/Delegation.js"
import { RateLimited, ServiceUnavailable } from "../src/Domain/ApiError.js"
import { estimateInputTokens } from "../src/Domain/Call.js"
import { LeaseUnavailable, type PlatformReason } from "../src/Domain/Failure.js"
import { PlatformId } from "../src/Domain/Platform.js"
import { TaskSubmission, TenantId } from "../src/Domain/Task.js"
import { type LeaseRequest, ResourceManager } from "../src/ResourceManager.js"
import { Settings } from "../src/Settings.js"
import { TaskValidator } from "../src/TaskValidator.js"
import * as Testing from "../src/Testing.js"

const team: ReadonlyArray<Testing.Script> = [
  { id: "codex", settings: { contextWindow: 100_000 } },
  { id: "qwen", settings: { contextWindow: 20_000, capabilities: ["text", "tools"] } }
]

const codex = PlatformId.make("codex")
const qwen = PlatformId.make("qwen")

const unused = Effect.dieMessage("not used by the validator")

/** A resource manager that is asked one thing only: whether a call could start in time. */
const forecasting = (forecast: ResourceManager["Type"]["forecast"]) =>
  Layer.succeed(
    ResourceManager,
    ResourceManager.of({
      forecast,
      acquire: () => unused,
      withLease: () => unused,
      outlook: () => unused,
      setOut: () => unused,
      setExhausted: () => unused,
      correct: () => unused,
      patch: () => unused,
      history: () => unused,
      note: () => unused,
      holdBytes: () => unused,
      platform: () => unused,
      view: unused,
      transitions: Stream.empty,
      room: Stream.empty,
      changes: Stream.empty
    })
  )

const layerWith = (forecast: ResourceManager["Type"]["forecast"]) =>
  TaskValidator.layer.pipe(
    Layer.provide([
      AgentRouter.layer,
      Budgets.layer,
      Layer.succeed(Delegation, { delegate: () => unused, stream: () => unused, preview: () => unused })
    ]),
    Layer.provide([Benchmark.layer, Testing.platforms(team), forecasting(forecast)]),
    Layer.provide(
      Settings.layer(
        Testing.settings(team, {
          tasks: { deadlineMs: 60_000, maxOutputTokens: 1_000 },
          absent: [{ id: PlatformId.make("gemini"), reason: "it has no API key" }]
        })
      )
    )
  )

const layer = layerWith(() => Effect.void)

const decode = Schema.decodeUnknownSync(TaskSubmission)

const validate = (wire: unknown) =>
  Effect.flatMap(TaskValidator, ({ validate }) => validate(decode(wire), TenantId.make("ann")))

/** What it is refused as; any other error is not expected. */
const refusalOf = (wire: unknown) =>
  Effect.flip(validate(wire)).pipe(
    Effect.flatMap((error) => (error._tag === "TaskRefused" ? Effect.succeed(error) : Effect.die(error)))
  )

const problemsOf = (wire: unknown) =>
  Effect.map(refusalOf(wire), ({ problems }) => problems.map(({ field, problem }) => `${field}: ${problem}`))

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
        [codex, qwen]
      )
    }).pipe(Effect.provide(layer))
  )

  it.effect("hands on what the choice goes by, a key as the tenant's own", () =>
    Effect.gen(function* () {
      const { call, requirement, route } = yield* validate({
        prompt: "Why?",
        policy: "cheapest",
        affinityKey: "session 7",
        model: "balanced",
        maxOutputTokens: 20
      })
      assert.deepInclude(requirement, {
        policy: "cheapest",
        affinityKey: "ann/session 7",
        model: "balanced",
        inputTokens: estimateInputTokens(call),
        outputTokens: 20,
        contextTokens: estimateInputTokens(call) + 20
      })
      assert.strictEqual(route.policy, "cheapest")
      assert.deepStrictEqual(yield* problemsOf({ prompt: "Why?", maxCostUsd: 0.01 }), [
        "maxCostUsd: the task may cost more than that on every platform that could serve it, or its price is unknown: raise it, or lower maxOutputTokens"
      ])
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
      assert.deepStrictEqual(route.excluded, [{ platform: qwen, reason: "it lacks vision" }])
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
          "deadline: it lies in the past: name an instant to come, or seconds from now",
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
      const refused = yield* refusalOf({ prompt: "x".repeat(500_000) })
      assert.deepStrictEqual(
        refused.problems.map(({ field }) => field),
        ["prompt"]
      )
      assert.deepStrictEqual(
        refused.reasons.map(({ platform }) => platform),
        [codex, qwen, PlatformId.make("gemini")]
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
        "requires: no platform that could serve the task has all of vision: ask for less",
        "platform: qwen cannot serve the task, though another platform could"
      ])
      assert.deepStrictEqual(yield* problemsOf({ prompt: "x", deny: ["codex", "qwen"] }), [
        "deny: it denies those that could serve the task as it stands: codex, qwen"
      ])
      const [prompt, deny, ...rest] = yield* problemsOf({ prompt: "x".repeat(200_000), deny: ["codex"] })
      assert.match(String(prompt), /^prompt: .* more than any platform that could serve it holds/)
      assert.strictEqual(deny, "deny: it denies those that could serve the task as it stands: codex")
      assert.deepStrictEqual(rest, [])
    }).pipe(Effect.provide(layer))
  )

  it.effect("asks whether the call could start before its deadline", () =>
    Effect.suspend(() => {
      const asked: Array<LeaseRequest> = []
      const note = (request: LeaseRequest) =>
        Effect.sync(() => {
          asked.push(request)
        })
      return Effect.gen(function* () {
        yield* TestClock.setTime(1_000_000)
        const { call, route } = yield* validate({ prompt: "Why?", priority: "LOW", type: "testing", deadline: 90 })
        assert.deepStrictEqual(asked, [
          {
            candidates: route.candidates,
            tokens: { input: estimateInputTokens(call), maxOutput: 1_000 },
            type: "testing",
            priority: "LOW",
            tenant: TenantId.make("ann"),
            maxWaitMs: 90_000
          }
        ])
      }).pipe(Effect.provide(layerWith(note)))
    })
  )

  const from = Date.parse("2026-11-22T12:00:00Z")

  /** What a task is refused as where no lease can be had for these reasons. */
  const outcomeOf = (reasons: ReadonlyArray<PlatformReason>, earliestAt?: number) =>
    TestClock.setTime(from).pipe(
      Effect.zipRight(validate({ prompt: "Why?" })),
      Effect.either,
      Effect.provide(
        layerWith(() => Effect.fail(new LeaseUnavailable({ message: "nobody can start it", reasons, earliestAt })))
      ),
      Effect.map((either) => (either._tag === "Left" ? either.left : undefined))
    )

  it.effect("refuses as a matter of limits what no limit lets start in time, until the first that would", () =>
    Effect.gen(function* () {
      const reasons = [
        { platform: codex, reason: "it is used up", kind: "limit" as const, earliestAt: from + 120_000 },
        { platform: qwen, reason: "its quota is used up", kind: "limit" as const, earliestAt: from + 90_500 }
      ]
      const refused = yield* outcomeOf(reasons, from + 90_500)
      assert.instanceOf(refused, RateLimited)
      assert.include(refused, { message: "nobody can start it", retryAfterMs: 90_500 })
      assert.deepStrictEqual(refused._tag === "RateLimited" ? refused.reasons : [], reasons)
    })
  )

  it.effect("refuses as unavailable where it is not limits alone", () =>
    Effect.gen(function* () {
      const limit = { platform: codex, reason: "it is used up", kind: "limit" as const, earliestAt: from + 120_000 }
      const rests = {
        platform: qwen,
        reason: "its breaker is open",
        kind: "failure" as const,
        earliestAt: from + 70_000
      }
      const refused = yield* outcomeOf([limit, rests], from + 70_000)
      assert.instanceOf(refused, ServiceUnavailable)
      assert.include(refused, { message: "nobody can start it", retryAfterMs: 70_000 })
      assert.deepStrictEqual(refused._tag === "ServiceUnavailable" ? refused.reasons : [], [limit, rests])
      // Calls that go first take all there is, nobody knows until when.
      const behind = { platform: qwen, reason: "calls that go first wait for it", kind: "limit" as const }
      const crowded = yield* outcomeOf([limit, behind])
      assert.instanceOf(crowded, ServiceUnavailable)
      assert.isUndefined(crowded._tag === "ServiceUnavailable" ? crowded.retryAfterMs : 0)
    })
  )

  it.effect("takes in what may wait for a platform that is out for nobody knows how long", () =>
    Effect.gen(function* () {
      const limit = { platform: codex, reason: "it is used up", kind: "limit" as const, earliestAt: from + 120_000 }
      const out = { platform: qwen, reason: "its key is refused", kind: "out" as const }
      assert.isUndefined(yield* outcomeOf([limit, out]))
      assert.isUndefined(yield* outcomeOf([out]))
    })
  )
})
