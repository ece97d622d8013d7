import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber, Layer, Option, Random, Scope, Stream, TestClock } from "effect"
import { Benchmark } from "../../src/Benchmark.js"
import { Coordinator } from "../../src/Coordinator.js"
import {
  type AttemptEnded,
  type AttemptStarted,
  Delegation,
  type DelegationRequest,
  type Journal
} from "../../src/Delegation.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import type { TaskType } from "../../src/Domain/Task.js"
import { ResourceManager } from "../../src/ResourceManager.js"
import type { SettingsOptions } from "../../src/Settings.js"
import * as Testing from "../../src/Testing.js"
import { ask, eventually, reaches, settle, tenant } from "../Coordinator/harness.js"
import { delegating, request } from "./harness.js"
import * as ScriptedResources from "./scriptedResources.js"

const { answer, fail, failures, hang } = Testing

const id = (name: string) => PlatformId.make(name)
const [codex, gemini] = [id("codex"), id("gemini")]

/** `codex` is tried first. */
const pair = (codex: Testing.Script["attempts"], gemini: Testing.Script["attempts"]): ReadonlyArray<Testing.Script> => [
  { id: "codex", attempts: codex, settings: { weight: 2 } },
  { id: "gemini", attempts: gemini }
]

/** Calls of this type took 1 s on `codex`, 20 times. */
const usual = (type: TaskType = "analysis", times = 20) =>
  Effect.flatMap(Benchmark, ({ record }) =>
    Effect.replicateEffect(
      record({ platform: codex, model: "codex-model", type, durationMs: 1_000, outcome: "succeeded", tokens: 10 }),
      times
    )
  )

interface Bench {
  readonly told: ScriptedResources.Told
  readonly started: Array<AttemptStarted & { readonly at: number }>
  readonly ended: Array<AttemptEnded>
  readonly delegate: (over?: Partial<DelegationRequest<never>>) => ReturnType<typeof Delegation.Service.delegate<never>>
}

const run = <A, E>(
  scripts: ReadonlyArray<Testing.Script>,
  body: (
    bench: Bench
  ) => Effect.Effect<A, E, Delegation | Benchmark | ResourceManager | Testing.Received | Scope.Scope>,
  options: Omit<SettingsOptions, "platforms"> = {}
) =>
  Effect.gen(function* () {
    const { layer, told } = yield* ScriptedResources.make
    const started: Array<AttemptStarted & { readonly at: number }> = []
    const ended: Array<AttemptEnded> = []
    const journal: Journal<never> = {
      attemptStarted: (attempt) =>
        Effect.map(Effect.clock, (clock) => {
          started.push({ ...attempt, at: clock.unsafeCurrentTimeMillis() })
        }),
      attemptEnded: (attempt) =>
        Effect.sync(() => {
          ended.push(attempt)
        })
    }
    return yield* Effect.gen(function* () {
      const { delegate } = yield* Delegation
      return yield* body({
        told,
        started,
        ended,
        delegate: (over) => delegate(request(journal, { priority: "HIGH", ...over }))
      })
    }).pipe(Effect.provide(delegating(scripts, layer, { routing: { hedging: true }, ...options })), Effect.scoped)
  }).pipe((effect) => Effect.suspend(() => Effect.withRandom(effect, Random.make("seed"))))

const endsOf = (ended: ReadonlyArray<AttemptEnded>) =>
  ended.map(({ number, platform, result }) => `${number} ${platform} ${result._tag}`)

const statesOf = Effect.flatMap(Testing.Received, ({ calls }) =>
  Effect.map(calls, (all) => all.map(({ platform, state }) => `${platform} ${state}`))
)

describe("a hedge", () => {
  it.effect("is made where the call takes longer than 95 % of its kind, and wins by the first good answer", () =>
    run(pair([hang], [answer("Second.", { afterMs: 200 })]), ({ delegate, ended, started, told }) =>
      Effect.gen(function* () {
        yield* usual()
        const fiber = yield* Effect.fork(delegate())
        yield* TestClock.adjust(999)
        assert.lengthOf(started, 1)
        yield* TestClock.adjust(201)
        const delegated = yield* Fiber.join(fiber)
        assert.deepInclude(delegated, { platform: gemini, attempts: 2 })
        assert.strictEqual(delegated.completion.text, "Second.")
        assert.deepStrictEqual(
          started.map(({ at, number, platform }) => [number, String(platform), at]),
          [
            [1, "codex", 0],
            [2, "gemini", 1_000]
          ]
        )
        assert.deepStrictEqual(endsOf(ended), ["2 gemini Succeeded", "1 codex Ignored"])
        assert.deepStrictEqual(told.settled.map(([platform, how]) => `${platform} ${how}`).sort(), [
          "codex Ignored",
          "gemini Succeeded"
        ])
        assert.deepStrictEqual(yield* statesOf, ["codex interrupted", "gemini answered"])
        assert.deepStrictEqual(
          delegated.trace.map(({ number, outcome }) => `${number} ${outcome}`),
          ["1 ignored", "2 succeeded"]
        )

        const [first, hedge] = started.map(({ decision }) => decision)
        assert.isUndefined(first?.hedge)
        assert.strictEqual(hedge?.hedge, true)
        assert.strictEqual(hedge?.chosen, gemini)
        assert.deepStrictEqual(
          hedge?.candidates.map(({ platform }) => platform),
          [gemini]
        )
        assert.deepStrictEqual(hedge?.excluded, [
          { platform: codex, reason: "it has the call already and takes unusually long" }
        ])
        assert.strictEqual(told.requests[1]?.maxWaitMs, 0)
      })
    )
  )

  it.effect("is itself interrupted where the first attempt answers before it", () =>
    run(pair([answer("First.", { afterMs: 1_500 })], [hang]), ({ delegate, ended, told }) =>
      Effect.gen(function* () {
        yield* usual()
        const fiber = yield* Effect.fork(delegate())
        yield* TestClock.adjust(1_500)
        const delegated = yield* Fiber.join(fiber)
        assert.deepInclude(delegated, { platform: codex, attempts: 2 })
        assert.deepStrictEqual(endsOf(ended), ["1 codex Succeeded", "2 gemini Ignored"])
        assert.deepStrictEqual(told.settled, [
          [codex, "Succeeded"],
          [gemini, "Ignored"]
        ])
        assert.deepStrictEqual(yield* statesOf, ["codex answered", "gemini interrupted"])
      })
    )
  )

  it.effect("goes on as the call's attempt where the first one fails, and the first one where the hedge fails", () =>
    Effect.gen(function* () {
      yield* run(
        pair([fail(failures.platform(), { afterMs: 1_200 })], [answer("Yes.", { afterMs: 3_000 })]),
        ({ delegate, ended, started }) =>
          Effect.gen(function* () {
            yield* usual()
            const fiber = yield* Effect.fork(delegate())
            yield* TestClock.adjust(1_300)
            assert.deepStrictEqual(endsOf(ended), ["1 codex Failed"])
            yield* TestClock.adjust(2_700)
            assert.deepInclude(yield* Fiber.join(fiber), { platform: gemini, attempts: 2 })
            assert.lengthOf(started, 2)
            assert.deepStrictEqual(endsOf(ended), ["1 codex Failed", "2 gemini Succeeded"])
          })
      )
      yield* run(
        pair([answer("Yes.", { afterMs: 3_000 })], [fail(failures.platform(), { afterMs: 10 })]),
        ({ delegate, ended, started }) =>
          Effect.gen(function* () {
            yield* usual()
            const fiber = yield* Effect.fork(delegate())
            yield* TestClock.adjust(3_000)
            assert.deepInclude(yield* Fiber.join(fiber), { platform: codex, attempts: 2 })
            assert.lengthOf(started, 2)
            assert.deepStrictEqual(endsOf(ended), ["2 gemini Failed", "1 codex Succeeded"])
          })
      )
    })
  )

  it.effect("spends an attempt of the budget, is made once a call, and the call goes on where both failed", () =>
    run(
      pair(
        [fail(failures.platform(), { afterMs: 1_200 }), answer("At last.", { afterMs: 5_000 })],
        [fail(failures.platform(), { afterMs: 1_500 }), hang]
      ),
      ({ delegate, ended }) =>
        Effect.gen(function* () {
          yield* usual()
          const fiber = yield* Effect.fork(delegate())
          yield* TestClock.adjust(20_000)
          assert.deepInclude(yield* Fiber.join(fiber), { platform: codex, attempts: 3 })
          assert.deepStrictEqual(endsOf(ended), ["1 codex Failed", "2 gemini Failed", "3 codex Succeeded"])
          const twice = yield* Effect.fork(Effect.flip(delegate({ attemptsSpent: 5 })))
          yield* TestClock.adjust(5_000)
          // the last attempt of the budget gets none beside it
          assert.lengthOf(ended, 4)
          yield* Fiber.interrupt(twice)
        }),
      { tasks: { maxAttempts: 6 } }
    )
  )

  it.effect("is made for HIGH calls only, where it is set, where enough is known, and where somebody is free", () =>
    Effect.gen(function* () {
      const startedBy = (
        over: Partial<DelegationRequest<never>>,
        options: { readonly hedging?: boolean; readonly times?: number; readonly out?: boolean } = {}
      ) =>
        run(
          pair([answer("First.", { afterMs: 5_000 })], [answer("Second.")]),
          ({ delegate, started }) =>
            Effect.gen(function* () {
              yield* usual("analysis", options.times)
              if (options.out === true) {
                const { setOut } = yield* ResourceManager
                yield* setOut({ platform: gemini }, { reason: "drained" })
              }
              const fiber = yield* Effect.fork(delegate(over))
              yield* TestClock.adjust(5_000)
              yield* Fiber.join(fiber)
              return started.length
            }),
          { routing: { hedging: options.hedging ?? true } }
        )
      assert.strictEqual(yield* startedBy({}), 2)
      assert.strictEqual(yield* startedBy({ priority: "MEDIUM" }), 1)
      assert.strictEqual(yield* startedBy({ type: "testing" }), 1)
      assert.strictEqual(yield* startedBy({ mayHedge: () => false }), 1)
      assert.strictEqual(yield* startedBy({ requirement: { capabilities: [], contextTokens: 1, platform: codex } }), 1)
      assert.strictEqual(yield* startedBy({}, { hedging: false }), 1)
      assert.strictEqual(yield* startedBy({}, { times: 19 }), 1)
      assert.strictEqual(yield* startedBy({}, { out: true }), 1)
    })
  )

  it.effect("is cut with the first attempt at the deadline, and by an interruption of the call", () =>
    run(pair([hang], [hang]), ({ delegate, ended, told }) =>
      Effect.gen(function* () {
        yield* usual()
        const late = yield* Effect.fork(Effect.flip(delegate({ deadline: 2_000 })))
        yield* TestClock.adjust(2_000)
        assert.deepInclude(yield* Fiber.join(late), { _tag: "DeadlineExceeded", attempts: 2 })
        assert.deepStrictEqual(endsOf(ended).sort(), ["1 codex Ignored", "2 gemini Ignored"])
        assert.lengthOf(told.settled, 2)

        const cut = yield* Effect.fork(delegate())
        yield* TestClock.adjust(1_500)
        assert.deepStrictEqual((yield* statesOf).slice(2), ["codex open", "gemini open"])
        const exit = yield* Fiber.interrupt(cut)
        assert.isTrue(Exit.isInterrupted(exit))
        assert.deepStrictEqual((yield* statesOf).slice(2), ["codex interrupted", "gemini interrupted"])
        assert.lengthOf(ended, 2)
        assert.deepStrictEqual(
          told.settled.slice(2).map(([, how]) => how),
          ["Ignored", "Ignored"]
        )
      })
    )
  )
})

/** Whatever the two meet, at the same instant too. The hedge starts after 1 s. */
const firsts = [1_000, 1_500].flatMap((afterMs) => [
  answer("First.", { afterMs }),
  fail(failures.platform(), { afterMs }),
  fail(failures.invalid(), { afterMs })
])
const seconds = [0, 500].flatMap((afterMs) => [
  answer("Second.", { afterMs }),
  fail(failures.platform(), { afterMs }),
  fail(failures.credential(), { afterMs })
])

describe("two attempts at once", () => {
  it.effect("each end once in the journal and in the books, and bring one answer if either has one", () =>
    Effect.forEach(
      [...firsts, hang].flatMap((first) => [...seconds, hang].map((second) => [first, second] as const)),
      ([first, second]) =>
        run(pair([first, answer("Later.")], [second, answer("Later.")]), ({ delegate, ended, started, told }) =>
          Effect.gen(function* () {
            yield* usual()
            const now = yield* Clock.currentTimeMillis
            const fiber = yield* Effect.fork(Effect.either(delegate({ deadline: now + 10_000 })))
            yield* TestClock.adjust(10_000)
            const outcome = yield* Fiber.join(fiber)
            const numbers = started.map(({ number }) => number)
            const seen = JSON.stringify([first, second, endsOf(ended)])
            assert.deepStrictEqual(
              numbers,
              [...numbers.keys()].map((index) => index + 1),
              seen
            )
            assert.deepStrictEqual(ended.map(({ number }) => number).sort(), numbers, seen)
            assert.lengthOf(told.settled, started.length, seen)
            const succeeded = ended.filter(({ result }) => result._tag === "Succeeded")
            assert.strictEqual(succeeded.length, outcome._tag === "Right" ? 1 : 0, seen)
            if (outcome._tag === "Right") {
              assert.strictEqual(outcome.right.platform, succeeded[0]?.platform, seen)
              assert.strictEqual(outcome.right.attempts, started.length, seen)
              assert.lengthOf(outcome.right.trace, started.length, seen)
              assert.strictEqual(outcome.right.trace.at(-1)?.outcome, "succeeded", seen)
            }
            assert.isAtMost(started.filter(({ decision }) => decision.hedge === true).length, 1, seen)
            const isAnswered = first._tag === "Answer" || (second._tag === "Answer" && started.length > 1)
            if (isAnswered) assert.strictEqual(outcome._tag, "Right", seen)
          })
        ),
      { discard: true }
    )
  )
})

const team = (scripts: ReadonlyArray<Testing.Script>, shutdownGraceMs = 0) =>
  Testing.layer(scripts, { routing: { hedging: true }, shutdownGraceMs }).pipe(Layer.orDie)

const outcomesOf = (attempts: ReadonlyArray<{ readonly number: number; readonly outcome: string }>) =>
  attempts.map(({ number, outcome }) => `${number} ${outcome}`)

describe("a hedged task", () => {
  const submit = Effect.gen(function* () {
    const coordinator = yield* Coordinator
    yield* usual()
    const { task } = yield* coordinator.submit(
      tenant,
      ask("Why?", { type: "analysis", priority: "HIGH" }),
      Option.none()
    )
    const attempts = coordinator.attempts(tenant, task.id)
    yield* eventually(attempts, (all) => all.length === 1)
    return { coordinator, attempts, id: task.id }
  })

  const leftInUse = Effect.flatMap(ResourceManager, ({ view }) =>
    Effect.map(view, ({ platforms }) => platforms.reduce((sum, { permits }) => sum + permits.inUse, 0))
  )

  it.effect("ends both attempts in its journal, and shows the winner's answer and platform", () =>
    Effect.gen(function* () {
      const { attempts, coordinator, id } = yield* submit
      yield* TestClock.adjust(1_000)
      const both = yield* eventually(attempts, (all) => all.length === 2)
      assert.deepStrictEqual(outcomesOf(both), ["1 running", "2 running"])
      assert.strictEqual(both[1]?.decision.hedge, true)
      yield* TestClock.adjust(200)
      const done = yield* reaches(coordinator, id, "succeeded")
      assert.deepInclude(done.result, { text: "Second.", platform: gemini })
      const [first, second] = yield* attempts
      assert.deepInclude(first, { outcome: "ignored", durationMs: 1_200 })
      assert.deepInclude(second, { outcome: "succeeded", durationMs: 200 })
      assert.strictEqual((yield* coordinator.list(tenant, {})).tasks[0]?.platform, gemini)
      assert.strictEqual(yield* leftInUse, 0)
    }).pipe(Effect.provide(team(pair([hang], [answer("Second.", { afterMs: 200 })]))))
  )

  it.effect("shows the first attempt's platform where that one won", () =>
    Effect.gen(function* () {
      const { attempts, coordinator, id } = yield* submit
      yield* TestClock.adjust(1_000)
      yield* eventually(attempts, (all) => all.length === 2)
      yield* TestClock.adjust(500)
      const done = yield* reaches(coordinator, id, "succeeded")
      assert.strictEqual(done.result?.platform, codex)
      assert.deepStrictEqual(outcomesOf(yield* attempts), ["1 succeeded", "2 ignored"])
      assert.strictEqual((yield* coordinator.list(tenant, {})).tasks[0]?.platform, codex)
      assert.strictEqual(yield* leftInUse, 0)
    }).pipe(Effect.provide(team(pair([answer("First.", { afterMs: 1_500 })], [hang]))))
  )

  it.effect("that is cancelled cuts both attempts", () =>
    Effect.gen(function* () {
      const { attempts, coordinator, id } = yield* submit
      yield* TestClock.adjust(1_000)
      yield* eventually(attempts, (all) => all.length === 2)
      yield* coordinator.cancel(tenant, id)
      yield* settle
      assert.deepStrictEqual(outcomesOf(yield* attempts), ["1 ignored", "2 ignored"])
      assert.deepStrictEqual(yield* statesOf, ["codex interrupted", "gemini interrupted"])
      assert.strictEqual(yield* leftInUse, 0)
    }).pipe(Effect.provide(team(pair([hang], [hang]))))
  )

  it.effect("may end as either attempt does while the service stops, but is not hedged any more", () =>
    Effect.gen(function* () {
      /** What is answered where the service begins to stop `stopAt` ms after the attempt has started. */
      const stopping = (scripts: ReadonlyArray<Testing.Script>, stopAt: number, attemptsThen: number) =>
        Effect.gen(function* () {
          const scope = yield* Scope.make()
          const context = yield* Layer.buildWithScope(team(scripts, 10_000), scope)
          const { attempts, coordinator, id } = yield* Effect.provide(submit, context)
          yield* TestClock.adjust(stopAt)
          yield* eventually(attempts, (all) => all.length === attemptsThen)
          // the database closes with the scope, so what came of it is seen by the events before
          const events = yield* Effect.flatMap(coordinator.events(tenant, id, Option.none()), (stream) =>
            Effect.fork(Stream.runCollect(stream))
          )
          const closed = yield* Effect.fork(Scope.close(scope, Exit.void))
          yield* settle
          yield* TestClock.adjust(9_000)
          yield* Fiber.join(closed)
          return [...(yield* Fiber.join(events))].map(({ type }) => type)
        })
      const failing = pair([answer("First.", { afterMs: 4_000 })], [fail(failures.platform(), { afterMs: 1_000 })])
      assert.deepStrictEqual(yield* stopping(failing, 1_000, 2), [
        "task.queued",
        "attempt.started",
        "attempt.started",
        "attempt.failed",
        "attempt.succeeded",
        "task.succeeded"
      ])
      assert.deepStrictEqual(yield* stopping(failing, 500, 1), [
        "task.queued",
        "attempt.started",
        "attempt.succeeded",
        "task.succeeded"
      ])
    })
  )
})
