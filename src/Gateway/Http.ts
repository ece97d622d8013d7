import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { Cause, Chunk, Clock, Effect, Either, Option, Stream } from "effect"
import { RequestLimits } from "../Budgets/RequestLimits.js"
import { InternalError } from "../Domain/ApiError.js"
import { ChatCompletionRequest } from "../Domain/ChatCompletion.js"
import type { AnswerBroken } from "../Domain/Failure.js"
import { Gateway, type GatewayError, type GatewayPiece, type Gateway as GatewayService } from "../Gateway.js"
import * as Endpoints from "../Http/Endpoints.js"
import { keptAlive } from "../Http/EventStream.js"
import { jsonResponse } from "../Http/Json.js"
import { decoderOf } from "../Http/Payload.js"
import { GatewayGroup } from "./Api.js"
import { type Asked, askedOf, completionOf, done, makeChunkWriter, refused } from "./ChatCompletions.js"
import { type OpenAiReply, ofApiError, ofGatewayError } from "./OpenAiErrors.js"

const decodeRequest = decoderOf(ChatCompletionRequest)

const toResponse = ({ body, headers, status }: OpenAiReply): HttpServerResponse.HttpServerResponse =>
  jsonResponse(body, { status, headers })

const platformHeader = (platform: string) => ({ "x-dream-team-platform": platform })

const epochSeconds = Effect.map(Clock.currentTimeMillis, (ms) => Math.floor(ms / 1_000))

const dataOf = (value: unknown): string => `data: ${JSON.stringify(value)}\n\n`

type Broken = GatewayError | AnswerBroken

/** Once its first piece is out an answer can only break off: its reader is told so in place of the rest. */
const lastWords = (cause: Cause.Cause<Broken>): Effect.Effect<string> =>
  Option.match(Cause.failureOption(cause), {
    onSome: (error) => Effect.map(Clock.currentTimeMillis, (now) => dataOf(ofGatewayError(error, now).body)),
    onNone: () =>
      Cause.isInterruptedOnly(cause)
        ? Effect.succeed("")
        : Effect.as(
            Effect.logError("A streamed answer failed unexpectedly", cause),
            dataOf(
              ofApiError(new InternalError({ message: "Something went wrong inside the service; its log says what" }))
                .body
            )
          )
  })

const platformOf = (piece: GatewayPiece | undefined): string | undefined => {
  if (piece?._tag === "Began") return piece.platform
  return piece?._tag === "Ended" ? piece.answer.platform : undefined
}

/** OpenAI's endpoints. */
export const endpoints = Endpoints.of(
  GatewayGroup,
  Effect.gen(function* () {
    const gateway = yield* Gateway
    const limits = yield* RequestLimits

    const readRequest = (body: unknown): Effect.Effect<Asked, OpenAiReply> =>
      Effect.gen(function* () {
        const request = yield* Effect.catchTag(decodeRequest(body), "InvalidRequest", (error) =>
          Effect.fail(refused(body) ?? ofApiError(error))
        )
        const refusal = refused(body)
        if (refusal !== undefined) return yield* Effect.fail(refusal)
        return yield* Either.match(askedOf(request), { onLeft: Effect.fail, onRight: Effect.succeed })
      })

    const replied = <A, R>(effect: Effect.Effect<A, Broken, R>): Effect.Effect<A, OpenAiReply, R> =>
      Effect.catchAll(effect, (error) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.fail(ofGatewayError(error, now)))
      )

    type Request = Parameters<GatewayService["Type"]["complete"]>[0]

    const whole = (asked: Asked, request: Request) =>
      Effect.gen(function* () {
        const answer = yield* replied(gateway.complete(request))
        const { oneToolCall } = asked
        const body = completionOf(answer, { created: yield* epochSeconds, oneToolCall })
        return jsonResponse(body, { headers: platformHeader(answer.platform) })
      })

    return {
      chatCompletions: ({ body, headers, request, tenant }) =>
        Effect.gen(function* () {
          yield* Effect.mapError(limits.admit(tenant), ofApiError)
          const asked = yield* readRequest(yield* Effect.mapError(body, ofApiError))
          const { call, model } = asked
          const priority = headers["x-dream-team-priority"]
          const given: Request = { model, call, tenant, priority }
          if (!asked.stream) return yield* whole(asked, given)

          // Read up to its first piece before anything is answered: until then a failure has a status of its own.
          const pull = yield* Stream.toPull(gateway.stream(given))
          const first = yield* pull.pipe(
            Effect.catchAll(
              Option.match({ onNone: () => Effect.succeed(Chunk.empty<GatewayPiece>()), onSome: Effect.fail })
            ),
            replied
          )
          const write = makeChunkWriter({ ...asked, created: yield* epochSeconds })
          const textOf = (pieces: Chunk.Chunk<GatewayPiece>): string => {
            let text = ""
            for (const piece of pieces) {
              for (const chunk of write(piece)) text += dataOf(chunk)
              if (piece._tag === "Ended") text += `data: ${done}\n\n`
            }
            return text
          }
          let isFirst = true
          const nextPage = Effect.suspend(() => {
            if (!isFirst) return Effect.map(pull, textOf)
            isFirst = false
            return Effect.succeed(textOf(first))
          })
          const platform = platformOf(Option.getOrUndefined(Chunk.head(first)))
          const texts = yield* keptAlive(request, nextPage, lastWords)
          return HttpServerResponse.stream(
            Stream.repeatEffectOption(texts).pipe(
              Stream.filter((text) => text !== ""),
              Stream.encodeText
            ),
            {
              contentType: "text/event-stream",
              headers: {
                "cache-control": "no-store",
                "x-accel-buffering": "no",
                ...(platform === undefined ? {} : platformHeader(platform))
              }
            }
          )
        }).pipe(Effect.catchAll((reply) => Effect.succeed(toResponse(reply)))),
      models: () =>
        Effect.map(gateway.models, (models) => ({
          object: "list" as const,
          data: models.map(({ name, owner }) => ({ id: name, object: "model" as const, created: 0, owned_by: owner }))
        }))
    }
  })
)
