import type * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import { Cause, Deferred, Effect, type ParseResult, Schema, Stream } from "effect"
import { BulkLine, BulkVerdict, bulkType, maxBulkLines } from "../Coordinator/Api.js"
import {
  ErrorBody,
  type Forbidden,
  type InternalError,
  type InvalidRequest,
  type Overloaded,
  type PayloadTooLarge,
  type ServiceUnavailable,
  type Unauthorized,
  type UnsupportedMediaType
} from "../Domain/ApiError.js"
import { countLines } from "./countLines.js"

/** A submission among many is not one that the service takes, so no line can be made of it. */
export class InvalidLine extends Schema.TaggedError<InvalidLine>()("InvalidLine", {
  message: Schema.String,
  /** Its number among the submissions, from 1. */
  line: Schema.Int
}) {}

/**
 * The service's answer ended, or its connection broke, before there was a verdict for every line. What has none may have
 * been accepted all the same: send all of it again with the same idempotency key, and nothing is submitted twice.
 */
export class VerdictsMissing extends Schema.TaggedError<VerdictsMissing>()("VerdictsMissing", {
  message: Schema.String,
  /** Lines that were sent, blank ones not counted. */
  sent: Schema.Int,
  /** Verdicts that came. */
  answered: Schema.Int,
  /** Those of them that accept their line: so many are known to be submitted. */
  accepted: Schema.Int,
  /** What the connection broke of, where it did. */
  cause: Schema.optional(Schema.Defect)
}) {}

/** What a submission of many tasks can fail with, beside the lines it refuses and what the lines themselves fail with. */
export type BulkError =
  | InvalidRequest
  | Unauthorized
  | Forbidden
  | InternalError
  | ServiceUnavailable
  | Overloaded
  | PayloadTooLarge
  | UnsupportedMediaType
  | VerdictsMissing
  | HttpClientError.HttpClientError
  | ParseResult.ParseError

export interface BulkOptions {
  /** Makes the whole safe to send again: line n has this key with `:n` at its end, unless it brings its own. */
  readonly idempotencyKey?: string | undefined
}

const BulkErrorBody = Schema.Union(
  ErrorBody.InvalidRequest,
  ErrorBody.Unauthorized,
  ErrorBody.Forbidden,
  ErrorBody.InternalError,
  ErrorBody.ServiceUnavailable,
  ErrorBody.Overloaded,
  ErrorBody.PayloadTooLarge,
  ErrorBody.UnsupportedMediaType
)
const decodeVerdict = Schema.decode(Schema.parseJson(BulkVerdict))
const encodeLine = Schema.encode(Schema.parseJson(BulkLine))

/** How far a submission came. */
interface Progress {
  isSent: boolean
  answered: number
  accepted: number
  /** The line of the latest verdict. */
  line: number
  brokeBy?: HttpClientError.ResponseError
}

const missing = (
  { accepted, answered, brokeBy }: Progress,
  sent: number,
  { idempotencyKey }: BulkOptions
): VerdictsMissing => {
  const again =
    idempotencyKey === undefined
      ? "The others may be accepted too; only with an idempotency key is it safe to send them again"
      : "The others may be accepted too; send all again with the same idempotency key"
  return new VerdictsMissing({
    message: `The answer ${brokeBy === undefined ? "ended" : "broke off"} after ${answered} verdicts for ${sent} lines sent, and ${accepted} are known to be accepted. ${again}`,
    sent,
    answered,
    accepted,
    ...(brokeBy === undefined ? {} : { cause: brokeBy })
  })
}

/** Lines of text, each with its end: what no end came after was cut off, and is left out. */
const endedLines = <E>(texts: Stream.Stream<string, E>): Stream.Stream<string, E> =>
  texts.pipe(
    Stream.mapAccum("", (before, text): readonly [string, ReadonlyArray<string>] => {
      const lines = `${before}${text}`.split("\n")
      return [lines.at(-1) ?? "", lines.slice(0, -1)]
    }),
    Stream.mapConcat((lines) => lines)
  )

/** Submits lines in one request. What the lines fail with is what it fails with, whatever carries the request. */
export const submitLines =
  (http: HttpClient.HttpClient) =>
  <E>(lines: Stream.Stream<Uint8Array, E>, options: BulkOptions = {}): Stream.Stream<BulkVerdict, BulkError | E> =>
    Effect.gen(function* () {
      const progress: Progress = { isSent: false, answered: 0, accepted: 0, line: 0 }
      const count = countLines()
      const failed = yield* Deferred.make<never, E>()
      // Each client makes something else of a body that fails. So none sees it fail: the request is interrupted instead.
      const body = lines.pipe(
        Stream.tap((bytes) => Effect.sync(() => count.add(bytes))),
        Stream.catchAllCause((cause) =>
          Cause.isInterruptedOnly(cause)
            ? Stream.failCause(cause)
            : Stream.execute(Effect.zipRight(Deferred.failCause(failed, cause), Effect.never))
        ),
        Stream.concat(
          Stream.execute(
            Effect.sync(() => {
              progress.isSent = true
            })
          )
        )
      )
      const request = HttpClientRequest.post("/v1/tasks").pipe(
        HttpClientRequest.bodyStream(body, { contentType: bulkType }),
        options.idempotencyKey === undefined
          ? (unchanged: HttpClientRequest.HttpClientRequest) => unchanged
          : HttpClientRequest.setHeader("idempotency-key", options.idempotencyKey)
      )
      const response = yield* Effect.raceFirst(http.execute(request), Deferred.await(failed))
      if (response.status !== 200) {
        return yield* Effect.flatMap(HttpClientResponse.schemaBodyJson(BulkErrorBody)(response), Effect.fail)
      }
      const checked = Effect.suspend(() => {
        const sent = count.lines()
        // Of what is beyond the bound only the first line gets a verdict, which says so.
        const isWhole = (progress.isSent && progress.answered >= sent) || progress.line > maxBulkLines
        return isWhole ? Effect.void : missing(progress, sent, options)
      })
      return response.stream.pipe(
        Stream.catchAll((error) =>
          Stream.execute(
            Effect.sync(() => {
              progress.brokeBy = error
            })
          )
        ),
        Stream.interruptWhenDeferred(failed),
        Stream.decodeText(),
        endedLines,
        Stream.mapEffect(decodeVerdict),
        Stream.tap((verdict) =>
          Effect.sync(() => {
            progress.answered += 1
            progress.line = verdict.line
            if ("id" in verdict) progress.accepted += 1
          })
        ),
        Stream.concat(Stream.execute(checked))
      )
    }).pipe(Stream.unwrap)

/** Submissions as lines. */
export const linesOf = <E>(submissions: Stream.Stream<BulkLine, E>): Stream.Stream<Uint8Array, E | InvalidLine> =>
  submissions.pipe(
    Stream.zipWithIndex,
    Stream.mapEffect(([submission, index]) =>
      Effect.mapError(
        encodeLine(submission),
        (error) =>
          new InvalidLine({ message: `Line ${index + 1} is no valid submission: ${error.message}`, line: index + 1 })
      )
    ),
    Stream.map((line) => `${line}\n`),
    Stream.encodeText
  )
