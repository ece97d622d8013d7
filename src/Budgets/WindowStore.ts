import { RateLimiterStore, RateLimitStoreError } from "@effect/experimental/RateLimiter"
import { Duration, Effect, Layer } from "effect"
import { monotonicMsOf } from "../Domain/Time.js"
import * as Window from "../ResourceManager/Window.js"

/** Keys remembered at most; beyond it, those that hold nothing are forgotten. */
const maxKeys = 10_000

/**
 * The store of Effect's RateLimiter over the rolling windows of our limits: whatever the algorithm, no window of time holds
 * more than the limit. It forgets everything with the process.
 */
export const layer: Layer.Layer<RateLimiterStore> = Layer.sync(RateLimiterStore, () => {
  const windows = new Map<string, Window.Window>()

  const windowOf = (key: string, limit: number, lengthMs: number, at: number): Window.Window => {
    const known = windows.get(key)
    if (known === undefined && windows.size >= maxKeys) {
      for (const [other, window] of windows) if (window.used(at) === 0) windows.delete(other)
    }
    const window = known ?? Window.make(lengthMs)
    windows.set(key, window)
    window.setLength(lengthMs)
    window.setLevels({
      capacity: limit,
      reserve: 0,
      isLasting: false,
      spread: 0,
      pacedSpread: 0,
      rounding: 0,
      catchUpMs: 0
    })
    return window
  }

  const draw =
    (options: { readonly key: string; readonly tokens: number; readonly refillRate: Duration.Duration }) =>
    ({ limit, mayExceed }: { readonly limit: number; readonly mayExceed: boolean }) =>
      Effect.clockWith((clock) =>
        Effect.sync(() => {
          const { key, refillRate, tokens } = options
          const at = monotonicMsOf(clock)
          const window = windowOf(key, limit, Duration.toMillis(refillRate) * limit, at)
          const count = window.used(at) + tokens
          if (mayExceed || count <= limit) {
            window.age(window.take(tokens, true, true, at), at)
            return { count, waitMs: Math.max(0, window.earliest(limit, true, at) - at) }
          }
          return { count, waitMs: Math.max(0, window.earliest(tokens, true, at) - at) }
        })
      )

  return {
    fixedWindow: ({ limit, ...options }) =>
      limit === undefined
        ? new RateLimitStoreError({ message: "A rolling window tells who must wait, but keeps no place for them" })
        : Effect.map(
            draw(options)({ limit, mayExceed: false }),
            ({ count, waitMs }) => [count, Math.ceil(waitMs)] as const
          ),
    tokenBucket: ({ allowOverflow, limit, ...options }) =>
      Effect.map(draw(options)({ limit, mayExceed: allowOverflow }), ({ count }) => limit - count)
  }
})
