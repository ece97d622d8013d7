import { describe, expect, it } from "vitest"
import type { Now } from "../../src/ResourceManager/Now.js"
import * as Quota from "../../src/ResourceManager/Quota.js"
import { quotaFailure } from "./fixtures.js"

const epoch = 1_800_000_000_000
const at = (ms: number): Now => ({ ms, epochMs: epoch + ms })
const restOf = (quota: Quota.Quota, now: Now): number => Quota.freeAt(quota, now) - now.ms

describe("a provider's word on its quota", () => {
  it("holds until the later of the wait and the reset it names", () => {
    const quota = Quota.refused(
      Quota.initial,
      quotaFailure({ retryAfterMs: 1_000, resetsAt: epoch + 30_000 }),
      0,
      at(10)
    )
    expect(Quota.freeAt(quota, at(10))).toBe(30_000)
  })

  it("is never shortened by a later, shorter one", () => {
    const long = Quota.exhaust(Quota.initial, epoch + 60_000, at(0))
    expect(Quota.freeAt(Quota.exhaust(long, epoch + 1_000, at(0)), at(0))).toBe(60_000)
    const waited = Quota.refused(long, quotaFailure({ retryAfterMs: 5_000 }), 0, at(0))
    expect(Quota.freeAt(waited, at(0))).toBe(60_000)
  })

  it("follows the wall clock when that is set anew", () => {
    const quota = Quota.exhaust(Quota.initial, epoch + 60_000, at(0))
    expect(restOf(quota, { ms: 1_000, epochMs: epoch + 61_000 })).toBeLessThanOrEqual(0)
  })

  it("does not lock a platform for longer than any quota period lasts", () => {
    const quota = Quota.exhaust(Quota.initial, epoch * 10, at(0))
    expect(restOf(quota, at(0))).toBe(31 * 24 * 3_600_000)
  })

  it("without a time rests for a growing floor: a window 60 s to 30 min, a rate 1 s to 60 s", () => {
    const rests = (reason: "rate" | "window") => {
      let quota = Quota.initial
      let now = 0
      return Array.from({ length: 9 }, () => {
        quota = Quota.refused(quota, quotaFailure({ reason }), now + 1, at(now + 2))
        const rest = restOf(quota, at(now + 2))
        now += 2 + rest
        return rest / 1_000
      })
    }
    expect(rests("window")).toEqual([60, 120, 240, 480, 960, 1_800, 1_800, 1_800, 1_800])
    expect(rests("rate")).toEqual([1, 2, 4, 8, 16, 32, 60, 60, 60])
  })

  it("rests for the floor where the wait or the reset it names is over already", () => {
    const rest = (failure: Parameters<typeof quotaFailure>[0]) =>
      restOf(Quota.refused(Quota.initial, quotaFailure(failure), 0, at(10)), at(10))
    expect(rest({ retryAfterMs: 0 })).toBe(1_000)
    expect(rest({ resetsAt: epoch - 5_000 })).toBe(1_000)
    expect(rest({ reason: "window", resetsAt: epoch })).toBe(60_000)
    expect(rest({ retryAfterMs: 0, resetsAt: epoch + 300 })).toBe(290)
    expect(rest({ retryAfterMs: 20 })).toBe(20)
  })

  it("counts attempts that ran side by side once", () => {
    let quota = Quota.refused(Quota.initial, quotaFailure({ reason: "window" }), 0, at(100))
    for (let index = 0; index < 10; index++)
      quota = Quota.refused(quota, quotaFailure({ reason: "window" }), 50, at(200))
    expect(Quota.freeAt(quota, at(200))).toBe(60_100)
    expect(quota.windowFloorMs).toBe(120_000)
  })

  it("shrinks its floors with success, but not by an answer to what started before the refusal", () => {
    let quota = Quota.initial
    for (const now of [10, 10_000, 30_000]) quota = Quota.refused(quota, quotaFailure(), now, at(now))
    expect(quota.rateFloorMs).toBe(8_000)
    expect(Quota.answered(quota, 20_000).rateFloorMs).toBe(8_000)
    expect(Quota.answered(quota, 40_000).rateFloorMs).toBe(4_000)
  })

  it("rests shortly where too many attempts ran at once", () => {
    const quota = Quota.refused(Quota.initial, quotaFailure({ reason: "concurrency" }), 0, at(10))
    expect(restOf(quota, at(10))).toBe(1_000)
  })
})
