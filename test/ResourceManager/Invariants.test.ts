import assert from "node:assert/strict"
import { Context, Effect, Exit, FastCheck, Fiber, Layer, Scope, TestClock, TestContext } from "effect"
import { describe, it } from "vitest"
import { CredentialFailure, type LeaseUnavailable, PlatformFailure, QuotaFailure } from "../../src/Domain/Failure.js"
import type { Settlement } from "../../src/Domain/Lease.js"
import type { PlatformId } from "../../src/Domain/Platform.js"
import type { Priority } from "../../src/Domain/Task.js"
import { monotonicMs } from "../../src/Domain/Time.js"
import * as Dispatcher from "../../src/ResourceManager/Dispatcher.js"
import { type Ask, type Budget, makeLocal, PlatformBudget } from "../../src/ResourceManager/PlatformBudget.js"
import type { SavedPlatform } from "../../src/ResourceManager/Saved.js"
import * as WaitingLine from "../../src/ResourceManager/WaitingLine.js"
import { ResourceManager, ResourceStore, type ResourceStoreFailed } from "../../src/ResourceManager.js"
import { type PlatformLimits, Settings } from "../../src/Settings.js"
import { jumpingClock } from "../support/jumpingClock.js"
import { candidate, id, limitsOf, platformOf, requestOf, settingsOf, tenant, usageOf } from "./fixtures.js"

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
  /** No connection was made. */
  wasUnreachable: boolean
  readonly from: number
  headersAt: number | undefined
  endAt: number | undefined
}

interface Running {
  readonly held: Dispatcher.Held
  readonly sent: Sent
}

interface WorldOptions {
  readonly limits: ReadonlyArray<PlatformLimits>
  /** Real input over its estimate: the same for all, so that a bound that was learned holds. */
  readonly inputRatio: number
}

/** What every answer comes to: the same for all, for the same reason. */
const OUTPUT = 50

/** The service and a strict provider around it, driven by a random schedule. */
const makeWorld = ({ inputRatio, limits }: WorldOptions) => {
  const start = () => {
    const budgets = new Map<PlatformId, Budget>(
      platforms.map((platform, index) => [platform, makeLocal({ limits: limits[index] ?? limitsOf({}), prices: {} })])
    )
    const dispatcher = Dispatcher.make({
      platforms: [...budgets].map(([platform, budget]) => ({
        id: platform,
        budget,
        breaker: { failures: 3, openMs: 20_000 }
      })),
      onTransition: () => {},
      onEvent: () => {},
      onRoom: () => {},
      maxBytes: 1_000_000
    })
    return { budgets, dispatcher }
  }
  let process = start()
  /** What a crash leaves behind. */
  const disk = new Map<PlatformId, SavedPlatform>()
  const outUntil = new Map<PlatformId, number>()
  const tickets: Array<Dispatcher.Ticket> = []
  const running: Array<Running> = []
  const sent: Array<Sent> = []
  let now = 0
  /** Each process has a monotonic clock of its own, and the wall clock is set now and then. */
  let startedAt = 0
  let wallAhead = 1_000_000_000
  const at = () => ({ ms: now - startedAt, epochMs: now + wallAhead })

  const save = (hasReachedDisk = true): void => {
    for (const platform of platforms) {
      const state = process.dispatcher.save(platform, at())
      if (state === undefined || !hasReachedDisk) continue
      disk.set(platform, { savedAt: at().epochMs, isClean: false, ...state })
      process.dispatcher.saved(platform, state, at())
    }
    pickUp()
  }

  /** Granted tickets are picked up by their callers. */
  const pickUp = (): void => {
    for (let index = 0; index < tickets.length; index++) {
      const ticket = tickets[index]
      if (ticket?.answer === undefined) continue
      tickets.splice(index, 1)
      index -= 1
      if (ticket.answer._tag === "Refused") continue
      const { held } = ticket.answer
      const { input, maxOutput } = ticket.request.tokens
      const attempt: Sent = {
        platform: held.platform,
        inputTokens: Math.max(1, Math.round(input * inputRatio)),
        outputTokens: Math.min(OUTPUT, maxOutput),
        maxOutput,
        wasRefused: false,
        wasUnreachable: false,
        from: held.taken.grant.at + startedAt,
        headersAt: undefined,
        endAt: undefined
      }
      sent.push(attempt)
      running.push({ held, sent: attempt })
    }
    if (process.dispatcher.unsaved().isPressing) save()
  }

  const askOf = (ticket: Dispatcher.Ticket, model: string): Ask => ({
    tokens: ticket.request.tokens,
    model,
    type: ticket.request.type,
    mayUseReserve: ticket.priority === "HIGH"
  })

  /** Those of the waiting that a platform would serve now, without delay to another of them that does not fit yet. */
  const servable = (waiting: ReadonlyArray<Dispatcher.Ticket>): ReadonlyArray<Dispatcher.Ticket> => {
    if (waiting.length === 0) return []
    const views = new Map(platforms.map((platform) => [platform, process.dispatcher.platform(platform, at())]))
    return waiting.filter((ticket) =>
      ticket.options.some((option) => {
        const { model, slot } = option
        const view = views.get(slot.id)
        const budget = process.budgets.get(slot.id)
        if (view === undefined || budget === undefined) return false
        const isWell =
          (outUntil.get(slot.id) ?? 0) <= now &&
          view.breaker.state === "closed" &&
          view.modelBreakers.every((its) => its.model !== model || its.capacityPercent === 100)
        const ask = askOf(ticket, model)
        const isOpen = WaitingLine.opensAt(ticket, option) <= at().ms
        if (!isWell || !isOpen || !budget.fits(ask, at())) return false
        return !waiting.some((other) =>
          other.options.some(
            (its) =>
              its.slot === slot &&
              // as it is, and as one that is owed its share
              [askOf(other, its.model), { ...askOf(other, its.model), mayUseReserve: true }].some(
                (first) => !budget.fits(first, at()) && budget.delays(ask, first, at())
              )
          )
        )
      })
    )
  }

  const finish = (index: number, settlement: (attempt: Sent) => Settlement): void => {
    const [ended] = running.splice(index, 1)
    if (ended === undefined) return
    const settled = settlement(ended.sent)
    const isPlatforms = settled._tag === "Failed" && settled.failure._tag === "PlatformFailure"
    ended.sent.wasUnreachable =
      isPlatforms && settled.failure.reason === "unreachable" && ended.sent.headersAt === undefined
    ended.sent.endAt = now
    ended.sent.headersAt ??= now
    ended.sent.wasRefused = settled._tag === "Failed" && !isPlatforms
    process.dispatcher.settle(ended.held, settled, at(), 0.5)
    process.dispatcher.settle(ended.held, { _tag: "Ignored" }, at(), 0.5)
  }

  save()

  return {
    dispatcher: () => process.dispatcher,
    tickets,
    running,
    sent,
    at,
    now: () => now,
    pickUp,
    save,
    servable,
    setOut: (platform: PlatformId, forMs: number | undefined): void => {
      outUntil.set(platform, forMs === undefined ? 0 : now + forMs)
      const out = forMs === undefined ? undefined : { reason: "drained", until: at().epochMs + forMs }
      process.dispatcher.setOut(platform, undefined, out, at())
    },
    /** The wall clock is set; what is out of service by it is back at another moment. */
    jump: (byMs: number): void => {
      wallAhead += byMs
      for (const [platform, until] of outUntil) outUntil.set(platform, until - byMs)
      process.dispatcher.tick(at())
      save()
    },
    /** The process dies with all that waits and runs; what it had sent arrived before. The next one starts at once. */
    crash: (): void => {
      for (const { sent: attempt } of running) {
        attempt.headersAt ??= now
        attempt.endAt ??= now
      }
      running.length = 0
      tickets.length = 0
      outUntil.clear()
      startedAt = now - 5
      process = start()
      for (const [platform, state] of disk) process.dispatcher.restore(platform, state, at())
      save()
    },
    advance: (ms: number, check: () => void): void => {
      const target = now + ms
      while (process.dispatcher.due() + startedAt <= target) {
        const due = process.dispatcher.due() + startedAt
        assert.ok(due >= now)
        // as timers do, in whole milliseconds
        now = Math.ceil(due)
        if (at().ms < process.dispatcher.due()) now += 1
        process.dispatcher.tick(at())
        assert.ok(process.dispatcher.due() > at().ms)
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

const checkSent = (all: ReadonlyArray<Sent>, limits: ReadonlyArray<PlatformLimits>, end: number): void => {
  for (const [index, platform] of platforms.entries()) {
    const of = limits[index]
    if (of === undefined) continue
    const sent = all.filter((attempt) => attempt.platform === platform && !attempt.wasUnreachable)
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
  for (const { permits, platform } of world.dispatcher().view(world.at()).platforms) {
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
      input: FastCheck.nat(4).map((hundreds) => hundreds * 100),
      maxOutput: FastCheck.integer({ min: OUTPUT, max: 400 }),
      models: FastCheck.subarray(["small", "large"], { minLength: 1 }),
      weight: FastCheck.constantFrom(1, 1, 5),
      patienceMs: FastCheck.constantFrom(0, 0, 2_000, 30_000),
      maxWaitMs: FastCheck.oneof(FastCheck.nat(5_000), FastCheck.constant(600_000))
    })
  },
  {
    weight: 8,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("settle" as const),
      pick: FastCheck.nat(),
      how: FastCheck.constantFrom(
        "answer",
        "answer",
        "answer",
        "answer",
        "quota",
        "window",
        "platform",
        "platform",
        "unreachable",
        "credential",
        "ignored"
      )
    })
  },
  {
    weight: 6,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("started" as const),
      pick: FastCheck.nat(),
      limit: FastCheck.option(FastCheck.integer({ min: 1, max: 30 }), { nil: undefined }),
      remaining: FastCheck.option(FastCheck.nat(30), { nil: undefined })
    })
  },
  {
    weight: 2,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("correct" as const),
      platform: FastCheck.constantFrom(...platforms),
      unit: FastCheck.constantFrom("requests" as const, "tokens" as const),
      windowMs: FastCheck.constantFrom(MINUTE, 150_000),
      remaining: FastCheck.nat(30),
      refillsInMs: FastCheck.option(FastCheck.nat(20_000), { nil: undefined })
    })
  },
  {
    weight: 1,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("jump" as const),
      byMs: FastCheck.integer({ min: -120_000, max: 120_000 })
    })
  },
  {
    weight: 2,
    arbitrary: FastCheck.record({ _tag: FastCheck.constant("save" as const), hasReachedDisk: FastCheck.boolean() })
  },
  { weight: 1, arbitrary: FastCheck.record({ _tag: FastCheck.constant("crash" as const) }) },
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
    tokensPerMinute: FastCheck.option(FastCheck.integer({ min: 1_300, max: 5_000 }), { nil: undefined }),
    tokensCounted: FastCheck.constantFrom("reserved" as const, "input" as const, "actual" as const),
    burst: FastCheck.option(FastCheck.integer({ min: 1, max: 4 }), { nil: undefined }),
    windowRequests: FastCheck.option(FastCheck.integer({ min: 1, max: 20 }), { nil: undefined }),
    windowMs: FastCheck.constant(150_000),
    maxConcurrent: FastCheck.integer({ min: 1, max: 5 }),
    maxConcurrentPerModel: FastCheck.option(FastCheck.integer({ min: 1, max: 3 }), { nil: undefined })
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
    case "unreachable":
      return { _tag: "Failed", failure: new PlatformFailure({ platform, message: "", reason: "unreachable" }) }
    case "credential":
      return { _tag: "Failed", failure: new CredentialFailure({ platform, message: "" }) }
    default:
      return { _tag: "Ignored" }
  }
}

const states = (world: World) =>
  new Map(
    world
      .dispatcher()
      .view(world.at())
      .platforms.map(({ breaker, exhausted, modelBreakers, platform }) => [
        platform,
        { breaker, modelBreakers, exhausted: exhausted.map(({ model, until, window }) => [model, until, window]) }
      ])
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
      if (how !== "platform" && how !== "unreachable" && how !== "answer") assert.deepEqual(now?.breaker, old?.breaker)
      if (how !== "quota" && how !== "window") assert.deepEqual(now?.exhausted, old?.exhausted)
    }
  }
}

/** `alike`: calls of one size and model; `sizes`: of one model, priority and tenant; `models`: of one size. */
type Mix = "alike" | "sizes" | "models"

const play = (options: WorldOptions, actions: ReadonlyArray<Action>, mix: Mix): void => {
  const world = makeWorld(options)
  const dispatcher = (): Dispatcher.Dispatcher => world.dispatcher()

  const check = (): void => {
    // of calls of many sizes, those that rank first would have started; of others whoever could
    const first = mix === "sizes" ? world.tickets.slice(0, 1) : world.tickets
    assert.deepEqual(
      world.servable(first).map(({ order, priority }) => ({ order, priority })),
      []
    )
  }

  const enter = (next: Extract<Action, { readonly _tag: "enter" }>): void => {
    const now = world.at()
    const models = mix === "models" ? next.models : ["small"]
    const ticket = dispatcher().enter(
      requestOf({
        candidates: next.candidates.flatMap((platform, index) =>
          models.map((model) =>
            candidate(platform, index === 0 ? next.weight : 1, index === 0 ? now.ms + next.notBeforeMs : 0, model)
          )
        ),
        priority: mix === "sizes" ? "MEDIUM" : next.priority,
        tenant: tenant(mix === "sizes" ? "a" : next.tenant),
        tokens: mix === "sizes" ? { input: next.input, maxOutput: next.maxOutput } : { input: 0, maxOutput: OUTPUT },
        patienceMs: mix === "sizes" ? 0 : next.patienceMs,
        maxWaitMs: next.maxWaitMs,
        bytes: 10
      }),
      now
    )
    world.tickets.push(ticket)
    world.pickUp()
  }

  const run = (next: Action): void => {
    const now = world.at()
    switch (next._tag) {
      case "enter":
        for (let count = 0; count < next.count; count++) enter(next)
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
        chosen.sent.headersAt = world.now()
        const { limit, remaining } = next
        const readings = remaining === undefined ? [] : [{ unit: "requests", limit, remaining } as const]
        dispatcher().started(chosen.held, readings, now)
        world.pickUp()
        return
      }
      case "leave": {
        const [gone] = world.tickets.splice(next.pick % Math.max(1, world.tickets.length), 1)
        if (gone !== undefined) dispatcher().leave(gone, now)
        world.pickUp()
        return
      }
      case "race": {
        // one ends, another is granted its place and is interrupted before it knows
        world.finish(next.pick % Math.max(1, world.running.length), (attempt) => settlementOf("answer", attempt))
        const index = world.tickets.findIndex(({ answer }) => answer?._tag === "Granted")
        const [gone] = index < 0 ? [] : world.tickets.splice(index, 1)
        if (gone !== undefined) dispatcher().leave(gone, now)
        world.pickUp()
        return
      }
      case "advance":
        world.advance(next.ms, check)
        return
      case "setOut":
        world.setOut(next.platform, next.forMs)
        world.pickUp()
        return
      case "exhaust":
        dispatcher().exhaust(next.platform, { window: "primary", until: now.epochMs + next.forMs, why: "" }, now)
        world.pickUp()
        return
      case "correct": {
        const { refillsInMs, remaining, unit, windowMs } = next
        dispatcher().correct(next.platform, [{ unit, windowMs, remaining, refillsInMs }], now)
        world.pickUp()
        return
      }
      case "jump":
        world.jump(next.byMs)
        return
      case "save":
        world.save(next.hasReachedDisk)
        return
      case "crash":
        world.crash()
    }
  }

  for (const next of actions) {
    run(next)
    check()
    checkPermits(world)
  }
  // quiet: everything that runs or is still granted ends, and every wait has its answer
  for (let steps = 0; world.running.length > 0 || world.tickets.length > 0; steps++) {
    assert.ok(steps < 300)
    while (world.running.length > 0) world.end(0, (attempt) => settlementOf("answer", attempt))
    check()
    world.advance(10_000, check)
    world.save()
  }
  const { admission, platforms: quiet, queue } = dispatcher().view(world.at())
  assert.deepEqual(
    quiet.map(({ permits }) => permits.inUse),
    [0, 0, 0]
  )
  assert.deepEqual([queue.HIGH.depth, queue.MEDIUM.depth, queue.LOW.depth], [0, 0, 0])
  assert.deepEqual([admission.waiting, admission.bytes], [0, 0])
  checkSent(world.sent, options.limits, world.now())
}

describe("whatever happens in whatever order", () => {
  const schedule = FastCheck.array(action, { maxLength: 50, size: "max" })
  const options = FastCheck.record({
    limits: limitsArbitrary,
    inputRatio: FastCheck.integer({ min: 0, max: 200 }).map((percent) => percent / 100)
  })
  // each in parts: one long synchronous test starves the runner
  const holds = (what: string, mix: Mix, parts: number): void => {
    for (let seed = 1; seed <= parts; seed++) {
      it(`${what} (${seed} of ${parts})`, () => {
        FastCheck.assert(
          FastCheck.property(options, schedule, (world, actions) => play(world, actions, mix)),
          { numRuns: 100, seed }
        )
      }, 60_000)
    }
  }

  holds("no limit is exceeded, permits match, failures keep to their scope, nobody who could start waits", "alike", 4)
  holds("the same with calls of many sizes, however their tokens are counted", "sizes", 3)
  holds("the same of several models, each with its own limits and breaker", "models", 3)
})

// The same through the service itself: fibers that wait, are interrupted, and die with their process

/** A call as its fiber sees it. */
type Caller = Fiber.RuntimeFiber<void, LeaseUnavailable>

const step = FastCheck.oneof(
  {
    weight: 6,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("call" as const),
      count: FastCheck.integer({ min: 1, max: 8 }),
      priority,
      headersMs: FastCheck.nat(3_000),
      callMs: FastCheck.nat(20_000),
      how: FastCheck.constantFrom("answer", "answer", "answer", "answer", "quota", "platform", "ignored"),
      remaining: FastCheck.option(FastCheck.nat(20), { nil: undefined })
    })
  },
  { weight: 3, arbitrary: FastCheck.record({ _tag: FastCheck.constant("interrupt" as const), pick: FastCheck.nat() }) },
  { weight: 8, arbitrary: FastCheck.record({ _tag: FastCheck.constant("advance" as const), ms }) },
  {
    weight: 1,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("correct" as const),
      platform: FastCheck.constantFrom(...platforms),
      remaining: FastCheck.nat(10)
    })
  },
  {
    weight: 1,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("exhaust" as const),
      platform: FastCheck.constantFrom(...platforms),
      forMs: ms
    })
  },
  {
    weight: 1,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("jump" as const),
      byMs: FastCheck.integer({ min: -60_000, max: 60_000 })
    })
  },
  { weight: 1, arbitrary: FastCheck.record({ _tag: FastCheck.constant("crash" as const) }) }
)
type Step = typeof step extends FastCheck.Arbitrary<infer A> ? A : never

const through = (
  limits: ReadonlyArray<PlatformLimits>,
  steps: ReadonlyArray<Step>,
  { clock, jump }: Effect.Effect.Success<typeof jumpingClock>
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const disk = Context.get(yield* Layer.build(ResourceStore.layerMemory), ResourceStore)
    const settings = Settings.layer(
      settingsOf(...platforms.map((id, index) => platformOf(id, limits[index], { failures: 3, openMs: 20_000 })))
    )

    /** A process over the disk, until it dies. */
    const start = Effect.gen(function* () {
      const scope = yield* Scope.make()
      let isDead = false
      const store = Layer.succeed(ResourceStore, {
        ...disk,
        isDurable: true,
        save: (books) => Effect.suspend(() => (isDead ? Effect.void : disk.save(books)))
      })
      const layer = ResourceManager.layerWithBudget.pipe(
        Layer.provide([PlatformBudget.layerLocal, store]),
        Layer.provide(settings)
      )
      const manager = Context.get(yield* Layer.buildWithScope(layer, scope), ResourceManager)
      return {
        manager,
        die: Effect.suspend(() => {
          isDead = true
          return Scope.close(scope, Exit.void)
        })
      }
    })

    const sent: Array<Sent> = []
    /** Until when a platform asked to be left alone. */
    const rests = new Map<PlatformId, number>()
    let process = yield* start
    let callers: ReadonlyArray<Caller> = []
    const now = monotonicMs
    const advance = (forMs: number) => Effect.withClock(TestClock.adjust(forMs), clock)

    const call = (next: Extract<Step, { readonly _tag: "call" }>) =>
      Effect.gen(function* () {
        const lease = yield* process.manager.acquire(
          requestOf({
            candidates: platforms.map((id) => candidate(id)),
            tokens: { input: 0, maxOutput: OUTPUT },
            priority: next.priority,
            maxWaitMs: 120_000
          })
        )
        const attempt: Sent = {
          platform: lease.platform,
          inputTokens: 1,
          outputTokens: OUTPUT,
          maxOutput: OUTPUT,
          wasRefused: false,
          wasUnreachable: false,
          from: yield* now,
          headersAt: undefined,
          endAt: undefined
        }
        sent.push(attempt)
        const ends = Effect.map(now, (at) => {
          attempt.headersAt ??= at
          attempt.endAt ??= at
        })
        yield* Effect.gen(function* () {
          yield* Effect.sleep(next.headersMs)
          attempt.headersAt = yield* now
          const { remaining } = next
          yield* lease.started(remaining === undefined ? [] : [{ unit: "requests", remaining }])
          yield* Effect.sleep(next.callMs)
          const settled = settlementOf(next.how, attempt)
          attempt.wasRefused = settled._tag === "Failed" && settled.failure._tag !== "PlatformFailure"
          yield* ends
          if (next.how === "quota") rests.set(lease.platform, (yield* now) + 3_000)
          yield* lease.settle(settled)
        }).pipe(Effect.onInterrupt(() => ends))
      }).pipe(Effect.scoped)

    const run = (next: Step): Effect.Effect<void, ResourceStoreFailed> => {
      switch (next._tag) {
        case "call":
          return Effect.map(Effect.replicateEffect(Effect.fork(call(next)), next.count), (fibers) => {
            callers = [...callers, ...fibers]
          })
        case "interrupt": {
          const chosen = callers[next.pick % Math.max(1, callers.length)]
          return chosen === undefined ? Effect.void : Effect.asVoid(Fiber.interrupt(chosen))
        }
        case "advance":
          return advance(next.ms)
        case "correct":
          return process.manager.correct(next.platform, [
            { unit: "requests", windowMs: MINUTE, remaining: next.remaining }
          ])
        case "exhaust":
          return Effect.flatMap(Effect.clock, (wall) =>
            process.manager.setExhausted(next.platform, {
              window: "primary",
              until: wall.unsafeCurrentTimeMillis() + next.forMs,
              why: ""
            })
          )
        case "jump":
          // what it means for the books is saved before the next crash
          return Effect.zipRight(
            Effect.sync(() => jump(next.byMs)),
            advance(1_000)
          )
        case "crash":
          return Effect.gen(function* () {
            yield* process.die
            yield* Fiber.interruptAll(callers)
            callers = []
            process = yield* start
          })
      }
    }

    const check = Effect.gen(function* () {
      // whatever has been granted is picked up
      yield* advance(0)
      const { platforms: views, queue } = yield* process.manager.view
      const waiting = callers.filter((fiber) => fiber.unsafePoll() === null)
      const running = sent.filter(({ endAt }) => endAt === undefined).length
      assert.equal(
        views.reduce((sum, { permits }) => sum + permits.inUse, 0),
        running
      )
      assert.equal(queue.HIGH.depth + queue.MEDIUM.depth + queue.LOW.depth, waiting.length - running)
      if (queue.HIGH.depth === 0) return
      const at = yield* now
      for (const { breaker, buckets, exhausted, permits, platform } of views) {
        if ((rests.get(platform) ?? 0) > at) continue
        const isFull =
          buckets.some(({ level, unit }) => level < (unit === "requests" ? 1 : OUTPUT + 32)) ||
          [permits, ...permits.models].some(({ inUse, max }) => inUse >= max)
        assert.ok(isFull || breaker.state !== "closed" || exhausted.length > 0)
      }
    })

    for (const next of steps) {
      yield* run(next)
      yield* check
    }
    // every wait ends by its deadline, every call in its time
    yield* advance(4 * MINUTE)
    for (const fiber of callers) assert.ok(fiber.unsafePoll() !== null)
    const { admission, platforms: quiet } = yield* process.manager.view
    assert.deepEqual([admission.waiting, ...quiet.map(({ permits }) => permits.inUse)], [0, 0, 0, 0])
    checkSent(sent, limits, yield* now)
    yield* process.die
  }).pipe(Effect.scoped, Effect.orDie)

describe("the service, whatever happens in whatever order", () => {
  it("exceeds no limit, loses no wait, and gives every permit back", async () => {
    const schedule = FastCheck.array(step, { maxLength: 20, size: "max" })
    await FastCheck.assert(
      FastCheck.asyncProperty(limitsArbitrary, schedule, (limits, steps) =>
        Effect.flatMap(jumpingClock, (clocks) => Effect.withClock(through(limits, steps, clocks), clocks.jumping)).pipe(
          Effect.provide(TestContext.TestContext),
          Effect.runPromise
        )
      ),
      { numRuns: 60, seed: 1 }
    )
  }, 120_000)
})
