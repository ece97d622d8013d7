import { Cause, Effect, FiberRef, HashMap, Option, Schedule, Scope } from "effect"
import type { Budgets, Held } from "../Budgets.js"
import type { AttemptEnded, Delegated, Delegation, DelegationError, Journal } from "../Delegation.js"
import type { ServiceUnavailable } from "../Domain/ApiError.js"
import { type LeaseUnavailable, viewOf } from "../Domain/Failure.js"
import type { TaskError, TaskId } from "../Domain/Task.js"
import { epochMs } from "../Domain/Time.js"
import type { StoredRequest } from "../TaskStore/Rows.js"
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

/** All that the fiber logs from now on is of the task; `Effect.annotateLogs` would cost as much as a whole step of it. */
const logTask = (id: TaskId): Effect.Effect<void> =>
  FiberRef.update(FiberRef.currentLogAnnotations, HashMap.set<string, unknown>("task", id))

/** Until the database answers again, at growing distances of up to 10 s. */
const untilStored = Schedule.exponential("100 millis").pipe(Schedule.union(Schedule.spaced("10 seconds")))

/**
 * Carries one claimed task as far as it goes now: to its end, or back into the store. Each step is on disk before the
 * next; interrupting it cuts a running attempt and gives the task back. It never fails: a defect fails the task alone.
 * To be run by a fiber of its own.
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

  const journal: Journal<JournalError> = {
    attemptStarted: (attempt) =>
      Effect.suspend(() => {
        if (options.stopping()) return Effect.interrupt
        state.attempting += 1
        return store.attemptStarted(task, attempt)
      }),
    attemptEnded: (attempt) =>
      Effect.suspend(() => {
        const end = { ...endOf(attempt), partial: keepsPartials ? attempt.partial : undefined }
        if (end.outcome._tag === "Succeeded") {
          last = Option.some(end)
          return Effect.void
        }
        if (Option.isSome(last)) {
          others.push(end)
          return Effect.void
        }
        return Effect.flatMap(store.attemptEnded(task, end), () => {
          if (end.partial !== undefined && task.parentId === undefined) hadPartials = true
          state.attempting -= 1
          // what is still out may answer yet
          return state.attempting === 0 && options.stopping() ? Effect.interrupt : Effect.void
        })
      })
  }

  const afterDelegation = (error: DelegationError | JournalError): Effect.Effect<Move, JournalError> =>
    error._tag === "OwnershipLost" || error._tag === "ServiceUnavailable"
      ? Effect.fail(error)
      : Effect.flatMap(epochMs, (now) => {
          const next = afterError(error, task.deadline, now)
          return next._tag === "Finish" && next.end._tag === "Failed" && alternatives.apply(task, error)
            ? alternatives.begin(task, next.end.error)
            : Effect.succeed(next)
        })

  const delegated = (request: StoredRequest, held: Held | undefined): Effect.Effect<Move, JournalError> =>
    Effect.matchEffect(
      delegation.delegate({
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
      }),
      { onSuccess: (answer) => Effect.succeed(succeeded(answer, last, others)), onFailure: afterDelegation }
    )

  const work = (hold: Effect.Effect<Held | undefined, ServiceUnavailable>): Effect.Effect<Move, JournalError> =>
    Effect.flatMap(task.ladder, (ladder) =>
      Option.isSome(ladder)
        ? alternatives.resume(task, ladder.value)
        : Effect.flatMap(task.request, (request) => Effect.flatMap(hold, (held) => delegated(request, held)))
    )

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

  const gone: Left = { _tag: "Gone" }

  const main = (hold: Effect.Effect<Held | undefined, ServiceUnavailable>): Effect.Effect<Left> =>
    Effect.uninterruptibleMask((restore) => {
      // A write that found the task to be another's may be one of ours that nobody heard of: then it was left as said, and
      // where it was not, one look too many does no harm.
      const stored = (write: Effect.Effect<void, JournalError>, left: Left): Effect.Effect<Left> =>
        Effect.matchEffect(write, {
          onSuccess: () => Effect.succeed(left),
          onFailure: (error) =>
            error._tag === "OwnershipLost"
              ? Effect.succeed(left)
              : Effect.retry(Effect.uninterruptible(write), {
                  schedule: untilStored,
                  while: ({ _tag }) => _tag === "ServiceUnavailable"
                }).pipe(
                  restore,
                  Effect.as(left),
                  Effect.catchTags({
                    OwnershipLost: () => Effect.succeed(left),
                    // The schedule never ends.
                    ServiceUnavailable: Effect.die
                  })
                )
        })

      const leave = (move: Move, wakes: number): Effect.Effect<Left> => {
        if (move._tag === "Finish") return stored(store.finish(task, { ...move.end, hadPartials }), gone)
        if (move._tag === "Branch") {
          const { children } = move.branch
          const dueAt = children.reduce((least, { deadline }) => Math.min(least, deadline), task.deadline)
          const classIds = children.map(({ classId }) => classId)
          return stored(store.branch(task, move.branch), { _tag: "Branched", classIds, dueAt })
        }
        // What kept it waiting may be over: it was not yet in the store when those there were woken.
        if (options.wakes() !== wakes) return stored(store.release(task), { _tag: "Queued" })
        return stored(store.park(task, move.until, move.why), { _tag: "Parked", until: move.until, wakes })
      }

      const wakes = options.wakes()
      return Effect.matchCauseEffect(restore(work(hold)), {
        onSuccess: (move) => {
          state.attempting = 0
          return leave(move, wakes)
        },
        onFailure: (cause) => {
          state.attempting = 0
          return Effect.flatMap(afterCause(cause), (move) =>
            Option.isSome(move) ? leave(move.value, wakes) : stored(store.release(task), { _tag: "Queued" })
          )
        }
      })
    })

  // The budgets are let go of once what was spent is stored.
  const life = task.hasBudget
    ? Effect.scopedWith((scope) => main(Scope.extend(options.budgets.hold(task.id, task.jobId), scope)))
    : main(Effect.succeed(undefined))

  return Effect.zipRight(logTask(task.id), life).pipe(
    traced("Coordinator.task", {
      root: true,
      attributes: { "task.id": task.id, "task.type": task.type, "task.priority": task.priority }
    })
  )
}
