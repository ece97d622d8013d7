import type { CallTimes } from "../Benchmark.js"
import type { Contender } from "./Failover.js"

/** For so long at most a call waits for a platform that answers in time, while one that may not is free, ms. */
const longestHoldMs = 60_000
/** What one attempt may take more than its length says: its speed is not just its platform's of late. */
const variation = 1.3

const inSeconds = (ms: number): string => `${Math.round(ms / 1_000)} s`

/**
 * The contenders of a call whose time is short: one that may well answer too late is asked only after those that answer
 * in time have had their chance to come free, as long as they still can answer in time then. `timesOf`: how long such a
 * call takes there, where that is known. Instants are monotonic, ms.
 */
export const holdBack = (
  contenders: ReadonlyArray<Contender>,
  timesOf: (contender: Contender) => CallTimes | undefined,
  at: { readonly now: number; readonly deadlineAt: number }
): ReadonlyArray<Contender> => {
  const leftMs = at.deadlineAt - at.now
  const longMs = (contender: Contender): number | undefined => {
    const times = timesOf(contender)
    return times === undefined ? undefined : times.longMs * variation
  }
  const quickestMs = contenders.reduce(
    (least, contender) => Math.min(least, longMs(contender) ?? least),
    Number.POSITIVE_INFINITY
  )
  if (!(quickestMs < leftMs)) return contenders
  const until = at.now + Math.min(longestHoldMs, leftMs - quickestMs)
  return contenders.map((contender) => {
    const ms = longMs(contender)
    if (ms === undefined || ms <= leftMs || until <= (contender.notBefore ?? 0)) return contender
    const heldBack = `a long answer takes it ${inSeconds(ms)}, and the call has ${inSeconds(leftMs)} left`
    return { ...contender, notBefore: until, heldBack }
  })
}

/**
 * How long waiting for a platform makes sense, ms: who starts later than that is not even answered in time by the fastest
 * one where its answer is of typical length, and would only take the place of one that is.
 */
export const sensibleWaitMs = (
  contenders: ReadonlyArray<Contender>,
  timesOf: (contender: Contender) => CallTimes | undefined,
  leftMs: number
): number => {
  const known = contenders.flatMap((contender) => timesOf(contender)?.typicalMs ?? [])
  return known.length === 0 ? leftMs : Math.max(0, leftMs - Math.min(...known))
}
