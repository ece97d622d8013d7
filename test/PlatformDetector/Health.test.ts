import { describe, expect, it } from "@effect/vitest"
import type { Performance, PlatformResources } from "../../src/Domain/Lease.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { TenantId } from "../../src/Domain/Task.js"
import {
  afterFailedAttempt,
  afterPassedCheck,
  diagnose,
  type Measured,
  type ModelReading,
  noSigns,
  noTroubles,
  type Troubles
} from "../../src/PlatformDetector/Health.js"
import { failures } from "../../src/Testing.js"

const now = Date.parse("2026-11-22T12:00:00Z")
const utilization = { oneMinute: 0, fiveMinutes: 0 }

const codex = PlatformId.make("codex")
const nothing: Performance = { attempts: 0, errorRate: 0, tokens: 0 }
const well = afterPassedCheck(noSigns, now)

const measured = (changes: Partial<PlatformResources>): Measured => ({
  performance: nothing,
  models: [],
  peersMs: [],
  resources: {
    platform: PlatformId.make("codex"),
    buckets: [],
    permits: { inUse: 0, max: 4, keptForHigh: 0, utilization, models: [] },
    breaker: { state: "closed", consecutiveFailures: 0, capacityPercent: 100 },
    modelBreakers: [],
    exhausted: [],
    ...changes
  },
  model: "large",
  now
})

const diagnosed = (changes: Partial<PlatformResources>) => {
  const { reasons, status } = diagnose(well, measured(changes), noTroubles)
  return { status, reasons }
}

/** What a platform that is otherwise well comes to by its measurements. */
const performing = (found: Partial<Measured>, before: Troubles = noTroubles) =>
  diagnose(well, { ...measured({}), ...found }, before)

const reading = (model: string, found: Partial<ModelReading> = {}): ModelReading => ({
  model,
  performance: nothing,
  answers: 0,
  ...found
})

describe("what breakers and quotas make of a platform's status", () => {
  it("is available where nothing holds anything back", () => {
    expect(diagnosed({})).toEqual({ status: "available", reasons: [] })
  })

  it("is degraded by a breaker that is not closed, and by one that still recovers", () => {
    const breaker = { consecutiveFailures: 5, capacityPercent: 0 }
    expect(diagnosed({ breaker: { ...breaker, state: "half-open" } }).reasons).toEqual([
      "its circuit breaker is half-open"
    ])
    expect(diagnosed({ breaker: { state: "closed", consecutiveFailures: 0, capacityPercent: 25 } })).toEqual({
      status: "degraded",
      reasons: ["it recovers and gets 25 % of its capacity"]
    })
    expect(
      diagnosed({
        modelBreakers: [
          { ...breaker, model: "small", state: "open" },
          { ...breaker, model: "fine", state: "closed", capacityPercent: 100 },
          { ...breaker, model: "large", state: "closed", capacityPercent: 50 }
        ]
      })
    ).toEqual({
      status: "degraded",
      reasons: [
        "the circuit breaker of its model small is open",
        "its model large recovers and gets 50 % of its capacity"
      ]
    })
  })

  it("is degraded by each quota that is used up, until that one resets", () => {
    const until = now + 60_000
    expect(
      diagnosed({
        exhaustedUntil: until,
        exhausted: [
          { window: "quota", until, why: "the plan's limit is reached" },
          { window: "weekly", until, why: "no credits are left" },
          { window: "PerDay", model: "small", until, why: "250 requests" },
          { window: "5h", until: now, why: "over" }
        ]
      })
    ).toEqual({
      status: "degraded",
      reasons: [
        "its quota is used up until 2026-11-22T12:01:00.000Z: the plan's limit is reached",
        "its quota weekly is used up until 2026-11-22T12:01:00.000Z: no credits are left",
        "the quota PerDay of its model small is used up until 2026-11-22T12:01:00.000Z: 250 requests"
      ]
    })
  })
})

describe("what errors make of a platform's status", () => {
  const rate = (errorRate: number, attempts = 100): Performance => ({ attempts, errorRate, tokens: 0 })

  it("is degraded above a fifth of failures, from five attempts on", () => {
    expect(performing({ performance: rate(1, 4) }).status).toBe("available")
    expect(performing({ performance: rate(0.2) }).status).toBe("available")
    expect(performing({ performance: rate(0.21) })).toMatchObject({
      status: "degraded",
      reasons: ["21 % of its last 100 attempts failed"]
    })
  })

  it("does not flap at the edge: it is well again only once clearly better", () => {
    const { troubles } = performing({ performance: rate(0.3) })
    expect(performing({ performance: rate(0.18) }, troubles).status).toBe("degraded")
    expect(performing({ performance: rate(0.18) }).status).toBe("available")
    const better = performing({ performance: rate(0.15) }, troubles)
    expect(better).toMatchObject({ status: "available", troubles: { failing: false } })
    expect(performing({ performance: rate(0.18) }, better.troubles).status).toBe("available")
  })

  it("names the model where it is one of several that fails", () => {
    const { models, reasons, status } = performing({
      performance: rate(0.1),
      models: [reading("small", { performance: rate(0.5, 20) }), reading("large", { performance: rate(0) })]
    })
    expect({ reasons, status }).toEqual({
      status: "degraded",
      reasons: ["50 % of its model small's last 20 attempts failed"]
    })
    expect(models.map(({ model, status }) => [model, status])).toEqual([
      ["small", "degraded"],
      ["large", "available"]
    ])
  })

  it("says it once where the platform as a whole fails", () => {
    const found = performing({
      performance: rate(0.5, 20),
      models: [reading("large", { performance: rate(0.5, 20) })]
    })
    expect(found.reasons).toEqual(["50 % of its last 20 attempts failed"])
    expect(found.models).toMatchObject([{ model: "large", status: "degraded" }])
  })
})

describe("what latency makes of a platform's status", () => {
  const timed = (callMs: number, baselineMs: number, answers = 10) => reading("large", { callMs, baselineMs, answers })
  const peersMs = [2_000, 2_400, 3_000]

  it("is degraded far above its own average, with the figures", () => {
    expect(performing({ models: [timed(8_900, 3_000)] }).status).toBe("available")
    expect(performing({ models: [timed(12_300, 3_000)] })).toMatchObject({
      status: "degraded",
      reasons: ["its model large takes 12 s for a call of 500 output tokens, 4.1 times its own average of 3.0 s"],
      models: [{ model: "large", status: "degraded" }]
    })
  })

  it("is degraded far above its peers, with the figures", () => {
    expect(performing({ models: [timed(11_000, 11_000)], peersMs }).status).toBe("available")
    expect(performing({ models: [timed(13_000, 12_000)], peersMs }).reasons).toEqual([
      "its model large takes 13 s for a call of 500 output tokens, 5.4 times the other platforms' median of 2.4 s"
    ])
    expect(performing({ models: [timed(13_000, 2_000)], peersMs }).reasons).toEqual([
      "its model large takes 13 s for a call of 500 output tokens, 6.5 times its own average of 2.0 s and 5.4 times the other platforms' median of 2.4 s"
    ])
  })

  it("is not judged by a single peer, by a few answers, or by differences nobody notices", () => {
    expect(performing({ models: [timed(90_000, 90_000)], peersMs: [1_000] }).status).toBe("available")
    expect(performing({ models: [timed(90_000, 1_000, 2)], peersMs }).status).toBe("available")
    expect(performing({ models: [timed(900, 10)], peersMs: [5, 5] }).status).toBe("available")
  })

  it("stays degraded until it is clearly faster, or nothing is known any more", () => {
    const { troubles } = performing({ models: [timed(12_000, 3_000)] })
    expect(performing({ models: [timed(6_600, 3_000)] }, troubles).status).toBe("degraded")
    expect(performing({ models: [timed(5_900, 3_000)] }, troubles).status).toBe("available")
    expect(performing({ models: [timed(12_000, 3_000, 0.5)] }, troubles).status).toBe("available")
  })
})

describe("a drained platform", () => {
  it("is unavailable, says by whom and why, and what else is wrong with it", () => {
    const drained = { tenant: TenantId.make("ann"), at: now }
    expect(diagnosed({ drained })).toEqual({ status: "unavailable", reasons: ["drained by ann"] })
    const breaker = { state: "open", consecutiveFailures: 5, capacityPercent: 0 } as const
    expect(diagnosed({ drained: { ...drained, reason: "its bill is due" }, breaker }).reasons).toEqual([
      "drained by ann: its bill is due",
      "its circuit breaker is open"
    ])
  })
})

describe("models that are out", () => {
  const without = (...models: ReadonlyArray<string>) =>
    models.reduce((signs, model) => afterFailedAttempt(signs, model, failures.model()(codex, model), now), well)

  it("are shown as such, beside those that are used", () => {
    const { models, status } = diagnose(
      without("small"),
      { ...measured({}), models: [reading("large", { performance: { ...nothing, attempts: 3 } })] },
      noTroubles
    )
    expect(status).toBe("degraded")
    expect(models.map(({ model, performance, status }) => [model, status, performance.attempts])).toEqual([
      ["large", "available", 3],
      ["small", "unavailable", 0]
    ])
  })

  it("are remembered up to a bound, the latest ones", () => {
    const names = Array.from({ length: 500 }, (_, index) => `m${index}`)
    const { modelsOut } = without(...names)
    expect(modelsOut.size).toBe(64)
    expect([...modelsOut.keys()].at(-1)).toBe("m499")
  })
})
