import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Random, TestClock } from "effect"
import { Benchmark } from "../src/Benchmark.js"
import { Delegation, type DelegationRequest } from "../src/Delegation.js"
import { PlatformId } from "../src/Domain/Platform.js"
import type { PlatformDetector } from "../src/PlatformDetector.js"
import type { SettingsOptions } from "../src/Settings.js"
import * as Testing from "../src/Testing.js"
import { delegating, journal, request, trio, type Written } from "./Delegation/harness.js"
import * as ScriptedResources from "./Delegation/scriptedResources.js"
import { jumpingClock } from "./support/jumpingClock.js"

const { answer, breakWith, fail, failures, hang } = Testing

const id = (name: string) => PlatformId.make(name)

interface Bench {
  readonly told: ScriptedResources.Told
  readonly written: Written
  readonly delegate: (over?: Partial<DelegationRequest<never>>) => ReturnType<typeof Delegation.Service.delegate<never>>
}

const run = <A, E>(
  scripts: ReadonlyArray<Testing.Script>,
  body: (bench: Bench) => Effect.Effect<A, E, Delegation | Benchmark | PlatformDetector | Testing.Received>,
  options: Omit<SettingsOptions, "platforms"> = {}
) =>
  Effect.gen(function* () {
    const { layer, told } = yield* ScriptedResources.make
    const written: Written = { started: [], ended: [] }
    return yield* Effect.gen(function* () {
      const { delegate } = yield* Delegation
      return yield* body({ told, written, delegate: (over) => delegate(request(journal(written), over)) })
    }).pipe(Effect.provide(delegating(scripts, layer, options)))
  }).pipe((effect) => Effect.suspend(() => Effect.withRandom(effect, Random.make("seed"))))

const platformsOf = (written: Written) => written.started.map(({ platform }) => String(platform))

describe("Delegation", () => {
  it.effect("has the best platform answer, keeps the books and writes both journal lines", () =>
    run(
      [
        {
          id: "codex",
          attempts: [
            answer("Because.", {
              afterMs: 300,
              firstTokenAfterMs: 100,
              usage: { inputTokens: 1_000, cachedInputTokens: 0, outputTokens: 500, reasoningTokens: 0 },
              limits: [{ unit: "requests", remaining: 3 }]
            })
          ],
          settings: { prices: { "codex-model": { input: 2, output: 4, asOf: "2026-11-01" } } }
        },
        { id: "gemini", settings: { contextWindow: 10 } }
      ],
      ({ told, written, delegate }) =>
        Effect.gen(function* () {
          const fiber = yield* Effect.fork(delegate())
          yield* TestClock.adjust(300)
          const delegated = yield* Fiber.join(fiber)
          assert.strictEqual(delegated.completion.text, "Because.")
          assert.strictEqual(delegated.platform, id("codex"))
          assert.strictEqual(delegated.costUsd, 0.004)
          assert.strictEqual(delegated.attempts, 1)
          const where = { number: 1, platform: id("codex"), model: "codex-model" }
          assert.deepStrictEqual(written.started, [
            {
              ...where,
              at: 0,
              decision: {
                candidates: [
                  {
                    platform: id("codex"),
                    model: "codex-model",
                    weight: 0.5,
                    suitability: 0.5,
                    quality: 1,
                    free: true
                  }
                ],
                excluded: [
                  {
                    platform: id("gemini"),
                    reason: "its context window of 10 tokens is smaller than the 200 the call may need"
                  }
                ],
                chosen: id("codex"),
                policy: "balanced",
                waitedMs: 0
              }
            }
          ])
          assert.deepStrictEqual(written.ended, [
            {
              ...where,
              durationMs: 300,
              timeToFirstTokenMs: 100,
              result: { _tag: "Succeeded", usage: delegated.completion.usage, costUsd: 0.004 }
            }
          ])
          assert.deepStrictEqual(told.settled, [[id("codex"), "Succeeded"]])
          assert.deepStrictEqual(told.started, [1])
          const { performance } = yield* Benchmark
          const measured = yield* performance(id("codex"))
          assert.strictEqual(measured.durationMsP50, 300)
          assert.strictEqual(measured.timeToFirstTokenMsP50, 100)
          assert.strictEqual(measured.tokens, 1_500)
        })
    )
  )

  it.effect("gathers the tool calls and knows no cost without a price", () =>
    run(
      [{ id: "codex", attempts: [answer("", { toolCalls: [{ id: "1", name: "look", arguments: "{}" }] })] }],
      ({ delegate }) =>
        Effect.gen(function* () {
          const { completion, costUsd } = yield* delegate()
          assert.deepStrictEqual(completion.toolCalls, [{ id: "1", name: "look", arguments: "{}" }])
          assert.strictEqual(completion.finishReason, "tool-calls")
          assert.isUndefined(costUsd)
        })
    )
  )

  it.effect("writes the attempt down before anything is sent", () =>
    run([{ id: "codex" }], () =>
      Effect.gen(function* () {
        const { delegate } = yield* Delegation
        const { calls } = yield* Testing.Received
        let sentBefore = -1
        yield* delegate(
          request({
            attemptStarted: () =>
              Effect.map(calls, (received) => {
                sentBefore = received.length
              }),
            attemptEnded: () => Effect.void
          })
        )
        assert.strictEqual(sentBefore, 0)
      })
    )
  )

  /** What the first platform's failure makes of the call: who is tried after it at once, and how it ends. */
  const effects: ReadonlyArray<{
    readonly name: string
    readonly failing: Testing.Failing
    readonly tried: ReadonlyArray<string>
    readonly end: string
    readonly benchmark: number
  }> = [
    {
      name: "invalid ends the call",
      failing: failures.invalid(),
      tried: ["first"],
      end: "CallRefused",
      benchmark: 0
    },
    {
      name: "policy ends the call",
      failing: failures.policy(),
      tried: ["first"],
      end: "CallRefused",
      benchmark: 0
    },
    {
      name: "context goes on to larger windows only",
      failing: failures.context(),
      tried: ["first", "third"],
      end: "third",
      benchmark: 0
    },
    {
      name: "model goes on without that model",
      failing: failures.model(),
      tried: ["first", "second"],
      end: "second",
      benchmark: 0
    },
    {
      name: "credential goes on without the platform",
      failing: failures.credential(),
      tried: ["first", "second"],
      end: "second",
      benchmark: 0
    },
    {
      name: "quota excludes nobody",
      failing: failures.quota(),
      tried: ["first", "first"],
      end: "first",
      benchmark: 0
    },
    {
      name: "platform goes on at once elsewhere",
      failing: failures.platform(),
      tried: ["first", "second"],
      end: "second",
      benchmark: 1
    }
  ]
  for (const { benchmark, end, failing, name, tried } of effects) {
    it.effect(`a failure of scope ${name}`, () => {
      const [first, second, third] = trio([[fail(failing), answer("first")], undefined, undefined])
      const scripts = [first, second, third].flatMap((script) => script ?? [])
      return run(
        scripts.map((script) => ({
          ...script,
          settings: { ...script.settings, contextWindow: script.id === "third" ? 200_000 : 100_000 }
        })),
        ({ told, written, delegate }) =>
          Effect.gen(function* () {
            const ended = yield* delegate().pipe(
              Effect.map(({ platform }) => String(platform)),
              Effect.catchAll(({ _tag }) => Effect.succeed(_tag))
            )
            assert.strictEqual(ended, end)
            assert.deepStrictEqual(platformsOf(written), tried)
            assert.deepStrictEqual(told.settled[0], [id("first"), "Failed"])
            assert.strictEqual(written.started[0]?.at, written.started.at(-1)?.at, "nobody waited")
            assert.strictEqual(written.ended[0]?.result._tag, "Failed")
            const { performance } = yield* Benchmark
            assert.strictEqual((yield* performance(id("first"))).errorRate > 0 ? 1 : 0, benchmark)
          })
      )
    })
  }

  it.effect("rests a failed platform for this call only, longer each time, and no other waits for it", () =>
    run(trio([[fail(failures.platform())]]), ({ told, written, delegate }) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.fork(Effect.flip(delegate()))
        yield* TestClock.adjust("2 minutes")
        const error = yield* Fiber.join(fiber)
        assert.strictEqual(error._tag, "AttemptsExhausted")
        const waits = written.started.slice(1).map(({ at }, index) => at - (written.started[index]?.at ?? 0))
        const bounds = [500, 1_000, 2_000, 4_000, 8_000]
        assert.strictEqual(waits.length, bounds.length)
        waits.forEach((wait, index) => {
          const full = bounds[index] ?? 0
          assert.isTrue(wait >= full / 2 && wait <= full, `wait ${index + 1} is ${wait}`)
        })
        assert.isTrue(told.requests.every(({ candidates }) => candidates.length === 1))
      })
    )
  )

  it.effect("goes on elsewhere when a platform hangs for longer than its timeouts allow", () =>
    run(trio([[hang], [answer("Because.")]]), ({ delegate, written }) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.fork(delegate())
        yield* TestClock.adjust(120_000)
        assert.strictEqual((yield* Fiber.join(fiber)).platform, "second")
        const [first] = written.ended
        assert.strictEqual(first?.durationMs, 120_000)
        assert.strictEqual(first?.result._tag === "Failed" && first.result.failure._tag, "PlatformFailure")
      })
    )
  )

  it.effect("rests a platform as long as it asks for", () =>
    run(trio([[fail(failures.platform({ retryAfterMs: 20_000 })), answer("back")]]), ({ written, delegate }) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.fork(delegate())
        yield* TestClock.adjust("20 seconds")
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(
          written.started.map(({ at, decision }) => [at, decision.waitedMs]),
          [
            [0, 0],
            [20_000, 20_000]
          ]
        )
      })
    )
  )

  it.effect("ends when its attempts are used up, those of earlier owners counted", () =>
    run(
      trio([[fail(failures.quota({ message: "slow down" }))]]),
      ({ written, delegate }) =>
        Effect.gen(function* () {
          const error = yield* Effect.flip(delegate({ attemptsMade: 5, attemptsSpent: 2 }))
          assert.strictEqual(error._tag, "AttemptsExhausted")
          assert.strictEqual(error.message, "7 attempts failed; the last failed on first: slow down")
          assert.deepStrictEqual(
            written.started.map(({ number }) => number),
            [6, 7]
          )
          if (error._tag === "AttemptsExhausted") {
            assert.strictEqual(error.attempts, 7)
            assert.strictEqual(error.last?.scope, "quota")
          }
          const none = yield* Effect.flip(delegate({ attemptsMade: 9, attemptsSpent: 4 }))
          assert.strictEqual(none._tag, "AttemptsExhausted")
          assert.strictEqual(written.started.length, 2)
        }),
      { tasks: { maxAttempts: 4 } }
    )
  )

  it.effect("cuts an attempt at the deadline, which says nothing of the platform", () =>
    run(trio([[hang]]), ({ told, written, delegate }) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.fork(Effect.flip(delegate({ deadline: 5_000 })))
        yield* TestClock.adjust(4_999)
        assert.strictEqual(written.ended.length, 0)
        yield* TestClock.adjust(1)
        const error = yield* Fiber.join(fiber)
        assert.strictEqual(error._tag, "DeadlineExceeded")
        assert.strictEqual(error.message, "the deadline passed after 1 attempt")
        assert.deepStrictEqual(told.settled, [[id("first"), "Ignored"]])
        assert.deepStrictEqual(
          written.ended.map(({ durationMs, result }) => [durationMs, result._tag]),
          [[5_000, "Ignored"]]
        )
        const { calls } = yield* Testing.Received
        assert.deepStrictEqual(
          (yield* calls).map(({ state }) => state),
          ["interrupted"]
        )
        const { performance } = yield* Benchmark
        assert.strictEqual((yield* performance(id("first"))).attempts, 0)
      })
    )
  )

  it.effect("keeps its deadline through a jump of the wall clock", () =>
    run(trio([[answer("late", { afterMs: 5_000 })]]), ({ delegate }) =>
      Effect.gen(function* () {
        const { jump, jumping } = yield* jumpingClock
        const slow = yield* Effect.fork(Effect.withClock(delegate({ deadline: 10_000 }), jumping))
        yield* TestClock.adjust("1 second")
        jump(3_600_000)
        yield* TestClock.adjust("4 seconds")
        assert.strictEqual((yield* Fiber.join(slow)).completion.text, "late")
      })
    )
  )

  it.effect("starts nothing after its deadline", () =>
    run(trio([undefined]), ({ told, delegate }) =>
      Effect.gen(function* () {
        yield* TestClock.setTime(1_000)
        const error = yield* Effect.flip(delegate({ deadline: 1_000 }))
        assert.strictEqual(error._tag, "DeadlineExceeded")
        assert.deepStrictEqual(told.requests, [])
      })
    )
  )

  it.effect("tells of every attempt: who could, who could not, what came of it", () =>
    run(
      trio([
        [fail(failures.platform(), { afterMs: 20 })],
        [fail(failures.credential())],
        [answer("third", { afterMs: 30 })]
      ]),
      ({ delegate }) =>
        Effect.gen(function* () {
          const fiber = yield* Effect.fork(delegate({ attemptsMade: 2 }))
          yield* TestClock.adjust(50)
          const { attempts, trace } = yield* Fiber.join(fiber)
          assert.strictEqual(attempts, 5)
          assert.deepStrictEqual(
            trace.map(({ decision, durationMs, failure, number, outcome, platform }) => ({
              number,
              platform: String(platform),
              outcome,
              durationMs,
              failure: failure?.scope,
              candidates: decision.candidates.map((candidate) => String(candidate.platform)),
              excluded: decision.excluded.map((reason) => String(reason.platform))
            })),
            [
              {
                number: 3,
                platform: "first",
                outcome: "failed",
                durationMs: 20,
                failure: "platform",
                candidates: ["first", "second", "third"],
                excluded: []
              },
              {
                number: 4,
                platform: "second",
                outcome: "failed",
                durationMs: 0,
                failure: "credential",
                candidates: ["first", "second", "third"],
                excluded: []
              },
              {
                number: 5,
                platform: "third",
                outcome: "succeeded",
                durationMs: 30,
                failure: undefined,
                candidates: ["first", "third"],
                excluded: ["second"]
              }
            ]
          )
        })
    )
  )

  it.effect("tells of every attempt where it fails, too", () =>
    run(
      trio([[fail(failures.quota()), fail(failures.quota()), hang]]),
      ({ delegate }) =>
        Effect.gen(function* () {
          const traceOf = (error: { readonly _tag: string }) =>
            "trace" in error && Array.isArray(error.trace) ? error.trace.map(({ outcome }) => outcome) : []
          const exhausted = yield* Effect.flip(delegate())
          assert.strictEqual(exhausted._tag, "AttemptsExhausted")
          assert.deepStrictEqual(traceOf(exhausted), ["failed", "failed"])
          const fiber = yield* Effect.fork(Effect.flip(delegate({ deadline: 1_000 })))
          yield* TestClock.adjust("1 second")
          const late = yield* Fiber.join(fiber)
          assert.strictEqual(late._tag, "DeadlineExceeded")
          assert.deepStrictEqual(traceOf(late), ["ignored"])
        }),
      { tasks: { maxAttempts: 2 } }
    )
  )

  it.effect("waits no longer for a lease than it may, and gives the reasons of those it excluded itself", () =>
    run(trio([[fail(failures.credential())], [fail(failures.platform())]]), ({ told, delegate }) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(delegate({ maxWaitMs: 100 }))
        assert.strictEqual(error._tag, "LeaseUnavailable")
        if (error._tag === "LeaseUnavailable") {
          assert.deepStrictEqual(error.reasons, [
            { platform: id("second"), reason: "it rests" },
            { platform: id("first"), reason: "its key is refused: the key is wrong" }
          ])
        }
        assert.isTrue(told.requests.every(({ maxWaitMs }) => maxWaitMs === 100))
      })
    )
  )

  it.effect("fails at once with each reason when every key is refused", () =>
    run(trio([[fail(failures.credential())], [fail(failures.credential("unpaid"))]]), ({ delegate }) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(delegate())
        assert.strictEqual(error._tag, "LeaseUnavailable")
        assert.strictEqual(
          error.message,
          "no platform is left for this call: first: its key is refused: the key is wrong; second: its key is refused: unpaid"
        )
      })
    )
  )

  it.effect("refuses a call that is too long for everybody", () =>
    run(trio([[fail(failures.context("128001 > 128000"))], undefined]), ({ written, delegate }) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(delegate())
        assert.strictEqual(error._tag, "CallRefused")
        assert.strictEqual(error.message, "first refused the call: 128001 > 128000")
        assert.deepStrictEqual(platformsOf(written), ["first"])
      })
    )
  )

  it.effect("passes on that nobody is capable", () =>
    run(trio([undefined]), ({ delegate }) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(delegate({ requirement: { capabilities: [], contextTokens: 1_000_000 } }))
        assert.strictEqual(error._tag, "NoCapablePlatform")
      })
    )
  )

  it.effect("takes a client that breaks for its platform's failure", () =>
    run(trio([[breakWith(new Error("a bug"))], undefined]), ({ told, delegate }) =>
      Effect.gen(function* () {
        assert.strictEqual((yield* delegate()).platform, id("second"))
        assert.deepStrictEqual(told.settled, [
          [id("first"), "Failed"],
          [id("second"), "Succeeded"]
        ])
      })
    )
  )

  it.effect(
    "settles the lease as ignored and closes the stream when it is interrupted, and leaves the journal to the interrupter",
    () =>
      run(trio([[hang]]), ({ told, written, delegate }) =>
        Effect.gen(function* () {
          const fiber = yield* Effect.fork(delegate())
          yield* TestClock.adjust(1_000)
          const { calls } = yield* Testing.Received
          const states = Effect.map(calls, (received) => received.map(({ state }) => state))
          assert.deepStrictEqual(yield* states, ["open"])
          yield* Fiber.interrupt(fiber)
          assert.deepStrictEqual(yield* states, ["interrupted"])
          assert.deepStrictEqual(told.settled, [[id("first"), "Ignored"]])
          assert.deepStrictEqual(written.ended, [])
          const { performance } = yield* Benchmark
          assert.strictEqual((yield* performance(id("first"))).attempts, 0)
        })
      )
  )

  it.effect("ends at once when the journal fails, before the request is sent", () =>
    run(trio([undefined]), ({ told }) =>
      Effect.gen(function* () {
        const { delegate } = yield* Delegation
        const { calls } = yield* Testing.Received
        const lost = { _tag: "OwnershipLost" } as const
        const before = yield* Effect.flip(
          delegate(request({ attemptStarted: () => Effect.fail(lost), attemptEnded: () => Effect.void }))
        )
        assert.strictEqual(before._tag, "OwnershipLost")
        assert.deepStrictEqual(yield* calls, [])
        assert.deepStrictEqual(told.settled, [[id("first"), "Ignored"]])
        const after = yield* Effect.flip(
          delegate(request({ attemptStarted: () => Effect.void, attemptEnded: () => Effect.fail(lost) }))
        )
        assert.strictEqual(after._tag, "OwnershipLost")
        assert.strictEqual((yield* calls).length, 1)
        assert.deepStrictEqual(told.settled[1], [id("first"), "Succeeded"])
      })
    )
  )

  it.effect("does the same at the same instants with the same seed", () => {
    const trace = run(
      trio([[fail(failures.platform(), { afterMs: 7 })], [fail(failures.platform(), { afterMs: 3 })]]),
      ({ written, delegate }) =>
        Effect.gen(function* () {
          const deadline = (yield* Effect.clock).unsafeCurrentTimeMillis() + 600_000
          const fiber = yield* Effect.fork(Effect.flip(delegate({ deadline })))
          yield* TestClock.adjust("10 minutes")
          yield* Fiber.join(fiber)
          const start = written.started[0]?.at ?? 0
          return written.started.map(({ at, platform }) => [platform, at - start])
        })
    )
    return Effect.gen(function* () {
      const first = yield* trace
      assert.strictEqual(first.length, 6)
      assert.deepStrictEqual(yield* trace, first)
    })
  })
})
