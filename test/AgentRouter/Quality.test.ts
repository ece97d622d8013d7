import { assert, describe, it } from "@effect/vitest"
import { FastCheck } from "effect"
import {
  bounds,
  factorOf,
  faded,
  halfLifeMs,
  isNeutral,
  largestStep,
  median,
  neutral,
  next,
  type Quality,
  type Reading,
  targetOf
} from "../../src/AgentRouter/Quality.js"

const stepMs = 5_000

const qualities = FastCheck.record({
  reliability: FastCheck.double({ min: 0.05, max: 1, noNaN: true }),
  speed: FastCheck.double({ min: 0.25, max: 2, noNaN: true })
})

const ms = FastCheck.double({ min: 0.001, max: 1e7, noNaN: true })

const readings: FastCheck.Arbitrary<Reading> = FastCheck.record({
  failures: FastCheck.double({ min: 0, max: 1_000, noNaN: true }),
  answers: FastCheck.double({ min: 0, max: 1_000, noNaN: true }),
  callMs: FastCheck.option(ms, { nil: undefined }),
  baselineMs: FastCheck.option(ms, { nil: undefined })
}).map((reading) => ({ ...reading, attempts: reading.answers + reading.failures }))

const usual = FastCheck.option(ms, { nil: undefined })
const maybe = FastCheck.option(readings, { nil: undefined })

const withFailures = (reading: Reading, failures: number): Reading => ({
  ...reading,
  failures,
  answers: reading.attempts - failures
})

const steady: Reading = { attempts: 50, failures: 0, answers: 50, callMs: 1_000, baselineMs: 1_000 }

/** Steps of five seconds with the same reading until `done`; how many it took. */
const stepsUntil = (
  from: Quality,
  reading: Reading | undefined,
  usualMs: number | undefined,
  done: (quality: Quality) => boolean
): number => {
  let quality = from
  for (let steps = 0; steps < 10_000; steps++) {
    if (done(quality)) return steps
    quality = next(quality, reading, usualMs, stepMs)
  }
  return Number.POSITIVE_INFINITY
}

describe("Quality", () => {
  it("stays within its bounds and changes by a quarter at most in one step, whatever is measured", () => {
    FastCheck.assert(
      FastCheck.property(qualities, maybe, usual, FastCheck.nat(3_600_000), (quality, reading, usualMs, elapsedMs) => {
        const after = next(quality, reading, usualMs, elapsedMs)
        assert.isAtLeast(after.reliability, 0.05 - 1e-12)
        assert.isAtMost(after.reliability, 1 + 1e-12)
        assert.isAtLeast(after.speed, 0.25 - 1e-12)
        assert.isAtMost(after.speed, 2 + 1e-12)
        assert.isAtLeast(factorOf(after), bounds.least)
        assert.isAtMost(factorOf(after), bounds.most)
        if (reading === undefined) return
        const change = factorOf(after) / factorOf(quality)
        assert.isAtMost(change, largestStep + 1e-9)
        assert.isAtLeast(change, 1 / largestStep - 1e-9)
      }),
      { numRuns: 1_000 }
    )
  })

  it("never falls when fewer attempts fail, nor when answers come faster", () => {
    FastCheck.assert(
      FastCheck.property(
        qualities,
        readings,
        usual,
        FastCheck.double({ min: 0, max: 1, noNaN: true }),
        FastCheck.double({ min: 0, max: 1, noNaN: true }),
        (quality, reading, usualMs, one, other) => {
          const [fewer, more] = [Math.min(one, other), Math.max(one, other)]
          const still = { ...reading, callMs: undefined }
          const better = next(quality, withFailures(still, still.attempts * fewer), usualMs, stepMs)
          const worse = next(quality, withFailures(still, still.attempts * more), usualMs, stepMs)
          assert.isAtLeast(factorOf(better), factorOf(worse) - 1e-9)
          assert.isAtLeast(better.reliability, worse.reliability - 1e-9)
        }
      ),
      { numRuns: 500 }
    )
    FastCheck.assert(
      FastCheck.property(qualities, readings, usual, ms, ms, (quality, reading, usualMs, one, other) => {
        const baseline = { ...reading, baselineMs: reading.baselineMs ?? 1_000 }
        const compared = usualMs ?? 1_000
        const faster = next(quality, { ...baseline, callMs: Math.min(one, other) }, compared, stepMs)
        const slower = next(quality, { ...baseline, callMs: Math.max(one, other) }, compared, stepMs)
        assert.isAtLeast(factorOf(faster), factorOf(slower) - 1e-9)
      }),
      { numRuns: 500 }
    )
  })

  it("starts neutral, and a first failure is not a verdict", () => {
    assert.strictEqual(factorOf(neutral), 1)
    const { reliability } = targetOf({ attempts: 1, failures: 1, answers: 0 }, undefined)
    assert.closeTo(reliability, 0.8 ** 3, 1e-9)
  })

  it("speaks of speed as far as there is evidence, against the others and against what it was", () => {
    const speedOf = (reading: Partial<Reading>, usualMs: number | undefined) =>
      targetOf({ ...steady, attempts: 1e9, answers: 1e9, ...reading }, usualMs).speed
    assert.closeTo(speedOf({ callMs: 1_000 }, 4_000), 2, 1e-6)
    assert.closeTo(speedOf({ callMs: 4_000, baselineMs: 4_000 }, 1_000), 0.5, 1e-6)
    assert.closeTo(speedOf({ callMs: 4_000 }, 4_000), 0.5, 1e-6)
    assert.closeTo(speedOf({ callMs: 4_000 }, 1_000), 0.25, 1e-6)
    assert.closeTo(speedOf({ callMs: 500 }, 500), 1, 1e-6)
    assert.closeTo(speedOf({ callMs: 1_000 }, undefined), 1, 1e-6)
    assert.strictEqual(speedOf({ callMs: undefined }, 1_000), 1)
    assert.closeTo(speedOf({ attempts: 1, answers: 1, callMs: 1_000 }, 4_000), 2 ** (1 / 3), 1e-6)
  })

  it("is at a twentieth within 14 steps of an outage, and back above nine tenths within 14 of its end", () => {
    const outage = { ...steady, failures: 50, answers: 0 }
    assert.isAtMost(
      stepsUntil(neutral, outage, 1_000, (quality) => factorOf(quality) <= 0.0501),
      14
    )
    assert.isAtMost(
      stepsUntil({ reliability: 0.05, speed: 1 }, steady, 1_000, (quality) => factorOf(quality) > 0.9),
      14
    )
  })

  it("spends a step on reliability first", () => {
    const failingFast = { ...steady, failures: 40, answers: 10, callMs: 100 }
    const after = next(neutral, failingFast, 1_000, stepMs)
    assert.closeTo(after.reliability, 1 / largestStep, 1e-9)
    assert.strictEqual(after.speed, 1)
  })

  it("comes back from wherever it was once all is well, and forgets by halves without anything measured", () => {
    FastCheck.assert(
      FastCheck.property(qualities, (quality) => {
        assert.isAtMost(
          stepsUntil(quality, steady, 1_000, (at) => Math.abs(factorOf(at) - 1) < 0.02),
          25
        )
        const half = faded(quality, halfLifeMs)
        assert.closeTo(Math.log(half.reliability), Math.log(quality.reliability) / 2, 1e-9)
        assert.closeTo(Math.log(half.speed), Math.log(quality.speed) / 2, 1e-9)
        assert.isTrue(isNeutral(faded(quality, 20 * halfLifeMs)))
        assert.deepStrictEqual(faded(quality, -1), quality)
      })
    )
  })

  it("fades alike in many small steps and in one", () => {
    let stepwise: Quality = { reliability: 0.1, speed: 1.7 }
    for (let step = 0; step < 60; step++) stepwise = next(stepwise, undefined, undefined, stepMs)
    const once = faded({ reliability: 0.1, speed: 1.7 }, 60 * stepMs)
    assert.closeTo(stepwise.reliability, once.reliability, 1e-9)
    assert.closeTo(stepwise.speed, once.speed, 1e-9)
  })

  it("takes the middle one, or the mean of the middle two", () => {
    assert.strictEqual(median([]), undefined)
    assert.strictEqual(median([7]), 7)
    assert.strictEqual(median([9, 1]), 5)
    assert.strictEqual(median([100, 1, 3]), 3)
  })
})
