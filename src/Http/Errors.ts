import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as HttpServerError from "@effect/platform/HttpServerError"
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import type * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { Cause, Effect, HashSet, Schema } from "effect"
import {
  ApiError,
  ErrorBody,
  InternalError,
  MethodNotAllowed,
  NotFound,
  ServiceUnavailable
} from "../Domain/ApiError.js"
import { shorten } from "../Domain/Problems.js"
import { ofApiError, speaksOpenAi } from "../Gateway/OpenAiErrors.js"
import { jsonResponse } from "./Json.js"
import { allowedMethods } from "./Routes.js"

const maxPathLength = 300

const isApiError = Schema.is(ApiError)

const encode = Schema.encodeSync(Schema.Union(...Object.values(ErrorBody)))

const statusOf = (error: ApiError): number => HttpApiSchema.getStatusErrorAST(ErrorBody[error._tag].ast)

/** Headers that belong to an error beside its body. */
const headersOf = (error: ApiError): Readonly<Record<string, string>> => {
  switch (error._tag) {
    case "Unauthorized":
      return { "www-authenticate": 'Bearer realm="dream-team"' }
    case "MethodNotAllowed":
      return { allow: error.allowed.join(", ") }
    case "RateLimited":
    case "Overloaded":
    case "ServiceUnavailable":
      return { "retry-after": String(Math.max(1, Math.ceil((error.retryAfterMs ?? 0) / 1_000))) }
    case "NotReady":
      return { "retry-after": "1" }
    default:
      return {}
  }
}

/** An error as its status, headers and JSON body. */
export const toParts = (
  error: ApiError
): { readonly status: number; readonly headers: Readonly<Record<string, string>>; readonly body: unknown } => ({
  status: statusOf(error),
  headers: headersOf(error),
  body: encode(error)
})

/** The path of a request, as it was sent. */
export const pathOf = ({ url }: HttpServerRequest.HttpServerRequest): string => url.split("?", 1)[0] ?? url

/** The response that says `error`, in the shape that the clients of its path expect. */
export const toResponse = (
  error: ApiError,
  request: HttpServerRequest.HttpServerRequest
): HttpServerResponse.HttpServerResponse => {
  const { body, headers, status } = speaksOpenAi(pathOf(request)) ? ofApiError(error) : toParts(error)
  return jsonResponse(body, { status, headers })
}

/** What is said where nothing is served. */
export const notRouted = (request: HttpServerRequest.HttpServerRequest): ApiError => {
  const path = pathOf(request)
  const allowed = allowedMethods(path)
  return allowed.length === 0 || allowed.includes(request.method)
    ? new NotFound({
        message: `There is nothing at ${shorten(path, maxPathLength)}. GET /openapi.json lists what there is`
      })
    : new MethodNotAllowed({
        message: `${request.method} is not possible at ${shorten(path, maxPathLength)}, only ${allowed.join(", ")}`,
        allowed
      })
}

const firstKnown = (cause: Cause.Cause<unknown>): ApiError | undefined => {
  for (const error of [...Cause.failures(cause), ...Cause.defects(cause)]) {
    if (isApiError(error)) return error
  }
  return undefined
}

const isClientAbort = (cause: Cause.Cause<unknown>): boolean =>
  HashSet.has(Cause.interruptors(cause), HttpServerError.clientAbortFiberId)

/**
 * What a request that came to no response is answered, in the one error shape. What nobody foresaw is logged, and the
 * answer says nothing of it.
 */
export const answerCause = (
  cause: Cause.Cause<ApiError>,
  request: HttpServerRequest.HttpServerRequest
): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  if (cause._tag === "Fail") return Effect.succeed(toResponse(cause.error, request))
  if (Cause.isInterruptedOnly(cause)) {
    return isClientAbort(cause)
      ? Effect.failCause(Cause.interrupt(HttpServerError.clientAbortFiberId))
      : Effect.succeed(toResponse(new ServiceUnavailable({ message: "The service is shutting down" }), request))
  }
  const known = firstKnown(cause)
  if (known !== undefined) return Effect.succeed(toResponse(known, request))
  return Effect.as(
    Effect.logError("A request failed unexpectedly", cause).pipe(
      Effect.annotateLogs({ method: request.method, path: shorten(pathOf(request), maxPathLength) })
    ),
    toResponse(new InternalError({ message: "Something went wrong inside the service; its log says what" }), request)
  )
}
