import { Schema } from "effect"
import { TokensCounted, WireFormat } from "../Domain/Platform.js"

/** Log-normal: half of the samples lie below `median`; `sigma` is the standard deviation of their logarithm, 0 = always the median. */
export const Distribution = Schema.Struct({
  median: Schema.NonNegative,
  sigma: Schema.NonNegative.pipe(Schema.lessThanOrEqualTo(5))
}).annotations({ identifier: "Distribution" })
export type Distribution = typeof Distribution.Type

/** At most `limit` in any `windowMs`. */
export const WindowLimit = Schema.Struct({
  limit: Schema.Int.pipe(Schema.positive()),
  windowMs: Schema.Number.pipe(Schema.positive(), Schema.finite())
}).annotations({ identifier: "WindowLimit" })
export type WindowLimit = typeof WindowLimit.Type

/** At most so many US dollars in any `windowMs`. */
export const CreditLimit = Schema.Struct({
  limitUsd: Schema.Number.pipe(Schema.positive(), Schema.finite()),
  windowMs: Schema.Number.pipe(Schema.positive(), Schema.finite())
}).annotations({ identifier: "CreditLimit" })
export type CreditLimit = typeof CreditLimit.Type

/** What is allowed of one model, beside what is allowed of the whole platform. */
const SimulatedModelLimits = Schema.Struct({
  requests: Schema.optional(Schema.Array(WindowLimit)),
  tokens: Schema.optional(Schema.Array(WindowLimit)),
  maxConcurrent: Schema.optional(Schema.Int.pipe(Schema.positive())),
  /** What one request counts in windows longer than a minute. Default 1. */
  requestCost: Schema.optional(Schema.Number.pipe(Schema.positive(), Schema.finite()))
}).annotations({ identifier: "SimulatedModelLimits" })

/** What the simulated platform allows. What is absent is not limited. */
export const SimulatedLimits = Schema.Struct({
  /** Requests in rolling windows; every window holds. */
  requests: Schema.optional(Schema.Array(WindowLimit)),
  /** Tokens in rolling windows, counted as `tokensCounted` says; every window holds. */
  tokens: Schema.optional(Schema.Array(WindowLimit)),
  /** Default `reserved`. */
  tokensCounted: Schema.optional(TokensCounted),
  /** Spent at the platform's `prices` when an answer ends; every window holds. */
  credits: Schema.optional(Schema.Array(CreditLimit)),
  /** Requests being answered at once. */
  maxConcurrent: Schema.optional(Schema.Int.pipe(Schema.positive())),
  /** Requests of any one model being answered at once. */
  maxConcurrentPerModel: Schema.optional(Schema.Int.pipe(Schema.positive())),
  models: Schema.optional(Schema.Record({ key: Schema.String, value: SimulatedModelLimits }))
}).annotations({ identifier: "SimulatedLimits" })
export type SimulatedLimits = typeof SimulatedLimits.Type

/** Whose base path, headers and error shapes are spoken. */
export const Dialect = Schema.Literal("openai", "gemini", "dashscope", "synthetic", "anthropic").annotations({
  identifier: "Dialect"
})
export type Dialect = typeof Dialect.Type

export const SimulatedPlatform = Schema.Struct({
  /**
   * `openai-responses` answers `/chat/completions` as well, as OpenAI does; `anthropic-messages` is what Claude Code
   * speaks, to be let in by an API key or by a login.
   */
  wire: Schema.Union(WireFormat, Schema.Literal("anthropic-messages")),
  /** Default `gemini` and `anthropic` for the wires of these names, else `openai`. */
  dialect: Schema.optional(Dialect),
  /** The models it knows; any other is answered with its "unknown model" error. */
  models: Schema.NonEmptyArray(Schema.NonEmptyString),
  /** The only key it accepts. Default: any key, but there must be one. */
  apiKey: Schema.optional(Schema.NonEmptyString),
  limits: Schema.optional(SimulatedLimits),
  /** By model, USD per million tokens. Default: nothing. */
  prices: Schema.optional(
    Schema.Record({
      key: Schema.String,
      value: Schema.Struct({ input: Schema.NonNegative, output: Schema.NonNegative })
    })
  ),
  /**
   * With the dialect `openai`: speaks of its limits as a ChatGPT plan does. Its windows of requests longer than a minute
   * are the plan's, the shortest the primary and the next the secondary one.
   */
  plan: Schema.optional(Schema.Boolean),
  latency: Schema.Struct({
    /** From the request's arrival to the first token, ms. */
    firstTokenMs: Distribution,
    /** From one token to the next, ms. */
    tokenMs: Distribution
  }),
  /** Length of an answer's text, tokens. */
  answerTokens: Distribution,
  /** Tokens spent on reasoning before the text, counted as output. Default none. */
  reasoningTokens: Schema.optional(Distribution),
  /** Input and output together, tokens; more input than this is refused. Default 1,000,000. */
  contextWindow: Schema.optional(Schema.Int.pipe(Schema.positive())),
  /** Longest answer, and what a request that names no bound reserves, tokens. Default 8,192. */
  maxOutputTokens: Schema.optional(Schema.Int.pipe(Schema.between(1, 200_000)))
}).annotations({ identifier: "SimulatedPlatform" })
export type SimulatedPlatform = typeof SimulatedPlatform.Type

export interface SimulatorOptions<Id extends string = string> {
  /** 0 (the default) takes any free port. */
  readonly port?: number | undefined
  /** Default `127.0.0.1`. */
  readonly host?: string | undefined
  /** With the content of a request it alone decides the answer, its length and its latency. */
  readonly seed: number
  /** Multiplies every latency. Default 1. */
  readonly latencyScale?: number | undefined
  /** How many of the newest admitted calls are kept, to be looked at. Default none. */
  readonly keepRequests?: number | undefined
  /** By id: 1 to 40 lower-case letters, digits or hyphens, starting with a letter. */
  readonly platforms: Readonly<Record<Id, SimulatedPlatform>>
}

/** `SimulatorOptions` as checked when a simulator starts. */
export const SimulatorOptionsSchema = Schema.Struct({
  port: Schema.optional(Schema.Int.pipe(Schema.between(0, 65_535))),
  host: Schema.optional(Schema.NonEmptyString),
  seed: Schema.Number.pipe(Schema.finite()),
  latencyScale: Schema.optional(Schema.NonNegative.pipe(Schema.finite())),
  keepRequests: Schema.optional(Schema.Int.pipe(Schema.between(0, 10_000))),
  platforms: Schema.Record({
    key: Schema.String.pipe(Schema.pattern(/^[a-z][a-z0-9-]{0,39}$/)),
    value: SimulatedPlatform
  })
}).annotations({ identifier: "SimulatorOptions" })

export const dialectOf = (platform: SimulatedPlatform): Dialect => {
  if (platform.dialect !== undefined) return platform.dialect
  if (platform.wire === "anthropic-messages") return "anthropic"
  return platform.wire === "gemini" ? "gemini" : "openai"
}

/** Where a dialect's endpoints begin, below the platform's own prefix. */
export const basePathOf = (dialect: Dialect): string => {
  switch (dialect) {
    case "openai":
      return "/v1"
    case "gemini":
      return "/v1beta"
    case "dashscope":
      return "/compatible-mode/v1"
    case "synthetic":
      return "/openai/v1"
    case "anthropic":
      // Its clients append the version themselves.
      return ""
  }
}

export const defaultContextWindow = 1_000_000
export const defaultMaxOutputTokens = 8_192
