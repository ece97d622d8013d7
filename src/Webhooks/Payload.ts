import { Effect, Schema } from "effect"
import type { NotFound, ServiceUnavailable } from "../Domain/ApiError.js"
import { Job } from "../Domain/Job.js"
import { Task } from "../Domain/Task.js"
import { Instant } from "../Domain/Time.js"
import type { TaskStore } from "../TaskStore.js"
import type { DeliveryRow } from "./Rows.js"

/** A task without what its submitter has sent and what may be large; its result is whole. */
const TaskTold = Task.omit("prompt", "system", "context", "tools", "responseFormat", "callbackUrl", "webhook")
const JobTold = Job.omit("callbackUrl")

const message = <A, I>(data: Schema.Schema<A, I>) =>
  Schema.encode(Schema.parseJson(Schema.Struct({ type: Schema.String, timestamp: Instant, data })))

const taskMessage = message(TaskTold)
const jobMessage = message(JobTold)

/**
 * What is sent: `{ type, timestamp, data }`, with the task or job as it is stored now; `timestamp` is its end's.
 * Fails where it is not stored any more.
 */
export const payloadOf = (
  store: TaskStore["Type"],
  { at, job_id, task_id, tenant, type }: DeliveryRow
): Effect.Effect<string, NotFound | ServiceUnavailable> => {
  if (task_id !== null) {
    return Effect.flatMap(store.get(tenant, task_id), (data) =>
      Effect.orDie(taskMessage({ type, timestamp: at, data }))
    )
  }
  return job_id === null
    ? Effect.dieMessage("a delivery of nothing")
    : Effect.flatMap(store.jobs.get(tenant, job_id), (data) => Effect.orDie(jobMessage({ type, timestamp: at, data })))
}
