import { Cause, Effect, Exit, Option, Schedule, type Scope } from "effect"
import type { Budgets, Held } from "../Budgets.js"
import type { AttemptEnded, Delegated, Delegation, DelegationError, Journal } from "../Delegation.js"
import type { ServiceUnavailable } from "../Domain/ApiError.js"
import { type LeaseUnavailable, viewOf } from "../Domain/Failure.js"
import type { TaskError } from "../Domain/Task.js"
import { epochMs } from "../Domain/Time.js"
import type { AttemptEnd, ClaimedTask, OwnershipLost, TaskStore } from "../TaskStore.js"
import { traced } from "../Telemetry/traced.js"
import type { Alternatives, Move } from "./Alternatives.js"

/** A task nobody can say a time for is looked at again after this long, ms. */
const lookAgainMs = 30_000
/** A task is never parked for less than this, ms. */
const minParkMs = 1_000
/** Characters kept of the reason a task waits for. */
const maxWhy = 500

/** What a live task's owner and the task share. */
export interface LiveState {
  /** Attempts that are out, or whose start is being written: a write once asked for is not taken back. */
  attempting: number
}

export interface LiveTaskOptions {
  readonly store: TaskStore["Type"]
  readonly delegation: Delegation["Type"]
  readonly budgets: Budgets["Type"]
  readonly alternatives: Alternatives
  /** How long a task waits for a lease before it is parked, ms. */
  readonly parkAfterMs: number
  /** True from the moment at which nothing new may be started. */
  readonly stopping: () => boolean
  /** Grows whenever all that wait with this task are woken. */
  readonly wakes: () => number
}

/** How a live task was left. */
export type Left =
  /** It ended, or somebody else has it. */
  | { readonly _tag: "Gone" }
  /** Back in its queue, to be claimed by whoever comes. */
  | { readonly _tag: "Queued" }
  /** Back in the store until this instant, epoch ms; `wakes` is how many there had been just before. */
  | { readonly _tag: "Parked"; readonly until: number; readonly wakes: number }
  /** It waits for tasks made for it, which are queued in these classes; something is due at this instant, epoch ms. */
  | { readonly _tag: "Branched"; readonly classIds: ReadonlyArray<number>; readonly dueAt: number }

type JournalError = OwnershipLost | ServiceUnavailable

const endOf = ({
  correction,
  durationMs,
  model,
  number,
  platform,
  result,
  timeToFirstTokenMs
}: AttemptEnded): AttemptEnd => ({
  number,
  platform,
  model,
  durationMs,
  timeToFirstTokenMs,
  correction,
  outcome: result._tag === "Failed" ? { _tag: "Failed", failure: viewOf(result.failure) } : result
})

const failed = (error: TaskError): Move => ({ _tag: "Finish", end: { _tag: "Failed", error } })

/** Waits until somebody can take the task, if that is before its deadline. */
const afterNoLease = (error: LeaseUnavailable, deadline: number, now: number): Move => {
  const leftMs = deadline - now
  const tooLate = error.earliestAt === undefined ? leftMs <= minParkMs : error.earliestAt >= deadline
  if (tooLate || leftMs <= 0) {
    return failed({
      type: "deadline",
      message: `No platform can start the task before its deadline: ${error.message}`,
      details: { reasons: error.reasons }
    })
  }
  // Without a known time the task is tried at least once more before its deadline.
  const until = error.earliestAt ?? now + Math.min(lookAgainMs, leftMs / 2)
  return {
    _tag: "Park",
    until: Math.min(deadline, Math.ceil(Math.max(until, now + minParkMs))),
    why: error.message.slice(0, maxWhy)
  }
}

const afterError = (error: DelegationError, deadline: number, now: number): Move => {
  switch (error._tag) {
    case "LeaseUnavailable":
      return afterNoLease(error, deadline, now)
    case "DeadlineExceeded":
      return failed({ type: "deadline", message: error.message, details: { failure: error.last } })
    case "AttemptsExhausted":
      return failed({ type: "attempts-exhausted", message: error.message, details: { failure: error.last } })
    case "BudgetExhausted":
      return failed({
        type: "budget",
        message: error.message,
        details: { failure: error.last, reasons: error.reasons }
      })
    case "CallRefused":
      return failed({ type: "refused", message: error.message, details: { failure: error.failure } })
    case "NoCapablePlatform":
      return failed({ type: "no-capable-platform", message: error.message, details: { reasons: error.reasons } })
  }
}

const succeeded = (
  delegated: Delegated,
  attempt: Option.Option<AttemptEnd>,
  others: ReadonlyArray<AttemptEnd>
): Move => {
  const { completion, costUsd, platform } = delegated
  return {
    _tag: "Finish",
    end: {
      _tag: "Succeeded",
      attempt,
      others,
      result: {
        text: completion.text,
        toolCalls: completion.toolCalls.length === 0 ? undefined : completion.toolCalls,
        platform,
        model: completion.model,
        usage: completion.usage,
        costUsd,
        ...(completion.finishReason === "length"
          ? { partial: true as const, note: "not whole: the answer was cut by the bound of its length" }
          : {})
      }
    }
  }
}

/** Until the database answers again, at growing distances of up to 10 s. */
const untilStored = Schedule.exponential("100 millis").pipe(Schedule.union(Schedule.spaced("10 seconds")))

/**
 * Carries one claimed task as far as it goes now: to its end, or back into the store. Each step is on disk before the
 * next; interrupting it cuts a running attempt and gives the task back. It never fails: a defect fails the task alone.
 */
export const runTask = (options: LiveTaskOptions, task: ClaimedTask, state: LiveState): Effect.Effect<Left> => {
  const { alternatives, delegation, store } = options
  const keepsPartials = alternatives.keepPartials(task)
  // What is kept of a task made for another one is that one's.
  let hadPartials = keepsPartials && task.parentId === undefined && task.attempts > 0
  /** The successful attempt, kept to be written together with the task's end. */
  let last = Option.none<AttemptEnd>()
  /** What ended because it was faster, to be written with it: an answer is not lost to a write that fails. */
  const others: Array<AttemptEnd> = []

  const startNothingMore = Effect.suspend(() => (options.stopping() ? Effect.interrupt : Effect.void))

  const journal: Journal<JournalError> = {
    attemptStarted: (attempt) =>
      Effect.gen(function* () {
        yield* startNothingMore
        state.attempting += 1
        yield* store.attemptStarted(task, attempt)
      }),
    attemptEnded: (attempt) =>
      Effect.gen(function* () {
        const end = { ...endOf(attempt), partial: keepsPartials ? attempt.partial : undefined }
        if (end.outcome._tag === "Succeeded") {
          last = Option.some(end)
          return
        }
        if (Option.isSome(last)) {
          others.push(end)
          return
        }
        yield* store.attemptEnded(task, end)
        if (end.partial !== undefined && task.parentId === undefined) hadPartials = true
        state.attempting -= 1
        // what is still out may answer yet
        if (state.attempting === 0) yield* startNothingMore
      })
  }

  const work: Effect.Effect<Move, JournalError, Scope.Scope> = Effect.gen(function* () {
    const ladder = yield* task.ladder
    if (Option.isSome(ladder)) return yield* alternatives.resume(task, ladder.value)
    const request = yield* task.request
    const held: Held | undefined = task.hasBudget ? yield* options.budgets.hold(task.id, task.jobId) : undefined
    return yield* delegation
      .delegate({
        ...request,
        id: task.id,
        type: task.type,
        priority: task.priority,
        tenant: task.tenant,
        deadline: task.deadline,
        attemptsMade: task.attempts,
        attemptsSpent: task.attemptsSpent,
        maxWaitMs: options.parkAfterMs,
        journal,
        held,
        mayHedge: () => !options.stopping()
      })
      .pipe(
        Effect.map((delegated) => succeeded(delegated, last, others)),
        Effect.catchAll((error) =>
          error._tag === "OwnershipLost" || error._tag === "ServiceUnavailable"
            ? Effect.fail(error)
            : Effect.flatMap(epochMs, (now) => {
                const next = afterError(error, task.deadline, now)
                return next._tag === "Finish" && next.end._tag === "Failed" && alternatives.apply(task, error)
                  ? alternatives.begin(task, next.end.error)
                  : Effect.succeed(next)
              })
        )
      )
  })

  const afterCause = (cause: Cause.Cause<JournalError>): Effect.Effect<Option.Option<Move>> => {
    const failure = Cause.failureOption(cause)
    // A journal that could not be written is no fault of the task's: it goes on where the journal ends.
    if (Option.isSome(failure) || Cause.isInterrupted(cause)) return Effect.succeedNone
    return Effect.as(
      Effect.logError("A task failed by a defect of the service", cause),
      Option.some(
        failed({
          type: "internal",
          message: "The service failed at this task by a mistake of its own; its log says how"
        })
      )
    )
  }

  return Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const stored = (write: Effect.Effect<void, JournalError>, left: Left): Effect.Effect<Left> =>
        Effect.as(write, left).pipe(
          Effect.catchTag("ServiceUnavailable", () =>
            restore(
              Effect.as(
                Effect.retry(Effect.uninterruptible(write), {
                  schedule: untilStored,
                  while: (error) => error._tag === "ServiceUnavailable"
                }),
                left
              )
            )
          ),
          Effect.catchTags({
            OwnershipLost: () => Effect.succeed<Left>({ _tag: "Gone" }),
            // The schedule never ends.
            ServiceUnavailable: Effect.die
          })
        )

      const wakes = options.wakes()
      const exit = yield* Effect.exit(restore(work))
      state.attempting = 0
      const next = Exit.isSuccess(exit) ? Option.some(exit.value) : yield* afterCause(exit.cause)
      if (Option.isNone(next)) return yield* stored(store.release(task), { _tag: "Queued" })
      if (next.value._tag === "Finish") {
        return yield* stored(store.finish(task, { ...next.value.end, hadPartials }), { _tag: "Gone" })
      }
      if (next.value._tag === "Branch") {
        const { children } = next.value.branch
        const dueAt = children.reduce((least, { deadline }) => Math.min(least, deadline), task.deadline)
        const classIds = children.map(({ classId }) => classId)
        return yield* stored(store.branch(task, next.value.branch), { _tag: "Branched", classIds, dueAt })
      }
      // What kept it waiting may be over: it was not yet in the store when those there were woken.
      if (options.wakes() !== wakes) return yield* stored(store.release(task), { _tag: "Queued" })
      const { until, why } = next.value
      return yield* stored(store.park(task, until, why), { _tag: "Parked", until, wakes })
    })
  ).pipe(
    // the budgets are let go of once what was spent is stored
    Effect.scoped,
    Effect.annotateLogs({ task: task.id }),
    traced("Coordinator.task", {
      root: true,
      attributes: { "task.id": task.id, "task.type": task.type, "task.priority": task.priority }
    })
  )
}
