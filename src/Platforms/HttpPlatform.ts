import type * as HttpClient from "@effect/platform/HttpClient"
import { Chunk, Clock, Effect, Either, Predicate, Redacted } from "effect"
import type { Call, Completion, Delta } from "../Domain/Call.js"
import { type AttemptFailure, PlatformFailure, RequestFailure } from "../Domain/Failure.js"
import type { WireFormat } from "../Domain/Platform.js"
import { epochMs, monotonicMs } from "../Domain/Time.js"
import type { PlatformSettings } from "../Settings.js"
import { annotateSpan, isTraced } from "../Telemetry/traced.js"
import { classify } from "./Classification.js"
import type { CheckResult, PlatformClient, TakeDeltas } from "./Client.js"
import { type Broken, exchangeOf, type Head, type Incoming, type Outgoing } from "./Exchange.js"
import { patienceOf } from "./Patience.js"
import { readQuotas } from "./Quotas.js"
import { makeReply, maxBodyBytes, tooLarge } from "./Reply.js"
import { scrub } from "./Secrets.js"
import { streamOf } from "./Stream.js"
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
  const { attemptMs, firstTokenMs } = settings.timeouts
  const patience = patienceOf(settings.timeouts)
  const { apiKey, id: platform } = settings
  const exchange = exchangeOf(httpClient)
  const authorization = wire.authorization(Redacted.value(apiKey))

  const failure = (
    model: string | undefined,
    reason: PlatformFailure["reason"],
    message: string,
    status?: number,
    code?: string
  ) => new PlatformFailure({ platform, model, reason, message: scrub(message, apiKey), status, code })

  const networkFailure = (model: string | undefined, head: Head | undefined, { at, cause }: Broken) => {
    const code = codeOf(cause)
    const suffix = code === undefined ? "" : ` (${code})`
    if (code !== undefined && neverConnected.has(code)) {
      return failure(model, "unreachable", `no connection could be made${suffix}`, head?.status, code)
    }
    const message =
      at === "reply"
        ? `the connection broke off during the reply${suffix}`
        : at === "url"
          ? "the platform's base URL is not a valid URL"
          : `the connection broke off, or could not be made${suffix}`
    return failure(model, "network", message, head?.status, code)
  }

  const refused = (model: string | undefined, { headers, status }: Head, body: string): Effect.Effect<AttemptFailure> =>
    Effect.map(Clock.currentTimeMillis, (nowMs) =>
      classify({
        platform,
        model,
        baseUrl: settings.baseUrl,
        apiKey,
        status,
        headers,
        body,
        nowMs
      })
    )

  const problem = (model: string | undefined, head: Head, found: WireProblem): Effect.Effect<AttemptFailure> => {
    switch (found._tag) {
      case "ProviderError":
        return refused(model, head, found.body)
      case "Malformed":
        return Effect.succeed(failure(model, "malformed", found.message, head.status))
      case "Policy":
        return Effect.succeed(
          new RequestFailure({
            platform,
            model,
            reason: "policy",
            status: head.status,
            code: scrub(found.code, apiKey, 100),
            message: scrub(found.message, apiKey)
          })
        )
    }
  }

  /** The head of a reply, and what became of it where none came. */
  const headOf = (
    model: string | undefined,
    incoming: Incoming,
    wait: Effect.Effect<unknown, AttemptFailure>
  ): Effect.Effect<Head, AttemptFailure> =>
    Effect.suspend(() => {
      const head = incoming.head()
      if (head !== undefined) return Effect.succeed(head)
      const ending = incoming.ending()
      return Effect.zipRight(
        ending === undefined ? wait : Effect.mapError(ending, (broken) => networkFailure(model, undefined, broken)),
        headOf(model, incoming, wait)
      )
    })

  /** At most `maxBytes` of a body as text, and whether there was more. */
  const readText = (incoming: Incoming, maxBytes: number): Effect.Effect<{ text: string; isCut: boolean }, Broken> =>
    Effect.suspend(() => {
      const decoder = new TextDecoder()
      let text = ""
      let bytes = 0
      const read: Effect.Effect<{ text: string; isCut: boolean }, Broken> = Effect.suspend(() => {
        for (const piece of incoming.take()) {
          bytes += piece.length
          text += decoder.decode(piece, { stream: true })
        }
        if (bytes > maxBytes) return Effect.succeed({ text, isCut: true })
        const ending = incoming.ending()
        return ending === undefined
          ? Effect.zipRight(incoming.more(), read)
          : Effect.map(ending, () => ({ text: text + decoder.decode(), isCut: false }))
      })
      return read
    })

  /** The body of an error: whatever of it comes in time. The status alone is enough to classify it. */
  const readError = (incoming: Incoming) =>
    readText(incoming, maxErrorBytes).pipe(
      Effect.map(({ text }) => text),
      Effect.timeoutTo({ duration: errorBodyMs, onSuccess: (text) => text, onTimeout: () => "" }),
      Effect.orElseSucceed(() => "")
    )

  const isGood = ({ status }: Head): boolean => status >= 200 && status < 300

  const refusal = (model: string | undefined, incoming: Incoming, head: Head): Effect.Effect<never, AttemptFailure> =>
    Effect.flatMap(readError(incoming), (body) => Effect.flip(refused(model, head, body)))

  /** The whole body of a good reply, as `decode` reads it. */
  const exchanged = <A>(
    model: string | undefined,
    outgoing: Outgoing,
    decode: (body: string, nowMs: number) => Either.Either<A, WireProblem>
  ): Effect.Effect<A, AttemptFailure> =>
    exchange(outgoing, (incoming) =>
      Effect.gen(function* () {
        const head = yield* headOf(model, incoming, incoming.more())
        if (!isGood(head)) return yield* refusal(model, incoming, head)
        const { isCut, text } = yield* Effect.mapError(readText(incoming, maxBodyBytes), (broken) =>
          networkFailure(model, head, broken)
        )
        const decoded = isCut ? Either.left(tooLarge) : decode(text, yield* epochMs)
        return yield* Either.isRight(decoded)
          ? Effect.succeed(decoded.right)
          : Effect.flip(problem(model, head, decoded.left))
      })
    )

  const post = (path: string, model: string, call: Call, stream: boolean): Either.Either<Outgoing, RequestFailure> =>
    Either.mapBoth(wire.encode({ model, call, stream, baseUrl: settings.baseUrl }), {
      onLeft: (message) => new RequestFailure({ platform, model, reason: "invalid", message }),
      onRight: (body) => ({
        method: "POST",
        url: `${settings.baseUrl}${path}`,
        headers: { accept: stream ? "text/event-stream" : "application/json", ...authorization },
        body
      })
    })

  const overall = (model: string | undefined, ms: number, what: string) =>
    Effect.timeoutFail({
      duration: ms,
      onTimeout: () => failure(model, "timeout", `${what} took longer than ${ms} ms`)
    })

  const attributes = (model: string) => ({
    "gen_ai.operation.name": "chat",
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
    exchanged(
      undefined,
      { method: "GET", url, headers: { accept: "application/json", ...authorization } },
      (body, nowMs) => {
        const value = parseJson(body, "the reply")
        return Either.isRight(value) && isErrorValue(value.right)
          ? Either.left(providerError(body))
          : decode(body, nowMs)
      }
    ).pipe(overall(undefined, checkTimeoutMs, "the check"))

  const complete = (model: string, call: Call): Effect.Effect<Completion, AttemptFailure> =>
    Effect.suspend(() => post(wire.completePath(model), model, call, false)).pipe(
      Effect.flatMap((outgoing) => exchanged(model, outgoing, (body) => wire.decodeCompletion(body, model))),
      overall(model, attemptMs, "the attempt"),
      Effect.tap((completion) => Effect.annotateCurrentSpan(finishAttributes(completion))),
      Effect.withSpan("Platforms.complete", { attributes: attributes(model), captureStackTrace: false })
    )

  /** A reply to a streaming request that is no stream: an error object, or something else altogether. */
  const notAStream = (model: string, incoming: Incoming, head: Head, type: string) =>
    Effect.flatMap(readError(incoming), (body) => {
      const value = parseJson(body, "the reply")
      return Either.isRight(value) && isErrorValue(value.right)
        ? Effect.flip(refused(model, head, body))
        : Effect.fail(failure(model, "malformed", `the reply is no event stream but ${type}`, head.status))
    })

  /**
   * Reads the answer of one reply to its end. All of it is one effect in one fiber, which wakes up once for all that has
   * come: the layers of a stream made of streams would cost more than all else that is done for an answer.
   */
  const readAnswer = Effect.fnUntraced(function* (model: string, incoming: Incoming, take: TakeDeltas) {
    const startedAt = yield* monotonicMs
    const untilMs = Math.min(firstTokenMs, attemptMs)
    const tooLate = () => failure(model, "timeout", `the beginning of the answer took longer than ${untilMs} ms`)
    const inTime = Effect.flatMap(incoming.more(startedAt + untilMs), (came) =>
      came ? Effect.void : Effect.fail(tooLate())
    )
    const head = yield* headOf(model, incoming, inTime)
    if (!isGood(head)) {
      const leftMs = Math.max(0, startedAt + untilMs - (yield* monotonicMs))
      return yield* Effect.timeoutFail(refusal(model, incoming, head), { duration: leftMs, onTimeout: tooLate })
    }
    const type = head.headers["content-type"] ?? ""
    if (/json|html/i.test(type)) return yield* notAStream(model, incoming, head, type)

    const reply = makeReply(wire.makeStreamDecoder(model))
    const handOut = (deltas: ReadonlyArray<Delta>, found: WireProblem | undefined) => {
      const given = deltas.length === 0 ? Effect.void : take(Chunk.unsafeFromArray(deltas))
      return found === undefined
        ? given
        : Effect.zipRight(given, Effect.flatMap(problem(model, head, found), Effect.fail))
    }
    let start: ReadonlyArray<Delta> = [{ _tag: "Start", limits: readLimits(head.headers, yield* epochMs) }]
    /** Only the time spent waiting counts as silence: a slow reader is not the platform's fault. */
    let silentMs: number | undefined
    let waitedMs = 0
    let wholeAt: number | undefined

    for (;;) {
      const brought = reply.push(incoming.take())
      const ending = incoming.ending()
      if (brought.progress) silentMs = 0
      else if (silentMs !== undefined) silentMs += waitedMs
      yield* handOut(start.length === 0 ? brought.deltas : [...start, ...brought.deltas], brought.problem)
      start = []

      const isWhole = reply.isWhole()
      // Once the answer is here, not even a broken connection can take it back.
      if (ending !== undefined && !isWhole) {
        yield* Effect.mapError(ending, (broken) => networkFailure(model, head, broken))
      }
      const now = yield* monotonicMs
      if (isWhole) wholeAt ??= now
      const late = patience({ startedAt, now, silentMs })
      const isOver =
        ending !== undefined || !(yield* incoming.more(wholeAt === undefined ? late.at : wholeAt + drainMs))
      if (isOver) {
        if (ending === undefined && wholeAt === undefined) {
          return yield* Effect.fail(failure(model, late.reason, late.message, head.status))
        }
        const last = reply.end()
        return yield* handOut(last.deltas, last.problem)
      }
      waitedMs = (yield* monotonicMs) - now
    }
  })

  const streamTo = (model: string, call: Call, take: TakeDeltas): Effect.Effect<void, AttemptFailure> =>
    Effect.suspend(() => {
      const outgoing = post(wire.streamPath(model), model, call, true)
      return Either.isLeft(outgoing)
        ? Effect.fail(outgoing.left)
        : exchange(outgoing.right, (incoming) => readAnswer(model, incoming, take))
    })

  /** Says in its span, where anybody sees that, what the answer was. */
  const tracedStreamTo = (model: string, call: Call, take: TakeDeltas): Effect.Effect<void, AttemptFailure> =>
    Effect.withFiberRuntime((fiber) =>
      isTraced(fiber)
        ? Effect.withSpan(
            streamTo(model, call, (deltas) => {
              const last = Chunk.unsafeLast(deltas)
              return last._tag === "Finish"
                ? Effect.zipRight(annotateSpan(finishAttributes(last)), take(deltas))
                : take(deltas)
            }),
            "Platforms.stream",
            { attributes: attributes(model), captureStackTrace: false }
          )
        : streamTo(model, call, take)
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
