import { connect, type Socket } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Predicate, Scope, TestClock } from "effect"
import { Coordinator } from "../../src/Coordinator.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { JobId, TenantId } from "../../src/Domain/Task.js"
import { Events } from "../../src/Events.js"
import { Http } from "../../src/Http.js"
import type { SettingsShape } from "../../src/Settings.js"
import { SqlWriter } from "../../src/Sql/Writer.js"
import { concerns, keys, makeCoordinator } from "../Http/scripted.js"
import { ask, eventually } from "../Http/server.js"

const job = JobId.make("01900000-0000-7000-8000-00000000000a")
const local = TenantId.make("local")
const codex = PlatformId.make("codex")
const counts = { total: 1, succeeded: 0, failed: 0, cancelled: 0 }

/** A real server on loopback, whose clock is the test's, and the events it tells. */
const start = (over: Partial<SettingsShape> = {}) =>
  Effect.gen(function* () {
    const { service } = yield* makeCoordinator
    const context = yield* Layer.build(Http.layer.pipe(Layer.provideMerge(concerns(service, over))))
    return yield* Effect.gen(function* () {
      const events = yield* Events
      const { port, url } = yield* Http
      const { write } = yield* SqlWriter
      assert.isDefined(yield* Coordinator)
      const store = (count: number, tenant = local) =>
        write(
          events.appendJob(
            job,
            tenant,
            0,
            Array.from({ length: count }, (_, n) => ({
              type: n % 10 === 9 ? ("job.succeeded" as const) : ("job.progress" as const),
              ...counts
            }))
          )
        )
      const status = write(
        events.appendPlatform([
          { platform: codex, at: 0, body: { type: "platform.status", from: "available", to: "degraded", reasons: [] } }
        ])
      )
      return { port, url, store, status }
    }).pipe(Effect.provide(context))
  })

interface Reader {
  readonly status: number
  readonly text: () => string
  readonly isOver: () => boolean
  readonly leave: () => void
}

const read = (url: string, headers: Readonly<Record<string, string>> = {}): Effect.Effect<Reader> =>
  Effect.promise(async () => {
    const leaving = new AbortController()
    const response = await fetch(url, { headers, signal: leaving.signal })
    let text = ""
    let over = false
    const decoder = new TextDecoder()
    const drain = async (): Promise<void> => {
      for await (const chunk of response.body ?? []) text += decoder.decode(chunk, { stream: true })
    }
    void drain()
      .catch(() => undefined)
      .finally(() => {
        over = true
      })
    return {
      status: response.status,
      text: () => text,
      isOver: () => over,
      leave: () => leaving.abort()
    }
  })

/** Reads as fast as it can, and keeps nothing but how many events came. */
const counting = (port: number) =>
  Effect.async<{ readonly events: () => number; readonly isOpen: () => boolean }>((resume) => {
    const socket = connect(port, "127.0.0.1")
    let events = 0
    let rest = ""
    socket.on("data", (chunk) => {
      const parts = (rest + chunk.toString()).split("\nevent: ")
      events += parts.length - 1
      rest = (parts.at(-1) ?? "").slice(-10)
      if (events === 0 && rest !== "") resume(Effect.succeed({ events: () => events, isOpen: () => !socket.closed }))
    })
    socket.write("GET /v1/events?type=job.succeeded HTTP/1.1\r\nhost: localhost\r\n\r\n")
  })

const idsIn = (text: string) => Array.from(text.matchAll(/^id: (\d+)\nevent: /gm), ([, id]) => Number(id))
const upTo = (count: number) => Array.from({ length: count }, (_, n) => n + 1)
const until = (check: () => boolean) => eventually(Effect.sync(check), (holds) => holds)

describe("GET /v1/events", () => {
  it.scoped("tells what happens from now on, from an event, or from the oldest", () =>
    Effect.gen(function* () {
      const { status, store, url } = yield* start()
      yield* store(3)
      const [fresh, oldest, after, resumed] = yield* Effect.all([
        read(`${url}/v1/events`),
        read(`${url}/v1/events?after=0`),
        read(`${url}/v1/events?after=2`),
        read(`${url}/v1/events?after=0`, { "last-event-id": "3" })
      ])
      yield* store(1)
      yield* status
      yield* until(() => [fresh, oldest, after, resumed].every((reader) => idsIn(reader.text()).includes(5)))
      assert.deepStrictEqual(idsIn(fresh.text()), [4, 5])
      assert.deepStrictEqual(idsIn(oldest.text()), [1, 2, 3, 4, 5])
      assert.deepStrictEqual(idsIn(after.text()), [3, 4, 5])
      assert.deepStrictEqual(idsIn(resumed.text()), [4, 5])
      assert.include(fresh.text(), "retry: 1000\nid: 3\n\n")
      assert.include(
        fresh.text(),
        `id: 4\nevent: job.progress\ndata: ${JSON.stringify({ id: 4, jobId: job, at: "1970-01-01T00:00:00.000Z", type: "job.progress", ...counts })}\n\n`
      )
    })
  )

  it.scoped("refuses an id of another database, and says which is the newest", () =>
    Effect.gen(function* () {
      const { store, url } = yield* start()
      yield* store(2)
      const answers = yield* Effect.all([
        read(`${url}/v1/events?after=3`),
        read(`${url}/v1/events?kind=platform`, { "last-event-id": "500" })
      ])
      for (const reader of answers) {
        assert.strictEqual(reader.status, 400)
        yield* until(reader.isOver)
        assert.include(reader.text(), "the newest is 2")
      }
      assert.strictEqual((yield* read(`${url}/v1/events?after=2`)).status, 200)
    })
  )

  it.scoped("filters, and refuses filters that cannot be", () =>
    Effect.gen(function* () {
      const { status, store, url } = yield* start()
      yield* store(1)
      yield* status
      const wanted: ReadonlyArray<readonly [string, ReadonlyArray<number>]> = [
        ["type=job.*", [1]],
        ["type=platform.status,task.failed", [2]],
        ["kind=platform", [2]],
        [`job=${job}`, [1]],
        ["platform=codex", [2]]
      ]
      for (const [query, ids] of wanted) {
        const reader = yield* read(`${url}/v1/events?after=0&${query}`)
        yield* until(() => idsIn(reader.text()).length > 0)
        assert.deepStrictEqual(idsIn(reader.text()), ids, query)
        reader.leave()
      }
      for (const query of ["type=", "type=*", "type=Task.failed", "kind=person", "task=1", "after=-1", "since=1"]) {
        assert.strictEqual((yield* read(`${url}/v1/events?${query}`)).status, 400, query)
      }
    })
  )

  it.scoped("names the types that there are not, and those that may be meant", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const problemsOf = (query: string) =>
        Effect.map(ask(`${url}/v1/events?${query}`), ({ body }) => {
          assert(Predicate.hasProperty(body, "error") && Predicate.hasProperty(body.error, "details"))
          return body.error.details
        })
      const problem = "'task.fail' is not a known type of event, did you mean task.failed?"
      assert.deepStrictEqual(yield* problemsOf("type=task.queued,task.fail"), {
        problems: [{ field: "type", problem }]
      })
      const { body } = yield* ask(`${url}/v1/events?type=nonsense.*`)
      assert.match(
        JSON.stringify(body),
        /'nonsense\.\*' is not a known type of event; known are task\.\*, attempt\.\*, .*claude\.\*/
      )
      assert.match(JSON.stringify(yield* problemsOf("kind=tasks")), /task.*job.*platform.*key.*session/)
    })
  )

  it.scoped("shows each tenant its own and the platforms'", () =>
    Effect.gen(function* () {
      const { status, store, url } = yield* start({ apiKeys: [keys.alice, keys.bob] })
      yield* store(1, keys.alice.tenant)
      yield* store(1, keys.bob.tenant)
      yield* status
      const reader = yield* read(`${url}/v1/events?after=0`, { "x-api-key": "bob-secret-key" })
      yield* until(() => idsIn(reader.text()).length === 2)
      assert.deepStrictEqual(idsIn(reader.text()), [2, 3])
      assert.strictEqual((yield* read(`${url}/v1/events`)).status, 401)
    })
  )

  it.scoped("keeps a silent connection alive, and ends when the service does", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { store, url } = yield* Scope.extend(start(), scope)
      const reader = yield* read(`${url}/v1/events`)
      yield* store(1)
      yield* until(() => idsIn(reader.text()).length === 1)
      yield* eventually(Effect.zipRight(TestClock.adjust("15 seconds"), Effect.sync(reader.text)), (text) =>
        text.includes(": keep-alive\n\n")
      )
      yield* store(1)
      yield* until(() => idsIn(reader.text()).length === 2)
      assert.isFalse(reader.isOver())
      yield* Scope.close(scope, Exit.void)
      yield* until(reader.isOver)
    })
  )

  it.scoped(
    "cuts off readers that take nothing, whom the others and the writer do not wait for",
    () =>
      Effect.gen(function* () {
        const { port, store } = yield* start()
        const all = 100_000
        const quick = yield* counting(port)
        const stuck = yield* Effect.forEach(upTo(10), () =>
          Effect.async<Socket>((resume) => {
            const socket = connect(port, "127.0.0.1")
            socket.on("error", () => undefined)
            // It never reads, so the kernel's buffers are all that takes anything.
            socket.pause()
            socket.write("GET /v1/events?after=0 HTTP/1.1\r\nhost: localhost\r\n\r\n", () =>
              resume(Effect.succeed(socket))
            )
          })
        )
        yield* store(10)
        yield* until(() => quick.events() === 1)
        global.gc?.()
        const before = process.memoryUsage().rss
        yield* Effect.repeatN(store(500), all / 500 - 1)
        yield* until(() => quick.events() > all / 10)
        assert.strictEqual(quick.events(), all / 10 + 1)
        const grown = (process.memoryUsage().rss - before) / 1024 / 1024
        assert.isBelow(grown, 400, "what nobody takes is kept in memory")
        yield* Effect.repeatN(TestClock.adjust("15 seconds"), 3)
        for (const socket of stuck) socket.resume()
        yield* until(() => stuck.every(({ closed }) => closed))
        assert.isTrue(quick.isOpen())
      }),
    180_000
  )
})
