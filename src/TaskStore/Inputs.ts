import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Effect, Option, Schema } from "effect"
import { estimateInputTokens, type Message, textTokens } from "../Domain/Call.js"
import { type JobId, TaskError, type TaskId, TaskResult, type TaskState } from "../Domain/Task.js"
import { jsonColumn } from "../Sql/jsonColumn.js"
import type { StoredRequest } from "./Rows.js"

/** What the results of earlier tasks may add to a call that says nothing of it, tokens. */
const defaultRoom = 32_000
/** Results looked at; of more than these the latest. */
const maxSources = 200
/** A result that would get less than this is left out, tokens. */
const minShare = 50
/** Reserved in each share for the words around a result, tokens. */
const frame = 80

/** A task that was claimed, as far as its inputs go. */
export interface Dependant {
  readonly id: TaskId
  readonly jobId: JobId | null
  readonly position: number | null
  /** Whether it names tasks whose results it sees. */
  readonly depends: boolean
  /** Whether it sees the results of all such tasks before it in its job. */
  readonly chained: boolean
}

interface Source {
  readonly seq: number
  readonly id: TaskId
  readonly name: string | null
  readonly preview: string
  readonly state: TaskState
  /** Of its result, bytes: the length in characters would take reading all of it. */
  readonly size: number | null
}

const sourceColumns = "seq, id, name, preview, state, OCTET_LENGTH(result) AS size"

const decodeResult = Schema.decodeOption(jsonColumn(TaskResult))
const decodeError = Schema.decodeOption(jsonColumn(TaskError))

/** The largest share of `room` by which all get what they want or that share. */
const fairShare = (wanted: ReadonlyArray<number>, room: number): number => {
  let left = room
  let share = 0
  const sorted = [...wanted].sort((a, b) => a - b)
  for (const [index, want] of sorted.entries()) {
    share = left / (sorted.length - index)
    if (want > share) return share
    left -= want
  }
  return Number.POSITIVE_INFINITY
}

/** The start of a text that has at most so many tokens, and says that it was cut. */
export const cutToTokens = (text: string, tokens: number): string => {
  const whole = textTokens(text)
  if (whole <= tokens) return text
  let length = Math.floor((text.length * tokens) / whole)
  while (length > 0 && textTokens(text.slice(0, length)) > tokens) length = Math.floor(length * 0.9)
  const start = text.slice(0, length).replace(/[\uD800-\uDBFF]$/, "")
  return `${start}\n[cut here: these are the first ${start.length} of ${text.length} characters]`
}

const outcomeOf = (state: TaskState, result: string | null, error: string | null): string => {
  const answer = Option.getOrUndefined(decodeResult(result ?? ""))
  if (answer !== undefined) {
    const calls = answer.toolCalls === undefined ? "" : JSON.stringify(answer.toolCalls)
    return [answer.text, calls].filter((part) => part !== "").join("\n") || "(an empty answer)"
  }
  const message = Option.match(decodeError(error ?? ""), { onNone: () => "", onSome: (known) => `: ${known.message}` })
  return `(There is no result: the task ${state === "cancelled" ? "was cancelled" : state}${message})`
}

/**
 * A task's request with the results of the tasks it waited for as the start of its conversation, oldest first. All of
 * them together keep to the request's room: what does not fit is cut, the longest first, and it is said where.
 */
export const makeWithInputs = (
  sql: SqlClient.SqlClient,
  /** Lets everything else that is ready have its turn. */
  turn: Effect.Effect<void>
): ((task: Dependant, request: StoredRequest) => Effect.Effect<StoredRequest, SqlError>) => {
  const sourcesOf = (task: Dependant) =>
    Effect.gen(function* () {
      const named = task.depends
        ? yield* sql<Source>`
            SELECT ${sql.literal(sourceColumns)} FROM tasks
            WHERE id IN (SELECT depends_on FROM dependencies WHERE task_id = ${task.id})
              AND (parent_id IS NULL OR parent_id <> ${task.id})
            ORDER BY seq DESC LIMIT ${maxSources + 1}`
        : []
      const before =
        task.chained && task.jobId !== null && task.position !== null
          ? yield* sql<Source>`
              SELECT ${sql.literal(sourceColumns)} FROM tasks
              WHERE job_id = ${task.jobId} AND chained = 1 AND position < ${task.position}
              ORDER BY position DESC LIMIT ${maxSources + 1}`
          : []
      const unique = new Map([...before, ...named].map((source) => [source.id, source]))
      return [...unique.values()].sort((a, b) => a.seq - b.seq)
    })

  const turnsOf = (source: Source, share: number): Effect.Effect<ReadonlyArray<Message>, SqlError> =>
    Effect.map(
      sql<{ readonly result: string | null; readonly error: string | null }>`
        SELECT result, error FROM tasks WHERE id = ${source.id}`,
      ([row]) => [
        { role: "user", content: `Earlier task ${source.name ?? source.id}: ${source.preview}` },
        {
          role: "assistant",
          content: cutToTokens(outcomeOf(source.state, row?.result ?? null, row?.error ?? null), share - frame)
        }
      ]
    )

  return (task, request) =>
    Effect.gen(function* () {
      const sources = yield* sourcesOf(task)
      if (sources.length === 0) return request
      const room = request.roomTokens ?? defaultRoom
      const fitting = Math.min(maxSources, Math.floor(room / (frame + minShare)))
      const taken = fitting === 0 ? [] : sources.slice(-fitting)
      const share = fairShare(
        // Rather too much: JSON is longer than its text.
        taken.map((source) => frame + (source.size ?? 0)),
        room
      )
      // One at a time, so that no more is held than what is kept; and a large one takes a while to be read and cut.
      const turns = (yield* Effect.forEach(taken, (source) =>
        Effect.zipLeft(turnsOf(source, Math.min(share, frame + Math.max(minShare, source.size ?? 0))), turn)
      )).flat()
      const note: ReadonlyArray<Message> =
        taken.length === sources.length
          ? []
          : [
              {
                role: "user",
                content: "Results of earlier tasks follow. Older ones are left out: they would not fit."
              },
              { role: "assistant", content: "Understood." }
            ]
      const [first, ...others] = [...note, ...turns, ...request.call.messages]
      if (first === undefined) return request
      const call = { ...request.call, messages: [first, ...others] as const }
      const inputTokens = estimateInputTokens(call)
      const outputTokens =
        request.requirement.outputTokens ?? request.requirement.contextTokens - (request.requirement.inputTokens ?? 0)
      return {
        ...request,
        call,
        requirement: { ...request.requirement, inputTokens, contextTokens: inputTokens + outputTokens }
      }
    })
}
