import type { PlatformEventBody } from "../Domain/Event.js"
import type { QuotaFailure } from "../Domain/Failure.js"
import { MINUTE, type Now } from "./Now.js"

/** A quota that is used up, as the provider said it. */
export interface Exhausted {
  /** Its name, where the provider gives it one; else `quota`. */
  readonly window: string
  /** Set where only this model's is used up. */
  readonly model?: string | undefined
  /** Epoch ms. */
  readonly until: number
  readonly why: string
}

const RATE_FLOOR_MS = 1_000
const RATE_FLOOR_MAX_MS = MINUTE
const WINDOW_FLOOR_MS = MINUTE
const WINDOW_FLOOR_MAX_MS = 30 * MINUTE
/** How long a platform rests that says too many attempts run at once: about as long as one of them takes. */
const CONCURRENCY_REST_MS = 1_000
/** No provider's quota period is longer than a month: a later instant is a mistake and must not lock a platform for ever. */
const LONGEST_MS = 31 * 24 * 3_600_000
/** Quotas and models remembered; those that end first make room. */
const MAX_EXHAUSTED = 64
const MAX_MODELS = 64
/** A quota that is used up a little longer than was known is no news. */
const NEWS_MS = MINUTE
const UNNAMED = "quota"

/** How one scope, the platform or one of its models, rests where the provider does not say until when. */
interface Rest {
  /** Not before this monotonic instant, ms: a short wait that it asked for, or a floor. */
  until: number
  rateFloorMs: number
  windowFloorMs: number
  /** When it last refused, monotonic ms: what started before cannot have known. */
  refusedAt: number
}

const makeRest = (): Rest => ({
  until: Number.NEGATIVE_INFINITY,
  rateFloorMs: RATE_FLOOR_MS,
  windowFloorMs: WINDOW_FLOOR_MS,
  refusedAt: Number.NEGATIVE_INFINITY
})

/**
 * A platform's quotas as the provider itself speaks of them. Each is used up until its reset, and the platform is back
 * only when all of its own have reset; a model's holds that model alone. Where the provider says that a quota is used up
 * but not until when, it rests for a floor that doubles each time it says so again and shrinks with success.
 */
export interface Quotas {
  /** An attempt on `model` granted at `grantedAt` (monotonic ms) was refused. */
  readonly refused: (failure: QuotaFailure, model: string, grantedAt: number, now: Now) => void
  /** An attempt granted at `grantedAt` (monotonic ms) got its answer: the floors shrink. */
  readonly answered: (model: string, grantedAt: number) => void
  /** The later of the old and the new instant holds. */
  readonly exhaust: (quota: Exhausted, now: Now) => void
  /** All of them are there again. */
  readonly clear: (why: string) => void
  /** When the platform's own are there again, monotonic ms; in the past where they are. */
  readonly platformFreeAt: (now: Now) => number
  /** The same with those of the model. */
  readonly freeAt: (model: string, now: Now) => number
  /** The one in the way of the model that resets last. */
  readonly last: (model: string, now: Now) => Exhausted | undefined
  readonly exhausted: (now: Now) => ReadonlyArray<Exhausted>
  /** Takes in what the passing of time alone has changed. */
  readonly review: (now: Now) => void
  readonly restore: (saved: ReadonlyArray<Exhausted>, now: Now) => void
}

const keyOf = ({ model, window }: Exhausted): string => `${model ?? ""} ${window}`

export const make = (onEvent: (event: PlatformEventBody) => void): Quotas => {
  const named = new Map<string, Exhausted>()
  const own = makeRest()
  const ofModels = new Map<string, Rest>()

  const sweep = (now: Now): void => {
    for (const [key, { model, until, window }] of named) {
      if (until > now.epochMs) continue
      named.delete(key)
      onEvent({ type: "quota.reset", model, window, why: "its reset has come" })
    }
  }

  const put = (quota: Exhausted): void => {
    if (named.size >= MAX_EXHAUSTED && !named.has(keyOf(quota))) {
      const [first] = [...named].sort(([, left], [, right]) => left.until - right.until)
      if (first !== undefined) named.delete(first[0])
    }
    named.set(keyOf(quota), quota)
  }

  const exhaust = (quota: Exhausted, now: Now): void => {
    sweep(now)
    const until = Math.min(quota.until, now.epochMs + LONGEST_MS)
    const old = named.get(keyOf(quota))
    if (until <= Math.max(now.epochMs, old?.until ?? 0)) return
    put({ ...quota, until })
    if (old !== undefined && until - old.until < NEWS_MS) return
    onEvent({ type: "quota.exhausted", model: quota.model, window: quota.window, until, why: quota.why })
  }

  const restOf = (model: string | undefined): Rest => {
    if (model === undefined) return own
    const known = ofModels.get(model)
    if (known !== undefined) return known
    const [oldest] = ofModels.keys()
    if (ofModels.size >= MAX_MODELS && oldest !== undefined) ofModels.delete(oldest)
    const made = makeRest()
    ofModels.set(model, made)
    return made
  }

  const restFor = (rest: Rest, ms: number, now: Now): void => {
    rest.until = Math.max(rest.until, now.ms + ms)
  }

  const relax = (rest: Rest, grantedAt: number): void => {
    if (grantedAt <= rest.refusedAt) return
    rest.rateFloorMs = Math.max(rest.rateFloorMs / 2, RATE_FLOOR_MS)
    rest.windowFloorMs = WINDOW_FLOOR_MS
  }

  const latest = (model: string | undefined, now: Now): Exhausted | undefined => {
    let found: Exhausted | undefined
    for (const quota of named.values()) {
      const isInTheWay = quota.until > now.epochMs && (quota.model === undefined || quota.model === model)
      if (isInTheWay && (found === undefined || quota.until > found.until)) found = quota
    }
    return found
  }

  const freeAt = (model: string | undefined, now: Now): number => {
    const rested = Math.max(own.until, (model === undefined ? undefined : ofModels.get(model))?.until ?? own.until)
    if (named.size === 0) return rested
    const last = latest(model, now)
    return last === undefined ? rested : Math.max(rested, now.ms + (last.until - now.epochMs))
  }

  return {
    refused: (failure, calledModel, grantedAt, now) => {
      const model = failure.perModel === true ? (failure.model ?? calledModel) : undefined
      const rest = restOf(model)
      const window = failure.window ?? UNNAMED
      const why = failure.message
      const waits = [failure.retryAfterMs ?? 0, (failure.resetsAt ?? 0) - now.epochMs].filter((ms) => ms > 0)
      const waitMs = Math.max(0, ...waits)
      // attempts that ran side by side are refused for one and the same reason: they count once
      const isNews = grantedAt > rest.refusedAt
      // a wait of nothing, or a reset that our clock has passed already, would have the next attempt refused at once
      if (waits.length > 0) {
        // a short wait is over before anybody could ask for it, a long one is a quota's and outlives the process
        if (failure.reason === "window" || waitMs > MINUTE) {
          exhaust({ window, model, until: now.epochMs + waitMs, why }, now)
        } else restFor(rest, waitMs, now)
        return
      }
      if (failure.reason === "concurrency") {
        restFor(rest, CONCURRENCY_REST_MS, now)
        return
      }
      if (!isNews) return
      rest.refusedAt = now.ms
      if (failure.reason === "rate") {
        restFor(rest, rest.rateFloorMs, now)
        rest.rateFloorMs = Math.min(rest.rateFloorMs * 2, RATE_FLOOR_MAX_MS)
      } else {
        exhaust({ window, model, until: now.epochMs + rest.windowFloorMs, why }, now)
        rest.windowFloorMs = Math.min(rest.windowFloorMs * 2, WINDOW_FLOOR_MAX_MS)
      }
    },

    answered: (model, grantedAt) => {
      relax(own, grantedAt)
      const ofModel = ofModels.get(model)
      if (ofModel !== undefined) relax(ofModel, grantedAt)
    },

    exhaust,

    clear: (why) => {
      for (const { model, window } of named.values()) onEvent({ type: "quota.reset", model, window, why })
      named.clear()
      ofModels.clear()
      Object.assign(own, makeRest())
    },

    platformFreeAt: (now) => freeAt(undefined, now),
    freeAt,
    last: latest,
    review: sweep,
    exhausted: (now) => {
      sweep(now)
      return [...named.values()]
    },
    restore: (saved, now) => {
      for (const quota of saved) {
        if (quota.until > now.epochMs) put({ ...quota, until: Math.min(quota.until, now.epochMs + LONGEST_MS) })
      }
    }
  }
}
