import { Context, Effect, Layer } from "effect"
import type { LimitReading } from "../Domain/Call.js"
import type { BucketView, Settlement } from "../Domain/Lease.js"
import type { PlatformId } from "../Domain/Platform.js"
import { type PlatformLimits, Settings } from "../Settings.js"
import * as Ledger from "./Ledger.js"
import { epochOf, type Now } from "./Now.js"
import * as Quota from "./Quota.js"

/** What one granted attempt holds of a platform's budget. */
export interface Grant {
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
  readonly tryTake: (tokens: Ledger.TokenEstimate, now: Now) => Grant | undefined
  /** Whether the smallest attempt could start. */
  readonly isOpen: (now: Now) => boolean
  readonly fits: (tokens: Ledger.TokenEstimate, now: Now) => boolean
  /** When it fits if nothing more is granted; Infinity where that takes the end of a running attempt. */
  readonly earliest: (tokens: Ledger.TokenEstimate, now: Now) => number
  /** When the smallest attempt could start; Infinity as for `earliest`. */
  readonly opensAt: (now: Now) => number
  /** It certainly cannot start before this instant, whatever running attempts give back. */
  readonly notBefore: (tokens: Ledger.TokenEstimate, now: Now) => number
  /** When the provider's quota is there again; in the past where it is. */
  readonly quotaFreeAt: (now: Now) => number
  /** The largest part of any of its limits that such an attempt takes (of its permits, where it has no limits), 0 to 1. */
  readonly share: (tokens: Ledger.TokenEstimate) => number
  readonly shortage: (tokens: Ledger.TokenEstimate, now: Now) => Shortage | undefined
  /** The response's headers are here, with the provider's own readings. */
  readonly started: (grant: Grant, readings: ReadonlyArray<LimitReading>, now: Now) => void
  readonly settle: (grant: Grant, settlement: Settlement, now: Now) => void
  /** It was never used. */
  readonly giveBack: (grant: Grant) => void
  /** The provider's quota is used up until this instant, epoch ms. */
  readonly exhaust: (untilEpochMs: number, now: Now) => void
  readonly view: (now: Now) => {
    readonly buckets: ReadonlyArray<BucketView>
    readonly permits: { readonly inUse: number; readonly max: number }
    readonly exhaustedUntil?: number | undefined
  }
}

/** What was used, as far as the end of the attempt tells. */
const usedBy = (settlement: Settlement): Ledger.Used => {
  if (settlement._tag === "Succeeded") return { _tag: "Used", usage: settlement.usage }
  if (settlement._tag === "Ignored" || settlement.failure._tag === "PlatformFailure") return { _tag: "Unknown" }
  return { _tag: "Refused" }
}

/** A budget that holds the whole of the limits. */
export const makeLocal = (limits: PlatformLimits): Budget => {
  const ledger = Ledger.make(limits)
  const maxPermits = limits.maxConcurrent
  let permits = 0
  let quota = Quota.initial

  const isFree = (now: Now): boolean => permits < maxPermits && Quota.freeAt(quota, now) <= now.ms
  const earliest = (ledgerEarliest: number, now: Now): number =>
    permits < maxPermits ? Math.max(ledgerEarliest, Quota.freeAt(quota, now)) : Number.POSITIVE_INFINITY

  return {
    isOpen: (now) => isFree(now) && ledger.isOpen(now.ms),
    fits: (tokens, now) => isFree(now) && ledger.fits(tokens, now.ms),
    earliest: (tokens, now) => earliest(ledger.earliest(tokens, now.ms), now),
    opensAt: (now) => earliest(ledger.opensAt(now.ms), now),
    notBefore: (tokens, now) => Math.max(ledger.notBefore(tokens, now.ms), Quota.freeAt(quota, now)),
    quotaFreeAt: (now) => Quota.freeAt(quota, now),
    share: (tokens) => ledger.share(tokens) || 1 / maxPermits,

    tryTake: (tokens, now) => {
      if (!isFree(now)) return undefined
      const reservation = ledger.tryReserve(tokens, now.ms)
      if (reservation === undefined) return undefined
      permits += 1
      return { reservation, at: now.ms }
    },

    shortage: (tokens, now) => {
      const freeAt = Quota.freeAt(quota, now)
      if (freeAt > now.ms) return { reason: "its quota is used up, as the provider says", earliest: freeAt }
      const obstacle = ledger.obstacle(tokens, now.ms)
      if (obstacle !== undefined) {
        const { bucket, capacity, used } = obstacle
        return {
          reason: `its limit ${bucket} leaves no room for this call (${used} of ${capacity} in use)`,
          earliest: ledger.earliest(tokens, now.ms)
        }
      }
      return permits < maxPermits
        ? undefined
        : { reason: `all ${maxPermits} concurrent attempts are in use`, earliest: Number.POSITIVE_INFINITY }
    },

    started: (grant, readings, now) => {
      ledger.started(grant.reservation, now.ms)
      ledger.correct(grant.reservation, readings, now.ms)
    },

    settle: (grant, settlement, now) => {
      permits -= 1
      ledger.settle(grant.reservation, usedBy(settlement), now.ms)
      if (settlement._tag === "Succeeded") quota = Quota.answered(quota, grant.at)
      if (settlement._tag === "Failed" && settlement.failure._tag === "QuotaFailure") {
        quota = Quota.refused(quota, settlement.failure, grant.at, now)
      }
    },

    giveBack: (grant) => {
      permits -= 1
      ledger.giveBack(grant.reservation)
    },

    exhaust: (untilEpochMs, now) => {
      quota = Quota.exhaust(quota, untilEpochMs, now)
    },

    view: (now) => {
      const freeAt = Quota.freeAt(quota, now)
      return {
        buckets: ledger.buckets(now.ms).map((bucket) => ({
          ...bucket,
          nextFreeAt: bucket.nextFreeAt === undefined ? undefined : epochOf(bucket.nextFreeAt, now),
          source: "configured" as const
        })),
        permits: { inUse: permits, max: maxPermits },
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
      budgets: new Map(settings.platforms.map((platform) => [platform.id, makeLocal(platform.limits)]))
    }))
  )
}
