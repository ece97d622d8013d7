import assert from "node:assert/strict"
import { FastCheck } from "effect"
import { describe, it } from "vitest"
import { CredentialFailure, PlatformFailure, QuotaFailure } from "../../src/Domain/Failure.js"
import type { Settlement } from "../../src/Domain/Lease.js"
import type { PlatformId } from "../../src/Domain/Platform.js"
import type { Priority } from "../../src/Domain/Task.js"
import * as Dispatcher from "../../src/ResourceManager/Dispatcher.js"
import { type Budget, makeLocal } from "../../src/ResourceManager/PlatformBudget.js"
import type { PlatformLimits } from "../../src/Settings.js"
import { candidate, id, limitsOf, requestOf, tenant, usageOf } from "./fixtures.js"

const MINUTE = 60_000
const platforms = [id("p0"), id("p1"), id("p2")]

/** One attempt as the provider sees it: it arrives at some moment from `from` to `to`. */
interface Sent {
  readonly platform: PlatformId
  readonly inputTokens: number
  readonly outputTokens: number
  readonly maxOutput: number
  /** 429 and the like: no model worked for it. */
  wasRefused: boolean
  readonly from: number
  headersAt: number | undefined
  endAt: number | undefined
}

interface Running {
  readonly held: Dispatcher.Held
  readonly sent: Sent
}

/** The service and a strict provider around it, driven by a random schedule. */
const makeWorld = (limits: ReadonlyArray<PlatformLimits>) => {
  const budgets = new Map<PlatformId, Budget>(
    platforms.map((platform, index) => [platform, makeLocal(limits[index] ?? limitsOf({}))])
  )
  const dispatcher = Dispatcher.make({
    platforms: [...budgets].map(([platform, budget]) => ({
      id: platform,
      budget,
      breaker: { failures: 3, openMs: 20_000 }
    })),
    onTransition: () => {}
  })
  const outUntil = new Map<PlatformId, number>()
  const tickets: Array<{ readonly ticket: Dispatcher.Ticket; readonly input: number }> = []
  const running: Array<Running> = []
  const sent: Array<Sent> = []
  let now = 0
  const at = () => ({ ms: now, epochMs: now })

  /** Granted tickets are picked up by their callers. */
  const pickUp = (): void => {
    for (let index = 0; index < tickets.length; index++) {
      const { input, ticket } = tickets[index] ?? {}
      if (ticket?.answer === undefined || input === undefined) continue
      tickets.splice(index, 1)
      index -= 1
      if (ticket.answer._tag === "Refused") continue
      const { held } = ticket.answer
      const attempt: Sent = {
        platform: held.platform,
        inputTokens: input,
        outputTokens: Math.floor(ticket.tokens.maxOutput / 2),
        maxOutput: ticket.tokens.maxOutput,
        wasRefused: false,
        from: held.grant.at,
        headersAt: undefined,
        endAt: undefined
      }
      sent.push(attempt)
      running.push({ held, sent: attempt })
    }
  }

  /** Those of the waiting that a platform would serve now. */
  const servable = (waiting: ReadonlyArray<Dispatcher.Ticket>): ReadonlyArray<Dispatcher.Ticket> => {
    if (waiting.length === 0) return []
    const well = new Set(
      platforms.filter(
        (platform) =>
          (outUntil.get(platform) ?? 0) <= now && dispatcher.platform(platform, at()).breaker.state === "closed"
      )
    )
    return waiting.filter((ticket) =>
      ticket.options.some(
        ({ notBefore, slot }) =>
          notBefore <= now && well.has(slot.id) && budgets.get(slot.id)?.fits(ticket.tokens, at()) === true
      )
    )
  }

  const finish = (index: number, settlement: (attempt: Sent) => Settlement): void => {
    const [ended] = running.splice(index, 1)
    if (ended === undefined) return
    const settled = settlement(ended.sent)
    ended.sent.endAt = now
    ended.sent.headersAt ??= now
    ended.sent.wasRefused = settled._tag === "Failed" && settled.failure._tag !== "PlatformFailure"
    dispatcher.settle(ended.held, settled, at(), 0.5)
    dispatcher.settle(ended.held, { _tag: "Ignored" }, at(), 0.5)
  }

  return {
    dispatcher,
    tickets,
    running,
    sent,
    at,
    pickUp,
    servable,
    setOut: (platform: PlatformId, until: number | undefined): void => {
      outUntil.set(platform, until ?? 0)
      dispatcher.setOut(platform, undefined, until === undefined ? undefined : { reason: "drained", until }, at())
    },
    advance: (ms: number, check: () => void): void => {
      const target = now + ms
      while (dispatcher.due() <= target) {
        const due = dispatcher.due()
        assert.ok(due >= now)
        now = due
        dispatcher.tick(at())
        assert.ok(dispatcher.due() > now)
        pickUp()
        check()
      }
      now = target
    },
    finish,
    end: (index: number, settlement: (attempt: Sent) => Settlement): void => {
      finish(index, settlement)
      pickUp()
    }
  }
}
type World = ReturnType<typeof makeWorld>

/** The most that the strictest provider can find in any rolling window of `windowMs`, wherever attempts arrived. */
const worstWindow = (
  sent: ReadonlyArray<{ readonly from: number; readonly to: number; readonly amount: number }>,
  windowMs: number
): number =>
  sent.reduce(
    (worst, { to: start }) =>
      Math.max(
        worst,
        sent.reduce((sum, { amount, from, to }) => (from <= start + windowMs && to >= start ? sum + amount : sum), 0)
      ),
    0
  )

const checkLimits = (world: World, limits: ReadonlyArray<PlatformLimits>): void => {
  const end = world.at().ms
  for (const [index, platform] of platforms.entries()) {
    const of = limits[index]
    if (of === undefined) continue
    const sent = world.sent.filter((attempt) => attempt.platform === platform)
    const requests = sent.map(({ from, headersAt }) => ({ from, to: headersAt ?? end, amount: 1 }))
    if (of.requestsPerMinute !== undefined) {
      assert.ok(worstWindow(requests, MINUTE) <= of.requestsPerMinute)
    }
    if (of.windowRequests !== undefined && of.windowMs !== undefined) {
      assert.ok(worstWindow(requests, of.windowMs) <= of.windowRequests)
    }
    if (of.tokensPerMinute === undefined) continue
    const tokens = sent.map((attempt) => {
      const { endAt, from, headersAt, inputTokens, maxOutput, outputTokens, wasRefused } = attempt
      if (of.tokensCounted === "actual") {
        return { from, to: endAt ?? end, amount: wasRefused ? 0 : inputTokens + outputTokens }
      }
      return { from, to: headersAt ?? end, amount: inputTokens + (of.tokensCounted === "reserved" ? maxOutput : 0) }
    })
    assert.ok(worstWindow(tokens, MINUTE) <= of.tokensPerMinute)
  }
}

const checkPermits = (world: World): void => {
  for (const { permits, platform } of world.dispatcher.view(world.at()).platforms) {
    assert.equal(permits.inUse, world.running.filter(({ held }) => held.platform === platform).length)
    assert.ok(permits.inUse <= permits.max)
  }
}

const priority = FastCheck.constantFrom<Priority>("HIGH", "MEDIUM", "LOW")
const ms = FastCheck.oneof(FastCheck.nat(2_000), FastCheck.nat(70_000))

const action = FastCheck.oneof(
  {
    weight: 10,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("enter" as const),
      count: FastCheck.integer({ min: 1, max: 6 }),
      candidates: FastCheck.subarray(platforms, { minLength: 1 }),
      notBeforeMs: FastCheck.oneof(FastCheck.constant(0), FastCheck.nat(20_000)),
      priority,
      tenant: FastCheck.constantFrom("a", "b"),
      input: FastCheck.nat(400),
      /** What the input really is, as a part of what it is bounded by. */
      inputError: FastCheck.double({ min: 0, max: 1, noNaN: true }),
      maxOutput: FastCheck.nat(400),
      maxWaitMs: FastCheck.oneof(FastCheck.nat(5_000), FastCheck.constant(600_000))
    })
  },
  {
    weight: 8,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("settle" as const),
      pick: FastCheck.nat(),
      how: FastCheck.constantFrom("answer", "answer", "answer", "quota", "window", "platform", "credential", "ignored")
    })
  },
  {
    weight: 6,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("started" as const),
      pick: FastCheck.nat(),
      remaining: FastCheck.option(FastCheck.nat(30), { nil: undefined })
    })
  },
  { weight: 3, arbitrary: FastCheck.record({ _tag: FastCheck.constant("leave" as const), pick: FastCheck.nat() }) },
  { weight: 2, arbitrary: FastCheck.record({ _tag: FastCheck.constant("race" as const), pick: FastCheck.nat() }) },
  { weight: 10, arbitrary: FastCheck.record({ _tag: FastCheck.constant("advance" as const), ms }) },
  {
    weight: 1,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("setOut" as const),
      platform: FastCheck.constantFrom(...platforms),
      forMs: FastCheck.option(ms, { nil: undefined })
    })
  },
  {
    weight: 1,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("exhaust" as const),
      platform: FastCheck.constantFrom(...platforms),
      forMs: ms
    })
  }
)
type Action = typeof action extends FastCheck.Arbitrary<infer A> ? A : never

const limitsArbitrary = FastCheck.array(
  FastCheck.record({
    requestsPerMinute: FastCheck.option(FastCheck.integer({ min: 1, max: 12 }), { nil: undefined }),
    tokensPerMinute: FastCheck.option(FastCheck.integer({ min: 1_000, max: 5_000 }), { nil: undefined }),
    tokensCounted: FastCheck.constantFrom("reserved" as const, "input" as const, "actual" as const),
    burst: FastCheck.option(FastCheck.integer({ min: 1, max: 4 }), { nil: undefined }),
    windowRequests: FastCheck.option(FastCheck.integer({ min: 1, max: 20 }), { nil: undefined }),
    windowMs: FastCheck.constant(150_000),
    maxConcurrent: FastCheck.integer({ min: 1, max: 5 })
  }),
  { minLength: 3, maxLength: 3 }
)

const settlementOf = (how: string, attempt: Sent): Settlement => {
  const { inputTokens, outputTokens, platform } = attempt
  switch (how) {
    case "answer":
      return { _tag: "Succeeded", usage: usageOf(inputTokens, outputTokens) }
    case "quota":
      return {
        _tag: "Failed",
        failure: new QuotaFailure({ platform, message: "", reason: "rate", retryAfterMs: 3_000 })
      }
    case "window":
      return { _tag: "Failed", failure: new QuotaFailure({ platform, message: "", reason: "window" }) }
    case "platform":
      return { _tag: "Failed", failure: new PlatformFailure({ platform, message: "", reason: "server" }) }
    case "credential":
      return { _tag: "Failed", failure: new CredentialFailure({ platform, message: "" }) }
    default:
      return { _tag: "Ignored" }
  }
}

const states = (world: World) =>
  new Map(
    world.dispatcher
      .view(world.at())
      .platforms.map(({ breaker, exhaustedUntil, platform }) => [platform, { breaker, exhaustedUntil }])
  )

/** A failure on one platform: what may change of it, and that nothing changes of the others. */
const checkScope = (
  before: ReturnType<typeof states>,
  after: ReturnType<typeof states>,
  failed: PlatformId,
  how: string
): void => {
  for (const platform of platforms) {
    const [old, now] = [before.get(platform), after.get(platform)]
    if (platform !== failed) assert.deepEqual(now, old)
    else {
      if (how !== "platform" && how !== "answer") assert.deepEqual(now?.breaker, old?.breaker)
      if (how !== "quota" && how !== "window") assert.equal(now?.exhaustedUntil, old?.exhaustedUntil)
    }
  }
}

const play = (limits: ReadonlyArray<PlatformLimits>, actions: ReadonlyArray<Action>, isUniform: boolean): void => {
  const world = makeWorld(limits)
  const { dispatcher } = world

  const check = (): void => {
    checkPermits(world)
    const waiting = world.tickets.map(({ ticket }) => ticket)
    // calls of one size: whoever could start would have; of many sizes, those that rank first would have
    const first = isUniform ? waiting : waiting.slice(0, 1)
    assert.deepEqual(world.servable(first), [])
  }

  const run = (next: Action): void => {
    const now = world.at()
    switch (next._tag) {
      case "enter":
        for (let count = 0; count < next.count; count++) {
          const tokens = isUniform ? { input: 0, maxOutput: 0 } : { input: next.input, maxOutput: next.maxOutput }
          const ticket = dispatcher.enter(
            requestOf({
              candidates: next.candidates.map((platform, index) =>
                candidate(platform, index + 1, index === 0 ? now.ms + next.notBeforeMs : 0)
              ),
              priority: isUniform ? next.priority : "MEDIUM",
              tenant: tenant(isUniform ? next.tenant : "a"),
              tokens,
              maxWaitMs: next.maxWaitMs
            }),
            now
          )
          world.tickets.push({ ticket, input: Math.max(1, Math.floor(tokens.input * 1.25 * next.inputError)) })
          world.pickUp()
        }
        return
      case "settle": {
        const index = next.pick % Math.max(1, world.running.length)
        const failed = world.running[index]?.held.platform
        if (failed === undefined) return
        const before = states(world)
        world.end(index, (attempt) => settlementOf(next.how, attempt))
        checkScope(before, states(world), failed, next.how)
        return
      }
      case "started": {
        const chosen = world.running[next.pick % Math.max(1, world.running.length)]
        if (chosen === undefined || chosen.sent.headersAt !== undefined) return
        chosen.sent.headersAt = now.ms
        const { remaining } = next
        dispatcher.started(chosen.held, remaining === undefined ? [] : [{ unit: "requests", remaining }], now)
        world.pickUp()
        return
      }
      case "leave": {
        const [gone] = world.tickets.splice(next.pick % Math.max(1, world.tickets.length), 1)
        if (gone !== undefined) dispatcher.leave(gone.ticket, now)
        world.pickUp()
        return
      }
      case "race": {
        // one ends, another is granted its place and is interrupted before it knows
        world.finish(next.pick % Math.max(1, world.running.length), (attempt) => settlementOf("answer", attempt))
        const index = world.tickets.findIndex(({ ticket }) => ticket.answer?._tag === "Granted")
        const [gone] = index < 0 ? [] : world.tickets.splice(index, 1)
        if (gone !== undefined) dispatcher.leave(gone.ticket, now)
        world.pickUp()
        return
      }
      case "advance":
        world.advance(next.ms, check)
        return
      case "setOut":
        world.setOut(next.platform, next.forMs === undefined ? undefined : now.ms + next.forMs)
        world.pickUp()
        return
      case "exhaust":
        dispatcher.exhaust(next.platform, now.ms + next.forMs, now)
        world.pickUp()
    }
  }

  for (const next of actions) {
    run(next)
    check()
  }
  // quiet: everything that runs or is still granted ends, and every wait has its answer
  for (let steps = 0; world.running.length > 0 || world.tickets.length > 0; steps++) {
    assert.ok(steps < 200)
    while (world.running.length > 0) world.end(0, (attempt) => settlementOf("answer", attempt))
    check()
    world.advance(10_000, check)
  }
  const { platforms: quiet, queue } = dispatcher.view(world.at())
  assert.deepEqual(
    quiet.map(({ permits }) => permits.inUse),
    [0, 0, 0]
  )
  assert.deepEqual([queue.HIGH.depth, queue.MEDIUM.depth, queue.LOW.depth], [0, 0, 0])
  checkLimits(world, limits)
}

describe("whatever happens in whatever order", () => {
  const schedule = FastCheck.array(action, { maxLength: 60, size: "max" })

  it("no window of any limit is exceeded, permits match, failures keep to their scope, nobody who could start waits", () => {
    FastCheck.assert(
      FastCheck.property(limitsArbitrary, schedule, (limits, actions) => play(limits, actions, true)),
      { numRuns: 150 }
    )
  }, 60_000)

  it("the same with calls of many sizes, however their tokens are counted", () => {
    FastCheck.assert(
      FastCheck.property(limitsArbitrary, schedule, (limits, actions) => play(limits, actions, false)),
      { numRuns: 150 }
    )
  }, 60_000)
})
