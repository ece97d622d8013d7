import { assert, describe, it } from "@effect/vitest"
import { Cause, Chunk, Effect, Exit, Fiber, Random, Stream, TestClock } from "effect"
import type { Benchmark } from "../../src/Benchmark.js"
import { Delegation, type Journal, type Piece } from "../../src/Delegation.js"
import { ResourceManager } from "../../src/ResourceManager.js"
import * as Testing from "../../src/Testing.js"
import { delegating, journal, request, trio, type Written } from "./harness.js"
import * as ScriptedResources from "./scriptedResources.js"

const { answer, fail, failures, hang } = Testing

interface Bench {
  readonly told: ScriptedResources.Told
  readonly ended: Written["ended"]
  readonly stream: Stream.Stream<Piece, { readonly _tag: string; readonly message: string }>
}

/** The delegation over scripted platforms and a resource manager without limits. */
const run = <A, E>(
  scripts: ReadonlyArray<Testing.Script>,
  body: (bench: Bench) => Effect.Effect<A, E, Benchmark | Testing.Received>
) =>
  Effect.gen(function* () {
    const { layer, told } = yield* ScriptedResources.make
    const written: Written = { started: [], ended: [] }
    return yield* Effect.gen(function* () {
      const delegation = yield* Delegation
      return yield* body({
        told,
        ended: written.ended,
        stream: delegation.stream(request(journal(written), { priority: "HIGH" }))
      })
    }).pipe(Effect.provide(delegating(scripts, layer)))
  }).pipe(Effect.withRandom(Random.make("seed")))

const inWords = (piece: Piece): string => {
  switch (piece._tag) {
    case "Began":
      return `began ${piece.platform}`
    case "Text":
      return `text ${piece.text}`
    case "ToolCall":
      return `tool ${piece.toolCall.name}`
    case "Ended":
      return `ended ${piece.delegated.platform} after ${piece.delegated.attempts}`
  }
}

const shown = (pieces: Iterable<Piece>): ReadonlyArray<string> => Array.from(pieces, inWords)

const settledOf = ({ settled }: ScriptedResources.Told): ReadonlyArray<readonly [string, string]> =>
  settled.map(([platform, how]) => [platform, how])

describe("Delegation.stream", () => {
  it.effect("gives the answer while it comes, and its end once it is settled and written down", () =>
    run(
      trio([
        [
          answer("Because.", {
            firstTokenAfterMs: 100,
            afterMs: 300,
            toolCalls: [{ id: "1", name: "look", arguments: "{}" }]
          })
        ]
      ]),
      ({ ended, stream, told }) =>
        Effect.gen(function* () {
          const seen: Array<string> = []
          const fiber = yield* Effect.fork(
            Stream.runForEach(stream, (piece) =>
              Effect.sync(() => {
                if (piece._tag === "Ended") seen.push(`settled ${told.settled.length}, written ${ended.length}`)
                seen.push(...shown([piece]))
              })
            )
          )
          yield* TestClock.adjust(100)
          assert.deepStrictEqual(seen, ["began first", "text Because.", "tool look"])
          yield* TestClock.adjust(200)
          yield* Fiber.join(fiber)
          assert.deepStrictEqual(seen.slice(3), ["settled 1, written 1", "ended first after 1"])
          assert.deepStrictEqual(settledOf(told), [["first", "Succeeded"]])
        })
    )
  )

  it.effect("hides a failure before the first token: another platform answers", () =>
    run(
      trio([
        [fail(failures.platform(), { afterMs: 50 }), answer("too late")],
        [fail(failures.credential())],
        [answer("from the third")]
      ]),
      ({ stream, told }) =>
        Effect.gen(function* () {
          const fiber = yield* Effect.fork(Stream.runCollect(stream))
          yield* TestClock.adjust(50)
          const pieces = yield* Fiber.join(fiber)
          assert.deepStrictEqual(shown(Chunk.take(pieces, 2)), ["began third", "text from the third"])
          assert.deepStrictEqual(settledOf(told), [
            ["first", "Failed"],
            ["second", "Failed"],
            ["third", "Succeeded"]
          ])
        })
    )
  )

  it.effect("never changes the platform after the first token", () =>
    run(
      trio([[fail(failures.platform(), { text: "Bec", afterMs: 10 })], [answer("never asked")]]),
      ({ ended, stream, told }) =>
        Effect.gen(function* () {
          const pieces: Array<Piece> = []
          const fiber = yield* Effect.fork(
            Effect.exit(Stream.runForEach(stream, (piece) => Effect.sync(() => pieces.push(piece))))
          )
          yield* TestClock.adjust(60_000)
          const exit = yield* Fiber.join(fiber)
          assert.deepStrictEqual(shown(pieces), ["began first", "text Bec"])
          const error = yield* Effect.flip(exit)
          assert.strictEqual(error._tag, "AnswerBroken")
          assert.deepStrictEqual(settledOf(told), [["first", "Failed"]])
          assert.deepStrictEqual(
            ended.map(({ partial, result }) => [result._tag, partial]),
            [["Failed", "Bec"]]
          )
          const received = yield* Effect.flatMap(Testing.Received, ({ calls }) => calls)
          assert.deepStrictEqual(
            received.map(({ platform }) => String(platform)),
            ["first"]
          )
        })
    )
  )

  it.effect("settles the lease once, as ignored, when its reader leaves before the first token or after it", () =>
    Effect.forEach([50, 150], (leavesAt) =>
      run(
        trio([[answer("Because.", { firstTokenAfterMs: 100, afterMs: 10_000 })], [answer("never asked")]]),
        ({ stream, told }) =>
          Effect.gen(function* () {
            const fiber = yield* Effect.fork(Stream.runDrain(stream))
            yield* TestClock.adjust(leavesAt)
            yield* Fiber.interrupt(fiber)
            assert.deepStrictEqual(settledOf(told), [["first", "Ignored"]])
            yield* TestClock.adjust(60_000)
            assert.deepStrictEqual(settledOf(told), [["first", "Ignored"]])
            const received = yield* Effect.flatMap(Testing.Received, ({ calls }) => calls)
            assert.deepStrictEqual(
              received.map(({ state }) => state),
              ["interrupted"]
            )
          })
      )
    )
  )

  it.effect("takes no lease where nobody reads, and gives it back when a reader has enough", () =>
    run(trio([[answer("Because.")]]), ({ stream, told }) =>
      Effect.gen(function* () {
        assert.deepStrictEqual(told.requests, [])
        assert.deepStrictEqual(shown(yield* Stream.runCollect(Stream.take(stream, 1))), ["began first"])
        assert.strictEqual(told.settled.length, 1)
      })
    )
  )

  it.effect("fails as a delegation does while nothing was given: by its deadline, or because nobody is left", () =>
    run(
      [{ id: "first", attempts: [hang], settings: { timeouts: { firstTokenMs: 3_600_000, attemptMs: 3_600_000 } } }],
      ({ stream, told }) =>
        Effect.gen(function* () {
          const fiber = yield* Effect.fork(Effect.flip(Stream.runDrain(stream)))
          yield* TestClock.adjust(600_000)
          assert.strictEqual((yield* Fiber.join(fiber))._tag, "DeadlineExceeded")
          assert.deepStrictEqual(settledOf(told), [["first", "Ignored"]])
        })
    )
  )

  it.effect("keeps what a slow reader holds up out of the platform's times", () =>
    run(trio([[answer("Because.", { firstTokenAfterMs: 100, afterMs: 300 })]]), ({ ended, stream }) =>
      Effect.gen(function* () {
        const many = Stream.mapEffect(stream, (piece) => Effect.as(Effect.sleep(5_000), piece))
        const fiber = yield* Effect.fork(Stream.runDrain(many))
        yield* TestClock.adjust(60_000)
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(
          ended.map(({ durationMs }) => durationMs),
          [300]
        )
      })
    )
  )

  it.scoped("leaves no permit in use after quiet, whatever became of its readers", () => {
    const scripts = trio([
      [
        answer("a", { firstTokenAfterMs: 20, afterMs: 90 }),
        fail(failures.platform(), { text: "b", afterMs: 30 }),
        fail(failures.platform())
      ],
      [answer("c", { afterMs: 40 }), hang]
    ])
    return Effect.gen(function* () {
      const delegation = yield* Delegation
      const resources = yield* ResourceManager
      const journal: Journal<never> = { attemptStarted: () => Effect.void, attemptEnded: () => Effect.void }
      const fibers = yield* Effect.forEach(
        Array.from({ length: 24 }, (_, index) => index),
        (index) =>
          delegation
            .stream(request(journal, { id: `call-${index}`, deadline: 2_000, maxWaitMs: 1_000 }))
            .pipe(
              index % 3 === 0 ? Stream.take(1) : (same) => same,
              Stream.runDrain,
              Effect.timeoutOption(index % 4 === 0 ? 35 : 60_000),
              Effect.exit,
              Effect.fork
            )
      )
      yield* TestClock.adjust(120_000)
      const exits = yield* Fiber.join(Fiber.all(fibers))
      assert.isTrue(exits.every((exit) => Exit.isSuccess(exit) || Cause.isFailure(exit.cause)))
      const { platforms, queue } = yield* resources.view
      assert.deepStrictEqual(
        platforms.map(({ permits }) => permits.inUse),
        [0, 0]
      )
      assert.strictEqual(queue.MEDIUM.depth, 0)
    }).pipe(Effect.provide(Testing.layer(scripts)), Effect.withRandom(Random.make("seed")))
  })
})
