import { createServer, type OutgoingHttpHeaders, type Server, type ServerResponse } from "node:http"
import { createServer as createTcpServer, type Socket } from "node:net"
import { HttpClient } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Chunk, Context, Deferred, Effect, Either, Exit, Fiber, Layer, Option, Stream, TestClock } from "effect"
import type { Call, Delta } from "../../src/Domain/Call.js"
import type { AttemptFailure } from "../../src/Domain/Failure.js"
import { layer as transportLayer } from "../../src/Platforms/Transport.js"
import { Platforms } from "../../src/Platforms.js"
import { Settings } from "../../src/Settings.js"
import {
  apiKey,
  clientOf,
  eventStream,
  type Known,
  manualBody,
  pieces,
  type ScriptedReply,
  scripted,
  settle,
  sse
} from "./scripted.js"

const call: Call = { messages: [{ role: "user", content: "what is 2+2" }] }
const usage = { inputTokens: 100, cachedInputTokens: 20, outputTokens: 10, reasoningTokens: 3 }

const chatUsage = {
  prompt_tokens: 100,
  completion_tokens: 10,
  prompt_tokens_details: { cached_tokens: 20 },
  completion_tokens_details: { reasoning_tokens: 3 }
}
const chatChunk = (delta: object, finish_reason: string | null = null) => ({
  id: "c",
  object: "chat.completion.chunk",
  model: "qwen3.8-max",
  choices: [{ index: 0, delta, finish_reason }],
  usage: null
})
const chat = [
  chatChunk({ role: "assistant", content: "" }),
  chatChunk({ reasoning_content: "two and two" }),
  chatChunk({ content: "Die Lösung: " }),
  chatChunk({ content: "4 ✅ 🎉" }),
  chatChunk({ tool_calls: [{ index: 0, id: "call_9", type: "function", function: { name: "add", arguments: "" } }] }),
  chatChunk({ tool_calls: [{ index: 0, id: "", function: { arguments: '{"a"' } }] }),
  chatChunk({ tool_calls: [{ index: 0, function: { arguments: ":2}" } }] }),
  chatChunk({ tool_calls: [{ index: 1, id: "call_10", function: { name: "stop", arguments: "{}" } }] }),
  chatChunk({}, "tool_calls"),
  { model: "qwen3.8-max", choices: [], usage: chatUsage },
  "[DONE]"
]
const responses = [
  { type: "response.created", response: { id: "r", status: "in_progress", model: "gpt-6-sol", usage: null } },
  { type: "response.in_progress", response: {} },
  { type: "response.output_item.added", output_index: 0, item: { type: "message", content: [] } },
  { type: "response.output_text.delta", delta: "Die Lösung: " },
  { type: "response.output_text.delta", delta: "4 ✅ 🎉" },
  { type: "response.output_text.done", text: "Die Lösung: 4 ✅ 🎉" },
  { type: "response.output_item.done", item: { type: "message", content: [] } },
  { type: "response.function_call_arguments.delta", delta: '{"a"' },
  {
    type: "response.output_item.done",
    item: { type: "function_call", call_id: "call_9", name: "add", arguments: '{"a":2}' }
  },
  {
    type: "response.output_item.done",
    item: { type: "function_call", call_id: "call_10", name: "stop", arguments: "{}" }
  },
  { type: "response.some_new_event", anything: true },
  {
    type: "response.completed",
    response: {
      status: "completed",
      model: "gpt-6-sol",
      output: [],
      usage: {
        input_tokens: 100,
        input_tokens_details: { cached_tokens: 20 },
        output_tokens: 10,
        output_tokens_details: { reasoning_tokens: 3 }
      }
    }
  }
]
const geminiChunk = (parts: ReadonlyArray<object>, rest: object = {}) => ({
  candidates: [{ content: { role: "model", parts }, index: 0, ...rest }],
  usageMetadata: { promptTokenCount: 100, totalTokenCount: 100 },
  modelVersion: "gemini-3.8-flash"
})
const gemini = [
  geminiChunk([{ text: "hm", thought: true }]),
  geminiChunk([{ text: "Die Lösung: " }]),
  geminiChunk([{ text: "4 ✅ 🎉" }]),
  geminiChunk([
    { functionCall: { id: "call_9", name: "add", args: { a: 2 } } },
    { functionCall: { id: "call_10", name: "stop" } }
  ]),
  {
    ...geminiChunk([], { finishReason: "STOP" }),
    usageMetadata: {
      promptTokenCount: 100,
      candidatesTokenCount: 7,
      thoughtsTokenCount: 3,
      cachedContentTokenCount: 20
    }
  }
]
const bodies: ReadonlyArray<readonly [Known, string, string]> = [
  ["codex", "gpt-6-sol", responses.map((event) => `event: ${event.type}\n${sse(event)}`).join("")],
  ["qwen", "qwen3.8-max", sse(...chat)],
  ["gemini", "gemini-3.8-flash", sse(...gemini)]
]

const collect = (id: Known, reply: ScriptedReply) =>
  Effect.gen(function* () {
    const http = scripted(reply)
    const client = yield* clientOf(id, http.layer)
    const deltas = Chunk.toReadonlyArray(yield* Stream.runCollect(client.stream("m", call)))
    return { deltas, request: http.received[0] }
  })

/** Text joined, as the pieces may be cut anywhere. */
const whole = (deltas: ReadonlyArray<Delta>) => ({
  text: deltas.map((delta) => (delta._tag === "Text" ? delta.text : "")).join(""),
  others: deltas.filter((delta) => delta._tag !== "Text")
})

const expected = (model: string) => ({
  text: "Die Lösung: 4 ✅ 🎉",
  others: [
    { _tag: "Start" as const, limits: [] },
    { _tag: "ToolCall" as const, toolCall: { id: "call_9", name: "add", arguments: '{"a":2}' } },
    { _tag: "ToolCall" as const, toolCall: { id: "call_10", name: "stop", arguments: "{}" } },
    { _tag: "Finish" as const, finishReason: "tool-calls" as const, model, usage }
  ]
})

describe("a streamed answer", () => {
  for (const [id, model, body] of bodies) {
    const bytes = new TextEncoder().encode(body)

    it.effect(`${id}: one piece`, () =>
      Effect.gen(function* () {
        const { deltas } = yield* collect(id, { headers: eventStream, body })
        assert.strictEqual(deltas[0]?._tag, "Start")
        assert.strictEqual(deltas.at(-1)?._tag, "Finish")
        assert.deepStrictEqual(whole(deltas), expected(model))
      })
    )

    it.effect(`${id}: byte by byte, through characters and lines`, () =>
      Effect.gen(function* () {
        const { deltas } = yield* collect(id, {
          headers: eventStream,
          body: pieces(Array.from(bytes, (byte) => Uint8Array.of(byte)))
        })
        assert.deepStrictEqual(whole(deltas), expected(model))
      })
    )

    it.effect(`${id}: cut in two anywhere, with each kind of line end`, () =>
      Effect.gen(function* () {
        for (const lineEnd of ["\n", "\r\n", "\r"]) {
          const text = `\uFEFF: hello${lineEnd}${body.replaceAll("\n", lineEnd)}`
          const other = new TextEncoder().encode(text)
          for (let cut = 1; cut < other.length; cut += 113) {
            const { deltas } = yield* collect(id, {
              headers: eventStream,
              body: pieces([other.slice(0, cut), other.slice(cut)])
            })
            assert.deepStrictEqual(whole(deltas), expected(model))
          }
        }
      })
    )

    it.effect(`${id}: cut off anywhere before its end, it fails and never finishes`, () =>
      Effect.gen(function* () {
        for (let cut = 0; cut < bytes.length - 40; cut += 97) {
          const http = scripted({ headers: eventStream, body: pieces([bytes.slice(0, cut)]) })
          const client = yield* clientOf(id, http.layer)
          const seen: Array<Delta> = []
          const failure = yield* client.stream("m", call).pipe(
            Stream.runForEach((delta) => Effect.sync(() => seen.push(delta))),
            Effect.flip
          )
          // A stream of Gemini's or of chat that lost nothing but its last line end is whole.
          assert.propertyVal(failure, "reason", "malformed", `cut at ${cut}`)
          assert.isFalse(seen.some((delta) => delta._tag === "Finish"))
        }
      })
    )
  }

  it.effect("what is asked", () =>
    Effect.gen(function* () {
      const codex = yield* collect("codex", { headers: eventStream, body: bodies[0]?.[2] ?? "" })
      assert.deepStrictEqual(codex.request?.body, {
        model: "m",
        input: [{ role: "user", content: "what is 2+2" }],
        store: false,
        stream: true
      })
      const qwen = yield* collect("qwen", { headers: eventStream, body: bodies[1]?.[2] ?? "" })
      assert.deepStrictEqual(qwen.request?.body, {
        model: "m",
        messages: [{ role: "user", content: "what is 2+2" }],
        stream: true,
        stream_options: { include_usage: true }
      })
      const google = yield* collect("gemini", { headers: eventStream, body: bodies[2]?.[2] ?? "" })
      assert.strictEqual(
        google.request?.url,
        "https://generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent?alt=sse"
      )
    })
  )

  it.effect("Start tells the limits of the headers", () =>
    Effect.gen(function* () {
      const { deltas } = yield* collect("codex", {
        headers: {
          ...eventStream,
          "x-ratelimit-limit-requests": "500",
          "x-ratelimit-remaining-requests": "499",
          "x-ratelimit-reset-requests": "120ms",
          "x-ratelimit-limit-tokens": "30000",
          "x-ratelimit-remaining-tokens": "29000.5",
          "x-ratelimit-reset-tokens": "6m0s"
        },
        body: bodies[0]?.[2] ?? ""
      })
      assert.deepStrictEqual(deltas[0], {
        _tag: "Start",
        limits: [
          { unit: "requests", windowMs: undefined, limit: 500, remaining: 499, resetsInMs: 120 },
          { unit: "tokens", windowMs: undefined, limit: 30_000, remaining: 29_000.5, resetsInMs: 360_000 }
        ]
      })
    })
  )

  it.effect("what came before a failure is given out first", () =>
    Effect.gen(function* () {
      const body = sse(chatChunk({ content: "So" }), { error: { message: "Broken", type: "server_error" } })
      const client = yield* clientOf("qwen", scripted({ headers: eventStream, body }).layer)
      const seen: Array<string> = []
      const exit = yield* client.stream("m", call).pipe(
        Stream.runForEach((delta) => Effect.sync(() => seen.push(delta._tag))),
        Effect.exit
      )
      assert.isTrue(Exit.isFailure(exit))
      assert.deepStrictEqual(seen, ["Start", "Text"])
    })
  )

  it.effect("chat without [DONE] is whole once finish and usage are there", () =>
    Effect.gen(function* () {
      const body = sse(...chat.slice(0, -1))
      const { deltas } = yield* collect("qwen", { headers: eventStream, body })
      assert.deepStrictEqual(whole(deltas), expected("qwen3.8-max"))
    })
  )

  it.effect("an event without end is cut", () =>
    Effect.gen(function* () {
      const endless = new ReadableStream<Uint8Array>({
        start: (controller) => controller.enqueue(new TextEncoder().encode("data: ")),
        pull: (controller) => controller.enqueue(new Uint8Array(1024 * 1024).fill(97))
      })
      const client = yield* clientOf("codex", scripted({ headers: eventStream, body: endless }).layer)
      const failure = yield* Effect.flip(Stream.runDrain(client.stream("m", call)))
      assert.propertyVal(failure, "reason", "malformed")
      assert.include(failure.message, "larger than")
    })
  )

  it.effect("an answer without end is cut", () =>
    Effect.gen(function* () {
      const endless = () =>
        new ReadableStream<Uint8Array>({
          pull: (controller) => controller.enqueue(new Uint8Array(4 * 1024 * 1024).fill(32))
        })
      const client = yield* clientOf("codex", scripted(() => ({ body: endless() })).layer)
      assert.propertyVal(yield* Effect.flip(client.complete("m", call)), "reason", "malformed")
      assert.propertyVal(yield* Effect.flip(client.listModels), "reason", "malformed")
    })
  )
})

describe("time", () => {
  const timeouts = { connectMs: 1_000, firstTokenMs: 5_000, betweenTokensMs: 2_000, attemptMs: 20_000 }

  /** A stream under way: what it has given so far, and how it ends. */
  const start = (id: Known, reply: ScriptedReply | "silent") =>
    Effect.gen(function* () {
      const client = yield* clientOf(id, scripted(() => reply).layer, { timeouts })
      const seen: Array<Delta> = []
      const fiber = yield* client.stream("m", call).pipe(
        Stream.runForEach((delta) => Effect.sync(() => seen.push(delta))),
        Effect.flip,
        Effect.fork
      )
      yield* settle
      const pass = (ms: number) => Effect.zipRight(TestClock.adjust(ms), settle)
      return { seen, fiber, pass }
    })
  const assertFailed = (fiber: Fiber.RuntimeFiber<AttemptFailure, unknown>, reason: string) =>
    Effect.map(Fiber.poll(fiber), (exit) => {
      assert.isTrue(Option.isSome(exit), "it has not ended")
      assert.propertyVal(
        Option.getOrUndefined(Option.flatMap(exit, Exit.match({ onSuccess: Option.some, onFailure: Option.none }))),
        "reason",
        reason
      )
    })
  const assertRunning = (fiber: Fiber.RuntimeFiber<AttemptFailure, unknown>) =>
    Effect.map(Fiber.poll(fiber), (exit) => assert.isTrue(Option.isNone(exit), "it has ended"))

  it.effect("no headers by the first token's time", () =>
    Effect.gen(function* () {
      const { fiber, pass } = yield* start("codex", "silent")
      yield* pass(4_999)
      yield* assertRunning(fiber)
      yield* pass(1)
      yield* assertFailed(fiber, "timeout")
    })
  )

  it.effect("headers and keep-alives are no first token", () =>
    Effect.gen(function* () {
      const body = manualBody()
      const { fiber, pass, seen } = yield* start("codex", { headers: eventStream, body: body.body })
      assert.deepStrictEqual(seen, [{ _tag: "Start", limits: [] }])
      yield* pass(4_000)
      yield* body.push(sse({ type: "response.created", response: {} }))
      yield* body.push(": keep-alive\n\n")
      yield* pass(999)
      yield* assertRunning(fiber)
      yield* pass(1)
      yield* assertFailed(fiber, "timeout")
    })
  )

  it.effect("silence between tokens is a stall; reasoning is no silence", () =>
    Effect.gen(function* () {
      const body = manualBody()
      const { fiber, pass, seen } = yield* start("qwen", { headers: eventStream, body: body.body })
      for (const delta of [{ content: "a" }, { reasoning_content: "b" }, { content: "c" }]) {
        yield* body.push(sse(chatChunk(delta)))
        yield* pass(1_999)
        yield* body.push(": keep-alive\n\n")
        yield* assertRunning(fiber)
      }
      yield* pass(1)
      yield* assertFailed(fiber, "stalled")
      assert.deepStrictEqual(
        seen.map((delta) => (delta._tag === "Text" ? delta.text : delta._tag)),
        ["Start", "a", "c"]
      )
    })
  )

  it.effect("the whole attempt is bounded however steadily tokens come", () =>
    Effect.gen(function* () {
      const body = manualBody()
      const { fiber, pass } = yield* start("qwen", { headers: eventStream, body: body.body })
      for (let second = 0; second < 19; second++) {
        yield* body.push(sse(chatChunk({ content: "a" })))
        yield* pass(1_000)
      }
      yield* body.push(sse(chatChunk({ content: "a" })))
      yield* pass(999)
      yield* assertRunning(fiber)
      yield* pass(1)
      yield* assertFailed(fiber, "timeout")
    })
  )

  it.effect("a slow reader is not the platform's fault", () =>
    Effect.gen(function* () {
      const body = manualBody()
      const client = yield* clientOf("qwen", scripted({ headers: eventStream, body: body.body }).layer, { timeouts })
      const fiber = yield* client.stream("m", call).pipe(
        Stream.tap((delta) => (delta._tag === "Text" ? Effect.sleep(6_000) : Effect.void)),
        Stream.runCount,
        Effect.fork
      )
      yield* settle
      yield* body.push(sse(chatChunk({ content: "a" })))
      yield* body.push(sse(...chat))
      yield* body.close
      yield* TestClock.adjust(6_000)
      yield* settle
      yield* TestClock.adjust(12_000)
      yield* settle
      assert.isAtLeast(yield* Fiber.join(fiber), 5)
    })
  )

  it.effect("a whole answer does not wait for a body that stays open", () =>
    Effect.gen(function* () {
      for (const [id, model, text] of bodies) {
        const body = manualBody()
        const client = yield* clientOf(id, scripted({ headers: eventStream, body: body.body }).layer, { timeouts })
        const fiber = yield* Effect.fork(Stream.runCollect(client.stream("m", call)))
        yield* settle
        yield* body.push(text)
        yield* TestClock.adjust(1_000)
        assert.deepStrictEqual(whole(Chunk.toReadonlyArray(yield* Fiber.join(fiber))), expected(model))
      }
    })
  )

  it.effect("a connection that breaks in mid-answer", () =>
    Effect.gen(function* () {
      const body = manualBody()
      const { fiber, seen } = yield* start("qwen", { headers: eventStream, body: body.body })
      yield* body.push(sse(chatChunk({ content: "a" })))
      yield* body.fail
      yield* assertFailed(fiber, "network")
      assert.strictEqual(seen.length, 2)
    })
  )

  it.effect("a connection that breaks after the answer takes nothing back", () =>
    Effect.gen(function* () {
      for (const [id, model, text] of bodies) {
        const body = manualBody()
        const client = yield* clientOf(id, scripted({ headers: eventStream, body: body.body }).layer, { timeouts })
        const fiber = yield* Effect.fork(Stream.runCollect(client.stream("m", call)))
        yield* settle
        yield* body.push(text)
        yield* body.fail
        assert.deepStrictEqual(whole(Chunk.toReadonlyArray(yield* Fiber.join(fiber))), expected(model))
      }
    })
  )

  it.effect("a refusal that the program's own HTTP client has found is a refusal still", () =>
    Effect.gen(function* () {
      const http = scripted({ status: 429, headers: { "retry-after": "7" }, body: "slow down" }).layer
      const strict = Layer.effect(
        HttpClient.HttpClient,
        Effect.map(HttpClient.HttpClient, HttpClient.filterStatusOk)
      ).pipe(Layer.provide(http))
      const client = yield* clientOf("qwen", strict)
      for (const attempt of [client.complete("m", call), Stream.runDrain(client.stream("m", call))]) {
        const failure = yield* Effect.flip<unknown, AttemptFailure, never>(attempt)
        assert.strictEqual(failure._tag, "QuotaFailure")
        assert.propertyVal(failure, "retryAfterMs", 7_000)
      }
    })
  )

  it.effect("a whole answer, a check and an error's body are bounded too", () =>
    Effect.gen(function* () {
      const silent = yield* clientOf("codex", scripted(() => "silent").layer, { timeouts })
      const attempt = yield* Effect.fork(Effect.flip(silent.complete("m", call)))
      const check = yield* Effect.fork(Effect.flip(silent.check))
      yield* settle
      yield* TestClock.adjust(19_999)
      yield* assertRunning(attempt)
      yield* assertFailed(check, "timeout")
      yield* TestClock.adjust(1)
      yield* settle
      yield* assertFailed(attempt, "timeout")

      const slow = yield* clientOf(
        "codex",
        scripted({ status: 429, headers: { "retry-after": "7" }, body: manualBody().body }).layer,
        { timeouts: { ...timeouts, firstTokenMs: 60_000, attemptMs: 60_000 } }
      )
      const refused = yield* Effect.fork(Effect.flip(slow.complete("m", call)))
      yield* settle
      yield* TestClock.adjust(5_000)
      const failure = yield* Fiber.join(refused)
      assert.strictEqual(failure._tag, "QuotaFailure")
      assert.propertyVal(failure, "retryAfterMs", 7_000)
    })
  )
})

describe("over real HTTP", () => {
  /** A server on a free port, closed with its connections at the end of the scope. */
  const serve = (handler: Parameters<typeof createServer>[1]) =>
    Effect.acquireRelease(
      Effect.async<{ readonly url: string; readonly server: Server }>((resume) => {
        const server = createServer(handler ?? (() => {}))
        server.listen(0, "127.0.0.1", () => {
          const address = server.address()
          const port = typeof address === "object" && address !== null ? address.port : 0
          resume(Effect.succeed({ url: `http://127.0.0.1:${port}`, server }))
        })
      }),
      ({ server }) =>
        Effect.async<void>((resume) => {
          server.closeAllConnections()
          server.close(() => resume(Effect.void))
        })
    )
  const clientAt = (id: Known, baseUrl: string, timeouts = {}) => {
    const settings = Settings.layer(
      Settings.make({ platforms: [Settings.platformDefaults(id, { apiKey, baseUrl, timeouts })] })
    )
    return Layer.build(Platforms.layer.pipe(Layer.provide(transportLayer), Layer.provide(settings))).pipe(
      Effect.flatMap((context) => Effect.fromNullable(Context.get(context, Platforms).all[0])),
      Effect.orDie
    )
  }

  it.scopedLive("interrupting a stream closes the socket", () =>
    Effect.gen(function* () {
      const closed = yield* Deferred.make<void>()
      const headers = yield* Deferred.make<NodeJS.Dict<string | ReadonlyArray<string>>>()
      const { url } = yield* serve((request, response) => {
        Deferred.unsafeDone(headers, Effect.succeed(request.headers))
        request.socket.on("close", () => Deferred.unsafeDone(closed, Effect.void))
        response.writeHead(200, eventStream)
        response.write(sse(chatChunk({ content: "a" })))
      })
      const client = yield* clientAt("qwen", url)
      const got = yield* Deferred.make<void>()
      const fiber = yield* client.stream("m", call).pipe(
        Stream.runForEach((delta) => (delta._tag === "Text" ? Deferred.succeed(got, undefined) : Effect.void)),
        Effect.withSpan("someone's trace"),
        Effect.fork
      )
      yield* Deferred.await(got)
      const sent = yield* Deferred.await(headers)
      assert.notProperty(sent, "traceparent")
      assert.notProperty(sent, "b3")
      yield* Fiber.interrupt(fiber)
      yield* Effect.timeout(Deferred.await(closed), "5 seconds")
    })
  )

  it.scopedLive("interrupting before the headers closes the socket, streamed or whole", () =>
    Effect.gen(function* () {
      for (const streamed of [true, false]) {
        const asked = yield* Deferred.make<void>()
        const closed = yield* Deferred.make<void>()
        const { url } = yield* serve((request) => {
          request.socket.on("close", () => Deferred.unsafeDone(closed, Effect.void))
          Deferred.unsafeDone(asked, Effect.void)
        })
        const client = yield* clientAt("gemini", url)
        const fiber = yield* Effect.fork<unknown, AttemptFailure, never>(
          streamed ? Stream.runDrain(client.stream("m", call)) : client.complete("m", call)
        )
        yield* Deferred.await(asked)
        yield* Fiber.interrupt(fiber)
        yield* Effect.timeout(Deferred.await(closed), "5 seconds")
      }
    })
  )

  it.scopedLive("answers over connections used again, and a body that breaks off", () =>
    Effect.gen(function* () {
      const sockets = new Set<unknown>()
      const { url } = yield* serve((request, response) => {
        sockets.add(request.socket)
        request.resume()
        if (request.url === "/broken/chat/completions") {
          response.writeHead(200, { ...eventStream, "content-length": "100000" })
          response.write(sse(chatChunk({ content: "a" })), () => response.destroy())
        } else {
          response.writeHead(200, eventStream)
          response.end(sse(...chat))
        }
      })
      const client = yield* clientAt("qwen", url)
      for (let turn = 0; turn < 6; turn++) {
        const deltas = yield* Stream.runCollect(client.stream("m", call))
        assert.deepStrictEqual(whole(Chunk.toReadonlyArray(deltas)), expected("qwen3.8-max"))
      }
      assert.isBelow(sockets.size, 4)
      const broken = yield* clientAt("qwen", `${url}/broken`)
      assert.propertyVal(yield* Effect.flip(Stream.runDrain(broken.stream("m", call))), "reason", "network")
    })
  )

  it.scopedLive("what comes before a reply is none, and a redirect is one", () =>
    Effect.gen(function* () {
      let requests = 0
      const { url } = yield* serve((request, response) => {
        requests++
        request.resume()
        response.writeEarlyHints({ link: "</style.css>; rel=preload" }, () => {
          if (request.url === "/moved/chat/completions") {
            response.writeHead(307, { location: `${url}/chat/completions` }).end()
          } else {
            response.writeHead(429, { "retry-after": "7", "set-cookie": ["a=1", "b=2"] })
            response.end(JSON.stringify({ error: { message: "slow down", code: "rate_limit_exceeded" } }))
          }
        })
      })
      const client = yield* clientAt("qwen", url)
      for (const attempt of [client.complete("m", call), Stream.runDrain(client.stream("m", call))]) {
        const failure = yield* Effect.flip<unknown, AttemptFailure, never>(attempt)
        assert.strictEqual(failure._tag, "QuotaFailure")
        assert.propertyVal(failure, "retryAfterMs", 7_000)
        assert.include(failure.message, "slow down")
      }
      const moved = yield* clientAt("qwen", `${url}/moved`)
      assert.propertyVal(yield* Effect.flip(Stream.runDrain(moved.stream("m", call))), "status", 307)
      assert.strictEqual(requests, 3)
    })
  )

  it.scopedLive("a long answer waits for a slow reader, and none of it is lost", () =>
    Effect.gen(function* () {
      const piece = "x".repeat(50_000)
      const { url } = yield* serve((request, response) => {
        request.resume()
        response.writeHead(200, eventStream)
        for (let sent = 0; sent < 100; sent++) response.write(sse(chatChunk({ content: piece })))
        response.end(sse(...chat))
      })
      const client = yield* clientAt("qwen", url)
      let length = 0
      yield* client.stream("m", call).pipe(
        Stream.runForEach((delta) => {
          length += delta._tag === "Text" ? delta.text.length : 0
          return settle
        })
      )
      assert.isAtLeast(length, 100 * piece.length)
    })
  )

  /** What is read of a reply whose server, while the reader is busy with the first piece, does `act`; that ends the connection. */
  const whileBusy = (headers: OutgoingHttpHeaders, act: (response: ServerResponse) => Effect.Effect<unknown>) =>
    Effect.gen(function* () {
      const answering = yield* Deferred.make<ServerResponse>()
      const closed = yield* Deferred.make<void>()
      const { url } = yield* serve((request, response) => {
        request.resume()
        request.socket.on("close", () => Deferred.unsafeDone(closed, Effect.void))
        response.writeHead(200, { ...eventStream, connection: "close", ...headers })
        response.write(firstPiece)
        Deferred.unsafeDone(answering, Effect.succeed(response))
      })
      const client = yield* clientAt("qwen", url)
      const isBusy = yield* Deferred.make<void>()
      const isFree = yield* Deferred.make<void>()
      const seen: Array<Delta> = []
      const take = (deltas: Chunk.Chunk<Delta>) => {
        seen.push(...deltas)
        return seen.some(({ _tag }) => _tag === "Text")
          ? Effect.zipRight(Deferred.succeed(isBusy, undefined), Deferred.await(isFree))
          : Effect.void
      }
      const read = yield* Effect.fork(Effect.either(client.streamTo?.("m", call, take) ?? Effect.die("not read so")))
      yield* Deferred.await(isBusy)
      yield* Effect.flatMap(Deferred.await(answering), act)
      yield* Effect.timeout(Deferred.await(closed), "5 seconds")
      yield* settle
      yield* Deferred.succeed(isFree, undefined)
      return { read: yield* Effect.timeout(Fiber.join(read), "5 seconds"), seen }
    })
  const firstPiece = sse(chatChunk({ content: "a" }))
  // As much as waits for a reader, to the byte: nothing is left to come then but the end.
  const asMuchAsWaits = `: ${"x".repeat(64 * 1024 - 4 - Buffer.byteLength(sse(...chat)))}\n\n${sse(...chat)}`

  it.scopedLive("a reply whose connection is closed while its reader is busy is read to its end", () =>
    Effect.gen(function* () {
      const length = Buffer.byteLength(firstPiece) + Buffer.byteLength(asMuchAsWaits)
      const { read, seen } = yield* whileBusy({ "content-length": length }, (response) =>
        Effect.sync(() => response.end(asMuchAsWaits))
      )
      assert.isTrue(Either.isRight(read))
      const { others, text } = expected("qwen3.8-max")
      assert.deepStrictEqual(whole(seen), { text: `a${text}`, others })
    })
  )

  it.scopedLive("a reply whose connection is reset while its reader is busy has broken off", () =>
    Effect.gen(function* () {
      const { read } = yield* whileBusy({}, (response) =>
        Effect.gen(function* () {
          response.write(sse(chatChunk({ content: "b".repeat(100_000) })))
          yield* settle
          response.socket?.resetAndDestroy()
        })
      )
      assert.propertyVal(Either.isLeft(read) ? read.left : undefined, "reason", "network")
    })
  )

  it.scopedLive("a reply that cannot be held up is cut off where it is too large for an answer", () =>
    Effect.gen(function* () {
      const event = sse(chatChunk({ content: "b".repeat(1024 * 1024) }))
      const { read } = yield* whileBusy({}, (response) =>
        Effect.sync(() => {
          const send = () => {
            response.write(event)
          }
          response.on("drain", send)
          send()
        })
      )
      assert.propertyVal(Either.isLeft(read) ? read.left : undefined, "reason", "malformed")
    })
  )

  it.scopedLive("an answer that breaks its format closes the socket", () =>
    Effect.gen(function* () {
      const closed = yield* Deferred.make<void>()
      const { url } = yield* serve((request, response) => {
        request.resume()
        request.socket.on("close", () => Deferred.unsafeDone(closed, Effect.void))
        response.writeHead(200, eventStream)
        response.write(sse("{"))
      })
      const client = yield* clientAt("qwen", url)
      assert.propertyVal(yield* Effect.flip(Stream.runDrain(client.stream("m", call))), "reason", "malformed")
      yield* Effect.timeout(Deferred.await(closed), "5 seconds")
    })
  )

  it.scopedLive("a base URL that is none", () =>
    Effect.gen(function* () {
      const client = yield* clientAt("codex", "nowhere")
      const failure = yield* Effect.flip(client.complete("m", call))
      assert.propertyVal(failure, "reason", "network")
      assert.include(failure.message, "base URL")
    })
  )

  it.scopedLive("connecting is bounded by itself", () =>
    Effect.gen(function* () {
      // Takes the connection and never answers the TLS greeting.
      const port = yield* Effect.acquireRelease(
        Effect.async<{ readonly port: number; readonly close: () => void }>((resume) => {
          const sockets: Array<Socket> = []
          const server = createTcpServer((socket) => sockets.push(socket.on("error", () => {})))
          server.listen(0, "127.0.0.1", () => {
            const address = server.address()
            const close = () => {
              server.close()
              for (const socket of sockets) socket.destroy()
            }
            const bound = typeof address === "object" && address !== null ? address.port : 0
            resume(Effect.succeed({ port: bound, close }))
          })
        }),
        ({ close }) => Effect.sync(close)
      ).pipe(Effect.map((server) => server.port))
      const client = yield* clientAt("codex", `https://127.0.0.1:${port}/v1`, { connectMs: 100 })
      const failure = yield* Effect.flip(client.complete("m", call)).pipe(Effect.timeout("8 seconds"))
      assert.propertyVal(failure, "reason", "unreachable")
      assert.propertyVal(failure, "code", "UND_ERR_CONNECT_TIMEOUT")
    })
  )

  it.scopedLive("nothing listens", () =>
    Effect.gen(function* () {
      const url = yield* Effect.scoped(
        Effect.map(
          serve(() => {}),
          (server) => server.url
        )
      )
      const client = yield* clientAt("codex", url)
      const failure = yield* Effect.flip(client.complete("m", call))
      assert.propertyVal(failure, "reason", "unreachable")
      assert.propertyVal(failure, "code", "ECONNREFUSED")
    })
  )
})
