import { AsyncResource } from "node:async_hooks"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Array as Arr, Chunk, Clock, Duration, Effect, MutableRef, Schema, TestClock } from "effect"
import { TaskId, TaskState } from "../Domain/Task.js"

/** Turns of the event loop without any sign of work before all is taken to be at rest. */
const quietTurns = 2
/** Turns waited for that rest; beyond it the clock goes on, so that work without end cannot hold it up. */
const maxTurns = 100_000
/** Turns waited for work that makes timers, or asks the system for something, without a sleep by the test's clock. */
const maxStirredTurns = 100
/** A day, and what begins with the next one. */
const defaultHorizon = Duration.hours(25)
const defaultMaxSteps = 100_000
/** Unfinished tasks that a failure names. */
const maxNamed = 10

/** A task that has not ended. */
export class UnfinishedTask extends Schema.Class<UnfinishedTask>("UnfinishedTask")({
  id: TaskId,
  state: TaskState,
  /** What a waiting task waits for. */
  why: Schema.optional(Schema.String)
}) {}

/** Tasks were left unfinished where time was not to go on any further. */
export class NotIdle extends Schema.TaggedError<NotIdle>()("NotIdle", {
  message: Schema.String,
  /** `horizon`: it was reached. `steps`: so many sleeps ended before it. `stuck`: nothing sleeps, so nothing will happen. */
  reason: Schema.Literal("horizon", "steps", "stuck"),
  /** Epoch ms, by the test's clock. */
  at: Schema.Number,
  /** How many tasks have not ended, without those that wait for longer than the horizon. */
  unfinished: Schema.Int,
  /** The oldest ten of them. */
  tasks: Schema.Array(UnfinishedTask)
}) {}

export interface AdvanceOptions {
  /** How far the clock may be moved; 0 or more, and finite. Default 25 hours. */
  readonly horizon?: Duration.DurationInput | undefined
  /** Instants at which something may wake up before it is given up; 0 or more. Default 100,000. */
  readonly maxSteps?: number | undefined
}

export interface Advanced {
  /** By how much the clock was moved, ms. */
  readonly elapsedMs: number
  /** Instants at which something woke up. */
  readonly steps: number
  /** Tasks of the store by their state; those left to wait for longer than the horizon are `waiting`. */
  readonly tasks: Readonly<Partial<Record<TaskState, number>>>
}

const eventLoopChecked = Effect.async<void>((resume) => {
  const handle = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(handle))
})

const timerFired = Effect.withClock(Effect.sleep(0), Clock.make())

/** By both ways, because fibers that have run for long go on from a real timer, and others from the loop's check phase. */
const turn = Effect.zipRight(timerFired, eventLoopChecked)

/** Node numbers its timers, immediates and requests to the system one after the other; this takes the next number. */
const nextAsyncId = (): number => new AsyncResource("dream-team/testing").asyncId()

/**
 * Lets everything go on that can since `nextAsyncId` was `since`; answers with a later one. When the loop's check phase
 * comes, all that needs nothing but the processor is done. So another turn, with a timer in it, is waited for only where
 * somebody made a timer or asked the system for something: real timers are slow, and few sleeps end so.
 */
const calmed = (since: number) =>
  Effect.gen(function* () {
    let last = since
    // the immediate of the check phase, and the number itself
    let own = 2
    for (let turns = 0; turns < maxStirredTurns; turns++) {
      yield* eventLoopChecked
      const now = nextAsyncId()
      const isStirred = now - last > own
      last = now
      if (!isStirred) return last
      yield* timerFired
      own = 3
    }
    return last
  })

/** Who sleeps until when. */
const sleeping = Effect.map(TestClock.sleeps(), (sleeps) => Chunk.toReadonlyArray(sleeps).join(" "))

const lastEvent = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ readonly last: number | null }>`SELECT MAX(id) AS last FROM events`
  return Number(row?.last ?? 0)
})

/** What shows that something went on: who sleeps until when, and what was written. */
const signs = Effect.zipWith(lastEvent, sleeping, (last, sleeps) => `${last} ${sleeps}`)

/** Lets everything that can go on without the clock go on until nothing more does. */
export const settled: Effect.Effect<void, SqlError, SqlClient.SqlClient> = Effect.gen(function* () {
  let before = yield* signs
  for (let turns = 0, quiet = 0; quiet < quietTurns && turns < maxTurns; turns++) {
    yield* turn
    const now = yield* signs
    quiet = now === before ? quiet + 1 : 0
    before = now
  }
})

/**
 * Moves the clock from rest to `instant`, and lets everything go on that can. A `TestClock` waits for several real timers
 * before and after each sleep that it ends; in its place this waits by `calmed`, and before the first one not at all.
 */
const moveTo = (instant: number) =>
  TestClock.testClockWith((clock) => {
    const since = MutableRef.make(nextAsyncId())
    const isAtRest = MutableRef.make(true)
    const awaitSuspended = () =>
      Effect.suspend(() => {
        const isFirst = MutableRef.get(isAtRest)
        MutableRef.set(isAtRest, false)
        return isFirst
          ? Effect.void
          : Effect.map(calmed(MutableRef.get(since)), (last) => {
              MutableRef.set(since, last)
            })
      })
    const quick: TestClock.TestClock = Object.create(clock, { awaitSuspended: { value: awaitSuspended } })
    return quick.setTime(instant)
  })

/** Whether a task goes on by itself before `end`: it does not wait for others, and not for longer than that. */
const goesOnBefore = (row: OpenRow, end: number): boolean => row.state !== "waiting" || Number(row.wake_at) < end

interface OpenRow {
  readonly id: TaskId
  readonly state: TaskState
  readonly wake_at: number | null
  readonly waiting_why: string | null
  readonly job_id: string | null
  readonly held: number
  readonly blocked_by: number
}

/**
 * The tasks that have not ended and may do something before `end`, oldest first: all but those that wait until then or
 * longer, and those that wait for such tasks only.
 */
const unfinishedBefore = Effect.fnUntraced(function* (end: number) {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<OpenRow>`
    SELECT id, state, wake_at, waiting_why, job_id, held, blocked_by FROM tasks
    WHERE state IN ('queued', 'running', 'waiting') ORDER BY seq`
  const edges = yield* sql<{ readonly task_id: TaskId; readonly depends_on: TaskId }>`
    SELECT task_id, depends_on FROM dependencies
    WHERE is_open = 1 AND depends_on IN (SELECT id FROM tasks WHERE state IN ('queued', 'running', 'waiting'))`
  const dependencies = Arr.groupBy(edges, (edge) => edge.task_id)
  const takingTurns = Arr.groupBy(
    rows.filter((row) => row.held === 0),
    (row) => row.job_id ?? ""
  )
  const awaitedBy = ({ blocked_by, id, job_id }: OpenRow): ReadonlyArray<TaskId> =>
    blocked_by > 0
      ? (dependencies[id] ?? []).map((edge) => edge.depends_on)
      : (takingTurns[job_id ?? ""] ?? []).map((row) => row.id)

  const counted = new Set<TaskId>()
  const dependants: Array<readonly [TaskId, ReadonlyArray<TaskId>]> = []
  for (const row of rows) {
    const isDependant = row.state === "waiting" && (row.blocked_by > 0 || row.held === 1)
    const awaited = isDependant ? awaitedBy(row) : []
    if (awaited.length > 0) dependants.push([row.id, awaited])
    // What waits for others of which none is left is about to go on.
    else if (isDependant || goesOnBefore(row, end)) counted.add(row.id)
  }
  for (let before = -1; before !== counted.size; ) {
    before = counted.size
    for (const [id, awaited] of dependants) if (awaited.some((other) => counted.has(other))) counted.add(id)
  }
  return rows.filter(({ id }) => counted.has(id))
})

/** Whether no task is unfinished before `end`. Most that are can be told without looking at who waits for whom. */
const isIdleBefore = Effect.fnUntraced(function* (end: number) {
  const sql = yield* SqlClient.SqlClient
  const [busy] = yield* sql`
    SELECT 1 FROM tasks WHERE state IN ('queued', 'running')
      OR (state = 'waiting' AND blocked_by = 0 AND held = 0 AND wake_at < ${end})
    LIMIT 1`
  return busy === undefined && (yield* unfinishedBefore(end)).length === 0
})

const describe = ({ id, state, why }: UnfinishedTask): string => `${id} ${state}${why === undefined ? "" : ` (${why})`}`

const notIdle = Effect.fnUntraced(function* (reason: NotIdle["reason"], end: number, what: string) {
  const unfinished = yield* unfinishedBefore(end)
  const tasks = unfinished
    .slice(0, maxNamed)
    .map(({ id, state, waiting_why }) => new UnfinishedTask({ id, state, why: waiting_why ?? undefined }))
  const how = unfinished.length === 1 ? "1 task has" : `${unfinished.length} tasks have`
  const more = unfinished.length > tasks.length ? `; and ${unfinished.length - tasks.length} more` : ""
  return yield* new NotIdle({
    reason,
    at: yield* Clock.currentTimeMillis,
    unfinished: unfinished.length,
    tasks,
    message: `${what}, and ${how} not ended: ${tasks.map(describe).join("; ")}${more}`
  })
})

const isNegative = (input: Duration.DurationInput): boolean =>
  typeof input === "string"
    ? input.trim().startsWith("-")
    : Array.isArray(input)
      ? input.some((part: number) => part < 0)
      : (typeof input === "number" || typeof input === "bigint") && input < 0

/** `Duration` itself takes a negative one, and none at all, for 0. */
const horizonOf = (input: Duration.DurationInput): Duration.Duration => {
  const horizon = Duration.decode(input)
  if (!Number.isNaN(input) && !isNegative(input) && Duration.isFinite(horizon)) return horizon
  throw new RangeError(`The horizon is ${String(input)}: give a finite duration of 0 or more, such as "24 hours"`)
}

const maxStepsOf = (input: number): number => {
  if (Number.isSafeInteger(input) && input >= 0) return input
  throw new RangeError(`maxSteps is ${input}: give a whole number of 0 or more, such as 100000`)
}

/**
 * Moves the test clock from one sleep to the next until no task is queued, running, or waiting until an instant before
 * the horizon, and then no further. Needs a `TestClock`.
 *
 * Tasks that wait until the horizon or longer are left as they are, and so are tasks that wait (as dependants, or for
 * their turn in a job) for nothing but such tasks: they are among the `waiting` ones of the result. Whatever is periodic
 * (health checks, saved books, retention) goes on meanwhile and is not waited for. Neither is what goes on outside of the
 * process (sockets, files) beyond a few turns of the event loop, because the clock cannot know of it.
 *
 * Fails with `NotIdle` where the horizon or the last step is reached with tasks unfinished, or where nothing sleeps. Dies
 * of a horizon that is negative or infinite, and of `maxSteps` that are no whole number of 0 or more.
 */
export const advanceUntilIdle = Effect.fn("Testing.advanceUntilIdle")(function* (options: AdvanceOptions = {}) {
  const horizon = horizonOf(options.horizon ?? defaultHorizon)
  const maxSteps = maxStepsOf(options.maxSteps ?? defaultMaxSteps)
  const start = yield* Clock.currentTimeMillis
  const end = start + Duration.toMillis(horizon)
  yield* settled
  let last = -1
  for (let steps = 0; ; steps++) {
    // A task that ends, or begins to wait, writes an event; as long as there is no new one, there is nothing to count.
    const now = yield* lastEvent
    if (now !== last) {
      if (steps > 0) yield* settled
      last = yield* lastEvent
      if (yield* isIdleBefore(end)) {
        const sql = yield* SqlClient.SqlClient
        const rows = yield* sql<{ readonly state: TaskState; readonly count: number }>`
          SELECT state, COUNT(*) AS count FROM tasks GROUP BY state ORDER BY state`
        const advanced: Advanced = {
          elapsedMs: (yield* Clock.currentTimeMillis) - start,
          steps,
          tasks: Object.fromEntries(rows.map(({ count, state }) => [state, Number(count)]))
        }
        return advanced
      }
    }
    const sleeps = Chunk.toReadonlyArray(yield* TestClock.sleeps())
    if (sleeps.length === 0) return yield* notIdle("stuck", end, "Nothing sleeps")
    if (steps === maxSteps) return yield* notIdle("steps", end, `The clock was moved ${steps} times`)
    const next = sleeps.reduce((earliest, at) => Math.min(earliest, at))
    if (next > end) {
      yield* TestClock.setTime(end)
      return yield* notIdle("horizon", end, `The horizon of ${Duration.format(horizon)} is reached`)
    }
    yield* moveTo(next)
  }
})
