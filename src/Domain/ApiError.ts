import { Schema } from "effect"
import { PlatformReason } from "./Failure.js"

/** Where a request is wrong: the path of the field and what would be right. */
export const FieldProblem = Schema.Struct({ field: Schema.String, problem: Schema.String }).annotations({
  identifier: "FieldProblem"
})
export type FieldProblem = typeof FieldProblem.Type

export class InvalidRequest extends Schema.TaggedError<InvalidRequest>()("InvalidRequest", {
  message: Schema.String,
  problems: Schema.Array(FieldProblem)
}) {}

export class Unauthorized extends Schema.TaggedError<Unauthorized>()("Unauthorized", { message: Schema.String }) {}

export class Forbidden extends Schema.TaggedError<Forbidden>()("Forbidden", { message: Schema.String }) {}

export class NotFound extends Schema.TaggedError<NotFound>()("NotFound", { message: Schema.String }) {}

/** The request contradicts what is stored: the key with another body, a retry of a running task. */
export class Conflict extends Schema.TaggedError<Conflict>()("Conflict", { message: Schema.String }) {}

/** The task was read but cannot work: `reasons` says why, for each platform where it is about platforms. */
export class TaskRefused extends Schema.TaggedError<TaskRefused>()("TaskRefused", {
  message: Schema.String,
  problems: Schema.Array(FieldProblem),
  reasons: Schema.Array(PlatformReason)
}) {}

/** The service cannot take it now: shutting down, or its storage does not answer. Nothing was accepted. */
export class ServiceUnavailable extends Schema.TaggedError<ServiceUnavailable>()("ServiceUnavailable", {
  message: Schema.String
}) {}
