import { Effect } from "effect"
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
  const stamp = (now: number): string => {
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
    return `${time.slice(0, 8)}-${time.slice(8)}-${hex(0x7000 | count, 4)}`
  }
  // plain continuations: a generator takes twice the time of all that it does here, and an id is made for every task
  return Effect.flatMap(epochMs, (now) => {
    const stamped = stamp(now)
    return Effect.randomWith((random) =>
      Effect.flatMap(random.nextIntBetween(0, 2 ** 14), (fourth) =>
        Effect.flatMap(random.nextIntBetween(0, 2 ** 24), (high) =>
          Effect.map(random.nextIntBetween(0, 2 ** 24), (low) =>
            // to look whether it is a UUID would take longer than to make it
            TaskId.make(`${stamped}-${hex(0x8000 | fourth, 4)}-${hex(high, 6)}${hex(low, 6)}`, true)
          )
        )
      )
    )
  })
})
