import { Array as Arr } from "effect"
import type { Route, RoutedCandidate } from "../AgentRouter.js"
import type { AttemptFailure, PlatformReason } from "../Domain/Failure.js"
import type { Candidate } from "../Domain/Lease.js"
import type { PlatformId } from "../Domain/Platform.js"
import { retryAfterMaxMs } from "../ResourceManager/Breaker.js"

/** A candidate still in the running, with what this call has met there. */
export interface Contender extends RoutedCandidate {
  /** Platform failures in a row that this call met there. */
  readonly failures: number
  /** Not to be tried before this monotonic instant, ms. */
  readonly notBefore?: number | undefined
  /** In words, why it is not to be tried before then, where that is not for a failure. */
  readonly heldBack?: string | undefined
}

/** Who can still serve one call after the failures it has met so far, and why the others cannot. */
export interface Failover {
  readonly contenders: ReadonlyArray<Contender>
  readonly excluded: ReadonlyArray<PlatformReason>
  /** Whether somebody excluded may serve the call later: out by its key or its model, not by the call itself. */
  readonly mayRecover: boolean
  /** Whether that may happen at an instant nobody knows: a key works again, a model is there after all. */
  readonly mayRecoverUnannounced: boolean
}

export const fromRoute = (route: Route): Failover => ({
  contenders: route.candidates.map((candidate) => ({ ...candidate, failures: 0 })),
  excluded: route.excluded,
  mayRecover: false,
  mayRecoverUnannounced: false
})

/** A call no other platform would take either: malformed, or against a content policy. */
export const endsTheCall = (failure: AttemptFailure): boolean =>
  failure._tag === "RequestFailure" && failure.reason !== "context"

/** First wait after a platform's failure, ms; doubled with each further one in a row. */
const backoffBaseMs = 500
const backoffMaxMs = 30_000

/** How long a platform rests for this call after `failures` failures in a row, ms. `jitter` is in [0, 1). */
export const backoffMs = (failures: number, jitter: number): number => {
  const full = Math.min(backoffMaxMs, backoffBaseMs * 2 ** (failures - 1))
  return Math.round(full * (0.5 + jitter / 2))
}

const exclude = (
  state: Failover,
  options: {
    readonly who: (contender: Contender) => boolean
    readonly why: (contender: Contender) => string
    readonly mayRecover: boolean
    /** Epoch ms. */
    readonly earliestAt?: number | undefined
  }
): Failover => {
  const [contenders, out] = Arr.partition(state.contenders, options.who)
  return {
    contenders,
    excluded: [
      ...state.excluded,
      ...out.map((contender) => ({
        platform: contender.platform,
        reason: options.why(contender),
        ...(options.earliestAt === undefined ? {} : { earliestAt: options.earliestAt })
      }))
    ],
    mayRecover: state.mayRecover || options.mayRecover,
    mayRecoverUnannounced: state.mayRecoverUnannounced || (options.mayRecover && options.earliestAt === undefined)
  }
}

/** What a failed attempt leaves of a call's chances: each scope takes out itself and nothing else. */
export const afterFailure = (
  state: Failover,
  failed: Pick<Candidate, "platform" | "model">,
  failure: AttemptFailure,
  at: {
    /** Monotonic, ms. */
    readonly now: number
    /** In [0, 1). */
    readonly jitter: number
    readonly contextWindow: (platform: PlatformId) => number
  }
): Failover => {
  switch (failure._tag) {
    case "RequestFailure": {
      const window = at.contextWindow(failed.platform)
      return exclude(state, {
        who: ({ platform }) => platform === failed.platform || at.contextWindow(platform) <= window,
        why: ({ platform }) =>
          platform === failed.platform
            ? `the call is too long for it: ${failure.message}`
            : `its context window is no larger than that of ${failed.platform}, which the call did not fit`,
        mayRecover: false
      })
    }
    case "ModelFailure":
      return exclude(state, {
        who: ({ platform, model }) => platform === failed.platform && model === failed.model,
        why: ({ model }) => `its model ${model} is not to be had: ${failure.message}`,
        mayRecover: true,
        earliestAt: failure.resetsAt
      })
    case "CredentialFailure":
      return exclude(state, {
        who: ({ platform }) => platform === failed.platform,
        why: () => `its key is refused: ${failure.message}`,
        mayRecover: true
      })
    case "QuotaFailure":
      // The resource manager has read the wait out of the failure and holds the platform back for every call.
      return state
    case "PlatformFailure":
      return {
        ...state,
        contenders: state.contenders.map((contender) => {
          if (contender.platform !== failed.platform) return contender
          const failures = contender.failures + 1
          const wait = Math.max(Math.min(failure.retryAfterMs ?? 0, retryAfterMaxMs), backoffMs(failures, at.jitter))
          return { ...contender, failures, notBefore: at.now + wait }
        })
      }
  }
}

/** The earliest instant (epoch ms) at which one of these can be used, where any is known. */
export const earliestOf = (reasons: ReadonlyArray<Pick<PlatformReason, "earliestAt">>): number | undefined => {
  const known = reasons.flatMap(({ earliestAt }) => earliestAt ?? [])
  return known.length === 0 ? undefined : Math.min(...known)
}

/** A known instant that comes too late says nothing where somebody else may come back before it, unannounced. */
export const knownBefore = (
  deadline: number,
  earliestAt: number | undefined,
  mayRecoverUnannounced: boolean
): number | undefined =>
  mayRecoverUnannounced && earliestAt !== undefined && earliestAt >= deadline ? undefined : earliestAt
