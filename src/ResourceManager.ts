import { Context, Effect, Layer, PubSub, Random, type Scope, Stream } from "effect"
import type { LimitReading } from "./Domain/Call.js"
import type { LeaseUnavailable } from "./Domain/Failure.js"
import type { PlatformResources, ResourcesView, Settlement } from "./Domain/Lease.js"
import type { PlatformId } from "./Domain/Platform.js"
import type { BreakerTransition } from "./ResourceManager/Breaker.js"
import * as Dispatcher from "./ResourceManager/Dispatcher.js"
import { type Now, read } from "./ResourceManager/Now.js"
import { PlatformBudget } from "./ResourceManager/PlatformBudget.js"
import { Settings } from "./Settings.js"

export type { BreakerTransition } from "./ResourceManager/Breaker.js"
export type { LeaseRequest } from "./ResourceManager/Dispatcher.js"

/**
 * Permission to make one attempt on one platform now: a concurrency permit and a reservation of requests and tokens.
 * Settled exactly once; closing the scope of an unsettled lease settles it as `Ignored`.
 */
export interface Lease {
  readonly id: number
  readonly platform: PlatformId
  readonly model: string
  readonly waitedMs: number
  /** The response's headers are here: the reservation ages from now on, and the provider's own readings correct it. */
  readonly started: (limits: ReadonlyArray<LimitReading>) => Effect.Effect<void>
  /** Later calls change nothing. */
  readonly settle: (settlement: Settlement) => Effect.Effect<void>
}

/** Transitions kept for a slow reader; older ones are dropped. */
const TRANSITIONS_KEPT = 256
/** The longest sleep, ms: an instant of the wall clock moves when that clock is set or the machine was suspended. */
const LONGEST_SLEEP_MS = 10 * 60_000

/** Who may go now: the one dispatcher of the process, over every platform's limits, permits and breaker. */
export class ResourceManager extends Context.Tag("dream-team/ResourceManager")<
  ResourceManager,
  {
    readonly acquire: (request: Dispatcher.LeaseRequest) => Effect.Effect<Lease, LeaseUnavailable, Scope.Scope>
    /**
     * Takes a platform (or one model of it) out of service for `reason`, until `until` (epoch ms, where known);
     * `undefined` brings it back. Waiting calls are looked at again at once.
     */
    readonly setOut: (
      target: { readonly platform: PlatformId; readonly model?: string | undefined },
      out: { readonly reason: string; readonly until?: number | undefined } | undefined
    ) => Effect.Effect<void>
    /** The provider itself says its quota is used up until this instant (epoch ms); a shorter one never replaces a longer. */
    readonly setExhausted: (platform: PlatformId, until: number) => Effect.Effect<void>
    readonly platform: (platform: PlatformId) => Effect.Effect<PlatformResources>
    readonly view: Effect.Effect<ResourcesView>
    readonly transitions: Stream.Stream<BreakerTransition>
  }
>() {
  /**
   * Draws from the `PlatformBudget` it is given. An entry leaves a limit's window a ten-thousandth of the window and a
   * millisecond later than the window's length (60,007 ms for a minute): the provider's clock is not ours.
   */
  static readonly layerWithBudget: Layer.Layer<ResourceManager, never, Settings | PlatformBudget> = Layer.scoped(
    ResourceManager,
    Effect.gen(function* () {
      const settings = yield* Settings
      const { budgets } = yield* PlatformBudget
      const transitions = yield* PubSub.sliding<BreakerTransition>(TRANSITIONS_KEPT)
      yield* Effect.addFinalizer(() => PubSub.shutdown(transitions))

      const dispatcher = Dispatcher.make({
        platforms: settings.platforms.flatMap(({ breaker, id }) => {
          const budget = budgets.get(id)
          return budget === undefined ? [] : [{ id, budget, breaker }]
        }),
        onTransition: (transition) => transitions.unsafeOffer(transition)
      })

      const earlier = yield* Effect.makeLatch(false)
      let sleepsUntil = Number.POSITIVE_INFINITY

      /** One step of the dispatcher, now; the alarm is set anew where the next step is due earlier than it rings. */
      const act = <A>(step: (at: Now) => A): Effect.Effect<A> =>
        Effect.clockWith((clock) =>
          Effect.sync(() => {
            const result = step(read(clock))
            if (dispatcher.due() < sleepsUntil) earlier.unsafeOpen()
            return result
          })
        )

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

      const leaseOf = (held: Dispatcher.Held): Lease => ({
        id: held.id,
        platform: held.platform,
        model: held.model,
        waitedMs: held.waitedMs,
        started: (limits) => act((at) => dispatcher.started(held, limits, at)),
        settle: (settlement) =>
          Effect.flatMap(Random.next, (random) => act((at) => dispatcher.settle(held, settlement, at, random)))
      })

      const answerOf = (ticket: Dispatcher.Ticket): Effect.Effect<Dispatcher.Held, LeaseUnavailable> => {
        const effectOf = (answer: Dispatcher.Answer): Effect.Effect<Dispatcher.Held, LeaseUnavailable> =>
          answer._tag === "Granted" ? Effect.succeed(answer.held) : Effect.fail(answer.error)
        return Effect.async((resume) => {
          if (ticket.answer !== undefined) resume(effectOf(ticket.answer))
          else ticket.onAnswer = (answer) => resume(effectOf(answer))
        })
      }

      return {
        acquire: Effect.fn("ResourceManager.acquire")(function* (request: Dispatcher.LeaseRequest) {
          yield* Effect.annotateCurrentSpan("priority", request.priority)
          // what is granted belongs to someone at every moment: to the wait until it ends, to the scope from then on
          const lease = yield* Effect.uninterruptibleMask((restore) =>
            Effect.gen(function* () {
              const ticket = yield* act((at) => dispatcher.enter(request, at))
              const held = yield* restore(answerOf(ticket)).pipe(
                Effect.onInterrupt(() => act((at) => dispatcher.leave(ticket, at)))
              )
              const lease = leaseOf(held)
              yield* Effect.addFinalizer(() => lease.settle({ _tag: "Ignored" }))
              return lease
            })
          )
          yield* Effect.annotateCurrentSpan({ platform: lease.platform, waitedMs: lease.waitedMs })
          return lease
        }),
        setOut: ({ model, platform }, out) => act((at) => dispatcher.setOut(platform, model, out, at)),
        setExhausted: (platform, until) => act((at) => dispatcher.exhaust(platform, until, at)),
        platform: (platform) => act((at) => dispatcher.platform(platform, at)),
        view: act((at) => dispatcher.view(at)),
        transitions: Stream.fromPubSub(transitions)
      }
    })
  )

  /** One process alone, over the limits of `Settings`. */
  static readonly layer: Layer.Layer<ResourceManager, never, Settings> = Layer.provide(
    ResourceManager.layerWithBudget,
    PlatformBudget.layerLocal
  )
}
