import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { Cause, Duration, Effect, Option, Schedule, Schema, Stream } from "effect"
import { Coordinator } from "../Coordinator.js"
import { CurrentTenant } from "../Domain/Access.js"
import { ErrorBody, InternalError, InvalidRequest, type ServiceUnavailable } from "../Domain/ApiError.js"
import { TaskEvent } from "../Domain/Event.js"
import { isTerminal, Task, type TaskId, TaskPreview } from "../Domain/Task.js"
import { payloadOf } from "../Http/Payload.js"
import { SubmissionBody, TasksApi } from "./Api.js"

/** Proxies cut connections that are silent for a minute or so; a comment is not an event to the reader. */
const keepAliveInterval = Duration.seconds(15)

/** How long a browser waits before it connects again, ms. */
const reconnectAfterMs = 1_000

const pathOf = (id: TaskId): string => `/v1/tasks/${id}`

const readSubmission = payloadOf(SubmissionBody)
const encodeTask = Schema.encode(Task)
const encodePreview = Schema.encode(TaskPreview)
const encodeEvent = Schema.encode(Schema.parseJson(TaskEvent))
const encodeError = Schema.encodeSync(
  Schema.parseJson(Schema.Union(ErrorBody.ServiceUnavailable, ErrorBody.InternalError))
)

const taskResponse = (task: Task, status: number, headers: Readonly<Record<string, string>>) =>
  Effect.map(Effect.orDie(encodeTask(task)), (body) => HttpServerResponse.unsafeJson(body, { status, headers }))

const frame = (event: TaskEvent): Effect.Effect<string> =>
  Effect.map(Effect.orDie(encodeEvent(event)), (data) => `id: ${event.id}\nevent: ${event.type}\ndata: ${data}\n\n`)

const errorFrame = (error: ServiceUnavailable | InternalError): string =>
  `event: error\ndata: ${encodeError(error)}\n\n`

/**
 * Events as text of the event-stream format. Nothing can be answered once the stream has begun, so an error becomes its
 * last event, which has no id: the reader comes back to where it was.
 */
const eventStream = (events: Stream.Stream<TaskEvent, ServiceUnavailable>): Stream.Stream<Uint8Array> => {
  const frames = events.pipe(
    Stream.mapEffect(frame),
    Stream.catchAllCause((cause) =>
      Option.match(Cause.failureOption(cause), {
        onSome: (error) => Stream.make(errorFrame(error)),
        onNone: () =>
          Cause.isInterruptedOnly(cause)
            ? Stream.empty
            : Stream.fromEffect(
                Effect.as(
                  Effect.logError("An event stream failed unexpectedly", cause),
                  errorFrame(
                    new InternalError({ message: "Something went wrong inside the service; its log says what" })
                  )
                )
              )
      })
    )
  )
  const keepAlive = Stream.fromSchedule(Schedule.spaced(keepAliveInterval)).pipe(Stream.map(() => ": keep-alive\n\n"))
  return Stream.make(`retry: ${reconnectAfterMs}\n\n`).pipe(
    Stream.concat(Stream.merge(frames, keepAlive, { haltStrategy: "left" })),
    Stream.encodeText
  )
}

/** The endpoints of tasks. */
export const layer = HttpApiBuilder.group(TasksApi, "tasks", (handlers) =>
  Effect.gen(function* () {
    const coordinator = yield* Coordinator

    return handlers
      .handleRaw("submit", ({ request, headers, urlParams }) =>
        Effect.gen(function* () {
          const tenant = yield* CurrentTenant
          if (urlParams.dryRun === true && headers["idempotency-key"] !== undefined) {
            return yield* new InvalidRequest({
              message: "The request is not valid. A dry run takes no idempotency key: it stores nothing",
              problems: [{ field: "idempotency-key", problem: "a dry run stores nothing, so it takes none" }]
            })
          }
          const payload = yield* readSubmission(request)
          if (urlParams.dryRun === true) {
            const preview = yield* coordinator.preview(tenant, payload)
            return HttpServerResponse.unsafeJson(yield* Effect.orDie(encodePreview(preview)))
          }
          const key = Option.fromNullable(headers["idempotency-key"])
          const { task, replayed } = yield* coordinator.submit(tenant, payload, key)
          const location = { location: pathOf(task.id) }
          return replayed
            ? yield* taskResponse(task, 200, { ...location, "idempotent-replayed": "true" })
            : yield* taskResponse(task, 202, location)
        })
      )
      .handle("list", ({ urlParams }) => Effect.flatMap(CurrentTenant, (tenant) => coordinator.list(tenant, urlParams)))
      .handle("get", ({ path }) => Effect.flatMap(CurrentTenant, (tenant) => coordinator.get(tenant, path.id)))
      .handle("cancel", ({ path }) => Effect.flatMap(CurrentTenant, (tenant) => coordinator.cancel(tenant, path.id)))
      .handle("retry", ({ path }) => Effect.flatMap(CurrentTenant, (tenant) => coordinator.retry(tenant, path.id)))
      .handle("attempts", ({ path }) =>
        Effect.flatMap(CurrentTenant, (tenant) =>
          Effect.map(coordinator.attempts(tenant, path.id), (attempts) => ({ attempts }))
        )
      )
      .handle("events", ({ path, headers, urlParams }) =>
        Effect.gen(function* () {
          const tenant = yield* CurrentTenant
          const resumed = headers["last-event-id"]
          const after = Option.fromNullable(resumed ?? urlParams.after)
          if (resumed !== undefined && isTerminal((yield* coordinator.get(tenant, path.id)).state)) {
            const rest = yield* Stream.runHead(yield* coordinator.events(tenant, path.id, after))
            // A browser connects again to whatever ends; only this answer stops it.
            if (Option.isNone(rest)) return HttpServerResponse.empty({ status: 204 })
          }
          return HttpServerResponse.stream(eventStream(yield* coordinator.events(tenant, path.id, after)), {
            contentType: "text/event-stream",
            headers: { "cache-control": "no-store", "x-accel-buffering": "no" }
          })
        })
      )
  })
)
