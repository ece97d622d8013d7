import { describe, expect, it } from "vitest"
import type { PlatformEventBody } from "../../src/Domain/Event.js"
import type { Now } from "../../src/ResourceManager/Now.js"
import * as Quota from "../../src/ResourceManager/Quota.js"
import { quotaFailure } from "./fixtures.js"

const epoch = 1_800_000_000_000
const at = (ms: number): Now => ({ ms, epochMs: epoch + ms })
const day = 24 * 3_600_000

const make = () => {
  const events: Array<PlatformEventBody> = []
  return { quotas: Quota.make((event) => events.push(event)), events }
}
const restOf = (quotas: Quota.Quotas, now: Now, model = "small"): number => quotas.freeAt(model, now) - now.ms
const exhausted = (window: string, untilMs: number, model?: string): Quota.Exhausted => ({
  window,
  model,
  until: epoch + untilMs,
  why: "used up"
})

describe("a provider's word on its quota", () => {
  it("holds until the later of the wait and the reset it names", () => {
    const { quotas } = make()
    quotas.refused(quotaFailure({ retryAfterMs: 1_000, resetsAt: epoch + 30_000 }), "small", 0, at(10))
    expect(quotas.freeAt("small", at(10))).toBe(30_000)
  })

  it("is never shortened by a later, shorter one", () => {
    const { quotas } = make()
    quotas.exhaust(exhausted("primary", 60_000), at(0))
    quotas.exhaust(exhausted("primary", 1_000), at(0))
    expect(quotas.freeAt("small", at(0))).toBe(60_000)
    quotas.refused(quotaFailure({ reason: "window", window: "primary", retryAfterMs: 5_000 }), "small", 0, at(0))
    expect(quotas.freeAt("small", at(0))).toBe(60_000)
  })

  it("is kept for every window of its own: the platform is back when all have reset", () => {
    const { events, quotas } = make()
    quotas.exhaust(exhausted("primary", 60_000), at(0))
    quotas.exhaust(exhausted("secondary", 600_000), at(0))
    expect(quotas.exhausted(at(60_000)).map(({ window }) => window)).toEqual(["secondary"])
    expect(quotas.platformFreeAt(at(60_000))).toBe(600_000)
    expect(quotas.exhausted(at(600_000))).toEqual([])
    expect(quotas.platformFreeAt(at(600_000))).toBeLessThanOrEqual(600_000)
    expect(events.map((event) => `${event.type} ${"window" in event ? event.window : ""}`)).toEqual([
      "quota.exhausted primary",
      "quota.exhausted secondary",
      "quota.reset primary",
      "quota.reset secondary"
    ])
  })

  it("concerns one model where the provider says so", () => {
    const { quotas } = make()
    quotas.refused(
      quotaFailure({ reason: "window", perModel: true, model: "big", resetsAt: epoch + day }),
      "big",
      0,
      at(0)
    )
    expect(restOf(quotas, at(0), "big")).toBe(day)
    expect(restOf(quotas, at(0), "small")).toBeLessThanOrEqual(0)
    expect(quotas.platformFreeAt(at(0))).toBeLessThanOrEqual(0)
    expect(quotas.last("big", at(0))?.model).toBe("big")
  })

  it("follows the wall clock when that is set anew", () => {
    const { quotas } = make()
    quotas.exhaust(exhausted("primary", 60_000), at(0))
    expect(restOf(quotas, { ms: 1_000, epochMs: epoch + 61_000 })).toBeLessThanOrEqual(0)
  })

  it("does not lock a platform for longer than any quota period lasts", () => {
    const { quotas } = make()
    quotas.exhaust({ window: "primary", until: epoch * 10, why: "a mistake" }, at(0))
    expect(restOf(quotas, at(0))).toBe(31 * day)
  })

  it("outlives the process, unless it has reset meanwhile", () => {
    const { events, quotas } = make()
    quotas.restore([exhausted("primary", 1_000), exhausted("secondary", 90_000, "big")], at(2_000))
    expect(quotas.exhausted(at(2_000))).toMatchObject([{ window: "secondary", model: "big" }])
    expect(events).toEqual([])
  })

  it("a short wait of a rate limit is no quota, a long one is", () => {
    const { quotas } = make()
    quotas.refused(quotaFailure({ reason: "rate", retryAfterMs: 30_000 }), "small", 0, at(0))
    expect(quotas.exhausted(at(0))).toEqual([])
    expect(restOf(quotas, at(0))).toBe(30_000)
    quotas.refused(quotaFailure({ reason: "rate", retryAfterMs: 3_600_000, window: "PerDay" }), "small", 0, at(0))
    expect(quotas.exhausted(at(0))).toMatchObject([{ window: "PerDay", until: epoch + 3_600_000 }])
  })

  it("is forgotten when a person says so", () => {
    const { events, quotas } = make()
    quotas.exhaust(exhausted("primary", day), at(0))
    quotas.refused(quotaFailure({ retryAfterMs: 30_000 }), "small", 0, at(0))
    quotas.clear("bought anew")
    expect(restOf(quotas, at(0))).toBeLessThanOrEqual(0)
    expect(events.at(-1)).toEqual({ type: "quota.reset", model: undefined, window: "primary", why: "bought anew" })
  })

  it("is no news when it lasts a little longer than was known", () => {
    const { events, quotas } = make()
    for (let more = 0; more < 5; more++) quotas.exhaust(exhausted("primary", 600_000 + more * 1_000), at(0))
    expect(events).toHaveLength(1)
    expect(quotas.exhausted(at(0))).toMatchObject([{ until: epoch + 604_000 }])
  })

  it("is remembered of a bounded number of windows and models", () => {
    const { quotas } = make()
    for (let index = 0; index < 500; index++) quotas.exhaust(exhausted(`w${index}`, 1_000 + index, `m${index}`), at(0))
    expect(quotas.exhausted(at(0)).length).toBeLessThanOrEqual(64)
    expect(restOf(quotas, at(0), "m499")).toBe(1_499)
  })
})

describe("where no time is told", () => {
  it("it rests for a growing floor: a window 60 s to 30 min, a rate 1 s to 60 s", () => {
    const rests = (reason: "rate" | "window") => {
      const { quotas } = make()
      let now = 0
      return Array.from({ length: 9 }, () => {
        quotas.refused(quotaFailure({ reason }), "small", now + 1, at(now + 2))
        const rest = restOf(quotas, at(now + 2))
        now += 2 + rest
        return rest / 1_000
      })
    }
    expect(rests("window")).toEqual([60, 120, 240, 480, 960, 1_800, 1_800, 1_800, 1_800])
    expect(rests("rate")).toEqual([1, 2, 4, 8, 16, 32, 60, 60, 60])
  })

  it("it rests for the floor also where the wait or the reset it names is over already", () => {
    const rest = (failure: Parameters<typeof quotaFailure>[0]) => {
      const { quotas } = make()
      quotas.refused(quotaFailure(failure), "small", 0, at(10))
      return restOf(quotas, at(10))
    }
    expect(rest({ retryAfterMs: 0 })).toBe(1_000)
    expect(rest({ resetsAt: epoch - 5_000 })).toBe(1_000)
    expect(rest({ reason: "window", resetsAt: epoch })).toBe(60_000)
    expect(rest({ retryAfterMs: 0, resetsAt: epoch + 300 })).toBe(290)
    expect(rest({ retryAfterMs: 20 })).toBe(20)
  })

  it("attempts that ran side by side count once", () => {
    const { quotas } = make()
    quotas.refused(quotaFailure({ reason: "window" }), "small", 0, at(100))
    quotas.refused(quotaFailure({ reason: "window" }), "small", 50, at(200))
    expect(quotas.freeAt("small", at(200))).toBe(60_100)
  })

  it("the floors shrink with answers to calls that began after the last refusal", () => {
    const restAfter = (...answeredAt: ReadonlyArray<number>): number => {
      const { quotas } = make()
      for (const ms of [10_000, 20_000, 30_000]) quotas.refused(quotaFailure({}), "small", ms - 1, at(ms))
      for (const ms of answeredAt) quotas.answered("small", ms)
      quotas.refused(quotaFailure({}), "small", 100_000, at(100_000))
      return restOf(quotas, at(100_000)) / 1_000
    }
    expect(restAfter()).toBe(8)
    expect(restAfter(20_000)).toBe(8)
    expect(restAfter(40_000)).toBe(4)
  })

  it("it rests shortly where too many attempts ran at once", () => {
    const { quotas } = make()
    quotas.refused(quotaFailure({ reason: "concurrency" }), "small", 0, at(10))
    expect(restOf(quotas, at(10))).toBe(1_000)
  })
})
