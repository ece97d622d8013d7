import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as OpenApi from "@effect/platform/OpenApi"
import { Schema } from "effect"
import { Authorization } from "../../Domain/Access.js"
import { ErrorBody } from "../../Domain/ApiError.js"
import { Job, JobId, JobMode, JobResult, JobState, JobSubmission } from "../../Domain/Job.js"
import { Cursor, NextCursor, PageSize, strict } from "../../Http/Parameters.js"
import { describeResponses, IdempotencyKey } from "../Api.js"

/** A job as it comes in: a field that is not known is a mistake, in the job and in its tasks. */
export const JobBody = JobSubmission.annotations({
  identifier: "JobSubmission",
  parseOptions: { onExcessProperty: "error" }
})

const JobPath = Schema.Struct({
  id: Schema.propertySignature(JobId).annotations({ description: "The job's id, as its submission answered it." })
})

const SubmitHeaders = Schema.Struct({
  "idempotency-key": Schema.optional(IdempotencyKey).annotations({
    description:
      "Makes the submission safe to repeat: the same key with the same body answers the job of the first time."
  })
})

const ListParams = Schema.Struct({
  state: Schema.optional(JobState).annotations({ description: "Only jobs in this state." }),
  mode: Schema.optional(JobMode).annotations({ description: "Only jobs of this mode." }),
  limit: Schema.optional(PageSize).annotations({ description: "Jobs in one page. Default 50." }),
  cursor: Cursor
}).annotations(strict)

const TasksParams = Schema.Struct({
  limit: Schema.optional(PageSize).annotations({
    description: "Tasks in one page, fewer where their results are large. Default 50."
  }),
  cursor: Cursor
}).annotations(strict)

export const JobList = Schema.Struct({
  jobs: Schema.Array(Job).annotations({ description: "Newest first." }),
  next: NextCursor
}).annotations({ identifier: "JobList" })
export type JobList = typeof JobList.Type

const jobWith = (status: number) => Job.annotations(HttpApiSchema.annotations({ status, identifier: "Job" }))

const submit = HttpApiEndpoint.post("submit", "/v1/jobs")
  .setHeaders(SubmitHeaders)
  .setPayload(JobBody)
  .addSuccess(jobWith(202))
  .addSuccess(jobWith(200))
  .addError(ErrorBody.TaskRefused)
  .addError(ErrorBody.RateLimited)
  .addError(ErrorBody.Overloaded)
  .addError(ErrorBody.PayloadTooLarge)
  .addError(ErrorBody.UnsupportedMediaType)
  .addError(ErrorBody.Conflict)
  .annotateContext(
    OpenApi.annotations({
      summary: "Submit a job",
      description:
        "Stores several tasks that belong together, all of them or none: where one cannot work, each problem is told " +
        "with the task's place (`tasks.3.prompt`). Tasks follow each other as the mode and their `dependsOn` say, and " +
        "see the results of those they waited for. A failed task can be retried by itself: that opens the job again, " +
        "with the tasks that were cancelled on its account.",
      transform: describeResponses({
        202: {
          description: "Accepted: the job is stored and will be carried out.",
          headers: { Location: "Path of the job." }
        },
        200: {
          description: "Seen before: the job that this Idempotency-Key made the first time.",
          headers: { Location: "Path of the job.", "Idempotent-Replayed": "`true`: nothing was stored this time." }
        }
      })
    })
  )

const list = HttpApiEndpoint.get("list", "/v1/jobs")
  .setUrlParams(ListParams)
  .addSuccess(JobList)
  .annotateContext(
    OpenApi.annotations({ summary: "List jobs", description: "Newest first, a page at a time, without their tasks." })
  )

const get = HttpApiEndpoint.get("get", "/v1/jobs/:id")
  .setPath(JobPath)
  .setUrlParams(TasksParams)
  .addSuccess(JobResult)
  .addError(ErrorBody.NotFound)
  .annotateContext(
    OpenApi.annotations({
      summary: "Show a job",
      description:
        "How far it is, what it has used, and its tasks in their order with their results or errors, a page at a time."
    })
  )

const cancel = HttpApiEndpoint.del("cancel", "/v1/jobs/:id")
  .setPath(JobPath)
  .addSuccess(Job)
  .addError(ErrorBody.NotFound)
  .addError(ErrorBody.Conflict)
  .annotateContext(
    OpenApi.annotations({
      summary: "Cancel a job",
      description:
        "Cancels every task that has not ended and interrupts running attempts. Cancelling a cancelled job changes " +
        "nothing; one that succeeded or failed is a conflict."
    })
  )

/** Jobs over HTTP. */
export class JobsGroup extends HttpApiGroup.make("jobs")
  .add(submit)
  .add(list)
  .add(get)
  .add(cancel)
  .addError(ErrorBody.InvalidRequest)
  .addError(ErrorBody.ServiceUnavailable)
  .middleware(Authorization)
  .annotateContext(
    OpenApi.annotations({ title: "Jobs", description: "Several tasks that belong together, with one result." })
  ) {}
