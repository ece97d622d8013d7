import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Clock, Context, Effect, Layer, type ParseResult, Schema } from "effect"
import {
  HandoffPolicy,
  LimitStatus,
  LimitWindow,
  ReadingSource,
  SessionId,
  type SessionLimitReading,
  SessionStatus
} from "./Domain/Session.js"
import type { SessionReport } from "./Feed/Report.js"
import { statementsOf } from "./Feed/Statements.js"
import { explainSessions, openSessions } from "./SessionStore/Database.js"
import { drain } from "./SessionStore/Spool.js"
import { sessionsDatabaseOf } from "./Settings/Sessions.js"
import { Settings } from "./Settings.js"
import { rootOf, textOf } from "./Sql/Ownership.js"

export type { ReportedReading, ReportedUsage, SessionReport } from "./Feed/Report.js"

/** The sessions database cannot be read or written now; `message` says why. */
export class SessionsUnavailable extends Schema.TaggedError<SessionsUnavailable>()("SessionsUnavailable", {
  message: Schema.String
}) {
  /** Says why a statement failed. */
  static readonly by = (error: SqlError): SessionsUnavailable =>
    new SessionsUnavailable({ message: `The sessions database does not answer: ${textOf(rootOf(error))}` })
}

/** A client of the sessions database: statements and transactions wait a while where another process writes. */
export class SessionsSql extends Context.Tag("dream-team/SessionsSql")<SessionsSql, SqlClient.SqlClient>() {
  /** That of the settings, made where it is missing. Other processes may write into it as well. */
  static readonly layer: Layer.Layer<SessionsSql, SessionsUnavailable, Settings> = Layer.scoped(
    SessionsSql,
    Effect.flatMap(Settings, (settings) => open(sessionsDatabaseOf(settings)))
  )

  /** That of a file. */
  static readonly layerFile = (file: string): Layer.Layer<SessionsSql, SessionsUnavailable> =>
    Layer.scoped(
      SessionsSql,
      Effect.suspend(() => open(file))
    )

  /** One in memory, empty, gone with its scope. */
  static readonly layerMemory: Layer.Layer<SessionsSql, SessionsUnavailable> = Layer.scoped(
    SessionsSql,
    Effect.suspend(() => open(":memory:"))
  )
}

const open = (file: string) => Effect.mapError(openSessions(file), (message) => new SessionsUnavailable({ message }))

export interface SessionRecord {
  readonly id: SessionId
  /** The Claude configuration folder, absolute. */
  readonly account: string
  readonly transcriptPath?: string | undefined
  readonly cwd?: string | undefined
  readonly model?: string | undefined
  readonly status: SessionStatus
  /** 0 to 100. */
  readonly contextUsedPercent?: number | undefined
  readonly contextTokens?: number | undefined
  readonly contextWindow?: number | undefined
  /** Of all answers seen, those read from and written to the cache included. */
  readonly inputTokens?: number | undefined
  readonly outputTokens?: number | undefined
  readonly costUsd?: number | undefined
  /** The window that refused, while it has not been used again since. */
  readonly limit?:
    | { readonly window: LimitWindow; readonly hitAt: number; readonly resetsAt?: number | undefined }
    | undefined
  /** Who reported last. */
  readonly source: ReadingSource
  /** The process of Claude Code, where it is known. */
  readonly pid?: number | undefined
  readonly permissionMode?: string | undefined
  readonly allowedTools?: ReadonlyArray<string> | undefined
  readonly launchedBy: "user" | "dream-team"
  readonly handoff?: HandoffPolicy | undefined
  /** Epoch ms, as the next two: when it was first heard of, when it was closed, and what is newest of it. */
  readonly startedAt: number
  readonly endedAt?: number | undefined
  readonly updatedAt: number
}

export interface AccountLimits {
  readonly account: string
  /** The newest of each window and source. */
  readonly readings: ReadonlyArray<SessionLimitReading>
}

const SessionRow = Schema.Struct({
  id: SessionId,
  account: Schema.String,
  transcript_path: Schema.NullOr(Schema.String),
  cwd: Schema.NullOr(Schema.String),
  model: Schema.NullOr(Schema.String),
  status: SessionStatus,
  context_used_percent: Schema.NullOr(Schema.Number),
  context_tokens: Schema.NullOr(Schema.Number),
  context_window: Schema.NullOr(Schema.Number),
  input_tokens: Schema.NullOr(Schema.Number),
  output_tokens: Schema.NullOr(Schema.Number),
  cost_usd: Schema.NullOr(Schema.Number),
  limit_window: Schema.NullOr(LimitWindow),
  limit_hit_at: Schema.NullOr(Schema.Number),
  limit_resets_at: Schema.NullOr(Schema.Number),
  source: ReadingSource,
  pid: Schema.NullOr(Schema.Number),
  permission_mode: Schema.NullOr(Schema.String),
  allowed_tools: Schema.NullOr(Schema.parseJson(Schema.Array(Schema.String))),
  launched_by: Schema.Literal("user", "dream-team"),
  handoff: Schema.NullOr(HandoffPolicy),
  started_at: Schema.Number,
  ended_at: Schema.NullOr(Schema.Number),
  updated_at: Schema.Number
})

const decodeSessions = Schema.decodeUnknown(Schema.Array(SessionRow))

const recordOf = (row: typeof SessionRow.Type): SessionRecord => ({
  id: row.id,
  account: row.account,
  transcriptPath: row.transcript_path ?? undefined,
  cwd: row.cwd ?? undefined,
  model: row.model ?? undefined,
  status: row.status,
  contextUsedPercent: row.context_used_percent ?? undefined,
  contextTokens: row.context_tokens ?? undefined,
  contextWindow: row.context_window ?? undefined,
  inputTokens: row.input_tokens ?? undefined,
  outputTokens: row.output_tokens ?? undefined,
  costUsd: row.cost_usd ?? undefined,
  limit:
    row.limit_window === null || row.limit_hit_at === null
      ? undefined
      : { window: row.limit_window, hitAt: row.limit_hit_at, resetsAt: row.limit_resets_at ?? undefined },
  source: row.source,
  pid: row.pid ?? undefined,
  permissionMode: row.permission_mode ?? undefined,
  allowedTools: row.allowed_tools ?? undefined,
  launchedBy: row.launched_by,
  handoff: row.handoff ?? undefined,
  startedAt: row.started_at,
  endedAt: row.ended_at ?? undefined,
  updatedAt: row.updated_at
})

const LimitRow = Schema.Struct({
  account: Schema.String,
  window: LimitWindow,
  source: ReadingSource,
  used_percent: Schema.NullOr(Schema.Number),
  resets_at: Schema.NullOr(Schema.Number),
  status: LimitStatus,
  at: Schema.Number,
  session_id: SessionId
})

const decodeLimits = Schema.decodeUnknown(Schema.Array(LimitRow))

/** Readings of more windows, sources and accounts than anybody has are left out. */
const maxLimits = 1000

/** Claude Code sessions and their accounts' limits, as feeds of several processes report them. */
export class SessionStore extends Context.Tag("dream-team/SessionStore")<
  SessionStore,
  {
    /** Stores what a source tells; told again, it changes nothing. */
    readonly record: (report: SessionReport) => Effect.Effect<void, SessionsUnavailable>
    readonly get: (id: SessionId) => Effect.Effect<SessionRecord | undefined, SessionsUnavailable>
    /** The last heard of first. */
    readonly list: (options: {
      readonly status?: SessionStatus | undefined
      readonly limit: number
    }) => Effect.Effect<ReadonlyArray<SessionRecord>, SessionsUnavailable>
    readonly limits: Effect.Effect<ReadonlyArray<AccountLimits>, SessionsUnavailable>
    /** From now on, until a report of something later says otherwise. */
    readonly setStatus: (id: SessionId, status: SessionStatus) => Effect.Effect<void, SessionsUnavailable>
    /** Stores what feeds wrote beside the database while they could not write into it; answers how many reports. */
    readonly drainSpool: Effect.Effect<number, SessionsUnavailable>
  }
>() {
  static readonly layer: Layer.Layer<SessionStore, never, SessionsSql | Settings> = Layer.effect(
    SessionStore,
    Effect.flatMap(Settings, (settings) => make(sessionsDatabaseOf(settings)))
  )

  /** Over the database of a file, whose spool is beside it. */
  static readonly layerFile = (file: string): Layer.Layer<SessionStore, never, SessionsSql> =>
    Layer.effect(
      SessionStore,
      Effect.suspend(() => make(file))
    )

  /** With a database of its own in memory. */
  static readonly layerMemory: Layer.Layer<SessionStore | SessionsSql, SessionsUnavailable> = Layer.provideMerge(
    Layer.effect(
      SessionStore,
      Effect.suspend(() => make(undefined))
    ),
    SessionsSql.layerMemory
  )
}

const make = (file: string | undefined): Effect.Effect<SessionStore["Type"], never, SessionsSql> =>
  Effect.gen(function* () {
    const sql = yield* SessionsSql
    const name = file ?? ":memory:"

    const available = <A>(
      effect: Effect.Effect<A, SqlError | ParseResult.ParseError>
    ): Effect.Effect<A, SessionsUnavailable> =>
      Effect.mapError(effect, (error) => new SessionsUnavailable({ message: explainSessions(name, error) }))

    const store = (reports: ReadonlyArray<SessionReport>) =>
      sql.withTransaction(
        Effect.forEach(reports.flatMap(statementsOf), (statement) => sql.unsafe(statement.sql, statement.values), {
          discard: true
        })
      )

    const sessions = (condition: ReturnType<typeof sql.and>, limit: number) =>
      available(
        sql`
          SELECT sessions.*,
            (SELECT SUM(input_tokens) FROM session_usage WHERE session_id = sessions.id) AS input_tokens,
            (SELECT SUM(output_tokens) FROM session_usage WHERE session_id = sessions.id) AS output_tokens
          FROM sessions WHERE ${condition} ORDER BY updated_at DESC, id LIMIT ${limit}`.pipe(
          Effect.flatMap(decodeSessions),
          Effect.map((rows) => rows.map(recordOf))
        )
      )

    return {
      record: Effect.fn("SessionStore.record")((report: SessionReport) => available(store([report]))),
      get: Effect.fn("SessionStore.get")((id: SessionId) =>
        Effect.map(sessions(sql.and([sql`id = ${id}`]), 1), ([found]) => found)
      ),
      list: Effect.fn("SessionStore.list")(({ limit, status }) =>
        sessions(sql.and(status === undefined ? [] : [sql`status = ${status}`]), limit)
      ),
      limits: sql`SELECT * FROM account_limits ORDER BY account, window, source LIMIT ${maxLimits}`.pipe(
        Effect.flatMap(decodeLimits),
        Effect.map((rows) => {
          const accounts = new Map<string, Array<SessionLimitReading>>()
          for (const row of rows) {
            const readings = accounts.get(row.account) ?? []
            accounts.set(row.account, readings)
            readings.push({
              window: row.window,
              usedPercent: row.used_percent ?? undefined,
              resetsAt: row.resets_at ?? undefined,
              status: row.status,
              source: row.source,
              at: row.at,
              sessionId: row.session_id
            })
          }
          return Array.from(accounts, ([account, readings]) => ({ account, readings }))
        }),
        available,
        Effect.withSpan("SessionStore.limits")
      ),
      setStatus: Effect.fn("SessionStore.setStatus")(function* (id: SessionId, status: SessionStatus) {
        const now = yield* Clock.currentTimeMillis
        yield* available(
          sql`UPDATE sessions SET status = ${status}, status_at = MAX(status_at, ${now}),
            ended_at = ${status === "ended" ? sql`COALESCE(ended_at, ${now})` : sql`NULL`} WHERE id = ${id}`
        )
      }),
      drainSpool:
        file === undefined
          ? Effect.succeed(0)
          : drain(file, (reports) => available(store(reports))).pipe(Effect.withSpan("SessionStore.drainSpool"))
    }
  })
