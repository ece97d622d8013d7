/**
 * The sessions database, as SQL that its two sides share: the feeds, of which many write at once and none has more than
 * SQLite, and the service. Instants are epoch ms, lists and contexts JSON.
 */

/** One more step for each release that changes it; a step is never edited once it was released. */
const steps: ReadonlyArray<ReadonlyArray<string>> = [
  [
    `CREATE TABLE sessions (
      id TEXT PRIMARY KEY,
      account TEXT NOT NULL,
      transcript_path TEXT,
      cwd TEXT,
      model TEXT,
      status TEXT NOT NULL CHECK (status IN ('active', 'limited', 'handed-off', 'ended')),
      status_at INTEGER NOT NULL,
      context_used_percent REAL,
      context_tokens INTEGER,
      context_window INTEGER,
      cost_usd REAL,
      limit_window TEXT,
      limit_hit_at INTEGER,
      limit_resets_at INTEGER,
      source TEXT NOT NULL,
      pid INTEGER,
      permission_mode TEXT,
      allowed_tools TEXT,
      launched_by TEXT NOT NULL CHECK (launched_by IN ('user', 'dream-team')),
      handoff TEXT CHECK (handoff IN ('auto', 'ask')),
      started_at INTEGER NOT NULL,
      ended_at INTEGER,
      updated_at INTEGER NOT NULL
    ) WITHOUT ROWID`,
    `CREATE INDEX sessions_by_news ON sessions (updated_at)`,
    `CREATE TABLE session_usage (
      message TEXT PRIMARY KEY,
      session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
      input_tokens INTEGER NOT NULL,
      output_tokens INTEGER NOT NULL
    ) WITHOUT ROWID`,
    `CREATE INDEX session_usage_by_session ON session_usage (session_id, input_tokens, output_tokens)`,
    `CREATE TABLE account_limits (
      account TEXT NOT NULL,
      window TEXT NOT NULL,
      source TEXT NOT NULL,
      used_percent REAL,
      resets_at INTEGER,
      status TEXT NOT NULL CHECK (status IN ('allowed', 'warning', 'rejected')),
      at INTEGER NOT NULL,
      session_id TEXT NOT NULL,
      PRIMARY KEY (account, window, source)
    ) WITHOUT ROWID`,
    `CREATE TABLE limit_readings (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      account TEXT NOT NULL,
      window TEXT NOT NULL,
      source TEXT NOT NULL,
      used_percent REAL,
      resets_at INTEGER,
      status TEXT NOT NULL,
      at INTEGER NOT NULL,
      session_id TEXT NOT NULL,
      UNIQUE (account, window, source, at)
    )`,
    `CREATE TABLE transcripts (
      path TEXT PRIMARY KEY,
      inode INTEGER NOT NULL,
      position INTEGER NOT NULL,
      updated_at INTEGER NOT NULL
    ) WITHOUT ROWID`,
    `CREATE TABLE handoffs (
      id TEXT PRIMARY KEY,
      account TEXT NOT NULL,
      session_id TEXT NOT NULL,
      window TEXT NOT NULL,
      window_resets_at INTEGER NOT NULL,
      cause TEXT NOT NULL CHECK (cause IN ('level', 'person', 'task')),
      state TEXT NOT NULL CHECK (
        state IN ('keeping', 'choosing', 'ready', 'running', 'succeeded', 'failed', 'cancelled')),
      why TEXT,
      mode TEXT NOT NULL CHECK (mode IN ('headless', 'launcher')),
      target TEXT,
      platform TEXT,
      chain TEXT,
      conveyance TEXT CHECK (conveyance IN ('whole', 'summary')),
      left_out TEXT,
      context TEXT,
      turns INTEGER,
      tool_pairs INTEGER,
      carried TEXT,
      transcript_hash TEXT,
      transcript_path TEXT,
      launcher TEXT,
      new_session_id TEXT,
      pid INTEGER,
      attempts INTEGER NOT NULL DEFAULT 0,
      next_at INTEGER,
      answer TEXT,
      answered_by TEXT,
      lease_owner TEXT,
      lease_epoch INTEGER NOT NULL DEFAULT 0,
      lease_until INTEGER NOT NULL DEFAULT 0,
      probe_until INTEGER,
      returned_at INTEGER,
      created_at INTEGER NOT NULL,
      updated_at INTEGER NOT NULL,
      UNIQUE (account, session_id, window, window_resets_at)
    )`,
    `CREATE INDEX handoffs_by_session ON handoffs (session_id, created_at)`,
    `CREATE INDEX handoffs_open ON handoffs (created_at) WHERE state NOT IN ('succeeded', 'failed', 'cancelled')`,
    `CREATE INDEX handoffs_away ON handoffs (account) WHERE returned_at IS NULL`,
    `CREATE INDEX handoffs_by_news ON handoffs (updated_at)`
  ],
  [
    `CREATE TABLE session_readings (
      session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
      window TEXT NOT NULL,
      used_percent REAL,
      resets_at INTEGER,
      status TEXT NOT NULL,
      answers_mark TEXT NOT NULL,
      at INTEGER NOT NULL,
      PRIMARY KEY (session_id, window)
    ) WITHOUT ROWID`
  ]
]

/** Kept in the database's `user_version`. */
export const schemaVersion = steps.length

/** What brings a database of that version to the newest; to be run in one transaction that began with the write lock. */
export const upgradeFrom = (version: number): ReadonlyArray<string> => [
  ...steps.slice(version).flat(),
  `PRAGMA user_version = ${schemaVersion}`
]
