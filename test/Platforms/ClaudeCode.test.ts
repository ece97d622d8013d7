import { FileSystem } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Layer, Option, Redacted, Stream } from "effect"
import {
  ClaudeApiFailed,
  type ClaudeEvent,
  ClaudeFailed,
  type ClaudeFailure,
  ClaudeLimitReached,
  ClaudeNotInstalled,
  ClaudeNotLoggedIn,
  ClaudePromptTooLong,
  type ClaudeRun,
  ClaudeTimedOut
} from "../../src/ClaudeCode.js"
import type { Call } from "../../src/Domain/Call.js"
import { scopeOf } from "../../src/Domain/Failure.js"
import { SessionId } from "../../src/Domain/Session.js"
import { attemptFailureOf, makeClaudePlatform } from "../../src/Platforms/Cli/ClaudeCode.js"
import { SessionHandoffRefused, SessionHandoffs } from "../../src/SessionStore/Requests.js"
import { SessionStore } from "../../src/SessionStore.js"
import { Settings } from "../../src/Settings.js"

const session = SessionId.make("11111111-1111-4111-8111-111111111111")
const settings = Settings.make({
  database: "/data/tasks.db",
  claude: { command: undefined, configDir: "/home/of/claude" }
})
const platform = Settings.platformDefaults("claude", { apiKey: "", baseUrl: "claude -p", model: "sonnet" })
const call: Call = { messages: [{ role: "user", content: "what is 2 + 2?" }] }
const usage = { inputTokens: 10, cachedInputTokens: 2, outputTokens: 5, reasoningTokens: 0 }

const started: ClaudeEvent = { _tag: "Started", sessionId: session, model: "claude-sonnet-5-5" }
const reported = (status: string, utilization: number): ClaudeEvent => ({
  _tag: "LimitReported",
  event: {
    type: "rate_limit_event",
    session_id: session,
    rate_limit_info: {
      status,
      resetsAt: 4_000,
      rateLimitType: "five_hour",
      unifiedWindows: { five_hour: { utilization, resetsAt: 4_000, status } }
    }
  }
})
const finished: ClaudeEvent = { _tag: "Finished", text: "4", sessionId: session, usage, numTurns: 1 }

/** The platform over a Claude Code that tells these events, then fails if it is to; and what it was asked. */
const scripted = (events: ReadonlyArray<ClaudeEvent>, failure?: ClaudeFailure, loggedIn = true) =>
  Effect.gen(function* () {
    const runs: Array<ClaudeRun> = []
    const sessions = yield* SessionStore
    const handoffs = yield* SessionHandoffs
    const client = makeClaudePlatform(platform, settings, {
      claude: Option.some({
        run: (run) => {
          runs.push(run)
          const told = Stream.fromIterable(events)
          return failure === undefined ? told : Stream.concat(told, Stream.fail(failure))
        },
        version: Effect.succeed("2.1.330"),
        isLoggedIn: (configDir) => Effect.succeed(configDir === "/home/of/claude" && loggedIn)
      }),
      sessions: Option.some(sessions),
      handoffs: Option.some(handoffs),
      files: Option.some(FileSystem.makeNoop({ makeDirectory: () => Effect.void }))
    })
    const deltas = (call: Call) => Effect.map(Stream.runCollect(client.stream("sonnet", call)), Chunk.toReadonlyArray)
    return { client, deltas, handoffs, runs, sessions }
  })

const services = Layer.merge(SessionStore.layerMemory, SessionHandoffs.layer)

const limit = new ClaudeLimitReached({ message: "limit", sessionId: session, window: "five_hour", resetsAt: 4_000_000 })

describe("the platform of Claude Code", () => {
  it.effect("answers a call in a session of its own, and tells usage, limits and the session", () =>
    Effect.gen(function* () {
      const { deltas, runs, sessions } = yield* scripted([
        { _tag: "Spawned", pid: 4711 },
        started,
        { _tag: "Text", text: "4" },
        reported("allowed", 0.42),
        finished
      ])
      expect(yield* deltas(call)).toEqual([
        {
          _tag: "Start",
          limits: [
            {
              unit: "percent",
              name: "five_hour",
              windowMs: 18_000_000,
              limit: 100,
              remaining: 58,
              resetsInMs: 4_000_000
            }
          ]
        },
        { _tag: "Text", text: "4" },
        { _tag: "Finish", finishReason: "stop", model: "sonnet", usage }
      ])
      expect(runs).toMatchObject([
        {
          prompt: "what is 2 + 2?",
          cwd: "/data/claude-tasks",
          model: "sonnet",
          tools: [],
          configDir: "/home/of/claude"
        }
      ])
      expect(yield* sessions.get(session)).toMatchObject({
        account: "/home/of/claude",
        cwd: "/data/claude-tasks",
        status: "ended",
        launchedBy: "dream-team",
        handoff: "auto",
        pid: 4711
      })
      expect(yield* sessions.limits).toMatchObject([{ readings: [{ window: "five_hour", usedPercent: 42 }] }])
    }).pipe(Effect.provide(services))
  )

  it.effect("hands over a whole conversation as one text", () =>
    Effect.gen(function* () {
      const { deltas, runs } = yield* scripted([started, finished])
      yield* deltas({
        system: "Be brief.",
        messages: [
          { role: "user", content: "Remember 4711." },
          { role: "assistant", content: "Done.", toolCalls: [{ id: "1", name: "look", arguments: "{}" }] },
          { role: "tool", toolCallId: "1", name: "look", content: "nothing there" },
          { role: "user", content: [{ type: "text", text: "Which number?" }] }
        ]
      })
      expect(runs[0]?.prompt).toBe(
        [
          "Be brief.",
          "The conversation so far:",
          "User: Remember 4711.",
          "Assistant: Done.\n[calls look with {}]",
          "Result of look: nothing there",
          "Answer what comes last:",
          "User: Which number?"
        ].join("\n\n")
      )
    }).pipe(Effect.provide(services))
  )

  it.effect(
    "gives a session that meets its limit to whoever hands sessions off, and answers with what came of it",
    () =>
      Effect.gen(function* () {
        const { deltas, handoffs, sessions } = yield* scripted([started, reported("rejected", 1)], limit)
        const served = yield* Effect.fork(
          Effect.flatMap(handoffs.take, (request) =>
            Effect.as(
              Deferred.succeed(request.reply, { text: "four", sessionId: session, answeredBy: "codex/gpt-6-sol" }),
              request
            )
          )
        )
        const [start, ...rest] = yield* deltas(call)
        expect(start).toMatchObject({ limits: [{ unit: "percent", remaining: 0, resetsInMs: 4_000_000 }] })
        expect(rest).toMatchObject([{ text: "four" }, { _tag: "Finish", model: "codex/gpt-6-sol" }])
        expect(yield* served).toMatchObject({
          sessionId: session,
          account: "/home/of/claude",
          cwd: "/data/claude-tasks",
          window: "five_hour",
          resetsAt: 4_000_000
        })
        expect(yield* sessions.get(session)).toMatchObject({ status: "limited", limit: { window: "five_hour" } })
      }).pipe(Effect.provide(services))
  )

  it.effect("fails with the quota's reset where nobody goes on", () =>
    Effect.gen(function* () {
      const { deltas, handoffs } = yield* scripted([started], limit)
      yield* Effect.fork(
        Effect.flatMap(handoffs.take, ({ reply }) =>
          Deferred.fail(reply, new SessionHandoffRefused({ message: "nobody is free" }))
        )
      )
      expect(yield* Effect.flip(deltas(call))).toMatchObject({
        _tag: "QuotaFailure",
        reason: "window",
        resetsAt: 4_000_000,
        window: "five_hour",
        windowMs: 18_000_000,
        perModel: false
      })
    }).pipe(Effect.provide(services))
  )

  it.effect("is not waited for any more when its call is cut", () =>
    Effect.gen(function* () {
      const { deltas, handoffs } = yield* scripted([started], limit)
      const attempt = yield* Effect.fork(deltas(call))
      const { reply } = yield* handoffs.take
      expect(yield* Deferred.isDone(reply)).toBe(false)
      yield* Effect.flatMap(attempt.interruptAsFork(attempt.id()), () => Effect.exit(attempt.await))
      expect(yield* Deferred.isDone(reply)).toBe(true)
    }).pipe(Effect.provide(services))
  )

  it.effect("is checked by its login", () =>
    Effect.gen(function* () {
      expect(yield* (yield* scripted([])).client.check).toEqual({ models: ["sonnet", "haiku", "opus"], readings: [] })
      const out = yield* scripted([], undefined, false)
      expect(yield* Effect.flip(out.client.check)).toMatchObject({ _tag: "CredentialFailure" })
    }).pipe(Effect.provide(services))
  )

  it("puts each failure into the scope whose state it changes", () => {
    const message = "said"
    const cases: ReadonlyArray<readonly [ClaudeFailure, string]> = [
      [limit, "quota"],
      [new ClaudeNotLoggedIn({ message }), "credential"],
      [new ClaudePromptTooLong({ message }), "request"],
      [new ClaudeNotInstalled({ message }), "platform"],
      [new ClaudeTimedOut({ message, timeoutMs: 1 }), "platform"],
      [new ClaudeFailed({ message }), "platform"],
      [new ClaudeApiFailed({ message, status: 400, type: "invalid_request_error" }), "request"],
      [new ClaudeApiFailed({ message, status: 400, type: "billing_error" }), "credential"],
      [new ClaudeApiFailed({ message, status: 403 }), "credential"],
      [new ClaudeApiFailed({ message, status: 404 }), "model"],
      [new ClaudeApiFailed({ message, status: 429 }), "quota"],
      [new ClaudeApiFailed({ message, status: 529 }), "quota"],
      [new ClaudeApiFailed({ message, status: 500 }), "platform"],
      [new ClaudeApiFailed({ message }), "platform"]
    ]
    expect(cases.map(([failure]) => scopeOf(attemptFailureOf(platform, "sonnet", failure)))).toEqual(
      cases.map(([, scope]) => scope)
    )
  })
})

describe("the settings of the platform", () => {
  it("know it by name, without a key", () => {
    expect(platform).toMatchObject({ wire: "claude-code", suitability: { architecture: 0.95 } })
    expect(Redacted.value(platform.apiKey)).toBe("")
  })
})
