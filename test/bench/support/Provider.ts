import type { LimitReading } from "../../../src/Domain/Call.js"
import { QuotaFailure } from "../../../src/Domain/Failure.js"
import type { PlatformId } from "../../../src/Domain/Platform.js"
import { costUsd } from "../../../src/Domain/Usage.js"
import type { PlatformSettings } from "../../../src/Settings.js"

/** A platform of a scenario: every call is made to its one model. */
export type SimulatedPlatform = Pick<PlatformSettings, "id" | "limits" | "model" | "prices">

/** What a provider counts of a call, tokens. */
export interface Sized {
  readonly inputTokens: number
  readonly maxOutput: number
  readonly outputTokens: number
}

/** One limit of a provider: so much in any rolling window. */
export interface ProviderLimit {
  readonly unit: "requests" | "tokens" | "usd"
  readonly capacity: number
  readonly windowMs: number
}

const MINUTE = 60_000

/** The limits that a platform's settings describe, as its provider would enforce them. */
export const limitsOf = ({ limits }: SimulatedPlatform): ReadonlyArray<ProviderLimit> => {
  const limit = (unit: ProviderLimit["unit"], capacity: number | undefined, windowMs: number | undefined) =>
    capacity === undefined || windowMs === undefined ? [] : [{ unit, capacity, windowMs }]
  return [
    ...limit("requests", limits.requestsPerMinute, MINUTE),
    ...limit("tokens", limits.tokensPerMinute, MINUTE),
    ...limit("requests", limits.windowRequests, limits.windowMs),
    ...limit("tokens", limits.windowTokens, limits.windowMs),
    ...(limits.windows ?? []).flatMap((window) => [
      ...limit("requests", window.requests, window.windowMs),
      ...limit("tokens", window.tokens, window.windowMs),
      ...limit("usd", window.costUsd, window.windowMs)
    ])
  ]
}

/** Attempts in flight at once, all on the one model. */
export const permitsOf = ({ limits, model }: SimulatedPlatform): number =>
  Math.min(
    limits.maxConcurrent,
    limits.models?.[model]?.maxConcurrent ?? limits.maxConcurrentPerModel ?? limits.maxConcurrent
  )

export const nameOf = ({ unit, windowMs }: ProviderLimit): string =>
  `${unit}/${windowMs % 3_600_000 === 0 ? `${windowMs / 3_600_000}h` : `${windowMs / 1_000}s`}`

/** Tokens of a call as the provider counts them in the end. */
const countedTokens = ({ limits }: SimulatedPlatform, call: Sized): number => {
  switch (limits.tokensCounted) {
    case "input":
      return call.inputTokens
    case "reserved":
      return call.inputTokens + call.maxOutput
    case "actual":
      return call.inputTokens + call.outputTokens
  }
}

/** What a limit counts of a call in the end. */
export const countedBy = (platform: SimulatedPlatform, unit: ProviderLimit["unit"], call: Sized): number => {
  switch (unit) {
    case "requests":
      return 1
    case "tokens":
      return countedTokens(platform, call)
    case "usd": {
      const { inputTokens, outputTokens } = call
      const usage = { inputTokens, cachedInputTokens: 0, outputTokens, reasoningTokens: 0 }
      return costUsd(usage, platform.prices[platform.model]) ?? 0
    }
  }
}

/** Whether a limit counts a call when its answer is complete, and not when it arrives. */
export const countsAtEnd = ({ limits }: SimulatedPlatform, unit: ProviderLimit["unit"]): boolean =>
  unit === "usd" || (unit === "tokens" && limits.tokensCounted === "actual")

/** Sums of fractions of a dollar are exact to this part of a limit. */
const EXACT = 1e-9

/** What a limit has counted, in the order of time, all of it kept. */
interface Book extends ProviderLimit {
  readonly log: Array<{ readonly at: number; readonly amount: number }>
  /** The first that is still in the window that ends now. */
  first: number
  inWindow: number
}

export type Verdict =
  | { readonly _tag: "Accepted" }
  /** A 429. */
  | { readonly _tag: "Refused"; readonly unit: ProviderLimit["unit"] | "concurrency"; readonly retryAfterMs: number }

/** The same as the product's own reading of that 429. */
export const refusalOf = (platform: PlatformId, { retryAfterMs, unit }: Extract<Verdict, { _tag: "Refused" }>) =>
  new QuotaFailure({
    platform,
    message: "simulated: too many",
    reason: unit === "concurrency" ? "concurrency" : retryAfterMs > 60_000 ? "window" : "rate",
    unit: unit === "requests" || unit === "tokens" ? unit : undefined,
    retryAfterMs
  })

/** OpenAI tells its limits in the headers of every response; of the others not all do. */
export const tellingOf = (platforms: ReadonlyArray<PlatformSettings>): ReadonlySet<PlatformId> =>
  new Set(platforms.filter(({ wire }) => wire === "openai-responses").map(({ id }) => id))

/**
 * A provider that counts strictly: at every arrival it looks at the rolling window that ends there, and refuses what
 * would make it hold more than the limit. What it refuses counts nothing. A window is half open: what was counted
 * exactly its length ago is out. `actual` tokens and credits are known, and counted, only when an answer is complete: then
 * a call is refused where their window is full already, and a window that an answer takes beyond the limit is an excess.
 */
export interface Provider {
  readonly arrive: (call: Sized, at: number) => Verdict
  readonly complete: (call: Sized, at: number) => void
  /** Its word on its limits, as response headers say it. */
  readonly readings: (at: number) => ReadonlyArray<LimitReading>
  readonly limits: ReadonlyArray<ProviderLimit>
  /** What limit number `index` counted in `[from, to)`. */
  readonly countedBetween: (index: number, from: number, to: number) => number
  readonly refused: () => number
  readonly excesses: () => number
  readonly inFlight: () => number
}

export const makeProvider = (platform: SimulatedPlatform): Provider => {
  const books: ReadonlyArray<Book> = limitsOf(platform).map((limit) => ({ ...limit, log: [], first: 0, inWindow: 0 }))
  const permits = permitsOf(platform)
  let inFlight = 0
  let refused = 0
  let excesses = 0

  const used = (book: Book, at: number): number => {
    for (
      let old = book.log[book.first];
      old !== undefined && old.at + book.windowMs <= at;
      old = book.log[book.first]
    ) {
      book.inWindow -= old.amount
      book.first += 1
    }
    return book.inWindow
  }

  const count = (book: Book, amount: number, at: number): void => {
    used(book, at)
    book.log.push({ at, amount })
    book.inWindow += amount
  }

  const hasRoom = (book: Book, call: Sized, at: number): boolean =>
    countsAtEnd(platform, book.unit)
      ? used(book, at) < book.capacity
      : used(book, at) + countedBy(platform, book.unit, call) <= book.capacity * (1 + EXACT)

  return {
    arrive: (call, at) => {
      const full = books.find((book) => !hasRoom(book, call, at))
      if (full !== undefined || inFlight >= permits) {
        refused += 1
        const oldest = full?.log[full.first]
        return {
          _tag: "Refused",
          unit: full?.unit ?? "concurrency",
          retryAfterMs: oldest === undefined || full === undefined ? 1_000 : oldest.at + full.windowMs - at
        }
      }
      inFlight += 1
      for (const book of books) {
        if (!countsAtEnd(platform, book.unit)) count(book, countedBy(platform, book.unit, call), at)
      }
      return { _tag: "Accepted" }
    },

    complete: (call, at) => {
      inFlight -= 1
      for (const book of books) {
        if (!countsAtEnd(platform, book.unit)) continue
        count(book, countedBy(platform, book.unit, call), at)
        if (book.inWindow > book.capacity * (1 + EXACT)) excesses += 1
      }
    },

    readings: (at) =>
      books.map((book) => {
        const remaining = Math.max(0, book.capacity - used(book, at))
        const newest = book.log.at(-1)
        return {
          unit: book.unit,
          windowMs: book.windowMs,
          limit: book.capacity,
          remaining,
          resetsInMs: newest === undefined ? 0 : Math.max(0, newest.at + book.windowMs - at)
        }
      }),

    limits: books,

    countedBetween: (index, from, to) =>
      (books[index]?.log ?? []).reduce((sum, { amount, at }) => (at >= from && at < to ? sum + amount : sum), 0),
    refused: () => refused,
    excesses: () => excesses,
    inFlight: () => inFlight
  }
}
