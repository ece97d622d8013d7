import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as OpenApi from "@effect/platform/OpenApi"
import { Schema } from "effect"
import { Authorization } from "../Domain/Access.js"
import { ErrorBody } from "../Domain/ApiError.js"
import { PlatformId } from "../Domain/Platform.js"
import {
  Attempt,
  Priority,
  Task,
  TaskId,
  TaskPreview,
  TaskState,
  TaskSubmission,
  TaskSummary,
  TaskType
} from "../Domain/Task.js"
import { Cursor, EventNumber, eventStream, NextCursor, PageSize, ResumeHeaders, strict } from "../Http/Parameters.js"

/** A submission as it comes in: a field that is not known is a mistake. */
export const SubmissionBody = TaskSubmission.annotations({
  identifier: "TaskSubmission",
  parseOptions: { onExcessProperty: "error" }
})

export const IdempotencyKey = Schema.String.pipe(
  Schema.pattern(/^[\x21-\x7e]{1,255}$/, { message: () => "expected 1 to 255 visible ASCII characters" })
)

/** Lines of one bulk submission. */
export const maxBulkLines = 100_000

/** One line of a bulk submission. */
export const BulkLine = Schema.Struct({
  ...TaskSubmission.fields,
  idempotencyKey: Schema.optional(IdempotencyKey).annotations({
    description: "As the header of one submission; wins over the key made of the header's and the line's number."
  })
}).annotations({ identifier: "BulkLine", parseOptions: { onExcessProperty: "error" } })
export type BulkLine = typeof BulkLine.Type

const lineNumber = Schema.propertySignature(Schema.Int.pipe(Schema.positive())).annotations({
  description: "Of the submission, from 1."
})

/** What became of one line of a bulk submission. */
export const BulkVerdict = Schema.Union(
  Schema.Struct({
    line: lineNumber,
    id: TaskId,
    state: TaskState,
    replayed: Schema.optional(Schema.Literal(true)).annotations({
      description: "The idempotency key was seen before with the same submission: nothing was stored this time."
    })
  }),
  Schema.Struct({
    line: lineNumber,
    error: Schema.Struct({ type: Schema.String, message: Schema.String, details: Schema.Unknown }).annotations({
      description: "As the body of the error that a single submission would have got."
    })
  })
).annotations({ identifier: "BulkVerdict" })
export type BulkVerdict = typeof BulkVerdict.Type

export const bulkType = "application/x-ndjson"

/** JSON Lines has no registered media type: these are the ones in use. */
const bulkTypes: ReadonlySet<string | undefined> = new Set([
  bulkType,
  "application/ndjson",
  "application/jsonl",
  "application/x-jsonl",
  "application/jsonlines",
  "application/x-jsonlines"
])

/** Whether a media type (in lower case, without parameters) is one of many submissions in one request. */
export const isBulkType = (mediaType: string | undefined): boolean => bulkTypes.has(mediaType)

/** The second content type of one and the same endpoint, which the generated description does not know. */
const describeBulk = (operation: Record<string, unknown>): Record<string, unknown> => {
  const body = Object(operation.requestBody)
  const responses = Object(operation.responses)
  const done = Object(responses["200"])
  return {
    ...operation,
    requestBody: {
      ...body,
      content: {
        ...Object(body.content),
        [bulkType]: {
          schema: {
            type: "string",
            description: `Up to ${maxBulkLines} lines, a BulkLine each: the fields of a submission and an \`idempotencyKey\`.`
          }
        }
      }
    },
    responses: {
      ...responses,
      "200": {
        ...done,
        content: {
          ...Object(done.content),
          [bulkType]: {
            schema: { type: "string", description: "A BulkVerdict for each line that is not blank, in order." }
          }
        }
      }
    }
  }
}

const TaskPath = Schema.Struct({
  id: Schema.propertySignature(TaskId).annotations({ description: "The task's id, as its submission answered it." })
})

const SubmitHeaders = Schema.Struct({
  "idempotency-key": Schema.optional(IdempotencyKey).annotations({
    description:
      "Makes the submission safe to repeat: the same key with the same body answers the task of the first time."
  })
})

const SubmitParams = Schema.Struct({
  dryRun: Schema.optional(Schema.BooleanFromString.annotations({ jsonSchema: { type: "boolean" } })).annotations({
    description:
      "`true`: says what would become of the task and stores nothing. Takes no `Idempotency-Key`. What would be refused " +
      "gets the same error."
  })
}).annotations(strict)

const ListParams = Schema.Struct({
  state: Schema.optional(TaskState).annotations({ description: "Only tasks in this state." }),
  type: Schema.optional(TaskType).annotations({ description: "Only tasks of this type." }),
  priority: Schema.optional(Priority).annotations({ description: "Only tasks of this priority." }),
  platform: Schema.optional(PlatformId).annotations({ description: "Only tasks whose latest attempt was here." }),
  limit: Schema.optional(PageSize).annotations({ description: "Tasks in one page. Default 50." }),
  cursor: Cursor
}).annotations(strict)

export const TaskList = Schema.Struct({
  tasks: Schema.Array(TaskSummary).annotations({ description: "Newest first." }),
  next: NextCursor
}).annotations({ identifier: "TaskList" })
export type TaskList = typeof TaskList.Type

export const AttemptList = Schema.Struct({
  attempts: Schema.Array(Attempt).annotations({ description: "Oldest first." })
}).annotations({ identifier: "AttemptList" })
export type AttemptList = typeof AttemptList.Type

const EventParams = Schema.Struct({
  after: Schema.optional(EventNumber).annotations({
    description: "Go on after this event; 0 or absent = from the first."
  })
}).annotations(strict)

const EventStream = eventStream(
  "Server-sent events: `id` (an integer that grows), `event` (the type) and `data` (a TaskEvent as JSON) each. " +
    "Comments keep the connection alive; the stream ends with the task."
)

/** What the generated description cannot know of a response. */
export const describeResponses =
  (
    known: Readonly<
      Record<string, { readonly description: string; readonly headers?: Readonly<Record<string, string>> }>
    >
  ) =>
  (operation: Record<string, unknown>): Record<string, unknown> => {
    const responses = Object.entries(Object(operation.responses)).map(([status, response]) => {
      const { description, headers = {} } = known[status] ?? {}
      return [
        status,
        {
          ...Object(response),
          ...(description === undefined ? {} : { description }),
          ...(Object.keys(headers).length === 0
            ? {}
            : {
                headers: Object.fromEntries(
                  Object.entries(headers).map(([name, text]) => [
                    name,
                    { description: text, schema: { type: "string" } }
                  ])
                )
              })
        }
      ]
    })
    return { ...operation, responses: Object.fromEntries(responses) }
  }

const taskWith = (status: number) => Task.annotations(HttpApiSchema.annotations({ status, identifier: "Task" }))

const describeAnswers = describeResponses({
  202: {
    description: "Accepted: the task is stored and will be carried out.",
    headers: { Location: "Path of the task." }
  },
  200: {
    description:
      "Seen before: the task that this Idempotency-Key made the first time. Or, with `dryRun=true`, what would " +
      "become of the task.",
    headers: {
      Location: "Path of the task; absent from a dry run.",
      "Idempotent-Replayed": "`true`: nothing was stored this time; absent from a dry run."
    }
  }
})

const describeSubmit = (operation: Record<string, unknown>) => describeBulk(describeAnswers(operation))

const submit = HttpApiEndpoint.post("submit", "/v1/tasks")
  .setHeaders(SubmitHeaders)
  .setUrlParams(SubmitParams)
  .setPayload(SubmissionBody)
  .addSuccess(taskWith(202))
  .addSuccess(taskWith(200))
  .addSuccess(TaskPreview)
  .addError(ErrorBody.TaskRefused)
  .addError(ErrorBody.RateLimited)
  .addError(ErrorBody.Overloaded)
  .addError(ErrorBody.PayloadTooLarge)
  .addError(ErrorBody.UnsupportedMediaType)
  .addError(ErrorBody.Conflict)
  .annotateContext(
    OpenApi.annotations({
      summary: "Submit a task",
      description:
        "Stores a task and answers at once; the work goes on by itself, over restarts too. " +
        "Follow it with GET on the `Location`, or by its events. " +
        "However many tasks wait, more are taken: they wait in the database. Refused at once is only a task that " +
        "certainly cannot start before its deadline (429 where limits are the reason, else 503, with each platform's " +
        "reason and earliest instant), and a body for which there is no room in memory (503 `overloaded`). " +
        "Where a check by a model is configured, its verdict stands in `validation`; a task it finds invalid is a 422 with " +
        "its problems and a suggestion. " +
        "With `dryRun=true` it explains the choice without making it: who could serve the task, with the weight of each " +
        "and what it is made of, who is free now, who would get it, who could not serve it and why, and what it may cost. " +
        `Many tasks go in one request as \`${bulkType}\`: a submission a line, and a verdict a line comes back as it is ` +
        "known. A line that is refused spoils only itself, those accepted stay accepted if the connection breaks, and with " +
        "an `Idempotency-Key` K each line has the key `K:<line>`, so the whole request is safe to repeat. The whole may be " +
        "larger than a single body, a line may not.",
      transform: describeSubmit
    })
  )

const list = HttpApiEndpoint.get("list", "/v1/tasks")
  .setUrlParams(ListParams)
  .addSuccess(TaskList)
  .annotateContext(
    OpenApi.annotations({ summary: "List tasks", description: "Newest first, a page at a time, without their texts." })
  )

const get = HttpApiEndpoint.get("get", "/v1/tasks/:id")
  .setPath(TaskPath)
  .addSuccess(Task)
  .addError(ErrorBody.NotFound)
  .annotateContext(
    OpenApi.annotations({ summary: "Show a task", description: "Whole, with its result or error where it has one." })
  )

const cancel = HttpApiEndpoint.del("cancel", "/v1/tasks/:id")
  .setPath(TaskPath)
  .addSuccess(Task)
  .addError(ErrorBody.NotFound)
  .addError(ErrorBody.Conflict)
  .annotateContext(
    OpenApi.annotations({
      summary: "Cancel a task",
      description:
        "Interrupts the running attempt, and what was made for the task with it. Cancelling a cancelled task changes nothing; one that succeeded or failed is a conflict."
    })
  )

const retry = HttpApiEndpoint.post("retry", "/v1/tasks/:id/retry")
  .setPath(TaskPath)
  .addSuccess(taskWith(202))
  .addError(ErrorBody.NotFound)
  .addError(ErrorBody.Conflict)
  .annotateContext(
    OpenApi.annotations({
      summary: "Retry a task",
      description:
        "Queues a failed or cancelled task again, with a fresh attempt budget and, where its deadline has passed, a fresh deadline.",
      transform: describeResponses({ 202: { description: "Queued again." } })
    })
  )

const attempts = HttpApiEndpoint.get("attempts", "/v1/tasks/:id/attempts")
  .setPath(TaskPath)
  .addSuccess(AttemptList)
  .addError(ErrorBody.NotFound)
  .annotateContext(
    OpenApi.annotations({
      summary: "List a task's attempts",
      description:
        "Each call made to a platform for it: how long it took, how it ended, and in `decision` why that platform: who " +
        "could serve it, the weight of each and what it is made of, who was free and why the others were not, who could " +
        "not serve it and why, what the weights went by, how long it waited."
    })
  )

const events = HttpApiEndpoint.get("events", "/v1/tasks/:id/events")
  .setPath(TaskPath)
  .setHeaders(ResumeHeaders)
  .setUrlParams(EventParams)
  .addSuccess(EventStream)
  .addSuccess(
    HttpApiSchema.NoContent.annotations({
      description: "The task has ended and nothing came after `Last-Event-ID`: do not connect again."
    })
  )
  .addError(ErrorBody.NotFound)
  .annotateContext(
    OpenApi.annotations({
      summary: "Follow a task's events",
      description:
        "Stored events first, then live ones, as server-sent events. After a broken connection send the last `id` seen " +
        "as `Last-Event-ID`, as browsers do by themselves."
    })
  )

/** Tasks over HTTP. */
export class TasksGroup extends HttpApiGroup.make("tasks")
  .add(submit)
  .add(list)
  .add(get)
  .add(cancel)
  .add(retry)
  .add(attempts)
  .add(events)
  .addError(ErrorBody.InvalidRequest)
  .addError(ErrorBody.ServiceUnavailable)
  .middleware(Authorization)
  .annotateContext(
    OpenApi.annotations({ title: "Tasks", description: "Durable tasks: accepted once stored, carried to one result." })
  ) {}
