import { assert, describe, it } from "@effect/vitest"
import {
  Chunk,
  Deferred,
  Effect,
  Fiber,
  Layer,
  Option,
  Random,
  type Scope,
  Stream,
  Supervisor,
  TestClock
} from "effect"
import { Benchmark } from "../src/Benchmark.js"
import type { LimitReading } from "../src/Domain/Call.js"
import type { AttemptFailure } from "../src/Domain/Failure.js"
import { PlatformId } from "../src/Domain/Platform.js"
import { TenantId } from "../src/Domain/Task.js"
import { PlatformDetector } from "../src/PlatformDetector.js"
import { type PlatformClient, Platforms } from "../src/Platforms.js"
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

/** The same of one platform whose every health check is `check`. */
const runChecking = <A, E>(check: PlatformClient["check"], body: Effect.Effect<A, E, PlatformDetector>) =>
  Effect.gen(function* () {
    const { layer } = yield* ScriptedResources.make
    const scripts = [{ id: "codex" }]
    const platforms = Layer.effect(
      Platforms,
      Effect.map(Platforms, ({ all }) => {
        const clients = all.map((client) => ({ ...client, check }))
        return { all: clients, get: () => Option.fromNullable(clients[0]) }
      })
    ).pipe(Layer.provide(Testing.platforms(scripts)))
    return yield* body.pipe(
      Effect.provide(
        PlatformDetector.layer.pipe(
          Layer.provide([Benchmark.layer, layer, platforms]),
          Layer.provide(Settings.layer(Testing.settings(scripts, { health })))
        )
      )
    )
  })

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

/** Seven days' credits, as a quotas endpoint tells of them. */
const weekly: LimitReading = { unit: "usd", name: "weekly", windowMs: 604_800_000, limit: 24, remaining: 0 }

const { breakWith, fail, failures, hang, pass } = Testing

/** The health fiber that wrote down the latest change of a status. */
const noted = ({ notedBy }: ScriptedResources.Told) =>
  notedBy === undefined ? Effect.dieMessage("nothing was written down") : Effect.succeed(notedBy)

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
    const stuck = Effect.suspend(() => {
      started += 1
      return Effect.uninterruptible(Effect.never)
    })
    return runChecking(
      stuck,
      Effect.gen(function* () {
        yield* TestClock.adjust("2 minutes")
        assert.strictEqual(started, 1)
        const [status, reason] = yield* statusOf()
        assert.strictEqual(status, "unavailable")
        assert.include(reason, "the health check before this one has not ended yet")
      })
    )
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

  it.effect("counts a check whose fiber is killed as failed, and goes on", () => {
    let started = 0
    const check = Effect.suspend(() => {
      started += 1
      return started === 1 ? Effect.interrupt : Effect.succeed({ models: [], readings: [] })
    })
    return runChecking(
      check,
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
  })

  it.effect("starts a health fiber that was killed anew", () =>
    run([{ id: "codex", checks: (n) => (n % 2 === 0 ? fail(failures.platform()) : pass()) }], (told) =>
      Effect.gen(function* () {
        yield* TestClock.adjust(0)
        for (let n = 0; n < 3; n++) {
          const before = yield* checks
          const killed = yield* noted(told)
          yield* Fiber.interrupt(killed)
          yield* TestClock.adjust("2 minutes")
          assert.isAbove(yield* checks, before)
          assert.notStrictEqual(yield* noted(told), killed)
        }
      })
    )
  )

  it.effect("counts a check that is cut off with its health fiber as failed, and answers those who asked for it", () =>
    run([{ id: "codex", checks: [pass(), hang, pass()] }], (told) =>
      Effect.gen(function* () {
        const { check } = yield* PlatformDetector
        yield* TestClock.adjust(0)
        const killed = yield* noted(told)
        const asked = yield* Effect.fork(check(codex))
        yield* TestClock.adjust("1 second")
        yield* Fiber.interrupt(killed)
        yield* Fiber.join(asked)
        assert.deepStrictEqual(yield* statusOf(), [
          "degraded",
          "its last health check failed: the health check was cut off; the log says how"
        ])
        yield* TestClock.adjust("15 seconds")
        assert.strictEqual(yield* checks, 3)
        assert.deepStrictEqual(yield* statusOf(), ["available"])
      })
    )
  )

  it.effect("piles no fibers up, whatever its checks do and however many ask for them", () =>
    Effect.gen(function* () {
      const supervisor = yield* Supervisor.track
      yield* Effect.supervised(
        run(
          [{ id: "codex", checks: (n) => [hang, breakWith("a bug"), fail(failures.platform())][n % 3] ?? hang }],
          () =>
            Effect.gen(function* () {
              const { check } = yield* PlatformDetector
              yield* TestClock.adjust("1 minute")
              const alive = Effect.map(supervisor.value, (fibers) => fibers.length)
              const before = yield* alive
              yield* TestClock.adjust("20 minutes")
              assert.isAtMost(yield* alive, before + 4)
              const asking = yield* Effect.forEach(Array.from({ length: 200 }), () => Effect.fork(check(codex)))
              yield* TestClock.adjust("1 minute")
              yield* Fiber.joinAll(asking)
              assert.isAtMost(yield* alive, before + 4)
            })
        ),
        supervisor
      )
    })
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

  it.effect("passes on what a check says of quotas, and does not call that sick", () =>
    run(
      [
        {
          id: "codex",
          checks: [
            pass({ readings: [weekly] }),
            fail(failures.quota({ reason: "window", window: "PerDay", resetsAt: 200_000 })),
            fail(failures.quota({ reason: "window", resetsAt: 300_000 })),
            fail(failures.quota({ reason: "rate", resetsAt: 400_000 }))
          ]
        }
      ],
      (told) =>
        Effect.gen(function* () {
          yield* TestClock.adjust("5 minutes")
          assert.isAtLeast(yield* checks, 4)
          assert.deepStrictEqual(told.corrected, [[codex, [weekly]]])
          assert.deepStrictEqual(told.exhausted, [
            [codex, "PerDay", 200_000],
            [codex, "quota", 300_000]
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

  it.effect("shows a breaker that was open before the service started", () =>
    run([{ id: "codex", checks: [pass({ afterMs: 100 })] }], (told) =>
      Effect.gen(function* () {
        told.breaker = "open"
        assert.deepStrictEqual(yield* statusOf(), ["degraded", "its circuit breaker is open"])
        yield* TestClock.adjust(100)
        assert.deepStrictEqual(yield* statusOf(), ["degraded", "its circuit breaker is open"])
      })
    )
  )

  it.effect("checks soon after a breaker opened, if it is that of the whole platform", () =>
    run([{ id: "codex" }], (told) =>
      Effect.gen(function* () {
        yield* TestClock.adjust(0)
        yield* report({ _tag: "Succeeded" })
        told.breaker = "open"
        const opened = {
          platform: codex,
          from: "closed",
          to: "open",
          capacityPercent: 0,
          at: 0,
          why: "5 failures"
        } as const
        yield* told.transition({ ...opened, model: "other" })
        yield* TestClock.adjust("15 seconds")
        assert.strictEqual(yield* checks, 1)
        yield* told.transition(opened)
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

  it.effect("writes every change of a status down in the platform's history", () =>
    run(
      [{ id: "codex", checks: [pass({ afterMs: 10 }), fail(failures.platform()), fail(failures.platform()), pass()] }],
      (told) =>
        Effect.gen(function* () {
          yield* TestClock.adjust("3 minutes")
          const down = "the platform is down"
          assert.deepStrictEqual(
            told.notes.map(([platform, body]) => {
              assert(body.type === "platform.status")
              const { from, performance, reasons, to } = body
              return { platform, from, to, reasons, attempts: performance?.attempts }
            }),
            (
              [
                ["unknown", "available", []],
                ["available", "degraded", [`its last health check failed: ${down}`]],
                ["degraded", "unavailable", [`2 health checks in a row failed: ${down}`]],
                ["unavailable", "available", []]
              ] as const
            ).map(([from, to, reasons]) => ({ platform: codex, from, to, reasons, attempts: 0 }))
          )
        })
    )
  )

  it.effect("shows a drain at once, and undoes none by what health says", () =>
    run([{ id: "codex" }], (told) =>
      Effect.gen(function* () {
        const { changes } = yield* PlatformDetector
        const seen = yield* Effect.fork(
          changes.pipe(
            Stream.map(({ status }) => status),
            Stream.changes,
            Stream.take(3),
            Stream.runCollect
          )
        )
        yield* TestClock.adjust(0)
        yield* told.drain(codex, { tenant: TenantId.make("ann"), at: 0, reason: "a test" })
        assert.deepStrictEqual(yield* statusOf(), ["unavailable", "drained by ann: a test"])
        yield* report(failed(failures.credential()))
        yield* TestClock.adjust("2 minutes")
        // The key is accepted again, and it is still drained.
        assert.deepStrictEqual(told.outs.at(-1), ["codex", undefined])
        assert.deepStrictEqual(yield* statusOf(), ["unavailable", "drained by ann: a test"])
        yield* told.drain(codex, undefined)
        assert.deepStrictEqual(yield* statusOf(), ["available"])
        assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Fiber.join(seen)), [
          "available",
          "unavailable",
          "available"
        ])
      })
    )
  )

  it.effect("sees a busy platform become far slower than it was, without a check, and recover", () =>
    run([{ id: "codex" }], (told) =>
      Effect.gen(function* () {
        const benchmark = yield* Benchmark
        yield* TestClock.adjust(0)
        const work = (minutes: number, durationMs: number) =>
          Effect.forEach(
            Array.from({ length: minutes * 4 }),
            () =>
              Effect.gen(function* () {
                yield* TestClock.adjust("15 seconds")
                const measured = { platform: codex, model: "codex-model", type: "analysis", durationMs } as const
                yield* benchmark.record({ ...measured, outcome: "succeeded", tokens: 600, outputTokens: 500 })
                yield* report({ _tag: "Succeeded" })
              }),
            { discard: true }
          )
        yield* work(60, 2_000)
        assert.deepStrictEqual(yield* statusOf(), ["available"])
        yield* work(6, 20_000)
        const [status, reason] = yield* statusOf()
        assert.strictEqual(status, "degraded")
        assert.match(
          reason ?? "",
          /^its model codex-model takes \d+ s for a call of 500 output tokens, [\d.]+ times its own average of [\d.]+ s$/
        )
        yield* work(10, 2_000)
        assert.deepStrictEqual(yield* statusOf(), ["available"])
        assert.strictEqual(yield* checks, 1)
        assert.deepStrictEqual(
          told.notes.flatMap(([, body]) => (body.type === "platform.status" ? [body.to] : [])),
          ["available", "degraded", "available"]
        )
      })
    )
  )

  it.effect("shows what was measured of each model", () =>
    run([{ id: "codex" }], () =>
      Effect.gen(function* () {
        const benchmark = yield* Benchmark
        yield* TestClock.adjust(0)
        for (const model of ["codex-model", "small"]) {
          yield* benchmark.record({
            platform: codex,
            model,
            type: "analysis",
            outcome: "succeeded",
            durationMs: 1_000,
            timeToFirstTokenMs: 500,
            tokens: 120,
            outputTokens: 100
          })
        }
        const { view } = yield* PlatformDetector
        const [platform] = yield* view
        assert.strictEqual(platform?.performance.attempts, 2)
        assert.deepStrictEqual(
          platform?.models.map(({ model, performance, status }) => [
            model,
            status,
            performance.attempts,
            performance.timeToFirstTokenMsP95,
            performance.durationMsEwma,
            performance.msPerOutputTokenP95
          ]),
          [
            ["small", "available", 1, 500, 1_000, 5],
            ["codex-model", "available", 1, 500, 1_000, 5]
          ]
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
