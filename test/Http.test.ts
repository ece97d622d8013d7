import { SqlClient } from "@effect/sql/SqlClient"
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Scope, Tracer } from "effect"
import { ServiceUnavailable } from "../src/Domain/ApiError.js"
import { CannotListen, Http, UnprotectedAddress } from "../src/Http.js"
import { SqlWriter } from "../src/Sql.js"
import { concerns, idOf, keys, makeCoordinator } from "./Http/scripted.js"
import { ask, converse, dial, eventually, patch, post, raw, rawBody, start } from "./Http/server.js"

const errorOf = (body: unknown): { type: string; message: string; details: Record<string, unknown> } => {
  assert.hasAllKeys(body, ["error"])
  const { error } = Object(body)
  assert.hasAllKeys(error, ["type", "message", "details"])
  assert.isString(error.message)
  assert.isAbove(error.message.length, 5)
  assert.isObject(error.details)
  return error
}

describe("tasks", () => {
  it.scopedLive("are submitted, listed, shown, cancelled, retried, with their attempts", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const submitted = yield* post(`${url}/v1/tasks`, { prompt: "Hello", priority: "HIGH", metadata: { a: "b" } })
      assert.strictEqual(submitted.status, 202)
      assert.strictEqual(submitted.headers.get("location"), `/v1/tasks/${idOf(1)}`)
      assert.isNull(submitted.headers.get("idempotent-replayed"))
      assert.include(submitted.body, { id: idOf(1), state: "queued", priority: "HIGH", tenant: "local" })
      assert.strictEqual(Object(submitted.body).createdAt, "2026-11-22T12:00:00.000Z")

      yield* post(`${url}/v1/tasks`, { prompt: "x".repeat(300), type: "analysis" })
      const shown = yield* ask(`${url}${submitted.headers.get("location")}`)
      assert.deepStrictEqual([shown.status, shown.body], [200, submitted.body])

      const listed = yield* ask(`${url}/v1/tasks?type=analysis`)
      assert.strictEqual(listed.status, 200)
      assert.lengthOf(Object(listed.body).tasks, 1)
      assert.lengthOf(Object(listed.body).tasks[0].preview, 200)

      const first = yield* ask(`${url}/v1/tasks?limit=1`)
      assert.strictEqual(Object(first.body).tasks[0].id, idOf(2))
      const second = yield* ask(`${url}/v1/tasks?limit=1&cursor=${Object(first.body).next}`)
      assert.strictEqual(Object(second.body).tasks[0].id, idOf(1))
      assert.isUndefined(Object(second.body).next)

      const early = yield* ask(`${url}/v1/tasks/${idOf(1)}/retry`, { method: "POST" })
      assert.strictEqual(early.status, 409)
      assert.strictEqual(errorOf(early.body).type, "conflict")
      const cancelled = yield* ask(`${url}/v1/tasks/${idOf(1)}`, { method: "DELETE" })
      assert.strictEqual(cancelled.status, 200)
      assert.strictEqual(Object(cancelled.body).state, "cancelled")
      const retried = yield* ask(`${url}/v1/tasks/${idOf(1)}/retry`, { method: "POST" })
      assert.deepStrictEqual([retried.status, Object(retried.body).state], [202, "queued"])

      const attempts = yield* ask(`${url}/v1/tasks/${idOf(1)}/attempts`)
      assert.strictEqual(Object(attempts.body).attempts[0].number, 1)
    })
  )

  it.scopedLive("are stored once for one Idempotency-Key", () =>
    Effect.gen(function* () {
      const { url, scripted } = yield* start()
      const send = (prompt: string) => post(`${url}/v1/tasks`, { prompt }, { "idempotency-key": "order-1" })
      const first = yield* send("a")
      const again = yield* send("a")
      assert.deepStrictEqual([first.status, again.status], [202, 200])
      assert.strictEqual(again.headers.get("idempotent-replayed"), "true")
      assert.strictEqual(again.headers.get("location"), first.headers.get("location"))
      assert.deepStrictEqual(again.body, first.body)
      const other = yield* send("b")
      assert.strictEqual(other.status, 409)
      assert.strictEqual(errorOf(other.body).type, "conflict")
      assert.lengthOf(yield* scripted.tasks, 1)
    })
  )

  it.scopedLive("are refused with each field and platform", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const refused = yield* post(`${url}/v1/tasks`, { prompt: "" })
      assert.strictEqual(refused.status, 422)
      assert.deepStrictEqual(errorOf(refused.body), {
        type: "task-refused",
        message: "The task cannot work",
        details: {
          problems: [{ field: "prompt", problem: "is empty" }],
          reasons: [{ platform: "codex", reason: "nothing to do", earliestAt: "2026-11-22T12:00:00.000Z" }]
        }
      })
    })
  )
})

describe("tasks that cannot start before their deadline", () => {
  it.scopedLive("are refused with each platform's reason and when to come again", () =>
    Effect.gen(function* () {
      const { url, scripted } = yield* start()
      const limited = yield* post(`${url}/v1/tasks`, { prompt: "too late" })
      assert.strictEqual(limited.status, 429)
      assert.strictEqual(limited.headers.get("retry-after"), "62")
      const reasons = [{ platform: "codex", reason: "it is used up", earliestAt: "2026-11-22T12:01:01.500Z" }]
      assert.deepStrictEqual(errorOf(limited.body), {
        type: "rate-limited",
        message: "The limits are used up",
        details: { reasons, retryAfterMs: 61_500 }
      })
      const shutOff = yield* post(`${url}/v1/tasks`, { prompt: "too late", priority: "LOW" })
      assert.strictEqual(shutOff.status, 503)
      assert.strictEqual(shutOff.headers.get("retry-after"), "1")
      assert.deepStrictEqual(errorOf(shutOff.body), {
        type: "service-unavailable",
        message: "It is shut off",
        details: { reasons }
      })
      assert.lengthOf(yield* scripted.tasks, 0)
    })
  )
})

describe("a service that holds as much as it may", () => {
  const limits = { maxBodyBytes: 1_000, maxHeldBytes: 1_500 }
  const upload = (length: number) =>
    `POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n`
  const heldBy = (url: string) =>
    Effect.map(ask(`${url}/v1/resources`), ({ body }): number => Object(body).admission.bytes)

  it.scopedLive("says so before it reads a body, while a slow upload holds its bytes, and takes more after it", () =>
    Effect.gen(function* () {
      const { url, port, scripted } = yield* start(limits)
      const text = JSON.stringify({ prompt: "x".repeat(800) })
      const slow = yield* dial(port)
      slow.write(upload(text.length))
      slow.write(text.slice(0, 100))
      yield* eventually(heldBy(url), (bytes) => bytes === text.length)

      const refused = yield* post(`${url}/v1/tasks`, { prompt: "y".repeat(800) })
      assert.strictEqual(refused.status, 503)
      assert.strictEqual(refused.headers.get("retry-after"), "2")
      assert.deepStrictEqual(errorOf(refused.body), {
        type: "overloaded",
        message: "The service is full",
        details: { retryAfterMs: 1_500 }
      })
      // The answer does not wait for the body, not even for its first byte.
      const unsent = yield* raw(port, [upload(900)], /\}\}\}$/)
      assert.match(unsent, /^HTTP\/1.1 503 /)
      // Of unknown length, it may be as long as any.
      const chunked = yield* raw(
        port,
        [
          "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        ],
        /\}\}\}$/
      )
      assert.match(chunked, /^HTTP\/1.1 503 /)
      assert.strictEqual((yield* patch(`${url}/v1/platforms/codex`, `${" ".repeat(900)}{"limits":null}`)).status, 503)
      assert.lengthOf(yield* scripted.tasks, 0)

      // What is small, or has no body, goes on as ever.
      assert.strictEqual((yield* post(`${url}/v1/tasks`, { prompt: "small" })).status, 202)
      assert.strictEqual((yield* ask(`${url}/v1/tasks`)).status, 200)

      const answered = yield* converse(slow, [text.slice(100)], /\}$/)
      assert.match(answered, /^HTTP\/1.1 202 /)
      yield* eventually(heldBy(url), (bytes) => bytes === 0)
      assert.strictEqual((yield* post(`${url}/v1/tasks`, { prompt: "y".repeat(800) })).status, 202)
      assert.lengthOf(yield* scripted.tasks, 3)
    })
  )

  it.scopedLive("gives the bytes back whatever a request ends in", () =>
    Effect.gen(function* () {
      const { url, port } = yield* start(limits, (service) => ({
        ...service,
        submit: () => Effect.die(new Error("it broke"))
      }))
      assert.strictEqual((yield* post(`${url}/v1/tasks`, { prompt: "x" })).status, 500)
      assert.strictEqual((yield* post(`${url}/v1/tasks`, "{")).status, 400)
      assert.strictEqual((yield* post(`${url}/v1/tasks`, { prompt: "x".repeat(2_000) })).status, 413)
      const gone = yield* dial(port)
      gone.write(upload(900))
      yield* eventually(heldBy(url), (bytes) => bytes === 900)
      gone.destroy()
      yield* eventually(heldBy(url), (bytes) => bytes === 0)
    })
  )

  it.scopedLive("works no longer for a client that has gone, and gives its bytes back", () =>
    Effect.gen(function* () {
      const begun = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      const { url, port } = yield* start(limits, (service) => ({
        ...service,
        submit: () =>
          Deferred.succeed(begun, undefined).pipe(
            Effect.zipRight(Effect.never),
            Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
          )
      }))
      const text = JSON.stringify({ prompt: "x".repeat(800) })
      const gone = yield* dial(port)
      gone.write(upload(text.length) + text)
      yield* Deferred.await(begun)
      assert.strictEqual(yield* heldBy(url), text.length)
      gone.destroy()
      yield* Deferred.await(interrupted)
      yield* eventually(heldBy(url), (bytes) => bytes === 0)
    })
  )

  it.scopedLive("holds nothing for requests that get in by no key", () =>
    Effect.gen(function* () {
      const { url, port } = yield* start({ ...limits, apiKeys: [keys.alice] })
      const strangers = yield* Effect.all(Array.from({ length: 3 }, () => dial(port)))
      for (const stranger of strangers) stranger.write(upload(900))
      const own = { "x-api-key": "alice-secret-key" }
      assert.strictEqual((yield* post(`${url}/v1/tasks`, { prompt: "x".repeat(900) }, own)).status, 202)
      for (const stranger of strangers) stranger.destroy()
    })
  )
})

describe("platforms and resources", () => {
  it.scopedLive("take changes of limits, which are the platform's history", () =>
    Effect.gen(function* () {
      const { url } = yield* start({ apiKeys: [keys.alice, keys.bob] })
      const change = (body: unknown, key = "alice-secret-key") =>
        patch(`${url}/v1/platforms/codex`, body, { "x-api-key": key })
      const changed = yield* change({ limits: { requestsPerMinute: 5, burst: null } })
      assert.strictEqual(changed.status, 200)
      assert.include(changed.body, { platform: "codex" })
      assert.strictEqual(Object(changed.body).buckets[0].nextRefillAt, "2026-11-22T12:00:01.000Z")
      yield* change({ limits: null }, "bob-secret-key")
      yield* change({ limits: { adapt: true } })

      const history = (query: string) =>
        ask(`${url}/v1/platforms/codex/history${query}`, { headers: { "x-api-key": "bob-secret-key" } })
      const at = "2026-11-22T12:00:00.000Z"
      const common = { platform: "codex", at, type: "limits.changed" }
      const first = { ...common, id: 1, tenant: "alice", limits: { requestsPerMinute: 5, burst: null } }
      const second = { ...common, id: 2, tenant: "bob", limits: null }
      const third = { ...common, id: 3, tenant: "alice", limits: { adapt: true } }
      assert.deepStrictEqual((yield* history("")).body, { events: [third, second, first] })
      assert.deepStrictEqual((yield* history("?limit=2")).body, { events: [third, second], next: 2 })
      assert.deepStrictEqual((yield* history("?limit=2&before=2")).body, { events: [first] })
      assert.deepStrictEqual((yield* history("?before=1")).body, { events: [] })
    })
  )

  it.scopedLive("refuse changes and pages that cannot be, naming the field", () =>
    Effect.gen(function* () {
      const { url } = yield* start({ maxBodyBytes: 100_000 })
      const problemsOf = (body: unknown) => {
        const { details, type } = errorOf(body)
        assert.strictEqual(type, "invalid-request")
        return Object(details.problems).map(({ field }: { field: string }) => field)
      }
      const codex = `${url}/v1/platforms/codex`
      for (const [body, fields] of [
        [
          { limits: { requestsPerMinute: 0, surprise: 1 }, other: true },
          ["limits.requestsPerMinute", "limits.surprise", "other"]
        ],
        [{ limits: { maxConcurrent: null } }, ["limits.maxConcurrent"]],
        [{ exhausted: true }, ["exhausted"]],
        // Only the resource manager knows that this is too much.
        [{ limits: { burst: 101 } }, ["limits.burst"]],
        ["{", []],
        ["[]", [""]]
      ] as const) {
        const wrong = yield* patch(codex, body)
        assert.strictEqual(wrong.status, 400)
        assert.sameMembers(problemsOf(wrong.body), [...fields])
      }
      assert.strictEqual((yield* patch(codex, { limits: null }, { "content-type": "text/plain" })).status, 415)
      assert.strictEqual((yield* patch(codex, { limits: null, x: "y".repeat(200_000) })).status, 413)
      const many = Object.fromEntries(Array.from({ length: 5_000 }, (_, index) => [`f${index}`, 1]))
      assert.lengthOf(problemsOf((yield* patch(codex, many)).body), 1)

      const page = yield* ask(`${codex}/history?limit=201&before=x&colour=red`)
      assert.sameMembers(problemsOf(page.body), ["limit", "before", "colour"])

      const failed = yield* patch(codex, {})
      assert.deepStrictEqual([failed.status, errorOf(failed.body).type], [503, "service-unavailable"])
      assert.notInclude(JSON.stringify(failed.body), "secret")

      for (const missing of [
        yield* patch(`${url}/v1/platforms/nobody`, { limits: null }),
        yield* ask(`${url}/v1/platforms/nobody/history`)
      ]) {
        assert.strictEqual(missing.status, 404)
        assert.strictEqual(errorOf(missing.body).message, "There is no platform nobody, only codex")
      }
    })
  )

  it.scopedLive("are shown and checked", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const listed = yield* ask(`${url}/v1/platforms`)
      assert.strictEqual(Object(listed.body).platforms[0].id, "codex")
      const shown = yield* ask(`${url}/v1/platforms/codex`)
      assert.deepStrictEqual([shown.status, Object(shown.body).status], [200, "available"])
      const checked = yield* ask(`${url}/v1/platforms/codex/check`, { method: "POST" })
      assert.deepStrictEqual([checked.status, Object(checked.body).status], [200, "degraded"])
      for (const [path, method] of [
        ["/v1/platforms/nobody", "GET"],
        ["/v1/platforms/nobody/check", "POST"]
      ] as const) {
        const missing = yield* ask(`${url}${path}`, { method })
        assert.strictEqual(missing.status, 404)
        assert.strictEqual(errorOf(missing.body).type, "not-found")
      }
      const shownResources = yield* ask(`${url}/v1/resources`)
      assert.strictEqual(Object(shownResources.body).queue.MEDIUM.depth, 1)
    })
  )
})

describe("requests that are wrong", () => {
  it.scopedLive("name every field and why", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const wrong = yield* post(`${url}/v1/tasks`, {
        priority: "URGENT",
        context: [{ role: "robot", content: "x" }],
        maxOutputTokens: 0,
        deadline: "tomorrow",
        surprise: 1,
        tools: [{ name: "a b", parameters: {} }]
      })
      assert.strictEqual(wrong.status, 400)
      const { type, details, message } = errorOf(wrong.body)
      assert.strictEqual(type, "invalid-request")
      const problems = new Map<string, string>(
        Object(details.problems).map(({ field, problem }: { field: string; problem: string }) => [field, problem])
      )
      assert.sameMembers(Array.from(problems.keys()), [
        "prompt",
        "priority",
        "context.0.role",
        "maxOutputTokens",
        "deadline",
        "surprise",
        "tools.0.name"
      ])
      assert.strictEqual(problems.get("prompt"), "is missing")
      assert.strictEqual(problems.get("surprise"), "is not a known field")
      assert.include(problems.get("priority"), "HIGH")
      assert.include(message, "more)")
    })
  )

  it.scopedLive("name unknown fields at any depth", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const wrong = yield* post(`${url}/v1/tasks`, { prompt: "x", context: [{ role: "user", content: "y", nme: "z" }] })
      assert.strictEqual(wrong.status, 400)
      assert.deepInclude(Object(errorOf(wrong.body).details.problems), {
        field: "context.0.nme",
        problem: "is not a known field"
      })
    })
  )

  it.scopedLive("stay short however long the value", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const wrong = yield* post(`${url}/v1/tasks`, { prompt: "x", priority: "H".repeat(1_000_000) })
      assert.strictEqual(wrong.status, 400)
      assert.isBelow(JSON.stringify(wrong.body).length, 2_000)
    })
  )

  it.scopedLive("in query, header and path are told the same way", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const fieldsOf = (body: unknown) =>
        Object(errorOf(body).details.problems).map(({ field }: { field: string }) => field)
      const query = yield* ask(`${url}/v1/tasks?state=lost&limit=0&colour=red`)
      assert.strictEqual(query.status, 400)
      assert.sameMembers(fieldsOf(query.body), ["state", "limit", "colour"])
      const path = yield* ask(`${url}/v1/tasks/not-a-uuid`)
      assert.deepStrictEqual([path.status, fieldsOf(path.body)], [400, ["id"]])
      const platform = yield* ask(`${url}/v1/platforms/NOT_ONE`)
      assert.deepStrictEqual([platform.status, fieldsOf(platform.body)], [400, ["id"]])
      const key = yield* post(`${url}/v1/tasks`, { prompt: "x" }, { "idempotency-key": "k".repeat(256) })
      assert.deepStrictEqual([key.status, fieldsOf(key.body)], [400, ["idempotency-key"]])
      const resume = yield* ask(`${url}/v1/tasks/${idOf(1)}/events`, { headers: { "last-event-id": "x" } })
      assert.deepStrictEqual([resume.status, fieldsOf(resume.body)], [400, ["last-event-id"]])
      const cursor = yield* ask(`${url}/v1/tasks?cursor=abc`)
      assert.deepStrictEqual([cursor.status, errorOf(cursor.body).type], [400, "invalid-request"])
    })
  )

  it.scopedLive("at unknown paths are 404, with wrong methods 405 and Allow", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      for (const path of ["/", "/v1", "/v1/nothing", `/v1/tasks/${idOf(1)}/nothing`, `/v1/tasks/${"x".repeat(500)}`]) {
        const unknown = yield* ask(`${url}${path}`)
        assert.deepStrictEqual([unknown.status, errorOf(unknown.body).type], [404, "not-found"], path)
      }
      const missing = yield* ask(`${url}/v1/tasks/${idOf(99)}`)
      assert.deepStrictEqual([missing.status, errorOf(missing.body).type], [404, "not-found"])
      for (const [method, path, allow] of [
        ["PUT", "/v1/tasks", "GET, HEAD, POST"],
        ["PATCH", `/v1/tasks/${idOf(1)}`, "DELETE, GET, HEAD"],
        ["GET", `/v1/tasks/${idOf(1)}/retry`, "POST"],
        ["POST", "/v1/resources/", "GET, HEAD"],
        ["DELETE", "/openapi.json?x=1", "GET, HEAD"],
        ["OPTIONS", "/v1/platforms/codex", "GET, HEAD, PATCH"],
        ["POST", "/v1/platforms/codex/history", "GET, HEAD"]
      ] as const) {
        const wrong = yield* ask(`${url}${path}`, { method })
        assert.deepStrictEqual([wrong.status, errorOf(wrong.body).type], [405, "method-not-allowed"], path)
        assert.strictEqual(wrong.headers.get("allow"), allow)
        assert.deepStrictEqual(errorOf(wrong.body).details.allowed, allow.split(", "))
      }
      const head = yield* ask(`${url}/v1/tasks`, { method: "HEAD" })
      assert.strictEqual(head.status, 200)
    })
  )

  it.scopedLive("with a body that is no JSON are 400", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      for (const body of ["{", "", "   ", '{"prompt": "x"} trailing', "null", "[]", '"text"']) {
        const wrong = yield* post(`${url}/v1/tasks`, body)
        assert.deepStrictEqual([wrong.status, errorOf(wrong.body).type], [400, "invalid-request"], body)
      }
      const noBody = yield* ask(`${url}/v1/tasks`, { method: "POST" })
      assert.deepStrictEqual([noBody.status, errorOf(noBody.body).type], [400, "invalid-request"])
      const binary = yield* ask(`${url}/v1/tasks`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: new Uint8Array([0x22, 0xff, 0xfe, 0x22])
      })
      assert.deepStrictEqual([binary.status, errorOf(binary.body).message], [400, "The body is not UTF-8 text"])
      const deep = yield* post(
        `${url}/v1/tasks`,
        `{"prompt":"x","tools":[{"name":"t","parameters":{"a":${"[".repeat(50_000)}${"]".repeat(50_000)}}}]}`
      )
      assert.strictEqual(deep.status, 400)
      assert.include(errorOf(deep.body).message, "levels deep")
    })
  )

  it.scopedLive("with another content type are 415", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      for (const headers of [
        { "content-type": "text/plain" },
        { "content-type": "application/x-www-form-urlencoded" },
        { "content-type": "multipart/form-data; boundary=application/json" },
        { "content-type": "application/json-seq" },
        { "content-type": "application/json", "content-encoding": "gzip" }
      ]) {
        const wrong = yield* post(`${url}/v1/tasks`, { prompt: "x" }, headers)
        assert.deepStrictEqual([wrong.status, errorOf(wrong.body).type], [415, "unsupported-media-type"])
      }
      const charset = yield* post(
        `${url}/v1/tasks`,
        { prompt: "x" },
        { "content-type": "Application/JSON; charset=utf-8" }
      )
      assert.strictEqual(charset.status, 202)
      const none = yield* raw(Number(new URL(url).port), [
        'POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-length: 14\r\nconnection: close\r\n\r\n{"prompt":"x"}'
      ])
      assert.match(none, /^HTTP\/1.1 415 /)
    })
  )

  it.scopedLive("with a large body are 413, announced or not, and the client reads it", () =>
    Effect.gen(function* () {
      const { url, port, scripted } = yield* start({ maxBodyBytes: 100_000 })
      const large = { prompt: "x".repeat(8_000_000) }
      const announced = yield* post(`${url}/v1/tasks`, large)
      assert.deepStrictEqual([announced.status, errorOf(announced.body).type], [413, "payload-too-large"])
      assert.deepStrictEqual(errorOf(announced.body).details, { maxBytes: 100_000 })

      const chunked = yield* ask(`${url}/v1/tasks`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: new Blob([JSON.stringify(large)]).stream(),
        duplex: "half"
      })
      assert.deepStrictEqual([chunked.status, errorOf(chunked.body).type], [413, "payload-too-large"])

      const chunk = "x".repeat(65_536)
      const rawChunked = yield* raw(
        port,
        [
          "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
          ...Array.from({ length: 100 }, () => `10000\r\n${chunk}\r\n`),
          "0\r\n\r\n"
        ],
        /\}\}\}$/
      )
      assert.match(rawChunked, /^HTTP\/1.1 413 /)
      assert.strictEqual(errorOf(rawBody(rawChunked)).type, "payload-too-large")

      // A client that waits for the answer before it sends anything gets it too.
      const waiting = yield* raw(
        port,
        [
          "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9000000\r\n\r\n"
        ],
        /\}\}\}$/
      )
      assert.match(waiting, /^HTTP\/1.1 413 /)
      assert.lengthOf(yield* scripted.tasks, 0)

      const fits = yield* post(`${url}/v1/tasks`, { prompt: "x".repeat(99_000) })
      assert.strictEqual(fits.status, 202)
    })
  )

  it.scopedLive("that are no HTTP get the same shape", () =>
    Effect.gen(function* () {
      const { port } = yield* start()
      const nonsense = yield* raw(port, ["nonsense\r\n\r\n"])
      assert.match(nonsense, /^HTTP\/1.1 400 /)
      assert.strictEqual(errorOf(rawBody(nonsense)).type, "invalid-request")
      const noHost = yield* raw(port, ["GET /v1/tasks HTTP/1.1\r\nconnection: close\r\n\r\n"])
      assert.match(noHost, /^HTTP\/1.1 400 /)
      assert.strictEqual(errorOf(rawBody(noHost)).type, "invalid-request")
      const huge = yield* raw(port, [`GET /v1/tasks HTTP/1.1\r\nhost: localhost\r\nx: ${"y".repeat(40_000)}\r\n\r\n`])
      assert.match(huge, /^HTTP\/1.1 431 /)
      assert.strictEqual(errorOf(rawBody(huge)).type, "invalid-request")
      const odd = yield* raw(port, ["GET /v1/tasks/%zz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"])
      assert.match(odd, /^HTTP\/1.1 4\d\d /)
      errorOf(rawBody(odd))
      const expecting = yield* raw(port, [
        "GET /v1/nothing HTTP/1.1\r\nhost: localhost\r\nexpect: wonders\r\nconnection: close\r\n\r\n"
      ])
      assert.match(expecting, /^HTTP\/1.1 404 /)
      const absolute = yield* raw(port, [
        "GET http://localhost/v1/tasks HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
      ])
      assert.match(absolute, /^HTTP\/1.1 (200|404) /)
    })
  )

  it.scopedLive("tell nothing of what broke inside", () =>
    Effect.gen(function* () {
      const { url } = yield* start({}, (service) => ({
        ...service,
        list: () => Effect.die(new Error("secret detail")),
        get: () => new ServiceUnavailable({ message: "The database does not answer" })
      }))
      const defect = yield* ask(`${url}/v1/tasks`)
      assert.deepStrictEqual([defect.status, errorOf(defect.body).type], [500, "internal-error"])
      assert.notInclude(JSON.stringify(defect.body), "secret")
      const down = yield* ask(`${url}/v1/tasks/${idOf(1)}`)
      assert.deepStrictEqual([down.status, errorOf(down.body).type], [503, "service-unavailable"])
      assert.isNotNull(down.headers.get("retry-after"))
    })
  )
})

describe("doors without API keys", () => {
  it.scopedLive("open to this machine's names only", () =>
    Effect.gen(function* () {
      const { port } = yield* start()
      const from = (host: string) => raw(port, [`GET /v1/tasks HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`])
      for (const host of ["localhost", `LOCALHOST:${port}`, "127.0.0.1", `127.0.0.1:${port}`, `[::1]:${port}`]) {
        assert.match(yield* from(host), /^HTTP\/1.1 200 /, host)
      }
      for (const host of [
        "evil.example",
        `evil.example:${port}`,
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        ""
      ]) {
        const refused = yield* from(host)
        assert.match(refused, host === "" ? /^HTTP\/1.1 400 / : /^HTTP\/1.1 403 /, host)
        errorOf(rawBody(refused))
      }
    })
  )

  it.scopedLive("let no other origin change anything", () =>
    Effect.gen(function* () {
      const { url, port, scripted } = yield* start()
      for (const origin of [
        "https://evil.example",
        "null",
        "http://localhost:1",
        `http://127.0.0.1:${port}.evil.example`
      ]) {
        const foreign = yield* post(`${url}/v1/tasks`, { prompt: "x" }, { origin })
        assert.deepStrictEqual([foreign.status, errorOf(foreign.body).type], [403, "forbidden"], origin)
        const removal = yield* ask(`${url}/v1/tasks/${idOf(1)}`, { method: "DELETE", headers: { origin } })
        assert.strictEqual(removal.status, 403)
        const change = yield* patch(`${url}/v1/platforms/codex`, { limits: null }, { origin })
        assert.strictEqual(change.status, 403)
      }
      assert.lengthOf(yield* scripted.tasks, 0)
      const own = yield* post(`${url}/v1/tasks`, { prompt: "x" }, { origin: url })
      assert.strictEqual(own.status, 202)
    })
  )

  it.scopedLive("stay shut on other addresses", () =>
    Effect.gen(function* () {
      for (const host of ["0.0.0.0", "::", "192.168.1.1", "example.com"]) {
        const error = yield* Effect.flip(start({ host }))
        assert.instanceOf(error, UnprotectedAddress)
        assert.include(error.message, "DREAM_TEAM_API_KEYS")
      }
    })
  )
})

describe("doors with API keys", () => {
  const apiKeys = [keys.alice, keys.bob]

  it.scopedLive("open to known keys, in either header, and to nothing else", () =>
    Effect.gen(function* () {
      const { url } = yield* start({ apiKeys })
      const status = (headers: Readonly<Record<string, string>>) =>
        Effect.map(ask(`${url}/v1/tasks`, { headers }), (answer) => answer.status)
      assert.strictEqual(yield* status({ authorization: "Bearer alice-secret-key" }), 200)
      assert.strictEqual(yield* status({ "x-api-key": "bob-secret-key" }), 200)
      const missing = "Send an API key"
      const unknown = "The API key is not known here"
      for (const [headers, why] of [
        [{}, missing],
        [{ authorization: "Bearer " }, missing],
        [{ authorization: "Bearer alice-secret-ke" }, unknown],
        [{ authorization: "Bearer alice-secret-keyy" }, unknown],
        [{ "x-api-key": "" }, missing],
        [{ "x-api-key": "x" }, unknown]
      ] as const) {
        const refused = yield* ask(`${url}/v1/tasks`, { headers })
        assert.include(errorOf(refused.body).message, why)
        assert.deepStrictEqual([refused.status, errorOf(refused.body).type], [401, "unauthorized"])
        assert.match(refused.headers.get("www-authenticate") ?? "", /^Bearer/)
        assert.notInclude(JSON.stringify(refused.body), "alice")
      }
    })
  )

  it.scopedLive("ask for a key at every endpoint but those that say they need none", () =>
    Effect.gen(function* () {
      const { url } = yield* start({ apiKeys })
      const { paths } = Object((yield* ask(`${url}/openapi.json`)).body)
      const open: Array<string> = []
      for (const [path, methods] of Object.entries<Record<string, { readonly security: unknown }>>(paths)) {
        for (const [method, { security }] of Object.entries(methods)) {
          const { body, status } = yield* ask(`${url}${path.replace("{id}", idOf(1))}`, {
            method: method.toUpperCase()
          })
          const needsKey = status === 401
          assert.deepStrictEqual(security, needsKey ? [{ bearer: [] }, { apiKey: [] }] : [], `${method} ${path}`)
          if (needsKey) assert.include(Object(body).error.message, "Send an API key", `${method} ${path}`)
          else open.push(`${method} ${path}`)
        }
      }
      assert.deepStrictEqual(open, ["get /health/live"])
      for (const path of ["/openapi.json", "/docs"]) {
        assert.strictEqual((yield* ask(`${url}${path}`)).status, 200, path)
      }
    })
  )

  it.scopedLive("show each tenant its own tasks, and all the platforms", () =>
    Effect.gen(function* () {
      const { url } = yield* start({ apiKeys })
      const alice = { authorization: "Bearer alice-secret-key" }
      const bob = { authorization: "Bearer bob-secret-key" }
      const submitted = yield* post(`${url}/v1/tasks`, { prompt: "x" }, alice)
      assert.include(submitted.body, { tenant: "alice" })
      const task = `${url}/v1/tasks/${idOf(1)}`
      for (const [method, path] of [
        ["GET", ""],
        ["DELETE", ""],
        ["POST", "/retry"],
        ["GET", "/attempts"],
        ["GET", "/events"]
      ] as const) {
        assert.strictEqual((yield* ask(`${task}${path}`, { method, headers: bob })).status, 404, path)
      }
      assert.deepStrictEqual((yield* ask(`${url}/v1/tasks`, { headers: bob })).body, { tasks: [] })
      assert.strictEqual((yield* ask(task, { headers: alice })).status, 200)
      for (const headers of [alice, bob]) {
        assert.lengthOf(Object((yield* ask(`${url}/v1/platforms`, { headers })).body).platforms, 1)
        assert.strictEqual((yield* ask(`${url}/v1/resources`, { headers })).status, 200)
      }
    })
  )

  it.scopedLive("may open on every address, for any Host", () =>
    Effect.gen(function* () {
      const { port } = yield* start({ apiKeys, host: "0.0.0.0" })
      const answer = yield* raw(port, [
        "GET /v1/tasks HTTP/1.1\r\nhost: team.example\r\nx-api-key: alice-secret-key\r\nconnection: close\r\n\r\n"
      ])
      assert.match(answer, /^HTTP\/1.1 200 /)
    })
  )
})

describe("health", () => {
  it.scopedLive("is live, and ready while the database answers", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      assert.deepStrictEqual((yield* ask(`${url}/health/live`)).body, { status: "live" })
      const ready = yield* ask(`${url}/health/ready`)
      assert.strictEqual(ready.status, 200)
      assert.deepStrictEqual(ready.body, {
        status: "ready",
        checks: [
          { name: "running", ok: true },
          { name: "database", ok: true },
          { name: "platforms", ok: true, message: "1 of 1 usable" }
        ]
      })
    })
  )

  it.scopedLive("is not ready without its database", () =>
    Effect.gen(function* () {
      const { url } = yield* start({}, (service) => ({
        ...service,
        list: () => new ServiceUnavailable({ message: "The database is locked" })
      }))
      const ready = yield* ask(`${url}/health/ready`)
      assert.strictEqual(ready.status, 503)
      const { type, details } = errorOf(ready.body)
      assert.strictEqual(type, "not-ready")
      assert.deepInclude(Object(details.checks), { name: "database", ok: false, message: "The database is locked" })
      assert.strictEqual((yield* ask(`${url}/health/live`)).status, 200)
    })
  )

  it.scopedLive("is not ready while the database refuses writes, and is again by itself", () =>
    Effect.gen(function* () {
      const { service } = yield* makeCoordinator
      const context = yield* Layer.build(Http.layer.pipe(Layer.provideMerge(concerns(service))))
      const { url } = Context.get(context, Http)
      const sql = Context.get(context, SqlClient)
      const { write } = Context.get(context, SqlWriter)
      yield* sql`PRAGMA max_page_count = 1`
      yield* Effect.exit(write(sql`CREATE TABLE more AS SELECT ${"s".repeat(100_000)} AS text`))
      const ready = yield* ask(`${url}/health/ready`)
      assert.strictEqual(ready.status, 503)
      assert.include(errorOf(ready.body).message, "database (The disk of the task database is full")
      yield* sql`PRAGMA max_page_count = 1073741823`
      yield* eventually(ask(`${url}/health/ready`), ({ status }) => status === 200)
    })
  )
})

describe("the description", () => {
  it.scopedLive("is OpenAPI 3.1 and whole", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const answer = yield* ask(`${url}/openapi.json`)
      assert.strictEqual(answer.status, 200)
      const spec = Object(answer.body)
      assert.strictEqual(spec.openapi, "3.1.0")
      const operations = Object.entries<Record<string, Record<string, unknown>>>(spec.paths).flatMap(
        ([path, methods]) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`)
      )
      assert.sameMembers(operations, [
        "POST /v1/tasks",
        "GET /v1/tasks",
        "GET /v1/tasks/{id}",
        "DELETE /v1/tasks/{id}",
        "POST /v1/tasks/{id}/retry",
        "GET /v1/tasks/{id}/attempts",
        "GET /v1/tasks/{id}/events",
        "POST /v1/jobs",
        "GET /v1/jobs",
        "GET /v1/jobs/{id}",
        "DELETE /v1/jobs/{id}",
        "GET /v1/events",
        "GET /v1/platforms",
        "GET /v1/platforms/{id}",
        "PATCH /v1/platforms/{id}",
        "POST /v1/platforms/{id}/check",
        "GET /v1/platforms/{id}/history",
        "GET /v1/resources",
        "GET /v1/budgets",
        "POST /v1/chat/completions",
        "GET /v1/models",
        "GET /v1/sessions",
        "GET /v1/sessions/{id}",
        "POST /v1/sessions/{id}/handoff",
        "GET /v1/handoffs",
        "GET /health/live",
        "GET /health/ready"
      ])
      const ids = new Set<string>()
      for (const methods of Object.values<Record<string, Record<string, unknown>>>(spec.paths)) {
        for (const operation of Object.values(methods)) {
          assert.isNotEmpty(operation.summary)
          assert.isNotEmpty(operation.description)
          ids.add(String(operation.operationId))
          for (const parameter of Object(operation.parameters)) assert.isNotEmpty(parameter.description, parameter.name)
          for (const response of Object.values<Record<string, unknown>>(Object(operation.responses))) {
            assert.isNotEmpty(response.description)
          }
        }
      }
      assert.strictEqual(ids.size, operations.length)
      const submitted = spec.paths["/v1/tasks"].post
      assert.sameMembers(Object.keys(submitted.responses), [
        "200",
        "202",
        "400",
        "401",
        "403",
        "409",
        "413",
        "415",
        "422",
        "429",
        "500",
        "503"
      ])
      assert.property(submitted.responses["202"].headers, "Location")
      assert.property(submitted.responses["429"].headers, "Retry-After")
      assert.property(submitted.responses["503"].headers, "Retry-After")
      const changed = spec.paths["/v1/platforms/{id}"].patch
      assert.includeMembers(Object.keys(changed.responses), ["200", "400", "404", "413", "415", "503"])
      assert.deepStrictEqual(changed.requestBody.content["application/json"].schema, {
        $ref: "#/components/schemas/PlatformPatch"
      })
      const text = JSON.stringify(spec)
      assert.notInclude(text, "HttpApiDecodeError")
      for (const [, name] of text.matchAll(/"#\/components\/schemas\/([^"]+)"/g)) {
        assert.property(spec.components.schemas, name ?? "")
      }
      assert.sameMembers(Object.keys(spec.components.securitySchemes), ["bearer", "apiKey"])
    })
  )

  it.scopedLive("has a page that loads nothing from elsewhere", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const page = yield* ask(`${url}/docs`)
      assert.strictEqual(page.status, 200)
      assert.match(page.headers.get("content-type") ?? "", /^text\/html/)
      assert.include(page.headers.get("content-security-policy"), "default-src 'none'")
      const html = String(page.body)
      assert.include(html, "/v1/tasks/{id}/events")
      assert.notMatch(html, /<(script|link|img)[^>]+(src|href)=["']?https?:/)
      assert.strictEqual((yield* ask(`${url}/docs`)).status, 200)
    })
  )

  it.scoped("has that page also where whoever asked for it first did not wait", () =>
    Effect.gen(function* () {
      const { service } = yield* makeCoordinator
      const handle = yield* Effect.provide(Http.webHandler, yield* Layer.build(concerns(service)))
      const left = new AbortController()
      const first = handle(new Request("http://localhost/docs", { signal: left.signal }))
      left.abort()
      yield* Effect.promise(() => first)
      const page = yield* Effect.promise(() => handle(new Request("http://localhost/docs")))
      assert.strictEqual(page.status, 200)
    })
  )
})

describe("the server", () => {
  it.scopedLive("says what to do when the port is taken", () =>
    Effect.gen(function* () {
      const { port } = yield* start()
      const error = yield* Effect.flip(start({ port }))
      assert.instanceOf(error, CannotListen)
      assert.include(error, { code: "EADDRINUSE", port, host: "127.0.0.1" })
      assert.include(error.message, "DREAM_TEAM_PORT")
    })
  )

  it.scopedLive("says what to do when the address is not this machine's", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(start({ host: "192.0.2.1", apiKeys: [keys.alice] }))
      assert.instanceOf(error, CannotListen)
      assert.include(error.message, "DREAM_TEAM_HOST")
    })
  )

  it.live("lets a request in flight finish before what it works with is gone", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const scripted = yield* makeCoordinator
      const reached = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const order: Array<string> = []
      const below = Layer.scopedDiscard(Effect.addFinalizer(() => Effect.sync(() => order.push("concerns closed"))))
      const layer = Http.layer.pipe(
        Layer.provide(
          Layer.provideMerge(
            concerns({
              ...scripted.service,
              list: (tenant, filter) =>
                Deferred.succeed(reached, undefined).pipe(
                  Effect.zipRight(Deferred.await(go)),
                  Effect.zipRight(scripted.service.list(tenant, filter)),
                  Effect.tap(() => Effect.sync(() => order.push("answered")))
                )
            }),
            below
          )
        )
      )
      const { url, port } = yield* Layer.build(layer).pipe(
        Effect.flatMap((context) => Effect.provide(Http, context)),
        Scope.extend(scope)
      )
      // Kept alive, so that it can be asked again while the server goes down.
      const request = yield* Effect.fork(ask(`${url}/v1/tasks`))
      yield* Deferred.await(reached)
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      const refused = yield* eventually(raw(port, ["GET /v1/tasks HTTP/1.1\r\nhost: localhost\r\n\r\n"]), (text) =>
        text.includes("ECONNREFUSED")
      )
      assert.include(refused, "ECONNREFUSED")
      assert.deepStrictEqual(order, [])
      yield* Deferred.succeed(go, undefined)
      assert.strictEqual((yield* Fiber.join(request)).status, 200)
      yield* Fiber.join(closing)
      assert.deepStrictEqual(order, ["answered", "concerns closed"])
    })
  )

  it.live("answers 503 on connections that are still open, and is not ready", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const reached = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const { url, port } = yield* Scope.extend(
        start({}, (service) => ({
          ...service,
          list: (tenant, filter) =>
            filter.limit === 7
              ? Deferred.succeed(reached, undefined).pipe(
                  Effect.zipRight(Deferred.await(go)),
                  Effect.zipRight(service.list(tenant, filter))
                )
              : service.list(tenant, filter)
        })),
        scope
      )
      const get = (path: string) => `GET ${path} HTTP/1.1\r\nhost: localhost\r\n\r\n`
      const [late, probe] = yield* Effect.all([dial(port), dial(port)])
      const inFlight = yield* Effect.fork(ask(`${url}/v1/tasks?limit=7`))
      yield* Deferred.await(reached)
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      yield* eventually(raw(port, [get("/health/live")]), (text) => text.includes("ECONNREFUSED"))

      const refused = yield* converse(late, [get("/v1/tasks")])
      assert.match(refused, /^HTTP\/1.1 503 /)
      assert.match(refused, /^connection: close/im)
      assert.strictEqual(errorOf(rawBody(refused)).type, "service-unavailable")
      const ready = yield* converse(probe, [get("/health/ready")])
      assert.match(ready, /^HTTP\/1.1 503 /)
      assert.deepInclude(Object(errorOf(rawBody(ready)).details.checks), {
        name: "running",
        ok: false,
        message: "shutting down"
      })

      yield* Deferred.succeed(go, undefined)
      const { status, headers } = yield* Fiber.join(inFlight)
      assert.deepStrictEqual([status, headers.get("connection")], [200, "close"])
      yield* Fiber.join(closing)
    })
  )

  it.live("waits for requests in flight no longer than its grace", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const reached = yield* Deferred.make<void>()
      const { url } = yield* Scope.extend(
        start({ shutdownGraceMs: 50 }, (service) => ({
          ...service,
          list: () => Effect.zipRight(Deferred.succeed(reached, undefined), Effect.never)
        })),
        scope
      )
      const stuck = yield* Effect.fork(
        Effect.promise(() =>
          fetch(`${url}/v1/tasks`).then(
            () => "answered",
            () => "cut off"
          )
        )
      )
      yield* Deferred.await(reached)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* Fiber.join(stuck), "cut off")
    })
  )

  it.live("ends event streams when it ends", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { url, scripted } = yield* Scope.extend(start(), scope)
      yield* post(`${url}/v1/tasks`, { prompt: "x" })
      const response = yield* Effect.promise(() => fetch(`${url}/v1/tasks/${idOf(1)}/events`))
      const reader = response.body?.getReader()
      yield* Effect.promise(async () => reader?.read())
      assert.strictEqual(yield* scripted.openStreams, 1)
      yield* Scope.close(scope, Exit.void)
      let last = yield* Effect.promise(async () => reader?.read())
      while (last?.done === false) last = yield* Effect.promise(async () => reader?.read())
      assert.isTrue(last?.done)
      assert.strictEqual(yield* scripted.openStreams, 0)
    })
  )

  it.scopedLive("has a span for every request but those for its health", () =>
    Effect.gen(function* () {
      const spans: Array<Tracer.Span> = []
      const native = yield* Effect.tracer
      const tracer = Tracer.make({
        span: (...args) => {
          const span = native.span(...args)
          spans.push(span)
          return span
        },
        context: (f, fiber) => native.context(f, fiber)
      })
      const { url } = yield* Effect.withTracer(start({ apiKeys: [keys.alice] }), tracer)
      yield* ask(`${url}/health/live`)
      yield* ask(`${url}/v1/tasks/${idOf(1)}`, { headers: { authorization: "Bearer alice-secret-key" } })
      yield* ask(`${url}/v1/resources`, { headers: { "x-api-key": "alice-secret-key" } })
      const served = spans.filter(({ kind }) => kind === "server")
      assert.deepStrictEqual(
        served.map(({ name }) => name),
        ["http.server GET", "http.server GET"]
      )
      const [first] = served
      assert.strictEqual(first?.attributes.get("http.route"), "/v1/tasks/:id")
      assert.strictEqual(first?.attributes.get("http.response.status_code"), 404)
      assert.notInclude(JSON.stringify(served.map(({ attributes }) => [...attributes])), "alice-secret-key")
    })
  )
})
