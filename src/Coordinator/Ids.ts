import { Effect, Random } from "effect"
import { TaskId } from "../Domain/Task.js"
import { epochMs } from "../Domain/Time.js"
import { hex } from "../Domain/Uuid.js"

/** Ids that fit into one millisecond; the next one borrows from the millisecond after. */
const perMs = 4096

/**
 * UUIDv7s (RFC 9562): 48 bits of wall time in ms, a 12-bit counter that keeps ids of one millisecond in order, and
 * 62 random bits. Each one sorts after those this process made before, even where the clock steps back.
 */
export const makeTaskIds: Effect.Effect<Effect.Effect<TaskId>> = Effect.sync(() => {
  let lastMs = -1
  let count = 0
  return Effect.gen(function* () {
    const now = yield* epochMs
    if (now > lastMs) {
      lastMs = now
      count = 0
    } else {
      count += 1
      if (count === perMs) {
        lastMs += 1
        count = 0
      }
    }
    const time = hex(lastMs, 12)
    const third = hex(0x7000 | count, 4)
    const fourth = hex(0x8000 | (yield* Random.nextIntBetween(0, 2 ** 14)), 4)
    const high = hex(yield* Random.nextIntBetween(0, 2 ** 24), 6)
    const low = hex(yield* Random.nextIntBetween(0, 2 ** 24), 6)
    return TaskId.make(`${time.slice(0, 8)}-${time.slice(8)}-${third}-${fourth}-${high}${low}`)
  })
})
