import { describe, expect, it } from "vitest"
import type { PlatformEventBody } from "../../src/Domain/Event.js"
import * as Ledger from "../../src/ResourceManager/Ledger.js"
import type { Now } from "../../src/ResourceManager/Now.js"
import type { PlatformLimits } from "../../src/Settings.js"
import { limitsOf, quotaFailure, usageOf } from "./fixtures.js"
import { largestGap } from "./saturation.js"

const MINUTE = 60_000
/** A minute's entry is gone: the minute, a ten-thousandth of it, and a millisecond. */
const KEPT = 60_007

/** A HIGH call's need. */
const askOf = (input: number, maxOutput: number, fields: Partial<Ledger.Ask> = {}): Ledger.Ask => ({
  tokens: { input, maxOutput },
  model: "small",
  type: "testing",
  mayUseReserve: true,
  ...fields
})
const none = askOf(0, 0)
const now = (ms: number): Now => ({ ms, epochMs: ms })
const used = (input: number, output: number): Ledger.Used => ({ _tag: "Used", usage: usageOf(input, output) })
const price = { input: 1, output: 5, asOf: "2026-11-22" }

const make = (limits: Partial<PlatformLimits>): Ledger.Ledger =>
  Ledger.make({ limits: limitsOf(limits), prices: { small: price } }, () => {})

const reserve = (ledger: Ledger.Ledger, ask: Ledger.Ask, at: number): Ledger.Reservation => {
  const reservation = ledger.tryReserve(ask, at)
  if (reservation === undefined) throw new Error("it does not fit")
  return reservation
}
const level = (ledger: Ledger.Ledger, name: string, at: number): number | undefined =>
  ledger.view(now(at)).find((bucket) => bucket.name === name)?.used
const names = (ledger: Ledger.Ledger): ReadonlyArray<string> => ledger.view(now(0)).map(({ name }) => name)

describe("requests in a rolling window", () => {
  it("ages an entry from the response's headers and not from the grant", () => {
    const ledger = make({ requestsPerMinute: 1 })
    const reservation = reserve(ledger, none, 0)
    expect(ledger.tryReserve(none, 10 * MINUTE)).toBeUndefined()
    expect(ledger.earliest(none, 10 * MINUTE)).toBe(Number.POSITIVE_INFINITY)
    ledger.started(reservation, 10 * MINUTE)
    expect(ledger.earliest(none, 10 * MINUTE)).toBe(10 * MINUTE + KEPT)
    expect(ledger.fits(none, 10 * MINUTE + KEPT - 1)).toBe(false)
    expect(ledger.fits(none, 10 * MINUTE + KEPT)).toBe(true)
  })

  it("ages an attempt that ended before its headers from its end", () => {
    const ledger = make({ requestsPerMinute: 1 })
    const reservation = reserve(ledger, none, 0)
    ledger.settle(reservation, { _tag: "Unknown" }, 5_000)
    expect(ledger.earliest(none, 5_000)).toBe(5_000 + KEPT)
  })

  it("never lets twice the limit through around a minute's edge", () => {
    const ledger = make({ requestsPerMinute: 10 })
    let granted = 0
    for (let at = 59_000; at < 61_000; at += 10) {
      const reservation = ledger.tryReserve(none, at)
      if (reservation === undefined) continue
      granted += 1
      ledger.started(reservation, at)
    }
    expect(granted).toBe(10)
  })

  it("forgets what was never sent", () => {
    const ledger = make({ requestsPerMinute: 1, tokensPerMinute: 1_000, burst: 1 })
    ledger.giveBack(reserve(ledger, none, 0), 0)
    expect(ledger.view(now(0)).map((bucket) => bucket.used)).toEqual([0, 0, 0])
    expect(ledger.fits(none, 0)).toBe(true)
  })

  it("holds a longer window beside the minute, all or nothing", () => {
    const ledger = make({ requestsPerMinute: 5, windowRequests: 6, windowMs: 3_600_000 })
    for (let index = 0; index < 5; index++) ledger.started(reserve(ledger, none, 0), 0)
    ledger.started(reserve(ledger, none, KEPT), KEPT)
    expect(ledger.fits(none, KEPT)).toBe(false)
    expect(level(ledger, "requests/60s", KEPT)).toBe(1)
    expect(ledger.earliest(none, KEPT)).toBe(3_600_000 + 361)
  })

  it("paces starts by the burst", () => {
    const ledger = make({ requestsPerMinute: 60, burst: 2 })
    const starts: Array<number> = []
    for (let at = 0; at < 5_000; at += 100) if (ledger.tryReserve(none, at) !== undefined) starts.push(at)
    expect(starts).toEqual([0, 100, 1_000, 2_000, 3_000, 4_000])
  })

  it("stays small whatever passes through it", () => {
    const ledger = make({ requestsPerMinute: 2_000 })
    let granted = 0
    for (let at = 0; at < 20 * MINUTE; at += 30) {
      const reservation = ledger.tryReserve(none, at)
      if (reservation === undefined) continue
      ledger.started(reservation, at)
      ledger.settle(reservation, { _tag: "Unknown" }, at)
      granted += 1
    }
    expect(granted).toBeGreaterThan(38_000)
    expect(level(ledger, "requests/60s", 20 * MINUTE)).toBeLessThanOrEqual(2_000)
  })
})

describe("tokens, as the provider counts them", () => {
  it("reserves an upper bound of the input, and of the output where it counts", () => {
    const reserved = (tokensCounted: "reserved" | "input" | "actual") => {
      const ledger = make({ tokensPerMinute: 10_000, tokensCounted })
      reserve(ledger, askOf(1_000, 500), 0)
      return level(ledger, "tokens/60s", 0)
    }
    expect(Ledger.inputBound(1_000)).toBe(2_032)
    expect(reserved("reserved")).toBe(2_532)
    expect(reserved("input")).toBe(2_032)
    expect(reserved("actual")).toBe(2_532)
  })

  it("settles `reserved` to the real input and the whole output bound, from the headers on", () => {
    const ledger = make({ tokensPerMinute: 10_000, tokensCounted: "reserved" })
    const reservation = reserve(ledger, askOf(1_000, 500), 0)
    ledger.started(reservation, 1_000)
    ledger.settle(reservation, used(900, 20), 30_000)
    expect(level(ledger, "tokens/60s", 30_000)).toBe(1_400)
    expect(level(ledger, "tokens/60s", 1_000 + KEPT)).toBe(0)
  })

  it("settles `input` to the real input", () => {
    const ledger = make({ tokensPerMinute: 10_000, tokensCounted: "input" })
    const reservation = reserve(ledger, askOf(1_000, 500), 0)
    ledger.settle(reservation, used(900, 2_000), 0)
    expect(level(ledger, "tokens/60s", 0)).toBe(900)
  })

  it("replaces the bound of `actual` by the real usage when the answer is complete, and ages it from then", () => {
    const ledger = make({ tokensPerMinute: 10_000, tokensCounted: "actual" })
    const reservation = reserve(ledger, askOf(1_000, 500), 0)
    ledger.started(reservation, 1_000)
    expect(level(ledger, "tokens/60s", 10 * MINUTE)).toBe(2_532)
    ledger.settle(reservation, used(900, 20), 10 * MINUTE)
    expect(level(ledger, "tokens/60s", 10 * MINUTE)).toBe(920)
    expect(level(ledger, "tokens/60s", 10 * MINUTE + KEPT)).toBe(0)
  })

  it("keeps the bound where the usage is not known, and nothing of `actual` where no model worked", () => {
    const levelAfter = (tokensCounted: "reserved" | "actual", end: Ledger.Used) => {
      const ledger = make({ tokensPerMinute: 10_000, tokensCounted })
      ledger.settle(reserve(ledger, askOf(1_000, 500), 0), end, 0)
      return level(ledger, "tokens/60s", 0)
    }
    expect(levelAfter("reserved", { _tag: "Unknown" })).toBe(2_532)
    expect(levelAfter("actual", { _tag: "Unknown" })).toBe(2_532)
    expect(levelAfter("reserved", { _tag: "Refused" })).toBe(2_532)
    expect(levelAfter("actual", { _tag: "Refused" })).toBe(0)
    expect(levelAfter("actual", used(0, 0))).toBe(2_532)
  })

  it("keeps the bound of an attempt that was refused after its answer had begun: a model worked", () => {
    const ledger = make({ tokensPerMinute: 10_000, tokensCounted: "actual" })
    const reservation = reserve(ledger, askOf(1_000, 500), 0)
    ledger.started(reservation, 100)
    ledger.settle(reservation, { _tag: "Refused" }, 200)
    expect(level(ledger, "tokens/60s", 200)).toBe(2_532)
  })

  it("keeps a debt where more was used than reserved", () => {
    const ledger = make({ tokensPerMinute: 2_000, tokensCounted: "actual" })
    ledger.settle(reserve(ledger, askOf(1_000, 500), 0), used(5_000, 500), 0)
    expect(level(ledger, "tokens/60s", 0)).toBe(5_500)
    expect(ledger.earliest(none, 0)).toBe(KEPT)
  })

  it("lets a call larger than the whole limit run, alone", () => {
    const ledger = make({ tokensPerMinute: 1_000 })
    const small = reserve(ledger, none, 0)
    const huge = askOf(50_000, 0)
    expect(ledger.fits(huge, 0)).toBe(false)
    ledger.started(small, 0)
    expect(ledger.earliest(huge, 0)).toBe(KEPT)
    reserve(ledger, huge, KEPT)
    expect(ledger.fits(none, KEPT)).toBe(false)
  })

  it("knows what running attempts may still give back", () => {
    const ledger = make({ tokensPerMinute: 10_000 })
    const reservation = reserve(ledger, askOf(0, 9_000), 0)
    ledger.started(reservation, 0)
    const next = askOf(0, 5_000)
    expect(ledger.earliest(next, 1_000)).toBe(KEPT)
    expect(ledger.notBefore(next, 1_000)).toBe(1_000)
    ledger.settle(reservation, used(10, 10), 2_000)
    expect(ledger.notBefore(next, 2_000)).toBe(KEPT)
  })
})

describe("the provider's own readings", () => {
  const reading = (remaining: number, resetsInMs?: number, limit?: number) =>
    [{ unit: "requests", remaining, resetsInMs, limit }] as const

  it("take what others have used of the limit, until its reset", () => {
    const ledger = make({ requestsPerMinute: 10 })
    const reservation = reserve(ledger, none, 0)
    ledger.started(reservation, 100)
    ledger.correct(reading(3, 20_000), reservation, now(100))
    expect(level(ledger, "requests/60s", 100)).toBe(7)
    expect(level(ledger, "requests/60s", 20_100)).toBe(1)
  })

  it("never give more than the configured limit", () => {
    const ledger = make({ requestsPerMinute: 2 })
    const reservation = reserve(ledger, none, 0)
    ledger.correct(reading(500, 1_000, 1_000), reservation, now(0))
    reserve(ledger, none, 0)
    expect(ledger.fits(none, 0)).toBe(false)
  })

  it("are replaced by newer ones, not by older ones that arrive late", () => {
    const ledger = make({ requestsPerMinute: 10 })
    const first = reserve(ledger, none, 0)
    const second = reserve(ledger, none, 0)
    ledger.correct(reading(2), second, now(100))
    expect(level(ledger, "requests/60s", 100)).toBe(8)
    ledger.correct(reading(9), first, now(200))
    expect(level(ledger, "requests/60s", 200)).toBe(8)
    const third = reserve(ledger, none, 300)
    ledger.correct(reading(7), third, now(300))
    expect(level(ledger, "requests/60s", 300)).toBe(3)
  })

  it("do not count our own attempts twice when they are stale", () => {
    const ledger = make({ requestsPerMinute: 4 })
    const all = [0, 1, 2, 3].map(() => reserve(ledger, none, 0))
    for (const reservation of all) ledger.started(reservation, 1_000)
    const late = all[3]
    if (late === undefined) throw new Error("no reservation")
    ledger.correct(reading(0, 60_000), late, now(1_000 + KEPT))
    expect(ledger.fits(none, 1_000 + KEPT)).toBe(true)
  })

  it("hold nothing where the limit is whole again at once, or only after longer than any window here", () => {
    const ledger = make({ requestsPerMinute: 10 })
    const reservation = reserve(ledger, none, 0)
    ledger.correct(reading(0, 0), reservation, now(0))
    expect(ledger.fits(none, 0)).toBe(true)
    ledger.correct(reading(0, 86_400_000), reservation, now(0))
    expect(ledger.fits(none, 0)).toBe(true)
    ledger.correct(reading(0), reservation, now(0))
    expect(ledger.fits(none, 0)).toBe(false)
    expect(ledger.earliest(none, 0)).toBe(MINUTE)
    expect(ledger.fits(none, MINUTE)).toBe(true)
  })

  it("neither count attempts under way twice nor lift the limit", () => {
    const ledger = make({ requestsPerMinute: 10 })
    const [first, ...others] = [0, 1, 2, 3].map(() => reserve(ledger, none, 0))
    if (first === undefined) throw new Error("no reservation")
    ledger.started(first, 100)
    // whether it has counted 1 of ours or all 4, no more than 6 are to be had
    for (const remaining of [9, 8, 7, 6]) {
      ledger.correct(reading(remaining, 60_000), first, now(100))
      expect(level(ledger, "requests/60s", 100)).toBe(4)
    }
    for (const other of others) ledger.started(other, 200)
    ledger.correct(reading(2, 60_000), first, now(200))
    expect(level(ledger, "requests/60s", 200)).toBe(8)
    expect([5, 6, 7].map(() => ledger.tryReserve(none, 200) !== undefined)).toEqual([true, true, false])
  })

  it("concern the window that is long enough for the reset and nearest in size", () => {
    const ledger = make({ requestsPerMinute: 10, windowRequests: 100, windowMs: 3_600_000 })
    const reservation = reserve(ledger, none, 0)
    ledger.correct(reading(0, 1_800_000, 100), reservation, now(0))
    expect(ledger.view(now(0)).map((bucket) => bucket.used)).toEqual([1, 100])
  })
})

describe("what is kept for HIGH", () => {
  const lower = askOf(0, 0, { mayUseReserve: false })
  const takeAll = (ledger: Ledger.Ledger, ask: Ledger.Ask, at: number): number => {
    let taken = 0
    for (let next = ledger.tryReserve(ask, at); next !== undefined; next = ledger.tryReserve(ask, at)) {
      ledger.started(next, at)
      taken += 1
    }
    return taken
  }

  it("is a tenth of the minute's burst right after a burst, and is let go evenly", () => {
    const ledger = make({ requestsPerMinute: 60 })
    expect(takeAll(ledger, lower, 0)).toBe(54)
    expect(ledger.fits(none, 0)).toBe(true)
    expect(ledger.view(now(0))[0]).toMatchObject({ level: 6, keptForHigh: 6 })
    const later: Array<number> = []
    for (let at = 0; at < 60_000; at += 100) if (takeAll(ledger, lower, at) > 0) later.push(Math.round(at / 10_000))
    expect(later).toEqual([0, 1, 2, 3, 4, 5])
  })

  it("is a hundredth of a longer window, and half of it comes to the others evenly", () => {
    const ledger = make({ windowRequests: 500, windowMs: 5 * 3_600_000 })
    expect(takeAll(ledger, lower, 0)).toBe(250)
    const instants: Array<number> = [0]
    for (let at = 0; at < 5 * 3_600_000; at += 1_000) {
      for (let taken = takeAll(ledger, lower, at); taken > 0; taken--) instants.push(at)
      // at any time a HIGH call can start at once
      expect(ledger.fits(none, at)).toBe(true)
    }
    expect(instants).toHaveLength(246)
    expect(largestGap(instants)).toBeLessThanOrEqual((5 * 3_600_000) / 200)
  })

  it("does not keep a call from an empty window, whatever its size", () => {
    for (const requestsPerMinute of [1, 2, 3]) expect(make({ requestsPerMinute }).fits(lower, 0)).toBe(true)
    expect(make({ windowRequests: 1, windowMs: 3_600_000 }).fits(lower, 0)).toBe(true)
    expect(make({ tokensPerMinute: 1_000 }).fits(askOf(5_000, 0, { mayUseReserve: false }), 0)).toBe(true)
  })

  it("tells the others the instant at which they fit", () => {
    const ledger = make({ requestsPerMinute: 60 })
    takeAll(ledger, lower, 0)
    const at = ledger.earliest(lower, 1_000)
    expect(at).toBeGreaterThan(1_000)
    expect(ledger.fits(lower, at - 1)).toBe(false)
    expect(ledger.fits(lower, at)).toBe(true)
  })

  it("is not saved up as a burst while the others wait for it: they are served evenly", () => {
    const ledger = make({ requestsPerMinute: 60 })
    takeAll(ledger, lower, 0)
    ledger.setBacklog(true)
    for (let at = 50; at < 60_000; at += 50) takeAll(ledger, lower, at)
    // the burst comes free at once, and is not drawn at once
    let taken = 0
    for (let at = 60_050; at < 90_050; at += 50) taken += takeAll(ledger, lower, at)
    expect(taken).toBeGreaterThanOrEqual(29)
    expect(taken).toBeLessThanOrEqual(33)
    expect(takeAll(ledger, none, 90_050)).toBeGreaterThanOrEqual(20)
  })
})

describe("limits of every kind", () => {
  it("count requests, tokens and credit over windows of any length", () => {
    const week = 7 * 24 * 3_600_000
    const ledger = make({
      requestsPerMinute: 60,
      tokensPerMinute: 100_000,
      windowRequests: 500,
      windowTokens: 900_000,
      windowMs: 5 * 3_600_000,
      windows: [{ windowMs: week, costUsd: 24 }]
    })
    expect(names(ledger)).toEqual(["requests/60s", "tokens/60s", "requests/5h", "tokens/5h", "usd/168h"])
    const reservation = reserve(ledger, askOf(1_000, 2_000), 0)
    expect(level(ledger, "usd/168h", 0)).toBeCloseTo((2_032 + 5 * 2_000) / 1e6)
    ledger.settle(reservation, used(1_000, 100), 0)
    expect(level(ledger, "usd/168h", 0)).toBeCloseTo((1_000 + 5 * 100) / 1e6)
  })

  it("let a model without a price pass the credit", () => {
    const ledger = make({ windows: [{ windowMs: 3_600_000, costUsd: 0.001 }] })
    for (let index = 0; index < 5; index++) reserve(ledger, askOf(10_000, 10_000, { model: "unknown" }), 0)
    expect(level(ledger, "usd/1h", 0)).toBe(0)
  })

  it("hold a model to its own, and count what its requests cost in longer windows", () => {
    const ledger = make({
      windowRequests: 10,
      windowMs: 3_600_000,
      models: { big: { requestsPerMinute: 1 }, tiny: { requestCost: 0.1 } }
    })
    const big = askOf(0, 0, { model: "big" })
    reserve(ledger, big, 0)
    expect(ledger.fits(big, 0)).toBe(false)
    expect(ledger.obstacle(big, 0)?.bucket).toBe("requests/60s of big")
    expect(ledger.fits(none, 0)).toBe(true)
    for (let index = 0; index < 10; index++) reserve(ledger, askOf(0, 0, { model: "tiny" }), 0)
    expect(level(ledger, "requests/1h", 0)).toBeCloseTo(2)
  })

  it("shrink to a part while a breaker recovers, but for one call at least", () => {
    const ledger = make({ requestsPerMinute: 20, tokensPerMinute: 10_000, windowRequests: 100, windowMs: 3_600_000 })
    ledger.rampTo(0.1, 0)
    expect(ledger.view(now(0)).map(({ capacity }) => capacity)).toEqual([2, 1_000, 100])
    const large = askOf(2_000, 500)
    reserve(ledger, large, 0)
    expect(ledger.fits(none, 0)).toBe(false)
    ledger.rampTo(1, 1_000)
    expect(ledger.fits(large, 1_000)).toBe(true)
  })

  it("change while they are in use: what counts goes on counting", () => {
    const ledger = make({ requestsPerMinute: 5, windowRequests: 100, windowMs: 3_600_000 })
    const running = reserve(ledger, none, 0)
    for (let index = 0; index < 4; index++) ledger.started(reserve(ledger, none, 0), 0)
    expect(ledger.fits(none, 0)).toBe(false)
    ledger.configure(limitsOf({ requestsPerMinute: 8, windowRequests: 100, windowMs: 2 * 3_600_000 }), 1_000)
    expect(ledger.view(now(1_000)).map(({ name, used }) => [name, used])).toEqual([
      ["requests/60s", 5],
      ["requests/2h", 5]
    ])
    for (let index = 0; index < 3; index++) reserve(ledger, none, 1_000)
    expect(ledger.fits(none, 1_000)).toBe(false)
    ledger.configure(limitsOf({ requestsPerMinute: 2 }), 2_000)
    ledger.started(running, 2_000)
    expect(names(ledger)).toEqual(["requests/60s"])
    expect(ledger.earliest(none, 2_000)).toBe(Number.POSITIVE_INFINITY)
    ledger.configure(limitsOf({}), 3_000)
    expect(ledger.fits(none, 3_000)).toBe(true)
    ledger.configure(limitsOf({ requestsPerMinute: 9 }), 4_000)
    expect(level(ledger, "requests/60s", 4_000)).toBe(8)
  })

  it("tell how many can start until an instant at the very most", () => {
    const ledger = make({ requestsPerMinute: 10 })
    for (let index = 0; index < 4; index++) ledger.started(reserve(ledger, none, 0), 0)
    expect(ledger.room(none, 30_000, 1_000)).toBe(6)
    expect(ledger.room(none, 70_000, 1_000)).toBeGreaterThanOrEqual(16)
    expect(ledger.room(none, 70_000, 1_000)).toBeLessThanOrEqual(20)
  })

  it("tell whether a call delays one that waits for room", () => {
    const ledger = make({ tokensPerMinute: 10_000 })
    ledger.started(reserve(ledger, askOf(0, 6_000), 0), 0)
    const large = askOf(0, 8_000)
    expect(ledger.fits(large, 1_000)).toBe(false)
    expect(ledger.delays(askOf(0, 1_500), large, 1_000)).toBe(false)
    expect(ledger.delays(askOf(0, 3_000), large, 1_000)).toBe(true)
  })
})

describe("what the provider says of its limits", () => {
  const events = (limits: Partial<PlatformLimits>) => {
    const seen: Array<PlatformEventBody> = []
    const ledger = Ledger.make({ limits: limitsOf(limits), prices: {} }, (event) => seen.push(event))
    return { ledger, seen }
  }
  const rate = quotaFailure({ reason: "rate" })
  const full = (ledger: Ledger.Ledger, count: number, at: number): void => {
    for (let index = 0; index < count; index++) ledger.started(reserve(ledger, none, at), at)
  }

  it("lowers a configured limit at once, and raises it only where it may", () => {
    const { ledger, seen } = events({ requestsPerMinute: 60 })
    ledger.correct([{ unit: "requests", limit: 30 }], undefined, now(0))
    expect(ledger.view(now(0))[0]).toMatchObject({ capacity: 30, source: "provider" })
    expect(seen).toMatchObject([{ type: "limit.learned", bucket: "requests/60s", from: 60, to: 30 }])
    ledger.correct([{ unit: "requests", limit: 600 }], undefined, now(1))
    expect(ledger.view(now(1))[0]).toMatchObject({ capacity: 60, source: "configured" })
    const adapting = make({ requestsPerMinute: 60, adapt: true })
    adapting.correct([{ unit: "requests", limit: 600 }], undefined, now(1))
    expect(adapting.view(now(1))[0]).toMatchObject({ capacity: 600, source: "provider" })
  })

  it("frees what the provider no longer counts, where it may, but nothing that may still be on its way", () => {
    for (const adapt of [false, true]) {
      const ledger = make({ requestsPerMinute: 10, adapt })
      full(ledger, 6, 0)
      const running = reserve(ledger, none, 30_000)
      reserve(ledger, none, 30_000)
      ledger.started(running, 30_100)
      ledger.correct([{ unit: "requests", limit: 10, remaining: 8 }], running, now(30_100))
      expect(level(ledger, "requests/60s", 30_100)).toBe(adapt ? 4 : 8)
    }
  })

  it("makes a limit that nobody configured, shown as learned", () => {
    const { ledger } = events({})
    expect(names(ledger)).toEqual([])
    ledger.correct(
      [
        { unit: "requests", limit: 40, remaining: 10, resetsInMs: 20_000 },
        { unit: "tokens", limit: 5_000, remaining: 5_000, windowMs: 86_400_000 }
      ],
      undefined,
      now(0)
    )
    expect(ledger.view(now(0)).map(({ capacity, name, source, used }) => [name, capacity, used, source])).toEqual([
      ["requests/60s", 40, 30, "learned"],
      ["tokens/24h", 5_000, 0, "learned"]
    ])
  })

  it("concerns a limit that nobody configured where the configured ones are of quite another size", () => {
    const { ledger } = events({ windowRequests: 500, windowMs: 5 * 3_600_000 })
    ledger.correct([{ unit: "requests", limit: 60, remaining: 50, resetsInMs: 30_000 }], undefined, now(0))
    const seen = ledger.view(now(0)).map(({ capacity, name, used }) => [name, capacity, used])
    expect(seen).toEqual([
      ["requests/60s", 60, 10],
      ["requests/5h", 500, 0]
    ])
  })

  it("is that a longer window is used up until its next refill", () => {
    const { ledger } = events({ windowRequests: 500, windowMs: 5 * 3_600_000 })
    const reading = {
      unit: "requests",
      windowMs: 5 * 3_600_000,
      limit: 500,
      remaining: 0.4,
      refillsInMs: 600_000
    } as const
    expect(ledger.correct([reading], undefined, now(0))).toEqual([])
    expect(ledger.fits(none, 0)).toBe(false)
    expect(ledger.correct([{ ...reading, remaining: 0 }], undefined, now(0))).toMatchObject([
      { window: "requests/5h", until: 600_000 }
    ])
    // a twentieth of it is there again then
    expect(ledger.fits(none, 599_999)).toBe(false)
    expect(ledger.fits(none, 600_000)).toBe(true)
    expect(level(ledger, "requests/5h", 600_000)).toBe(475)
  })

  it("shows a limit of which only the used part is told", () => {
    const { ledger } = events({})
    const [quota] = ledger.correct(
      [{ unit: "percent", name: "primary", windowMs: 18_000_000, limit: 100, remaining: 0, resetsInMs: 60_000 }],
      undefined,
      now(0)
    )
    expect(quota).toMatchObject({ window: "primary", until: 60_000 })
    expect(ledger.view(now(0))).toMatchObject([{ name: "primary", unit: "percent", used: 100, source: "provider" }])
    expect(ledger.view(now(0))[0]?.utilization).toEqual({ oneMinute: 1, fiveMinutes: 1 })
    expect(ledger.view(now(60_000))).toMatchObject([{ used: 0 }])
  })

  it("learns from refusals: down at once, up slowly, and not for one call alone or for those side by side", () => {
    const { ledger, seen } = events({ requestsPerMinute: 60 })
    const alone = reserve(ledger, none, 0)
    ledger.refused(alone, rate, 0)
    expect(seen).toEqual([])
    full(ledger, 39, 0)
    const [first, second] = [reserve(ledger, none, 10), reserve(ledger, none, 10)]
    ledger.refused(first, rate, 20)
    ledger.refused(second, rate, 30)
    expect(ledger.view(now(30))[0]).toMatchObject({ capacity: 28, source: "provider" })
    expect(seen).toMatchObject([{ type: "limit.learned", from: 60, to: 28 }])
    let at = KEPT
    ledger.settle(alone, { _tag: "Refused" }, 40)
    for (const each of [first, second]) ledger.settle(each, { _tag: "Refused" }, 40)
    for (let minute = 0; minute < 3; minute++) {
      at += KEPT + 1_000
      while (ledger.fits(none, at)) full(ledger, 1, at)
    }
    expect(ledger.view(now(at + MINUTE))[0]?.capacity).toBeGreaterThan(30)
    expect(ledger.view(now(at + 16 * MINUTE))[0]).toMatchObject({ capacity: 60, source: "configured" })
  })

  it("learns a limit that nobody configured from refusals, exactly where the refusal names it", () => {
    const { ledger } = events({})
    full(ledger, 20, 0)
    const one = reserve(ledger, none, 0)
    ledger.refused(one, rate, 10)
    expect(ledger.view(now(10))).toMatchObject([{ name: "requests/60s", capacity: 14, source: "learned" }])
    ledger.refused(one, quotaFailure({ unit: "tokens", limit: 4_000, windowMs: MINUTE }), 20)
    expect(ledger.view(now(20))[1]).toMatchObject({ name: "tokens/60s", capacity: 4_000, source: "learned" })
  })
})

describe("utilisation", () => {
  it("is what was used of what is allowed, over a minute and over five", () => {
    const ledger = make({ requestsPerMinute: 60, windowRequests: 600, windowMs: 3_600_000 })
    for (let at = 0; at < 60_000; at += 2_000) {
      const reservation = reserve(ledger, none, at)
      ledger.settle(reservation, { _tag: "Unknown" }, at)
    }
    const [minute, hour] = ledger.view(now(60_000)).map(({ utilization }) => utilization)
    expect(minute?.oneMinute).toBeCloseTo(0.5)
    expect(minute?.fiveMinutes).toBeCloseTo(0.1)
    expect(hour?.oneMinute).toBe(1)
    expect(ledger.view(now(400_000))[0]?.utilization).toEqual({ oneMinute: 0, fiveMinutes: 0 })
  })
})
