import { Clock, Context, Effect, Exit, type Fiber, Layer, MutableRef, Option } from "effect"
import * as Fading from "./Benchmark/Fading.js"
import * as Lengths from "./Benchmark/Lengths.js"
import { percentile } from "./Benchmark/percentile.js"
import * as RankedWindow from "./Benchmark/RankedWindow.js"
import { generationMs, type Measurement, type Recorded } from "./Benchmark/Recorded.js"
import * as SlidingWindow from "./Benchmark/SlidingWindow.js"
import type { Performance } from "./Domain/Lease.js"
import type { PlatformId } from "./Domain/Platform.js"
import type { TaskType } from "./Domain/Task.js"
import { monotonicMsOf } from "./Domain/Time.js"

export type { Measurement } from "./Benchmark/Recorded.js"

/** What a model shows just now, beside what it used to show. */
export interface RecentPerformance {
  readonly platform: PlatformId
  readonly model: string
  /**
   * Attempts that were answered or failed by the platform's fault, or that show while they run, or did when they were
   * cut, how slow it is. Each counts half after a minute or after 8 more, whichever is later, and after 10 minutes at
   * the latest.
   */
  readonly attempts: number
  /** Those of `attempts` that failed. */
  readonly failures: number
  /** Those of `attempts` that did not. */
  readonly answers: number
  /** How long a call of 500 output tokens takes now, ms, averaged over these attempts. */
  readonly callMs?: number | undefined
  /** The same, averaged over about an hour. */
  readonly baselineMs?: number | undefined
  /** Since the latest attempt ended, ms; 0 while one is running. */
  readonly idleMs: number
}

/** An attempt that has been sent. */
export interface Running extends Pick<Measurement, "platform" | "model" | "type"> {
  /** When its first piece came, monotonic ms. */
  readonly firstTokenAt: MutableRef.MutableRef<Option.Option<number>>
}

/** How long answers of a type take, ms, whoever gave them being as fast as one platform is. */
export interface CallTimes {
  /** One of typical length: half of them are no longer. */
  readonly typicalMs: number
  /** A long one: nineteen of twenty are no longer. */
  readonly longMs: number
}

/** Models remembered of one platform; beyond it, the one that was not used for the longest time is forgotten. */
const maxModels = 32
/** A minute of a busy platform says enough of it; of one that is used now and then, only its latest attempts do. */
const recentDecay: Fading.Decay = { halfLifeMs: 10 * 60_000, busyHalfLifeMs: 60_000, halfLifeAttempts: 8 }
const baselineDecay: Fading.Decay = {
  halfLifeMs: 60 * 60_000,
  busyHalfLifeMs: Number.POSITIVE_INFINITY,
  halfLifeAttempts: Number.POSITIVE_INFINITY
}
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
  /** How long answers of a type took, ms. */
  readonly durations: Map<TaskType, RankedWindow.RankedWindow>
}

const nothingShown: ReadonlyArray<Fading.AtLeast> = []

const nowOf = (fiber: Fiber.RuntimeFiber<unknown, unknown>): number =>
  monotonicMsOf(Context.get(fiber.currentDefaultServices, Clock.Clock))

/** What `look` sees at this monotonic instant, ms: one step of the fiber, for it is asked for at every attempt. */
const atNow = <A>(look: (now: number) => A): Effect.Effect<A> =>
  Effect.withFiberRuntime((fiber) => Exit.succeed(look(nowOf(fiber))))

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
    /** Runs the attempt's `answer`: what it shows until it ends counts in `recent`. */
    readonly running: <A, E, R>(attempt: Running, answer: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
    /** Waits until more than `count` attempts were begun or recorded; how many it is then. */
    readonly newsAfter: (count: number) => Effect.Effect<number>
    /**
     * How long answers of that type take there at the speed of late; none below ten answers of the type, and where no
     * answer of the model was seen of late.
     */
    readonly callTimes: (platform: PlatformId, model: string, type: TaskType) => Effect.Effect<Option.Option<CallTimes>>
    /** How long a platform's whole calls of a type take, ms, at the 95th percentile; none below 20 answers. */
    readonly latencyP95: (platform: PlatformId, type: TaskType) => Effect.Effect<Option.Option<number>>
  }
>() {
  /**
   * In memory. Of each platform, each of its models and each of its task types: the latest 256 attempts, none older than
   * 10 minutes, for percentiles and rates. Averages are exponentially weighted.
   *
   * An attempt that was cut, or still runs, has taken a certain time at least. It counts where that says something: by
   * its first token, where it came or is later than usual, and by its text, where even a long answer would have been
   * there by now. It is never an error, and in no percentile.
   */
  static readonly layer: Layer.Layer<Benchmark> = Layer.sync(Benchmark, () => {
    const platforms = new Map<PlatformId, MeasuredPlatform>()
    const more = Effect.unsafeMakeLatch(false)
    const lengths = Lengths.make()
    const running = new Set<Running & { readonly since: number }>()
    let count = 0

    const tell = (): void => {
      count += 1
      more.unsafeOpen()
    }

    const measured = (): Measured => ({ window: SlidingWindow.make(), recent: Fading.make(recentDecay) })

    const platformOf = (id: PlatformId): MeasuredPlatform => {
      const known = platforms.get(id)
      if (known !== undefined) return known
      const added = { ...measured(), models: new Map(), durations: new Map() }
      platforms.set(id, added)
      return added
    }

    const modelOf = ({ models }: MeasuredPlatform, name: string): MeasuredModel => {
      const model = models.get(name) ?? { ...measured(), baseline: Fading.make(baselineDecay), latestAt: 0 }
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

    const durationsOf = ({ durations }: MeasuredPlatform, type: TaskType): RankedWindow.RankedWindow => {
      const known = durations.get(type)
      if (known !== undefined) return known
      const added = RankedWindow.make(SlidingWindow.maxAgeMs)
      durations.set(type, added)
      return added
    }

    /** What an attempt without an answer shows by its time so far, where that is more than what is usual. */
    const shownBy = (
      type: TaskType,
      at: number,
      durationMs: number,
      timeToFirstTokenMs: number | undefined,
      usual: Fading.FadingAverages
    ): Fading.AtLeast | undefined => {
      const usualFirstMs = usual.timeToFirstTokenMs
      if (timeToFirstTokenMs === undefined && usualFirstMs !== undefined) {
        return durationMs > usualFirstMs ? { at, timeToFirstTokenMs: durationMs } : undefined
      }
      const outputTokens = lengths.of(type)?.long
      const ms = durationMs - (timeToFirstTokenMs ?? 0)
      const generation =
        outputTokens !== undefined && usual.msPerOutputToken !== undefined && ms > outputTokens * usual.msPerOutputToken
          ? { ms, outputTokens }
          : undefined
      return timeToFirstTokenMs === undefined && generation === undefined
        ? undefined
        : { at, timeToFirstTokenMs, generation }
    }

    /** What attempts that still run show, each of them that shows something. */
    const shownByRunning = (
      id: PlatformId,
      name: string,
      usual: Fading.FadingAverages,
      now: number
    ): ReadonlyArray<Fading.AtLeast> => {
      let shown: Array<Fading.AtLeast> | undefined
      for (const { firstTokenAt, model, platform, since, type } of running) {
        if (platform !== id || model !== name) continue
        const first = MutableRef.get(firstTokenAt)
        const timeToFirstTokenMs = Option.isSome(first) ? first.value - since : undefined
        const one = shownBy(type, now, now - since, timeToFirstTokenMs, usual)
        if (one === undefined) continue
        shown ??= []
        shown.push(one)
      }
      return shown ?? nothingShown
    }

    const isRunning = (id: PlatformId, name: string): boolean => {
      for (const { model, platform } of running) if (platform === id && model === name) return true
      return false
    }

    const record = (recorded: Recorded): void => {
      const platform = platformOf(recorded.platform)
      if (recorded.outcome === "cut") {
        const model = platform.models.get(recorded.model)
        const { at, durationMs, timeToFirstTokenMs, type } = recorded
        const shown =
          model === undefined ? undefined : shownBy(type, at, durationMs, timeToFirstTokenMs, model.recent.at(at))
        if (model === undefined || shown === undefined) return
        for (const fading of [platform.recent, model.recent, model.baseline]) fading.addAtLeast(shown)
        model.latestAt = recorded.at
        tell()
        return
      }
      const model = modelOf(platform, recorded.model)
      platform.window.add(recorded)
      platform.recent.add(recorded)
      model.window.add(recorded)
      model.recent.add(recorded)
      model.baseline.add(recorded)
      model.latestAt = recorded.at
      if (isAnswered(recorded)) {
        durationsOf(platform, recorded.type).add(recorded.durationMs, recorded.at)
        if ((recorded.outputTokens ?? 0) > 0) lengths.add(recorded.type, recorded.outputTokens ?? 0)
      }
      tell()
    }

    const recentOf = (platform: PlatformId, model: string, known: MeasuredModel, now: number): RecentPerformance => {
      const shown = shownByRunning(platform, model, known.recent.at(now), now)
      const { answers, attempts, callMs, failures } = known.recent.at(now, shown)
      const baselineMs = known.baseline.at(now).callMs
      const idleMs = isRunning(platform, model) ? 0 : now - known.latestAt
      return { platform, model, attempts, failures, answers, callMs, baselineMs, idleMs }
    }

    return {
      record: (measurement) => atNow((at) => record({ ...measurement, at })),
      performance: (id, model) =>
        atNow((now) => {
          const platform = platforms.get(id)
          const found = model === undefined ? platform : platform?.models.get(model)
          return found === undefined ? nothing : performanceOf(found, now)
        }),
      models: (id) =>
        atNow((now) =>
          [...(platforms.get(id)?.models ?? [])]
            .map(([model, found]) => ({ model, performance: performanceOf(found, now) }))
            .reverse()
        ),
      recent: atNow((now) =>
        [...platforms].flatMap(([platform, { models }]) =>
          [...models].map(([model, known]) => recentOf(platform, model, known, now))
        )
      ),
      running: <A, E, R>(attempt: Running, answer: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
        Effect.uninterruptibleMask((restore) =>
          Effect.withFiberRuntime<A, E, R>((fiber) => {
            const begun = { ...attempt, since: nowOf(fiber) }
            running.add(begun)
            tell()
            // nothing interrupts between the answer and its handler: `Effect.ensuring` would mask and match once more
            return Effect.matchCauseEffect(restore(answer), {
              onFailure: (cause) => {
                running.delete(begun)
                return Effect.failCause(cause)
              },
              onSuccess: (answered) => {
                running.delete(begun)
                return Effect.succeed(answered)
              }
            })
          })
        ),
      newsAfter: (seen) =>
        Effect.suspend(() => {
          if (count <= seen) more.unsafeClose()
          return Effect.map(more.await, () => count)
        }),
      callTimes: (id, name, type) =>
        atNow((now) => {
          const model = platforms.get(id)?.models.get(name)
          const length = lengths.of(type)
          if (model === undefined || length === undefined) return Option.none()
          const usual = model.recent.at(now)
          const shown = shownByRunning(id, name, usual, now)
          const { msPerOutputToken, timeToFirstTokenMs = 0 } = shown.length === 0 ? usual : model.recent.at(now, shown)
          return msPerOutputToken === undefined
            ? Option.none()
            : Option.some({
                typicalMs: timeToFirstTokenMs + length.typical * msPerOutputToken,
                longMs: timeToFirstTokenMs + length.long * msPerOutputToken
              })
        }),
      latencyP95: (id, type) =>
        atNow((now) => {
          const durations = platforms.get(id)?.durations.get(type)
          return durations === undefined || durations.size(now) < enoughAnswers
            ? Option.none()
            : Option.fromNullable(durations.percentile(0.95, now))
        })
    }
  })
}
