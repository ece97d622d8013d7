import { DateTime, Option, type Redacted, Schema } from "effect"
import type { LimitReading } from "../Domain/Call.js"
import {
  type AttemptFailure,
  CredentialFailure,
  ModelFailure,
  PlatformFailure,
  QuotaFailure,
  RequestFailure
} from "../Domain/Failure.js"
import type { PlatformId } from "../Domain/Platform.js"
import { scrub } from "./Secrets.js"
import {
  epochMs,
  longestWaitMs,
  parseDuration,
  parseReset,
  parseRetryAfter,
  planLimits,
  type ResponseHeaders,
  readLimits
} from "./Wire/RateLimitHeaders.js"
import { lenient } from "./Wire.js"

/** A reply that is no answer: an error status, or an error object that came with status 200. */
export interface RefusedReply {
  readonly platform: PlatformId
  readonly model?: string | undefined
  readonly baseUrl: string
  /** Scrubbed from whatever is kept of the reply. */
  readonly apiKey: Redacted.Redacted<string>
  readonly status: number
  readonly headers: ResponseHeaders
  readonly body: string
  /** Wall time, epoch ms: what `retry-after` dates and reset instants are held against. */
  readonly nowMs: number
}

// ---------------------------------------------------------------------------------------------------------------
// What the body says
// ---------------------------------------------------------------------------------------------------------------

const RetryDelay = Schema.Union(
  Schema.String,
  Schema.Struct({
    seconds: lenient(Schema.Union(Schema.Number, Schema.NumberFromString)),
    nanos: lenient(Schema.Number)
  })
)

/** One entry of Google's `error.details`: ErrorInfo has `reason`, QuotaFailure `violations`, RetryInfo `retryDelay`. */
const ErrorDetail = Schema.Struct({
  reason: lenient(Schema.String),
  retryDelay: lenient(RetryDelay),
  violations: lenient(
    Schema.Array(
      Schema.Struct({
        quotaId: lenient(Schema.String),
        // An int64, which Google writes as a text.
        quotaValue: lenient(Schema.Union(Schema.Finite, Schema.NumberFromString.pipe(Schema.finite()))),
        quotaDimensions: lenient(Schema.Struct({ model: lenient(Schema.NonEmptyString) }))
      })
    )
  )
})
type Violation = NonNullable<(typeof ErrorDetail.Type)["violations"]>[number] & { readonly quotaId: string }

const Code = Schema.Union(Schema.String, Schema.Number)

const errorFields = {
  message: lenient(Schema.String),
  type: lenient(Schema.String),
  code: lenient(Code),
  status: lenient(Code),
  details: lenient(Schema.Array(Schema.Union(ErrorDetail, Schema.Unknown))),
  resets_at: lenient(Schema.Number),
  resets_in_seconds: lenient(Schema.Number)
}
const ErrorObject = Schema.Struct(errorFields)

/** Every shape of error body met so far; each field is read where it is what it should be. */
const ErrorBody = Schema.Struct({
  ...errorFields,
  error: lenient(Schema.Union(Schema.String, ErrorObject)),
  detail: lenient(Schema.String),
  request_id: lenient(Schema.String)
})

const parseErrorBody = Schema.decodeUnknownOption(
  Schema.parseJson(Schema.Union(ErrorBody, Schema.NonEmptyArray(ErrorBody)))
)
const isErrorDetail = Schema.is(Schema.typeSchema(ErrorDetail))

interface Facts {
  readonly message: string | undefined
  /** The provider's words for what is wrong, the most specific first. */
  readonly codes: ReadonlyArray<string>
  readonly statusInBody: number | undefined
  /** Google's quotas that are used up. */
  readonly violations: ReadonlyArray<Violation>
  readonly retryDelayMs: number | undefined
  readonly resetsAt: number | undefined
  readonly resetsInMs: number | undefined
  readonly hasRequestId: boolean
  readonly isHtml: boolean
}

const retryDelayMs = (delay: typeof RetryDelay.Type | undefined): number | undefined => {
  if (delay === undefined) {
    return undefined
  }
  return typeof delay === "string"
    ? parseDuration(delay)
    : parseDuration(`${(delay.seconds ?? 0) + (delay.nanos ?? 0) / 1e9}s`)
}

const readFacts = (body: string): Facts => {
  const parsed = Option.getOrUndefined(parseErrorBody(body))
  const top = parsed === undefined ? undefined : "length" in parsed ? parsed[0] : parsed
  const inner = typeof top?.error === "object" ? top.error : undefined
  const details = (inner?.details ?? top?.details ?? []).filter(isErrorDetail)
  const words = [
    ...details.map((detail) => detail.reason),
    inner?.code,
    inner?.type,
    inner?.status,
    top?.code,
    top?.type,
    top?.status
  ]
  const numbers = [inner?.code, inner?.status, top?.code, top?.status]
    .map(Number)
    .filter((code) => code >= 400 && code < 600)
  const resetsAt = inner?.resets_at ?? top?.resets_at
  const resetsIn = inner?.resets_in_seconds ?? top?.resets_in_seconds
  const isHtml = /^\s*(?:<!doctype|<html|<head|<\?xml)/i.test(body)
  const title = isHtml ? /<title[^>]*>([^<]*)/i.exec(body)?.[1]?.trim() : undefined
  const said =
    inner?.message ??
    (typeof top?.error === "string" ? top.error : undefined) ??
    top?.message ??
    top?.detail ??
    (isHtml ? `an HTML page${title ? `: ${title}` : ""}` : parsed === undefined ? body.trim() : undefined)
  return {
    message: said === "" ? undefined : said,
    // A bare number repeats the status, and `error` the fact.
    codes: words.filter((word): word is string => typeof word === "string" && !/^(?:\d*|error)$/.test(word)),
    statusInBody: numbers[0],
    violations: details.flatMap((detail) =>
      (detail.violations ?? []).flatMap(({ quotaId, ...rest }) => (quotaId === undefined ? [] : [{ ...rest, quotaId }]))
    ),
    retryDelayMs: details.map((detail) => retryDelayMs(detail.retryDelay)).find((ms) => ms !== undefined),
    resetsAt: resetsAt !== undefined && resetsAt > 0 ? epochMs(resetsAt) : undefined,
    resetsInMs: resetsIn !== undefined && resetsIn >= 0 ? resetsIn * 1_000 : undefined,
    hasRequestId: top?.request_id !== undefined && top.request_id !== "",
    isHtml
  }
}

// ---------------------------------------------------------------------------------------------------------------
// Whose fault it is
// ---------------------------------------------------------------------------------------------------------------

type Verdict =
  | { readonly scope: "request"; readonly reason: RequestFailure["reason"] }
  | { readonly scope: "model" }
  | { readonly scope: "credential" }
  | { readonly scope: "quota"; readonly reason: QuotaFailure["reason"] | "unsaid" }
  | { readonly scope: "platform"; readonly reason: PlatformFailure["reason"] }

const invalid: Verdict = { scope: "request", reason: "invalid" }
const context: Verdict = { scope: "request", reason: "context" }
const refused: Verdict = { scope: "request", reason: "policy" }
const model: Verdict = { scope: "model" }
const credential: Verdict = { scope: "credential" }
const rate: Verdict = { scope: "quota", reason: "rate" }
const usedUp: Verdict = { scope: "quota", reason: "window" }
const concurrency: Verdict = { scope: "quota", reason: "concurrency" }
const quota: Verdict = { scope: "quota", reason: "unsaid" }
const overloaded: Verdict = { scope: "platform", reason: "overloaded" }
const server: Verdict = { scope: "platform", reason: "server" }
const timeout: Verdict = { scope: "platform", reason: "timeout" }

/** Codes are compared by letters and digits only: DashScope has each in two spellings. */
const bare = (code: string): string => code.toLowerCase().replace(/[^a-z0-9]/g, "")

/** Codes that say by themselves what is wrong, whatever the status. */
const codesByVerdict: ReadonlyArray<readonly [Verdict, ReadonlyArray<string>]> = [
  [refused, ["content_policy_violation", "invalid_prompt", "content_filter", "data_inspection_failed"]],
  [context, ["context_length_exceeded", "request_too_large", "string_above_max_length", "context_window_exceeded"]],
  [
    credential,
    [
      "invalid_api_key",
      "incorrect_api_key_provided",
      "API_KEY_INVALID",
      "API_KEY_SERVICE_BLOCKED",
      "API_KEY_HTTP_REFERRER_BLOCKED",
      "API_KEY_IP_ADDRESS_BLOCKED",
      "SERVICE_DISABLED",
      "BILLING_DISABLED",
      "CONSUMER_SUSPENDED",
      "CONSUMER_INVALID",
      "ACCESS_TOKEN_EXPIRED",
      "FAILED_PRECONDITION",
      "account_deactivated",
      "billing_not_active",
      "unsupported_country_region_territory",
      "usage_not_included",
      "AccessDenied",
      "Arrearage",
      "CommodityNotPurchased",
      "PrepaidBillOverdue",
      "PostpaidBillOverdue"
    ]
  ],
  [model, ["model_not_found", "model_not_exist", "invalid_model", "Model.AccessDenied"]],
  [
    usedUp,
    [
      "usage_limit_reached",
      "usage_limit_exceeded",
      "billing_hard_limit_reached",
      "quota_exceeded",
      "dailyLimitExceeded",
      "AllocationQuota.FreeTierOnly"
    ]
  ],
  [
    rate,
    ["Throttling.RateQuota", "Throttling.BurstRate", "Throttling.AllocationQuota", "LimitRequests", "limit_burst_rate"]
  ],
  [concurrency, ["Throttling.Concurrency", "concurrency_limit_exceeded"]],
  [
    quota,
    [
      "rate_limit_exceeded",
      "rateLimitExceeded",
      "userRateLimitExceeded",
      "rate_limit_error",
      "rate_limit_reached",
      "RESOURCE_EXHAUSTED",
      "RESOURCE_QUOTA_EXCEEDED",
      "too_many_requests",
      "Throttling"
    ]
  ],
  [overloaded, ["server_is_overloaded", "slow_down", "ModelUnavailable", "ServiceUnavailable", "engine_overloaded"]],
  [timeout, ["RequestTimeOut", "ResponseTimeout"]]
]
const specificCodes: ReadonlyMap<string, Verdict> = new Map(
  codesByVerdict.flatMap(([verdict, codes]) => codes.map((code) => [bare(code), verdict] as const))
)

/** Codes that say no more than a status does; for errors that come with status 200. */
const statusOfCode: ReadonlyMap<string, number> = new Map(
  Object.entries({
    invalid_request_error: 400,
    invalid_parameter_error: 400,
    InvalidParameter: 400,
    INVALID_ARGUMENT: 400,
    OUT_OF_RANGE: 400,
    authentication_error: 401,
    UNAUTHENTICATED: 401,
    permission_error: 403,
    PERMISSION_DENIED: 403,
    not_found_error: 404,
    NOT_FOUND: 404,
    server_error: 500,
    api_error: 500,
    internal_error: 500,
    INTERNAL: 500,
    overloaded_error: 503,
    UNAVAILABLE: 503,
    DEADLINE_EXCEEDED: 504
  }).map(([code, status]) => [bare(code), status])
)

const isDashScope = (reply: RefusedReply, facts: Facts): boolean =>
  facts.hasRequestId ||
  /^(?:qwen|dashscope)/.test(reply.platform) ||
  /^https?:\/\/[^/]*\.aliyuncs\.com(?:[:/]|$)/.test(reply.baseUrl)

/** Statuses that providers give to more than one scope, so that the message has to tell. */
const isVague = (status: number): boolean => [400, 403, 404, 413, 422].includes(status)

const saysUnpaid =
  /credit balance|insufficient (?:balance|credits?|funds)|payment required|overdue|in arrears|billing (?:is )?not (?:active|enabled)/i

/** For want of a code or a status that says it: what the words of a message mean, the first that fits. */
const verdictsByText: ReadonlyArray<readonly [RegExp, Verdict]> = [
  [
    /maximum context length|context (?:length|window)|range of input length should be|exceeds? the maximum number of tokens|prompt is too long|input (?:is )?too long|too many input tokens/i,
    context
  ],
  [
    /(?:invalid|incorrect|expired|missing|not valid).{0,20}api.?key|api.?key.{0,20}(?:invalid|incorrect|expired|not valid)/i,
    credential
  ],
  [saysUnpaid, credential],
  [
    /quota (?:exceeded|exhausted)|exceeded (?:your|the) (?:current |daily |monthly )?quota|rate.?limit|usage limit|used up|too many (?:concurrent )?requests/i,
    quota
  ],
  [
    /\bmodel\b.{0,120}(?:not found|not exist|does not exist|not supported|unknown|deprecated)|(?:unknown|invalid|no such|unsupported) model|models\/\S+ is not found|not have access to (?:the )?model/i,
    model
  ],
  [/content policy|usage policy|safety (?:system|policy)|inappropriate content|content filter/i, refused],
  [/^(?:forbidden|unauthorized|access denied)\b/i, credential]
]
/** What Google's ids of quotas are made of. */
const isDaily = /PerDay/i
const isConcurrency = /Concurrent/i
const saysOverloaded = /overloaded|at capacity/i
const saysConcurrency = /concurren|simultaneous|parallel request/i
const saysWindow =
  /per (?:hour|day|week|month)|daily|weekly|monthly|\b\d+[- ]?h(?:ours?)?\b|usage limit|used up|free (?:tier|quota).{0,30}(?:used|exhausted)/i
/** OpenAI's 429 for one request that is larger than a whole minute's tokens: no wait will ever do. */
const saysTooLargeForMinute = /^Request too large for/i

const verdictOf = (reply: RefusedReply, facts: Facts): Verdict => {
  const message = facts.message ?? ""
  const codes = facts.codes.map(bare)

  if (facts.violations.length > 0) {
    const named = (word: RegExp) => facts.violations.some(({ quotaId }) => word.test(quotaId))
    return named(isDaily) ? usedUp : named(isConcurrency) ? concurrency : rate
  }
  if (saysTooLargeForMinute.test(message)) {
    return context
  }
  if (codes.includes("insufficientquota")) {
    // OpenAI: the account's budget is spent. DashScope: tokens per minute, and over in a moment.
    return isDashScope(reply, facts) ? rate : usedUp
  }
  for (const code of codes) {
    const verdict = specificCodes.get(code)
    if (verdict !== undefined) {
      return verdict
    }
  }

  const inBody =
    facts.statusInBody ?? codes.map((code) => statusOfCode.get(code)).find((status) => status !== undefined)
  const status = reply.status >= 400 ? reply.status : inBody
  if (status === 429 || status === 529 || inBody === 429 || inBody === 529) {
    return saysUnpaid.test(message) ? credential : quota
  }
  if (facts.isHtml && status !== 401 && status !== 402 && status !== 413) {
    // A page is from whatever stands before the platform, and knows nothing of the request.
    return status === 503 ? overloaded : status === 408 || status === 504 || status === 524 ? timeout : server
  }
  if (status === undefined || isVague(status)) {
    const verdict = verdictsByText.find(([says]) => says.test(message))?.[1]
    if (verdict !== undefined) {
      return verdict
    }
  }
  switch (status) {
    case 401:
    case 402:
    case 403:
      return credential
    case 404:
    case 410:
      return model
    case 413:
      return context
    case 408:
    case 504:
    case 524:
      return timeout
    case 503:
      return overloaded
    case 405:
    case 409:
    case 425:
    case 499:
      return server
    default:
      return status === undefined || status >= 500 ? (saysOverloaded.test(message) ? overloaded : server) : invalid
  }
}

// ---------------------------------------------------------------------------------------------------------------
// How long it lasts
// ---------------------------------------------------------------------------------------------------------------

/** A limit that takes longer than this to refill is a used-up window, ms. */
const longestRateWaitMs = 10 * 60_000

/** The next midnight of Pacific time, at which Gemini's daily quotas reset (https://ai.google.dev/gemini-api/docs/rate-limits). */
const nextPacificMidnight = (nowMs: number): number | undefined =>
  DateTime.makeZoned(nowMs, { timeZone: "America/Los_Angeles" }).pipe(
    Option.map((now) => DateTime.toEpochMillis(DateTime.startOf(DateTime.add(now, { days: 1 }), "day"))),
    Option.getOrUndefined
  )

/** Of the limits whose headers show nothing left, the one that takes longest, ms. */
const exhaustedReset = (reply: RefusedReply, facts: Facts): number | undefined => {
  const resets = (["requests", "tokens"] as const).flatMap((unit) => {
    const remaining = reply.headers[`x-ratelimit-remaining-${unit}`]
    const reset = reply.headers[`x-ratelimit-reset-${unit}`]
    const isTheOne = facts.codes.includes(unit) || (remaining !== undefined && Number(remaining) <= 0)
    return isTheOne && reset !== undefined ? (parseReset(reset, reply.nowMs) ?? []) : []
  })
  return resets.length === 0 ? undefined : Math.max(...resets)
}

/** The used-up window of a ChatGPT plan, by `x-codex-{primary,secondary}-*`: of both the one that resets later. */
const usedUpPlan = (reply: RefusedReply): LimitReading | undefined =>
  planLimits(reply.headers, reply.nowMs)
    .filter(({ remaining }) => remaining === 0)
    .sort((left, right) => (right.resetsInMs ?? 0) - (left.resetsInMs ?? 0))[0]

/** The wait in the text of a message ("Please try again in 1.284s."), for want of a field. */
const waitInText = (message: string): number | undefined => {
  const wait = /(?:try again|retry) in ((?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+)/i.exec(message)?.[1]
  return wait === undefined ? undefined : parseDuration(wait)
}

const retryAfterOf = (reply: RefusedReply, facts: Facts): number | undefined => {
  const header = parseRetryAfter(reply.headers, reply.nowMs)
  if (header !== undefined || facts.retryDelayMs !== undefined) {
    return Math.max(header ?? 0, facts.retryDelayMs ?? 0)
  }
  return undefined
}

const believable = (instant: number | undefined, nowMs: number): number | undefined =>
  instant === undefined ? undefined : Math.min(instant, nowMs + longestWaitMs)

/** Decides whose fault a refused reply is, why, and how long it lasts. Pure. */
export const classify = (reply: RefusedReply): AttemptFailure => {
  const facts = readFacts(reply.body)
  const verdict = verdictOf(reply, facts)
  const code = facts.codes[0]
  const said = {
    platform: reply.platform,
    model: reply.model,
    status: reply.status,
    code: code === undefined ? undefined : scrub(code, reply.apiKey, 100),
    message: scrub(
      facts.message === undefined || facts.isHtml
        ? `HTTP ${reply.status} with ${facts.message ?? "no message"}`
        : facts.message,
      reply.apiKey
    )
  }
  switch (verdict.scope) {
    case "request":
      return new RequestFailure({ ...said, reason: verdict.reason })
    case "model":
      return new ModelFailure(said)
    case "credential":
      return new CredentialFailure(said)
    case "platform":
      return new PlatformFailure({ ...said, reason: verdict.reason, retryAfterMs: retryAfterOf(reply, facts) })
    case "quota":
      return quotaFailure(reply, facts, verdict.reason, said)
  }
}

const quotaFailure = (
  reply: RefusedReply,
  facts: Facts,
  verdict: QuotaFailure["reason"] | "unsaid",
  said: Omit<ConstructorParameters<typeof CredentialFailure>[0], "_tag">
): QuotaFailure => {
  const message = facts.message ?? ""
  const isOfDay = facts.violations.some(({ quotaId }) => isDaily.test(quotaId))
  const retryAfterMs = isOfDay
    ? // Google sends a RetryInfo of seconds along with a daily quota that is used up.
      undefined
    : (retryAfterOf(reply, facts) ?? exhaustedReset(reply, facts) ?? waitInText(message))
  const plan = usedUpPlan(reply)
  const resetsAt =
    facts.resetsAt ??
    (facts.resetsInMs === undefined ? undefined : reply.nowMs + facts.resetsInMs) ??
    (plan?.resetsInMs === undefined ? undefined : reply.nowMs + plan.resetsInMs) ??
    (isOfDay ? nextPacificMidnight(reply.nowMs) : undefined)
  const isLong = retryAfterMs !== undefined && retryAfterMs > longestRateWaitMs
  const reason =
    verdict !== "unsaid"
      ? verdict
      : saysConcurrency.test(message)
        ? "concurrency"
        : resetsAt !== undefined || isLong || saysWindow.test(message)
          ? "window"
          : "rate"
  return new QuotaFailure({
    ...said,
    reason,
    retryAfterMs,
    resetsAt: believable(
      resetsAt ?? (reason === "window" && retryAfterMs !== undefined ? reply.nowMs + retryAfterMs : undefined),
      reply.nowMs
    ),
    ...(reason === "concurrency" ? {} : refusingLimit(reply, facts, plan))
  })
}

// ---------------------------------------------------------------------------------------------------------------
// Which limit it was
// ---------------------------------------------------------------------------------------------------------------

type RefusingLimit = Pick<QuotaFailure, "window" | "unit" | "limit" | "windowMs" | "perModel">

const periodMs: Readonly<Record<string, number>> = {
  second: 1_000,
  minute: 60_000,
  min: 60_000,
  hour: 3_600_000,
  day: 86_400_000,
  week: 7 * 86_400_000
}

/** Google's id of a quota tells what it counts and for how long: `GenerateRequestsPerDayPerProjectPerModel-FreeTier`. */
const violatedQuota = (violations: ReadonlyArray<Violation>): RefusingLimit | undefined => {
  const violation = violations.find(({ quotaId }) => isDaily.test(quotaId)) ?? violations[0]
  if (violation === undefined) {
    return undefined
  }
  const { quotaDimensions, quotaId, quotaValue } = violation
  const period = /Per(Second|Minute|Hour|Day|Week)(?![a-z])/.exec(quotaId)?.[1]
  const windowMs = period === undefined ? undefined : periodMs[period.toLowerCase()]
  return {
    window: period === undefined ? undefined : `Per${period}`,
    unit: /token/i.test(quotaId) ? "tokens" : /request/i.test(quotaId) ? "requests" : undefined,
    // Of nothing there is no share to keep: such a quota is not on offer, however long one waits.
    limit: windowMs !== undefined && quotaValue !== undefined && quotaValue > 0 ? quotaValue : undefined,
    windowMs,
    perModel: /PerModel(?![a-z])/.test(quotaId) || quotaDimensions?.model !== undefined
  }
}

/** DashScope's codes that tell what the limit counts, by letters and digits only. */
const unitOfCode: ReadonlyMap<string, "requests" | "tokens"> = new Map([
  [bare("Throttling.AllocationQuota"), "tokens"],
  [bare("insufficient_quota"), "tokens"],
  [bare("Throttling.RateQuota"), "requests"],
  [bare("LimitRequests"), "requests"]
])

const dashScopeLimit = (facts: Facts): RefusingLimit => {
  const codes = facts.codes.map(bare)
  return codes.includes(bare("AllocationQuota.FreeTierOnly"))
    ? // What DashScope gives free, it gives of each model.
      { window: "FreeTierOnly", perModel: true }
    : { unit: codes.map((code) => unitOfCode.get(code)).find((unit) => unit !== undefined) }
}

/**
 * OpenAI's limits, by its message ("Rate limit reached for gpt-6-sol in organization org-1 on tokens per min (TPM): Limit
 * 30000, Used 29000, Requested 4000."), the error's type, and the headers of the limit that has nothing left.
 */
const rateLimit = (reply: RefusedReply, facts: Facts): RefusingLimit => {
  const message = facts.message ?? ""
  const [, unitInText, period] =
    /\b(requests|tokens) per (second|min(?:ute)?|hour|day|week)\b/i.exec(message)?.map((word) => word.toLowerCase()) ??
    []
  const limitInText = /\bLimit:? (\d{1,15})\b/.exec(message)?.[1]
  const readings = readLimits(reply.headers, reply.nowMs)
  const usedUp = readings.filter(({ remaining, unit }) => remaining === 0 && unit !== "percent")
  const unit = (["requests", "tokens"] as const).find((candidate) =>
    unitInText === undefined
      ? facts.codes.includes(candidate) || (usedUp.length === 1 && usedUp[0]?.unit === candidate)
      : unitInText === candidate
  )
  if (unit === undefined) {
    return {}
  }
  const inText = period === undefined ? undefined : periodMs[period]
  const reading = readings.find((read) => read.unit === unit)
  const windowMs = inText ?? reading?.windowMs
  const limit =
    inText !== undefined && limitInText !== undefined
      ? Number(limitInText)
      : // A header's figure whose window is not known may be that of any.
        windowMs === 60_000 && (reading?.resetsInMs ?? Number.POSITIVE_INFINITY) <= 60_000
        ? reading?.limit
        : undefined
  return {
    window: inText === undefined || inText <= 60_000 ? undefined : `${unit} per ${period}`,
    unit,
    limit: limit !== undefined && limit > 0 ? limit : undefined,
    windowMs,
    // OpenAI counts by model and names it.
    perModel:
      reply.model !== undefined && message.startsWith(`Rate limit reached for ${reply.model} `) ? true : undefined
  }
}

/** Names of windows that a message has, for want of a field. */
const windowsByText: ReadonlyArray<readonly [RegExp, string]> = [
  [/\b(?:5|five)[- ]?h(?:ours?)?\b/i, "5h"],
  [/weekly|per week/i, "weekly"],
  [/daily|per day/i, "daily"],
  [/monthly|per month/i, "monthly"]
]

/** What is known of the limit that refused. */
const refusingLimit = (reply: RefusedReply, facts: Facts, plan: LimitReading | undefined): RefusingLimit => {
  const violated = violatedQuota(facts.violations)
  if (violated !== undefined) {
    return violated
  }
  if (plan !== undefined) {
    return { window: plan.name, windowMs: plan.windowMs }
  }
  if (isDashScope(reply, facts)) {
    return dashScopeLimit(facts)
  }
  const found = rateLimit(reply, facts)
  return found.window === undefined
    ? { ...found, window: windowsByText.find(([says]) => says.test(facts.message ?? ""))?.[1] }
    : found
}
