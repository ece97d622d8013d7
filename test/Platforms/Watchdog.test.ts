import { assert, describe, it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Exit, Fiber, Option, Ref, TestClock } from "effect"
import { watched } from "../../src/Platforms/Watchdog.js"

describe("watched work", () => {
  it.effect("is let through where it is done in time, failures and defects too", () =>
    Effect.gen(function* () {
      const done = <A, E>(end: Effect.Effect<A, E>) =>
        watched<A, E | string, never>((watch) =>
          Effect.zipRight(
            watch.until(10, () => Effect.fail("late")),
            end
          )
        )
      assert.strictEqual(yield* done(Effect.succeed(1)), 1)
      assert.strictEqual(yield* Effect.flip(done(Effect.fail("no"))), "no")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(done(Effect.die("broken")))))
    })
  )

  it.effect("has no timer before it waits", () =>
    Effect.gen(function* () {
      const isFree = Effect.map(TestClock.sleeps(), Chunk.isEmpty)
      const go = yield* Deferred.make<void>()
      const work = (wait: Effect.Effect<void>) =>
        watched<boolean, string, never>((watch) =>
          watch.until(10, () => Effect.fail("late")).pipe(Effect.zipRight(isFree), Effect.zipLeft(wait))
        )
      assert.isTrue(yield* work(Effect.void))
      const waiting = yield* Effect.fork(work(Deferred.await(go)))
      yield* Effect.yieldNow()
      assert.isFalse(yield* isFree)
      yield* Deferred.succeed(go, undefined)
      assert.isTrue(yield* Fiber.join(waiting))
    })
  )

  it.effect(
    "may wait for one thing after another, each until its own instant: later, sooner, and at rest for ever",
    () =>
      Effect.gen(function* () {
        const waits = [100, 5_000, 20, 1_000]
        for (const [stuck] of waits.entries()) {
          const cut = yield* Ref.make(false)
          const start = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
          const fiber = yield* Effect.fork(
            watched<string, string, never>((watch) =>
              Effect.gen(function* () {
                for (const [index, ms] of waits.entries()) {
                  const now = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
                  yield* watch.until(now + ms, () => Effect.map(Ref.get(cut), (cut) => `late at ${index}, cut: ${cut}`))
                  if (index === stuck) return yield* Effect.onInterrupt(Effect.never, () => Ref.set(cut, true))
                  yield* Effect.sleep(ms - 1)
                  watch.rest()
                  yield* Effect.sleep(20_000)
                }
                return "done"
              })
            )
          )
          const before = waits.slice(0, stuck).reduce((sum, ms) => sum + ms - 1 + 20_000, 0)
          yield* TestClock.setTime(start + before + (waits[stuck] ?? 0) - 1)
          assert.isTrue(Option.isNone(yield* Fiber.poll(fiber)))
          yield* TestClock.adjust(1)
          assert.strictEqual(yield* Fiber.join(fiber), `late at ${stuck}, cut: true`)
        }
      })
  )

  it.effect("is interrupted with whoever waits for it", () =>
    Effect.gen(function* () {
      const cut = yield* Deferred.make<void>()
      const fiber = yield* Effect.fork(
        watched<void, string, never>((watch) =>
          Effect.zipRight(
            watch.until(1_000, () => Effect.fail("late")),
            Effect.onInterrupt(Effect.never, () => Deferred.succeed(cut, undefined))
          )
        )
      )
      yield* TestClock.adjust(1)
      yield* Fiber.interrupt(fiber)
      assert.isTrue(yield* Deferred.isDone(cut))
    })
  )
})
