import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Option, Ref, Schema, Scope, Stream, TestClock } from "effect"
import { ServiceUnavailable } from "../../src/Domain/ApiError.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { TaskPreview } from "../../src/Domain/Task.js"
import { Http } from "../../src/Http.js"
import { concerns, idOf, makeCoordinator, type Scripted } from "../Http/scripted.js"
import { ask, eventually, post, start } from "../Http/server.js"

const inMemory = (change: (service: Scripted["service"]) => Scripted["service"] = (same) => same) =>
  Effect.gen(function* () {
    const scripted = yield* makeCoordinator
    const context = yield* Layer.build(concerns(change(scripted.service)))
    const handle = yield* Effect.provide(Http.webHandler, context)
    const send = (path: string, init?: RequestInit) =>
      Effect.promise(() => handle(new Request(`http://localhost${path}`, init)))
    const submit = send("/v1/tasks", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "x" })
    })
    return { scripted, send, submit }
  })

const texts = (response: Response) => {
  const reader = (response.body ?? new ReadableStream()).pipeThrough(new TextDecoderStream()).getReader()
  return {
    next: Effect.promise(() => reader.read()).pipe(Effect.map(({ value }) => value)),
    close: Effect.promise(() => reader.cancel())
  }
}

const idsIn = (text: string) => Array.from(text.matchAll(/^id: (\d+)$/gm), ([, id]) => Number(id))

describe("a task's events", () => {
  it.scopedLive("come as an event stream that ends with the task", () =>
    Effect.gen(function* () {
      const { url, scripted } = yield* start()
      yield* post(`${url}/v1/tasks`, { prompt: "x" })
      const following = yield* Effect.fork(ask(`${url}/v1/tasks/${idOf(1)}/events`))
      yield* eventually(scripted.openStreams, (open) => open === 1)
      yield* scripted.emit(idOf(1), {
        type: "attempt.started",
        number: 1,
        platform: PlatformId.make("codex"),
        model: "m",
        waitedMs: 3
      })
      yield* scripted.finish(idOf(1), "done")
      const { status, headers, body } = yield* Fiber.join(following)
      assert.strictEqual(status, 200)
      assert.match(headers.get("content-type") ?? "", /^text\/event-stream/)
      assert.strictEqual(headers.get("cache-control"), "no-store")
      const frames = String(body).split("\n\n")
      assert.strictEqual(frames[0], "retry: 1000")
      assert.strictEqual(
        frames[2],
        'id: 2\nevent: attempt.started\ndata: {"id":2,"taskId":"' +
          `${idOf(1)}","at":"2026-11-22T12:00:00.000Z","type":"attempt.started","number":1,"platform":"codex","model":"m","waitedMs":3}`
      )
      assert.match(frames[3] ?? "", /^id: 3\nevent: task.succeeded\n/)
      assert.lengthOf(frames, 5)
      yield* eventually(scripted.openStreams, (open) => open === 0)
    })
  )

  it.scopedLive("go on after the last that was seen", () =>
    Effect.gen(function* () {
      const { url, scripted } = yield* start()
      yield* post(`${url}/v1/tasks`, { prompt: "x" })
      yield* scripted.emit(idOf(1), { type: "task.waiting", until: 0, why: "busy" })
      yield* scripted.finish(idOf(1), "done")
      const events = `${url}/v1/tasks/${idOf(1)}/events`
      const ids = (path: string, headers: Readonly<Record<string, string>> = {}) =>
        Effect.map(ask(path, { headers }), ({ body }) => idsIn(String(body)))
      assert.deepStrictEqual(yield* ids(events), [1, 2, 3])
      assert.deepStrictEqual(yield* ids(`${events}?after=0`), [1, 2, 3])
      assert.deepStrictEqual(yield* ids(`${events}?after=1`), [2, 3])
      assert.deepStrictEqual(yield* ids(events, { "last-event-id": "2" }), [3])
      assert.deepStrictEqual(yield* ids(`${events}?after=0`, { "last-event-id": "2" }), [3])
      // A browser would come back for ever but for this answer.
      const over = yield* ask(events, { headers: { "last-event-id": "3" } })
      assert.deepStrictEqual([over.status, over.body], [204, ""])
    })
  )

  it.scopedLive("stop when the reader leaves", () =>
    Effect.gen(function* () {
      const { url, scripted } = yield* start()
      yield* post(`${url}/v1/tasks`, { prompt: "x" })
      const following = yield* Effect.fork(ask(`${url}/v1/tasks/${idOf(1)}/events`))
      yield* eventually(scripted.openStreams, (open) => open === 1)
      yield* Fiber.interrupt(following)
      yield* eventually(scripted.openStreams, (open) => open === 0)
    })
  )

  it.scoped("are kept alive by a comment every 15 seconds", () =>
    Effect.gen(function* () {
      const { send, submit } = yield* inMemory()
      yield* submit
      const reader = texts(yield* send(`/v1/tasks/${idOf(1)}/events`))
      assert.strictEqual(yield* reader.next, "retry: 1000\n\n")
      assert.match((yield* reader.next) ?? "", /^id: 1\nevent: task.queued\n/)
      const next = yield* Effect.fork(reader.next)
      yield* TestClock.adjust("14 seconds")
      assert.isTrue(Option.isNone(yield* Fiber.poll(next)))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(next), ": keep-alive\n\n")
      yield* TestClock.adjust("15 seconds")
      assert.strictEqual(yield* reader.next, ": keep-alive\n\n")
      yield* reader.close
    })
  )

  it.scoped("tell of an error as their last event, without an id", () =>
    Effect.gen(function* () {
      for (const [failing, type] of [
        [Stream.fail(new ServiceUnavailable({ message: "The database is locked" })), "service-unavailable"],
        [Stream.die(new Error("secret detail")), "internal-error"]
      ] as const) {
        const { send, submit } = yield* inMemory((service) => ({
          ...service,
          events: (tenant, id, after) =>
            Effect.map(service.events(tenant, id, after), (events) => Stream.concat(Stream.take(events, 1), failing))
        }))
        yield* submit
        const text = yield* Effect.flatMap(send(`/v1/tasks/${idOf(1)}/events`), (response) =>
          Effect.promise(() => response.text())
        )
        assert.deepStrictEqual(idsIn(text), [1])
        const [, data] = /event: error\ndata: (.*)\n\n$/.exec(text) ?? []
        assert.strictEqual(JSON.parse(data ?? "null").error.type, type)
        assert.notInclude(text, "secret")
      }
    })
  )

  it.live("end, without an error, when the service does", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const closed = yield* Deferred.make<void>()
      const opened = yield* Ref.make(0)
      const { url } = yield* Scope.extend(
        start({}, (service) => ({
          ...service,
          events: (tenant, id, after) =>
            Effect.map(service.events(tenant, id, after), (events) =>
              events.pipe(
                Stream.tap(() => Ref.update(opened, (count) => count + 1)),
                Stream.ensuring(Deferred.succeed(closed, undefined))
              )
            )
        })),
        scope
      )
      yield* post(`${url}/v1/tasks`, { prompt: "x" })
      const following = yield* Effect.fork(ask(`${url}/v1/tasks/${idOf(1)}/events`))
      yield* eventually(Ref.get(opened), (count) => count === 1)
      yield* Scope.close(scope, Exit.void)
      yield* Deferred.await(closed)
      const { status, body } = yield* Fiber.join(following)
      assert.strictEqual(status, 200)
      assert.notInclude(String(body), "event: error")
    })
  )
})

describe("a dry run", () => {
  it.scopedLive("answers what would become of the task, and stores nothing", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const { body, headers, status } = yield* post(`${url}/v1/tasks?dryRun=true`, { prompt: "x", type: "testing" })
      assert.strictEqual(status, 200)
      assert.isNull(headers.get("location"))
      const preview = Schema.decodeUnknownSync(TaskPreview)(body)
      assert.deepInclude(preview, { accepted: true, type: "testing", choice: PlatformId.make("codex") })
      assert.deepStrictEqual((yield* ask(`${url}/v1/tasks`)).body, { tasks: [] })
      assert.strictEqual((yield* post(`${url}/v1/tasks?dryRun=false`, { prompt: "x" })).status, 202)
    })
  )

  it.scopedLive("is refused as the submission is", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const [dry, real] = yield* Effect.all([
        post(`${url}/v1/tasks?dryRun=true`, { prompt: "" }),
        post(`${url}/v1/tasks`, { prompt: "" })
      ])
      assert.strictEqual(dry.status, 422)
      assert.deepStrictEqual([dry.status, dry.body], [real.status, real.body])
      const unknown = yield* post(`${url}/v1/tasks?dryRun=true`, { prompt: "x", promt: "y" })
      assert.strictEqual(unknown.status, 400)
    })
  )

  it.scopedLive("takes no idempotency key, and is asked for by its name only", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const submit = (query: string, headers: Readonly<Record<string, string>> = {}) =>
        post(`${url}/v1/tasks?${query}`, { prompt: "x" }, headers)
      const keyed = yield* submit("dryRun=true", { "idempotency-key": "k" })
      assert.strictEqual(keyed.status, 400)
      assert.include(JSON.stringify(keyed.body), "a dry run stores nothing, so it takes none")
      for (const query of ["dryRun=yes", "dryrun=true", "dry_run=true"]) {
        assert.strictEqual((yield* submit(query)).status, 400, query)
      }
      assert.deepStrictEqual((yield* ask(`${url}/v1/tasks`)).body, { tasks: [] })
    })
  )
})
