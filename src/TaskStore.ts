import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Array as Arr, Context, Effect, Layer, Option, Schema, type Stream } from "effect"
import { Conflict, NotFound, ServiceUnavailable } from "./Domain/ApiError.js"
import type { Booking } from "./Domain/Budget.js"
import type { TaskEventBody } from "./Domain/Event.js"
import { type FailureView, spendsAttempt } from "./Domain/Failure.js"
import { PlatformId } from "./Domain/Platform.js"
import {
  type Attempt,
  type Decision,
  isTerminal,
  type JobId,
  type Priority,
  type Task,
  type TaskError,
  TaskId,
  type TaskResult,
  type TaskState,
  type TaskSubmission,
  type TaskSummary,
  type TaskType,
  type TenantId,
  type Verdict
} from "./Domain/Task.js"
import { epochMs } from "./Domain/Time.js"
import type { Usage } from "./Domain/Usage.js"
import { Events, type TaskBelonging } from "./Events.js"
import { Settings } from "./Settings.js"
import { changedRows } from "./Sql/changes.js"
import { Arrivals, SqlWriter, type Steps, unavailable } from "./Sql/Writer.js"
import {
  batch,
  blockedWhy,
  chunksOf,
  type Edge,
  type EndEvent,
  type EndedTask,
  type JobEndEvent,
  makeConsequences,
  settledAtOnce
} from "./TaskStore/Consequences.js"
import { webhookOf } from "./TaskStore/Deliveries.js"
import { makeWithInputs } from "./TaskStore/Inputs.js"
import { type JobStore, makeJobs, type Write } from "./TaskStore/Jobs.js"
import { type Idempotency, makeKeys } from "./TaskStore/Keys.js"
import {
  type Branch,
  type Child,
  decodeLadder,
  type Ladder,
  makeOutcomes,
  type PartialAnswer
} from "./TaskStore/Outcomes.js"
import {
  type AttemptRow,
  attemptOf,
  decodeRequest,
  firstOf,
  previewOf,
  priorityOf,
  type Read,
  rankOf,
  type StoredRequest,
  type SummaryRow,
  shownOf,
  storable,
  summaryColumns,
  summaryOf,
  type TaskRow,
  taskColumns,
  taskOf
} from "./TaskStore/Rows.js"
import { book, budgetColumns, spentBy } from "./TaskStore/Spending.js"
import { traced } from "./Telemetry/traced.js"

/** Another owner has the task now, or it has ended: what was to be written is void, and the writer has to stop. */
export class OwnershipLost extends Schema.TaggedError<OwnershipLost>()("OwnershipLost", { id: TaskId }) {}

/** Tasks that the same platforms can serve at the same priority: they wait for each other and for nobody else. */
export interface TaskClass {
  readonly id: number
  readonly candidates: ReadonlyArray<PlatformId>
  readonly priority: Priority
}

/** A task as it is accepted. */
export interface NewTask {
  readonly id: TaskId
  readonly tenant: TenantId
  readonly classId: number
  readonly type: TaskType
  readonly priority: Priority
  readonly submission: TaskSubmission
  readonly request: StoredRequest
  /** Epoch ms. */
  readonly deadline: number
  readonly idempotency: Option.Option<Idempotency>
  /** What a model found of it, where one was asked. */
  readonly verdict?: Verdict | undefined
}

/** Proof of owning a task. It is void as soon as the task is claimed again, parked, released, cancelled or ended. */
export interface TaskClaim {
  readonly id: TaskId
  /** Grows with every claim of the task. */
  readonly number: number
}

/** A task as its new owner gets it. */
export interface ClaimedTask extends TaskClaim {
  readonly tenant: TenantId
  readonly type: TaskType
  readonly priority: Priority
  /** Epoch ms. */
  readonly deadline: number
  /** Attempts started by earlier owners. */
  readonly attempts: number
  /** Of those, the ones that count against the budget. */
  readonly attemptsSpent: number
  readonly jobId: JobId | undefined
  /** Whether it has a budget, or may use that of its job or of a task it was made for. */
  readonly hasBudget: boolean
  /** The task that it was made for. */
  readonly parentId: TaskId | undefined
  /** How often its alternatives were begun before the last retry. */
  readonly rounds: number
  /** Set where it goes on with its alternatives. Dies where the stored text cannot be read any more. */
  readonly ladder: Effect.Effect<Option.Option<Ladder>>
  /** With the results of the tasks it waited for. Dies where the stored text cannot be read any more. */
  readonly request: Effect.Effect<StoredRequest, ServiceUnavailable>
}

export interface AttemptStart {
  readonly number: number
  readonly platform: PlatformId
  readonly model: string
  readonly decision: Decision
  /** What it may use at most. */
  readonly booking?: Booking | undefined
}

export interface AttemptEnd {
  readonly number: number
  readonly platform: PlatformId
  readonly model: string
  readonly durationMs: number
  readonly timeToFirstTokenMs?: number | undefined
  /** What makes of its booking what it really used. Without it, it counts as what it may have used at most. */
  readonly correction?: Booking | undefined
  readonly outcome:
    | { readonly _tag: "Succeeded"; readonly usage: Usage; readonly costUsd?: number | undefined }
    | { readonly _tag: "Failed"; readonly failure: FailureView }
    /** Cut by our own shutdown. */
    | { readonly _tag: "Interrupted" }
    /** Cut by a cancel, the task's deadline, or the faster answer of another attempt. */
    | { readonly _tag: "Ignored" }
  /** The text that had come when it broke off, where it is to be kept. */
  readonly partial?: string | undefined
}

export type TaskEnd =
  | {
      readonly _tag: "Succeeded"
      readonly attempt: Option.Option<AttemptEnd>
      /** Attempts that ended because that one was faster. */
      readonly others?: ReadonlyArray<AttemptEnd> | undefined
      readonly result: TaskResult
      /** Whether incomplete answers may have been kept, of the task and of those made for it: nobody needs them now. */
      readonly hadPartials?: boolean | undefined
    }
  | {
      readonly _tag: "Failed"
      readonly error: TaskError
      /** Whether a person should look. */
      readonly attention?: boolean | undefined
      readonly hadPartials?: boolean | undefined
    }

export interface ListQuery {
  readonly state?: TaskState | undefined
  readonly type?: TaskType | undefined
  readonly priority?: Priority | undefined
  readonly platform?: PlatformId | undefined
  /** Only tasks older than this one's `seq`. */
  readonly before?: number | undefined
  readonly limit: number
}

const outcomeColumns = {
  Succeeded: "succeeded",
  Failed: "failed",
  Interrupted: "interrupted",
  Ignored: "ignored"
} as const
const justQueued = [{ type: "task.queued" }] as const
/** What callers are told of rows that do not say what they should; the log has the cause. */
const unreadable = new ServiceUnavailable({
  message: "What is stored of it cannot be read by this version of the service; its log says why."
})

const noKey = { key: null, hash: null }

/** Of a queued task, what its owner is to know. */
interface ClaimRow {
  readonly seq: number
  readonly id: TaskId
  readonly tenant: TenantId
  readonly type: TaskType
  readonly priority: number
  readonly deadline: number
  readonly attempts: number
  readonly attempts_spent: number
  readonly claims: number
  readonly request: string
  readonly job_id: JobId | null
  readonly position: number | null
  readonly depends: number
  readonly chained: number
  readonly parent_id: TaskId | null
  readonly ladder: string | null
  readonly ladder_round: number
  readonly max_nano_usd: number | null
  readonly max_tokens: number | null
}

/** An owner that dies this often during a task's attempts is killed by the task. */
const maxOwnerDeaths = 3
/** Attempts shown of one task. */
const maxAttemptsShown = 1000

/**
 * Tasks, their journal and who owns them, in SQL. Whatever is answered is on disk; every write of an owner holds only
 * while the task is still its own, and what belongs together is one transaction.
 */
export class TaskStore extends Context.Tag("dream-team/TaskStore")<
  TaskStore,
  {
    /** Grows with every start on the same database. */
    readonly epoch: number
    readonly classes: Effect.Effect<ReadonlyArray<TaskClass>, ServiceUnavailable>
    readonly classOf: (
      candidates: ReadonlyArray<PlatformId>,
      priority: Priority
    ) => Effect.Effect<TaskClass, ServiceUnavailable>
    /** The task a tenant submitted under a key; another request under the same key is a conflict. */
    readonly replay: (
      tenant: TenantId,
      idempotency: Idempotency
    ) => Effect.Effect<Option.Option<Task>, Conflict | ServiceUnavailable>
    readonly insert: (
      task: NewTask
    ) => Effect.Effect<{ readonly task: Task; readonly replayed: boolean }, Conflict | ServiceUnavailable>
    readonly get: (tenant: TenantId, id: TaskId) => Effect.Effect<Task, NotFound | ServiceUnavailable>
    /** Fails where the tenant has no such task. */
    readonly check: (tenant: TenantId, id: TaskId) => Effect.Effect<void, NotFound | ServiceUnavailable>
    /** Newest first; `next` is the `before` of the page that follows. */
    readonly list: (
      tenant: TenantId,
      query: ListQuery
    ) => Effect.Effect<
      { readonly tasks: ReadonlyArray<TaskSummary>; readonly next: Option.Option<number> },
      ServiceUnavailable
    >
    readonly attempts: (
      tenant: TenantId,
      id: TaskId
    ) => Effect.Effect<ReadonlyArray<Attempt>, NotFound | ServiceUnavailable>
    /** Takes the oldest queued tasks of a class. */
    readonly claim: (classId: number, limit: number) => Effect.Effect<ReadonlyArray<ClaimedTask>, ServiceUnavailable>
    readonly attemptStarted: (
      claim: TaskClaim,
      attempt: AttemptStart
    ) => Effect.Effect<void, OwnershipLost | ServiceUnavailable>
    readonly attemptEnded: (
      claim: TaskClaim,
      attempt: AttemptEnd
    ) => Effect.Effect<void, OwnershipLost | ServiceUnavailable>
    /** Ends the task, with its last attempt and the events of both, in one transaction. */
    readonly finish: (claim: TaskClaim, end: TaskEnd) => Effect.Effect<void, OwnershipLost | ServiceUnavailable>
    /** Lets the task wait for tasks made for it, in the transaction that makes them: no step is made twice. */
    readonly branch: (claim: TaskClaim, branch: Branch) => Effect.Effect<void, OwnershipLost | ServiceUnavailable>
    /** The tasks made for a task in one round, oldest first. */
    readonly children: (parent: TaskId, round: number) => Effect.Effect<ReadonlyArray<Child>, ServiceUnavailable>
    /** Where the attempts of these tasks went. */
    readonly tried: (
      ids: ReadonlyArray<TaskId>
    ) => Effect.Effect<ReadonlyArray<{ readonly platform: PlatformId; readonly model: string }>, ServiceUnavailable>
    /** The longest incomplete answer of these tasks. */
    readonly bestPartial: (
      ids: ReadonlyArray<TaskId>
    ) => Effect.Effect<Option.Option<PartialAnswer>, ServiceUnavailable>
    /** Gives the task back until `until` (epoch ms). */
    readonly park: (
      claim: TaskClaim,
      until: number,
      why: string
    ) => Effect.Effect<void, OwnershipLost | ServiceUnavailable>
    /** Gives the task back to its queue; an attempt still running is written down as interrupted. */
    readonly release: (claim: TaskClaim) => Effect.Effect<void, OwnershipLost | ServiceUnavailable>
    /** An attempt still running is written down as ignored. `changed` is false where the task was cancelled already. */
    readonly cancel: (
      tenant: TenantId,
      id: TaskId
    ) => Effect.Effect<{ readonly task: Task; readonly changed: boolean }, NotFound | Conflict | ServiceUnavailable>
    /** Back to the queue with a fresh attempt budget; a deadline that passed starts anew with its former length. */
    readonly retry: (
      tenant: TenantId,
      id: TaskId
    ) => Effect.Effect<{ readonly task: Task; readonly classId: number }, NotFound | Conflict | ServiceUnavailable>
    /**
     * Takes back what earlier owners left: running attempts become interrupted, their tasks and all that wait are queued
     * again, and a task whose attempts its owners did not survive for the third time fails.
     */
    readonly recover: Effect.Effect<void, ServiceUnavailable>
    /** Queues the waiting tasks whose time has come; answers with their classes. */
    readonly wakeDue: Effect.Effect<ReadonlyArray<number>, ServiceUnavailable>
    /** Queues the waiting tasks of a class; false where there were none. */
    readonly wakeClass: (classId: number) => Effect.Effect<boolean, ServiceUnavailable>
    /** Fails the tasks whose deadline passed while nobody worked on them. */
    readonly expire: Effect.Effect<void, ServiceUnavailable>
    /** The states of those of a tenant's tasks that are there. */
    readonly states: (
      tenant: TenantId,
      ids: ReadonlyArray<TaskId>
    ) => Effect.Effect<ReadonlyMap<TaskId, TaskState>, ServiceUnavailable>
    readonly jobs: JobStore
    /** Classes that got queued tasks by writes of the store's own accord: dependants released, turns given. For one reader. */
    readonly queued: Stream.Stream<number>
    /** Tasks that were ended in the store while this process works on them. For one reader. */
    readonly dropped: Stream.Stream<TaskId>
    /** The next instant (epoch ms) at which `wakeDue` or `expire` has something to do. */
    readonly nextInstant: Effect.Effect<Option.Option<number>, ServiceUnavailable>
  }
>() {
  static readonly layer: Layer.Layer<
    TaskStore,
    ServiceUnavailable,
    Events | Settings | SqlClient.SqlClient | SqlWriter
  > = Layer.scoped(
    TaskStore,
    Effect.suspend(() => make)
  )
}

const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const events = yield* Events

  const { retention } = yield* Settings
  const writer = yield* SqlWriter

  const read: Read = (query) =>
    query.pipe(
      Effect.tapError((error) => Effect.logError("The task database could not be read", error)),
      Effect.mapError(({ _tag }) => (_tag === "ParseError" ? unreadable : unavailable))
    )

  const write: Write = (operation) =>
    Effect.clockWith((clock) => writer.write(operation(clock.unsafeCurrentTimeMillis())))

  const epoch = yield* write(
    (now) => sql<{ readonly epoch: number }>`INSERT INTO epochs (started_at) VALUES (${now}) RETURNING epoch`
  ).pipe(Effect.flatMap(([row]) => (row === undefined ? Effect.die("no epoch was given") : Effect.succeed(row.epoch))))

  function* changeIfOwned(
    claim: TaskClaim,
    now: number,
    change: (task: EndedTask, now: number) => Steps<unknown>
  ): Steps<boolean> {
    // Nobody else writes meanwhile, and to look first costs SQLite much less than to return what was changed.
    const [task] = yield* sql<EndedTask>`
      SELECT id, tenant, job_id, awaited, children FROM tasks
      WHERE id = ${claim.id} AND claims = ${claim.number} AND claim_epoch = ${epoch} AND state IN ('queued', 'running')`
    if (task === undefined) return false
    yield* change(task, now)
    return true
  }

  /** Changes a task as its owner, and does nothing where it is not its own any more. */
  const owning = (
    claim: TaskClaim,
    change: (task: EndedTask, now: number) => Steps<unknown>
  ): Effect.Effect<void, OwnershipLost | ServiceUnavailable> =>
    Effect.flatMap(
      writer.writeSteps((now) => changeIfOwned(claim, now, change)),
      (owned) => (owned ? Effect.void : new OwnershipLost({ id: claim.id }))
    )

  /** Ends whatever attempts of a task are still running; answers with their events. */
  const cutAttempts = (
    id: TaskId,
    now: number,
    outcome: "interrupted" | "ignored"
  ): Effect.Effect<ReadonlyArray<TaskEventBody>, SqlError> =>
    Effect.map(
      sql<{ readonly number: number; readonly platform: PlatformId; readonly model: string }>`
        UPDATE attempts SET outcome = ${outcome}, ended_at = ${now} WHERE task_id = ${id} AND outcome = 'running'
        RETURNING number, platform, model`,
      (rows) => rows.map((row): TaskEventBody => ({ type: `attempt.${outcome}`, ...row }))
    )

  /** Writes down how an attempt ended, where it was still running; answers with its event. */
  function* endAttempt(id: TaskId, now: number, attempt: AttemptEnd): Steps<ReadonlyArray<TaskEventBody>> {
    const { correction, durationMs, model, number, outcome, platform, timeToFirstTokenMs } = attempt
    const column = outcomeColumns[outcome._tag]
    const ended = yield* sql`
      UPDATE attempts SET
        outcome = ${column},
        ended_at = ${now},
        duration_ms = ${durationMs},
        time_to_first_token_ms = ${timeToFirstTokenMs ?? null},
        failure = ${outcome._tag === "Failed" ? JSON.stringify(outcome.failure) : null},
        usage = ${outcome._tag === "Succeeded" ? JSON.stringify(outcome.usage) : null},
        cost_usd = ${outcome._tag === "Succeeded" ? (outcome.costUsd ?? null) : null}
      WHERE task_id = ${id} AND number = ${number} AND outcome = 'running'`.raw
    if (changedRows(ended) === 0) return []
    if (correction !== undefined) yield* book(sql, correction)
    const event: TaskEventBody =
      outcome._tag === "Failed"
        ? { type: "attempt.failed", number, platform, model, failure: outcome.failure }
        : { type: `attempt.${outcomeColumns[outcome._tag]}`, number, platform, model }
    return [event]
  }

  /** What belongs to the end of a task, whoever brings it about: part of the write that ends it. */
  function* ended(task: EndedTask, at: number, attempts: ReadonlyArray<TaskEventBody>, end: EndEvent): Steps<void> {
    yield* events.appendOf(task, at, [...attempts, end])
    yield* consequences.ofTask(task, at, end)
  }

  /** The same where the task's owner did not bring it about, and so does not say whether there are incomplete answers. */
  function* endedByOthers(
    task: EndedTask,
    at: number,
    attempts: ReadonlyArray<TaskEventBody>,
    end: EndEvent
  ): Steps<void> {
    yield* outcomes.forgetPartials(task.id)
    yield* ended(task, at, attempts, end)
  }

  /** What belongs to the end of a job: part of the write that ends its last task. */
  const jobEnded = (id: JobId, tenant: TenantId, at: number, end: JobEndEvent): Effect.Effect<void, SqlError> =>
    events.appendJob(id, tenant, at, [end])

  const consequences = yield* makeConsequences({
    appendTask: events.appendOf,
    appendJob: events.appendJob,
    cutAttempts: (id, at) => cutAttempts(id, at, "ignored"),
    ended: endedByOthers,
    jobEnded
  })
  const withInputs = makeWithInputs(sql, yield* Arrivals)
  const outcomes = makeOutcomes(sql, { record: events.appendOf, addEdges: consequences.addEdges })

  const taskRow = (tenant: TenantId, id: TaskId) =>
    Effect.map(
      sql<TaskRow>`SELECT ${sql.literal(taskColumns)} FROM tasks WHERE id = ${id} AND tenant = ${tenant}`,
      firstOf
    )

  const check = (tenant: TenantId, id: TaskId) =>
    Effect.flatMap(read(sql`SELECT 1 FROM tasks WHERE id = ${id} AND tenant = ${tenant}`), (rows) =>
      rows.length === 0 ? notFound(id) : Effect.void
    )

  const keys = makeKeys<TaskRow, Task>(sql, {
    table: "tasks",
    columns: taskColumns,
    keptMs: retention.keysMs,
    read,
    valueOf: taskOf
  })

  /** The task that a key stands for, inside a write; taken from one that it no longer stands for. */
  function* holderOf(tenant: TenantId, key: string, now: number): Steps<TaskRow | undefined> {
    const [row] = yield* sql<{ readonly seq: number; readonly created_at: number }>`
      SELECT seq, created_at FROM tasks WHERE tenant = ${tenant} AND idempotency_key = ${key}`
    if (row === undefined) return undefined
    if (row.created_at > now - retention.keysMs) {
      return (yield* sql<TaskRow>`SELECT ${sql.literal(taskColumns)} FROM tasks WHERE seq = ${row.seq}`)[0]
    }
    yield* sql`UPDATE tasks SET idempotency_key = NULL, request_hash = NULL WHERE seq = ${row.seq}`
    return undefined
  }

  const notFound = (id: TaskId) => new NotFound({ message: `There is no task ${id}` })

  const found = <A>(id: TaskId, row: Option.Option<A>): Effect.Effect<A, NotFound> =>
    Option.match(row, { onNone: () => notFound(id), onSome: Effect.succeed })

  const knownClasses = new Map<string, TaskClass>()

  const classOf = (candidates: ReadonlyArray<PlatformId>, priority: Priority) => {
    const sorted = [...candidates].sort()
    const names = sorted.join(",")
    const key = `${priority}:${names}`
    const known = knownClasses.get(key)
    if (known !== undefined) return Effect.succeed(known)
    return write(() =>
      Effect.zipRight(
        sql`INSERT INTO classes (candidates, priority) VALUES (${names}, ${rankOf(priority)}) ON CONFLICT DO NOTHING`,
        sql<{ readonly id: number }>`
          SELECT id FROM classes WHERE candidates = ${names} AND priority = ${rankOf(priority)}`
      )
    ).pipe(
      Effect.flatMap(([row]) => (row === undefined ? Effect.die("no class was made") : Effect.succeed(row.id))),
      Effect.map((id) => {
        const made: TaskClass = { id, candidates: sorted, priority }
        knownClasses.set(key, made)
        return made
      })
    )
  }

  /** What a new task waits for, in the write that stores it. */
  function* block(task: TaskBelonging, now: number, until: number, edges: ReadonlyArray<Edge>): Steps<void> {
    yield* events.appendOf(task, now, [{ type: "task.waiting", until, why: blockedWhy(edges.length) }])
    yield* consequences.addEdges(edges)
    yield* consequences.await(edges.map((edge) => edge.dependsOn))
    yield* consequences.settle(now)
  }

  /** Stores a new task, or answers with the one that has its key: a moment later it may have it no more. */
  function* store(
    { classId, id, idempotency, priority, request, submission, tenant, type, verdict }: NewTask,
    now: number,
    deadline: number,
    edges: ReadonlyArray<Edge>
  ): Steps<TaskRow | undefined> {
    const { key, hash } = Option.getOrElse(idempotency, () => noKey)
    const holder = key === null ? undefined : yield* holderOf(tenant, key, now)
    if (holder !== undefined) return holder
    const isBlocked = edges.length > 0
    const { max_nano_usd, max_tokens } = budgetColumns(submission)
    yield* sql`
      INSERT INTO tasks (id, tenant, class_id, type, priority, state, idempotency_key, request_hash, preview,
        submission, request, deadline, allowed_ms, created_at, updated_at, wake_at, waiting_why, blocked_by, depends,
        callback_url, max_nano_usd, max_tokens, validation)
      VALUES (${id}, ${tenant}, ${classId}, ${type}, ${rankOf(priority)}, ${isBlocked ? "waiting" : "queued"}, ${key},
        ${hash}, ${previewOf(submission.prompt)}, ${JSON.stringify(submission)}, ${JSON.stringify(request)},
        ${deadline}, ${deadline - now}, ${now}, ${now}, ${isBlocked ? deadline : null},
        ${isBlocked ? blockedWhy(edges.length) : null}, ${edges.length}, ${isBlocked ? 1 : 0},
        ${submission.callbackUrl ?? null}, ${max_nano_usd}, ${max_tokens},
        ${verdict === undefined ? null : JSON.stringify(verdict)})`
    const own = { id, tenant, job_id: null }
    if (verdict !== undefined) yield* events.appendOf(own, now, [{ type: "task.validated", verdict }])
    yield* isBlocked ? block(own, now, deadline, edges) : events.appendOf(own, now, justQueued)
    return undefined
  }

  const insert = Effect.fnUntraced(function* (task: NewTask) {
    const { idempotency, submission } = task
    const now = yield* epochMs
    const deadline = Math.round(task.deadline)
    const edges = Arr.dedupe(submission.dependsOn ?? []).map(
      (dependsOn): Edge => ({ task: task.id, dependsOn, onFailure: "skip" })
    )
    const isBlocked = edges.length > 0
    const holder = yield* writer.writeSteps(() => store(task, now, deadline, edges))
    if (holder !== undefined) {
      const { hash } = Option.getOrElse(idempotency, () => noKey)
      return { task: yield* keys.sameRequest(holder, hash ?? ""), replayed: true }
    }
    if (isBlocked) {
      // What it waits for may have ended with the very write.
      const row = yield* found(task.id, yield* read(taskRow(task.tenant, task.id))).pipe(
        Effect.catchTag("NotFound", Effect.die)
      )
      return { task: yield* read(taskOf(row)), replayed: false }
    }
    const made: Task = {
      id: task.id,
      tenant: task.tenant,
      type: task.type,
      priority: task.priority,
      state: "queued",
      attempts: 0,
      createdAt: now,
      updatedAt: now,
      deadline,
      ...shownOf(submission),
      validation: task.verdict
    }
    return { task: made, replayed: false }
  }, traced("TaskStore.insert"))

  const list = Effect.fn("TaskStore.list")(function* (tenant: TenantId, query: ListQuery) {
    const conditions = [
      sql`tenant = ${tenant}`,
      sql`(job_id IS NULL OR job_id NOT IN (SELECT id FROM jobs WHERE state = 'accepting'))`,
      ...(query.state === undefined ? [] : [sql`state = ${query.state}`]),
      ...(query.type === undefined ? [] : [sql`type = ${query.type}`]),
      ...(query.priority === undefined ? [] : [sql`priority = ${rankOf(query.priority)}`]),
      ...(query.platform === undefined ? [] : [sql`platform = ${query.platform}`]),
      ...(query.before === undefined ? [] : [sql`seq < ${query.before}`])
    ]
    return yield* read(
      Effect.gen(function* () {
        const rows = yield* sql<SummaryRow>`
          SELECT ${sql.literal(summaryColumns)} FROM tasks WHERE ${sql.and(conditions)}
          ORDER BY seq DESC LIMIT ${query.limit + 1}`
        const shown = rows.slice(0, query.limit)
        const next = rows.length > query.limit ? Option.fromNullable(shown.at(-1)?.seq) : Option.none()
        return { tasks: yield* Effect.forEach(shown, summaryOf), next }
      })
    )
  })

  const claim = (classId: number, limit: number) =>
    Effect.map(
      writer.writeSteps(() => take(classId, limit)),
      (rows) => rows.map(claimedOf)
    )

  /** Makes this process the owner of the oldest queued tasks of a class; answers with their rows as they were before. */
  function* take(classId: number, limit: number): Steps<ReadonlyArray<ClaimRow>> {
    // Looked at first, because it costs SQLite more to return what was changed.
    const rows = yield* sql<ClaimRow>`
      SELECT seq, id, tenant, type, priority, deadline, attempts, attempts_spent, claims, request, job_id, position,
        depends, chained, parent_id, ladder, ladder_round, max_nano_usd, max_tokens
      FROM tasks WHERE class_id = ${classId} AND state = 'queued' AND claim_epoch IS NULL ORDER BY seq LIMIT ${limit}`
    const last = rows.at(-1)
    if (last === undefined) return rows
    yield* sql`
      UPDATE tasks SET claim_epoch = ${epoch}, claims = claims + 1
      WHERE class_id = ${classId} AND state = 'queued' AND claim_epoch IS NULL AND seq <= ${last.seq}`
    return rows
  }

  const claimedOf = (row: ClaimRow): ClaimedTask => ({
    id: row.id,
    number: row.claims + 1,
    tenant: row.tenant,
    type: row.type,
    priority: priorityOf(row.priority),
    deadline: row.deadline,
    attempts: row.attempts,
    attemptsSpent: row.attempts_spent,
    jobId: row.job_id ?? undefined,
    parentId: row.parent_id ?? undefined,
    rounds: row.ladder_round,
    ladder: row.ladder === null ? Effect.succeedNone : Effect.asSome(Effect.orDie(decodeLadder(row.ladder))),
    hasBudget: row.max_nano_usd !== null || row.max_tokens !== null || row.job_id !== null || row.parent_id !== null,
    request: Effect.suspend(() => {
      const own = Effect.orDie(decodeRequest(row.request))
      if (row.depends === 0 && row.chained === 0) return own
      const depends = row.depends === 1
      const dependant = { id: row.id, jobId: row.job_id, position: row.position, depends, chained: row.chained === 1 }
      return Effect.flatMap(own, (request) => read(withInputs(dependant, request)))
    })
  })

  function* startAttempt(task: EndedTask, now: number, attempt: AttemptStart): Steps<void> {
    const { booking, decision, model, number, platform } = attempt
    const spent = spentBy([booking])
    yield* sql`
      UPDATE tasks SET state = 'running', attempts = ${number}, platform = ${platform},
        started_at = COALESCE(started_at, ${now}), updated_at = ${now},
        spent_nano_usd = spent_nano_usd + ${spent.nanoUsd}, spent_tokens = spent_tokens + ${spent.tokens}
      WHERE id = ${task.id}`
    if (booking !== undefined) yield* book(sql, booking)
    yield* sql`
      INSERT INTO attempts (task_id, number, platform, model, outcome, started_at, decision)
      VALUES (${task.id}, ${number}, ${platform}, ${model}, 'running', ${now}, ${JSON.stringify(decision)})`
    yield* events.appendOf(task, now, [
      { type: "attempt.started", number, platform, model, waitedMs: decision.waitedMs }
    ])
  }

  const attemptStarted = (claim: TaskClaim, attempt: AttemptStart) =>
    owning(claim, (task, now) => startAttempt(task, now, attempt))

  const attemptEnded = (claim: TaskClaim, attempt: AttemptEnd) =>
    owning(claim, function* (task, now) {
      const { correction, model, number, outcome, partial, platform } = attempt
      const spent = spentBy([correction])
      yield* sql`
        UPDATE tasks SET attempts_spent = attempts_spent + ${outcome._tag === "Failed" && spendsAttempt(outcome.failure) ? 1 : 0},
          updated_at = ${now},
          spent_nano_usd = spent_nano_usd + ${spent.nanoUsd}, spent_tokens = spent_tokens + ${spent.tokens}
        WHERE id = ${task.id}`
      yield* events.appendOf(task, now, yield* endAttempt(task.id, now, attempt))
      if (partial !== undefined) yield* outcomes.keepPartial(task.id, { number, platform, model, text: partial })
    })

  const branch = (claim: TaskClaim, { children, ladder, until }: Branch) =>
    owning(claim, function* (task, now) {
      const steps = children.map(({ alternative }) => alternative.step).join(", ")
      const why = `waits for its ${children.length === 1 ? "alternative" : "alternatives"} ${steps}`
      yield* sql`
        UPDATE tasks SET state = 'waiting', wake_at = ${until}, waiting_why = ${why}, claim_epoch = NULL,
          ladder = ${JSON.stringify(ladder)}, children = children + ${children.length},
          blocked_by = ${children.length}, updated_at = ${now}
        WHERE id = ${task.id}`
      yield* events.appendOf(task, now, yield* cutAttempts(task.id, now, "interrupted"))
      yield* outcomes.makeChildren(task, { children, ladder, until }, now)
      yield* events.appendOf(task, now, [{ type: "task.waiting", until, why }])
    })

  function* succeed(task: EndedTask, now: number, end: Extract<TaskEnd, { _tag: "Succeeded" }>): Steps<void> {
    const { hadPartials, others, result } = end
    const attempts = [...Option.toArray(end.attempt), ...(others ?? [])]
    const spent = spentBy(attempts.map(({ correction }) => correction))
    yield* sql`
      UPDATE tasks SET state = 'succeeded', result = ${JSON.stringify(result)}, partial = ${result.partial === true ? 1 : 0},
        platform = ${result.platform}, claim_epoch = NULL, updated_at = ${now}, finished_at = ${now},
        spent_nano_usd = spent_nano_usd + ${spent.nanoUsd}, spent_tokens = spent_tokens + ${spent.tokens}
      WHERE id = ${task.id}`
    const told: Array<TaskEventBody> = []
    for (const attempt of attempts) told.push(...(yield* endAttempt(task.id, now, attempt)))
    yield* ended(task, now, told, { type: "task.succeeded", platform: result.platform })
    if (hadPartials === true) yield* outcomes.forgetPartials(task.id)
  }

  function* fail(
    task: EndedTask,
    now: number,
    { attention, error, hadPartials }: Extract<TaskEnd, { _tag: "Failed" }>
  ): Steps<void> {
    yield* sql`
      UPDATE tasks SET state = 'failed', error = ${JSON.stringify(error)}, claim_epoch = NULL,
        attention = ${attention === true ? 1 : 0}, updated_at = ${now}, finished_at = ${now}
      WHERE id = ${task.id}`
    const cut = yield* cutAttempts(task.id, now, "interrupted")
    yield* ended(task, now, cut, { type: "task.failed", error })
    if (hadPartials === true) yield* outcomes.forgetPartials(task.id)
  }

  const finish = (claim: TaskClaim, end: TaskEnd) =>
    owning(claim, (task, now) => (end._tag === "Succeeded" ? succeed(task, now, end) : fail(task, now, end)))

  const park = (claim: TaskClaim, until: number, why: string) =>
    owning(claim, function* (task, now) {
      yield* sql`
        UPDATE tasks SET state = 'waiting', wake_at = ${Math.ceil(until)}, waiting_why = ${storable(why)}, claim_epoch = NULL,
          updated_at = ${now}
        WHERE id = ${task.id}`
      const cut = yield* cutAttempts(task.id, now, "interrupted")
      yield* events.appendOf(task, now, [...cut, { type: "task.waiting", until, why }])
    })

  const release = (claim: TaskClaim) =>
    owning(claim, function* (task, now) {
      yield* sql`UPDATE tasks SET state = 'queued', claim_epoch = NULL, updated_at = ${now} WHERE id = ${task.id}`
      yield* events.appendOf(task, now, yield* cutAttempts(task.id, now, "interrupted"))
    })

  const cancel = Effect.fn("TaskStore.cancel")(function* (tenant: TenantId, id: TaskId) {
    const [cancelled] = yield* write((now) =>
      Effect.tap(
        sql<TaskRow & EndedTask>`
          UPDATE tasks SET state = 'cancelled', wake_at = NULL, waiting_why = NULL, claim_epoch = NULL,
            updated_at = ${now}, finished_at = ${now}
          WHERE id = ${id} AND tenant = ${tenant} AND state IN ('queued', 'running', 'waiting')
          RETURNING awaited, ${sql.literal(taskColumns)}`,
        ([task]) =>
          Effect.gen(function* () {
            if (task === undefined) return
            yield* endedByOthers(task, now, yield* cutAttempts(id, now, "ignored"), { type: "task.cancelled" })
          })
      )
    )
    if (cancelled !== undefined) return { task: yield* read(taskOf(cancelled)), changed: true }
    const task = yield* Effect.flatMap(read(taskRow(tenant, id)), (row) => found(id, row)).pipe(
      Effect.flatMap((row) => read(taskOf(row)))
    )
    if (task.state !== "cancelled") {
      return yield* new Conflict({ message: `The task has ended already: it ${task.state}` })
    }
    return { task, changed: false }
  })

  const retry = Effect.fn("TaskStore.retry")(function* (tenant: TenantId, id: TaskId) {
    const retried = yield* write((now) =>
      Effect.gen(function* () {
        const [ended] = yield* sql<{
          readonly state: TaskState
          readonly job_id: JobId | null
          readonly depends: number
          readonly awaited: number
        }>`
          SELECT state, job_id, depends, awaited FROM tasks
          WHERE id = ${id} AND tenant = ${tenant} AND state IN ('failed', 'cancelled')`
        if (ended === undefined) return { _tag: "NotEnded" } as const
        const [missing] = yield* sql<{ readonly id: TaskId; readonly state: TaskState }>`
          SELECT tasks.id, tasks.state FROM dependencies JOIN tasks ON tasks.id = dependencies.depends_on
          WHERE dependencies.task_id = ${id} AND dependencies.on_failure = 'skip'
            AND tasks.state IN ('failed', 'cancelled') LIMIT 1`
        if (missing !== undefined) return { _tag: "Missing", ...missing } as const
        yield* events.appendOf({ id, tenant, job_id: ended.job_id }, now, [{ type: "task.retried" }])
        const waits = ended.job_id !== null || ended.depends === 1
        if (waits) yield* consequences.waitAgain([id], now, id)
        else {
          yield* sql`
            UPDATE tasks SET state = 'queued', error = NULL, attempts_spent = 0, owner_deaths = 0, finished_at = NULL,
              blocked_by = 0,
              deadline = CASE WHEN deadline <= ${now} THEN ${now} + allowed_ms ELSE deadline END, updated_at = ${now}
            WHERE id = ${id}`
        }
        yield* sql`
          UPDATE tasks SET ladder_round = ladder_round + 1, ladder = NULL, attention = 0
          WHERE id = ${id} AND ladder IS NOT NULL`
        const isMore =
          (waits || ended.awaited === 1) &&
          (yield* consequences.reopened({ id, job: ended.job_id, was: ended.state, at: now }))
        const [row] = yield* sql<TaskRow & { readonly class_id: number }>`
          SELECT class_id, ${sql.literal(taskColumns)} FROM tasks WHERE id = ${id}`
        return row === undefined ? ({ _tag: "NotEnded" } as const) : ({ _tag: "Retried", row, isMore } as const)
      })
    )
    if (retried._tag === "Retried") {
      // It follows by itself, should that fail now.
      if (retried.isMore) yield* Effect.ignore(consequences.sweep)
      return { task: yield* read(taskOf(retried.row)), classId: retried.row.class_id }
    }
    if (retried._tag === "Missing") {
      const how = retried.state === "failed" ? "failed" : "was cancelled"
      return yield* new Conflict({ message: `It waits for the task ${retried.id}, which ${how}: retry that one` })
    }
    const { state } = yield* Effect.flatMap(read(taskRow(tenant, id)), (row) => found(id, row))
    return yield* new Conflict({
      message: isTerminal(state) ? "The task succeeded: there is nothing to retry" : `The task is still ${state}`
    })
  })

  const recoverClaims = write((now) =>
    Effect.gen(function* () {
      const rows = yield* sql<EndedTask & { readonly owner_deaths: number }>`
        SELECT id, tenant, job_id, awaited, children, owner_deaths FROM tasks
        WHERE claim_epoch IS NOT NULL AND claim_epoch < ${epoch} LIMIT ${batch}`
      for (const task of rows) {
        const cut = yield* cutAttempts(task.id, now, "interrupted")
        const deaths = task.owner_deaths + (cut.length > 0 ? 1 : 0)
        const error: TaskError = {
          type: "poison",
          message: `The service died ${deaths} times while it worked on this task, so it is not tried again`
        }
        const poisoned = cut.length > 0 && deaths >= maxOwnerDeaths
        const changed = yield* sql`
          UPDATE tasks SET state = ${poisoned ? "failed" : "queued"}, claim_epoch = NULL, owner_deaths = ${deaths},
            error = ${poisoned ? JSON.stringify(error) : null}, finished_at = ${poisoned ? now : null},
            updated_at = ${now}
          WHERE id = ${task.id} AND state IN ('queued', 'running')`.raw
        // the end of one before it may have ended it too
        if (changedRows(changed) === 0) continue
        if (poisoned) yield* endedByOthers(task, now, cut, { type: "task.failed", error })
        else yield* events.appendOf(task, now, cut)
      }
      return rows.length
    })
  ).pipe(Effect.repeat({ while: (changed) => changed === batch }), Effect.asVoid)

  /** Queues waiting tasks, the ones due first; answers with a class for each. */
  const wake = (which: ReturnType<typeof sql.and>) =>
    Effect.map(
      write(
        (now) => sql<{ readonly class_id: number }>`
          UPDATE tasks SET state = 'queued', wake_at = NULL, waiting_why = NULL, updated_at = ${now} WHERE seq IN (
            SELECT seq FROM tasks WHERE state = 'waiting' AND blocked_by = 0 AND held = 0 AND ${which} LIMIT ${batch})
          RETURNING class_id`
      ),
      (rows) => rows.map((row) => row.class_id)
    )

  const wakeAll = (which: Effect.Effect<ReturnType<typeof sql.and>>) =>
    Effect.gen(function* () {
      const classes = new Set<number>()
      let more = true
      while (more) {
        const woken = yield* Effect.flatMap(which, wake)
        for (const id of woken) classes.add(id)
        more = woken.length === batch
      }
      return [...classes]
    })

  const expire = write((now) =>
    Effect.gen(function* () {
      const rows = yield* sql<EndedTask & { readonly waiting_why: string | null }>`
        SELECT id, tenant, job_id, awaited, children, waiting_why FROM tasks
        WHERE state = 'waiting' AND wake_at <= ${now} AND deadline <= ${now} LIMIT ${settledAtOnce}`
      const more = yield* sql<EndedTask & { readonly waiting_why: string | null }>`
        SELECT id, tenant, job_id, awaited, children, waiting_why FROM tasks
        WHERE state = 'queued' AND claim_epoch IS NULL AND deadline <= ${now} LIMIT ${settledAtOnce}`
      const before = consequences.settled()
      for (const task of [...rows, ...more]) {
        // Whatever waited for those before it has ended by now too: enough for one write.
        if (consequences.settled() - before >= settledAtOnce) return true
        const error: TaskError = {
          type: "deadline",
          message:
            task.waiting_why === null
              ? "The deadline passed before the task's turn came"
              : `The deadline passed while the task waited: ${task.waiting_why}`
        }
        const changed = yield* sql`
          UPDATE tasks SET state = 'failed', error = ${JSON.stringify(error)}, wake_at = NULL, waiting_why = NULL,
            updated_at = ${now}, finished_at = ${now}
          WHERE id = ${task.id} AND state IN ('queued', 'waiting')`.raw
        // the end of one before it may have ended it too
        if (changedRows(changed) > 0) yield* endedByOthers(task, now, [], { type: "task.failed", error })
      }
      return rows.length === settledAtOnce || more.length === settledAtOnce
    })
  ).pipe(Effect.repeat({ while: (more) => more }), Effect.asVoid)

  const jobs = yield* makeJobs({ epoch, consequences, read, write })

  return TaskStore.of({
    epoch,
    classes: Effect.map(
      read(
        sql<{ readonly id: number; readonly candidates: string; readonly priority: number }>`
          SELECT id, candidates, priority FROM classes ORDER BY id`
      ),
      (rows) =>
        rows.map((row) => ({
          id: row.id,
          candidates: row.candidates.split(",").map((name) => PlatformId.make(name)),
          priority: priorityOf(row.priority)
        }))
    ),
    classOf,
    replay: Effect.fn("TaskStore.replay")(keys.replay),
    insert,
    get: Effect.fn("TaskStore.get")(function* (tenant, id) {
      const row = yield* found(id, yield* read(taskRow(tenant, id)))
      const own = yield* read(taskOf(row))
      const children = row.children === 0 ? [] : yield* read(outcomes.children(id))
      const alternatives = children.map(({ id, kind, note, state, step }) => ({ id, kind, step, note, state }))
      const task: Task = children.length === 0 ? own : { ...own, alternatives }
      if (task.callbackUrl === undefined || !isTerminal(task.state)) return task
      return { ...task, webhook: yield* read(webhookOf(sql, "task_id", id, task.callbackUrl)) }
    }),
    check,
    list,
    attempts: Effect.fn("TaskStore.attempts")(function* (tenant, id) {
      yield* check(tenant, id)
      const rows = sql<AttemptRow>`
        SELECT number, platform, model, outcome, started_at, ended_at, time_to_first_token_ms, duration_ms, cost_usd,
          failure, usage, decision
        FROM attempts WHERE task_id = ${id} ORDER BY number LIMIT ${maxAttemptsShown}`
      return yield* read(Effect.flatMap(rows, Effect.forEach(attemptOf)))
    }),
    claim,
    attemptStarted,
    attemptEnded,
    finish,
    branch,
    children: (parent, round) => read(outcomes.children(parent, round)),
    tried: (ids) => read(outcomes.tried(ids)),
    bestPartial: (ids) => read(outcomes.bestPartial(ids)),
    park,
    release,
    cancel,
    retry,
    recover: recoverClaims.pipe(
      Effect.zipRight(jobs.recover),
      Effect.zipRight(wakeAll(Effect.succeed(sql.and(["1 = 1"])))),
      Effect.asVoid
    ),
    wakeDue: wakeAll(Effect.map(epochMs, (now) => sql.and([sql`wake_at <= ${now}`]))),
    wakeClass: (classId) =>
      Effect.map(wakeAll(Effect.succeed(sql.and([sql`class_id = ${classId}`]))), (classes) => classes.length > 0),
    expire,
    states: (tenant, ids) =>
      read(
        Effect.map(
          Effect.forEach(
            chunksOf(ids),
            (some) => sql<{ readonly id: TaskId; readonly state: TaskState }>`
              SELECT id, state FROM tasks WHERE tenant = ${tenant} AND ${sql.in("id", some)}`
          ),
          (parts) => new Map(parts.flat().map((row) => [row.id, row.state]))
        )
      ),
    jobs: jobs.store,
    queued: consequences.queued,
    dropped: consequences.dropped,
    nextInstant: Effect.map(
      read(sql<{ readonly wake: number | null; readonly deadline: number | null }>`
        SELECT (SELECT MIN(wake_at) FROM tasks WHERE state = 'waiting') AS wake,
          (SELECT MIN(deadline) FROM tasks WHERE state = 'queued' AND claim_epoch IS NULL) AS deadline`),
      ([row]) =>
        row === undefined || (row.wake === null && row.deadline === null)
          ? Option.none()
          : Option.some(Math.min(row.wake ?? Number.POSITIVE_INFINITY, row.deadline ?? Number.POSITIVE_INFINITY))
    )
  })
})
