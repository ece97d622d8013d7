import { generationMs, type Recorded } from "./Recorded.js"

/** Output of a call of ordinary length, tokens: what speeds are compared at. */
const ordinaryOutputTokens = 500
/** Evidence below this is none: nothing is divided by it. */
const least = 1e-9

/** Averages over attempts that count the less the older they are: one counts half after each half-life. */
export interface Fading {
  readonly add: (attempt: Recorded) => void
  readonly at: (now: number) => FadingAverages
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

export const make = (halfLifeMs: number): Fading => {
  let since = 0
  let failures = 0
  let answers = 0
  let durations = 0
  /** Answers whose first piece was seen. */
  let firstTokens = 0
  let firstTokenMs = 0
  let generatingMs = 0
  let outputTokens = 0

  const fadeTo = (now: number): void => {
    const left = 2 ** (-Math.max(0, now - since) / halfLifeMs)
    since = now
    failures *= left
    answers *= left
    durations *= left
    firstTokens *= left
    firstTokenMs *= left
    generatingMs *= left
    outputTokens *= left
  }

  return {
    add: (attempt) => {
      if (attempt.outcome === "other-failure") return
      fadeTo(attempt.at)
      if (attempt.outcome === "platform-failure") {
        failures += 1
        return
      }
      answers += 1
      durations += attempt.durationMs
      if (attempt.timeToFirstTokenMs !== undefined) {
        firstTokens += 1
        firstTokenMs += attempt.timeToFirstTokenMs
      }
      if ((attempt.outputTokens ?? 0) > 0) {
        generatingMs += generationMs(attempt)
        outputTokens += attempt.outputTokens ?? 0
      }
    },
    at: (now) => {
      fadeTo(now)
      const timeToFirstTokenMs = firstTokens < least ? undefined : firstTokenMs / firstTokens
      const msPerOutputToken = outputTokens < least ? undefined : generatingMs / outputTokens
      const isKnown = timeToFirstTokenMs !== undefined || msPerOutputToken !== undefined
      return {
        attempts: answers + failures,
        failures,
        answers,
        durationMs: answers < least ? undefined : durations / answers,
        timeToFirstTokenMs,
        msPerOutputToken,
        callMs: isKnown ? (timeToFirstTokenMs ?? 0) + ordinaryOutputTokens * (msPerOutputToken ?? 0) : undefined
      }
    }
  }
}
