import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Option, TestClock } from "effect"
import { Benchmark, type Measurement } from "../src/Benchmark.js"
import { PlatformId } from "../src/Domain/Platform.js"

const platform = PlatformId.make("codex")

const measurement = (over: Partial<Measurement> = {}): Measurement => ({
  platform,
  model: "m",
  type: "analysis",
  outcome: "succeeded",
  durationMs: 100,
  timeToFirstTokenMs: 10,
  tokens: 7,
  ...over
})

describe("Benchmark", () => {
  it.effect("has nothing to say of a platform nobody used", () =>
    Effect.gen(function* () {
      const { performance } = yield* Benchmark
      assert.deepStrictEqual(yield* performance(platform), { attempts: 0, errorRate: 0, tokens: 0 })
    }).pipe(Effect.provide(Benchmark.layer))
  )

  it.effect("takes latencies from answers only and blames the platform for its own failures only", () =>
    Effect.gen(function* () {
      const { performance, record } = yield* Benchmark
      for (let n = 1; n <= 100; n++) yield* record(measurement({ durationMs: n * 10, timeToFirstTokenMs: n }))
      for (let n = 0; n < 20; n++) yield* record(measurement({ outcome: "platform-failure", durationMs: 1, tokens: 0 }))
      for (let n = 0; n < 5; n++) yield* record(measurement({ outcome: "other-failure", durationMs: 1, tokens: 0 }))
      assert.deepInclude(yield* performance(platform), {
        attempts: 125,
        errorRate: 20 / 125,
        durationMsP50: 500,
        durationMsP95: 950,
        timeToFirstTokenMsP50: 50,
        timeToFirstTokenMsP95: 95,
        tokens: 700
      })
    }).pipe(Effect.provide(Benchmark.layer))
  )

  it.effect("remembers 256 attempts, none longer than ten minutes, each platform by itself", () =>
    Effect.gen(function* () {
      const { performance, record } = yield* Benchmark
      for (let n = 0; n < 300; n++) yield* record(measurement({ durationMs: n < 44 ? 5_000 : 1 }))
      const full = yield* performance(platform)
      assert.strictEqual(full.attempts, 256)
      assert.strictEqual(full.durationMsP95, 1)
      yield* TestClock.adjust("6 minutes")
      yield* record(measurement({ durationMs: 2 }))
      yield* TestClock.adjust("5 minutes")
      const late = yield* performance(platform)
      assert.strictEqual(late.attempts, 1)
      assert.strictEqual(late.durationMsP50, 2)
      assert.strictEqual((yield* performance(PlatformId.make("gemini"))).attempts, 0)
    }).pipe(Effect.provide(Benchmark.layer))
  )

  it.effect("measures speed by the token, so that long answers are not slow ones", () =>
    Effect.gen(function* () {
      const { performance, record } = yield* Benchmark
      const answer = (outputTokens: number): Measurement =>
        measurement({ durationMs: 200 + 4 * outputTokens, timeToFirstTokenMs: 200, tokens: outputTokens, outputTokens })
      yield* record(answer(10))
      const short = yield* performance(platform)
      for (let n = 0; n < 50; n++) yield* record(answer(10_000))
      const long = yield* performance(platform)
      for (const measured of [short, long]) {
        assert.closeTo(measured.msPerOutputTokenP50 ?? 0, 4, 1e-9)
        assert.closeTo(measured.msPerOutputTokenEwma ?? 0, 4, 1e-9)
        assert.closeTo(measured.outputTokensPerSecond ?? 0, 250, 1e-9)
        assert.strictEqual(measured.timeToFirstTokenMsEwma, 200)
      }
      yield* record(measurement({ outputTokens: 0 }))
      assert.closeTo((yield* performance(platform)).msPerOutputTokenP50 ?? 0, 4, 1e-9)
    }).pipe(Effect.provide(Benchmark.layer))
  )

  it.effect("lets an attempt count half in the averages after a minute", () =>
    Effect.gen(function* () {
      const { performance, record } = yield* Benchmark
      yield* record(measurement({ durationMs: 100 }))
      yield* TestClock.adjust("1 minute")
      yield* record(measurement({ durationMs: 400 }))
      assert.closeTo((yield* performance(platform)).durationMsEwma ?? 0, 300, 1e-9)
      yield* TestClock.adjust("5 minutes")
      assert.closeTo((yield* performance(platform)).durationMsEwma ?? 0, 300, 1e-9)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* performance(platform)).durationMsEwma, undefined)
    }).pipe(Effect.provide(Benchmark.layer))
  )

  it.effect("tells models apart, the one used last first, and remembers 32 of a platform", () =>
    Effect.gen(function* () {
      const { models, performance, recent, record } = yield* Benchmark
      yield* record(measurement({ model: "slow", durationMs: 900 }))
      yield* record(measurement({ model: "quick", durationMs: 100, outcome: "platform-failure" }))
      yield* record(measurement({ model: "slow", durationMs: 700 }))
      assert.deepStrictEqual(
        (yield* models(platform)).map(({ model, performance }) => [model, performance.attempts, performance.errorRate]),
        [
          ["slow", 2, 0],
          ["quick", 1, 1]
        ]
      )
      assert.strictEqual((yield* performance(platform, "slow")).durationMsP95, 900)
      assert.strictEqual((yield* performance(platform, "unknown")).attempts, 0)
      assert.strictEqual((yield* performance(platform)).attempts, 3)
      for (let n = 0; n < 31; n++) yield* record(measurement({ model: `m${n}` }))
      const names = (yield* models(platform)).map(({ model }) => model)
      assert.strictEqual(names.length, 32)
      assert.include(names, "slow")
      assert.notInclude(names, "quick")
      assert.strictEqual((yield* recent).length, 32)
    }).pipe(Effect.provide(Benchmark.layer))
  )

  it.effect("shows what a model does now beside what it used to do, refusals left out", () =>
    Effect.gen(function* () {
      const { recent, record } = yield* Benchmark
      const answer = (times: number): Measurement =>
        measurement({ durationMs: 600 * times, timeToFirstTokenMs: 100 * times, outputTokens: 500 })
      const hourThenFiveMinutes = [...Array.from({ length: 60 }, () => 1), ...Array.from({ length: 5 }, () => 3)]
      for (const times of hourThenFiveMinutes) {
        for (let n = 0; n < 10; n++) yield* record(answer(times))
        yield* TestClock.adjust("1 minute")
      }
      yield* record(measurement({ outcome: "other-failure" }))
      yield* record(measurement({ outcome: "platform-failure" }))
      yield* TestClock.adjust("1 minute")
      const [model] = yield* recent
      assert.isAbove(model?.callMs ?? 0, 1_700)
      assert.isAbove(model?.baselineMs ?? 0, 600)
      assert.isBelow(model?.baselineMs ?? 0, 900)
      assert.strictEqual(model?.failures, 0.5)
      assert.strictEqual(model?.idleMs, 60_000)
      assert.closeTo(model?.attempts ?? 0, (model?.answers ?? 0) + 0.5, 1e-9)
    }).pipe(Effect.provide(Benchmark.layer))
  )

  it.effect("knows a type's p95 from 20 answers on", () =>
    Effect.gen(function* () {
      const { latencyP95, record } = yield* Benchmark
      for (let n = 1; n <= 19; n++) yield* record(measurement({ durationMs: n }))
      yield* record(measurement({ durationMs: 9_999, outcome: "platform-failure" }))
      yield* record(measurement({ durationMs: 9_999, type: "testing" }))
      assert.deepStrictEqual(yield* latencyP95(platform, "analysis"), Option.none())
      yield* record(measurement({ durationMs: 20 }))
      assert.deepStrictEqual(yield* latencyP95(platform, "analysis"), Option.some(19))
      assert.deepStrictEqual(yield* latencyP95(platform, "testing"), Option.none())
      assert.deepStrictEqual(yield* latencyP95(PlatformId.make("gemini"), "analysis"), Option.none())
      yield* TestClock.adjust("11 minutes")
      assert.deepStrictEqual(yield* latencyP95(platform, "analysis"), Option.none())
    }).pipe(Effect.provide(Benchmark.layer))
  )

  it.effect("wakes who waits for more attempts than there were", () =>
    Effect.gen(function* () {
      const { recordedAfter, record } = yield* Benchmark
      const first = yield* Effect.fork(recordedAfter(0))
      yield* Effect.yieldNow()
      assert.isTrue(Option.isNone(yield* Fiber.poll(first)))
      yield* record(measurement())
      assert.strictEqual(yield* Fiber.join(first), 1)
      assert.strictEqual(yield* recordedAfter(0), 1)
      const second = yield* Effect.fork(recordedAfter(1))
      yield* Effect.yieldNow()
      assert.isTrue(Option.isNone(yield* Fiber.poll(second)))
      yield* record(measurement())
      assert.strictEqual(yield* Fiber.join(second), 2)
    }).pipe(Effect.provide(Benchmark.layer))
  )
})
