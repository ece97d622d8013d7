import { expect, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
import { supervised } from "../../src/Telemetry/supervised.js"

it.effect("what is supervised is begun anew after a pause, however it broke, and ends with its scope", () =>
  Effect.gen(function* () {
    let begun = 0
    let ended = 0
    const breaking = Effect.suspend((): Effect.Effect<void, string> => {
      begun += 1
      return begun === 1
        ? Effect.fail("not now")
        : begun === 2
          ? Effect.die("a bug")
          : Effect.onInterrupt(Effect.never, () =>
              Effect.sync(() => {
                ended += 1
              })
            )
    })
    yield* Effect.scoped(
      Effect.gen(function* () {
        yield* supervised("It broke", breaking, 5_000)
        yield* TestClock.adjust(4_999)
        expect(begun).toBe(1)
        yield* TestClock.adjust(1)
        expect(begun).toBe(2)
        yield* TestClock.adjust(5_000)
        expect([begun, ended]).toEqual([3, 0])
      })
    )
    yield* TestClock.adjust(60_000)
    expect([begun, ended]).toEqual([3, 1])
  })
)
