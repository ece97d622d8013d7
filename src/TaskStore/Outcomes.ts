import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Effect, Option, type ParseResult, Schema } from "effect"
import { usdOf } from "../Domain/Budget.js"
import type { TaskEventBody } from "../Domain/Event.js"
import type { PlatformId } from "../Domain/Platform.js"
import {
  type Alternative,
  AlternativeKind,
  type AlternativeView,
  TaskError,
  type TaskId,
  type TaskResult,
  type TaskState
} from "../Domain/Task.js"
import type { Events, TaskBelonging } from "../Events.js"
import { decodeColumn } from "../Sql/jsonColumn.js"
import type { Steps } from "../Sql/Writer.js"
import type { NewTask } from "../TaskStore.js"
import type { Edge } from "./Consequences.js"
import { decodeAlternative, decodeError, decodeResult, nullable, previewOf, rankOf, storable } from "./Rows.js"
import { budgetColumns } from "./Spending.js"

/** Bytes kept of an incomplete answer. */
const maxPartialBytes = 256 * 1024
/** Tasks made for one task that are looked at; the settings allow no more in one round. */
const maxChildren = 50

/** How far what is tried for a task has come; the tasks made for it say the rest. */
export const Ladder = Schema.Struct({
  /** 1 for the first time, one more with each retry of the task. */
  round: Schema.Int,
  /** Epoch ms. */
  startedAt: Schema.Number,
  /** As configured when it began. */
  order: Schema.Array(AlternativeKind),
  /** The index in `order` of what is being tried. */
  at: Schema.Int,
  /** How the task itself failed. */
  error: TaskError,
  /** Whether its context was too long. */
  isContext: Schema.Boolean,
  /** What came of those before `at`. */
  notes: Schema.Array(Schema.String)
})
export type Ladder = typeof Ladder.Type

/** A task to be made for another one. Its `step` is made once only in a round. */
export interface NewChild extends Omit<NewTask, "idempotency"> {
  readonly alternative: Alternative
}

/** What a task goes on with: other tasks, for which it waits. */
export interface Branch {
  readonly ladder: Ladder
  /** The task's own deadline, epoch ms: it waits no longer. */
  readonly until: number
  readonly children: ReadonlyArray<NewChild>
}

/** A task that was made for another one, as far as it has come. */
export interface Child extends Omit<AlternativeView, "note"> {
  readonly note?: string | undefined
  readonly result: TaskResult | undefined
  readonly error: TaskError | undefined
  /** USD, attempts of unknown price left out; attempts under way count as what they may cost at most. */
  readonly spentUsd: number
}

/** The longest incomplete answer of a task. */
export interface PartialAnswer {
  readonly taskId: TaskId
  /** Of the attempt that gave it. */
  readonly number: number
  readonly platform: PlatformId
  readonly model: string
  readonly text: string
}

export const decodeLadder = decodeColumn(Ladder)

const stepOf = (round: number, step: string): string => `${round}/${step}`

/** The first bytes of a text, never part of a character. */
const bounded = (text: string): string => {
  const whole = storable(text)
  if (whole.length * 3 <= maxPartialBytes) return whole
  const bytes = Buffer.from(whole, "utf8")
  return bytes.length <= maxPartialBytes
    ? whole
    : bytes
        .subarray(0, maxPartialBytes)
        .toString("utf8")
        .replace(/\uFFFD+$/, "")
}

interface ChildRow {
  readonly id: TaskId
  readonly state: TaskState
  readonly alternative: string
  readonly result: string | null
  readonly error: string | null
  readonly spent_nano_usd: number
}

const childOf = (row: ChildRow): Effect.Effect<Child, ParseResult.ParseError> =>
  Effect.gen(function* () {
    return {
      id: row.id,
      state: row.state,
      ...(yield* decodeAlternative(row.alternative)),
      result: yield* nullable(row.result, decodeResult),
      error: yield* nullable(row.error, decodeError),
      spentUsd: usdOf(row.spent_nano_usd)
    }
  })

/** What becomes of a task whose own attempts do not: the tasks made for it, and its incomplete answers. */
export const makeOutcomes = (
  sql: SqlClient.SqlClient,
  options: {
    readonly record: Events["Type"]["appendOf"]
    readonly addEdges: (edges: ReadonlyArray<Edge>) => Effect.Effect<void, SqlError>
  }
) => {
  function* insertChild(parent: TaskId, round: number, child: NewChild, now: number): Steps<void> {
    const deadline = Math.round(child.deadline)
    const budget = budgetColumns(child.submission)
    yield* sql`
      INSERT INTO tasks (id, tenant, class_id, type, priority, state, preview, submission, request, deadline,
        allowed_ms, created_at, updated_at, awaited, parent_id, parent_step, alternative, max_nano_usd, max_tokens)
      VALUES (${child.id}, ${child.tenant}, ${child.classId}, ${child.type}, ${rankOf(child.priority)}, 'queued',
        ${previewOf(child.submission.prompt)}, ${JSON.stringify(child.submission)}, ${JSON.stringify(child.request)},
        ${deadline}, ${deadline - now}, ${now}, ${now}, 1, ${parent}, ${stepOf(round, child.alternative.step)},
        ${JSON.stringify(child.alternative)}, ${budget.max_nano_usd}, ${budget.max_tokens})`
    yield* options.record({ id: child.id, tenant: child.tenant, job_id: null }, now, [{ type: "task.queued" }])
  }

  return {
    /** Makes the tasks a task goes on with, in the write that lets it wait for them. */
    makeChildren: (parent: TaskBelonging, { children, ladder }: Branch, now: number): Effect.Effect<void, SqlError> =>
      Effect.gen(function* () {
        yield* options.record(
          parent,
          now,
          children.map(
            ({ alternative, id }): TaskEventBody => ({ type: "task.alternative", ...alternative, child: id })
          )
        )
        for (const child of children) yield* insertChild(parent.id, ladder.round, child, now)
        yield* options.addEdges(children.map(({ id }): Edge => ({ task: parent.id, dependsOn: id, onFailure: "run" })))
      }),

    /** The tasks made for a task, oldest first; of one round, where it is given. */
    children: (
      parent: TaskId,
      round?: number
    ): Effect.Effect<ReadonlyArray<Child>, SqlError | ParseResult.ParseError> =>
      Effect.flatMap(
        sql<ChildRow>`
          SELECT id, state, alternative, ${sql.literal(round === undefined ? "NULL AS result" : "result")}, error,
            spent_nano_usd
          FROM tasks WHERE parent_id = ${parent}
            ${round === undefined ? sql`` : sql`AND parent_step LIKE ${stepOf(round, "%")}`}
          ORDER BY seq DESC LIMIT ${maxChildren}`,
        (rows) => Effect.forEach(rows, childOf)
      ).pipe(Effect.map((children) => children.toReversed())),

    /** Where the attempts of these tasks went. */
    tried: (ids: ReadonlyArray<TaskId>) =>
      sql<{ readonly platform: PlatformId; readonly model: string }>`
        SELECT DISTINCT platform, model FROM attempts WHERE ${sql.in("task_id", ids)} LIMIT 1000`,

    /** Keeps the text of an attempt that broke off, where it is the task's longest so far. */
    keepPartial: (
      id: TaskId,
      { model, number, platform, text }: Omit<PartialAnswer, "taskId">
    ): Effect.Effect<void, SqlError> => {
      const kept = bounded(text)
      return Effect.asVoid(sql`
        INSERT INTO partials (task_id, number, platform, model, length, text)
        VALUES (${id}, ${number}, ${platform}, ${model}, ${kept.length}, ${kept})
        ON CONFLICT (task_id) DO UPDATE SET number = excluded.number, platform = excluded.platform,
          model = excluded.model, length = excluded.length, text = excluded.text
        WHERE excluded.length > partials.length`)
    },

    /** The longest incomplete answer of these tasks. */
    bestPartial: (ids: ReadonlyArray<TaskId>): Effect.Effect<Option.Option<PartialAnswer>, SqlError> =>
      Effect.map(
        sql<Omit<PartialAnswer, "taskId"> & { readonly task_id: TaskId }>`
          SELECT task_id, number, platform, model, text FROM partials WHERE ${sql.in("task_id", ids)}
          ORDER BY length DESC, task_id LIMIT 1`,
        ([row]) => Option.map(Option.fromNullable(row), ({ task_id, ...rest }) => ({ taskId: task_id, ...rest }))
      ),

    /** Forgets the incomplete answers of a task that has ended, and of those made for it; of one made for another they stay. */
    forgetPartials: (id: TaskId): Effect.Effect<void, SqlError> =>
      Effect.asVoid(sql`
        DELETE FROM partials WHERE task_id IN (
          SELECT id FROM tasks WHERE id = ${id} AND parent_id IS NULL
          UNION ALL SELECT id FROM tasks WHERE parent_id = ${id})`)
  }
}
