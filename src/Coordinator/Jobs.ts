import { Array as Arr, Effect, Either, Option } from "effect"
import {
  type Conflict,
  type FieldProblem,
  type InvalidRequest,
  type NotFound,
  type RateLimited,
  ServiceUnavailable,
  TaskRefused
} from "../Domain/ApiError.js"
import {
  type Job,
  JobId,
  type JobMode,
  type JobResult,
  type JobState,
  JobSubmission,
  type JobTaskSubmission
} from "../Domain/Job.js"
import { isTerminal, type TaskId, type TaskSubmission, type TenantId } from "../Domain/Task.js"
import { epochMs } from "../Domain/Time.js"
import { callbackProblems } from "../Settings/CallbackUrl.js"
import type { Settings } from "../Settings.js"
import type { NewJobTask } from "../TaskStore/Jobs.js"
import type { TaskStore } from "../TaskStore.js"
import type { TaskValidator } from "../TaskValidator.js"
import type { Crew } from "./Crew.js"
import { encodeCursor, pageOf } from "./Cursor.js"
import { type PlannedTask, planOf } from "./Plan.js"
import { idempotencyOf } from "./RequestHash.js"
import { roomOf } from "./Room.js"
import { makeShapeCheck } from "./shape.js"

/** Tasks of a job that may be under way at a time where it says nothing. */
const defaultParallel = 16
/** Tasks validated at a time, so that those whose validation asks a model do not wait for each other. */
const validatedAtOnce = 16
/** Tasks validated before everybody else has a turn. */
const validatedInARow = 64
/** Problems told of one job. */
const maxProblems = 100

export interface JobFilter {
  readonly state?: JobState | undefined
  readonly mode?: JobMode | undefined
  /** 1 to 200, default 50. */
  readonly limit?: number | undefined
  /** `next` of the page before. */
  readonly cursor?: string | undefined
}

export interface JobPage {
  /** Newest first. */
  readonly jobs: ReadonlyArray<Job>
  readonly next?: string | undefined
}

/** Several tasks that belong together: accepted whole or not at all, in the order they need, with one result. */
export interface Jobs {
  /**
   * `replayed`: the idempotency key was seen before with the same body, and this is that job. Where any task cannot work,
   * nothing is stored and the refusal names each of them.
   */
  readonly submit: (
    tenant: TenantId,
    submission: JobSubmission,
    idempotencyKey: Option.Option<string>
  ) => Effect.Effect<
    { readonly job: Job; readonly replayed: boolean },
    TaskRefused | RateLimited | Conflict | ServiceUnavailable
  >
  /** With a page of its tasks and their results. */
  readonly get: (
    tenant: TenantId,
    id: JobId,
    page: { readonly limit?: number | undefined; readonly cursor?: string | undefined }
  ) => Effect.Effect<JobResult, InvalidRequest | NotFound | ServiceUnavailable>
  readonly list: (tenant: TenantId, filter: JobFilter) => Effect.Effect<JobPage, InvalidRequest | ServiceUnavailable>
  /** Cancels every task that has not ended. A job already cancelled stays so; one that ended otherwise is a conflict. */
  readonly cancel: (tenant: TenantId, id: JobId) => Effect.Effect<Job, NotFound | Conflict | ServiceUnavailable>
}

/** Why tasks cannot wait for these: each problem by the place of the task among those it waits for. */
export const dependencyProblems = (
  states: Effect.Effect.Success<ReturnType<TaskStore["Type"]["states"]>>,
  dependsOn: ReadonlyArray<TaskId>,
  mustSucceed: boolean
): ReadonlyArray<FieldProblem> =>
  dependsOn.flatMap((id, index) => {
    const state = states.get(id)
    const field = `dependsOn.${index}`
    if (state === undefined) return [{ field, problem: `there is no task ${id}` }]
    return mustSucceed && isTerminal(state) && state !== "succeeded"
      ? [{ field, problem: `the task ${id} ${state === "failed" ? "failed" : "was cancelled"} already` }]
      : []
  })

/** What is wrong with a deadline that came while the task was looked at; none where it is still to come. */
export const deadlineProblems = (deadline: number, now: number): ReadonlyArray<FieldProblem> =>
  deadline > now ? [] : [{ field: "deadline", problem: "it passed while the task was looked at: leave it more time" }]

export const refuseTask = (problems: ReadonlyArray<FieldProblem>): TaskRefused =>
  new TaskRefused({
    message: `the task cannot work: ${problems.map(({ field, problem }) => `${field}: ${problem}`).join("; ")}`,
    problems,
    reasons: []
  })

const lesser = (one: number | undefined, other: number | undefined): number | undefined =>
  one === undefined || other === undefined ? (one ?? other) : Math.min(one, other)

/** Whether the job, not the task itself, says what holds of a task in this field. */
const isOfJob = (field: string, task: JobTaskSubmission, job: JobSubmission): boolean => {
  switch (field) {
    case "deadline":
      return task.deadline === undefined && job.deadline !== undefined
    case "maxCostUsd":
    case "maxTokens":
      return (job[field] ?? Number.POSITIVE_INFINITY) < (task[field] ?? Number.POSITIVE_INFINITY)
    default:
      return false
  }
}

/** The problems of tasks as problems of their job: what it says of all of them is told once, of the first it is wrong for. */
const problemsOfJob = (
  job: JobSubmission,
  refusals: ReadonlyArray<{ readonly index: number; readonly refusal: TaskRefused }>
): ReadonlyArray<FieldProblem> => {
  const ofJob = new Map<string, { readonly problem: string; readonly index: number; others: number }>()
  const ofTasks: Array<FieldProblem> = []
  for (const { index, refusal } of refusals) {
    const told = refusal.problems.length === 0 ? [{ field: "", problem: refusal.message }] : refusal.problems
    for (const { field, problem } of told) {
      const task = job.tasks[index]
      const known = ofJob.get(field)
      if (task === undefined || !isOfJob(field, task, job)) {
        ofTasks.push({ field: `tasks.${index}${field === "" ? "" : `.${field}`}`, problem })
      } else if (known === undefined) ofJob.set(field, { problem, index, others: 0 })
      else known.others += 1
    }
  }
  return [
    ...Array.from(ofJob, ([field, { index, others, problem }]) => ({
      field,
      problem: `${problem} (of tasks.${index}${others === 0 ? "" : ` and ${others} other${others === 1 ? "" : "s"}`})`
    })),
    ...ofTasks
  ]
}

const refuse = (problems: ReadonlyArray<FieldProblem>, reasons: TaskRefused["reasons"]): TaskRefused => {
  const shown = problems.slice(0, 3).map(({ field, problem }) => `${field}: ${problem}`)
  const more = problems.length > shown.length ? ` (and ${problems.length - shown.length} more)` : ""
  return new TaskRefused({
    message: `the job cannot work: ${shown.join("; ")}${more}`,
    problems: problems.slice(0, maxProblems),
    reasons
  })
}

const checkShape = makeShapeCheck(JobSubmission)

export interface JobsOptions {
  readonly store: TaskStore["Type"]
  readonly validator: TaskValidator["Type"]
  readonly settings: Settings["Type"]
  readonly crew: Crew
  readonly nextId: Effect.Effect<TaskId>
  /** Lets everything else that is ready have its turn. */
  readonly turn: Effect.Effect<void>
}

export const makeJobs = ({ crew, nextId, settings, store, turn, validator }: JobsOptions): Jobs => {
  /** Every task as it is to be stored, where all of them can work. */
  const prepare = Effect.fn("Coordinator.prepareJob")(function* (
    tenant: TenantId,
    submission: JobSubmission,
    plan: ReadonlyArray<PlannedTask>
  ) {
    const ids = yield* Effect.forEach(submission.tasks, () => nextId)
    const states = yield* store.states(tenant, [...new Set(plan.flatMap(({ outside }) => outside))])
    const mustSucceed = submission.onFailure !== "continue"
    const prepareOne = ({ dependsOn: _, name, ...task }: JobTaskSubmission, index: number) =>
      Effect.gen(function* () {
        const { chained = false, inside = [], outside = [] } = plan[index] ?? {}
        const missing = dependencyProblems(states, outside, mustSucceed)
        if (missing.length > 0) return yield* refuse(missing, [])
        const dependsOn = [...outside, ...inside.flatMap((place) => ids[place] ?? [])]
        const own: TaskSubmission = {
          ...task,
          deadline: task.deadline ?? submission.deadline,
          dependsOn: dependsOn.length === 0 ? undefined : dependsOn
        }
        // A task of its own may have any budget; one of a job never more than the job.
        const within: TaskSubmission = {
          ...own,
          maxCostUsd: lesser(own.maxCostUsd, submission.maxCostUsd),
          maxTokens: lesser(own.maxTokens, submission.maxTokens)
        }
        const valid = yield* validator.validate(within, tenant)
        const { id: classId } = yield* store.classOf(
          [...new Set(valid.route.candidates.map(({ platform }) => platform))],
          valid.priority
        )
        return {
          id: ids[index] ?? (yield* nextId),
          classId,
          type: valid.type,
          priority: valid.priority,
          submission: own,
          request: {
            call: valid.call,
            requirement: valid.requirement,
            roomTokens: dependsOn.length > 0 || chained ? roomOf(valid, settings.platforms) : undefined
          },
          deadline: valid.deadline,
          verdict: valid.verdict,
          name,
          chained,
          dependsOn
        } satisfies NewJobTask
      }).pipe(Effect.either)
    const numbered = submission.tasks.map((task, index) => ({ task, index }))
    const prepared = (yield* Effect.forEach(Arr.chunksOf(numbered, validatedInARow), (row) =>
      Effect.forEach(row, ({ index, task }) => prepareOne(task, index), { concurrency: validatedAtOnce }).pipe(
        Effect.zipLeft(turn)
      )
    )).flat()

    const tasks: Array<NewJobTask> = []
    const refusals: Array<{ readonly index: number; readonly refusal: TaskRefused }> = []
    for (const [index, outcome] of prepared.entries()) {
      if (Either.isRight(outcome)) tasks.push(outcome.right)
      else if (outcome.left._tag === "TaskRefused") refusals.push({ index, refusal: outcome.left })
    }
    const [first] = refusals
    if (first !== undefined) return yield* refuse(problemsOfJob(submission, refusals), first.refusal.reasons)
    // What could come right with time is told only where nothing else is wrong.
    for (const outcome of prepared) if (Either.isLeft(outcome)) return yield* Effect.fail(outcome.left)
    return tasks
  })

  const submit = Effect.fn("Coordinator.submitJob")(function* (
    tenant: TenantId,
    submission: JobSubmission,
    idempotencyKey: Option.Option<string>
  ) {
    if (crew.stopping()) return yield* new ServiceUnavailable({ message: "The service is shutting down" })
    yield* checkShape(submission)
    const idempotency = yield* idempotencyOf(idempotencyKey, submission)
    const earlier = Option.isSome(idempotency) ? yield* store.jobs.replay(tenant, idempotency.value) : Option.none()
    if (Option.isSome(earlier)) return { job: earlier.value, replayed: true }

    const unreachable = callbackProblems(submission.callbackUrl, settings.webhooks)
    if (unreachable.length > 0) return yield* refuse(unreachable, [])
    const plan = yield* Either.mapLeft(planOf(submission), (problems) => refuse(problems, []))
    const tasks = yield* prepare(tenant, submission, plan)
    const id = JobId.make(yield* nextId)
    const insert = store.jobs.insert({
      id,
      tenant,
      mode: submission.mode ?? "auto",
      onFailure: submission.onFailure ?? "skip",
      maxParallel: submission.maxParallel ?? defaultParallel,
      metadata: submission.metadata,
      maxCostUsd: submission.maxCostUsd,
      maxTokens: submission.maxTokens,
      callbackUrl: submission.callbackUrl,
      idempotency,
      tasks
    })
    const now = yield* epochMs
    const late = tasks.flatMap(({ deadline }, index) => {
      const problems = deadlineProblems(deadline, now)
      return problems.length === 0 ? [] : [{ index, refusal: refuseTask(problems) }]
    })
    if (late.length > 0) return yield* refuse(problemsOfJob(submission, late), [])
    const firstDeadline = tasks.reduce((least, { deadline }) => Math.min(least, deadline), Number.POSITIVE_INFINITY)
    // Due even where nobody heard that it was accepted.
    return yield* Effect.uninterruptible(
      Effect.ensuring(
        insert,
        Effect.sync(() => crew.due(firstDeadline))
      )
    )
  })

  return {
    submit,
    get: Effect.fn("Coordinator.getJob")(function* (tenant, id, page) {
      const { from, limit } = yield* pageOf(page)
      const { job, next } = yield* store.jobs.result(tenant, id, { limit, after: Option.getOrElse(from, () => 0) })
      return { ...job, next: Option.getOrUndefined(Option.map(next, encodeCursor)) }
    }),
    list: Effect.fn("Coordinator.listJobs")(function* (tenant, filter) {
      const { from, limit } = yield* pageOf(filter)
      const { jobs, next } = yield* store.jobs.list(tenant, {
        state: filter.state,
        mode: filter.mode,
        limit,
        before: Option.getOrUndefined(from)
      })
      return { jobs, next: Option.getOrUndefined(Option.map(next, encodeCursor)) }
    }),
    // Whoever asked may go away, but what the store says cancelled must not work on.
    cancel: Effect.fn("Coordinator.cancelJob")((tenant: TenantId, id: JobId) =>
      Effect.uninterruptible(store.jobs.cancel(tenant, id))
    )
  }
}
