import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, TestClock } from "effect"
import * as Client from "../../src/Client.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { TenantId } from "../../src/Domain/Task.js"
import { Http } from "../../src/Http.js"
import * as Testing from "../../src/Testing.js"
import { eventually } from "../Http/server.js"

const codex = PlatformId.make("codex")
const path = { id: codex }

/** The whole team and its API in memory, over one platform that takes two requests a minute. */
const team = (database = ":memory:") =>
  Http.layerClientMemory.pipe(
    Layer.provide(
      Testing.layer(
        [{ id: "codex", settings: { limits: { requestsPerMinute: 2, tokensCounted: "reserved", maxConcurrent: 4 } } }],
        { database }
      )
    ),
    Layer.orDie
  )

/** Asks a service that lives as long as `use`. */
const asking = <A, E>(layer: ReturnType<typeof team>, use: (client: Client.Client) => Effect.Effect<A, E>) =>
  Effect.flatMap(Client.make({ baseUrl: "http://localhost" }), use).pipe(Effect.provide(layer))

const capacityOf = (client: Client.Client) =>
  Effect.map(client.resources.show(), ({ platforms }) =>
    platforms.flatMap(({ buckets }) => buckets.map(({ capacity, name, source }) => `${name}: ${capacity} ${source}`))
  )

const submit = (client: Client.Client, prompt: string) =>
  client.tasks.submit({ payload: { prompt, priority: "HIGH", deadline: 600 }, headers: {} })

/** What the platform's history tells of, the latest first. */
const typesOf = (client: Client.Client) =>
  Effect.map(client.resources.history({ path, urlParams: {} }), ({ events }) => events.map(({ type }) => type))

const statusOf = (client: Client.Client) =>
  Effect.map(client.platforms.get({ path }), ({ reasons, status }) => [status, ...reasons])

describe("the limits of a running service", () => {
  it.effect("are changed for what waits as for what comes, and the history says by whom", () =>
    asking(team(), (client) =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* capacityOf(client), ["requests/60s: 2 configured"])
        const tasks = yield* Effect.forEach(["a", "b", "c", "d"], (prompt) => submit(client, prompt))
        const succeeded = Effect.map(
          client.tasks.list({ urlParams: { state: "succeeded" } }),
          (page) => page.tasks.length
        )
        yield* eventually(succeeded, (count) => count === 2)
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual(yield* succeeded, 2)

        const after = yield* client.resources.patch({ path, payload: { limits: { requestsPerMinute: 10 } } })
        assert.deepStrictEqual(
          after.buckets.map(({ capacity, name }) => [name, capacity]),
          [["requests/60s", 10]]
        )
        // Without the clock: what waited goes at once.
        yield* eventually(succeeded, (count) => count === tasks.length)

        const { events } = yield* client.resources.history({ path, urlParams: {} })
        assert.deepStrictEqual(
          events.flatMap((event) => (event.type === "limits.changed" ? [[event.tenant, event.at, event.limits]] : [])),
          [[TenantId.make("local"), 5_000, { requestsPerMinute: 10 }]]
        )
        yield* client.resources.patch({ path, payload: { limits: null } })
        assert.deepStrictEqual(yield* capacityOf(client), ["requests/60s: 2 configured"])
      })
    )
  )

  it.effect("stay as they are where a change cannot be, which names the field", () =>
    asking(team(), (client) =>
      Effect.gen(function* () {
        const refused = yield* Effect.flip(
          client.resources.patch({ path, payload: { limits: { requestsPerMinute: 9, windowRequests: 100 } } })
        )
        assert.strictEqual(refused._tag, "InvalidRequest")
        const problems = refused._tag === "InvalidRequest" ? refused.problems : []
        assert.isNotEmpty(problems)
        for (const { field } of problems) assert.match(field, /^limits\./)
        assert.deepStrictEqual(yield* capacityOf(client), ["requests/60s: 2 configured"])
        assert.notInclude(yield* typesOf(client), "limits.changed")
        const nobody = { path: { id: PlatformId.make("nobody") } }
        assert.strictEqual(
          (yield* Effect.flip(client.resources.patch({ ...nobody, payload: { limits: null } })))._tag,
          "NotFound"
        )
      })
    )
  )

  it.scoped("and their history survive a restart", () =>
    Effect.gen(function* () {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "dream-team-limits-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
      )
      const database = join(folder, "team.db")
      yield* asking(team(database), (client) =>
        client.resources.patch({ path, payload: { limits: { requestsPerMinute: 7 } } })
      )
      yield* asking(team(database), (client) =>
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* capacityOf(client), ["requests/60s: 7 configured"])
          assert.include(yield* typesOf(client), "limits.changed")
        })
      )
    })
  )
})

describe("a platform that is drained by hand", () => {
  /** Answers after ten seconds. */
  const slow = (database?: string) =>
    Http.layerClientMemory.pipe(
      Layer.provide(
        Testing.layer(
          [{ id: "codex", attempts: [Testing.answer("done", { afterMs: 10_000 })] }],
          database === undefined ? {} : { database }
        )
      ),
      Layer.orDie
    )
  const drain = (client: Client.Client, drained: boolean, reason?: string) =>
    client.resources.patch({ path, payload: { drained, reason } })
  const counts = (client: Client.Client) =>
    Effect.map(client.tasks.list({ urlParams: {} }), ({ tasks }) => tasks.map(({ state }) => state).sort())

  it.effect("gets no new attempts, lets running ones end, and goes on at once when it is resumed", () =>
    asking(slow(), (client) =>
      Effect.gen(function* () {
        yield* submit(client, "running")
        yield* eventually(counts(client), ([state]) => state === "running")
        const { drained } = yield* drain(client, true, "its bill is due")
        assert.deepStrictEqual(drained, { tenant: TenantId.make("local"), at: 0, reason: "its bill is due" })
        assert.deepStrictEqual(yield* statusOf(client), ["unavailable", "drained by local: its bill is due"])
        yield* submit(client, "waiting")
        yield* TestClock.adjust("2 minutes")
        assert.deepStrictEqual(
          (yield* counts(client)).filter((state) => state !== "succeeded").length,
          1,
          "the running one has ended, the other has not begun"
        )
        // What health finds meanwhile changes nothing.
        yield* client.platforms.check({ path })
        assert.strictEqual((yield* statusOf(client))[0], "unavailable")

        yield* drain(client, false)
        assert.strictEqual((yield* statusOf(client))[0], "available")
        yield* eventually(counts(client), (states) => states.includes("running"))
        yield* TestClock.adjust("10 seconds")
        yield* eventually(counts(client), (states) => states.every((state) => state === "succeeded"))

        const { events } = yield* client.resources.history({ path, urlParams: {} })
        assert.deepStrictEqual(
          events.flatMap((event) =>
            event.type === "platform.drained" || event.type === "platform.resumed"
              ? [[event.type, event.tenant, event.why, event.at]]
              : []
          ),
          [
            ["platform.resumed", "local", undefined, 120_000],
            ["platform.drained", "local", "its bill is due", 0]
          ]
        )
        // To resume what is not drained is nothing that happened.
        yield* drain(client, false)
        assert.lengthOf(
          (yield* typesOf(client)).filter((type) => type === "platform.resumed"),
          1
        )
      })
    )
  )

  it.effect("is not, where the change as a whole cannot be", () =>
    asking(slow(), (client) =>
      Effect.gen(function* () {
        const wrong = { drained: true, limits: { requestsPerMinute: 9, burst: 100 } }
        const refused = yield* Effect.flip(client.resources.patch({ path, payload: wrong }))
        assert.strictEqual(refused._tag, "InvalidRequest")
        assert.isUndefined((yield* client.platforms.get({ path })).drained)
        const alone = yield* Effect.flip(client.resources.patch({ path, payload: { reason: "none" } }))
        assert.deepStrictEqual(alone._tag === "InvalidRequest" ? alone.problems.map(({ field }) => field) : [], [
          "reason"
        ])
      })
    )
  )

  it.scoped("stays so over restarts", () =>
    Effect.gen(function* () {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "dream-team-drain-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
      )
      const database = join(folder, "team.db")
      yield* asking(slow(database), (client) => drain(client, true))
      yield* asking(slow(database), (client) =>
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* statusOf(client), ["unavailable", "drained by local"])
          yield* submit(client, "waiting")
          yield* TestClock.adjust("1 minute")
          assert.notInclude(yield* counts(client), "running")
        })
      )
      yield* asking(slow(database), (client) =>
        Effect.gen(function* () {
          yield* drain(client, false)
          yield* eventually(counts(client), ([state]) => state === "running")
          yield* TestClock.adjust("10 seconds")
          yield* eventually(counts(client), ([state]) => state === "succeeded")
        })
      )
      yield* asking(slow(database), (client) =>
        Effect.gen(function* () {
          assert.isUndefined((yield* client.platforms.get({ path })).drained)
          assert.includeMembers(yield* typesOf(client), ["platform.resumed", "platform.drained"])
        })
      )
    })
  )
})
