import { assert, describe, layer } from "@effect/vitest"
import { Chunk, Context, Effect, Layer, Stream } from "effect"
import type { Call } from "../../src/Domain/Call.js"
import { type AttemptFailure, viewOf } from "../../src/Domain/Failure.js"
import { layer as transportLayer } from "../../src/Platforms/Transport.js"
import { type PlatformClient, Platforms } from "../../src/Platforms.js"
import { Settings } from "../../src/Settings.js"
import { type Fault, type RunningSimulator, Simulator } from "../../src/Simulator.js"

const ids = ["codex", "gemini", "qwen", "synthetic"] as const
const call: Call = { messages: [{ role: "user", content: "what is 2+2" }], maxOutputTokens: 200 }

class Simulated extends Context.Tag("test/Simulated")<
  Simulated,
  {
    readonly clients: ReadonlyArray<PlatformClient>
    readonly simulator: RunningSimulator<(typeof ids)[number]>
  }
>() {}

const live = Layer.scoped(
  Simulated,
  Effect.gen(function* () {
    const simulator = yield* Simulator.make({ ...Simulator.defaults, latencyScale: 0 })
    const settings = Settings.make({
      platforms: ids.map((id) =>
        Settings.platformDefaults(id, {
          apiKey: simulator.apiKeys[id],
          baseUrl: simulator.baseUrls[id],
          model: Simulator.defaults.platforms[id].models[0]
        })
      )
    })
    const platforms = yield* Layer.build(
      Platforms.layer.pipe(Layer.provide(transportLayer), Layer.provide(Settings.layer(settings)))
    )
    return { clients: Context.get(platforms, Platforms).all, simulator }
  })
)

const asked = (client: PlatformClient, given: Call, streamed: boolean): Effect.Effect<unknown, AttemptFailure> =>
  streamed
    ? Stream.runDrain(client.stream(client.settings.model, given))
    : client.complete(client.settings.model, given)

/** How each platform's client takes a fault, whole and streamed. */
const under = (fault: Fault, streamedOnly = false) =>
  Effect.gen(function* () {
    const { clients, simulator } = yield* Simulated
    yield* simulator.fault(fault)
    const found: Record<string, string> = {}
    for (const client of clients) {
      for (const streamed of streamedOnly ? [true] : [false, true]) {
        const failure = yield* Effect.flip(asked(client, call, streamed))
        const { reason, scope } = viewOf(failure)
        found[`${client.id} ${streamed ? "streamed" : "whole"}`] = reason === undefined ? scope : `${scope} ${reason}`
      }
    }
    return found
  }).pipe(Effect.ensuring(Effect.flatMap(Simulated, ({ simulator }) => simulator.clearFaults())))

const assertAll = (found: Record<string, string>, expected: string) => {
  for (const [who, what] of Object.entries(found)) {
    assert.strictEqual(what, expected, who)
  }
}

describe("against the simulator, over real HTTP", () => {
  layer(live, { excludeTestServices: true })((it) => {
    it.effect("every platform answers, whole and streamed alike, and passes its check", () =>
      Effect.gen(function* () {
        const { clients } = yield* Simulated
        for (const client of clients) {
          const completion = yield* client.complete(client.settings.model, call)
          assert.isAbove(completion.text.length, 0, client.id)
          assert.isAbove(completion.usage.inputTokens, 0, client.id)
          assert.isAbove(completion.usage.outputTokens, 0, client.id)
          const deltas = Chunk.toReadonlyArray(yield* Stream.runCollect(client.stream(client.settings.model, call)))
          assert.strictEqual(
            deltas.map((delta) => (delta._tag === "Text" ? delta.text : "")).join(""),
            completion.text,
            client.id
          )
          const last = deltas.at(-1)
          assert.strictEqual(last?._tag, "Finish", client.id)
          assert.deepStrictEqual(last?._tag === "Finish" ? last.usage : undefined, completion.usage, client.id)
          const checked = yield* client.check
          assert.deepStrictEqual(
            checked.readings.map(({ name }) => name),
            client.id === "synthetic" ? ["5h", "weekly"] : []
          )
          assert.include(yield* client.listModels, client.settings.model, client.id)
        }
      })
    )

    it.effect("every part of a call is taken", () =>
      Effect.gen(function* () {
        const rich: Call = {
          system: "Be brief.",
          messages: [
            { role: "user", content: "hello" },
            { role: "assistant", content: [{ type: "text", text: "hi" }] },
            {
              role: "user",
              content: [
                { type: "text", text: "what is this" },
                { type: "image", source: { kind: "base64", mediaType: "image/png", data: "aGk=" } }
              ]
            }
          ],
          maxOutputTokens: 100,
          temperature: 0.5,
          responseFormat: { type: "json", schema: { type: "object", properties: { sum: { type: "number" } } } }
        }
        const tools: Call = { ...call, tools: [{ name: "add", parameters: { type: "object", properties: {} } }] }
        const { clients } = yield* Simulated
        for (const client of clients) {
          for (const given of [rich, tools]) {
            yield* asked(client, given, false)
            yield* asked(client, given, true)
          }
        }
      })
    )

    const shapes = [
      ["invalid-key", "credential"],
      ["forbidden", "credential"],
      ["model-not-found", "model"],
      ["context-too-long", "request context"],
      ["policy", "request policy"],
      ["rate-limit", "quota rate"],
      ["quota-exhausted", "quota window"],
      ["server-error", "platform server"],
      ["overloaded", "platform overloaded"]
    ] as const
    for (const [errorShape, expected] of shapes) {
      it.effect(`the error "${errorShape}" of every platform`, () =>
        Effect.map(under({ fault: "status", platform: "*", errorShape }), (found) => assertAll(found, expected))
      )
      it.effect(`the error "${errorShape}" inside a 200`, () =>
        Effect.map(under({ fault: "stream-error", platform: "*", errorShape }), (found) => assertAll(found, expected))
      )
    }

    it.effect("an unpaid account, as each platform tells it", () =>
      Effect.map(under({ fault: "status", platform: "*", errorShape: "unpaid" }), (found) =>
        assert.deepStrictEqual(found, {
          // OpenAI has no other word for it than that the quota is used up.
          "codex whole": "quota window",
          "codex streamed": "quota window",
          "gemini whole": "credential",
          "gemini streamed": "credential",
          "qwen whole": "credential",
          "qwen streamed": "credential",
          "synthetic whole": "credential",
          "synthetic streamed": "credential"
        })
      )
    )

    it.effect("an invalid request", () =>
      Effect.map(under({ fault: "status", platform: "*", errorShape: "invalid-request" }), (found) =>
        assertAll(found, "request invalid")
      )
    )

    it.effect("broken replies", () =>
      Effect.gen(function* () {
        assertAll(yield* under({ fault: "truncate", platform: "*" }), "platform malformed")
        assertAll(yield* under({ fault: "malformed", platform: "*" }), "platform malformed")
        assertAll(yield* under({ fault: "malformed", platform: "*", body: "<html></html>" }), "platform malformed")
        assertAll(yield* under({ fault: "reset", platform: "*" }), "platform network")
        assertAll(yield* under({ fault: "reset", platform: "*", after: 0.5 }, true), "platform network")
      })
    )
  })
})
