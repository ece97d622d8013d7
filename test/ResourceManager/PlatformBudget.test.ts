import { Schema } from "effect"
import { describe, expect, it } from "vitest"
import type { Now } from "../../src/ResourceManager/Now.js"
import { type Ask, type Budget, type Grant, makeLocal } from "../../src/ResourceManager/PlatformBudget.js"
import { SavedBudget } from "../../src/ResourceManager/Saved.js"
import type { PlatformLimits } from "../../src/Settings.js"
import { limitsOf, platformFailure, quotaFailure, succeeded, usageOf } from "./fixtures.js"
import { largestGap, randomOf, saturate } from "./saturation.js"

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const epoch = 1_800_000_000_000
const at = (ms: number): Now => ({ ms, epochMs: epoch + ms })

const askOf = (fields: Partial<Ask> = {}): Ask => ({
  tokens: { input: 0, maxOutput: 0 },
  model: "small",
  type: "testing",
  mayUseReserve: true,
  ...fields
})
const high = askOf()
const lower = askOf({ mayUseReserve: false })
const make = (limits: Partial<PlatformLimits>): Budget => makeLocal({ limits: limitsOf(limits), prices: {} })
const take = (budget: Budget, ask: Ask, now: Now): Grant => {
  const grant = budget.tryTake(ask, now)
  if (grant === undefined) throw new Error("it does not fit")
  return grant
}
const used = (budget: Budget, name: string, now: Now): number | undefined =>
  budget.view(now).buckets.find((bucket) => bucket.name === name)?.used

const untilMs = 10 * MINUTE
const afterFirst = (grants: ReadonlyArray<{ readonly at: number }>): ReadonlyArray<number> =>
  grants.flatMap(({ at }) => (at > 1.1 * MINUTE ? [at] : []))

describe("a limit that lower calls saturate", () => {
  it("is used to at least 98 % in requests, evenly after the first window", () => {
    const grants = saturate({ budget: make({ requestsPerMinute: 60 }), untilMs, lower: () => lower })
    expect(grants.length / 600).toBeGreaterThanOrEqual(0.98)
    expect(largestGap(afterFirst(grants))).toBeLessThanOrEqual(2_010)
  })

  for (const tokensCounted of ["reserved", "input"] as const) {
    it(`is used to at least 98 % in tokens counted as ${tokensCounted}, evenly after the first window`, () => {
      const random = randomOf(5)
      const grants = saturate({
        budget: make({ tokensPerMinute: 500_000, tokensCounted }),
        untilMs,
        lower: () =>
          askOf({ tokens: { input: 200 + Math.floor(random() * 2_000), maxOutput: 1_000 }, mayUseReserve: false }),
        endsAfterMs: () => 100,
        usage: ({ tokens }) => ({ input: Math.ceil(tokens.input * (0.5 + random())), output: 300 })
      })
      const counted = grants.reduce((sum, { input }) => sum + input + (tokensCounted === "input" ? 0 : 1_000), 0)
      expect(counted / 5_000_000).toBeGreaterThanOrEqual(0.98)
      const meanIntervalMs = untilMs / grants.length
      // a twentieth of the window may be caught up at once
      expect(largestGap(afterFirst(grants))).toBeLessThanOrEqual(3_000 + 8 * meanIntervalMs)
    })
  }

  it("leaves HIGH no more than about one refill interval to wait", () => {
    for (const part of [0.1, 0.3]) {
      const random = randomOf(11)
      const grants = saturate({
        budget: make({ requestsPerMinute: 60 }),
        untilMs,
        lower: () => lower,
        high: { ask: high, everyMs: () => Math.ceil((1_000 / part) * (0.5 + random())) }
      })
      const waits = grants.flatMap(({ at, priority, waitedMs }) =>
        priority === "HIGH" && at > 1.1 * MINUTE ? [waitedMs] : []
      )
      expect(waits.length).toBeGreaterThan(40)
      expect(Math.max(...waits)).toBeLessThanOrEqual(1_100)
      expect(grants.length / 600).toBeGreaterThanOrEqual(0.98)
    }
  })

  it("over five hours never keeps the next unit a window away, and always has one for HIGH", () => {
    const windowMs = 5 * HOUR
    const budget = make({ windowRequests: 500, windowMs })
    const grants = saturate({ budget, untilMs: 3 * windowMs, lower: () => lower, endsAfterMs: () => 5_000 })
    expect(largestGap(grants.map(({ at }) => at))).toBeLessThanOrEqual(windowMs / 200)
    expect(grants.length / 1_500).toBeGreaterThanOrEqual(0.98)
    expect(budget.fits(high, { ms: 3 * windowMs, epochMs: 3 * windowMs })).toBe(true)
  })
})

describe("permits", () => {
  it("keep one of four or more for HIGH", () => {
    const four = make({ maxConcurrent: 4 })
    for (let index = 0; index < 3; index++) take(four, lower, at(0))
    expect(four.fits(lower, at(0))).toBe(false)
    expect(four.earliest(lower, at(0))).toBe(Number.POSITIVE_INFINITY)
    expect(four.view(at(0)).permits).toMatchObject({ inUse: 3, max: 4, keptForHigh: 1 })
    take(four, high, at(0))
    expect(four.isOpen(at(0))).toBe(false)
    const three = make({ maxConcurrent: 3 })
    for (let index = 0; index < 3; index++) take(three, lower, at(0))
  })

  it("hold every model, or one, to its own number", () => {
    const budget = make({ maxConcurrent: 8, maxConcurrentPerModel: 1, models: { big: { maxConcurrent: 2 } } })
    const first = take(budget, high, at(0))
    expect(budget.fits(high, at(0))).toBe(false)
    expect(budget.shortage(high, at(0))?.reason).toContain("small")
    for (let index = 0; index < 2; index++) take(budget, askOf({ model: "big" }), at(0))
    expect(budget.fits(askOf({ model: "big" }), at(0))).toBe(false)
    budget.settle(first, succeeded, at(1))
    expect(budget.fits(high, at(1))).toBe(true)
    expect(budget.view(at(1)).permits.models).toEqual([{ model: "big", inUse: 2, max: 2 }])
  })

  it("grow fewer when the provider says that there were too many, and more again with time", () => {
    const budget = make({ maxConcurrent: 10 })
    const grants = Array.from({ length: 10 }, () => take(budget, high, at(0)))
    const [last, ...others] = grants.reverse()
    if (last === undefined) throw new Error("none was granted")
    budget.settle(last, { _tag: "Failed", failure: quotaFailure({ reason: "concurrency" }) }, at(100))
    expect(budget.view(at(100)).permits.max).toBe(6)
    expect(budget.takeEvents(at(100))).toMatchObject([{ type: "limit.learned", from: 10, to: 6 }])
    for (const grant of others) budget.settle(grant, succeeded, at(200))
    for (let minute = 1; minute <= 3; minute++) {
      const running: Array<Grant> = []
      while (budget.fits(high, at(minute * 61_000))) running.push(take(budget, high, at(minute * 61_000)))
      for (const grant of running) budget.settle(grant, succeeded, at(minute * 61_000 + 1_000))
    }
    expect(budget.view(at(4 * 61_000)).permits.max).toBeGreaterThanOrEqual(8)
  })

  it("and limits that change with time tell when, and lie in the future once that is taken in", () => {
    const budget = make({ maxConcurrent: 10, maxConcurrentPerModel: 10 })
    const grants = Array.from({ length: 10 }, () => take(budget, high, at(0)))
    const refusals = [
      quotaFailure({ reason: "rate", retryAfterMs: 1 }),
      quotaFailure({ reason: "concurrency", retryAfterMs: 1 }),
      quotaFailure({ reason: "concurrency", retryAfterMs: 1, perModel: true })
    ]
    for (const [index, failure] of refusals.entries()) {
      const grant = grants[index]
      if (grant !== undefined) budget.settle(grant, { _tag: "Failed", failure }, at(10))
    }
    const fourth = grants[3]
    if (fourth !== undefined) budget.settle(fourth, succeeded, at(20))
    // whatever is in the way of asking: all permits in use, a quota that is used up
    budget.exhaust({ window: "weekly", until: epoch + 10 * HOUR, why: "spent" }, at(100))
    expect(budget.isOpen(at(100))).toBe(false)
    let changes = 0
    for (let next = budget.changesAt(); Number.isFinite(next); next = budget.changesAt()) {
      budget.takeEvents(at(next))
      expect(budget.changesAt()).toBeGreaterThan(next)
      changes += 1
    }
    expect(changes).toBeGreaterThan(0)
    expect(changes).toBeLessThan(100)
  })

  it("shrink with a breaker's ramp, and are counted over time", () => {
    const budget = make({ maxConcurrent: 10 })
    budget.rampTo(0.1, at(0))
    const grant = take(budget, high, at(0))
    expect(budget.fits(high, at(0))).toBe(false)
    budget.rampTo(1, at(0))
    for (let index = 0; index < 4; index++) take(budget, high, at(0))
    budget.settle(grant, succeeded, at(MINUTE))
    expect(budget.view(at(MINUTE)).permits.utilization.oneMinute).toBeCloseTo(0.5)
    expect(budget.view(at(MINUTE)).permits.utilization.fiveMinutes).toBeCloseTo(0.1)
  })
})

describe("a quota that is used up", () => {
  it("is refused with its reset, concerns its model alone, and ends by time or by a person's word", () => {
    const budget = make({})
    budget.exhaust({ window: "weekly", until: epoch + HOUR, why: "all credit is spent" }, at(0))
    budget.exhaust({ window: "PerDay", model: "big", until: epoch + 2 * HOUR, why: "spent" }, at(0))
    expect(budget.shortage(high, at(0))).toMatchObject({ earliest: HOUR })
    expect(budget.shortage(high, at(0))?.reason).toContain("weekly")
    expect(budget.view(at(0))).toMatchObject({ exhaustedUntil: epoch + HOUR })
    expect(budget.view(at(0)).exhausted).toHaveLength(2)
    expect(budget.fits(high, at(HOUR))).toBe(true)
    expect(budget.fits(askOf({ model: "big" }), at(HOUR))).toBe(false)
    budget.clearExhausted(at(HOUR))
    expect(budget.fits(askOf({ model: "big" }), at(HOUR))).toBe(true)
    expect(budget.takeEvents(at(HOUR)).map(({ type }) => type)).toEqual([
      "quota.exhausted",
      "quota.exhausted",
      "quota.reset",
      "quota.reset"
    ])
    expect(budget.takeEvents(at(HOUR))).toEqual([])
  })

  it("is so by a quotas endpoint's word", () => {
    const budget = make({ windowRequests: 500, windowMs: 5 * HOUR })
    budget.correct([{ unit: "requests", windowMs: 5 * HOUR, limit: 500, remaining: 0, refillsInMs: 600_000 }], at(0))
    expect(budget.quotaFreeAt("small", at(0))).toBe(600_000)
    expect(budget.earliest(high, at(0))).toBe(600_000)
  })
})

describe("an attempt that never reached the provider", () => {
  it("uses up nothing", () => {
    const budget = make({ requestsPerMinute: 1 })
    const grant = take(budget, high, at(0))
    budget.settle(grant, { _tag: "Failed", failure: platformFailure({ reason: "unreachable" }) }, at(10))
    expect(used(budget, "requests/60s", at(10))).toBe(0)
    const broken = take(budget, high, at(20))
    budget.settle(broken, { _tag: "Failed", failure: platformFailure({ reason: "network" }) }, at(30))
    expect(used(budget, "requests/60s", at(30))).toBe(1)
  })
})

describe("what outlives the process", () => {
  const throughStore = (saved: SavedBudget): SavedBudget =>
    Schema.decodeSync(SavedBudget)(JSON.parse(JSON.stringify(Schema.encodeSync(SavedBudget)(saved))))
  const limits = { requestsPerMinute: 60, windowRequests: 500, windowMs: 5 * HOUR }
  /** Another process: its monotonic clock has another zero. */
  const later = (ms: number): Now => ({ ms: ms + 7_000_000, epochMs: epoch + ms })

  it("after a clean end is what counted then, and goes on ageing", () => {
    const budget = make(limits)
    for (let index = 0; index < 10; index++)
      budget.settle(take(budget, high, at(index * 1_000)), succeeded, at(index * 1_000))
    const saved = budget.save(at(10_000))
    const next = make(limits)
    next.restore(throughStore(saved), true, later(20_000))
    expect(used(next, "requests/60s", later(20_000))).toBe(10)
    expect(used(next, "requests/5h", later(20_000))).toBe(10)
    expect(used(next, "requests/60s", later(80_000))).toBe(0)
    expect(used(next, "requests/5h", later(80_000))).toBe(10)
  })

  it("after a crash counts everything as spent that may have been granted since", () => {
    const budget = make(limits)
    take(budget, high, at(0))
    const saved = budget.save(at(0))
    const next = make(limits)
    next.restore(throughStore(saved), false, later(1_000))
    expect(used(next, "requests/60s", later(1_000))).toBe(1 + 15)
    expect(used(next, "requests/5h", later(1_000))).toBe(1 + 10)
    const small = make({ requestsPerMinute: 4 })
    small.saved(small.save(at(0)))
    const nextSmall = make({ requestsPerMinute: 4 })
    nextSmall.restore(throughStore(small.save(at(0))), false, later(0))
    expect(used(nextSmall, "requests/60s", later(0))).toBe(4)
  })

  it("so no more is granted between two saves than the first of them allowed for", () => {
    const budget = make(limits)
    const first = budget.save(at(0))
    for (let index = 0; index < 20; index++) take(budget, high, at(0))
    // no save has reached the disk yet: nobody keeps one
    expect(budget.wantsSave()).toBe(false)
    budget.saved(first)
    budget.saved(budget.save(at(0)))
    for (let index = 0; index < 4; index++) take(budget, high, at(1))
    expect(budget.wantsSave()).toBe(false)
    for (let index = 0; index < 6; index++) take(budget, high, at(1))
    expect(budget.wantsSave()).toBe(true)
    expect(budget.fits(high, at(1))).toBe(false)
    expect(budget.isOpen(at(1))).toBe(false)
    expect(budget.earliest(high, at(1))).toBe(Number.POSITIVE_INFINITY)
    const save = budget.save(at(2))
    expect(budget.fits(high, at(2))).toBe(false)
    budget.saved(save)
    expect(budget.fits(high, at(2))).toBe(true)
  })

  it("a call that is larger than what is usually allowed for is allowed for by the next save", () => {
    const budget = make({ tokensPerMinute: 10_000 })
    budget.saved(budget.save(at(0)))
    const large = askOf({ tokens: { input: 0, maxOutput: 8_000 } })
    expect(budget.fits(large, at(0))).toBe(false)
    expect(budget.wantsSave()).toBe(true)
    budget.saved(budget.save(at(0)))
    expect(budget.fits(large, at(0))).toBe(true)
  })

  it("is also what was learned, and which quotas are used up", () => {
    const budget = make({})
    budget.correct([{ unit: "requests", limit: 40, windowMs: MINUTE }], at(0))
    const ask = askOf({ tokens: { input: 1_000, maxOutput: 0 } })
    for (let index = 0; index < 20; index++) {
      budget.settle(take(budget, ask, at(0)), { _tag: "Succeeded", usage: usageOf(500, 1) }, at(1))
    }
    budget.exhaust({ window: "weekly", until: epoch + HOUR, why: "spent" }, at(1))
    const next = make({})
    next.restore(throughStore(budget.save(at(1))), true, later(1_000))
    expect(next.view(later(1_000)).buckets).toMatchObject([{ name: "requests/60s", capacity: 40, source: "learned" }])
    expect(next.quotaFreeAt("small", later(1_000))).toBe(later(HOUR).ms)
    expect(next.save(later(1_000)).ratios[0]?.inputRatios).toHaveLength(20)
  })

  it("is small, whatever passed through", () => {
    const budget = make({ requestsPerMinute: 100_000 })
    for (let ms = 0; ms < MINUTE; ms += 2) budget.settle(take(budget, high, at(ms)), succeeded, at(ms))
    const saved = budget.save(at(MINUTE))
    expect(saved.buckets[0]?.aged.length).toBeLessThanOrEqual(101)
    expect(saved.buckets[0]?.aged.reduce((sum, [, amount]) => sum + amount, 0)).toBe(30_000)
  })
})
