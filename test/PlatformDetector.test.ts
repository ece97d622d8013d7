import { assert, describe, it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Fiber, Layer, Option, Random, type Scope, Stream, TestClock } from "effect"
import { Benchmark } from "../src/Benchmark.js"
import type { AttemptFailure } from "../src/Domain/Failure.js"
import { PlatformId } from "../src/Domain/Platform.js"
import { PlatformDetector } from "../src/PlatformDetector.js"
import { Platforms } from "../src/Platforms.js"
import { Settings } from "../src/Settings.js"
import * as Testing from "../src/Testing.js"
import * as ScriptedResources from "./Delegation/scriptedResources.js"

const codex = PlatformId.make("codex")

/** Interval 60 s, so that a check comes after 48 to 72 s, after 9.6 to 14.4 s where something is wrong. */
const health = { intervalMs: 60_000, timeoutMs: 5_000 }

const run = <A, E>(
  scripts: ReadonlyArray<Testing.Script>,
  body: (
    told: ScriptedResources.Told
  ) => Effect.Effect<A, E, PlatformDetector | Benchmark | Testing.Received | Scope.Scope>
) =>
  Effect.gen(function* () {
    const { layer, told } = yield* ScriptedResources.make
    return yield* body(told).pipe(
      Effect.provide(
        PlatformDetector.layer.pipe(
          Layer.provideMerge(Layer.mergeAll(Benchmark.layer, Testing.platforms(scripts))),
          Layer.provide(layer),
          Layer.provide(Settings.layer(Testing.settings(scripts, { health })))
        )
      )
    )
  }).pipe(Effect.scoped, (effect) => Effect.suspend(() => Effect.withRandom(effect, Random.make("seed"))))

const statusOf = (platform = codex) =>
  Effect.gen(function* () {
    const detector = yield* PlatformDetector
    const { reasons, status } = yield* detector.health(platform)
    return [status, ...reasons]
  })

const failed = (failing: Testing.Failing): { readonly _tag: "Failed"; readonly failure: AttemptFailure } => ({
  _tag: "Failed",
  failure: failing(codex, "codex-model")
})

const report = (outcome: { readonly _tag: "Succeeded" } | ReturnType<typeof failed>, model = "codex-model") =>
  Effect.flatMap(PlatformDetector, (detector) => detector.report(codex, model, outcome))

const checks = Effect.flatMap(Testing.Received, (received) => received.checks("codex"))

const { breakWith, fail, failures, hang, pass } = Testing

describe("PlatformDetector", () => {
  it.effect("knows nothing until the first check, which comes at once", () =>
    run([{ id: "codex", checks: [pass({ afterMs: 100 })] }], () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* statusOf(), ["unknown", "it has not been checked yet"])
        yield* TestClock.adjust(100)
        assert.deepStrictEqual(yield* statusOf(), ["available"])
      })
    )
  )

  it.effect("checks about once an interval, sooner after a failure", () =>
    run([{ id: "codex", checks: [pass(), fail(failures.platform()), pass()] }], () =>
      Effect.gen(function* () {
        yield* TestClock.adjust("47 seconds")
        assert.strictEqual(yield* checks, 1)
        yield* TestClock.adjust("25 seconds")
        assert.strictEqual(yield* checks, 2)
        assert.deepStrictEqual(yield* statusOf(), ["degraded", "its last health check failed: the platform is down"])
        yield* TestClock.adjust("15 seconds")
        assert.strictEqual(yield* checks, 3)
        assert.deepStrictEqual(yield* statusOf(), ["available"])
      })
    )
  )

  it.effect("takes a platform out after two failed checks in a row and brings it back with the first that passes", () =>
    run(
      [{ id: "codex", checks: [fail(failures.platform()), fail(failures.platform()), pass()] }, { id: "gemini" }],
      (told) =>
        Effect.gen(function* () {
          yield* TestClock.adjust(0)
          assert.deepStrictEqual(told.outs, [])
          yield* TestClock.adjust("15 seconds")
          assert.deepStrictEqual(yield* statusOf(), [
            "unavailable",
            "2 health checks in a row failed: the platform is down"
          ])
          assert.deepStrictEqual(told.outs, [["codex", "its health checks fail: the platform is down"]])
          assert.deepStrictEqual(yield* statusOf(PlatformId.make("gemini")), ["available"])
          yield* TestClock.adjust("15 seconds")
          assert.deepStrictEqual(yield* statusOf(), ["available"])
          assert.deepStrictEqual(told.outs[1], ["codex", undefined])
        })
    )
  )

  it.effect("counts a check that hangs as failed, and goes on", () =>
    run([{ id: "codex", checks: [hang, hang, pass()] }], () =>
      Effect.gen(function* () {
        yield* TestClock.adjust("5 seconds")
        assert.deepStrictEqual(yield* statusOf(), [
          "degraded",
          "its last health check failed: no answer to the health check within 5000 ms"
        ])
        yield* TestClock.adjust("20 seconds")
        assert.strictEqual((yield* statusOf())[0], "unavailable")
        yield* TestClock.adjust("15 seconds")
        assert.deepStrictEqual(yield* statusOf(), ["available"])
      })
    )
  )

  it.effect("starts no further check while one that cannot be interrupted is still at work", () => {
    let started = 0
    const stuck = Layer.effect(
      Platforms,
      Effect.map(Platforms, ({ all }) => {
        const clients = all.map((client) => ({
          ...client,
          check: Effect.uninterruptible(
            Effect.zipRight(
              Effect.sync(() => {
                started += 1
              }),
              Effect.never
            )
          )
        }))
        return { all: clients, get: () => Option.fromNullable(clients[0]) }
      })
    )
    return Effect.gen(function* () {
      const { layer } = yield* ScriptedResources.make
      const scripts = [{ id: "codex" }]
      yield* Effect.gen(function* () {
        yield* TestClock.adjust("2 minutes")
        assert.strictEqual(started, 1)
        const [status, reason] = yield* statusOf()
        assert.strictEqual(status, "unavailable")
        assert.include(reason, "the health check before this one has not ended yet")
      }).pipe(
        Effect.provide(
          PlatformDetector.layer.pipe(
            Layer.provide(
              Layer.mergeAll(Benchmark.layer, layer, stuck.pipe(Layer.provide(Testing.platforms(scripts))))
            ),
            Layer.provide(Settings.layer(Testing.settings(scripts, { health })))
          )
        )
      )
    })
  })

  it.effect("counts a check that dies as failed, and goes on", () =>
    run([{ id: "codex", checks: [breakWith(new Error("a bug")), pass()] }], () =>
      Effect.gen(function* () {
        yield* TestClock.adjust(0)
        assert.deepStrictEqual(yield* statusOf(), [
          "degraded",
          "its last health check failed: the health check broke; the log says how"
        ])
        yield* TestClock.adjust("15 seconds")
        assert.deepStrictEqual(yield* statusOf(), ["available"])
      })
    )
  )

  it.effect("outlives a defect of its own", () =>
    run([{ id: "codex" }], (told) =>
      Effect.gen(function* () {
        told.breakNextLook = true
        yield* TestClock.adjust(0)
        assert.isFalse(told.breakNextLook)
        yield* TestClock.adjust("3 minutes")
        assert.deepStrictEqual(yield* statusOf(), ["available"])
        assert.isAtLeast(yield* checks, 2)
      })
    )
  )

  it.effect("needs no check of a platform that answers real attempts", () =>
    run([{ id: "codex" }], () =>
      Effect.gen(function* () {
        yield* TestClock.adjust(0)
        for (let n = 0; n < 20; n++) {
          yield* report({ _tag: "Succeeded" })
          yield* TestClock.adjust("30 seconds")
        }
        assert.strictEqual(yield* checks, 1)
        yield* TestClock.adjust("2 minutes")
        assert.isAtLeast(yield* checks, 2)
      })
    )
  )

  it.effect("checks soon after a real attempt failed by the platform's fault", () =>
    run([{ id: "codex" }], () =>
      Effect.gen(function* () {
        yield* TestClock.adjust(0)
        yield* report({ _tag: "Succeeded" })
        yield* report(failed(failures.platform()))
        yield* TestClock.adjust("15 seconds")
        assert.strictEqual(yield* checks, 2)
      })
    )
  )

  it.effect("takes a platform out when its key is refused, until a check passes", () =>
    run([{ id: "codex" }], (told) =>
      Effect.gen(function* () {
        yield* TestClock.adjust(0)
        yield* report(failed(failures.credential()))
        assert.deepStrictEqual(yield* statusOf(), ["unavailable", "its key is refused: the key is wrong"])
        assert.deepStrictEqual(told.outs, [["codex", "its key is refused: the key is wrong"]])
        yield* TestClock.adjust("75 seconds")
        assert.deepStrictEqual(yield* statusOf(), ["available"])
        assert.deepStrictEqual(told.outs[1], ["codex", undefined])
      })
    )
  )

  it.effect("asks for more passing checks each time a key that passes checks is refused again", () =>
    run([{ id: "codex" }], (told) =>
      Effect.gen(function* () {
        const { check } = yield* PlatformDetector
        yield* TestClock.adjust(0)
        for (const needed of [1, 2, 4]) {
          yield* report(failed(failures.credential()))
          yield* report(failed(failures.credential()))
          for (let n = 1; n < needed; n++) assert.strictEqual((yield* check(codex)).status, "unavailable")
          assert.strictEqual((yield* check(codex)).status, "available")
        }
        yield* report({ _tag: "Succeeded" })
        yield* report(failed(failures.credential()))
        assert.strictEqual((yield* check(codex)).status, "available")
        assert.strictEqual(told.outs.length, 8)
      })
    )
  )

  it.effect("takes a platform out when a check finds its key refused", () =>
    run([{ id: "codex", checks: [fail(failures.credential()), pass()] }], (told) =>
      Effect.gen(function* () {
        yield* TestClock.adjust(0)
        assert.deepStrictEqual(told.outs, [["codex", "its key is refused: the key is wrong"]])
        yield* TestClock.adjust("75 seconds")
        assert.deepStrictEqual(yield* statusOf(), ["available"])
      })
    )
  )

  it.effect("takes out one model alone, until its lockout ends or it answers", () =>
    run([{ id: "codex" }], (told) =>
      Effect.gen(function* () {
        yield* TestClock.adjust(0)
        yield* report(failed(failures.model({ resetsAt: 60_000 })), "other")
        assert.deepStrictEqual(yield* statusOf(), [
          "degraded",
          "its model other is out until 1970-01-01T00:01:00.000Z: the model is unknown"
        ])
        yield* report(failed(failures.model()))
        assert.deepStrictEqual((yield* statusOf())[0], "unavailable")
        yield* report({ _tag: "Succeeded" })
        yield* TestClock.adjust("60 seconds")
        assert.deepStrictEqual(yield* statusOf(), ["available"])
        assert.deepStrictEqual(told.outs, [
          ["codex/other", "the model is unknown"],
          ["codex/codex-model", "the model is unknown"],
          ["codex/codex-model", undefined]
        ])
      })
    )
  )

  it.effect("passes on that a quota is used up, and does not call that sick", () =>
    run(
      [
        {
          id: "codex",
          checks: [pass({ exhaustedUntil: 100_000 }), fail(failures.quota({ reason: "window", resetsAt: 200_000 }))]
        }
      ],
      (told) =>
        Effect.gen(function* () {
          yield* TestClock.adjust("75 seconds")
          assert.deepStrictEqual(told.exhausted, [
            [codex, 100_000],
            [codex, 200_000]
          ])
          assert.deepStrictEqual(told.outs, [])
          assert.deepStrictEqual(yield* statusOf(), ["available"])
        })
    )
  )

  it.effect("is degraded by an error rate above a fifth, or a breaker that is not closed", () =>
    run([{ id: "codex" }], (told) =>
      Effect.gen(function* () {
        const benchmark = yield* Benchmark
        yield* TestClock.adjust(0)
        const record = (outcome: "succeeded" | "platform-failure") =>
          benchmark.record({ platform: codex, model: "m", type: "analysis", outcome, durationMs: 1, tokens: 1 })
        for (let n = 0; n < 4; n++) yield* record("platform-failure")
        assert.deepStrictEqual(yield* statusOf(), ["available"])
        yield* record("platform-failure")
        assert.deepStrictEqual(yield* statusOf(), ["degraded", "100 % of its last 5 attempts failed"])
        for (let n = 0; n < 20; n++) yield* record("succeeded")
        assert.deepStrictEqual(yield* statusOf(), ["available"])
        told.breaker = "open"
        assert.deepStrictEqual(yield* statusOf(), ["degraded", "its circuit breaker is open"])
      })
    )
  )

  it.effect("checks soon after a breaker opened", () =>
    run([{ id: "codex" }], (told) =>
      Effect.gen(function* () {
        yield* TestClock.adjust(0)
        yield* report({ _tag: "Succeeded" })
        told.breaker = "open"
        yield* told.transition({ platform: codex, from: "closed", to: "open", at: 0, why: "5 failures" })
        yield* TestClock.adjust("15 seconds")
        assert.strictEqual(yield* checks, 2)
      })
    )
  )

  it.effect("checks at once when asked, one check at a time, and answers everybody who asked", () =>
    run([{ id: "codex", checks: [pass({ afterMs: 1_000 })] }], () =>
      Effect.gen(function* () {
        const { check } = yield* PlatformDetector
        yield* TestClock.adjust("2 seconds")
        const asked = yield* Effect.fork(
          Effect.all(
            Array.from({ length: 50 }, () => check(codex)),
            { concurrency: "unbounded" }
          )
        )
        yield* TestClock.adjust("2 seconds")
        const answers = yield* Fiber.join(asked)
        assert.strictEqual(answers.length, 50)
        assert.strictEqual(yield* checks, 2)
        assert.strictEqual(answers[0]?.status, "available")
        assert.strictEqual(answers[0]?.checkedAt, 3_000)
      })
    )
  )

  it.effect("says of a platform that is not configured that it does not know it", () =>
    run([{ id: "codex" }], () =>
      Effect.gen(function* () {
        const { check, report } = yield* PlatformDetector
        const nobody = PlatformId.make("nobody")
        yield* report(nobody, "m", { _tag: "Succeeded" })
        assert.deepStrictEqual(yield* statusOf(nobody), ["unknown", "no such platform is configured"])
        assert.strictEqual((yield* check(nobody)).status, "unknown")
      })
    )
  )

  it.effect("streams every change of a status once", () =>
    run([{ id: "codex", checks: [pass({ afterMs: 10 }), pass(), fail(failures.platform()), pass()] }], () =>
      Effect.gen(function* () {
        const { changes } = yield* PlatformDetector
        const subscribed = yield* Deferred.make<void>()
        const seen = yield* changes.pipe(
          Stream.take(3),
          Stream.runCollect,
          Effect.zipLeft(Effect.void),
          Effect.fork,
          Effect.tap(() => Deferred.succeed(subscribed, undefined))
        )
        yield* Deferred.await(subscribed)
        yield* Effect.yieldNow()
        yield* TestClock.adjust("5 minutes")
        assert.deepStrictEqual(
          Chunk.toReadonlyArray(yield* Fiber.join(seen)).map(({ status }) => status),
          ["available", "degraded", "available"]
        )
      })
    )
  )

  it.effect("shows each platform with its settings, resources and performance, and no key", () =>
    run([{ id: "codex" }, { id: "gemini" }], () =>
      Effect.gen(function* () {
        const { view } = yield* PlatformDetector
        yield* TestClock.adjust(0)
        const platforms = yield* view
        assert.deepStrictEqual(
          platforms.map(({ id, status, breaker, inFlight, model }) => ({ id, status, breaker, inFlight, model })),
          [
            { id: codex, status: "available", breaker: "closed", inFlight: 0, model: "codex-model" },
            {
              id: PlatformId.make("gemini"),
              status: "available",
              breaker: "closed",
              inFlight: 0,
              model: "gemini-model"
            }
          ]
        )
        assert.notInclude(JSON.stringify(platforms), "codex-key")
      })
    )
  )

  it.effect("does the same at the same instants with the same seed", () => {
    const trace = run([{ id: "codex", checks: (n) => (n % 3 === 0 ? fail(failures.platform()) : pass()) }], () =>
      Effect.gen(function* () {
        const counts: Array<number> = []
        yield* Effect.forEach(Array.from({ length: 60 }), () =>
          Effect.zipRight(
            TestClock.adjust("10 seconds"),
            Effect.map(checks, (count) => counts.push(count))
          )
        )
        return counts
      })
    )
    return Effect.gen(function* () {
      const first = yield* trace
      assert.isAbove(first.at(-1) ?? 0, 10)
      assert.deepStrictEqual(yield* trace, first)
    })
  })
})
