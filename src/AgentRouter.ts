import type { SqlClient } from "@effect/sql/SqlClient"
import { Clock, Context, Effect, Layer } from "effect"
import * as Affinity from "./AgentRouter/Affinity.js"
import * as Learning from "./AgentRouter/Learning.js"
import * as Policy from "./AgentRouter/Policy.js"
import { factorOf } from "./AgentRouter/Quality.js"
import { QualityStore } from "./AgentRouter/QualityStore.js"
import * as Requirements from "./AgentRouter/Requirement.js"
import { Benchmark } from "./Benchmark.js"
import { NoCapablePlatform, type PlatformReason } from "./Domain/Failure.js"
import type { Candidate, Requirement } from "./Domain/Lease.js"
import type { PlatformId, RoutingPolicy } from "./Domain/Platform.js"
import type { TaskType } from "./Domain/Task.js"
import { monotonicMs, monotonicMsOf } from "./Domain/Time.js"
import { Platforms } from "./Platforms.js"
import { Settings } from "./Settings.js"
import type { SqlWriter } from "./Sql/Writer.js"

export { QualityStore, QualityStoreFailed } from "./AgentRouter/QualityStore.js"

/** A candidate, and what its weight is made of. */
export interface RoutedCandidate extends Candidate {
  /** Score for the type of task, as configured. */
  readonly suitability: number
  /** What is measured of the model, as a factor of the weight: 0.05 to 2, 1 is neutral. */
  readonly quality: number
  /** Set where its weight is raised because it served the last call with the same affinity key. */
  readonly preferred?: true | undefined
}

export interface Route {
  /** Best first; never empty. */
  readonly candidates: ReadonlyArray<RoutedCandidate>
  readonly excluded: ReadonlyArray<PlatformReason>
  readonly policy: RoutingPolicy
  /** How long the call leaves a free platform unused for a much better one that is known to be free soon, ms. */
  readonly patienceMs: number
}

/** What was learned is saved this often at most, ms. */
const saveIntervalMs = 30_000

/** Who suits best: filters by what a call needs, then weighs by the type of task and by what was measured. */
export class AgentRouter extends Context.Tag("dream-team/AgentRouter")<
  AgentRouter,
  {
    /** Says nothing of who is free, and changes nothing. */
    readonly route: (requirement: Requirement, type: TaskType) => Effect.Effect<Route, NoCapablePlatform>
    /** A call with this requirement goes to `platform`: calls with the same affinity key rather go there too. */
    readonly chosen: (requirement: Requirement, platform: PlatformId) => Effect.Effect<void>
  }
>() {
  /**
   * Follows what is measured every `routing.adaptMs`, beside the calls: a route reads what was learned so far. What is
   * learned is kept in the `QualityStore`; where that fails the router goes on without it.
   */
  static readonly layerWithStore: Layer.Layer<AgentRouter, never, Benchmark | Platforms | QualityStore | Settings> =
    Layer.scoped(
      AgentRouter,
      Effect.gen(function* () {
        const benchmark = yield* Benchmark
        const platforms = yield* Platforms
        const store = yield* QualityStore
        const { absent, routing } = yield* Settings
        const learning = Learning.make()
        const affinity = Affinity.make()

        yield* Effect.zipWith(store.load, Clock.currentTimeMillis, learning.restore).pipe(
          Effect.catchAll((error) => Effect.logWarning("the router starts without what it had learned", error))
        )

        // What is learned

        let isUnsaved = false
        let savedAt = yield* monotonicMs
        let steppedAt = savedAt
        let isSettled = false
        let seen = 0

        const save = Effect.suspend(() => {
          isUnsaved = false
          return Effect.flatMap(Clock.currentTimeMillis, (epochMs) => store.save(learning.save(epochMs)))
        }).pipe(
          Effect.catchAll((error) => {
            isUnsaved = true
            return Effect.logWarning("what the router has learned is not stored, and is tried again", error)
          })
        )

        const step = Effect.gen(function* () {
          const measured = yield* benchmark.recent
          const now = yield* monotonicMs
          const stepped = learning.step(measured, now - steppedAt)
          steppedAt = now
          isSettled = stepped.isSettled
          if (stepped.isChanged) isUnsaved = true
          if (!isUnsaved || now - savedAt < saveIntervalMs) return
          savedAt = now
          yield* save
        })

        yield* Effect.addFinalizer(() => (isUnsaved ? save : Effect.void))
        // while nothing is used and nothing is left to forget, nobody looks
        const news = Effect.gen(function* () {
          if (isSettled) seen = yield* benchmark.newsAfter(seen)
        })
        yield* news.pipe(
          Effect.zipRight(Effect.sleep(routing.adaptMs)),
          Effect.zipRight(step),
          Effect.catchAllCause((cause) => Effect.logError("the router failed to follow what is measured", cause)),
          Effect.forever,
          Effect.forkScoped
        )

        // Routes

        const noneCapable = (excluded: ReadonlyArray<PlatformReason>): NoCapablePlatform =>
          new NoCapablePlatform({
            message: platforms.all.length === 0 ? "no platform is configured" : "no configured platform can serve this",
            reasons: [
              ...excluded,
              ...absent.map(({ id, reason }) => ({ platform: id, reason: `it is left out: ${reason}` }))
            ]
          })

        const configured = platforms.all.map(({ settings }) => settings)

        const routeAt = (requirement: Requirement, type: TaskType, now: number): Route | NoCapablePlatform => {
          const { able, excluded } = Requirements.filter(configured, requirement)
          if (able.length === 0) return noneCapable(excluded)
          const policy = requirement.policy ?? routing.policy
          const weighed = able.map(({ costUsd, model, settings }) => ({
            platform: settings.id,
            model,
            suitability: settings.suitability[type],
            weight: settings.weight,
            quality: learning.of(settings.id, model),
            costUsd
          }))
          const weights = Policy.weigh(policy, weighed)
          const routed = weighed.map(
            ({ model, platform, quality, suitability }, index): RoutedCandidate => ({
              platform,
              model,
              weight: weights[index] ?? 0,
              suitability,
              quality: factorOf(quality)
            })
          )
          const { affinityKey } = requirement
          const preferred = affinityKey === undefined ? undefined : affinity.preferred(affinityKey, routed, now)
          const candidates =
            preferred === undefined
              ? routed
              : routed.map((candidate) =>
                  candidate.platform === preferred
                    ? { ...candidate, weight: candidate.weight * Affinity.preference, preferred: true as const }
                    : candidate
                )
          return {
            candidates: candidates.sort((left, right) => right.weight - left.weight),
            excluded,
            policy,
            patienceMs: Policy.patienceMs[policy]
          }
        }

        return {
          route: (requirement, type) =>
            Effect.withFiberRuntime<Route, NoCapablePlatform>((fiber) => {
              const clock = Context.get(fiber.currentDefaultServices, Clock.Clock)
              const route = routeAt(requirement, type, monotonicMsOf(clock))
              return route instanceof NoCapablePlatform ? Effect.fail(route) : Effect.succeed(route)
            }),
          chosen: ({ affinityKey }, platform) =>
            affinityKey === undefined
              ? Effect.void
              : Effect.map(monotonicMs, (now) => affinity.chosen(affinityKey, platform, now))
        }
      })
    )

  /** What it learns is gone with the process. */
  static readonly layer: Layer.Layer<AgentRouter, never, Benchmark | Platforms | Settings> =
    AgentRouter.layerWithStore.pipe(Layer.provide(QualityStore.layerMemory))

  /** What it learns outlives the process. */
  static readonly layerStored: Layer.Layer<
    AgentRouter,
    never,
    Benchmark | Platforms | Settings | SqlClient | SqlWriter
  > = AgentRouter.layerWithStore.pipe(Layer.provide(QualityStore.layer))
}
