import type { SqlClient } from "@effect/sql/SqlClient"
import { Clock, Context, Effect, Exit, type Fiber, Layer, PubSub, Random, Schema, Scope, Stream } from "effect"
import { FieldProblem, Overloaded } from "./Domain/ApiError.js"
import type { LimitReading } from "./Domain/Call.js"
import type { PlatformEvent, PlatformEventBody } from "./Domain/Event.js"
import type { LeaseUnavailable, PlatformReason } from "./Domain/Failure.js"
import type { LimitsPatch, PlatformPatch, PlatformResources, ResourcesView, Settlement } from "./Domain/Lease.js"
import type { PlatformId } from "./Domain/Platform.js"
import type { TenantId } from "./Domain/Task.js"
import type { Events, NewPlatformEvent } from "./Events.js"
import type { BreakerTransition } from "./ResourceManager/Breaker.js"
import * as Dispatcher from "./ResourceManager/Dispatcher.js"
import * as LimitsChange from "./ResourceManager/LimitsChange.js"
import { type Now, read } from "./ResourceManager/Now.js"
import { PlatformBudget } from "./ResourceManager/PlatformBudget.js"
import type { Exhausted } from "./ResourceManager/Quota.js"
import { ResourceStore, type ResourceStoreFailed } from "./ResourceManager/ResourceStore.js"
import type { SavedPlatform } from "./ResourceManager/Saved.js"
import { limitsProblems } from "./Settings/Limits.js"
import { Settings } from "./Settings.js"
import type { SqlWriter } from "./Sql/Writer.js"
import { isTraced } from "./Telemetry/traced.js"

export type { BreakerTransition } from "./ResourceManager/Breaker.js"
export type { LeaseRequest, Outlook } from "./ResourceManager/Dispatcher.js"
export { PlatformBudget } from "./ResourceManager/PlatformBudget.js"
export type { Exhausted } from "./ResourceManager/Quota.js"
export { ResourceStore, ResourceStoreFailed } from "./ResourceManager/ResourceStore.js"

/**
 * Permission to make one attempt on one platform now: a concurrency permit and a reservation of requests and tokens.
 * Settled exactly once; closing the scope of an unsettled lease settles it as `Ignored`.
 */
export interface Lease {
  /** Unique in this process. */
  readonly id: number
  readonly platform: PlatformId
  readonly model: string
  /** From the request to the grant. */
  readonly waitedMs: number
  /** Who could have taken the call when it was granted, the chosen one among them. */
  readonly free: ReadonlyArray<PlatformId>
  /** Why each of the other candidates could not. */
  readonly busy: ReadonlyArray<PlatformReason>
  /** The response's headers are here: the reservation ages from now on, and the provider's own readings correct it. */
  readonly started: (limits: ReadonlyArray<LimitReading>) => Effect.Effect<void>
  /** Later calls change nothing. */
  readonly settle: (settlement: Settlement) => Effect.Effect<void>
}

/** A change that cannot be made: `problems` names each field and what would be right. Nothing was changed. */
export class LimitsInvalid extends Schema.TaggedError<LimitsInvalid>()("LimitsInvalid", {
  message: Schema.String,
  problems: Schema.Array(FieldProblem)
}) {}

/** Transitions and changes kept for a slow reader; older ones are dropped. */
const TRANSITIONS_KEPT = 256
/** Events that wait to be stored, at most; older ones are dropped. */
const UNSTORED_EVENTS = 10_000
/** The longest sleep, ms: an instant of the wall clock moves when that clock is set or the machine was suspended. */
const LONGEST_SLEEP_MS = 10 * 60_000
/** Changed books are saved this often at most, ms, unless a save is pressing. */
const SAVE_INTERVAL_MS = 250
/** How long to wait after a failure of the store, ms. */
const STORE_REST_MS = 1_000
/** A full service becomes free as fast as its calls end: soon, but nobody knows when. */
const OVERLOADED_RETRY_MS = 1_000

/** Who may go now: the one dispatcher of the process, over every platform's limits, permits and breaker. */
export class ResourceManager extends Context.Tag("dream-team/ResourceManager")<
  ResourceManager,
  {
    readonly acquire: (request: Dispatcher.LeaseRequest) => Effect.Effect<Lease, LeaseUnavailable, Scope.Scope>
    /** The same for one effect, without a scope: a lease that it leaves unsettled is settled as `Ignored`. */
    readonly withLease: <A, E, E2, R = never>(
      request: Dispatcher.LeaseRequest,
      use: {
        readonly onLease: (lease: Lease) => Effect.Effect<A, E, R>
        readonly onUnavailable: (error: LeaseUnavailable) => Effect.Effect<A, E2, R>
      }
    ) => Effect.Effect<A, E | E2, R>
    /** Fails as `acquire` would fail at once: where it is certain that no lease can be had in time. Takes nothing. */
    readonly forecast: (request: Dispatcher.LeaseRequest) => Effect.Effect<void, LeaseUnavailable>
    /** Who could take such a call now, who would get it, and why not the others. Takes nothing. */
    readonly outlook: (request: Dispatcher.LeaseRequest) => Effect.Effect<Dispatcher.Outlook>
    /**
     * Takes a platform (or one model of it) out of service for `reason`, until `until` (epoch ms, where known);
     * `undefined` brings it back. Waiting calls are looked at again at once.
     */
    readonly setOut: (
      target: { readonly platform: PlatformId; readonly model?: string | undefined },
      out: { readonly reason: string; readonly until?: number | undefined } | undefined
    ) => Effect.Effect<void>
    /** The provider itself says that a quota is used up; a shorter time never replaces a longer one of the same quota. */
    readonly setExhausted: (platform: PlatformId, quota: Exhausted) => Effect.Effect<void>
    /** What the provider says of its limits beside any attempt, as its quotas endpoint does. */
    readonly correct: (platform: PlatformId, readings: ReadonlyArray<LimitReading>) => Effect.Effect<void>
    /**
     * Changes a platform's limits for calls that wait as for those to come, or drains and resumes it; stored, and written
     * down in its history. A drained platform gets no new attempt, whatever `setOut` says of it; running ones go on.
     */
    readonly patch: (
      platform: PlatformId,
      patch: PlatformPatch,
      tenant: TenantId
    ) => Effect.Effect<PlatformResources, LimitsInvalid | ResourceStoreFailed>
    /** What happened to a platform, the latest first; before the event `before`, where it is given. */
    readonly history: (
      platform: PlatformId,
      page: { readonly before?: number | undefined; readonly limit: number }
    ) => Effect.Effect<ReadonlyArray<PlatformEvent>, ResourceStoreFailed>
    /** Writes down in a platform's history what happened to it. */
    readonly note: (platform: PlatformId, body: PlatformEventBody) => Effect.Effect<void>
    /** Counts memory that is not a waiting call's, such as a body being read, until the scope closes. */
    readonly holdBytes: (bytes: number) => Effect.Effect<void, Overloaded, Scope.Scope>
    readonly platform: (platform: PlatformId) => Effect.Effect<PlatformResources>
    readonly view: Effect.Effect<ResourcesView>
    readonly transitions: Stream.Stream<BreakerTransition>
    /** Each platform that `patch` changed (its limits, drained or resumed, its quota there again), from the subscription on. */
    readonly changes: Stream.Stream<PlatformId>
    /**
     * Each platform that has room which nobody waits for, after calls that come back (`comesBack`) had given up waiting for
     * it, from the subscription on. Told once, until the next one gives up.
     */
    readonly room: Stream.Stream<PlatformId>
  }
>() {
  /**
   * Draws from the `PlatformBudget` it is given and keeps its books in the `ResourceStore`. An entry leaves a limit's
   * window a ten-thousandth of the window and a millisecond later than the window's length (60,007 ms for a minute):
   * the provider's clock is not ours.
   */
  static readonly layerWithBudget: Layer.Layer<
    ResourceManager,
    ResourceStoreFailed,
    Settings | PlatformBudget | ResourceStore
  > = Layer.scoped(
    ResourceManager,
    Effect.gen(function* () {
      const settings = yield* Settings
      const store = yield* ResourceStore
      const { budgets } = yield* PlatformBudget
      const transitions = yield* PubSub.sliding<BreakerTransition>(TRANSITIONS_KEPT)
      yield* Effect.addFinalizer(() => PubSub.shutdown(transitions))
      const changes = yield* Effect.acquireRelease(PubSub.sliding<PlatformId>(TRANSITIONS_KEPT), PubSub.shutdown)
      const room = yield* Effect.acquireRelease(PubSub.sliding<PlatformId>(TRANSITIONS_KEPT), PubSub.shutdown)

      let unstored: Array<NewPlatformEvent> = []
      const keep = (events: ReadonlyArray<NewPlatformEvent>): void => {
        unstored = [...events, ...unstored].slice(-UNSTORED_EVENTS)
      }

      const note = (platform: PlatformId, body: PlatformEventBody, now: Now): void => {
        unstored.push({ platform, at: now.epochMs, body })
        if (unstored.length > UNSTORED_EVENTS) unstored.shift()
      }

      const dispatcher = Dispatcher.make({
        platforms: settings.platforms.flatMap(({ breaker, id }) => {
          const budget = budgets.get(id)
          return budget === undefined ? [] : [{ id, budget, breaker }]
        }),
        onTransition: (transition) => transitions.unsafeOffer(transition),
        onEvent: note,
        onRoom: (platform) => room.unsafeOffer(platform),
        maxBytes: settings.maxHeldBytes
      })

      const earlier = yield* Effect.makeLatch(false)
      const unsaved = yield* Effect.makeLatch(false)
      const pressing = yield* Effect.makeLatch(false)
      let sleepsUntil = Number.POSITIVE_INFINITY

      const wake = (): void => {
        if (dispatcher.due() < sleepsUntil) earlier.unsafeOpen()
        if (unstored.length > 0) unsaved.unsafeOpen()
        if (!store.isDurable || !dispatcher.isUnsaved()) return
        unsaved.unsafeOpen()
        if (dispatcher.isPressing()) pressing.unsafeOpen()
      }

      const nowOf = (fiber: Fiber.RuntimeFiber<unknown, unknown>): Now =>
        read(Context.get(fiber.currentDefaultServices, Clock.Clock))

      /** One step of the dispatcher, now; whoever is to act on what came of it is woken. */
      const act = <A>(step: (at: Now) => A): Effect.Effect<A> =>
        Effect.withFiberRuntime((fiber) => {
          const result = step(nowOf(fiber))
          wake()
          return Exit.succeed(result)
        })

      // The books

      const patches = new Map(yield* store.patches)
      const limitsOf = (platform: PlatformId, patch: LimitsPatch | undefined) => {
        const configured = settings.platforms.find(({ id }) => id === platform)?.limits
        return configured === undefined || patch === undefined ? configured : LimitsChange.changed(configured, patch)
      }
      const drained = yield* store.drains
      const saved = yield* store.load
      yield* act((at) => {
        for (const [platform, drain] of drained) dispatcher.setDrained(platform, drain, at)
        for (const [platform, patch] of patches) {
          const limits = limitsOf(platform, patch)
          if (limits !== undefined) dispatcher.configure(platform, limits, at)
        }
        for (const [platform, state] of saved) dispatcher.restore(platform, state, at)
      })

      const save = (platforms: () => ReadonlyArray<PlatformId>, isClean: boolean) =>
        Effect.gen(function* () {
          const books = yield* act(
            (at) =>
              new Map<PlatformId, SavedPlatform>(
                platforms().flatMap((platform) => {
                  const state = dispatcher.save(platform, at)
                  return state === undefined ? [] : [[platform, { savedAt: at.epochMs, isClean, ...state }] as const]
                })
              )
          )
          if (books.size === 0) return
          yield* store.save(books)
          yield* act((at) => {
            for (const [platform, state] of books) dispatcher.saved(platform, state, at)
          })
        })

      // nothing is granted before the disk tells what a crash could lose
      if (store.isDurable) yield* save(() => [...budgets.keys()], false)

      const record = Effect.suspend(() => {
        const events = unstored
        unstored = []
        return events.length === 0
          ? Effect.void
          : Effect.tapError(store.record(events), () => Effect.sync(() => keep(events)))
      })
      // one at a time, so that the events of a platform are stored in their order
      const recording = yield* Effect.makeSemaphore(1)
      const recordAll = Effect.uninterruptible(recording.withPermits(1)(record))

      const scribe = unsaved.await.pipe(
        Effect.zipRight(Effect.raceFirst(Effect.sleep(SAVE_INTERVAL_MS), pressing.await)),
        Effect.zipRight(
          Effect.sync(() => {
            unsaved.unsafeClose()
            pressing.unsafeClose()
          })
        ),
        Effect.zipRight(recordAll),
        Effect.zipRight(store.isDurable ? save(() => dispatcher.unsaved().platforms, false) : Effect.void),
        Effect.catchAllCause((cause) =>
          Effect.logError("what the resource manager knows could not be stored, and is tried again", cause).pipe(
            Effect.zipRight(Effect.sleep(STORE_REST_MS)),
            Effect.zipRight(unsaved.open)
          )
        )
      )
      yield* Effect.forkScoped(Effect.forever(scribe))
      yield* Effect.addFinalizer(() =>
        recordAll.pipe(
          Effect.zipRight(store.isDurable ? save(() => [...budgets.keys()], true) : Effect.void),
          Effect.catchAllCause((cause) =>
            Effect.logError("the resource manager's books could not be saved at the end", cause)
          )
        )
      )

      // The alarm

      let looksAgainAt = 0
      const alarm = Effect.flatMap(
        act((at) => {
          if (dispatcher.due() <= at.ms || looksAgainAt <= at.ms) dispatcher.tick(at)
          looksAgainAt = at.ms + LONGEST_SLEEP_MS
          earlier.unsafeClose()
          sleepsUntil = dispatcher.due()
          return Math.min(LONGEST_SLEEP_MS, Math.max(1, Math.ceil(sleepsUntil - at.ms)))
        }),
        (sleepMs) =>
          Effect.raceFirst(Number.isFinite(sleepsUntil) ? Effect.sleep(sleepMs) : Effect.never, earlier.await)
      )
      yield* alarm.pipe(
        Effect.catchAllDefect((defect) =>
          Effect.zipRight(Effect.logError("the alarm of the resource manager failed", defect), Effect.sleep(1_000))
        ),
        Effect.forever,
        Effect.forkScoped
      )

      // Leases

      const leaseOf = (held: Dispatcher.Held): Lease => ({
        id: held.id,
        platform: held.platform,
        model: held.model,
        waitedMs: held.waitedMs,
        free: held.free,
        busy: held.busy,
        started: (limits) => act((at) => dispatcher.started(held, limits, at)),
        settle: (settlement) =>
          Effect.suspend(() => {
            if (held.isSettled) return Effect.void
            // the breaker's jitter is for failures alone
            return settlement._tag === "Failed"
              ? Effect.flatMap(Random.next, (random) => act((at) => dispatcher.settle(held, settlement, at, random)))
              : act((at) => dispatcher.settle(held, settlement, at, 0))
          })
      })

      const leaseFrom = (answer: Dispatcher.Answer): Effect.Effect<Lease, LeaseUnavailable> =>
        answer._tag === "Refused" ? Effect.fail(answer.error) : Effect.succeed(leaseOf(answer.held))

      const answerTo = (ticket: Dispatcher.Ticket): Effect.Effect<Dispatcher.Answer> =>
        Effect.async((resume) => {
          if (ticket.answer !== undefined) resume(Effect.succeed(ticket.answer))
          else ticket.onAnswer = (answer) => resume(Effect.succeed(answer))
        })

      type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

      /**
       * Runs where nothing interrupts it but the wait that it restores. In as few steps as it can be, for it is done for
       * every attempt: what is answered at once waits for nothing.
       */
      const granted = (request: Dispatcher.LeaseRequest, restore: Restore): Effect.Effect<Lease, LeaseUnavailable> =>
        Effect.withFiberRuntime((fiber) => {
          const ticket = dispatcher.enter(request, nowOf(fiber))
          wake()
          const lease =
            ticket.answer === undefined
              ? Effect.matchCauseEffect(restore(answerTo(ticket)), {
                  onFailure: (interrupted) =>
                    Effect.zipRight(
                      act((at) => dispatcher.leave(ticket, at)),
                      Effect.failCause(interrupted)
                    ),
                  onSuccess: leaseFrom
                })
              : leaseFrom(ticket.answer)
          return isTraced(fiber)
            ? lease.pipe(
                Effect.tap(({ platform, waitedMs }) => Effect.annotateCurrentSpan({ platform, waitedMs })),
                Effect.withSpan("ResourceManager.acquire", {
                  attributes: { priority: request.priority },
                  captureStackTrace: false
                })
              )
            : lease
        })

      // Changes by hand

      const changing = yield* Effect.makeSemaphore(1)
      /** The limits as a change makes them, and the whole change that they are over the settings; or what is wrong. */
      const limitsAfter = (platform: PlatformId, change: LimitsPatch | null) => {
        const patch = change === null ? undefined : LimitsChange.combined(patches.get(platform) ?? {}, change)
        const limits = limitsOf(platform, patch)
        const problems =
          limits === undefined
            ? [{ field: "id", problem: `no platform ${platform} is configured` }]
            : limitsProblems(limits).map(({ expected, field, problem }) => ({
                field: `limits.${field}`,
                problem: `${problem}; expected ${expected}`
              }))
        return limits === undefined || problems.length > 0 ? { problems } : { patch, limits, problems }
      }

      const changeByHand = Effect.fnUntraced(function* (
        platform: PlatformId,
        { drained, limits, reason }: PlatformPatch,
        tenant: TenantId
      ) {
        const after = limits === undefined ? undefined : limitsAfter(platform, limits)
        const problems = [
          ...(after?.problems ?? []),
          ...(reason !== undefined && drained === undefined
            ? [{ field: "reason", problem: "it is the reason for `drained`, which is not there" }]
            : []),
          ...(drained !== undefined && !budgets.has(platform)
            ? [{ field: "id", problem: `no platform ${platform} is configured` }]
            : [])
        ]
        if (problems.length > 0) {
          return yield* new LimitsInvalid({ message: "The platform cannot be changed so", problems })
        }
        const now = yield* Clock.currentTimeMillis
        const wasDrained = (yield* act((at) => dispatcher.platform(platform, at))).drained
        // what is drained already may be so for another reason, or another tenant, from now on
        const drain = drained === true ? { tenant, at: wasDrained?.at ?? now, reason } : null
        const isDrainChanged = drained === true || (drained === false && wasDrained !== undefined)
        const events: Array<PlatformEventBody> = []
        if (limits !== undefined) events.push({ type: "limits.changed", tenant, limits })
        if (isDrainChanged) {
          events.push({ type: drain === null ? "platform.resumed" : "platform.drained", tenant, why: reason })
        }
        if (events.length === 0) return
        yield* store.change(
          platform,
          {
            limits: after === undefined ? undefined : (after.patch ?? null),
            drained: isDrainChanged ? drain : undefined
          },
          events.map((body) => ({ platform, at: now, body }))
        )
        if (after?.limits !== undefined) {
          const { limits, patch } = after
          if (patch === undefined) patches.delete(platform)
          else patches.set(platform, patch)
          yield* act((at) => dispatcher.configure(platform, limits, at))
        }
        if (isDrainChanged) yield* act((at) => dispatcher.setDrained(platform, drain ?? undefined, at))
        yield* PubSub.publish(changes, platform)
      })

      return {
        acquire: (request) =>
          // what is granted belongs to someone at every moment: to the wait until it ends, to the scope from then on
          Effect.uninterruptibleMask((restore) =>
            Effect.tap(granted(request, restore), (lease) =>
              // `Effect.addFinalizer` would keep the fiber's references for it, which takes as long as the grant
              Effect.flatMap(Effect.scope, (scope) => Scope.addFinalizer(scope, lease.settle({ _tag: "Ignored" })))
            )
          ),
        withLease: (request, { onLease, onUnavailable }) =>
          Effect.uninterruptibleMask((restore) =>
            Effect.matchEffect(granted(request, restore), {
              onSuccess: (lease) => Effect.onExit(restore(onLease(lease)), () => lease.settle({ _tag: "Ignored" })),
              onFailure: (error) => restore(onUnavailable(error))
            })
          ),
        forecast: (request) =>
          Effect.flatMap(
            act((at) => dispatcher.forecast(request, at)),
            (refusal) => (refusal === undefined ? Effect.void : Effect.fail(refusal))
          ),
        outlook: (request) => act((at) => dispatcher.outlook(request, at)),
        setOut: ({ model, platform }, out) => act((at) => dispatcher.setOut(platform, model, out, at)),
        setExhausted: (platform, quota) => act((at) => dispatcher.exhaust(platform, quota, at)),
        correct: (platform, readings) => act((at) => dispatcher.correct(platform, readings, at)),
        patch: Effect.fn("ResourceManager.patch")(function* (
          platform: PlatformId,
          patch: PlatformPatch,
          tenant: TenantId
        ) {
          yield* Effect.annotateCurrentSpan("platform", platform)
          yield* Effect.uninterruptible(changing.withPermits(1)(changeByHand(platform, patch, tenant)))
          if (patch.exhausted === null) {
            yield* act((at) => dispatcher.clearExhausted(platform, at))
            yield* PubSub.publish(changes, platform)
          }
          return yield* act((at) => dispatcher.platform(platform, at))
        }),
        history: (platform, page) => Effect.zipRight(recordAll, store.history(platform, page)),
        note: (platform, body) => act((at) => note(platform, body, at)),
        // Done for every request with a body, so not by `acquireRelease`, which compares the fiber's state before and after.
        holdBytes: (bytes) =>
          Effect.uninterruptible(
            Effect.flatMap(Effect.scope, (scope) =>
              dispatcher.tryHold(bytes)
                ? Scope.addFinalizer(
                    scope,
                    Effect.sync(() => dispatcher.release(bytes))
                  )
                : new Overloaded({
                    message: `The service holds as many bytes of requests as it may (${settings.maxHeldBytes}); try again soon`,
                    retryAfterMs: OVERLOADED_RETRY_MS
                  })
            )
          ),
        platform: (platform) => act((at) => dispatcher.platform(platform, at)),
        view: act((at) => dispatcher.view(at)),
        transitions: Stream.fromPubSub(transitions),
        changes: Stream.fromPubSub(changes),
        room: Stream.fromPubSub(room)
      }
    })
  )

  /** One process alone, over the limits of `Settings`; its books are gone with it. */
  static readonly layer: Layer.Layer<ResourceManager, never, Settings> = ResourceManager.layerWithBudget.pipe(
    Layer.provide([PlatformBudget.layerLocal, ResourceStore.layerMemory]),
    Layer.orDie
  )

  /**
   * One process alone, over the limits of `Settings`; its books outlive it. What was granted since they were last saved
   * counts as spent after a crash.
   */
  static readonly layerStored: Layer.Layer<
    ResourceManager,
    ResourceStoreFailed,
    Settings | SqlClient | SqlWriter | Events
  > = ResourceManager.layerWithBudget.pipe(Layer.provide([PlatformBudget.layerLocal, ResourceStore.layer]))
}
