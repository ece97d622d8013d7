import { Effect, type Fiber, Layer, PubSub, Ref, Scope, Stream } from "effect"
import type { LimitReading } from "../../src/Domain/Call.js"
import type { PlatformEventBody } from "../../src/Domain/Event.js"
import { LeaseUnavailable } from "../../src/Domain/Failure.js"
import type { Drained, PlatformResources, Settlement } from "../../src/Domain/Lease.js"
import type { PlatformId } from "../../src/Domain/Platform.js"
import { monotonicMs } from "../../src/Domain/Time.js"
import { type BreakerTransition, type Lease, type LeaseRequest, ResourceManager } from "../../src/ResourceManager.js"

/** What a test's resource manager was told, and what a test may tell it. */
export interface Told {
  readonly requests: Array<LeaseRequest>
  readonly settled: Array<readonly [PlatformId, Settlement["_tag"]]>
  readonly started: Array<number>
  readonly outs: Array<readonly [string, string | undefined]>
  readonly exhausted: Array<readonly [PlatformId, string, number]>
  readonly corrected: Array<readonly [PlatformId, ReadonlyArray<LimitReading>]>
  readonly notes: Array<readonly [PlatformId, PlatformEventBody]>
  /** The fiber that wrote the latest of `notes`. */
  notedBy: Fiber.Fiber<unknown, unknown> | undefined
  breaker: PlatformResources["breaker"]["state"]
  breakNextLook: boolean
  readonly transition: (transition: BreakerTransition) => Effect.Effect<void>
  readonly drain: (platform: PlatformId, drained: Drained | undefined) => Effect.Effect<void>
}

/** A resource manager without limits: the heaviest platform that is not out goes at once, or once its `notBefore` is past. */
export const make: Effect.Effect<{ readonly told: Told; readonly layer: Layer.Layer<ResourceManager> }> = Effect.gen(
  function* () {
    const transitions = yield* PubSub.unbounded<BreakerTransition>()
    const changes = yield* PubSub.unbounded<PlatformId>()
    const drained = new Map<PlatformId, Drained>()
    const out = new Map<string, string>()
    const told: Told = {
      requests: [],
      settled: [],
      started: [],
      outs: [],
      exhausted: [],
      corrected: [],
      notes: [],
      notedBy: undefined,
      breaker: "closed",
      breakNextLook: false,
      transition: (transition) => PubSub.publish(transitions, transition),
      drain: (platform, to) =>
        Effect.suspend(() => {
          if (to === undefined) drained.delete(platform)
          else drained.set(platform, to)
          return PubSub.publish(changes, platform)
        })
    }
    const key = (platform: string, model: string | undefined) =>
      model === undefined ? platform : `${platform}/${model}`

    const acquire = Effect.fnUntraced(function* (request: LeaseRequest) {
      told.requests.push(request)
      const startedAt = yield* monotonicMs
      const open = request.candidates.filter(
        ({ platform, model }) => !out.has(platform) && !out.has(key(platform, model))
      )
      const earliest = Math.min(...open.map(({ notBefore }) => notBefore ?? startedAt))
      if (earliest - startedAt > request.maxWaitMs) {
        return yield* new LeaseUnavailable({
          message: "nobody is free",
          reasons: request.candidates.map(({ platform }) => ({ platform, reason: out.get(platform) ?? "it rests" }))
        })
      }
      if (earliest > startedAt) yield* Effect.sleep(Math.ceil(earliest - startedAt))
      const chosen = [...open]
        .sort((left, right) => right.weight - left.weight)
        .find(({ notBefore }) => (notBefore ?? startedAt) <= earliest)
      if (chosen === undefined) return yield* Effect.dieMessage("the test's resource manager has nobody")
      const waitedMs = (yield* monotonicMs) - startedAt
      const settled = yield* Ref.make(false)
      const settle = (settlement: Settlement) =>
        Effect.flatMap(Ref.getAndSet(settled, true), (already) =>
          Effect.sync(() => {
            if (!already) told.settled.push([chosen.platform, settlement._tag])
          })
        )
      yield* Effect.addFinalizer(() => settle({ _tag: "Ignored" }))
      return {
        id: told.requests.length,
        platform: chosen.platform,
        model: chosen.model,
        waitedMs,
        free: open.filter(({ notBefore }) => (notBefore ?? startedAt) <= earliest).map(({ platform }) => platform),
        busy: request.candidates
          .filter((candidate) => !open.includes(candidate) || (candidate.notBefore ?? startedAt) > earliest)
          .map(({ platform }) => ({ platform, reason: out.get(platform) ?? "it rests" })),
        started: (limits) =>
          Effect.sync(() => {
            told.started.push(limits.length)
          }),
        settle
      } satisfies Lease
    })

    const withLease = <A, E, E2, R>(
      request: LeaseRequest,
      use: {
        readonly onLease: (lease: Lease) => Effect.Effect<A, E, R>
        readonly onUnavailable: (error: LeaseUnavailable) => Effect.Effect<A, E2, R>
      }
    ): Effect.Effect<A, E | E2, R> =>
      Effect.acquireUseRelease(
        Scope.make(),
        (scope) =>
          Effect.matchEffect(Scope.extend(acquire(request), scope), {
            onSuccess: use.onLease,
            onFailure: use.onUnavailable
          }),
        (scope, exit) => Scope.close(scope, exit)
      )

    const resourcesOf = (platform: PlatformId): PlatformResources => ({
      platform,
      buckets: [],
      permits: { inUse: 0, max: 4, keptForHigh: 0, utilization: { oneMinute: 0, fiveMinutes: 0 }, models: [] },
      breaker: { state: told.breaker, consecutiveFailures: 0, capacityPercent: 100 },
      modelBreakers: [],
      exhausted: [],
      drained: drained.get(platform)
    })

    const layer = Layer.succeed(ResourceManager, {
      acquire,
      withLease,
      setOut: (target, reason) =>
        Effect.sync(() => {
          const name = key(target.platform, target.model)
          told.outs.push([name, reason?.reason])
          if (reason === undefined) out.delete(name)
          else out.set(name, reason.reason)
        }),
      setExhausted: (platform, { until, window }) =>
        Effect.sync(() => {
          told.exhausted.push([platform, window, until])
        }),
      correct: (platform, readings) =>
        Effect.sync(() => {
          told.corrected.push([platform, readings])
        }),
      forecast: () => Effect.void,
      outlook: ({ candidates }) =>
        Effect.sync(() => {
          const [first, ...others] = candidates.filter(({ platform }) => !out.has(platform))
          const free = first === undefined ? [] : [first, ...others]
          return {
            free: free.map(({ platform }) => platform),
            busy: candidates.flatMap(({ platform }) => {
              const reason = out.get(platform)
              return reason === undefined ? [] : [{ platform, reason }]
            }),
            choice: first?.platform
          }
        }),
      patch: (platform) => Effect.succeed(resourcesOf(platform)),
      history: () => Effect.succeed([]),
      note: (platform, body) =>
        Effect.withFiberRuntime((fiber) => {
          told.notedBy = fiber
          told.notes.push([platform, body])
          return Effect.void
        }),
      holdBytes: () => Effect.void,
      platform: (platform) =>
        Effect.suspend(() => {
          if (told.breakNextLook) {
            told.breakNextLook = false
            return Effect.dieMessage("a look that breaks")
          }
          return Effect.succeed(resourcesOf(platform))
        }),
      view: Effect.succeed({
        platforms: [],
        queue: {
          HIGH: { depth: 0, oldestWaitMs: 0 },
          MEDIUM: { depth: 0, oldestWaitMs: 0 },
          LOW: { depth: 0, oldestWaitMs: 0 }
        },
        admission: { waiting: 0, maxWaiting: 10_000, bytes: 0, maxBytes: 1_000_000 }
      }),
      transitions: Stream.fromPubSub(transitions),
      room: Stream.empty,
      changes: Stream.fromPubSub(changes)
    })
    return { told, layer }
  }
)
