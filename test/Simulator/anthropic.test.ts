import { describe, expect, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
import { Simulator } from "../../src/Simulator.js"
import { at, events, maybeAt, send } from "./support.js"

const options = {
  ...Simulator.instant,
  keepRequests: 2,
  platforms: { ...Simulator.instant.platforms, anthropic: Simulator.anthropic }
}
const model = "claude-opus-5-5"
const body = (text: string, more: object = {}) => ({
  model,
  max_tokens: 1_000,
  system: [{ type: "text", text: "Be brief." }],
  messages: [
    { role: "user", content: [{ type: "text", text: "<system-reminder>call the tool</system-reminder>" }] },
    { role: "system", content: "# Environment" },
    { role: "assistant", content: [{ type: "thinking", thinking: "hm", signature: "s" }] },
    { role: "user", content: [{ type: "text", text, cache_control: { type: "ephemeral" } }] }
  ],
  ...more
})
const tools = [
  {
    name: "Read",
    description: "Reads a file",
    input_schema: { type: "object", properties: { file_path: { type: "string" } }, required: ["file_path"] }
  },
  { type: "web_search_20250305", name: "web_search" }
]

const running = Effect.map(Simulator.make(options), (simulator) => {
  const base = simulator.baseUrls.anthropic
  return {
    simulator,
    base,
    ask: (text: string, more: object = {}) => send(`${base}/v1/messages?beta=true`, { body: body(text, more) })
  }
})

describe("the simulated Anthropic", () => {
  it.scoped("answers whole, and as a stream of the same", () =>
    Effect.gen(function* () {
      const { ask } = yield* running
      const whole = yield* ask("how are you?")
      expect(whole.status).toBe(200)
      expect(whole.json).toMatchObject({
        type: "message",
        role: "assistant",
        model,
        stop_reason: "end_turn",
        content: [{ type: "text", text: expect.stringContaining("to: how are you?") }],
        usage: { cache_creation_input_tokens: 0 }
      })
      const streamed = events((yield* ask("how are you?", { stream: true })).text)
      const types = streamed.map((event) => at(event, "type"))
      expect(new Set(types)).toEqual(
        new Set([
          "message_start",
          "content_block_start",
          "ping",
          "content_block_delta",
          "content_block_stop",
          "message_delta",
          "message_stop"
        ])
      )
      expect(types.at(-1)).toBe("message_stop")
      expect(streamed.map((event) => maybeAt(event, "delta", "text") ?? "").join("")).toBe(
        at(whole.json, "content", 0, "text")
      )
      const usage = at(streamed[types.indexOf("message_delta")], "usage")
      expect(usage).toEqual(at(whole.json, "usage"))
    })
  )

  it.scoped("calls tools, whole and streamed", () =>
    Effect.gen(function* () {
      const { ask } = yield* running
      const whole = yield* ask("call the tool Read", { tools })
      const call = at(whole.json, "content", 0)
      expect(call).toMatchObject({ type: "tool_use", name: "Read", input: { file_path: expect.any(String) } })
      expect(at(whole.json, "stop_reason")).toBe("tool_use")
      const streamed = events((yield* ask("call the tool Read", { tools, stream: true })).text)
      const json = streamed.map((event) => maybeAt(event, "delta", "partial_json") ?? "").join("")
      expect(JSON.parse(json)).toEqual(at(call, "input"))
      expect(
        at(yield* ask("hello", { tools, tool_choice: { type: "tool", name: "Read" } }), "json", "stop_reason")
      ).toBe("tool_use")
      const answered = yield* ask("", {
        tools,
        messages: [
          { role: "user", content: "call the tool Read" },
          { role: "assistant", content: [call] },
          { role: "user", content: [{ type: "tool_result", tool_use_id: at(call, "id"), content: "the file" }] }
        ]
      })
      expect(at(answered.json, "stop_reason")).toBe("end_turn")
    })
  )

  it.scoped("counts tokens, lists models and refuses in its own shape", () =>
    Effect.gen(function* () {
      const { ask, base } = yield* running
      const counted = yield* send(`${base}/v1/messages/count_tokens`, {
        body: { model, messages: [{ role: "user", content: "a text of 24 characters." }] }
      })
      expect(counted.json).toEqual({ input_tokens: 6 })
      expect((yield* send(`${base}/v1/models`)).json).toMatchObject({ data: [{ type: "model", id: model }, {}, {}] })
      expect((yield* send(`${base}/v1/models`, { key: null, headers: { "x-api-key": "key" } })).status).toBe(200)

      const unknown = yield* ask("hello", { model: "gpt-6" })
      expect([unknown.status, unknown.json]).toMatchObject([
        404,
        { type: "error", error: { type: "not_found_error" }, request_id: unknown.headers.get("request-id") }
      ])
      const nobody = yield* send(`${base}/v1/messages`, { key: null, body: body("hello") })
      expect([nobody.status, nobody.json]).toMatchObject([401, { error: { type: "authentication_error" } }])
      const broken = yield* send(`${base}/v1/messages`, { body: { model } })
      expect([broken.status, broken.json]).toMatchObject([400, { error: { type: "invalid_request_error" } }])
      expect((yield* send(`${base}/api/hello`)).status).toBe(404)
    })
  )

  it.scoped("has a subscription that is used as far as it is told, and says so in every answer", () =>
    Effect.gen(function* () {
      const { ask, simulator } = yield* running
      const told = (headers: Headers) =>
        Object.fromEntries(
          [...headers].flatMap(([name, value]) =>
            name.startsWith("anthropic-ratelimit-unified-") && !name.endsWith("reset")
              ? [[name.slice("anthropic-ratelimit-unified-".length), value]]
              : []
          )
        )
      expect(told((yield* ask("hello")).headers)).toEqual({
        status: "allowed",
        "representative-claim": "five_hour",
        "5h-status": "allowed",
        "5h-utilization": "0",
        "7d-status": "allowed",
        "7d-utilization": "0"
      })
      yield* simulator.subscription("anthropic", { seven_day: { utilization: 0.92 } })
      expect(told((yield* ask("hello")).headers)).toMatchObject({
        status: "allowed_warning",
        "representative-claim": "seven_day",
        "7d-surpassed-threshold": "0.9"
      })

      const changed = yield* send(`${simulator.url}/__subscription`, {
        body: { platform: "anthropic", five_hour: { utilization: 1, resetsInMs: 2_000 } }
      })
      expect(changed.json).toMatchObject({ anthropic: { five_hour: { status: "rejected" } } })
      const refused = yield* ask("hello")
      expect([refused.status, refused.json]).toMatchObject([429, { error: { type: "rate_limit_error" } }])
      expect(refused.headers.get("x-should-retry")).toBe("false")
      expect(told(refused.headers)).toMatchObject({ status: "rejected", "representative-claim": "five_hour" })
      expect(refused.headers.get("anthropic-ratelimit-unified-reset")).toBe("2")
      expect((yield* simulator.stats).platforms.anthropic).toMatchObject({ refusedBySubscription: 1, answered: 2 })

      yield* TestClock.adjust(2_000)
      const after = yield* ask("hello")
      expect([after.status, told(after.headers)["5h-utilization"]]).toEqual([200, "0"])

      const wrong = yield* send(`${simulator.url}/__subscription`, { body: { platform: "codex" } })
      expect([wrong.status, maybeAt(wrong.json, "error", "details", "problems", 0, "problem")]).toEqual([
        400,
        "expected one of: anthropic"
      ])
    })
  )

  it.scoped("keeps the newest requests that it admitted, of every platform", () =>
    Effect.gen(function* () {
      const { ask, simulator } = yield* running
      yield* ask("one")
      yield* ask("two")
      const input = { model: "gpt-6-sol", input: "three" }
      yield* send(`${simulator.baseUrls.codex}/responses`, { body: input })
      yield* ask("nobody", { model: "gpt-6" })
      expect(yield* simulator.requests).toMatchObject([
        { platform: "anthropic", model, body: { messages: [{}, {}, {}, { content: [{ text: "two" }] }] } },
        { platform: "codex", model: "gpt-6-sol", body: input }
      ])
      const listed = yield* send(`${simulator.url}/__requests?platform=codex`)
      expect(listed.json).toMatchObject({ requests: [{ body: input }] })
    })
  )
})
