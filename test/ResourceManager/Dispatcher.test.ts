import { describe, expect, it } from "vitest"
import { estimateInputTokens } from "../../src/Domain/Call.js"
import { type LeaseUnavailable, PlatformFailure } from "../../src/Domain/Failure.js"
import type { Settlement } from "../../src/Domain/Lease.js"
import type { Priority } from "../../src/Domain/Task.js"
import * as Dispatcher from "../../src/ResourceManager/Dispatcher.js"
import * as Heap from "../../src/ResourceManager/Heap.js"
import * as Ledger from "../../src/ResourceManager/Ledger.js"
import { makeLocal } from "../../src/ResourceManager/PlatformBudget.js"
import type { PlatformLimits } from "../../src/Settings.js"
import { alpha, beta, candidate, limitsOf, requestOf, succeeded, usageOf } from "./fixtures.js"

const at = (ms: number) => ({ ms, epochMs: ms })

const dispatcherOf = (limits: Partial<PlatformLimits>, ...others: ReadonlyArray<Partial<PlatformLimits>>) =>
  Dispatcher.make({
    platforms: [limits, ...others].map((each, index) => ({
      id: index === 0 ? alpha : beta,
      budget: makeLocal(limitsOf(each)),
      breaker: { failures: 5, openMs: 60_000 }
    })),
    onTransition: () => {}
  })

const heldBy = (ticket: Dispatcher.Ticket): Dispatcher.Held => {
  if (ticket.answer?._tag !== "Granted") throw new Error("it was not granted")
  return ticket.answer.held
}

const refusalOf = (ticket: Dispatcher.Ticket): LeaseUnavailable => {
  if (ticket.answer?._tag !== "Refused") throw new Error("it was not refused")
  return ticket.answer.error
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

describe("a token limit that counts what was really used", () => {
  const limit = 100_000
  const forMs = 1_800_000
  const callMs = 1_500
  const outputOf = (index: number): number => 100 + ((index * 37) % 400)
  const meanOutput = 299.5

  /** The provider adds an attempt's tokens when its answer is complete, and refuses while its window is used up. */
  const play = (inputOf: (index: number) => number, estimateOf: (index: number) => number) => {
    const starts = saturate(
      { tokensPerMinute: limit, tokensCounted: "actual" },
      {
        forMs,
        waiting: 50,
        headersMs: 300,
        callMs,
        request: (index) => ({ tokens: { input: estimateOf(index), maxOutput: 1_000 } }),
        end: (index) => ({ _tag: "Succeeded", usage: usageOf(inputOf(index), outputOf(index)) })
      }
    )
    const ends = starts.map(({ at, index }) => ({ at: at + callMs, tokens: inputOf(index) + outputOf(index) }))
    const usedAt = (at: number): number =>
      ends.reduce((sum, end) => (end.at > at - 60_000 && end.at <= at ? sum + end.tokens : sum), 0)
    return {
      peak: ends.reduce((most, { at }) => Math.max(most, usedAt(at)), 0),
      peakAtStart: starts.reduce((most, { at }) => Math.max(most, usedAt(at)), 0),
      perMinute: ends.reduce((sum, { tokens }) => sum + tokens, 0) / (forMs / 60_000)
    }
  }

  /** Tokens a minute where each attempt holds its bound while it runs, and what it used for a minute after. */
  const oracle = (meanInput: number, meanEstimate: number): number => {
    const used = meanInput + meanOutput
    const held = Ledger.inputBound(meanEstimate) + 1_000
    return (limit * used) / (used + held * (callMs / 60_000))
  }

  it("is never exceeded, and used to 98 % of what an oracle with the same reservations reaches", () => {
    const { peak, perMinute } = play(
      () => 200,
      () => 200
    )
    expect(peak).toBeLessThanOrEqual(limit)
    expect(perMinute).toBeGreaterThanOrEqual(0.98 * oracle(200, 200))
  })

  it("so also where the estimates are far too high", () => {
    const { peak, perMinute } = play(
      (index) => 20 + (index % 7) * 50,
      (index) => 400 + (index % 5) * 700
    )
    expect(peak).toBeLessThanOrEqual(limit)
    expect(perMinute).toBeGreaterThanOrEqual(0.98 * oracle(170, 1_800))
  })

  it("is not violated where they are far too low: nothing starts before the debt has aged away", () => {
    const { peakAtStart } = play(
      () => 3_000,
      () => 100
    )
    expect(peakAtStart).toBeLessThan(limit)
  })
})

describe("a saturated token limit is not violated by prompts in other scripts", () => {
  for (const [name, text] of [
    ["Chinese", "請把這一段文字翻譯成英文並且說明理由。".repeat(20)],
    ["Russian", "Переведите этот абзац и объясните, почему. ".repeat(20)],
    ["emoji", "🦊🚀".repeat(60)]
  ] as const) {
    for (const tokensCounted of ["reserved", "input"] as const) {
      it(`${name}, counted as ${tokensCounted}`, () => {
        const input = estimateInputTokens({ messages: [{ role: "user", content: text }] })
        const real = Math.ceil(Buffer.byteLength(text) / 4)
        const maxOutput = 50
        const perCall = tokensCounted === "input" ? real : real + maxOutput
        // the last one granted is not settled yet: its bound must hold the real count
        const starts = saturate(
          { tokensPerMinute: 20_000, tokensCounted },
          {
            forMs: 600_000,
            waiting: 40,
            headersMs: 300,
            callMs: 20_000,
            request: () => ({ tokens: { input, maxOutput } }),
            end: () => ({ _tag: "Succeeded", usage: usageOf(real, 10) })
          }
        )
        const most = starts.reduce(
          (worst, { at }) =>
            Math.max(worst, starts.filter((start) => start.at > at - 60_000 && start.at <= at).length * perCall),
          0
        )
        expect(most).toBeLessThanOrEqual(20_000)
        expect(most).toBeGreaterThan(10_000)
      })
    }
  }
})

describe("the earliest instant of a refusal", () => {
  const both = [candidate(alpha), candidate(beta)]

  it("is absent where a platform may be free at any moment, whatever another one's quota", () => {
    const dispatcher = dispatcherOf({ maxConcurrent: 1 }, {})
    heldBy(dispatcher.enter(requestOf(), at(0)))
    dispatcher.exhaust(beta, 18_000_000, at(0))
    const ticket = dispatcher.enter(requestOf({ candidates: both, maxWaitMs: 30_000 }), at(0))
    dispatcher.tick(at(30_000))
    const error = refusalOf(ticket)
    expect(error.reasons.map(({ earliestAt }) => earliestAt)).toEqual([undefined, 18_000_000])
    expect(error.earliestAt).toBeUndefined()
  })

  it("is absent while the outcome of a probe is out, or calls that go first use the platform", () => {
    const dispatcher = dispatcherOf({ maxConcurrent: 1 }, {})
    for (let index = 0; index < 5; index++) {
      const failure = new PlatformFailure({ platform: alpha, message: "sick", reason: "server" })
      dispatcher.settle(heldBy(dispatcher.enter(requestOf(), at(0))), { _tag: "Failed", failure }, at(0), 0)
    }
    dispatcher.exhaust(beta, 18_000_000, at(0))
    const probe = dispatcher.enter(requestOf(), at(0))
    dispatcher.tick(at(60_000))
    heldBy(probe)
    const ticket = dispatcher.enter(requestOf({ candidates: both, maxWaitMs: 30_000 }), at(60_000))
    dispatcher.tick(at(90_000))
    expect(refusalOf(ticket).earliestAt).toBeUndefined()
  })

  it("is what running attempts cannot change, where they hold the rest of a limit", () => {
    const dispatcher = dispatcherOf({ tokensPerMinute: 10_000 })
    const call = (maxOutput: number) => requestOf({ tokens: { input: 0, maxOutput }, maxWaitMs: 1_000 })
    const first = heldBy(dispatcher.enter(call(4_968), at(0)))
    dispatcher.started(first, [], at(0))
    dispatcher.settle(first, { _tag: "Succeeded", usage: usageOf(32, 4_968) }, at(10), 0)
    heldBy(dispatcher.enter(call(2_968), at(10)))
    // 5,000 are used for a minute, 3,000 until who knows when
    expect(refusalOf(dispatcher.enter(call(5_968), at(20))).earliestAt).toBe(60_007)
    const waiting = dispatcher.enter(call(3_968), at(20))
    dispatcher.tick(at(1_020))
    expect(refusalOf(waiting).earliestAt).toBeUndefined()
  })

  it("is that of the platform that comes back first, where all are held", () => {
    const dispatcher = dispatcherOf({}, {})
    dispatcher.exhaust(alpha, 50_000, at(0))
    const backoff = [candidate(alpha), candidate(beta, 1, 20_000)]
    expect(refusalOf(dispatcher.enter(requestOf({ candidates: backoff, maxWaitMs: 1_000 }), at(0))).earliestAt).toBe(
      20_000
    )
  })

  it("is the later of all that holds one platform", () => {
    const dispatcher = dispatcherOf({})
    dispatcher.exhaust(alpha, 50_000, at(0))
    dispatcher.setOut(alpha, undefined, { reason: "drained", until: 5_000 }, at(0))
    expect(refusalOf(dispatcher.enter(requestOf({ maxWaitMs: 1_000 }), at(0))).earliestAt).toBe(50_000)
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
