import { describe, expect, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
import { makeClockLook } from "../../src/Domain/Time.js"
import { jumpingClock } from "../support/jumpingClock.js"

describe("a look at the wall clock", () => {
  it.effect("tells by how much it was set back, and once", () =>
    Effect.gen(function* () {
      const { clock, jump, jumping } = yield* jumpingClock
      const told: Array<number> = []
      yield* Effect.gen(function* () {
        const look = yield* makeClockLook((backMs) => Effect.sync(() => told.push(backMs)))
        yield* look
        yield* Effect.withClock(TestClock.adjust("1 hour"), clock)
        jump(3_600_000)
        yield* look
        jump(-1_000)
        yield* look
        expect(told).toEqual([])
        jump(-5_000)
        yield* look
        yield* look
        expect(told).toEqual([5_000])
      }).pipe(Effect.withClock(jumping))
    })
  )

  it.effect("tells it again where nothing could be done about it", () =>
    Effect.gen(function* () {
      const { jump, jumping } = yield* jumpingClock
      const told: Array<number> = []
      yield* Effect.gen(function* () {
        const look = yield* makeClockLook((backMs) =>
          Effect.suspend(() => (told.push(backMs) < 3 ? Effect.fail("not now") : Effect.void))
        )
        jump(-5_000)
        yield* Effect.exit(look)
        jump(-1_500)
        yield* Effect.exit(look)
        yield* look
        yield* look
        expect(told).toEqual([5_000, 6_500, 6_500])
      }).pipe(Effect.withClock(jumping))
    })
  )
})
