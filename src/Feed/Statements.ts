import type { SessionReport } from "./Report.js"

type Value = string | number | null

export interface Statement {
  readonly sql: string
  /** One for each `?`, in order. */
  readonly values: ReadonlyArray<Value>
}

/**
 * A statement whose places are numbered, so that one value may stand in several. They become plain ones: the driver takes
 * numbered ones for names.
 */
const numbered = (text: string): ((values: ReadonlyArray<Value>) => Statement) => {
  const order = Array.from(text.matchAll(/\?(\d+)/g), ([, place]) => Number(place) - 1)
  const sql = text.replaceAll(/\?\d+/g, "?")
  return (values) => ({ sql, values: order.map((place) => values[place] ?? null) })
}

/** Readings kept of all accounts together. */
const maxReadings = 20_000
const day = 24 * 60 * 60_000
/** What was not heard of for this long is deleted. */
const keptMs = 30 * day
/** Readings but the latest of each window and source: as long as events by default. */
const readingsKeptMs = 7 * day
const readingsDeletedAtOnce = 20
/** Sessions deleted by one report, so that none takes long. */
const deletedAtOnce = 5

/** A report may come late, from a spool or a transcript: then it fills gaps, and what is newer stays. */
const newest = (column: string): string =>
  `${column} = CASE WHEN excluded.updated_at >= updated_at
    THEN COALESCE(excluded.${column}, ${column}) ELSE COALESCE(${column}, excluded.${column}) END`

/** Whether the report says what the session is doing, and nothing newer was said of that. */
const isNews = "(?2 IS NOT NULL AND ?1 >= status_at)"
/** A session that is opened again is still refused while its limit has not reset. */
const staysLimited =
  "(?2 = 'started' AND status IN ('limited', 'handed-off') AND (limit_resets_at IS NULL OR limit_resets_at > ?1))"

const session = numbered(`
  INSERT INTO sessions (
    id, account, transcript_path, cwd, model, status, status_at, context_used_percent, context_tokens, context_window,
    cost_usd, source, pid, permission_mode, allowed_tools, launched_by, handoff, started_at, ended_at, updated_at
  ) VALUES (
    ?3, ?4, ?5, ?6, ?7, CASE ?2 WHEN 'limited' THEN 'limited' WHEN 'ended' THEN 'ended' ELSE 'active' END,
    CASE WHEN ?2 IS NULL THEN 0 ELSE ?1 END, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, COALESCE(?16, 'user'), ?17, ?1,
    CASE ?2 WHEN 'ended' THEN ?1 END, ?1
  )
  ON CONFLICT (id) DO UPDATE SET
    ${["account", "transcript_path", "cwd", "model", "context_used_percent", "context_tokens", "context_window"].map(newest).join(", ")},
    ${["cost_usd", "source", "pid", "permission_mode", "allowed_tools", "handoff"].map(newest).join(", ")},
    launched_by = COALESCE(?16, launched_by),
    status = CASE
      WHEN NOT ${isNews} OR ${staysLimited} THEN status
      WHEN ?2 = 'ended' THEN CASE status WHEN 'handed-off' THEN status ELSE 'ended' END
      WHEN ?2 = 'limited' THEN 'limited'
      ELSE 'active'
    END,
    limit_window = CASE WHEN ${isNews} AND ?2 = 'active' THEN NULL ELSE limit_window END,
    limit_hit_at = CASE WHEN ${isNews} AND ?2 = 'active' THEN NULL ELSE limit_hit_at END,
    limit_resets_at = CASE WHEN ${isNews} AND ?2 = 'active' THEN NULL ELSE limit_resets_at END,
    ended_at = CASE WHEN NOT ${isNews} THEN ended_at WHEN ?2 = 'ended' THEN ?1 END,
    status_at = CASE WHEN ${isNews} THEN ?1 ELSE status_at END,
    started_at = MIN(started_at, excluded.started_at),
    updated_at = MAX(updated_at, excluded.updated_at)`)

const limit = numbered(`
  UPDATE sessions SET limit_window = ?2, limit_hit_at = ?3, limit_resets_at = COALESCE(?4, CASE limit_window WHEN ?2 THEN limit_resets_at END)
  WHERE id = ?1 AND status IN ('limited', 'handed-off') AND ?3 >= COALESCE(limit_hit_at, 0)`)

const usage = numbered(`
  INSERT INTO session_usage (message, session_id, input_tokens, output_tokens) VALUES (?1, ?2, ?3, ?4)
  ON CONFLICT (message) DO UPDATE SET
    input_tokens = MAX(input_tokens, excluded.input_tokens), output_tokens = MAX(output_tokens, excluded.output_tokens)`)

const isRepeated =
  "answers_mark = excluded.answers_mark AND used_percent IS excluded.used_percent AND resets_at IS excluded.resets_at AND status = excluded.status"

// A status line is painted again and again with what its session's last answer said, however long ago that was.
const repeatable = numbered(`
  INSERT INTO session_readings (session_id, window, used_percent, resets_at, status, at, answers_mark)
  VALUES (?8, ?2, ?4, ?5, ?6, ?7, ?9)
  ON CONFLICT (session_id, window) DO UPDATE SET
    at = CASE WHEN ${isRepeated} THEN MIN(at, excluded.at) ELSE excluded.at END,
    used_percent = excluded.used_percent, resets_at = excluded.resets_at, status = excluded.status,
    answers_mark = excluded.answers_mark
  WHERE excluded.at >= at OR (${isRepeated})`)

/** When the reading was got: for one that is repeated, when it came first. */
const gotAt = `COALESCE((
  SELECT at FROM session_readings WHERE session_id = ?8 AND window = ?2 AND answers_mark = ?9
    AND used_percent IS ?4 AND resets_at IS ?5 AND status = ?6), ?7)`

// What says the same as the one before is no news.
const reading = numbered(`
  INSERT OR IGNORE INTO limit_readings (account, window, source, used_percent, resets_at, status, at, session_id)
  SELECT ?1, ?2, ?3, ?4, ?5, ?6, ${gotAt}, ?8 WHERE NOT EXISTS (
    SELECT 1 FROM account_limits
    WHERE account = ?1 AND window = ?2 AND source = ?3 AND used_percent IS ?4 AND resets_at IS ?5 AND status = ?6
  )`)

const latest = numbered(`
  INSERT INTO account_limits (account, window, source, used_percent, resets_at, status, at, session_id)
  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ${gotAt}, ?8)
  ON CONFLICT (account, window, source) DO UPDATE SET
    used_percent = excluded.used_percent, resets_at = excluded.resets_at, status = excluded.status, at = excluded.at,
    session_id = excluded.session_id
  WHERE excluded.at >= at`)

const fewerReadings = numbered("DELETE FROM limit_readings WHERE id <= (SELECT MAX(id) FROM limit_readings) - ?1")

// Looked for among the first alone: all of them would be looked through by every report.
const oldReadings = numbered(`
  DELETE FROM limit_readings WHERE at < ?1 AND id IN (SELECT id FROM limit_readings ORDER BY id LIMIT ?2)`)

const oldLimits = numbered("DELETE FROM account_limits WHERE at < ?1")

const fewerSessions = numbered(`
  DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE updated_at < ?1 ORDER BY updated_at LIMIT ?2)`)

/** What stores a report, in this order and in one transaction. Stored twice, it changes nothing the second time. */
export const statementsOf = (report: SessionReport): ReadonlyArray<Statement> => [
  session([
    report.at,
    report.status ?? null,
    report.sessionId,
    report.account,
    report.transcriptPath ?? null,
    report.cwd ?? null,
    report.model ?? null,
    report.contextUsedPercent ?? null,
    report.contextTokens ?? null,
    report.contextWindow ?? null,
    report.costUsd ?? null,
    report.source,
    report.pid ?? null,
    report.permissionMode ?? null,
    report.allowedTools === undefined ? null : JSON.stringify(report.allowedTools),
    report.launchedBy ?? null,
    report.handoff ?? null
  ]),
  ...(report.limit === undefined
    ? []
    : [limit([report.sessionId, report.limit.window, report.limit.hitAt, report.limit.resetsAt ?? null])]),
  ...report.usage.map(({ inputTokens, message, outputTokens }) =>
    usage([message, report.sessionId, inputTokens, outputTokens])
  ),
  ...report.readings.flatMap(({ resetsAt, status, usedPercent, window }) => {
    const values = [
      report.account,
      window,
      report.source,
      usedPercent ?? null,
      resetsAt ?? null,
      status,
      report.at,
      report.sessionId,
      report.answersMark ?? null
    ]
    return [...(report.answersMark === undefined ? [] : [repeatable(values)]), reading(values), latest(values)]
  }),
  ...(report.readings.length === 0
    ? []
    : [
        fewerReadings([maxReadings]),
        oldReadings([report.at - readingsKeptMs, readingsDeletedAtOnce]),
        oldLimits([report.at - keptMs])
      ]),
  fewerSessions([report.at - keptMs, deletedAtOnce])
]
