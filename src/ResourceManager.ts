import { Context, type Effect, type Scope, type Stream } from "effect"
import type { LimitReading } from "./Domain/Call.js"
import type { LeaseUnavailable } from "./Domain/Failure.js"
import type { BreakerView, Candidate, PlatformResources, ResourcesView, Settlement } from "./Domain/Lease.js"
import type { PlatformId } from "./Domain/Platform.js"
import type { Priority, TenantId } from "./Domain/Task.js"

export interface LeaseRequest {
  /** Who may serve the call. `notBefore` is a monotonic instant (ms of `Clock.currentTimeNanos`), for backoff. */
  readonly candidates: ReadonlyArray<Candidate & { readonly notBefore?: number | undefined }>
  /** An estimate of the input and the bound of the output, tokens. The margin is the manager's business. */
  readonly tokens: { readonly input: number; readonly maxOutput: number }
  readonly priority: Priority
  readonly tenant: TenantId
  /** Give up when no lease can be had within this long, ms. Fails at once where it is certain beforehand. */
  readonly maxWaitMs: number
}

/**
 * Permission to make one attempt on one platform now: a concurrency permit and a reservation of requests and tokens.
 * Settled exactly once; closing the scope of an unsettled lease settles it as `Ignored`.
 */
export interface Lease {
  readonly id: number
  readonly platform: PlatformId
  readonly model: string
  readonly waitedMs: number
  /** The response's headers are here: the reservation ages from now on, and the provider's own readings correct it. */
  readonly started: (limits: ReadonlyArray<LimitReading>) => Effect.Effect<void>
  /** Later calls change nothing. */
  readonly settle: (settlement: Settlement) => Effect.Effect<void>
}

export interface BreakerTransition {
  readonly platform: PlatformId
  readonly from: BreakerView["state"]
  readonly to: BreakerView["state"]
  readonly at: number
  readonly why: string
}

/** Who may go now: the one dispatcher of the process, over every platform's limits, permits and breaker. */
export class ResourceManager extends Context.Tag("dream-team/ResourceManager")<
  ResourceManager,
  {
    readonly acquire: (request: LeaseRequest) => Effect.Effect<Lease, LeaseUnavailable, Scope.Scope>
    /**
     * Takes a platform (or one model of it) out of service for `reason`, until `until` (epoch ms, where known);
     * `undefined` brings it back. Waiting calls are looked at again at once.
     */
    readonly setOut: (
      target: { readonly platform: PlatformId; readonly model?: string | undefined },
      out: { readonly reason: string; readonly until?: number | undefined } | undefined
    ) => Effect.Effect<void>
    /** The provider itself says its quota is used up until this instant (epoch ms); a shorter one never replaces a longer. */
    readonly setExhausted: (platform: PlatformId, until: number) => Effect.Effect<void>
    readonly platform: (platform: PlatformId) => Effect.Effect<PlatformResources>
    readonly view: Effect.Effect<ResourcesView>
    readonly transitions: Stream.Stream<BreakerTransition>
  }
>() {}
