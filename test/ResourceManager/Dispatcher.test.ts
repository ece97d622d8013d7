import { describe, expect, it } from "vitest"
import type { Settlement } from "../../src/Domain/Lease.js"
import type { Priority } from "../../src/Domain/Task.js"
import * as Dispatcher from "../../src/ResourceManager/Dispatcher.js"
import * as Heap from "../../src/ResourceManager/Heap.js"
import { makeLocal } from "../../src/ResourceManager/PlatformBudget.js"
import type { PlatformLimits } from "../../src/Settings.js"
import { alpha, limitsOf, requestOf, succeeded, usageOf } from "./fixtures.js"

const at = (ms: number) => ({ ms, epochMs: ms })

const dispatcherOf = (limits: Partial<PlatformLimits>): Dispatcher.Dispatcher =>
  Dispatcher.make({
    platforms: [{ id: alpha, budget: makeLocal(limitsOf(limits)), breaker: { failures: 5, openMs: 60_000 } }],
    onTransition: () => {}
  })

const heldBy = (ticket: Dispatcher.Ticket): Dispatcher.Held => {
  if (ticket.answer?._tag !== "Granted") throw new Error("it was not granted")
  return ticket.answer.held
}

/** A discrete simulation: calls that always wait, each with headers after `headersMs` and an end after `callMs`. */
const saturate = (
  limits: Partial<PlatformLimits>,
  load: {
    readonly forMs: number
    readonly waiting: number
    readonly headersMs: number
    readonly callMs: number
    readonly request: (index: number) => Partial<Dispatcher.LeaseRequest>
    readonly end: (index: number) => Settlement
  }
): ReadonlyArray<{ readonly at: number; readonly index: number }> => {
  const dispatcher = dispatcherOf(limits)
  const granted: Array<{ readonly at: number; readonly index: number }> = []
  const events = Heap.make<{ readonly at: number; readonly run: () => void }>((a, b) => a.at < b.at)
  let now = 0
  let index = 0
  const enter = (): void => {
    const its = index
    index += 1
    const ticket = dispatcher.enter(requestOf({ maxWaitMs: Number.POSITIVE_INFINITY, ...load.request(its) }), at(now))
    const start = (answer: Dispatcher.Answer): void => {
      if (answer._tag === "Refused") throw answer.error
      const { held } = answer
      granted.push({ at: now, index: its })
      events.add({ at: now + load.headersMs, run: () => dispatcher.started(held, [], at(now)) })
      events.add({ at: now + load.callMs, run: () => dispatcher.settle(held, load.end(its), at(now), 0) })
      events.add({ at: now, run: enter })
    }
    if (ticket.answer === undefined) ticket.onAnswer = start
    else start(ticket.answer)
  }
  for (let count = 0; count < load.waiting; count++) enter()
  for (;;) {
    const next = events.peek()
    const due = Math.min(next?.at ?? Number.POSITIVE_INFINITY, dispatcher.due())
    if (due > load.forMs) return granted
    now = due
    if (next !== undefined && next.at === due) {
      events.remove(next)
      next.run()
    } else dispatcher.tick(at(now))
  }
}

describe("a saturated limit is used to at least 98 %", () => {
  const hour = 3_600_000
  const load = { forMs: hour, waiting: 20, headersMs: 300, callMs: 1_500, request: () => ({}), end: () => succeeded }

  it("of requests", () => {
    expect(saturate({ requestsPerMinute: 60 }, load).length / 3_600).toBeGreaterThanOrEqual(0.98)
  })

  it("of requests, paced by a burst", () => {
    const starts = saturate({ requestsPerMinute: 60, burst: 5 }, load)
    expect(starts.length / 3_600).toBeGreaterThanOrEqual(0.98)
    const gaps = starts.slice(1).map((start, index) => start.at - (starts[index]?.at ?? 0))
    expect(Math.max(...gaps)).toBeLessThan(7_000)
  })

  it("of requests over a longer window", () => {
    const limit = { windowRequests: 100, windowMs: hour / 10 }
    expect(saturate(limit, load).length / 1_000).toBeGreaterThanOrEqual(0.98)
  })

  it("of tokens, counted as reserved", () => {
    const perCall = 1_000
    const calls = saturate(
      { tokensPerMinute: 100_000 },
      {
        ...load,
        request: () => ({ tokens: { input: 100, maxOutput: perCall - 100 } }),
        end: () => ({ _tag: "Succeeded", usage: usageOf(100, 50) })
      }
    )
    expect((calls.length * perCall) / (100_000 * 60)).toBeGreaterThanOrEqual(0.98)
  })
})

describe("the shares", () => {
  const orderOf = (priorities: ReadonlyArray<Priority>, waiting: number): ReadonlyArray<Priority> => {
    const of = (index: number): Priority => priorities[index % priorities.length] ?? "LOW"
    const load = { forMs: 1_000_000, waiting, headersMs: 100, callMs: 1_000, end: () => succeeded }
    return saturate({ maxConcurrent: 1 }, { ...load, request: (index) => ({ priority: of(index) }) })
      .slice(0, 1_000)
      .map(({ index }) => of(index))
  }
  const count = (order: ReadonlyArray<Priority>, priority: Priority): number =>
    order.filter((served) => served === priority).length

  it("of a saturated platform are MEDIUM 10 % and LOW 5 %, and no more", () => {
    // each served call brings the next one, so that all three always wait
    const order = orderOf(["HIGH", "HIGH", "HIGH", "HIGH", "HIGH", "HIGH", "HIGH", "MEDIUM", "LOW"], 900)
    const early = order.slice(0, 600)
    expect(count(early, "MEDIUM") / early.length).toBeCloseTo(0.1, 2)
    expect(count(early, "LOW") / early.length).toBeCloseTo(0.05, 2)
  })

  it("leave HIGH alone where nothing else waits", () => {
    expect(new Set(orderOf(["HIGH"], 50))).toEqual(new Set(["HIGH"]))
  })
})

describe("the line", () => {
  it("holds 10,000 calls; the next one is refused at once", () => {
    const dispatcher = dispatcherOf({ maxConcurrent: 1 })
    const first = heldBy(dispatcher.enter(requestOf(), at(0)))
    const waiting = Array.from({ length: 10_000 }, () => dispatcher.enter(requestOf(), at(0)))
    const refused = dispatcher.enter(requestOf(), at(0)).answer
    expect(refused?._tag === "Refused" && refused.error.message).toContain("10000 calls are waiting already")
    expect(dispatcher.view(at(5)).queue.MEDIUM).toEqual({ depth: 10_000, oldestWaitMs: 5 })
    dispatcher.settle(first, succeeded, at(10), 0)
    for (const ticket of waiting) {
      dispatcher.settle(heldBy(ticket), succeeded, at(10), 0)
    }
    expect(dispatcher.view(at(10))).toMatchObject({
      platforms: [{ permits: { inUse: 0 } }],
      queue: { MEDIUM: { depth: 0 } }
    })
  })
})
