import * as RateLimiter from "@effect/experimental/RateLimiter"
import { Context, Duration, Effect, Layer } from "effect"
import { RateLimited } from "../Domain/ApiError.js"
import type { TenantId } from "../Domain/Task.js"
import { Settings } from "../Settings.js"
import * as WindowStore from "./WindowStore.js"

/** How many submissions an API key may make in a minute. */
export class RequestLimits extends Context.Tag("dream-team/RequestLimits")<
  RequestLimits,
  {
    /** Counts a submission. Fails, and counts nothing, where the key has used up its minute. */
    readonly admit: (tenant: TenantId) => Effect.Effect<void, RateLimited>
  }
>() {
  static readonly layer: Layer.Layer<RequestLimits, never, Settings> = Layer.effect(
    RequestLimits,
    Effect.gen(function* () {
      const { budgets } = yield* Settings
      const limiter = yield* RateLimiter.make
      return RequestLimits.of({
        admit: (tenant) => {
          const own = Object.hasOwn(budgets.keys, tenant) ? budgets.keys[tenant] : undefined
          const { requestsPerMinute: limit } = { ...budgets.perKey, ...own }
          if (limit === undefined) return Effect.void
          return limiter.consume({ key: tenant, limit, window: "1 minute", onExceeded: "fail" }).pipe(
            Effect.catchAll((error) =>
              error.reason === "Exceeded"
                ? new RateLimited({
                    message: `This API key may make ${limit} ${limit === 1 ? "submission" : "submissions"} a minute. Nothing was stored; try again later.`,
                    reasons: [],
                    retryAfterMs: Math.ceil(Duration.toMillis(error.retryAfter))
                  })
                : Effect.die(error)
            ),
            Effect.asVoid
          )
        }
      })
    })
  ).pipe(Layer.provide(WindowStore.layer))
}
