import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Ref, TestClock } from "effect"
import type { SavedQuality } from "../../src/AgentRouter/QualityStore.js"
import { AgentRouter, QualityStore, QualityStoreFailed } from "../../src/AgentRouter.js"
import { Benchmark, type Measurement } from "../../src/Benchmark.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { Settings } from "../../src/Settings.js"
import { Sql } from "../../src/Sql.js"
import * as Testing from "../../src/Testing.js"

const id = (name: string) => PlatformId.make(name)
const names = ["a", "b", "c"] as const
type Name = (typeof names)[number]

const scripts: ReadonlyArray<Testing.Script> = names.map((name) => ({ id: name }))

const world = Layer.mergeAll(Testing.platforms(scripts), Settings.layer(Testing.settings(scripts)))

/** One router over a fresh benchmark, in `store`. */
const over = <A, E, R>(effect: Effect.Effect<A, E, R>, store: Layer.Layer<QualityStore>) =>
  Effect.provide(
    effect,
    AgentRouter.layerWithStore.pipe(Layer.provideMerge(Benchmark.layer), Layer.provide(world), Layer.provide(store))
  )

const alone = <A, E, R>(effect: Effect.Effect<A, E, R>) => over(effect, QualityStore.layerMemory)

const qualities = Effect.gen(function* () {
  const { route } = yield* AgentRouter
  const { candidates } = yield* route({ capabilities: [], contextTokens: 100 }, "analysis")
  return Object.fromEntries(candidates.map(({ platform, quality }) => [platform, quality]))
})

const qualityOf = (name: Name) => Effect.map(qualities, (all) => all[name] ?? Number.NaN)

/** An answer after a second: half of it to the first token, half for 500 tokens. */
const answered = (name: Name, times = 1): Measurement => ({
  platform: id(name),
  model: `${name}-model`,
  type: "analysis",
  outcome: "succeeded",
  durationMs: 1_000 * times,
  timeToFirstTokenMs: 500 * times,
  tokens: 600,
  outputTokens: 500
})

const failed = (name: Name): Measurement => ({
  ...answered(name),
  outcome: "platform-failure",
  timeToFirstTokenMs: undefined,
  tokens: 0,
  outputTokens: 0
})

/** `seconds` of a call a second on everyone; the quality of `name` after each `every` seconds. */
const live = (seconds: number, name: Name, call: (name: Name, second: number) => Measurement, every = 5) =>
  Effect.gen(function* () {
    const { record } = yield* Benchmark
    const seen: Array<number> = []
    for (let second = every; second <= seconds; second += every) {
      yield* TestClock.adjust(every * 1_000)
      for (let each = second - every; each < second; each++) {
        for (const name of names) yield* record(call(name, each))
      }
      seen.push(yield* qualityOf(name))
    }
    return seen
  })

const well = (name: Name) => answered(name)

const secondsUntil = (seen: ReadonlyArray<number>, holds: (quality: number) => boolean): number => {
  const found = seen.findIndex(holds)
  return found === -1 ? Number.POSITIVE_INFINITY : 5 * (found + 1)
}

describe("what the router learns", () => {
  it.effect("starts neutral and stays so while all are alike", () =>
    alone(
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* qualities, { a: 1, b: 1, c: 1 })
        yield* live(120, "a", well)
        for (const quality of Object.values(yield* qualities)) assert.closeTo(quality, 1, 0.01)
      })
    )
  )

  it.effect(
    "gives a platform that slows down to a quarter less than half within 90 s, and all of it back in 6 min",
    () =>
      alone(
        Effect.gen(function* () {
          yield* live(300, "b", well)
          const slow = yield* live(300, "b", (name) => answered(name, name === "b" ? 4 : 1))
          assert.isAtMost(
            secondsUntil(slow, (quality) => quality < 0.5),
            90
          )
          assert.isAtLeast(Math.min(...slow), 0.2)
          const others = yield* qualities
          assert.closeTo(others.a ?? 0, 1, 0.35)
          const after = yield* live(360, "b", well)
          assert.isAtMost(
            secondsUntil(after, (quality) => quality > 0.9),
            360
          )
          assert.isAtMost(Math.max(...after), 1.01)
        })
      )
  )

  it.effect("gives a platform half of whose calls fail less than half within 60 s, and all of it back in 6 min", () =>
    alone(
      Effect.gen(function* () {
        yield* live(300, "b", well)
        const burst = yield* live(120, "b", (name, second) =>
          name === "b" && second % 2 === 0 ? failed(name) : well(name)
        )
        assert.isAtMost(
          secondsUntil(burst, (quality) => quality < 0.5),
          60
        )
        assert.isAtLeast(Math.min(...burst), 0.05)
        const before = burst.at(-1) ?? 0
        const after = yield* live(360, "b", well)
        assert.isAbove(after[12] ?? 0, before)
        assert.isAtMost(
          secondsUntil(after, (quality) => quality > 0.9),
          360
        )
      })
    )
  )

  it.effect("moves by a quarter at most in five seconds, and only every five seconds", () =>
    alone(
      Effect.gen(function* () {
        const seen = yield* live(60, "b", (name) => (name === "b" ? failed(name) : well(name)), 1)
        let changes = 0
        seen.forEach((quality, index) => {
          const before = seen[index - 1] ?? 1
          if (quality === before) return
          changes += 1
          assert.isAtLeast(quality / before, 1 / 1.25 - 1e-9)
        })
        assert.isAtMost(changes, 12)
        assert.isAtLeast(Math.min(...seen), 0.05)
      })
    )
  )

  it.effect("blames nobody for refusals by limits, keys and requests", () =>
    alone(
      Effect.gen(function* () {
        yield* live(60, "b", (name) => (name === "b" ? { ...failed(name), outcome: "other-failure" } : well(name)))
        assert.closeTo(yield* qualityOf("b"), 1, 0.01)
      })
    )
  )

  it.effect("judges each model by itself", () =>
    alone(
      Effect.gen(function* () {
        const { record } = yield* Benchmark
        for (let second = 0; second < 60; second++) {
          yield* TestClock.adjust("1 second")
          yield* record({ ...failed("b"), model: "another" })
        }
        assert.strictEqual(yield* qualityOf("b"), 1)
      })
    )
  )

  it.effect("forgets by halves in five minutes once there was no call for as long", () =>
    alone(
      Effect.gen(function* () {
        yield* live(60, "b", (name) => (name === "b" ? failed(name) : well(name)))
        yield* TestClock.adjust("301 seconds")
        const before = yield* qualityOf("b")
        yield* TestClock.adjust("5 minutes")
        assert.closeTo(Math.log(yield* qualityOf("b")), Math.log(before) / 2, 0.05)
      })
    )
  )

  it.effect("is taken up again after a restart, as much of it as the time between has left", () =>
    Effect.gen(function* () {
      const store = Layer.succeedContext(yield* Layer.build(QualityStore.layer))
      const before = yield* over(
        Effect.zipRight(
          live(62, "b", (name) => (name === "b" ? failed(name) : well(name))),
          qualities
        ),
        store
      )
      assert.isBelow(before.b ?? 1, 0.2)
      assert.closeTo(yield* over(qualityOf("b"), store), before.b ?? 1, 0.01)
      yield* TestClock.adjust("5 minutes")
      const later = yield* over(qualityOf("b"), store)
      assert.closeTo(Math.log(later), Math.log(before.b ?? 1) / 2, 0.05)
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual(yield* over(qualities, store), { a: 1, b: 1, c: 1 })
    }).pipe(Effect.scoped, Effect.provide(Layer.orDie(Sql.layerMemory)))
  )

  it.effect("is saved every 30 s at most, and at the end", () =>
    Effect.gen(function* () {
      const saves = yield* Ref.make<ReadonlyArray<ReadonlyArray<SavedQuality>>>([])
      const store = Layer.succeed(QualityStore, {
        load: Effect.succeed([]),
        save: (saved) => Ref.update(saves, (all) => [...all, saved])
      })
      yield* over(
        live(95, "b", (name) => (name === "b" ? failed(name) : well(name))),
        store
      )
      const all = yield* Ref.get(saves)
      assert.strictEqual(all.length, 4)
      assert.deepStrictEqual(
        all[0]?.map(({ platform, savedAt }) => `${platform} ${savedAt}`),
        ["b 30000"]
      )
    })
  )

  it.effect("goes on without a store that fails, and after a step that breaks", () =>
    Effect.gen(function* () {
      const broken = Effect.fail(new QualityStoreFailed({ message: "the disk is full", cause: "full" }))
      const store = Layer.succeed(QualityStore, { load: broken, save: () => broken })
      let steps = 0
      const breaking = Layer.effect(
        Benchmark,
        Effect.map(Benchmark, (real) => ({
          ...real,
          recent: Effect.suspend(() => {
            steps += 1
            return steps === 2 ? Effect.die("a bug") : real.recent
          })
        }))
      ).pipe(Layer.provide(Benchmark.layer))
      yield* live(60, "b", (name) => (name === "b" ? failed(name) : well(name))).pipe(
        Effect.zipRight(qualityOf("b")),
        Effect.map((quality) => assert.isBelow(quality, 0.2)),
        Effect.provide(
          AgentRouter.layerWithStore.pipe(Layer.provideMerge(breaking), Layer.provide(world), Layer.provide(store))
        )
      )
      assert.isAtLeast(steps, 12)
    })
  )

  it.effect("looks at nothing while nothing is used, and at once again when something is", () =>
    Effect.gen(function* () {
      let looks = 0
      const watched = Layer.effect(
        Benchmark,
        Effect.map(Benchmark, (real) => ({
          ...real,
          recent: Effect.suspend(() => {
            looks += 1
            return real.recent
          })
        }))
      ).pipe(Layer.provide(Benchmark.layer))
      yield* Effect.gen(function* () {
        yield* TestClock.adjust("1 day")
        assert.strictEqual(looks, 1)
        yield* live(60, "b", (name) => (name === "b" ? failed(name) : well(name)))
        assert.isBelow(yield* qualityOf("b"), 0.2)
        assert.isAtLeast(looks, 10)
      }).pipe(Effect.provide(AgentRouter.layer.pipe(Layer.provideMerge(watched), Layer.provide(world))))
    })
  )

  it.effect("does the same each time", () =>
    Effect.gen(function* () {
      const run = alone(
        live(120, "b", (name, second) =>
          (second * (name.charCodeAt(0) + 7)) % 5 === 0 ? failed(name) : answered(name, 1 + (second % 3))
        )
      )
      const first = yield* run
      assert.deepStrictEqual(yield* run, first)
    })
  )
})
