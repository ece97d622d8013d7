import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { type PlatformLimits, Settings } from "../../../src/Settings.js"
import { platformId, tenantId } from "../support/Draw.js"
import { runBaseline } from "./Baselines.js"
import { makeBounds } from "./Bounds.js"
import { makeLoad, type SimulatedCall } from "./Load.js"
import { capacityBound, runOracle } from "./Oracle.js"
import { runSubject } from "./Subject.js"

const platform = (id: "codex" | "gemini", limits: PlatformLimits) => ({
  ...Settings.platformDefaults(id, { apiKey: "simulated" }),
  limits
})
const codex = platformId("codex")
const gemini = platformId("gemini")

const call = (id: number, change: Partial<SimulatedCall> = {}): SimulatedCall => ({
  id,
  type: "analysis",
  priority: "MEDIUM",
  tenant: tenantId("local"),
  platforms: [codex],
  arrivesAt: 0,
  lagMs: 50,
  headersMs: 200,
  durationMs: 1_000,
  estimatedInput: 10,
  inputTokens: 10,
  maxOutput: 10,
  outputTokens: 10,
  ...change
})
const calls = (count: number, change: Partial<SimulatedCall> = {}) =>
  Array.from({ length: count }, (_, id) => call(id, change))

const oracle = (platforms: ReadonlyArray<ReturnType<typeof platform>>, load: ReadonlyArray<SimulatedCall>) =>
  runOracle(platforms, load, makeBounds(platforms))

describe("the load", () => {
  const spec = {
    calls: 2_000,
    platforms: [codex, gemini],
    medianMs: 1_000,
    medianInput: 400,
    medianOutput: 100,
    maxOutput: 500,
    arrivalsMs: 60_000
  }
  const load = makeLoad(spec, "seed")

  it("is the same for the same seed, and another one for another", () => {
    expect(makeLoad(spec, "seed")).toEqual(load)
    expect(makeLoad(spec, "other")).not.toEqual(load)
  })

  it("has the lengths, mixture and errors it is said to have", () => {
    const lengths = load.map(({ durationMs }) => durationMs).sort((a, b) => a - b)
    expect(lengths[1_000]).toBeGreaterThan(930)
    expect(lengths[1_000]).toBeLessThan(1_070)
    const high = load.filter(({ priority }) => priority === "HIGH").length / load.length
    expect(high).toBeGreaterThan(0.12)
    expect(high).toBeLessThan(0.18)
    const errors = load.map(({ estimatedInput, inputTokens }) => estimatedInput / inputTokens)
    expect(Math.min(...errors)).toBeGreaterThan(0.48)
    expect(Math.max(...errors)).toBeLessThan(1.52)
    expect(load.every((each) => each.headersMs >= 2 * each.lagMs && each.headersMs < each.durationMs)).toBe(true)
    expect(load.every((each) => each.outputTokens <= each.maxOutput)).toBe(true)
  })
})

describe("the oracle", () => {
  it("uses each window to its last unit, in windows of exactly their length", () => {
    const platforms = [platform("codex", { requestsPerMinute: 10, tokensCounted: "input", maxConcurrent: 99 })]
    const run = oracle(platforms, calls(30))
    expect(run).toMatchObject({ refused: 0, completed: 30, makespanMs: 121_000 })
    expect(capacityBound(platforms, calls(30))).toBe(120_000)
  })

  it("keeps a permit for HIGH where there are four", () => {
    const platforms = [platform("codex", { tokensCounted: "input", maxConcurrent: 4 })]
    expect(oracle(platforms, calls(12)).makespanMs).toBe(4_000)
    expect(oracle(platforms, calls(12, { priority: "HIGH" })).makespanMs).toBe(3_000)
    expect(capacityBound(platforms, calls(12))).toBe(3_000)
  })

  it("holds what the product would reserve until the answer tells what was used", () => {
    const limits = { tokensPerMinute: 100, tokensCounted: "actual", maxConcurrent: 99 } as const
    // 2 x 10 + 32 + 10 are reserved for each, and 20 used in the end
    const run = oracle([platform("codex", limits)], calls(2))
    expect(run).toMatchObject({ refused: 0, excesses: 0, makespanMs: 2_000 })
  })

  it("passes by what does not fit", () => {
    const limits = { tokensPerMinute: 1_000, tokensCounted: "input", maxConcurrent: 99 } as const
    const big = { estimatedInput: 400, inputTokens: 400, priority: "HIGH" } as const
    const run = oracle([platform("codex", limits)], [call(0, big), call(1, big), call(2, { priority: "HIGH" })])
    // 832 are reserved for each of the big ones, and 400 used
    expect(run.highWaits).toEqual([0, 0, 60_000])
  })

  it("keeps the place of the first that does not fit, which the packer does not", () => {
    const limits = { tokensPerMinute: 1_000, tokensCounted: "input", maxConcurrent: 99 } as const
    const sized = (id: number, estimatedInput: number, arrivesAt: number) =>
      call(id, { priority: "HIGH", estimatedInput, inputTokens: 2 * estimatedInput + 32, arrivesAt })
    // the second could start after 60 s, when the first leaves the window; the third would stand in its way until 62 s
    const load = [sized(0, 300, 0), sized(1, 450, 1_000), sized(2, 100, 2_000)]
    const platforms = [platform("codex", limits)]
    expect(oracle(platforms, load).highWaits).toEqual([0, 59_000, 118_000])
    expect(runOracle(platforms, load, makeBounds(platforms), false).highWaits).toEqual([0, 0, 61_000])
  })

  it("is refused nothing by a strict provider, and is no shorter than the capacity allows", () => {
    for (const tokensCounted of ["reserved", "input", "actual"] as const) {
      const platforms = [
        platform("codex", { requestsPerMinute: 90, tokensPerMinute: 60_000, tokensCounted, maxConcurrent: 6 })
      ]
      const load = makeLoad(
        {
          calls: 300,
          platforms: [codex],
          medianMs: 2_000,
          medianInput: 400,
          medianOutput: 100,
          maxOutput: 400,
          arrivalsMs: 60_000
        },
        tokensCounted
      )
      const run = oracle(platforms, load)
      expect(run).toMatchObject({ refused: 0, excesses: 0, completed: 300 })
      expect(run.makespanMs).toBeGreaterThanOrEqual(capacityBound(platforms, load))
    }
  })
})

describe("the baselines", () => {
  const limits = { requestsPerMinute: 3, tokensCounted: "input", maxConcurrent: 4 } as const

  it("leave a platform alone for 5 s after a 429", () => {
    const run = runBaseline("least-busy", [platform("codex", limits)], calls(4), "seed")
    // the fourth is refused at 50 ms, is told at 100 ms, and again after each 5 s until a minute has passed
    expect(run.completed).toBe(4)
    expect(run.refused).toBe(12)
    expect(run.makespanMs).toBe(12 * 5_100 + 1_000)
  })

  it("take what was refused elsewhere at once", () => {
    const platforms = [platform("codex", limits), platform("gemini", { tokensCounted: "input", maxConcurrent: 8 })]
    const run = runBaseline("least-busy", platforms, calls(8, { platforms: [codex, gemini] }), "seed")
    expect(run).toMatchObject({ completed: 8, refused: 1, makespanMs: 1_100 })
  })

  it("send to the platform with the fewest in flight, or by weight", () => {
    const wide = { requestsPerMinute: 900, tokensCounted: "input", maxConcurrent: 500 } as const
    const platforms = [platform("codex", { ...wide, requestsPerMinute: 100 }), platform("gemini", wide)]
    const share = (rule: "least-busy" | "weighted-random") => {
      const run = runBaseline(rule, platforms, calls(100, { platforms: [codex, gemini] }), "seed")
      expect(run.refused).toBe(0)
      return run.used.find((use) => use.platform === codex && use.limit === "permits")?.share
    }
    expect(share("least-busy")).toBe(share("least-busy"))
    const counts = ["least-busy", "weighted-random"].map((rule) => {
      const only = rule === "least-busy" ? "least-busy" : "weighted-random"
      // more than its minute's requests are refused there: of 300, least-busy sends it half, weights send it a tenth
      return runBaseline(only, platforms, calls(300, { platforms: [codex, gemini] }), "seed").refused
    })
    expect(counts[0]).toBeGreaterThan(0)
    expect(counts[1]).toBe(0)
  })

  it("suffer no fewer refusals for having no limits", () => {
    const run = runBaseline("weighted-random", [platform("codex", limits)], calls(9), "seed")
    expect(run.completed).toBe(9)
    expect(run.refused).toBeGreaterThan(20)
  })
})

describe("the product in the simulation", () => {
  it.live("carries every call to its answer, under the limits, the same way each time", () =>
    Effect.gen(function* () {
      const platforms = [
        platform("codex", { requestsPerMinute: 30, tokensCounted: "input", maxConcurrent: 4 }),
        platform("gemini", { requestsPerMinute: 60, tokensCounted: "input", maxConcurrent: 4 })
      ]
      const load = makeLoad(
        {
          calls: 60,
          platforms: [codex, gemini],
          medianMs: 1_000,
          medianInput: 100,
          medianOutput: 10,
          maxOutput: 50,
          arrivalsMs: 30_000
        },
        "subject"
      )
      const run = yield* runSubject(platforms, load, "seed")
      expect(run).toMatchObject({ refused: 0, completed: 60 })
      expect(run.makespanMs).toBeGreaterThanOrEqual(capacityBound(platforms, load))
      expect(yield* runSubject(platforms, load, "seed")).toEqual(run)
    })
  )
})
