import type { LimitReading } from "../Domain/Call.js"
import type { PlatformEventBody } from "../Domain/Event.js"
import type { QuotaFailure } from "../Domain/Failure.js"
import type { BucketView } from "../Domain/Lease.js"
import type { TokensCounted } from "../Domain/Platform.js"
import type { TaskType } from "../Domain/Task.js"
import { costUsd, type Usage } from "../Domain/Usage.js"
import type { PlatformLimits, PlatformSettings } from "../Settings.js"
import * as Bucket from "./Bucket.js"
import { epochOf, MINUTE, monotonicOf, type Now } from "./Now.js"
import * as Pace from "./Pace.js"
import type { Exhausted } from "./Quota.js"
import type { SavedBucket, SavedBudget } from "./Saved.js"
import * as TokenBounds from "./TokenBounds.js"
import * as Window from "./Window.js"

export { inputBound, type TokenEstimate } from "./TokenBounds.js"

/** What an attempt would need. */
export interface Ask {
  readonly tokens: TokenBounds.TokenEstimate
  readonly model: string
  readonly type: TaskType
  /** Whether it may draw what is kept for HIGH: HIGH calls, and lower ones that are owed their share. */
  readonly mayUseReserve: boolean
}

/** What an attempt used, as far as it is known. */
export type Used =
  | { readonly _tag: "Used"; readonly usage: Usage }
  /** Turned away: at the door no model worked for it; after the headers one may have. */
  | { readonly _tag: "Refused" }
  /** It may have used all it was allowed. */
  | { readonly _tag: "Unknown" }

export interface Obstacle {
  readonly bucket: string
  readonly used: number
  readonly capacity: number
  /** `kept`: there is room, but for HIGH calls only; `unsaved`: until what was drawn of it is written down. */
  readonly why: "full" | "kept" | "unsaved"
}

/** What one attempt holds of every limit of a platform. */
export interface Reservation {
  readonly order: number
  readonly ask: Ask
  /** Monotonic ms. */
  readonly at: number
  readonly buckets: ReadonlyArray<Bucket.Bucket>
  /** One for each of `buckets`. */
  readonly entries: ReadonlyArray<Window.Entry>
  /** The response's headers have come. */
  hasStarted: boolean
}

/** Limits that nobody configured are learned up to this number. */
const MAX_LEARNED = 16
/** Limits of which the provider tells only which part is used: the same. */
const MAX_TOLD = 16
/** A quotas endpoint's answer may be as old as this when it is read, ms. */
const READING_AGE_MS = 10_000
/** Names that a provider gives are shortened to this. */
const NAME_LENGTH = 64

/** A limit of which the provider tells only the part that is used. */
interface ToldPart {
  readonly name: string
  readonly model: string | undefined
  readonly windowMs: number
  readonly used: number
  /** Monotonic ms. */
  readonly until: number
}

/** What is configured, by the keys of its buckets. */
type Wanted = ReadonlyMap<string, { readonly identity: Bucket.Identity; readonly limit: number }>

const wantedOf = (limits: PlatformLimits): Wanted => {
  const wanted = new Map<string, { readonly identity: Bucket.Identity; readonly limit: number }>()
  const add = (unit: Bucket.Unit, windowMs: number | undefined, model: string | undefined, limit?: number): void => {
    if (limit === undefined || windowMs === undefined) return
    const identity = { unit, windowMs, model }
    const key = Bucket.keyOf(identity)
    wanted.set(key, { identity, limit: Math.min(limit, wanted.get(key)?.limit ?? limit) })
  }
  const addWindows = (model: string | undefined, windows: PlatformLimits["windows"]): void => {
    for (const { costUsd, requests, tokens, windowMs } of windows ?? []) {
      add("requests", windowMs, model, requests)
      add("tokens", windowMs, model, tokens)
      add("usd", windowMs, model, costUsd)
    }
  }
  add("requests", MINUTE, undefined, limits.requestsPerMinute)
  add("tokens", MINUTE, undefined, limits.tokensPerMinute)
  add("requests", limits.windowMs, undefined, limits.windowRequests)
  add("tokens", limits.windowMs, undefined, limits.windowTokens)
  addWindows(undefined, limits.windows)
  for (const [model, own] of Object.entries(limits.models ?? {})) {
    add("requests", MINUTE, model, own.requestsPerMinute)
    add("tokens", MINUTE, model, own.tokensPerMinute)
    addWindows(model, own.windows)
  }
  return wanted
}

/**
 * The books of one platform's limits, kept so that no rolling window of a limit holds more than the limit, wherever
 * between grant and response headers the provider counts an attempt. Every method is told the time (monotonic ms) and
 * asks nobody. Its memory does not grow with what passes through it.
 */
export interface Ledger {
  /** Takes from every limit, or from none. A call larger than a whole limit takes all of it, and so runs alone. */
  readonly tryReserve: (ask: Ask, at: number) => Reservation | undefined
  /** Whether the smallest attempt of a HIGH call would fit. */
  readonly isOpen: (at: number) => boolean
  readonly fits: (ask: Ask, at: number) => boolean
  /** When it fits if nothing more is granted; Infinity where that takes the end of a running attempt. */
  readonly earliest: (ask: Ask, at: number) => number
  /** When the smallest attempt of a HIGH call would fit; Infinity as for `earliest`. */
  readonly opensAt: (at: number) => number
  /** It certainly does not fit before this instant, whatever running attempts give back. */
  readonly notBefore: (ask: Ask, at: number) => number
  /** Whether `ask`, were it to start now, would put off the earliest start of `waiting`. */
  readonly delays: (ask: Ask, waiting: Ask, at: number) => boolean
  /** When `waiting` fits if `ask` starts now and nothing more is granted; Infinity as for `earliest`. */
  readonly earliestAfter: (ask: Ask, waiting: Ask, at: number) => number
  /** How many such attempts can start until `until` at the very most. */
  readonly room: (ask: Ask, until: number, at: number) => number
  /** The largest part of any limit that such an attempt takes, 0 to 1. */
  readonly share: (ask: Ask) => number
  /** Whether any limit counts it. */
  readonly isLimited: (reservation: Reservation) => boolean
  /** The first limit in its way. */
  readonly obstacle: (ask: Ask, at: number) => Obstacle | undefined
  /** The response's headers are here, so the provider has counted it: it ages from now on. */
  readonly started: (reservation: Reservation, at: number) => void
  readonly settle: (reservation: Reservation, used: Used, at: number) => void
  /** It was never sent. */
  readonly giveBack: (reservation: Reservation, at: number) => void
  /** What the provider says of its limits, to an attempt or beside any; the quotas that are used up by its word. */
  readonly correct: (
    readings: ReadonlyArray<LimitReading>,
    reservation: Reservation | undefined,
    now: Now
  ) => ReadonlyArray<Exhausted>
  /** The provider refused it for a limit of its own. */
  readonly refused: (reservation: Reservation, failure: QuotaFailure, at: number) => void
  /** When time alone changes a limit next. */
  readonly changesAt: () => number
  /** Takes in what the passing of time alone has changed; what changes the books and what asks of them does so too. */
  readonly review: (at: number) => void
  readonly rampTo: (fraction: number, at: number) => void
  readonly setBacklog: (isWaitedFor: boolean) => void
  readonly configure: (limits: PlatformLimits, at: number) => void
  readonly save: (now: Now) => Pick<SavedBudget, "buckets" | "ratios"> & { readonly confirm: () => void }
  readonly wantsSave: () => boolean
  readonly restore: (saved: Pick<SavedBudget, "buckets" | "ratios">, isClean: boolean, now: Now) => void
  readonly view: (now: Now) => ReadonlyArray<BucketView>
}

export const make = (
  settings: Pick<PlatformSettings, "limits" | "prices">,
  onEvent: (event: PlatformEventBody) => void
): Ledger => {
  const { prices } = settings
  let limits = settings.limits
  let rules: Bucket.Rules = { adapt: false, fraction: 1 }
  let isBacklogged = false
  const bounds = TokenBounds.make()
  const buckets = new Map<string, Bucket.Bucket>()
  /** The platform's own buckets, and for a model with buckets of its own all that count its attempts. */
  let common: ReadonlyArray<Bucket.Bucket> = []
  const byModel = new Map<string, ReadonlyArray<Bucket.Bucket>>()
  const told = new Map<string, ToldPart>()
  let pace: Pace.Pace | undefined
  let order = 0
  /** Attempts that may never be sent yet. */
  let unsent = 0

  const bucketsOf = (model: string): ReadonlyArray<Bucket.Bucket> => byModel.get(model) ?? common

  const index = (): void => {
    common = [...buckets.values()].filter((bucket) => bucket.identity().model === undefined)
    byModel.clear()
    for (const bucket of buckets.values()) {
      const { model } = bucket.identity()
      if (model !== undefined) byModel.set(model, [...bucketsOf(model), bucket])
    }
  }

  const add = (identity: Bucket.Identity): Bucket.Bucket => {
    const bucket = Bucket.make(identity, rules)
    bucket.window.setBacklog(isBacklogged)
    buckets.set(Bucket.keyOf(identity), bucket)
    return bucket
  }

  /** Attempts of a minute are always counted: a limit may be learned that nobody configured. */
  const observed: ReadonlyArray<Bucket.Identity> = [
    { unit: "requests", windowMs: MINUTE },
    { unit: "tokens", windowMs: MINUTE }
  ]

  /** A bucket for what nobody configured. */
  const learnedBucket = (identity: Bucket.Identity, at: number): Bucket.Bucket | undefined => {
    const known = buckets.get(Bucket.keyOf(identity))
    if (known !== undefined) return known
    const learned = [...buckets.values()].filter((bucket) => bucket.configured() === undefined)
    if (learned.length >= MAX_LEARNED + observed.length) {
      const forgotten = learned.find(
        (bucket) => bucket.whole(at) === Number.POSITIVE_INFINITY && bucket.identity().windowMs !== MINUTE
      )
      if (forgotten === undefined) return undefined
      buckets.delete(Bucket.keyOf(forgotten.identity()))
    }
    const made = add(identity)
    index()
    return made
  }

  const paceNow = (): void => {
    const whole = buckets.get(Bucket.keyOf({ unit: "requests", windowMs: MINUTE }))?.window.capacity()
    const burst = limits.burst
    if (burst === undefined || whole === undefined || !Number.isFinite(whole)) {
      pace = undefined
      return
    }
    if (pace === undefined) pace = Pace.make(burst, MINUTE / whole)
    else if (pace.burst !== burst || pace.intervalMs() !== MINUTE / whole) pace.set(burst, MINUTE / whole)
  }

  const reviewAll = (at: number): void => {
    for (const bucket of buckets.values()) bucket.review(rules, at)
    paceNow()
  }

  const changesAt = (): number => {
    let next = Number.POSITIVE_INFINITY
    for (const bucket of buckets.values()) next = Math.min(next, bucket.changesAt())
    return next
  }

  const review = (at: number): void => {
    if (changesAt() <= at) reviewAll(at)
  }

  const setLimits = (next: PlatformLimits, at: number): void => {
    limits = next
    rules = { adapt: next.adapt === true, fraction: rules.fraction, burst: next.burst }
    const wanted = wantedOf(next)
    const isObserved = (key: string): boolean => observed.some((identity) => Bucket.keyOf(identity) === key)
    const old = new Map(buckets)
    buckets.clear()
    for (const identity of observed) {
      const key = Bucket.keyOf(identity)
      const bucket = old.get(key) ?? Bucket.make(identity, rules)
      if (!wanted.has(key)) bucket.configure(identity, undefined, rules, at)
      buckets.set(key, bucket)
    }
    for (const [key, { identity, limit }] of wanted) {
      const same = old.get(key) ?? buckets.get(key)
      // a limit of another length goes on with what counted against the one it replaces
      const replaced =
        same ??
        [...old].find(
          ([oldKey, bucket]) =>
            !wanted.has(oldKey) &&
            !isObserved(oldKey) &&
            bucket.configured() !== undefined &&
            bucket.identity().unit === identity.unit &&
            bucket.identity().model === identity.model
        )?.[1]
      const bucket = replaced ?? Bucket.make(identity, rules)
      old.delete(Bucket.keyOf(bucket.identity()))
      bucket.configure(identity, limit, rules, at)
      bucket.window.setBacklog(isBacklogged)
      buckets.set(key, bucket)
    }
    for (const [key, bucket] of old) if (bucket.configured() === undefined) buckets.set(key, bucket)
    index()
    reviewAll(at)
  }

  const requestCost = (bucket: Bucket.Bucket, model: string): number =>
    bucket.isLong() ? (limits.models?.[model]?.requestCost ?? 1) : 1

  const counted = (tokensCounted: TokensCounted, { tokens, type }: Ask): number =>
    bounds.counted(type, tokens, tokensCounted)

  /** What an attempt would cost at the most, USD; nothing where its price is not known. */
  const boundUsd = ({ model, tokens, type }: Ask): number =>
    costUsd(
      {
        inputTokens: bounds.input(type, tokens),
        cachedInputTokens: 0,
        outputTokens: bounds.output(type, tokens),
        reasoningTokens: 0
      },
      prices[model]
    ) ?? 0

  const cost = (bucket: Bucket.Bucket, ask: Ask): number => {
    switch (bucket.identity().unit) {
      case "requests":
        return requestCost(bucket, ask.model)
      case "tokens":
        return counted(limits.tokensCounted, ask)
      case "usd":
        return boundUsd(ask)
    }
  }

  /** What the provider counts of an attempt in the end; undefined = what was reserved. */
  const realCost = (bucket: Bucket.Bucket, { ask, hasStarted }: Reservation, used: Used): number | undefined => {
    const { unit } = bucket.identity()
    if (unit === "requests" || used._tag === "Unknown") return undefined
    const isCountedAtEnd = unit === "usd" || limits.tokensCounted === "actual"
    // only what counts when the answer is complete surely counts nothing of a call refused at the door
    if (used._tag === "Refused") return isCountedAtEnd && !hasStarted ? 0 : undefined
    const { inputTokens, outputTokens } = used.usage
    // there is no call without input: the platform did not tell
    if (inputTokens === 0) return undefined
    if (unit === "usd") return costUsd(used.usage, prices[ask.model]) ?? 0
    if (limits.tokensCounted === "input") return inputTokens
    const output = limits.tokensCounted === "reserved" ? Math.max(ask.tokens.maxOutput, outputTokens) : outputTokens
    return inputTokens + output
  }

  const fits = (ask: Ask, at: number): boolean => {
    review(at)
    if (pace !== undefined && pace.earliest(at) > at) return false
    for (const bucket of bucketsOf(ask.model)) {
      const amount = cost(bucket, ask)
      if (!bucket.window.fits(amount, ask.mayUseReserve, at)) return false
      if (!bucket.allowance.allows(bucket.window.clamp(amount))) return false
    }
    return true
  }

  const earliest = (ask: Ask, at: number): number => {
    review(at)
    let latest = pace === undefined ? at : pace.earliest(at)
    for (const bucket of bucketsOf(ask.model)) {
      const amount = cost(bucket, ask)
      // nothing but a save ends this
      if (!bucket.allowance.allows(bucket.window.clamp(amount))) return Number.POSITIVE_INFINITY
      latest = Math.max(latest, bucket.window.earliest(amount, ask.mayUseReserve, at))
    }
    return latest
  }

  /** The smallest amounts that any attempt takes of the platform's own limits. */
  const least = (bucket: Bucket.Bucket): number => {
    switch (bucket.identity().unit) {
      case "requests":
        return bucket.isLong()
          ? Object.values(limits.models ?? {}).reduce((min, { requestCost = 1 }) => Math.min(min, requestCost), 1)
          : 1
      case "tokens":
        return TokenBounds.inputBound(0)
      case "usd":
        return 0
    }
  }

  /** The least that the provider will have counted of such an attempt, however it ends. */
  const certain = (bucket: Bucket.Bucket, { model, tokens }: Ask): number => {
    switch (bucket.identity().unit) {
      case "requests":
        return requestCost(bucket, model)
      case "tokens":
        return limits.tokensCounted === "actual" ? 0 : limits.tokensCounted === "reserved" ? tokens.maxOutput + 1 : 1
      case "usd":
        return 0
    }
  }

  const each = (reservation: Reservation, visit: (bucket: Bucket.Bucket, entry: Window.Entry) => void): void => {
    const { buckets, entries } = reservation
    for (let index = 0; index < entries.length; index++) {
      const bucket = buckets[index]
      const entry = entries[index]
      if (bucket !== undefined && entry !== undefined) visit(bucket, entry)
    }
  }

  const entryOf = (reservation: Reservation, bucket: Bucket.Bucket): Window.Entry | undefined =>
    reservation.entries[reservation.buckets.indexOf(bucket)]

  const learnedEvent = (
    bucket: Bucket.Bucket,
    changed: { readonly from: number } | undefined,
    why: string,
    at: number
  ): void => {
    if (changed === undefined) return
    const identity = bucket.identity()
    onEvent({
      type: "limit.learned",
      model: identity.model,
      bucket: Bucket.nameOf(identity),
      from: Number.isFinite(changed.from) ? changed.from : undefined,
      to: bucket.whole(at),
      why
    })
    paceNow()
  }

  /** The limit a reading speaks of: of the length it tells, else the nearest in size among those long enough for it. */
  const spokenOf = (reading: LimitReading, model: string | undefined, at: number): Bucket.Bucket | undefined => {
    const { limit, resetsInMs, unit, windowMs } = reading
    if (unit === "percent") return undefined
    const isIts = (bucket: Bucket.Bucket): boolean => {
      const identity = bucket.identity()
      if (identity.unit !== unit) return false
      if (reading.model !== undefined ? identity.model !== reading.model : (identity.model ?? model) !== model) {
        return false
      }
      return windowMs === undefined
        ? (resetsInMs ?? 0) <= Window.keptMs(identity.windowMs)
        : Math.abs(identity.windowMs - windowMs) <= windowMs / 100
    }
    const distance = (bucket: Bucket.Bucket): number => {
      if (limit === undefined || limit <= 0) return bucket.identity().windowMs
      const whole = bucket.whole(at)
      // one of quite another size speaks of a limit that nobody configured
      return Number.isFinite(whole) ? Math.abs(Math.log(whole / limit)) : Math.LN2
    }
    let nearest: Bucket.Bucket | undefined
    for (const bucket of buckets.values()) {
      if (isIts(bucket) && (nearest === undefined || distance(bucket) < distance(nearest))) nearest = bucket
    }
    if (nearest !== undefined) return nearest
    const length = windowMs ?? ((resetsInMs ?? 0) <= Window.keptMs(MINUTE) ? MINUTE : undefined)
    return length === undefined || limit === undefined || limit < 1
      ? undefined
      : learnedBucket({ unit, windowMs: length, model: reading.model }, at)
  }

  const readPart = (reading: LimitReading, now: Now): void => {
    const { limit = 100, model, name, refillsInMs, remaining, resetsInMs, windowMs } = reading
    if (remaining === undefined || limit <= 0) return
    const called = (name ?? "percent").slice(0, NAME_LENGTH)
    const key = `${called} ${model ?? ""}`
    if (told.size >= MAX_TOLD && !told.has(key)) return
    const used = Math.min(100, Math.max(0, 100 * (1 - remaining / limit)))
    told.set(key, {
      name: called,
      model,
      windowMs: windowMs ?? 0,
      used,
      until: now.ms + (resetsInMs ?? refillsInMs ?? windowMs ?? MINUTE)
    })
  }

  const exhaustedBy = (reading: LimitReading, bucket: Bucket.Bucket | undefined, now: Now): Exhausted | undefined => {
    const { model, name, refillsInMs, remaining, resetsInMs, unit } = reading
    const inMs = refillsInMs ?? resetsInMs
    if (remaining === undefined || remaining > 0 || inMs === undefined || inMs <= 0) return undefined
    const windowMs = reading.windowMs ?? bucket?.identity().windowMs ?? inMs
    if (unit !== "percent" && windowMs <= MINUTE && inMs <= Window.keptMs(MINUTE)) return undefined
    const window = (name ?? (bucket === undefined ? unit : Bucket.nameOf(bucket.identity()))).slice(0, NAME_LENGTH)
    return { window, model, until: now.epochMs + inMs, why: "the provider says that nothing is left of it" }
  }

  setLimits(limits, 0)

  return {
    fits,
    earliest,
    changesAt,
    review,

    tryReserve: (ask, at) => {
      if (!fits(ask, at)) return undefined
      pace?.take(at)
      order += 1
      unsent += 1
      const taken = bucketsOf(ask.model)
      const entries = taken.map((bucket) => {
        const amount = bucket.window.clamp(cost(bucket, ask))
        bucket.allowance.take(amount)
        bucket.meter.add(amount, at)
        const entry = bucket.window.take(amount, bucket.identity().unit === "requests", ask.mayUseReserve, at)
        bucket.saw(at)
        return entry
      })
      return { order, ask, at, buckets: taken, entries, hasStarted: false }
    },

    isOpen: (at) => {
      review(at)
      return (
        (pace === undefined || pace.earliest(at) <= at) &&
        common.every((bucket) => {
          const amount = bucket.window.clamp(least(bucket))
          return bucket.window.fits(amount, true, at) && bucket.allowance.allows(amount)
        })
      )
    },

    opensAt: (at) => {
      review(at)
      return common.reduce(
        (latest, bucket) => {
          const amount = bucket.window.clamp(least(bucket))
          if (!bucket.allowance.allows(amount)) return Number.POSITIVE_INFINITY
          return Math.max(latest, bucket.window.earliest(amount, true, at))
        },
        pace === undefined ? at : pace.earliest(at)
      )
    },

    notBefore: (ask, at) =>
      bucketsOf(ask.model).reduce(
        (latest, bucket) => Math.max(latest, bucket.window.notBefore(certain(bucket, ask), bucket.ceiling(), at)),
        pace === undefined ? at : pace.earliestWithout(unsent, at)
      ),

    delays: (ask, waiting, at) => {
      const startsAt = earliest(waiting, at)
      if (pace !== undefined && pace.earliestAfter(at) > startsAt) return true
      const taken = bucketsOf(ask.model)
      return bucketsOf(waiting.model).some((bucket) => {
        const { window } = bucket
        const amount = taken.includes(bucket) ? window.clamp(cost(bucket, ask)) : 0
        if (amount <= 0) return false
        const wanted = cost(bucket, waiting)
        // what waits for running attempts to give something back waits longer the more there is to be given back
        if (startsAt === Number.POSITIVE_INFINITY) return !window.fits(wanted, waiting.mayUseReserve, at)
        return window.earliest(wanted, waiting.mayUseReserve, at, amount) > startsAt
      })
    },

    earliestAfter: (ask, waiting, at) => {
      const taken = bucketsOf(ask.model)
      return bucketsOf(waiting.model).reduce(
        (latest, bucket) => {
          const amount = taken.includes(bucket) ? bucket.window.clamp(cost(bucket, ask)) : 0
          return Math.max(latest, bucket.window.earliest(cost(bucket, waiting), waiting.mayUseReserve, at, amount))
        },
        pace === undefined ? at : pace.earliestAfter(at)
      )
    },

    room: (ask, until, at) =>
      bucketsOf(ask.model).reduce(
        (most, bucket) => {
          const amount = certain(bucket, ask)
          const ceiling = bucket.ceiling()
          if (amount <= 0 || !Number.isFinite(ceiling)) return most
          return Math.min(most, Math.floor(bucket.window.room(ceiling, until, at) / Math.min(amount, ceiling)))
        },
        pace === undefined ? Number.POSITIVE_INFINITY : pace.room(until, unsent, at)
      ),

    share: (ask) =>
      bucketsOf(ask.model).reduce(
        (largest, bucket) => Math.max(largest, bucket.window.clamp(cost(bucket, ask)) / bucket.window.capacity()),
        0
      ),

    isLimited: ({ buckets }) => pace !== undefined || buckets.some(({ window }) => Number.isFinite(window.capacity())),

    obstacle: (ask, at) => {
      review(at)
      for (const bucket of bucketsOf(ask.model)) {
        const { allowance, window } = bucket
        const amount = cost(bucket, ask)
        if (window.fits(amount, ask.mayUseReserve, at) && allowance.allows(window.clamp(amount))) continue
        const identity = bucket.identity()
        return {
          bucket:
            identity.model === undefined ? Bucket.nameOf(identity) : `${Bucket.nameOf(identity)} of ${identity.model}`,
          used: window.used(at),
          capacity: window.capacity(),
          why: window.fits(amount, ask.mayUseReserve, at) ? "unsaved" : window.fits(amount, true, at) ? "kept" : "full"
        }
      }
      if (pace === undefined || pace.earliest(at) <= at) return undefined
      return { bucket: "burst", used: pace.state(at).used, capacity: pace.burst, why: "full" }
    },

    started: (reservation, at) => {
      if (!reservation.hasStarted) unsent -= 1
      reservation.hasStarted = true
      each(reservation, (bucket, entry) => {
        const { unit } = bucket.identity()
        // counted when the answer is complete, so headers say nothing of it
        if (unit === "usd" || (unit === "tokens" && limits.tokensCounted === "actual")) return
        bucket.window.age(entry, at)
      })
    },

    settle: (reservation, used, at) => {
      const { ask } = reservation
      if (!reservation.hasStarted) unsent -= 1
      each(reservation, (bucket, entry) => {
        const amount = realCost(bucket, reservation, used)
        if (amount !== undefined) bucket.meter.add(amount - entry.amount, at)
        bucket.window.finish(entry, amount ?? entry.amount, at)
        bucket.window.age(entry, at)
        bucket.saw(at)
      })
      if (used._tag === "Used") bounds.learn(ask.type, ask.tokens, used.usage)
    },

    giveBack: (reservation, at) => {
      unsent -= 1
      pace?.giveBack()
      each(reservation, (bucket, entry) => {
        bucket.meter.add(-entry.amount, at)
        bucket.window.giveBack(entry, at)
      })
    },

    correct: (readings, reservation, now) => {
      const at = now.ms
      const exhausted: Array<Exhausted> = []
      review(at)
      for (const reading of readings) {
        const bucket = spokenOf(reading, reservation?.ask.model, at)
        if (bucket !== undefined) {
          const entry = reservation === undefined ? undefined : entryOf(reservation, bucket)
          const before = bucket.whole(at)
          const { limit, refillsInMs, remaining, resetsInMs } = reading
          bucket.read(
            { limit, remaining, resetsInMs, refillsInMs },
            {
              order: reservation?.order ?? order,
              own: entry?.ownAtGrant ?? 0,
              countedBefore: reservation?.at ?? at - READING_AGE_MS
            },
            rules,
            at
          )
          const after = bucket.whole(at)
          if (after < before) learnedEvent(bucket, { from: before }, "the provider tells it", at)
        }
        if (reading.unit === "percent") readPart(reading, now)
        const quota = exhaustedBy(reading, bucket, now)
        if (quota !== undefined) exhausted.push(quota)
      }
      paceNow()
      return exhausted
    },

    refused: (reservation, failure, at) => {
      review(at)
      const { limit, perModel, reason, unit = "requests", windowMs = MINUTE } = failure
      const model = perModel === true ? (failure.model ?? reservation.ask.model) : undefined
      if (
        reason === "concurrency" ||
        (reason === "window" && (limit === undefined || failure.windowMs === undefined))
      ) {
        return
      }
      const identity = { unit, windowMs, model }
      if (limit !== undefined && limit >= 1) {
        const bucket = learnedBucket(identity, at)
        if (bucket === undefined) return
        learnedEvent(bucket, bucket.tellLimit(limit, rules, at), "the provider names it in a refusal", at)
        return
      }
      const bucket = windowMs === MINUTE ? learnedBucket(identity, at) : buckets.get(Bucket.keyOf(identity))
      if (bucket === undefined) return
      const amount = entryOf(reservation, bucket)?.amount ?? 0
      learnedEvent(
        bucket,
        bucket.refused(amount, reservation.at, rules, at),
        "the provider refused a call though this limit was not used up",
        at
      )
    },

    rampTo: (fraction, at) => {
      rules = { ...rules, fraction }
      reviewAll(at)
    },

    setBacklog: (isWaitedFor) => {
      if (isWaitedFor === isBacklogged) return
      isBacklogged = isWaitedFor
      for (const { window } of buckets.values()) window.setBacklog(isWaitedFor)
    },

    configure: setLimits,

    save: (now) => {
      const confirmations: Array<() => void> = []
      const saved: Array<SavedBucket> = []
      reviewAll(now.ms)
      for (const bucket of buckets.values()) {
        const { allowance, window } = bucket
        const capacity = window.capacity()
        if (!Number.isFinite(capacity)) continue
        const { amount, confirm } = allowance.grant(bucket.usualAllowance(), capacity)
        confirmations.push(confirm)
        const identity = bucket.identity()
        saved.push({
          name: Bucket.nameOf(identity),
          model: identity.model,
          aged: window.aged(now.ms).map(([since, held]) => [epochOf(since, now) ?? now.epochMs, held] as const),
          pending: window.pending(),
          allowance: amount,
          learned: bucket.learned(now.ms)
        })
      }
      return {
        buckets: saved,
        ratios: bounds.save(),
        confirm: () => {
          for (const confirm of confirmations) confirm()
        }
      }
    },

    wantsSave: () => {
      for (const { allowance } of buckets.values()) if (allowance.isWanted()) return true
      return false
    },

    restore: (saved, isClean, now) => {
      const at = now.ms
      bounds.restore(saved.ratios)
      for (const { aged, allowance, learned, model, name, pending } of saved.buckets) {
        const identity = Bucket.identityOf(name, model)
        if (identity === undefined) continue
        const known = buckets.get(Bucket.keyOf(identity))
        const bucket = known ?? (learned === undefined ? undefined : learnedBucket(identity, at))
        if (bucket === undefined) continue
        if (learned !== undefined) bucket.restoreLearned(learned, rules, at)
        const { window } = bucket
        for (const [since, amount] of aged) window.restore(Math.min(at, monotonicOf(since, now)), amount, at)
        const spent = pending + (isClean ? 0 : allowance)
        window.restore(at, Math.min(spent, window.capacity()), at)
      }
      reviewAll(at)
    },

    view: (now) => {
      const at = now.ms
      reviewAll(at)
      const views: Array<BucketView> = []
      for (const bucket of buckets.values()) {
        const { meter, window } = bucket
        const capacity = window.capacity()
        if (!Number.isFinite(capacity)) continue
        const identity = bucket.identity()
        const used = window.used(at)
        const nextFreeAt = window.nextFreeAt(at)
        views.push({
          name: Bucket.nameOf(identity),
          model: identity.model,
          unit: identity.unit,
          tokensCounted: identity.unit === "tokens" ? limits.tokensCounted : undefined,
          windowMs: identity.windowMs,
          capacity,
          used,
          level: Math.max(0, capacity - used),
          keptForHigh: window.keptForHigh(at),
          refillPerSecond: (capacity * 1_000) / identity.windowMs,
          nextRefillAt: nextFreeAt === undefined ? undefined : epochOf(nextFreeAt, now),
          source: bucket.source(at),
          utilization: meter.parts(bucket.whole(at) / identity.windowMs, at)
        })
      }
      if (pace !== undefined) {
        const { burst } = pace
        const { nextFreeAt, used } = pace.state(at)
        views.push({
          name: "burst",
          unit: "requests",
          windowMs: burst * pace.intervalMs(),
          capacity: burst,
          used,
          level: burst - used,
          keptForHigh: 0,
          refillPerSecond: 1_000 / pace.intervalMs(),
          nextRefillAt: nextFreeAt === undefined ? undefined : epochOf(nextFreeAt, now),
          source: "configured",
          utilization: { oneMinute: 0, fiveMinutes: 0 }
        })
      }
      for (const { model, name, until, used: lastUsed, windowMs } of told.values()) {
        const used = until > at ? lastUsed : 0
        views.push({
          name,
          model,
          unit: "percent",
          windowMs,
          capacity: 100,
          used,
          level: 100 - used,
          keptForHigh: 0,
          refillPerSecond: windowMs > 0 ? 100_000 / windowMs : 0,
          nextRefillAt: until > at ? epochOf(until, now) : undefined,
          source: "provider",
          // over the whole of its window: the provider tells no more of it
          utilization: { oneMinute: used / 100, fiveMinutes: used / 100 }
        })
      }
      return views
    }
  }
}
