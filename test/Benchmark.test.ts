import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, MutableRef, Option, TestClock } from "effect"
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

  const first = measurement({ durationMs: 100 })
  const later = measurement({ durationMs: 200 })
  /** What is left of the weight of one attempt of 100 ms, `count` of 200 ms having come since. */
  const leftOf = (averageMs: number | undefined, count: number) =>
    averageMs === undefined ? Number.NaN : (count * (200 - averageMs)) / (averageMs - 100)

  it.effect("lets an attempt count half after a minute where many follow", () =>
    Effect.gen(function* () {
      const { performance, record } = yield* Benchmark
      for (const measured of [first, later]) {
        for (let n = 0; n < 120; n++) {
          yield* TestClock.adjust(500)
          yield* record(measured)
        }
      }
      // what the minute before has left, half of it gone for the minute and a little for the time itself
      const weightOfLater = Array.from({ length: 120 }, (_, n) => 2 ** (-(n / 120) * 1.1)).reduce(
        (sum, n) => sum + n,
        0
      )
      assert.closeTo(
        leftOf((yield* performance(platform)).durationMsEwma, weightOfLater) / weightOfLater,
        2 ** -1.1,
        0.01
      )
    }).pipe(Effect.provide(Benchmark.layer))
  )

  it.effect("lets an attempt count half after eight more where few follow, be they at once or one a minute", () =>
    Effect.gen(function* () {
      const { performance, record } = yield* Benchmark
      yield* record(first)
      yield* TestClock.adjust("1 minute")
      for (let n = 0; n < 8; n++) yield* record(later)
      const { durationMsEwma } = yield* performance(platform)
      const weightOfLater = Array.from({ length: 8 }, (_, n) => 2 ** (-n / 8)).reduce((sum, each) => sum + each, 0)
      const ofTime = 2 ** (-1 / 10)
      assert.closeTo(leftOf(durationMsEwma, weightOfLater), ofTime / 2, 1e-6)
      for (let n = 0; n < 100; n++) {
        yield* TestClock.adjust("1 minute")
        yield* record(first)
      }
      for (let n = 0; n < 8; n++) {
        yield* TestClock.adjust("1 minute")
        yield* record(later)
      }
      // of eight more in eight minutes: half for the eight, and what eight minutes take
      assert.closeTo((yield* performance(platform)).durationMsEwma ?? 0, 100 + 100 * (1 - 0.5 * 2 ** -0.8), 0.5)
    }).pipe(Effect.provide(Benchmark.layer))
  )

  it.effect("forgets by halves in ten minutes without an attempt", () =>
    Effect.gen(function* () {
      const { recent, record } = yield* Benchmark
      yield* record(first)
      yield* TestClock.adjust("10 minutes")
      const [model] = yield* recent
      assert.closeTo(model?.answers ?? 0, 0.5, 1e-9)
      assert.strictEqual(model?.idleMs, 600_000)
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
      assert.closeTo(model?.failures ?? 0, 2 ** (-1 / 10), 1e-9)
      assert.strictEqual(model?.idleMs, 60_000)
      assert.closeTo(model?.attempts ?? 0, (model?.answers ?? 0) + 2 ** (-1 / 10), 1e-9)
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

  describe("an attempt without an answer", () => {
    /** Ten answers of 500 tokens in 5 s after a first token at 1 s, one a second. */
    const usual = Effect.gen(function* () {
      const { record } = yield* Benchmark
      for (let n = 0; n < 10; n++) {
        yield* record(measurement({ durationMs: 6_000, timeToFirstTokenMs: 1_000, outputTokens: 500 }))
        yield* TestClock.adjust("1 second")
      }
    })
    const now = Effect.gen(function* () {
      const [model] = yield* (yield* Benchmark).recent
      return { answers: model?.answers ?? 0, callMs: model?.callMs ?? 0, failures: model?.failures ?? 0 }
    })
    const cut = (over: Partial<Measurement>) => measurement({ outcome: "cut", tokens: 0, ...over })

    it.effect("that was cut before its usual time says nothing", () =>
      Effect.gen(function* () {
        const { record } = yield* Benchmark
        yield* usual
        const before = yield* now
        yield* record(cut({ durationMs: 900, timeToFirstTokenMs: undefined }))
        assert.deepStrictEqual(yield* now, before)
        yield* record(cut({ platform: PlatformId.make("nobody"), durationMs: 90_000 }))
        yield* record(cut({ model: "another", durationMs: 90_000 }))
        assert.deepStrictEqual(yield* now, before)
      }).pipe(Effect.provide(Benchmark.layer))
    )

    it.effect("that was cut after it makes the platform slower by that much, and is no error", () =>
      Effect.gen(function* () {
        const { performance, record } = yield* Benchmark
        yield* usual
        const [before, shown] = [yield* now, yield* performance(platform)]
        yield* record(cut({ durationMs: 20_000, timeToFirstTokenMs: undefined }))
        const late = yield* now
        assert.isAbove(late.callMs, before.callMs * 1.2)
        yield* record(cut({ durationMs: 21_000, timeToFirstTokenMs: 1_000 }))
        assert.isAbove((yield* now).callMs, late.callMs * 1.1)
        assert.strictEqual(late.failures, 0)
        assert.deepInclude(yield* performance(platform), {
          attempts: shown.attempts,
          errorRate: 0,
          durationMsP95: shown.durationMsP95
        })
      }).pipe(Effect.provide(Benchmark.layer))
    )

    it.effect("counts while it runs as soon as it is late, and no longer than that", () =>
      Effect.gen(function* () {
        const { recent, running } = yield* Benchmark
        yield* usual
        const before = yield* now
        const firstTokenAt = MutableRef.make(Option.none<number>())
        yield* running(
          { platform, model: "m", type: "analysis", firstTokenAt },
          Effect.gen(function* () {
            yield* TestClock.adjust("900 millis")
            assert.closeTo((yield* now).callMs, before.callMs, 1)
            assert.strictEqual((yield* recent)[0]?.idleMs, 0)
            yield* TestClock.adjust("20 seconds")
            const late = yield* now
            assert.isAbove(late.callMs, before.callMs * 1.2)
            MutableRef.set(firstTokenAt, Option.some(11_000))
            const begun = yield* now
            assert.isBelow(begun.callMs, late.callMs)
          })
        )
        assert.closeTo((yield* now).callMs, before.callMs, 1)
        assert.isAbove((yield* recent)[0]?.idleMs ?? 0, 0)
      }).pipe(Effect.provide(Benchmark.layer))
    )
  })

  it.effect("knows how long answers take at the speed of late, from ten of their type on", () =>
    Effect.gen(function* () {
      const { callTimes, record } = yield* Benchmark
      const answer = (id: PlatformId, outputTokens: number, msPerToken: number) =>
        record(
          measurement({
            platform: id,
            durationMs: 1_000 + outputTokens * msPerToken,
            timeToFirstTokenMs: 1_000,
            outputTokens
          })
        )
      const other = PlatformId.make("gemini")
      for (let n = 1; n <= 9; n++) yield* answer(platform, n * 100, 10)
      assert.deepStrictEqual(yield* callTimes(platform, "m", "analysis"), Option.none())
      yield* answer(other, 1_000, 20)
      // half of them have 500 tokens at most and the longest 1,000, whoever gave them
      const own = Option.getOrThrow(yield* callTimes(platform, "m", "analysis"))
      assert.closeTo(own.typicalMs, 6_000, 1e-6)
      assert.closeTo(own.longMs, 11_000, 1e-6)
      assert.closeTo(Option.getOrThrow(yield* callTimes(other, "m", "analysis")).longMs, 21_000, 1e-6)
      assert.deepStrictEqual(yield* callTimes(platform, "m", "testing"), Option.none())
      assert.deepStrictEqual(yield* callTimes(platform, "another", "analysis"), Option.none())
    }).pipe(Effect.provide(Benchmark.layer))
  )

  it.effect("wakes who waits for more attempts than there were", () =>
    Effect.gen(function* () {
      const { newsAfter, record } = yield* Benchmark
      const first = yield* Effect.fork(newsAfter(0))
      yield* Effect.yieldNow()
      assert.isTrue(Option.isNone(yield* Fiber.poll(first)))
      yield* record(measurement())
      assert.strictEqual(yield* Fiber.join(first), 1)
      assert.strictEqual(yield* newsAfter(0), 1)
      const second = yield* Effect.fork(newsAfter(1))
      yield* Effect.yieldNow()
      assert.isTrue(Option.isNone(yield* Fiber.poll(second)))
      yield* record(measurement())
      assert.strictEqual(yield* Fiber.join(second), 2)
    }).pipe(Effect.provide(Benchmark.layer))
  )
})
