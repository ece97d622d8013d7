import type { RoutingPolicy } from "../Domain/Platform.js"
import { factorOf, type Quality } from "./Quality.js"

/** What is weighed of one candidate. */
export interface Weighed {
  /** Score for the type of task, 0 to 1. */
  readonly suitability: number
  /** As configured. */
  readonly weight: number
  readonly quality: Quality
  /** What the call may cost there, USD; absent where the price is unknown. */
  readonly costUsd?: number | undefined
}

/** The least weight: a platform that can serve a call is never shut out by a low score. */
const leastWeight = 0.001
/** Amounts this close are the same, USD: free is not infinitely cheaper than nearly free. */
const negligibleUsd = 1e-6

/** How long a call leaves a free platform unused for a much better one that is known to be free soon, ms. */
export const patienceMs: Readonly<Record<RoutingPolicy, number>> = {
  balanced: 2_000,
  fastest: 0,
  cheapest: 30_000,
  best: 30_000
}

/** How cheap each is against the cheapest, 0 to 1. Who has no price is taken to be as dear as the dearest. */
const cheapness = (candidates: ReadonlyArray<Weighed>): ((candidate: Weighed) => number) => {
  const known = candidates.flatMap(({ costUsd }) => costUsd ?? [])
  if (known.length === 0) return () => 1
  const cheapest = Math.min(...known)
  const dearest = Math.max(...known)
  return ({ costUsd = dearest }) => (cheapest + negligibleUsd) / (costUsd + negligibleUsd)
}

/** The weight of each candidate of one call, in their order; each > 0. */
export const weigh = (policy: RoutingPolicy, candidates: ReadonlyArray<Weighed>): ReadonlyArray<number> => {
  const cheapnessOf = policy === "cheapest" ? cheapness(candidates) : () => 1
  const weightOf = (candidate: Weighed): number => {
    const { quality, suitability, weight } = candidate
    switch (policy) {
      case "balanced":
        return suitability * weight * factorOf(quality)
      case "fastest":
        return suitability * weight * factorOf(quality) * quality.speed ** 2
      case "cheapest":
        return suitability * weight * factorOf(quality) * cheapnessOf(candidate) ** 2
      case "best":
        return suitability ** 3 * weight * quality.reliability
    }
  }
  return candidates.map((candidate) => Math.max(leastWeight, weightOf(candidate)))
}
