import { assert, describe, it } from "@effect/vitest"
import { Chunk, Effect, Fiber, Random, type Scope, Stream, TestClock } from "effect"
import type { Benchmark } from "../../src/Benchmark.js"
import { Delegation, type DelegationRequest, type Journal } from "../../src/Delegation.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { PlatformDetector } from "../../src/PlatformDetector.js"
import { ResourceManager } from "../../src/ResourceManager.js"
import type { SettingsOptions } from "../../src/Settings.js"
import * as Testing from "../../src/Testing.js"
import { delegating, request } from "./harness.js"

const { answer, fail, failures, hang, pass } = Testing

const id = (name: string) => PlatformId.make(name)

interface Bench {
  /** `<ms since the start> <platform> <outcome>` of every attempt, as it ends. */
  readonly trace: Array<string>
  readonly delegate: (over?: Partial<DelegationRequest<never>>) => ReturnType<typeof Delegation.Service.delegate<never>>
}

/** Everything real but the platforms. */
const run = <A, E>(
  scripts: ReadonlyArray<Testing.Script>,
  body: (
    bench: Bench
  ) => Effect.Effect<
    A,
    E,
    Delegation | PlatformDetector | ResourceManager | Benchmark | Testing.Received | Scope.Scope
  >,
  options: Omit<SettingsOptions, "platforms"> = {}
) =>
  Effect.gen(function* () {
    const trace: Array<string> = []
    const { delegate } = yield* Delegation
    const clock = yield* Effect.clock
    const start = clock.unsafeCurrentTimeMillis()
    const journal: Journal<never> = {
      attemptStarted: () => Effect.void,
      attemptEnded: ({ platform, result }) =>
        Effect.sync(() => {
          trace.push(`${clock.unsafeCurrentTimeMillis() - start} ${platform} ${result._tag}`)
        })
    }
    return yield* body({
      trace,
      delegate: (over) => delegate(request(journal, { deadline: clock.unsafeCurrentTimeMillis() + 600_000, ...over }))
    })
  }).pipe(Effect.provide(delegating(scripts, ResourceManager.layer, options)), Effect.scoped, (effect) =>
    Effect.suspend(() => Effect.withRandom(effect, Random.make("seed")))
  )

const inFlight = (name: string) =>
  Effect.gen(function* () {
    const resources = yield* ResourceManager
    return (yield* resources.platform(id(name))).permits.inUse
  })

describe("the main path", () => {
  it.effect("waits for a bucket's refill and goes at that instant", () =>
    run([{ id: "codex", settings: { limits: { requestsPerMinute: 2, burst: 2 } } }], ({ delegate, trace }) =>
      Effect.gen(function* () {
        const fibers = yield* Effect.forEach([1, 2, 3], () => Effect.fork(delegate({ priority: "HIGH" })))
        yield* TestClock.adjust("59 seconds")
        assert.deepStrictEqual(trace, ["0 codex Succeeded", "0 codex Succeeded"])
        yield* TestClock.adjust("2 seconds")
        yield* Fiber.joinAll(fibers)
        assert.strictEqual(trace.length, 3)
      })
    )
  )

  it.effect("sends nothing more to a platform whose key was just refused, though its permit is free", () =>
    run(
      [
        {
          id: "codex",
          attempts: [fail(failures.credential(), { afterMs: 100 })],
          settings: { weight: 10, limits: { maxConcurrent: 1 } }
        },
        { id: "qwen", attempts: [answer("yes", { afterMs: 1_000 })], settings: { limits: { maxConcurrent: 1 } } }
      ],
      ({ delegate, trace }) =>
        Effect.gen(function* () {
          const fibers = yield* Effect.forEach([1, 2, 3, 4], () => Effect.fork(delegate()))
          yield* TestClock.adjust("10 seconds")
          yield* Fiber.joinAll(fibers)
          assert.strictEqual(trace.filter((line) => line.includes("codex")).length, 1)
        })
    )
  )

  it.effect("does not wait for another platform's far reset where one may be free at any moment", () =>
    run(
      [
        { id: "codex", attempts: [hang], settings: { limits: { maxConcurrent: 1 } } },
        {
          id: "qwen",
          attempts: [fail(failures.model({ resetsAt: 18_000_000 }))],
          settings: { weight: 10 }
        }
      ],
      ({ delegate }) =>
        Effect.gen(function* () {
          const busy = yield* Effect.fork(delegate())
          const waiting = yield* Effect.fork(Effect.flip(delegate({ maxWaitMs: 30_000 })))
          yield* TestClock.adjust("30 seconds")
          const error = yield* Fiber.join(waiting)
          assert.strictEqual(error._tag, "LeaseUnavailable")
          if (error._tag === "LeaseUnavailable") assert.isUndefined(error.earliestAt)
          yield* Fiber.interrupt(busy)
        })
    )
  )

  it.effect("names no reset beyond the deadline where a refused key may be mended before", () =>
    run(
      [
        { id: "codex", attempts: [fail(failures.credential())], settings: { weight: 10 } },
        { id: "qwen", attempts: [fail(failures.quota({ reason: "window", resetsAt: 86_400_000 }))] }
      ],
      ({ delegate }) =>
        Effect.gen(function* () {
          const error = yield* Effect.flip(delegate())
          assert.strictEqual(error._tag, "LeaseUnavailable")
          if (error._tag === "LeaseUnavailable") {
            assert.isUndefined(error.earliestAt)
            assert.deepStrictEqual(
              error.reasons.map(({ earliestAt }) => earliestAt),
              [86_400_000, undefined]
            )
          }
          const later = yield* Effect.flip(delegate({ deadline: 172_800_000 }))
          assert.strictEqual(later._tag === "LeaseUnavailable" && later.earliestAt, 86_400_000)
        })
    )
  )

  it.effect("opens the breaker, probes it half-open, closes it", () =>
    run(
      [
        {
          id: "codex",
          attempts: [fail(failures.platform()), fail(failures.platform()), answer("back")],
          settings: { breaker: { failures: 2, openMs: 30_000 } }
        }
      ],
      ({ delegate, trace }) =>
        Effect.gen(function* () {
          const { transitions } = yield* ResourceManager
          const seen = yield* Effect.forkScoped(Stream.runCollect(Stream.take(transitions, 3)))
          yield* Effect.yieldNow()
          const fiber = yield* Effect.fork(delegate())
          yield* TestClock.adjust("1 second")
          assert.deepStrictEqual(
            trace.map((line) => line.split(" ").slice(1).join(" ")),
            ["codex Failed", "codex Failed"]
          )
          const detector = yield* PlatformDetector
          assert.deepStrictEqual((yield* detector.health(id("codex"))).reasons, ["its circuit breaker is open"])
          yield* TestClock.adjust("1 minute")
          assert.strictEqual((yield* Fiber.join(fiber)).completion.text, "back")
          assert.deepStrictEqual(
            Chunk.toReadonlyArray(yield* Fiber.join(seen)).map(({ from, to }) => `${from} to ${to}`),
            ["closed to open", "open to half-open", "half-open to closed"]
          )
          assert.strictEqual((yield* detector.health(id("codex"))).status, "available")
        })
    )
  )

  it.effect("gives up a wait that cannot end before the deadline, at once and with the reason", () =>
    run([{ id: "codex", settings: { limits: { requestsPerMinute: 1, burst: 1 } } }], ({ delegate }) =>
      Effect.gen(function* () {
        yield* delegate()
        const error = yield* Effect.flip(delegate({ deadline: 30_000 }))
        assert.strictEqual(error._tag, "LeaseUnavailable")
        if (error._tag === "LeaseUnavailable") {
          assert.deepStrictEqual(
            error.reasons.map(({ platform }) => platform),
            [id("codex")]
          )
          assert.isAtLeast(error.earliestAt ?? 0, 60_000)
        }
      })
    )
  )

  it.effect("never waits for a failed platform while another is free", () =>
    run(
      [
        { id: "sick", attempts: [fail(failures.platform({ retryAfterMs: 50_000 }))], settings: { weight: 10 } },
        { id: "well", attempts: [answer("here")] }
      ],
      ({ delegate, trace }) =>
        Effect.gen(function* () {
          assert.strictEqual((yield* delegate()).platform, id("well"))
          assert.deepStrictEqual(trace, ["0 sick Failed", "0 well Succeeded"])
        })
    )
  )

  it.effect("holds a platform back until its quota resets, and uses another meanwhile", () =>
    run(
      [
        {
          id: "spent",
          attempts: [fail(failures.quota({ reason: "window", resetsAt: 120_000 })), answer("again")],
          settings: { weight: 10 }
        },
        { id: "other" }
      ],
      ({ delegate, trace }) =>
        Effect.gen(function* () {
          yield* delegate()
          yield* delegate()
          assert.deepStrictEqual(trace, ["0 spent Failed", "0 other Succeeded", "0 other Succeeded"])
          const waiting = yield* Effect.fork(
            delegate({ requirement: { capabilities: [], contextTokens: 200, platform: id("spent") } })
          )
          yield* TestClock.adjust("119 seconds")
          assert.strictEqual(trace.length, 3)
          yield* TestClock.adjust("2 seconds")
          assert.strictEqual((yield* Fiber.join(waiting)).completion.text, "again")
        })
    )
  )

  it.effect("fails at once when every key is refused, and goes on when a check passes", () =>
    run(
      [
        { id: "first", attempts: [fail(failures.credential()), answer("paid")] },
        { id: "second", attempts: [fail(failures.credential("unpaid"))], checks: [pass(), hang] }
      ],
      ({ delegate }) =>
        Effect.gen(function* () {
          yield* TestClock.adjust(0)
          assert.strictEqual((yield* Effect.flip(delegate()))._tag, "LeaseUnavailable")
          const again = yield* Effect.flip(delegate())
          assert.strictEqual(again._tag, "LeaseUnavailable")
          if (again._tag === "LeaseUnavailable") {
            assert.deepStrictEqual(again.reasons.map(({ platform, reason }) => `${platform}: ${reason}`).sort(), [
              "first: its key is refused: the key is wrong",
              "second: its key is refused: unpaid"
            ])
          }
          yield* TestClock.adjust("80 seconds")
          assert.strictEqual((yield* delegate()).completion.text, "paid")
        })
    )
  )

  it.effect("gives every permit back: after answers, failures, deadlines and interruptions none is in use", () =>
    run(
      [
        {
          id: "codex",
          attempts: ({ number }) =>
            number % 4 === 0
              ? hang
              : number % 4 === 1
                ? fail(failures.quota({ reason: "concurrency", retryAfterMs: 10 }), { afterMs: 20 })
                : number % 4 === 2
                  ? fail(failures.platform(), { afterMs: 30 })
                  : answer("yes", { afterMs: 40 }),
          settings: { limits: { maxConcurrent: 3 }, breaker: { failures: 1_000, openMs: 1 } }
        }
      ],
      ({ delegate }) =>
        Effect.gen(function* () {
          const fibers = yield* Effect.forEach(Array.from({ length: 20 }), () =>
            Effect.fork(Effect.exit(delegate({ deadline: 10_000 })))
          )
          yield* TestClock.adjust("3 seconds")
          assert.isAbove(yield* inFlight("codex"), 0)
          yield* Effect.forEach(fibers.slice(0, 5), Fiber.interrupt)
          yield* TestClock.adjust("10 seconds")
          yield* Fiber.joinAll(fibers.slice(5))
          assert.strictEqual(yield* inFlight("codex"), 0)
          const { calls } = yield* Testing.Received
          assert.isTrue((yield* calls).every(({ state }) => state !== "open"))
        })
    )
  )

  it.effect("keeps calls of one key together, and alternates between equals without", () =>
    run([{ id: "codex" }, { id: "gemini" }], ({ delegate }) =>
      Effect.gen(function* () {
        const went = (affinityKey?: string) =>
          Effect.map(
            delegate({ requirement: { capabilities: [], contextTokens: 200, affinityKey } }),
            ({ platform }) => platform
          )
        const without = yield* Effect.replicateEffect(went(), 4)
        assert.deepStrictEqual(without.map(String), ["codex", "gemini", "codex", "gemini"])
        const together = yield* Effect.replicateEffect(went("session"), 4)
        assert.strictEqual(new Set(together).size, 1)
      })
    )
  )

  it.effect("does the same at the same instants with the same seed", () => {
    const flaky = (id: string): Testing.Script => ({
      id,
      attempts: ({ number }) =>
        number % 3 === 1
          ? fail(failures.platform(), { afterMs: 120 })
          : number % 5 === 0
            ? fail(failures.quota({ retryAfterMs: 900 }), { afterMs: 15 })
            : answer("yes", { afterMs: 200 }),
      settings: { limits: { requestsPerMinute: 6, burst: 2, maxConcurrent: 2 } }
    })
    const once = run(
      [flaky("codex"), flaky("gemini"), flaky("qwen")],
      ({ delegate, trace }) =>
        Effect.gen(function* () {
          const fibers = yield* Effect.forEach(Array.from({ length: 9 }), (_, index) =>
            Effect.fork(
              Effect.exit(delegate({ priority: index % 3 === 0 ? "HIGH" : index % 3 === 1 ? "MEDIUM" : "LOW" }))
            )
          )
          yield* TestClock.adjust("4 minutes")
          yield* Fiber.joinAll(fibers)
          return trace
        }),
      { health: { intervalMs: 3_600_000 } }
    )
    return Effect.gen(function* () {
      const first = yield* once
      assert.isAtLeast(first.length, 12)
      assert.deepStrictEqual(yield* once, first)
    })
  })
})
