import { Either, Schema } from "effect"
import type { Answer } from "./Answer.js"
import { problemsOf } from "./Problems.js"
import type { BadRequest, SimulatedRequest } from "./Request.js"

/** A piece of a streamed body and how long after the piece before it (the first: after the request) it is sent, ms. */
export interface Frame {
  readonly data: string
  readonly afterMs: number
}

/** How one wire format writes what the simulated model says. */
export interface AnswerWriter {
  /** The body of an answer that is not streamed. */
  readonly whole: (answer: Answer, createdAt: number) => unknown
  readonly frames: (answer: Answer, request: SimulatedRequest, createdAt: number) => ReadonlyArray<Frame>
  /** What ends a 200 stream that fails; `error` is the body of the platform's error reply. */
  readonly failedFrame: (answer: Answer, error: unknown, createdAt: number) => string
  /** A 200 body that tells of a failure. */
  readonly failedWhole: (answer: Answer, error: unknown, createdAt: number) => unknown
  /** A frame whose data is not what it says it is. */
  readonly brokenFrame: string
}

/** Decodes a body, or says which field is wrong and why. */
export const decoder = <A, I>(schema: Schema.Schema<A, I>): ((body: unknown) => Either.Either<A, BadRequest>) => {
  const decode = Schema.decodeUnknownEither(schema)
  return (body) =>
    Either.mapLeft(decode(body), (error) => {
      const [first] = problemsOf(error)
      return first === undefined || first.field === ""
        ? { message: `Invalid request: ${first?.problem ?? "it is not understood"}`, param: undefined }
        : { message: `Invalid value for '${first.field}': ${first.problem}`, param: first.field }
    })
}

/** `undefined` and `null` alike: left out. */
export const orNull = <A, I>(schema: Schema.Schema<A, I>) => Schema.optional(Schema.NullOr(schema))

/** The texts of JSON values a model reads: tools, schemas. */
export const textOf = (value: unknown): string => (value === undefined || value === null ? "" : JSON.stringify(value))
