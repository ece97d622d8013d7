import {
  Array as Arr,
  Cause,
  Clock,
  Context,
  Deferred,
  Effect,
  Layer,
  Option,
  PubSub,
  Queue,
  Random,
  Stream
} from "effect"
import { Benchmark } from "./Benchmark.js"
import { type AttemptFailure, PlatformFailure } from "./Domain/Failure.js"
import type { PlatformView } from "./Domain/Lease.js"
import type { PlatformId, PlatformStatus } from "./Domain/Platform.js"
import { monotonicMs } from "./Domain/Time.js"
import {
  afterAnswer,
  afterFailedAttempt,
  afterFailedCheck,
  afterPassedCheck,
  diagnose,
  noSigns,
  outReason,
  type Signs
} from "./PlatformDetector/Health.js"
import { type CheckResult, type PlatformClient, Platforms } from "./Platforms.js"
import { ResourceManager } from "./ResourceManager.js"
import { Settings } from "./Settings.js"

export interface PlatformHealth {
  readonly platform: PlatformId
  readonly status: PlatformStatus
  readonly reasons: ReadonlyArray<string>
  /** When it was last checked or used, epoch ms. */
  readonly checkedAt?: number | undefined
}

/** How much sooner than usual a platform with something wrong is checked again. */
const hurry = 0.2

/** Changes kept for a reader that is behind; a slower one misses the oldest. */
const changesKept = 256

const sameReasons = Arr.getEquivalence<string>((left, right) => left === right)

/** What the health fiber of one platform owns. */
interface Watched {
  readonly client: PlatformClient
  signs: Signs
  /** Why the resource manager was told to keep it out, if it was. */
  out: string | undefined
  published: PlatformHealth | undefined
  /** Monotonic, ms. */
  answeredAt: number | undefined
  nextCheckAt: number
  /** A check is still at work, even where nobody waits for it any more. */
  checking: boolean
  /** Those who wait for a check that starts from now on. */
  asked: Array<Deferred.Deferred<void>>
  readonly wake: Queue.Queue<void>
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
    /** Every change of a status or its reasons, from the subscription on. */
    readonly changes: Stream.Stream<PlatformHealth>
    readonly view: Effect.Effect<ReadonlyArray<PlatformView>>
  }
>() {
  static readonly layer: Layer.Layer<PlatformDetector, never, Benchmark | Platforms | ResourceManager | Settings> =
    Layer.scoped(
      PlatformDetector,
      Effect.gen(function* () {
        const benchmark = yield* Benchmark
        const platforms = yield* Platforms
        const resources = yield* ResourceManager
        const { health: schedule } = yield* Settings
        const changes = yield* Effect.acquireRelease(PubSub.sliding<PlatformHealth>(changesKept), PubSub.shutdown)

        const startedAt = yield* monotonicMs
        const watched = new Map<PlatformId, Watched>()
        for (const client of platforms.all) {
          watched.set(client.id, {
            client,
            signs: noSigns,
            out: undefined,
            published: undefined,
            answeredAt: undefined,
            nextCheckAt: startedAt,
            checking: false,
            asked: [],
            wake: yield* Queue.sliding<void>(1)
          })
        }

        const assess = Effect.fnUntraced(function* ({ client, signs }: Watched) {
          const { status, reasons } = diagnose(signs, {
            performance: yield* benchmark.performance(client.id),
            resources: yield* resources.platform(client.id),
            model: client.settings.model,
            now: yield* Clock.currentTimeMillis
          })
          return { platform: client.id, status, reasons, checkedAt: signs.checkedAt } satisfies PlatformHealth
        })

        /** Tells the resource manager and the readers of `changes` what the signs come to now. */
        const announce = Effect.fnUntraced(function* (platform: Watched) {
          const reason = outReason(platform.signs)
          if (reason !== platform.out) {
            platform.out = reason
            yield* resources.setOut({ platform: platform.client.id }, reason === undefined ? undefined : { reason })
          }
          const health = yield* assess(platform)
          const before = platform.published
          if (before?.status !== health.status || !sameReasons(before.reasons, health.reasons)) {
            platform.published = health
            yield* PubSub.publish(changes, health)
          }
        })

        const delayMs = (fraction: number) =>
          Effect.map(Random.nextRange(0.8, 1.2), (jitter) => Math.round(schedule.intervalMs * fraction * jitter))

        /** Something may be wrong: no earlier answer counts any more, and the next check comes soon. */
        const suspect = Effect.fnUntraced(function* (platform: Watched) {
          platform.answeredAt = undefined
          const soon = (yield* monotonicMs) + (yield* delayMs(hurry))
          if (soon < platform.nextCheckAt) {
            platform.nextCheckAt = soon
            yield* Queue.offer(platform.wake, undefined)
          }
        })

        /** Never more than one at work: a client that cannot be interrupted does not pile its checks up. */
        const runCheck = (platform: Watched): Effect.Effect<CheckResult, AttemptFailure> =>
          Effect.suspend(() => {
            const failed = (reason: "timeout" | "malformed", message: string) =>
              new PlatformFailure({ platform: platform.client.id, reason, message })
            if (platform.checking) return failed("timeout", "the health check before this one has not ended yet")
            return Effect.acquireUseRelease(
              Effect.sync(() => {
                platform.checking = true
              }),
              () => platform.client.check,
              () =>
                Effect.sync(() => {
                  platform.checking = false
                })
            ).pipe(
              Effect.disconnect,
              Effect.timeoutFail({
                duration: schedule.timeoutMs,
                onTimeout: () => failed("timeout", `no answer to the health check within ${schedule.timeoutMs} ms`)
              }),
              Effect.catchAllCause((cause) =>
                Option.match(Cause.failureOption(cause), {
                  onSome: (failure) => Effect.fail(failure),
                  onNone: () =>
                    Effect.zipRight(
                      Effect.logError("a platform's health check broke", cause),
                      failed("malformed", "the health check broke; the log says how")
                    )
                })
              )
            )
          })

        const examine = Effect.fn("PlatformDetector.check")(function* (platform: Watched) {
          const exit = yield* Effect.either(runCheck(platform))
          const now = yield* Clock.currentTimeMillis
          yield* Effect.annotateCurrentSpan({ platform: platform.client.id, passed: exit._tag === "Right" })
          let exhaustedUntil: number | undefined
          if (exit._tag === "Right") {
            platform.signs = afterPassedCheck(platform.signs, now)
            exhaustedUntil = exit.right.exhaustedUntil
          } else {
            platform.signs = afterFailedCheck(platform.signs, exit.left, now)
            // A window that is used up is so for calls too; a rate may be that of the checks alone.
            if (exit.left._tag === "QuotaFailure" && exit.left.reason === "window") exhaustedUntil = exit.left.resetsAt
          }
          if (exhaustedUntil !== undefined && exhaustedUntil > now) {
            yield* resources.setExhausted(platform.client.id, exhaustedUntil)
          }
          yield* announce(platform)
        })

        /** A platform that answered a real attempt lately is well, unless its check asks what no attempt shows. */
        const needsCheck = (platform: Watched, now: number): boolean =>
          platform.answeredAt === undefined ||
          now - platform.answeredAt >= schedule.intervalMs ||
          platform.client.settings.quotasUrl !== undefined ||
          platform.signs.failedChecks.inARow > 0 ||
          platform.signs.credential !== undefined

        const untilDue: (platform: Watched) => Effect.Effect<void> = Effect.fnUntraced(function* (platform: Watched) {
          while (platform.asked.length === 0) {
            const leftMs = platform.nextCheckAt - (yield* monotonicMs)
            if (leftMs <= 0) return
            yield* Effect.raceFirst(Effect.sleep(Math.ceil(leftMs)), Queue.take(platform.wake))
          }
        })

        const live = Effect.fnUntraced(function* (platform: Watched) {
          yield* untilDue(platform)
          const asked = platform.asked
          platform.asked = []
          if (asked.length > 0 || needsCheck(platform, yield* monotonicMs)) {
            yield* Effect.ensuring(
              examine(platform),
              Effect.forEach(asked, (waiting) => Deferred.succeed(waiting, undefined), { discard: true })
            )
          }
          // A refused key seldom mends within seconds, and asking often with one may get it banned.
          const hurried = platform.signs.failedChecks.inARow > 0
          platform.nextCheckAt = (yield* monotonicMs) + (yield* delayMs(hurried ? hurry : 1))
        })

        /** A health fiber outlives every defect: what broke is logged, and it goes on after its usual pause. */
        const supervised = (effect: Effect.Effect<void>) =>
          effect.pipe(
            Effect.catchAllCause((cause) =>
              Effect.zipRight(
                Effect.logError("a health fiber broke and goes on", cause),
                Effect.sleep(schedule.intervalMs)
              )
            )
          )

        for (const platform of watched.values()) {
          yield* Effect.forkScoped(Effect.forever(supervised(live(platform))))
          yield* Effect.addFinalizer(() =>
            Effect.forEach(platform.asked, (waiting) => Deferred.interrupt(waiting), { discard: true })
          )
        }

        yield* resources.transitions.pipe(
          Stream.runForEach(({ platform: id, to }) =>
            supervised(
              Effect.gen(function* () {
                const platform = watched.get(id)
                if (platform === undefined) return
                if (to !== "closed") yield* suspect(platform)
                yield* announce(platform)
              })
            )
          ),
          Effect.forkScoped
        )

        const unknown = (platform: PlatformId): PlatformHealth => ({
          platform,
          status: "unknown",
          reasons: ["no such platform is configured"]
        })

        const health = (id: PlatformId): Effect.Effect<PlatformHealth> => {
          const platform = watched.get(id)
          return platform === undefined ? Effect.succeed(unknown(id)) : assess(platform)
        }

        const check = Effect.fnUntraced(function* (id: PlatformId) {
          const platform = watched.get(id)
          if (platform === undefined) return unknown(id)
          const done = yield* Deferred.make<void>()
          platform.asked.push(done)
          yield* Queue.offer(platform.wake, undefined)
          yield* Deferred.await(done)
          return yield* assess(platform)
        })

        const report = Effect.fnUntraced(function* (
          id: PlatformId,
          model: string,
          outcome: { readonly _tag: "Succeeded" } | { readonly _tag: "Failed"; readonly failure: AttemptFailure }
        ) {
          const platform = watched.get(id)
          if (platform === undefined) return
          const now = yield* Clock.currentTimeMillis
          const before = platform.signs
          if (outcome._tag === "Succeeded") {
            platform.answeredAt = yield* monotonicMs
            platform.signs = afterAnswer(before, model, now)
            if (before.modelsOut.has(model)) yield* resources.setOut({ platform: id, model }, undefined)
            // An answer makes no platform worse.
            if (platform.published?.status === "available") return
          } else {
            const { failure } = outcome
            platform.signs = afterFailedAttempt(before, model, failure, now)
            if (failure._tag === "PlatformFailure") yield* suspect(platform)
            if (failure._tag === "ModelFailure") {
              yield* resources.setOut({ platform: id, model }, { reason: failure.message, until: failure.resetsAt })
            }
          }
          yield* announce(platform)
        })

        const view = Effect.forEach([...watched.values()], (platform) =>
          Effect.gen(function* () {
            const { client } = platform
            const { status, reasons, checkedAt } = yield* assess(platform)
            const { breaker, permits } = yield* resources.platform(client.id)
            return {
              id: client.id,
              wire: client.settings.wire,
              baseUrl: client.settings.baseUrl,
              model: client.settings.model,
              capabilities: client.settings.capabilities,
              status,
              reasons,
              checkedAt,
              breaker: breaker.state,
              inFlight: permits.inUse,
              performance: yield* benchmark.performance(client.id)
            } satisfies PlatformView
          })
        )

        return { health, check, report, changes: Stream.fromPubSub(changes), view }
      })
    )
}
