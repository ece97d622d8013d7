import { assert, describe, it } from "vitest"
import { duration, oneLine, printable, relative, table } from "../../src/Cli/Output.js"
import { eventLine, failure, platformTable, resourcesText, taskTable, taskText } from "../../src/Cli/Words.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { type Attempt, type Task, TaskId, TenantId } from "../../src/Domain/Task.js"

const now = Date.UTC(2026, 0, 1, 12, 0, 0)
const id = TaskId.make("01a203e9-f9ca-7000-aa2c-096f46a1f373")
const codex = PlatformId.make("codex")
const gemini = PlatformId.make("gemini")

const task: Task = {
  id,
  tenant: TenantId.make("local"),
  type: "analysis",
  priority: "HIGH",
  state: "succeeded",
  attempts: 2,
  createdAt: now - 60_000,
  updatedAt: now - 30_000,
  deadline: now + 3_600_000,
  finishedAt: now - 30_000,
  prompt: "Why is\nthe sky blue?",
  result: {
    text: "Rayleigh.\u001b[31m",
    platform: gemini,
    model: "g",
    usage: { inputTokens: 7, cachedInputTokens: 0, outputTokens: 3, reasoningTokens: 0 }
  }
}

const decision = {
  candidates: [{ platform: codex, model: "c", weight: 0.9 }],
  excluded: [{ platform: gemini, reason: "it cannot see images" }],
  waitedMs: 1_500
}

const failed: Attempt = {
  number: 1,
  platform: codex,
  model: "c",
  outcome: "failed",
  startedAt: now - 59_000,
  durationMs: 250,
  failure: { scope: "quota", status: 429, code: "rate_limit_exceeded", message: "Slow down", retryAfterMs: 20_000 },
  decision
}

describe("output", () => {
  it("tells durations in the unit a person would use", () => {
    const said = [0, 340, 999.6, 1_500, 12_000, 200_000, 3_600_000, 7_500_000, 345_600_000].map(duration)
    assert.deepStrictEqual(said, ["0 ms", "340 ms", "1.0 s", "1.5 s", "12 s", "3 min 20 s", "1 h", "2 h 5 min", "4 d"])
    assert.strictEqual(relative(now + 5_000, now), "in 5.0 s")
    assert.strictEqual(relative(now - 90_000, now), "1 min 30 s ago")
  })

  it("aligns columns and leaves no space at the end of a line", () => {
    assert.strictEqual(
      table(
        ["A", "LONG"],
        [
          ["wide", ""],
          ["x", "y"]
        ]
      ),
      "A     LONG\nwide\nx     y"
    )
  })

  it("lets no foreign text drive the terminal", () => {
    assert.strictEqual(printable("a\u001b[2J\u0007b\tc\nd"), "a[2Jb\tc\nd")
    assert.strictEqual(oneLine("a\n\u009b b   c", 5), "a b c")
    assert.strictEqual(oneLine("abcdef", 5), "abcd…")
  })
})

describe("words", () => {
  it("tells a task's attempts and why", () => {
    const text = taskText(task, [failed, { ...failed, number: 2, outcome: "succeeded", failure: undefined }], now)
    assert.include(text, "Prompt    Why is the sky blue?")
    assert.include(
      text,
      "Attempt 1 on codex (c) failed after 250 ms: a limit of the platform was reached (HTTP 429, rate_limit_exceeded): Slow down; it asks to wait 20 s."
    )
    assert.include(text, "It could go to codex 0.90; not to gemini (it cannot see images); waited 1.5 s for its turn.")
    assert.include(text, "Attempt 2 on codex (c) answered after 250 ms.")
    assert.include(text, "7 tokens in, 3 out, cost unknown")
    assert.include(text, "Rayleigh.[31m")
    assert.notInclude(text, "\u001b")
  })

  it("tells why a task waits or failed", () => {
    const { finishedAt: _, result: __, ...open } = task
    assert.include(
      taskText({ ...open, state: "waiting", waiting: { until: now + 60_000, why: "all are exhausted" } }, [], now),
      "waiting (all are exhausted; looked at again in 1 min)"
    )
    assert.include(
      taskText({ ...open, state: "failed", error: { type: "deadline", message: "It came too late." } }, [], now),
      "failed (deadline): It came too late"
    )
  })

  it("says whose fault a failure was", () => {
    assert.strictEqual(
      failure({ scope: "credential", status: 401, message: "Bad key" }),
      "the API key was refused (HTTP 401): Bad key"
    )
  })

  it("prints one event a line", () => {
    assert.strictEqual(
      eventLine({ id: 3, taskId: id, at: now, type: "task.succeeded", platform: gemini }),
      "2026-01-01T12:00:00.000Z  succeeded on gemini"
    )
  })

  it("lists tasks and platforms", () => {
    const { prompt: _, result: __, ...summary } = task
    assert.match(
      taskTable([{ ...summary, preview: "Why?", platform: gemini }], now),
      /succeeded {2}HIGH.*1 min ago {2}Why\?/
    )
    const platforms = platformTable(
      [
        {
          id: codex,
          wire: "openai-responses",
          baseUrl: "http://x",
          model: "c",
          capabilities: [],
          status: "unavailable",
          reasons: ["the key was refused"],
          breaker: "closed",
          inFlight: 0,
          performance: { attempts: 0, errorRate: 0, tokens: 0 }
        }
      ],
      now
    )
    assert.include(platforms, "codex     unavailable")
    assert.include(platforms, "codex: the key was refused")
  })

  it("shows limits and queues", () => {
    const text = resourcesText(
      {
        platforms: [
          {
            platform: codex,
            buckets: [
              {
                name: "requests/60s",
                unit: "requests",
                windowMs: 60_000,
                capacity: 60,
                used: 59.6,
                nextFreeAt: now + 2_000,
                source: "configured"
              }
            ],
            permits: { inUse: 1, max: 4 },
            breaker: { state: "open", consecutiveFailures: 5, probesAt: now + 30_000 },
            exhaustedUntil: now + 3_600_000
          }
        ],
        queue: {
          HIGH: { depth: 1, oldestWaitMs: 900 },
          MEDIUM: { depth: 0, oldestWaitMs: 0 },
          LOW: { depth: 0, oldestWaitMs: 0 }
        }
      },
      now
    )
    assert.match(text, /codex {5}requests\/60s +60 of 60 +next free in 2\.0 s +configured/)
    assert.match(text, /codex {5}breaker +open +probes in 30 s/)
    assert.match(text, /codex {5}quota +used up +resets in 1 h +provider/)
    assert.include(text, "HIGH: 1 call, the oldest for 900 ms; MEDIUM: 0 calls")
  })
})
