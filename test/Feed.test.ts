import { type SpawnOptions, spawn } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import Sqlite from "better-sqlite3"
import { Effect, Layer } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { SessionId } from "../src/Domain/Session.js"
import { SessionStore, SessionsSql } from "../src/SessionStore.js"
import { Simulator } from "../src/Simulator.js"
import { claudeCommand, claudeHome, haveClaude } from "./support/Claude.js"
import { dreamTeam, feed, feedProgram } from "./support/Command.js"

/** Runs a program until it ends and answers its exit code. */
const execute = (command: string, args: ReadonlyArray<string>, options: SpawnOptions): Promise<number | null> =>
  new Promise((resolve, reject) => {
    spawn(command, args, { ...options, stdio: "ignore" })
      .on("error", reject)
      .on("close", resolve)
  })

let folder = ""
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "dream-team-feed-"))
})
afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

let count = 0
/** A database of its own for each test, not made yet. */
const fresh = (): string => join(folder, String(++count), "sessions.db")

const session = SessionId.make("11111111-1111-4111-8111-111111111111")
const inAnHour = Math.floor(Date.now() / 1000) + 3600

/** As Claude Code documents what it gives a status line. */
const status = (rateLimits: object | null = { five_hour: { used_percentage: 86.4, resets_at: inAnHour } }) => ({
  hook_event_name: "Status",
  session_id: session,
  transcript_path: "/somewhere/projects/-project/session.jsonl",
  cwd: "/project",
  model: { id: "claude-opus-5-5", display_name: "Opus" },
  workspace: { current_dir: "/project", project_dir: "/project" },
  version: "2.1.330",
  cost: { total_cost_usd: 1.25, total_duration_ms: 45_000 },
  context_window: {
    total_input_tokens: 15_234,
    total_output_tokens: 4521,
    context_window_size: 200_000,
    used_percentage: 8,
    remaining_percentage: 92,
    current_usage: {
      input_tokens: 8500,
      output_tokens: 1200,
      cache_creation_input_tokens: 5000,
      cache_read_input_tokens: 2000
    }
  },
  ...(rateLimits === null ? {} : { rate_limits: rateLimits })
})

const hook = (event: string, more: object = {}) => ({
  hook_event_name: event,
  session_id: session,
  transcript_path: "/somewhere/projects/-project/session.jsonl",
  cwd: "/project",
  permission_mode: "acceptEdits",
  ...more
})

const reading = <A>(database: string, read: (store: SessionStore["Type"]) => Effect.Effect<A, unknown>): Promise<A> =>
  Effect.runPromise(
    Effect.flatMap(SessionStore, read).pipe(
      Effect.provide(Layer.provideMerge(SessionStore.layerFile(database), SessionsSql.layerFile(database)))
    )
  )

const report = (database: string, json: unknown, args: ReadonlyArray<string> = ["statusline"], env = {}) =>
  feed([...args, "--database", database], { stdin: JSON.stringify(json), env })

describe("the status line", () => {
  it("stores limits and context, and prints them shortly", async () => {
    const database = fresh()
    const ran = await report(database, status(), ["statusline"], { CLAUDE_CONFIG_DIR: "/home/me/.claude-work" })
    expect(ran).toMatchObject({ code: 0, stderr: "" })
    expect(ran.stdout).toMatch(/^5h 86% until \d\d:\d\d · context 8%\n$/)
    const stored = await reading(database, (store) => store.get(session))
    expect(stored).toMatchObject({
      account: "/home/me/.claude-work",
      transcriptPath: "/somewhere/projects/-project/session.jsonl",
      cwd: "/project",
      model: "claude-opus-5-5",
      status: "active",
      contextUsedPercent: 8,
      contextTokens: 15_500 + 1200,
      contextWindow: 200_000,
      costUsd: 1.25,
      source: "statusline",
      launchedBy: "user"
    })
    expect(await reading(database, (store) => store.limits)).toEqual([
      {
        account: "/home/me/.claude-work",
        readings: [
          expect.objectContaining({
            window: "five_hour",
            usedPercent: 86.4,
            resetsAt: inAnHour * 1000,
            status: "allowed",
            source: "statusline",
            sessionId: session
          })
        ]
      }
    ])
    expect(statSync(database).mode & 0o777).toBe(0o600)
  })

  it("shows the user's own status line first, which gets the same input", async () => {
    const database = fresh()
    const ran = await feed(["statusline", "--database", database, "--then", `printf '%s of mine' "$(wc -c)"; exit 3`], {
      stdin: JSON.stringify(status())
    })
    expect(ran.code).toBe(0)
    expect(ran.stdout).toMatch(new RegExp(`^ *${JSON.stringify(status()).length} of mine\n5h 86%.*\n$`))
  })

  it("says nothing of limits to those who have none", async () => {
    const database = fresh()
    expect(await report(database, status(null))).toMatchObject({ code: 0, stdout: "context 8%\n" })
    expect(await reading(database, (store) => store.limits)).toEqual([])
  })

  it("prints the user's own line and succeeds, whatever is wrong", async () => {
    const notADatabase = fresh()
    mkdirSync(join(folder, String(count)))
    writeFileSync(notADatabase, "no database ".repeat(100))
    const then = ["--then", "echo mine"]
    for (const [database, stdin] of [
      [fresh(), "{ no json"],
      [fresh(), ""],
      [fresh(), "[]"],
      [fresh(), JSON.stringify({ session_id: "../../etc/passwd" })],
      [fresh(), JSON.stringify({ session_id: session, rate_limits: "none", context_window: [1], cost: null })],
      [fresh(), "x".repeat(3_000_000)],
      [notADatabase, JSON.stringify(status())],
      ["/proc/nowhere/sessions.db", JSON.stringify(status())]
    ] as const) {
      const ran = await feed(["statusline", "--database", database, ...then], { stdin })
      expect(ran).toMatchObject({ code: 0, stderr: "" })
      expect(ran.stdout).toMatch(/^mine\n/)
    }
    const failing = await feed(["statusline", "--database", fresh(), "--then", "no-such-program-of-mine"], {
      stdin: "{}"
    })
    expect(failing).toMatchObject({ code: 0, stdout: "" })
  })
})

describe("a busy database", () => {
  it("is waited for shortly, and then spooled beside; the service takes it in", async () => {
    const database = fresh()
    await report(database, hook("SessionStart"), ["hook"])
    const other = new Sqlite(database)
    other.exec("BEGIN IMMEDIATE")
    const ran = await report(database, status())
    await report(database, hook("SessionEnd"), ["hook"])
    expect(ran).toMatchObject({ code: 0, stderr: "" })
    expect(ran.stdout).toContain("5h 86%")
    const spool = `${database}.spool`
    expect(statSync(spool).mode & 0o777).toBe(0o600)
    expect(readFileSync(spool, "utf8").trimEnd().split("\n")).toHaveLength(2)
    other.exec("COMMIT")
    other.close()

    expect((await reading(database, (store) => store.get(session)))?.status).toBe("active")
    expect(await reading(database, (store) => store.drainSpool)).toBe(2)
    expect(existsSync(spool)).toBe(false)
    expect(await reading(database, (store) => store.get(session))).toMatchObject({ status: "ended", costUsd: 1.25 })
    expect(await reading(database, (store) => store.drainSpool)).toBe(0)
  })

  it("lets none of many feeds at once get lost", async () => {
    const database = fresh()
    const ids = Array.from({ length: 12 }, (_, index) => `session-${index}`)
    const ran = await Promise.all(ids.map((id) => report(database, { ...status(), session_id: id })))
    expect(ran.map(({ code }) => code)).toEqual(ids.map(() => 0))
    await reading(database, (store) => store.drainSpool)
    const stored = await reading(database, (store) => store.list({ limit: 100 }))
    expect(stored.map(({ id }) => id).sort()).toEqual(ids.sort())
  })

  it("has a spool that does not grow without end", async () => {
    const database = fresh()
    await report(database, hook("SessionStart"), ["hook"])
    const full = "x".repeat(4 * 1024 * 1024)
    writeFileSync(`${database}.spool`, full)
    const other = new Sqlite(database)
    other.exec("BEGIN IMMEDIATE")
    expect(await report(database, status())).toMatchObject({ code: 0 })
    other.close()
    expect(statSync(`${database}.spool`).size).toBe(full.length)
    expect(await reading(database, (store) => store.drainSpool)).toBe(0)
    expect(existsSync(`${database}.spool`)).toBe(false)
  })
})

describe("a hook", () => {
  it("tells of a session's start, answer and end, and prints nothing", async () => {
    const database = fresh()
    const states: Array<string | undefined> = []
    for (const event of ["SessionStart", "Stop", "SessionEnd", "SessionStart"]) {
      expect(await report(database, hook(event), ["hook"])).toEqual({ code: 0, stdout: "", stderr: "" })
      states.push((await reading(database, (store) => store.get(session)))?.status)
    }
    expect(states).toEqual(["active", "active", "ended", "active"])
    expect(await reading(database, (store) => store.get(session))).toMatchObject({ permissionMode: "acceptEdits" })
    expect(await feed(["hook", "--database", database], { stdin: "{ no json" })).toEqual({
      code: 0,
      stdout: "",
      stderr: ""
    })
  })

  it("finds a refusal's window and reset where the transcript has them", async () => {
    const database = fresh()
    const transcript = join(folder, "transcript.jsonl")
    const refusal = {
      type: "assistant",
      timestamp: new Date().toISOString(),
      sessionId: session,
      isApiErrorMessage: true,
      error: "rate_limit",
      apiError: "usage_limit_reached",
      message: { model: "<synthetic>" },
      quotaLimits: { status: "rejected", resetsAt: inAnHour, rateLimitType: "seven_day" }
    }
    writeFileSync(transcript, `{"type":"user"}\n${JSON.stringify(refusal)}\n{"type":"system"}\n`)
    const failure = hook("StopFailure", {
      transcript_path: transcript,
      error: "rate_limit",
      last_assistant_message: "You've hit your limit"
    })
    expect(await report(database, failure, ["hook"])).toEqual({ code: 0, stdout: "", stderr: "" })
    expect(await reading(database, (store) => store.get(session))).toMatchObject({
      status: "limited",
      limit: { window: "seven_day", resetsAt: inAnHour * 1000 }
    })
  })

  it("goes by the refusal's words where there is no transcript, and by nothing where it is no refusal", async () => {
    const database = fresh()
    const failure = (error: string, words: string) =>
      report(database, hook("StopFailure", { error, last_assistant_message: words }), ["hook"])
    await failure("server_error", "You've hit your 5-hour limit")
    await failure("rate_limit", "Too many requests")
    expect((await reading(database, (store) => store.get(session)))?.status).toBe("active")
    await failure("rate_limit", "You've hit your 5-hour limit · resets 3:24pm (UTC)")
    expect(await reading(database, (store) => store.get(session))).toMatchObject({
      status: "limited",
      limit: { window: "five_hour" }
    })
    expect(await reading(database, (store) => store.limits)).toMatchObject([
      { readings: [{ window: "five_hour", status: "rejected", source: "hook" }] }
    ])
  })
})

it("is installed by name, and says how it is used", async () => {
  expect(existsSync(feedProgram)).toBe(true)
  expect(await feed([])).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("Usage: dream-team-feed statusline")
  })
})

it.skipIf(!haveClaude)(
  "is told by the real Claude Code of a session, its limit and its end",
  () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make({ seed: 1, platforms: { anthropic: Simulator.anthropic } })
      const home = yield* claudeHome
      const database = join(home.home, "sessions.db")
      const installed = yield* Effect.promise(() =>
        dreamTeam(["claude", "install", "--settings", join(home.configDir, "settings.json")], {
          cwd: home.home,
          env: { HOME: home.home, DREAM_TEAM_SESSIONS_DB: database }
        })
      )
      expect(installed).toMatchObject({ code: 0, stderr: "" })
      const ask = (prompt: string, ...options: ReadonlyArray<string>) =>
        Effect.promise(() =>
          execute(claudeCommand, ["-p", prompt, ...options], {
            cwd: home.project,
            env: {
              PATH: process.env.PATH,
              ...home.environment(simulator.baseUrls.anthropic),
              CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1"
            }
          })
        )

      expect(yield* ask("remember the number 4711", "--session-id", session)).toBe(0)
      const answered = yield* Effect.promise(() => reading(database, (store) => store.get(session)))
      expect(answered).toMatchObject({ status: "ended", account: home.configDir, cwd: home.project, source: "hook" })
      expect(answered?.transcriptPath).toContain(session)

      yield* simulator.subscription("anthropic", { five_hour: { utilization: 1, resetsInMs: 3_600_000 } })
      expect(yield* ask("which number?", "--resume", session)).toBe(1)
      const limits = yield* Effect.promise(() => reading(database, (store) => store.limits))
      const refused = { window: "five_hour", resetsAt: expect.any(Number) }
      expect(limits).toMatchObject([
        { account: home.configDir, readings: [{ ...refused, status: "rejected", source: "hook" }] }
      ])
      const limited = yield* Effect.promise(() => reading(database, (store) => store.get(session)))
      expect(limited).toMatchObject({ status: "limited", limit: refused })
    }).pipe(Effect.scoped, Effect.runPromise),
  90_000
)
