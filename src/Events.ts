import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type { Fragment } from "@effect/sql/Statement"
import {
  Array as Arr,
  Chunk,
  Context,
  Effect,
  Layer,
  Option,
  type ParseResult,
  PubSub,
  Queue,
  type Scope,
  Stream
} from "effect"
import { InvalidRequest } from "./Domain/ApiError.js"
import {
  JobEventBody,
  KeyEventBody,
  mayBeLast,
  PlatformEventBody,
  type ServiceEvent,
  type TaskEvent,
  TaskEventBody
} from "./Domain/Event.js"
import type { PlatformId } from "./Domain/Platform.js"
import { SessionEventBody, type SessionId } from "./Domain/Session.js"
import { isTerminal, type JobId, type TaskId, type TaskState, type TenantId } from "./Domain/Task.js"
import * as Tail from "./Events/Tail.js"
import { type Belonging, type EventFilter, matches, type TailEntry } from "./Events/Tail.js"
import { inTurn } from "./Sql/inTurn.js"
import { decodeColumn } from "./Sql/jsonColumn.js"
import { SqlWriter, type Steps } from "./Sql/Writer.js"
import { supervised } from "./Telemetry/supervised.js"

export type { EventFilter } from "./Events/Tail.js"

/** Events of one task read from the store at once. */
const pageSize = 100
/** Rows looked at by one read of what a reader of all events asks for, so that no read holds others up. */
const scanSize = 500

const decodeBody = decodeColumn(TaskEventBody)
const decodeJobBody = decodeColumn(JobEventBody)
const decodePlatformBody = decodeColumn(PlatformEventBody)
const decodeKeyBody = decodeColumn(KeyEventBody)
const decodeSessionBody = decodeColumn(SessionEventBody)

interface Row {
  readonly id: number
  readonly at: number
  readonly body: string
}

interface AnyRow extends Row, Belonging {}

interface Watched {
  readonly signals: PubSub.PubSub<void>
  readers: number
}

/** A reader of all events. While it waits, what it does not ask for is skipped for it. */
interface Follower {
  readonly filter: EventFilter
  /** Everything up to this event was read, or is not asked for. */
  position: number
  isWaiting: boolean
  readonly news: Effect.Latch
}

/** Events of a task or a job in the write that stores them. */
export type StoredEvents = { readonly at: number } & (
  | { readonly kind: "task"; readonly id: TaskId; readonly bodies: ReadonlyArray<TaskEventBody> }
  | {
      readonly kind: "job"
      readonly id: JobId
      readonly tenant: TenantId
      readonly bodies: ReadonlyArray<JobEventBody>
    }
)

/** Whose the events of a task are, as its row says. */
export interface TaskBelonging {
  readonly id: TaskId
  readonly tenant: TenantId
  readonly job_id: JobId | null
}

/** An event of a platform before it is stored. */
export interface NewPlatformEvent {
  readonly platform: PlatformId
  /** Epoch ms. */
  readonly at: number
  readonly body: PlatformEventBody
}

const decodeRow = ({
  at,
  body,
  id,
  job_id,
  platform,
  session_id,
  task_id,
  tenant
}: AnyRow): Effect.Effect<ServiceEvent, ParseResult.ParseError> => {
  if (platform !== null) return Effect.map(decodePlatformBody(body), (known) => ({ ...known, id, platform, at }))
  if (session_id !== null) {
    return Effect.map(decodeSessionBody(body), (known) => ({ ...known, id, sessionId: session_id, at }))
  }
  if (task_id !== null) return Effect.map(decodeBody(body), (known) => ({ ...known, id, taskId: task_id, at }))
  if (job_id !== null) return Effect.map(decodeJobBody(body), (known) => ({ ...known, id, jobId: job_id, at }))
  return tenant === null
    ? Effect.dieMessage("an event that belongs to nobody")
    : Effect.map(decodeKeyBody(body), (known) => ({ ...known, id, tenant, at }))
}

/** What another version has written is passed over: no row may keep readers from those after it. */
const readable = (row: AnyRow): Effect.Effect<ServiceEvent | undefined> =>
  Effect.catchAll(decodeRow(row), (error) =>
    Effect.as(
      Effect.logWarning(`The event ${row.id} cannot be read and is passed over`, error.message.slice(0, 500)),
      undefined
    )
  )

/**
 * What happened to tasks, jobs, platforms and sessions, stored and live. The store is the truth: a reader is only told that there
 * is more to read, so a slow one loses nothing and holds nobody up.
 */
export class Events extends Context.Tag("dream-team/Events")<
  Events,
  {
    /** Stores a task's events in order, inside the write of what they tell of; its commit wakes their readers. */
    readonly append: (taskId: TaskId, at: number, bodies: ReadonlyArray<TaskEventBody>) => Effect.Effect<void, SqlError>
    /** The same where it is known whose the task is. */
    readonly appendOf: (task: TaskBelonging, at: number, bodies: ReadonlyArray<TaskEventBody>) => Steps<void>
    /** The same for a job. */
    readonly appendJob: (
      jobId: JobId,
      tenant: TenantId,
      at: number,
      bodies: ReadonlyArray<JobEventBody>
    ) => Effect.Effect<void, SqlError>
    /** The same for an API key. */
    readonly appendKey: (
      tenant: TenantId,
      at: number,
      bodies: ReadonlyArray<KeyEventBody>
    ) => Effect.Effect<void, SqlError>
    /** The same for platforms: they are everybody's. */
    readonly appendPlatform: (events: ReadonlyArray<NewPlatformEvent>) => Effect.Effect<void, SqlError>
    /** The same for a Claude Code session: they are everybody's, as platforms are. */
    readonly appendSession: (
      sessionId: SessionId,
      at: number,
      bodies: ReadonlyArray<SessionEventBody>
    ) => Effect.Effect<void, SqlError>
    /** Makes `step` part of every write that stores events of a task or a job, for as long as the scope. */
    readonly onStored: (
      step: (stored: StoredEvents) => Effect.Effect<void, SqlError>
    ) => Effect.Effect<void, never, Scope.Scope>
    /**
     * A task's events after `after`, then those to come; ends once the task has ended and all was read. Refuses an `after`
     * that no event of this database ever had, whether it is kept or not.
     */
    readonly stream: (
      taskId: TaskId,
      after: number
    ) => Effect.Effect<Stream.Stream<TaskEvent, SqlError>, InvalidRequest | SqlError>
    /** The id of the newest event stored; 0 where there is none. */
    readonly newest: Effect.Effect<number, SqlError>
    /**
     * The events a filter asks for after the event `after` (0: from the oldest kept), and those to come, in the order of
     * their ids. Ends with its scope only. Refuses an `after` that no event of this database ever had, as `stream` does.
     */
    readonly follow: (
      filter: EventFilter,
      after: number
    ) => Effect.Effect<Stream.Stream<ServiceEvent, SqlError>, InvalidRequest | SqlError>
  }
>() {
  static readonly layer: Layer.Layer<Events, never, SqlClient.SqlClient | SqlWriter> = Layer.scoped(
    Events,
    Effect.suspend(() => make)
  )
}

const make: Effect.Effect<Events["Type"], never, SqlClient.SqlClient | SqlWriter | Scope.Scope> = Effect.gen(
  function* () {
    const sql = yield* SqlClient.SqlClient
    const writer = yield* SqlWriter
    const watched = new Map<TaskId, Watched>()
    /** Tasks with events that their readers were not told of yet; one too many does no harm. */
    const touched = new Set<TaskId>()
    const followers = new Set<Follower>()
    const stored = yield* Effect.makeLatch(false)

    const wakeReaders = Effect.suspend(() => {
      const signals: Array<PubSub.PubSub<void>> = []
      for (const taskId of touched) {
        const entry = watched.get(taskId)
        if (entry !== undefined) signals.push(entry.signals)
      }
      touched.clear()
      if (followers.size > 0) stored.unsafeOpen()
      return inTurn(signals, (signal) => PubSub.publish(signal, undefined))
    })

    const watch = (taskId: TaskId) =>
      Effect.acquireRelease(
        Effect.map(PubSub.sliding<void>(1), (signals) => {
          const entry = watched.get(taskId) ?? { signals, readers: 0 }
          entry.readers += 1
          watched.set(taskId, entry)
          return entry
        }),
        (entry) =>
          Effect.sync(() => {
            entry.readers -= 1
            if (entry.readers === 0) watched.delete(taskId)
          })
      ).pipe(Effect.flatMap((entry) => PubSub.subscribe(entry.signals)))

    /** The next page, and whether the task had ended with it. */
    const read = (taskId: TaskId, after: number) =>
      Effect.gen(function* () {
        // The state is read first: whatever is stored between the two reads is then part of the page.
        const [task] = yield* sql<{ readonly state: TaskState }>`SELECT state FROM tasks WHERE id = ${taskId}`
        const rows = yield* sql<Row>`
          SELECT id, at, body FROM events WHERE task_id = ${taskId} AND id > ${after} ORDER BY id LIMIT ${pageSize}`
        const events = yield* Effect.forEach(rows, (row) =>
          Effect.map(decodeBody(row.body), (body): TaskEvent => ({ ...body, id: row.id, at: row.at, taskId }))
        ).pipe(Effect.orDie)
        const last = events.at(-1)
        const full = events.length === pageSize
        const over = (task === undefined || isTerminal(task.state)) && (last === undefined || mayBeLast(last))
        return { events, last, full, ended: over && !full }
      })

    const streamOf = (taskId: TaskId, after: number): Stream.Stream<TaskEvent, SqlError> =>
      Stream.unwrapScoped(
        Effect.map(watch(taskId), (signals) =>
          Stream.paginateChunkEffect({ after, wait: false }, (from) =>
            Effect.gen(function* () {
              if (from.wait) yield* Queue.take(signals)
              const page = yield* read(taskId, from.after)
              return [
                Chunk.unsafeFromArray(page.events),
                page.ended ? Option.none() : Option.some({ after: page.last?.id ?? from.after, wait: !page.full })
              ]
            })
          )
        )
      )

    const anyColumns = sql.literal("id, tenant, task_id, job_id, platform, session_id, type, at, body")

    const newest = Effect.map(
      sql<{ readonly id: number | null }>`SELECT MAX(id) AS id FROM events`,
      ([row]) => row?.id ?? 0
    )

    /** The greatest id that an event has had, also of those no longer kept; 0 where there was none. */
    const greatest = Effect.map(
      sql.onDialectOrElse({
        pg: () => sql<{ readonly id: number | null }>`
          SELECT last_value AS id FROM pg_sequences
          WHERE format('%I.%I', schemaname, sequencename) = pg_get_serial_sequence('events', 'id')`,
        orElse: () => sql<{ readonly id: number | null }>`SELECT seq AS id FROM sqlite_sequence WHERE name = 'events'`
      }),
      ([row]) => row?.id ?? 0
    )

    /** An id from elsewhere would be waited for in silence until the ids here have grown beyond it. */
    const known = (after: number): Effect.Effect<void, InvalidRequest | SqlError> =>
      after === 0
        ? Effect.void
        : Effect.flatMap(greatest, (id) => {
            if (after <= id) return Effect.void
            const newest = id === 0 ? "it has had none" : `the newest is ${id}`
            return new InvalidRequest({
              message:
                `This database has no event ${after} to go on after: ${newest}. The id is of another database, or of ` +
                "this one before it was restored. Begin with after=0 (the oldest kept), or without an id",
              problems: [{ field: "after", problem: `there is no event ${after}: ${newest}` }]
            })
          })

    // What has followers is read once for all of them.
    let tail = Tail.make(0)

    /** Adds to the tail what was committed since, and wakes the followers that ask for it. */
    const followStore = Effect.gen(function* () {
      let isMore = followers.size > 0
      while (isMore) {
        const current = tail
        const rows = yield* sql<AnyRow>`
          SELECT ${anyColumns} FROM events WHERE id > ${tail.last()} ORDER BY id LIMIT ${scanSize}`
        const added = rows.map((row): TailEntry => ({ ...row }))
        // Begun anew meanwhile: what was read belongs to those who have left.
        if (tail !== current) continue
        tail.add(added)
        for (const follower of followers) {
          if (!follower.isWaiting) continue
          if (added.some((entry) => matches(follower.filter, entry))) follower.news.unsafeOpen()
          else follower.position = Math.max(follower.position, tail.last())
        }
        isMore = rows.length === scanSize
        if (isMore) yield* Effect.yieldNow()
      }
    })

    yield* supervised(
      "The latest events could not be read",
      stored.await.pipe(
        Effect.zipRight(Effect.sync(() => stored.unsafeClose())),
        Effect.zipRight(followStore),
        Effect.forever
      )
    )

    const startFollowing = (filter: EventFilter, after: number) =>
      Effect.acquireRelease(
        Effect.gen(function* () {
          const start = yield* newest
          const news = yield* Effect.makeLatch(false)
          // The tail stands still while nobody follows, so the first follower begins it anew.
          if (followers.size === 0) tail = Tail.make(start)
          const follower: Follower = { filter, position: after, isWaiting: false, news }
          followers.add(follower)
          // What was committed since the newest was read was announced to others only.
          stored.unsafeOpen()
          return follower
        }),
        (follower) =>
          Effect.sync(() => {
            followers.delete(follower)
          })
      )

    /** What of the store a filter may ask for, after an event; by an index, and never more than one scan. */
    const storedAfter = ({ job, kind, platform, session, task, tenant }: EventFilter, after: number) => {
      const scan = (whose: Fragment) =>
        sql<AnyRow>`SELECT ${anyColumns} FROM events WHERE ${whose} AND id > ${after} ORDER BY id LIMIT ${scanSize}`
      if (task !== undefined) return scan(sql`task_id = ${task}`)
      if (job !== undefined) return scan(sql`job_id = ${job}`)
      if (platform !== undefined) return scan(sql`platform = ${platform}`)
      if (session !== undefined) return scan(sql`session_id = ${session}`)
      const own = scan(sql`tenant = ${tenant}`)
      if (kind !== undefined && kind !== "platform" && kind !== "session") return own
      const everybodys = scan(sql`tenant IS NULL`)
      if (kind !== undefined) return everybodys
      return sql<AnyRow>`
        SELECT * FROM (${own}) AS own UNION ALL SELECT * FROM (${everybodys}) AS everybodys
        ORDER BY id LIMIT ${scanSize}`
    }

    /** Each event of the tail is read once, whoever follows it, and not at all where nobody does. */
    const readOnce = (entry: TailEntry): Effect.Effect<ServiceEvent | null> =>
      entry.read === undefined
        ? Effect.map(readable(entry), (event) => {
            entry.read = event ?? null
            return entry.read
          })
        : Effect.succeed(entry.read)

    const fromTail = (follower: Follower) =>
      Effect.suspend(() => {
        const entries = tail.after(follower.position, scanSize)
        follower.position = entries.at(-1)?.id ?? follower.position
        return Effect.map(
          Effect.forEach(
            entries.filter((entry) => matches(follower.filter, entry)),
            readOnce
          ),
          (events) => events.flatMap((event) => event ?? [])
        )
      })

    const fromStore = (follower: Follower) =>
      Effect.gen(function* () {
        // Whatever is in the tail by now is committed, so the store shows it.
        const known = tail.last()
        const rows = yield* storedAfter(follower.filter, follower.position)
        const events = yield* Effect.forEach(
          rows.filter((row) => matches(follower.filter, row)),
          readable
        )
        const last = rows.at(-1)?.id ?? follower.position
        follower.position = rows.length < scanSize ? Math.max(last, known) : last
        return events.flatMap((event) => event ?? [])
      })

    /** The next events of a follower; waits until there are some. */
    const next = (follower: Follower): Effect.Effect<Chunk.Chunk<ServiceEvent>, SqlError> =>
      Effect.gen(function* () {
        while (true) {
          follower.isWaiting = false
          const events = yield* tail.reaches(follower.position) ? fromTail(follower) : fromStore(follower)
          if (events.length > 0) return Chunk.unsafeFromArray([...events])
          if (follower.position < tail.last()) {
            yield* Effect.yieldNow()
            continue
          }
          // Nothing runs between the look at the tail and here, so nothing that is added to it is missed.
          follower.news.unsafeClose()
          follower.isWaiting = true
          yield* follower.news.await
        }
      })

    const followed = (filter: EventFilter, after: number): Stream.Stream<ServiceEvent, SqlError> =>
      Stream.unwrapScoped(
        Effect.map(startFollowing(filter, after), (follower) => Stream.repeatEffectChunk(next(follower)))
      )

    const steps = new Set<(stored: StoredEvents) => Effect.Effect<void, SqlError>>()
    function* inWrite(stored: StoredEvents): Steps<void> {
      for (const step of steps) yield* step(stored)
    }

    const afterwards = writer.afterCommit(wakeReaders)

    function* appendOf(
      { id, job_id, tenant }: TaskBelonging,
      at: number,
      bodies: ReadonlyArray<TaskEventBody>
    ): Steps<void> {
      if (bodies.length === 0) return
      touched.add(id)
      yield* afterwards
      for (const body of bodies) {
        // One text, however many there are: it is compiled once, by us and by the database.
        yield* sql`
          INSERT INTO events (tenant, job_id, task_id, type, at, body)
          VALUES (${tenant}, ${job_id}, ${id}, ${body.type}, ${at}, ${JSON.stringify(body)})`
      }
      yield* inWrite({ kind: "task", id, at, bodies })
    }

    const rowOf = (
      whose: Readonly<Record<string, string>>,
      at: number,
      body: JobEventBody | KeyEventBody | PlatformEventBody | SessionEventBody
    ) => ({ ...whose, type: body.type, at: Math.round(at), body: JSON.stringify(body) })

    const insertRows = (rows: ReadonlyArray<ReturnType<typeof rowOf>>): Effect.Effect<void, SqlError> =>
      rows.length === 0
        ? Effect.void
        : Effect.zipRight(
            afterwards,
            inTurn(Arr.chunksOf(rows, pageSize), (some) => sql`INSERT INTO events ${sql.insert(some)}`)
          )

    return {
      append: Effect.fnUntraced(function* (taskId, at, bodies) {
        const [task] = yield* sql<TaskBelonging>`SELECT id, tenant, job_id FROM tasks WHERE id = ${taskId}`
        if (task !== undefined) yield* appendOf(task, at, bodies)
      }),
      appendOf,
      appendJob: Effect.fnUntraced(function* (jobId, tenant, at, bodies) {
        if (bodies.length === 0) return
        yield* insertRows(bodies.map((body) => rowOf({ tenant, job_id: jobId }, at, body)))
        yield* inWrite({ kind: "job", id: jobId, tenant, at, bodies })
      }),
      appendKey: (tenant, at, bodies) => insertRows(bodies.map((body) => rowOf({ tenant }, at, body))),
      appendPlatform: (events) => insertRows(events.map(({ at, body, platform }) => rowOf({ platform }, at, body))),
      appendSession: (session_id, at, bodies) => insertRows(bodies.map((body) => rowOf({ session_id }, at, body))),
      onStored: (step) =>
        Effect.acquireRelease(
          Effect.sync(() => steps.add(step)),
          () => Effect.sync(() => steps.delete(step))
        ).pipe(Effect.asVoid),
      stream: (taskId, after) => Effect.map(known(after), () => streamOf(taskId, after)),
      newest,
      follow: (filter, after) => Effect.map(known(after), () => followed(filter, after))
    }
  }
)
