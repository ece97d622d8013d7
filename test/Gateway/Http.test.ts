import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Random, Redacted, TestClock } from "effect"
import { TenantId } from "../../src/Domain/Task.js"
import { ResourceManager } from "../../src/ResourceManager.js"
import * as Testing from "../../src/Testing.js"

const { answer, fail, failures } = Testing

const path = "/v1/chat/completions"
const hello = { model: "codex", messages: [{ role: "user", content: "Hello" }] }

interface Answered {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  readonly json: unknown
}

const ask = (body: unknown, headers: Readonly<Record<string, string>> = {}) =>
  Effect.gen(function* () {
    const { fetch } = yield* Testing.MemoryHttp
    return yield* Effect.promise(async (): Promise<Answered> => {
      const response = await fetch(path, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body: typeof body === "string" ? body : JSON.stringify(body)
      })
      const text = await response.text()
      const isJson = response.headers.get("content-type")?.startsWith("application/json") === true
      return { status: response.status, headers: response.headers, text, json: isJson ? JSON.parse(text) : undefined }
    })
  })

/** The data of each event of a stream. */
const dataOf = (text: string): ReadonlyArray<unknown> =>
  text
    .split("\n\n")
    .filter((event) => event.startsWith("data: "))
    .map((event) => event.slice(6))
    .map((data): unknown => (data === "[DONE]" ? data : JSON.parse(data)))

const serve = <A, E>(
  scripts: ReadonlyArray<Testing.Script>,
  body: Effect.Effect<A, E, Testing.MemoryHttp | Testing.Received | ResourceManager>,
  options: Parameters<typeof Testing.layer>[1] = {}
) =>
  body.pipe(
    Effect.provide(Testing.MemoryHttp.layer()),
    Effect.provide(Testing.layer(scripts, options)),
    Effect.withRandom(Random.make("seed"))
  )

const usage = { inputTokens: 9, cachedInputTokens: 4, outputTokens: 5, reasoningTokens: 2 }
const chatUsage = {
  prompt_tokens: 9,
  completion_tokens: 5,
  total_tokens: 14,
  prompt_tokens_details: { cached_tokens: 4 },
  completion_tokens_details: { reasoning_tokens: 2 }
}
const look = { id: "1", name: "look", arguments: '{"at":"it"}' }

describe("POST /v1/chat/completions", () => {
  it.scoped("answers whole, as OpenAI does, and says who did", () =>
    serve(
      [{ id: "codex", attempts: [answer("Because.", { usage })] }],
      Effect.gen(function* () {
        const { headers, json, status } = yield* ask({ ...hello, a_field_of_tomorrow: { x: 1 }, top_p: 1, user: "me" })
        assert.strictEqual(status, 200)
        assert.strictEqual(headers.get("x-dream-team-platform"), "codex")
        assert.match(String(Reflect.get(Object(json), "id")), /^chatcmpl-[0-9a-f]{32}$/)
        assert.deepStrictEqual(
          { ...Object(json), id: "" },
          {
            id: "",
            object: "chat.completion",
            created: 0,
            model: "codex/codex-model",
            choices: [
              {
                index: 0,
                message: { role: "assistant", content: "Because.", refusal: null },
                logprobs: null,
                finish_reason: "stop"
              }
            ],
            usage: chatUsage
          }
        )
      })
    )
  )

  it.scoped("streams text and tool calls, usage in the last chunk of the answer or, asked for, in its own", () =>
    serve(
      [{ id: "codex", attempts: () => answer("Because.", { usage, toolCalls: [look] }) }],
      Effect.gen(function* () {
        const { headers, text } = yield* ask({ ...hello, stream: true })
        assert.strictEqual(headers.get("content-type"), "text/event-stream")
        assert.strictEqual(headers.get("x-dream-team-platform"), "codex")
        const chunks = dataOf(text)
        assert.strictEqual(chunks.at(-1), "[DONE]")
        const choices = chunks.slice(0, -1).map((chunk) => Object(chunk).choices[0])
        assert.deepStrictEqual(choices[0].delta, { role: "assistant", content: "" })
        assert.deepStrictEqual(choices[1].delta, { content: "Because." })
        const [toolCall] = choices[2].delta.tool_calls
        assert.deepStrictEqual(
          { ...toolCall, id: "" },
          { index: 0, id: "", type: "function", function: { name: "look", arguments: look.arguments } }
        )
        assert.deepStrictEqual(choices[3], { index: 0, delta: {}, logprobs: null, finish_reason: "tool_calls" })
        assert.deepStrictEqual(Object(chunks[3]).usage, chatUsage)
        assert.strictEqual(new Set(chunks.slice(0, -1).map((chunk) => Object(chunk).id)).size, 1)

        const own = dataOf((yield* ask({ ...hello, stream: true, stream_options: { include_usage: true } })).text)
        assert.deepStrictEqual(
          own.slice(0, 4).map((chunk) => Object(chunk).usage),
          [null, null, null, null]
        )
        assert.deepStrictEqual([Object(own[4]).choices, Object(own[4]).usage], [[], chatUsage])
      })
    )
  )

  it.scoped("understands what a router of Anthropic's messages sends", () =>
    serve(
      [{ id: "codex" }],
      Effect.gen(function* () {
        const { status } = yield* ask({
          model: "codex",
          max_tokens: 32_000,
          temperature: 1,
          tool_choice: "any",
          reasoning: { effort: "high", enabled: true },
          tools: [
            { type: "function", function: { name: "Read", description: "Reads", parameters: { type: "object" } } }
          ],
          messages: [
            { role: "system", content: [{ type: "text", text: "Be short.", cache_control: { type: "ephemeral" } }] },
            {
              role: "user",
              content: [
                { type: "text", text: "Read it", cache_control: { type: "ephemeral" } },
                { type: "image_url", image_url: { url: "data:image/png;base64,iVBORw0KGgo=" }, media_type: "image/png" }
              ]
            },
            { role: "assistant", content: "", thinking: { content: "hm", signature: "s" } },
            {
              role: "assistant",
              content: "",
              tool_calls: [{ id: "toolu_1", type: "function", function: { name: "Read", arguments: "{}" } }]
            },
            { role: "tool", tool_call_id: "toolu_1", content: "its text" },
            { role: "user", content: [{ type: "text", text: "Well?" }] }
          ]
        })
        assert.strictEqual(status, 200)
        const [received] = yield* Effect.flatMap(Testing.Received, ({ calls }) => calls)
        const call = received?.call
        assert.strictEqual(call?.system, "Be short.")
        assert.strictEqual(call?.toolChoice, "required")
        assert.strictEqual(call?.maxOutputTokens, 32_000)
        assert.deepStrictEqual(call?.messages.slice(1), [
          { role: "assistant", content: "", toolCalls: [{ id: "toolu_1", name: "Read", arguments: "{}" }] },
          { role: "tool", toolCallId: "toolu_1", name: "Read", content: "its text" },
          { role: "user", content: [{ type: "text", text: "Well?" }] }
        ])
      })
    )
  )

  it.scoped("refuses what would change the meaning, and what cannot be read, in OpenAI's shape", () =>
    serve(
      [{ id: "codex" }],
      Effect.gen(function* () {
        const cases: ReadonlyArray<readonly [unknown, number, string | null, string | null]> = [
          [{ ...hello, n: 2 }, 400, "n", "unsupported_parameter"],
          [{ ...hello, stop: ["x"] }, 400, "stop", "unsupported_parameter"],
          [{ ...hello, logprobs: true }, 400, "logprobs", "unsupported_parameter"],
          [{ ...hello, functions: [{ name: "f" }] }, 400, "functions", "unsupported_parameter"],
          [{ ...hello, modalities: ["text", "audio"] }, 400, "modalities", "unsupported_parameter"],
          [{ ...hello, messages: [] }, 400, "messages.0", null],
          [{ ...hello, messages: [{ role: "system", content: "x" }] }, 400, "messages", "invalid_value"],
          [{ ...hello, temperature: 3 }, 400, "temperature", null],
          [{ ...hello, model: "gpt-9" }, 404, "model", "model_not_found"],
          [{ ...hello, model: "codex#bad tag" }, 404, "model", "model_not_found"],
          [
            { ...hello, messages: [{ role: "tool", tool_call_id: "call_9", content: "x" }] },
            400,
            "messages.0.tool_call_id",
            "invalid_value"
          ],
          [
            { ...hello, messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "ftp://x" } }] }] },
            400,
            "messages.0.content.0.image_url",
            "invalid_image"
          ],
          ["{", 400, null, null]
        ]
        for (const [body, status, param, code] of cases) {
          const answered = yield* ask(body)
          const shown = JSON.stringify(body)
          assert.strictEqual(answered.status, status, shown)
          const { error } = Object(answered.json)
          assert.deepStrictEqual([error.type, error.param, error.code], ["invalid_request_error", param, code], shown)
          assert.isNotEmpty(error.message)
        }
        // what asks for nothing more than an answer is no matter
        assert.strictEqual((yield* ask({ ...hello, n: 1, stop: null, logprobs: false, logit_bias: {} })).status, 200)
        const received = yield* Effect.flatMap(Testing.Received, ({ calls }) => calls)
        assert.strictEqual(received.length, 1)
      })
    )
  )

  it.scoped("has OpenAI's errors at the doors too", () =>
    serve(
      [{ id: "codex" }],
      Effect.gen(function* () {
        const { fetch } = yield* Testing.MemoryHttp
        const stranger = yield* ask(hello)
        assert.strictEqual(stranger.status, 401)
        assert.deepStrictEqual(Object(stranger.json).error.code, "invalid_api_key")
        const authorization = "Bearer alice-key"
        assert.strictEqual((yield* ask(hello, { authorization })).status, 200)
        const foreign = yield* ask(hello, { authorization, origin: "https://elsewhere.test" })
        assert.deepStrictEqual([foreign.status, Object(foreign.json).error.type], [403, "invalid_request_error"])
        const large = yield* ask({ ...hello, user: "x".repeat(5_000) }, { authorization })
        assert.deepStrictEqual([large.status, Object(large.json).error.code], [413, "request_too_large"])
        const plain = yield* ask(hello, { authorization, "content-type": "text/plain" })
        assert.deepStrictEqual([plain.status, Object(plain.json).error.code], [415, "unsupported_media_type"])
        const wrong = yield* Effect.promise(() => fetch(path, { headers: { authorization } }))
        assert.strictEqual(wrong.status, 405)
        assert.strictEqual(wrong.headers.get("allow"), "POST")
      }),
      { apiKeys: [{ tenant: TenantId.make("alice"), key: Redacted.make("alice-key") }], maxBodyBytes: 4_000 }
    )
  )

  it.scoped("tells why nobody answers: 429 with the time to wait, 400, 502, 503", () =>
    serve(
      [
        { id: "empty", attempts: [fail(failures.quota({ reason: "window", resetsAt: 3_600_000 }))] },
        { id: "strict", attempts: [fail(failures.policy()), fail(failures.context())] },
        { id: "locked", attempts: [fail(failures.credential())] },
        { id: "codex" }
      ],
      Effect.gen(function* () {
        const codeOf = (model: string, stream: boolean) =>
          Effect.map(ask({ ...hello, model, stream }), ({ headers, json, status }) => [
            status,
            Object(json).error.code,
            headers.get("retry-after")
          ])
        assert.deepStrictEqual(yield* codeOf("empty", false), [429, "rate_limit_exceeded", "3600"])
        assert.deepStrictEqual(yield* codeOf("empty", true), [429, "rate_limit_exceeded", "3600"])
        assert.deepStrictEqual(yield* codeOf("strict", true), [400, "content_policy_violation", null])
        assert.deepStrictEqual(yield* codeOf("strict", false), [400, "context_length_exceeded", null])
        const long = yield* ask({ ...hello, messages: [{ role: "user", content: "x".repeat(1_000_000) }] })
        assert.deepStrictEqual([long.status, Object(long.json).error.code], [400, "context_length_exceeded"])
        assert.deepStrictEqual(yield* codeOf("locked", true), [503, "no_platform_available", null])
      })
    )
  )

  it.scoped("ends a stream that breaks off with an error, and without the sign that it is whole", () =>
    serve(
      [{ id: "codex", attempts: [fail(failures.platform(), { text: "Bec", afterMs: 100 })] }],
      Effect.gen(function* () {
        const fiber = yield* Effect.fork(ask({ ...hello, stream: true }))
        yield* TestClock.adjust(0)
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
        yield* TestClock.adjust(100)
        const { status, text } = yield* Fiber.join(fiber)
        assert.strictEqual(status, 200)
        const data = dataOf(text)
        assert.strictEqual(Object(data.at(-1)).error.code, "answer_broken")
        assert.notInclude(text, "[DONE]")
        const { platforms } = yield* Effect.flatMap(ResourceManager, ({ view }) => view)
        assert.isTrue(platforms.every(({ permits }) => permits.inUse === 0))
      })
    )
  )

  it.scoped("asks for one tool at most where parallel calls are not wanted", () =>
    serve(
      [{ id: "codex", attempts: () => answer("", { toolCalls: [look, { ...look, id: "2" }] }) }],
      Effect.gen(function* () {
        const one = { ...hello, parallel_tool_calls: false }
        const whole = yield* ask(one)
        assert.strictEqual(Object(whole.json).choices[0].message.tool_calls.length, 1)
        assert.strictEqual(Object(whole.json).choices[0].message.content, null)
        const streamed = yield* ask({ ...one, stream: true })
        assert.strictEqual(streamed.text.match(/tool_calls":\[/g)?.length, 1)
      })
    )
  )

  it.scoped("lists the names of models", () =>
    serve(
      [{ id: "codex" }, { id: "gemini" }],
      Effect.gen(function* () {
        const { client } = yield* Testing.MemoryHttp
        const { data, object } = yield* client.gateway.models({})
        assert.strictEqual(object, "list")
        assert.includeMembers(
          data.map(({ id }) => id),
          ["auto", "codex", "codex/codex-model", "gemini"]
        )
      })
    )
  )
})
