import { Context, type Effect } from "effect"
import type { Performance } from "./Domain/Lease.js"
import type { PlatformId } from "./Domain/Platform.js"
import type { TaskType } from "./Domain/Task.js"

export interface Measurement {
  readonly platform: PlatformId
  readonly model: string
  readonly type: TaskType
  /** `platform-failure` only where the platform is to blame (scope `platform`). */
  readonly outcome: "succeeded" | "platform-failure" | "other-failure"
  readonly durationMs: number
  readonly timeToFirstTokenMs?: number | undefined
  /** Input and output tokens. */
  readonly tokens: number
}

/** What real attempts showed of each platform: latency, errors, tokens, over a bounded sliding window. */
export class Benchmark extends Context.Tag("dream-team/Benchmark")<
  Benchmark,
  {
    readonly record: (measurement: Measurement) => Effect.Effect<void>
    readonly performance: (platform: PlatformId) => Effect.Effect<Performance>
  }
>() {}
