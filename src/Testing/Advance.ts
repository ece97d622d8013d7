import { AsyncResource } from "node:async_hooks"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Chunk, Clock, Duration, Effect, MutableRef, Schema, TestClock } from "effect"
import { TaskId, TaskState } from "../Domain/Task.js"

/** Turns of the event loop without any sign of work before all is taken to be at rest. */
const quietTurns = 2
/** Turns waited for that rest; beyond it the clock goes on, so that work without end cannot hold it up. */
const maxTurns = 100_000
/** Turns waited for work that makes timers, or asks the system for something, without a sleep by the test's clock. */
const maxStirredTurns = 100
const defaultHorizon = Duration.hours(24)
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
  unfinished: Schema.Int,
  /** The oldest ten of them. */
  tasks: Schema.Array(UnfinishedTask)
}) {}

export interface AdvanceOptions {
  /** How far the clock may be moved. Default 24 hours. */
  readonly horizon?: Duration.DurationInput | undefined
  /** Instants at which something may wake up before it is given up. Default 100,000. */
  readonly maxSteps?: number | undefined
}

export interface Advanced {
  /** By how much the clock was moved, ms. */
  readonly elapsedMs: number
  /** Instants at which something woke up. */
  readonly steps: number
  /** Tasks of the store by their final state. */
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
      Effect.suspend(() =>
        MutableRef.get(isAtRest)
          ? Effect.sync(() => MutableRef.set(isAtRest, false))
          : Effect.map(calmed(MutableRef.get(since)), (last) => MutableRef.set(since, last))
      )
    const quick: TestClock.TestClock = Object.create(clock, { awaitSuspended: { value: awaitSuspended } })
    return quick.setTime(instant)
  })

interface Row {
  readonly id: TaskId
  readonly state: TaskState
  readonly waiting_why: string | null
}

const unfinishedCount = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ readonly count: number }>`
    SELECT COUNT(*) AS count FROM tasks WHERE state IN ('queued', 'running', 'waiting')`
  return Number(row?.count ?? 0)
})

const describe = ({ id, state, why }: UnfinishedTask): string => `${id} ${state}${why === undefined ? "" : ` (${why})`}`

const notIdle = (reason: NotIdle["reason"], what: string) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const rows = yield* sql<Row>`
      SELECT id, state, waiting_why FROM tasks WHERE state IN ('queued', 'running', 'waiting')
      ORDER BY seq LIMIT ${maxNamed}`
    const unfinished = yield* unfinishedCount
    const tasks = rows.map(
      ({ id, state, waiting_why }) => new UnfinishedTask({ id, state, why: waiting_why ?? undefined })
    )
    const more = unfinished > tasks.length ? `; and ${unfinished - tasks.length} more` : ""
    return yield* new NotIdle({
      reason,
      at: yield* Clock.currentTimeMillis,
      unfinished,
      tasks,
      message: `${what}, and ${unfinished} tasks have not ended: ${tasks.map(describe).join("; ")}${more}`
    })
  })

/**
 * Moves the test clock from one sleep to the next until no task is queued, running or waiting. Whatever is periodic
 * (health checks, saved books, retention) goes on meanwhile and is not waited for. Needs a `TestClock`.
 */
export const advanceUntilIdle = Effect.fn("Testing.advanceUntilIdle")(function* (options: AdvanceOptions = {}) {
  const horizon = Duration.decode(options.horizon ?? defaultHorizon)
  const maxSteps = options.maxSteps ?? defaultMaxSteps
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
      if ((yield* unfinishedCount) === 0) {
        const sql = yield* SqlClient.SqlClient
        const rows = yield* sql<{ readonly state: TaskState; readonly count: number }>`
          SELECT state, COUNT(*) AS count FROM tasks GROUP BY state ORDER BY state`
        return {
          elapsedMs: (yield* Clock.currentTimeMillis) - start,
          steps,
          tasks: Object.fromEntries(rows.map(({ count, state }) => [state, Number(count)]))
        } satisfies Advanced
      }
    }
    const sleeps = Chunk.toReadonlyArray(yield* TestClock.sleeps())
    if (sleeps.length === 0) return yield* notIdle("stuck", "Nothing sleeps")
    if (steps === maxSteps) return yield* notIdle("steps", `The clock was moved ${steps} times`)
    const next = sleeps.reduce((earliest, at) => Math.min(earliest, at))
    if (next > end) {
      yield* TestClock.setTime(end)
      return yield* notIdle("horizon", `${Duration.format(horizon)} have passed`)
    }
    yield* moveTo(next)
  }
})
