import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, it } from "@effect/vitest"
import Sqlite from "better-sqlite3"
import { Effect, TestClock } from "effect"
import { SessionId } from "../../src/Domain/Session.js"
import { makeTable } from "../../src/SessionStore/Table.js"
import { SessionStore, SessionsSql } from "../../src/SessionStore.js"

const now = Date.parse("2026-11-23T12:00:00Z")

const table = `
  CREATE TABLE coordination_sessions (
    id TEXT PRIMARY KEY, task_id TEXT, platform TEXT, session_type TEXT, start_time TEXT, end_time TEXT,
    tokens_used INTEGER, api_calls INTEGER, estimated_cost_usd REAL, model_used TEXT, context_size_start INTEGER,
    context_size_end INTEGER, compaction_events INTEGER, handoff_from_session TEXT, handoff_to_session TEXT,
    handoff_context TEXT, handoff_success INTEGER, metadata TEXT, updated_at TEXT
  )`

const insert = (db: Sqlite.Database, id: string, more: Readonly<Record<string, string | number | null>> = {}): void => {
  const row = {
    id,
    platform: "claude_code",
    start_time: "2026-11-23 11:00:00",
    updated_at: "2026-11-23 11:58:00",
    ...more
  }
  const names = Object.keys(row)
  db.prepare(`INSERT INTO coordination_sessions (${names}) VALUES (${names.map(() => "?")})`).run(...Object.values(row))
}

it.scoped("takes over the open sessions of claude_code, and their limits where it has them", () =>
  Effect.gen(function* () {
    const folder = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "dream-team-table-"))),
      (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
    )
    const file = join(folder, "coordination.db")
    const db = new Sqlite(file)
    db.exec(table)
    const metadata = {
      session_id: "11111111-1111-4111-8111-111111111111",
      cwd: "/project",
      rate_limits: { five_hour: { used_percentage: 90, resets_at: now / 1000 + 3600 } }
    }
    insert(db, "row-1", { metadata: JSON.stringify(metadata), model_used: "claude-opus-5-5", estimated_cost_usd: 2.5 })
    insert(db, "row-2", { metadata: "no json" })
    insert(db, "row-3", { end_time: "2026-11-23 11:30:00" })
    insert(db, "row-4", { platform: "openai_codex" })
    const before = readFileSync(file)
    yield* TestClock.setTime(now)

    const store = yield* SessionStore
    const { pass } = yield* makeTable({ setting: file, account: "/home/me/.claude" })
    expect(yield* pass).toBe(2)
    expect(yield* store.get(SessionId.make(metadata.session_id))).toMatchObject({
      account: "/home/me/.claude",
      cwd: "/project",
      model: "claude-opus-5-5",
      costUsd: 2.5,
      status: "active",
      source: "table",
      // Texts without a zone are UTC.
      updatedAt: Date.parse("2026-11-23T11:58:00Z")
    })
    expect(yield* store.limits).toMatchObject([
      { readings: [{ window: "five_hour", usedPercent: 90, source: "table" }] }
    ])
    expect((yield* store.list({ limit: 9 })).map(({ id }) => id)).toContain("row-2")
    expect(readFileSync(file).equals(before)).toBe(true)

    expect(yield* pass).toBe(0)
    // A time shifted by the writer's zone: what is seen to change is of now.
    db.exec(
      "UPDATE coordination_sessions SET tokens_used = 5, model_used = 'm', updated_at = '2026-11-23 09:00:00' WHERE id = 'row-2'"
    )
    expect(yield* pass).toBe(1)
    expect(yield* store.get(SessionId.make("row-2"))).toMatchObject({ updatedAt: now, model: "m" })
    db.close()
  }).pipe(Effect.provide(SessionStore.layerMemory))
)

it.scoped("may be a table in the sessions database itself, or not be there", () =>
  Effect.gen(function* () {
    const sql = yield* SessionsSql
    yield* TestClock.setTime(now)
    const own = yield* makeTable({ setting: "coordination_sessions", account: "/a" })
    expect((yield* Effect.flip(own.pass)).message).toContain("coordination_sessions")
    yield* sql.unsafe(table)
    yield* sql`INSERT INTO coordination_sessions (id, platform) VALUES ('row-1', 'claude_code')`
    expect(yield* own.pass).toBe(1)
    const missing = yield* makeTable({ setting: "/nowhere/coordination.db", account: "/a" })
    expect((yield* Effect.flip(missing.pass)).message).toContain("/nowhere/coordination.db")
  }).pipe(Effect.provide(SessionStore.layerMemory))
)
