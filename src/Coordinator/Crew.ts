import { Duration, Effect, Fiber, FiberSet, Option, type Scope, Stream } from "effect"
import type { ServiceUnavailable } from "../Domain/ApiError.js"
import type { TaskId } from "../Domain/Task.js"
import { epochMs, makeClockLook } from "../Domain/Time.js"
import type { ClaimedTask } from "../TaskStore.js"
import { type LiveState, type LiveTaskOptions, runTask } from "./LiveTask.js"

/** Live tasks of all classes together. */
const maxLive = 10_000
/** The wall clock is looked at this often, ms, for it can be set and its timers cannot. */
const maxSleepMs = 60_000

export interface CrewOptions extends Omit<LiveTaskOptions, "stopping" | "wakes"> {
  /** Tasks kept live per class. */
  readonly livePerClass: number
  /** How long running attempts may go on once the scope closes, ms. */
  readonly graceMs: number
}

/** The tasks that are alive in this process: claimed from the store, class by class, each a fiber of its own. */
export interface Crew {
  readonly stopping: () => boolean
  /** Tasks of these classes may be there to be claimed. */
  readonly queued: (classIds: Iterable<number>) => void
  /** Ends the wait of all tasks of a class, of those too that are just being parked. */
  readonly wake: (classId: number) => Effect.Effect<void, ServiceUnavailable>
  /** Nobody knows what was stored: all there is to claim and all that is due is read anew. */
  readonly doubt: () => void
  /** Something of the store is due at this instant, epoch ms. */
  readonly due: (at: number) => void
  /** Ends the fiber of a task that is no longer to be worked on; answers when its socket is closed. */
  readonly drop: (id: TaskId) => Effect.Effect<void>
}

interface Member {
  readonly fiber: Fiber.RuntimeFiber<unknown, unknown>
  readonly state: LiveState
}

/**
 * Keeps up to `livePerClass` tasks of each class alive, oldest first, so that a class whose platforms are blocked never
 * idles the others. It sleeps until it is told of work, a task leaves, or the store has something due.
 * When the scope closes nothing new is started, running attempts get their grace, and what is left is given back.
 */
export const makeCrew = (options: CrewOptions): Effect.Effect<Crew, ServiceUnavailable, Scope.Scope> =>
  Effect.gen(function* () {
    const { store } = options
    const fibers = yield* FiberSet.make<unknown, unknown>()
    /** Open while there is something to look at. */
    const signal = yield* Effect.makeLatch()
    const members = new Map<TaskId, Member>()
    const liveOf = new Map<number, number>()
    let live = 0
    let stopping = false
    /** Classes that may have something to claim. */
    const open = new Set<number>()
    let dueAt = Number.POSITIVE_INFINITY
    /** A step failed, so what is open and what is due has to be read from the store again. */
    let unsure = false
    const wakesOf = new Map<number, number>()
    const wakes = (classId: number): number => wakesOf.get(classId) ?? 0

    const queued = (classIds: Iterable<number>): void => {
      for (const classId of classIds) open.add(classId)
      signal.unsafeOpen()
    }

    const due = (at: number): void => {
      if (at >= dueAt) return
      dueAt = at
      signal.unsafeOpen()
    }

    const doubt = (): void => {
      unsure = true
      dueAt = Number.NEGATIVE_INFINITY
      signal.unsafeOpen()
    }

    /** Part of the tasks may be queued even where it fails. */
    const wakeStored = (classId: number) =>
      Effect.tapBoth(store.wakeClass(classId), {
        onFailure: () => Effect.sync(() => queued([classId])),
        onSuccess: (woken) => Effect.sync(() => (woken ? queued([classId]) : undefined))
      })

    const wake = (classId: number) =>
      Effect.suspend(() => {
        wakesOf.set(classId, wakes(classId) + 1)
        return Effect.asVoid(wakeStored(classId))
      })

    const enlist = (classId: number) => {
      const own: LiveTaskOptions = { ...options, stopping: () => stopping, wakes: () => wakes(classId) }
      return (task: ClaimedTask): Effect.Effect<void> => {
        const state: LiveState = { attempting: 0 }
        const life = Effect.flatMap(runTask(own, task, state), (left) => {
          switch (left._tag) {
            case "Gone":
              return Effect.void
            case "Queued":
              due(task.deadline)
              queued([classId])
              return Effect.void
            case "Branched":
              due(left.dueAt)
              queued(left.classIds)
              return Effect.void
            case "Parked":
              due(left.until)
              // Woken while it was written: whether that was before or after, nobody can say any more.
              return left.wakes === wakes(classId) ? Effect.void : Effect.ignore(wakeStored(classId))
          }
        })
        live += 1
        liveOf.set(classId, (liveOf.get(classId) ?? 0) + 1)
        // Claims are made where nothing interrupts; the task itself must be open to it.
        return Effect.map(FiberSet.run(fibers, Effect.interruptible(life)), (fiber) => {
          const member: Member = { fiber, state }
          members.set(task.id, member)
          fiber.addObserver(() => {
            live -= 1
            const rest = (liveOf.get(classId) ?? 1) - 1
            if (rest === 0) liveOf.delete(classId)
            else liveOf.set(classId, rest)
            if (members.get(task.id) === member) members.delete(task.id)
            signal.unsafeOpen()
          })
        })
      }
    }

    const claim = (classId: number) =>
      Effect.uninterruptible(
        Effect.gen(function* () {
          const room = Math.min(options.livePerClass - (liveOf.get(classId) ?? 0), maxLive - live)
          if (room <= 0) return
          open.delete(classId)
          const tasks = yield* Effect.tapError(store.claim(classId, room), () => Effect.sync(() => open.add(classId)))
          if (tasks.length === room) open.add(classId)
          yield* Effect.forEach(tasks, enlist(classId), { discard: true })
        })
      )

    /** Tasks wait for time to pass, not for a clock that was set back to come there again. */
    const followClock = yield* makeClockLook(() =>
      Effect.flatMap(store.classes, (classes) => Effect.forEach(classes, ({ id }) => wakeStored(id), { discard: true }))
    )

    const round = Effect.gen(function* () {
      if (unsure) {
        for (const { id } of yield* store.classes) open.add(id)
        unsure = false
      }
      yield* followClock
      if ((yield* epochMs) >= dueAt) {
        yield* store.expire
        for (const classId of yield* store.wakeDue) open.add(classId)
        dueAt = Number.POSITIVE_INFINITY
        Option.map(yield* store.nextInstant, due)
      }
      yield* Effect.forEach([...open], claim, { discard: true })
    })

    const rest = Effect.flatMap(epochMs, (now) =>
      signal.await.pipe(
        Effect.timeoutOption(Duration.millis(Math.min(maxSleepMs, Math.max(0, dueAt - now)))),
        Effect.map(() => signal.unsafeClose())
      )
    )

    const drop = (id: TaskId) =>
      Effect.suspend(() => {
        const member = members.get(id)
        return member === undefined ? Effect.void : Effect.asVoid(Fiber.interrupt(member.fiber))
      })

    yield* store.recover
    for (const { id } of yield* store.classes) open.add(id)
    Option.map(yield* store.nextInstant, due)

    const filler = yield* round.pipe(
      Effect.catchAllCause((cause) => {
        doubt()
        return Effect.zipRight(
          Effect.logError("Tasks could not be taken from the store", cause),
          Effect.sleep("1 second")
        )
      }),
      Effect.zipRight(rest),
      Effect.forever,
      Effect.interruptible,
      Effect.forkScoped
    )

    yield* Effect.forkScoped(Stream.runForEach(store.queued, (classId) => Effect.sync(() => queued([classId]))))
    yield* Effect.forkScoped(Stream.runForEach(store.dropped, drop))

    const stop = Effect.gen(function* () {
      stopping = true
      yield* Fiber.interrupt(filler)
      const idle = [...members.values()].filter((member) => member.state.attempting === 0)
      yield* Fiber.interruptAll(idle.map((member) => member.fiber))
      yield* Effect.timeoutOption(Effect.interruptible(FiberSet.awaitEmpty(fibers)), Duration.millis(options.graceMs))
    })
    yield* Effect.addFinalizer(() => stop)

    return {
      stopping: () => stopping,
      queued,
      wake,
      doubt,
      due,
      drop
    }
  })
