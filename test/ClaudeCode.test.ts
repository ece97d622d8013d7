import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { NodeContext } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Effect, Either, Exit, Fiber, Layer, Redacted, Stream } from "effect"
import { ClaudeCode, type ClaudeRun } from "../src/ClaudeCode.js"
import { SessionId } from "../src/Domain/Session.js"
import { Simulator } from "../src/Simulator.js"
import { claudeCode, claudeHome, haveClaude, transcriptsOf } from "./support/Claude.js"

const run = (options: ClaudeRun) =>
  Effect.flatMap(ClaudeCode, (claude) => Stream.runCollect(claude.run(options))).pipe(Effect.map(Chunk.toReadonlyArray))

const simulator = Simulator.make({ seed: 1, keepRequests: 20, platforms: { anthropic: Simulator.anthropic } })

describe.skipIf(!haveClaude)("the real Claude Code", () => {
  it.live("tells its version, and whether somebody is logged in", () =>
    Effect.gen(function* () {
      const home = yield* claudeHome
      yield* Effect.gen(function* () {
        const claude = yield* ClaudeCode
        expect(yield* claude.version).toMatch(/^\d+\.\d+\.\d+$/)
        expect(yield* claude.isLoggedIn(undefined)).toBe(true)
        expect(yield* claude.isLoggedIn(home.configDir)).toBe(true)
        expect(yield* claude.isLoggedIn(join(home.home, "another"))).toBe(false)
      }).pipe(Effect.provide(claudeCode(home, "http://127.0.0.1:1")))
    }).pipe(Effect.scoped)
  )

  it.live(
    "answers, goes on in its session, meets its limit, and goes on in a fork elsewhere",
    () =>
      Effect.gen(function* () {
        const anthropic = yield* simulator
        const elsewhere = yield* simulator
        const home = yield* claudeHome
        const claude = claudeCode(home, anthropic.baseUrls.anthropic)
        const session = SessionId.make("11111111-1111-4111-8111-111111111111")
        const fork = SessionId.make("22222222-2222-4222-8222-222222222222")
        const common = { cwd: home.project, timeoutMs: 50_000 }
        yield* anthropic.subscription("anthropic", { five_hour: { utilization: 0.42 } })

        const events = yield* Effect.provide(
          run({ ...common, prompt: "remember the number 4711", sessionId: session }),
          claude
        )
        expect(events.map(({ _tag }) => _tag)).toEqual(["Spawned", "Started", "Text", "LimitReported", "Finished"])
        expect(events).toContainEqual({ _tag: "Started", sessionId: session, model: "claude-opus-5-5" })
        expect(events.find(({ _tag }) => _tag === "LimitReported")).toMatchObject({
          event: { rate_limit_info: { status: "allowed", unifiedWindows: { five_hour: { utilization: 0.42 } } } }
        })
        expect(events.at(-1)).toMatchObject({ sessionId: session, numTurns: 1 })

        yield* anthropic.subscription("anthropic", { seven_day: { utilization: 1, resetsInMs: 60_000_000 } })
        const before = transcriptsOf(home)[session]
        const refused = yield* Effect.provide(
          run({ ...common, prompt: "which number?", resume: session }),
          claude
        ).pipe(Effect.either)
        expect(Either.getLeft(refused)).toMatchObject({
          value: { _tag: "ClaudeLimitReached", sessionId: session, window: "seven_day" }
        })
        expect(transcriptsOf(home)[session]?.startsWith(before ?? "-")).toBe(true)

        const continued = yield* Effect.provide(
          run({
            ...common,
            prompt: "continue",
            resume: session,
            fork: true,
            sessionId: fork,
            model: "claude-sonnet-5-5",
            permissionMode: "acceptEdits",
            allowedTools: ["Read", "Bash(git log:*)"],
            router: { baseUrl: elsewhere.baseUrls.anthropic, token: Redacted.make("let-me-in") }
          }),
          claude
        )
        expect(continued.at(-1)).toMatchObject({ _tag: "Finished", sessionId: fork })
        const [received] = yield* elsewhere.requests
        expect(received).toMatchObject({ model: "claude-sonnet-5-5" })
        const turns = JSON.stringify(received?.body)
        expect(turns).toContain("remember the number 4711")
        expect(turns).toContain("Simulated answer of anthropic")
        expect(turns).toContain("continue")
        expect(turns).not.toContain("hit your")
        expect(Object.keys(transcriptsOf(home)).sort()).toEqual([session, fork].sort())
      }).pipe(Effect.scoped),
    60_000
  )
})

/** A program that stands for Claude Code: a shell script in a folder of its own. */
const scripted = (script: string) =>
  Effect.gen(function* () {
    const home = yield* claudeHome
    const command = join(home.home, "claude")
    writeFileSync(command, `#!/bin/sh\n${script}\n`, { mode: 0o700 })
    const layer = Layer.provide(ClaudeCode.layer({ command, environment: { SECRET: "" } }), NodeContext.layer)
    const options: ClaudeRun = { prompt: "hello", cwd: home.project, timeoutMs: 20_000 }
    return { ...home, options, layer }
  })

const session = "11111111-1111-4111-8111-111111111111"
const say = (...lines: ReadonlyArray<object>) =>
  lines.map((line) => `cat <<'END'\n${JSON.stringify({ session_id: session, ...line })}\nEND`).join("\n")

const failureOf = (script: string, options: Partial<ClaudeRun> = {}) =>
  Effect.gen(function* () {
    const claude = yield* scripted(script)
    return yield* run({ ...claude.options, ...options }).pipe(Effect.provide(claude.layer), Effect.flip)
  }).pipe(Effect.scoped)

const refused = (result: object, message: object = {}) =>
  say(
    {
      type: "assistant",
      message: { content: [{ type: "text", text: "in prose" }] },
      is_api_error_message: true,
      ...message
    },
    { type: "result", subtype: "success", is_error: true, result: "in prose", ...result }
  )

describe("a run's failure", () => {
  it.live("is told by fields: a limit, with its window and reset", () =>
    Effect.gen(function* () {
      const limit = { status: "rejected", resetsAt: 1_795_398_054, rateLimitType: "seven_day_opus" }
      const told = yield* failureOf(
        refused(
          { api_error: "usage_limit_reached", api_error_status: 429 },
          { error: "rate_limit", api_error_params: { rate_limit_info: limit } }
        )
      )
      expect(told).toMatchObject({
        _tag: "ClaudeLimitReached",
        sessionId: session,
        window: "seven_day_opus",
        resetsAt: 1_795_398_054_000
      })
      const older = yield* failureOf(
        `${say({ type: "rate_limit_event", rate_limit_info: limit })}\n${refused({}, { error: "rate_limit" })}`
      )
      expect(older).toMatchObject({ _tag: "ClaudeLimitReached", window: "seven_day_opus" })
    })
  )

  it.live("is told by fields: the login, the length, the endpoint, the rest", () =>
    Effect.gen(function* () {
      expect(yield* failureOf(refused({}, { error: "authentication_failed" }))).toMatchObject({
        _tag: "ClaudeNotLoggedIn"
      })
      expect(yield* failureOf(refused({ terminal_reason: "prompt_too_long" }))).toMatchObject({
        _tag: "ClaudePromptTooLong"
      })
      const busy = { api_error_status: 529, api_error_type: "overloaded_error" }
      expect(yield* failureOf(refused(busy, { error: "server_error" }))).toMatchObject({
        _tag: "ClaudeApiFailed",
        status: 529,
        type: "overloaded_error"
      })
      // An API key's own limit of requests is no usage limit of the account.
      expect(yield* failureOf(refused({ api_error_status: 429 }, { error: "rate_limit" }))).toMatchObject({
        _tag: "ClaudeApiFailed",
        status: 429
      })
      const unknown = { type: "result", subtype: "error_during_execution", is_error: true, errors: ["No conversation"] }
      expect(yield* failureOf(say(unknown))).toMatchObject({ _tag: "ClaudeFailed", message: "No conversation" })
      expect(yield* failureOf("echo nonsense; echo complaint >&2; exit 3")).toMatchObject({
        _tag: "ClaudeFailed",
        exitCode: 3,
        message: "Claude Code ended without a result: complaint"
      })
    })
  )

  it.live("is that it ended, also where it did not read its prompt", () =>
    Effect.gen(function* () {
      const failed = yield* failureOf("exec 0<&-; sleep 0.2; exit 3", { prompt: "x".repeat(4_000_000) })
      expect(failed).toMatchObject({ _tag: "ClaudeFailed", exitCode: 3 })
    })
  )

  it.live("is that it cannot be started", () =>
    Effect.gen(function* () {
      const layer = Layer.provide(ClaudeCode.layer({ command: "/nowhere/claude" }), NodeContext.layer)
      const failed = yield* run({ prompt: "", cwd: "/", timeoutMs: 1_000 }).pipe(Effect.provide(layer), Effect.flip)
      expect(failed._tag).toBe("ClaudeNotInstalled")
    })
  )
})

describe("a run", () => {
  it.live("passes what it was asked for: the prompt by its input, no secret in its arguments", () =>
    Effect.gen(function* () {
      const claude = yield* scripted(
        `cat > prompt; echo "$@" > args; env > env; ${say({ type: "result", is_error: false, result: "done" })}`
      )
      const prompt = "long ".repeat(100_000)
      const events = yield* run({
        ...claude.options,
        prompt,
        model: "dream-team,codex>gemini#1",
        router: { baseUrl: "http://127.0.0.1:1", token: Redacted.make("hush") }
      }).pipe(Effect.provide(claude.layer))
      expect(events.at(-1)).toMatchObject({ _tag: "Finished", text: "done" })
      const written = (name: string) => readFileSync(join(claude.project, name), "utf8")
      expect(written("prompt")).toBe(prompt)
      expect(written("args")).toContain("--model dream-team,codex>gemini#1")
      expect(written("args")).not.toContain("hush")
      expect(written("env")).toContain("ANTHROPIC_AUTH_TOKEN=hush")
      expect(written("env")).toContain("\nSECRET=\n")
    }).pipe(Effect.scoped)
  )

  it.live("ends its process and what that started when it is interrupted or takes too long", () =>
    Effect.gen(function* () {
      const claude = yield* scripted("sleep 300 & echo $! > child; wait")
      const child = join(claude.project, "child")
      const isThere = Effect.sync(() => existsSync(child) && readFileSync(child, "utf8").endsWith("\n"))
      const lives = () => {
        try {
          return process.kill(Number(readFileSync(child, "utf8")), 0)
        } catch {
          return false
        }
      }
      const fiber = yield* run(claude.options).pipe(Effect.provide(claude.layer), Effect.fork)
      yield* Effect.repeat(Effect.sleep(20), { until: () => isThere })
      expect(lives()).toBe(true)
      expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      yield* Effect.repeat(Effect.sleep(20), { until: () => !lives() }).pipe(Effect.timeout("5 seconds"))

      const late = yield* run({ ...claude.options, timeoutMs: 300 }).pipe(Effect.provide(claude.layer), Effect.flip)
      expect(late).toMatchObject({ _tag: "ClaudeTimedOut", timeoutMs: 300 })
    }).pipe(Effect.scoped)
  )
})
