import * as Headers from "@effect/platform/Headers"
import * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import { Chunk, Clock, Effect, Either, Option, Predicate, Redacted, Scope, Stream } from "effect"
import type { Call, Completion, Delta } from "../Domain/Call.js"
import { type AttemptFailure, PlatformFailure, RequestFailure } from "../Domain/Failure.js"
import type { WireFormat } from "../Domain/Platform.js"
import { monotonicMs } from "../Domain/Time.js"
import type { PlatformSettings } from "../Settings.js"
import { classify } from "./Classification.js"
import type { CheckResult, PlatformClient } from "./Client.js"
import { readQuotas } from "./Quotas.js"
import { scrub } from "./Secrets.js"
import { makeSseParser } from "./Sse.js"
import { makeWatchdog, type Watchdog } from "./Watchdog.js"
import { gemini } from "./Wire/Gemini.js"
import { openAiChat } from "./Wire/OpenAiChat.js"
import { openAiResponses } from "./Wire/OpenAiResponses.js"
import { readLimits } from "./Wire/RateLimitHeaders.js"
import { isErrorValue, parseJson, providerError, type Wire, type WireProblem } from "./Wire.js"

/** Largest body of an answer, bytes. */
const maxBodyBytes = 32 * 1024 * 1024
/** Longest line, and longest event, of a streamed answer, characters. */
const maxEventLength = 8 * 1024 * 1024
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

  const tooLarge = (model: string | undefined) =>
    failure(model, "malformed", `the reply is larger than ${maxBodyBytes / 1024 / 1024} MiB`, 200)

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
          Effect.filterOrFail(
            ({ isCut }) => !isCut,
            () => tooLarge(undefined)
          ),
          Effect.zip(Clock.currentTimeMillis),
          Effect.flatMap(([{ text }, nowMs]) => {
            const value = parseJson(text, "the reply")
            const decoded =
              Either.isRight(value) && isErrorValue(value.right)
                ? Either.left<WireProblem>({ _tag: "ProviderError", body: text })
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
          Effect.filterOrFail(
            ({ isCut }) => !isCut,
            () => tooLarge(model)
          ),
          Effect.flatMap(({ text }) =>
            Either.match(wire.decodeCompletion(text, model), {
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

  /** What is still to be read of a reply's body, a chunk of deltas per pull. `startedAt`: when the attempt began. */
  const makeReader = (
    model: string,
    response: HttpClientResponse.HttpClientResponse,
    watchdog: Watchdog,
    startedAt: number
  ): Effect.Effect<Effect.Effect<Chunk.Chunk<Delta>, Option.Option<AttemptFailure>>, never, Scope.Scope> =>
    Effect.map(Stream.toPull(response.stream), (pull) => {
      const decoder = wire.makeStreamDecoder(model)
      const sse = makeSseParser(maxEventLength)
      const toNetworkFailure = networkFailure(model)
      let received = 0
      let hasProgress = false
      // Only the time spent waiting counts as silence: a slow reader is not the platform's fault.
      let silentMs = 0
      let ended = false
      let wholeAt: number | undefined
      let broken: AttemptFailure | undefined

      /** The deltas before the first problem, which ends the stream once they are handed out. */
      const handOut = (
        found: ReadonlyArray<Delta>,
        trouble: WireProblem | undefined
      ): Effect.Effect<Chunk.Chunk<Delta>> => {
        const deltas = Chunk.unsafeFromArray(found)
        return trouble === undefined
          ? Effect.succeed(deltas)
          : Effect.map(problem(model, response, trouble), (failed) => {
              broken = failed
              return deltas
            })
      }

      const decodeInto = (found: Array<Delta>, events: ReadonlyArray<string>): WireProblem | undefined => {
        for (const data of events) {
          const decoded = decoder.event(data)
          if (Either.isLeft(decoded)) return decoded.left
          found.push(...decoded.right.deltas)
          if (decoded.right.progress) {
            hasProgress = true
            silentMs = 0
          }
        }
        return undefined
      }

      const decode = (chunks: Chunk.Chunk<Uint8Array>): Effect.Effect<Chunk.Chunk<Delta>> => {
        const found: Array<Delta> = []
        let trouble: WireProblem | undefined
        let tooLong = false
        for (const bytes of chunks) {
          received += bytes.length
          const result = sse.push(bytes)
          trouble ??= decodeInto(found, result.events)
          tooLong ||= result.tooLong || received > maxBodyBytes
        }
        if (tooLong && trouble === undefined) broken = tooLarge(model)
        return handOut(found, trouble)
      }

      const endOfBody = Effect.suspend(() => {
        ended = true
        const found: Array<Delta> = []
        const trouble = decodeInto(found, sse.end().events)
        if (trouble !== undefined) return handOut(found, trouble)
        const last = decoder.end()
        if (Either.isRight(last)) {
          found.push(...last.right)
          return handOut(found, undefined)
        }
        const stray = parseJson(sse.stray(), "the body")
        const isError = Either.isRight(stray) && isErrorValue(stray.right)
        return handOut(found, isError ? providerError(sse.stray()) : last.left)
      })

      /** Until when the next piece is waited for, and what it means when it does not come. */
      const patience = (now: number) => {
        const attempt = {
          at: startedAt + attemptMs,
          late: () => failure(model, "timeout", `the attempt took longer than ${attemptMs} ms`, response.status)
        }
        const token = hasProgress
          ? {
              at: now + betweenTokensMs - silentMs,
              late: () =>
                failure(model, "stalled", `nothing came for ${betweenTokensMs} ms in mid-answer`, response.status)
            }
          : {
              at: startedAt + firstTokenMs,
              late: () =>
                failure(model, "timeout", `the answer did not begin within ${firstTokenMs} ms`, response.status)
            }
        return token.at < attempt.at ? token : attempt
      }

      const next: Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<AttemptFailure>> = Effect.gen(function* () {
        const before = yield* monotonicMs
        const { at, late } = patience(before)
        const bytes = yield* watchdog.within(Effect.mapError(pull, Option.map(toNetworkFailure)), at, () =>
          Option.some(late())
        )
        silentMs += (yield* monotonicMs) - before
        return bytes
      })

      /** The answer is here: neither silence nor a broken connection can take it back. */
      const drain: Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<AttemptFailure>> = Effect.gen(function* () {
        wholeAt ??= yield* monotonicMs
        const rest = Effect.mapError(pull, () => Option.none<AttemptFailure>())
        return yield* watchdog.within(rest, wholeAt + drainMs, () => Option.none())
      })

      return Effect.suspend(() => {
        if (broken !== undefined) return Effect.fail(Option.some(broken))
        if (ended) return Effect.fail(Option.none())
        return Effect.matchEffect(decoder.state() === "open" ? next : drain, {
          onSuccess: decode,
          onFailure: (error) => (Option.isSome(error) ? Effect.fail(error) : endOfBody)
        })
      })
    })

  /**
   * The answer as one effect that is run for each chunk: the layers of a stream made of streams would cost more than
   * all else that is done for an answer.
   */
  const makePull = (
    model: string,
    call: Call
  ): Effect.Effect<Effect.Effect<Chunk.Chunk<Delta>, Option.Option<AttemptFailure>>, never, Scope.Scope> =>
    Effect.map(
      Effect.all([
        Effect.scope,
        Effect.makeSpanScoped("Platforms.stream", { attributes: attributes("chat", model), captureStackTrace: false }),
        makeWatchdog,
        monotonicMs
      ]),
      ([scope, span, watchdog, startedAt]) => {
        let read: Effect.Effect<Chunk.Chunk<Delta>, Option.Option<AttemptFailure>> | undefined

        const begin = Effect.gen(function* () {
          const request = yield* post(wire.streamPath(model), model, call, true)
          const untilMs = Math.min(firstTokenMs, attemptMs)
          const response = yield* watchdog.within(send(model, request), startedAt + untilMs, () =>
            failure(model, "timeout", `the beginning of the answer took longer than ${untilMs} ms`)
          )
          const { headers } = response
          const type = Option.getOrElse(Headers.get(headers, "content-type"), () => "")
          if (/json|html/i.test(type)) return yield* notAStream(model, response, type)
          read = yield* makeReader(model, response, watchdog, startedAt)
          const limits = readLimits(headers, yield* Clock.currentTimeMillis)
          return Chunk.of<Delta>({ _tag: "Start", limits })
        }).pipe(Effect.mapError(Option.some), Scope.extend(scope))

        const annotate = (deltas: Chunk.Chunk<Delta>): void => {
          for (const delta of deltas) {
            if (delta._tag !== "Finish") continue
            for (const [key, value] of Object.entries(finishAttributes(delta))) span.attribute(key, value)
          }
        }

        return Effect.suspend(() => (read === undefined ? begin : Effect.tap(read, (deltas) => annotate(deltas))))
      }
    )

  const stream = (model: string, call: Call): Stream.Stream<Delta, AttemptFailure> =>
    Stream.unwrap(
      Effect.map(Scope.make(), (scope) => {
        const made = Effect.map(Scope.extend(makePull(model, call), scope), (pull) => {
          step = pull
          return pull
        })
        let step = Effect.flatten(made)
        return Stream.repeatEffectChunkOption(Effect.suspend(() => step)).pipe(
          Stream.ensuringWith((exit) => Scope.close(scope, exit))
        )
      })
    )

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

  return { id: platform, settings, complete, stream, listModels, check }
}
