import { assert, describe, it } from "@effect/vitest"
import { FastCheck } from "effect"
import { patienceMs, type Weighed, weigh } from "../../src/AgentRouter/Policy.js"
import { neutral } from "../../src/AgentRouter/Quality.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import * as RoundRobin from "./roundRobin.js"

const candidate = (over: Partial<Weighed> = {}): Weighed => ({ suitability: 1, weight: 1, quality: neutral, ...over })

const policies = ["balanced", "fastest", "cheapest", "best"] as const

const near = (found: ReadonlyArray<number>, expected: ReadonlyArray<number>): void => {
  assert.strictEqual(found.length, expected.length)
  for (const [index, weight] of found.entries()) assert.closeTo(weight, expected[index] ?? Number.NaN, 1e-6)
}

describe("Policy", () => {
  it("balanced: suitability by weight by quality", () => {
    near(
      weigh("balanced", [
        candidate({ suitability: 0.5, weight: 3 }),
        candidate({ quality: { reliability: 0.5, speed: 1.5 } })
      ]),
      [1.5, 0.75]
    )
  })

  it("fastest: speed before all", () => {
    near(
      weigh("fastest", [
        candidate({ quality: { reliability: 1, speed: 2 } }),
        candidate({ quality: { reliability: 1, speed: 0.5 } })
      ]),
      [8, 0.125]
    )
  })

  it("cheapest: the square of the price's part, and who has no price counts as the dearest", () => {
    near(weigh("cheapest", [candidate({ costUsd: 0.01 }), candidate({ costUsd: 0.05 }), candidate()]), [
      1,
      ((0.01 + 1e-6) / (0.05 + 1e-6)) ** 2,
      ((0.01 + 1e-6) / (0.05 + 1e-6)) ** 2
    ])
    near(weigh("cheapest", [candidate(), candidate({ suitability: 0.5 })]), [1, 0.5])
    const [free = 0, dear = 0] = weigh("cheapest", [candidate({ costUsd: 0 }), candidate({ costUsd: 1 })])
    assert.strictEqual(free, 1)
    assert.strictEqual(dear, 0.001)
  })

  it("best: suitability before all, whatever it takes and costs", () => {
    near(
      weigh("best", [
        candidate({ suitability: 0.9, costUsd: 9, quality: { reliability: 1, speed: 0.25 } }),
        candidate({ suitability: 0.6, costUsd: 0.1, quality: { reliability: 0.5, speed: 2 } })
      ]),
      [0.9 ** 3, 0.6 ** 3 * 0.5]
    )
  })

  it("starves nobody, however badly it is measured: each is chosen as often as its share says, but for two calls", () => {
    const qualities = FastCheck.record({
      reliability: FastCheck.double({ min: 0.05, max: 1, noNaN: true }),
      speed: FastCheck.double({ min: 0.25, max: 2, noNaN: true })
    })
    FastCheck.assert(
      FastCheck.property(FastCheck.array(qualities, { minLength: 2, maxLength: 6 }), (measured) => {
        const candidates = measured.map((quality) => candidate({ quality }))
        const weighted = weigh("balanced", candidates).map((weight, index) => ({
          platform: PlatformId.make(`p${index}`),
          weight
        }))
        const total = weighted.reduce((sum, { weight }) => sum + weight, 0)
        const choose = RoundRobin.make()
        const choices = Array.from({ length: 1_000 }, () => choose(weighted))
        for (const { platform, weight } of weighted) {
          // a twentieth against five of twice the weight
          assert.isAtLeast(weight / total, 0.05 / 10.05)
          const gaps = choices.flatMap((choice, index) => (choice === platform ? index : []))
          const longest = gaps.reduce((most, at, index) => Math.max(most, at - (gaps[index - 1] ?? -1)), 0)
          assert.isAtMost(Math.max(longest, 1_000 - (gaps.at(-1) ?? -1)), (2 * total) / weight + 1)
        }
      })
    )
  })

  it("leaves everybody a weight, and each policy its patience", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.constantFrom(...policies),
        FastCheck.array(
          FastCheck.record({
            suitability: FastCheck.double({ min: 0, max: 1, noNaN: true }),
            weight: FastCheck.double({ min: 1e-6, max: 1e6, noNaN: true }),
            quality: FastCheck.record({
              reliability: FastCheck.double({ min: 0.05, max: 1, noNaN: true }),
              speed: FastCheck.double({ min: 0.25, max: 2, noNaN: true })
            }),
            costUsd: FastCheck.option(FastCheck.double({ min: 0, max: 100, noNaN: true }), { nil: undefined })
          }),
          { minLength: 1, maxLength: 8 }
        ),
        (policy, candidates) => {
          for (const weight of weigh(policy, candidates)) {
            assert.isAtLeast(weight, 0.001)
            assert.isTrue(Number.isFinite(weight))
          }
        }
      )
    )
    assert.deepStrictEqual(patienceMs, { balanced: 2_000, fastest: 0, cheapest: 30_000, best: 30_000 })
  })
})
