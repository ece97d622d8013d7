import { Schema } from "effect"
import type { Violation } from "./Limits.js"
import type { Dialect } from "./Options.js"

/** What a platform can answer instead of an answer; each dialect has its own shape for each. */
export const ErrorShape = Schema.Literal(
  "invalid-request",
  "invalid-key",
  "forbidden",
  "unpaid",
  "model-not-found",
  "context-too-long",
  "policy",
  "rate-limit",
  "quota-exhausted",
  "server-error",
  "overloaded"
).annotations({ identifier: "ErrorShape" })
export type ErrorShape = typeof ErrorShape.Type

export type ErrorKind = ErrorShape | "missing-key" | "route-not-found" | "wrong-method" | "too-large"

export interface ErrorFacts {
  readonly requestId: string
  readonly message?: string | undefined
  readonly param?: string | undefined
  readonly model?: string | undefined
  readonly violation?: Violation | undefined
  /** Wall time, epoch ms, at which a ChatGPT plan's used-up window lets the next request through. */
  readonly planResetsAt?: number | undefined
  /** Tokens: the input, and the most there may be. */
  readonly context?: { readonly input: number; readonly max: number } | undefined
  /** In place of the shape's own status. */
  readonly status?: number | undefined
}

export interface ErrorReply {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: unknown
}

/** The shape that goes with a status, where only the status is told. */
export const shapeOfStatus = (status: number): ErrorShape => {
  switch (status) {
    case 401:
      return "invalid-key"
    case 402:
      return "unpaid"
    case 403:
      return "forbidden"
    case 404:
      return "model-not-found"
    case 429:
      return "rate-limit"
    case 503:
    case 529:
      return "overloaded"
    default:
      return status >= 400 && status < 500 ? "invalid-request" : "server-error"
  }
}

/** The dialect's own answer for an error. Sources: the providers' error references. */
export const errorReply = (dialect: Dialect, kind: ErrorKind, facts: ErrorFacts): ErrorReply => {
  switch (dialect) {
    case "openai":
      return openAi(kind, facts)
    case "gemini":
      return gemini(kind, facts)
    case "dashscope":
      return dashScope(kind, facts)
    case "synthetic":
      return synthetic(kind, facts)
    case "anthropic":
      return anthropic(kind, facts)
  }
}

const statusOf = (kind: ErrorKind): number => {
  switch (kind) {
    case "invalid-request":
    case "context-too-long":
    case "policy":
      return 400
    case "invalid-key":
    case "missing-key":
      return 401
    case "unpaid":
      return 402
    case "forbidden":
      return 403
    case "model-not-found":
    case "route-not-found":
      return 404
    case "wrong-method":
      return 405
    case "too-large":
      return 413
    case "rate-limit":
    case "quota-exhausted":
      return 429
    case "server-error":
      return 500
    case "overloaded":
      return 503
  }
}

/** Seconds as `retry-after` wants them: whole, and never too few. */
const retryAfterSeconds = (waitMs: number): string => String(Math.max(1, Math.ceil(waitMs / 1_000)))

const unitOf = (violation: Violation | undefined): "requests" | "tokens" | "credits" | "concurrent requests" =>
  violation === undefined ? "requests" : violation.kind === "concurrency" ? "concurrent requests" : violation.kind

const windowNames: ReadonlyMap<number, string> = new Map([
  [60_000, "min"],
  [86_400_000, "day"],
  [604_800_000, "week"]
])

const windowName = (windowMs: number): string =>
  windowNames.get(windowMs) ?? (windowMs % 3_600_000 === 0 ? `${windowMs / 3_600_000}h` : `${windowMs / 1_000}s`)

const openAi = (kind: ErrorKind, facts: ErrorFacts): ErrorReply => {
  const violation = facts.violation
  const reply = (message: string, type: string, code: string | null, status = statusOf(kind)): ErrorReply => ({
    status: facts.status ?? status,
    headers: kind === "rate-limit" ? { "retry-after": retryAfterSeconds(violation?.waitMs ?? 1_000) } : {},
    body: { error: { message: facts.message ?? message, type, param: facts.param ?? null, code } }
  })
  const invalid = "invalid_request_error"
  switch (kind) {
    case "invalid-request":
      return reply("The request is not valid.", invalid, null)
    case "missing-key":
      return reply(
        "You didn't provide an API key. Send it as a Bearer token in the Authorization header.",
        invalid,
        null
      )
    case "invalid-key":
      return reply("Incorrect API key provided.", invalid, "invalid_api_key")
    case "forbidden":
      return reply(
        "Country, region, or territory not supported",
        "request_forbidden",
        "unsupported_country_region_territory"
      )
    case "unpaid":
    case "quota-exhausted":
      return reply(
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
        "insufficient_quota",
        429
      )
    case "model-not-found":
      return reply(
        `The model '${facts.model ?? ""}' does not exist or you do not have access to it.`,
        invalid,
        "model_not_found"
      )
    case "route-not-found":
      return reply("Invalid URL", invalid, null)
    case "wrong-method":
      return reply("Method not allowed for this URL", invalid, "method_not_supported")
    case "too-large":
      return reply("Request body is too large", invalid, "request_too_large")
    case "context-too-long":
      return reply(
        `Your input exceeds the context window of this model: ${contextText(facts)}. Please adjust your input and try again.`,
        invalid,
        "context_length_exceeded"
      )
    case "policy":
      return reply("Your request was rejected by the safety system.", invalid, "content_policy_violation")
    case "rate-limit": {
      if (violation === undefined)
        return reply("Rate limit reached. Please try again in 1s.", "requests", "rate_limit_exceeded")
      if (facts.planResetsAt !== undefined) {
        const resetsAt = Math.ceil(facts.planResetsAt / 1_000)
        return {
          status: facts.status ?? 429,
          headers: {},
          body: {
            error: {
              type: "usage_limit_reached",
              message: facts.message ?? "The usage limit has been reached",
              plan_type: "plus",
              resets_at: resetsAt,
              resets_in_seconds: Math.ceil(violation.waitMs / 1_000)
            }
          }
        }
      }
      const per = violation.windowMs === 0 ? "" : ` per ${windowName(violation.windowMs)}`
      const whose = violation.model ?? "all models of the organization org-simulated"
      return reply(
        `Rate limit reached for ${whose} on ${unitOf(violation)}${per}: Limit ${violation.limit}, ` +
          `Used ${violation.used}, Requested ${violation.asked}. Please try again in ${openAiDuration(violation.waitMs)}.`,
        violation.kind === "tokens" ? "tokens" : "requests",
        "rate_limit_exceeded"
      )
    }
    case "server-error":
      return reply(
        "The server had an error while processing your request. Sorry about that!",
        "server_error",
        "server_error"
      )
    case "overloaded":
      return reply(
        "Our servers are currently overloaded. Please try again later.",
        "server_error",
        "server_is_overloaded"
      )
  }
}

const contextText = (facts: ErrorFacts): string =>
  facts.context === undefined ? "too many tokens" : `${facts.context.input} tokens of ${facts.context.max}`

/** A duration as OpenAI writes it in its headers: `120ms`, `1.5s`, `6m0s`, `1h0m0s`. */
export const openAiDuration = (ms: number): string => {
  const whole = Math.ceil(ms)
  if (whole < 1_000) return `${whole}ms`
  if (whole < 60_000) return `${whole / 1_000}s`
  const seconds = Math.ceil(whole / 1_000)
  const hours = Math.floor(seconds / 3_600)
  const minutes = Math.floor((seconds % 3_600) / 60)
  return `${hours > 0 ? `${hours}h` : ""}${minutes}m${seconds % 60}s`
}

const type = (name: string): string => `type.googleapis.com/google.rpc.${name}`

const gemini = (kind: ErrorKind, facts: ErrorFacts): ErrorReply => {
  const reply = (code: number, status: string, message: string, details?: ReadonlyArray<unknown>): ErrorReply => ({
    status: facts.status ?? code,
    headers: {},
    body: {
      error: {
        code: facts.status ?? code,
        message: facts.message ?? message,
        status,
        ...(details === undefined ? {} : { details })
      }
    }
  })
  switch (kind) {
    case "invalid-request":
      return reply(
        400,
        "INVALID_ARGUMENT",
        "Request contains an invalid argument.",
        facts.param === undefined
          ? undefined
          : [
              {
                "@type": type("BadRequest"),
                fieldViolations: [{ field: facts.param, description: facts.message ?? "invalid" }]
              }
            ]
      )
    case "invalid-key":
      return reply(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", [
        {
          "@type": type("ErrorInfo"),
          reason: "API_KEY_INVALID",
          domain: "googleapis.com",
          metadata: { service: "generativelanguage.googleapis.com" }
        },
        {
          "@type": type("LocalizedMessage"),
          locale: "en-US",
          message: "API key not valid. Please pass a valid API key."
        }
      ])
    case "missing-key":
      return reply(
        403,
        "PERMISSION_DENIED",
        "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other form of API consumer identity to call this API."
      )
    case "forbidden":
    case "unpaid":
      return reply(403, "PERMISSION_DENIED", "Permission denied on resource project.")
    case "model-not-found":
      return reply(
        404,
        "NOT_FOUND",
        `models/${facts.model ?? ""} is not found for API version v1beta, or is not supported for generateContent. Call ListModels to see the list of available models and their supported methods.`
      )
    case "route-not-found":
    case "wrong-method":
      return reply(404, "NOT_FOUND", "Requested entity was not found.")
    case "too-large":
      return reply(413, "INVALID_ARGUMENT", "Request payload size exceeds the limit.")
    case "context-too-long":
      return reply(
        400,
        "INVALID_ARGUMENT",
        `The input token count (${facts.context?.input ?? 1_048_577}) exceeds the maximum number of tokens allowed (${facts.context?.max ?? 1_048_576}).`
      )
    case "policy":
      return { status: facts.status ?? 200, headers: {}, body: geminiBlocked(facts.model ?? "") }
    case "rate-limit":
      return reply(429, "RESOURCE_EXHAUSTED", geminiQuotaMessage(facts.violation), geminiQuotaDetails(facts, false))
    case "quota-exhausted":
      return reply(429, "RESOURCE_EXHAUSTED", geminiQuotaMessage(facts.violation), geminiQuotaDetails(facts, true))
    case "server-error":
      return reply(500, "INTERNAL", "An internal error has occurred. Please retry.")
    case "overloaded":
      return reply(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")
  }
}

/** Gemini refuses a prompt by policy with status 200 and no candidates. */
const geminiBlocked = (model: string): unknown => ({
  promptFeedback: { blockReason: "PROHIBITED_CONTENT" },
  usageMetadata: { promptTokenCount: 1, totalTokenCount: 1 },
  modelVersion: model
})

const geminiQuotaMessage = (violation: Violation | undefined): string =>
  violation === undefined
    ? "You exceeded your current quota, please check your plan and billing details."
    : `You exceeded your current quota, please check your plan and billing details. Quota of ${unitOf(violation)} exceeded, limit: ${violation.limit}. Please retry in ${violation.waitMs / 1_000}s.`

/** As Google writes a window into a quota's id. */
const geminiPeriod = (windowMs: number): string =>
  windowMs === 60_000 ? "PerMinute" : windowMs === 86_400_000 ? "PerDay" : `Per${windowMs / 1_000}Seconds`

const geminiQuotaDetails = (facts: ErrorFacts, exhausted: boolean): ReadonlyArray<unknown> => {
  const violation = facts.violation
  const isOfModel = violation === undefined || violation.model !== undefined
  const period = violation === undefined ? (exhausted ? "PerDay" : "PerMinute") : geminiPeriod(violation.windowMs)
  const perModel = isOfModel ? "PerModel" : ""
  const quotaId =
    violation?.kind === "tokens"
      ? `GenerateContentInputTokens${perModel}${period}`
      : violation?.kind === "concurrency"
        ? `GenerateContentConcurrentRequestsPerProject${perModel}`
        : `GenerateRequests${period}PerProject${perModel}`
  const waitMs = violation?.waitMs ?? (exhausted ? 3_600_000 : 1_000)
  return [
    {
      "@type": type("QuotaFailure"),
      violations: [
        {
          quotaMetric: `generativelanguage.googleapis.com/generate_content_${violation?.kind === "tokens" ? "input_token_count" : "requests"}`,
          quotaId,
          quotaDimensions: { location: "global", ...(isOfModel ? { model: facts.model ?? "" } : {}) },
          quotaValue: String(violation?.limit ?? 1)
        }
      ]
    },
    {
      "@type": type("Help"),
      links: [
        { description: "Learn more about Gemini API quotas", url: "https://ai.google.dev/gemini-api/docs/rate-limits" }
      ]
    },
    { "@type": type("RetryInfo"), retryDelay: `${Math.ceil(waitMs) / 1_000}s` }
  ]
}

const dashScope = (kind: ErrorKind, facts: ErrorFacts): ErrorReply => {
  const reply = (message: string, errorType: string, code: string | null, status = statusOf(kind)): ErrorReply => ({
    status: facts.status ?? status,
    headers: {},
    body: {
      error: { message: facts.message ?? message, type: errorType, param: facts.param ?? null, code },
      request_id: facts.requestId
    }
  })
  const invalid = "invalid_request_error"
  switch (kind) {
    case "invalid-request":
      return reply("The request is not valid.", invalid, "invalid_parameter_error")
    case "missing-key":
      return reply("You didn't provide an API key.", invalid, "invalid_api_key")
    case "invalid-key":
      return reply("Incorrect API key provided.", invalid, "invalid_api_key")
    case "forbidden":
      return reply("Access denied.", "access_denied", "access_denied")
    case "unpaid":
      return reply("Access denied, please make sure your account is in good standing.", "Arrearage", "Arrearage", 400)
    case "model-not-found":
      return reply(
        `The model \`${facts.model ?? ""}\` does not exist or you do not have access to it.`,
        invalid,
        "model_not_found"
      )
    case "route-not-found":
      return reply("Not found", invalid, "not_found")
    case "wrong-method":
      return reply("Method not allowed", invalid, "method_not_supported")
    case "too-large":
      return reply("Request body is too large", invalid, "request_too_large")
    case "context-too-long":
      return reply(
        `<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, ${facts.context?.max ?? 1}]`,
        invalid,
        "invalid_parameter_error"
      )
    case "policy":
      return reply("Input data may contain inappropriate content.", "data_inspection_failed", "data_inspection_failed")
    case "rate-limit":
      switch (facts.violation?.kind) {
        case "tokens":
          return reply(
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            "insufficient_quota"
          )
        case "concurrency":
          return reply("Too many concurrent requests.", "Throttling.Concurrency", "Throttling.Concurrency")
        default:
          return reply("You have exceeded your current request limit.", "limit_requests", "limit_requests")
      }
    case "quota-exhausted":
      return reply(
        "The free tier of the model has been exhausted.",
        "AllocationQuota.FreeTierOnly",
        "AllocationQuota.FreeTierOnly",
        403
      )
    case "server-error":
      return reply("Internal server error.", "internal_error", "internal_error")
    case "overloaded":
      return reply("The model is currently unavailable.", "ModelUnavailable", "ModelUnavailable")
  }
}

/** Synthetic publishes no error table; its errors were seen as plain strings. */
const synthetic = (kind: ErrorKind, facts: ErrorFacts): ErrorReply => {
  const reply = (message: string): ErrorReply => ({
    status: facts.status ?? statusOf(kind),
    headers: {},
    body: { error: facts.message ?? message }
  })
  switch (kind) {
    case "invalid-request":
      return reply("Invalid request")
    case "missing-key":
      return reply("Missing API key")
    case "invalid-key":
      return reply("Invalid API key")
    case "forbidden":
      return reply("Forbidden")
    case "unpaid":
      return reply("Subscription inactive: payment required")
    case "model-not-found":
      return reply(`Unknown model: ${facts.model ?? ""}`)
    case "route-not-found":
      return reply("Not found")
    case "wrong-method":
      return reply("Method not allowed")
    case "too-large":
      return reply("Request body too large")
    case "context-too-long":
      return reply(`Prompt is longer than the model's maximum context length: ${contextText(facts)}`)
    case "policy":
      return reply("The prompt was rejected by the content policy")
    case "rate-limit": {
      const violation = facts.violation
      if (violation === undefined) return reply("Rate limit exceeded")
      if (violation.kind === "credits") return reply(`Weekly credits used up: $${violation.limit.toFixed(2)}`)
      return reply(
        violation.kind === "concurrency"
          ? `Too many concurrent requests: ${violation.limit} allowed`
          : `Rate limit exceeded: ${violation.limit} ${unitOf(violation)} per ${windowName(violation.windowMs)}`
      )
    }
    case "quota-exhausted":
      return reply("You have used up your subscription's limit")
    case "server-error":
      return reply("Internal server error")
    case "overloaded":
      return reply("The model is overloaded, try again later")
  }
}

/** Anthropic's errors, as its API reference lists them. */
const anthropic = (kind: ErrorKind, facts: ErrorFacts): ErrorReply => {
  const reply = (type: string, message: string, status = statusOf(kind)): ErrorReply => ({
    status: facts.status ?? status,
    headers: facts.violation === undefined ? {} : { "retry-after": retryAfterSeconds(facts.violation.waitMs) },
    body: { type: "error", error: { type, message: facts.message ?? message }, request_id: facts.requestId }
  })
  const invalid = "invalid_request_error"
  switch (kind) {
    case "invalid-request":
      return reply(invalid, "The request is not valid.")
    case "missing-key":
      return reply("authentication_error", "x-api-key header is required")
    case "invalid-key":
      return reply("authentication_error", "invalid x-api-key")
    case "forbidden":
      return reply("permission_error", "Your account does not have permission to use the specified resource.")
    case "unpaid":
      return reply(invalid, "Your credit balance is too low to access the Anthropic API.", 400)
    case "model-not-found":
      return reply("not_found_error", `model: ${facts.model ?? ""}`)
    case "route-not-found":
      return reply("not_found_error", "Not Found")
    case "wrong-method":
      return reply(invalid, "Method Not Allowed")
    case "too-large":
      return reply("request_too_large", "Request exceeds the maximum size")
    case "context-too-long":
      return reply(
        invalid,
        `prompt is too long: ${facts.context?.input ?? 1_000_001} tokens > ${facts.context?.max ?? 1_000_000} maximum`
      )
    case "policy":
      return reply(invalid, "Output blocked by content filtering policy")
    case "rate-limit":
      return reply("rate_limit_error", "This request would exceed your account's rate limit. Please try again later.")
    case "quota-exhausted":
      return reply("rate_limit_error", "This request would exceed your account's usage limit.")
    case "server-error":
      return reply("api_error", "Internal server error")
    case "overloaded":
      return reply("overloaded_error", "Overloaded", 529)
  }
}
