import { Context, Effect, Layer } from "effect"
import type { LimitReading } from "../Domain/Call.js"
import type { PlatformEventBody } from "../Domain/Event.js"
import type { QuotaFailure } from "../Domain/Failure.js"
import type { PlatformResources, Settlement } from "../Domain/Lease.js"
import type { PlatformId } from "../Domain/Platform.js"
import { type PlatformLimits, type PlatformSettings, Settings } from "../Settings.js"
import * as Ledger from "./Ledger.js"
import { epochOf, type Now } from "./Now.js"
import * as Permits from "./Permits.js"
import * as Quota from "./Quota.js"
import type { SavedBudget } from "./Saved.js"

export type { Ask } from "./Ledger.js"

/** What one granted attempt holds of a platform's budget. */
export interface Grant {
  readonly ask: Ledger.Ask
  readonly reservation: Ledger.Reservation
  /** Monotonic ms. */
  readonly at: number
}

/** Why nothing can start, in words, and when it could (monotonic ms; Infinity = when a running attempt ends). */
export interface Shortage {
  readonly reason: string
  readonly earliest: number
}

/**
 * The budget of one platform as this process holds it: its limits, its permits, and what the provider says of its
 * quota. Every method decides at once from what is held here and asks nobody; instants are monotonic ms.
 */
export interface Budget {
  /** Takes a permit and a share of every limit, or nothing. */
  readonly tryTake: (ask: Ledger.Ask, now: Now) => Grant | undefined
  /** Whether the smallest attempt of a HIGH call could start on some model. */
  readonly isOpen: (now: Now) => boolean
  readonly fits: (ask: Ledger.Ask, now: Now) => boolean
  /** When it fits if nothing more is granted; Infinity where that takes the end of a running attempt. */
  readonly earliest: (ask: Ledger.Ask, now: Now) => number
  /** When the smallest attempt of a HIGH call could start; Infinity as for `earliest`. */
  readonly opensAt: (now: Now) => number
  /** It certainly cannot start before this instant, whatever running attempts give back. */
  readonly notBefore: (ask: Ledger.Ask, now: Now) => number
  /** Whether `ask`, were it to start now, would put off the earliest start of `waiting`. */
  readonly delays: (ask: Ledger.Ask, waiting: Ledger.Ask, now: Now) => boolean
  /** When `waiting` has room in every limit, permits aside, if `ask` starts now; Infinity as for `earliest`. */
  readonly earliestAfter: (ask: Ledger.Ask, waiting: Ledger.Ask, now: Now) => number
  /** How many such attempts can start until `until` at the very most, whatever running attempts give back. */
  readonly room: (ask: Ledger.Ask, until: number, now: Now) => number
  /** When the provider's quota for the model is there again; in the past where it is. */
  readonly quotaFreeAt: (model: string, now: Now) => number
  /** The largest part of any of its limits that such an attempt takes (of its permits, where it has no limits), 0 to 1. */
  readonly share: (ask: Ledger.Ask) => number
  /** Whether any limit but that of its permits counts what is granted. */
  readonly isLimited: (grant: Grant) => boolean
  readonly shortage: (ask: Ledger.Ask, now: Now) => Shortage | undefined
  /** The response's headers are here, with the provider's own readings. */
  readonly started: (grant: Grant, readings: ReadonlyArray<LimitReading>, now: Now) => void
  readonly settle: (grant: Grant, settlement: Settlement, now: Now) => void
  /** It was never used. */
  readonly giveBack: (grant: Grant, now: Now) => void
  /** What the provider says of its limits beside any attempt, as its quotas endpoint does. */
  readonly correct: (readings: ReadonlyArray<LimitReading>, now: Now) => void
  /** A quota is used up until this instant, epoch ms; a shorter one never replaces a longer one of the same window. */
  readonly exhaust: (quota: Quota.Exhausted, now: Now) => void
  /** Every quota is there again, because a person says so. */
  readonly clearExhausted: (now: Now) => void
  /** The part of rate and concurrency that may be used from now on, 0 to 1 (a breaker's ramp). */
  readonly rampTo: (fraction: number, now: Now) => void
  /** Whether, from now on, calls wait that may not use the reserve: while they do, no burst is saved up for them. */
  readonly setBacklog: (isWaitedFor: boolean) => void
  /** Other limits from now on; what counts against those that stay goes on counting. */
  readonly configure: (limits: PlatformLimits, now: Now) => void
  /** When time alone changes a limit next, other than by what ages. */
  readonly changesAt: () => number
  /** What happened to limits and quotas since the last call; `changesAt` lies in the future then. */
  readonly takeEvents: (now: Now) => ReadonlyArray<PlatformEventBody>
  readonly save: (now: Now) => SavedBudget
  /** What was saved has reached the disk: its allowances hold from now on. */
  readonly saved: (budget: SavedBudget) => void
  /** A save is due: much of an allowance is used. */
  readonly wantsSave: () => boolean
  /** Goes on from what was saved; without a clean end everything that could have been granted since counts as spent. */
  readonly restore: (budget: SavedBudget, isClean: boolean, now: Now) => void
  readonly view: (now: Now) => Pick<PlatformResources, "buckets" | "permits" | "exhausted" | "exhaustedUntil">
}

/** What was used, as far as the end of the attempt tells. */
const usedBy = (settlement: Settlement): Ledger.Used => {
  if (settlement._tag === "Succeeded") return { _tag: "Used", usage: settlement.usage }
  if (settlement._tag === "Ignored" || settlement.failure._tag === "PlatformFailure") return { _tag: "Unknown" }
  return { _tag: "Refused" }
}

/** No connection was made, so the provider cannot have counted it. */
const wasNeverSent = (settlement: Settlement): boolean =>
  settlement._tag === "Failed" &&
  settlement.failure._tag === "PlatformFailure" &&
  settlement.failure.reason === "unreachable"

/** Events that nobody took yet; older ones are dropped. */
const MAX_EVENTS = 256

/** A budget that holds the whole of the limits. */
export const makeLocal = (settings: Pick<PlatformSettings, "limits" | "prices">): Budget => {
  let events: Array<PlatformEventBody> = []
  const onEvent = (event: PlatformEventBody): void => {
    events.push(event)
    if (events.length > MAX_EVENTS) events.shift()
  }
  const ledger = Ledger.make(settings, onEvent)
  const permits = Permits.make(settings.limits)
  const quotas = Quota.make(onEvent)
  /** What to do when a save is on the disk. */
  const confirmations = new WeakMap<SavedBudget, () => void>()

  const correct = (readings: ReadonlyArray<LimitReading>, grant: Grant | undefined, now: Now): void => {
    if (readings.length === 0) return
    for (const quota of ledger.correct(readings, grant?.reservation, now)) quotas.exhaust(quota, now)
  }

  const refused = (failure: QuotaFailure, { ask, at, reservation }: Grant, now: Now): void => {
    quotas.refused(failure, ask.model, at, now)
    ledger.refused(reservation, failure, now.ms)
    if (failure.reason !== "concurrency") return
    const isModels = failure.perModel === true
    const learned = permits.refused(ask.model, isModels, at, now.ms)
    if (learned === undefined) return
    onEvent({
      type: "limit.learned",
      model: isModels ? ask.model : undefined,
      bucket: "concurrent attempts",
      from: Number.isFinite(learned.from) ? learned.from : undefined,
      to: learned.to,
      why: "the provider refused an attempt as one too many at once"
    })
  }

  /** Whether nothing but its limits may be in the way. */
  const isAdmitted = (ask: Ledger.Ask, now: Now): boolean =>
    permits.fits(ask.model, ask.mayUseReserve) && quotas.freeAt(ask.model, now) <= now.ms

  return {
    fits: (ask, now) => isAdmitted(ask, now) && ledger.fits(ask, now.ms),
    isOpen: (now) => permits.isOpen() && quotas.platformFreeAt(now) <= now.ms && ledger.isOpen(now.ms),
    earliest: (ask, now) =>
      permits.fits(ask.model, ask.mayUseReserve)
        ? Math.max(ledger.earliest(ask, now.ms), quotas.freeAt(ask.model, now))
        : Number.POSITIVE_INFINITY,
    opensAt: (now) =>
      permits.isOpen() ? Math.max(ledger.opensAt(now.ms), quotas.platformFreeAt(now)) : Number.POSITIVE_INFINITY,
    delays: (ask, waiting, now) => permits.delays(ask, waiting) || ledger.delays(ask, waiting, now.ms),
    earliestAfter: (ask, waiting, now) => ledger.earliestAfter(ask, waiting, now.ms),
    notBefore: (ask, now) => Math.max(ledger.notBefore(ask, now.ms), quotas.freeAt(ask.model, now)),
    room: (ask, until, now) => (quotas.freeAt(ask.model, now) > until ? 0 : ledger.room(ask, until, now.ms)),
    quotaFreeAt: quotas.freeAt,
    isLimited: ({ reservation }) => ledger.isLimited(reservation),
    share: (ask) => ledger.share(ask) || 1 / permits.max(),

    tryTake: (ask, now) => {
      const reservation = isAdmitted(ask, now) ? ledger.tryReserve(ask, now.ms) : undefined
      if (reservation === undefined) return undefined
      permits.take(ask.model, now.ms)
      return { ask, reservation, at: now.ms }
    },

    shortage: (ask, now) => {
      const quotaFreeAt = quotas.freeAt(ask.model, now)
      if (quotaFreeAt > now.ms) {
        const last = quotas.last(ask.model, now)
        const named = last === undefined || last.window === "quota" ? "its quota" : `its quota ${last.window}`
        return { reason: `${named} is used up, as the provider says`, earliest: quotaFreeAt }
      }
      const obstacle = ledger.obstacle(ask, now.ms)
      if (obstacle !== undefined) {
        const { bucket, capacity, used, why } = obstacle
        const told = {
          full: "leaves no room for this call",
          kept: "is kept for calls that go first, and drawn evenly",
          unsaved: "waits for what was drawn of it to be saved"
        }[why]
        return {
          reason: `its limit ${bucket} ${told} (${used} of ${capacity} in use)`,
          earliest: ledger.earliest(ask, now.ms)
        }
      }
      const reason = permits.obstacle(ask.model, ask.mayUseReserve)
      return reason === undefined ? undefined : { reason, earliest: Number.POSITIVE_INFINITY }
    },

    started: (grant, readings, now) => {
      ledger.started(grant.reservation, now.ms)
      correct(readings, grant, now)
    },

    settle: (grant, settlement, now) => {
      permits.giveBack(grant.ask.model, now.ms)
      if (!grant.reservation.hasStarted && wasNeverSent(settlement)) {
        ledger.giveBack(grant.reservation, now.ms)
        return
      }
      ledger.settle(grant.reservation, usedBy(settlement), now.ms)
      if (settlement._tag === "Succeeded") quotas.answered(grant.ask.model, grant.at)
      if (settlement._tag === "Failed" && settlement.failure._tag === "QuotaFailure") {
        refused(settlement.failure, grant, now)
      }
    },

    giveBack: (grant, now) => {
      permits.giveBack(grant.ask.model, now.ms)
      ledger.giveBack(grant.reservation, now.ms)
    },

    correct: (readings, now) => correct(readings, undefined, now),
    exhaust: quotas.exhaust,
    clearExhausted: () => quotas.clear("a person says that it is there again"),
    rampTo: (fraction, now) => {
      permits.rampTo(fraction)
      ledger.rampTo(fraction, now.ms)
    },
    setBacklog: ledger.setBacklog,
    configure: (limits, now) => {
      permits.configure(limits)
      ledger.configure(limits, now.ms)
    },

    changesAt: () => Math.min(ledger.changesAt(), permits.changesAt()),
    takeEvents: (now) => {
      permits.review(now.ms)
      ledger.review(now.ms)
      quotas.review(now)
      if (events.length === 0) return events
      const taken = events
      events = []
      return taken
    },

    save: (now) => {
      const { buckets, confirm, ratios } = ledger.save(now)
      const saved: SavedBudget = { buckets, quotas: quotas.exhausted(now), ratios }
      confirmations.set(saved, confirm)
      return saved
    },
    saved: (budget) => confirmations.get(budget)?.(),
    wantsSave: ledger.wantsSave,
    restore: (budget, isClean, now) => {
      quotas.restore(budget.quotas, now)
      ledger.restore(budget, isClean, now)
    },

    view: (now) => {
      const exhausted = quotas.exhausted(now)
      const freeAt = quotas.platformFreeAt(now)
      return {
        buckets: ledger.view(now),
        permits: permits.view(now.ms),
        exhausted,
        exhaustedUntil: freeAt > now.ms ? epochOf(freeAt, now) : undefined
      }
    }
  }
}

/** Where the dispatcher draws every platform's budget from. */
export class PlatformBudget extends Context.Tag("dream-team/PlatformBudget")<
  PlatformBudget,
  { readonly budgets: ReadonlyMap<PlatformId, Budget> }
>() {
  /** One process alone: it holds the whole limit of every platform. */
  static readonly layerLocal: Layer.Layer<PlatformBudget, never, Settings> = Layer.effect(
    PlatformBudget,
    Effect.map(Settings, (settings) => ({
      budgets: new Map(settings.platforms.map((platform) => [platform.id, makeLocal(platform)]))
    }))
  )
}
