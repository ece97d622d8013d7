import { describe, expect, it } from "vitest"
import { estimateInputTokens } from "../../src/Domain/Call.js"
import type { PlatformEventBody } from "../../src/Domain/Event.js"
import { type LeaseUnavailable, PlatformFailure } from "../../src/Domain/Failure.js"
import type { Settlement } from "../../src/Domain/Lease.js"
import type { PlatformId } from "../../src/Domain/Platform.js"
import type { Priority } from "../../src/Domain/Task.js"
import * as Dispatcher from "../../src/ResourceManager/Dispatcher.js"
import * as Heap from "../../src/ResourceManager/Heap.js"
import * as Ledger from "../../src/ResourceManager/Ledger.js"
import { makeLocal } from "../../src/ResourceManager/PlatformBudget.js"
import type { PlatformLimits } from "../../src/Settings.js"
import {
  alpha,
  beta,
  candidate,
  limitsOf,
  platformFailure,
  quotaFailure,
  requestOf,
  succeeded,
  tenant,
  usageOf
} from "./fixtures.js"

const at = (ms: number) => ({ ms, epochMs: ms })
const quota = (until: number) => ({ window: "quota", until, why: "used up" })

interface Happened {
  readonly platform: PlatformId
  readonly at: number
  readonly body: PlatformEventBody
}

interface Options {
  readonly breaker?: { readonly failures: number; readonly openMs: number }
  readonly maxBytes?: number
  readonly events?: Array<Happened>
  /** Platforms that were told to have room. */
  readonly room?: Array<PlatformId>
}

const dispatcherWith = (options: Options, ...limits: ReadonlyArray<Partial<PlatformLimits>>) =>
  Dispatcher.make({
    platforms: limits.map((each, index) => ({
      id: index === 0 ? alpha : beta,
      budget: makeLocal({ limits: limitsOf(each), prices: {} }),
      breaker: options.breaker ?? { failures: 5, openMs: 60_000 }
    })),
    onTransition: () => {},
    onEvent: (platform, body, { ms }) => options.events?.push({ platform, at: ms, body }),
    onRoom: (platform) => options.room?.push(platform),
    maxBytes: options.maxBytes ?? 1_000_000
  })

const dispatcherOf = (...limits: ReadonlyArray<Partial<PlatformLimits>>) => dispatcherWith({}, ...limits)

/** Lets time pass: the dispatcher is told of each instant at which it says that something changes. */
const pass = (dispatcher: Dispatcher.Dispatcher, untilMs: number): void => {
  while (dispatcher.due() <= untilMs) {
    const due = dispatcher.due()
    dispatcher.tick(at(due))
    if (dispatcher.due() <= due) throw new Error("it wants to be told of the same instant again")
  }
}

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
    dispatcher.exhaust(beta, quota(18_000_000), at(0))
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
    dispatcher.exhaust(beta, quota(18_000_000), at(0))
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
    dispatcher.exhaust(alpha, quota(50_000), at(0))
    const backoff = [candidate(alpha), candidate(beta, 1, 20_000)]
    expect(refusalOf(dispatcher.enter(requestOf({ candidates: backoff, maxWaitMs: 1_000 }), at(0))).earliestAt).toBe(
      20_000
    )
  })

  it("is the later of all that holds one platform", () => {
    const dispatcher = dispatcherOf({})
    dispatcher.exhaust(alpha, quota(50_000), at(0))
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

const failed = (failure: ReturnType<typeof platformFailure | typeof quotaFailure>): Settlement => ({
  _tag: "Failed",
  failure
})
const isWaiting = (ticket: Dispatcher.Ticket): boolean => ticket.answer === undefined
const platformOfTicket = (ticket: Dispatcher.Ticket): PlatformId => heldBy(ticket).platform

describe("HIGH calls", () => {
  /** One HIGH call each 5 s, over half an hour, beside so many LOW ones that wait all the time; how long each waited. */
  const waits = (low: number, limits: Partial<PlatformLimits>): ReadonlyArray<number> => {
    const dispatcher = dispatcherOf(limits)
    const events = Heap.make<{ readonly at: number; readonly run: () => void }>((a, b) => a.at < b.at)
    const waited: Array<number> = []
    let now = 0
    const enter = (priority: Priority, then: () => void): void => {
      const ticket = dispatcher.enter(requestOf({ priority, maxWaitMs: Number.POSITIVE_INFINITY }), at(now))
      const start = (answer: Dispatcher.Answer): void => {
        if (answer._tag === "Refused") throw answer.error
        const { held } = answer
        if (priority === "HIGH") waited.push(held.waitedMs)
        events.add({ at: now + 300, run: () => dispatcher.started(held, [], at(now)) })
        events.add({ at: now + 2_000, run: () => dispatcher.settle(held, succeeded, at(now), 0) })
        events.add({ at: now, run: then })
      }
      if (ticket.answer === undefined) ticket.onAnswer = start
      else start(ticket.answer)
    }
    const enterLow = (): void => enter("LOW", enterLow)
    for (let count = 0; count < low; count++) enterLow()
    for (let ms = 120_000; ms < 1_800_000; ms += 5_000) events.add({ at: ms, run: () => enter("HIGH", () => {}) })
    for (;;) {
      const next = events.peek()
      now = Math.min(next?.at ?? Number.POSITIVE_INFINITY, dispatcher.due())
      if (now > 1_830_000) return waited
      if (next !== undefined && next.at === now) {
        events.remove(next)
        next.run()
      } else dispatcher.tick(at(now))
    }
  }

  for (const [name, limits] of [
    ["a minute's limit", { requestsPerMinute: 60 }],
    ["concurrent attempts", { maxConcurrent: 4 }],
    ["a longer window", { windowRequests: 600, windowMs: 600_000 }]
  ] as const) {
    it(`wait the same for ${name}, whether 1,000 or 9,000 LOW ones wait too`, () => {
      const few = waits(1_000, limits)
      expect(few.length).toBe(336)
      expect(waits(9_000, limits)).toEqual(few)
      // at most about one refill, or the end of one running call
      expect(Math.max(...few)).toBeLessThanOrEqual(2_100)
    })
  }

  it("keep no LOW call waiting for ever, however many of them come", () => {
    const of = (index: number): Priority => (index === 0 ? "LOW" : "HIGH")
    const starts = saturate(
      { requestsPerMinute: 60 },
      {
        forMs: 300_000,
        waiting: 100,
        headersMs: 100,
        callMs: 1_000,
        request: (index) => ({ priority: of(index) }),
        end: () => succeeded
      }
    )
    expect(starts.find(({ index }) => index === 0)?.at).toBeLessThan(60_000)
  })

  it("are not held up by a lower one that may not draw what is kept for them", () => {
    const dispatcher = dispatcherOf({ maxConcurrent: 4 })
    for (let index = 0; index < 3; index++) heldBy(dispatcher.enter(requestOf({ priority: "LOW" }), at(0)))
    const low = dispatcher.enter(requestOf({ priority: "LOW" }), at(0))
    expect(isWaiting(low)).toBe(true)
    expect(isWaiting(dispatcher.enter(requestOf({ priority: "HIGH" }), at(1)))).toBe(false)
    expect(isWaiting(low)).toBe(true)
  })
})

describe("a call that cannot start yet", () => {
  const tokens = (maxOutput: number) => ({ tokens: { input: 0, maxOutput }, priority: "HIGH" as const })

  it("is not passed by a smaller one that would put off its start", () => {
    const dispatcher = dispatcherOf({ tokensPerMinute: 10_000 })
    const first = heldBy(dispatcher.enter(requestOf(tokens(7_000)), at(0)))
    dispatcher.started(first, [], at(0))
    const large = dispatcher.enter(requestOf(tokens(9_000)), at(0))
    const small = dispatcher.enter(requestOf(tokens(1_500)), at(0))
    expect([isWaiting(large), isWaiting(small)]).toEqual([true, true])
    pass(dispatcher, 60_007)
    expect([isWaiting(large), isWaiting(small)]).toEqual([false, true])
  })

  it("is passed by one that leaves it enough", () => {
    const dispatcher = dispatcherOf({ tokensPerMinute: 10_000 })
    dispatcher.started(heldBy(dispatcher.enter(requestOf(tokens(7_000)), at(0))), [], at(0))
    const large = dispatcher.enter(requestOf(tokens(6_000)), at(0))
    const small = dispatcher.enter(requestOf(tokens(1_000)), at(0))
    expect([isWaiting(large), isWaiting(small)]).toEqual([true, false])
    pass(dispatcher, 60_007)
    expect(isWaiting(large)).toBe(false)
  })

  it("does not keep a platform's other models idle", () => {
    const dispatcher = dispatcherOf({ maxConcurrentPerModel: 1 })
    const of = (model: string) => requestOf({ candidates: [candidate(alpha, 1, 0, model)] })
    const first = heldBy(dispatcher.enter(of("small"), at(0)))
    const second = dispatcher.enter(of("small"), at(0))
    const other = dispatcher.enter(of("large"), at(0))
    expect([isWaiting(second), isWaiting(other)]).toEqual([true, false])
    dispatcher.settle(first, succeeded, at(10), 0)
    expect(isWaiting(second)).toBe(false)
  })
})

describe("patience", () => {
  const candidates = [candidate(alpha, 5), candidate(beta, 1)]
  /** Alpha is used up until 60,007. */
  const usedUp = (...limits: ReadonlyArray<Partial<PlatformLimits>>) => {
    const [first = { requestsPerMinute: 1 }, second = {}] = limits
    const dispatcher = dispatcherOf(first, second)
    dispatcher.started(heldBy(dispatcher.enter(requestOf({ priority: "HIGH" }), at(0))), [], at(0))
    return dispatcher
  }
  const patient = (patienceMs: number) => requestOf({ candidates, patienceMs, priority: "HIGH" })

  it("waits for a platform of more than twice the weight that is known to be free in time", () => {
    const dispatcher = usedUp()
    const ticket = dispatcher.enter(patient(30_000), at(31_000))
    expect(isWaiting(ticket)).toBe(true)
    expect(dispatcher.due()).toBe(60_007)
    pass(dispatcher, 60_007)
    expect(platformOfTicket(ticket)).toBe(alpha)
  })

  it("does not wait where it is not known, or comes too late, or weighs no more than twice as much", () => {
    const dispatcher = usedUp()
    expect(platformOfTicket(dispatcher.enter(patient(29_000), at(31_000)))).toBe(beta)
    const even = requestOf({ candidates: [candidate(alpha, 2), candidate(beta, 1)], patienceMs: 30_000 })
    expect(platformOfTicket(dispatcher.enter(even, at(31_000)))).toBe(beta)
    const running = dispatcherOf({ maxConcurrent: 1 }, {})
    heldBy(running.enter(requestOf(), at(0)))
    expect(platformOfTicket(running.enter(patient(30_000), at(0)))).toBe(beta)
  })

  it("lets the next one have the free platform, where only one can start on the better one in time", () => {
    const dispatcher = usedUp()
    const first = dispatcher.enter(patient(30_000), at(31_000))
    expect(platformOfTicket(dispatcher.enter(patient(30_000), at(31_000)))).toBe(beta)
    expect(platformOfTicket(dispatcher.enter(requestOf({ candidates: [candidate(beta)] }), at(31_000)))).toBe(beta)
    expect(isWaiting(first)).toBe(true)
  })

  it("ends as soon as the better one is no longer known to be free in time", () => {
    const dispatcher = usedUp()
    const ticket = dispatcher.enter(patient(30_000), at(31_000))
    dispatcher.exhaust(alpha, quota(400_000), at(40_000))
    expect(platformOfTicket(ticket)).toBe(beta)
  })

  it("ends after its time, to the millisecond, with what is free", () => {
    const dispatcher = usedUp()
    const ticket = dispatcher.enter(patient(30_000), at(30_500))
    // another HIGH call takes what comes free first
    const other = dispatcher.enter(requestOf({ priority: "HIGH" }), at(30_500))
    pass(dispatcher, 60_006)
    expect([isWaiting(ticket), isWaiting(other)]).toEqual([true, true])
    pass(dispatcher, 60_500)
    expect([platformOfTicket(ticket), isWaiting(other)]).toEqual([alpha, true])
  })
})

describe("a platform of several models", () => {
  const of = (model: string) => requestOf({ candidates: [candidate(alpha, 1, 0, model)] })
  const options = () => ({ breaker: { failures: 3, openMs: 12_000 }, events: [] as Happened[] })
  const run = (dispatcher: Dispatcher.Dispatcher, model: string, settlement: Settlement, ms: number): void =>
    dispatcher.settle(heldBy(dispatcher.enter(of(model), at(ms))), settlement, at(ms), 0)

  it("goes on with the others while one is sick", () => {
    const dispatcher = dispatcherWith(options(), {})
    run(dispatcher, "large", succeeded, 0)
    run(dispatcher, "small", succeeded, 0)
    for (let index = 0; index < 3; index++) run(dispatcher, "small", failed(platformFailure()), 10)
    const view = dispatcher.platform(alpha, at(10))
    expect(view.breaker.state).toBe("closed")
    expect(view.modelBreakers).toMatchObject([
      { model: "large", state: "closed" },
      { model: "small", state: "open", probesAt: 12_010 }
    ])
    expect(isWaiting(dispatcher.enter(of("small"), at(20)))).toBe(true)
    expect(isWaiting(dispatcher.enter(of("large"), at(20)))).toBe(false)
  })

  it("is itself sick when two of them fail, or where no connection is made", () => {
    const both = dispatcherWith(options(), {})
    for (const model of ["large", "small"]) run(both, model, succeeded, 0)
    for (const model of ["large", "small", "large", "small"]) run(both, model, failed(platformFailure()), 0)
    expect(both.platform(alpha, at(0)).breaker.state).toBe("open")
    const lost = dispatcherWith(options(), {})
    for (const model of ["large", "small"]) run(lost, model, succeeded, 0)
    for (let index = 0; index < 3; index++) {
      run(lost, "small", failed(platformFailure({ reason: "unreachable" })), 0)
    }
    const { breaker, modelBreakers } = lost.platform(alpha, at(0))
    expect([breaker.state, modelBreakers.map(({ state }) => state)]).toEqual(["open", ["closed", "closed"]])
  })

  it("is not sick by one model that failed long ago and one that fails now", () => {
    const dispatcher = dispatcherWith(options(), {})
    for (const model of ["large", "small"]) run(dispatcher, model, succeeded, 0)
    run(dispatcher, "large", failed(platformFailure()), 0)
    for (let index = 0; index < 3; index++) run(dispatcher, "small", failed(platformFailure()), 70_000)
    expect(dispatcher.platform(alpha, at(70_000)).breaker).toMatchObject({ state: "closed", consecutiveFailures: 0 })
  })

  it("while half-open asks another model after one has failed", () => {
    const dispatcher = dispatcherWith(options(), {})
    for (const model of ["large", "small"]) run(dispatcher, model, succeeded, 0)
    for (let index = 0; index < 3; index++) run(dispatcher, "large", failed(platformFailure({ reason: "network" })), 0)
    pass(dispatcher, 12_000)
    run(dispatcher, "small", failed(platformFailure()), 12_000)
    expect(dispatcher.platform(alpha, at(12_000))).toMatchObject({
      breaker: { state: "half-open" },
      modelBreakers: [
        { model: "large", state: "closed" },
        { model: "small", state: "open" }
      ]
    })
    expect(isWaiting(dispatcher.enter(of("small"), at(12_000)))).toBe(true)
    run(dispatcher, "large", succeeded, 12_000)
    expect(dispatcher.platform(alpha, at(12_000)).breaker).toMatchObject({ state: "closed", capacityPercent: 10 })
  })

  it("gives a model that recovers its concurrency in steps", () => {
    const dispatcher = dispatcherWith(options(), { maxConcurrent: 20 })
    for (const model of ["large", "small"]) run(dispatcher, model, succeeded, 0)
    for (let index = 0; index < 3; index++) run(dispatcher, "small", failed(platformFailure()), 0)
    pass(dispatcher, 12_000)
    run(dispatcher, "small", succeeded, 12_000)
    const tickets = Array.from({ length: 6 }, () => dispatcher.enter(of("small"), at(12_000)))
    const started = (): number => tickets.filter((ticket) => !isWaiting(ticket)).length
    expect(started()).toBe(2)
    pass(dispatcher, 14_000)
    expect(started()).toBe(5)
    pass(dispatcher, 16_000)
    expect(started()).toBe(6)
  })
})

describe("the ramp of a platform", () => {
  it("limits its concurrency and rate, step by step, and tells each of them with the attempt that began it", () => {
    const events: Array<Happened> = []
    const dispatcher = dispatcherWith(
      { breaker: { failures: 1, openMs: 12_000 }, events },
      { maxConcurrent: 20, requestsPerMinute: 1_000 }
    )
    const attempt = { id: "task", number: 7 }
    dispatcher.settle(heldBy(dispatcher.enter(requestOf({ attempt }), at(0))), failed(platformFailure()), at(0), 0)
    pass(dispatcher, 12_000)
    const probe = heldBy(dispatcher.enter(requestOf(), at(12_000)))
    dispatcher.settle(probe, succeeded, at(12_000), 0)
    const inUse = (): number => dispatcher.platform(alpha, at(12_000)).permits.inUse
    for (let index = 0; index < 30; index++) dispatcher.enter(requestOf({ priority: "HIGH" }), at(12_000))
    const seen = [inUse()]
    for (const ms of [14_000, 16_000, 18_000]) {
      pass(dispatcher, ms)
      seen.push(inUse())
    }
    expect(seen).toEqual([2, 5, 10, 20])
    const changes = events.flatMap(({ at: ms, body }) =>
      body.type === "breaker.changed" ? [[ms, body.from, body.to, body.capacityPercent, body.attempt?.number]] : []
    )
    expect(changes).toEqual([
      [0, "closed", "open", 0, 7],
      [12_000, "open", "half-open", 0, undefined],
      [12_000, "half-open", "closed", 10, undefined],
      [14_000, "closed", "closed", 25, undefined],
      [16_000, "closed", "closed", 50, undefined],
      [18_000, "closed", "closed", 100, undefined]
    ])
  })

  it("goes on though nobody calls", () => {
    const dispatcher = dispatcherWith({ breaker: { failures: 1, openMs: 12_000 } }, {})
    dispatcher.settle(heldBy(dispatcher.enter(requestOf(), at(0))), failed(platformFailure()), at(0), 0)
    pass(dispatcher, 12_000)
    dispatcher.settle(heldBy(dispatcher.enter(requestOf(), at(12_000))), succeeded, at(12_000), 0)
    pass(dispatcher, 30_000)
    expect(dispatcher.due()).toBe(Number.POSITIVE_INFINITY)
    expect(dispatcher.platform(alpha, at(30_000)).breaker.capacityPercent).toBe(100)
  })
})

describe("what happens to a platform is told", () => {
  it("when it is taken out of service and comes back, once", () => {
    const events: Array<Happened> = []
    const dispatcher = dispatcherWith({ events }, {})
    dispatcher.setOut(alpha, undefined, { reason: "bad key", until: 5_000 }, at(0))
    dispatcher.setOut(alpha, undefined, { reason: "bad key", until: 9_000 }, at(1))
    dispatcher.setOut(alpha, "small", { reason: "unknown" }, at(2))
    pass(dispatcher, 20_000)
    dispatcher.setOut(alpha, "small", undefined, at(20_000))
    dispatcher.setOut(alpha, undefined, undefined, at(20_000))
    expect(events.map(({ at: ms, body }) => [ms, body.type, "model" in body ? body.model : undefined])).toEqual([
      [0, "platform.out", undefined],
      [2, "platform.out", "small"],
      [9_000, "platform.back", undefined],
      [20_000, "platform.back", "small"]
    ])
  })

  it("when its quota is used up, by which attempt, and when it is there again, though nobody waits", () => {
    const events: Array<Happened> = []
    const dispatcher = dispatcherWith({ events }, {})
    const attempt = { id: "task", number: 2 }
    const refused = failed(quotaFailure({ reason: "window", window: "primary", resetsAt: 3_600_000 }))
    dispatcher.settle(heldBy(dispatcher.enter(requestOf({ attempt }), at(0))), refused, at(0), 0)
    pass(dispatcher, 3_600_000)
    expect(events.map(({ at: ms, body }) => [ms, body.type, "attempt" in body ? body.attempt : undefined])).toEqual([
      [0, "quota.exhausted", attempt],
      [3_600_000, "quota.reset", undefined]
    ])
  })
})

describe("room after a wait in vain", () => {
  const busy = (comesBack: boolean, maxWaitMs: number) => {
    const room: Array<PlatformId> = []
    const dispatcher = dispatcherWith({ room }, { maxConcurrent: 1 })
    const running = heldBy(dispatcher.enter(requestOf({}), at(0)))
    const waiting = dispatcher.enter(requestOf({ comesBack, maxWaitMs }), at(0))
    pass(dispatcher, maxWaitMs)
    expect(refusalOf(waiting).earliestAt).toBeUndefined()
    return { dispatcher, room, running }
  }

  it("is told to those who come back, once, as soon as it is there", () => {
    const { dispatcher, room, running } = busy(true, 30_000)
    expect(room).toEqual([])
    dispatcher.settle(running, succeeded, at(31_000), 0)
    expect(room).toEqual([alpha])
    dispatcher.settle(heldBy(dispatcher.enter(requestOf({}), at(32_000))), succeeded, at(33_000), 0)
    expect(room).toEqual([alpha])
  })

  it("is not told while somebody else takes it", () => {
    const { dispatcher, room, running } = busy(true, 30_000)
    const next = dispatcher.enter(requestOf({}), at(30_500))
    dispatcher.settle(running, succeeded, at(31_000), 0)
    expect(room).toEqual([])
    dispatcher.settle(heldBy(next), succeeded, at(32_000), 0)
    expect(room).toEqual([alpha])
  })

  it("is not told to those who do not come back, nor to those who gave up at once and would do so again", () => {
    for (const { dispatcher, room, running } of [busy(false, 30_000), busy(true, 500)]) {
      dispatcher.settle(running, succeeded, at(31_000), 0)
      expect(room).toEqual([])
    }
  })
})

describe("a refusal at once", () => {
  it("is certain: as many calls of its kind go first as can start until its deadline", () => {
    const dispatcher = dispatcherOf({ requestsPerMinute: 10 })
    const call = (maxWaitMs: number) => requestOf({ priority: "HIGH", maxWaitMs })
    for (let index = 0; index < 10; index++) {
      dispatcher.started(heldBy(dispatcher.enter(call(0), at(0))), [], at(0))
    }
    const first = Array.from({ length: 10 }, () => dispatcher.enter(call(61_000), at(0)))
    expect(first.every(isWaiting)).toBe(true)
    expect(dispatcher.forecast(call(61_000), at(0))?.message).toContain("10 calls go before this one")
    expect(refusalOf(dispatcher.enter(call(61_000), at(0))).reasons).toHaveLength(1)
    // the one after the next minute, and those of other tenants, may still come to their turn
    expect(isWaiting(dispatcher.enter(call(200_000), at(0)))).toBe(true)
    expect(isWaiting(dispatcher.enter({ ...call(61_000), tenant: tenant("other") }, at(0)))).toBe(true)
  })

  it("is foretold without a trace", () => {
    const dispatcher = dispatcherOf({ maxConcurrent: 1 })
    expect(dispatcher.forecast(requestOf(), at(0))).toBeUndefined()
    dispatcher.exhaust(alpha, quota(60_000), at(0))
    expect(dispatcher.forecast(requestOf({ maxWaitMs: 59_000 }), at(0))).toMatchObject({ earliestAt: 60_000 })
    expect(dispatcher.forecast(requestOf({ maxWaitMs: 61_000 }), at(0))).toBeUndefined()
    expect(dispatcher.view(at(0))).toMatchObject({
      platforms: [{ permits: { inUse: 0 } }],
      queue: { MEDIUM: { depth: 0 } }
    })
  })

  it("reaches those who wait, as soon as it is certain, and nobody else", () => {
    const dispatcher = dispatcherOf({ maxConcurrent: 1 }, { maxConcurrent: 1 })
    const both = [candidate(alpha), candidate(beta)]
    for (const each of both) heldBy(dispatcher.enter(requestOf({ candidates: [each] }), at(0)))
    const short = dispatcher.enter(requestOf({ maxWaitMs: 10_000 }), at(0))
    const long = dispatcher.enter(requestOf({ maxWaitMs: 90_000 }), at(0))
    const either = dispatcher.enter(requestOf({ candidates: both, maxWaitMs: 10_000 }), at(0))
    const later = dispatcher.enter(
      requestOf({ candidates: [candidate(alpha), candidate(beta, 1, 20_000)], maxWaitMs: 10_000 }),
      at(0)
    )
    dispatcher.exhaust(alpha, quota(60_000), at(1))
    expect([short, long, either, later].map(isWaiting)).toEqual([false, true, true, false])
    expect(refusalOf(short)).toMatchObject({ earliestAt: 60_000 })
    dispatcher.setOut(alpha, undefined, { reason: "bad key" }, at(2))
    expect([long, either].map(isWaiting)).toEqual([false, true])
  })
})

describe("admission", () => {
  it("is by the bytes of waiting calls, and of bodies being read", () => {
    const dispatcher = dispatcherWith({ maxBytes: 1_000 }, { maxConcurrent: 1 })
    const call = (bytes: number) => requestOf({ bytes })
    const first = heldBy(dispatcher.enter(call(5_000), at(0)))
    const waiting = dispatcher.enter(call(600), at(0))
    expect(dispatcher.tryHold(401)).toBe(false)
    expect(dispatcher.tryHold(400)).toBe(true)
    expect(dispatcher.view(at(0)).admission).toEqual({ waiting: 1, maxWaiting: 10_000, bytes: 1_000, maxBytes: 1_000 })
    expect(refusalOf(dispatcher.enter(call(1), at(0))).message).toContain("1000 bytes already")
    dispatcher.release(400)
    expect(isWaiting(dispatcher.enter(call(400), at(0)))).toBe(true)
    dispatcher.settle(first, succeeded, at(1), 0)
    expect(platformOfTicket(waiting)).toBe(alpha)
    expect(dispatcher.view(at(1)).admission.bytes).toBe(400)
  })
})

describe("a restart", () => {
  const restarted = (dispatcher: Dispatcher.Dispatcher, isClean: boolean, ms: number) => {
    const state = dispatcher.save(alpha, at(ms))
    if (state === undefined) throw new Error("it has no books")
    const next = dispatcherWith({ breaker: { failures: 1, openMs: 12_000 } }, { requestsPerMinute: 100 })
    next.restore(alpha, { savedAt: ms, isClean, ...state }, at(ms))
    return next
  }

  it("keeps what was spent, quotas and breakers", () => {
    const dispatcher = dispatcherWith({ breaker: { failures: 1, openMs: 12_000 } }, { requestsPerMinute: 100 })
    for (let index = 0; index < 3; index++) {
      dispatcher.settle(heldBy(dispatcher.enter(requestOf(), at(0))), succeeded, at(0), 0)
    }
    dispatcher.exhaust(alpha, quota(500_000), at(0))
    dispatcher.clearExhausted(alpha, at(0))
    dispatcher.exhaust(alpha, { window: "weekly", until: 900_000, why: "used up" }, at(0))
    const next = restarted(dispatcher, true, 1_000)
    const view = next.platform(alpha, at(1_000))
    expect([view.buckets[0]?.used, view.exhausted.map(({ window }) => window)]).toEqual([3, ["weekly"]])
    expect(next.due()).toBe(900_000)
    const sick = dispatcherWith({ breaker: { failures: 1, openMs: 12_000 } }, { requestsPerMinute: 100 })
    sick.settle(heldBy(sick.enter(requestOf(), at(0))), failed(platformFailure()), at(0), 0)
    expect(restarted(sick, true, 4_000).platform(alpha, at(4_000)).breaker).toMatchObject({
      state: "open",
      probesAt: 12_000
    })
  })

  it("after a crash counts as spent what could have been granted since the last save", () => {
    const dispatcher = dispatcherOf({ requestsPerMinute: 100 })
    dispatcher.settle(heldBy(dispatcher.enter(requestOf(), at(0))), succeeded, at(0), 0)
    expect(restarted(dispatcher, false, 1_000).platform(alpha, at(1_000)).buckets[0]?.used).toBe(26)
  })

  it("tells which books have changed since they reached the disk", () => {
    const dispatcher = dispatcherOf({ requestsPerMinute: 100 }, {})
    const save = (): void => {
      for (const platform of dispatcher.unsaved().platforms) {
        const state = dispatcher.save(platform, at(0))
        if (state !== undefined) dispatcher.saved(platform, state, at(0))
      }
    }
    expect(dispatcher.unsaved().platforms).toEqual([alpha, beta])
    save()
    expect(dispatcher.unsaved()).toEqual({ platforms: [], isPressing: false })
    heldBy(dispatcher.enter(requestOf(), at(0)))
    dispatcher.save(alpha, at(0))
    expect(dispatcher.unsaved()).toEqual({ platforms: [alpha], isPressing: false })
    save()
    const tickets = Array.from({ length: 30 }, () => dispatcher.enter(requestOf({ priority: "HIGH" }), at(0)))
    expect(dispatcher.unsaved().isPressing).toBe(true)
    expect(tickets.filter(isWaiting)).toHaveLength(5)
    save()
    expect(tickets.filter(isWaiting)).toEqual([])
  })
})
