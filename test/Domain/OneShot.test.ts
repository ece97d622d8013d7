import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { makeOneShot } from "../../src/Domain/OneShot.js"

describe("a one-shot", () => {
  it.effect("gives its first outcome, whether it was there before the wait or comes later", () =>
    Effect.gen(function* () {
      const early = makeOneShot<number, string>()
      early.done(Effect.succeed(1))
      early.done(Effect.succeed(2))
      assert.strictEqual(yield* early.wait, 1)

      const late = makeOneShot<number, string>()
      const fiber = yield* Effect.fork(Effect.flip(late.wait))
      yield* Effect.yieldNow()
      late.done(Effect.fail("no"))
      late.done(Effect.succeed(2))
      assert.strictEqual(yield* Fiber.join(fiber), "no")
    })
  )

  it.effect("lets whoever waits be interrupted, and does not mind what comes after", () =>
    Effect.gen(function* () {
      const never = makeOneShot<number, string>()
      const fiber = yield* Effect.fork(never.wait)
      yield* Effect.yieldNow()
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
      never.done(Effect.succeed(1))
    })
  )
})
