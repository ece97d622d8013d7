import type { FailureScope, QuotaFailure } from "../../src/Domain/Failure.js"
import { apiKey, eventStream, type Known, type ScriptedReply, sse } from "./scripted.js"

/** The wall clock's instant in every case. */
export const now = Date.parse("2026-11-22T12:00:00Z")

/** One reply that is no answer, and what it must be taken for. */
export interface ErrorCase {
  readonly name: string
  readonly platform: Known
  /** `both`: the same whether the answer was asked for whole or streamed. */
  readonly asked: "complete" | "stream" | "both"
  readonly reply: ScriptedReply | "unreachable"
  readonly scope: FailureScope
  readonly reason?: string
  readonly code?: string
  readonly retryAfterMs?: number
  readonly resetsAt?: string
  /** What it must tell of the limit that refused; what is left out must be untold. */
  readonly limit?: Partial<Pick<QuotaFailure, "window" | "unit" | "limit" | "windowMs" | "perModel">>
  /** Settings other than the platform's own. */
  readonly baseUrl?: string
}

const json = (status: number, body: unknown, headers: Readonly<Record<string, string>> = {}): ScriptedReply => ({
  status,
  headers: { "content-type": "application/json", ...headers },
  body: JSON.stringify(body)
})
const html = (status: number, title: string): ScriptedReply => ({
  status,
  headers: { "content-type": "text/html" },
  body: `<!DOCTYPE html>\n<html><head><title>${title}</title></head><body><h1>${title}</h1>${"x".repeat(2_000)}</body></html>`
})
const openAi = (
  status: number,
  error: { readonly message: string; readonly type?: string; readonly code?: string | null },
  headers?: Readonly<Record<string, string>>
) => json(status, { error: { type: null, param: null, code: null, ...error } }, headers)
const dashScope = (status: number, code: string, message: string, headers?: Readonly<Record<string, string>>) =>
  json(status, { error: { message, type: code, param: null, code }, request_id: "0d7a-11" }, headers)
const dashScopeNative = (status: number, code: string, message: string) =>
  json(status, { code, message, request_id: "0d7a-11" })
const google = (code: number, status: string, message: string, details: ReadonlyArray<unknown> = []) =>
  json(code, { error: { code, status, message, details } })
const errorInfo = (reason: string) => ({
  "@type": "type.googleapis.com/google.rpc.ErrorInfo",
  reason,
  domain: "googleapis.com"
})
const quotaFailure = (...quotaIds: ReadonlyArray<string>) => ({
  "@type": "type.googleapis.com/google.rpc.QuotaFailure",
  violations: quotaIds.map((quotaId) => ({ quotaMetric: "generate_content_requests", quotaId }))
})
/** One violation as Google writes it, with the quota's size and what it is counted by. */
const quotaOf = (quotaId: string, quotaValue: unknown, quotaDimensions: unknown = { location: "global" }) => ({
  "@type": "type.googleapis.com/google.rpc.QuotaFailure",
  violations: [{ quotaMetric: "generate_content", quotaId, quotaDimensions, quotaValue }]
})
const retryInfo = (retryDelay: string) => ({ "@type": "type.googleapis.com/google.rpc.RetryInfo", retryDelay })
const streamed = (body: string): ScriptedReply => ({ headers: eventStream, body })

const codexBase = { status: "completed", model: "gpt-6-sol", output: [], usage: { input_tokens: 1, output_tokens: 1 } }
const chatUsage = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 }
const chatChoice = (content: string, finish_reason: string | null = null) => ({
  model: "qwen3.8-max",
  choices: [{ index: 0, delta: { content }, finish_reason }]
})

const codex: ReadonlyArray<ErrorCase> = [
  {
    name: "401 invalid_api_key",
    platform: "codex",
    asked: "both",
    reply: openAi(401, {
      message: `Incorrect API key provided: ${apiKey}. You can find your API key in your account.`,
      type: "invalid_request_error",
      code: "invalid_api_key"
    }),
    scope: "credential",
    code: "invalid_api_key"
  },
  {
    name: "401 that quotes a masked key",
    platform: "codex",
    asked: "both",
    reply: openAi(401, { message: "Incorrect API key provided: sk-proj-********wxyz.", code: "invalid_api_key" }),
    scope: "credential"
  },
  {
    name: "401 without a body",
    platform: "codex",
    asked: "both",
    reply: { status: 401, body: "" },
    scope: "credential"
  },
  {
    name: "402",
    platform: "codex",
    asked: "both",
    reply: openAi(402, { message: "Payment required" }),
    scope: "credential"
  },
  {
    name: "403 unsupported country",
    platform: "codex",
    asked: "both",
    reply: openAi(403, {
      message: "Country, region, or territory not supported",
      type: "request_forbidden",
      code: "unsupported_country_region_territory"
    }),
    scope: "credential"
  },
  {
    name: "429 rate limit with retry-after in seconds",
    platform: "codex",
    asked: "both",
    reply: openAi(
      429,
      { message: "Rate limit reached for requests", type: "requests", code: "rate_limit_exceeded" },
      { "retry-after": "20" }
    ),
    scope: "quota",
    reason: "rate",
    limit: { unit: "requests" },
    code: "rate_limit_exceeded",
    retryAfterMs: 20_000
  },
  {
    name: "429 with retry-after-ms, which is finer than retry-after",
    platform: "codex",
    asked: "both",
    reply: openAi(
      429,
      { message: "Slow down", code: "rate_limit_exceeded" },
      { "retry-after": "1", "retry-after-ms": "250" }
    ),
    scope: "quota",
    reason: "rate",
    retryAfterMs: 250
  },
  {
    name: "429 with retry-after as an HTTP date",
    platform: "codex",
    asked: "both",
    reply: openAi(
      429,
      { message: "Slow down", code: "rate_limit_exceeded" },
      { "retry-after": "Sun, 22 Nov 2026 12:00:42 GMT" }
    ),
    scope: "quota",
    reason: "rate",
    retryAfterMs: 42_000
  },
  {
    name: "429 with a retry-after date in the past",
    platform: "codex",
    asked: "both",
    reply: openAi(429, { message: "Slow down" }, { "retry-after": "Sun, 22 Nov 2026 11:59:00 GMT" }),
    scope: "quota",
    reason: "rate",
    retryAfterMs: 0
  },
  {
    name: "429 with a retry-after nobody can read",
    platform: "codex",
    asked: "both",
    reply: openAi(429, { message: "Slow down" }, { "retry-after": "soon 1" }),
    scope: "quota",
    reason: "rate"
  },
  {
    name: "429 by requests: the wait is in the exhausted limit's reset header",
    platform: "codex",
    asked: "both",
    reply: openAi(
      429,
      { message: "Rate limit reached", code: "rate_limit_exceeded" },
      {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "6m0s",
        "x-ratelimit-remaining-tokens": "9000",
        "x-ratelimit-reset-tokens": "120ms"
      }
    ),
    scope: "quota",
    reason: "rate",
    limit: { unit: "requests" },
    retryAfterMs: 360_000
  },
  {
    name: "429 by tokens: the type names the limit, though some is left",
    platform: "codex",
    asked: "both",
    reply: openAi(
      429,
      { message: "Rate limit reached on tokens per min", type: "tokens", code: "rate_limit_exceeded" },
      { "x-ratelimit-remaining-tokens": "90", "x-ratelimit-reset-tokens": "1m0.5s" }
    ),
    scope: "quota",
    reason: "rate",
    limit: { unit: "tokens", windowMs: 60_000 },
    retryAfterMs: 60_500
  },
  {
    name: "429 whose wait stands in the text only",
    platform: "codex",
    asked: "both",
    reply: openAi(429, {
      message:
        "Rate limit reached for gpt-6-sol on tokens per min (TPM). Please try again in 1.284s. Visit the limits page.",
      type: "tokens",
      code: "rate_limit_exceeded"
    }),
    scope: "quota",
    reason: "rate",
    limit: { unit: "tokens", windowMs: 60_000 },
    retryAfterMs: 1_284
  },
  {
    name: "429 that names the model, the limit and its size",
    platform: "codex",
    asked: "both",
    reply: openAi(429, {
      message:
        "Rate limit reached for some-model in organization org-1 on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.",
      type: "requests",
      code: "rate_limit_exceeded"
    }),
    scope: "quota",
    reason: "rate",
    limit: { unit: "requests", limit: 3, windowMs: 60_000, perModel: true },
    retryAfterMs: 20_000
  },
  {
    name: "429 whose message and headers say different sizes: the message is of the limit that refused",
    platform: "codex",
    asked: "both",
    reply: openAi(
      429,
      {
        message: "Rate limit reached for other-model on tokens per day (TPD): Limit 200000, Used 200000, Requested 9.",
        code: "rate_limit_exceeded"
      },
      {
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "20s",
        "retry-after": "900"
      }
    ),
    scope: "quota",
    reason: "window",
    limit: { window: "tokens per day", unit: "tokens", limit: 200_000, windowMs: 86_400_000 },
    retryAfterMs: 900_000,
    resetsAt: "2026-11-22T12:15:00.000Z"
  },
  {
    name: "429 whose headers alone name the limit: a minute's, as it comes back in one",
    platform: "codex",
    asked: "both",
    reply: openAi(
      429,
      { message: "Slow down", code: "rate_limit_exceeded" },
      {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": "29000",
        "x-ratelimit-reset-tokens": "2s"
      }
    ),
    scope: "quota",
    reason: "rate",
    limit: { unit: "requests", limit: 500, windowMs: 60_000 },
    retryAfterMs: 60_000
  },
  {
    name: "429 whose headers name a limit of a window that they do not tell",
    platform: "codex",
    asked: "both",
    reply: openAi(
      429,
      { message: "Slow down", type: "requests", code: "rate_limit_exceeded" },
      {
        "x-ratelimit-limit-requests": "12",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "5s"
      }
    ),
    scope: "quota",
    reason: "rate",
    limit: { unit: "requests" },
    retryAfterMs: 5_000
  },
  {
    name: "429 whose headers show both limits used up: which of them refused is not told",
    platform: "codex",
    asked: "both",
    reply: openAi(
      429,
      { message: "Slow down", code: "rate_limit_exceeded" },
      {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": "0",
        "retry-after": "2"
      }
    ),
    scope: "quota",
    reason: "rate",
    retryAfterMs: 2_000
  },
  {
    name: "429 requests per day is a window",
    platform: "codex",
    asked: "both",
    reply: openAi(429, {
      message: "Rate limit reached on requests per day (RPD): Limit 200. Please try again in 7m12s.",
      type: "requests",
      code: "rate_limit_exceeded"
    }),
    scope: "quota",
    reason: "window",
    limit: { window: "requests per day", unit: "requests", limit: 200, windowMs: 86_400_000 },
    retryAfterMs: 432_000,
    resetsAt: "2026-11-22T12:07:12.000Z"
  },
  {
    name: "429 for one request larger than a whole minute's tokens",
    platform: "codex",
    asked: "both",
    reply: openAi(429, {
      message: "Request too large for gpt-6-sol on tokens per min (TPM): Limit 30000, Requested 45000.",
      type: "tokens",
      code: "rate_limit_exceeded"
    }),
    scope: "request",
    reason: "context"
  },
  {
    name: "429 insufficient_quota: the budget is spent",
    platform: "codex",
    asked: "both",
    reply: openAi(429, {
      message: "You exceeded your current quota, please check your plan and billing details.",
      type: "insufficient_quota",
      code: "insufficient_quota"
    }),
    scope: "quota",
    reason: "window",
    code: "insufficient_quota"
  },
  {
    name: "400 insufficient_quota: a quota by another status",
    platform: "codex",
    asked: "both",
    reply: openAi(400, { message: "You exceeded your current quota.", code: "insufficient_quota" }),
    scope: "quota",
    reason: "window"
  },
  {
    name: "429 usage_limit_reached of a ChatGPT plan with resets_at",
    platform: "codex",
    asked: "both",
    reply: json(429, {
      error: {
        type: "usage_limit_reached",
        message: "The usage limit has been reached",
        plan_type: "plus",
        resets_at: Date.parse("2026-11-22T15:05:00Z") / 1_000,
        resets_in_seconds: 11_100
      }
    }),
    scope: "quota",
    reason: "window",
    code: "usage_limit_reached",
    resetsAt: "2026-11-22T15:05:00.000Z"
  },
  {
    name: "429 usage_limit_reached with resets_in_seconds only",
    platform: "codex",
    asked: "both",
    reply: json(429, { error: { type: "usage_limit_reached", message: "Limit reached", resets_in_seconds: 60 } }),
    scope: "quota",
    reason: "window",
    resetsAt: "2026-11-22T12:01:00.000Z"
  },
  {
    name: "429 usage_limit_reached whose reset is in the plan's headers",
    platform: "codex",
    asked: "both",
    reply: json(
      429,
      { error: { type: "usage_limit_reached", message: "Limit reached" } },
      {
        "x-codex-primary-used-percent": "100",
        "x-codex-primary-reset-at": `${Date.parse("2026-11-22T14:00:00Z") / 1_000}`,
        "x-codex-secondary-used-percent": "40",
        "x-codex-secondary-reset-at": `${Date.parse("2026-11-28T00:00:00Z") / 1_000}`
      }
    ),
    scope: "quota",
    reason: "window",
    limit: { window: "primary" },
    resetsAt: "2026-11-22T14:00:00.000Z"
  },
  {
    name: "429 usage_limit_reached with both of the plan's windows used up: the later one, and its length",
    platform: "codex",
    asked: "both",
    reply: json(
      429,
      { error: { type: "usage_limit_reached", message: "Limit reached", plan_type: "plus" } },
      {
        "x-codex-primary-used-percent": "100",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": `${Date.parse("2026-11-22T14:00:00Z") / 1_000}`,
        "x-codex-secondary-used-percent": "100.0",
        "x-codex-secondary-window-minutes": "10080",
        "x-codex-secondary-reset-at": `${Date.parse("2026-11-28T00:00:00Z") / 1_000}`
      }
    ),
    scope: "quota",
    reason: "window",
    limit: { window: "secondary", windowMs: 604_800_000 },
    resetsAt: "2026-11-28T00:00:00.000Z"
  },
  {
    name: "529",
    platform: "codex",
    asked: "both",
    reply: openAi(529, { message: "Overloaded" }, { "retry-after": "5" }),
    scope: "quota",
    reason: "rate",
    retryAfterMs: 5_000
  },
  {
    name: "503 server_is_overloaded with retry-after",
    platform: "codex",
    asked: "both",
    reply: openAi(
      503,
      { message: "The server is overloaded", type: "server_error", code: "server_is_overloaded" },
      { "retry-after": "3" }
    ),
    scope: "platform",
    reason: "overloaded",
    retryAfterMs: 3_000
  },
  {
    name: "503 slow_down",
    platform: "codex",
    asked: "both",
    reply: openAi(503, { message: "Slow down", code: "slow_down" }),
    scope: "platform",
    reason: "overloaded"
  },
  {
    name: "500 server_error",
    platform: "codex",
    asked: "both",
    reply: openAi(500, { message: "The server had an error", type: "server_error" }),
    scope: "platform",
    reason: "server"
  },
  {
    name: "408",
    platform: "codex",
    asked: "both",
    reply: openAi(408, { message: "Request timeout" }),
    scope: "platform",
    reason: "timeout"
  },
  {
    name: "400 context_length_exceeded",
    platform: "codex",
    asked: "both",
    reply: openAi(400, {
      message: "Your input exceeds the context window of this model.",
      type: "invalid_request_error",
      code: "context_length_exceeded"
    }),
    scope: "request",
    reason: "context"
  },
  {
    name: "400 invalid_prompt",
    platform: "codex",
    asked: "both",
    reply: openAi(400, { message: "Invalid prompt: limited access", code: "invalid_prompt" }),
    scope: "request",
    reason: "policy"
  },
  {
    name: "400 content_policy_violation",
    platform: "codex",
    asked: "both",
    reply: openAi(400, { message: "Your request was rejected by the safety system", code: "content_policy_violation" }),
    scope: "request",
    reason: "policy"
  },
  {
    name: "400 of any other kind",
    platform: "codex",
    asked: "both",
    reply: openAi(400, {
      message: "Unsupported parameter: 'temperature' is not supported with this model.",
      type: "invalid_request_error",
      code: "unsupported_parameter"
    }),
    scope: "request",
    reason: "invalid"
  },
  {
    name: "404 model_not_found",
    platform: "codex",
    asked: "both",
    reply: openAi(404, {
      message: "The model `gpt-9` does not exist or you do not have access to it.",
      type: "invalid_request_error",
      code: "model_not_found"
    }),
    scope: "model",
    code: "model_not_found"
  },
  {
    name: "403 model_not_found: access to that model only",
    platform: "codex",
    asked: "both",
    reply: openAi(403, { message: "Project `p` does not have access to model `gpt-9`", code: "model_not_found" }),
    scope: "model"
  },
  {
    name: "502 HTML page of a gateway",
    platform: "codex",
    asked: "both",
    reply: html(502, "502 Bad Gateway"),
    scope: "platform",
    reason: "server"
  },
  {
    name: "504 HTML page of a gateway",
    platform: "codex",
    asked: "both",
    reply: html(504, "504 Gateway Time-out"),
    scope: "platform",
    reason: "timeout"
  },
  {
    name: "403 HTML page of a firewall says nothing of the key",
    platform: "codex",
    asked: "both",
    reply: html(403, "Attention Required! | Cloudflare"),
    scope: "platform",
    reason: "server"
  },
  {
    name: "429 HTML page",
    platform: "codex",
    asked: "both",
    reply: html(429, "Too Many Requests"),
    scope: "quota",
    reason: "rate"
  },
  {
    name: "413 HTML page",
    platform: "codex",
    asked: "both",
    reply: html(413, "413 Request Entity Too Large"),
    scope: "request",
    reason: "context"
  },
  {
    name: "301 is not followed",
    platform: "codex",
    asked: "both",
    reply: { status: 301, headers: { location: "http://elsewhere.invalid/" }, body: "" },
    scope: "platform",
    reason: "server"
  },
  {
    name: "nothing listens",
    platform: "codex",
    asked: "both",
    reply: "unreachable",
    scope: "platform",
    reason: "unreachable",
    code: "ECONNREFUSED"
  },
  {
    name: "200 with an HTML page",
    platform: "codex",
    asked: "both",
    reply: html(200, "Log in to the hotel's network"),
    scope: "platform",
    reason: "malformed"
  },
  {
    name: "200 that is no JSON",
    platform: "codex",
    asked: "complete",
    reply: { body: '{"status":"completed","output":[' },
    scope: "platform",
    reason: "malformed"
  },
  {
    name: "200 without usage",
    platform: "codex",
    asked: "complete",
    reply: json(200, { ...codexBase, usage: undefined }),
    scope: "platform",
    reason: "malformed"
  },
  {
    name: "200 with an error object",
    platform: "codex",
    asked: "both",
    reply: openAi(200, { message: "Rate limit reached", code: "rate_limit_exceeded" }),
    scope: "quota",
    reason: "rate"
  },
  {
    name: "200 whose response failed",
    platform: "codex",
    asked: "complete",
    reply: json(200, {
      ...codexBase,
      status: "failed",
      error: { code: "server_error", message: "An error occurred" }
    }),
    scope: "platform",
    reason: "server"
  },
  {
    name: "200 cut by the content filter",
    platform: "codex",
    asked: "complete",
    reply: json(200, { ...codexBase, status: "incomplete", incomplete_details: { reason: "content_filter" } }),
    scope: "request",
    reason: "policy"
  },
  {
    name: "200 that is a refusal",
    platform: "codex",
    asked: "complete",
    reply: json(200, {
      ...codexBase,
      output: [{ type: "message", content: [{ type: "refusal", refusal: "I cannot help with that." }] }]
    }),
    scope: "request",
    reason: "policy",
    code: "refusal"
  },
  {
    name: "stream cut by the content filter",
    platform: "codex",
    asked: "stream",
    reply: streamed(
      sse(
        { type: "response.output_text.delta", delta: "So " },
        {
          type: "response.incomplete",
          response: { ...codexBase, status: "incomplete", incomplete_details: { reason: "content_filter" } }
        }
      )
    ),
    scope: "request",
    reason: "policy"
  },
  {
    name: "response.failed in the stream: rate limit",
    platform: "codex",
    asked: "stream",
    reply: streamed(
      sse(
        { type: "response.created", response: { id: "r" } },
        {
          type: "response.failed",
          response: {
            status: "failed",
            error: { code: "rate_limit_exceeded", message: "Rate limit reached. Please try again in 11.5s." }
          }
        }
      )
    ),
    scope: "quota",
    reason: "rate",
    retryAfterMs: 11_500
  },
  {
    name: "response.failed in the stream: context",
    platform: "codex",
    asked: "stream",
    reply: streamed(
      sse({
        type: "response.failed",
        response: { status: "failed", error: { code: "context_length_exceeded", message: "Input too long" } }
      })
    ),
    scope: "request",
    reason: "context"
  },
  {
    name: "an error event in the stream, flat",
    platform: "codex",
    asked: "stream",
    reply: streamed(
      `event: error\n${sse({ type: "error", code: "server_is_overloaded", message: "Busy", param: null })}`
    ),
    scope: "platform",
    reason: "overloaded"
  },
  {
    name: "an error event in the stream, without a code",
    platform: "codex",
    asked: "stream",
    reply: streamed(sse({ type: "error", code: null, message: "Something broke", param: null })),
    scope: "platform",
    reason: "server"
  },
  {
    name: "truncated stream",
    platform: "codex",
    asked: "stream",
    reply: streamed(sse({ type: "response.output_text.delta", delta: "Half of an ans" })),
    scope: "platform",
    reason: "malformed"
  },
  {
    name: "empty stream",
    platform: "codex",
    asked: "stream",
    reply: streamed(""),
    scope: "platform",
    reason: "malformed"
  },
  {
    name: "an event that is no JSON",
    platform: "codex",
    asked: "stream",
    reply: streamed('data: {"type":"response.output_text.delta","delta":\n\n'),
    scope: "platform",
    reason: "malformed"
  }
]

const gemini: ReadonlyArray<ErrorCase> = [
  {
    name: "400 API_KEY_INVALID",
    platform: "gemini",
    asked: "both",
    reply: google(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", [
      errorInfo("API_KEY_INVALID")
    ]),
    scope: "credential",
    code: "API_KEY_INVALID"
  },
  {
    name: "400 bad key without details",
    platform: "gemini",
    asked: "both",
    reply: google(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    scope: "credential"
  },
  {
    name: "400 unsupported location",
    platform: "gemini",
    asked: "both",
    reply: google(400, "FAILED_PRECONDITION", "User location is not supported for the API use."),
    scope: "credential"
  },
  {
    name: "403 PERMISSION_DENIED",
    platform: "gemini",
    asked: "both",
    reply: google(403, "PERMISSION_DENIED", "The caller does not have permission"),
    scope: "credential",
    code: "PERMISSION_DENIED"
  },
  {
    name: "429 per minute with RetryInfo",
    platform: "gemini",
    asked: "both",
    reply: google(
      429,
      "RESOURCE_EXHAUSTED",
      "You exceeded your current quota, please check your plan and billing details.",
      [quotaFailure("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"), retryInfo("34s")]
    ),
    scope: "quota",
    reason: "rate",
    limit: { window: "PerMinute", unit: "requests", windowMs: 60_000, perModel: true },
    code: "RESOURCE_EXHAUSTED",
    retryAfterMs: 34_000
  },
  {
    name: "429 per minute with a RetryInfo of a fraction",
    platform: "gemini",
    asked: "both",
    reply: google(429, "RESOURCE_EXHAUSTED", "Quota exceeded", [retryInfo("34.074824224s")]),
    scope: "quota",
    reason: "rate",
    retryAfterMs: 34_075
  },
  {
    name: "429 per day: used up until midnight in California, whatever RetryInfo says",
    platform: "gemini",
    asked: "both",
    reply: google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", [
      quotaFailure("GenerateRequestsPerDayPerProjectPerModel-FreeTier"),
      retryInfo("20s")
    ]),
    scope: "quota",
    reason: "window",
    limit: { window: "PerDay", unit: "requests", windowMs: 86_400_000, perModel: true },
    resetsAt: "2026-11-23T08:00:00.000Z"
  },
  {
    name: "429 per day and per minute: the day counts",
    platform: "gemini",
    asked: "both",
    reply: google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", [
      quotaFailure("GenerateRequestsPerMinutePerProjectPerModel", "GenerateRequestsPerDayPerProjectPerModel")
    ]),
    scope: "quota",
    reason: "window",
    limit: { window: "PerDay", unit: "requests", windowMs: 86_400_000, perModel: true },
    resetsAt: "2026-11-23T08:00:00.000Z"
  },
  {
    name: "429 of a model's tokens per minute, with the quota's size",
    platform: "gemini",
    asked: "both",
    reply: google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", [
      quotaOf("GenerateContentPaidTierInputTokensPerModelPerMinute", "250000", {
        location: "global",
        model: "some-model"
      }),
      retryInfo("12s")
    ]),
    scope: "quota",
    reason: "rate",
    limit: { window: "PerMinute", unit: "tokens", limit: 250_000, windowMs: 60_000, perModel: true },
    retryAfterMs: 12_000
  },
  {
    name: "429 of the whole project's requests, with the quota's size",
    platform: "gemini",
    asked: "both",
    reply: google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", [
      quotaOf("GenerateRequestsPerMinutePerProject", "15"),
      retryInfo("12s")
    ]),
    scope: "quota",
    reason: "rate",
    limit: { window: "PerMinute", unit: "requests", limit: 15, windowMs: 60_000, perModel: false },
    retryAfterMs: 12_000
  },
  {
    name: "429 of a quota of nothing, or of no size that can be read",
    platform: "gemini",
    asked: "both",
    reply: google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", [
      quotaOf("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "0", "none"),
      quotaOf("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "many", { model: "" })
    ]),
    scope: "quota",
    reason: "window",
    limit: { window: "PerDay", unit: "requests", windowMs: 86_400_000, perModel: true },
    resetsAt: "2026-11-23T08:00:00.000Z"
  },
  {
    name: "429 of attempts at once",
    platform: "gemini",
    asked: "both",
    reply: google(429, "RESOURCE_EXHAUSTED", "Quota exceeded", [
      quotaOf("GenerateContentConcurrentRequestsPerProject", "4"),
      retryInfo("1s")
    ]),
    scope: "quota",
    reason: "concurrency",
    retryAfterMs: 1_000
  },
  {
    name: "429 without details",
    platform: "gemini",
    asked: "both",
    reply: google(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
    scope: "quota",
    reason: "rate"
  },
  {
    name: "403 that is a quota",
    platform: "gemini",
    asked: "both",
    reply: google(403, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Generate requests'", [retryInfo("12s")]),
    scope: "quota",
    reason: "rate",
    retryAfterMs: 12_000
  },
  {
    name: "403 rateLimitExceeded as ErrorInfo",
    platform: "gemini",
    asked: "both",
    reply: google(403, "PERMISSION_DENIED", "Too fast", [errorInfo("RATE_LIMIT_EXCEEDED")]),
    scope: "quota",
    reason: "rate"
  },
  {
    name: "400 that is a daily quota",
    platform: "gemini",
    asked: "both",
    reply: google(400, "INVALID_ARGUMENT", "Quota exceeded", [quotaFailure("GenerateRequestsPerDayPerProject")]),
    scope: "quota",
    reason: "window",
    limit: { window: "PerDay", unit: "requests", windowMs: 86_400_000, perModel: false },
    resetsAt: "2026-11-23T08:00:00.000Z"
  },
  {
    name: "400 too many tokens",
    platform: "gemini",
    asked: "both",
    reply: google(
      400,
      "INVALID_ARGUMENT",
      "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
    ),
    scope: "request",
    reason: "context"
  },
  {
    name: "400 INVALID_ARGUMENT of any other kind",
    platform: "gemini",
    asked: "both",
    reply: google(400, "INVALID_ARGUMENT", "Invalid JSON payload received. Unknown name 'foo'"),
    scope: "request",
    reason: "invalid"
  },
  {
    name: "404 NOT_FOUND",
    platform: "gemini",
    asked: "both",
    reply: google(404, "NOT_FOUND", "models/gemini-9 is not found for API version v1beta"),
    scope: "model"
  },
  {
    name: "500 INTERNAL",
    platform: "gemini",
    asked: "both",
    reply: google(500, "INTERNAL", "An internal error has occurred."),
    scope: "platform",
    reason: "server"
  },
  {
    name: "503 UNAVAILABLE",
    platform: "gemini",
    asked: "both",
    reply: google(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    scope: "platform",
    reason: "overloaded"
  },
  {
    name: "504 DEADLINE_EXCEEDED",
    platform: "gemini",
    asked: "both",
    reply: google(504, "DEADLINE_EXCEEDED", "The request took too long."),
    scope: "platform",
    reason: "timeout"
  },
  {
    name: "an error as an array",
    platform: "gemini",
    asked: "both",
    reply: json(429, [
      { error: { code: 429, status: "RESOURCE_EXHAUSTED", message: "Too fast", details: [retryInfo("3s")] } }
    ]),
    scope: "quota",
    reason: "rate",
    retryAfterMs: 3_000
  },
  {
    name: "details of the wrong type are passed over",
    platform: "gemini",
    asked: "both",
    reply: json(503, { error: { code: "503", status: "UNAVAILABLE", message: 7, details: "none" } }),
    scope: "platform",
    reason: "overloaded"
  },
  ...["SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "OTHER"].map((blockReason) => ({
    name: `prompt blocked: ${blockReason}`,
    platform: "gemini" as const,
    asked: "complete" as const,
    reply: json(200, { promptFeedback: { blockReason }, usageMetadata: { promptTokenCount: 4 } }),
    scope: "request" as const,
    reason: "policy",
    code: blockReason
  })),
  ...["SAFETY", "RECITATION", "PROHIBITED_CONTENT", "SPII"].map((finishReason) => ({
    name: `answer blocked in the stream: ${finishReason}`,
    platform: "gemini" as const,
    asked: "stream" as const,
    reply: streamed(
      sse(
        { candidates: [{ content: { parts: [{ text: "So" }] } }], usageMetadata: { promptTokenCount: 4 } },
        { candidates: [{ finishReason }], usageMetadata: { promptTokenCount: 4 } }
      )
    ),
    scope: "request" as const,
    reason: "policy",
    code: finishReason
  })),
  {
    name: "prompt blocked in the stream",
    platform: "gemini",
    asked: "stream",
    reply: streamed(sse({ promptFeedback: { blockReason: "SAFETY" }, usageMetadata: { promptTokenCount: 4 } })),
    scope: "request",
    reason: "policy"
  },
  {
    name: "an error inside the stream",
    platform: "gemini",
    asked: "stream",
    reply: streamed(
      sse(
        { candidates: [{ content: { parts: [{ text: "So" }] } }] },
        { error: { code: 503, status: "UNAVAILABLE", message: "The model is overloaded." } }
      )
    ),
    scope: "platform",
    reason: "overloaded"
  },
  {
    name: "a bare JSON error in the place of an event",
    platform: "gemini",
    asked: "stream",
    reply: streamed(
      `${sse({ candidates: [{ content: { parts: [{ text: "So" }] } }] })}${JSON.stringify(
        { error: { code: 429, status: "RESOURCE_EXHAUSTED", message: "Too fast", details: [retryInfo("9s")] } },
        null,
        2
      )}\n`
    ),
    scope: "quota",
    reason: "rate",
    retryAfterMs: 9_000
  },
  {
    name: "200 without candidates",
    platform: "gemini",
    asked: "complete",
    reply: json(200, { usageMetadata: { promptTokenCount: 4 } }),
    scope: "platform",
    reason: "malformed"
  },
  {
    name: "200 without usage",
    platform: "gemini",
    asked: "complete",
    reply: json(200, { candidates: [{ content: { parts: [{ text: "4" }] }, finishReason: "STOP" }] }),
    scope: "platform",
    reason: "malformed"
  },
  {
    name: "200 with usage of the wrong type",
    platform: "gemini",
    asked: "complete",
    reply: json(200, { candidates: [{ finishReason: "STOP" }], usageMetadata: { promptTokenCount: "many" } }),
    scope: "platform",
    reason: "malformed"
  },
  {
    name: "a malformed function call",
    platform: "gemini",
    asked: "complete",
    reply: json(200, {
      candidates: [{ finishReason: "MALFORMED_FUNCTION_CALL" }],
      usageMetadata: { promptTokenCount: 4 }
    }),
    scope: "platform",
    reason: "malformed"
  },
  {
    name: "truncated stream",
    platform: "gemini",
    asked: "stream",
    reply: streamed(
      sse({ candidates: [{ content: { parts: [{ text: "Half" }] } }], usageMetadata: { promptTokenCount: 4 } })
    ),
    scope: "platform",
    reason: "malformed"
  }
]

const qwen: ReadonlyArray<ErrorCase> = [
  {
    name: "401 invalid_api_key",
    platform: "qwen",
    asked: "both",
    reply: dashScope(401, "invalid_api_key", "Incorrect API key provided."),
    scope: "credential"
  },
  {
    name: "401 InvalidApiKey, native",
    platform: "qwen",
    asked: "both",
    reply: dashScopeNative(401, "InvalidApiKey", "Invalid API-key provided."),
    scope: "credential",
    code: "InvalidApiKey"
  },
  {
    name: "400 Arrearage",
    platform: "qwen",
    asked: "both",
    reply: dashScope(400, "Arrearage", "Access denied, please make sure your account is in good standing."),
    scope: "credential",
    code: "Arrearage"
  },
  ...["CommodityNotPurchased", "PrepaidBillOverdue", "PostpaidBillOverdue"].map((code) => ({
    name: `429 ${code}`,
    platform: "qwen" as const,
    asked: "both" as const,
    reply: dashScopeNative(429, code, "The bill is overdue."),
    scope: "credential" as const,
    code
  })),
  {
    name: "403 AccessDenied",
    platform: "qwen",
    asked: "both",
    reply: dashScopeNative(403, "AccessDenied", "Access denied."),
    scope: "credential"
  },
  {
    name: "403 Model.AccessDenied",
    platform: "qwen",
    asked: "both",
    reply: dashScopeNative(403, "Model.AccessDenied", "Model access denied."),
    scope: "model"
  },
  {
    name: "403 AllocationQuota.FreeTierOnly",
    platform: "qwen",
    asked: "both",
    reply: dashScope(403, "AllocationQuota.FreeTierOnly", "The free tier of the model has been exhausted."),
    scope: "quota",
    reason: "window",
    limit: { window: "FreeTierOnly", perModel: true }
  },
  {
    name: "429 insufficient_quota: a minute's tokens",
    platform: "qwen",
    asked: "both",
    reply: dashScope(429, "insufficient_quota", "You exceeded your current quota, please check your plan."),
    scope: "quota",
    reason: "rate",
    limit: { unit: "tokens" }
  },
  {
    name: "429 insufficient_quota of a DashScope that another URL and shape hide",
    platform: "qwen",
    asked: "both",
    baseUrl: "http://127.0.0.1:4100/v1",
    reply: openAi(429, { message: "You exceeded your current quota", code: "insufficient_quota" }),
    scope: "quota",
    reason: "rate",
    limit: { unit: "tokens" }
  },
  ...(
    [
      ["Throttling", undefined],
      ["Throttling.RateQuota", "requests"],
      ["LimitRequests", "requests"],
      ["Throttling.BurstRate", undefined],
      ["Throttling.AllocationQuota", "tokens"]
    ] as const
  ).map(([code, unit]) => ({
    name: `429 ${code}, native`,
    platform: "qwen" as const,
    asked: "both" as const,
    reply: dashScopeNative(429, code, "Requests throttling triggered."),
    scope: "quota" as const,
    reason: "rate",
    limit: unit === undefined ? {} : { unit },
    code
  })),
  {
    name: "429 limit_requests",
    platform: "qwen",
    asked: "both",
    reply: dashScope(429, "limit_requests", "You exceeded your current requests list.", { "retry-after": "2" }),
    scope: "quota",
    reason: "rate",
    limit: { unit: "requests" },
    retryAfterMs: 2_000
  },
  {
    name: "429 limit_burst_rate",
    platform: "qwen",
    asked: "both",
    reply: dashScope(429, "limit_burst_rate", "Request rate increased too quickly."),
    scope: "quota",
    reason: "rate"
  },
  {
    name: "429 Throttling.Concurrency",
    platform: "qwen",
    asked: "both",
    reply: dashScopeNative(429, "Throttling.Concurrency", "Too many at once."),
    scope: "quota",
    reason: "concurrency"
  },
  {
    name: "400 data_inspection_failed",
    platform: "qwen",
    asked: "both",
    reply: dashScope(400, "data_inspection_failed", "Input data may contain inappropriate content."),
    scope: "request",
    reason: "policy"
  },
  {
    name: "400 DataInspectionFailed, native",
    platform: "qwen",
    asked: "both",
    reply: dashScopeNative(400, "DataInspectionFailed", "Output data may contain inappropriate content."),
    scope: "request",
    reason: "policy"
  },
  {
    name: "400 input too long",
    platform: "qwen",
    asked: "both",
    reply: dashScope(400, "invalid_parameter_error", "Range of input length should be [1, 129024]"),
    scope: "request",
    reason: "context"
  },
  {
    name: "400 invalid_parameter_error",
    platform: "qwen",
    asked: "both",
    reply: dashScope(400, "invalid_parameter_error", "Range of max_tokens should be [1, 8192]"),
    scope: "request",
    reason: "invalid"
  },
  {
    name: "404 model_not_found",
    platform: "qwen",
    asked: "both",
    reply: dashScope(404, "model_not_found", "The model `qwen9` does not exist or you do not have access to it."),
    scope: "model"
  },
  {
    name: "400 model not exist",
    platform: "qwen",
    asked: "both",
    reply: dashScopeNative(400, "InvalidParameter", "Model not exist."),
    scope: "model"
  },
  {
    name: "500 InternalError",
    platform: "qwen",
    asked: "both",
    reply: dashScopeNative(500, "InternalError", "An internal error has occured."),
    scope: "platform",
    reason: "server"
  },
  {
    name: "503 ModelUnavailable",
    platform: "qwen",
    asked: "both",
    reply: dashScopeNative(503, "ModelUnavailable", "Model is unavailable, please try again later."),
    scope: "platform",
    reason: "overloaded"
  },
  {
    name: "a rate error inside the stream",
    platform: "qwen",
    asked: "stream",
    reply: streamed(
      sse(chatChoice("So"), {
        error: { code: "limit_requests", message: "You exceeded your current requests list.", type: "limit_requests" },
        request_id: "0d7a-11"
      })
    ),
    scope: "quota",
    reason: "rate",
    limit: { unit: "requests" }
  },
  {
    name: "a native error inside the stream",
    platform: "qwen",
    asked: "stream",
    reply: streamed(`event:error\n${sse({ code: "InternalError.Algo", message: "Broken", request_id: "0d7a-11" })}`),
    scope: "platform",
    reason: "server"
  },
  {
    name: "finish_reason content_filter",
    platform: "qwen",
    asked: "complete",
    reply: json(200, {
      model: "qwen3.8-max",
      choices: [{ message: { role: "assistant", content: "" }, finish_reason: "content_filter" }],
      usage: chatUsage
    }),
    scope: "request",
    reason: "policy",
    code: "content_filter"
  },
  {
    name: "finish_reason content_filter in the stream",
    platform: "qwen",
    asked: "stream",
    reply: streamed(sse(chatChoice("So", "content_filter"), { model: "q", choices: [], usage: chatUsage }, "[DONE]")),
    scope: "request",
    reason: "policy"
  },
  {
    name: "truncated stream",
    platform: "qwen",
    asked: "stream",
    reply: streamed(sse(chatChoice("Half of an ans"))),
    scope: "platform",
    reason: "malformed"
  },
  {
    name: "stream truncated in the middle of an event",
    platform: "qwen",
    asked: "stream",
    reply: streamed(`${sse(chatChoice("Half"))}data: {"model":"qwen3.8-max","choi`),
    scope: "platform",
    reason: "malformed"
  },
  {
    name: "stream done without usage",
    platform: "qwen",
    asked: "stream",
    reply: streamed(sse(chatChoice("4", "stop"), "[DONE]")),
    scope: "platform",
    reason: "malformed"
  },
  {
    name: "stream done without a finish reason",
    platform: "qwen",
    asked: "stream",
    reply: streamed(sse(chatChoice("4"), { model: "q", choices: [], usage: chatUsage }, "[DONE]")),
    scope: "platform",
    reason: "malformed"
  },
  {
    name: "200 without choices",
    platform: "qwen",
    asked: "complete",
    reply: json(200, { model: "qwen3.8-max", choices: [], usage: chatUsage }),
    scope: "platform",
    reason: "malformed"
  }
]

const synthetic: ReadonlyArray<ErrorCase> = [
  {
    name: "401 as a string",
    platform: "synthetic",
    asked: "both",
    reply: json(401, { error: "Invalid API key" }),
    scope: "credential"
  },
  {
    name: "402 as a message",
    platform: "synthetic",
    asked: "both",
    reply: json(402, { message: "No active subscription" }),
    scope: "credential"
  },
  {
    name: "429 as a string",
    platform: "synthetic",
    asked: "both",
    reply: json(429, { error: "Rate limit exceeded" }, { "retry-after": "30" }),
    scope: "quota",
    reason: "rate",
    retryAfterMs: 30_000
  },
  {
    name: "429 concurrency",
    platform: "synthetic",
    asked: "both",
    reply: json(429, { error: "Too many concurrent requests for this model" }),
    scope: "quota",
    reason: "concurrency"
  },
  {
    name: "429 of the five hours",
    platform: "synthetic",
    asked: "both",
    reply: json(429, { error: "You have reached your 5-hour limit" }, { "retry-after": "900" }),
    scope: "quota",
    reason: "window",
    limit: { window: "5h" },
    retryAfterMs: 900_000,
    resetsAt: "2026-11-22T12:15:00.000Z"
  },
  {
    name: "429 whose wait is so long that it is a window",
    platform: "synthetic",
    asked: "both",
    reply: json(429, { message: "Slow down" }, { "retry-after": "3600" }),
    scope: "quota",
    reason: "window",
    retryAfterMs: 3_600_000,
    resetsAt: "2026-11-22T13:00:00.000Z"
  },
  {
    name: "429 with an absurd wait is bounded",
    platform: "synthetic",
    asked: "both",
    reply: json(429, { error: "Slow down" }, { "retry-after": "99999999999" }),
    scope: "quota",
    reason: "window",
    retryAfterMs: 400 * 86_400_000,
    resetsAt: "2027-12-27T12:00:00.000Z"
  },
  {
    name: "429 insufficient_quota of an OpenAI-compatible platform",
    platform: "synthetic",
    asked: "both",
    reply: openAi(429, { message: "You exceeded your current quota", code: "insufficient_quota" }),
    scope: "quota",
    reason: "window"
  },
  {
    name: "400 credit balance",
    platform: "synthetic",
    asked: "both",
    reply: json(400, { error: "Your credit balance is too low" }),
    scope: "credential"
  },
  {
    name: "400 that is a rate limit",
    platform: "synthetic",
    asked: "both",
    reply: json(400, { error: "Rate limit exceeded, slow down" }),
    scope: "quota",
    reason: "rate"
  },
  {
    name: "403 weekly quota",
    platform: "synthetic",
    asked: "both",
    reply: json(403, { error: "Weekly quota exceeded" }),
    scope: "quota",
    reason: "window",
    limit: { window: "weekly" }
  },
  {
    name: "400 maximum context length",
    platform: "synthetic",
    asked: "both",
    reply: json(400, {
      error: { message: "This model's maximum context length is 131072 tokens. However, you requested 200000 tokens." }
    }),
    scope: "request",
    reason: "context"
  },
  {
    name: "404 unknown model",
    platform: "synthetic",
    asked: "both",
    reply: json(404, { error: "Unknown model hf:none/none" }),
    scope: "model"
  },
  {
    name: "422 of a validator",
    platform: "synthetic",
    asked: "both",
    reply: json(422, { detail: "messages: field required" }),
    scope: "request",
    reason: "invalid"
  },
  {
    name: "500 in plain text",
    platform: "synthetic",
    asked: "both",
    reply: { status: 500, headers: { "content-type": "text/plain" }, body: "Internal Server Error" },
    scope: "platform",
    reason: "server"
  },
  {
    name: "503 HTML page",
    platform: "synthetic",
    asked: "both",
    reply: html(503, "Service Unavailable"),
    scope: "platform",
    reason: "overloaded"
  },
  {
    name: "an error as a string inside the stream",
    platform: "synthetic",
    asked: "stream",
    reply: streamed(sse(chatChoice("So"), { error: "Internal error" })),
    scope: "platform",
    reason: "server"
  },
  {
    name: "a JSON error where a stream was asked for",
    platform: "synthetic",
    asked: "stream",
    reply: json(200, { error: { message: "The model is overloaded", type: "overloaded_error" } }),
    scope: "platform",
    reason: "overloaded"
  }
]

export const corpus: ReadonlyArray<ErrorCase> = [...codex, ...gemini, ...qwen, ...synthetic]
