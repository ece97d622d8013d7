import { Effect, Option, Schema } from "effect"
import { RequestLimits } from "../../Budgets/RequestLimits.js"
import { Coordinator } from "../../Coordinator.js"
import { Job } from "../../Domain/Job.js"
import * as Endpoints from "../../Http/Endpoints.js"
import { jsonResponse } from "../../Http/Json.js"
import { payloadOf } from "../../Http/Payload.js"
import { JobBody, JobsGroup } from "./Api.js"

const readJob = payloadOf(JobBody)
const encodeJob = Schema.encodeSync(Job)

/** The endpoints of jobs. */
export const endpoints = Endpoints.of(
  JobsGroup,
  Effect.gen(function* () {
    const { jobs } = yield* Coordinator
    const limits = yield* RequestLimits

    return {
      submit: ({ body, headers, tenant }) =>
        Effect.gen(function* () {
          yield* limits.admit(tenant)
          const submission = yield* readJob(body)
          const { job, replayed } = yield* jobs.submit(
            tenant,
            submission,
            Option.fromNullable(headers["idempotency-key"])
          )
          return jsonResponse(encodeJob(job), {
            status: replayed ? 200 : 202,
            headers: { location: `/v1/jobs/${job.id}`, ...(replayed ? { "idempotent-replayed": "true" } : {}) }
          })
        }),
      list: ({ tenant, urlParams }) => jobs.list(tenant, urlParams),
      get: ({ path, tenant, urlParams }) => jobs.get(tenant, path.id, urlParams),
      cancel: ({ path, tenant }) => jobs.cancel(tenant, path.id)
    }
  })
)
