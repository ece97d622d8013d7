/**
 * What was measured of a model, as factors of its weight: 1 is neutral. They follow what is measured in small steps, so
 * that one bad minute neither floods the others nor is forgotten at once.
 */
export interface Quality {
  /** 0.05 to 1. */
  readonly reliability: number
  /** 0.25 to 2: against the other platforms, and against what it used to be. */
  readonly speed: number
}

/** What was measured of a model of late. */
export interface Reading {
  /** Attempts that were answered or failed by the platform's fault, recent ones counting most. */
  readonly attempts: number
  readonly failures: number
  readonly answers: number
  /** How long a call of ordinary length takes, ms. */
  readonly callMs?: number | undefined
  /** How long it used to take, ms. */
  readonly baselineMs?: number | undefined
}

/** Optimistic: who was never asked is as good as the rest. */
export const neutral: Quality = { reliability: 1, speed: 1 }

/** The least and the most that quality makes of a weight: who fares badly is asked less, and never not at all. */
export const bounds = { least: 0.05, most: 2 } as const
/** Quality changes by this factor at most in one step, or by its inverse. */
export const largestStep = 1.25
/** Without anything measured, what quality differs from neutral halves in this time, ms. */
export const halfLifeMs = 5 * 60_000

/** Successes that everybody is taken to have had, so that the first failure is not a verdict. */
const presumedSuccesses = 4
/** Answers that everybody is taken to have given at the usual speed. */
const presumedAnswers = 2

const clamp = (value: number, least: number, most: number): number => Math.min(most, Math.max(least, value))

/** The factor of the weight. */
export const factorOf = ({ reliability, speed }: Quality): number =>
  clamp(reliability * speed, bounds.least, bounds.most)

/** Where what is measured points to. `usualMs` is how long a call of ordinary length takes on the platforms, in the middle. */
export const targetOf = (reading: Reading, usualMs: number | undefined): Quality => {
  const { answers, attempts, baselineMs, callMs, failures } = reading
  const reliability = clamp((1 - failures / (attempts + presumedSuccesses)) ** 3, bounds.least, 1)
  if (callMs === undefined || !(callMs > 0)) return { reliability, speed: 1 }
  const againstPeers = clamp((usualMs ?? callMs) / callMs, 0.5, 2)
  const againstItself = clamp(Math.sqrt((baselineMs ?? callMs) / callMs), 0.5, 1)
  // as much of it as there is evidence
  return { reliability, speed: (againstPeers * againstItself) ** (answers / (answers + presumedAnswers)) }
}

const towards = (from: number, to: number, step: number): number =>
  from * Math.exp(clamp(Math.log(to / from), -step, step))

/**
 * One step. `reading` is absent where nothing was measured of late. A step's change is spent on reliability first: a
 * platform that fails is no better for failing fast.
 */
export const next = (
  current: Quality,
  reading: Reading | undefined,
  usualMs: number | undefined,
  elapsedMs: number
): Quality => {
  if (reading === undefined) return faded(current, elapsedMs)
  const target = targetOf(reading, usualMs)
  const step = Math.log(largestStep)
  const reliability = towards(current.reliability, target.reliability, step)
  const left = Math.max(0, step - Math.abs(Math.log(reliability / current.reliability)))
  return { reliability, speed: towards(current.speed, target.speed, left) }
}

/** What time alone makes of it. */
export const faded = ({ reliability, speed }: Quality, elapsedMs: number): Quality => {
  const left = 2 ** (-Math.max(0, elapsedMs) / halfLifeMs)
  return { reliability: reliability ** left, speed: speed ** left }
}

/** So close to neutral that it need not be kept. */
export const isNeutral = ({ reliability, speed }: Quality): boolean =>
  Math.abs(reliability - 1) < 0.001 && Math.abs(speed - 1) < 0.001

/** The middle one; the mean of the middle two; none of none. */
export const median = (values: ReadonlyArray<number>): number | undefined => {
  const sorted = [...values].sort((left, right) => left - right)
  const upper = sorted[Math.floor(sorted.length / 2)]
  const lower = sorted[Math.ceil(sorted.length / 2) - 1]
  return upper === undefined || lower === undefined ? undefined : (upper + lower) / 2
}
