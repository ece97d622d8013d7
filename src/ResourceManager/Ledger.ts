import type { LimitReading } from "../Domain/Call.js"
import type { TokensCounted } from "../Domain/Platform.js"
import type { Usage } from "../Domain/Usage.js"
import type { PlatformLimits } from "../Settings.js"

/** An estimate of an attempt's input and the bound of its output, tokens. */
export interface TokenEstimate {
  readonly input: number
  readonly maxOutput: number
}

/** What an attempt used, as far as it is known. */
export type Used =
  | { readonly _tag: "Used"; readonly usage: Usage }
  /** Turned away: at the door no model worked for it; after the headers one may have. */
  | { readonly _tag: "Refused" }
  /** It may have used all it was allowed. */
  | { readonly _tag: "Unknown" }

export interface BucketState {
  readonly name: string
  readonly unit: "requests" | "tokens"
  readonly tokensCounted?: TokensCounted | undefined
  readonly windowMs: number
  readonly capacity: number
  readonly used: number
  /** When something of it comes free by age alone, monotonic ms. */
  readonly nextFreeAt?: number | undefined
}

export interface Obstacle {
  readonly bucket: string
  readonly used: number
  readonly capacity: number
}

/** What one attempt holds of every limit of a platform. */
export interface Reservation {
  readonly order: number
  readonly maxOutput: number
  readonly entries: ReadonlyArray<Entry>
  /** The response's headers have come. */
  hasStarted: boolean
}

interface Entry {
  amount: number
  /** Since when it ages, monotonic ms; not yet where undefined. */
  since: number | undefined
  gone: boolean
  /** The amount is final. */
  settled: boolean
  /** What we had in the window when it was granted, itself included. */
  readonly ownAtGrant: number
}

/**
 * How much longer than its window an entry is kept: clocks of two machines drift apart by up to 100 millionths,
 * and what a provider's window includes at both its ends must not count as free.
 */
const keptMs = (windowMs: number): number => windowMs + Math.ceil(windowMs / 10_000) + 1

/**
 * An upper bound of an estimated input: a quarter more, because code and dense text take fewer characters a token than
 * prose does, and 32 for what wire formats add around the messages.
 */
export const inputBound = (estimate: number): number => Math.ceil(estimate * 1.25) + 32

const hourMs = 3_600_000

const windowName = (unit: string, windowMs: number): string =>
  `${unit}/${windowMs % hourMs === 0 ? `${windowMs / hourMs}h` : `${windowMs / 1_000}s`}`

/** What counts against one limit over a rolling window: attempts under way, aged ones, and other users of the key. */
const makeWindow = (unit: "requests" | "tokens", capacity: number, windowMs: number) => {
  const kept = keptMs(windowMs)
  /** In the order in which they began to age; `head` is the oldest that still counts. */
  let log: Array<Entry> = []
  let head = 0
  let aged = 0
  let pending = 0
  /** Part of `aged` and `pending` that is not final. */
  let open = 0
  /** Amounts that other users of the same key take, as the provider's own readings show. */
  let foreign = 0
  let foreignUntil = 0
  let lastReading = -1

  const prune = (at: number): void => {
    for (let entry = log[head]; entry?.since !== undefined && entry.since + kept <= at; entry = log[head]) {
      aged -= entry.amount
      if (!entry.settled) open -= entry.amount
      entry.gone = true
      head += 1
    }
    if (head > 64 && head * 2 > log.length) {
      log = log.slice(head)
      head = 0
    }
    if (foreign > 0 && foreignUntil <= at) foreign = 0
  }

  const used = (at: number): number => {
    prune(at)
    return aged + pending + foreign
  }

  const clamp = (amount: number): number => Math.min(amount, capacity)

  return {
    name: windowName(unit, windowMs),
    unit,
    windowMs,
    capacity,
    used,
    clamp,
    fits: (amount: number, at: number): boolean => used(at) + clamp(amount) <= capacity,

    take: (amount: number, at: number): Entry => {
      prune(at)
      pending += amount
      open += amount
      return { amount, since: undefined, gone: false, settled: false, ownAtGrant: aged + pending }
    },

    /** It was never sent. */
    giveBack: (entry: Entry): void => {
      if (entry.gone || entry.since !== undefined) return
      pending -= entry.amount
      if (!entry.settled) open -= entry.amount
      entry.gone = true
    },

    age: (entry: Entry, at: number): void => {
      if (entry.gone || entry.since !== undefined) return
      pending -= entry.amount
      // what counts nothing needs no memory
      if (entry.amount === 0) {
        entry.gone = true
        return
      }
      aged += entry.amount
      entry.since = at
      log.push(entry)
    },

    /** What it really came to; more than was reserved is a debt that ages like the rest. */
    finish: (entry: Entry, amount: number, at: number): void => {
      prune(at)
      if (entry.gone || entry.settled) return
      if (entry.since === undefined) pending += amount - entry.amount
      else aged += amount - entry.amount
      open -= entry.amount
      entry.amount = amount
      entry.settled = true
    },

    /**
     * When `amount` fits if nothing more is granted and running attempts keep what they hold, monotonic ms;
     * Infinity where that takes the end of a running attempt.
     */
    earliest: (amount: number, at: number): number => {
      let missing = used(at) + clamp(amount) - capacity
      if (missing <= 0) return at
      let others = foreign
      for (let index = head; index < log.length; index++) {
        const entry = log[index]
        if (entry?.since === undefined) break
        const freeAt = entry.since + kept
        if (others > 0 && foreignUntil <= freeAt) {
          missing -= others
          others = 0
          if (missing <= 0) return foreignUntil
        }
        missing -= entry.amount
        if (missing <= 0) return freeAt
      }
      return others > 0 && missing <= others ? foreignUntil : Number.POSITIVE_INFINITY
    },

    /** `amount` cannot fit before this instant, whatever running attempts give back, monotonic ms. */
    notBefore: (amount: number, at: number): number => {
      prune(at)
      let missing = aged + pending - open + clamp(amount) - capacity
      if (missing <= 0) return at
      for (let index = head; index < log.length; index++) {
        const entry = log[index]
        if (entry?.since === undefined) break
        if (entry.settled) missing -= entry.amount
        if (missing <= 0) return entry.since + kept
      }
      return at + kept
    },

    /** The provider says that this much is left of its limit: what our own entries do not explain, others have used. */
    read: (order: number, entry: Entry, remaining: number, resetsInMs: number, at: number): void => {
      if (order < lastReading) return
      lastReading = order
      prune(at)
      const own = Math.max(entry.ownAtGrant, aged + pending)
      foreign = Math.max(0, capacity - own - Math.max(0, remaining))
      foreignUntil = at + Math.min(resetsInMs, kept)
    },

    nextFreeAt: (at: number): number | undefined => {
      prune(at)
      const oldest = log[head]?.since
      const own = oldest === undefined ? Number.POSITIVE_INFINITY : oldest + kept
      const next = Math.min(own, foreign > 0 ? foreignUntil : Number.POSITIVE_INFINITY)
      return Number.isFinite(next) ? next : undefined
    }
  }
}

type Window = ReturnType<typeof makeWindow>

/** Paces starts: `burst` at once, then one every `intervalMs`. One number, the instant at which it will be whole again. */
const makePace = (burst: number, intervalMs: number) => {
  let wholeAt = 0
  const slack = (burst - 1) * intervalMs
  return {
    earliest: (at: number): number => Math.max(at, wholeAt - slack),
    take: (at: number): void => {
      wholeAt = Math.max(wholeAt, at) + intervalMs
    },
    giveBack: (): void => {
      wholeAt -= intervalMs
    },
    state: (at: number): BucketState => {
      const used = Math.min(burst, Math.ceil(Math.max(0, wholeAt - at) / intervalMs))
      return {
        name: "burst",
        unit: "requests",
        windowMs: burst * intervalMs,
        capacity: burst,
        used,
        nextFreeAt: used === 0 ? undefined : wholeAt - (used - 1) * intervalMs
      }
    }
  }
}

const MINUTE = 60_000

/**
 * The books of one platform's limits, kept so that no rolling window of a limit holds more than the limit, wherever
 * between grant and response headers the provider counts an attempt. Every method is told the time (monotonic ms) and
 * asks nobody. The limits themselves bound its memory.
 */
export interface Ledger {
  /** Takes from every limit, or from none. A call larger than a whole limit takes all of it, and so runs alone. */
  readonly tryReserve: (tokens: TokenEstimate, at: number) => Reservation | undefined
  /** Whether the smallest attempt would fit. */
  readonly isOpen: (at: number) => boolean
  readonly fits: (tokens: TokenEstimate, at: number) => boolean
  /** When it fits if nothing more is granted; Infinity where that takes the end of a running attempt. */
  readonly earliest: (tokens: TokenEstimate, at: number) => number
  /** When the smallest attempt would fit; Infinity as for `earliest`. */
  readonly opensAt: (at: number) => number
  /** It certainly does not fit before this instant. */
  readonly notBefore: (tokens: TokenEstimate, at: number) => number
  /** The largest part of any limit that such an attempt takes, 0 to 1. */
  readonly share: (tokens: TokenEstimate) => number
  /** The first limit in its way. */
  readonly obstacle: (tokens: TokenEstimate, at: number) => Obstacle | undefined
  /** The response's headers are here, so the provider has counted it: it ages from now on. */
  readonly started: (reservation: Reservation, at: number) => void
  readonly settle: (reservation: Reservation, used: Used, at: number) => void
  /** It was never sent. */
  readonly giveBack: (reservation: Reservation) => void
  readonly correct: (reservation: Reservation, readings: ReadonlyArray<LimitReading>, at: number) => void
  readonly buckets: (at: number) => ReadonlyArray<BucketState>
}

export const make = (limits: PlatformLimits): Ledger => {
  const { burst, requestsPerMinute, tokensCounted, tokensPerMinute, windowMs, windowRequests } = limits
  const windows = [
    ...(requestsPerMinute === undefined ? [] : [makeWindow("requests", requestsPerMinute, MINUTE)]),
    ...(tokensPerMinute === undefined ? [] : [makeWindow("tokens", tokensPerMinute, MINUTE)]),
    ...(windowRequests === undefined || windowMs === undefined
      ? []
      : [makeWindow("requests", windowRequests, windowMs)])
  ]
  const pace =
    burst === undefined || requestsPerMinute === undefined ? undefined : makePace(burst, MINUTE / requestsPerMinute)
  let order = 0

  const bound = (tokens: TokenEstimate): number =>
    inputBound(tokens.input) + (tokensCounted === "input" ? 0 : tokens.maxOutput)

  const cost = (window: Window, tokens: TokenEstimate): number =>
    window.unit === "requests" ? 1 : window.clamp(bound(tokens))

  /** What the provider counts of an attempt's tokens in the end; undefined = what was reserved. */
  const realTokens = (used: Used, { hasStarted, maxOutput }: Reservation): number | undefined => {
    if (used._tag === "Unknown") return undefined
    // only a provider that counts what was really used surely counts nothing of a call refused at the door
    if (used._tag === "Refused") return tokensCounted === "actual" && !hasStarted ? 0 : undefined
    const { inputTokens, outputTokens } = used.usage
    // there is no call without input: the platform did not tell
    if (inputTokens === 0) return undefined
    if (tokensCounted === "input") return inputTokens
    return inputTokens + (tokensCounted === "reserved" ? Math.max(maxOutput, outputTokens) : outputTokens)
  }

  const smallest: TokenEstimate = { input: 0, maxOutput: 0 }

  const fits = (tokens: TokenEstimate, at: number): boolean =>
    (pace === undefined || pace.earliest(at) <= at) && windows.every((window) => window.fits(cost(window, tokens), at))

  const earliest = (tokens: TokenEstimate, at: number): number =>
    windows.reduce(
      (latest, window) => Math.max(latest, window.earliest(cost(window, tokens), at)),
      pace === undefined ? at : pace.earliest(at)
    )

  const each = (reservation: Reservation, visit: (window: Window, entry: Entry) => void): void => {
    for (const [index, window] of windows.entries()) {
      const entry = reservation.entries[index]
      if (entry !== undefined) visit(window, entry)
    }
  }

  return {
    fits,
    earliest,
    isOpen: (at) => fits(smallest, at),
    opensAt: (at) => earliest(smallest, at),

    tryReserve: (tokens, at) => {
      if (!fits(tokens, at)) return undefined
      pace?.take(at)
      order += 1
      return {
        order,
        maxOutput: tokens.maxOutput,
        entries: windows.map((window) => window.take(cost(window, tokens), at)),
        hasStarted: false
      }
    },

    notBefore: (tokens, at) =>
      windows.reduce(
        (latest, window) =>
          Math.max(
            latest,
            // the number of requests is certain, the tokens of a running attempt are not
            window.unit === "requests"
              ? Math.min(window.earliest(1, at), at + keptMs(window.windowMs))
              : window.notBefore(cost(window, tokens), at)
          ),
        pace === undefined ? at : pace.earliest(at)
      ),

    share: (tokens) =>
      windows.reduce((largest, window) => Math.max(largest, cost(window, tokens) / window.capacity), 0),

    obstacle: (tokens, at) => {
      const window = windows.find((window) => !window.fits(cost(window, tokens), at))
      if (window !== undefined) return { bucket: window.name, used: window.used(at), capacity: window.capacity }
      const paced = pace === undefined || pace.earliest(at) <= at ? undefined : pace.state(at)
      return paced === undefined ? undefined : { bucket: paced.name, used: paced.used, capacity: paced.capacity }
    },

    started: (reservation, at) => {
      reservation.hasStarted = true
      each(reservation, (window, entry) => {
        // counted when the answer is complete, so headers say nothing of it
        if (window.unit === "tokens" && tokensCounted === "actual") return
        window.age(entry, at)
      })
    },

    settle: (reservation, used, at) => {
      const tokens = realTokens(used, reservation)
      each(reservation, (window, entry) => {
        window.finish(entry, window.unit === "tokens" && tokens !== undefined ? tokens : entry.amount, at)
        window.age(entry, at)
      })
    },

    giveBack: (reservation) => {
      pace?.giveBack()
      each(reservation, (window, entry) => window.giveBack(entry))
    },

    correct: (reservation, readings, at) => {
      for (const { limit, remaining, resetsInMs, unit } of readings) {
        if (remaining === undefined) continue
        // a reading names no window: it is that of the nearest size among those long enough for its reset
        const distance = (window: Window): number =>
          limit === undefined ? window.windowMs : Math.abs(window.capacity - limit)
        const chosen = windows
          .flatMap((window, index) => {
            const entry = reservation.entries[index]
            const isIts = window.unit === unit && (resetsInMs ?? 0) <= keptMs(window.windowMs)
            return entry === undefined || !isIts ? [] : [{ window, entry }]
          })
          .reduce<{ readonly window: Window; readonly entry: Entry } | undefined>(
            (best, next) => (best !== undefined && distance(best.window) <= distance(next.window) ? best : next),
            undefined
          )
        chosen?.window.read(reservation.order, chosen.entry, remaining, resetsInMs ?? chosen.window.windowMs, at)
      }
    },

    buckets: (at) => [
      ...windows.map((window) => ({
        name: window.name,
        unit: window.unit,
        tokensCounted: window.unit === "tokens" ? tokensCounted : undefined,
        windowMs: window.windowMs,
        capacity: window.capacity,
        used: window.used(at),
        nextFreeAt: window.nextFreeAt(at)
      })),
      ...(pace === undefined ? [] : [pace.state(at)])
    ]
  }
}
