import * as Headers from "@effect/platform/Headers"
import * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import { Chunk, Clock, Effect, Either, Option, Predicate, Redacted, type Scope, Stream } from "effect"
import type { Call, Completion, Delta } from "../Domain/Call.js"
import { type AttemptFailure, PlatformFailure, RequestFailure } from "../Domain/Failure.js"
import type { WireFormat } from "../Domain/Platform.js"
import { monotonicMs } from "../Domain/Time.js"
import type { PlatformSettings } from "../Settings.js"
import { annotateSpan, traced } from "../Telemetry/traced.js"
import { classify } from "./Classification.js"
import type { CheckResult, PlatformClient, TakeDeltas } from "./Client.js"
import { readQuotas } from "./Quotas.js"
import { type Brought, makeReply, maxBodyBytes, tooLarge } from "./Reply.js"
import { scrub } from "./Secrets.js"
import { streamOf } from "./Stream.js"
import { type Watch, watched } from "./Watchdog.js"
import { gemini } from "./Wire/Gemini.js"
import { openAiChat } from "./Wire/OpenAiChat.js"
import { openAiResponses } from "./Wire/OpenAiResponses.js"
import { readLimits } from "./Wire/RateLimitHeaders.js"
import { isErrorValue, parseJson, providerError, type Wire, type WireProblem } from "./Wire.js"

/** As much of an error's body as is read, bytes. */
const maxErrorBytes = 64 * 1024
/** How long an error's body is waited for once its status is known, ms. */
const errorBodyMs = 5_000
/** How long the end of a body is waited for once the answer is whole, so that its connection can be used again, ms. */
const drainMs = 1_000

const wires: Readonly<Record<WireFormat, Wire>> = {
  "openai-responses": openAiResponses,
  "openai-chat": openAiChat,
  gemini
}

/** The error code of a socket or of the HTTP client, such as ECONNREFUSED; nothing else of an error is safe to show. */
const codeOf = (error: unknown): string | undefined => {
  for (let cause = error, depth = 0; depth < 5 && Predicate.isObject(cause); depth++) {
    if ("code" in cause && typeof cause.code === "string" && /^[A-Z][A-Z0-9_]{2,40}$/.test(cause.code)) {
      return cause.code
    }
    cause = "cause" in cause ? cause.cause : undefined
  }
  return undefined
}

/** Errors of the system's and of undici's that come before anything is sent. */
const neverConnected: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "EHOSTDOWN",
  "EHOSTUNREACH",
  "ENETDOWN",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
  "UND_ERR_CONNECT_TIMEOUT"
])

/** A platform that is spoken to over HTTP. */
export interface HttpPlatformSettings extends PlatformSettings {
  readonly wire: WireFormat
}

/**
 * A client for one platform over HTTP. Timeouts run on the Clock (the time to connect is the transport's own);
 * nothing retries, follows redirects or hands our trace ids on.
 */
export const makeHttpPlatform = (
  settings: HttpPlatformSettings,
  httpClient: HttpClient.HttpClient,
  checkTimeoutMs: number
): PlatformClient => {
  const wire = wires[settings.wire]
  const { attemptMs, betweenTokensMs, firstTokenMs } = settings.timeouts
  const { apiKey, id: platform } = settings
  // A client span of its own would carry the request's headers, and with them Gemini's key.
  const client = httpClient.pipe(
    HttpClient.withTracerPropagation(false),
    HttpClient.withTracerDisabledWhen(() => true),
    HttpClient.withScope
  )

  const failure = (
    model: string | undefined,
    reason: PlatformFailure["reason"],
    message: string,
    status?: number,
    code?: string
  ) => new PlatformFailure({ platform, model, reason, message: scrub(message, apiKey), status, code })

  const networkFailure = (model: string | undefined) => (error: HttpClientError.HttpClientError) => {
    const code = codeOf(error.cause)
    const suffix = code === undefined ? "" : ` (${code})`
    const status = error._tag === "ResponseError" ? error.response.status : undefined
    if (code !== undefined && neverConnected.has(code)) {
      return failure(model, "unreachable", `no connection could be made${suffix}`, status, code)
    }
    const message =
      error._tag === "ResponseError"
        ? `the connection broke off during the reply${suffix}`
        : error.reason === "InvalidUrl"
          ? "the platform's base URL is not a valid URL"
          : `the connection broke off, or could not be made${suffix}`
    return failure(model, "network", message, status, code)
  }

  const refused = (
    model: string | undefined,
    response: HttpClientResponse.HttpClientResponse,
    body: string
  ): Effect.Effect<AttemptFailure> =>
    Effect.map(Clock.currentTimeMillis, (nowMs) =>
      classify({
        platform,
        model,
        wire: settings.wire,
        baseUrl: settings.baseUrl,
        apiKey,
        status: response.status,
        headers: response.headers,
        body,
        nowMs
      })
    )

  const problem = (
    model: string | undefined,
    response: HttpClientResponse.HttpClientResponse,
    found: WireProblem
  ): Effect.Effect<AttemptFailure> => {
    switch (found._tag) {
      case "ProviderError":
        return refused(model, response, found.body)
      case "Malformed":
        return Effect.succeed(failure(model, "malformed", found.message, response.status))
      case "Policy":
        return Effect.succeed(
          new RequestFailure({
            platform,
            model,
            reason: "policy",
            status: response.status,
            code: scrub(found.code, apiKey, 100),
            message: scrub(found.message, apiKey)
          })
        )
    }
  }

  /** At most `maxBytes` of a body as text, and whether there was more. */
  const readText = (response: HttpClientResponse.HttpClientResponse, maxBytes: number) =>
    Effect.scoped(
      Effect.flatMap(Stream.toPull(response.stream), (pull) => {
        const decoder = new TextDecoder()
        let text = ""
        let bytes = 0
        const add = (pieces: Chunk.Chunk<Uint8Array>): boolean => {
          for (const piece of pieces) {
            bytes += piece.length
            text += decoder.decode(piece, { stream: true })
          }
          return bytes <= maxBytes
        }
        return Effect.map(pull, add).pipe(
          Effect.repeat({ while: (goOn) => goOn }),
          Effect.catchAll(Option.match({ onNone: () => Effect.void, onSome: Effect.fail })),
          Effect.map(() => ({ text: text + decoder.decode(), isCut: bytes > maxBytes }))
        )
      })
    )

  /** The body of an error: whatever of it comes in time. The status alone is enough to classify it. */
  const readError = (response: HttpClientResponse.HttpClientResponse) =>
    readText(response, maxErrorBytes).pipe(
      Effect.map(({ text }) => text),
      Effect.timeoutTo({ duration: errorBodyMs, onSuccess: (text) => text, onTimeout: () => "" }),
      Effect.orElseSucceed(() => "")
    )

  const send = (
    model: string | undefined,
    request: HttpClientRequest.HttpClientRequest
  ): Effect.Effect<HttpClientResponse.HttpClientResponse, AttemptFailure, Scope.Scope> =>
    client.execute(request).pipe(
      Effect.mapError(networkFailure(model)),
      Effect.flatMap((response) =>
        response.status >= 200 && response.status < 300
          ? Effect.succeed(response)
          : Effect.flatMap(readError(response), (body) => Effect.flip(refused(model, response, body)))
      )
    )

  const authorized = (request: HttpClientRequest.HttpClientRequest) =>
    HttpClientRequest.setHeaders(request, wire.authorization(Redacted.value(apiKey)))

  const post = (
    path: string,
    model: string,
    call: Call,
    stream: boolean
  ): Effect.Effect<HttpClientRequest.HttpClientRequest, RequestFailure> =>
    Either.match(wire.encode({ model, call, stream, baseUrl: settings.baseUrl }), {
      onLeft: (message) => Effect.fail(new RequestFailure({ platform, model, reason: "invalid", message })),
      onRight: (body) =>
        Effect.succeed(
          authorized(
            HttpClientRequest.post(`${settings.baseUrl}${path}`, {
              headers: { accept: stream ? "text/event-stream" : "application/json" }
            }).pipe(HttpClientRequest.bodyText(body, "application/json"))
          )
        )
    })

  const overall = (model: string | undefined, ms: number, what: string) =>
    Effect.timeoutFail({
      duration: ms,
      onTimeout: () => failure(model, "timeout", `${what} took longer than ${ms} ms`)
    })

  const attributes = (operation: string, model: string) => ({
    "gen_ai.operation.name": operation,
    "gen_ai.provider.name": platform,
    "gen_ai.request.model": model
  })

  const finishAttributes = (finish: Pick<Completion, "finishReason" | "model" | "usage">) => ({
    "gen_ai.response.model": finish.model,
    "gen_ai.response.finish_reasons": [finish.finishReason],
    "gen_ai.usage.input_tokens": finish.usage.inputTokens,
    "gen_ai.usage.output_tokens": finish.usage.outputTokens
  })

  const get = <A>(url: string, decode: (body: string, nowMs: number) => Either.Either<A, WireProblem>) =>
    send(undefined, authorized(HttpClientRequest.get(url, { headers: { accept: "application/json" } }))).pipe(
      Effect.flatMap((response) =>
        readText(response, maxBodyBytes).pipe(
          Effect.mapError(networkFailure(undefined)),
          Effect.zip(Clock.currentTimeMillis),
          Effect.flatMap(([{ isCut, text }, nowMs]) => {
            const value = parseJson(text, "the reply")
            const isError = Either.isRight(value) && isErrorValue(value.right)
            const decoded = isCut
              ? Either.left(tooLarge)
              : isError
                ? Either.left(providerError(text))
                : decode(text, nowMs)
            return Either.match(decoded, {
              onLeft: (found) => Effect.flip(problem(undefined, response, found)),
              onRight: (result) => Effect.succeed(result)
            })
          })
        )
      ),
      Effect.scoped,
      overall(undefined, checkTimeoutMs, "the check")
    )

  const complete = (model: string, call: Call): Effect.Effect<Completion, AttemptFailure> =>
    post(wire.completePath(model), model, call, false).pipe(
      Effect.flatMap((request) => send(model, request)),
      Effect.flatMap((response) =>
        readText(response, maxBodyBytes).pipe(
          Effect.mapError(networkFailure(model)),
          Effect.flatMap(({ isCut, text }) =>
            Either.match(isCut ? Either.left(tooLarge) : wire.decodeCompletion(text, model), {
              onLeft: (found) => Effect.flip(problem(model, response, found)),
              onRight: (completion) => Effect.succeed(completion)
            })
          )
        )
      ),
      Effect.scoped,
      overall(model, attemptMs, "the attempt"),
      Effect.tap((completion) => Effect.annotateCurrentSpan(finishAttributes(completion))),
      Effect.withSpan("Platforms.complete", { attributes: attributes("chat", model), captureStackTrace: false })
    )

  /** A reply to a streaming request that is no stream: an error object, or something else altogether. */
  const notAStream = (model: string, response: HttpClientResponse.HttpClientResponse, type: string) =>
    Effect.flatMap(readError(response), (body) => {
      const value = parseJson(body, "the reply")
      return Either.isRight(value) && isErrorValue(value.right)
        ? Effect.flip(refused(model, response, body))
        : Effect.fail(failure(model, "malformed", `the reply is no event stream but ${type}`, response.status))
    })

  /** Until when the next piece is waited for, and what it means when it does not come. Monotonic, ms. */
  const patience = (waits: {
    readonly startedAt: number
    readonly now: number
    readonly silentMs: number | undefined
  }) => {
    const attempt = {
      at: waits.startedAt + attemptMs,
      message: `the attempt took longer than ${attemptMs} ms`,
      reason: "timeout" as const
    }
    const token =
      waits.silentMs === undefined
        ? {
            at: waits.startedAt + firstTokenMs,
            message: `the answer did not begin within ${firstTokenMs} ms`,
            reason: "timeout" as const
          }
        : {
            at: waits.now + betweenTokensMs - waits.silentMs,
            message: `nothing came for ${betweenTokensMs} ms in mid-answer`,
            reason: "stalled" as const
          }
    return token.at < attempt.at ? token : attempt
  }

  /**
   * Reads the answer of one response to its end. All of it is one effect in one fiber: the layers of a stream made of
   * streams would cost more than all else that is done for an answer.
   */
  const read = (
    model: string,
    response: HttpClientResponse.HttpClientResponse,
    startedAt: number,
    watch: Watch<void, AttemptFailure>,
    take: TakeDeltas
  ): Effect.Effect<void, AttemptFailure, Scope.Scope> =>
    Effect.gen(function* () {
      const reply = makeReply(wire.makeStreamDecoder(model))
      const pull = yield* Stream.toPull(response.stream)
      const toFailure = networkFailure(model)
      // The answer is here: not even a broken connection can take it back.
      const next = Effect.catchAll(pull, (end) =>
        Option.isSome(end) && !reply.isWhole() ? Effect.fail(toFailure(end.value)) : Effect.succeed(undefined)
      )
      const handOut = ({ deltas, problem: found }: Brought): Effect.Effect<void, AttemptFailure> => {
        const given = deltas.length === 0 ? Effect.void : take(Chunk.unsafeFromArray(deltas))
        return found === undefined
          ? given
          : Effect.zipRight(given, Effect.flatMap(problem(model, response, found), Effect.fail))
      }
      /** Only the time spent waiting counts as silence: a slow reader is not the platform's fault. */
      let silentMs: number | undefined
      let wholeAt: number | undefined

      for (;;) {
        const now = yield* monotonicMs
        if (reply.isWhole()) {
          wholeAt ??= now
          yield* watch.until(wholeAt + drainMs, () => handOut(reply.end()))
        } else {
          const { at, message, reason } = patience({ startedAt, now, silentMs })
          yield* watch.until(at, () => Effect.fail(failure(model, reason, message, response.status)))
        }
        const bytes = yield* next
        watch.rest()
        if (bytes === undefined) return yield* handOut(reply.end())
        const brought = reply.push(bytes)
        if (brought.progress) silentMs = 0
        else if (silentMs !== undefined) silentMs += (yield* monotonicMs) - now
        yield* handOut(brought)
      }
    })

  const streamTo = (model: string, call: Call, take: TakeDeltas): Effect.Effect<void, AttemptFailure> =>
    watched<void, AttemptFailure, never>((watch) =>
      Effect.gen(function* () {
        const startedAt = yield* monotonicMs
        const request = yield* post(wire.streamPath(model), model, call, true)
        const untilMs = Math.min(firstTokenMs, attemptMs)
        yield* watch.until(startedAt + untilMs, () =>
          Effect.fail(failure(model, "timeout", `the beginning of the answer took longer than ${untilMs} ms`))
        )
        const response = yield* send(model, request)
        watch.rest()
        const { headers } = response
        const type = Option.getOrElse(Headers.get(headers, "content-type"), () => "")
        if (/json|html/i.test(type)) return yield* notAStream(model, response, type)
        const limits = readLimits(headers, yield* Clock.currentTimeMillis)
        yield* take(Chunk.of<Delta>({ _tag: "Start", limits }))
        yield* read(model, response, startedAt, watch, take)
      }).pipe(Effect.scoped)
    )

  /** Says in its span what the answer was. */
  const tracedStreamTo = (model: string, call: Call, take: TakeDeltas): Effect.Effect<void, AttemptFailure> =>
    streamTo(model, call, (deltas) => {
      const last = Chunk.unsafeLast(deltas)
      return last._tag === "Finish" ? Effect.zipRight(annotateSpan(finishAttributes(last)), take(deltas)) : take(deltas)
    }).pipe(traced("Platforms.stream", { attributes: attributes("chat", model) }))

  const listModels = get(`${settings.baseUrl}${wire.modelsPath}`, wire.decodeModels).pipe(
    Effect.withSpan("Platforms.listModels", { attributes: { "gen_ai.provider.name": platform } })
  )

  const check: Effect.Effect<CheckResult, AttemptFailure> =
    settings.quotasUrl === undefined
      ? Effect.map(listModels, (models) => ({ models, readings: [] }))
      : get(settings.quotasUrl, readQuotas).pipe(
          Effect.map((readings) => ({ models: [], readings })),
          Effect.withSpan("Platforms.check", { attributes: { "gen_ai.provider.name": platform } })
        )

  return {
    id: platform,
    settings,
    complete,
    stream: (model, call) =>
      streamOf<Delta, void, AttemptFailure>((give) => tracedStreamTo(model, call, give), Chunk.empty, 1),
    streamTo: tracedStreamTo,
    listModels,
    check
  }
}
