import type { LimitReading } from "../Domain/Call.js"
import type { AttemptName, PlatformEventBody } from "../Domain/Event.js"
import { LeaseUnavailable, type PlatformReason } from "../Domain/Failure.js"
import type { Candidate, Drained, PlatformResources, ResourcesView, Settlement } from "../Domain/Lease.js"
import type { PlatformId } from "../Domain/Platform.js"
import type { Priority, TaskType, TenantId } from "../Domain/Task.js"
import type { PlatformLimits } from "../Settings.js"
import type * as Breaker from "./Breaker.js"
import type { TokenEstimate } from "./Ledger.js"
import { epochOf, type Now } from "./Now.js"
import type { Ask } from "./PlatformBudget.js"
import type { Exhausted } from "./Quota.js"
import type { SavedPlatform } from "./Saved.js"
import * as Slot from "./Slot.js"
import * as Turns from "./Turns.js"
import * as WaitingLine from "./WaitingLine.js"

export interface LeaseRequest {
  /** Who may serve the call. `notBefore` is a monotonic instant (ms of `Clock.currentTimeNanos`), for backoff. */
  readonly candidates: ReadonlyArray<Candidate & { readonly notBefore?: number | undefined }>
  /** An estimate of the input and the bound of the output, tokens. The margin is the manager's business. */
  readonly tokens: TokenEstimate
  /** What kind of work it is: how far its estimates are off is learned by platform and type. */
  readonly type: TaskType
  readonly priority: Priority
  readonly tenant: TenantId
  /** Give up when no lease can be had within this long, ms. Fails at once where it is certain beforehand. */
  readonly maxWaitMs: number
  /**
   * How long it leaves a free platform unused for one of more than twice its weight whose earliest start is known to
   * lie inside this time, ms; default 0.
   */
  readonly patienceMs?: number | undefined
  /**
   * Calls of one rotation take turns between the platforms that are free, as their weights say; default: the type. Calls
   * with other weights are in another rotation, so that neither distorts the other's shares.
   */
  readonly rotation?: string | undefined
  /** Whether a caller that is refused comes back later: it is not refused for the calls that go before it. */
  readonly comesBack?: boolean | undefined
  /** Memory that the call takes up while it waits, bytes; default 0. */
  readonly bytes?: number | undefined
  /** The attempt the lease is for, so that a platform's history can name it. */
  readonly attempt?: AttemptName | undefined
}

/** What a granted call holds until it is settled. */
export interface Held {
  readonly id: number
  readonly platform: PlatformId
  readonly model: string
  readonly waitedMs: number
  /** Who could have taken the call at that moment, the chosen one among them. */
  readonly free: ReadonlyArray<PlatformId>
  /** Why each of the other candidates could not. */
  readonly busy: ReadonlyArray<PlatformReason>
  readonly slot: Slot.Slot
  readonly taken: Slot.Taken
  hasStarted: boolean
  isSettled: boolean
}

/** What would become of a call, were it to ask for a lease now. */
export interface Outlook {
  /** Who could take it. */
  readonly free: ReadonlyArray<PlatformId>
  /** Why each of the other candidates could not. */
  readonly busy: ReadonlyArray<PlatformReason>
  /** Who of those free would get it; absent where it would wait. */
  readonly choice?: PlatformId | undefined
  /** It would leave those free unused, up to this instant (epoch ms), for one of more than twice their weight. */
  readonly patientUntil?: number | undefined
}

export type Answer =
  | { readonly _tag: "Granted"; readonly held: Held }
  | { readonly _tag: "Refused"; readonly error: LeaseUnavailable }

/** A call's place in the line, until `answer` is there. */
export interface Ticket extends WaitingLine.Waiter<Place> {
  readonly request: LeaseRequest
  readonly options: ReadonlyArray<Option>
  answer: Answer | undefined
  /** Called once, when the answer is there. */
  onAnswer: ((answer: Answer) => void) | undefined
}

interface Option extends WaitingLine.Option<Place> {
  readonly ask: Ask
}

/** A platform, and what the pass under way found out about it. */
interface Place extends Slot.Slot {
  readonly kept: Array<Kept>
  /** In one pass what is free only grows less. */
  readonly tried: Array<Tried>
  /** Whether its windows, and nothing else, hold calls back. */
  isShort: boolean
}

/** Live waits of one process at most. */
const MAX_WAITING = 10_000
/** What a lower priority that waits for a saturated platform is owed of its grants, by cost. */
const SHARES: ReadonlyArray<readonly [Priority, number]> = [
  ["MEDIUM", 0.1],
  ["LOW", 0.05]
]
/** Blocked calls for each model of a platform that are looked at in one round: the first keeps its place. */
const LOOKED_AT = 8
/** How long lower calls are still paced after it was for windows that they waited, ms. */
const PACED_MS = 5_000
const ROUNDING = 1e-9
/** Who gave up sooner is not told of room: it would come back, and give up, in circles. */
const WAITED_LONG_MS = 1_000
/** When to look again at what should be free by now and is not yet, ms. */
const HAIR_MS = 1
const NEVER = Number.POSITIVE_INFINITY
/** The least that a call can need. */
const NO_TOKENS: TokenEstimate = { input: 0, maxOutput: 0 }

/**
 * Decides who goes where. It owns the waiting line and every platform's breaker and budget; each method is one
 * synchronous step of a single owner, told the time, after which nothing that could be granted is left waiting.
 */
export interface Dispatcher {
  /** Takes a place in the line; the answer may be there at once. */
  readonly enter: (request: LeaseRequest, now: Now) => Ticket
  /** Why such a call certainly cannot start in time, were it to enter now; nothing changes. */
  readonly forecast: (request: LeaseRequest, now: Now) => LeaseUnavailable | undefined
  /** Who could take such a call now and who would get it; nothing changes. */
  readonly outlook: (request: LeaseRequest, now: Now) => Outlook
  /** The caller is gone: its place, or what it was granted meanwhile, is given back without a trace. */
  readonly leave: (ticket: Ticket, now: Now) => void
  readonly started: (held: Held, readings: ReadonlyArray<LimitReading>, now: Now) => void
  /** `random` (0 to 1) is for the breaker's jitter. Later calls change nothing. */
  readonly settle: (held: Held, settlement: Settlement, now: Now, random: number) => void
  readonly setOut: (platform: PlatformId, model: string | undefined, out: Slot.Out | undefined, now: Now) => void
  /** By hand, beside `setOut`: neither undoes the other. Running attempts go on. */
  readonly setDrained: (platform: PlatformId, drained: Drained | undefined, now: Now) => void
  readonly exhaust: (platform: PlatformId, quota: Exhausted, now: Now) => void
  readonly clearExhausted: (platform: PlatformId, now: Now) => void
  /** What the provider says of its limits beside any attempt. */
  readonly correct: (platform: PlatformId, readings: ReadonlyArray<LimitReading>, now: Now) => void
  /** Other limits from now on, for everyone who waits. */
  readonly configure: (platform: PlatformId, limits: PlatformLimits, now: Now) => void
  /** Takes in `bytes` that are not a waiting call's (a body being read), where there is room for them. */
  readonly tryHold: (bytes: number) => boolean
  readonly release: (bytes: number) => void
  /** Time has passed. */
  readonly tick: (now: Now) => void
  /** The earliest instant at which time alone changes something, monotonic ms; Infinity = never. */
  readonly due: () => number
  /** Platforms of which something changed since they were last saved, and whether one of them is pressing. */
  readonly unsaved: () => { readonly platforms: ReadonlyArray<PlatformId>; readonly isPressing: boolean }
  /** Whether there are such platforms; asked after every step. */
  readonly isUnsaved: () => boolean
  readonly isPressing: () => boolean
  readonly save: (platform: PlatformId, now: Now) => Pick<SavedPlatform, "budget" | "breakers"> | undefined
  /** What `save` gave has reached the disk. */
  readonly saved: (platform: PlatformId, state: Pick<SavedPlatform, "budget">, now: Now) => void
  /** Goes on from what was saved before the process started; called before anything else. */
  readonly restore: (platform: PlatformId, state: SavedPlatform, now: Now) => void
  readonly platform: (platform: PlatformId, now: Now) => PlatformResources
  readonly view: (now: Now) => ResourcesView
}

export interface DispatcherOptions {
  readonly platforms: ReadonlyArray<Pick<Slot.SlotOptions, "id" | "budget" | "breaker">>
  readonly onTransition: (transition: Breaker.BreakerTransition) => void
  /** What happened to a platform: every breaker transition too. */
  readonly onEvent: (platform: PlatformId, body: PlatformEventBody, now: Now) => void
  /** A platform has room that nobody waits for, after callers who come back waited for it in vain. */
  readonly onRoom: (platform: PlatformId) => void
  /** Bytes of waiting calls and of bodies being read, at most. */
  readonly maxBytes: number
}

/** The share of a platform that is kept for a better-ranked call that cannot start yet. */
interface Kept {
  readonly ticket: Ticket
  readonly ask: Ask
  /** Whether calls of its own priority must not delay it either: it is the first of its model, or is owed its turn. */
  readonly isFirst: boolean
}

/** A call that cannot start on a platform now, and when it could. */
interface Tried {
  readonly ask: Ask
  readonly at: number
}

/** Whether where `less` cannot start `ask` cannot either. */
const needsAsMuch = (ask: Ask, less: Ask): boolean =>
  ask.model === less.model &&
  ask.type === less.type &&
  (less.mayUseReserve || !ask.mayUseReserve) &&
  ask.tokens.input >= less.tokens.input &&
  ask.tokens.maxOutput >= less.tokens.maxOutput

export const make = (options: DispatcherOptions): Dispatcher => {
  const { maxBytes, onEvent, onRoom, onTransition } = options
  const places: ReadonlyArray<Place> = options.platforms.map((platform) => ({
    ...Slot.make({ ...platform, onEvent, onTransition }),
    kept: [],
    tried: [],
    isShort: false
  }))
  const slots = new Map<PlatformId, Place>(places.map((place) => [place.id, place]))
  const line = WaitingLine.make<Place, Ticket>()
  const turns = Turns.make<Place>()
  let arrivals = 0
  let leases = 0
  let dueAt = NEVER
  /** The last call for each platform that waited for it in vain and comes back, nobody knows when. */
  const missed = new Map<Place, Option>()
  /** Whether a budget paces lower priorities, or is about to. */
  let isPaced = false
  /** Bytes that are not a waiting call's. */
  let heldBytes = 0

  /** The same for a call that may draw what is kept for HIGH, because it is owed its turn. */
  const owedAskOf = ({ ask }: Option): Ask => (ask.mayUseReserve ? ask : { ...ask, mayUseReserve: true })

  const ticketOf = (request: LeaseRequest, order: number, now: Now): Ticket => {
    const { priority, tokens, type } = request
    const open: Array<Option> = []
    for (const { model, notBefore = 0, platform, weight } of request.candidates) {
      const slot = slots.get(platform)
      if (slot === undefined) continue
      open.push({ slot, model, weight, notBefore, ask: { tokens, model, type, mayUseReserve: priority === "HIGH" } })
    }
    return {
      order,
      priority,
      tenant: request.tenant,
      options: open,
      since: now.ms,
      deadline: now.ms + request.maxWaitMs,
      bytes: request.bytes ?? 0,
      patience: undefined,
      request,
      answer: undefined,
      onAnswer: undefined
    }
  }

  // Refusals

  /** When its outages, breakers, quotas and backoff let it start; in the past where they do. */
  const heldUntil = (option: Option, now: Now): number =>
    Math.max(option.slot.heldUntil(option.model, now), option.notBefore)

  /** It certainly cannot serve the call before this instant; in the past where it may at any moment. */
  const notBefore = (option: Option, now: Now): number =>
    Math.max(option.slot.notBefore(option.ask, now), option.notBefore)

  const isTooLate = (at: number, { deadline }: Ticket): boolean => at === NEVER || at > deadline

  const reasonOf = (option: Option, now: Now): PlatformReason => {
    const isHeld = option.notBefore > now.ms
    const { earliest, kind, reason } =
      option.slot.obstacle(option.ask, now) ??
      (isHeld
        ? {
            kind: "failure",
            reason: "it failed this call just now and is not asked again yet",
            earliest: option.notBefore
          }
        : { kind: "limit", reason: "calls that go first wait for it", earliest: NEVER })
    const at = Math.max(earliest, option.notBefore)
    return { platform: option.slot.id, reason, kind, earliestAt: at > now.ms ? epochOf(at, now) : undefined }
  }

  const unavailable = (ticket: Ticket, now: Now, why?: string): LeaseUnavailable => {
    const { candidates, maxWaitMs } = ticket.request
    const reasons = [
      ...ticket.options.map((option) => reasonOf(option, now)),
      ...candidates.flatMap(({ platform }) =>
        slots.has(platform) ? [] : [{ platform, reason: "it is not configured" }]
      )
    ]
    const first = ticket.options.reduce((earliest, option) => Math.min(earliest, notBefore(option, now)), NEVER)
    const message = why ?? `No platform can start this call within ${Math.round(maxWaitMs)} ms`
    const told = reasons.map(({ platform, reason }) => `${platform}: ${reason}`).join("; ")
    return new LeaseUnavailable({
      message: told === "" ? message : `${message} (${told})`,
      reasons,
      earliestAt: first > now.ms ? epochOf(first, now) : undefined
    })
  }

  const answer = (ticket: Ticket, given: Answer): void => {
    ticket.answer = given
    ticket.onAnswer?.(given)
  }

  const refuse = (ticket: Ticket, error: LeaseUnavailable): void => {
    line.remove(ticket)
    answer(ticket, { _tag: "Refused", error })
  }

  /** Whether it could start there now, those who wait aside; platforms are as of their latest look. */
  const isFreeFor = (option: Option, now: Now): boolean =>
    option.notBefore <= now.ms && option.slot.isUsable(option.model, now) && option.slot.budget.fits(option.ask, now)

  /** Whether as many as this can start on any of its platforms until its deadline, at the very most. */
  const hasRoomFor = (ticket: Ticket, calls: number, now: Now): boolean => {
    let room = 0
    for (const option of ticket.options) {
      if (isTooLate(heldUntil(option, now), ticket)) continue
      // what the calls ahead need is not known: each at least what the smallest one does
      room += option.slot.budget.room({ ...option.ask, tokens: NO_TOKENS }, ticket.deadline, now)
      if (room >= calls) return true
    }
    return false
  }

  /** Why a call that cannot start now need not wait, `ahead` being those of its own kind who go first. */
  const refusalAtOnce = (ticket: Ticket, ahead: number, now: Now): LeaseUnavailable | undefined => {
    if (ticket.options.every((option) => isTooLate(notBefore(option, now), ticket))) {
      return unavailable(ticket, now)
    }
    if (ahead > 0 && ticket.request.comesBack !== true && !hasRoomFor(ticket, ahead + 1, now)) {
      const within = `within ${Math.round(ticket.request.maxWaitMs)} ms`
      return unavailable(ticket, now, `${ahead} calls go before this one, more than can start ${within}`)
    }
    return undefined
  }

  /** Why the service is full, should it take in one more. */
  const fullness = (waiting: number, bytes: number): string | undefined =>
    waiting > MAX_WAITING
      ? `${MAX_WAITING} calls are waiting already: this service takes no more for now`
      : heldBytes + bytes > maxBytes
        ? `the calls that wait take up ${maxBytes} bytes already: this service takes no more for now`
        : undefined

  /**
   * Those that cannot be served in time any more are told now, not when their time is over. Looks only at calls that
   * give up before every platform that is open to them is back.
   */
  const refuseHopeless = (now: Now): void => {
    // of calls to which nothing is open yet: when every platform is back, whatever the model
    let latest = now.ms
    for (const slot of places) latest = Math.max(latest, slot.heldUntil("", now))
    for (const priority of WaitingLine.priorities) {
      for (const { givingUpBefore, options } of [...line.classes(priority)]) {
        const backAt = options.reduce(
          (earliest, { model, slot }) => Math.min(earliest, slot.heldUntil(model, now)),
          options.length === 0 ? latest : NEVER
        )
        if (backAt <= now.ms) continue
        for (const ticket of givingUpBefore(backAt)) {
          if (ticket.options.every((option) => isTooLate(heldUntil(option, now), ticket))) {
            refuse(ticket, unavailable(ticket, now))
          }
        }
      }
    }
  }

  // Grants

  const rotationOf = ({ request }: Ticket): string => request.rotation ?? request.type

  /** Why the options that are not `free` are not. */
  const busyOf = (ticket: Ticket, free: ReadonlyArray<Option>, now: Now): ReadonlyArray<PlatformReason> =>
    ticket.options.length === free.length
      ? []
      : ticket.options.flatMap((option) => (free.includes(option) ? [] : [reasonOf(option, now)]))

  /** Every priority that waits for the platform earns its share of what it gives away; the one served pays. */
  const account = (slot: Place, served: Priority, ask: Ask): void => {
    for (const [priority, share] of SHARES) {
      if (line.waitingFor(slot, priority) === 0) {
        slot.credit[priority] = 0
        continue
      }
      const cost = slot.budget.share(ask)
      const earned = slot.credit[priority] + share * cost - (priority === served ? cost : 0)
      slot.credit[priority] = Math.min(1, Math.max(0, earned))
    }
  }

  const grant = (ticket: Ticket, { model, slot }: Option, ask: Ask, free: ReadonlyArray<Option>, now: Now): boolean => {
    const busy = busyOf(ticket, free, now)
    const taken = slot.take(ask, ticket.request.attempt, now)
    if (taken === undefined) return false
    line.serve(ticket)
    account(slot, ticket.priority, ask)
    leases += 1
    const held: Held = {
      id: leases,
      platform: slot.id,
      model,
      waitedMs: now.ms - ticket.since,
      free: free.map((option) => option.slot.id),
      busy,
      slot,
      taken,
      hasStarted: false,
      isSettled: false
    }
    answer(ticket, { _tag: "Granted", held })
    return true
  }

  /** Whether the option's start is known to lie before `until`, those who wait for the same platform going first. */
  const startsBy = (ticket: Ticket, option: Option, until: number, now: Now): boolean => {
    const { ask, notBefore, slot } = option
    // no other platform waits for the backoff of one that failed the call
    if (notBefore > now.ms || slot.earliest(ask, now) > until) return false
    let ahead = WaitingLine.opensAt(ticket, option) <= now.ms ? -1 : 0
    for (const priority of WaitingLine.priorities) {
      ahead += line.waitingFor(slot, priority)
      if (priority === ticket.priority) break
    }
    return slot.budget.room(ask, until, now) > ahead
  }

  /** The platform it should rather wait for than take one of the `free`, if there is one. */
  const patienceOf = (ticket: Ticket, free: ReadonlyArray<Option>, now: Now): WaitingLine.Patience | undefined => {
    const until = Math.min(ticket.since + (ticket.request.patienceMs ?? 0), ticket.deadline)
    if (until <= now.ms) return undefined
    const enough = 2 * free.reduce((most, { weight }) => Math.max(most, weight), 0)
    const worth = ticket.options.filter((option) => option.weight > enough && startsBy(ticket, option, until, now))
    const weight = worth.reduce((most, option) => Math.max(most, option.weight), 0)
    return weight === 0 ? undefined : { weight, until }
  }

  // The pass over the heads. There is one at a time, and one for each step of each call: so nothing of it but what it finds
  // is made anew.

  let now: Now = { ms: 0, epochMs: 0 }
  let due = NEVER
  /** What the pass went by has changed on the way. */
  let isStale = false
  const aside: Array<Ticket> = []

  /** Time changes something at this instant; what is over already waits for something else. */
  const note = (at: number): void => {
    if (at > now.ms && at < due) due = at
  }

  const isOpenTo = (ticket: Ticket, option: Option): boolean => WaitingLine.opensAt(ticket, option) <= now.ms

  const isClosed = ({ model, slot }: WaitingLine.Option<Place>): boolean => {
    if (slot.kept.length < LOOKED_AT) return false
    let looked = 0
    for (const { ask } of slot.kept) if (ask.model === model) looked += 1
    return looked >= LOOKED_AT
  }
  const isFree = (option: WaitingLine.Option<Place>): boolean =>
    option.slot.isUsable(option.model, now) && !isClosed(option)
  const hasFree = ({ options }: WaitingLine.Class<Place, Ticket>): boolean => {
    for (const option of options) if (isFree(option)) return true
    return false
  }

  /** It may pass those that rank before it, where that does not put off their start. */
  const mayPass = (ask: Ask, slot: Place, priority: Priority): boolean => {
    for (const before of slot.kept) {
      if (!before.isFirst && before.ticket.priority === priority) continue
      if (!slot.budget.delays(ask, before.ask, now)) continue
      // one that waits for a running attempt may be passed as soon as there is room for both
      const at = slot.budget.earliestAfter(ask, before.ask, now)
      note(at)
      if (at > now.ms && at < NEVER) slot.isShort = true
      return false
    }
    return true
  }

  /** When a call that needs no more can start there, where it was found that it cannot now. */
  const knownAt = (ask: Ask, slot: Place): number | undefined => {
    for (const before of slot.tried) if (needsAsMuch(ask, before.ask)) return before.at
    return undefined
  }

  const keep = (ticket: Ticket, ask: Ask, slot: Place, isOwed: boolean): void => {
    let isFirst = true
    if (!isOwed) {
      for (const other of slot.kept) {
        if (other.ask.model === ask.model && other.ticket.priority === ticket.priority) isFirst = false
      }
    }
    slot.kept.push({ ticket, ask, isFirst })
  }

  /** When it can start there; notes it, and whether the platform's windows are all that it waits for. */
  const lookAhead = (ask: Ask, slot: Place): number => {
    const known = slot.earliest(ask, now)
    // sums of fractions may come to now a hair before it fits
    const at = known <= now.ms && !slot.budget.fits(ask, now) ? now.ms + HAIR_MS : known
    note(at)
    if (at > now.ms && at < NEVER && slot.heldUntil(ask.model, now) <= now.ms) slot.isShort = true
    slot.tried.push({ ask, at })
    return at
  }

  /** A platform's lower priorities first, where they are owed the next grant. */
  const serveOwed = (): boolean => {
    for (const slot of places) {
      for (const [priority] of SHARES) {
        if (slot.credit[priority] <= 0) continue
        const isHere = (option: WaitingLine.Option<Place>): boolean =>
          option.slot === slot && slot.isUsable(option.model, now)
        for (;;) {
          const head = line.best(priority, ({ options }) => options.some(isHere))?.head()
          const option = head?.options.find((option) => isHere(option) && isOpenTo(head, option))
          if (head === undefined || option === undefined) break
          const ask = owedAskOf(option)
          if (slot.credit[priority] + ROUNDING < slot.budget.share(ask)) break
          if (!slot.budget.fits(ask, now)) {
            if (slot.kept.every(({ ticket }) => ticket !== head)) keep(head, ask, slot, true)
            lookAhead(ask, slot)
            break
          }
          if (!mayPass(ask, slot, priority)) break
          const patience = patienceOf(head, [option], now)
          if (patience === undefined) {
            const free = head.options.filter(
              (other) =>
                other === option || (isOpenTo(head, other) && isFree(other) && other.slot.budget.fits(other.ask, now))
            )
            if (!grant(head, option, ask, free, now)) break
            return true
          }
          line.setPatience(head, patience, now.ms)
        }
      }
    }
    return false
  }

  /**
   * The head does not fit anywhere now. The platform where it can start first is kept for it; others may be used by
   * calls behind it, which does not delay it.
   */
  const keepPlace = (head: Ticket): void => {
    let first: Option | undefined
    let firstAt = NEVER
    for (const option of head.options) {
      if (isClosed(option) || !isOpenTo(head, option)) continue
      const { ask, model, slot } = option
      const known = knownAt(ask, slot) ?? lookAhead(ask, slot)
      // an open platform whose running attempts hold the tokens may give them back at any moment
      const at = known === NEVER && slot.isUsable(model, now) ? now.ms : known
      if (first !== undefined && at >= firstAt) continue
      first = option
      firstAt = at
    }
    if (first !== undefined) keep(head, first.ask, first.slot, false)
    line.setAside(head)
    aside.push(head)
  }

  const mayStart = (head: Ticket, option: Option): boolean =>
    isOpenTo(head, option) &&
    isFree(option) &&
    knownAt(option.ask, option.slot) === undefined &&
    option.slot.budget.fits(option.ask, now) &&
    mayPass(option.ask, option.slot, head.priority)

  const serve = (head: Ticket): boolean => {
    let free: [Option, ...Array<Option>] | undefined
    for (const option of head.options) {
      if (!mayStart(head, option)) continue
      if (free === undefined) free = [option]
      else free.push(option)
    }
    if (free === undefined) return false
    const patience = patienceOf(head, free, now)
    if (patience !== undefined) {
      line.setPatience(head, patience, now.ms)
      return true
    }
    const chosen = turns.take(free, rotationOf(head))
    if (!grant(head, chosen, chosen.ask, free, now)) return false
    // what was kept for it, as one that is owed, is free again
    for (const { kept } of places) for (const { ticket } of kept) if (ticket === head) isStale = true
    return true
  }

  const serveRanked = (): boolean => {
    for (const priority of WaitingLine.priorities) {
      for (;;) {
        const head = line.best(priority, hasFree)?.head()
        if (head === undefined) break
        if (serve(head)) return true
        keepPlace(head)
      }
    }
    return false
  }

  /** When the class's options open that time alone opens. */
  const noteOpenings = (options: ReadonlyArray<WaitingLine.Option<Place>>): void => {
    for (const { model, slot } of options) {
      if (slot.isUsable(model, now)) continue
      const opensAt = Math.max(slot.opensAt(model, now), now.ms + HAIR_MS)
      note(opensAt)
      if (opensAt < NEVER && slot.heldUntil(model, now) <= now.ms) slot.isShort = true
    }
  }

  /** Whether the platform it is patient for will not be free in time. */
  const isPatientInVain = (ticket: Ticket, { until, weight }: WaitingLine.Patience): boolean => {
    let startsAt = NEVER
    for (const option of ticket.options) {
      if (option.weight < weight) continue
      startsAt = Math.min(startsAt, Math.max(option.notBefore, option.slot.earliest(option.ask, now)))
    }
    if (startsAt > until) return true
    note(startsAt)
    return false
  }

  /**
   * One pass: grants everything that can be granted now, and notes when more can be. Whether it has to be made once more,
   * because what it went by has changed on the way.
   */
  const pass = (at: Now): boolean => {
    now = at
    due = NEVER
    isStale = false
    for (const place of places) {
      place.refresh(now)
      place.kept.length = 0
      place.tried.length = 0
      place.isShort = false
    }
    line.promote(now.ms)

    while (!isStale && (serveOwed() || serveRanked())) {}
    // the last one first: each then comes to the front of its queue
    for (let ticket = aside.pop(); ticket !== undefined; ticket = aside.pop()) line.putBack(ticket)
    if (isStale) return true

    let impatient: Array<Ticket> | undefined
    for (const priority of WaitingLine.priorities) {
      for (const waiting of line.classes(priority)) {
        noteOpenings(waiting.options)
        const first = waiting.head()
        if (first?.patience === undefined || !isPatientInVain(first, first.patience)) continue
        impatient ??= []
        impatient.push(first)
      }
    }
    if (impatient !== undefined) {
      for (const ticket of impatient) line.setPatience(ticket, undefined, now.ms)
      return true
    }

    for (const place of places) note(place.changesAt(now))
    dueAt = Math.min(due, line.nextInstant())
    return false
  }

  /**
   * Budgets pace the lower priorities while those wait for their windows, and a while longer if they go on waiting: a
   * moment in which it is for permits that they wait must not let them draw at once what comes evenly to everybody.
   * Whether some that wait are paced no more.
   */
  const tellBacklog = (now: Now): boolean => {
    let isPaceOver = false
    isPaced = false
    for (const slot of places) {
      if (slot.isShort) slot.shortUntil = now.ms + PACED_MS
      const isWaitedFor = line.waitingFor(slot, "MEDIUM") > 0 || line.waitingFor(slot, "LOW") > 0
      const hasBacklog = isWaitedFor && now.ms < slot.shortUntil
      isPaced ||= hasBacklog || slot.isShort
      if (hasBacklog === slot.hasBacklog) continue
      slot.hasBacklog = hasBacklog
      slot.budget.setBacklog(hasBacklog)
      isPaceOver ||= isWaitedFor && !hasBacklog
    }
    return isPaceOver
  }

  const giveUp = (ticket: Ticket, now: Now): void => {
    const error = unavailable(ticket, now)
    const isTold = ticket.request.comesBack === true && ticket.deadline - ticket.since >= WAITED_LONG_MS
    if (isTold && error.earliestAt === undefined) {
      for (const option of ticket.options) missed.set(option.slot, option)
    }
    refuse(ticket, error)
  }

  const tellRoom = (now: Now): void => {
    for (const [slot, option] of missed) {
      if (!isFreeFor(option, now)) continue
      missed.delete(slot)
      onRoom(slot.id)
    }
  }

  const advance = (now: Now): void => {
    for (let isFirst = true; ; isFirst = false) {
      while (pass(now)) {}
      // who is paced no longer may go at once
      if (tellBacklog(now) && isFirst) continue
      const late = line.expired(now.ms)
      if (late.length === 0) break
      for (const ticket of late) giveUp(ticket, now)
    }
    if (missed.size > 0) tellRoom(now)
  }

  /**
   * Whether another look changes nothing now that the attempt ages. The latest look left nobody waiting who could start,
   * and time alone changes that at `dueAt` first. That an attempt ages only says when a limit is free again: it concerns
   * nobody where nobody waits, or where the platform has no limits. What is told by time, and yet is not in `dueAt`, is
   * room to those who missed it and the end of a pace: there must be neither.
   */
  const isIdleUntilDue = ({ slot, taken }: Held, now: Now): boolean =>
    now.ms < dueAt && missed.size === 0 && (line.size() === 0 || (!isPaced && !slot.budget.isLimited(taken.grant)))

  /** Whether it is the first to end the lease. */
  const end = (held: Held): boolean => {
    const isFirst = !held.isSettled
    held.isSettled = true
    return isFirst
  }

  const withSlot = (platform: PlatformId, now: Now, act: (slot: Place) => void): void => {
    const slot = slots.get(platform)
    if (slot === undefined) return
    act(slot)
    refuseHopeless(now)
    advance(now)
  }

  const isPressing = (): boolean => places.some((place) => place.isUnsaved() && place.budget.wantsSave())

  const platformView = (slot: Slot.Slot, now: Now): PlatformResources => {
    slot.refresh(now)
    return slot.view(now)
  }

  return {
    enter: (request, now) => {
      arrivals += 1
      const ticket = ticketOf(request, arrivals, now)
      line.add(ticket, now.ms)
      advance(now)
      if (ticket.answer !== undefined) return ticket
      const full = fullness(line.size(), line.bytes())
      const refusal =
        refusalAtOnce(ticket, line.alike(ticket, now.ms) - 1, now) ??
        (full === undefined ? undefined : unavailable(ticket, now, full))
      if (refusal === undefined) return ticket
      refuse(ticket, refusal)
      // it may have kept a platform from others for a moment
      advance(now)
      return ticket
    },

    forecast: (request, now) => {
      const ticket = ticketOf(request, arrivals + 1, now)
      for (const slot of places) slot.refresh(now)
      const fits = ticket.options.some((option) => isFreeFor(option, now))
      // A line that is full now has room again later: whoever can wait elsewhere is not too late for that.
      return fits ? undefined : refusalAtOnce(ticket, line.alike(ticket, now.ms), now)
    },

    outlook: (request, now) => {
      const ticket = ticketOf(request, arrivals + 1, now)
      for (const slot of places) slot.refresh(now)
      const [first, ...others] = ticket.options.filter(
        (option) =>
          isFreeFor(option, now) &&
          !WaitingLine.priorities
            .slice(0, WaitingLine.priorities.indexOf(ticket.priority) + 1)
            .some((priority) => line.waitingFor(option.slot, priority) > 0)
      )
      if (first === undefined) return { free: [], busy: busyOf(ticket, [], now) }
      const free = [first, ...others] as const
      const patience = patienceOf(ticket, free, now)
      return {
        free: free.map(({ slot }) => slot.id),
        busy: busyOf(ticket, free, now),
        ...(patience === undefined
          ? { choice: turns.next(free, rotationOf(ticket)).slot.id }
          : { patientUntil: epochOf(patience.until, now) })
      }
    },

    leave: (ticket, now) => {
      if (ticket.answer === undefined) line.remove(ticket)
      else if (ticket.answer._tag === "Granted" && end(ticket.answer.held)) {
        ticket.answer.held.slot.giveBack(ticket.answer.held.taken, now)
      }
      advance(now)
    },

    started: (held, readings, now) => {
      if (held.isSettled || held.hasStarted) return
      held.hasStarted = true
      held.slot.started(held.taken, readings, now)
      if (readings.length === 0 && isIdleUntilDue(held, now)) return
      if (readings.length > 0) refuseHopeless(now)
      advance(now)
    },

    settle: (held, settlement, now, random) => {
      if (!end(held)) return
      held.slot.settle(held.taken, settlement, now, random)
      if (settlement._tag === "Failed") refuseHopeless(now)
      advance(now)
    },

    setOut: (platform, model, out, now) => withSlot(platform, now, (slot) => slot.setOut(model, out, now)),
    setDrained: (platform, drained, now) => withSlot(platform, now, (slot) => slot.setDrained(drained)),
    exhaust: (platform, quota, now) => withSlot(platform, now, (slot) => slot.exhaust(quota, now)),
    clearExhausted: (platform, now) => withSlot(platform, now, (slot) => slot.clearExhausted(now)),
    correct: (platform, readings, now) => withSlot(platform, now, (slot) => slot.correct(readings, now)),
    configure: (platform, limits, now) => withSlot(platform, now, (slot) => slot.configure(limits, now)),

    tryHold: (bytes) => {
      if (heldBytes + line.bytes() + bytes > maxBytes) return false
      heldBytes += bytes
      return true
    },
    release: (bytes) => {
      heldBytes -= bytes
    },

    tick: advance,
    due: () => dueAt,

    unsaved: () => ({
      platforms: places.filter((place) => place.isUnsaved()).map(({ id }) => id),
      isPressing: isPressing()
    }),
    isUnsaved: () => places.some((place) => place.isUnsaved()),
    isPressing,
    save: (platform, now) => slots.get(platform)?.save(now),
    saved: (platform, state, now) => {
      slots.get(platform)?.saved(state)
      advance(now)
    },
    restore: (platform, state, now) => {
      slots.get(platform)?.restore(state, now)
      advance(now)
    },

    platform: (platform, now) => {
      const slot = slots.get(platform)
      return slot === undefined
        ? {
            platform,
            buckets: [],
            permits: {
              inUse: 0,
              max: 0,
              keptForHigh: 0,
              utilization: { oneMinute: 0, fiveMinutes: 0 },
              models: []
            },
            breaker: { state: "closed", consecutiveFailures: 0, capacityPercent: 100 },
            modelBreakers: [],
            exhausted: []
          }
        : platformView(slot, now)
    },

    view: (now) => {
      const queue = (priority: Priority) => ({
        depth: line.depth(priority),
        oldestWaitMs: now.ms - (line.oldest(priority) ?? now.ms)
      })
      return {
        platforms: places.map((slot) => platformView(slot, now)),
        queue: { HIGH: queue("HIGH"), MEDIUM: queue("MEDIUM"), LOW: queue("LOW") },
        admission: {
          waiting: line.size(),
          maxWaiting: MAX_WAITING,
          bytes: heldBytes + line.bytes(),
          maxBytes
        }
      }
    }
  }
}
