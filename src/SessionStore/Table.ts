import * as Reactivity from "@effect/experimental/Reactivity"
import type { SqlClient } from "@effect/sql/SqlClient"
import { Clock, Effect, Schema } from "effect"
import { parsed, reportOfStatusline } from "../Feed/Report.js"
import { SessionStore, SessionsSql, SessionsUnavailable } from "../SessionStore.js"
import { makeSqlite } from "../Sql/Sqlite.js"
import { explainSessions } from "./Database.js"
import { looks } from "./Looks.js"

/** Rows read at once; only the newest matter. */
const maxRows = 500

const Row = Schema.Struct({
  id: Schema.Union(Schema.String, Schema.Number),
  start_time: Schema.Unknown,
  model_used: Schema.NullOr(Schema.String),
  estimated_cost_usd: Schema.NullOr(Schema.Number),
  context_size_end: Schema.NullOr(Schema.Number),
  metadata: Schema.Unknown,
  updated_at: Schema.Unknown
})

const decodeRows = Schema.decodeUnknown(Schema.Array(Row))

/** SQLite's own texts have no zone and are UTC; numbers are seconds or milliseconds since the epoch. */
const instantOf = (value: unknown): number | undefined => {
  if (typeof value === "number" && value > 0) return value > 1e11 ? value : value * 1000
  if (typeof value !== "string") return undefined
  const text = value.trim().replace(" ", "T")
  const ms = Date.parse(/(Z|[+-]\d\d:?\d\d)$/i.test(text) ? text : `${text}Z`)
  return Number.isNaN(ms) ? undefined : ms
}

const isName = (setting: string): boolean => /^[A-Za-z_][A-Za-z0-9_]*$/.test(setting)

export interface TableOptions {
  readonly setting: string
  /** The configuration folder of Claude Code, absolute. */
  readonly account: string
}

/**
 * Takes over the sessions that another program tracks in a table `coordination_sessions`, which is only read: its rows of
 * `claude_code` that have no end. `setting` is the file of its database, or the name of such a table in ours. Where the
 * row's `metadata` has what Claude Code gives its status line, limits among it, that is taken as well.
 *
 * When a row last changed is told by our own clock once we saw it change: programs that write `datetime('now', 'utc')`
 * shift a time that is UTC already, and their texts are off by the machine's distance from UTC.
 */
export const makeTable = Effect.fn("Table.make")(function* ({ account, setting }: TableOptions) {
  const store = yield* SessionStore
  const own = yield* SessionsSql
  let seen: ReadonlyMap<string, { readonly content: string; readonly at: number }> = new Map()

  const read = (sql: SqlClient, table: string) =>
    sql`
      SELECT id, start_time, model_used, estimated_cost_usd, context_size_end, metadata, updated_at FROM ${sql(table)}
      WHERE end_time IS NULL AND platform = 'claude_code' ORDER BY updated_at DESC LIMIT ${maxRows}`

  const rows = isName(setting)
    ? read(own, setting)
    : Effect.scoped(
        Effect.gen(function* () {
          const sql = yield* makeSqlite(setting, { readonly: true })
          // The process stands still while SQLite waits.
          yield* sql`PRAGMA busy_timeout = 20`
          return yield* read(sql, "coordination_sessions")
        })
      ).pipe(Effect.provide(Reactivity.layer))

  return {
    /** Takes over what is new; answers how many rows that were. */
    pass: Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const found = yield* rows.pipe(
        Effect.flatMap(decodeRows),
        Effect.mapError((error) => new SessionsUnavailable({ message: explainSessions(setting, error) }))
      )
      const next = new Map<string, { readonly content: string; readonly at: number }>()
      let count = 0
      for (const row of found) {
        const content = JSON.stringify(row)
        const before = seen.get(String(row.id))
        const told = instantOf(row.updated_at) ?? instantOf(row.start_time) ?? now
        const at = before === undefined ? Math.min(told, now) : before.content === content ? before.at : now
        next.set(String(row.id), { content, at })
        if (before?.content === content) continue
        const metadata = typeof row.metadata === "string" ? parsed(row.metadata) : undefined
        const known = typeof metadata === "object" && metadata !== null ? metadata : {}
        const context = { at, account }
        const report =
          reportOfStatusline(known, context) ?? reportOfStatusline({ ...known, session_id: String(row.id) }, context)
        if (report === undefined) continue
        yield* store.record({
          ...report,
          source: "table",
          status: before === undefined ? "started" : undefined,
          model: report.model ?? row.model_used ?? undefined,
          costUsd: report.costUsd ?? row.estimated_cost_usd ?? undefined,
          contextTokens: report.contextTokens ?? row.context_size_end ?? undefined
        })
        count += 1
      }
      seen = next
      return count
    }).pipe(Effect.withSpan("Table.pass"))
  }
})

/** Follows the table until it is interrupted; what fails is tried again at the next look. */
export const runTable = ({
  everyMs,
  ...options
}: TableOptions & { readonly everyMs: number }): Effect.Effect<never, never, SessionStore | SessionsSql> =>
  Effect.flatMap(makeTable(options), ({ pass }) =>
    looks(pass, { everyMs, trouble: `Sessions of ${options.setting} are not taken over now` })
  )
