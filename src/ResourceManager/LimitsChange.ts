import type { LimitsPatch } from "../Domain/Lease.js"
import type { PlatformLimits } from "../Settings.js"

/** The configured limits with a change laid over them: `null` lifts a limit, what is left out stays. */
export const changed = (limits: PlatformLimits, patch: LimitsPatch): PlatformLimits => {
  const laidOver = <A>(value: A | null | undefined, configured: A | undefined): A | undefined =>
    value === undefined ? configured : (value ?? undefined)
  const windowRequests = laidOver(patch.windowRequests, limits.windowRequests)
  const windowTokens = laidOver(patch.windowTokens, limits.windowTokens)
  // with its last amount the window itself is gone
  const isWindowLifted = patch.windowMs === undefined && windowRequests === undefined && windowTokens === undefined
  return {
    ...limits,
    requestsPerMinute: laidOver(patch.requestsPerMinute, limits.requestsPerMinute),
    tokensPerMinute: laidOver(patch.tokensPerMinute, limits.tokensPerMinute),
    tokensCounted: patch.tokensCounted ?? limits.tokensCounted,
    burst: laidOver(patch.burst, limits.burst),
    windowRequests,
    windowTokens,
    windowMs: isWindowLifted ? undefined : laidOver(patch.windowMs, limits.windowMs),
    maxConcurrent: patch.maxConcurrent ?? limits.maxConcurrent,
    maxConcurrentPerModel: laidOver(patch.maxConcurrentPerModel, limits.maxConcurrentPerModel),
    adapt: patch.adapt ?? limits.adapt
  }
}

/** A change on top of an earlier one. */
export const combined = (earlier: LimitsPatch, later: LimitsPatch): LimitsPatch => ({ ...earlier, ...later })
