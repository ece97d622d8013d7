import { IncomingMessage } from "node:http"
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { Effect, Fiber, Option, Schema, type Scope, Stream } from "effect"
import type { Coordinator } from "../../Coordinator.js"
import {
  type ApiError,
  InternalError,
  InvalidRequest,
  type Overloaded,
  PayloadTooLarge
} from "../../Domain/ApiError.js"
import type { TenantId } from "../../Domain/Task.js"
import { discardBody, parseJson, tooLarge } from "../../Http/Body.js"
import { toParts } from "../../Http/Errors.js"
import { decoderOf } from "../../Http/Payload.js"
import { BulkLine, type BulkVerdict, bulkType, maxBulkLines } from "../Api.js"
import { groupsOf, type Line, linesOf } from "./Lines.js"

/** Lines worked on together: as many as one commit of the database holds. */
const groupSize = 256
/**
 * Groups whose verdicts may wait, some megabytes at most: those of a whole request, for many a client sends all of it before
 * it reads anything, and would wait for ever for one that reads no more until its verdicts are taken.
 */
const groupsAhead = Math.ceil((maxBulkLines + 1) / groupSize)
/** Longest key for a whole request: each line's number is added to it. */
const maxKeyLength = 240

const decodeLine = decoderOf(BulkLine)

/** Keeps the lines that are read, and the first beyond them, which is told that it is one too many. */
const upToBound = (): ((line: Line) => boolean) => {
  let isBeyond = false
  return ({ number }) => {
    if (number <= maxBulkLines) return true
    const isFirst = !isBeyond
    isBeyond = true
    return isFirst
  }
}

const ErrorEnvelope = Schema.Struct({
  error: Schema.Struct({ type: Schema.String, message: Schema.String, details: Schema.Unknown })
})
const decodeEnvelope = Schema.decodeUnknownSync(ErrorEnvelope)

const refusal = (line: number, error: ApiError): BulkVerdict => ({ line, ...decodeEnvelope(toParts(error).body) })

export interface BulkOptions {
  readonly coordinator: Coordinator["Type"]
  readonly tenant: TenantId
  readonly request: HttpServerRequest.HttpServerRequest
  readonly key: Option.Option<string>
  /** Largest line accepted, bytes. */
  readonly maxLineBytes: number
  /** Makes sure that there is room in memory for as long as the scope is open. */
  readonly hold: (bytes: number) => Effect.Effect<void, Overloaded, Scope.Scope>
}

/**
 * Answers a submission of many tasks with a verdict a line, as they are known. The request is read only as fast as the
 * tasks are stored and the answer is taken, so what is held of it does not grow with it.
 */
export const submitAll = ({
  coordinator,
  hold,
  key,
  maxLineBytes,
  request,
  tenant
}: BulkOptions): Effect.Effect<HttpServerResponse.HttpServerResponse, InvalidRequest | Overloaded, Scope.Scope> => {
  const keyOf = (line: BulkLine, number: number): Option.Option<string> =>
    Option.orElse(Option.fromNullable(line.idempotencyKey), () => Option.map(key, (all) => `${all}:${number}`))

  const submitLine = Effect.fnUntraced(function* (number: number, bytes: Uint8Array) {
    const line = yield* decodeLine(yield* parseJson(bytes, "line"))
    const { idempotencyKey: _, ...submission } = line
    const { replayed, task } = yield* coordinator.submit(tenant, submission, keyOf(line, number))
    const verdict: BulkVerdict = { line: number, id: task.id, state: task.state }
    return replayed ? { ...verdict, replayed: true as const } : verdict
  })

  const verdictOf = ({ bytes, number }: Line): Effect.Effect<BulkVerdict> =>
    number > maxBulkLines
      ? Effect.succeed(
          refusal(
            number,
            new PayloadTooLarge({
              message: `One request takes ${maxBulkLines} lines; this one and those after it were not read`,
              maxBytes: maxLineBytes
            })
          )
        )
      : bytes === undefined
        ? Effect.succeed(refusal(number, tooLarge(maxLineBytes, "line")))
        : submitLine(number, bytes).pipe(
            Effect.catchAll((error) => Effect.succeed(refusal(number, error))),
            Effect.catchAllDefect((defect) =>
              Effect.as(
                Effect.logError("A line of a bulk submission failed unexpectedly", defect),
                refusal(
                  number,
                  new InternalError({ message: "Something went wrong inside the service; its log says what" })
                )
              )
            )
          )

  const verdicts = request.stream.pipe(
    linesOf(maxLineBytes),
    // To stop reading closes the connection, so what is too much is read and passed over, within bounds.
    Stream.takeWhile(({ number }) => number <= 2 * maxBulkLines),
    Stream.filter(upToBound()),
    groupsOf(groupSize, maxLineBytes),
    Stream.mapEffect((group) =>
      // By hand, because `concurrency` joins what each fiber leaves of its references, which costs a good part of a line.
      Effect.map(
        Effect.flatMap(
          Effect.forEach(group, (line) => Effect.fork(verdictOf(line))),
          (fibers) => Effect.forEach(fibers, (fiber) => Effect.flatten(Fiber.await(fiber)))
        ),
        (all) => all.map((verdict) => `${JSON.stringify(verdict)}\n`).join("")
      )
    ),
    // Who sent it has gone: what was accepted stays. Over a socket nobody is there to be told; in memory somebody is, and
    // an answer that simply ended would tell him that all is well.
    Stream.catchAll((error) => (request.source instanceof IncomingMessage ? Stream.empty : Stream.fail(error))),
    Stream.buffer({ capacity: groupsAhead }),
    Stream.encodeText
  )

  return Effect.gen(function* () {
    if (Option.exists(key, ({ length }) => length > maxKeyLength)) {
      return yield* new InvalidRequest({
        message: `The request is not valid. idempotency-key: for many tasks it has at most ${maxKeyLength} characters`,
        problems: [{ field: "idempotency-key", problem: `for many tasks it has at most ${maxKeyLength} characters` }]
      })
    }
    yield* Effect.tapError(hold(2 * maxLineBytes), () => Effect.sync(() => discardBody(request)))
    return HttpServerResponse.stream(verdicts, { contentType: bulkType, headers: { "cache-control": "no-store" } })
  })
}
