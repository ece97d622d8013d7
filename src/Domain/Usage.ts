import { Schema } from "effect"

const Count = Schema.NonNegativeInt

/** Tokens one attempt used, as the platform reported them. Reasoning tokens are part of `outputTokens`. */
export const Usage = Schema.Struct({
  /** All input tokens, cached ones included. */
  inputTokens: Count,
  /** The part of `inputTokens` served from the provider's cache. */
  cachedInputTokens: Count,
  /** All output tokens, reasoning ones included. */
  outputTokens: Count,
  /** The part of `outputTokens` spent on reasoning that is not in the answer's text. */
  reasoningTokens: Count
}).annotations({ identifier: "Usage" })
export type Usage = typeof Usage.Type

/** List price of one model, USD per million tokens. */
export const Price = Schema.Struct({
  input: Schema.NonNegative,
  cachedInput: Schema.optional(Schema.NonNegative),
  output: Schema.NonNegative,
  /** The day the price was read, `YYYY-MM-DD`. */
  asOf: Schema.String.pipe(Schema.pattern(/^\d{4}-\d{2}-\d{2}$/))
}).annotations({ identifier: "Price" })
export type Price = typeof Price.Type

/**
 * What `usage` costs in USD at `price`. Cached input without a price of its own costs as much as other input.
 * An unknown price is an unknown cost (`undefined`), never 0.
 */
export const costUsd = (usage: Usage, price: Price | undefined): number | undefined =>
  price === undefined
    ? undefined
    : ((usage.inputTokens - usage.cachedInputTokens) * price.input +
        usage.cachedInputTokens * (price.cachedInput ?? price.input) +
        usage.outputTokens * price.output) /
      1_000_000

const plainNumber = new Intl.NumberFormat("en-US", { useGrouping: false, maximumFractionDigits: 20 })

/** An amount of USD in words: however small, without an exponent. */
export const inUsd = (amount: number): string => `${plainNumber.format(amount)} USD`

/** What a task has used. */
export const Spent = Schema.Struct({
  costUsd: Schema.propertySignature(Schema.Number).annotations({
    description: "USD at list prices; attempts of unknown price are left out."
  }),
  tokens: Schema.Number
}).annotations({
  identifier: "Spent",
  description:
    "What all attempts used, those of its alternatives included. An attempt that is under way, or whose end nobody knows, counts as what it may have used at most."
})
export type Spent = typeof Spent.Type
