import { FastCheck } from "effect"
import { expect, it } from "vitest"
import { percentile } from "../../src/Benchmark/percentile.js"
import * as RankedWindow from "../../src/Benchmark/RankedWindow.js"

it("ranks the latest 256 values that are not too old, equal ones too", () => {
  const step = FastCheck.record({
    value: FastCheck.nat(20),
    ms: FastCheck.nat(3),
    count: FastCheck.integer({ min: 1, max: 60 })
  })
  FastCheck.assert(
    FastCheck.property(FastCheck.array(step, { maxLength: 60 }), FastCheck.nat(40), (steps, maxAgeMs) => {
      const window = RankedWindow.make(maxAgeMs)
      let all: ReadonlyArray<{ readonly value: number; readonly at: number }> = []
      let now = 0
      for (const { count, ms, value } of steps) {
        now += ms
        for (let n = 0; n < count; n++) {
          window.add(value + (n % 3), now)
          all = [...all, { value: value + (n % 3), at: now }].slice(-256)
        }
        const left = all.filter(({ at }) => now - at <= maxAgeMs).map(({ value }) => value)
        expect([window.size(now), window.percentile(0.5, now), window.percentile(0.95, now)]).toEqual([
          left.length,
          percentile(left, 0.5),
          percentile(left, 0.95)
        ])
      }
    }),
    { numRuns: 50 }
  )
})
