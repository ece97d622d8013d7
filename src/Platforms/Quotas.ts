import { Either, Schema } from "effect"
import { Instant } from "../Domain/Time.js"
import { decodeJson, malformed, maybe, type WireProblem } from "./Wire.js"

/** Synthetic's `/v2/quotas` (https://dev.synthetic.new/docs/synthetic/quotas), as far as it says what is used up. */
const Quotas = Schema.Struct({
  rollingFiveHourLimit: maybe(
    Schema.Struct({
      // May be a fraction: small models cost less than one request.
      remaining: Schema.Number,
      limited: maybe(Schema.Boolean),
      nextTickAt: maybe(Instant)
    })
  ),
  weeklyTokenLimit: maybe(Schema.Struct({ percentRemaining: Schema.Number, nextRegenAt: maybe(Instant) })),
  subscription: maybe(Schema.Struct({ limit: Schema.Number, requests: Schema.Number, renewsAt: maybe(Instant) }))
})
const decode = decodeJson(Quotas, "the quotas")

/**
 * Until when the quotas say that nothing more is to be had, epoch ms; undefined while some is left.
 * A rolling window gives back its first slice at its next tick, so that is as long as it is used up.
 */
export const exhaustedUntil = (body: string): Either.Either<number | undefined, WireProblem> =>
  Either.flatMap(decode(body), ({ rollingFiveHourLimit: rolling, subscription, weeklyTokenLimit: weekly }) => {
    if (!rolling && !weekly && !subscription) {
      return Either.left(malformed("the quotas are malformed: they name no limit"))
    }
    const until: Array<number> = []
    if (rolling && (rolling.limited === true || rolling.remaining <= 0) && rolling.nextTickAt) {
      until.push(rolling.nextTickAt)
    }
    if (weekly && weekly.percentRemaining <= 0 && weekly.nextRegenAt) {
      until.push(weekly.nextRegenAt)
    }
    // The older form of the same limit: stale where the newer one is there.
    if (!rolling && subscription && subscription.requests >= subscription.limit && subscription.renewsAt) {
      until.push(subscription.renewsAt)
    }
    return Either.right(until.length === 0 ? undefined : Math.max(...until))
  })
