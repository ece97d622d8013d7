import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import { Schema } from "effect"
import { PlatformReason } from "./Failure.js"

/** Where a request is wrong: the path of the field and what would be right. */
export const FieldProblem = Schema.Struct({ field: Schema.String, problem: Schema.String }).annotations({
  identifier: "FieldProblem"
})
export type FieldProblem = typeof FieldProblem.Type

/** What stands between the service and its work, or does not. */
export const ReadinessCheck = Schema.Struct({
  name: Schema.String,
  ok: Schema.Boolean,
  message: Schema.optional(Schema.String)
}).annotations({ identifier: "ReadinessCheck" })
export type ReadinessCheck = typeof ReadinessCheck.Type

/** The request cannot be read as what this endpoint takes. */
export class InvalidRequest extends Schema.TaggedError<InvalidRequest>()("InvalidRequest", {
  message: Schema.String,
  problems: Schema.Array(FieldProblem)
}) {}

/** No API key was sent, or none that is known. */
export class Unauthorized extends Schema.TaggedError<Unauthorized>()("Unauthorized", { message: Schema.String }) {}

/** The request came through a door it may not use: a foreign `Host` or `Origin`. */
export class Forbidden extends Schema.TaggedError<Forbidden>()("Forbidden", { message: Schema.String }) {}

export class NotFound extends Schema.TaggedError<NotFound>()("NotFound", { message: Schema.String }) {}

/** The path exists, but not with this method. `allowed` lists those it has. */
export class MethodNotAllowed extends Schema.TaggedError<MethodNotAllowed>()("MethodNotAllowed", {
  message: Schema.String,
  allowed: Schema.Array(Schema.String)
}) {}

/** The request contradicts what is stored: the key with another body, a retry of a running task. */
export class Conflict extends Schema.TaggedError<Conflict>()("Conflict", { message: Schema.String }) {}

/** The body is larger than `maxBytes`. */
export class PayloadTooLarge extends Schema.TaggedError<PayloadTooLarge>()("PayloadTooLarge", {
  message: Schema.String,
  maxBytes: Schema.Number
}) {}

/** The body is not JSON by its own `Content-Type`. */
export class UnsupportedMediaType extends Schema.TaggedError<UnsupportedMediaType>()("UnsupportedMediaType", {
  message: Schema.String
}) {}

/** The task was read but cannot work: `reasons` says why, for each platform where it is about platforms. */
export class TaskRefused extends Schema.TaggedError<TaskRefused>()("TaskRefused", {
  message: Schema.String,
  problems: Schema.Array(FieldProblem),
  reasons: Schema.Array(PlatformReason),
  /** What would be accepted, where the check by a model suggests it. */
  suggestion: Schema.optional(Schema.String)
}) {}

/**
 * The limits leave no room for it, and nothing was stored. Those of every platform that could take the task, or the day's
 * budgets, are used up until after its deadline: `reasons` says for each platform when it could start at the earliest. Or
 * the API key has made its submissions of this minute (`requestsPerMinute`): then there are no `reasons`.
 */
export class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", {
  message: Schema.String,
  reasons: Schema.Array(PlatformReason),
  /** Until there is room again, ms: one of them could start such a task, or the key may submit again. */
  retryAfterMs: Schema.NonNegative
}) {}

/** The service holds as much in memory as it may: the body was not read, nothing was accepted. */
export class Overloaded extends Schema.TaggedError<Overloaded>()("Overloaded", {
  message: Schema.String,
  /** When to try again, ms. */
  retryAfterMs: Schema.NonNegative
}) {}

/** A bug of the service's. What happened is in its log, not in the answer. */
export class InternalError extends Schema.TaggedError<InternalError>()("InternalError", { message: Schema.String }) {}

/**
 * The service cannot take it now: shutting down, its storage does not answer, or no platform can start the task before
 * its deadline. Nothing was changed, but where `message` says that nobody can know.
 */
export class ServiceUnavailable extends Schema.TaggedError<ServiceUnavailable>()("ServiceUnavailable", {
  message: Schema.String,
  /** Where the platforms are the reason: why each of them, and when it could at the earliest. */
  reasons: Schema.optional(Schema.Array(PlatformReason)),
  /** When to try again, ms, where that is known. */
  retryAfterMs: Schema.optional(Schema.NonNegative)
}) {}

/** The service should get no traffic now; `checks` says what fails. */
export class NotReady extends Schema.TaggedError<NotReady>()("NotReady", {
  message: Schema.String,
  checks: Schema.Array(ReadinessCheck)
}) {}

const envelope = <Type extends string, Details, DetailsEncoded>(
  type: Type,
  details: Schema.Schema<Details, DetailsEncoded>
) => Schema.Struct({ error: Schema.Struct({ type: Schema.Literal(type), message: Schema.String, details }) })

const RetryAfterMs = Schema.propertySignature(Schema.NonNegative).annotations({
  description: "When to try again, ms; the same as `Retry-After`, to the millisecond."
})

const WireReasons = Schema.Array(Schema.encodedSchema(PlatformReason))

const NoDetails = Schema.Record({ key: Schema.String, value: Schema.Unknown })

const plain = <Type extends string, Tag extends string, A>(
  type: Type,
  tag: Tag,
  error: Schema.Schema<A, { readonly _tag: Tag; readonly message: string }>
) =>
  Schema.transform(envelope(type, NoDetails), error, {
    strict: true,
    decode: (body) => ({ _tag: tag, message: body.error.message }),
    encode: ({ message }) => ({ error: { type, message, details: {} } })
  })

const described = <A>(name: string, status: number, description: string): Schema.Annotations.Schema<A> =>
  HttpApiSchema.annotations<A>({ status, identifier: name.endsWith("Error") ? name : `${name}Error`, description })

/**
 * Every error as it goes over the wire, by the name of its class:
 * `{ "error": { "type", "message", "details" } }` with its HTTP status. Decoding gives the class back.
 */
export const ErrorBody = {
  InvalidRequest: Schema.transform(
    envelope("invalid-request", Schema.Struct({ problems: Schema.Array(FieldProblem) })),
    InvalidRequest,
    {
      strict: true,
      decode: ({ error }) => ({
        _tag: "InvalidRequest" as const,
        message: error.message,
        problems: error.details.problems
      }),
      encode: ({ message, problems }) => ({
        error: { type: "invalid-request" as const, message, details: { problems } }
      })
    }
  ).annotations(described("InvalidRequest", 400, "The request is not what this endpoint takes; each field is named.")),

  Unauthorized: plain("unauthorized", "Unauthorized", Unauthorized).annotations(
    described("Unauthorized", 401, "No API key was sent, or none that is known.")
  ),

  Forbidden: plain("forbidden", "Forbidden", Forbidden).annotations(
    described("Forbidden", 403, "The request came with a foreign Host or Origin.")
  ),

  NotFound: plain("not-found", "NotFound", NotFound).annotations(
    described("NotFound", 404, "There is nothing here, or nothing that belongs to this API key.")
  ),

  MethodNotAllowed: Schema.transform(
    envelope("method-not-allowed", Schema.Struct({ allowed: Schema.Array(Schema.String) })),
    MethodNotAllowed,
    {
      strict: true,
      decode: ({ error }) => ({
        _tag: "MethodNotAllowed" as const,
        message: error.message,
        allowed: error.details.allowed
      }),
      encode: ({ message, allowed }) => ({
        error: { type: "method-not-allowed" as const, message, details: { allowed } }
      })
    }
  ).annotations(described("MethodNotAllowed", 405, "The path exists, but not with this method.")),

  Conflict: plain("conflict", "Conflict", Conflict).annotations(
    described("Conflict", 409, "The request contradicts what is stored.")
  ),

  PayloadTooLarge: Schema.transform(
    envelope("payload-too-large", Schema.Struct({ maxBytes: Schema.Number })),
    PayloadTooLarge,
    {
      strict: true,
      decode: ({ error }) => ({
        _tag: "PayloadTooLarge" as const,
        message: error.message,
        maxBytes: error.details.maxBytes
      }),
      encode: ({ message, maxBytes }) => ({
        error: { type: "payload-too-large" as const, message, details: { maxBytes } }
      })
    }
  ).annotations(described("PayloadTooLarge", 413, "The body is larger than the service takes.")),

  UnsupportedMediaType: plain("unsupported-media-type", "UnsupportedMediaType", UnsupportedMediaType).annotations(
    described("UnsupportedMediaType", 415, "The body is not application/json.")
  ),

  TaskRefused: Schema.transform(
    envelope(
      "task-refused",
      Schema.Struct({
        problems: Schema.Array(FieldProblem),
        reasons: WireReasons,
        suggestion: Schema.optional(Schema.String)
      })
    ),
    TaskRefused,
    {
      strict: true,
      decode: ({ error }) => ({
        _tag: "TaskRefused" as const,
        message: error.message,
        ...error.details
      }),
      encode: ({ message, problems, reasons, suggestion }) => ({
        error: {
          type: "task-refused" as const,
          message,
          details: { problems, reasons, ...(suggestion === undefined ? {} : { suggestion }) }
        }
      })
    }
  ).annotations(
    described(
      "TaskRefused",
      422,
      "The task was read but cannot work; each field or platform says why. Nothing was stored."
    )
  ),

  InternalError: plain("internal-error", "InternalError", InternalError).annotations(
    described("InternalError", 500, "A bug of the service's.")
  ),

  RateLimited: Schema.transform(
    envelope("rate-limited", Schema.Struct({ reasons: WireReasons, retryAfterMs: RetryAfterMs })),
    RateLimited,
    {
      strict: true,
      decode: ({ error }) => ({ _tag: "RateLimited" as const, message: error.message, ...error.details }),
      encode: ({ message, reasons, retryAfterMs }) => ({
        error: { type: "rate-limited" as const, message, details: { reasons, retryAfterMs } }
      })
    }
  ).annotations(
    described(
      "RateLimited",
      429,
      "The limits of every platform that could take the task, or the budgets of the day, are used up until after its " +
        "deadline; or the API key has made its submissions of this minute. Nothing was stored."
    )
  ),

  Overloaded: Schema.transform(envelope("overloaded", Schema.Struct({ retryAfterMs: RetryAfterMs })), Overloaded, {
    strict: true,
    decode: ({ error }) => ({ _tag: "Overloaded" as const, message: error.message, ...error.details }),
    encode: ({ message, retryAfterMs }) => ({
      error: { type: "overloaded" as const, message, details: { retryAfterMs } }
    })
  }).annotations(
    described(
      "Overloaded",
      503,
      "The service holds as much in memory as it may. The body was not read; ask again soon."
    )
  ),

  ServiceUnavailable: Schema.transform(
    envelope(
      "service-unavailable",
      Schema.Struct({ reasons: Schema.optional(WireReasons), retryAfterMs: Schema.optional(Schema.NonNegative) })
    ),
    ServiceUnavailable,
    {
      strict: true,
      decode: ({ error }) => ({ _tag: "ServiceUnavailable" as const, message: error.message, ...error.details }),
      encode: ({ message, reasons, retryAfterMs }) => ({
        error: {
          type: "service-unavailable" as const,
          message,
          details: {
            ...(reasons === undefined ? {} : { reasons }),
            ...(retryAfterMs === undefined ? {} : { retryAfterMs })
          }
        }
      })
    }
  ).annotations(
    described(
      "ServiceUnavailable",
      503,
      "The service cannot do it now. Nothing was changed, but where it says that nobody can know; ask again later."
    )
  ),

  NotReady: Schema.transform(envelope("not-ready", Schema.Struct({ checks: Schema.Array(ReadinessCheck) })), NotReady, {
    strict: true,
    decode: ({ error }) => ({ _tag: "NotReady" as const, message: error.message, checks: error.details.checks }),
    encode: ({ message, checks }) => ({ error: { type: "not-ready" as const, message, details: { checks } } })
  }).annotations(described("NotReady", 503, "The service should get no traffic now; each check says why."))
} as const

/** Every error the API can answer. */
export const ApiError = Schema.Union(
  InvalidRequest,
  Unauthorized,
  Forbidden,
  NotFound,
  MethodNotAllowed,
  Conflict,
  PayloadTooLarge,
  UnsupportedMediaType,
  TaskRefused,
  RateLimited,
  Overloaded,
  InternalError,
  ServiceUnavailable,
  NotReady
)
export type ApiError = typeof ApiError.Type
