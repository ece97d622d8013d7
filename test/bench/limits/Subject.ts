import { Effect, Exit, Layer, Scope } from "effect"
import type { PlatformId } from "../../../src/Domain/Platform.js"
import { type Lease, type LeaseRequest, ResourceManager } from "../../../src/ResourceManager.js"
import { type PlatformSettings, Settings } from "../../../src/Settings.js"
import { refusalOf, tellingOf } from "../support/Provider.js"
import { runWorld, type World } from "../support/World.js"
import { makeBounds } from "./Bounds.js"
import type { SimulatedCall } from "./Load.js"
import { makeRecorder, type Recorder, type Run } from "./Run.js"

/** Longer than any simulation. */
const PATIENT_MS = 365 * 24 * 3_600_000

/** The product's resource manager over these platforms. */
export const layerOf = (platforms: ReadonlyArray<PlatformSettings>): Layer.Layer<ResourceManager> =>
  Layer.provide(ResourceManager.layer, Settings.layer(Settings.make({ platforms })))

/** What is asked of the product for a call: all that is known of it beforehand. */
export const requestOf = (platforms: ReadonlyArray<PlatformSettings>, call: SimulatedCall): LeaseRequest => ({
  candidates: platforms
    .filter(({ id }) => call.platforms.includes(id))
    .map(({ id, model, suitability, weight }) => ({ platform: id, model, weight: weight * suitability[call.type] })),
  tokens: { input: call.estimatedInput, maxOutput: call.maxOutput },
  type: call.type,
  priority: call.priority,
  tenant: call.tenant,
  maxWaitMs: PATIENT_MS
})

/** Carries one granted call through its provider: sent, counted there, headers, answer, settled. */
export const carry = (options: {
  readonly world: World
  readonly recorder: Recorder
  /** What the lease holds of each of its provider's limits. */
  readonly reserved?: ReadonlyArray<number>
  /** Platforms whose responses tell their limits. */
  readonly tells: ReadonlySet<PlatformId>
  readonly call: SimulatedCall
  readonly lease: Lease
  /** The lease is settled: with an answer, or refused by its provider. */
  readonly ended: (isAnswered: boolean) => Effect.Effect<void>
}): void => {
  const { call, ended, lease, recorder, reserved, tells, world } = options
  const { agenda } = world
  const sentAt = world.now()
  const { platform } = lease
  const provider = recorder.providers.get(platform)

  const accepted = (): void => {
    const readings = tells.has(platform) ? (provider?.readings(world.now()) ?? []) : []
    agenda.add(sentAt + call.headersMs, lease.started(readings))
    agenda.add(
      sentAt + call.durationMs - call.lagMs,
      Effect.sync(() => provider?.complete(call, world.now()))
    )
    const { inputTokens, outputTokens } = call
    const usage = { inputTokens, cachedInputTokens: 0, outputTokens, reasoningTokens: 0 }
    agenda.add(
      sentAt + call.durationMs,
      Effect.suspend(() => {
        recorder.answered(call, platform, sentAt, world.now(), reserved)
        return Effect.zipRight(lease.settle({ _tag: "Succeeded", usage }), ended(true))
      })
    )
  }

  agenda.add(
    sentAt + call.lagMs,
    Effect.sync(() => {
      const verdict = provider?.arrive(call, world.now())
      if (verdict?._tag !== "Refused") return accepted()
      const failure = refusalOf(platform, verdict)
      agenda.add(world.now() + call.lagMs, Effect.zipRight(lease.settle({ _tag: "Failed", failure }), ended(false)))
    })
  )
}

/** The load through the product's own resource manager; a call refused by its provider enters the line again. */
export const runSubject = (
  platforms: ReadonlyArray<PlatformSettings>,
  calls: ReadonlyArray<SimulatedCall>,
  seed: string
): Effect.Effect<Run> =>
  runWorld(seed, layerOf(platforms), (world) =>
    Effect.gen(function* () {
      const manager = yield* ResourceManager
      const recorder = makeRecorder(platforms)
      const tells = tellingOf(platforms)
      // learns in step with the product's own
      const bounds = makeBounds(platforms)
      let left = calls.length

      const enter = (call: SimulatedCall): Effect.Effect<void> =>
        Effect.gen(function* () {
          const scope = yield* Scope.make()
          const lease = yield* Scope.extend(manager.acquire(requestOf(platforms, call)), scope)
          const platform = platforms.find(({ id }) => id === lease.platform)
          const reserved = (recorder.providers.get(lease.platform)?.limits ?? []).map(({ unit }) =>
            platform === undefined ? 0 : bounds.reservedFor(platform, unit, call)
          )
          const ended = (isAnswered: boolean) =>
            Effect.suspend(() => {
              if (isAnswered) {
                left -= 1
                bounds.learn(lease.platform, call)
              }
              return Effect.zipRight(Scope.close(scope, Exit.void), isAnswered ? Effect.void : enter(call))
            })
          carry({ world, recorder, reserved, tells, call, lease, ended })
        }).pipe(Effect.orDie, Effect.forkDaemon, Effect.asVoid)

      for (const call of calls) world.agenda.add(call.arrivesAt, enter(call))
      return { isOver: () => left === 0, outcome: recorder.run }
    })
  )
