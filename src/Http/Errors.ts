import { HttpApiDecodeError } from "@effect/platform/HttpApiError"
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerError from "@effect/platform/HttpServerError"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { Cause, Effect, HashSet, Option, Schema } from "effect"
import {
  ApiError,
  ErrorBody,
  type FieldProblem,
  InternalError,
  InvalidRequest,
  MethodNotAllowed,
  NotFound,
  ServiceUnavailable
} from "../Domain/ApiError.js"
import { ofApiError, speaksOpenAi } from "../Gateway/OpenAiErrors.js"
import { allowedMethods } from "./Routes.js"

const maxProblems = 50
/** Of more than these only the first are looked at. */
const maxIssues = 500
const maxProblemLength = 300

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

const pathOf = (request: HttpServerRequest.HttpServerRequest): string => request.url.split("?", 1)[0] ?? request.url

/** The response that says `error`, in the shape that the clients of its path expect. */
const toResponse = (
  error: ApiError,
  request: HttpServerRequest.HttpServerRequest
): HttpServerResponse.HttpServerResponse => {
  const { status, headers, body } = speaksOpenAi(pathOf(request)) ? ofApiError(error) : toParts(error)
  return HttpServerResponse.unsafeJson(body, { status, headers })
}

const shorten = (text: string, length: number): string => (text.length <= length ? text : `${text.slice(0, length)}…`)

const describeIssue = (issue: HttpApiDecodeError["issues"][number]): string => {
  switch (issue._tag) {
    case "Missing":
      return "is missing"
    case "Unexpected":
      return "is not a known field"
    default:
      return issue.message
  }
}

type Issue = HttpApiDecodeError["issues"][number]

const isWithin = (inner: Issue, outer: Issue): boolean =>
  inner.path.length > outer.path.length && outer.path.every((key, index) => inner.path[index] === key)

/**
 * The members of a union complain one by one, and an optional field is a union too: that the field could be absent, or
 * text instead of the object whose fields are at fault, is no help.
 */
const isTelling = (issue: Issue, all: ReadonlyArray<Issue>): boolean =>
  issue._tag !== "Type" ||
  !(
    issue.message.startsWith("Expected undefined, actual") ||
    all.some((other) => other._tag !== "Unexpected" && isWithin(other, issue))
  )

/** One sentence of what the members of a union said of one value. */
const merge = (messages: ReadonlyArray<string>): string => {
  const expectations: Array<string> = []
  const others: Array<string> = []
  let actual = ""
  for (const message of new Set(messages)) {
    const [, expected, got] = /^Expected (.+?), actual (.*)$/s.exec(message) ?? []
    if (expected === undefined || got === undefined) others.push(message)
    else {
      expectations.push(expected)
      actual = got
    }
  }
  const expected =
    expectations.length === 0 ? [] : [`expected ${expectations.join(" or ")}, got ${shorten(actual, 80)}`]
  return shorten([...others, ...expected].join("; or "), maxProblemLength)
}

/** Each field once, with all that is wrong with it. */
const problemsOf = (error: HttpApiDecodeError): ReadonlyArray<FieldProblem> => {
  const issues = error.issues.slice(0, maxIssues)
  const telling = issues.filter((issue) => isTelling(issue, issues))
  const byField = new Map<string, Array<string>>()
  for (const issue of telling.length === 0 ? issues : telling) {
    const field = shorten(issue.path.map(String).join("."), maxProblemLength)
    const messages = byField.get(field)
    if (messages !== undefined) messages.push(describeIssue(issue))
    else if (byField.size < maxProblems) byField.set(field, [describeIssue(issue)])
  }
  return Array.from(byField, ([field, messages]) => ({ field, problem: merge(messages) }))
}

/** What is wrong with a request that could not be decoded, field by field. */
export const fromDecodeError = (error: HttpApiDecodeError): InvalidRequest => {
  const problems = problemsOf(error)
  const named = problems.slice(0, 3).map(({ field, problem }) => (field === "" ? problem : `${field}: ${problem}`))
  const more = problems.length > named.length ? ` (and ${problems.length - named.length} more)` : ""
  return new InvalidRequest({ message: `The request is not valid. ${named.join(". ")}${more}`, problems })
}

const notRouted = (request: HttpServerRequest.HttpServerRequest): ApiError => {
  const path = pathOf(request)
  const allowed = allowedMethods(path)
  return allowed.length === 0 || allowed.includes(request.method)
    ? new NotFound({
        message: `There is nothing at ${shorten(path, maxProblemLength)}. GET /openapi.json lists what there is`
      })
    : new MethodNotAllowed({
        message: `${request.method} is not possible at ${shorten(path, maxProblemLength)}, only ${allowed.join(", ")}`,
        allowed
      })
}

const known = (error: unknown, request: HttpServerRequest.HttpServerRequest): Option.Option<ApiError> => {
  if (isApiError(error)) return Option.some(error)
  if (error instanceof HttpApiDecodeError) return Option.some(fromDecodeError(error))
  if (error instanceof HttpServerError.RouteNotFound) return Option.some(notRouted(request))
  return Option.none()
}

const firstKnown = (
  cause: Cause.Cause<unknown>,
  request: HttpServerRequest.HttpServerRequest
): Option.Option<ApiError> => {
  for (const error of [...Cause.failures(cause), ...Cause.defects(cause)]) {
    const found = known(error, request)
    if (Option.isSome(found)) return found
  }
  return Option.none()
}

const isClientAbort = (cause: Cause.Cause<unknown>): boolean =>
  HashSet.has(Cause.interruptors(cause), HttpServerError.clientAbortFiberId)

/**
 * Turns whatever a request ends in into a response of the one error shape. What nobody foresaw is logged, and the
 * answer says nothing of it.
 */
export const answerErrors = <E, R>(app: HttpApp.Default<E, R>): HttpApp.Default<never, R> =>
  Effect.catchAllCause(app, (cause) =>
    Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
      if (Cause.isInterruptedOnly(cause)) {
        return isClientAbort(cause)
          ? Effect.failCause(Cause.interrupt(HttpServerError.clientAbortFiberId))
          : Effect.succeed(toResponse(new ServiceUnavailable({ message: "The service is shutting down" }), request))
      }
      return Option.match(firstKnown(cause, request), {
        onSome: (error) => Effect.succeed(toResponse(error, request)),
        onNone: () =>
          Effect.as(
            Effect.logError("A request failed unexpectedly", cause).pipe(
              Effect.annotateLogs({
                method: request.method,
                path: shorten(pathOf(request), maxProblemLength)
              })
            ),
            toResponse(
              new InternalError({ message: "Something went wrong inside the service; its log says what" }),
              request
            )
          )
      })
    })
  )
