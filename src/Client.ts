import * as HttpApiClient from "@effect/platform/HttpApiClient"
import type { HttpApiDecodeError } from "@effect/platform/HttpApiError"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import { Duration, Effect, Option, type ParseResult, type Redacted, Ref, Schedule, Schema, Stream } from "effect"
import { Api } from "./Api.js"
import type { BulkError, BulkOptions, InvalidLine } from "./Client/Bulk.js"
import * as Bulk from "./Client/Bulk.js"
import type { BulkLine, BulkVerdict } from "./Coordinator/Api.js"
import {
  ErrorBody,
  type Forbidden,
  type InternalError,
  type InvalidRequest,
  type NotFound,
  type ServiceUnavailable,
  type Unauthorized
} from "./Domain/ApiError.js"
import { type EventKind, type EventTypeFilter, mayBeLast, ServiceEvent, TaskEvent } from "./Domain/Event.js"
import type { PlatformId } from "./Domain/Platform.js"
import type { SessionId } from "./Domain/Session.js"
import { isTerminal, type JobId, type Task, type TaskId, type TaskPreview, type TaskSubmission } from "./Domain/Task.js"

export { type BulkError, type BulkOptions, InvalidLine, VerdictsMissing } from "./Client/Bulk.js"
export { BulkLine, BulkVerdict } from "./Coordinator/Api.js"
export type { EventKind, EventTypeFilter } from "./Domain/Event.js"

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
const decodeServiceEvent = Schema.decode(Schema.parseJson(ServiceEvent))
const decodeErrorEvent = Schema.decode(Schema.parseJson(FollowErrorBody))

interface Frame {
  readonly event: string
  readonly data: string
}

/** What came through: something to read, the place from which the service tells events, or a sign of life. */
type Received<A> = { readonly read: A } | { readonly from: number } | "alive"

const started = { event: "message", data: "", id: "" }

/**
 * The event-stream format, as far as this service speaks it; other fields are passed over. A comment is no frame, but
 * shows that the connection is alive; an id alone says where the stream begins.
 */
const frames = <E>(lines: Stream.Stream<string, E>): Stream.Stream<Received<Frame>, E> =>
  lines.pipe(
    Stream.mapAccum(started, (frame, line): readonly [typeof started, Option.Option<Received<Frame>>] => {
      if (line === "") {
        if (frame.data !== "") return [started, Option.some({ read: frame })]
        return [started, frame.id === "" ? Option.none() : Option.some({ from: Number(frame.id) })]
      }
      if (line.startsWith(":")) return [frame, Option.some("alive")]
      const colon = line.indexOf(":")
      const field = colon === -1 ? line : line.slice(0, colon)
      const value = colon === -1 ? "" : line.slice(colon + 1).replace(/^ /, "")
      switch (field) {
        case "event":
          return [{ ...frame, event: value }, Option.none()]
        case "id":
          return [{ ...frame, id: value }, Option.none()]
        case "data":
          return [{ ...frame, data: frame.data === "" ? value : `${frame.data}\n${value}` }, Option.none()]
        default:
          return [frame, Option.none()]
      }
    }),
    Stream.filterMap((frame) => frame)
  )

/** Which events to follow, and how they are read. */
interface Followed<A> {
  readonly path: string
  readonly params: Readonly<Record<string, string | undefined>>
  readonly decode: (data: string) => Effect.Effect<A, ParseResult.ParseError>
  /** Whether the service may end the stream after this event. */
  readonly mayEnd: (event: A) => boolean
}

/** Which of all events to follow; what is absent does not matter. */
export interface EventsFilter {
  /** Each whole, such as `task.failed`, or a family, such as `task.*`. */
  readonly types?: ReadonlyArray<EventTypeFilter> | undefined
  readonly kind?: EventKind | undefined
  readonly task?: TaskId | undefined
  readonly job?: JobId | undefined
  readonly platform?: PlatformId | undefined
  readonly session?: SessionId | undefined
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

  const connect = <A extends { readonly id: number }>(
    { decode, mayEnd, params, path }: Followed<A>,
    after: Option.Option<number>
  ): Stream.Stream<Received<A>, ReadError> =>
    Effect.gen(function* () {
      const request = HttpClientRequest.get(path).pipe(
        HttpClientRequest.setUrlParams(params),
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
      const lastSeen = yield* Ref.make(Option.none<A>())
      const ended = Stream.fromEffect(Ref.get(lastSeen)).pipe(
        Stream.flatMap((last) =>
          Option.exists(last, mayEnd)
            ? Stream.empty
            : Stream.fail(new Disconnected({ message: "The event stream ended too early" }))
        )
      )
      const readFrame = (frame: Received<Frame>): Effect.Effect<Received<A>, ReadError> => {
        if (frame === "alive" || "from" in frame) return Effect.succeed(frame)
        const { data, event } = frame.read
        if (event === "error") return Effect.flatMap(decodeErrorEvent(data), Effect.fail)
        return Effect.tap(
          Effect.map(decode(data), (read) => ({ read })),
          ({ read }) => Ref.set(lastSeen, Option.some(read))
        )
      }
      return response.stream.pipe(
        Stream.timeoutFail(() => new Disconnected({ message: "The event stream fell silent" }), maxSilence),
        Stream.decodeText(),
        Stream.splitLines,
        frames,
        Stream.mapEffect(readFrame),
        Stream.concat(ended)
      )
    }).pipe(Stream.unwrap)

  const follow = <A extends { readonly id: number }>(
    followed: Followed<A>,
    after: number | undefined
  ): Stream.Stream<A, FollowError> =>
    Stream.unwrap(
      Effect.map(Ref.make(Option.fromNullable(after)), (position) =>
        Stream.suspend(() => Stream.unwrap(Effect.map(Ref.get(position), (last) => connect(followed, last)))).pipe(
          Stream.tap((received) =>
            received === "alive"
              ? Effect.void
              : Ref.set(position, Option.some("from" in received ? received.from : received.read.id))
          ),
          // It counts anew from whatever comes through.
          Stream.retry(Schedule.whileInput(reconnections, mayPass)),
          Stream.filterMap((received) =>
            received !== "alive" && "read" in received ? Option.some(received.read) : Option.none()
          ),
          Stream.catchTag("Disconnected", ({ message }) =>
            Stream.fail(unreachable(message, `${baseUrl}${followed.path}`))
          )
        )
      )
    )

  /**
   * A task's events after the event `after` (default: from the first), until the task ends. Or all events that a filter
   * asks for, after the event `after` (0: from the oldest kept; default: from now on), without end. A broken connection
   * is made again where it broke; the stream fails only when that was tried in vain for about half a minute.
   */
  function events(id: TaskId, after?: number): Stream.Stream<TaskEvent, FollowError>
  function events(filter?: EventsFilter, after?: number): Stream.Stream<ServiceEvent, FollowError>
  function events(
    which: TaskId | EventsFilter = {},
    after?: number
  ): Stream.Stream<TaskEvent, FollowError> | Stream.Stream<ServiceEvent, FollowError> {
    if (typeof which === "string") {
      const path = `/v1/tasks/${encodeURIComponent(which)}/events`
      return follow({ path, params: {}, decode: decodeEvent, mayEnd: mayBeLast }, after)
    }
    const { types, ...filter } = which
    const params = { ...filter, type: types?.join(",") }
    return follow({ path: "/v1/events", params, decode: decodeServiceEvent, mayEnd: () => false }, after)
  }

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

  /**
   * Submits a task a line, of JSON as the API takes it, in one request; answers a verdict a line as they come. A line that
   * is refused spoils only itself. With an idempotency key the whole is safe to repeat. What the lines fail with ends it,
   * as it is; what was accepted by then stays accepted.
   */
  const submitLines = Bulk.submitLines(http)

  /** The same for submissions that are not JSON yet. */
  const submitAll = <E>(
    submissions: Stream.Stream<BulkLine, E>,
    options: BulkOptions = {}
  ): Stream.Stream<BulkVerdict, BulkError | InvalidLine | E> => submitLines(Bulk.linesOf(submissions), options)

  // The generated method would read the whole stream before it answers.
  const { events: _, submit: __, ...tasks } = api.tasks
  return { ...api, tasks: { ...tasks, submit, submitAll, submitLines, preview }, events, waitFor }
})

const unreachable = (description: string, url: string): HttpClientError.RequestError =>
  new HttpClientError.RequestError({ request: HttpClientRequest.get(url), reason: "Transport", description })

export type Client = Effect.Effect.Success<ReturnType<typeof make>>
