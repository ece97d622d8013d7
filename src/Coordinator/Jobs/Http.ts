import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { Effect, Option, Schema } from "effect"
import { RequestLimits } from "../../Budgets/RequestLimits.js"
import { Coordinator } from "../../Coordinator.js"
import { CurrentTenant } from "../../Domain/Access.js"
import { Job } from "../../Domain/Job.js"
import { payloadOf } from "../../Http/Payload.js"
import { JobBody, JobsApi } from "./Api.js"

const readJob = payloadOf(JobBody)
const encodeJob = Schema.encode(Job)

/** The endpoints of jobs. */
export const layer = HttpApiBuilder.group(JobsApi, "jobs", (handlers) =>
  Effect.gen(function* () {
    const { jobs } = yield* Coordinator
    const limits = yield* RequestLimits

    return handlers
      .handleRaw("submit", ({ headers, request }) =>
        Effect.gen(function* () {
          const tenant = yield* CurrentTenant
          yield* limits.admit(tenant)
          const submission = yield* readJob(request)
          const { job, replayed } = yield* jobs.submit(
            tenant,
            submission,
            Option.fromNullable(headers["idempotency-key"])
          )
          return HttpServerResponse.unsafeJson(yield* Effect.orDie(encodeJob(job)), {
            status: replayed ? 200 : 202,
            headers: { location: `/v1/jobs/${job.id}`, ...(replayed ? { "idempotent-replayed": "true" } : {}) }
          })
        })
      )
      .handle("list", ({ urlParams }) => Effect.flatMap(CurrentTenant, (tenant) => jobs.list(tenant, urlParams)))
      .handle("get", ({ path, urlParams }) =>
        Effect.flatMap(CurrentTenant, (tenant) => jobs.get(tenant, path.id, urlParams))
      )
      .handle("cancel", ({ path }) => Effect.flatMap(CurrentTenant, (tenant) => jobs.cancel(tenant, path.id)))
  })
)
