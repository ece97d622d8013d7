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
  "The oracle is an event-driven greedy scheduler with late binding, in the order of priority and arrival, that passes",
  "by what does not fit. It has the platforms' limits and permits, and reserves what the product's own rule reserves for",
  "each call until its answer is there. It keeps for HIGH what the product keeps: a permit where there are 4 or more, 1 %",
  "of a window longer than a minute, of which lower calls draw half at once and half evenly; but nothing of the minute's.",
  "It knows what nobody can: a call is counted the moment it is sent (no network, no wait for headers), a window is",
  "exactly its length, and only what was really used stays counted from the moment the answer is there."
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
  inFlight: number
}

type Event =
  | { readonly _tag: "CallArrives"; readonly call: SimulatedCall }
  | { readonly _tag: "Answered"; readonly call: SimulatedCall; readonly slot: Slot; readonly entries: Array<Entry> }
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

const prune = (window: Window, at: number): void => {
  for (let old = window.log[window.first]; old?.since !== undefined; old = window.log[window.first]) {
    if (old.since + window.windowMs > at) return
    window.used -= old.amount
    window.first += 1
  }
}

export const runOracle = (
  platforms: ReadonlyArray<SimulatedPlatform>,
  calls: ReadonlyArray<SimulatedCall>,
  bounds: Bounds
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
          drawnEvenly: limit.windowMs > 60_000 ? limit.capacity / 2 - keptForHigh(limit) : 0,
          log: [],
          first: 0,
          used: 0
        })),
        permits: permitsOf(platform),
        permitsKept: permitsOf(platform) >= 4 ? 1 : 0,
        inFlight: 0
      }
    ])
  )

  const agesFromAnswer = (slot: Slot, window: Window): boolean => countsAtEnd(slot.platform, window.unit)

  const amountOf = (slot: Slot, window: Window, call: SimulatedCall): number =>
    Math.min(window.capacity, bounds.reservedFor(slot.platform, window.unit, call))

  const room = (slot: Slot, priority: Priority): boolean =>
    slot.inFlight < slot.permits - (priority === "HIGH" ? 0 : slot.permitsKept)

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
    slot.windows.reduce((most, window) => Math.max(most, window.used / window.capacity), slot.inFlight / slot.permits)

  const age = (window: Window, entry: Entry, at: number): void => {
    entry.since = at
    window.log.push(entry)
    agenda.add(at + window.windowMs, { _tag: "WindowMoves" })
  }

  const start = (slot: Slot, call: SimulatedCall, at: number): void => {
    slot.inFlight += 1
    recorder.providers.get(slot.id)?.arrive(call, at)
    const reserved = slot.windows.map((window) => amountOf(slot, window, call))
    const entries = slot.windows.map((window) => {
      const entry: Entry = { amount: amountOf(slot, window, call), since: undefined }
      window.used += entry.amount
      if (!agesFromAnswer(slot, window)) age(window, entry, at)
      return entry
    })
    const answeredAt = at + call.durationMs
    agenda.add(answeredAt, { _tag: "Answered", call, slot, entries })
    recorder.answered(call, slot.id, at, answeredAt, reserved)
  }

  const settle = (slot: Slot, call: SimulatedCall, entries: Array<Entry>, at: number): void => {
    slot.inFlight -= 1
    recorder.providers.get(slot.id)?.complete(call, at)
    bounds.learn(slot.id, call)
    for (const [index, window] of slot.windows.entries()) {
      const entry = entries[index]
      if (entry === undefined || window.unit === "requests") continue
      prune(window, at)
      const isGone = entry.since !== undefined && entry.since + window.windowMs <= at
      const real = countedBy(slot.platform, window.unit, call)
      if (!isGone) {
        window.used += real - entry.amount
        entry.amount = real
      }
      if (agesFromAnswer(slot, window)) age(window, entry, at)
    }
  }

  const serve = (priority: Priority, at: number): void => {
    const queue = queues[priority]
    let passed = 0
    for (let index = 0; index < queue.length && passed < LOOKAHEAD; ) {
      if (![...slots.values()].some((slot) => room(slot, priority))) return
      const call = queue[index]
      if (call === undefined) return
      const able = call.platforms.flatMap((id) => slots.get(id) ?? []).filter((slot) => fits(slot, call, at))
      const [first] = able
      if (first === undefined) {
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
  }

  for (const call of calls) agenda.add(call.arrivesAt, { _tag: "CallArrives", call })
  runAgenda(agenda, (event, at) => {
    switch (event._tag) {
      case "CallArrives":
        queues[event.call.priority].push(event.call)
        break
      case "Answered":
        settle(event.slot, event.call, event.entries, at)
        break
      case "WindowMoves":
        break
    }
    if (agenda.nextAt() > at) for (const priority of priorities) serve(priority, at)
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
