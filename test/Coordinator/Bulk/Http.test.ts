import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Layer, Option, Redacted, Schema, Stream } from "effect"
import { BulkVerdict, maxBulkLines } from "../../../src/Coordinator/Api.js"
import { Coordinator } from "../../../src/Coordinator.js"
import { TenantId } from "../../../src/Domain/Task.js"
import { Http } from "../../../src/Http.js"
import type { SettingsOptions } from "../../../src/Settings.js"
import { answer, layer, MemoryHttp } from "../../../src/Testing.js"

const tenant = TenantId.make("local")

const service = (options: Omit<SettingsOptions, "platforms"> = {}) =>
  MemoryHttp.layer().pipe(Layer.provideMerge(layer([{ id: "codex", attempts: [answer("done")] }], options)))

const post = (body: RequestInit["body"], headers: Readonly<Record<string, string>> = {}, path = "/v1/tasks") =>
  Effect.flatMap(MemoryHttp, ({ fetch }) =>
    Effect.promise(() =>
      fetch(path, {
        method: "POST",
        headers: { "content-type": "application/x-ndjson", ...headers },
        ...(body === undefined ? {} : { body }),
        // what a body that is a stream needs
        ...{ duplex: "half" }
      })
    )
  )

const decode = Schema.decodeUnknownSync(Schema.parseJson(BulkVerdict))

const verdictsOf = (response: Response) =>
  Effect.map(
    Effect.promise(() => response.text()),
    (text) =>
      text
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => decode(line))
  )

const lines = (...all: ReadonlyArray<unknown>) =>
  all.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n")

const shown = (verdict: BulkVerdict): string =>
  "id" in verdict
    ? `${verdict.line} ${verdict.replayed === true ? "replayed" : "accepted"}`
    : `${verdict.line} ${verdict.error.type}`

describe("many tasks in one request", () => {
  it.effect("get a verdict a line, in order, and a line that is refused spoils only itself", () =>
    Effect.gen(function* () {
      const response = yield* post(
        lines(
          { prompt: "one" },
          { prompt: "two", unknown: true },
          "{ not json",
          "",
          { prompt: "" },
          { prompt: "six", priority: "HIGH", metadata: { a: "b" } },
          '{"prompt":"seven"}   '
        )
      )
      assert.strictEqual(response.status, 200)
      assert.strictEqual(response.headers.get("content-type"), "application/x-ndjson")
      const verdicts = yield* verdictsOf(response)
      assert.deepStrictEqual(verdicts.map(shown), [
        "1 accepted",
        "2 invalid-request",
        "3 invalid-request",
        "5 task-refused",
        "6 accepted",
        "7 accepted"
      ])
      const [, second, third] = verdicts
      assert(third !== undefined && "error" in third)
      assert.match(third.error.message, /^The line is not JSON: /)
      assert(second !== undefined && "error" in second)
      assert.deepStrictEqual(second.error.details, {
        problems: [{ field: "unknown", problem: "is not a known field" }]
      })
      const coordinator = yield* Coordinator
      const { tasks } = yield* coordinator.list(tenant, {})
      assert.deepStrictEqual(tasks.map(({ preview }) => preview).sort(), ["one", "seven", "six"])
    }).pipe(Effect.provide(service()))
  )

  it.effect("are the same tasks when the request is repeated with its key", () =>
    Effect.gen(function* () {
      const body = lines({ prompt: "one" }, { prompt: "two", idempotencyKey: "own" }, { prompt: "three" })
      const first = yield* Effect.flatMap(post(body, { "idempotency-key": "K" }), verdictsOf)
      const again = yield* Effect.flatMap(post(body, { "idempotency-key": "K" }), verdictsOf)
      assert.deepStrictEqual(first.map(shown), ["1 accepted", "2 accepted", "3 accepted"])
      assert.deepStrictEqual(again.map(shown), ["1 replayed", "2 replayed", "3 replayed"])
      assert.deepStrictEqual(
        again.map((verdict) => ("id" in verdict ? verdict.id : "")),
        first.map((verdict) => ("id" in verdict ? verdict.id : ""))
      )
      const changed = yield* Effect.flatMap(post(lines({ prompt: "uno" }), { "idempotency-key": "K" }), verdictsOf)
      assert.deepStrictEqual(changed.map(shown), ["1 conflict"])
      const coordinator = yield* Coordinator
      const own = yield* coordinator.submit(tenant, { prompt: "two" }, Option.some("own"))
      assert.isTrue(own.replayed)
    }).pipe(Effect.provide(service()))
  )

  it.effect("may be more than a single body, while no line is", () =>
    Effect.gen(function* () {
      const maxBodyBytes = 2_000
      const text = "x".repeat(1_000)
      const body = lines(
        ...Array.from({ length: 20 }, (_, index) => ({ prompt: `${index} ${text}` })),
        { prompt: "y".repeat(maxBodyBytes) },
        { prompt: "last" }
      )
      const verdicts = yield* Effect.flatMap(post(body), verdictsOf)
      assert.deepStrictEqual(verdicts.slice(-2).map(shown), ["21 payload-too-large", "22 accepted"])
      const tooLong = verdicts.at(-2)
      assert(tooLong !== undefined && "error" in tooLong)
      assert.strictEqual(tooLong.error.message, "The line is larger than 2000 bytes")
      assert.lengthOf(
        verdicts.filter((verdict) => "id" in verdict),
        21
      )
    }).pipe(Effect.provide(service({ maxBodyBytes: 2_000 })))
  )

  it.effect("are taken by each of the names that JSON Lines goes by", () =>
    Effect.gen(function* () {
      for (const type of ["application/jsonl", "application/x-jsonlines", "application/ndjson; charset=utf-8"]) {
        const response = yield* post(lines({ prompt: "one" }, { prompt: "two" }), { "content-type": type })
        assert.deepStrictEqual((yield* verdictsOf(response)).map(shown), ["1 accepted", "2 accepted"], type)
      }
      const messageOf = (type: string) =>
        Effect.flatMap(post(lines({ prompt: "one" }, { prompt: "two" }), { "content-type": type }), (response) =>
          Effect.map(
            Effect.promise(() => response.text()),
            (text) => `${response.status} ${JSON.parse(text).error.message}`
          )
        )
      assert.strictEqual(
        yield* messageOf("text/plain"),
        "415 The body must be sent as Content-Type: application/json or, with a task a line, application/x-ndjson, not text/plain"
      )
      assert.match(
        yield* messageOf("application/json"),
        /^400 The body is not JSON: .*\. It holds a JSON value a line: POST \/v1\/tasks takes .* application\/x-ndjson$/
      )
    }).pipe(Effect.provide(service()))
  )

  it.effect("are told what is wrong with a line in words of JSON", () =>
    Effect.gen(function* () {
      const verdicts = yield* Effect.flatMap(
        post(lines("null", "[]", { prompt: "x", context: [1], metadata: 5, tools: {}, responseFormat: "text" })),
        verdictsOf
      )
      const problems = verdicts.map((verdict) => ("error" in verdict ? Object(verdict.error.details).problems : []))
      assert.deepStrictEqual(problems, [
        [{ field: "", problem: "expected an object, got null" }],
        [{ field: "", problem: "expected an object, got []" }],
        [
          { field: "context.0", problem: "expected an object, got 1" },
          { field: "tools", problem: "expected an array, got {}" },
          { field: "responseFormat", problem: 'expected an object, got "text"' },
          { field: "metadata", problem: "expected an object, got 5" }
        ]
      ])
    }).pipe(Effect.provide(service()))
  )

  it.effect("pass the same doors as one", () =>
    Effect.gen(function* () {
      const body = lines({ prompt: "one" })
      assert.strictEqual((yield* post(body, { origin: "https://evil.example" })).status, 403)
      assert.strictEqual((yield* post(body, { "content-encoding": "gzip" })).status, 415)
      assert.strictEqual((yield* post(body, {}, "/v1/jobs")).status, 415)
      assert.strictEqual((yield* post(body, { "idempotency-key": "k".repeat(241) })).status, 400)
      assert.strictEqual((yield* post(body, {}, "/v1/tasks?dryRun=true")).status, 400)
      const coordinator = yield* Coordinator
      assert.lengthOf((yield* coordinator.list(tenant, {})).tasks, 0)
    }).pipe(Effect.provide(service()))
  )

  it.effect("need a key where the service has keys", () =>
    Effect.gen(function* () {
      const apiKeys = [{ tenant: TenantId.make("ann"), key: Redacted.make("secret-of-ann") }]
      const open = service({ apiKeys })
      const [without, withKey] = yield* Effect.all([
        post(lines({ prompt: "one" })),
        Effect.flatMap(post(lines({ prompt: "one" }), { authorization: "Bearer secret-of-ann" }), verdictsOf)
      ]).pipe(Effect.provide(open))
      assert.strictEqual(without.status, 401)
      assert.deepStrictEqual(withKey.map(shown), ["1 accepted"])
    })
  )

  it.effect("say of lines beyond the bound that they were not read, though blank ones come between", () =>
    Effect.gen(function* () {
      const verdicts = yield* Effect.flatMap(post(`${"\n".repeat(maxBulkLines + 1)}{}\n{}`), verdictsOf)
      assert.deepStrictEqual(verdicts.map(shown), [`${maxBulkLines + 2} payload-too-large`])
    }).pipe(Effect.provide(service()))
  )

  it.effect("stay accepted when the client goes away, and are not read on", () =>
    Effect.gen(function* () {
      let given = 0
      const encoder = new TextEncoder()
      const body = new ReadableStream<Uint8Array>({
        pull: (controller) => {
          given += 1
          if (given <= 3) controller.enqueue(encoder.encode(`${JSON.stringify({ prompt: `task ${given}` })}\n`))
          else controller.error(new Error("gone"))
        }
      })
      const response = yield* post(body)
      const answer = yield* Effect.promise(() => response.text().catch((error: unknown) => error))
      assert.instanceOf(answer, Error, "it does not look as if all were well")
      const coordinator = yield* Coordinator
      assert.lengthOf((yield* coordinator.list(tenant, {})).tasks, 3)
    }).pipe(Effect.provide(service()))
  )

  it.effect("are read to their end though nobody reads a verdict before", () =>
    Effect.gen(function* () {
      const count = 17_000
      const sent = yield* Deferred.make<void>()
      let next = 0
      const body = new ReadableStream<Uint8Array>({
        pull: (controller) => {
          if (next < count) controller.enqueue(new TextEncoder().encode("{}\n".repeat(1_000)))
          else {
            controller.close()
            Deferred.unsafeDone(sent, Effect.void)
          }
          next += 1_000
        }
      })
      const response = yield* post(body)
      yield* Deferred.await(sent)
      assert.lengthOf(yield* verdictsOf(response), count)
    }).pipe(Effect.provide(service()))
  )

  it.effect("are described beside the single one", () =>
    Effect.gen(function* () {
      const { fetch } = yield* MemoryHttp
      const text = yield* Effect.promise(() => fetch("/openapi.json").then((response) => response.text()))
      const { components, paths } = JSON.parse(text)
      const { requestBody, responses } = paths["/v1/tasks"].post
      assert.deepStrictEqual(Object.keys(requestBody.content), ["application/json", "application/x-ndjson"])
      assert.deepStrictEqual(Object.keys(responses["200"].content), ["application/json", "application/x-ndjson"])
      assert.include(Object.keys(components.schemas), "BulkVerdict")
    }).pipe(Effect.provide(service()))
  )

  it.effect("go through the typed client", () =>
    Effect.gen(function* () {
      const { client } = yield* MemoryHttp
      const verdicts = yield* client.tasks
        .submitAll(Stream.make({ prompt: "one" }, { prompt: " " }), { idempotencyKey: "typed" })
        .pipe(Stream.runCollect)
      assert.deepStrictEqual([...verdicts].map(shown), ["1 accepted", "2 task-refused"])
    }).pipe(Effect.provide(service()))
  )
})

describe("many tasks over a socket", () => {
  it.scopedLive("are taken by the hundred, each verdict in its place", () =>
    Effect.gen(function* () {
      const context = yield* Layer.build(
        Layer.provideMerge(Http.layer, layer([{ id: "codex", attempts: [answer("done")] }], { port: 0 }))
      )
      const { url } = yield* Effect.provide(Http, context)
      const count = 600
      const text = "x".repeat(4_000)
      const body = Array.from({ length: count }, (_, index) => JSON.stringify({ prompt: `${index} ${text}` })).join(
        "\n"
      )
      const response = yield* Effect.promise(() =>
        fetch(`${url}/v1/tasks`, { method: "POST", headers: { "content-type": "application/x-ndjson" }, body })
      )
      const verdicts = yield* verdictsOf(response)
      assert.lengthOf(verdicts, count)
      assert.isTrue(verdicts.every((verdict, index) => "id" in verdict && verdict.line === index + 1))
    })
  )
})
