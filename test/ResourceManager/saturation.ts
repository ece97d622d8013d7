import type { Priority } from "../../src/Domain/Task.js"
import type { Ask, Budget, Grant } from "../../src/ResourceManager/PlatformBudget.js"
import { usageOf } from "./fixtures.js"

/** Reproducible numbers from 0 to 1. */
export const randomOf = (seed: number) => {
  let state = seed >>> 0
  return (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

export interface Load {
  readonly budget: Budget
  readonly untilMs: number
  /** What the lower calls are; there are always some waiting. */
  readonly lower: () => Ask
  readonly high?: { readonly ask: Ask; readonly everyMs: () => number }
  readonly endsAfterMs?: () => number
  readonly usage?: (ask: Ask) => { readonly input: number; readonly output: number }
}

export interface Granted {
  readonly at: number
  readonly priority: Priority
  readonly waitedMs: number
  readonly input: number
  readonly output: number
}

interface Timed {
  readonly at: number
  readonly run: (now: number) => void
}

/** A platform with more to do than it may: what is granted when, decided as the dispatcher decides it. */
export const saturate = (load: Load): ReadonlyArray<Granted> => {
  const { budget } = load
  const granted: Array<Granted> = []
  const timed: Array<Timed> = []
  const later = (at: number, run: (now: number) => void): void => {
    let index = timed.length
    while (index > 0 && (timed[index - 1]?.at ?? 0) > at) index -= 1
    timed.splice(index, 0, { at, run })
  }
  const highSince: Array<number> = []
  let now = 0
  const at = () => ({ ms: now, epochMs: now })
  let lower = load.lower()

  const run = (grant: Grant, priority: Priority, since: number): void => {
    const { input, output } = load.usage?.(grant.ask) ?? { input: 1, output: 1 }
    granted.push({ at: now, priority, waitedMs: now - since, input, output })
    const endsAt = now + (load.endsAfterMs?.() ?? 0)
    later(now, (ms) => budget.started(grant, [], { ms, epochMs: ms }))
    later(endsAt, (ms) =>
      budget.settle(grant, { _tag: "Succeeded", usage: usageOf(input, output) }, { ms, epochMs: ms })
    )
  }

  const { high } = load
  if (high !== undefined) {
    const arrive = (ms: number): void => {
      highSince.push(ms)
      later(ms + high.everyMs(), arrive)
    }
    later(high.everyMs(), arrive)
  }

  while (now < load.untilMs) {
    while (high !== undefined && highSince[0] !== undefined) {
      const grant = budget.tryTake(high.ask, at())
      if (grant === undefined) break
      run(grant, "HIGH", highSince.shift() ?? now)
    }
    for (;;) {
      const grant = highSince.length === 0 ? budget.tryTake(lower, at()) : undefined
      if (grant === undefined) break
      run(grant, "LOW", now)
      lower = load.lower()
    }
    const limitedBy = budget.shortage(lower, at())
    budget.setBacklog(limitedBy !== undefined && !limitedBy.reason.includes("concurrent"))
    const due = Math.min(
      high !== undefined && highSince.length > 0 ? budget.earliest(high.ask, at()) : budget.earliest(lower, at()),
      timed[0]?.at ?? Number.POSITIVE_INFINITY
    )
    if (due <= now && (timed[0]?.at ?? Number.POSITIVE_INFINITY) > now) throw new Error(`it does not move on at ${now}`)
    now = due === timed[0]?.at ? due : Math.ceil(due)
    while (timed[0] !== undefined && timed[0].at <= now) timed.shift()?.run(now)
  }
  return granted
}

/** The largest gap between two neighbours, ms. */
export const largestGap = (instants: ReadonlyArray<number>): number =>
  instants.reduce((largest, at, index) => Math.max(largest, at - (instants[index - 1] ?? at)), 0)
