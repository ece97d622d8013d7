import { Schema } from "effect"
import { PlatformId } from "./Platform.js"
import { type JobId, type TaskId, TenantId } from "./Task.js"
import { Instant } from "./Time.js"

/**
 * What an attempt used, or may use at most. Money is counted in whole billionths of a dollar, so that sums are exact;
 * it is absent where the model has no price.
 */
export interface Amount {
  readonly nanoUsd: number | undefined
  /** Input and output. */
  readonly tokens: number
}

const nanoPerUsd = 1e9
/** What the arithmetic of floating point may be off by, billionths of a dollar. */
const noise = 1e-6

export const usdOf = (nanoUsd: number): number => nanoUsd / nanoPerUsd

/** A limit in USD, in whole billionths of a dollar. Nobody spends more than can be counted so, some 9 million USD. */
export const limitOf = (usd: number): number => Math.min(Number.MAX_SAFE_INTEGER, Math.floor(usd * nanoPerUsd + noise))

/**
 * A cost in USD, rounded up to a whole billionth of a dollar: the books never show less than was spent, but for what no
 * call costs: a platform may report any number of tokens.
 */
export const nanoUsdOf = (usd: number): number => Math.min(Number.MAX_SAFE_INTEGER, Math.ceil(usd * nanoPerUsd - noise))

/** An amount (below 0: given back) and everybody whose books it is added to. */
export interface Booking {
  /** The UTC day it belongs to, `YYYY-MM-DD`. */
  readonly day: string
  readonly tenant: TenantId
  readonly platform: PlatformId
  /** The tasks that the attempt's task was made for, one for the other: it uses their budgets too. */
  readonly parents: ReadonlyArray<TaskId>
  readonly job?: JobId | undefined
  readonly amount: Amount
}

/** What is spent, and what attempts under way may use at most. */
const figures = (unit: string) =>
  Schema.Struct({
    limit: Schema.optional(Schema.Number).annotations({
      description: `${unit} a day; absent where there is no limit.`
    }),
    spent: Schema.Number,
    reserved: Schema.propertySignature(Schema.Number).annotations({
      description: "What attempts under way may use at most."
    })
  })

const daily = { usd: figures("USD at list prices"), tokens: figures("Tokens, input and output,") }

/** The budgets of the day, as they stand now. */
export const BudgetsView = Schema.Struct({
  day: Schema.propertySignature(Schema.String).annotations({ description: "The UTC day, `YYYY-MM-DD`." }),
  resetsAt: Schema.propertySignature(Instant).annotations({ description: "When the next day begins." }),
  key: Schema.Struct({ tenant: TenantId, ...daily }).annotations({ description: "Of the API key that asks." }),
  platforms: Schema.Array(Schema.Struct({ platform: PlatformId, ...daily }))
}).annotations({ identifier: "Budgets" })
export type BudgetsView = typeof BudgetsView.Type
