import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { Effect, Option, Schema, Stream } from "effect"
import { RequestLimits } from "../Budgets/RequestLimits.js"
import { Coordinator } from "../Coordinator.js"
import { CurrentTenant } from "../Domain/Access.js"
import { InvalidRequest } from "../Domain/ApiError.js"
import { isTerminal, Task, type TaskId, TaskPreview } from "../Domain/Task.js"
import { eventStream } from "../Http/EventStream.js"
import { payloadOf } from "../Http/Payload.js"
import { ResourceManager } from "../ResourceManager.js"
import { Settings } from "../Settings.js"
import { bulkType, SubmissionBody, TasksApi } from "./Api.js"
import { submitAll } from "./Bulk/Http.js"

const pathOf = (id: TaskId): string => `/v1/tasks/${id}`

const readSubmission = payloadOf(SubmissionBody)
const encodeTask = Schema.encode(Task)
const encodePreview = Schema.encode(TaskPreview)
const taskResponse = (task: Task, status: number, headers: Readonly<Record<string, string>>) =>
  Effect.map(Effect.orDie(encodeTask(task)), (body) => HttpServerResponse.unsafeJson(body, { status, headers }))

const isBulk = ({ headers }: HttpServerRequest.HttpServerRequest): boolean =>
  headers["content-type"]?.split(";", 1)[0]?.trim().toLowerCase() === bulkType

/** The endpoints of tasks. */
export const layer = HttpApiBuilder.group(TasksApi, "tasks", (handlers) =>
  Effect.gen(function* () {
    const coordinator = yield* Coordinator
    const limits = yield* RequestLimits
    const resources = yield* ResourceManager
    const { maxBodyBytes } = yield* Settings

    return handlers
      .handleRaw("submit", ({ request, headers, urlParams }) =>
        Effect.gen(function* () {
          const tenant = yield* CurrentTenant
          yield* limits.admit(tenant)
          if (urlParams.dryRun === true && headers["idempotency-key"] !== undefined) {
            return yield* new InvalidRequest({
              message: "The request is not valid. A dry run takes no idempotency key: it stores nothing",
              problems: [{ field: "idempotency-key", problem: "a dry run stores nothing, so it takes none" }]
            })
          }
          if (isBulk(request)) {
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
              key: Option.fromNullable(headers["idempotency-key"]),
              maxLineBytes: maxBodyBytes,
              hold: resources.holdBytes
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
          return yield* eventStream(yield* coordinator.events(tenant, path.id, after))
        })
      )
  })
)
