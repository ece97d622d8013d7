import type { PlatformId } from "../../../src/Domain/Platform.js"
import type { Priority } from "../../../src/Domain/Task.js"
import { makeAgenda, runAgenda } from "../support/Agenda.js"
import {
  countedBy,
  countsAtEnd,
  limitsOf,
  type ProviderLimit,
  permitsOf,
  type SimulatedPlatform
} from "../support/Provider.js"
import type { SimulatedCall } from "./Load.js"
import { makeRecorder, type Run } from "./Run.js"

/** What is reserved of a limit for a call until its answer is there, and what is learned from answers. */
export interface Bounds {
  readonly reservedFor: (platform: SimulatedPlatform, unit: ProviderLimit["unit"], call: SimulatedCall) => number
  readonly learn: (platform: PlatformId, call: SimulatedCall) => void
}

export const oracleKnows = [
  "The oracle is an event-driven greedy scheduler with late binding that keeps what the product must keep. It has the",
  "platforms' limits and permits, and reserves what the product's own rule reserves for each call until its answer is",
  "there. It goes by priority and arrival: the first call that fits nowhere keeps its place, and others pass it where that",
  "does not delay its start. It keeps for HIGH a permit where there are 4 or more, and 1 % of a window longer than a",
  "minute; of such a window lower calls draw half at once and half evenly, of a minute's tokens a tenth evenly.",
  "It knows what nobody can: how long running calls will take and what they will turn out to have used, so when exactly",
  "each call could start; a call is counted the moment it is sent (no network, no wait for headers), a window is exactly",
  "its length, and only what was really used stays counted from the moment the answer is there.",
  "The packer is the same but for the order and the minute's level, neither of which it keeps: whatever fits may pass",
  "whoever waits. It shows what these two promises cost, in its shorter makespan, and what they are worth, in HIGH's waits."
].join("\n")

interface Entry {
  amount: number
  /** Since when it ages; not yet where undefined. */
  since: number | undefined
}

/** A limit's exact rolling window. */
interface Window extends ProviderLimit {
  readonly keptForHigh: number
  /** What lower calls draw evenly until something comes free by age, and not at once. */
  readonly drawnEvenly: number
  readonly log: Array<Entry>
  first: number
  used: number
}

interface Slot {
  readonly id: PlatformId
  readonly platform: SimulatedPlatform
  readonly windows: ReadonlyArray<Window>
  readonly permits: number
  readonly permitsKept: number
  /** Attempts whose answers are still to come. */
  readonly flights: Set<Flight>
}

interface Flight {
  readonly answeredAt: number
  /** For each of the platform's windows. */
  readonly holds: ReadonlyArray<{ readonly entry: Entry; readonly real: number }>
}

/** The first call that fits nowhere, and the platform that can start it first. */
interface Head {
  readonly call: SimulatedCall
  readonly slot: Slot
  readonly startsAt: number
}

type Event =
  | { readonly _tag: "CallArrives"; readonly call: SimulatedCall }
  | { readonly _tag: "Answered"; readonly call: SimulatedCall; readonly slot: Slot; readonly flight: Flight }
  | { readonly _tag: "WindowMoves" }

const priorities: ReadonlyArray<Priority> = ["HIGH", "MEDIUM", "LOW"]
/** Sums and instants are exact to this. */
const ROUNDING = 1e-6
/** Calls of one priority that are looked at, at one instant, beyond those that fit. */
const LOOKAHEAD = 64

const keptForHigh = ({ capacity, unit, windowMs }: ProviderLimit): number => {
  const kept = unit === "requests" ? Math.max(1, Math.floor(capacity / 100)) : capacity / 100
  return windowMs > 60_000 && kept <= capacity / 50 ? kept : 0
}

const drawnEvenly = (limit: ProviderLimit, keepsMinutes: boolean): number => {
  if (limit.windowMs > 60_000) return limit.capacity / 2 - keptForHigh(limit)
  return keepsMinutes && limit.unit !== "requests" ? limit.capacity / 10 : 0
}

const prune = (window: Window, at: number): void => {
  for (let old = window.log[window.first]; old?.since !== undefined; old = window.log[window.first]) {
    if (old.since + window.windowMs > at) return
    window.used -= old.amount
    window.first += 1
  }
}

/**
 * Runs the load through the oracle, or, where `keepsOrder` is false, through the packer. The target is set beside the
 * oracle: a schedule that lets a large HIGH call wait for minutes behind small LOW ones, or lower calls draw the minute's
 * level, breaks what the product promises, so its makespan says nothing of how well those promises are kept.
 */
export const runOracle = (
  platforms: ReadonlyArray<SimulatedPlatform>,
  calls: ReadonlyArray<SimulatedCall>,
  bounds: Bounds,
  keepsOrder = true
): Run => {
  const recorder = makeRecorder(platforms)
  const agenda = makeAgenda<Event>()
  const queues: Record<Priority, Array<SimulatedCall>> = { HIGH: [], MEDIUM: [], LOW: [] }
  const slots = new Map<PlatformId, Slot>(
    platforms.map((platform) => [
      platform.id,
      {
        id: platform.id,
        platform,
        windows: limitsOf(platform).map((limit) => ({
          ...limit,
          keptForHigh: keptForHigh(limit),
          drawnEvenly: drawnEvenly(limit, keepsOrder),
          log: [],
          first: 0,
          used: 0
        })),
        permits: permitsOf(platform),
        permitsKept: permitsOf(platform) >= 4 ? 1 : 0,
        flights: new Set()
      }
    ])
  )

  const agesFromAnswer = (slot: Slot, window: Window): boolean => countsAtEnd(slot.platform, window.unit)

  const amountOf = (slot: Slot, window: Window, call: SimulatedCall): number =>
    Math.min(window.capacity, bounds.reservedFor(slot.platform, window.unit, call))

  /** What the window counts of the call when its answer is there. */
  const realOf = (slot: Slot, window: Window, call: SimulatedCall): number =>
    window.unit === "requests" ? amountOf(slot, window, call) : countedBy(slot.platform, window.unit, call)

  const room = (slot: Slot, priority: Priority): boolean =>
    slot.flights.size < slot.permits - (priority === "HIGH" ? 0 : slot.permitsKept)

  /** When so much of `drawnEvenly` has come to lower calls that an amount fits, if it fits but for that. */
  const evenFrom = (window: Window, free: number, at: number): number => {
    if (window.drawnEvenly === 0 || window.used <= ROUNDING) return at
    const oldest = window.log[window.first]?.since ?? at
    return oldest + window.windowMs - (free / window.drawnEvenly) * window.windowMs
  }

  const fits = (slot: Slot, call: SimulatedCall, at: number): boolean =>
    room(slot, call.priority) &&
    slot.windows.every((window) => {
      prune(window, at)
      const isHigh = call.priority === "HIGH"
      const free = window.capacity - (isHigh ? 0 : window.keptForHigh) - window.used - amountOf(slot, window, call)
      if (free < -ROUNDING) return false
      const from = isHigh ? at : evenFrom(window, free, at)
      if (from <= at + ROUNDING) return true
      if (agenda.nextAt() > from) agenda.add(from, { _tag: "WindowMoves" })
      return false
    })

  /** The part of the slot's fullest limit that is used. */
  const load = (slot: Slot): number =>
    slot.windows.reduce(
      (most, window) => Math.max(most, window.used / window.capacity),
      slot.flights.size / slot.permits
    )

  const age = (window: Window, entry: Entry, at: number): void => {
    entry.since = at
    window.log.push(entry)
    agenda.add(at + window.windowMs, { _tag: "WindowMoves" })
  }

  const start = (slot: Slot, call: SimulatedCall, at: number): void => {
    recorder.providers.get(slot.id)?.arrive(call, at)
    const reserved = slot.windows.map((window) => amountOf(slot, window, call))
    const answeredAt = at + call.durationMs
    const holds = slot.windows.map((window) => {
      const entry: Entry = { amount: amountOf(slot, window, call), since: undefined }
      window.used += entry.amount
      if (!agesFromAnswer(slot, window)) age(window, entry, at)
      return { entry, real: realOf(slot, window, call) }
    })
    const flight = { answeredAt, holds }
    slot.flights.add(flight)
    agenda.add(answeredAt, { _tag: "Answered", call, slot, flight })
    recorder.answered(call, slot.id, at, answeredAt, reserved)
  }

  const settle = (slot: Slot, call: SimulatedCall, flight: Flight, at: number): void => {
    slot.flights.delete(flight)
    recorder.providers.get(slot.id)?.complete(call, at)
    bounds.learn(slot.id, call)
    for (const [index, window] of slot.windows.entries()) {
      const hold = flight.holds[index]
      if (hold === undefined || window.unit === "requests") continue
      const { entry, real } = hold
      prune(window, at)
      const isGone = entry.since !== undefined && entry.since + window.windowMs <= at
      if (!isGone) {
        window.used += real - entry.amount
        entry.amount = real
      }
      if (agesFromAnswer(slot, window)) age(window, entry, at)
    }
  }

  /** When a permit is there for the call if nothing but `before` starts now. */
  const permitAt = (slot: Slot, { priority }: SimulatedCall, before: SimulatedCall | undefined, at: number): number => {
    const ends = [...slot.flights].map(({ answeredAt }) => answeredAt)
    if (before !== undefined) ends.push(at + before.durationMs)
    const tooMany = ends.length + 1 - (slot.permits - (priority === "HIGH" ? 0 : slot.permitsKept))
    return tooMany <= 0 ? at : (ends.sort((a, b) => a - b)[tooMany - 1] ?? at)
  }

  /** When the window has room for the call if nothing but `before` starts now. */
  const roomAt = (
    slot: Slot,
    index: number,
    call: SimulatedCall,
    before: SimulatedCall | undefined,
    at: number
  ): number => {
    const window = slot.windows[index]
    if (window === undefined) return at
    prune(window, at)
    const kept = call.priority === "HIGH" ? 0 : window.keptForHigh
    let missing = window.used + amountOf(slot, window, call) + kept - window.capacity
    const refunds: Array<readonly [at: number, amount: number]> = []
    const finals = new Map<Entry, number>()
    if (before !== undefined) {
      const amount = amountOf(slot, window, before)
      missing += amount
      refunds.push([at + before.durationMs, amount - realOf(slot, window, before)])
    }
    if (missing <= ROUNDING) return at
    for (const { answeredAt, holds } of slot.flights) {
      const hold = holds[index]
      if (hold === undefined) continue
      finals.set(hold.entry, hold.real)
      refunds.push([answeredAt, hold.entry.amount - hold.real])
    }
    refunds.sort((a, b) => a[0] - b[0])
    let refunded = 0
    for (let next = window.first; ; ) {
      const oldest = window.log[next]
      const agedAt = oldest?.since === undefined ? Number.POSITIVE_INFINITY : oldest.since + window.windowMs
      const refund = refunds[refunded]
      if (refund !== undefined && refund[0] <= agedAt) {
        missing -= refund[1]
        refunded += 1
        if (missing <= ROUNDING) return refund[0]
      } else if (oldest !== undefined && Number.isFinite(agedAt)) {
        missing -= finals.get(oldest) ?? oldest.amount
        next += 1
        if (missing <= ROUNDING) return agedAt
      } else return Number.POSITIVE_INFINITY
    }
  }

  const startsAt = (slot: Slot, call: SimulatedCall, before: SimulatedCall | undefined, at: number): number =>
    slot.windows.reduce(
      (latest, _, index) => Math.max(latest, roomAt(slot, index, call, before, at)),
      permitAt(slot, call, before, at)
    )

  const headOf = (call: SimulatedCall, candidates: ReadonlyArray<Slot>, at: number): Head | undefined =>
    candidates.reduce<Head | undefined>((soonest, slot) => {
      const when = startsAt(slot, call, undefined, at)
      return soonest === undefined || when < soonest.startsAt ? { call, slot, startsAt: when } : soonest
    }, undefined)

  /** Starts what may start of one priority; who keeps its place after that, if anybody does. */
  const serve = (priority: Priority, kept: Head | undefined, at: number): Head | undefined => {
    const queue = queues[priority]
    let head = kept
    let passed = 0
    const mayPass = (slot: Slot, call: SimulatedCall): boolean =>
      head?.slot !== slot || startsAt(slot, head.call, call, at) <= Math.max(at, head.startsAt) + ROUNDING
    for (let index = 0; index < queue.length && passed < LOOKAHEAD; ) {
      const call = queue[index]
      if (call === undefined) return head
      const candidates = call.platforms.flatMap((id) => slots.get(id) ?? [])
      const able = candidates.filter((slot) => fits(slot, call, at) && mayPass(slot, call))
      const [first] = able
      if (first === undefined) {
        if (keepsOrder && head === undefined) head = headOf(call, candidates, at)
        if (![...slots.values()].some((slot) => room(slot, priority))) return head
        index += 1
        passed += 1
        continue
      }
      start(
        able.reduce((best, slot) => (load(slot) < load(best) ? slot : best), first),
        call,
        at
      )
      queue.splice(index, 1)
    }
    return head
  }

  for (const call of calls) agenda.add(call.arrivesAt, { _tag: "CallArrives", call })
  runAgenda(agenda, (event, at) => {
    switch (event._tag) {
      case "CallArrives":
        queues[event.call.priority].push(event.call)
        break
      case "Answered":
        settle(event.slot, event.call, event.flight, at)
        break
      case "WindowMoves":
        break
    }
    if (agenda.nextAt() > at) {
      priorities.reduce<Head | undefined>((head, priority) => serve(priority, head, at), undefined)
    }
  })
  return recorder.run()
}

/**
 * No schedule at all can be shorter than this, ms, whatever it knows: for each thing that is limited, what the calls need
 * of it in all beside what all platforms together have of it. A window's limit is there once at the start and once more
 * with each window that passes. A platform without such a limit makes that bound void.
 */
export const capacityBound = (
  platforms: ReadonlyArray<SimulatedPlatform>,
  calls: ReadonlyArray<SimulatedCall>
): number => {
  const permits = platforms.reduce((sum, platform) => sum + permitsOf(platform), 0)
  const byPermits = calls.reduce((sum, { durationMs }) => sum + durationMs, 0) / permits

  const byWindows = (unit: ProviderLimit["unit"]): number => {
    const tightest = platforms.map((platform) =>
      limitsOf(platform)
        .filter((limit) => limit.unit === unit)
        .sort((a, b) => a.capacity / a.windowMs - b.capacity / b.windowMs)
        .at(0)
    )
    const needed = calls.reduce(
      (sum, call) => sum + Math.min(...platforms.map((platform) => countedBy(platform, unit, call))),
      0
    )
    const atOnce = tightest.reduce((sum, limit) => sum + (limit?.capacity ?? Number.POSITIVE_INFINITY), 0)
    const perMs = tightest.reduce(
      (sum, limit) => sum + (limit === undefined ? Number.POSITIVE_INFINITY : limit.capacity / limit.windowMs),
      0
    )
    return Number.isFinite(atOnce) ? Math.max(0, (needed - atOnce) / perMs) : 0
  }

  return Math.max(byPermits, byWindows("requests"), byWindows("tokens"), byWindows("usd"))
}
