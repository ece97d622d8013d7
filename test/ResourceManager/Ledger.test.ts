import { describe, expect, it } from "vitest"
import * as Ledger from "../../src/ResourceManager/Ledger.js"
import { limitsOf, usageOf } from "./fixtures.js"

const MINUTE = 60_000
/** A minute's entry is gone: the minute, a ten-thousandth of it, and a millisecond. */
const KEPT = 60_007

const none = { input: 0, maxOutput: 0 }
const used = (input: number, output: number): Ledger.Used => ({ _tag: "Used", usage: usageOf(input, output) })

const reserve = (ledger: Ledger.Ledger, tokens: Ledger.TokenEstimate, at: number): Ledger.Reservation => {
  const reservation = ledger.tryReserve(tokens, at)
  if (reservation === undefined) throw new Error("it does not fit")
  return reservation
}
const level = (ledger: Ledger.Ledger, name: string, at: number): number | undefined =>
  ledger.buckets(at).find((bucket) => bucket.name === name)?.used

describe("requests in a rolling window", () => {
  it("ages an entry from the response's headers and not from the grant", () => {
    const ledger = Ledger.make(limitsOf({ requestsPerMinute: 1 }))
    const reservation = reserve(ledger, none, 0)
    expect(ledger.tryReserve(none, 10 * MINUTE)).toBeUndefined()
    expect(ledger.earliest(none, 10 * MINUTE)).toBe(Number.POSITIVE_INFINITY)
    ledger.started(reservation, 10 * MINUTE)
    expect(ledger.earliest(none, 10 * MINUTE)).toBe(10 * MINUTE + KEPT)
    expect(ledger.fits(none, 10 * MINUTE + KEPT - 1)).toBe(false)
    expect(ledger.fits(none, 10 * MINUTE + KEPT)).toBe(true)
  })

  it("ages an attempt that ended before its headers from its end", () => {
    const ledger = Ledger.make(limitsOf({ requestsPerMinute: 1 }))
    const reservation = reserve(ledger, none, 0)
    ledger.settle(reservation, { _tag: "Unknown" }, 5_000)
    expect(ledger.earliest(none, 5_000)).toBe(5_000 + KEPT)
  })

  it("never lets twice the limit through around a minute's edge", () => {
    const ledger = Ledger.make(limitsOf({ requestsPerMinute: 10 }))
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
    const ledger = Ledger.make(limitsOf({ requestsPerMinute: 1, tokensPerMinute: 1_000, burst: 1 }))
    ledger.giveBack(reserve(ledger, none, 0))
    expect(ledger.buckets(0).map((bucket) => bucket.used)).toEqual([0, 0, 0])
    expect(ledger.fits(none, 0)).toBe(true)
  })

  it("holds a longer window beside the minute, all or nothing", () => {
    const ledger = Ledger.make(limitsOf({ requestsPerMinute: 5, windowRequests: 6, windowMs: 3_600_000 }))
    for (let index = 0; index < 5; index++) ledger.started(reserve(ledger, none, 0), 0)
    ledger.started(reserve(ledger, none, KEPT), KEPT)
    expect(ledger.fits(none, KEPT)).toBe(false)
    expect(level(ledger, "requests/60s", KEPT)).toBe(1)
    expect(ledger.earliest(none, KEPT)).toBe(3_600_000 + 361)
  })

  it("paces starts by the burst", () => {
    const ledger = Ledger.make(limitsOf({ requestsPerMinute: 60, burst: 2 }))
    const starts: Array<number> = []
    for (let at = 0; at < 5_000; at += 100) if (ledger.tryReserve(none, at) !== undefined) starts.push(at)
    expect(starts).toEqual([0, 100, 1_000, 2_000, 3_000, 4_000])
  })

  it("stays small whatever passes through it", () => {
    const ledger = Ledger.make(limitsOf({ requestsPerMinute: 2_000 }))
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
      const ledger = Ledger.make(limitsOf({ tokensPerMinute: 10_000, tokensCounted }))
      reserve(ledger, { input: 1_000, maxOutput: 500 }, 0)
      return level(ledger, "tokens/60s", 0)
    }
    expect(Ledger.inputBound(1_000)).toBe(1_282)
    expect(reserved("reserved")).toBe(1_782)
    expect(reserved("input")).toBe(1_282)
    expect(reserved("actual")).toBe(1_782)
  })

  it("settles `reserved` to the real input and the whole output bound, from the headers on", () => {
    const ledger = Ledger.make(limitsOf({ tokensPerMinute: 10_000, tokensCounted: "reserved" }))
    const reservation = reserve(ledger, { input: 1_000, maxOutput: 500 }, 0)
    ledger.started(reservation, 1_000)
    ledger.settle(reservation, used(900, 20), 30_000)
    expect(level(ledger, "tokens/60s", 30_000)).toBe(1_400)
    expect(level(ledger, "tokens/60s", 1_000 + KEPT)).toBe(0)
  })

  it("settles `input` to the real input", () => {
    const ledger = Ledger.make(limitsOf({ tokensPerMinute: 10_000, tokensCounted: "input" }))
    const reservation = reserve(ledger, { input: 1_000, maxOutput: 500 }, 0)
    ledger.settle(reservation, used(900, 2_000), 0)
    expect(level(ledger, "tokens/60s", 0)).toBe(900)
  })

  it("replaces the bound of `actual` by the real usage when the answer is complete, and ages it from then", () => {
    const ledger = Ledger.make(limitsOf({ tokensPerMinute: 10_000, tokensCounted: "actual" }))
    const reservation = reserve(ledger, { input: 1_000, maxOutput: 500 }, 0)
    ledger.started(reservation, 1_000)
    expect(level(ledger, "tokens/60s", 10 * MINUTE)).toBe(1_782)
    ledger.settle(reservation, used(900, 20), 10 * MINUTE)
    expect(level(ledger, "tokens/60s", 10 * MINUTE)).toBe(920)
    expect(level(ledger, "tokens/60s", 10 * MINUTE + KEPT)).toBe(0)
  })

  it("keeps the bound where the usage is not known, and nothing of `actual` where no model worked", () => {
    const levelAfter = (tokensCounted: "reserved" | "actual", end: Ledger.Used) => {
      const ledger = Ledger.make(limitsOf({ tokensPerMinute: 10_000, tokensCounted }))
      ledger.settle(reserve(ledger, { input: 1_000, maxOutput: 500 }, 0), end, 0)
      return level(ledger, "tokens/60s", 0)
    }
    expect(levelAfter("reserved", { _tag: "Unknown" })).toBe(1_782)
    expect(levelAfter("actual", { _tag: "Unknown" })).toBe(1_782)
    expect(levelAfter("reserved", { _tag: "Refused" })).toBe(1_782)
    expect(levelAfter("actual", { _tag: "Refused" })).toBe(0)
    expect(levelAfter("actual", used(0, 0))).toBe(1_782)
  })

  it("keeps the bound of an attempt that was refused after its answer had begun: a model worked", () => {
    const ledger = Ledger.make(limitsOf({ tokensPerMinute: 10_000, tokensCounted: "actual" }))
    const reservation = reserve(ledger, { input: 1_000, maxOutput: 500 }, 0)
    ledger.started(reservation, 100)
    ledger.settle(reservation, { _tag: "Refused" }, 200)
    expect(level(ledger, "tokens/60s", 200)).toBe(1_782)
  })

  it("keeps a debt where more was used than reserved", () => {
    const ledger = Ledger.make(limitsOf({ tokensPerMinute: 2_000, tokensCounted: "actual" }))
    ledger.settle(reserve(ledger, { input: 1_000, maxOutput: 500 }, 0), used(5_000, 500), 0)
    expect(level(ledger, "tokens/60s", 0)).toBe(5_500)
    expect(ledger.earliest(none, 0)).toBe(KEPT)
  })

  it("lets a call larger than the whole limit run, alone", () => {
    const ledger = Ledger.make(limitsOf({ tokensPerMinute: 1_000 }))
    const small = reserve(ledger, none, 0)
    const huge = { input: 50_000, maxOutput: 0 }
    expect(ledger.fits(huge, 0)).toBe(false)
    ledger.started(small, 0)
    expect(ledger.earliest(huge, 0)).toBe(KEPT)
    reserve(ledger, huge, KEPT)
    expect(ledger.fits(none, KEPT)).toBe(false)
  })

  it("knows what running attempts may still give back", () => {
    const ledger = Ledger.make(limitsOf({ tokensPerMinute: 10_000 }))
    const reservation = reserve(ledger, { input: 0, maxOutput: 9_000 }, 0)
    ledger.started(reservation, 0)
    const next = { input: 0, maxOutput: 5_000 }
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
    const ledger = Ledger.make(limitsOf({ requestsPerMinute: 10 }))
    const reservation = reserve(ledger, none, 0)
    ledger.started(reservation, 100)
    ledger.correct(reservation, reading(3, 20_000), 100)
    expect(level(ledger, "requests/60s", 100)).toBe(7)
    expect(level(ledger, "requests/60s", 20_100)).toBe(1)
  })

  it("never give more than the configured limit", () => {
    const ledger = Ledger.make(limitsOf({ requestsPerMinute: 2 }))
    const reservation = reserve(ledger, none, 0)
    ledger.correct(reservation, reading(500, 1_000, 1_000), 0)
    reserve(ledger, none, 0)
    expect(ledger.fits(none, 0)).toBe(false)
  })

  it("are replaced by newer ones, not by older ones that arrive late", () => {
    const ledger = Ledger.make(limitsOf({ requestsPerMinute: 10 }))
    const first = reserve(ledger, none, 0)
    const second = reserve(ledger, none, 0)
    ledger.correct(second, reading(2), 100)
    expect(level(ledger, "requests/60s", 100)).toBe(8)
    ledger.correct(first, reading(9), 200)
    expect(level(ledger, "requests/60s", 200)).toBe(8)
    const third = reserve(ledger, none, 300)
    ledger.correct(third, reading(7), 300)
    expect(level(ledger, "requests/60s", 300)).toBe(3)
  })

  it("do not count our own attempts twice when they are stale", () => {
    const ledger = Ledger.make(limitsOf({ requestsPerMinute: 4 }))
    const all = [0, 1, 2, 3].map(() => reserve(ledger, none, 0))
    for (const reservation of all) ledger.started(reservation, 1_000)
    const late = all[3]
    if (late === undefined) throw new Error("no reservation")
    ledger.correct(late, reading(0, 60_000), 1_000 + KEPT)
    expect(ledger.fits(none, 1_000 + KEPT)).toBe(true)
  })

  it("hold nothing where the limit is whole again at once, or only after longer than any window here", () => {
    const ledger = Ledger.make(limitsOf({ requestsPerMinute: 10 }))
    const reservation = reserve(ledger, none, 0)
    ledger.correct(reservation, reading(0, 0), 0)
    expect(ledger.fits(none, 0)).toBe(true)
    ledger.correct(reservation, reading(0, 86_400_000), 0)
    expect(ledger.fits(none, 0)).toBe(true)
    ledger.correct(reservation, reading(0), 0)
    expect(ledger.fits(none, 0)).toBe(false)
    expect(ledger.earliest(none, 0)).toBe(MINUTE)
    expect(ledger.fits(none, MINUTE)).toBe(true)
  })

  it("neither count attempts under way twice nor lift the limit", () => {
    const ledger = Ledger.make(limitsOf({ requestsPerMinute: 10 }))
    const [first, ...others] = [0, 1, 2, 3].map(() => reserve(ledger, none, 0))
    if (first === undefined) throw new Error("no reservation")
    ledger.started(first, 100)
    // whether it has counted 1 of ours or all 4, no more than 6 are to be had
    for (const remaining of [9, 8, 7, 6]) {
      ledger.correct(first, reading(remaining, 60_000), 100)
      expect(level(ledger, "requests/60s", 100)).toBe(4)
    }
    for (const other of others) ledger.started(other, 200)
    ledger.correct(first, reading(2, 60_000), 200)
    expect(level(ledger, "requests/60s", 200)).toBe(8)
    expect([5, 6, 7].map(() => ledger.tryReserve(none, 200) !== undefined)).toEqual([true, true, false])
  })

  it("concern the window that is long enough for the reset and nearest in size", () => {
    const ledger = Ledger.make(limitsOf({ requestsPerMinute: 10, windowRequests: 100, windowMs: 3_600_000 }))
    const reservation = reserve(ledger, none, 0)
    ledger.correct(reservation, reading(0, 1_800_000, 100), 0)
    expect(ledger.buckets(0).map((bucket) => bucket.used)).toEqual([1, 100])
  })
})
