import type { SqlError } from "@effect/sql/SqlError"
import { Clock, Context, Effect, Layer, Schema } from "effect"
import { PlatformId } from "../Domain/Platform.js"
import {
  ConversationCounts,
  finalHandoffStates,
  HandoffCause,
  HandoffContext,
  HandoffId,
  HandoffMode,
  HandoffState,
  LimitWindow,
  SessionId,
  shortestWindowMs
} from "../Domain/Session.js"
import { SessionsSql, SessionsUnavailable } from "../SessionStore.js"
import { jsonColumn } from "../Sql/jsonColumn.js"

/** How its conversation reaches the platform: itself, or told in fewer tokens. */
export type Conveyance = "whole" | "summary"

/** A hand-off as it is stored. Instants are epoch ms. */
export interface HandoffRecord {
  readonly id: HandoffId
  readonly account: string
  readonly sessionId: SessionId
  readonly window: LimitWindow
  readonly windowResetsAt: number | undefined
  readonly cause: HandoffCause
  readonly state: HandoffState
  readonly mode: HandoffMode
  /** The platform that was asked for. */
  readonly to: PlatformId | undefined
  readonly chain: ReadonlyArray<PlatformId>
  readonly conveyance: Conveyance | undefined
  readonly leftOut: ReadonlyArray<string>
  readonly context: HandoffContext | undefined
  readonly transcriptHash: string | undefined
  readonly transcriptPath: string | undefined
  /** What the session that went on held of it, counted in its own transcript. */
  readonly carried: ConversationCounts | undefined
  readonly why: string | undefined
  readonly launcher: string | undefined
  readonly newSessionId: SessionId | undefined
  /** The process that runs it. */
  readonly pid: number | undefined
  /** Runs that were started. */
  readonly attempts: number
  /** Nothing is done for it before. */
  readonly nextAt: number | undefined
  readonly answer: string | undefined
  readonly answeredBy: string | undefined
  /** Grows with every owner: a write of an earlier one changes nothing. */
  readonly epoch: number
  readonly createdAt: number
  readonly updatedAt: number
}

export interface NewHandoff {
  readonly id: HandoffId
  readonly account: string
  readonly sessionId: SessionId
  readonly window: LimitWindow
  readonly windowResetsAt: number | undefined
  readonly cause: HandoffCause
  readonly mode: HandoffMode
  readonly to: PlatformId | undefined
}

/** What one step changes; what is absent stays, `null` empties. */
export interface HandoffChange {
  readonly state?: HandoffState | undefined
  readonly mode?: HandoffMode | undefined
  readonly chain?: ReadonlyArray<PlatformId> | undefined
  readonly conveyance?: Conveyance | undefined
  readonly leftOut?: ReadonlyArray<string> | undefined
  readonly context?: HandoffContext | undefined
  readonly transcriptHash?: string | undefined
  readonly transcriptPath?: string | undefined
  readonly carried?: ConversationCounts | undefined
  readonly why?: string | null | undefined
  readonly launcher?: string | null | undefined
  readonly newSessionId?: SessionId | null | undefined
  readonly pid?: number | null | undefined
  readonly attempts?: number | undefined
  readonly nextAt?: number | null | undefined
  readonly answer?: string | undefined
  readonly answeredBy?: string | undefined
}

/** An account whose work goes on elsewhere. */
export interface AwayAccount {
  readonly account: string
  /** The session that left last. */
  readonly sessionId: SessionId
  /** When the last of the windows it left for resets; absent where one has no known reset. */
  readonly resetsAt: number | undefined
  /** When the last one left. */
  readonly since: number
}

/** How long hand-offs are looked at for sessions that others go on in, ms. */
const continuationsMs = 7 * 24 * 3_600_000
/** Resets that differ by less are of one window: sources round them differently, ms. */
const sameResetMs = 120_000
/** Deleted at once. */
const pruned = 50
/** Answers kept, characters. */
const maxAnswerChars = 200_000

const json = <A, I>(schema: Schema.Schema<A, I>) => Schema.NullOr(jsonColumn(schema))

const Row = Schema.Struct({
  id: HandoffId,
  account: Schema.String,
  session_id: SessionId,
  window: LimitWindow,
  window_resets_at: Schema.Number,
  cause: HandoffCause,
  state: HandoffState,
  mode: HandoffMode,
  target: Schema.NullOr(PlatformId),
  platform: Schema.NullOr(PlatformId),
  chain: json(Schema.Array(PlatformId)),
  conveyance: Schema.NullOr(Schema.Literal("whole", "summary")),
  left_out: json(Schema.Array(Schema.String)),
  context: json(HandoffContext),
  transcript_hash: Schema.NullOr(Schema.String),
  transcript_path: Schema.NullOr(Schema.String),
  carried: json(ConversationCounts),
  why: Schema.NullOr(Schema.String),
  launcher: Schema.NullOr(Schema.String),
  new_session_id: Schema.NullOr(SessionId),
  pid: Schema.NullOr(Schema.Int),
  attempts: Schema.Int,
  next_at: Schema.NullOr(Schema.Number),
  answer: Schema.NullOr(Schema.String),
  answered_by: Schema.NullOr(Schema.String),
  lease_epoch: Schema.Int,
  created_at: Schema.Number,
  updated_at: Schema.Number
})
const decodeRow = Schema.decodeUnknown(Row)

const recordOf = (row: typeof Row.Type): HandoffRecord => ({
  id: row.id,
  account: row.account,
  sessionId: row.session_id,
  window: row.window,
  windowResetsAt: row.window_resets_at === 0 ? undefined : row.window_resets_at,
  cause: row.cause,
  state: row.state,
  mode: row.mode,
  to: row.target ?? undefined,
  chain: row.chain ?? [],
  conveyance: row.conveyance ?? undefined,
  leftOut: row.left_out ?? [],
  context: row.context ?? undefined,
  transcriptHash: row.transcript_hash ?? undefined,
  transcriptPath: row.transcript_path ?? undefined,
  carried: row.carried ?? undefined,
  why: row.why ?? undefined,
  launcher: row.launcher ?? undefined,
  newSessionId: row.new_session_id ?? undefined,
  pid: row.pid ?? undefined,
  attempts: row.attempts,
  nextAt: row.next_at ?? undefined,
  answer: row.answer ?? undefined,
  answeredBy: row.answered_by ?? undefined,
  epoch: row.lease_epoch,
  createdAt: row.created_at,
  updatedAt: row.updated_at
})

const jsonOf = (value: unknown): string | undefined => (value === undefined ? undefined : JSON.stringify(value))

/** The columns that a change sets. */
const columnsOf = (change: HandoffChange): Readonly<Record<string, string | number | null>> => {
  const columns: Record<string, string | number | null | undefined> = {
    state: change.state,
    mode: change.mode,
    chain: jsonOf(change.chain),
    platform: change.chain === undefined ? undefined : (change.chain[0] ?? null),
    conveyance: change.conveyance,
    left_out: jsonOf(change.leftOut),
    context: jsonOf(change.context),
    turns: change.context?.turns,
    tool_pairs: change.context?.counts.toolPairs,
    transcript_hash: change.transcriptHash,
    transcript_path: change.transcriptPath,
    carried: jsonOf(change.carried),
    why: change.why,
    launcher: change.launcher,
    new_session_id: change.newSessionId,
    pid: change.pid,
    attempts: change.attempts,
    next_at: change.nextAt,
    answer: change.answer?.slice(0, maxAnswerChars),
    answered_by: change.answeredBy
  }
  return Object.fromEntries(
    Object.entries(columns).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]]))
  )
}

/**
 * Hand-offs of Claude Code sessions, in the sessions database, where several processes may work on them. Whoever takes one
 * has it until its lease is over, and every write is conditional on the epoch it got with it: so no two act on one.
 */
export class HandoffStore extends Context.Tag("dream-team/HandoffStore")<
  HandoffStore,
  {
    /** Stores it; nothing where its session has one for that window already, or one that is not over. */
    readonly open: (handoff: NewHandoff) => Effect.Effect<HandoffRecord | undefined, SessionsUnavailable>
    /** Takes one that is not over and that nobody has, for `leaseMs`. */
    readonly take: (
      id: HandoffId,
      owner: string,
      leaseMs: number
    ) => Effect.Effect<HandoffRecord | undefined, SessionsUnavailable>
    /** Whether it is still its owner's, and now for `leaseMs` more. */
    readonly renew: (id: HandoffId, epoch: number, leaseMs: number) => Effect.Effect<boolean, SessionsUnavailable>
    readonly release: (id: HandoffId, epoch: number) => Effect.Effect<void, SessionsUnavailable>
    /** One step, in one write; whether it was made: not where another has it by now, or it is over. */
    readonly write: (id: HandoffId, epoch: number, change: HandoffChange) => Effect.Effect<boolean, SessionsUnavailable>
    /** Notes who answered a turn of it last, as `codex/gpt-6-sol`; for whoever answers, not for its owner. */
    readonly answered: (id: HandoffId, by: string) => Effect.Effect<void, SessionsUnavailable>
    readonly get: (id: HandoffId) => Effect.Effect<HandoffRecord | undefined, SessionsUnavailable>
    /** The newest first. */
    readonly list: (options: {
      readonly session?: SessionId | undefined
      readonly state?: HandoffState | undefined
      readonly limit: number
    }) => Effect.Effect<ReadonlyArray<HandoffRecord>, SessionsUnavailable>
    /** Those that are not over, whose time to be looked at has come and that nobody has; the oldest first. */
    readonly due: (limit: number) => Effect.Effect<ReadonlyArray<HandoffRecord>, SessionsUnavailable>
    /** Makes one that waits be looked at now. */
    readonly wake: (
      id: HandoffId,
      change: { readonly mode: HandoffMode; readonly to: PlatformId | undefined }
    ) => Effect.Effect<boolean, SessionsUnavailable>
    /** The newest hand-off of each session, of the sessions that were given. */
    readonly latest: (
      sessions: ReadonlyArray<SessionId>
    ) => Effect.Effect<ReadonlyMap<SessionId, HandoffRecord>, SessionsUnavailable>
    /** Sessions in which others go on, of hand-offs of the last week. */
    readonly continuations: Effect.Effect<ReadonlySet<SessionId>, SessionsUnavailable>
    /** Accounts of which something went on elsewhere, or should have, and that have not come back since. */
    readonly away: Effect.Effect<ReadonlyArray<AwayAccount>, SessionsUnavailable>
    /** Whether this caller may make the probe of an account; nobody else may for `forMs`. */
    readonly claimProbe: (account: string, forMs: number) => Effect.Effect<boolean, SessionsUnavailable>
    /** An account has come back; whether it had been away. */
    readonly returned: (account: string) => Effect.Effect<boolean, SessionsUnavailable>
    /** Deletes some of those that were over before an instant, and answers them. */
    readonly prune: (before: number) => Effect.Effect<ReadonlyArray<HandoffRecord>, SessionsUnavailable>
    /** Whether any hand-off has its transcript under that hash. */
    readonly keeps: (hash: string) => Effect.Effect<boolean, SessionsUnavailable>
  }
>() {
  static readonly layer: Layer.Layer<HandoffStore, never, SessionsSql> = Layer.effect(
    HandoffStore,
    Effect.gen(function* () {
      const sql = yield* SessionsSql

      const asked = <A, R>(effect: Effect.Effect<A, SqlError, R>) => Effect.mapError(effect, SessionsUnavailable.by)
      const hasRows = (effect: Effect.Effect<ReadonlyArray<unknown>, SqlError>) =>
        Effect.map(asked(effect), (rows) => rows.length > 0)
      /** A row of another version is passed over. */
      const decoded = (rows: ReadonlyArray<unknown>) =>
        Effect.map(
          Effect.forEach(rows, (row) =>
            decodeRow(row).pipe(
              Effect.map((known): ReadonlyArray<HandoffRecord> => [recordOf(known)]),
              Effect.catchAll((error) =>
                Effect.as(
                  Effect.logWarning("A hand-off cannot be read and is passed over", error.message.slice(0, 500)),
                  []
                )
              )
            )
          ),
          (records) => records.flat()
        )
      const isOver = sql.in("state", finalHandoffStates)
      const one = (rows: ReadonlyArray<unknown>) => Effect.map(decoded(rows), ([first]) => first)

      const open = Effect.fn("HandoffStore.open")(function* (handoff: NewHandoff) {
        const now = yield* Clock.currentTimeMillis
        const { account, cause, id, mode, sessionId, to, window, windowResetsAt } = handoff
        const resetsAt = windowResetsAt ?? 0
        const sameWindow =
          windowResetsAt === undefined
            ? sql`created_at > ${now - shortestWindowMs}`
            : sql`ABS(window_resets_at - ${windowResetsAt}) < ${sameResetMs}`
        const rows = yield* asked(sql`
          INSERT INTO handoffs (id, account, session_id, window, window_resets_at, cause, state, mode, target,
            attempts, lease_epoch, lease_until, created_at, updated_at)
          SELECT ${id}, ${account}, ${sessionId}, ${window}, ${resetsAt}, ${cause}, 'keeping', ${mode}, ${to ?? null},
            0, 0, 0, ${now}, ${now}
          WHERE NOT EXISTS (
            SELECT 1 FROM handoffs WHERE session_id = ${sessionId}
              AND (NOT ${isOver} OR (account = ${account} AND window = ${window} AND ${sameWindow})))
          ON CONFLICT DO NOTHING
          RETURNING *`)
        return yield* one(rows)
      })

      const take = Effect.fn("HandoffStore.take")(function* (id: HandoffId, owner: string, leaseMs: number) {
        const now = yield* Clock.currentTimeMillis
        const rows = yield* asked(sql`
          UPDATE handoffs SET lease_owner = ${owner}, lease_epoch = lease_epoch + 1, lease_until = ${now + leaseMs}
          WHERE id = ${id} AND lease_until <= ${now} AND NOT ${isOver} RETURNING *`)
        return yield* one(rows)
      })

      const write = Effect.fn("HandoffStore.write")(function* (id: HandoffId, epoch: number, change: HandoffChange) {
        const now = yield* Clock.currentTimeMillis
        return yield* hasRows(sql`
          UPDATE handoffs SET ${sql.update({ ...columnsOf(change), updated_at: now })}
          WHERE id = ${id} AND lease_epoch = ${epoch} AND NOT ${isOver} RETURNING id`)
      })

      return {
        open,
        take,
        write,
        renew: (id, epoch, leaseMs) =>
          Effect.flatMap(Clock.currentTimeMillis, (now) =>
            hasRows(
              sql`UPDATE handoffs SET lease_until = ${now + leaseMs} WHERE id = ${id} AND lease_epoch = ${epoch} RETURNING id`
            )
          ),
        release: (id, epoch) =>
          Effect.asVoid(
            asked(
              sql`UPDATE handoffs SET lease_owner = NULL, lease_until = 0 WHERE id = ${id} AND lease_epoch = ${epoch}`
            )
          ),
        answered: (id, by) =>
          Effect.asVoid(
            asked(sql`
              UPDATE handoffs SET answered_by = ${by}
              WHERE id = ${id} AND NOT ${isOver} AND answered_by IS NOT ${by}`)
          ),
        get: (id) => Effect.flatMap(asked(sql`SELECT * FROM handoffs WHERE id = ${id}`), one),
        list: ({ limit, session, state }) =>
          asked(sql`
            SELECT * FROM handoffs WHERE ${sql.and([
              sql`1 = 1`,
              ...(session === undefined ? [] : [sql`session_id = ${session}`]),
              ...(state === undefined ? [] : [sql`state = ${state}`])
            ])} ORDER BY created_at DESC, id DESC LIMIT ${limit}`).pipe(Effect.flatMap(decoded)),
        due: (limit) =>
          Effect.flatMap(Clock.currentTimeMillis, (now) =>
            asked(sql`
              SELECT * FROM handoffs
              WHERE NOT ${isOver} AND lease_until <= ${now} AND (next_at IS NULL OR next_at <= ${now})
              ORDER BY created_at LIMIT ${limit}`)
          ).pipe(Effect.flatMap(decoded)),
        wake: (id, { mode, to }) =>
          Effect.flatMap(Clock.currentTimeMillis, (now) =>
            hasRows(sql`
              UPDATE handoffs SET next_at = NULL, mode = ${mode}, target = COALESCE(${to ?? null}, target),
                state = CASE WHEN state = 'keeping' THEN 'keeping' ELSE 'choosing' END, updated_at = ${now}
              WHERE id = ${id} AND lease_until <= ${now} AND state <> 'running' AND NOT ${isOver} RETURNING id`)
          ),
        latest: (sessions) =>
          sessions.length === 0
            ? Effect.succeed(new Map())
            : asked(sql`
                SELECT * FROM handoffs WHERE id IN (
                  SELECT id FROM handoffs AS newest WHERE ${sql.in("session_id", [...sessions])} AND NOT EXISTS (
                    SELECT 1 FROM handoffs AS newer WHERE newer.session_id = newest.session_id
                      AND (newer.created_at > newest.created_at
                        OR (newer.created_at = newest.created_at AND newer.id > newest.id))))`).pipe(
                Effect.flatMap(decoded),
                Effect.map((records) => new Map(records.map((record) => [record.sessionId, record])))
              ),
        continuations: Effect.flatMap(Clock.currentTimeMillis, (now) =>
          Effect.map(
            asked(sql<{ readonly id: string }>`
              SELECT new_session_id AS id FROM handoffs
              WHERE new_session_id IS NOT NULL AND created_at > ${now - continuationsMs}`),
            (rows) => new Set(rows.flatMap(({ id }) => (Schema.is(SessionId)(id) ? id : [])))
          )
        ),
        away: asked(sql<{
          readonly account: string
          readonly session_id: string
          readonly resets_at: number
          readonly unknown: number
          readonly since: number
        }>`
          SELECT account, MAX(window_resets_at) AS resets_at, SUM(window_resets_at = 0) AS unknown,
            MAX(created_at) AS since, session_id
          FROM handoffs WHERE returned_at IS NULL AND cause <> 'person'
            AND (state IN ('running', 'succeeded') OR (cause = 'task' AND state <> 'cancelled'))
          GROUP BY account`).pipe(
          Effect.map((rows) =>
            rows.flatMap(({ account, resets_at, session_id, since, unknown }) =>
              Schema.is(SessionId)(session_id)
                ? { account, sessionId: session_id, resetsAt: unknown > 0 ? undefined : resets_at, since }
                : []
            )
          )
        ),
        claimProbe: (account, forMs) =>
          Effect.flatMap(Clock.currentTimeMillis, (now) =>
            hasRows(sql`
              UPDATE handoffs SET probe_until = ${now + forMs}
              WHERE account = ${account} AND returned_at IS NULL AND NOT EXISTS (
                SELECT 1 FROM handoffs AS other
                WHERE other.account = ${account} AND other.returned_at IS NULL AND other.probe_until > ${now})
              RETURNING id`)
          ),
        returned: (account) =>
          Effect.flatMap(Clock.currentTimeMillis, (now) =>
            hasRows(
              sql`UPDATE handoffs SET returned_at = ${now} WHERE account = ${account} AND returned_at IS NULL RETURNING id`
            )
          ),
        prune: (before) =>
          asked(sql`
            DELETE FROM handoffs WHERE id IN (
              SELECT id FROM handoffs WHERE ${isOver} AND updated_at < ${before} LIMIT ${pruned}) RETURNING *`).pipe(
            Effect.flatMap(decoded)
          ),
        keeps: (hash) => hasRows(sql`SELECT id FROM handoffs WHERE transcript_hash = ${hash} LIMIT 1`)
      }
    })
  )
}
