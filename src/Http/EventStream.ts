import { IncomingMessage } from "node:http"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { Cause, Chunk, Duration, Effect, Fiber, Option, Schema, type Scope, Stream } from "effect"
import { ErrorBody, InternalError, type ServiceUnavailable } from "../Domain/ApiError.js"
import { ServiceEvent } from "../Domain/Event.js"
import { monotonicMs } from "../Domain/Time.js"

/** Proxies cut connections that are silent for a minute or so; a comment is not an event to the reader. */
const keepAliveInterval = Duration.seconds(15)
const keepAlive = ": keep-alive\n\n"

/** A reader that has taken nothing for this long, ms, is cut off; what it leaves is a page of events at most. */
const maxUndrainedMs = 30_000

/** How long a browser waits before it connects again, ms. */
const reconnectAfterMs = 1_000

const encodeEvent = Schema.encode(Schema.parseJson(ServiceEvent))
const encodeError = Schema.encodeSync(
  Schema.parseJson(Schema.Union(ErrorBody.ServiceUnavailable, ErrorBody.InternalError))
)

/** Events that many follow are the same objects for all of them, so their text is made once. */
const texts = new WeakMap<ServiceEvent, string>()

const frame = (event: ServiceEvent): Effect.Effect<string> =>
  Effect.suspend(() => {
    const known = texts.get(event)
    if (known !== undefined) return Effect.succeed(known)
    return Effect.map(Effect.orDie(encodeEvent(event)), (data) => {
      const text = `id: ${event.id}\nevent: ${event.type}\ndata: ${data}\n\n`
      texts.set(event, text)
      return text
    })
  })

const errorFrame = (error: ServiceUnavailable | InternalError): string =>
  `event: error\ndata: ${encodeError(error)}\n\n`

/**
 * Nothing can be answered once the stream has begun, so an error becomes its last event, which has no id: the reader
 * comes back to where it was.
 */
const lastWords = (cause: Cause.Cause<ServiceUnavailable>): Effect.Effect<string> =>
  Option.match(Cause.failureOption(cause), {
    onSome: (error) => Effect.succeed(errorFrame(error)),
    onNone: () =>
      Cause.isInterruptedOnly(cause)
        ? Effect.succeed("")
        : Effect.as(
            Effect.logError("An event stream failed unexpectedly", cause),
            errorFrame(new InternalError({ message: "Something went wrong inside the service; its log says what" }))
          )
  })

/** Closes the reader's connection; one made in memory has none. */
const cutOff = ({ source }: HttpServerRequest.HttpServerRequest): Effect.Effect<void> =>
  Effect.sync(() => {
    if (source instanceof IncomingMessage) source.socket.resetAndDestroy()
  })

/**
 * Watches whether the reader takes what it is given; answers with what is to be said at each hand-over. `taken` is false
 * once the reader was cut off.
 */
const watchReader = (request: HttpServerRequest.HttpServerRequest) =>
  Effect.gen(function* () {
    const state: { givenAt: number | undefined; isCut: boolean } = { givenAt: undefined, isCut: false }
    yield* Effect.sleep(maxUndrainedMs / 2).pipe(
      Effect.zipRight(monotonicMs),
      Effect.tap((now) => {
        if (state.isCut || state.givenAt === undefined || now - state.givenAt < maxUndrainedMs) return Effect.void
        state.isCut = true
        return Effect.zipRight(
          Effect.logInfo("A reader of a stream was cut off: it has not taken anything for half a minute"),
          cutOff(request)
        )
      }),
      Effect.forever,
      Effect.forkScoped
    )
    return {
      given: Effect.map(monotonicMs, (now) => {
        state.givenAt = now
      }),
      taken: Effect.sync(() => {
        state.givenAt = undefined
        return !state.isCut
      })
    }
  })

/**
 * The texts to send, one at each demand: what `nextPage` has, or a comment where it has nothing for 15 s. `lastWords` says
 * what is sent in place of a failure. A reader that takes nothing for half a minute is cut off.
 */
export const keptAlive = <E>(
  request: HttpServerRequest.HttpServerRequest,
  nextPage: Effect.Effect<string, Option.Option<E>>,
  lastWords: (cause: Cause.Cause<E>) => Effect.Effect<string>
): Effect.Effect<Effect.Effect<string, Option.Option<never>>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const reader = yield* watchReader(request)
    let asked = Option.none<Fiber.RuntimeFiber<string, Option.Option<E>>>()
    let isOver = false
    return Effect.gen(function* () {
      if (!(yield* reader.taken) || isOver) return yield* Effect.fail(Option.none())
      // It goes on asking while a comment is sent, so that no event is lost between the two.
      const fiber = Option.isSome(asked) ? asked.value : yield* Effect.forkIn(nextPage, scope)
      asked = Option.some(fiber)
      const text = yield* Fiber.join(fiber).pipe(
        Effect.tap(() => {
          asked = Option.none()
        }),
        Effect.timeoutTo({ duration: keepAliveInterval, onSuccess: (page) => page, onTimeout: () => keepAlive }),
        Effect.catchAllCause((cause) => {
          isOver = true
          return Option.match(Cause.flipCauseOption(cause), {
            onNone: () => Effect.fail(Option.none()),
            onSome: lastWords
          })
        })
      )
      yield* reader.given
      return text
    })
  })

const pagesOf = (
  events: Stream.Stream<ServiceEvent, ServiceUnavailable>
): Effect.Effect<Effect.Effect<string, Option.Option<ServiceUnavailable>>, never, Scope.Scope> =>
  Effect.map(Stream.toPull(events), (pull) =>
    Effect.flatMap(pull, (chunk) => Effect.forEach(Chunk.toReadonlyArray(chunk), frame)).pipe(
      Effect.map((frames) => frames.join(""))
    )
  )

/** An id alone is no event, but what a reader comes back with that has seen none yet. */
const opening = (from: number | undefined): string =>
  `retry: ${reconnectAfterMs}\n${from === undefined ? "" : `id: ${from}\n`}\n`

/**
 * Events as a response in the event-stream format. A comment every 15 s of silence keeps the connection; a reader that
 * takes nothing for half a minute is cut off and can come back to where it was. Nothing is read ahead of the reader.
 * `from` tells it the place where the stream begins.
 */
export const eventStream = (
  events: Stream.Stream<ServiceEvent, ServiceUnavailable>,
  from?: number
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, HttpServerRequest.HttpServerRequest> =>
  Effect.map(HttpServerRequest.HttpServerRequest, (request) =>
    HttpServerResponse.stream(
      Stream.unwrapScoped(
        Effect.flatMap(pagesOf(events), (nextPage) => keptAlive(request, nextPage, lastWords)).pipe(
          Effect.map(Stream.repeatEffectOption)
        )
      ).pipe(
        Stream.filter((text) => text !== ""),
        (texts) => Stream.concat(Stream.make(opening(from)), texts),
        Stream.encodeText
      ),
      { contentType: "text/event-stream", headers: { "cache-control": "no-store", "x-accel-buffering": "no" } }
    )
  )
