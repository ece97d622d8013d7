import { Effect, Exit, Random, Scope } from "effect"
import { ResourceManager } from "../../../src/ResourceManager.js"
import { type KnownPlatform, type PlatformSettings, Settings } from "../../../src/Settings.js"
import { tenantId } from "../support/Draw.js"
import { mean, percentile } from "../support/Figures.js"
import { runWorld } from "../support/World.js"
import { type SimulatedCall, times } from "./Load.js"
import { makeRecorder } from "./Run.js"
import { carry, layerOf, requestOf } from "./Subject.js"

export interface IsolationSpec {
  readonly name: string
  readonly platform: PlatformSettings
  readonly medianMs: number
  /** Between two HIGH calls, on average, ms. */
  readonly highEveryMs: number
  readonly highCalls: number
  /** What an idle queue may be better by: one refill interval, or one running call, ms. */
  readonly allowedMs: number
  readonly allowedBy: string
}

/** How many LOW calls there are at any moment, and where they wait. */
export interface Backlog {
  readonly low: number
  /** Of them this many wait in the line itself; the others stand behind the feeder. */
  readonly live: number
}

export interface IsolationFigures {
  readonly backlog: Backlog
  readonly refused: number
  readonly lowDone: number
  readonly waitMsMean: number
  readonly waitMsP99: number
  /** The longest wait of those that came before the saturation was steady, ms. */
  readonly firstWaitMsMax: number
}

const platform = (id: KnownPlatform): PlatformSettings => Settings.platformDefaults(id, { apiKey: "simulated" })

export const isolationSpecs: ReadonlyArray<IsolationSpec> = [
  {
    name: "requests bind (60 a minute)",
    platform: platform("codex"),
    medianMs: 1_200,
    highEveryMs: 6_000,
    highCalls: 600,
    allowedMs: 60_007 / 60,
    allowedBy: "one refill interval"
  },
  {
    name: "permits bind (4 at once)",
    platform: platform("gemini"),
    medianMs: 20_000,
    highEveryMs: 15_000,
    highCalls: 600,
    // the mean of the calls' log-normal lengths
    allowedMs: 20_000 * Math.exp(0.6 ** 2 / 2),
    allowedBy: "one running call (their mean length)"
  }
]

const callOf = (spec: IsolationSpec, priority: "HIGH" | "LOW", id: number, arrivesAt: number): SimulatedCall => ({
  id,
  type: "analysis",
  priority,
  tenant: tenantId(`tenant-${id % 5}`),
  platforms: [spec.platform.id],
  arrivesAt,
  lagMs: 0,
  headersMs: 0,
  durationMs: 0,
  estimatedInput: 500,
  inputTokens: 500,
  maxOutput: 1_024,
  outputTokens: 200
})

/** HIGH calls with exponential distances: the same ones for every backlog. */
const highLoad = (spec: IsolationSpec) =>
  Effect.gen(function* () {
    let arrivesAt = 0
    const calls: Array<SimulatedCall> = []
    for (let id = 0; id < spec.highCalls; id++) {
      arrivesAt += Math.ceil(-Math.log(1 - (yield* Random.next)) * spec.highEveryMs)
      calls.push({ ...callOf(spec, "HIGH", id, arrivesAt), ...(yield* times(spec.medianMs)) })
    }
    return calls
  })

/** The saturation is steady from here on, ms: what was drawn in its first moments has come free once. */
const STEADY_FROM_MS = 3 * 60_000

/**
 * The waits of HIGH calls on a platform that a standing backlog of LOW calls saturates: whenever one of them is answered
 * another one comes, at the back. At most `live` of them wait in the line, as the Coordinator keeps at most so many of a
 * class alive; the others come forward one by one as places become free. (One that has waited for 30 s is parked by the
 * Coordinator, and the next one takes its place: the line is as long as before, so that is left out.)
 */
export const runIsolation = (spec: IsolationSpec, backlog: Backlog, seed: string): Effect.Effect<IsolationFigures> =>
  runWorld(seed, layerOf([spec.platform]), (world) =>
    Effect.gen(function* () {
      const manager = yield* ResourceManager
      const recorder = makeRecorder([spec.platform])
      const high = yield* Effect.withRandom(highLoad(spec), Random.make(`${seed} HIGH`))
      const lengths = Random.make(`${seed} LOW`)
      const steady: Array<number> = []
      const first: Array<number> = []
      /** LOW calls behind the feeder, and those in the line or running. */
      let behind = backlog.low
      let live = 0
      let lows = 0
      let lowDone = 0
      let left = high.length

      const enter = (call: SimulatedCall, answered: Effect.Effect<void>): Effect.Effect<void> =>
        Effect.gen(function* () {
          const scope = yield* Scope.make()
          const lease = yield* Scope.extend(manager.acquire(requestOf([spec.platform], call)), scope)
          // a LOW call gets its length only now, so that the n-th to start is as long whatever the backlog
          const length = call.priority === "LOW" ? yield* Effect.withRandom(times(spec.medianMs), lengths) : {}
          if (call.priority === "HIGH") (call.arrivesAt < STEADY_FROM_MS ? first : steady).push(lease.waitedMs)
          carry({
            world,
            recorder,
            tells: new Set(),
            call: { ...call, ...length },
            lease,
            ended: (isAnswered) =>
              Effect.zipRight(Scope.close(scope, Exit.void), isAnswered ? answered : enter(call, answered))
          })
        }).pipe(Effect.orDie, Effect.forkDaemon, Effect.asVoid)

      const lowAnswered = Effect.suspend(() => {
        lowDone += 1
        behind += 1
        live -= 1
        return feed
      })
      const highAnswered = Effect.sync(() => {
        left -= 1
      })

      const feed: Effect.Effect<void> = Effect.gen(function* () {
        while (live < backlog.live && behind > 0) {
          live += 1
          behind -= 1
          lows += 1
          yield* enter(callOf(spec, "LOW", lows, 0), lowAnswered)
        }
      })

      for (const call of high) world.agenda.add(call.arrivesAt, enter(call, highAnswered))
      yield* feed
      return {
        isOver: () => left === 0,
        outcome: (): IsolationFigures => ({
          backlog,
          refused: recorder.run().refused,
          lowDone,
          waitMsMean: mean(steady),
          waitMsP99: percentile(steady, 0.99),
          firstWaitMsMax: Math.max(0, ...first)
        })
      }
    })
  )
