import { Either, Schema } from "effect"
import type { LimitReading } from "../Domain/Call.js"
import { Instant } from "../Domain/Time.js"
import { decodeJson, JsonObject, lenient, malformed, maybe, type WireProblem } from "./Wire.js"

/** Synthetic's `/v2/quotas` (https://dev.synthetic.new/docs/synthetic/quotas), as far as it tells of calls to models. */
const Quotas = Schema.Struct({
  rollingFiveHourLimit: maybe(
    Schema.Struct({
      // May be a fraction: small models cost less than one request.
      remaining: Schema.Finite,
      max: maybe(Schema.Finite),
      limited: maybe(Schema.Boolean),
      nextTickAt: maybe(Instant)
    })
  ),
  weeklyTokenLimit: maybe(
    Schema.Struct({
      percentRemaining: Schema.Finite,
      nextRegenAt: maybe(Instant),
      maxCredits: lenient(Schema.String),
      remainingCredits: lenient(Schema.String)
    })
  ),
  subscription: maybe(Schema.Struct({ limit: Schema.Finite, requests: Schema.Finite, renewsAt: maybe(Instant) })),
  search: maybe(JsonObject)
})
const decode = decodeJson(Quotas, "the quotas")

const fiveHoursMs = 5 * 3_600_000
const weekMs = 7 * 86_400_000

/** The amount of `$24.00`. */
const dollars = (text: string | undefined): number | undefined => {
  const amount = /^\$(\d{1,12}(?:\.\d{1,12})?)$/.exec(text?.trim() ?? "")?.[1]
  return amount === undefined ? undefined : Number(amount)
}

const positive = (value: number | null | undefined): number | undefined =>
  typeof value === "number" && value > 0 ? value : undefined

const untilMs = (instant: number | null | undefined, nowMs: number): number | undefined =>
  instant === null || instant === undefined ? undefined : Math.max(0, instant - nowMs)

/**
 * What the quotas say of the plan's limits: the requests of five hours, which come back in ticks of a twentieth, and the
 * credits of a week, which come back bit by bit. The older `subscription` is read where it stands alone.
 */
export const readQuotas = (body: string, nowMs: number): Either.Either<ReadonlyArray<LimitReading>, WireProblem> =>
  Either.flatMap(decode(body), ({ rollingFiveHourLimit: rolling, search, subscription, weeklyTokenLimit: weekly }) => {
    if (!rolling && !weekly && !subscription && !search) {
      return Either.left(malformed("the quotas are malformed: they name no limit"))
    }
    const readings: Array<LimitReading> = []
    if (rolling) {
      readings.push({
        unit: "requests",
        name: "5h",
        windowMs: fiveHoursMs,
        limit: positive(rolling.max),
        remaining: rolling.limited === true ? 0 : Math.max(0, rolling.remaining),
        refillsInMs: untilMs(rolling.nextTickAt, nowMs)
      })
    } else if (subscription) {
      const resetsInMs = untilMs(subscription.renewsAt, nowMs)
      readings.push({
        unit: "requests",
        name: "subscription",
        // It was described as that of five hours; a later reset belies it.
        windowMs: resetsInMs === undefined || resetsInMs <= fiveHoursMs ? fiveHoursMs : undefined,
        limit: positive(subscription.limit),
        remaining: Math.max(0, subscription.limit - subscription.requests),
        resetsInMs
      })
    }
    if (weekly) {
      const limit = positive(dollars(weekly.maxCredits))
      const remaining = weekly.percentRemaining <= 0 ? 0 : dollars(weekly.remainingCredits)
      readings.push({
        ...(limit === undefined || remaining === undefined
          ? { unit: "percent", limit: 100, remaining: Math.max(0, weekly.percentRemaining) }
          : { unit: "usd", limit, remaining }),
        name: "weekly",
        windowMs: weekMs,
        refillsInMs: untilMs(weekly.nextRegenAt, nowMs)
      })
    }
    return Either.right(readings)
  })
