import * as HttpApiClient from "@effect/platform/HttpApiClient"
import type { HttpApiDecodeError } from "@effect/platform/HttpApiError"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import { Duration, Effect, Option, type ParseResult, type Redacted, Ref, Schedule, Schema, Stream } from "effect"
import { Api } from "./Api.js"
import {
  ErrorBody,
  type Forbidden,
  type InternalError,
  type InvalidRequest,
  type NotFound,
  type ServiceUnavailable,
  type Unauthorized
} from "./Domain/ApiError.js"
import { isFinal, TaskEvent } from "./Domain/Event.js"
import { isTerminal, type Task, type TaskId, type TaskPreview, type TaskSubmission } from "./Domain/Task.js"

export interface ClientOptions {
  /** Where the service is, such as `http://127.0.0.1:7337`. */
  readonly baseUrl: string
  /** Needed where the service has API keys. */
  readonly apiKey?: Redacted.Redacted<string> | undefined
}

/** A task to submit. */
export interface Submission {
  readonly payload: TaskSubmission
  readonly headers: { readonly "idempotency-key"?: string | undefined }
}

/** The service sends something at least every 15 s; a connection silent for longer than this is dead. */
const maxSilence = Duration.seconds(45)

/**
 * Waits between reconnections: 0.1 s, doubling up to 5 s; about half a minute in vain is the end of it. A connection that
 * brought an event or stayed open until the service's first comment was not in vain.
 */
const reconnections = Schedule.exponential(Duration.millis(100)).pipe(
  Schedule.either(Schedule.spaced(Duration.seconds(5))),
  Schedule.intersect(Schedule.recurs(10))
)

/** The stream ended, but not because the task did. */
class Disconnected extends Schema.TaggedError<Disconnected>()("Disconnected", { message: Schema.String }) {}

/** What following a task can fail with. */
export type FollowError =
  | InvalidRequest
  | Unauthorized
  | Forbidden
  | NotFound
  | InternalError
  | ServiceUnavailable
  | HttpApiDecodeError
  | HttpClientError.HttpClientError
  | ParseResult.ParseError

type ReadError = Exclude<FollowError, HttpApiDecodeError> | Disconnected

const mayPass = (error: FollowError | Disconnected): boolean => {
  switch (error._tag) {
    case "Disconnected":
    case "ServiceUnavailable":
      return true
    case "RequestError":
      return error.reason === "Transport"
    case "ResponseError":
      return error.reason === "Decode" || error.response.status >= 500
    default:
      return false
  }
}

const FollowErrorBody = Schema.Union(
  ErrorBody.InvalidRequest,
  ErrorBody.Unauthorized,
  ErrorBody.Forbidden,
  ErrorBody.NotFound,
  ErrorBody.InternalError,
  ErrorBody.ServiceUnavailable
)

const decodeEvent = Schema.decode(Schema.parseJson(TaskEvent))
const decodeErrorEvent = Schema.decode(Schema.parseJson(FollowErrorBody))

interface Frame {
  readonly event: string
  readonly data: string
}

/**
 * The event-stream format, as far as this service speaks it; other fields are passed over. A comment is no frame, but
 * shows that the connection is alive.
 */
const frames = <E>(lines: Stream.Stream<string, E>): Stream.Stream<Frame | "alive", E> =>
  lines.pipe(
    Stream.mapAccum({ event: "message", data: "" }, (frame, line): readonly [Frame, Option.Option<Frame | "alive">] => {
      if (line === "") {
        return [{ event: "message", data: "" }, frame.data === "" ? Option.none() : Option.some(frame)]
      }
      if (line.startsWith(":")) return [frame, Option.some("alive")]
      const colon = line.indexOf(":")
      const field = colon === -1 ? line : line.slice(0, colon)
      const value = colon === -1 ? "" : line.slice(colon + 1).replace(/^ /, "")
      switch (field) {
        case "event":
          return [{ ...frame, event: value }, Option.none()]
        case "data":
          return [{ ...frame, data: frame.data === "" ? value : `${frame.data}\n${value}` }, Option.none()]
        default:
          return [frame, Option.none()]
      }
    }),
    Stream.filterMap((frame) => frame)
  )

const readFrame = (frame: Frame | "alive"): Effect.Effect<TaskEvent | "alive", ReadError> => {
  if (frame === "alive") return Effect.succeed(frame)
  return frame.event === "error" ? Effect.flatMap(decodeErrorEvent(frame.data), Effect.fail) : decodeEvent(frame.data)
}

/** The typed client of the HTTP API. Works wherever there is an `HttpClient`, browsers included. */
export const make = Effect.fn("Client.make")(function* ({ baseUrl, apiKey }: ClientOptions) {
  const http = (yield* HttpClient.HttpClient).pipe(
    HttpClient.mapRequest((request) => {
      const prefixed = HttpClientRequest.prependUrl(request, baseUrl.replace(/\/+$/, ""))
      return apiKey === undefined ? prefixed : HttpClientRequest.bearerToken(prefixed, apiKey)
    })
  )
  const api = yield* HttpApiClient.makeWith(Api, { httpClient: http })

  const connect = (id: TaskId, after: Option.Option<number>): Stream.Stream<TaskEvent | "alive", ReadError> =>
    Effect.gen(function* () {
      const request = HttpClientRequest.get(`/v1/tasks/${encodeURIComponent(id)}/events`).pipe(
        HttpClientRequest.setHeader("accept", "text/event-stream"),
        Option.match(after, {
          onNone: () => (unchanged: HttpClientRequest.HttpClientRequest) => unchanged,
          onSome: (last) => HttpClientRequest.setHeader("last-event-id", String(last))
        })
      )
      const response = yield* http.execute(request)
      if (response.status === 204) return Stream.empty
      if (response.status !== 200) {
        return yield* Effect.flatMap(HttpClientResponse.schemaBodyJson(FollowErrorBody)(response), Effect.fail)
      }
      const lastSeen = yield* Ref.make(Option.none<TaskEvent>())
      const ended = Stream.fromEffect(Ref.get(lastSeen)).pipe(
        Stream.flatMap((last) =>
          Option.exists(last, isFinal)
            ? Stream.empty
            : Stream.fail(new Disconnected({ message: "The event stream ended before the task did" }))
        )
      )
      return response.stream.pipe(
        Stream.timeoutFail(() => new Disconnected({ message: "The event stream fell silent" }), maxSilence),
        Stream.decodeText(),
        Stream.splitLines,
        frames,
        Stream.mapEffect(readFrame),
        Stream.tap((event) => (event === "alive" ? Effect.void : Ref.set(lastSeen, Option.some(event)))),
        Stream.concat(ended)
      )
    }).pipe(Stream.unwrap)

  /**
   * A task's events after the event `after` (default: from the first), until the task ends. A broken connection is made
   * again where it broke; the stream fails only when that was tried in vain for about half a minute.
   */
  const events = (id: TaskId, after?: number): Stream.Stream<TaskEvent, FollowError> =>
    Stream.unwrap(
      Effect.map(Ref.make(Option.fromNullable(after)), (position) =>
        Stream.suspend(() => Stream.unwrap(Effect.map(Ref.get(position), (last) => connect(id, last)))).pipe(
          Stream.tap((event) => (event === "alive" ? Effect.void : Ref.set(position, Option.some(event.id)))),
          // It counts anew from whatever comes through.
          Stream.retry(Schedule.whileInput(reconnections, mayPass)),
          Stream.filter((event) => event !== "alive"),
          Stream.catchTag("Disconnected", ({ message }) =>
            Stream.fail(unreachable(message, `${baseUrl}/v1/tasks/${id}/events`))
          )
        )
      )
    )

  /** Waits until the task has ended, however long, and answers it. Broken connections are made again as in `events`. */
  const waitFor = (id: TaskId): Effect.Effect<Task, FollowError> =>
    api.tasks.get({ path: { id } }).pipe(
      Effect.retry(Schedule.whileInput(reconnections, mayPass)),
      Effect.flatMap((task) =>
        isTerminal(task.state)
          ? Effect.succeed(task)
          : Effect.zipRight(
              Stream.runDrain(events(id)),
              Effect.suspend(() => waitFor(id))
            )
      )
    )

  // One endpoint answers tasks, and previews to those who ask for them.
  const asked = (answer: Task | TaskPreview) =>
    "accepted" in answer
      ? Effect.dieMessage("the service previewed a task that was to be submitted")
      : Effect.succeed(answer)
  const submitted = ({ headers, payload }: Submission) =>
    api.tasks
      .submit({ headers, payload, urlParams: {}, withResponse: true })
      .pipe(
        Effect.flatMap(([answer, response]) =>
          Effect.map(asked(answer), (task): readonly [Task, HttpClientResponse.HttpClientResponse] => [task, response])
        )
      )
  type SubmitError = Effect.Effect.Error<ReturnType<typeof submitted>>
  type Submitted = Effect.Effect.Success<ReturnType<typeof submitted>>
  function submit(request: Submission & { readonly withResponse: true }): Effect.Effect<Submitted, SubmitError>
  function submit(request: Submission): Effect.Effect<Task, SubmitError>
  function submit(
    request: Submission & { readonly withResponse?: boolean }
  ): Effect.Effect<Task | Submitted, SubmitError> {
    return Effect.map(submitted(request), (both) => (request.withResponse === true ? both : both[0]))
  }

  /** What would become of a task, were it submitted now; nothing is stored. Fails as its submission would. */
  const preview = (payload: TaskSubmission): Effect.Effect<TaskPreview, SubmitError> =>
    Effect.flatMap(api.tasks.submit({ headers: {}, payload, urlParams: { dryRun: true } }), (answer) =>
      "accepted" in answer
        ? Effect.succeed(answer)
        : Effect.dieMessage("the service took a task that was only to be previewed")
    )

  // The generated method would read the whole stream before it answers.
  const { events: _, submit: __, ...tasks } = api.tasks
  return { ...api, tasks: { ...tasks, submit, preview }, events, waitFor }
})

const unreachable = (description: string, url: string): HttpClientError.RequestError =>
  new HttpClientError.RequestError({ request: HttpClientRequest.get(url), reason: "Transport", description })

export type Client = Effect.Effect.Success<ReturnType<typeof make>>
