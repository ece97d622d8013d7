import { assert, describe, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
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
      assert.deepStrictEqual(yield* performance(platform), {
        attempts: 0,
        errorRate: 0,
        durationMsP50: undefined,
        durationMsP95: undefined,
        timeToFirstTokenMsP50: undefined,
        timeToFirstTokenMsP95: undefined,
        tokens: 0
      })
    }).pipe(Effect.provide(Benchmark.layer))
  )

  it.effect("takes latencies from answers only and blames the platform for its own failures only", () =>
    Effect.gen(function* () {
      const { performance, record } = yield* Benchmark
      for (let n = 1; n <= 100; n++) yield* record(measurement({ durationMs: n * 10, timeToFirstTokenMs: n }))
      for (let n = 0; n < 20; n++) yield* record(measurement({ outcome: "platform-failure", durationMs: 1, tokens: 0 }))
      for (let n = 0; n < 5; n++) yield* record(measurement({ outcome: "other-failure", durationMs: 1, tokens: 0 }))
      assert.deepStrictEqual(yield* performance(platform), {
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
})
