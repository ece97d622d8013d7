import type { LimitReading } from "../Domain/Call.js"
import { LeaseUnavailable, type PlatformReason } from "../Domain/Failure.js"
import type { Candidate, PlatformResources, ResourcesView, Settlement } from "../Domain/Lease.js"
import type { PlatformId } from "../Domain/Platform.js"
import type { Priority, TenantId } from "../Domain/Task.js"
import * as Breaker from "./Breaker.js"
import type { TokenEstimate } from "./Ledger.js"
import { epochOf, monotonicOf, type Now } from "./Now.js"
import type { Budget, Grant } from "./PlatformBudget.js"
import * as WaitingLine from "./WaitingLine.js"

export interface LeaseRequest {
  /** Who may serve the call. `notBefore` is a monotonic instant (ms of `Clock.currentTimeNanos`), for backoff. */
  readonly candidates: ReadonlyArray<Candidate & { readonly notBefore?: number | undefined }>
  /** An estimate of the input and the bound of the output, tokens. The margin is the manager's business. */
  readonly tokens: TokenEstimate
  readonly priority: Priority
  readonly tenant: TenantId
  /** Give up when no lease can be had within this long, ms. Fails at once where it is certain beforehand. */
  readonly maxWaitMs: number
}

/** Out of service, until an instant (epoch ms) where it is known. */
export interface Out {
  readonly reason: string
  readonly until?: number | undefined
}

/** A platform as the dispatcher knows it. */
interface Slot {
  readonly id: PlatformId
  readonly budget: Budget
  readonly policy: Breaker.Policy
  breaker: Breaker.Breaker
  /** Whether the smallest attempt could start on some model of it, as of the latest look. */
  isOpen: boolean
  out: Out | undefined
  readonly modelsOut: Map<string, Out>
  /** Of the smooth weighted round robin between platforms: the largest is next. */
  balance: number
  /** What lower priorities are owed of it, as parts of its largest limit. */
  readonly credit: Record<Priority, number>
}

/** What a granted call holds until it is settled. */
export interface Held {
  readonly id: number
  readonly platform: PlatformId
  readonly model: string
  readonly waitedMs: number
  readonly slot: Slot
  readonly grant: Grant
  readonly permit: Breaker.Permit
  hasStarted: boolean
  isSettled: boolean
}

export type Answer =
  | { readonly _tag: "Granted"; readonly held: Held }
  | { readonly _tag: "Refused"; readonly error: LeaseUnavailable }

/** A call's place in the line, until `answer` is there. */
export interface Ticket extends WaitingLine.Waiter<Slot> {
  readonly tokens: TokenEstimate
  readonly maxWaitMs: number
  /** Candidates that are not configured here. */
  readonly unknown: ReadonlyArray<PlatformId>
  answer: Answer | undefined
  /** Called once, when the answer is there. */
  onAnswer: ((answer: Answer) => void) | undefined
}

type Option = WaitingLine.Option<Slot>

/** Live waits of one process at most. */
const MAX_WAITING = 10_000
/** Models out of service that are remembered per platform. */
const MAX_MODELS_OUT = 256
/** What a lower priority that waits for a saturated platform is owed of its grants, by cost. */
const SHARES: ReadonlyArray<readonly [Priority, number]> = [
  ["MEDIUM", 0.1],
  ["LOW", 0.05]
]
const ROUNDING = 1e-9
const NEVER = Number.POSITIVE_INFINITY

/**
 * Decides who goes where. It owns the waiting line and every platform's breaker and budget; each method is one
 * synchronous step of a single owner, told the time, after which nothing that could be granted is left waiting.
 */
export interface Dispatcher {
  /** Takes a place in the line; the answer may be there at once. */
  readonly enter: (request: LeaseRequest, now: Now) => Ticket
  /** The caller is gone: its place, or what it was granted meanwhile, is given back without a trace. */
  readonly leave: (ticket: Ticket, now: Now) => void
  readonly started: (held: Held, readings: ReadonlyArray<LimitReading>, now: Now) => void
  /** `random` (0 to 1) is for the breaker's jitter. Later calls change nothing. */
  readonly settle: (held: Held, settlement: Settlement, now: Now, random: number) => void
  readonly setOut: (platform: PlatformId, model: string | undefined, out: Out | undefined, now: Now) => void
  readonly exhaust: (platform: PlatformId, untilEpochMs: number, now: Now) => void
  /** Time has passed. */
  readonly tick: (now: Now) => void
  /** The earliest instant at which time alone changes something, monotonic ms; Infinity = never. */
  readonly due: () => number
  readonly platform: (platform: PlatformId, now: Now) => PlatformResources
  readonly view: (now: Now) => ResourcesView
}

export interface DispatcherOptions {
  readonly platforms: ReadonlyArray<{
    readonly id: PlatformId
    readonly budget: Budget
    readonly breaker: Breaker.Policy
  }>
  readonly onTransition: (transition: Breaker.BreakerTransition) => void
}

export const make = ({ onTransition, platforms }: DispatcherOptions): Dispatcher => {
  const slots = new Map<PlatformId, Slot>(
    platforms.map(({ breaker: policy, budget, id }) => [
      id,
      {
        id,
        budget,
        policy,
        breaker: Breaker.initial,
        isOpen: false,
        out: undefined,
        modelsOut: new Map(),
        balance: 0,
        credit: { HIGH: 0, MEDIUM: 0, LOW: 0 }
      }
    ])
  )
  const line = WaitingLine.make<Slot, Ticket>()
  let arrivals = 0
  let leases = 0
  let dueAt = NEVER

  // What is in an option's way

  const holds = (out: Out | undefined, now: Now): out is Out =>
    out !== undefined && (out.until === undefined || out.until > now.epochMs)

  const outOf = ({ model, slot }: Option, now: Now): Out | undefined => {
    if (holds(slot.out, now)) return slot.out
    const modelOut = slot.modelsOut.size === 0 ? undefined : slot.modelsOut.get(model)
    return holds(modelOut, now) ? modelOut : undefined
  }

  const look = (slot: Slot, now: Now): void => {
    slot.isOpen = !holds(slot.out, now) && Breaker.admits(slot.breaker, now.ms) && slot.budget.isOpen(now)
  }

  const isUsable = ({ model, slot }: Option, now: Now): boolean =>
    slot.isOpen && (slot.modelsOut.size === 0 || !holds(slot.modelsOut.get(model), now))

  /** Nothing but the passing of time, or a word from outside, ends these; the instant at which time does. */
  const heldUntil = (option: Option, now: Now): number => {
    const out = outOf(option, now)
    const outUntil = out === undefined ? now.ms : out.until === undefined ? NEVER : monotonicOf(out.until, now)
    return Math.max(outUntil, option.slot.breaker.until, option.slot.budget.quotaFreeAt(now), option.notBefore)
  }

  const probeUntil = (option: Option, now: Now): number =>
    option.slot.breaker.state === "half-open" && option.slot.breaker.isProbeOut ? NEVER : now.ms

  const earliest = (option: Option, tokens: TokenEstimate, now: Now): number =>
    Math.max(heldUntil(option, now), probeUntil(option, now), option.slot.budget.earliest(tokens, now))

  const opensAt = (option: Option, now: Now): number =>
    Math.max(heldUntil(option, now), probeUntil(option, now), option.slot.budget.opensAt(now))

  /** It certainly cannot serve the call before this instant; in the past where it may at any moment. */
  const notBefore = (option: Option, tokens: TokenEstimate, now: Now): number =>
    Math.max(heldUntil(option, now), option.slot.budget.notBefore(tokens, now))

  const isHopeless = (ticket: Ticket, bound: (option: Option) => number): boolean =>
    ticket.options.every((option) => {
      const at = bound(option)
      return at === NEVER || at > ticket.deadline
    })

  // Refusals

  const reasonOf = (option: Option, tokens: TokenEstimate, now: Now): PlatformReason => {
    const reason = (text: string, at: number): PlatformReason => ({
      platform: option.slot.id,
      reason: text,
      earliestAt: at > now.ms ? epochOf(at, now) : undefined
    })
    const out = outOf(option, now)
    const held = heldUntil(option, now)
    if (out !== undefined) return reason(out.reason, held)
    const { breaker } = option.slot
    if (breaker.state === "open") return reason("its circuit breaker is open", held)
    if (breaker.until > now.ms) return reason("it asked for a pause after a failure", held)
    if (!Breaker.admits(breaker, now.ms)) return reason("its circuit breaker waits for the outcome of a probe", NEVER)
    const shortage = option.slot.budget.shortage(tokens, now)
    if (shortage !== undefined) return reason(shortage.reason, Math.max(held, shortage.earliest))
    if (option.notBefore > now.ms) return reason("it failed this call just now and is not asked again yet", held)
    return reason("calls that go first wait for it", NEVER)
  }

  const answer = (ticket: Ticket, given: Answer): void => {
    ticket.answer = given
    ticket.onAnswer?.(given)
  }

  const refuse = (ticket: Ticket, now: Now, why?: string): void => {
    line.remove(ticket)
    const reasons = [
      ...ticket.options.map((option) => reasonOf(option, ticket.tokens, now)),
      ...ticket.unknown.map((platform) => ({ platform, reason: "it is not configured" }))
    ]
    const first = ticket.options.reduce(
      (earliest, option) => Math.min(earliest, notBefore(option, ticket.tokens, now)),
      NEVER
    )
    const message = why ?? `No platform can start this call within ${Math.round(ticket.maxWaitMs)} ms`
    const told = reasons.map(({ platform, reason }) => `${platform}: ${reason}`).join("; ")
    answer(ticket, {
      _tag: "Refused",
      error: new LeaseUnavailable({
        message: told === "" ? message : `${message} (${told})`,
        reasons,
        earliestAt: first > now.ms ? epochOf(first, now) : undefined
      })
    })
  }

  /** Those that cannot be served in time any more are told now, not when their time is over. */
  const refuseHopeless = (now: Now): void => {
    for (const ticket of [...line.all()]) {
      if (isHopeless(ticket, (option) => heldUntil(option, now))) refuse(ticket, now)
    }
  }

  // Grants

  const step = (slot: Slot, { breaker, transition }: Breaker.Step, now: Now): void => {
    slot.breaker = breaker
    if (transition !== undefined) onTransition({ ...transition, platform: slot.id, at: now.epochMs })
  }

  const choose = (free: readonly [Option, ...ReadonlyArray<Option>]): Option => {
    let [chosen] = free
    let total = 0
    for (const option of free) {
      option.slot.balance += option.weight
      total += option.weight
    }
    for (const option of free) if (option.slot.balance > chosen.slot.balance) chosen = option
    chosen.slot.balance -= total
    return chosen
  }

  /** Every priority that waits for the platform earns its share of what it gives away; the one served pays. */
  const account = (slot: Slot, served: Priority, cost: number, aside: ReadonlyArray<Ticket>): void => {
    for (const [priority, share] of SHARES) {
      const isWaitedFor =
        line.isWaitedFor(slot, priority) ||
        aside.some((ticket) => ticket.priority === priority && ticket.options.some((option) => option.slot === slot))
      const earned = slot.credit[priority] + share * cost - (priority === served ? cost : 0)
      slot.credit[priority] = isWaitedFor ? Math.min(1, Math.max(0, earned)) : 0
    }
  }

  const grant = (ticket: Ticket, option: Option, aside: ReadonlyArray<Ticket>, now: Now): boolean => {
    const { model, slot } = option
    const taken = slot.budget.tryTake(ticket.tokens, now)
    if (taken === undefined) return false
    const { breaker, permit } = Breaker.admit(slot.breaker)
    slot.breaker = breaker
    look(slot, now)
    line.serve(ticket)
    account(slot, ticket.priority, slot.budget.share(ticket.tokens), aside)
    leases += 1
    const held: Held = {
      id: leases,
      platform: slot.id,
      model,
      waitedMs: now.ms - ticket.since,
      slot,
      grant: taken,
      permit,
      hasStarted: false,
      isSettled: false
    }
    answer(ticket, { _tag: "Granted", held })
    return true
  }

  /** One pass over the heads: grants everything that can be granted now, and notes when more can be. */
  const round = (now: Now): void => {
    for (const slot of slots.values()) {
      step(slot, Breaker.tick(slot.breaker, now.ms), now)
      look(slot, now)
    }
    line.promote(now.ms)
    let due = NEVER
    /** Kept for a better-ranked call that does not fit yet. */
    const kept = new Set<Slot>()
    const aside: Array<Ticket> = []

    const isFree = (option: Option): boolean => !kept.has(option.slot) && isUsable(option, now)

    /** A platform's lower priorities first, where they are owed the next grant. */
    const serveOwed = (): boolean => {
      for (const slot of slots.values()) {
        for (const [priority] of SHARES) {
          if (slot.credit[priority] <= 0) continue
          const isHere = (option: Option): boolean => option.slot === slot && isUsable(option, now)
          const head = line.best(priority, ({ options }) => options.some(isHere))?.head()
          const option = head?.options.find((option) => isHere(option) && option.notBefore <= now.ms)
          if (head === undefined || option === undefined) continue
          if (slot.credit[priority] + ROUNDING < slot.budget.share(head.tokens)) continue
          if (slot.budget.fits(head.tokens, now) && grant(head, option, aside, now)) return true
          kept.add(slot)
          due = Math.min(due, earliest(option, head.tokens, now))
        }
      }
      return false
    }

    /**
     * The head does not fit anywhere now. The platform where it can start first is kept for it; others may be used by
     * calls behind it, which does not delay it.
     */
    const keepPlace = (head: Ticket): void => {
      let first: { readonly option: Option; readonly at: number } | undefined
      for (const option of head.options) {
        if (kept.has(option.slot) || option.notBefore > now.ms) continue
        const known = earliest(option, head.tokens, now)
        // an open platform whose running attempts hold the tokens may give them back at any moment
        const at = known === NEVER && isUsable(option, now) ? now.ms : known
        if (first === undefined || at < first.at) first = { option, at }
        due = Math.min(due, known)
      }
      if (first !== undefined) kept.add(first.option.slot)
      line.setAside(head)
      aside.push(head)
    }

    const serveRanked = (): boolean => {
      for (const priority of WaitingLine.priorities) {
        for (;;) {
          const head = line.best(priority, ({ options }) => options.some(isFree))?.head()
          if (head === undefined) break
          const [first, ...others] = head.options.filter(
            (option) => option.notBefore <= now.ms && isFree(option) && option.slot.budget.fits(head.tokens, now)
          )
          if (first !== undefined && grant(head, choose([first, ...others]), aside, now)) return true
          keepPlace(head)
        }
      }
      return false
    }

    while (serveOwed() || serveRanked()) {}

    for (const ticket of aside) line.putBack(ticket, now.ms)
    const seen = new Set<Slot>()
    for (const priority of WaitingLine.priorities) {
      for (const { options } of line.classes(priority)) {
        for (const option of options) {
          if (seen.has(option.slot) || isUsable(option, now)) continue
          due = Math.min(due, opensAt(option, now))
          // a model that is out has an instant of its own, a platform has one for all
          if (option.slot.modelsOut.size === 0) seen.add(option.slot)
        }
      }
    }
    for (const { breaker } of slots.values()) if (breaker.state === "open") due = Math.min(due, breaker.until)
    dueAt = Math.min(due, line.nextInstant())
  }

  const advance = (now: Now): void => {
    for (;;) {
      round(now)
      if (line.expired(now.ms) === undefined) return
      for (let late = line.expired(now.ms); late !== undefined; late = line.expired(now.ms)) refuse(late, now)
    }
  }

  /** Whether it is the first to end the lease. */
  const end = (held: Held): boolean => {
    const isFirst = !held.isSettled
    held.isSettled = true
    return isFirst
  }

  const platformView = (slot: Slot, now: Now): PlatformResources => {
    step(slot, Breaker.tick(slot.breaker, now.ms), now)
    const { breaker, budget, id } = slot
    return {
      platform: id,
      ...budget.view(now),
      breaker: {
        state: breaker.state,
        consecutiveFailures: breaker.consecutiveFailures,
        probesAt: breaker.state === "open" ? epochOf(breaker.until, now) : undefined
      }
    }
  }

  return {
    enter: (request, now) => {
      arrivals += 1
      const ticket: Ticket = {
        order: arrivals,
        priority: request.priority,
        tenant: request.tenant,
        options: request.candidates.flatMap(({ model, notBefore, platform, weight }) => {
          const slot = slots.get(platform)
          return slot === undefined ? [] : [{ slot, model, weight, notBefore: notBefore ?? 0 }]
        }),
        since: now.ms,
        deadline: now.ms + request.maxWaitMs,
        tokens: request.tokens,
        maxWaitMs: request.maxWaitMs,
        unknown: request.candidates.flatMap(({ platform }) => (slots.has(platform) ? [] : [platform])),
        answer: undefined,
        onAnswer: undefined
      }
      line.add(ticket, now.ms)
      advance(now)
      if (ticket.answer !== undefined) return ticket
      if (isHopeless(ticket, (option) => notBefore(option, ticket.tokens, now))) refuse(ticket, now)
      else if (line.size() > MAX_WAITING) {
        refuse(ticket, now, `${MAX_WAITING} calls are waiting already: this service takes no more for now`)
      }
      // it may have kept a platform from others for a moment
      if (ticket.answer !== undefined) advance(now)
      return ticket
    },

    leave: (ticket, now) => {
      if (ticket.answer === undefined) line.remove(ticket)
      else if (ticket.answer._tag === "Granted" && end(ticket.answer.held)) {
        const { grant, permit, slot } = ticket.answer.held
        slot.budget.giveBack(grant)
        step(slot, Breaker.settle(slot.breaker, slot.policy, permit, { _tag: "Ignored" }, now.ms, 0), now)
      }
      advance(now)
    },

    started: (held, readings, now) => {
      if (held.isSettled || held.hasStarted) return
      held.hasStarted = true
      held.slot.budget.started(held.grant, readings, now)
      advance(now)
    },

    settle: (held, settlement, now, random) => {
      if (!end(held)) return
      const { grant, permit, slot } = held
      slot.budget.settle(grant, settlement, now)
      const failure = settlement._tag === "Failed" ? settlement.failure : undefined
      const outcome: Breaker.Outcome =
        settlement._tag === "Succeeded"
          ? { _tag: "Success" }
          : failure?._tag === "PlatformFailure"
            ? { _tag: "Failure", why: `${failure.reason}: ${failure.message}`, retryAfterMs: failure.retryAfterMs }
            : { _tag: "Ignored" }
      step(slot, Breaker.settle(slot.breaker, slot.policy, permit, outcome, now.ms, random), now)
      if (failure?._tag === "PlatformFailure" || failure?._tag === "QuotaFailure") refuseHopeless(now)
      advance(now)
    },

    setOut: (platform, model, out, now) => {
      const slot = slots.get(platform)
      if (slot === undefined) return
      if (model === undefined) slot.out = out
      else {
        slot.modelsOut.delete(model)
        if (out !== undefined) {
          const [oldest] = slot.modelsOut.keys()
          if (slot.modelsOut.size >= MAX_MODELS_OUT && oldest !== undefined) slot.modelsOut.delete(oldest)
          slot.modelsOut.set(model, out)
        }
      }
      if (out !== undefined) refuseHopeless(now)
      advance(now)
    },

    exhaust: (platform, untilEpochMs, now) => {
      const slot = slots.get(platform)
      if (slot === undefined) return
      slot.budget.exhaust(untilEpochMs, now)
      refuseHopeless(now)
      advance(now)
    },

    tick: advance,
    due: () => dueAt,

    platform: (platform, now) => {
      const slot = slots.get(platform)
      return slot === undefined
        ? {
            platform,
            buckets: [],
            permits: { inUse: 0, max: 0 },
            breaker: { state: "closed", consecutiveFailures: 0 }
          }
        : platformView(slot, now)
    },

    view: (now) => {
      const oldest: Record<Priority, number> = { HIGH: 0, MEDIUM: 0, LOW: 0 }
      for (const { priority, since } of line.all()) oldest[priority] = Math.max(oldest[priority], now.ms - since)
      const queue = (priority: Priority) => ({ depth: line.depth(priority), oldestWaitMs: oldest[priority] })
      return {
        platforms: [...slots.values()].map((slot) => platformView(slot, now)),
        queue: { HIGH: queue("HIGH"), MEDIUM: queue("MEDIUM"), LOW: queue("LOW") }
      }
    }
  }
}
