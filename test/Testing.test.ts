import { assert, describe, it } from "@effect/vitest"
import { Chunk, Effect, Fiber, Option, Random, Stream, TestClock } from "effect"
import { Coordinator } from "../src/Coordinator.js"
import type { Call, Delta } from "../src/Domain/Call.js"
import { PlatformId } from "../src/Domain/Platform.js"
import { TenantId } from "../src/Domain/Task.js"
import { type PlatformClient, Platforms } from "../src/Platforms.js"
import * as Testing from "../src/Testing.js"

const { answer, breakWith, fail, failures, hang } = Testing

const call: Call = { messages: [{ role: "user", content: "Why?" }] }

const firstOf = Effect.flatMap(Platforms, ({ all }) => Effect.flatten(Effect.succeed(Option.fromNullable(all[0]))))

const ask = (client: PlatformClient) =>
  client.stream("m", call).pipe(
    Stream.runCollect,
    Effect.map((deltas) => Chunk.toReadonlyArray(deltas).map((delta: Delta) => delta._tag))
  )

const states = Effect.flatMap(Testing.Received, ({ calls }) =>
  Effect.map(calls, (received) => received.map(({ state }) => state))
)

describe("Testing.platforms", () => {
  it.effect("takes one step for each attempt, and repeats the last", () =>
    Effect.gen(function* () {
      const client = yield* firstOf
      assert.deepStrictEqual(yield* ask(client), ["Start", "Text", "Finish"])
      assert.strictEqual((yield* Effect.flip(ask(client)))._tag, "QuotaFailure")
      assert.strictEqual((yield* client.complete("m", call)).text, "Why? Because.")
      assert.strictEqual((yield* client.complete("m", call)).text, "Why? Because.")
      assert.deepStrictEqual(yield* states, ["answered", "failed", "answered", "answered"])
    }).pipe(
      Effect.provide(
        Testing.platforms([
          {
            id: "codex",
            attempts: [
              answer("Yes."),
              fail(failures.quota()),
              answer(({ messages: [first] }) => `${String(first.content)} Because.`)
            ]
          }
        ])
      )
    )
  )

  it.effect("takes its time: the first piece, then the rest", () =>
    Effect.gen(function* () {
      const client = yield* firstOf
      const seen: Array<string> = []
      const fiber = yield* client.stream("m", call).pipe(
        Stream.runForEach(({ _tag }) => Effect.sync(() => seen.push(_tag))),
        Effect.fork
      )
      yield* TestClock.adjust(99)
      assert.deepStrictEqual(seen, ["Start"])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(seen, ["Start", "Text"])
      yield* TestClock.adjust(200)
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(seen, ["Start", "Text", "Finish"])
    }).pipe(
      Effect.provide(
        Testing.platforms([{ id: "codex", attempts: [answer("Yes.", { firstTokenAfterMs: 100, afterMs: 300 })] }])
      )
    )
  )

  it.effect("hangs until it is interrupted, and dies where it is told to", () =>
    Effect.gen(function* () {
      const client = yield* firstOf
      const fiber = yield* Effect.fork(ask(client))
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual(yield* states, ["open"])
      yield* Fiber.interrupt(fiber)
      const exit = yield* Effect.exit(ask(client))
      assert.strictEqual(exit._tag, "Failure")
      assert.deepStrictEqual(yield* states, ["interrupted", "broken"])
    }).pipe(Effect.provide(Testing.platforms([{ id: "codex", attempts: [hang, breakWith("a bug")] }])))
  )
})

describe("a script", () => {
  it("takes undefined for what is left out", () => {
    const platform = PlatformId.make("codex")
    const quota = failures.quota({ reason: undefined, message: undefined, retryAfterMs: undefined })(platform, "m")
    assert.strictEqual(JSON.stringify(quota), JSON.stringify(failures.quota()(platform, "m")))
    assert.deepStrictEqual(answer("Yes.", { usage: undefined, afterMs: undefined }), answer("Yes."))
    assert.deepStrictEqual(Testing.pass({ afterMs: undefined }), Testing.pass())
    const settings = { model: undefined, suitability: { testing: undefined } }
    assert.deepStrictEqual(Testing.settings([{ id: "codex", settings }]), Testing.settings([{ id: "codex" }]))
  })
})

describe("Testing.layer", () => {
  const tenant = TenantId.make("local")
  const team: ReadonlyArray<Testing.Script> = [
    { id: "codex", attempts: [fail(failures.platform(), { afterMs: 50 })], settings: { weight: 5 } },
    { id: "gemini", attempts: [answer("Because.", { afterMs: 100 })] }
  ]

  it.effect("carries a task to its answer, over a failover", () =>
    Effect.gen(function* () {
      const coordinator = yield* Coordinator
      const { task } = yield* coordinator.submit(tenant, { prompt: "Why?" }, Option.none())
      const events = yield* coordinator.events(tenant, task.id, Option.none())
      const seen = yield* Effect.fork(Stream.runCollect(events))
      yield* TestClock.adjust("1 second")
      const done = yield* coordinator.get(tenant, task.id)
      assert.strictEqual(done.state, "succeeded")
      assert.strictEqual(done.result?.text, "Because.")
      assert.deepStrictEqual(
        (yield* coordinator.attempts(tenant, task.id)).map(({ platform, outcome }) => `${platform} ${outcome}`),
        ["codex failed", "gemini succeeded"]
      )
      assert.deepStrictEqual(
        Chunk.toReadonlyArray(yield* Fiber.join(seen)).map(({ type }) => type),
        ["task.queued", "attempt.started", "attempt.failed", "attempt.started", "attempt.succeeded", "task.succeeded"]
      )
    }).pipe(Effect.provide(Testing.layer(team)), Effect.withRandom(Random.make("seed")))
  )

  it.effect("gives the same event log, byte for byte, for the same seed", () => {
    const log = Effect.gen(function* () {
      const coordinator = yield* Coordinator
      const ids = yield* Effect.forEach(["one", "two", "three"], (prompt) =>
        Effect.map(coordinator.submit(tenant, { prompt }, Option.none()), ({ task }) => task.id)
      )
      yield* TestClock.adjust("5 seconds")
      const events = yield* Effect.forEach(ids, (id) =>
        Effect.flatMap(coordinator.events(tenant, id, Option.none()), Stream.runCollect)
      )
      return JSON.stringify(events.map(Chunk.toReadonlyArray))
    })
    const once = Effect.suspend(() =>
      log.pipe(
        Effect.provide(Testing.layer(team)),
        Effect.withRandom(Random.make("seed")),
        Effect.zipLeft(TestClock.setTime(0))
      )
    )
    return Effect.gen(function* () {
      const first = yield* once
      assert.include(first, "task.succeeded")
      assert.strictEqual(yield* once, first)
    })
  })
})
