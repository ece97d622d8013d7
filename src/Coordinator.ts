import type { SqlError } from "@effect/sql/SqlError"
import { Context, Effect, Layer, Option, Stream } from "effect"
import { Budgets } from "./Budgets.js"
import { makeAlternatives } from "./Coordinator/Alternatives.js"
import { makeCrew } from "./Coordinator/Crew.js"
import { encodeCursor, pageOf } from "./Coordinator/Cursor.js"
import { makeTaskIds } from "./Coordinator/Ids.js"
import { deadlineProblems, dependencyProblems, type Jobs, makeJobs, refuseTask } from "./Coordinator/Jobs.js"
import { idempotencyOf } from "./Coordinator/RequestHash.js"
import { roomOf } from "./Coordinator/Room.js"
import { makeShapeCheck } from "./Coordinator/shape.js"
import { wakeOn } from "./Coordinator/wakeOn.js"
import { Delegation } from "./Delegation.js"
import {
  type Conflict,
  type InvalidRequest,
  type NotFound,
  type RateLimited,
  ServiceUnavailable,
  TaskRefused
} from "./Domain/ApiError.js"
import type { TaskEvent } from "./Domain/Event.js"
import type { PlatformId } from "./Domain/Platform.js"
import {
  type Attempt,
  type Priority,
  type Task,
  type TaskId,
  type TaskPreview,
  type TaskState,
  TaskSubmission,
  type TaskSummary,
  type TaskType,
  type TenantId
} from "./Domain/Task.js"
import { epochMs } from "./Domain/Time.js"
import { Events } from "./Events.js"
import { PlatformDetector } from "./PlatformDetector.js"
import { Settings } from "./Settings.js"
import { Arrivals } from "./Sql/Writer.js"
import { TaskStore } from "./TaskStore.js"
import { TaskValidator } from "./TaskValidator.js"
import { traced } from "./Telemetry/traced.js"

export type { JobFilter, JobPage, Jobs } from "./Coordinator/Jobs.js"

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
    ) => Effect.Effect<
      { readonly task: Task; readonly replayed: boolean },
      TaskRefused | RateLimited | Conflict | ServiceUnavailable
    >
    /** What would become of a submission. Fails where the submission itself would; stores nothing. */
    readonly preview: (
      tenant: TenantId,
      submission: TaskSubmission
    ) => Effect.Effect<TaskPreview, TaskRefused | RateLimited | ServiceUnavailable>
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
    /** Stored events after `after`, then live ones; ends with the task. Refuses an `after` that no event ever had. */
    readonly events: (
      tenant: TenantId,
      id: TaskId,
      after: Option.Option<number>
    ) => Effect.Effect<Stream.Stream<TaskEvent, ServiceUnavailable>, InvalidRequest | NotFound | ServiceUnavailable>
    readonly jobs: Jobs
    /** Looks again, now, at the tasks that wait for a platform: its limits were changed, say. */
    readonly wake: (platform: PlatformId) => Effect.Effect<void, ServiceUnavailable>
  }
>() {
  /** Takes up again, at once, whatever earlier processes left unfinished on the same database. */
  static readonly layer: Layer.Layer<
    Coordinator,
    ServiceUnavailable,
    Budgets | Delegation | Events | PlatformDetector | Settings | TaskStore | TaskValidator
  > = Layer.scoped(
    Coordinator,
    Effect.suspend(() => make)
  )
}

/** What a program submits has been decoded by nobody. */
const checkShape = makeShapeCheck(TaskSubmission)

const make = Effect.gen(function* () {
  const budgets = yield* Budgets
  const delegation = yield* Delegation
  const detector = yield* PlatformDetector
  const events = yield* Events
  const settings = yield* Settings
  const store = yield* TaskStore
  const validator = yield* TaskValidator
  const nextId = yield* makeTaskIds
  const turn = yield* Arrivals
  const alternatives = makeAlternatives({ settings: settings.alternatives, store, validator, nextId })
  const crew = yield* makeCrew({
    alternatives,
    store,
    delegation,
    budgets,
    parkAfterMs: settings.tasks.parkAfterMs,
    livePerClass: settings.tasks.livePerClass,
    graceMs: settings.shutdownGraceMs
  })

  /** A platform that is back ends the wait of the tasks it can serve. */
  const wake = (platform: PlatformId) =>
    Effect.uninterruptible(
      Effect.gen(function* () {
        const able = (yield* store.classes).filter(({ candidates }) => candidates.includes(platform))
        yield* Effect.forEach(able, ({ id }) => crew.wake(id), { discard: true })
      })
    )

  const back = detector.changes.pipe(
    Stream.filter(({ status }) => status === "available" || status === "degraded"),
    Stream.map(({ platform }) => platform)
  )
  yield* wakeOn(back, wake, "Waiting tasks could not be woken")

  /** What the database did not answer may be stored all the same. */
  const doubted = ({ _tag }: { readonly _tag: string }) =>
    _tag === "ServiceUnavailable" ? Effect.sync(crew.doubt) : Effect.void

  const checkDependencies = (tenant: TenantId, { dependsOn = [] }: TaskSubmission) =>
    dependsOn.length === 0
      ? Effect.void
      : Effect.flatMap(store.states(tenant, dependsOn), (states) => {
          const problems = dependencyProblems(states, dependsOn, true)
          return problems.length === 0 ? Effect.void : refuseTask(problems)
        })

  const submit = Effect.fnUntraced(function* (
    tenant: TenantId,
    submission: TaskSubmission,
    idempotencyKey: Option.Option<string>
  ) {
    if (crew.stopping()) return yield* new ServiceUnavailable({ message: "The service is shutting down" })
    yield* checkShape(submission)
    const idempotency = yield* idempotencyOf(idempotencyKey, submission)
    // Asked before the validator: what was accepted once is given back whatever has changed since.
    const earlier = Option.isSome(idempotency) ? yield* store.replay(tenant, idempotency.value) : Option.none()
    if (Option.isSome(earlier)) return { task: earlier.value, replayed: true }

    yield* checkDependencies(tenant, submission)
    const valid = yield* validator.validate(submission, tenant)
    const { call, deadline, priority, requirement, route, type } = valid
    const candidates = new Set(route.candidates.map(({ platform }) => platform))
    const { id: classId } = yield* store.classOf([...candidates], priority)
    const late = deadlineProblems(deadline, yield* epochMs)
    if (late.length > 0) return yield* refuseTask(late)
    const id = yield* nextId
    const roomTokens = submission.dependsOn === undefined ? undefined : roomOf(valid, settings.platforms)
    const request = { call, requirement, roomTokens }
    const accept = store.insert({
      id,
      tenant,
      classId,
      type,
      priority,
      submission,
      request,
      deadline,
      idempotency,
      verdict: valid.verdict
    })
    return yield* Effect.uninterruptible(
      Effect.map(Effect.tapError(accept, doubted), (accepted) => {
        if (!accepted.replayed) {
          crew.due(deadline)
          crew.queued([classId])
        }
        return accepted
      })
    )
  }, traced("Coordinator.submit"))

  const preview = Effect.fn("Coordinator.preview")(function* (tenant: TenantId, submission: TaskSubmission) {
    if (crew.stopping()) return yield* new ServiceUnavailable({ message: "The service is shutting down" })
    yield* checkShape(submission)
    yield* checkDependencies(tenant, submission)
    const { call, deadline, priority, requirement, type, verdict } = yield* validator.validate(submission, tenant)
    const late = deadlineProblems(deadline, yield* epochMs)
    if (late.length > 0) return yield* refuseTask(late)
    const previewed = yield* Effect.catchTag(
      delegation.preview({ call, deadline, priority, requirement, tenant, type }),
      "NoCapablePlatform",
      ({ message, reasons }) => new TaskRefused({ message, problems: [], reasons })
    )
    return { accepted: true, type, priority, deadline, ...previewed, validation: verdict } satisfies TaskPreview
  })

  const list = Effect.fn("Coordinator.list")(function* (tenant: TenantId, filter: TaskFilter) {
    const { from, limit } = yield* pageOf(filter)
    const page = yield* store.list(tenant, {
      state: filter.state,
      type: filter.type,
      priority: filter.priority,
      platform: filter.platform,
      limit,
      before: Option.getOrUndefined(from)
    })
    return { tasks: page.tasks, next: Option.getOrUndefined(Option.map(page.next, encodeCursor)) }
  })

  const cancel = Effect.fn("Coordinator.cancel")(function* (tenant: TenantId, id: TaskId) {
    // Whoever asked may go away, but what the store says cancelled must not work on.
    const { task } = yield* Effect.uninterruptible(
      Effect.tap(store.cancel(tenant, id), ({ changed }) => (changed ? crew.drop(id) : Effect.void))
    )
    return task
  })

  const retry = Effect.fn("Coordinator.retry")(function* (tenant: TenantId, id: TaskId) {
    const { task } = yield* Effect.uninterruptible(
      // Others may be open again with it, each with a deadline of its own.
      Effect.tap(Effect.tapError(store.retry(tenant, id), doubted), ({ classId, task }) =>
        Effect.sync(() => {
          crew.due(task.updatedAt)
          crew.queued([classId])
        })
      )
    )
    return task
  })

  const streamEvents = Effect.fn("Coordinator.events")(function* (
    tenant: TenantId,
    id: TaskId,
    after: Option.Option<number>
  ) {
    yield* store.check(tenant, id)
    const unread = (error: SqlError) =>
      Effect.zipRight(
        Effect.logError("The events of a task could not be read", error),
        new ServiceUnavailable({ message: "The task database does not answer" })
      )
    const from = Option.getOrElse(after, () => 0)
    const stream = yield* Effect.catchTag(events.stream(id, from), "SqlError", unread)
    return Stream.catchAll(stream, unread)
  })

  return Coordinator.of({
    submit,
    preview,
    get: store.get,
    list,
    cancel,
    retry,
    attempts: store.attempts,
    events: streamEvents,
    jobs: makeJobs({ store, validator, settings, crew, nextId, turn }),
    wake
  })
})
