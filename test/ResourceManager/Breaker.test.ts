import { describe, expect, it } from "vitest"
import * as Breaker from "../../src/ResourceManager/Breaker.js"

const policy = { failures: 3, openMs: 10_000 }
const failure: Breaker.Outcome = { _tag: "Failure", why: "server" }
const success: Breaker.Outcome = { _tag: "Success" }
const ignored: Breaker.Outcome = { _tag: "Ignored" }

/** A breaker and what happened to it. */
const driver = (random = 0) => {
  let breaker = Breaker.initial
  const transitions: Array<string> = []
  const step = (next: Breaker.Step): void => {
    breaker = next.breaker
    if (next.transition !== undefined) transitions.push(`${next.transition.from} -> ${next.transition.to}`)
  }
  const start = (): Breaker.Permit => {
    const admitted = Breaker.admit(breaker)
    breaker = admitted.breaker
    return admitted.permit
  }
  const end = (permit: Breaker.Permit, outcome: Breaker.Outcome, at: number): void =>
    step(Breaker.settle(breaker, policy, permit, outcome, at, random))
  return {
    transitions,
    get: () => breaker,
    admits: (at: number): boolean => {
      step(Breaker.tick(breaker, at))
      return Breaker.admits(breaker, at)
    },
    start,
    end,
    run: (outcome: Breaker.Outcome, at: number): void => end(start(), outcome, at)
  }
}

describe("a breaker", () => {
  it("trips on consecutive failures, and a success in between starts the count anew", () => {
    const it = driver()
    for (const outcome of [failure, failure, success, failure, failure]) it.run(outcome, 0)
    expect(it.get().state).toBe("closed")
    it.run(failure, 0)
    expect(it.get().state).toBe("open")
    expect(it.admits(9_999)).toBe(false)
  })

  it("trips on half of at least 20 outcomes within a minute, and forgets older ones", () => {
    const slow = driver()
    for (let index = 0; index < 60; index++) slow.run(index % 2 === 0 ? success : failure, index * 6_000)
    expect(slow.get().state).toBe("closed")
    const fast = driver()
    for (let index = 0; index < 20; index++) fast.run(index % 2 === 0 ? success : failure, index * 100)
    expect(fast.get().state).toBe("open")
  })

  it("admits one probe when its time is over, and closes with its success", () => {
    const it = driver()
    for (let index = 0; index < 3; index++) it.run(failure, 0)
    expect(it.admits(10_000)).toBe(true)
    const probe = it.start()
    expect(it.admits(10_000)).toBe(false)
    it.end(probe, success, 10_100)
    expect(it.transitions).toEqual(["closed -> open", "open -> half-open", "half-open -> closed"])
    expect(it.admits(10_100)).toBe(true)
  })

  it("gets its probe's permit back whatever comes of it", () => {
    const it = driver()
    for (let index = 0; index < 3; index++) it.run(failure, 0)
    expect(it.admits(10_000)).toBe(true)
    it.end(it.start(), ignored, 10_001)
    expect(it.get().state).toBe("half-open")
    expect(it.admits(10_001)).toBe(true)
  })

  it("stays open twice as long each time its probe fails, up to a cap, and shrinks with success", () => {
    const it = driver()
    for (let index = 0; index < 3; index++) it.run(failure, 0)
    let at = 0
    const times: Array<number> = []
    for (let index = 0; index < 9; index++) {
      times.push((it.get().until - at) / 1_000)
      at = it.get().until
      expect(it.admits(at)).toBe(true)
      it.run(failure, at)
    }
    expect(times).toEqual([10, 20, 40, 80, 160, 320, 640, 900, 900])
    at = it.get().until
    expect(it.admits(at)).toBe(true)
    for (let index = 0; index < 30; index++) it.run(success, at)
    for (let index = 0; index < 3; index++) it.run(failure, at)
    expect(it.get().until - at).toBe(10_000)
  })

  it("stays open up to a tenth longer by chance", () => {
    const it = driver(1)
    for (let index = 0; index < 3; index++) it.run(failure, 0)
    expect(it.get().until).toBe(11_000)
  })

  it("keeps the pause that a failure asks for, open or closed", () => {
    const closed = driver()
    closed.run({ ...failure, retryAfterMs: 5_000 }, 0)
    expect(closed.get().state).toBe("closed")
    expect([closed.admits(4_999), closed.admits(5_000)]).toEqual([false, true])
    const open = driver()
    for (let index = 0; index < 3; index++) open.run({ ...failure, retryAfterMs: 90_000 }, 0)
    expect(open.get().until).toBe(90_000)
  })

  it("does not count outcomes of attempts that started before its last change", () => {
    const it = driver()
    const early = [it.start(), it.start(), it.start(), it.start(), it.start()] as const
    for (const permit of early.slice(0, 3)) it.end(permit, failure, 0)
    expect(it.admits(10_000)).toBe(true)
    const probe = it.start()
    it.end(early[3], success, 10_000)
    it.end(early[4], failure, 10_000)
    expect(it.get().state).toBe("half-open")
    expect(it.admits(10_000)).toBe(false)
    it.end(probe, success, 10_000)
    expect(it.get().state).toBe("closed")
  })
})
