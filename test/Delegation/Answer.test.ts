import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Fiber, MutableRef, Option, Schedule, Stream, TestClock } from "effect"
import { gatherAnswer } from "../../src/Delegation/Answer.js"
import type { Call, Delta, LimitReading } from "../../src/Domain/Call.js"
import { PlatformFailure } from "../../src/Domain/Failure.js"
import type { Usage } from "../../src/Domain/Usage.js"
import { type PlatformClient, Platforms } from "../../src/Platforms.js"
import * as Testing from "../../src/Testing.js"

const call: Call = { messages: [{ role: "user", content: "Why?" }] }
const usage = { inputTokens: 3, cachedInputTokens: 0, outputTokens: 2, reasoningTokens: 0 }

const start: Delta = { _tag: "Start", limits: [{ unit: "requests", remaining: 9 }] }
const text = (piece: string): Delta => ({ _tag: "Text", text: piece })
const finish: Extract<Delta, { _tag: "Finish" }> = { _tag: "Finish", finishReason: "stop", model: "m-2026", usage }

const gather = (stream: ReturnType<PlatformClient["stream"]>) =>
  Effect.gen(function* () {
    const { all } = yield* Platforms
    const client = yield* Effect.orDie(Option.fromNullable(all[0]))
    const firstTokenAt = MutableRef.make(Option.none<number>())
    const readings: Array<ReadonlyArray<LimitReading>> = []
    const onStart = (limits: ReadonlyArray<LimitReading>) =>
      Effect.sync(() => {
        readings.push(limits)
      })
    const completion = yield* Effect.either(
      gatherAnswer({ ...client, stream: () => stream }, "m", call, onStart, firstTokenAt)
    )
    return { completion, readings, firstTokenAt: Option.getOrUndefined(MutableRef.get(firstTokenAt)) }
  }).pipe(Effect.provide(Testing.platforms([{ id: "codex" }])))

describe("gatherAnswer", () => {
  it.effect("gathers the same answer however the pieces are cut into chunks", () =>
    Effect.gen(function* () {
      const deltas = [start, text("Be"), text("cause"), text("."), finish]
      for (let size = 1; size <= deltas.length; size++) {
        const gathered = yield* gather(Stream.rechunk(Stream.fromIterable(deltas), size))
        assert.deepStrictEqual(
          gathered.completion.pipe((either) => (either._tag === "Right" ? either.right : undefined)),
          { text: "Because.", toolCalls: [], finishReason: "stop", model: "m-2026", usage }
        )
        assert.deepStrictEqual(gathered.readings, [[{ unit: "requests", remaining: 9 }]])
        assert.strictEqual(gathered.firstTokenAt, 0)
      }
    })
  )

  it.effect("knows when the first piece came, not the headers and not a later piece", () =>
    Effect.gen(function* () {
      const later = (ms: number, delta: Delta) => Stream.fromEffect(Effect.as(Effect.sleep(ms), delta))
      const fiber = yield* Effect.fork(
        gather(
          Stream.make(start).pipe(
            Stream.concat(later(70, text("a"))),
            Stream.concat(later(30, text("b"))),
            Stream.concat(Stream.make(finish))
          )
        )
      )
      yield* TestClock.adjust(100)
      assert.strictEqual((yield* fiber).firstTokenAt, 70)
    })
  )

  it.effect("takes a stream that ends without its end for a failure of the platform", () =>
    Effect.gen(function* () {
      const { completion } = yield* gather(Stream.make(start, text("Be")))
      assert.strictEqual(completion._tag, "Left")
      if (completion._tag === "Left") {
        assert.instanceOf(completion.left, PlatformFailure)
        assert.include(completion.left.message, "before the answer was complete")
      }
    })
  )

  const failureOf = (stream: ReturnType<PlatformClient["stream"]>) =>
    Effect.map(gather(stream), ({ completion }) => (completion._tag === "Left" ? completion.left : undefined))
  const silence = Stream.fromEffect(Effect.never)
  const slowly = (ms: number, delta: Delta) => Stream.fromEffect(Effect.as(Effect.sleep(ms), delta))

  it.effect.each([
    ["that hangs", Stream.never, 120_000, "timeout", /did not begin within 120000 ms/],
    ["that only has begun to reply", Stream.concat(Stream.make(start), silence), 120_000, "timeout", /did not begin/],
    [
      "that falls silent",
      Stream.concat(slowly(100_000, text("a")), silence),
      160_000,
      "stalled",
      /nothing came for 60000 ms in mid-answer/
    ],
    ["that goes on for ever", Stream.repeat(slowly(50_000, text("a")), Schedule.forever), 600_000, "timeout", /longer/]
  ] as const)("gives a platform %s no more than its timeouts", ([, stream, atMs, reason, message]) =>
    Effect.gen(function* () {
      const fiber = yield* Effect.fork(failureOf(stream))
      yield* TestClock.adjust(atMs - 1)
      assert.isTrue(Option.isNone(yield* Fiber.poll(fiber)))
      yield* TestClock.adjust(1)
      const failure = yield* Fiber.join(fiber)
      assert.isTrue(failure instanceof PlatformFailure && failure.reason === reason)
      assert.match(failure?.message ?? "", message)
    })
  )

  it.effect("rounds estimated tokens up, and takes no numbers that are none", () =>
    Effect.gen(function* () {
      const used = (over: Partial<Usage>) => gather(Stream.make<[Delta]>({ ...finish, usage: { ...usage, ...over } }))
      const { completion } = yield* used({ inputTokens: 2.25, outputTokens: 0.5 })
      const rounded = Either.getOrUndefined(completion)?.usage
      assert.deepStrictEqual(rounded, { ...usage, inputTokens: 3, outputTokens: 1 })
      for (const odd of [Number.NaN, -1, Number.POSITIVE_INFINITY]) {
        const { completion } = yield* used({ reasoningTokens: odd })
        assert.isTrue(Either.isLeft(completion) && completion.left.message.includes(`${odd} as reasoningTokens`))
      }
    })
  )
})
