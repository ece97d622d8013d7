import { mkdtempSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, expect, it } from "@effect/vitest"
import Sqlite from "better-sqlite3"
import { Deferred, Effect, Fiber, Layer, TestClock } from "effect"
import { SessionId } from "../src/Domain/Session.js"
import { type SessionReport, SessionStore, SessionsSql } from "../src/SessionStore.js"

const id = SessionId.make("session-1")

const report = (more: Partial<SessionReport> = {}): SessionReport => ({
  sessionId: id,
  account: "/home/me/.claude",
  source: "hook",
  at: 1_000_000,
  readings: [],
  usage: [],
  ...more
})

const limited = (at: number, resetsAt: number) =>
  report({
    at,
    status: "limited",
    limit: { window: "five_hour", hitAt: at, resetsAt },
    readings: [{ window: "five_hour", usedPercent: 100, resetsAt, status: "rejected" }]
  })

/** Records these in order and answers the session after each. */
const after = (...reports: ReadonlyArray<SessionReport>) =>
  Effect.gen(function* () {
    const store = yield* SessionStore
    return yield* Effect.forEach(reports, (next) => Effect.zipRight(store.record(next), store.get(id)))
  }).pipe(Effect.provide(SessionStore.layerMemory))

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "dream-team-sessions-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const onFile = (file: string) => Layer.provideMerge(SessionStore.layerFile(file), SessionsSql.layerFile(file))

describe("a session", () => {
  it.effect("is what its reports tell together", () =>
    Effect.gen(function* () {
      const states = yield* after(
        report({ status: "started", cwd: "/project", pid: 17, launchedBy: "dream-team", handoff: "auto" }),
        report({ at: 1_000_100, source: "statusline", model: "claude-opus-5-5", contextUsedPercent: 40, costUsd: 1.5 }),
        report({ at: 1_000_200, status: "active", allowedTools: ["Read", "Bash(ls:*)"], permissionMode: "plan" })
      )
      expect(states.at(-1)).toEqual({
        id,
        account: "/home/me/.claude",
        transcriptPath: undefined,
        cwd: "/project",
        model: "claude-opus-5-5",
        status: "active",
        contextUsedPercent: 40,
        contextTokens: undefined,
        contextWindow: undefined,
        inputTokens: undefined,
        outputTokens: undefined,
        costUsd: 1.5,
        limit: undefined,
        source: "hook",
        pid: 17,
        permissionMode: "plan",
        allowedTools: ["Read", "Bash(ls:*)"],
        launchedBy: "dream-team",
        handoff: "auto",
        startedAt: 1_000_000,
        endedAt: undefined,
        updatedAt: 1_000_200
      })
    })
  )

  it.effect("is not set back by what comes late", () =>
    Effect.gen(function* () {
      const states = yield* after(
        report({ at: 2_000, status: "ended", model: "new" }),
        report({ at: 1_000, status: "active", model: "old", cwd: "/filled-in" })
      )
      expect(states.at(-1)).toMatchObject({
        status: "ended",
        endedAt: 2_000,
        model: "new",
        cwd: "/filled-in",
        startedAt: 1_000,
        updatedAt: 2_000
      })
    })
  )

  it.effect("stays refused until it is answered again, or opened after the reset", () =>
    Effect.gen(function* () {
      const states = yield* after(
        report({ at: 1_000, status: "started" }),
        limited(2_000, 9_000),
        report({ at: 3_000, source: "statusline", costUsd: 2 }),
        report({ at: 4_000, status: "ended" }),
        limited(5_000, 9_000),
        report({ at: 6_000, status: "started" }),
        report({ at: 9_500, status: "started" }),
        limited(9_600, 20_000),
        report({ at: 9_700, status: "active" })
      )
      expect(states.map((state) => state?.status)).toEqual([
        "active",
        "limited",
        "limited",
        "ended",
        "limited",
        "limited",
        "active",
        "limited",
        "active"
      ])
      expect(states[1]?.limit).toEqual({ window: "five_hour", hitAt: 2_000, resetsAt: 9_000 })
      expect(states.at(-1)?.limit).toBeUndefined()
    })
  )

  it.effect("stays handed off when its old end is told of, and not when it is used again", () =>
    Effect.gen(function* () {
      const store = yield* SessionStore
      yield* store.record(limited(1_000, 9_000))
      yield* TestClock.setTime(2_000)
      yield* store.setStatus(id, "handed-off")
      const state = Effect.map(store.get(id), (found) => found?.status)
      yield* store.record(report({ at: 1_500, status: "active" }))
      assert.strictEqual(yield* state, "handed-off")
      yield* store.record(report({ at: 2_500, status: "ended" }))
      assert.strictEqual(yield* state, "handed-off")
      yield* store.record(report({ at: 3_000, status: "active" }))
      assert.strictEqual(yield* state, "active")
    }).pipe(Effect.provide(SessionStore.layerMemory))
  )

  it.effect("counts each answer once, however often and by whomever it is told", () =>
    Effect.gen(function* () {
      const first = { message: "msg_1 req_1", inputTokens: 100, outputTokens: 1 }
      const whole = { ...first, outputTokens: 30 }
      const store = yield* SessionStore
      yield* store.record(report({ usage: [first] }))
      yield* store.record(report({ usage: [whole, { message: "msg_2", inputTokens: 7, outputTokens: 8 }] }))
      yield* store.record(report({ usage: [first] }))
      // A fork begins with copies of the lines of its origin.
      yield* store.record(report({ sessionId: "fork", usage: [whole] }))
      expect(yield* store.get(id)).toMatchObject({ inputTokens: 107, outputTokens: 38 })
      expect(yield* store.get(SessionId.make("fork"))).toMatchObject({ inputTokens: undefined })
    }).pipe(Effect.provide(SessionStore.layerMemory))
  )

  it.effect("is forgotten when nothing was heard of it for a month", () =>
    Effect.gen(function* () {
      const store = yield* SessionStore
      const month = 31 * 24 * 60 * 60_000
      yield* store.record(report({ usage: [{ message: "m", inputTokens: 1, outputTokens: 1 }] }))
      yield* store.record(report({ sessionId: "session-2", at: 1_000_000 + month }))
      assert.isUndefined(yield* store.get(id))
      const sql = yield* SessionsSql
      expect(yield* sql`SELECT * FROM session_usage`).toEqual([])
    }).pipe(Effect.provide(SessionStore.layerMemory))
  )
})

it.effect("lists sessions, the last heard of first", () =>
  Effect.gen(function* () {
    const store = yield* SessionStore
    for (const [at, name, status] of [
      [1, "a", "active"],
      [3, "b", "ended"],
      [2, "c", "active"]
    ] as const) {
      yield* store.record(report({ sessionId: name, at, status }))
    }
    const ids = (options: Parameters<typeof store.list>[0]) =>
      Effect.map(store.list(options), (sessions) => sessions.map(({ id }) => id))
    expect(yield* ids({ limit: 10 })).toEqual(["b", "c", "a"])
    expect(yield* ids({ limit: 2 })).toEqual(["b", "c"])
    expect(yield* ids({ status: "active", limit: 10 })).toEqual(["c", "a"])
  }).pipe(Effect.provide(SessionStore.layerMemory))
)

it.effect("keeps the newest reading of each account, window and source, and the changes before it", () =>
  Effect.gen(function* () {
    const store = yield* SessionStore
    const reading = (at: number, usedPercent: number, more: Partial<SessionReport> = {}) =>
      store.record(
        report({ at, readings: [{ window: "five_hour", usedPercent, resetsAt: 9_000, status: "allowed" }], ...more })
      )
    yield* reading(1_000, 10)
    yield* reading(2_000, 10)
    yield* reading(3_000, 30)
    yield* reading(2_500, 20)
    yield* reading(3_000, 31, { source: "statusline" })
    yield* reading(3_000, 5, { account: "/home/me/.claude-work" })
    expect(yield* store.limits).toMatchObject([
      {
        account: "/home/me/.claude",
        readings: [
          { source: "hook", usedPercent: 30, at: 3_000, window: "five_hour", sessionId: id },
          { source: "statusline", usedPercent: 31 }
        ]
      },
      { account: "/home/me/.claude-work", readings: [{ usedPercent: 5 }] }
    ])
    const sql = yield* SessionsSql
    const kept = yield* sql<{ readonly at: number }>`
      SELECT at FROM limit_readings WHERE account = '/home/me/.claude' AND source = 'hook' ORDER BY at`
    expect(kept.map(({ at }) => at)).toEqual([1_000, 2_500, 3_000])
  }).pipe(Effect.provide(SessionStore.layerMemory))
)

it.effect("dates what a status line repeats by the answer it came with, so that idle sessions hide nothing", () =>
  Effect.gen(function* () {
    const store = yield* SessionStore
    const paint = (session: string, at: number, usedPercent: number, answersMark: string, windows = ["five_hour"]) =>
      store.record(
        report({
          sessionId: session,
          at,
          source: "statusline",
          answersMark,
          readings: windows.map((window) => ({ window, usedPercent, resetsAt: 9_000_000, status: "allowed" as const }))
        })
      )
    const told = Effect.map(store.limits, ([account]) =>
      (account?.readings ?? []).map(({ at, usedPercent, window }) => [window, usedPercent, at])
    )
    yield* paint("idle", 1_000, 40, "1 20", ["five_hour", "seven_day"])
    yield* paint("busy", 5_000, 70, "3 90")
    // Another window has reset, and is not shown any more: nothing was asked for that.
    yield* paint("idle", 6_000, 40, "1 20")
    yield* paint("busy", 7_000, 70, "3 90")
    expect(yield* told).toEqual([
      ["five_hour", 70, 5_000],
      ["seven_day", 40, 1_000]
    ])
    // It is asked again and gets the same percentage: that is a new reading.
    yield* paint("busy", 8_000, 70, "4 95")
    expect(yield* told).toContainEqual(["five_hour", 70, 8_000])
    // A report that comes late, from a spool.
    yield* paint("busy", 7_500, 70, "4 95")
    yield* paint("busy", 8_500, 70, "4 95")
    expect(yield* told).toContainEqual(["five_hour", 70, 8_000])
    yield* paint("idle", 9_000, 71, "2 30")
    expect(yield* told).toContainEqual(["five_hour", 71, 9_000])
  }).pipe(Effect.provide(SessionStore.layerMemory))
)

it.effect("keeps readings for a week, and the latest of each source for a month", () =>
  Effect.gen(function* () {
    const store = yield* SessionStore
    const sql = yield* SessionsSql
    const day = 24 * 3_600_000
    const reading = (at: number, usedPercent: number, source: SessionReport["source"] = "hook") =>
      store.record(report({ at, source, readings: [{ window: "five_hour", usedPercent, status: "allowed" }] }))
    const kept = Effect.map(sql<{ readonly at: number }>`SELECT at FROM limit_readings ORDER BY at`, (rows) =>
      rows.map(({ at }) => at / day)
    )
    yield* reading(1 * day, 1, "transcript")
    yield* reading(2 * day, 2)
    yield* reading(8.5 * day, 3)
    expect(yield* kept).toEqual([2, 8.5])
    yield* reading(30 * day, 4)
    expect(yield* kept).toEqual([30])
    expect((yield* store.limits)[0]?.readings).toHaveLength(2)
    yield* reading(32 * day, 5)
    expect((yield* store.limits)[0]?.readings).toMatchObject([{ source: "hook", usedPercent: 5 }])
  }).pipe(Effect.provide(SessionStore.layerMemory))
)

describe("the database", () => {
  it.scoped("is one file that several processes write into, and only its user reads", () =>
    Effect.gen(function* () {
      const file = join(yield* folder, "below", "sessions.db")
      const one = yield* Layer.build(onFile(file))
      const two = yield* Layer.build(onFile(file))
      yield* Effect.provide(
        Effect.flatMap(SessionStore, (store) => store.record(report())),
        one
      )
      expect(
        yield* Effect.provide(
          Effect.flatMap(SessionStore, (store) => store.get(id)),
          two
        )
      ).toMatchObject({ id })
      for (const name of ["", "-wal", "-shm"]) expect(statSync(`${file}${name}`).mode & 0o777).toBe(0o600)
    })
  )

  it.scopedLive("waits for another writer without holding the process up, and begins a transaction as a writer", () =>
    Effect.gen(function* () {
      const file = join(yield* folder, "sessions.db")
      yield* Effect.gen(function* () {
        const store = yield* SessionStore
        const sql = yield* SessionsSql
        const other = new Sqlite(file)
        other.exec("BEGIN IMMEDIATE")
        const writes = yield* Effect.fork(
          Effect.all([store.record(report()), store.setStatus(id, "ended")], { concurrency: 2 })
        )
        let turns = 0
        for (; turns < 20; turns++) yield* Effect.sleep("5 millis")
        expect(yield* Fiber.poll(writes)).toMatchObject({ _tag: "None" })
        other.exec("COMMIT")
        yield* Fiber.join(writes)

        // Between its look and its write nobody else comes in.
        const looked = yield* Deferred.make<void>()
        const counted = sql.withTransaction(
          Effect.gen(function* () {
            const [row] = yield* sql<{ readonly n: number }>`SELECT COUNT(*) AS n FROM sessions`
            yield* Deferred.succeed(looked, undefined)
            yield* Effect.sleep("50 millis")
            yield* store.record(report({ sessionId: `after-${row?.n}` }))
          })
        )
        const fiber = yield* Effect.fork(counted)
        yield* Deferred.await(looked)
        other.pragma("busy_timeout = 0")
        expect(() => other.exec("BEGIN IMMEDIATE")).toThrow("locked")
        yield* Fiber.join(fiber)
        other.close()
        expect((yield* store.list({ limit: 10 })).map(({ id }) => id).sort()).toEqual(["after-1", "session-1"])
      }).pipe(Effect.provide(onFile(file)))
    })
  )

  it.scoped("says what is wrong with a file that is none, or too new", () =>
    Effect.gen(function* () {
      const path = yield* folder
      const problem = (file: string) => Effect.flip(Layer.build(SessionsSql.layerFile(file)))
      const newer = join(path, "newer.db")
      const made = new Sqlite(newer)
      made.pragma("user_version = 99")
      made.close()
      expect((yield* problem(newer)).message).toContain("newer version of Dream Team")
      const text = join(path, "text.db")
      yield* Effect.sync(() => Sqlite(join(path, "x.db")).close())
      yield* Effect.promise(() => import("node:fs/promises").then((fs) => fs.writeFile(text, "no database".repeat(99))))
      expect((yield* problem(text)).message).toContain("is not a SQLite database")
      expect((yield* problem(text)).message).toContain("DREAM_TEAM_SESSIONS_DB")
      expect((yield* problem("/proc/nowhere/sessions.db")).message).toContain("cannot be")
    })
  )
})
