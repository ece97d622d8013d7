import { describe, expect, it } from "@effect/vitest"
import { FastCheck } from "effect"
import { type PlatformLimits, Settings } from "../../../src/Settings.js"
import { limitsOf, makeProvider, type SimulatedPlatform } from "./Provider.js"

const platform = (limits: PlatformLimits): SimulatedPlatform => ({
  ...Settings.platformDefaults("codex", { apiKey: "simulated" }),
  limits
})
const call = (inputTokens = 1, outputTokens = 1, maxOutput = 10) => ({ inputTokens, outputTokens, maxOutput })
const accepted = { _tag: "Accepted" }

describe("the simulated provider", () => {
  it("knows each of the product's limits", () => {
    const names = limitsOf(Settings.platformDefaults("synthetic", { apiKey: "simulated" })).map(({ unit }) => unit)
    expect(names).toEqual(["requests", "usd"])
  })

  it("refuses what a rolling window cannot hold, and says when it can", () => {
    const provider = makeProvider(platform({ requestsPerMinute: 2, tokensCounted: "input", maxConcurrent: 9 }))
    expect(provider.arrive(call(), 0)).toEqual(accepted)
    expect(provider.arrive(call(), 59_000)).toEqual(accepted)
    expect(provider.arrive(call(), 59_999)).toEqual({ _tag: "Refused", unit: "requests", retryAfterMs: 1 })
    expect(provider.arrive(call(), 60_000)).toEqual(accepted)
    expect(provider.arrive(call(), 60_001)).toMatchObject({ _tag: "Refused", retryAfterMs: 58_999 })
    expect(provider.refused()).toBe(2)
  })

  it("lets no rolling window hold more than its limit, wherever it begins", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.array(FastCheck.tuple(FastCheck.nat({ max: 30_000 }), FastCheck.integer({ min: 1, max: 60 })), {
          maxLength: 60
        }),
        (arrivals) => {
          const provider = makeProvider(platform({ tokensPerMinute: 100, tokensCounted: "input", maxConcurrent: 99 }))
          const taken: Array<readonly [number, number]> = []
          let at = 0
          for (const [later, tokens] of arrivals) {
            at += later
            const verdict = provider.arrive(call(tokens), at)
            const inWindow = taken.reduce((sum, [since, each]) => (since > at - 60_000 ? sum + each : sum), 0)
            expect(verdict._tag).toBe(inWindow + tokens <= 100 ? "Accepted" : "Refused")
            if (verdict._tag === "Accepted") taken.push([at, tokens])
          }
        }
      ),
      { numRuns: 300 }
    )
  })

  it.each([
    ["reserved", 15],
    ["input", 5],
    ["actual", 7]
  ] as const)("counts %s tokens as that provider does", (tokensCounted, expected) => {
    const provider = makeProvider(platform({ tokensPerMinute: 1_000, tokensCounted, maxConcurrent: 9 }))
    provider.arrive(call(5, 2, 10), 0)
    expect(provider.countedBetween(0, 0, 1)).toBe(tokensCounted === "actual" ? 0 : expected)
    provider.complete(call(5, 2, 10), 500)
    expect(provider.countedBetween(0, 0, 1_000)).toBe(expected)
  })

  it("counts actual tokens when an answer is complete: an overrun is an excess, and the next call is refused", () => {
    const provider = makeProvider(platform({ tokensPerMinute: 10, tokensCounted: "actual", maxConcurrent: 9 }))
    provider.arrive(call(8, 1), 0)
    provider.arrive(call(8, 1), 1)
    provider.complete(call(8, 1), 100)
    expect(provider.excesses()).toBe(0)
    provider.complete(call(8, 1), 200)
    expect(provider.excesses()).toBe(1)
    expect(provider.arrive(call(), 300)).toMatchObject({ _tag: "Refused", unit: "tokens" })
    expect(provider.arrive(call(), 60_100)).toEqual(accepted)
  })

  it("refuses an attempt too many at once, of all and of one model", () => {
    const limits = { tokensCounted: "input", maxConcurrent: 3, maxConcurrentPerModel: 1 } as const
    const provider = makeProvider(platform(limits))
    expect(provider.arrive(call(), 0)).toEqual(accepted)
    expect(provider.arrive(call(), 1)).toMatchObject({ _tag: "Refused", unit: "concurrency" })
    provider.complete(call(), 2)
    expect(provider.arrive(call(), 2)).toEqual(accepted)
    expect(provider.inFlight()).toBe(1)
  })

  it("says what is left, as response headers do", () => {
    const provider = makeProvider(platform({ requestsPerMinute: 10, tokensCounted: "input", maxConcurrent: 9 }))
    provider.arrive(call(), 1_000)
    expect(provider.readings(2_000)).toEqual([
      { unit: "requests", windowMs: 60_000, limit: 10, remaining: 9, resetsInMs: 59_000 }
    ])
  })
})
