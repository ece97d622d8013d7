import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { Effect, Option, Schema, Stream } from "effect"
import { RequestLimits } from "../Budgets/RequestLimits.js"
import { Coordinator } from "../Coordinator.js"
import { InvalidRequest } from "../Domain/ApiError.js"
import { isTerminal, Task, type TaskId, TaskPreview } from "../Domain/Task.js"
import { mediaTypeOf } from "../Http/Body.js"
import * as Endpoints from "../Http/Endpoints.js"
import { eventStream } from "../Http/EventStream.js"
import { jsonResponse } from "../Http/Json.js"
import { payloadOf } from "../Http/Payload.js"
import { ResourceManager } from "../ResourceManager.js"
import { Settings } from "../Settings.js"
import { isBulkType, SubmissionBody, TasksGroup } from "./Api.js"
import { submitAll } from "./Bulk/Http.js"

const pathOf = (id: TaskId): string => `/v1/tasks/${id}`

const readSubmission = payloadOf(SubmissionBody)
const encodeTask = Schema.encodeSync(Task)
const encodePreview = Schema.encodeSync(TaskPreview)

/** The endpoints of tasks. */
export const endpoints = Endpoints.of(
  TasksGroup,
  Effect.gen(function* () {
    const coordinator = yield* Coordinator
    const limits = yield* RequestLimits
    const resources = yield* ResourceManager
    const { maxBodyBytes } = yield* Settings

    return {
      submit: Effect.fnUntraced(function* ({ body, headers, request, tenant, urlParams }) {
        yield* limits.admit(tenant)
        const key = Option.fromNullable(headers["idempotency-key"])
        if (urlParams.dryRun === true && Option.isSome(key)) {
          return yield* new InvalidRequest({
            message: "The request is not valid. A dry run takes no idempotency key: it stores nothing",
            problems: [{ field: "idempotency-key", problem: "a dry run stores nothing, so it takes none" }]
          })
        }
        if (isBulkType(mediaTypeOf(request))) {
          if (urlParams.dryRun === true) {
            return yield* new InvalidRequest({
              message: "The request is not valid. A dry run takes one submission, as application/json",
              problems: [{ field: "dryRun", problem: "a dry run takes one submission, as application/json" }]
            })
          }
          return yield* submitAll({
            coordinator,
            tenant,
            request,
            key,
            maxLineBytes: maxBodyBytes,
            hold: resources.holdBytes
          })
        }
        const submission = yield* readSubmission(body)
        if (urlParams.dryRun === true) {
          return jsonResponse(encodePreview(yield* coordinator.preview(tenant, submission)))
        }
        const { replayed, task } = yield* coordinator.submit(tenant, submission, key)
        const location = pathOf(task.id)
        return jsonResponse(
          encodeTask(task),
          replayed
            ? { status: 200, headers: { location, "idempotent-replayed": "true" } }
            : { status: 202, headers: { location } }
        )
      }),
      list: ({ tenant, urlParams }) => coordinator.list(tenant, urlParams),
      get: ({ path, tenant }) => coordinator.get(tenant, path.id),
      cancel: ({ path, tenant }) => coordinator.cancel(tenant, path.id),
      retry: ({ path, tenant }) => coordinator.retry(tenant, path.id),
      attempts: ({ path, tenant }) => Effect.map(coordinator.attempts(tenant, path.id), (attempts) => ({ attempts })),
      events: ({ headers, path, tenant, urlParams }) =>
        Effect.gen(function* () {
          const resumed = headers["last-event-id"]
          const after = Option.fromNullable(resumed ?? urlParams.after)
          if (resumed !== undefined && isTerminal((yield* coordinator.get(tenant, path.id)).state)) {
            const rest = yield* Stream.runHead(yield* coordinator.events(tenant, path.id, after))
            // A browser connects again to whatever ends; only this answer stops it.
            if (Option.isNone(rest)) return HttpServerResponse.empty({ status: 204 })
          }
          return yield* eventStream(yield* coordinator.events(tenant, path.id, after))
        })
    }
  })
)
