import assert from "node:assert/strict"
import { FastCheck } from "effect"
import { describe, it } from "vitest"
import type { Settlement } from "../../src/Domain/Lease.js"
import type { Now } from "../../src/ResourceManager/Now.js"
import { type Ask, type Budget, type Grant, makeLocal } from "../../src/ResourceManager/PlatformBudget.js"
import type { SavedBudget } from "../../src/ResourceManager/Saved.js"
import type { PlatformLimits } from "../../src/Settings.js"
import { credentialFailure, limitsOf, platformFailure, quotaFailure, usageOf } from "./fixtures.js"

const MINUTE = 60_000
const LONG = 150_000
const EPOCH = 1_800_000_000_000
const PRICE = { input: 1, output: 5, asOf: "2026-11-22" }
const BIG = { requestCost: 1, requestsPerMinute: 4, windows: [{ windowMs: LONG, requests: 6 }] }

/** One attempt as the strictest provider sees it: counted at any moment from its grant to `to`, or to the end of time. */
interface Sent {
  readonly grant: Grant
  readonly cost: number
  readonly inputTokens: number
  readonly outputTokens: number
  headersAt: number | undefined
  endAt: number | undefined
  /** Never sent, or turned away before a model worked. */
  isUncounted: boolean
  wasRefused: boolean
}

interface Limit {
  readonly windowMs: number
  readonly limit: number
  readonly model?: string | undefined
  readonly amount: (sent: Sent) => number
  readonly until: (sent: Sent) => number | undefined
}

/** The limits as the provider holds them. */
const limitsHeld = (limits: PlatformLimits, fraction: number): ReadonlyArray<Limit> => {
  const headers = (sent: Sent) => sent.headersAt
  const end = (sent: Sent) => sent.endAt
  const { tokensCounted } = limits
  const tokens = ({ grant, inputTokens, outputTokens, wasRefused }: Sent): number => {
    if (tokensCounted === "input") return inputTokens
    if (tokensCounted === "reserved") return inputTokens + grant.ask.tokens.maxOutput
    return wasRefused ? 0 : inputTokens + outputTokens
  }
  const usd = ({ inputTokens, outputTokens, wasRefused }: Sent): number =>
    wasRefused ? 0 : (inputTokens * PRICE.input + outputTokens * PRICE.output) / 1e6
  const held: Array<Limit> = []
  if (limits.requestsPerMinute !== undefined) {
    const limit = Math.max(1, Math.floor(limits.requestsPerMinute * fraction))
    held.push({ windowMs: MINUTE, limit, amount: () => 1, until: headers })
  }
  if (limits.tokensPerMinute !== undefined) {
    const until = tokensCounted === "actual" ? end : headers
    held.push({ windowMs: MINUTE, limit: limits.tokensPerMinute * fraction, amount: tokens, until })
  }
  for (const { costUsd, requests, windowMs } of limits.windows ?? []) {
    if (requests !== undefined) held.push({ windowMs, limit: requests, amount: ({ cost }) => cost, until: headers })
    if (costUsd !== undefined) held.push({ windowMs, limit: costUsd, amount: usd, until: end })
  }
  if (limits.models?.big !== undefined) {
    const { requestsPerMinute: perMinute } = BIG
    const limit = Math.max(1, Math.floor(perMinute * fraction))
    held.push({ windowMs: MINUTE, limit, model: "big", amount: () => 1, until: headers })
    held.push({ windowMs: LONG, limit: 6, model: "big", amount: ({ cost }) => cost, until: headers })
  }
  return held
}

interface World {
  readonly first: PlatformLimits
  readonly maxOutput: number
  /** Real input over its estimate. */
  readonly ratio: number
}

const makeWorld = ({ first, maxOutput, ratio }: World) => {
  let limits = first
  let fraction = 1
  let now = 0
  /** The monotonic clock starts anew with every process. */
  let zero = 5_000
  let sent: ReadonlyArray<Sent> = []
  let running: ReadonlyArray<Sent> = []
  /** Counts of starts that must not be exceeded until an instant. */
  let watches: Array<{ readonly until: number; readonly ask: Ask; left: number }> = []
  let refusals: Array<{ readonly ask: Ask; readonly notBefore: number }> = []
  let onDisk: SavedBudget | undefined
  let unconfirmed: SavedBudget | undefined

  const at = (): Now => ({ ms: now + zero, epochMs: EPOCH + now })
  const make = (): Budget => makeLocal({ limits, prices: { small: PRICE, big: PRICE } })
  let budget = make()
  const save = (): void => {
    unconfirmed = budget.save(at())
  }
  const confirm = (): void => {
    if (unconfirmed === undefined) return
    onDisk = unconfirmed
    budget.saved(unconfirmed)
    unconfirmed = undefined
  }
  save()
  confirm()

  /** No window that ends now holds more than its limit, whenever the provider counted each attempt. */
  const checkLimits = (granted: Sent): void => {
    for (const { amount, limit, model, until, windowMs } of limitsHeld(limits, fraction)) {
      if (model !== undefined && granted.grant.ask.model !== model) continue
      const others = sent.reduce((sum, each) => {
        const isIts = model === undefined || each.grant.ask.model === model
        const ended = until(each)
        const counts = !each.isUncounted && isIts && (ended === undefined || ended >= now - windowMs)
        return each !== granted && counts ? sum + amount(each) : sum
      }, 0)
      const own = amount(granted)
      // a call larger than a whole limit runs alone
      assert.ok(
        others + own <= limit * (1 + 1e-9) || (others <= 1e-9 && own > limit),
        `${others} + ${own} of ${limit} in ${windowMs} ms`
      )
    }
  }

  const checkPermits = (): void => {
    const { permits } = budget.view(at())
    assert.equal(permits.inUse, running.length)
  }

  const take = (ask: Ask): void => {
    const before = budget.view(at())
    const fits = budget.fits(ask, at())
    const earliest = budget.earliest(ask, at())
    assert.equal(fits, earliest <= at().ms)
    const grant = budget.tryTake(ask, at())
    assert.equal(grant !== undefined, fits)
    if (grant === undefined) {
      assert.notEqual(budget.shortage(ask, at()), undefined)
      if (watches.length < 20) {
        const until = now + 100_000
        watches.push({ until, ask, left: budget.room(ask, until + zero, at()) })
        refusals.push({ ask, notBefore: budget.notBefore(ask, at()) - zero })
      }
      return
    }
    const attempt: Sent = {
      grant,
      cost: limits.models?.[ask.model]?.requestCost ?? 1,
      inputTokens: Math.ceil(ask.tokens.input * ratio) + 5,
      outputTokens: Math.floor(ask.tokens.maxOutput / 2),
      headersAt: undefined,
      endAt: undefined,
      isUncounted: false,
      wasRefused: false
    }
    sent = [...sent, attempt]
    running = [...running, attempt]
    checkLimits(attempt)
    const isSame = (other: Ask): boolean => JSON.stringify(other) === JSON.stringify(ask)
    for (const watch of watches) if (isSame(watch.ask) && watch.until >= now) watch.left -= 1
    assert.ok(watches.every(({ left }) => left >= 0))
    for (const refusal of refusals) if (isSame(refusal.ask)) assert.ok(refusal.notBefore <= now + 1e-6)
    if (ask.mayUseReserve) return
    // what is kept for HIGH is not drawn by others
    const after = budget.view(at())
    assert.ok(after.permits.inUse <= after.permits.max - after.permits.keptForHigh)
    for (const bucket of after.buckets) {
      const old = before.buckets.find(({ model, name }) => name === bucket.name && model === bucket.model)
      if (old === undefined || old.used === 0 || bucket.used === old.used) continue
      assert.ok(bucket.used - old.used <= old.level - old.keptForHigh + (bucket.unit === "requests" ? 1 : 1e-6))
    }
  }

  const end = (attempt: Sent, settlement: Settlement): void => {
    running = running.filter((each) => each !== attempt)
    attempt.endAt = now
    attempt.headersAt ??= now
    budget.settle(attempt.grant, settlement, at())
  }

  return {
    take,
    save,
    confirm,
    checkPermits,
    running: () => running,
    budget: () => budget,
    at,
    maxOutput,
    end,
    started: (attempt: Sent, remaining: number | undefined): void => {
      if (attempt.headersAt !== undefined) return
      attempt.headersAt = now
      budget.started(attempt.grant, remaining === undefined ? [] : [{ unit: "requests", remaining }], at())
    },
    giveBack: (attempt: Sent): void => {
      if (attempt.headersAt !== undefined) return
      running = running.filter((each) => each !== attempt)
      attempt.isUncounted = true
      budget.giveBack(attempt.grant, at())
    },
    ramp: (to: number): void => {
      fraction = to
      budget.rampTo(to, at())
    },
    configure: (next: PlatformLimits): void => {
      limits = next
      watches = []
      refusals = []
      budget.configure(next, at())
    },
    /** The process dies and another goes on from what is on the disk. */
    crash: (isWritten: boolean, downMs: number): void => {
      const saved = isWritten && unconfirmed !== undefined ? unconfirmed : onDisk
      for (const attempt of running) {
        attempt.endAt = now
        attempt.headersAt ??= now
      }
      running = []
      watches = []
      refusals = []
      now += downMs
      zero = 3_000 - now
      budget = make()
      fraction = 1
      if (saved !== undefined) budget.restore(JSON.parse(JSON.stringify(saved)), false, at())
      save()
      confirm()
    },
    advance: (ms: number): void => {
      now += ms
      watches = watches.filter(({ until }) => until >= now)
    },
    /** Where nothing else happens a call fits at the earliest instant that was told, and not before. */
    awaitEarliest: (ask: Ask): void => {
      const earliest = budget.earliest(ask, at())
      if (!Number.isFinite(earliest) || earliest - at().ms > 400_000) return
      now = Math.max(now, Math.ceil(earliest - zero))
      assert.ok(budget.fits(ask, at()), "it does not fit at its earliest instant")
    }
  }
}

const ask = FastCheck.record({
  input: FastCheck.constantFrom(20, 100, 300),
  model: FastCheck.constantFrom("small", "small", "big"),
  mayUseReserve: FastCheck.boolean()
})
const ms = FastCheck.oneof(FastCheck.nat(2_000), FastCheck.nat(20_000), FastCheck.nat(160_000))
const pick = FastCheck.nat(1_000)

const action = FastCheck.oneof(
  {
    weight: 14,
    arbitrary: FastCheck.record({ _tag: FastCheck.constant("take" as const), ask, count: FastCheck.nat(8) })
  },
  {
    weight: 8,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("end" as const),
      pick,
      how: FastCheck.constantFrom(
        "answer",
        "answer",
        "answer",
        "rate",
        "concurrency",
        "sick",
        "unreachable",
        "ours",
        "key"
      )
    })
  },
  {
    weight: 6,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("started" as const),
      pick,
      remaining: FastCheck.option(FastCheck.nat(20), { nil: undefined, freq: 1 })
    })
  },
  { weight: 2, arbitrary: FastCheck.record({ _tag: FastCheck.constant("giveBack" as const), pick }) },
  { weight: 10, arbitrary: FastCheck.record({ _tag: FastCheck.constant("advance" as const), ms }) },
  { weight: 4, arbitrary: FastCheck.record({ _tag: FastCheck.constant("await" as const), ask }) },
  {
    weight: 2,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("ramp" as const),
      to: FastCheck.constantFrom(0.1, 0.25, 0.5, 1)
    })
  },
  {
    weight: 2,
    arbitrary: FastCheck.record({ _tag: FastCheck.constant("backlog" as const), isWaitedFor: FastCheck.boolean() })
  },
  {
    weight: 1,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("configure" as const),
      part: FastCheck.constantFrom(0.5, 1, 2)
    })
  },
  {
    weight: 1,
    arbitrary: FastCheck.record({ _tag: FastCheck.constant("correct" as const), remaining: FastCheck.nat(30) })
  },
  { weight: 3, arbitrary: FastCheck.record({ _tag: FastCheck.constant("save" as const) }) },
  { weight: 3, arbitrary: FastCheck.record({ _tag: FastCheck.constant("confirm" as const) }) },
  {
    weight: 1,
    arbitrary: FastCheck.record({ _tag: FastCheck.constant("crash" as const), isWritten: FastCheck.boolean(), ms })
  }
)
type Action = typeof action extends FastCheck.Arbitrary<infer A> ? A : never

const maybe = (min: number, max: number) => FastCheck.option(FastCheck.integer({ min, max }), { nil: undefined })

const world = FastCheck.record({
  requestsPerMinute: maybe(1, 60),
  tokensPerMinute: maybe(1_000, 6_000),
  tokensCounted: FastCheck.constantFrom("reserved" as const, "input" as const, "actual" as const),
  burst: maybe(1, 4),
  requests: maybe(1, 120),
  costUsd: FastCheck.option(FastCheck.double({ min: 0.003, max: 0.02, noNaN: true }), { nil: undefined }),
  hasBig: FastCheck.boolean(),
  requestCost: FastCheck.constantFrom(0.1, 1, 2),
  maxConcurrent: FastCheck.integer({ min: 1, max: 8 }),
  maxConcurrentPerModel: maybe(1, 3),
  maxOutput: FastCheck.constantFrom(0, 50, 300),
  ratio: FastCheck.double({ min: 0, max: 2, noNaN: true })
})

const settlementOf = (how: string, { inputTokens, outputTokens }: Sent): Settlement => {
  switch (how) {
    case "answer":
      return { _tag: "Succeeded", usage: usageOf(inputTokens, outputTokens) }
    case "rate":
      return { _tag: "Failed", failure: quotaFailure({ retryAfterMs: 500 }) }
    case "concurrency":
      return { _tag: "Failed", failure: quotaFailure({ reason: "concurrency" }) }
    case "sick":
      return { _tag: "Failed", failure: platformFailure() }
    case "unreachable":
      return { _tag: "Failed", failure: platformFailure({ reason: "unreachable" }) }
    case "key":
      return { _tag: "Failed", failure: credentialFailure() }
    default:
      return { _tag: "Ignored" }
  }
}

describe("whatever happens in whatever order to one platform's budget", () => {
  it("no rolling window of the strictest provider's holds more than a limit, permits match, HIGH's part is kept", () => {
    FastCheck.assert(
      FastCheck.property(world, FastCheck.array(action, { maxLength: 60, size: "max" }), (given, actions) => {
        const limitsAt = (part: number): PlatformLimits =>
          limitsOf({
            requestsPerMinute:
              given.requestsPerMinute === undefined
                ? undefined
                : Math.max(1, Math.floor(given.requestsPerMinute * part)),
            tokensPerMinute: given.tokensPerMinute,
            tokensCounted: given.tokensCounted,
            burst: given.burst,
            windows: [{ windowMs: LONG, requests: given.requests, costUsd: given.costUsd }],
            models: given.hasBig ? { big: { ...BIG, requestCost: given.requestCost } } : undefined,
            maxConcurrent: given.maxConcurrent,
            maxConcurrentPerModel: given.maxConcurrentPerModel
          })
        const played = makeWorld({ first: limitsAt(1), maxOutput: given.maxOutput, ratio: given.ratio })
        const askOf = ({ input, mayUseReserve, model }: AskSeed): Ask => ({
          tokens: { input, maxOutput: given.maxOutput },
          model,
          type: "testing",
          mayUseReserve
        })
        const runningAt = (index: number): Sent | undefined =>
          played.running()[index % Math.max(1, played.running().length)]

        const run = (next: Action): void => {
          switch (next._tag) {
            case "take":
              for (let count = 0; count <= next.count; count++) played.take(askOf(next.ask))
              return
            case "end": {
              const attempt = runningAt(next.pick)
              if (attempt === undefined) return
              attempt.wasRefused = attempt.headersAt === undefined && ["rate", "concurrency", "key"].includes(next.how)
              attempt.isUncounted = attempt.headersAt === undefined && next.how === "unreachable"
              played.end(attempt, settlementOf(next.how, attempt))
              return
            }
            case "started": {
              const attempt = runningAt(next.pick)
              if (attempt !== undefined) played.started(attempt, next.remaining)
              return
            }
            case "giveBack": {
              const attempt = runningAt(next.pick)
              if (attempt !== undefined) played.giveBack(attempt)
              return
            }
            case "advance":
              played.advance(next.ms)
              return
            case "await":
              played.awaitEarliest(askOf(next.ask))
              return
            case "ramp":
              played.ramp(next.to)
              return
            case "backlog":
              played.budget().setBacklog(next.isWaitedFor)
              return
            case "configure":
              played.configure(limitsAt(next.part))
              return
            case "correct":
              played.budget().correct([{ unit: "requests", remaining: next.remaining, windowMs: MINUTE }], played.at())
              return
            case "save":
              played.save()
              return
            case "confirm":
              played.confirm()
              return
            case "crash":
              played.crash(next.isWritten, next.ms)
          }
        }
        for (const next of actions) {
          run(next)
          played.checkPermits()
        }
        // quiet: everything ends, and time frees it all
        for (const attempt of played.running()) played.end(attempt, settlementOf("answer", attempt))
        played.save()
        played.confirm()
        played.advance(40 * MINUTE)
        const { buckets, permits } = played.budget().view(played.at())
        assert.equal(permits.inUse, 0)
        assert.deepEqual(
          buckets.filter(({ used }) => used !== 0),
          []
        )
      }),
      { numRuns: 1_000 }
    )
  }, 120_000)
})

type AskSeed = { readonly input: number; readonly model: string; readonly mayUseReserve: boolean }
