import { generationMs, type Recorded } from "./Recorded.js"

/** Output of a call of ordinary length, tokens: what speeds are compared at. */
const ordinaryOutputTokens = 500
/** Evidence below this is none: nothing is divided by it. */
const least = 1e-9

/** How attempts lose weight, in half-lives: those of time, and those of what came after them. */
export interface Decay {
  /** In this time at the latest, ms, whether anything comes or not. */
  readonly halfLifeMs: number
  /** Where attempts follow each other fast: in this time, ms. */
  readonly busyHalfLifeMs: number
  /** Where they do not: with this many more of them. */
  readonly halfLifeAttempts: number
}

/** What an attempt shows that was cut or is still running: each time is the least that it takes. */
export interface AtLeast {
  readonly at: number
  readonly timeToFirstTokenMs?: number | undefined
  readonly generation?: { readonly ms: number; readonly outputTokens: number } | undefined
}

/** Averages over attempts that count the less the older they are. */
export interface Fading {
  readonly add: (attempt: Recorded) => void
  readonly addAtLeast: (shown: AtLeast) => void
  /** `running`: what the attempts that are not over show by then; it counts, and is not kept. */
  readonly at: (now: number, running?: ReadonlyArray<AtLeast>) => FadingAverages
}

export interface FadingAverages {
  /** Attempts that were answered, or failed by the platform's fault: what is left of their count. */
  readonly attempts: number
  /** Those of `attempts` that failed. */
  readonly failures: number
  /** Those of `attempts` that were answered. */
  readonly answers: number
  readonly durationMs?: number | undefined
  readonly timeToFirstTokenMs?: number | undefined
  /** Weighed by length: what a token costs on average, not what it costs in an average answer. */
  readonly msPerOutputToken?: number | undefined
  /** How long a call of ordinary length takes: time to the first token and 500 tokens more. */
  readonly callMs?: number | undefined
}

// Changed in place: several of them are brought up to date at every attempt.
interface Sums {
  failures: number
  answers: number
  /** Answers of which the whole duration is known. */
  ended: number
  durations: number
  /** Answers whose first piece was seen, or is late. */
  firstTokens: number
  firstTokenMs: number
  generatingMs: number
  outputTokens: number
}

const nothing: Readonly<Sums> = {
  failures: 0,
  answers: 0,
  ended: 0,
  durations: 0,
  firstTokens: 0,
  firstTokenMs: 0,
  generatingMs: 0,
  outputTokens: 0
}

const scale = (sums: Sums, by: number): void => {
  sums.failures *= by
  sums.answers *= by
  sums.ended *= by
  sums.durations *= by
  sums.firstTokens *= by
  sums.firstTokenMs *= by
  sums.generatingMs *= by
  sums.outputTokens *= by
}

const addAnswer = (sums: Sums, { generation, timeToFirstTokenMs }: Omit<AtLeast, "at">): void => {
  sums.answers += 1
  if (timeToFirstTokenMs !== undefined) {
    sums.firstTokens += 1
    sums.firstTokenMs += timeToFirstTokenMs
  }
  if (generation !== undefined) {
    sums.generatingMs += generation.ms
    sums.outputTokens += generation.outputTokens
  }
}

const averagesOf = (sums: Readonly<Sums>): FadingAverages => {
  const { answers, durations, ended, failures, firstTokenMs, firstTokens, generatingMs, outputTokens } = sums
  const timeToFirstTokenMs = firstTokens < least ? undefined : firstTokenMs / firstTokens
  const msPerOutputToken = outputTokens < least ? undefined : generatingMs / outputTokens
  const isKnown = timeToFirstTokenMs !== undefined || msPerOutputToken !== undefined
  return {
    attempts: answers + failures,
    failures,
    answers,
    durationMs: ended < least ? undefined : durations / ended,
    timeToFirstTokenMs,
    msPerOutputToken,
    callMs: isKnown ? (timeToFirstTokenMs ?? 0) + ordinaryOutputTokens * (msPerOutputToken ?? 0) : undefined
  }
}

export const make = ({ busyHalfLifeMs, halfLifeAttempts, halfLifeMs }: Decay): Fading => {
  const sums = { ...nothing }
  let since = 0
  let latestAt = 0
  /** Half-lives of a busy time that have passed, and that no attempt has made of use yet. */
  let passed = 0

  const fadeTo = (now: number): void => {
    if (now > since) scale(sums, 2 ** (-(now - since) / halfLifeMs))
    since = now
  }

  /** Time has passed, and one more is there. */
  const follow = (at: number): void => {
    fadeTo(at)
    passed = Math.min(1, passed + Math.max(0, at - latestAt) / busyHalfLifeMs)
    latestAt = at
    const used = Math.min(passed, 1 / halfLifeAttempts)
    passed -= used
    if (used > 0) scale(sums, 2 ** -used)
  }

  return {
    add: (attempt) => {
      if (attempt.outcome === "other-failure" || attempt.outcome === "cut") return
      follow(attempt.at)
      if (attempt.outcome === "platform-failure") {
        sums.failures += 1
        return
      }
      const { durationMs, outputTokens = 0, timeToFirstTokenMs } = attempt
      const generation = outputTokens > 0 ? { ms: generationMs(attempt), outputTokens } : undefined
      addAnswer(sums, { timeToFirstTokenMs, generation })
      sums.ended += 1
      sums.durations += durationMs
    },
    addAtLeast: (shown) => {
      follow(shown.at)
      addAnswer(sums, shown)
    },
    at: (now, running = []) => {
      fadeTo(now)
      if (running.length === 0) return averagesOf(sums)
      const withRunning = { ...sums }
      for (const shown of running) addAnswer(withRunning, shown)
      return averagesOf(withRunning)
    }
  }
}
