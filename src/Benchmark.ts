import { Context, Effect, Layer, Option } from "effect"
import * as Fading from "./Benchmark/Fading.js"
import { percentile } from "./Benchmark/percentile.js"
import { generationMs, type Measurement, type Recorded } from "./Benchmark/Recorded.js"
import * as SlidingWindow from "./Benchmark/SlidingWindow.js"
import type { Performance } from "./Domain/Lease.js"
import type { PlatformId } from "./Domain/Platform.js"
import type { TaskType } from "./Domain/Task.js"
import { monotonicMs } from "./Domain/Time.js"

export type { Measurement } from "./Benchmark/Recorded.js"

/** What a model shows just now, beside what it used to show. */
export interface RecentPerformance {
  readonly platform: PlatformId
  readonly model: string
  /** Attempts that were answered or failed by the platform's fault; each counts half after a minute. */
  readonly attempts: number
  /** Those of `attempts` that failed. */
  readonly failures: number
  /** Those of `attempts` that were answered. */
  readonly answers: number
  /** How long a call of 500 output tokens takes now, ms, averaged over about a minute. */
  readonly callMs?: number | undefined
  /** The same, averaged over about an hour. */
  readonly baselineMs?: number | undefined
  /** Since the latest attempt, ms. */
  readonly idleMs: number
}

/** Models remembered of one platform; beyond it, the one that was not used for the longest time is forgotten. */
const maxModels = 32
const recentHalfLifeMs = 60_000
const baselineHalfLifeMs = 60 * 60_000
/** Answers that make a percentile worth acting on. */
const enoughAnswers = 20

interface Measured {
  readonly window: SlidingWindow.SlidingWindow
  readonly recent: Fading.Fading
}

interface MeasuredModel extends Measured {
  readonly baseline: Fading.Fading
  latestAt: number
}

interface MeasuredPlatform extends Measured {
  /** The one used last comes last. */
  readonly models: Map<string, MeasuredModel>
  readonly types: Map<TaskType, SlidingWindow.SlidingWindow>
}

const isAnswered = ({ outcome }: Measurement): boolean => outcome === "succeeded"

const nothing: Performance = { attempts: 0, errorRate: 0, tokens: 0 }

const performanceOf = (measured: Measured, now: number): Performance => {
  const recorded = measured.window.within(now)
  if (recorded.length === 0) return nothing
  // How fast a refusal comes says nothing of how fast an answer does.
  const answered = recorded.filter(isAnswered)
  const durations = answered.map(({ durationMs }) => durationMs)
  const firstTokens = answered.flatMap(({ timeToFirstTokenMs }) => timeToFirstTokenMs ?? [])
  const perToken = answered.flatMap((measurement) => {
    const { outputTokens = 0 } = measurement
    return outputTokens > 0 ? generationMs(measurement) / outputTokens : []
  })
  const failed = recorded.filter(({ outcome }) => outcome === "platform-failure").length
  const average: Partial<Fading.FadingAverages> = answered.length === 0 ? {} : measured.recent.at(now)
  const { msPerOutputToken } = average
  return {
    attempts: recorded.length,
    errorRate: failed / recorded.length,
    durationMsP50: percentile(durations, 0.5),
    durationMsP95: percentile(durations, 0.95),
    durationMsEwma: average.durationMs,
    timeToFirstTokenMsP50: percentile(firstTokens, 0.5),
    timeToFirstTokenMsP95: percentile(firstTokens, 0.95),
    timeToFirstTokenMsEwma: average.timeToFirstTokenMs,
    msPerOutputTokenP50: percentile(perToken, 0.5),
    msPerOutputTokenP95: percentile(perToken, 0.95),
    msPerOutputTokenEwma: msPerOutputToken,
    outputTokensPerSecond:
      msPerOutputToken === undefined || msPerOutputToken === 0 ? undefined : 1_000 / msPerOutputToken,
    tokens: recorded.reduce((sum, { tokens }) => sum + tokens, 0)
  }
}

/** What real attempts showed of each platform and model: latency, errors, tokens, over bounded sliding windows. */
export class Benchmark extends Context.Tag("dream-team/Benchmark")<
  Benchmark,
  {
    readonly record: (measurement: Measurement) => Effect.Effect<void>
    /** Of a platform, or of one model of it. Latencies are those of answers; the error rate is over all attempts. */
    readonly performance: (platform: PlatformId, model?: string) => Effect.Effect<Performance>
    /** The models a platform was used with, the one used last first. */
    readonly models: (
      platform: PlatformId
    ) => Effect.Effect<ReadonlyArray<{ readonly model: string; readonly performance: Performance }>>
    /** Of every model that is remembered: at most 32 a platform. */
    readonly recent: Effect.Effect<ReadonlyArray<RecentPerformance>>
    /** Waits until more than `count` attempts were recorded; how many it is then. */
    readonly recordedAfter: (count: number) => Effect.Effect<number>
    /** How long a platform's whole calls of a type take, ms, at the 95th percentile; none below 20 answers. */
    readonly latencyP95: (platform: PlatformId, type: TaskType) => Effect.Effect<Option.Option<number>>
  }
>() {
  /**
   * In memory. Of each platform, each of its models and each of its task types: the latest 256 attempts, none older than
   * 10 minutes, for percentiles and rates; averages are exponentially weighted, an attempt counts half after a minute.
   */
  static readonly layer: Layer.Layer<Benchmark> = Layer.sync(Benchmark, () => {
    const platforms = new Map<PlatformId, MeasuredPlatform>()
    const more = Effect.unsafeMakeLatch(false)
    let count = 0

    const measured = (): Measured => ({ window: SlidingWindow.make(), recent: Fading.make(recentHalfLifeMs) })

    const platformOf = (id: PlatformId): MeasuredPlatform => {
      const known = platforms.get(id)
      if (known !== undefined) return known
      const added = { ...measured(), models: new Map(), types: new Map() }
      platforms.set(id, added)
      return added
    }

    const modelOf = ({ models }: MeasuredPlatform, name: string): MeasuredModel => {
      const model = models.get(name) ?? { ...measured(), baseline: Fading.make(baselineHalfLifeMs), latestAt: 0 }
      models.delete(name)
      models.set(name, model)
      if (models.size > maxModels) {
        for (const unused of models.keys()) {
          models.delete(unused)
          break
        }
      }
      return model
    }

    const typeOf = ({ types }: MeasuredPlatform, type: TaskType): SlidingWindow.SlidingWindow => {
      const window = types.get(type) ?? SlidingWindow.make()
      types.set(type, window)
      return window
    }

    const record = (recorded: Recorded): void => {
      const platform = platformOf(recorded.platform)
      const model = modelOf(platform, recorded.model)
      for (const each of [platform, model]) {
        each.window.add(recorded)
        each.recent.add(recorded)
      }
      model.baseline.add(recorded)
      model.latestAt = recorded.at
      if (isAnswered(recorded)) typeOf(platform, recorded.type).add(recorded)
      count += 1
      more.unsafeOpen()
    }

    return {
      record: (measurement) => Effect.map(monotonicMs, (at) => record({ ...measurement, at })),
      performance: (id, model) =>
        Effect.map(monotonicMs, (now) => {
          const platform = platforms.get(id)
          const found = model === undefined ? platform : platform?.models.get(model)
          return found === undefined ? nothing : performanceOf(found, now)
        }),
      models: (id) =>
        Effect.map(monotonicMs, (now) =>
          [...(platforms.get(id)?.models ?? [])]
            .map(([model, found]) => ({ model, performance: performanceOf(found, now) }))
            .reverse()
        ),
      recent: Effect.map(monotonicMs, (now) =>
        [...platforms].flatMap(([platform, { models }]) =>
          [...models].map(([model, { baseline, latestAt, recent }]) => {
            const { answers, attempts, callMs, failures } = recent.at(now)
            const baselineMs = baseline.at(now).callMs
            return { platform, model, attempts, failures, answers, callMs, baselineMs, idleMs: now - latestAt }
          })
        )
      ),
      recordedAfter: (seen) =>
        Effect.suspend(() => {
          if (count <= seen) more.unsafeClose()
          return Effect.map(more.await, () => count)
        }),
      latencyP95: (id, type) =>
        Effect.map(monotonicMs, (now) => {
          const answered = platforms.get(id)?.types.get(type)?.within(now) ?? []
          return answered.length < enoughAnswers
            ? Option.none()
            : Option.fromNullable(
                percentile(
                  answered.map(({ durationMs }) => durationMs),
                  0.95
                )
              )
        })
    }
  })
}
