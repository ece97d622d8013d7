import { NodeFileSystem, NodeHttpClient } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, ConfigProvider, Effect, Fiber, Layer, Option, Stream, TestClock } from "effect"
import { type Call, type Completion, type Delta, estimateInputTokens } from "../../src/Domain/Call.js"
import type { AttemptFailure } from "../../src/Domain/Failure.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { type PlatformClient, Platforms } from "../../src/Platforms.js"
import { Settings } from "../../src/Settings.js"
import type { ErrorShape, Fault, SimulatedPlatform } from "../../src/Simulator.js"
import { Simulator } from "../../src/Simulator.js"
import { type FourIds, ids, models, simulator } from "./support.js"

const further = "my-lab"

/** A simulator, and the service's own clients pointed at it. */
const team = (
  changes: Partial<Record<FourIds, Partial<SimulatedPlatform>>> = {},
  keys: Partial<Record<FourIds, string>> = {}
) =>
  Effect.gen(function* () {
    const running = yield* simulator(changes)
    const lab = yield* Simulator.make({
      seed: 1,
      platforms: { [further]: { ...Simulator.instant.platforms.qwen, dialect: "openai", models: ["lab-1"] } }
    })
    const settings = Settings.make({
      platforms: [
        ...ids.map((id) =>
          Settings.platformDefaults(id, {
            apiKey: keys[id] ?? running.apiKeys[id],
            baseUrl: running.baseUrls[id],
            model: models[id]
          })
        ),
        Settings.platformDefaults(further, {
          apiKey: "lab",
          baseUrl: lab.baseUrls[further] ?? "",
          model: "lab-1"
        })
      ]
    })
    const context = yield* Layer.build(
      Platforms.layer.pipe(Layer.provide(NodeHttpClient.layerUndici), Layer.provide(Settings.layer(settings)))
    )
    const platforms = yield* Platforms.pipe(Effect.provide(context))
    const client = (id: FourIds): PlatformClient => Option.getOrThrow(platforms.get(PlatformId.make(id)))
    return { running, client, all: platforms.all }
  })

const say = (prompt: string, rest: Partial<Call> = {}): Call => ({
  messages: [{ role: "user", content: prompt }],
  maxOutputTokens: 500,
  ...rest
})

const collect = (client: PlatformClient, call: Call): Effect.Effect<ReadonlyArray<Delta>, AttemptFailure> =>
  Stream.runCollect(client.stream(client.settings.model, call)).pipe(Effect.map(Chunk.toReadonlyArray))

/** The deltas of a stream as the whole answer they make. */
const joined = (deltas: ReadonlyArray<Delta>): Completion | undefined => {
  const finish = deltas.at(-1)
  if (deltas[0]?._tag !== "Start" || finish?._tag !== "Finish") return undefined
  return {
    text: deltas.map((delta) => (delta._tag === "Text" ? delta.text : "")).join(""),
    toolCalls: deltas.flatMap((delta) => (delta._tag === "ToolCall" ? [delta.toolCall] : [])),
    finishReason: finish.finishReason,
    model: finish.model,
    usage: finish.usage
  }
}

const weather = {
  name: "get_weather",
  description: "The weather of a place",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
}

const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

describe("the service's clients and the simulator agree", () => {
  it.scoped("on whole answers, streams, lists of models and checks", () =>
    Effect.gen(function* () {
      const { all } = yield* team({
        codex: { reasoningTokens: { median: 20, sigma: 0.2 } },
        gemini: { reasoningTokens: { median: 20, sigma: 0.2 } }
      })
      expect(all).toHaveLength(5)
      for (const client of all) {
        const { id } = client
        const model = client.settings.model
        const call = say("Write a haiku about queues", { system: "Be brief", temperature: 0.2 })
        const completion = yield* client.complete(model, call)
        expect(completion.text, id).toContain(`Simulated answer of ${id} (${model}) to: Write a haiku about queues`)
        expect(completion, id).toMatchObject({ finishReason: "stop", model, toolCalls: [] })
        expect(completion.usage.inputTokens, id).toBeGreaterThan(5)
        expect(completion.usage.outputTokens, id).toBeGreaterThan(completion.usage.reasoningTokens)
        expect(completion.usage.reasoningTokens > 0, id).toBe(["codex", "gemini"].includes(id))
        const deltas = yield* collect(client, call)
        expect(joined(deltas), id).toEqual(completion)
        expect(deltas.filter((delta) => delta._tag === "Text").length, id).toBeGreaterThan(2)
        expect(yield* client.listModels, id).toContain(model)
        expect((yield* client.check).readings, id).toEqual([])
      }
    })
  )

  it.scoped("on tools, JSON, images, earlier turns and cut answers", () =>
    Effect.gen(function* () {
      const { all } = yield* team({ codex: { answerTokens: { median: 400, sigma: 0 } } })
      for (const client of all) {
        const { id } = client
        const model = client.settings.model
        const tools = say("Please call the tool for Oslo", { tools: [weather] })
        const called = yield* client.complete(model, tools)
        expect(called, id).toMatchObject({ finishReason: "tool-calls", text: "", toolCalls: [{ name: "get_weather" }] })
        expect(JSON.parse(called.toolCalls[0]?.arguments ?? ""), id).toEqual({ city: "Please call the tool for Oslo" })
        expect(joined(yield* collect(client, tools)), id).toEqual(called)

        const json = yield* client.complete(model, say("Invent a thing", { responseFormat: { type: "json" } }))
        expect(JSON.parse(json.text), id).toMatchObject({ simulated: true })
        const schema = { type: "object", properties: { age: { type: "integer" } }, required: ["age"] }
        const formed = yield* client.complete(model, say("Invent", { responseFormat: { type: "json", schema } }))
        expect(JSON.parse(formed.text), id).toEqual({ age: 1 })

        const plain = yield* client.complete(model, say("Look"))
        const seen = yield* client.complete(model, {
          messages: [
            { role: "user", content: "Earlier question" },
            { role: "assistant", content: "Earlier answer" },
            {
              role: "user",
              content: [
                { type: "text", text: "Look" },
                { type: "image", source: { kind: "base64", mediaType: "image/png", data: png } }
              ]
            }
          ]
        })
        expect(seen.usage.inputTokens, id).toBeGreaterThan(plain.usage.inputTokens + 700)
        expect(seen.text, id).toContain("to: Look")

        const cut = yield* client.complete(model, say("Write a lot", { maxOutputTokens: 16 }))
        expect(cut, id).toMatchObject({ finishReason: "length", usage: { outputTokens: 16 } })
        expect(joined(yield* collect(client, say("Write a lot", { maxOutputTokens: 16 }))), id).toEqual(cut)
      }
    })
  )

  it.scoped("on limits reached, and when to come back", () =>
    Effect.gen(function* () {
      const limits = { requests: [{ limit: 1, windowMs: 30_000 }] }
      const { client, running } = yield* team(Object.fromEntries(ids.map((id) => [id, { limits }])))
      for (const id of ids) {
        const one = client(id)
        yield* one.complete(models[id], say("first"))
        const whole = yield* Effect.flip(one.complete(models[id], say("second")))
        expect(whole, id).toMatchObject({ _tag: "QuotaFailure", status: 429 })
        const stream = yield* Effect.flip(collect(one, say("third")))
        expect(stream, id).toMatchObject({ _tag: "QuotaFailure", status: 429 })
        // Only these two say how long to wait.
        if (id === "codex" || id === "gemini") expect(whole, id).toMatchObject({ reason: "rate", retryAfterMs: 30_000 })
      }
      expect((yield* running.stats).violations).toBe(8)
    })
  )

  it.scoped("on which limit it was that refused", () =>
    Effect.gen(function* () {
      const requests = [{ limit: 1, windowMs: 60_000 }]
      const { client } = yield* team({
        codex: { limits: { requests } },
        gemini: { limits: { models: { [models.gemini]: { requests } } } },
        qwen: { limits: { requests } },
        synthetic: { limits: { requests: [{ limit: 1, windowMs: 18_000_000 }] } }
      })
      const refused = (id: FourIds) =>
        client(id)
          .complete(models[id], say("first"))
          .pipe(Effect.zipRight(Effect.flip(client(id).complete(models[id], say("second")))))
      const minute = { reason: "rate", unit: "requests", limit: 1, windowMs: 60_000 }
      expect(yield* refused("codex")).toMatchObject({ ...minute, perModel: undefined })
      expect(yield* refused("gemini")).toMatchObject({ ...minute, perModel: true })
      expect(yield* refused("qwen")).toMatchObject({ reason: "rate", unit: "requests" })
      expect(yield* refused("synthetic")).toMatchObject({ reason: "window", window: "5h" })
    })
  )

  it.scoped("on what is left of a minute's limits, by the headers of an answer", () =>
    Effect.gen(function* () {
      const limits = {
        requests: [{ limit: 4, windowMs: 60_000 }],
        tokens: [{ limit: 10_000, windowMs: 60_000 }],
        tokensCounted: "input"
      } as const
      const { client } = yield* team({ codex: { limits } })
      const [start] = yield* collect(client("codex"), say("x".repeat(4_000)))
      expect(start).toEqual({
        _tag: "Start",
        limits: [
          { unit: "requests", windowMs: undefined, limit: 4, remaining: 3, resetsInMs: 60_000 },
          { unit: "tokens", windowMs: undefined, limit: 10_000, remaining: 9_000, resetsInMs: 60_000 }
        ]
      })
    })
  )

  it.scoped("on a ChatGPT plan's windows, and on the one that is used up", () =>
    Effect.gen(function* () {
      const limits = {
        requests: [
          { limit: 1, windowMs: 18_000_000 },
          { limit: 4, windowMs: 604_800_000 }
        ]
      }
      const { client } = yield* team({ codex: { limits, plan: true } })
      const [start] = yield* collect(client("codex"), say("first"))
      const plan = { unit: "percent", limit: 100 }
      expect(start).toEqual({
        _tag: "Start",
        limits: [
          { ...plan, name: "primary", windowMs: 18_000_000, remaining: 0, resetsInMs: 18_000_000 },
          { ...plan, name: "secondary", windowMs: 604_800_000, remaining: 75, resetsInMs: 604_800_000 }
        ]
      })
      expect(yield* Effect.flip(collect(client("codex"), say("second")))).toMatchObject({
        _tag: "QuotaFailure",
        reason: "window",
        window: "primary",
        windowMs: 18_000_000,
        resetsAt: 18_000_000
      })
    })
  )

  it.scoped("on what Synthetic's quotas say", () =>
    Effect.gen(function* () {
      const limits = {
        requests: [{ limit: 20, windowMs: 18_000_000 }],
        credits: [{ limitUsd: 0.02, windowMs: 604_800_000 }]
      }
      const { client } = yield* team({ synthetic: { limits } })
      const one = client("synthetic")
      const rolling = { unit: "requests", name: "5h", windowMs: 18_000_000, limit: 20 }
      const weekly = { unit: "usd", name: "weekly", windowMs: 604_800_000, limit: 0.02 }
      expect((yield* one.check).readings).toMatchObject([
        { ...rolling, remaining: 20 },
        { ...weekly, remaining: 0.02 }
      ])
      yield* one.complete(models.synthetic, say("first"))
      yield* TestClock.adjust("1 hour")
      expect((yield* one.check).readings).toMatchObject([
        { ...rolling, remaining: 19, refillsInMs: 14_400_000 },
        { ...weekly, remaining: 0.01, refillsInMs: 604_800_000 - 3_600_000 }
      ])
    })
  )

  it.scoped("on every kind of refusal", () =>
    Effect.gen(function* () {
      const { client, running } = yield* team()
      const expected: ReadonlyArray<readonly [ErrorShape, AttemptFailure["_tag"]]> = [
        ["invalid-key", "CredentialFailure"],
        ["forbidden", "CredentialFailure"],
        ["model-not-found", "ModelFailure"],
        ["context-too-long", "RequestFailure"],
        ["policy", "RequestFailure"],
        ["rate-limit", "QuotaFailure"],
        ["quota-exhausted", "QuotaFailure"],
        ["server-error", "PlatformFailure"],
        ["overloaded", "PlatformFailure"],
        ["invalid-request", "RequestFailure"]
      ]
      for (const id of ids) {
        for (const [errorShape, tag] of expected) {
          yield* running.fault({ platform: id, fault: "status", errorShape, count: 2 })
          const whole = yield* Effect.flip(client(id).complete(models[id], say("hello")))
          expect(whole._tag, `${id} ${errorShape}: ${whole.message}`).toBe(tag)
          const stream = yield* Effect.flip(collect(client(id), say("hello")))
          expect(stream._tag, `${id} ${errorShape} streamed: ${stream.message}`).toBe(tag)
        }
      }
      expect((yield* Effect.flip(client("codex").complete("nothing-4", say("hello"))))._tag).toBe("ModelFailure")
      const long = say("x".repeat(1_000_000))
      expect(yield* Effect.flip(client("synthetic").complete(models.synthetic, long))).toMatchObject({
        _tag: "RequestFailure",
        reason: "context"
      })
    })
  )

  it.scoped("on a wrong key, which no failure repeats", () =>
    Effect.gen(function* () {
      const secret = "sk-very-secret-key"
      const keys = Object.fromEntries(ids.map((id) => [id, secret]))
      const { client } = yield* team(Object.fromEntries(ids.map((id) => [id, { apiKey: "right" }])), keys)
      for (const id of ids) {
        const failure = yield* Effect.flip(client(id).complete(models[id], say("hello")))
        expect(failure._tag, id).toBe("CredentialFailure")
        expect(JSON.stringify(failure)).not.toContain(secret)
        expect((yield* Effect.flip(client(id).check))._tag, id).toBe("CredentialFailure")
      }
    })
  )

  it.scoped("on every way a connection or a body can go wrong", () =>
    Effect.gen(function* () {
      const { client, running } = yield* team()
      const faultsOf = (platform: FourIds): ReadonlyArray<Fault> => [
        { platform, count: 2, fault: "reset" },
        { platform, count: 2, fault: "reset", after: 0.5 },
        { platform, count: 2, fault: "truncate" },
        { platform, count: 2, fault: "malformed" },
        { platform, count: 2, fault: "stream-error" },
        { platform, count: 2, fault: "stream-error", after: 0 },
        { platform, count: 2, fault: "status", status: 502, body: "<html><h1>Bad Gateway</h1></html>" }
      ]
      for (const id of ids) {
        for (const fault of faultsOf(id)) {
          const name = JSON.stringify(fault)
          yield* running.fault(fault)
          const whole = yield* Effect.flip(client(id).complete(models[id], say("hello")))
          expect(whole._tag, `${name}: ${whole.message}`).toBe("PlatformFailure")
          const stream = yield* Effect.flip(collect(client(id), say("hello")))
          expect(stream._tag, `${name} streamed: ${stream.message}`).toBe("PlatformFailure")
        }
        expect(joined(yield* collect(client(id), say("hello"))), id).toBeDefined()
      }
    })
  )

  it.scoped("on the input's size: never more than the service reckons for plain text, tools and schemas", () =>
    Effect.gen(function* () {
      const { all } = yield* team()
      const call = say("Invent a person. Answer as JSON.", {
        system: "You are brief.",
        tools: [weather],
        responseFormat: { type: "json", schema: { type: "object", properties: { name: { type: "string" } } } }
      })
      for (const client of all) {
        const { usage } = yield* client.complete(client.settings.model, call)
        expect(usage.inputTokens, client.id).toBeLessThanOrEqual(estimateInputTokens(call))
        expect(usage.inputTokens, client.id).toBeGreaterThan(40)
      }
    })
  )

  it.scoped("on the settings that a simulator prints", () =>
    Effect.gen(function* () {
      const { environment, baseUrls } = yield* Simulator.make(Simulator.defaults)
      const settings = yield* Settings.pipe(
        Effect.provide(Settings.layerConfig()),
        Effect.provide(NodeFileSystem.layer),
        Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(environment))))
      )
      const limits = Object.fromEntries(settings.platforms.map((platform) => [platform.id, platform.limits]))
      expect(settings.platforms.map(({ baseUrl }) => baseUrl)).toEqual(Object.values(baseUrls))
      expect(limits).toMatchObject({
        codex: { requestsPerMinute: 500, tokensPerMinute: 500_000, tokensCounted: "reserved" },
        gemini: { requestsPerMinute: 1_000, windowRequests: 10_000, windowMs: 86_400_000, tokensCounted: "input" },
        qwen: { requestsPerMinute: 600, tokensPerMinute: 1_000_000, tokensCounted: "actual" },
        synthetic: { windowRequests: 500, windowMs: 18_000_000, maxConcurrent: 4, maxConcurrentPerModel: 1 }
      })
      expect(limits.synthetic?.requestsPerMinute).toBeUndefined()
    })
  )

  it.scoped("that who interrupts closes the connection", () =>
    Effect.gen(function* () {
      const { client, running } = yield* team()
      const until = (
        wanted: (stats: { readonly inFlight: number; readonly aborted: number }) => boolean,
        id: FourIds
      ) =>
        running.stats.pipe(
          Effect.tap(() => Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))),
          Effect.repeat({ until: ({ platforms }) => platforms[id] !== undefined && wanted(platforms[id]) })
        )
      yield* running.fault({ platform: "*", fault: "hang", after: 0.5 })
      for (const id of ids) {
        const whole = yield* Effect.fork(client(id).complete(models[id], say("hello")))
        yield* until(({ inFlight }) => inFlight === 1, id)
        yield* Fiber.interrupt(whole)
        yield* until(({ aborted, inFlight }) => aborted === 1 && inFlight === 0, id)
        const stream = yield* Effect.fork(collect(client(id), say("hello")))
        yield* until(({ inFlight }) => inFlight === 1, id)
        yield* Fiber.interrupt(stream)
        yield* until(({ aborted, inFlight }) => aborted === 2 && inFlight === 0, id)
      }
    })
  )
})
