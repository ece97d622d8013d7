import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Chunk, Context, Effect, Layer, Option, PubSub, Queue, Schema, Stream } from "effect"
import { isFinal, type TaskEvent, TaskEventBody } from "./Domain/Event.js"
import { isTerminal, type TaskId, type TaskState } from "./Domain/Task.js"
import { SqlWriter } from "./Sql/Writer.js"

/** Events read from the store at once. */
const pageSize = 100

const decodeBody = Schema.decodeUnknown(Schema.parseJson(Schema.typeSchema(TaskEventBody)))

interface Row {
  readonly id: number
  readonly at: number
  readonly body: string
}

interface Watched {
  readonly signals: PubSub.PubSub<void>
  readers: number
}

/**
 * What happened to tasks, stored and live. The store is the truth: a reader is only told that there is more to read,
 * so a slow one loses nothing and holds nobody up.
 */
export class Events extends Context.Tag("dream-team/Events")<
  Events,
  {
    /** Stores a task's events in order, inside the write of what they tell of; its commit wakes their readers. */
    readonly append: (taskId: TaskId, at: number, bodies: ReadonlyArray<TaskEventBody>) => Effect.Effect<void, SqlError>
    /** A task's events after `after`, then those to come; ends once the task has ended and all was read. */
    readonly stream: (taskId: TaskId, after: number) => Stream.Stream<TaskEvent, SqlError>
  }
>() {
  static readonly layer: Layer.Layer<Events, never, SqlClient.SqlClient | SqlWriter> = Layer.effect(
    Events,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const writer = yield* SqlWriter
      const watched = new Map<TaskId, Watched>()
      /** Tasks with events that their readers were not told of yet; one too many does no harm. */
      const touched = new Set<TaskId>()
      const wakeReaders = Effect.suspend(() => {
        const tasks = [...touched]
        touched.clear()
        return Effect.forEach(
          tasks,
          (taskId) => {
            const entry = watched.get(taskId)
            return entry === undefined ? Effect.void : PubSub.publish(entry.signals, undefined)
          },
          { discard: true }
        )
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
          const over = (task === undefined || isTerminal(task.state)) && (last === undefined || isFinal(last))
          return { events, last, full, ended: over && !full }
        })

      const stream = (taskId: TaskId, after: number): Stream.Stream<TaskEvent, SqlError> =>
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

      return {
        append: (taskId, at, bodies) =>
          bodies.length === 0
            ? Effect.void
            : Effect.suspend(() => {
                touched.add(taskId)
                return Effect.zipRight(
                  writer.afterCommit(wakeReaders),
                  sql`INSERT INTO events ${sql.insert(
                    bodies.map((body) => ({ task_id: taskId, at, body: JSON.stringify(body) }))
                  )}`
                )
              }),
        stream
      }
    })
  )
}
