import { assert, describe, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
import type { Call, LimitReading } from "../../src/Domain/Call.js"
import { apiKey, clientOf, type Known, type ScriptedReply, scripted } from "./scripted.js"

const answers: Readonly<Record<Known, ScriptedReply>> = {
  codex: {
    body: JSON.stringify({
      id: "resp_1",
      object: "response",
      status: "completed",
      error: null,
      incomplete_details: null,
      model: "gpt-6-sol-2026-09-01",
      output: [
        { type: "reasoning", id: "rs_1", summary: [], a_new_field: 1 },
        { type: "something_new", payload: [1] },
        {
          type: "message",
          role: "assistant",
          content: [
            { type: "output_text", text: "4", annotations: [] },
            { type: "output_text", text: "!" }
          ]
        },
        { type: "function_call", id: "fc_1", call_id: "call_9", name: "add", arguments: '{"a":2}' }
      ],
      usage: {
        input_tokens: 100,
        input_tokens_details: { cached_tokens: 20 },
        output_tokens: 10,
        output_tokens_details: { reasoning_tokens: 3 },
        total_tokens: 110
      }
    })
  },
  qwen: {
    body: JSON.stringify({
      model: "qwen3.8-max",
      choices: [
        {
          index: 0,
          message: {
            role: "assistant",
            content: "4!",
            reasoning_content: "two and two",
            tool_calls: [{ id: "call_9", type: "function", function: { name: "add", arguments: '{"a":2}' } }]
          },
          finish_reason: "tool_calls"
        }
      ],
      usage: {
        prompt_tokens: 100,
        completion_tokens: 10,
        total_tokens: 110,
        prompt_tokens_details: { cached_tokens: 20 },
        completion_tokens_details: { reasoning_tokens: 3 }
      }
    })
  },
  synthetic: {
    body: JSON.stringify({
      model: "hf:zai-org/GLM-5.2",
      choices: [{ message: { content: "4!", tool_calls: null }, finish_reason: "length" }],
      usage: { prompt_tokens: 7, completion_tokens: 2 }
    })
  },
  gemini: {
    body: JSON.stringify({
      candidates: [
        {
          content: {
            role: "model",
            parts: [
              { text: "thinking aloud", thought: true },
              { text: "4" },
              { text: "!", thoughtSignature: "abc" },
              { functionCall: { name: "add", args: { a: 2 } } }
            ]
          },
          finishReason: "STOP",
          safetyRatings: []
        }
      ],
      usageMetadata: {
        promptTokenCount: 100,
        candidatesTokenCount: 7,
        thoughtsTokenCount: 3,
        cachedContentTokenCount: 20,
        totalTokenCount: 110
      },
      modelVersion: "gemini-3.8-flash",
      responseId: "r"
    })
  }
}

const plain: Call = { messages: [{ role: "user", content: "what is 2+2" }] }
const schema = { type: "object", properties: { sum: { type: "number" } }, required: ["sum"] }
const rich: Call = {
  system: "Be brief.",
  messages: [
    { role: "user", content: "hello" },
    { role: "assistant", content: [{ type: "text", text: "hi" }] },
    {
      role: "user",
      content: [
        { type: "text", text: "what is this" },
        { type: "image", source: { kind: "base64", mediaType: "image/png", data: "aGk=" } },
        { type: "image", source: { kind: "url", url: "https://example.com/cat.jpg?size=2" } }
      ]
    }
  ],
  maxOutputTokens: 50,
  temperature: 0.5,
  responseFormat: { type: "json", schema },
  tools: [
    { name: "add", description: "adds", parameters: schema },
    { name: "stop", parameters: {} }
  ]
}

const sent = (id: Known, call: Call, baseUrl?: string) =>
  Effect.gen(function* () {
    const http = scripted(answers[id])
    const client = yield* clientOf(id, http.layer, baseUrl === undefined ? {} : { baseUrl })
    const completion = yield* client.complete("the/model", call)
    assert.strictEqual(http.received.length, 1)
    return { completion, request: http.received[0] }
  })

describe("what is sent", () => {
  it.effect("OpenAI Responses", () =>
    Effect.gen(function* () {
      const { request } = yield* sent("codex", rich)
      assert.strictEqual(request?.method, "POST")
      assert.strictEqual(request?.url, "https://api.openai.com/v1/responses")
      assert.strictEqual(request?.headers.authorization, `Bearer ${apiKey}`)
      assert.strictEqual(request?.headers["content-type"], "application/json")
      assert.deepStrictEqual(request?.body, {
        model: "the/model",
        input: [
          { role: "user", content: "hello" },
          { role: "assistant", content: [{ type: "output_text", text: "hi" }] },
          {
            role: "user",
            content: [
              { type: "input_text", text: "what is this" },
              { type: "input_image", image_url: "data:image/png;base64,aGk=" },
              { type: "input_image", image_url: "https://example.com/cat.jpg?size=2" }
            ]
          }
        ],
        instructions: "Be brief.",
        store: false,
        max_output_tokens: 50,
        temperature: 0.5,
        text: { format: { type: "json_schema", name: "answer", schema, strict: false } },
        tools: [
          { type: "function", name: "add", description: "adds", parameters: schema, strict: false },
          { type: "function", name: "stop", parameters: {}, strict: false }
        ]
      })
      const minimal = yield* sent("codex", plain)
      assert.deepStrictEqual(minimal.request?.body, {
        model: "the/model",
        input: [{ role: "user", content: "what is 2+2" }],
        store: false
      })
    })
  )

  it.effect("OpenAI Chat Completions", () =>
    Effect.gen(function* () {
      const { request } = yield* sent("qwen", rich)
      assert.strictEqual(request?.url, "https://dashscope-intl.aliyuncs.com/compatible-mode/v1/chat/completions")
      assert.strictEqual(request?.headers.authorization, `Bearer ${apiKey}`)
      assert.deepStrictEqual(request?.body, {
        model: "the/model",
        messages: [
          { role: "system", content: "Be brief." },
          { role: "user", content: "hello" },
          { role: "assistant", content: [{ type: "text", text: "hi" }] },
          {
            role: "user",
            content: [
              { type: "text", text: "what is this" },
              { type: "image_url", image_url: { url: "data:image/png;base64,aGk=" } },
              { type: "image_url", image_url: { url: "https://example.com/cat.jpg?size=2" } }
            ]
          }
        ],
        max_tokens: 50,
        temperature: 0.5,
        response_format: { type: "json_schema", json_schema: { name: "answer", schema, strict: false } },
        tools: [
          { type: "function", function: { name: "add", description: "adds", parameters: schema } },
          { type: "function", function: { name: "stop", parameters: {} } }
        ]
      })
      const minimal = yield* sent("qwen", plain)
      assert.deepStrictEqual(minimal.request?.body, {
        model: "the/model",
        messages: [{ role: "user", content: "what is 2+2" }]
      })
      const openAi = yield* sent("qwen", { ...plain, maxOutputTokens: 9 }, "https://api.openai.com/v1")
      assert.propertyVal(openAi.request?.body, "max_completion_tokens", 9)
      assert.notProperty(openAi.request?.body, "max_tokens")
    })
  )

  it.effect("Gemini generateContent", () =>
    Effect.gen(function* () {
      const { request } = yield* sent("gemini", rich)
      assert.strictEqual(
        request?.url,
        "https://generativelanguage.googleapis.com/v1beta/models/the%2Fmodel:generateContent"
      )
      assert.strictEqual(request?.headers["x-goog-api-key"], apiKey)
      assert.notProperty(request?.headers, "authorization")
      assert.deepStrictEqual(request?.body, {
        contents: [
          { role: "user", parts: [{ text: "hello" }] },
          { role: "model", parts: [{ text: "hi" }] },
          {
            role: "user",
            parts: [
              { text: "what is this" },
              { inlineData: { mimeType: "image/png", data: "aGk=" } },
              { fileData: { mimeType: "image/jpeg", fileUri: "https://example.com/cat.jpg?size=2" } }
            ]
          }
        ],
        systemInstruction: { parts: [{ text: "Be brief." }] },
        tools: [
          {
            functionDeclarations: [
              { name: "add", description: "adds", parametersJsonSchema: schema },
              { name: "stop", parametersJsonSchema: {} }
            ]
          }
        ],
        generationConfig: {
          maxOutputTokens: 50,
          temperature: 0.5,
          responseMimeType: "application/json",
          responseJsonSchema: schema
        }
      })
      const minimal = yield* sent("gemini", plain)
      assert.deepStrictEqual(minimal.request?.body, {
        contents: [{ role: "user", parts: [{ text: "what is 2+2" }] }]
      })
    })
  )

  it.effect("plain JSON answers are asked for in a way the platforms accept", () =>
    Effect.gen(function* () {
      const wanted: Call = { ...plain, responseFormat: { type: "json" } }
      const spoken: Call = { ...wanted, messages: [{ role: "user", content: "4 as JSON" }] }
      const codex = yield* sent("codex", wanted)
      assert.deepInclude(codex.request?.body, {
        text: { format: { type: "json_object" } },
        input: [
          { role: "user", content: "what is 2+2" },
          { role: "developer", content: "Answer with one JSON value and nothing else." }
        ]
      })
      const codexSpoken = yield* sent("codex", spoken)
      assert.deepInclude(codexSpoken.request?.body, { input: [{ role: "user", content: "4 as JSON" }] })
      const qwen = yield* sent("qwen", { ...wanted, system: "Be brief." })
      assert.deepInclude(qwen.request?.body, {
        response_format: { type: "json_object" },
        messages: [
          { role: "system", content: "Be brief.\n\nAnswer with one JSON value and nothing else." },
          { role: "user", content: "what is 2+2" }
        ]
      })
      const qwenSpoken = yield* sent("qwen", spoken)
      assert.deepInclude(qwenSpoken.request?.body, { messages: [{ role: "user", content: "4 as JSON" }] })
      const gemini = yield* sent("gemini", wanted)
      assert.deepInclude(gemini.request?.body, { generationConfig: { responseMimeType: "application/json" } })
    })
  )

  it.effect("a call the format cannot carry is refused before anything is sent", () =>
    Effect.gen(function* () {
      const image: Call = {
        messages: [
          { role: "assistant", content: [{ type: "image", source: { kind: "url", url: "https://example.com/a.png" } }] }
        ]
      }
      for (const id of ["codex", "qwen"] as const) {
        const http = scripted(answers[id])
        const client = yield* clientOf(id, http.layer)
        const failure = yield* Effect.flip(client.complete("m", image))
        assert.strictEqual(failure._tag, "RequestFailure")
        assert.deepStrictEqual(http.received, [])
      }
      const parameters: Record<string, unknown> = {}
      parameters.self = parameters
      const client = yield* clientOf("gemini", scripted(answers.gemini).layer)
      const failure = yield* Effect.flip(client.complete("m", { ...plain, tools: [{ name: "loop", parameters }] }))
      assert.strictEqual(failure._tag, "RequestFailure")
    })
  )
})

describe("what is understood", () => {
  const usage = { inputTokens: 100, cachedInputTokens: 20, outputTokens: 10, reasoningTokens: 3 }

  it.effect("a whole answer of each format", () =>
    Effect.gen(function* () {
      const codex = yield* sent("codex", plain)
      assert.deepStrictEqual(codex.completion, {
        text: "4!",
        toolCalls: [{ id: "call_9", name: "add", arguments: '{"a":2}' }],
        finishReason: "tool-calls",
        model: "gpt-6-sol-2026-09-01",
        usage
      })
      const qwen = yield* sent("qwen", plain)
      assert.deepStrictEqual(qwen.completion, {
        text: "4!",
        toolCalls: [{ id: "call_9", name: "add", arguments: '{"a":2}' }],
        finishReason: "tool-calls",
        model: "qwen3.8-max",
        usage
      })
      const synthetic = yield* sent("synthetic", plain)
      assert.deepStrictEqual(synthetic.completion, {
        text: "4!",
        toolCalls: [],
        finishReason: "length",
        model: "hf:zai-org/GLM-5.2",
        usage: { inputTokens: 7, cachedInputTokens: 0, outputTokens: 2, reasoningTokens: 0 }
      })
      const gemini = yield* sent("gemini", plain)
      assert.deepStrictEqual(gemini.completion, {
        text: "4!",
        toolCalls: [{ id: "call_0", name: "add", arguments: '{"a":2}' }],
        finishReason: "tool-calls",
        model: "gemini-3.8-flash",
        usage
      })
    })
  )

  it.effect("an answer that reached its bound", () =>
    Effect.gen(function* () {
      const codex = yield* clientOf(
        "codex",
        scripted({
          body: JSON.stringify({
            status: "incomplete",
            incomplete_details: { reason: "max_output_tokens" },
            model: "m",
            output: [],
            usage: { input_tokens: 1, output_tokens: 2 }
          })
        }).layer
      )
      assert.strictEqual((yield* codex.complete("m", plain)).finishReason, "length")
      const gemini = yield* clientOf(
        "gemini",
        scripted({
          body: JSON.stringify({
            candidates: [{ finishReason: "MAX_TOKENS" }],
            usageMetadata: { promptTokenCount: 1, thoughtsTokenCount: 9 }
          })
        }).layer
      )
      assert.deepStrictEqual(yield* gemini.complete("asked-for", plain), {
        text: "",
        toolCalls: [],
        finishReason: "length",
        model: "asked-for",
        usage: { inputTokens: 1, cachedInputTokens: 0, outputTokens: 9, reasoningTokens: 9 }
      })
    })
  )
})

describe("checks", () => {
  it.effect("the list of models", () =>
    Effect.gen(function* () {
      const codex = scripted({
        body: JSON.stringify({ object: "list", data: [{ id: "a", object: "model" }, { id: "b" }] })
      })
      assert.deepStrictEqual(yield* (yield* clientOf("codex", codex.layer)).check, {
        models: ["a", "b"],
        readings: []
      })
      assert.strictEqual(codex.received[0]?.method, "GET")
      assert.strictEqual(codex.received[0]?.url, "https://api.openai.com/v1/models")
      assert.strictEqual(codex.received[0]?.headers.authorization, `Bearer ${apiKey}`)
      const gemini = scripted({ body: JSON.stringify({ models: [{ name: "models/gemini-3.8-flash" }] }) })
      assert.deepStrictEqual(yield* (yield* clientOf("gemini", gemini.layer)).listModels, ["gemini-3.8-flash"])
      assert.strictEqual(gemini.received[0]?.headers["x-goog-api-key"], apiKey)
    })
  )

  const tick = "2026-11-22T12:15:00.000Z"
  const regen = "2026-11-22T20:00:00.000Z"
  const quotas = (rolling: object, weekly: object) => ({
    subscription: { limit: 500, requests: 500, renewsAt: "2026-11-23T00:00:00.000Z" },
    search: { hourly: { limit: 250, requests: 0, renewsAt: tick } },
    weeklyTokenLimit: {
      nextRegenAt: regen,
      percentRemaining: 46.7,
      maxCredits: "$24.00",
      remainingCredits: "$11.20",
      ...weekly
    },
    rollingFiveHourLimit: {
      nextTickAt: tick,
      tickPercent: 0.05,
      remaining: 364.5,
      max: 500,
      limited: false,
      ...rolling
    }
  })

  it.effect("Synthetic's quotas", () =>
    Effect.gen(function* () {
      const checked = (body: unknown) => {
        const http = scripted({ body: JSON.stringify(body) })
        return Effect.flatMap(clientOf("synthetic", http.layer), (client) => client.check).pipe(
          Effect.tap(() => assert.strictEqual(http.received[0]?.url, "https://api.synthetic.new/v2/quotas"))
        )
      }
      yield* TestClock.setTime(Date.parse("2026-11-22T12:00:00.000Z"))
      const rolling: LimitReading = {
        unit: "requests",
        name: "5h",
        windowMs: 18_000_000,
        limit: 500,
        remaining: 364.5,
        refillsInMs: 900_000
      }
      const weekly: LimitReading = { unit: "usd", limit: 24, remaining: 11.2, name: "weekly", windowMs: 604_800_000 }
      const refillsInMs = 8 * 3_600_000
      const readings = (rollingChange: object, weeklyChange: object) =>
        Effect.map(checked(quotas(rollingChange, weeklyChange)), (result) => result.readings)
      assert.deepStrictEqual(yield* readings({}, {}), [rolling, { ...weekly, refillsInMs }])
      assert.deepStrictEqual(yield* readings({ limited: true }, { remainingCredits: "$0.00" }), [
        { ...rolling, remaining: 0 },
        { ...weekly, refillsInMs, remaining: 0 }
      ])
      assert.deepStrictEqual(yield* readings({ remaining: -1, max: null }, { percentRemaining: 0 }), [
        { ...rolling, limit: undefined, remaining: 0 },
        { ...weekly, refillsInMs, remaining: 0 }
      ])
      assert.deepStrictEqual(yield* readings({ nextTickAt: regen }, { maxCredits: 24, nextRegenAt: null }), [
        { ...rolling, refillsInMs },
        {
          unit: "percent",
          limit: 100,
          remaining: 46.7,
          name: "weekly",
          windowMs: 604_800_000,
          refillsInMs: undefined
        }
      ])
      const legacy: LimitReading = { unit: "requests", name: "subscription", limit: 135, remaining: 35 }
      const subscription = (renewsAt: string) => ({ subscription: { limit: 135, requests: 100, renewsAt } })
      assert.deepStrictEqual((yield* checked(subscription(tick))).readings, [
        { ...legacy, windowMs: 18_000_000, resetsInMs: 900_000 }
      ])
      assert.deepStrictEqual((yield* checked(subscription(regen))).readings, [
        { ...legacy, windowMs: undefined, resetsInMs: refillsInMs }
      ])
      assert.deepStrictEqual((yield* checked({ search: { hourly: { limit: 250, requests: 0 } } })).readings, [])
      for (const broken of [{}, { rollingFiveHourLimit: { max: 500 } }, []]) {
        const failure = yield* Effect.flip(checked(broken))
        assert.strictEqual(failure._tag, "PlatformFailure")
        assert.propertyVal(failure, "reason", "malformed")
      }
    })
  )

  it.effect("a check fails as an attempt does", () =>
    Effect.gen(function* () {
      const refused = yield* clientOf("synthetic", scripted({ status: 401, body: '{"error":"Invalid API key"}' }).layer)
      assert.strictEqual((yield* Effect.flip(refused.check))._tag, "CredentialFailure")
      const missing = yield* clientOf("codex", scripted({ body: "{}" }).layer)
      assert.propertyVal(yield* Effect.flip(missing.check), "reason", "malformed")
    })
  )
})
