import { describe, expect, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
import { ask, at, events, maybeAt, models, numberAt, send, simulator, textAt } from "./support.js"

const text = (tokens: number) => ({ answerTokens: { median: tokens, sigma: 0 } })
const weather = {
  name: "get_weather",
  description: "The weather of a place",
  parameters: {
    type: "object",
    properties: { city: { type: "string" }, days: { type: "integer", minimum: 2 }, unit: { enum: ["C", "F"] } },
    required: ["city", "days", "unit"]
  }
}
const person = {
  type: "object",
  properties: {
    name: { type: "string" },
    age: { type: "integer" },
    tags: { type: "array", items: { type: "string" }, minItems: 2 },
    address: { $ref: "#/$defs/address" },
    nickname: { type: "string" }
  },
  required: ["name", "age", "tags", "address"],
  $defs: { address: { type: "object", properties: { street: { type: "string" } }, required: ["street"] } }
}

describe("OpenAI Responses", () => {
  it.scoped("a whole answer", () =>
    Effect.gen(function* () {
      const { baseUrls } = yield* simulator({ codex: { ...text(60), reasoningTokens: { median: 16, sigma: 0 } } })
      const reply = yield* ask(baseUrls, "codex", "Write a parser", { maxOutputTokens: 1_000 })
      expect(reply.json).toMatchObject({
        object: "response",
        status: "completed",
        error: null,
        incomplete_details: null,
        model: models.codex,
        output: [
          { type: "reasoning", summary: [] },
          {
            type: "message",
            role: "assistant",
            status: "completed",
            content: [{ type: "output_text", annotations: [] }]
          }
        ],
        usage: {
          input_tokens: 4,
          input_tokens_details: { cached_tokens: 0 },
          output_tokens_details: { reasoning_tokens: 16 }
        }
      })
      const usage = at(reply.json, "usage")
      expect(at(usage, "total_tokens")).toBe(numberAt(usage, "input_tokens") + numberAt(usage, "output_tokens"))
      const answer = textAt(reply.json, "output", 1, "content", 0, "text")
      expect(at(usage, "output_tokens")).toBe(16 + Math.ceil(answer.length / 4))
      expect(reply.headers.get("x-request-id")).toMatch(/^req_/)
    })
  )

  it.scoped("a stream has the events a client needs, in order, numbered, with the usage last", () =>
    Effect.gen(function* () {
      const { baseUrls } = yield* simulator({ codex: text(30) })
      const reply = yield* ask(baseUrls, "codex", "Write a parser", { stream: true })
      const sent = events(reply.text)
      const names = sent.map((event) => at(event, "type")).filter((type, index, all) => type !== all[index - 1])
      expect(names).toEqual([
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed"
      ])
      expect(sent.map((event) => at(event, "sequence_number"))).toEqual(sent.map((_, index) => index))
      expect(reply.text.match(/^event: /gm)).toHaveLength(sent.length)
      expect(at(sent, -1, "response", "usage", "output_tokens")).toBeGreaterThan(0)
    })
  )

  it.scoped("an answer cut by max_output_tokens is incomplete, and never longer", () =>
    Effect.gen(function* () {
      const { baseUrls } = yield* simulator({ codex: text(500) })
      const whole = yield* ask(baseUrls, "codex", "Write a lot", { maxOutputTokens: 20 })
      expect(whole.json).toMatchObject({
        status: "incomplete",
        incomplete_details: { reason: "max_output_tokens" },
        usage: { output_tokens: 20 }
      })
      const stream = yield* ask(baseUrls, "codex", "Write a lot", { maxOutputTokens: 20, stream: true })
      expect(events(stream.text).at(-1)).toMatchObject({
        type: "response.incomplete",
        response: { status: "incomplete" }
      })
    })
  )

  it.scoped("calls a tool when it is asked to, whole and streamed", () =>
    Effect.gen(function* () {
      const { baseUrls } = yield* simulator()
      const body = {
        model: models.codex,
        input: [{ role: "user", content: [{ type: "input_text", text: "Please call the tool for Oslo" }] }],
        tools: [{ type: "function", ...weather }]
      }
      const whole = yield* send(`${baseUrls.codex}/responses`, { body })
      const item = at(whole.json, "output", -1)
      expect(item).toMatchObject({ type: "function_call", name: "get_weather" })
      expect(at(item, "call_id")).toMatch(/^call_/)
      expect(JSON.parse(textAt(item, "arguments"))).toEqual({
        city: "Please call the tool for Oslo",
        days: 2,
        unit: "C"
      })
      const stream = yield* send(`${baseUrls.codex}/responses`, { body: { ...body, stream: true } })
      const sent = events(stream.text)
      const deltas = sent.filter((event) => at(event, "type") === "response.function_call_arguments.delta")
      expect(deltas.map((event) => at(event, "delta")).join("")).toBe(at(item, "arguments"))
      expect(at(sent, -1, "response", "output", -1)).toMatchObject({
        type: "function_call",
        arguments: at(item, "arguments")
      })
      const without = yield* send(`${baseUrls.codex}/responses`, { body: { ...body, tool_choice: "none" } })
      expect(at(without.json, "output", -1, "type")).toBe("message")
    })
  )

  it.scoped("answers JSON of a schema", () =>
    Effect.gen(function* () {
      const { baseUrls } = yield* simulator()
      const reply = yield* send(`${baseUrls.codex}/responses`, {
        body: {
          model: models.codex,
          input: "Invent a person",
          text: { format: { type: "json_schema", name: "person", schema: person } }
        }
      })
      const value: unknown = JSON.parse(textAt(reply.json, "output", -1, "content", 0, "text"))
      expect(value).toEqual({
        name: expect.stringContaining("Simulated"),
        age: expect.any(Number),
        tags: [expect.any(String), expect.any(String)],
        address: { street: expect.any(String) }
      })
    })
  )

  it.scoped("speaks Chat Completions as well, and lists its models", () =>
    Effect.gen(function* () {
      const { baseUrls } = yield* simulator()
      const chat = yield* send(`${baseUrls.codex}/chat/completions`, {
        body: { model: models.codex, messages: [{ role: "user", content: "hello" }] }
      })
      expect(at(chat.json, "object")).toBe("chat.completion")
      const list = yield* send(`${baseUrls.codex}/models`)
      expect(at(list.json, "object")).toBe("list")
      expect(at(list.json, "data", 0)).toMatchObject({ id: models.codex, object: "model" })
      expect(at((yield* send(`${baseUrls.codex}/models/${models.codex}`)).json, "id")).toBe(models.codex)
    })
  )

  it.scoped("refuses a WebSocket so that clients fall back to HTTP", () =>
    Effect.gen(function* () {
      const { baseUrls, port } = yield* simulator()
      const status = yield* Effect.async<number | undefined>((resume) => {
        import("node:http").then(({ request }) => {
          request(`${baseUrls.codex}/responses`, {
            port,
            headers: {
              connection: "Upgrade",
              upgrade: "websocket",
              "sec-websocket-key": "x",
              "sec-websocket-version": "13"
            }
          })
            .on("response", (response) => {
              response.resume()
              resume(Effect.succeed(response.statusCode))
            })
            .end()
        })
      })
      expect(status).toBe(426)
    })
  )
})

describe("OpenAI Chat Completions", () => {
  it.scoped("a whole answer", () =>
    Effect.gen(function* () {
      const { baseUrls } = yield* simulator({ qwen: text(40) })
      const reply = yield* ask(baseUrls, "qwen", "Write a test", { maxOutputTokens: 1_000 })
      expect(reply.json).toMatchObject({
        object: "chat.completion",
        model: models.qwen,
        choices: [{ index: 0, message: { role: "assistant" }, finish_reason: "stop" }],
        usage: { prompt_tokens: 3, prompt_tokens_details: { cached_tokens: 0 } }
      })
      const usage = at(reply.json, "usage")
      expect(at(usage, "total_tokens")).toBe(numberAt(usage, "prompt_tokens") + numberAt(usage, "completion_tokens"))
    })
  )

  it.scoped("a stream ends with finish, usage where it was asked for, and [DONE]", () =>
    Effect.gen(function* () {
      const { baseUrls } = yield* simulator({ synthetic: text(40) })
      const whole = yield* ask(baseUrls, "synthetic", "Write a test")
      const sent = events((yield* ask(baseUrls, "synthetic", "Write a test", { stream: true })).text)
      expect(sent.at(-1)).toBe("[DONE]")
      expect(sent.at(-2)).toMatchObject({ choices: [], usage: at(whole.json, "usage") })
      expect(at(sent, -3, "choices", 0)).toMatchObject({ delta: {}, finish_reason: "stop" })
      expect(at(sent, 0, "choices", 0, "delta")).toEqual({ role: "assistant", content: "" })
      const without = yield* send(`${baseUrls.synthetic}/chat/completions`, {
        body: { model: models.synthetic, messages: [{ role: "user", content: "Write a test" }], stream: true }
      })
      expect(without.text).not.toContain("usage")
    })
  )

  it.scoped("cuts by max_tokens, calls tools, answers JSON", () =>
    Effect.gen(function* () {
      const { baseUrls } = yield* simulator({ qwen: text(500) })
      const url = `${baseUrls.qwen}/chat/completions`
      const cut = yield* ask(baseUrls, "qwen", "Write a lot", { maxOutputTokens: 12 })
      expect(cut.json).toMatchObject({ choices: [{ finish_reason: "length" }], usage: { completion_tokens: 12 } })

      const tools = [{ type: "function", function: weather }]
      const messages = [{ role: "user", content: "Call the tool get_weather" }]
      const called = yield* send(url, { body: { model: models.qwen, messages, tools } })
      const choice = at(called.json, "choices", 0)
      expect(choice).toMatchObject({ finish_reason: "tool_calls", message: { content: null } })
      expect(at(choice, "message", "tool_calls", 0)).toMatchObject({
        type: "function",
        function: { name: "get_weather" }
      })
      const streamed = events((yield* send(url, { body: { model: models.qwen, messages, tools, stream: true } })).text)
      const parts = streamed.flatMap((event) => maybeAt(event, "choices", 0, "delta", "tool_calls") ?? [])
      expect(parts[0]).toMatchObject({ index: 0, function: { name: "get_weather" } })
      expect(parts.map((part) => at(part, "function", "arguments")).join("")).toBe(
        at(choice, "message", "tool_calls", 0, "function", "arguments")
      )

      const forced = yield* send(url, {
        body: { model: models.qwen, messages: [{ role: "user", content: "hi" }], tools, tool_choice: "required" }
      })
      expect(at(forced.json, "choices", 0, "finish_reason")).toBe("tool_calls")

      const json = (content: string) =>
        send(url, {
          body: { model: models.qwen, messages: [{ role: "user", content }], response_format: { type: "json_object" } }
        })
      const spoken = yield* json("Answer as JSON")
      expect(JSON.parse(textAt(spoken.json, "choices", 0, "message", "content"))).toMatchObject({
        simulated: true
      })
      const silent = yield* json("Answer")
      expect(silent.status).toBe(400)
      expect(at(silent.json, "error", "message")).toContain("must contain the word 'json'")
    })
  )

  it.scoped("counts images and every text of the input, and caches long prompts", () =>
    Effect.gen(function* () {
      const { baseUrls } = yield* simulator()
      const content = [
        { type: "text", text: "x".repeat(8_000) },
        { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } }
      ]
      const reply = yield* send(`${baseUrls.qwen}/chat/completions`, {
        body: {
          model: models.qwen,
          messages: [
            { role: "system", content: "be brief" },
            { role: "user", content }
          ]
        }
      })
      expect(at(reply.json, "usage", "prompt_tokens")).toBe(2_000 + 2 + 765)
      expect(at(reply.json, "usage", "prompt_tokens_details", "cached_tokens")).toBe(1_280)
    })
  )
})

describe("Gemini", () => {
  it.scoped("a whole answer, whose thoughts are not among its candidates' tokens", () =>
    Effect.gen(function* () {
      const { baseUrls } = yield* simulator({ gemini: { ...text(40), reasoningTokens: { median: 9, sigma: 0 } } })
      const reply = yield* ask(baseUrls, "gemini", "Document this", { maxOutputTokens: 1_000 })
      expect(reply.json).toMatchObject({
        candidates: [{ content: { role: "model" }, finishReason: "STOP", index: 0 }],
        modelVersion: models.gemini,
        usageMetadata: { promptTokenCount: 4, thoughtsTokenCount: 9 }
      })
      const usage = at(reply.json, "usageMetadata")
      expect(at(usage, "totalTokenCount")).toBe(
        numberAt(usage, "promptTokenCount") +
          numberAt(usage, "candidatesTokenCount") +
          numberAt(usage, "thoughtsTokenCount")
      )
      expect([...reply.headers.keys()].filter((name) => name.startsWith("x-ratelimit"))).toEqual([])
    })
  )

  it.scoped("a stream of events, or of one JSON array", () =>
    Effect.gen(function* () {
      const { baseUrls } = yield* simulator({ gemini: text(40) })
      const reply = yield* ask(baseUrls, "gemini", "Document this", { stream: true })
      const sent = events(reply.text)
      expect(reply.text).toMatch(/\r\n\r\n$/)
      expect(sent.slice(0, -1).every((event) => at(event, "candidates", 0, "finishReason") === undefined)).toBe(true)
      expect(sent.at(-1)).toMatchObject({
        candidates: [{ finishReason: "STOP" }],
        usageMetadata: { candidatesTokenCount: expect.any(Number) }
      })
      const array = yield* send(`${baseUrls.gemini}/models/${models.gemini}:streamGenerateContent`, {
        body: { contents: [{ parts: [{ text: "Document this" }] }] }
      })
      expect(array.json).toEqual(sent)
    })
  )

  it.scoped("cuts by maxOutputTokens, calls functions, answers JSON, counts tokens, lists models", () =>
    Effect.gen(function* () {
      const { baseUrls } = yield* simulator({ gemini: text(500) })
      const url = `${baseUrls.gemini}/models/${models.gemini}`
      const cut = yield* ask(baseUrls, "gemini", "Write a lot", { maxOutputTokens: 12 })
      expect(cut.json).toMatchObject({
        candidates: [{ finishReason: "MAX_TOKENS" }],
        usageMetadata: { candidatesTokenCount: 12 }
      })
      const contents = [{ role: "user", parts: [{ text: "Call the function get_weather" }] }]
      const tools = [{ functionDeclarations: [weather] }]
      const called = yield* send(`${url}:generateContent`, { body: { contents, tools } })
      expect(at(called.json, "candidates", 0, "content", "parts")).toEqual([
        {
          functionCall: {
            id: expect.any(String),
            name: "get_weather",
            args: { city: "Call the function get_weather", days: 2, unit: "C" }
          }
        }
      ])
      const streamed = yield* send(`${url}:streamGenerateContent?alt=sse`, { body: { contents, tools } })
      expect(at(events(streamed.text), -1, "candidates", 0, "content")).toEqual(
        at(called.json, "candidates", 0, "content")
      )
      const json = yield* send(`${url}:generateContent`, {
        body: {
          contents: [{ parts: [{ text: "Invent" }] }],
          generation_config: {
            responseMimeType: "application/json",
            responseSchema: { type: "OBJECT", properties: { ok: { type: "BOOLEAN" } }, required: ["ok"] }
          }
        }
      })
      expect(JSON.parse(textAt(json.json, "candidates", 0, "content", "parts", 0, "text"))).toEqual({ ok: true })
      const count = yield* send(`${url}:countTokens`, { body: { contents: [{ parts: [{ text: "twelve chars" }] }] } })
      expect(count.json).toEqual({ totalTokens: 3 })
      const list = yield* send(`${baseUrls.gemini}/models`)
      expect(at(list.json, "models", 0)).toMatchObject({
        name: `models/${models.gemini}`,
        supportedGenerationMethods: expect.arrayContaining(["generateContent"])
      })
    })
  )

  it.scoped("takes the key from the query too", () =>
    Effect.gen(function* () {
      const { baseUrls } = yield* simulator({ gemini: { apiKey: "right" } })
      expect((yield* send(`${baseUrls.gemini}/models?key=right`, { key: null })).status).toBe(200)
      expect((yield* send(`${baseUrls.gemini}/models?key=wrong`, { key: null })).status).toBe(400)
    })
  )
})

describe("Synthetic", () => {
  it.scoped("tells its quotas in the live shape", () =>
    Effect.gen(function* () {
      const limits = {
        requests: [{ limit: 4, windowMs: 18_000_000 }],
        credits: [{ limitUsd: 24, windowMs: 604_800_000 }]
      }
      const running = yield* simulator({ synthetic: { limits } })
      for (let call = 0; call < 3; call++) yield* ask(running.baseUrls, "synthetic", `call ${call}`)
      const quotas = () => send(running.quotasUrl ?? "")
      expect((yield* quotas()).json).toMatchObject({
        subscription: { limit: 4, requests: 3, renewsAt: expect.any(String) },
        weeklyTokenLimit: {
          percentRemaining: 99.99,
          maxCredits: "$24.00",
          remainingCredits: "$23.99",
          nextRegenCredits: "$0.48",
          nextRegenAt: expect.any(String)
        },
        rollingFiveHourLimit: {
          remaining: 1,
          max: 4,
          limited: false,
          tickPercent: 0.05,
          nextTickAt: expect.any(String)
        }
      })
      yield* ask(running.baseUrls, "synthetic", "the last")
      const used = at((yield* quotas()).json, "rollingFiveHourLimit")
      expect(used).toMatchObject({ remaining: 0, limited: true })
      expect(Date.parse(textAt(used, "nextTickAt"))).toBe(18_000_000)
      expect((yield* running.stats).platforms.synthetic).toMatchObject({ received: 4, otherRequests: 2 })
    })
  )

  it.scoped("gives requests back a twentieth at a time, when its quotas say so", () =>
    Effect.gen(function* () {
      const running = yield* simulator({ synthetic: { limits: { requests: [{ limit: 40, windowMs: 18_000_000 }] } } })
      const status = (name: string) => Effect.map(ask(running.baseUrls, "synthetic", name), (reply) => reply.status)
      for (let call = 0; call < 40; call++) {
        expect(yield* status(`call ${call}`)).toBe(200)
        yield* TestClock.adjust("1 minute")
      }
      const rolling = () => Effect.map(send(running.quotasUrl ?? ""), (reply) => at(reply.json, "rollingFiveHourLimit"))
      // Two of forty: the second call was made a minute after the start.
      const tickMs = 18_000_000 + 60_000
      expect(Date.parse(textAt(yield* rolling(), "nextTickAt"))).toBe(tickMs)
      yield* TestClock.setTime(tickMs - 1)
      expect(numberAt(yield* rolling(), "remaining")).toBe(1)
      yield* TestClock.setTime(tickMs)
      expect(numberAt(yield* rolling(), "remaining")).toBe(2)
      expect([yield* status("a"), yield* status("b"), yield* status("c")]).toEqual([200, 200, 429])
    })
  )

  it.scoped("says nothing of limits that it does not have", () =>
    Effect.gen(function* () {
      const running = yield* simulator({ synthetic: { limits: { requests: [{ limit: 4, windowMs: 60_000 }] } } })
      const { json } = yield* send(running.quotasUrl ?? "")
      expect(json).toMatchObject({ search: { hourly: { limit: 250 } } })
      expect(json).not.toHaveProperty("rollingFiveHourLimit")
      expect(json).not.toHaveProperty("subscription")
      expect(json).not.toHaveProperty("weeklyTokenLimit")
    })
  )
})
