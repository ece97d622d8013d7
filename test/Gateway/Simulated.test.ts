import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { Gateway } from "../../src/Gateway.js"
import { Http } from "../../src/Http.js"
import { layer as transportLayer } from "../../src/Platforms/Transport.js"
import { ResourceManager } from "../../src/ResourceManager.js"
import { Settings } from "../../src/Settings.js"
import { type RunningSimulator, Simulator } from "../../src/Simulator.js"
import { Team } from "../../src/Team.js"
import { ask, eventually, post } from "../Http/server.js"

const ids = ["codex", "gemini", "qwen"] as const

class Served extends Context.Tag("test/Served")<
  Served,
  { readonly url: string; readonly simulator: RunningSimulator<keyof typeof Simulator.instant.platforms> }
>() {}

const options = { ...Simulator.instant, keepRequests: 20 }

/** The whole service on a real port, over platforms that speak each wire format on another. */
const live = Layer.unwrapScoped(
  Effect.gen(function* () {
    const simulator = yield* Simulator.make(options)
    const settings = Settings.make({
      database: ":memory:",
      host: "127.0.0.1",
      port: 0,
      shutdownGraceMs: 0,
      platforms: ids.map((id) =>
        Settings.platformDefaults(id, {
          apiKey: simulator.apiKeys[id],
          baseUrl: simulator.baseUrls[id],
          model: options.platforms[id].models[0]
        })
      )
    })
    const served = Layer.effect(
      Served,
      Effect.map(Http, ({ url }) => ({ url, simulator }))
    )
    return Layer.provideMerge(served, Http.layer).pipe(
      Layer.provideMerge(Team.layer),
      Layer.provide(transportLayer),
      Layer.provide(Settings.layer(settings))
    )
  })
)

const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "The weather of a city",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
    }
  }
]

const picture = { type: "image_url", image_url: { url: "data:image/png;base64,iVBORw0KGgo=" } }

/** A conversation in which two functions were called at once, and their results came. */
const withResults = [
  { role: "system", content: "You are a weatherman." },
  { role: "user", content: "How is the weather in Oslo and Rome? remember 4711" },
  {
    role: "assistant",
    content: "I look.",
    tool_calls: [
      { id: "call_a", type: "function", function: { name: "get_weather", arguments: '{"city":"Oslo"}' } },
      { id: "call_b", type: "function", function: { name: "get_weather", arguments: '{"city":"Rome"}' } }
    ]
  },
  { role: "tool", tool_call_id: "call_a", content: '{"sky":"snow in Oslo"}' },
  { role: "tool", tool_call_id: "call_b", content: "sun in Rome" },
  { role: "user", content: "Which is warmer?" }
]

const dataOf = (text: unknown): ReadonlyArray<string> =>
  String(text)
    .split("\n\n")
    .flatMap((event) => (event.startsWith("data: ") ? [event.slice(6)] : []))

describe("the gateway over real HTTP, in each wire format", () => {
  layer(live, { excludeTestServices: true })((it) => {
    for (const id of ids) {
      it.effect(`${id}: turns with tool calls and their results arrive, whole and streamed`, () =>
        Effect.gen(function* () {
          const { simulator, url } = yield* Served
          for (const stream of [false, true]) {
            const { body, headers, status } = yield* post(`${url}/v1/chat/completions`, {
              model: id,
              messages: withResults,
              tools,
              stream
            })
            assert.strictEqual(status, 200, JSON.stringify(body))
            assert.strictEqual(headers.get("x-dream-team-platform"), id)
            const received = JSON.stringify((yield* simulator.requests).at(-1))
            for (const part of ["weatherman", "4711", "I look.", "Oslo", "snow in Oslo", "sun in Rome", "Which is"]) {
              assert.include(received, part)
            }
          }
        })
      )

      it.effect(`${id}: a function that has to be called is, and its result may follow`, () =>
        Effect.gen(function* () {
          const { url } = yield* Served
          const question = { role: "user", content: "Oslo?" }
          const asked = { model: id, messages: [question], tools, tool_choice: "required" }
          const whole = yield* post(`${url}/v1/chat/completions`, asked)
          const [choice] = Object(whole.body).choices
          assert.strictEqual(choice.finish_reason, "tool_calls")
          const [toolCall] = choice.message.tool_calls
          assert.strictEqual(toolCall.function.name, "get_weather")
          assert.property(JSON.parse(toolCall.function.arguments), "city")

          const streamed = yield* post(`${url}/v1/chat/completions`, { ...asked, stream: true })
          const chunks = dataOf(streamed.body)
          assert.strictEqual(chunks.at(-1), "[DONE]")
          const calls = chunks.slice(0, -1).flatMap((chunk) => JSON.parse(chunk).choices[0]?.delta.tool_calls ?? [])
          assert.strictEqual(calls.length, 1)
          assert.strictEqual(calls[0].function.arguments, toolCall.function.arguments)

          const next = yield* post(`${url}/v1/chat/completions`, {
            ...asked,
            tool_choice: "none",
            messages: [question, choice.message, { role: "tool", tool_call_id: toolCall.id, content: "snow" }]
          })
          assert.strictEqual(next.status, 200, JSON.stringify(next.body))
          assert.strictEqual(Object(next.body).choices[0].finish_reason, "stop")
        })
      )

      it.effect(`${id}: images, JSON answers and usage`, () =>
        Effect.gen(function* () {
          const { url } = yield* Served
          const { body, status } = yield* post(`${url}/v1/chat/completions`, {
            model: id,
            response_format: {
              type: "json_schema",
              json_schema: {
                name: "a",
                schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
              }
            },
            messages: [
              {
                role: "user",
                content: [
                  { type: "text", text: "Where is it?" },
                  // Qwen has no eyes
                  ...(id === "qwen" ? [] : [picture])
                ]
              }
            ]
          })
          assert.strictEqual(status, 200, JSON.stringify(body))
          const { choices, usage } = Object(body)
          assert.property(JSON.parse(choices[0].message.content), "city")
          assert.isAbove(usage.prompt_tokens, 0)
          assert.strictEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
        })
      )
    }

    it.effect("goes down the chain when limits are reached, and knows who answered", () =>
      Effect.gen(function* () {
        const { simulator, url } = yield* Served
        yield* simulator.fault({ platform: "codex", fault: "status", errorShape: "quota-exhausted" })
        const { body, headers } = yield* post(`${url}/v1/chat/completions`, {
          model: "codex>qwen>gemini#it-goes-on",
          messages: [{ role: "user", content: "Go on" }],
          stream: true
        })
        assert.strictEqual(headers.get("x-dream-team-platform"), "qwen", String(body))
        const answered = yield* Effect.flatMap(Gateway, (gateway) => gateway.answeredBy("it-goes-on"))
        assert.deepStrictEqual(
          answered.map(({ platform }) => String(platform)),
          ["qwen"]
        )
      }).pipe(Effect.ensuring(Effect.flatMap(Served, ({ simulator }) => simulator.clearFaults())))
    )

    it.effect("cancels the attempt when its client disconnects, in mid-answer or before", () =>
      Effect.gen(function* () {
        const { simulator, url } = yield* Served
        const resources = yield* ResourceManager
        const inUse = Effect.map(resources.view, ({ platforms }) =>
          platforms.reduce((sum, { permits }) => sum + permits.inUse, 0)
        )
        for (const after of [0, 0.5]) {
          yield* simulator.fault({ platform: "gemini", fault: "hang", after })
          const leaving = new AbortController()
          const asked = fetch(`${url}/v1/chat/completions`, {
            method: "POST",
            headers: { "content-type": "application/json" },
            body: JSON.stringify({ model: "gemini", messages: [{ role: "user", content: "Hello" }], stream: true }),
            signal: leaving.signal
          })
            .then((response) => response.text())
            .catch(() => undefined)
          yield* eventually(inUse, (count) => count === 1)
          if (after > 0) yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 50)))
          leaving.abort()
          yield* Effect.promise(() => asked)
          yield* eventually(inUse, (count) => count === 0)
          yield* simulator.clearFaults()
        }
      }).pipe(Effect.timeout("20 seconds"))
    )

    it.effect("lists the models", () =>
      Effect.gen(function* () {
        const { url } = yield* Served
        const { body, status } = yield* ask(`${url}/v1/models`)
        assert.strictEqual(status, 200)
        assert.isTrue(Object(body).data.some(({ id }: { readonly id: string }) => id === "codex"))
      })
    )
  })
})
