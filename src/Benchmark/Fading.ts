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

interface Sums {
  readonly failures: number
  readonly answers: number
  /** Answers of which the whole duration is known. */
  readonly ended: number
  readonly durations: number
  /** Answers whose first piece was seen, or is late. */
  readonly firstTokens: number
  readonly firstTokenMs: number
  readonly generatingMs: number
  readonly outputTokens: number
}

const nothing: Sums = {
  failures: 0,
  answers: 0,
  ended: 0,
  durations: 0,
  firstTokens: 0,
  firstTokenMs: 0,
  generatingMs: 0,
  outputTokens: 0
}

const scaled = (sums: Sums, by: number): Sums => ({
  failures: sums.failures * by,
  answers: sums.answers * by,
  ended: sums.ended * by,
  durations: sums.durations * by,
  firstTokens: sums.firstTokens * by,
  firstTokenMs: sums.firstTokenMs * by,
  generatingMs: sums.generatingMs * by,
  outputTokens: sums.outputTokens * by
})

const withAnswer = (
  sums: Sums,
  { generation, timeToFirstTokenMs }: Omit<AtLeast, "at">,
  durationMs?: number | undefined
): Sums => ({
  failures: sums.failures,
  answers: sums.answers + 1,
  ended: sums.ended + (durationMs === undefined ? 0 : 1),
  durations: sums.durations + (durationMs ?? 0),
  firstTokens: sums.firstTokens + (timeToFirstTokenMs === undefined ? 0 : 1),
  firstTokenMs: sums.firstTokenMs + (timeToFirstTokenMs ?? 0),
  generatingMs: sums.generatingMs + (generation?.ms ?? 0),
  outputTokens: sums.outputTokens + (generation?.outputTokens ?? 0)
})

const averagesOf = (sums: Sums): FadingAverages => {
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
  let sums = nothing
  let since = 0
  let latestAt = 0
  /** Half-lives of a busy time that have passed, and that no attempt has made of use yet. */
  let passed = 0

  const fadeTo = (now: number): void => {
    sums = scaled(sums, 2 ** (-Math.max(0, now - since) / halfLifeMs))
    since = now
  }

  /** Time has passed, and one more is there. */
  const follow = (at: number): void => {
    fadeTo(at)
    passed = Math.min(1, passed + Math.max(0, at - latestAt) / busyHalfLifeMs)
    latestAt = at
    const used = Math.min(passed, 1 / halfLifeAttempts)
    passed -= used
    sums = scaled(sums, 2 ** -used)
  }

  return {
    add: (attempt) => {
      if (attempt.outcome === "other-failure" || attempt.outcome === "cut") return
      follow(attempt.at)
      if (attempt.outcome === "platform-failure") {
        sums = { ...sums, failures: sums.failures + 1 }
        return
      }
      const { durationMs, outputTokens = 0, timeToFirstTokenMs } = attempt
      const generation = outputTokens > 0 ? { ms: generationMs(attempt), outputTokens } : undefined
      sums = withAnswer(sums, { timeToFirstTokenMs, generation }, durationMs)
    },
    addAtLeast: (shown) => {
      follow(shown.at)
      sums = withAnswer(sums, shown)
    },
    at: (now, running = []) => {
      fadeTo(now)
      return averagesOf(running.reduce((all, shown) => withAnswer(all, shown), sums))
    }
  }
}
