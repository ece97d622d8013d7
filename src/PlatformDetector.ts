import {
  Array as Arr,
  Cause,
  Clock,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
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
  type Diagnosis,
  diagnose,
  isOutChanged,
  noSigns,
  noTroubles,
  outReason,
  type Signs,
  type Troubles,
  usualMs
} from "./PlatformDetector/Health.js"
import { type CheckResult, type PlatformClient, Platforms } from "./Platforms.js"
import { type BreakerTransition, ResourceManager } from "./ResourceManager.js"
import { Settings } from "./Settings.js"

/** How a platform does, and why it is not `available` where it is not. */
export interface PlatformHealth {
  readonly platform: PlatformId
  readonly status: PlatformStatus
  readonly reasons: ReadonlyArray<string>
  /** When it was last checked or used, epoch ms. */
  readonly checkedAt?: number | undefined
}

/** How much sooner than usual a platform with something wrong is checked again, and how often each is looked at. */
const hurry = 0.2

/** Attempts may bring a status into question many times a second; it is looked at again no sooner than this, ms. */
const leastPauseMs = 1_000

/** Changes kept for a reader that is behind; a slower one misses the oldest. */
const changesKept = 256

const sameReasons = Arr.getEquivalence<string>((left, right) => left === right)

/** What the health fiber of one platform owns. */
interface Watched {
  readonly client: PlatformClient
  signs: Signs
  troubles: Troubles
  /** Why the resource manager was told to keep it out, if it was. */
  out: string | undefined
  published: PlatformHealth | undefined
  /** Monotonic, ms. */
  answeredAt: number | undefined
  nextCheckAt: number
  /** When its status is looked at again even if nothing is checked: time and attempts change it too. */
  nextLookAt: number
  lookedAt: number
  /** A check is still at work, even where nobody waits for it any more. */
  checking: boolean
  /** The health fiber waits for a check. */
  examining: boolean
  /** What those wait for who want a check that starts from now on. */
  asked: Deferred.Deferred<void> | undefined
  /** The same of those whose check is at work. */
  answering: Deferred.Deferred<void> | undefined
  readonly wake: Queue.Queue<void>
  /** One at a time, so that what is told last is what was found last. */
  readonly announcing: Effect.Semaphore
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
    /** Every change of a status or its reasons, from the subscription on. A change of status is in the history too. */
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
            troubles: noTroubles,
            out: undefined,
            published: undefined,
            answeredAt: undefined,
            nextCheckAt: startedAt,
            nextLookAt: startedAt,
            lookedAt: startedAt,
            checking: false,
            examining: false,
            asked: undefined,
            answering: undefined,
            wake: yield* Queue.sliding<void>(1),
            announcing: yield* Effect.makeSemaphore(1)
          })
        }

        const diagnosed = Effect.fnUntraced(function* ({ client, signs, troubles }: Watched) {
          const recent = yield* benchmark.recent
          const readings = new Map(recent.flatMap((each) => (each.platform === client.id ? [[each.model, each]] : [])))
          const measured = yield* benchmark.models(client.id)
          return diagnose(
            signs,
            {
              performance: yield* benchmark.performance(client.id),
              models: measured.map(({ model, performance }) => {
                const { answers = 0, baselineMs, callMs } = readings.get(model) ?? {}
                return { model, performance, answers, baselineMs, callMs }
              }),
              peersMs: [...watched.keys()].flatMap((id) =>
                id === client.id ? [] : (usualMs(recent.filter(({ platform }) => platform === id)) ?? [])
              ),
              resources: yield* resources.platform(client.id),
              model: client.settings.model,
              now: yield* Clock.currentTimeMillis
            },
            troubles
          )
        })

        const healthOf = (
          { client, signs }: Watched,
          { reasons, status }: Pick<Diagnosis, "reasons" | "status">
        ): PlatformHealth => ({ platform: client.id, status, reasons, checkedAt: signs.checkedAt })

        const assess = (platform: Watched): Effect.Effect<PlatformHealth> =>
          Effect.map(diagnosed(platform), (diagnosis) => healthOf(platform, diagnosis))

        /** Tells the resource manager and the readers of `changes` what the signs come to now. */
        const announce = Effect.fnUntraced(
          function* (platform: Watched) {
            const reason = outReason(platform.signs)
            if (reason !== platform.out) {
              yield* resources.setOut({ platform: platform.client.id }, reason === undefined ? undefined : { reason })
              platform.out = reason
            }
            platform.lookedAt = yield* monotonicMs
            platform.nextLookAt = platform.lookedAt + schedule.intervalMs * hurry
            const diagnosis = yield* diagnosed(platform)
            const health = healthOf(platform, diagnosis)
            platform.troubles = diagnosis.troubles
            const before = platform.published
            if (before?.status === health.status && sameReasons(before.reasons, health.reasons)) return
            platform.published = health
            if (before?.status !== health.status) {
              const { reasons, status: to } = health
              const from = before?.status ?? "unknown"
              const performance = yield* benchmark.performance(platform.client.id)
              const { models } = diagnosis
              yield* resources.note(platform.client.id, {
                type: "platform.status",
                from,
                to,
                reasons,
                performance,
                models
              })
            }
            yield* PubSub.publish(changes, health)
          },
          (effect, platform) => platform.announcing.withPermits(1)(effect)
        )

        /** The same before long: what this costs is not to be spent on every attempt of a busy platform. */
        const announceSoon = Effect.fnUntraced(function* (platform: Watched) {
          const soon = Math.max(yield* monotonicMs, platform.lookedAt + leastPauseMs)
          if (soon >= platform.nextLookAt) return
          platform.nextLookAt = soon
          yield* Queue.offer(platform.wake, undefined)
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

        const failedCheck = ({ client }: Watched, reason: "timeout" | "malformed", message: string) =>
          new PlatformFailure({ platform: client.id, reason, message })

        /**
         * In a fiber of its own, which is interrupted when it hangs. Never more than one at work: a client that cannot be
         * interrupted does not pile its checks up.
         */
        const runCheck = (platform: Watched): Effect.Effect<CheckResult, AttemptFailure> =>
          Effect.suspend(() => {
            if (platform.checking) {
              return failedCheck(platform, "timeout", "the health check before this one has not ended yet")
            }
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
                onTimeout: () =>
                  failedCheck(platform, "timeout", `no answer to the health check within ${schedule.timeoutMs} ms`)
              }),
              Effect.catchAllCause((cause) =>
                Option.match(Cause.failureOption(cause), {
                  onSome: (failure) => Effect.fail(failure),
                  onNone: () =>
                    Effect.zipRight(
                      Effect.logError("a platform's health check broke", cause),
                      failedCheck(platform, "malformed", "the health check broke; the log says how")
                    )
                })
              )
            )
          })

        const examine = Effect.fn("PlatformDetector.check")(function* (platform: Watched) {
          platform.examining = true
          const exit = yield* Effect.either(runCheck(platform))
          const now = yield* Clock.currentTimeMillis
          platform.examining = false
          yield* Effect.annotateCurrentSpan({ platform: platform.client.id, passed: exit._tag === "Right" })
          if (exit._tag === "Right") {
            platform.signs = afterPassedCheck(platform.signs, now)
            const { readings } = exit.right
            if (readings.length > 0) yield* resources.correct(platform.client.id, readings)
          } else {
            const failure = exit.left
            platform.signs = afterFailedCheck(platform.signs, failure, now)
            // A window that is used up is so for calls too; a rate may be that of the checks alone.
            if (failure._tag === "QuotaFailure" && failure.reason === "window" && failure.resetsAt !== undefined) {
              yield* resources.setExhausted(platform.client.id, {
                window: failure.window ?? "quota",
                model: failure.perModel === true ? failure.model : undefined,
                until: failure.resetsAt,
                why: failure.message
              })
            }
          }
        })

        /** A platform that answered a real attempt lately is well, unless its check asks what no attempt shows. */
        const needsCheck = (platform: Watched, now: number): boolean =>
          platform.answeredAt === undefined ||
          now - platform.answeredAt >= schedule.intervalMs ||
          platform.client.settings.quotasUrl !== undefined ||
          platform.signs.failedChecks.inARow > 0 ||
          platform.signs.credential !== undefined

        const untilDue: (platform: Watched) => Effect.Effect<void> = Effect.fnUntraced(function* (platform: Watched) {
          while (platform.asked === undefined) {
            const leftMs = Math.min(platform.nextCheckAt, platform.nextLookAt) - (yield* monotonicMs)
            if (leftMs <= 0) return
            yield* Effect.raceFirst(Effect.sleep(Math.ceil(leftMs)), Queue.take(platform.wake))
          }
        })

        /** A refused key seldom mends within seconds, and asking often with one may get it banned. */
        const isHurried = ({ client, signs, troubles }: Watched) =>
          Effect.map(
            resources.platform(client.id),
            ({ breaker }) =>
              signs.credential === undefined &&
              (signs.failedChecks.inARow > 0 || troubles.failing || breaker.state !== "closed")
          )

        const answer = (platform: Watched) =>
          Effect.suspend(() => {
            const { answering } = platform
            platform.answering = undefined
            return answering === undefined ? Effect.void : Deferred.succeed(answering, undefined)
          })

        const live = Effect.fnUntraced(function* (platform: Watched) {
          yield* untilDue(platform)
          const now = yield* monotonicMs
          const { asked } = platform
          platform.asked = undefined
          platform.answering = asked
          const isDue = asked !== undefined || now >= platform.nextCheckAt
          if (asked !== undefined || (isDue && needsCheck(platform, now))) yield* examine(platform)
          yield* announce(platform)
          yield* answer(platform)
          if (!isDue) return
          const delay = yield* delayMs((yield* isHurried(platform)) ? hurry : 1)
          platform.nextCheckAt = (yield* monotonicMs) + delay
        })

        /** In a fiber of its own: one that breaks, or that somebody kills, is started anew after a pause. */
        const supervise = (
          name: string,
          effect: Effect.Effect<void>,
          afterEnd: Effect.Effect<void> = Effect.void
        ): Effect.Effect<void> =>
          Effect.fork(effect).pipe(
            Effect.flatMap(Fiber.await),
            Effect.flatMap(
              Exit.match({
                onSuccess: () => Effect.void,
                onFailure: (cause) =>
                  Effect.logError(`${name} broke and is started anew`, cause).pipe(
                    Effect.zipRight(afterEnd),
                    Effect.catchAllCause((again) => Effect.logError(`${name} broke`, again)),
                    Effect.zipRight(Effect.flatMap(delayMs(hurry), Effect.sleep)),
                    Effect.zipRight(Effect.suspend(() => supervise(name, effect, afterEnd)))
                  )
              })
            )
          )

        /** A check that was cut off with its fiber has failed, and whoever waits for it is told so. */
        const countCutCheck = (platform: Watched): Effect.Effect<void> =>
          Effect.gen(function* () {
            if (!platform.examining) return
            platform.examining = false
            platform.nextCheckAt = yield* monotonicMs
            const failure = failedCheck(platform, "malformed", "the health check was cut off; the log says how")
            platform.signs = afterFailedCheck(platform.signs, failure, yield* Clock.currentTimeMillis)
            yield* announce(platform)
          }).pipe(Effect.ensuring(answer(platform)))

        for (const platform of watched.values()) {
          yield* supervise("a health fiber", Effect.forever(live(platform)), countCutCheck(platform)).pipe(
            Effect.annotateLogs("platform", platform.client.id),
            Effect.forkScoped
          )
          yield* Effect.addFinalizer(() =>
            Effect.forEach([platform.asked, platform.answering], (waited) =>
              waited === undefined ? Effect.void : Deferred.interrupt(waited)
            )
          )
        }

        const afterTransition = Effect.fnUntraced(function* ({ model, platform: id, to }: BreakerTransition) {
          const platform = watched.get(id)
          if (platform === undefined) return
          // One model's failures say nothing that a check of the platform could answer.
          if (to !== "closed" && model === undefined) yield* suspect(platform)
          yield* announce(platform)
        })
        const afterChange = (id: PlatformId): Effect.Effect<void> => {
          const platform = watched.get(id)
          return platform === undefined ? Effect.void : announce(platform)
        }
        for (const [name, told] of [
          ["what follows the circuit breakers", Stream.runForEach(resources.transitions, afterTransition)],
          ["what follows changes by hand", Stream.runForEach(resources.changes, afterChange)]
        ] as const) {
          yield* Effect.forkScoped(supervise(name, told))
        }

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
          const made = yield* Deferred.make<void>()
          const asked = platform.asked ?? made
          platform.asked = asked
          yield* Queue.offer(platform.wake, undefined)
          yield* Deferred.await(asked)
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
            // An answer makes no platform worse at once; how long it took is looked at before long.
            if (platform.published?.status === "available") return
          } else {
            const { failure } = outcome
            platform.signs = afterFailedAttempt(before, model, failure, now)
            if (failure._tag === "PlatformFailure") yield* suspect(platform)
            if (failure._tag === "ModelFailure") {
              yield* resources.setOut({ platform: id, model }, { reason: failure.message, until: failure.resetsAt })
            }
          }
          yield* isOutChanged(before, platform.signs) ? announce(platform) : announceSoon(platform)
        })

        const view = Effect.forEach([...watched.values()], (platform) =>
          Effect.gen(function* () {
            const { client, signs } = platform
            const { models, reasons, status } = yield* diagnosed(platform)
            const { breaker, drained, permits } = yield* resources.platform(client.id)
            return {
              id: client.id,
              wire: client.settings.wire,
              baseUrl: client.settings.baseUrl,
              model: client.settings.model,
              capabilities: client.settings.capabilities,
              status,
              reasons,
              checkedAt: signs.checkedAt,
              breaker: breaker.state,
              inFlight: permits.inUse,
              drained,
              performance: yield* benchmark.performance(client.id),
              models
            } satisfies PlatformView
          })
        )

        return { health, check, report, changes: Stream.fromPubSub(changes), view }
      })
    )
}
