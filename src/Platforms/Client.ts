import type { Chunk, Effect, Stream } from "effect"
import type { Call, Completion, Delta, LimitReading } from "../Domain/Call.js"
import type { AttemptFailure } from "../Domain/Failure.js"
import type { PlatformId } from "../Domain/Platform.js"
import type { PlatformSettings } from "../Settings.js"

/** What a health check found. */
export interface CheckResult {
  /** What the platform said of its limits, where its check asks for them (Synthetic); else empty. */
  readonly readings: ReadonlyArray<LimitReading>
  readonly models: ReadonlyArray<string>
}

/** Takes a part of an answer; the next one is not read before it is done. */
export type TakeDeltas = (deltas: Chunk.Chunk<Delta>) => Effect.Effect<void>

/**
 * One platform, spoken to in its own wire format. Nothing in here retries. The timeouts of its settings are kept by who
 * reads its `stream`, and by itself in `streamTo` and `complete`.
 */
export interface PlatformClient {
  readonly id: PlatformId
  readonly settings: PlatformSettings
  /** One whole answer. Interrupting closes the socket. */
  readonly complete: (model: string, call: Call) => Effect.Effect<Completion, AttemptFailure>
  /** The same, piece by piece: `Start`, then text and tool calls, then `Finish`. Interrupting closes the socket. */
  readonly stream: (model: string, call: Call) => Stream.Stream<Delta, AttemptFailure>
  /**
   * What `stream` gives, handed to `take` as it comes, for whoever reads it to its end: a fraction of the work. Without it
   * `stream` is read.
   */
  readonly streamTo?: (model: string, call: Call, take: TakeDeltas) => Effect.Effect<void, AttemptFailure>
  readonly listModels: Effect.Effect<ReadonlyArray<string>, AttemptFailure>
  /** A cheap true check that costs no tokens: list the models, or Synthetic's quotas. */
  readonly check: Effect.Effect<CheckResult, AttemptFailure>
}
