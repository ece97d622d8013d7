import { Context, Effect, Layer } from "effect"
import { percentile } from "./Benchmark/percentile.js"
import type { Performance } from "./Domain/Lease.js"
import type { PlatformId } from "./Domain/Platform.js"
import type { TaskType } from "./Domain/Task.js"
import { monotonicMs } from "./Domain/Time.js"

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

/** Attempts remembered of each platform. */
const maxAttempts = 256
/** How long an attempt is remembered, ms. */
const maxAgeMs = 10 * 60_000

interface Recorded extends Measurement {
  readonly at: number
}

const performanceOf = (recorded: ReadonlyArray<Recorded>): Performance => {
  // How fast a refusal comes says nothing of how fast an answer does.
  const answered = recorded.filter((measurement) => measurement.outcome === "succeeded")
  const durations = answered.map((measurement) => measurement.durationMs)
  const firstTokens = answered.flatMap((measurement) => measurement.timeToFirstTokenMs ?? [])
  const failed = recorded.filter((measurement) => measurement.outcome === "platform-failure").length
  return {
    attempts: recorded.length,
    errorRate: recorded.length === 0 ? 0 : failed / recorded.length,
    durationMsP50: percentile(durations, 0.5),
    durationMsP95: percentile(durations, 0.95),
    timeToFirstTokenMsP50: percentile(firstTokens, 0.5),
    timeToFirstTokenMsP95: percentile(firstTokens, 0.95),
    tokens: recorded.reduce((sum, measurement) => sum + measurement.tokens, 0)
  }
}

/** What real attempts showed of each platform: latency, errors, tokens, over a bounded sliding window. */
export class Benchmark extends Context.Tag("dream-team/Benchmark")<
  Benchmark,
  {
    readonly record: (measurement: Measurement) => Effect.Effect<void>
    /** Latencies are those of answers; the error rate is over all attempts of the window. */
    readonly performance: (platform: PlatformId) => Effect.Effect<Performance>
  }
>() {
  /** In memory: the latest 256 attempts of each platform, none older than 10 minutes. */
  static readonly layer: Layer.Layer<Benchmark> = Layer.sync(Benchmark, () => {
    const windows = new Map<PlatformId, Array<Recorded>>()
    return {
      record: (measurement) =>
        Effect.map(monotonicMs, (at) => {
          const window = windows.get(measurement.platform) ?? []
          window.push({ ...measurement, at })
          if (window.length > maxAttempts) window.shift()
          windows.set(measurement.platform, window)
        }),
      performance: (platform) =>
        Effect.map(monotonicMs, (now) => {
          const window = (windows.get(platform) ?? []).filter((measurement) => now - measurement.at <= maxAgeMs)
          windows.set(platform, window)
          return performanceOf(window)
        })
    }
  })
}
