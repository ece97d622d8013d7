import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, type Redacted, Ref, Scope, Stream, TestClock } from "effect"
import * as Client from "../src/Client.js"
import {
  Conflict,
  InvalidRequest,
  NotFound,
  RateLimited,
  ServiceUnavailable,
  TaskRefused,
  Unauthorized
} from "../src/Domain/ApiError.js"
import { PlatformId } from "../src/Domain/Platform.js"
import type { Task } from "../src/Domain/Task.js"
import { Http } from "../src/Http.js"
import { concerns, idOf, keys, makeCoordinator } from "./Http/scripted.js"
import { eventually, start } from "./Http/server.js"

const overFetch = (baseUrl: string, apiKey?: Redacted.Redacted<string>) =>
  Client.make({ baseUrl, apiKey }).pipe(Effect.provide(FetchHttpClient.layer))

/** A client that reaches the API in memory, on the test's own clock. */
const inMemory = Effect.gen(function* () {
  const scripted = yield* makeCoordinator
  const context = yield* Layer.build(Http.layerClientMemory.pipe(Layer.provide(concerns(scripted.service))))
  const http = yield* Effect.provide(HttpClient.HttpClient, context)
  const client = yield* Effect.provideService(
    Client.make({ baseUrl: "http://localhost/" }),
    HttpClient.HttpClient,
    http
  )
  return { client, scripted, http }
})

const typesOf = (events: Iterable<{ readonly type: string }>) => Array.from(events, ({ type }) => type)

describe("the typed client", () => {
  it.scopedLive("goes all the way round over HTTP", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const client = yield* overFetch(`${url}/`)
      const submitted: Task = yield* client.tasks.submit({
        payload: { prompt: "Hello", priority: "LOW", deadline: 60 },
        headers: {}
      })
      assert.strictEqual(submitted.createdAt, Date.parse("2026-11-22T12:00:00Z"))
      const [again, response] = yield* client.tasks.submit({
        payload: { prompt: "Hi" },
        headers: { "idempotency-key": "k" },
        withResponse: true
      })
      assert.strictEqual(response.status, 202)
      const [replayed, second] = yield* client.tasks.submit({
        payload: { prompt: "Hi" },
        headers: { "idempotency-key": "k" },
        withResponse: true
      })
      assert.deepStrictEqual([second.status, second.headers["idempotent-replayed"]], [200, "true"])
      assert.deepStrictEqual(replayed, again)
      assert.deepStrictEqual(yield* client.tasks.get({ path: { id: submitted.id } }), submitted)
      const page = yield* client.tasks.list({ urlParams: { priority: "LOW", limit: 5 } })
      assert.deepStrictEqual(
        page.tasks.map(({ id }) => id),
        [submitted.id]
      )
      assert.strictEqual((yield* client.tasks.cancel({ path: { id: submitted.id } })).state, "cancelled")
      assert.strictEqual((yield* client.tasks.retry({ path: { id: submitted.id } })).state, "queued")
      assert.lengthOf((yield* client.tasks.attempts({ path: { id: submitted.id } })).attempts, 1)
      assert.lengthOf((yield* client.platforms.list({})).platforms, 1)
      const codex = { path: { id: PlatformId.make("codex") } }
      assert.strictEqual((yield* client.platforms.get(codex)).status, "available")
      assert.strictEqual((yield* client.platforms.check(codex)).status, "degraded")
      assert.strictEqual((yield* client.resources.show({})).queue.MEDIUM.depth, 1)
      const payload = { limits: { burst: null } }
      assert.strictEqual((yield* client.resources.patch({ ...codex, payload })).platform, "codex")
      const { events, next } = yield* client.resources.history({ ...codex, urlParams: { limit: 1 } })
      assert.deepStrictEqual(
        events.map(({ at, type }) => [at, type]),
        [[Date.parse("2026-11-22T12:00:00Z"), "limits.changed"]]
      )
      assert.isUndefined(next)
      assert.strictEqual((yield* client.health.live({})).status, "live")
      assert.strictEqual((yield* client.health.ready({})).status, "ready")
    })
  )

  it.scopedLive("gives errors back as their classes", () =>
    Effect.gen(function* () {
      const { url } = yield* start({ apiKeys: [keys.alice] })
      const stranger = yield* overFetch(url)
      assert.instanceOf(yield* Effect.flip(stranger.tasks.list({ urlParams: {} })), Unauthorized)
      assert.instanceOf(yield* Effect.flip(Stream.runDrain(stranger.events(idOf(1)))), Unauthorized)
      assert.instanceOf(yield* Effect.flip(stranger.waitFor(idOf(1))), Unauthorized)

      const alice = yield* overFetch(url, keys.alice.key)
      assert.instanceOf(yield* Effect.flip(alice.tasks.get({ path: { id: idOf(9) } })), NotFound)
      assert.instanceOf(yield* Effect.flip(Stream.runDrain(alice.events(idOf(9)))), NotFound)
      assert.instanceOf(yield* Effect.flip(alice.tasks.list({ urlParams: { cursor: "abc" } })), InvalidRequest)
      const refused = yield* Effect.flip(alice.tasks.submit({ payload: { prompt: "" }, headers: {} }))
      assert.instanceOf(refused, TaskRefused)
      assert.deepStrictEqual(
        refused._tag === "TaskRefused" ? refused.reasons[0]?.earliestAt : undefined,
        Date.parse("2026-11-22T12:00:00Z")
      )
      yield* alice.tasks.submit({ payload: { prompt: "x" }, headers: {} })
      const conflict = yield* Effect.flip(alice.tasks.retry({ path: { id: idOf(1) } }))
      assert.instanceOf(conflict, Conflict)
      assert.strictEqual(conflict.message, "The task is queued")
    })
  )

  it.scopedLive("previews a task without submitting it, and is refused alike", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const client = yield* overFetch(url)
      const preview = yield* client.tasks.preview({ prompt: "x", type: "testing" })
      assert.deepInclude(preview, { accepted: true, type: "testing", choice: PlatformId.make("codex") })
      assert.strictEqual(preview.deadline, Date.parse("2026-11-23T12:00:00Z"))
      assert.lengthOf((yield* client.tasks.list({ urlParams: {} })).tasks, 0)
      assert.instanceOf(yield* Effect.flip(client.tasks.preview({ prompt: "" })), TaskRefused)
    })
  )

  it.scopedLive("asks once where a task comes too late, and gives back when it could start", () =>
    Effect.gen(function* () {
      let asked = 0
      const { url } = yield* start({}, (service) => ({
        ...service,
        submit: (...args) =>
          Effect.zipRight(
            Effect.sync(() => asked++),
            service.submit(...args)
          )
      }))
      const client = yield* overFetch(url)
      const submit = (priority: "HIGH" | "LOW") =>
        Effect.flip(client.tasks.submit({ payload: { prompt: "too late", priority }, headers: {} }))
      const limited = yield* submit("HIGH")
      assert.instanceOf(limited, RateLimited)
      assert.include(limited, { message: "The limits are used up", retryAfterMs: 61_500 })
      const earliestAt = Date.parse("2026-11-22T12:01:01.500Z")
      const reasons = [{ platform: PlatformId.make("codex"), reason: "it is used up", earliestAt }]
      assert.deepStrictEqual(limited._tag === "RateLimited" ? limited.reasons : [], reasons)
      const shutOff = yield* submit("LOW")
      assert.instanceOf(shutOff, ServiceUnavailable)
      assert.deepStrictEqual(shutOff._tag === "ServiceUnavailable" ? shutOff.reasons : [], reasons)
      assert.strictEqual(asked, 2)
    })
  )

  it.scopedLive("follows a task to its end over HTTP", () =>
    Effect.gen(function* () {
      const { url, scripted } = yield* start()
      const client = yield* overFetch(url)
      const { id } = yield* client.tasks.submit({ payload: { prompt: "x" }, headers: {} })
      const waiting = yield* Effect.fork(client.waitFor(id))
      const events = yield* Effect.fork(Stream.runCollect(client.events(id)))
      yield* scripted.emit(id, { type: "task.waiting", until: 0, why: "all are busy" })
      yield* scripted.finish(id, "the answer")
      assert.strictEqual((yield* Fiber.join(waiting)).result?.text, "the answer")
      assert.deepStrictEqual(typesOf(yield* Fiber.join(events)), ["task.queued", "task.waiting", "task.succeeded"])
      // All is over: from anywhere in its history the rest, and then the end.
      assert.deepStrictEqual(typesOf(yield* Stream.runCollect(client.events(id, 1))), [
        "task.waiting",
        "task.succeeded"
      ])
      assert.deepStrictEqual(typesOf(yield* Stream.runCollect(client.events(id, 3))), [])
    })
  )

  it.live("goes on where it was when the server goes away and comes back", () =>
    Effect.gen(function* () {
      const first = yield* Scope.make()
      const server = yield* Scope.extend(start(), first)
      const client = yield* overFetch(server.url)
      const { id } = yield* client.tasks.submit({ payload: { prompt: "x" }, headers: {} })
      const seen = yield* Ref.make<ReadonlyArray<number>>([])
      const following = yield* client.events(id).pipe(
        Stream.tap((event) => Ref.update(seen, (ids) => [...ids, event.id])),
        Stream.runDrain,
        Effect.fork
      )
      yield* eventually(Ref.get(seen), (ids) => ids.length === 1)
      yield* Scope.close(first, Exit.void)
      const second = yield* Scope.make()
      yield* Scope.extend(
        start({ port: server.port }, () => server.scripted.service),
        second
      )
      yield* server.scripted.finish(id, "done")
      yield* Fiber.join(following)
      assert.deepStrictEqual(yield* Ref.get(seen), [1, 2])
      yield* Scope.close(second, Exit.void)
    })
  )
})

describe("the typed client on a test clock", () => {
  it.scoped("waits for a task in memory", () =>
    Effect.gen(function* () {
      const { client, scripted } = yield* inMemory
      const { id } = yield* client.tasks.submit({ payload: { prompt: "x" }, headers: {} })
      const waiting = yield* Effect.fork(client.waitFor(id))
      yield* eventually(scripted.openStreams, (open) => open === 1)
      yield* scripted.finish(id, "the answer")
      assert.strictEqual((yield* Fiber.join(waiting)).result?.text, "the answer")
      yield* eventually(scripted.openStreams, (open) => open === 0)
    })
  )

  it.scoped("gives up on a service that is gone, after bounded waits", () =>
    Effect.gen(function* () {
      const tries = yield* Ref.make(0)
      const gone = HttpClient.make((request) =>
        Effect.zipRight(
          Ref.update(tries, (count) => count + 1),
          new HttpClientError.RequestError({ request, reason: "Transport", description: "connection refused" })
        )
      )
      const client = yield* Effect.provideService(
        Client.make({ baseUrl: "http://localhost" }),
        HttpClient.HttpClient,
        gone
      )
      for (const effect of [Stream.runDrain(client.events(idOf(1))), Effect.asVoid(client.waitFor(idOf(1)))]) {
        yield* Ref.set(tries, 0)
        const fiber = yield* Effect.fork(Effect.flip(effect))
        yield* TestClock.adjust("25 seconds")
        assert.isNull(yield* Fiber.poll(fiber).pipe(Effect.map((exit) => (exit._tag === "None" ? null : exit.value))))
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual((yield* Fiber.join(fiber))._tag, "RequestError")
        assert.strictEqual(yield* Ref.get(tries), 11)
      }
    })
  )

  it.scoped("follows as long as it takes over connections that are cut after a while", () =>
    Effect.gen(function* () {
      const opened = yield* Ref.make(0)
      const final = { id: 7, taskId: idOf(1), at: "2026-11-22T12:00:00.000Z", type: "task.cancelled" }
      const cutting = HttpClient.make((request) =>
        Effect.map(
          Ref.updateAndGet(opened, (count) => count + 1),
          (count) =>
            HttpClientResponse.fromWeb(
              request,
              new Response(count <= 30 ? "retry: 1000\n\n: keep-alive\n\n" : `data: ${JSON.stringify(final)}\n\n`)
            )
        )
      )
      const client = yield* Effect.provideService(
        Client.make({ baseUrl: "http://localhost" }),
        HttpClient.HttpClient,
        cutting
      )
      const fiber = yield* Effect.fork(Stream.runCollect(client.events(idOf(1))))
      yield* TestClock.adjust("5 minutes")
      assert.deepStrictEqual(typesOf(yield* Fiber.join(fiber)), ["task.cancelled"])
    })
  )

  it.scoped("takes a silent connection for dead", () =>
    Effect.gen(function* () {
      const opened = yield* Ref.make(0)
      const silent = HttpClient.make((request) =>
        Effect.as(
          Ref.update(opened, (count) => count + 1),
          HttpClientResponse.fromWeb(request, new Response(new ReadableStream()))
        )
      )
      const listener = yield* Effect.provideService(
        Client.make({ baseUrl: "http://localhost" }),
        HttpClient.HttpClient,
        silent
      )
      const fiber = yield* Effect.fork(Stream.runCollect(listener.events(idOf(1))))
      yield* TestClock.adjust("44 seconds")
      assert.strictEqual(yield* Ref.get(opened), 1)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* Ref.get(opened), 2)
      yield* Fiber.interrupt(fiber)
    })
  )
})
