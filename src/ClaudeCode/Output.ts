import { Either, Option, Schema } from "effect"
import { LimitWindow, SessionId } from "../Domain/Session.js"
import type { Usage } from "../Domain/Usage.js"

// What `claude -p --output-format stream-json --verbose` prints, as far as it is read: version 2.1.330, and 2.1.197
// where that says less. Fields decide, never the texts made for people.

const maybe = <A, I>(schema: Schema.Schema<A, I>) => Schema.optional(Schema.NullOr(schema))

const RateLimitInfo = Schema.Struct({
  status: maybe(Schema.String),
  /** Epoch s. */
  resetsAt: maybe(Schema.Number),
  rateLimitType: maybe(Schema.String)
})
type RateLimitInfo = typeof RateLimitInfo.Type

const Init = Schema.Struct({
  type: Schema.Literal("system"),
  subtype: Schema.Literal("init"),
  session_id: SessionId,
  model: Schema.String
})

const Retry = Schema.Struct({
  type: Schema.Literal("system"),
  subtype: Schema.Literal("api_retry"),
  attempt: Schema.Number,
  retry_delay_ms: Schema.Number,
  error_status: maybe(Schema.Int)
})

const Assistant = Schema.Struct({
  type: Schema.Literal("assistant"),
  message: Schema.Struct({
    content: Schema.Array(Schema.Struct({ type: Schema.String, text: maybe(Schema.String) }))
  }),
  /** Set where a subagent speaks. */
  parent_tool_use_id: maybe(Schema.String),
  is_api_error_message: maybe(Schema.Boolean),
  error: maybe(Schema.String),
  api_error_params: maybe(Schema.Struct({ rate_limit_info: maybe(RateLimitInfo) }))
})

const RateLimitEvent = Schema.Struct({
  type: Schema.Literal("rate_limit_event"),
  rate_limit_info: RateLimitInfo
})

const Result = Schema.Struct({
  type: Schema.Literal("result"),
  subtype: maybe(Schema.String),
  is_error: Schema.Boolean,
  session_id: SessionId,
  result: maybe(Schema.String),
  num_turns: maybe(Schema.Number),
  total_cost_usd: maybe(Schema.Number),
  terminal_reason: maybe(Schema.String),
  api_error: maybe(Schema.String),
  api_error_type: maybe(Schema.String),
  api_error_status: maybe(Schema.Int),
  errors: maybe(Schema.Array(Schema.String)),
  usage: maybe(
    Schema.Struct({
      input_tokens: maybe(Schema.Number),
      cache_creation_input_tokens: maybe(Schema.Number),
      cache_read_input_tokens: maybe(Schema.Number),
      output_tokens: maybe(Schema.Number),
      output_tokens_details: maybe(Schema.Struct({ thinking_tokens: maybe(Schema.Number) }))
    })
  )
})
export type Result = typeof Result.Type

const Line = Schema.Union(Init, Retry, Assistant, RateLimitEvent, Result)
export type Line = typeof Line.Type
const decodeLine = Schema.decodeUnknownOption(Line)

/** A line of the output, with the JSON it was read from; none where it says nothing of interest. */
export const readLine = (text: string): Option.Option<{ readonly line: Line; readonly json: unknown }> =>
  Either.try((): unknown => JSON.parse(text)).pipe(
    Option.getRight,
    Option.flatMap((json) => Option.map(decodeLine(json), (line) => ({ line, json })))
  )

const count = (tokens: number | null | undefined): number => Math.max(0, Math.round(tokens ?? 0))

export const usageOf = ({ usage }: Result): Usage => {
  const cachedInputTokens = count(usage?.cache_read_input_tokens)
  return {
    inputTokens: count(usage?.input_tokens) + count(usage?.cache_creation_input_tokens) + cachedInputTokens,
    cachedInputTokens,
    outputTokens: count(usage?.output_tokens),
    reasoningTokens: count(usage?.output_tokens_details?.thinking_tokens)
  }
}

/** What the lines before a run's result told of why it would fail. */
export interface Trouble {
  /** Of the latest message that stands for an error. */
  readonly error: string | undefined
  /** The refusal by a limit, where there was one. */
  readonly refusal: { readonly window: LimitWindow | undefined; readonly resetsAt: number | undefined } | undefined
}

export const noTrouble: Trouble = { error: undefined, refusal: undefined }

const isWindow = Schema.is(LimitWindow)

const refusalOf = (info: RateLimitInfo | null | undefined): Trouble["refusal"] =>
  info?.status === "rejected"
    ? {
        window: isWindow(info.rateLimitType) ? info.rateLimitType : undefined,
        resetsAt: typeof info.resetsAt === "number" ? info.resetsAt * 1_000 : undefined
      }
    : undefined

export const addTrouble = (trouble: Trouble, line: Line): Trouble => {
  switch (line.type) {
    case "rate_limit_event":
      return { ...trouble, refusal: refusalOf(line.rate_limit_info) ?? trouble.refusal }
    case "assistant":
      return line.is_api_error_message === true || typeof line.error === "string"
        ? {
            error: line.error ?? trouble.error,
            refusal: refusalOf(line.api_error_params?.rate_limit_info) ?? trouble.refusal
          }
        : trouble
    default:
      return trouble
  }
}
