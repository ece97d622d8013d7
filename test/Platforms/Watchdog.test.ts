import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Option, Ref, TestClock } from "effect"
import { makeWatchdog } from "../../src/Platforms/Watchdog.js"

describe("the watchdog", () => {
  it.scoped("lets through what is done in time, failures and defects too", () =>
    Effect.gen(function* () {
      const watchdog = yield* makeWatchdog
      assert.strictEqual(yield* watchdog.within(Effect.succeed(1), 10, () => "late"), 1)
      assert.strictEqual(yield* Effect.flip(watchdog.within(Effect.fail("no"), 10, () => "late")), "no")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(watchdog.within(Effect.die("broken"), 10, () => "late"))))
    })
  )

  it.scoped("ends each wait at its own instant: later, sooner and after a pause", () =>
    Effect.gen(function* () {
      const watchdog = yield* makeWatchdog
      let at = 0
      for (const ms of [100, 5_000, 20, 1_000]) {
        const cut = yield* Ref.make(false)
        const never = Effect.onInterrupt(Effect.never, () => Ref.set(cut, true))
        const fiber = yield* Effect.fork(Effect.flip(watchdog.within(never, at + ms, () => `after ${ms}`)))
        yield* TestClock.adjust(ms - 1)
        assert.isTrue(Option.isNone(yield* Fiber.poll(fiber)))
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* Fiber.join(fiber), `after ${ms}`)
        assert.isTrue(yield* Ref.get(cut))
        yield* watchdog.within(Effect.void, at + ms + 10_000, () => "late")
        yield* TestClock.adjust(20_000)
        at += ms + 20_000
      }
    })
  )

  it.scoped("hands an interruption on", () =>
    Effect.gen(function* () {
      const watchdog = yield* makeWatchdog
      const cut = yield* Deferred.make<void>()
      const never = Effect.onInterrupt(Effect.never, () => Deferred.succeed(cut, undefined))
      const fiber = yield* Effect.fork(watchdog.within(never, 1_000, () => "late"))
      yield* TestClock.adjust(1)
      yield* Fiber.interrupt(fiber)
      assert.isTrue(yield* Deferred.isDone(cut))
    })
  )
})
