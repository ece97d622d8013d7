import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Clock, Context, Effect, Layer } from "effect"
import { ServiceUnavailable } from "../Domain/ApiError.js"
import { type Booking, limitOf } from "../Domain/Budget.js"
import type { KeyEventBody } from "../Domain/Event.js"
import { PlatformId } from "../Domain/Platform.js"
import { type JobId, type TaskId, TenantId } from "../Domain/Task.js"
import { Events } from "../Events.js"
import { SqlWriter } from "../Sql/Writer.js"
import { book } from "../TaskStore/Spending.js"
import type { Limit, Totals } from "./Account.js"
import { dayOf } from "./Day.js"

/** Whose budget of a day it is. */
export type DailyOwner =
  | { readonly kind: "platform"; readonly name: PlatformId }
  | { readonly kind: "key"; readonly name: TenantId }

/** What was spent on a day, as it is stored: what attempts under way may use is part of it. */
export interface StoredDay {
  readonly owner: DailyOwner
  readonly spent: Totals
  readonly isExhausted: boolean
}

/** A budget of a task or of a job. */
export interface OwnBudget {
  readonly kind: "task" | "job"
  readonly id: string
  readonly limit: Limit
}

/** Who a task spends for besides itself, and the budgets that hold for it. */
export interface Purse {
  /** The tasks it was made for, one for the other. */
  readonly parents: ReadonlyArray<TaskId>
  /** Its own job, or that of a task it was made for. */
  readonly job: JobId | undefined
  readonly budgets: ReadonlyArray<OwnBudget>
}

/** Days whose books are kept. */
const keptDays = 400
const dayMs = 86_400_000
/** A task made for a task made for a task, and so on: how far that is followed. */
const maxParents = 8

const unreadable = new ServiceUnavailable({ message: "The budgets cannot be read; try again later." })

const limited = (budget: OwnBudget): boolean => budget.limit.nanoUsd !== undefined || budget.limit.tokens !== undefined

const ownerOf = (kind: string, name: string): DailyOwner =>
  kind === "key" ? { kind, name: TenantId.make(name) } : { kind: "platform", name: PlatformId.make(name) }

/** Where the books outlive the process. */
export class BudgetStore extends Context.Tag("dream-team/BudgetStore")<
  BudgetStore,
  {
    /** What was spent on a day. Whatever was exhausted on another one is so no longer, which is told as an event. */
    readonly begin: (day: string) => Effect.Effect<ReadonlyArray<StoredDay>, ServiceUnavailable>
    readonly purse: (task: TaskId, job: JobId | undefined) => Effect.Effect<Purse, ServiceUnavailable>
    /** What was spent of a task's or a job's budget. */
    readonly spent: (budget: OwnBudget) => Effect.Effect<Totals, ServiceUnavailable>
    /** Adds a booking to the books by itself, for an attempt that is no task's. */
    readonly book: (booking: Booking) => Effect.Effect<void, ServiceUnavailable>
    /** A budget of a day leaves no room, for the first time on that day. */
    readonly exhausted: (
      day: string,
      owner: DailyOwner,
      told: { readonly until: number; readonly why: string }
    ) => Effect.Effect<void, ServiceUnavailable>
  }
>() {
  /** Nothing was spent before, and no task or job is known. */
  static readonly layerMemory: Layer.Layer<BudgetStore> = Layer.succeed(BudgetStore, {
    begin: () => Effect.succeed([]),
    purse: (_, job) => Effect.succeed({ parents: [], job, budgets: [] }),
    spent: () => Effect.succeed({ nanoUsd: 0, tokens: 0 }),
    book: () => Effect.void,
    exhausted: () => Effect.void
  })

  /** In the database, where the store of tasks books what its attempts use. */
  static readonly layer: Layer.Layer<BudgetStore, never, SqlClient.SqlClient | SqlWriter | Events> = Layer.effect(
    BudgetStore,
    Effect.suspend(() => make)
  )
}

const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const writer = yield* SqlWriter
  const events = yield* Events

  const read = <A>(query: Effect.Effect<A, SqlError>): Effect.Effect<A, ServiceUnavailable> =>
    query.pipe(
      Effect.tapError((error) => Effect.logError("The budgets could not be read", error)),
      Effect.mapError(() => unreadable)
    )

  const tell = (owner: DailyOwner, at: number, body: KeyEventBody) =>
    owner.kind === "platform"
      ? events.appendPlatform([{ platform: owner.name, at, body }])
      : events.appendKey(owner.name, at, [body])

  const begin = Effect.fn("BudgetStore.begin")(function* (day: string) {
    const now = yield* Clock.currentTimeMillis
    return yield* writer.write(
      Effect.gen(function* () {
        const reset = yield* sql<{ readonly kind: string; readonly name: string }>`
          UPDATE spending SET exhausted_at = NULL WHERE exhausted_at IS NOT NULL AND day <> ${day} RETURNING kind, name`
        yield* Effect.forEach(reset, ({ kind, name }) => tell(ownerOf(kind, name), now, { type: "budget.reset" }), {
          discard: true
        })
        yield* sql`DELETE FROM spending WHERE day < ${dayOf(now - keptDays * dayMs)}`
        // As many rows as there are platforms and API keys.
        const rows = yield* sql<{
          readonly kind: string
          readonly name: string
          readonly nano_usd: number
          readonly tokens: number
          readonly exhausted_at: number | null
        }>`SELECT kind, name, nano_usd, tokens, exhausted_at FROM spending WHERE day = ${day}`
        return rows.map(
          (row): StoredDay => ({
            owner: ownerOf(row.kind, row.name),
            spent: { nanoUsd: row.nano_usd, tokens: row.tokens },
            isExhausted: row.exhausted_at !== null
          })
        )
      })
    )
  })

  const purse = Effect.fn("BudgetStore.purse")(function* (task: TaskId, ownJob: JobId | undefined) {
    const tasks = yield* read(sql<{
      readonly id: TaskId
      readonly job_id: JobId | null
      readonly max_nano_usd: number | null
      readonly max_tokens: number | null
    }>`
      WITH RECURSIVE line (id, parent_id, job_id, max_nano_usd, max_tokens, depth) AS (
        SELECT id, parent_id, job_id, max_nano_usd, max_tokens, 0 FROM tasks WHERE id = ${task}
        UNION ALL
        SELECT tasks.id, tasks.parent_id, tasks.job_id, tasks.max_nano_usd, tasks.max_tokens, line.depth + 1
        FROM tasks JOIN line ON tasks.id = line.parent_id WHERE line.depth < ${maxParents}
      )
      SELECT id, job_id, max_nano_usd, max_tokens FROM line ORDER BY depth`)
    const job = ownJob ?? tasks.find(({ job_id }) => job_id !== null)?.job_id ?? undefined
    const jobs =
      job === undefined
        ? []
        : yield* read(sql<{ readonly max_cost_usd: number | null; readonly max_tokens: number | null }>`
            SELECT max_cost_usd, max_tokens FROM jobs WHERE id = ${job}`)
    const budgets = [
      ...tasks.map(
        (row): OwnBudget => ({
          kind: "task",
          id: row.id,
          limit: { nanoUsd: row.max_nano_usd ?? undefined, tokens: row.max_tokens ?? undefined }
        })
      ),
      ...jobs.map(
        (row): OwnBudget => ({
          kind: "job",
          id: job ?? "",
          limit: {
            nanoUsd: row.max_cost_usd === null ? undefined : limitOf(row.max_cost_usd),
            tokens: row.max_tokens ?? undefined
          }
        })
      )
    ]
    return { parents: tasks.slice(1).map(({ id }) => id), job, budgets: budgets.filter(limited) }
  })

  const spent = ({ id, kind }: OwnBudget) =>
    Effect.map(
      read(
        sql<{ readonly spent_nano_usd: number; readonly spent_tokens: number }>`
          SELECT spent_nano_usd, spent_tokens FROM ${sql(kind === "task" ? "tasks" : "jobs")} WHERE id = ${id}`
      ),
      ([row]): Totals => ({ nanoUsd: row?.spent_nano_usd ?? 0, tokens: row?.spent_tokens ?? 0 })
    )

  return BudgetStore.of({
    begin,
    purse,
    spent,
    book: (booking) => writer.write(book(sql, booking)),
    exhausted: Effect.fn("BudgetStore.exhausted")(function* (day, owner, told) {
      const now = yield* Clock.currentTimeMillis
      yield* writer.write(
        Effect.zipRight(
          sql`
            INSERT INTO spending (day, kind, name, nano_usd, tokens, exhausted_at)
            VALUES (${day}, ${owner.kind}, ${owner.name}, 0, 0, ${now})
            ON CONFLICT (day, kind, name) DO UPDATE SET exhausted_at = excluded.exhausted_at`,
          tell(owner, now, { type: "budget.exhausted", ...told })
        )
      )
    })
  })
})
