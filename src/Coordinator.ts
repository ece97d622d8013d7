import { Context, type Effect, type Option, type Stream } from "effect"
import type { Conflict, InvalidRequest, NotFound, ServiceUnavailable, TaskRefused } from "./Domain/ApiError.js"
import type { TaskEvent } from "./Domain/Event.js"
import type { PlatformId } from "./Domain/Platform.js"
import type {
  Attempt,
  Priority,
  Task,
  TaskId,
  TaskState,
  TaskSubmission,
  TaskSummary,
  TaskType,
  TenantId
} from "./Domain/Task.js"

export interface TaskFilter {
  readonly state?: TaskState | undefined
  readonly type?: TaskType | undefined
  readonly priority?: Priority | undefined
  readonly platform?: PlatformId | undefined
  /** 1 to 200, default 50. */
  readonly limit?: number | undefined
  /** `next` of the page before. */
  readonly cursor?: string | undefined
}

export interface TaskPage {
  /** Newest first. */
  readonly tasks: ReadonlyArray<TaskSummary>
  readonly next?: string | undefined
}

/** Durable tasks: accepted once committed, carried to one result, whatever happens to the process meanwhile. */
export class Coordinator extends Context.Tag("dream-team/Coordinator")<
  Coordinator,
  {
    /** `replayed`: the idempotency key was seen before with the same body, and this is that task. */
    readonly submit: (
      tenant: TenantId,
      submission: TaskSubmission,
      idempotencyKey: Option.Option<string>
    ) => Effect.Effect<{ readonly task: Task; readonly replayed: boolean }, TaskRefused | Conflict | ServiceUnavailable>
    readonly get: (tenant: TenantId, id: TaskId) => Effect.Effect<Task, NotFound | ServiceUnavailable>
    readonly list: (
      tenant: TenantId,
      filter: TaskFilter
    ) => Effect.Effect<TaskPage, InvalidRequest | ServiceUnavailable>
    /** Interrupts running work and closes its socket. A task already cancelled stays so; one that ended is a conflict. */
    readonly cancel: (tenant: TenantId, id: TaskId) => Effect.Effect<Task, NotFound | Conflict | ServiceUnavailable>
    /** Queues a failed or cancelled task again, with a fresh attempt budget and, where its deadline passed, a fresh deadline. */
    readonly retry: (tenant: TenantId, id: TaskId) => Effect.Effect<Task, NotFound | Conflict | ServiceUnavailable>
    readonly attempts: (
      tenant: TenantId,
      id: TaskId
    ) => Effect.Effect<ReadonlyArray<Attempt>, NotFound | ServiceUnavailable>
    /** Stored events after `after`, then live ones; ends with the task. */
    readonly events: (
      tenant: TenantId,
      id: TaskId,
      after: Option.Option<number>
    ) => Effect.Effect<Stream.Stream<TaskEvent, ServiceUnavailable>, NotFound | ServiceUnavailable>
  }
>() {}
