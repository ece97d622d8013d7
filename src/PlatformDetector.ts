import { Context, type Effect, type Stream } from "effect"
import type { AttemptFailure } from "./Domain/Failure.js"
import type { PlatformView } from "./Domain/Lease.js"
import type { PlatformId, PlatformStatus } from "./Domain/Platform.js"

export interface PlatformHealth {
  readonly platform: PlatformId
  readonly status: PlatformStatus
  readonly reasons: ReadonlyArray<string>
  /** When it was last checked or used, epoch ms. */
  readonly checkedAt?: number | undefined
}

/** Who is well: a supervised health fiber per platform, and what real attempts show. */
export class PlatformDetector extends Context.Tag("dream-team/PlatformDetector")<
  PlatformDetector,
  {
    readonly health: (platform: PlatformId) => Effect.Effect<PlatformHealth>
    /** Checks now, whatever the schedule. */
    readonly check: (platform: PlatformId) => Effect.Effect<PlatformHealth>
    /** A real attempt's outcome: credential and model failures take their scope out, an answer brings it back. */
    readonly report: (
      platform: PlatformId,
      model: string,
      outcome: { readonly _tag: "Succeeded" } | { readonly _tag: "Failed"; readonly failure: AttemptFailure }
    ) => Effect.Effect<void>
    readonly changes: Stream.Stream<PlatformHealth>
    readonly view: Effect.Effect<ReadonlyArray<PlatformView>>
  }
>() {}
