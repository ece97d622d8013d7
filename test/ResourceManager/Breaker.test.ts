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
    if (next.transition === undefined) return
    const { capacityPercent, from, to } = next.transition
    transitions.push(`${from} -> ${to} ${capacityPercent} %`)
  }
  const wait = (at: number): void => {
    while (Breaker.changesAt(breaker) <= at) step(Breaker.tick(breaker, policy, at))
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
    wait,
    admits: (at: number): boolean => {
      wait(at)
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
    expect(it.transitions).toEqual(["closed -> open 0 %", "open -> half-open 0 %", "half-open -> closed 10 %"])
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
    it.wait(at + 10_000)
    at += 10_000
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

describe("the ramp of a breaker that has closed", () => {
  /** Closed by a probe at 10 s; its steps last 10 s / 6. */
  const recovering = () => {
    const it = driver()
    for (let index = 0; index < 3; index++) it.run(failure, 0)
    it.wait(10_000)
    it.run(success, 10_000)
    it.transitions.length = 0
    return it
  }
  const stepMs = 10_000 / 6

  it("gives back its capacity in steps of time, whether or not anything is called", () => {
    const it = recovering()
    expect(Breaker.capacityPercent(it.get())).toBe(10)
    it.wait(10_000 + stepMs)
    expect(Breaker.capacityPercent(it.get())).toBe(25)
    it.wait(60_000)
    expect(it.transitions).toEqual(["closed -> closed 25 %", "closed -> closed 50 %", "closed -> closed 100 %"])
    expect(Breaker.changesAt(it.get())).toBe(Number.POSITIVE_INFINITY)
  })

  it("takes a second a step at least", () => {
    const brisk = { failures: 1, openMs: 100 }
    const half = Breaker.tick(
      Breaker.settle(Breaker.initial, brisk, { generation: 0 }, failure, 0, 0).breaker,
      brisk,
      100
    )
    const closed = Breaker.settle(half.breaker, brisk, Breaker.admit(half.breaker).permit, success, 100, 0).breaker
    expect(Breaker.changesAt(closed)).toBe(1_100)
  })

  it("ends with two failures in a row", () => {
    const it = recovering()
    it.run(failure, 10_100)
    it.run(success, 10_200)
    it.run(failure, 10_300)
    expect(it.get().state).toBe("closed")
    it.run(failure, 10_400)
    expect(it.transitions).toEqual(["closed -> open 0 %"])
  })

  it("ends with half of four outcomes", () => {
    const it = recovering()
    for (const outcome of [failure, success, success, failure]) it.run(outcome, 10_100)
    expect(it.get().state).toBe("open")
  })

  it("counts the outcome of an attempt that started on an earlier step", () => {
    const it = recovering()
    const permits = [it.start(), it.start()]
    it.wait(10_000 + stepMs)
    for (const permit of permits) it.end(permit, failure, 12_000)
    expect(it.get().state).toBe("open")
  })
})

describe("a breaker that comes back after a restart", () => {
  const at = (ms: number, epochMs: number) => ({ ms, epochMs })
  const opened = () => {
    const it = driver()
    for (let index = 0; index < 3; index++) it.run(failure, 0)
    return it
  }

  it("stays open for what is left of its time, by the wall clock", () => {
    const saved = Breaker.save(opened().get(), at(4_000, 1_004_000))
    const restored = Breaker.restore(saved, policy, at(77, 1_007_000))
    expect([restored.state, restored.until, restored.doublings]).toEqual(["open", 77 + 3_000, 1])
  })

  it("is not kept open by a wall clock that was set back", () => {
    const saved = Breaker.save(opened().get(), at(0, 100_000_000))
    expect(Breaker.restore(saved, policy, at(0, 0)).until).toBe(Breaker.retryAfterMaxMs)
  })

  it("waits for a probe where it was half-open, whatever became of the one under way", () => {
    const it = opened()
    it.wait(10_000)
    it.start()
    const restored = Breaker.restore(Breaker.save(it.get(), at(10_000, 10_000)), policy, at(0, 20_000))
    expect([restored.state, Breaker.admits(restored, 0)]).toEqual(["half-open", true])
  })

  it("goes on with its step of the ramp", () => {
    const it = opened()
    it.wait(10_000)
    it.run(success, 10_000)
    it.wait(11_700)
    const restored = Breaker.restore(Breaker.save(it.get(), at(11_700, 11_700)), policy, at(0, 12_000))
    expect([restored.state, Breaker.capacityPercent(restored)]).toEqual(["closed", 25])
    expect(Breaker.changesAt(restored)).toBeCloseTo(10_000 + 20_000 / 6 - 12_000, -1)
  })
})
