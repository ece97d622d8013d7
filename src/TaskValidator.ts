import { Context, type Effect } from "effect"
import type { Route } from "./AgentRouter.js"
import type { TaskRefused } from "./Domain/ApiError.js"
import type { Call } from "./Domain/Call.js"
import type { Requirement } from "./Domain/Lease.js"
import type { TaskSubmission, TaskType } from "./Domain/Task.js"

/** A submission with its defaults filled in and the call it makes. */
export interface ValidTask {
  readonly type: TaskType
  readonly call: Call
  readonly requirement: Requirement
  readonly route: Route
  /** Epoch ms. */
  readonly deadline: number
}

/** Refuses before the queue what cannot work: empty, impossible deadline, nobody capable; each with its reason. */
export class TaskValidator extends Context.Tag("dream-team/TaskValidator")<
  TaskValidator,
  {
    readonly validate: (submission: TaskSubmission) => Effect.Effect<ValidTask, TaskRefused>
  }
>() {}
