import type { ApiError } from "../Domain/ApiError.js"
import type { OpenAiError } from "../Domain/ChatCompletion.js"
import type { AnswerBroken, FailureView, PlatformReason } from "../Domain/Failure.js"
import type { GatewayError } from "../Gateway.js"

/** An error as OpenAI's API answers it. */
export interface OpenAiReply {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: OpenAiError
}

/** Paths whose clients speak OpenAI's API, and expect its errors of whatever stands before the endpoint too. */
export const speaksOpenAi = (path: string): boolean =>
  path === "/v1/models" || path === "/v1/chat" || path.startsWith("/v1/chat/")

const reply = (
  status: number,
  error: { readonly message: string; readonly type: string; readonly code?: string; readonly param?: string },
  retryAfterMs?: number
): OpenAiReply => ({
  status,
  headers: retryAfterMs === undefined ? {} : { "retry-after": String(Math.max(1, Math.ceil(retryAfterMs / 1_000))) },
  body: {
    error: { message: error.message, type: error.type, param: error.param ?? null, code: error.code ?? null }
  }
})

const invalid = "invalid_request_error"
const limited = "rate_limit_error"
const ours = "server_error"

/** The request cannot be served as it is asked for: `param` names the field. */
export const refusal = (message: string, param: string, code: string): OpenAiReply =>
  reply(400, { message, type: invalid, param, code })

/** The same for what every endpoint may answer. */
export const ofApiError = (error: ApiError): OpenAiReply => {
  const { message } = error
  switch (error._tag) {
    case "InvalidRequest":
    case "TaskRefused": {
      const param = error.problems[0]?.field
      return reply(400, { message, type: invalid, ...(param ? { param } : {}) })
    }
    case "Unauthorized": {
      const refused = reply(401, { message, type: invalid, code: "invalid_api_key" })
      return { ...refused, headers: { "www-authenticate": 'Bearer realm="dream-team"' } }
    }
    case "Forbidden":
      return reply(403, { message, type: invalid, code: "forbidden" })
    case "NotFound":
      return reply(404, { message, type: invalid, code: "not_found" })
    case "MethodNotAllowed": {
      const refused = reply(405, { message, type: invalid, code: "method_not_allowed" })
      return { ...refused, headers: { allow: error.allowed.join(", ") } }
    }
    case "Conflict":
      return reply(409, { message, type: invalid, code: "conflict" })
    case "PayloadTooLarge":
      return reply(413, { message, type: invalid, code: "request_too_large" })
    case "UnsupportedMediaType":
      return reply(415, { message, type: invalid, code: "unsupported_media_type" })
    case "RateLimited":
      return reply(429, { message, type: limited, code: "rate_limit_exceeded" }, error.retryAfterMs)
    case "InternalError":
      return reply(500, { message, type: ours, code: "internal_error" })
    case "Overloaded":
    case "ServiceUnavailable":
      return reply(503, { message, type: ours, code: "service_unavailable" }, error.retryAfterMs ?? 0)
    case "NotReady":
      return reply(503, { message, type: ours, code: "service_unavailable" }, 0)
  }
}

const because = (message: string, reasons: ReadonlyArray<PlatformReason>): string =>
  reasons.length === 0 || reasons.every(({ reason }) => message.includes(reason))
    ? message
    : `${message}: ${reasons.map(({ platform, reason }) => `${platform}: ${reason}`).join("; ")}`

const ofRefusal = (message: string, { code, reason, scope }: FailureView): OpenAiReply => {
  if (scope === "credential" || scope === "model") return reply(502, { message, type: ours, code: "platform_refused" })
  if (reason === "context")
    return reply(400, { message, type: invalid, param: "messages", code: "context_length_exceeded" })
  if (reason === "policy") return reply(400, { message, type: invalid, code: "content_policy_violation" })
  return reply(400, { message, type: invalid, ...(code === undefined ? {} : { code }) })
}

/** What became of a call. `now`: epoch ms. */
export const ofGatewayError = (error: GatewayError | AnswerBroken, now: number): OpenAiReply => {
  const { message } = error
  switch (error._tag) {
    case "ModelNotFound":
      return reply(404, { message, type: invalid, param: "model", code: "model_not_found" })
    case "ServiceUnavailable":
      return ofApiError(error)
    case "ContextTooLong":
      return reply(400, {
        message: because(message, error.reasons),
        type: invalid,
        param: "messages",
        code: "context_length_exceeded"
      })
    case "NoCapablePlatform":
      return reply(400, { message: because(message, error.reasons), type: invalid, code: "no_capable_platform" })
    case "LeaseUnavailable": {
      const waitMs = error.earliestAt === undefined ? undefined : Math.max(0, error.earliestAt - now)
      // Those that were never asked for, or never could, have no kind of reason.
      const standing = error.reasons.filter(({ kind }) => kind !== undefined)
      const text = because(message, standing)
      return standing.length > 0 && standing.every(({ kind }) => kind === "limit" || kind === "budget")
        ? reply(429, { message: text, type: limited, code: "rate_limit_exceeded" }, waitMs ?? 0)
        : reply(503, { message: text, type: ours, code: "no_platform_available" }, waitMs)
    }
    case "BudgetExhausted":
      return reply(429, {
        message: because(message, error.reasons),
        type: "insufficient_quota",
        code: "insufficient_quota"
      })
    case "DeadlineExceeded":
      return reply(504, { message, type: ours, code: "deadline_exceeded" })
    case "AttemptsExhausted":
      return error.last?.scope === "quota"
        ? reply(429, { message, type: limited, code: "rate_limit_exceeded" }, error.last.retryAfterMs ?? 0)
        : reply(502, { message, type: ours, code: "platforms_failed" })
    case "CallRefused":
      return ofRefusal(message, error.failure)
    case "AnswerBroken":
      return error.failure.reason === "policy"
        ? ofRefusal(message, error.failure)
        : reply(502, { message, type: ours, code: "answer_broken" })
  }
}
