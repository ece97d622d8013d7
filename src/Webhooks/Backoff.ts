import { Effect, Random } from "effect"

const firstMs = 5_000
const factor = 3
const longestMs = 4 * 3_600_000
/** What a receiver may ask for at most. */
const longestAskedMs = 24 * 3_600_000

/** Until the next attempt after so many that failed, ms: 5 s, three times as long each time, at most 4 h; ±20 %. */
export const backoffMs = (attempts: number): Effect.Effect<number> =>
  Effect.map(Random.next, (chance) =>
    Math.round(Math.min(longestMs, firstMs * factor ** (attempts - 1)) * (0.8 + 0.4 * chance))
  )

/** What a `Retry-After` asks for, ms from `now`: seconds, or a date; none that cannot be read. */
export const retryAfterMs = (header: string | undefined, now: number): number => {
  if (header === undefined) return 0
  const ms = /^\s*\d+\s*$/.test(header) ? Number(header) * 1_000 : Date.parse(header) - now
  return Number.isNaN(ms) ? 0 : Math.min(longestAskedMs, Math.max(0, ms))
}
