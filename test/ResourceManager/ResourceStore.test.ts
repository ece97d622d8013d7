import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { SqlClient } from "@effect/sql/SqlClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger } from "effect"
import type { PlatformEventBody } from "../../src/Domain/Event.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { TenantId } from "../../src/Domain/Task.js"
import { Events } from "../../src/Events.js"
import { eventsKept, ResourceStore, ResourceStoreFailed } from "../../src/ResourceManager/ResourceStore.js"
import type { SavedPlatform } from "../../src/ResourceManager/Saved.js"
import { Settings } from "../../src/Settings.js"
import { Sql } from "../../src/Sql.js"
import * as Testing from "../../src/Testing.js"
import { describeOnEachDatabase } from "../support/databases.js"

const codex = PlatformId.make("codex")
const gemini = PlatformId.make("gemini")

/** Everything a platform's books may hold. */
const books = (savedAt: number): SavedPlatform => ({
  savedAt,
  isClean: false,
  budget: {
    buckets: [
      {
        name: "tokens/60s",
        model: "gpt",
        aged: [
          [savedAt - 1_000.25, 120],
          [savedAt, 3.5]
        ],
        pending: 7,
        allowance: 0.5,
        learned: 1_000
      }
    ],
    quotas: [{ window: "weekly", until: savedAt + 86_400_000, why: "the provider says so" }],
    ratios: [{ type: "testing", inputRatios: [0.9, 1.1], outputs: [12] }]
  },
  breakers: [
    {
      model: "gpt",
      state: "open",
      consecutiveFailures: 5,
      doublings: 1,
      until: savedAt + 30_000.5,
      capacityPercent: 10
    }
  ]
})

const reset = (window: string): PlatformEventBody => ({ type: "quota.reset", window, why: "its time is over" })
const event = (platform: PlatformId, window: string) => ({ platform, at: 1_000, body: reset(window) })

const bodies: ReadonlyArray<PlatformEventBody> = [
  {
    type: "breaker.changed",
    model: "gpt",
    from: "closed",
    to: "open",
    capacityPercent: 0,
    why: "5 failures in a row",
    attempt: { id: "a-task", number: 3 }
  },
  { type: "quota.exhausted", window: "primary", until: 1_800_000_000_000, why: "usage limit" },
  reset("primary"),
  { type: "limit.learned", bucket: "requests/60s", from: 60, to: 42, why: "a 429", attempt: { id: "t", number: 1 } },
  { type: "limits.changed", tenant: TenantId.make("ann"), limits: { burst: null, requestsPerMinute: 5 } },
  { type: "limits.changed", tenant: TenantId.make("ann"), limits: null },
  { type: "platform.out", why: "its key is refused" },
  { type: "platform.back", model: "gpt" },
  { type: "platform.status", from: "available", to: "degraded", reasons: ["its circuit breaker is open"] },
  { type: "platform.drained", tenant: TenantId.make("ann"), why: "its bill is due" },
  { type: "platform.resumed", tenant: TenantId.make("bob") }
]

const stored = ResourceStore.layer.pipe(Layer.provideMerge(Events.layer))
const onSql = stored.pipe(Layer.provideMerge(Sql.layerMemory), Layer.orDie)

const contract = (name: string, layer: Layer.Layer<ResourceStore>, durable: boolean): void => {
  describe(`ResourceStore ${name}`, () => {
    it.effect("gives back what was saved last of each platform", () =>
      Effect.gen(function* () {
        const store = yield* ResourceStore
        assert.strictEqual(store.isDurable, durable)
        assert.deepStrictEqual(yield* store.load, new Map())
        yield* store.save(
          new Map([
            [codex, books(1_000)],
            [gemini, books(2_000)]
          ])
        )
        yield* store.save(new Map([[codex, books(3_000)]]))
        yield* store.save(new Map())
        assert.deepStrictEqual(
          yield* store.load,
          new Map([
            [codex, books(3_000)],
            [gemini, books(2_000)]
          ])
        )
      }).pipe(Effect.provide(layer))
    )

    it.effect("keeps who drained a platform until it is resumed, beside its limits", () =>
      Effect.gen(function* () {
        const store = yield* ResourceStore
        const drained = { tenant: TenantId.make("ann"), at: 1_000, reason: "its bill is due" }
        yield* store.change(codex, { limits: { adapt: true }, drained }, [event(codex, "both"), event(codex, "of it")])
        yield* store.change(gemini, { drained: { tenant: TenantId.make("bob"), at: 2_000 } }, [])
        assert.deepStrictEqual((yield* store.drains).get(codex), drained)
        yield* store.change(codex, { drained: null }, [])
        assert.deepStrictEqual([...(yield* store.drains).keys()], [gemini])
        assert.deepStrictEqual([...(yield* store.patches).keys()], [codex])
        assert.lengthOf(yield* store.history(codex, { limit: 10 }), 2)
      }).pipe(Effect.provide(layer))
    )

    it.effect("keeps changes of limits until they are taken back, each with its event", () =>
      Effect.gen(function* () {
        const store = yield* ResourceStore
        const changed = (window: string) => event(codex, window)
        yield* store.change(codex, { limits: { requestsPerMinute: 5, burst: null, adapt: true } }, [changed("first")])
        yield* store.change(codex, { limits: { windowMs: 1_000.5 } }, [changed("second")])
        yield* store.change(gemini, { limits: { maxConcurrent: 1 } }, [event(gemini, "other")])
        assert.deepStrictEqual(
          yield* store.patches,
          new Map([[codex, { windowMs: 1_000.5 }] as const, [gemini, { maxConcurrent: 1 }] as const])
        )
        yield* store.change(codex, { limits: null }, [changed("third")])
        yield* store.change(codex, { limits: null }, [changed("fourth")])
        assert.deepStrictEqual([...(yield* store.patches).keys()], [gemini])
        assert.deepStrictEqual(
          (yield* store.history(codex, { limit: 10 })).map((one) =>
            one.type === "quota.reset" ? one.window : one.type
          ),
          ["fourth", "third", "second", "first"]
        )
      }).pipe(Effect.provide(layer))
    )

    it.effect("tells a platform's history, the latest first, a page at a time", () =>
      Effect.gen(function* () {
        const store = yield* ResourceStore
        yield* store.record([])
        yield* store.record(bodies.map((body, index) => ({ platform: codex, at: 1_000 + index, body })))
        yield* store.record([event(gemini, "not codex's")])
        const all = yield* store.history(codex, { limit: 100 })
        assert.deepStrictEqual(
          all.map(({ at, id: _, platform, ...body }) => ({ at, platform, body })),
          bodies.map((body, index) => ({ at: 1_000 + index, platform: codex, body })).reverse()
        )
        const ids = all.map(({ id }) => id)
        assert.deepStrictEqual(
          ids,
          [...ids].sort((a, b) => b - a)
        )
        const first = yield* store.history(codex, { limit: 5 })
        const rest = yield* store.history(codex, { limit: 20, before: first.at(-1)?.id })
        assert.deepStrictEqual([...first, ...rest], all)
        assert.deepStrictEqual(yield* store.history(codex, { limit: 5, before: ids.at(-1) }), [])
        assert.deepStrictEqual(yield* store.history(PlatformId.make("nobody"), { limit: 5 }), [])
      }).pipe(Effect.provide(layer))
    )

    it.effect("keeps the latest events of each platform, however many come at once", () =>
      Effect.gen(function* () {
        const store = yield* ResourceStore
        yield* store.record([event(gemini, "g")])
        yield* store.record(Array.from({ length: eventsKept + 300 }, (_, index) => event(codex, String(index))))
        yield* store.record([event(codex, "last")])
        const all = yield* store.history(codex, { limit: 2 * eventsKept })
        const windows = all.map((one) => (one.type === "quota.reset" ? one.window : one.type))
        assert.lengthOf(windows, eventsKept)
        assert.deepStrictEqual(windows.slice(0, 2), ["last", String(eventsKept + 299)])
        assert.strictEqual(windows.at(-1), "301")
        assert.lengthOf(yield* store.history(gemini, { limit: 10 }), 1)
      }).pipe(Effect.provide(layer))
    )
  })
}

contract("in memory", ResourceStore.layerMemory, false)
describeOnEachDatabase("SQL", (database) => contract("on it", stored.pipe(Layer.provide(database)), true))

describe("ResourceStore on a database", () => {
  it.scoped("has everything after a restart, and goes on counting events", () =>
    Effect.gen(function* () {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "dream-team-resources-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
      )
      const database = join(folder, "team.db")
      const start = <A, E>(use: (store: ResourceStore["Type"]) => Effect.Effect<A, E>) =>
        Effect.flatMap(ResourceStore, use).pipe(
          Effect.provide(stored.pipe(Layer.provide(Sql.layer))),
          Effect.provide(Settings.layer(Testing.settings([], { database })))
        )
      yield* start((store) =>
        store
          .save(new Map([[codex, books(5_000)]]))
          .pipe(Effect.zipRight(store.change(codex, { limits: { adapt: true } }, [event(codex, "before")])))
      )
      yield* start((store) =>
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* store.load, new Map([[codex, books(5_000)]]))
          assert.deepStrictEqual(yield* store.patches, new Map([[codex, { adapt: true }]]))
          yield* store.record([event(codex, "after")])
          const [after, before] = yield* store.history(codex, { limit: 5 })
          assert.isAbove(after?.id ?? 0, before?.id ?? Number.NaN)
        })
      )
    })
  )

  it.effect("passes over what another version wrote, and says so", () =>
    Effect.gen(function* () {
      const store = yield* ResourceStore
      const sql = yield* SqlClient
      yield* store.save(new Map([[codex, books(1)]]))
      yield* store.change(codex, { limits: { adapt: true } }, [event(codex, "known 1")])
      yield* sql`INSERT INTO platform_books (platform, books) VALUES ('gemini', '{"savedAt": 1}'), ('qwen', 'no JSON')`
      yield* sql`INSERT INTO platform_limits (platform, patch) VALUES ('NOT A PLATFORM', '{}'), ('gemini', '{"burst": "x"}')`
      yield* sql`INSERT INTO events (platform, type, at, body)
        VALUES ('codex', 'of.tomorrow', 2, '{"type": "of.tomorrow"}'), ('codex', '', 2, 'no JSON')`
      yield* store.record([event(codex, "known 2")])
      const warnings: Array<string> = []
      const logger = Logger.replace(
        Logger.defaultLogger,
        Logger.make(({ logLevel, message }) => {
          warnings.push(`${logLevel.label} ${String(message).slice(0, 40)}`)
        })
      )
      const read = yield* Effect.all([store.load, store.patches, store.history(codex, { limit: 2 })]).pipe(
        Effect.provide(logger)
      )
      assert.deepStrictEqual([...read[0].keys()], [codex])
      assert.deepStrictEqual([...read[1].keys()], [codex])
      // The page is as long as asked all the same: what follows it is not cut off.
      assert.deepStrictEqual(
        read[2].map((one) => (one.type === "quota.reset" ? one.window : one.type)),
        ["known 2", "known 1"]
      )
      assert.lengthOf(warnings, 6)
      for (const warning of warnings) assert.match(warning, /^WARN /)
    }).pipe(Effect.provide(onSql))
  )

  it.effect("stores a change and its event together or not at all, and goes on after a failure", () =>
    Effect.gen(function* () {
      const store = yield* ResourceStore
      const sql = yield* SqlClient
      yield* sql`CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(FAIL, 'disk full'); END`
      const error = yield* Effect.flip(store.change(codex, { limits: { adapt: true } }, [event(codex, "lost")]))
      assert.instanceOf(error, ResourceStoreFailed)
      assert.deepStrictEqual(yield* store.patches, new Map())
      yield* sql`DROP TRIGGER full`
      yield* store.change(codex, { limits: { adapt: true } }, [event(codex, "kept")])
      assert.lengthOf(yield* store.history(codex, { limit: 5 }), 1)
      yield* sql`DROP TABLE platform_books`
      assert.instanceOf(yield* Effect.flip(store.load), ResourceStoreFailed)
      assert.instanceOf(yield* Effect.flip(store.save(new Map([[codex, books(1)]]))), ResourceStoreFailed)
    }).pipe(Effect.provide(onSql))
  )

  it.effect("finds a platform's history by an index", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient
      for (const query of [
        "SELECT id, at, body FROM events WHERE platform = 'a' AND id < 5 ORDER BY id DESC LIMIT 50",
        "SELECT id FROM events WHERE platform = 'a' ORDER BY id DESC LIMIT 1 OFFSET 1000"
      ]) {
        for (const { detail } of yield* sql.unsafe<{ readonly detail: string }>(`EXPLAIN QUERY PLAN ${query}`)) {
          assert.match(detail, /^SEARCH/, query)
        }
      }
    }).pipe(Effect.provide(onSql))
  )
})
