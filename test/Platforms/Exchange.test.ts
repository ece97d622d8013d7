import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, TestClock } from "effect"
import { type Inbox, makeInbox } from "../../src/Platforms/Exchange.js"
import { makeAlarm } from "../../src/Platforms/Watchdog.js"

describe("an inbox", () => {
  const make = Effect.map(Effect.runtime<never>(), (runtime) => {
    let resumed = 0
    const inbox = makeInbox(makeAlarm(runtime), () => {
      resumed++
    })
    return { inbox, resumed: () => resumed }
  })

  it.effect("gives all that has come in one go, and its end after it", () =>
    Effect.gen(function* () {
      const { inbox } = yield* make
      const reader = yield* Effect.fork(inbox.more())
      yield* Effect.yieldNow()
      inbox.begin({ status: 200, headers: {} })
      inbox.add(new Uint8Array(1))
      inbox.add(new Uint8Array(2))
      inbox.end(Exit.void)
      assert.isTrue(yield* Fiber.join(reader))
      assert.strictEqual(inbox.head()?.status, 200)
      assert.isUndefined(inbox.ending())
      assert.deepStrictEqual(
        inbox.take().map((piece) => piece.length),
        [1, 2]
      )
      assert.deepStrictEqual(inbox.ending(), Exit.void)
      assert.deepStrictEqual(inbox.take(), [])
    })
  )

  it.effect("has not ended while there is more to take, even what comes because something was taken", () =>
    Effect.gen(function* () {
      const inbox: Inbox = makeInbox(makeAlarm(yield* Effect.runtime<never>()), () => {
        inbox.add(new Uint8Array(1))
        inbox.end(Exit.void)
      })
      inbox.add(new Uint8Array(64 * 1024))
      assert.strictEqual(inbox.take().length, 1)
      assert.isUndefined(inbox.ending())
      assert.isTrue(yield* inbox.more())
      assert.strictEqual(inbox.take().length, 1)
      assert.deepStrictEqual(inbox.ending(), Exit.void)
    })
  )

  it.effect("forgets nothing that comes while nobody waits", () =>
    Effect.gen(function* () {
      const { inbox } = yield* make
      inbox.take()
      inbox.add(new Uint8Array(1))
      assert.isTrue(yield* inbox.more(10))
      inbox.take()
      inbox.end(Exit.fail({ at: "reply", cause: undefined }))
      assert.isTrue(yield* inbox.more())
    })
  )

  it.effect("waits for no longer than it is told to", () =>
    Effect.gen(function* () {
      const { inbox } = yield* make
      const reader = yield* Effect.fork(inbox.more(10))
      yield* TestClock.adjust(9)
      assert.isNull(reader.unsafePoll())
      yield* TestClock.adjust(1)
      assert.isFalse(yield* Fiber.join(reader))
    })
  )

  it.effect("holds the sender up while much of it is unread", () =>
    Effect.gen(function* () {
      const { inbox, resumed } = yield* make
      assert.isFalse(inbox.add(new Uint8Array(1_000)))
      assert.isTrue(inbox.add(new Uint8Array(64 * 1024)))
      assert.strictEqual(resumed(), 0)
      inbox.take()
      assert.strictEqual(resumed(), 1)
      assert.isFalse(inbox.add(new Uint8Array(1_000)))
      inbox.take()
      assert.strictEqual(resumed(), 1)
    })
  )
})
