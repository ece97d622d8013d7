import { describe, expect, it } from "@effect/vitest"
import { Chunk, Effect, Either, Exit, Fiber, FiberId, Ref, Scope, Stream, TestClock, Tracer } from "effect"
import { TenantId } from "../src/Domain/Task.js"
import { type LeaseRequest, ResourceManager } from "../src/ResourceManager.js"
import { type PlatformSettings, Settings } from "../src/Settings.js"
import {
  alpha,
  beta,
  candidate,
  credentialFailure,
  id,
  platformFailure,
  platformOf,
  quotaFailure,
  requestOf,
  settingsOf,
  succeeded,
  tenant,
  usageOf
} from "./ResourceManager/fixtures.js"
import { jumpingClock } from "./support/jumpingClock.js"

const both = [candidate(alpha), candidate(beta)]

const withPlatforms =
  (...platforms: ReadonlyArray<PlatformSettings>) =>
  <A, E>(effect: Effect.Effect<A, E, ResourceManager | Scope.Scope>): Effect.Effect<A, E> =>
    effect.pipe(
      Effect.scoped,
      Effect.provide(ResourceManager.layer),
      Effect.provide(Settings.layer(settingsOf(...platforms)))
    )

/** A lease that outlives the acquiring step: its scope is closed by hand. */
const lease = (request: Partial<LeaseRequest> = {}) =>
  Effect.flatMap(ResourceManager, (manager) => manager.acquire(requestOf(request)))

const refusal = (request: Partial<LeaseRequest> = {}) => Effect.flip(Effect.scoped(lease(request)))

/** Acquires, writes down `name`, holds for a second, settles as succeeded. */
const job = (log: Ref.Ref<ReadonlyArray<string>>, name: string, request: Partial<LeaseRequest>) =>
  Effect.scoped(
    Effect.gen(function* () {
      const held = yield* lease(request)
      yield* Ref.update(log, (names) => [...names, name])
      yield* held.started([])
      yield* Effect.sleep("1 second")
      yield* held.settle(succeeded)
    })
  )

const platform = (of = alpha) => Effect.flatMap(ResourceManager, (manager) => manager.platform(of))
const queue = Effect.flatMap(ResourceManager, (manager) => Effect.map(manager.view, (view) => view.queue))
const failWith = (failure: ReturnType<typeof platformFailure | typeof quotaFailure | typeof credentialFailure>) =>
  ({ _tag: "Failed", failure }) as const

const one = { maxConcurrent: 1 }

describe("a lease", () => {
  it.effect("is granted at once where there is room, and holds a permit until it is settled", () =>
    Effect.gen(function* () {
      const held = yield* lease()
      expect([held.platform, held.model, held.waitedMs]).toEqual([alpha, "small", 0])
      expect((yield* platform()).permits).toMatchObject({ inUse: 1, max: 2 })
      yield* held.settle(succeeded)
      yield* held.settle(failWith(platformFailure()))
      const after = yield* platform()
      expect(after.permits.inUse).toBe(0)
      expect(after.breaker.consecutiveFailures).toBe(0)
    }).pipe(withPlatforms(platformOf(alpha, { maxConcurrent: 2 })))
  )

  it.effect("is settled by the end of its scope, and still counts as sent", () =>
    Effect.gen(function* () {
      yield* Effect.scoped(lease())
      const after = yield* platform()
      expect(after.permits.inUse).toBe(0)
      expect(after.buckets[0]?.used).toBe(1)
    }).pipe(withPlatforms(platformOf(alpha, { requestsPerMinute: 5 })))
  )

  it.effect("for one effect is settled by its end, by its failure and by its interruption", () =>
    Effect.gen(function* () {
      const { withLease } = yield* ResourceManager
      const inUse = Effect.map(platform(), ({ permits }) => permits.inUse)
      const during = <A, E, R>(onLease: Effect.Effect<A, E, R>) =>
        withLease<A, E, never, R>(requestOf({}), { onLease: () => onLease, onUnavailable: Effect.die })
      expect(yield* during(inUse)).toBe(1)
      expect(yield* inUse).toBe(0)
      expect(yield* Effect.flip(during(Effect.fail("no")))).toBe("no")
      expect(yield* inUse).toBe(0)
      const running = yield* Effect.fork(during(Effect.never))
      yield* Effect.yieldNow()
      const waiting = yield* Effect.fork(during(Effect.never))
      yield* Effect.yieldNow()
      expect([yield* inUse, (yield* queue).MEDIUM.depth]).toEqual([1, 1])
      yield* Fiber.interrupt(waiting)
      expect((yield* queue).MEDIUM.depth).toBe(0)
      yield* Fiber.interrupt(running)
      expect(yield* inUse).toBe(0)
      const refused = withLease(requestOf({ candidates: [] }), {
        onLease: () => Effect.succeed("granted"),
        onUnavailable: ({ _tag }) => Effect.succeed(_tag)
      })
      expect(yield* refused).toBe("LeaseUnavailable")
    }).pipe(withPlatforms(platformOf(alpha, one)))
  )

  it.effect("waits for the refill without polling, to the millisecond", () =>
    Effect.gen(function* () {
      const first = yield* lease()
      yield* first.started([])
      yield* first.settle(succeeded)
      const second = yield* Effect.fork(lease())
      yield* TestClock.adjust(60_006)
      expect(yield* Fiber.poll(second)).toMatchObject({ _tag: "None" })
      yield* TestClock.adjust(1)
      expect((yield* Fiber.join(second)).waitedMs).toBe(60_007)
    }).pipe(withPlatforms(platformOf(alpha, { requestsPerMinute: 1 })))
  )

  it.effect("goes to whichever platform is free first", () =>
    Effect.gen(function* () {
      const [first, second] = [yield* lease({ candidates: both }), yield* lease({ candidates: both })]
      expect([first.platform, second.platform]).toEqual([alpha, beta])
      const waiting = yield* Effect.fork(lease({ candidates: both }))
      yield* TestClock.adjust(500)
      yield* second.settle(succeeded)
      expect((yield* Fiber.join(waiting)).platform).toBe(beta)
    }).pipe(withPlatforms(platformOf(alpha, one), platformOf(beta, one)))
  )

  it.effect("divides calls between free platforms by weight, smoothly", () =>
    Effect.gen(function* () {
      const candidates = [candidate(alpha, 3), candidate(beta, 1)]
      const leases = yield* Effect.replicateEffect(lease({ candidates }), 8)
      expect(leases.map((held) => held.platform)).toEqual([alpha, alpha, beta, alpha, alpha, alpha, beta, alpha])
    }).pipe(withPlatforms(platformOf(alpha), platformOf(beta)))
  )

  it.effect("is not given by a platform before the candidate's `notBefore`", () =>
    Effect.gen(function* () {
      const waiting = yield* Effect.fork(lease({ candidates: [candidate(alpha, 1, 5_000)] }))
      yield* TestClock.adjust(4_999)
      expect(yield* Fiber.poll(waiting)).toMatchObject({ _tag: "None" })
      expect((yield* lease()).platform).toBe(alpha)
      yield* TestClock.adjust(1)
      expect((yield* Fiber.join(waiting)).waitedMs).toBe(5_000)
      const other = yield* lease({ candidates: [candidate(alpha, 9, 60_000), candidate(beta)] })
      expect(other.platform).toBe(beta)
    }).pipe(withPlatforms(platformOf(alpha), platformOf(beta)))
  )

  it.effect("is traced with its platform, wait and priority", () =>
    Effect.gen(function* () {
      const spans: Array<Tracer.Span> = []
      const tracer = Tracer.make({
        context: (run) => run(),
        span: (name, parent, context, links, startTime, kind) => {
          const attributes = new Map<string, unknown>()
          const span: Tracer.Span = {
            _tag: "Span",
            name,
            spanId: "1",
            traceId: "1",
            parent,
            context,
            status: { _tag: "Started", startTime },
            attributes,
            links,
            sampled: true,
            kind,
            end: () => {},
            attribute: (key, value) => {
              attributes.set(key, value)
            },
            event: () => {},
            addLinks: () => {}
          }
          spans.push(span)
          return span
        }
      })
      yield* lease({ priority: "HIGH" }).pipe(Effect.withTracer(tracer))
      const [span] = spans
      expect(span?.name).toBe("ResourceManager.acquire")
      expect(Object.fromEntries(span?.attributes ?? [])).toMatchObject({
        platform: alpha,
        waitedMs: 0,
        priority: "HIGH"
      })
    }).pipe(withPlatforms(platformOf(alpha)))
  )
})

describe("a wait", () => {
  it.effect("that is interrupted leaves no trace", () =>
    Effect.gen(function* () {
      const first = yield* lease()
      const waiting = yield* Effect.forkAll(Array.from({ length: 10 }, () => lease()))
      yield* TestClock.adjust(10)
      expect((yield* queue).MEDIUM).toEqual({ depth: 10, oldestWaitMs: 10 })
      yield* Fiber.interrupt(waiting)
      expect((yield* queue).MEDIUM).toEqual({ depth: 0, oldestWaitMs: 0 })
      yield* first.settle(succeeded)
      const { buckets, permits } = yield* platform()
      expect([permits.inUse, buckets[0]?.used]).toEqual([0, 1])
    }).pipe(withPlatforms(platformOf(alpha, { ...one, requestsPerMinute: 100 })))
  )

  it.effect("that is interrupted while its lease is on the way gives the lease back as never sent", () =>
    Effect.gen(function* () {
      const manager = yield* ResourceManager
      const first = yield* lease()
      const waiting = yield* Effect.fork(lease())
      const next = yield* Effect.fork(lease())
      yield* TestClock.adjust(10)
      // both in one step of this fiber: the waiting one is granted, but does not run before it is interrupted
      yield* Effect.zipRight(first.settle(succeeded), Fiber.interruptAsFork(waiting, FiberId.none))
      expect((yield* Fiber.join(next)).platform).toBe(alpha)
      const { buckets, permits } = yield* manager.platform(alpha)
      expect([permits.inUse, buckets[0]?.used]).toEqual([1, 2])
    }).pipe(withPlatforms(platformOf(alpha, { ...one, requestsPerMinute: 2 })))
  )

  it.effect("ends after `maxWaitMs` with each platform's reason", () =>
    Effect.gen(function* () {
      yield* lease({ candidates: both })
      yield* lease({ candidates: both })
      const waiting = yield* Effect.fork(refusal({ candidates: both, maxWaitMs: 2_000 }))
      yield* TestClock.adjust(1_999)
      expect(yield* Fiber.poll(waiting)).toMatchObject({ _tag: "None" })
      yield* TestClock.adjust(1)
      const error = yield* Fiber.join(waiting)
      expect(error.reasons).toEqual([
        { platform: alpha, reason: "all 1 concurrent attempts are in use", kind: "limit", earliestAt: undefined },
        { platform: beta, reason: "all 1 concurrent attempts are in use", kind: "limit", earliestAt: undefined }
      ])
      expect(error.earliestAt).toBeUndefined()
    }).pipe(withPlatforms(platformOf(alpha, one), platformOf(beta, one)))
  )

  it.effect("of no length is refused at once where nothing is free", () =>
    Effect.gen(function* () {
      yield* lease({ maxWaitMs: 0 })
      expect((yield* refusal({ maxWaitMs: 0 }))._tag).toBe("LeaseUnavailable")
    }).pipe(withPlatforms(platformOf(alpha, one)))
  )

  it.effect("is refused at once where nothing can be free in time, with the earliest instant", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(1_000_000)
      const held = yield* lease()
      yield* held.started([])
      const error = yield* refusal({ maxWaitMs: 60_000 })
      expect(error.earliestAt).toBe(1_060_007)
      expect(error.reasons[0]?.reason).toContain("requests/60s")
      const waiting = yield* Effect.fork(lease({ maxWaitMs: 61_000 }))
      yield* TestClock.adjust(60_007)
      expect((yield* Fiber.join(waiting)).waitedMs).toBe(60_007)
    }).pipe(withPlatforms(platformOf(alpha, { requestsPerMinute: 1 })))
  )

  it.effect("for platforms that are not configured, or for none, is refused at once", () =>
    Effect.gen(function* () {
      const error = yield* refusal({ candidates: [candidate(id("gamma"))] })
      expect(error.reasons).toEqual([{ platform: "gamma", reason: "it is not configured" }])
      expect((yield* refusal({ candidates: [] })).reasons).toEqual([])
    }).pipe(withPlatforms(platformOf(alpha)))
  )
})

describe("the order", () => {
  const order = (jobs: ReadonlyArray<readonly [string, Partial<LeaseRequest>]>, seconds: number) =>
    Effect.gen(function* () {
      const log = yield* Ref.make<ReadonlyArray<string>>([])
      const blocker = yield* lease()
      for (const [name, request] of jobs) {
        yield* Effect.fork(job(log, name, request))
        yield* Effect.yieldNow()
        yield* TestClock.adjust(0)
      }
      yield* blocker.settle(succeeded)
      yield* TestClock.adjust(`${seconds} seconds`)
      return yield* Ref.get(log)
    })

  it.effect("is HIGH, MEDIUM, LOW, and by arrival inside a priority", () =>
    Effect.gen(function* () {
      const jobs = (["LOW", "MEDIUM", "HIGH", "LOW", "MEDIUM", "HIGH"] as const).map(
        (priority, index) => [`${priority}${index}`, { priority }] as const
      )
      expect(yield* order(jobs, 10)).toEqual(["HIGH2", "HIGH5", "MEDIUM1", "MEDIUM4", "LOW0", "LOW3"])
    }).pipe(withPlatforms(platformOf(alpha, one)))
  )

  it.effect("takes turns between tenants inside a priority", () =>
    Effect.gen(function* () {
      const of = (name: string) => [name, { tenant: tenant(name.slice(0, 1)) }] as const
      expect(yield* order(["a1", "a2", "a3", "a4", "b1", "b2", "c1"].map(of), 10)).toEqual([
        "a1",
        "b1",
        "c1",
        "a2",
        "b2",
        "a3",
        "a4"
      ])
    }).pipe(withPlatforms(platformOf(alpha, one)))
  )

  it.effect("keeps the place of a large call: a smaller one behind it does not delay it", () =>
    Effect.gen(function* () {
      const first = yield* lease({ tokens: { input: 0, maxOutput: 4_000 } })
      yield* first.started([])
      yield* first.settle({ _tag: "Succeeded", usage: usageOf(32, 4_000) })
      const large = yield* Effect.fork(lease({ tokens: { input: 0, maxOutput: 8_000 } }))
      yield* TestClock.adjust(30_000)
      const small = yield* Effect.fork(lease({ tokens: { input: 0, maxOutput: 2_100 } }))
      yield* TestClock.adjust(30_006)
      expect([yield* Fiber.poll(large), yield* Fiber.poll(small)]).toMatchObject([{ _tag: "None" }, { _tag: "None" }])
      yield* TestClock.adjust(1)
      const held = yield* Fiber.join(large)
      expect(held.waitedMs).toBe(60_007)
      expect(yield* Fiber.poll(small)).toMatchObject({ _tag: "None" })
      yield* held.settle({ _tag: "Ignored" })
      yield* TestClock.adjust(60_007)
      expect((yield* Fiber.join(small)).waitedMs).toBe(90_014)
    }).pipe(withPlatforms(platformOf(alpha, { tokensPerMinute: 10_000 })))
  )

  it.effect("lets smaller calls use the platforms that a large one does not wait for", () =>
    Effect.gen(function* () {
      for (const only of [alpha, beta]) {
        const held = yield* lease({ candidates: [candidate(only)], tokens: { input: 0, maxOutput: 4_000 } })
        yield* held.started([])
        yield* TestClock.adjust(1_000)
      }
      yield* Effect.fork(lease({ candidates: both, tokens: { input: 0, maxOutput: 8_000 } }))
      yield* TestClock.adjust(1)
      const small = yield* lease({ candidates: both, tokens: { input: 0, maxOutput: 3_000 }, maxWaitMs: 0 })
      expect(small.platform).toBe(beta)
    }).pipe(
      withPlatforms(platformOf(alpha, { tokensPerMinute: 10_000 }), platformOf(beta, { tokensPerMinute: 10_000 }))
    )
  )
})

describe("a failure changes its own scope only", () => {
  const afterFailure = (failure: Parameters<typeof failWith>[0]) =>
    Effect.gen(function* () {
      const held = yield* lease()
      yield* held.settle(failWith(failure))
      return yield* platform()
    })

  it.effect("quota: the platform rests as the provider says, and its breaker does not count it", () =>
    Effect.gen(function* () {
      for (let index = 0; index < 5; index++) {
        const held = yield* lease({ maxWaitMs: 60_000 }).pipe(
          Effect.fork,
          Effect.tap(() => TestClock.adjust(index === 0 ? 0 : 5_000)),
          Effect.flatMap(Fiber.join)
        )
        yield* held.settle(failWith(quotaFailure({ retryAfterMs: 5_000 })))
      }
      const after = yield* platform()
      expect(after.breaker).toMatchObject({ state: "closed", consecutiveFailures: 0 })
      expect(after.exhaustedUntil).toBe(25_000)
      expect(yield* platform(beta)).toMatchObject({ permits: { inUse: 0 }, breaker: { consecutiveFailures: 0 } })
      expect((yield* platform(beta)).exhaustedUntil).toBeUndefined()
      expect((yield* refusal({ maxWaitMs: 4_000 })).reasons[0]).toMatchObject({
        reason: "its quota is used up, as the provider says",
        earliestAt: 25_000
      })
      expect((yield* lease({ candidates: both })).platform).toBe(beta)
    }).pipe(withPlatforms(platformOf(alpha), platformOf(beta)))
  )

  it.effect("credential: nothing here; who watches health takes the platform out", () =>
    Effect.gen(function* () {
      expect(yield* afterFailure(credentialFailure())).toMatchObject({
        breaker: { state: "closed", consecutiveFailures: 0 },
        exhaustedUntil: undefined,
        permits: { inUse: 0 }
      })
    }).pipe(withPlatforms(platformOf(alpha)))
  )

  it.effect("platform: its breaker opens, probes, and closes; transitions are published", () =>
    Effect.gen(function* () {
      const manager = yield* ResourceManager
      const transitions = yield* Effect.fork(Stream.runCollect(Stream.take(manager.transitions, 5)))
      yield* TestClock.adjust(0)
      for (let index = 0; index < 3; index++) yield* afterFailure(platformFailure())
      const opened = (yield* platform()).breaker
      expect(opened.state).toBe("open")
      expect(opened.probesAt).toBeGreaterThanOrEqual(10_000)
      expect(opened.probesAt).toBeLessThanOrEqual(11_000)
      expect((yield* lease({ candidates: both })).platform).toBe(beta)
      expect((yield* refusal({ maxWaitMs: 9_000 })).reasons[0]?.reason).toBe("its circuit breaker is open")

      const waiting = yield* Effect.fork(Effect.scoped(Effect.replicateEffect(lease(), 2)))
      yield* TestClock.adjust(11_000)
      expect((yield* platform()).permits.inUse).toBe(1)
      expect((yield* platform()).breaker.state).toBe("half-open")
      yield* Fiber.interrupt(waiting)

      const probe = yield* Effect.fork(lease())
      yield* TestClock.adjust(11_000)
      yield* (yield* Fiber.join(probe)).settle(failWith(platformFailure()))
      yield* TestClock.adjust(22_000)
      yield* (yield* lease()).settle(succeeded)
      const seen = Chunk.toReadonlyArray(yield* Fiber.join(transitions))
      expect(seen.map(({ from, to }) => `${from} ${to}`)).toEqual([
        "closed open",
        "open half-open",
        "half-open open",
        "open half-open",
        "half-open closed"
      ])
      expect(seen[0]).toMatchObject({ platform: alpha, at: 0, why: "3 failures in a row, the last: server: sick" })
    }).pipe(withPlatforms(platformOf(alpha), platformOf(beta)))
  )
})

describe("out of service", () => {
  const out = (reason: string, until?: number) => ({ reason, until })

  it.effect("a platform gets no calls until it is back, and wakes those that wait", () =>
    Effect.gen(function* () {
      const manager = yield* ResourceManager
      yield* lease({ candidates: [candidate(beta)] })
      yield* manager.setOut({ platform: alpha }, out("its key is refused"))
      const waiting = yield* Effect.fork(lease({ candidates: both }))
      yield* TestClock.adjust(7_000)
      expect(yield* Fiber.poll(waiting)).toMatchObject({ _tag: "None" })
      yield* manager.setOut({ platform: alpha }, undefined)
      expect((yield* Fiber.join(waiting)).waitedMs).toBe(7_000)
    }).pipe(withPlatforms(platformOf(alpha), platformOf(beta, one)))
  )

  it.effect("by hand and for its health, each until it is taken back itself", () =>
    Effect.gen(function* () {
      const manager = yield* ResourceManager
      const ann = TenantId.make("ann")
      const obstacles = Effect.map(refusal(), ({ reasons }) => reasons.map(({ reason }) => reason))
      const running = yield* lease()
      yield* manager.patch(alpha, { drained: true, reason: "its bill is due" }, ann)
      yield* manager.setOut({ platform: alpha }, out("its key is refused"))
      expect(yield* obstacles).toEqual(["drained by ann: its bill is due"])
      yield* manager.setOut({ platform: alpha }, undefined)
      expect(yield* obstacles).toEqual(["drained by ann: its bill is due"])
      yield* manager.setOut({ platform: alpha }, out("its key is refused"))
      yield* manager.patch(alpha, { drained: false }, ann)
      expect(yield* obstacles).toEqual(["its key is refused"])
      yield* manager.setOut({ platform: alpha }, undefined)
      // What ran all along was not touched.
      yield* running.settle({ _tag: "Ignored" })
      expect((yield* lease()).platform).toBe(alpha)
    }).pipe(withPlatforms(platformOf(alpha)))
  )

  it.effect("by hand: whoever waits for it alone goes at once when it is resumed", () =>
    Effect.gen(function* () {
      const manager = yield* ResourceManager
      const ann = TenantId.make("ann")
      yield* lease({ candidates: [candidate(beta)] })
      yield* manager.patch(alpha, { drained: true }, ann)
      const waiting = yield* Effect.fork(lease({ candidates: both }))
      yield* TestClock.adjust(7_000)
      yield* manager.patch(alpha, { drained: false }, ann)
      expect(yield* Fiber.join(waiting)).toMatchObject({ platform: alpha, waitedMs: 7_000 })
    }).pipe(withPlatforms(platformOf(alpha), platformOf(beta, one)))
  )

  it.effect("all of them, with no known return: a call is refused at once, those that wait too", () =>
    Effect.gen(function* () {
      const manager = yield* ResourceManager
      yield* lease()
      const waiting = yield* Effect.fork(refusal())
      yield* TestClock.adjust(1)
      yield* manager.setOut({ platform: alpha }, out("its key is refused"))
      expect((yield* Fiber.join(waiting)).reasons).toEqual([
        { platform: alpha, reason: "its key is refused", kind: "out", earliestAt: undefined }
      ])
      expect((yield* refusal()).message).toContain("its key is refused")
    }).pipe(withPlatforms(platformOf(alpha, one)))
  )

  it.effect("with a known return: waits for it where there is time", () =>
    Effect.gen(function* () {
      const manager = yield* ResourceManager
      yield* manager.setOut({ platform: alpha }, out("drained", 30_000))
      expect((yield* refusal({ maxWaitMs: 29_999 })).earliestAt).toBe(30_000)
      const waiting = yield* Effect.fork(lease())
      yield* TestClock.adjust(30_000)
      expect((yield* Fiber.join(waiting)).waitedMs).toBe(30_000)
    }).pipe(withPlatforms(platformOf(alpha)))
  )

  it.effect("one model only: the others of the platform go on", () =>
    Effect.gen(function* () {
      const manager = yield* ResourceManager
      yield* manager.setOut({ platform: alpha, model: "large" }, out("the model is unknown there"))
      const large = candidate(alpha, 1, undefined, "large")
      expect((yield* refusal({ candidates: [large] })).reasons[0]?.reason).toBe("the model is unknown there")
      expect((yield* lease({ candidates: [large, candidate(alpha)] })).model).toBe("small")
    }).pipe(withPlatforms(platformOf(alpha)))
  )

  it.effect("until an instant of the wall clock: notices within ten minutes that the clock was set", () =>
    Effect.gen(function* () {
      const { clock, jump, jumping } = yield* jumpingClock
      yield* Effect.gen(function* () {
        const manager = yield* ResourceManager
        yield* manager.setExhausted(alpha, { window: "quota", until: 5 * 3_600_000, why: "it says so" })
        const waiting = yield* Effect.fork(lease({ maxWaitMs: 6 * 3_600_000 }))
        yield* Effect.withClock(TestClock.adjust("1 minute"), clock)
        jump(5 * 3_600_000)
        yield* Effect.withClock(TestClock.adjust("10 minutes"), clock)
        expect((yield* Fiber.join(waiting)).waitedMs).toBeLessThanOrEqual(660_000)
      }).pipe(withPlatforms(platformOf(alpha)), Effect.withClock(jumping))
    })
  )

  it.effect("a used-up quota: the later instant holds, and those that wait wake at it", () =>
    Effect.gen(function* () {
      const manager = yield* ResourceManager
      yield* manager.setExhausted(alpha, { window: "quota", until: 40_000, why: "it says so" })
      yield* manager.setExhausted(alpha, { window: "quota", until: 10_000, why: "it says so" })
      expect((yield* platform()).exhaustedUntil).toBe(40_000)
      const waiting = yield* Effect.fork(lease())
      yield* TestClock.adjust(40_000)
      expect((yield* Fiber.join(waiting)).waitedMs).toBe(40_000)
    }).pipe(withPlatforms(platformOf(alpha)))
  )
})

describe("under load", () => {
  it.effect("shows every limit, permit and queue", () =>
    Effect.gen(function* () {
      const manager = yield* ResourceManager
      const held = yield* lease({ tokens: { input: 100, maxOutput: 500 } })
      yield* held.started([{ unit: "requests", remaining: 7, resetsInMs: 10_000 }])
      yield* Effect.fork(lease({ priority: "LOW" }))
      yield* TestClock.adjust(2_500)
      expect(yield* manager.view).toMatchObject({
        platforms: [
          {
            platform: alpha,
            buckets: [
              {
                name: "requests/60s",
                unit: "requests",
                capacity: 10,
                used: 3,
                level: 7,
                nextRefillAt: 10_000,
                source: "configured"
              },
              { name: "tokens/60s", unit: "tokens", tokensCounted: "reserved", capacity: 5_000, used: 732 }
            ],
            permits: { inUse: 1, max: 1 },
            breaker: { state: "closed", consecutiveFailures: 0 }
          }
        ],
        queue: { HIGH: { depth: 0 }, MEDIUM: { depth: 0 }, LOW: { depth: 1, oldestWaitMs: 2_500 } }
      })
    }).pipe(withPlatforms(platformOf(alpha, { ...one, requestsPerMinute: 10, tokensPerMinute: 5_000 })))
  )

  it.effect("hands a permit on when the scope of its holder ends, once", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const held = yield* Scope.extend(lease(), scope)
      const waiting = yield* Effect.fork(Effect.either(lease({ maxWaitMs: 1_000 })))
      yield* TestClock.adjust(0)
      yield* Scope.close(scope, Exit.void)
      expect(Either.isRight(yield* Fiber.join(waiting))).toBe(true)
      yield* held.settle(succeeded)
      expect((yield* platform()).permits.inUse).toBe(1)
    }).pipe(withPlatforms(platformOf(alpha, one)))
  )
})
