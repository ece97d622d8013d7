import { describe, expect, it } from "@effect/vitest"
import { Effect, FastCheck } from "effect"
import {
  merged,
  reportOfHook,
  reportOfRateLimitEvent,
  reportOfStatusline,
  reportOfTranscriptLine
} from "../../src/Feed/Report.js"
import { statusLine } from "../../src/Feed/Words.js"
import { SessionStore } from "../../src/SessionStore.js"

const context = { at: 1_795_360_000_000, account: "/home/me/.claude" }

describe("a rate limit event", () => {
  const event = (info: object) => ({ type: "rate_limit_event", session_id: "s", rate_limit_info: info })

  it("tells all windows where it has them", () => {
    const info = {
      status: "allowed_warning",
      resetsAt: 1_795_360_961,
      rateLimitType: "five_hour",
      unifiedWindows: {
        five_hour: { utilization: 0.92, resetsAt: 1_795_360_961, status: "allowed_warning" },
        seven_day: { utilization: 0.1, resetsAt: 1_795_900_000, status: "allowed" }
      }
    }
    expect(reportOfRateLimitEvent(event(info), context)).toMatchObject({
      status: undefined,
      readings: [
        { window: "five_hour", usedPercent: 92, resetsAt: 1_795_360_961_000, status: "warning" },
        { window: "seven_day", usedPercent: 10, resetsAt: 1_795_900_000_000, status: "allowed" }
      ]
    })
  })

  it("tells the one window that older releases name, without how much is used", () => {
    const info = { status: "rejected", resetsAt: 1_795_360_961, rateLimitType: "five_hour" }
    expect(reportOfRateLimitEvent(event(info), context)).toMatchObject({
      status: "limited",
      limit: { window: "five_hour", hitAt: context.at, resetsAt: 1_795_360_961_000 },
      readings: [{ window: "five_hour", usedPercent: undefined, status: "rejected" }]
    })
  })

  it("is nothing else", () => {
    expect(reportOfRateLimitEvent({ type: "result", session_id: "s" }, context)).toBeUndefined()
  })
})

it("says when a window resets, as a time of today or as a day", () => {
  const soon = new Date(context.at + 3_600_000)
  const clock = [soon.getHours(), soon.getMinutes()].map((part) => String(part).padStart(2, "0")).join(":")
  const report = reportOfStatusline(
    {
      session_id: "s",
      rate_limits: {
        five_hour: { used_percentage: 41.6, resets_at: (context.at + 3_600_000) / 1000 },
        seven_day: { used_percentage: 12, resets_at: (context.at + 3 * 86_400_000) / 1000 },
        seven_day_opus: { used_percentage: 7, resets_at: context.at / 1000 - 60 }
      }
    },
    context
  )
  expect(report && statusLine(report)).toMatch(
    new RegExp(`^5h 42% until ${clock} · week 12% until \\d\\d-\\d\\d · seven day opus 7%$`)
  )
})

it("tells a status line that was painted again from one with a new answer", () => {
  const painted = (cost: object) =>
    reportOfStatusline(
      {
        session_id: "s",
        cost: { total_cost_usd: 1.5, total_duration_ms: 45_000, total_api_duration_ms: 9_000, ...cost },
        context_window: { total_input_tokens: 100, total_output_tokens: 20 },
        rate_limits: { five_hour: { used_percentage: 40, resets_at: 1_795_360_961 } }
      },
      context
    )?.answersMark
  expect(painted({ total_duration_ms: 600_000 })).toBe(painted({}))
  expect(painted({ total_api_duration_ms: 9_100 })).not.toBe(painted({}))
  expect(painted({ total_cost_usd: 1.6 })).not.toBe(painted({}))
})

/** Near enough to the real thing to come far into the reading of it. */
const hostile = FastCheck.letrec((tie) => ({
  value: FastCheck.oneof(
    { maxDepth: 4 },
    FastCheck.constantFrom(
      0,
      -1,
      100,
      1e308,
      Number.NaN,
      1_795_360_961,
      "",
      "five_hour",
      "rejected",
      null,
      true,
      "9e9"
    ),
    FastCheck.string(),
    FastCheck.array(tie("value"), { maxLength: 3 }),
    tie("object")
  ),
  object: FastCheck.dictionary(
    FastCheck.constantFrom(
      ...["session_id", "sessionId", "rate_limits", "five_hour", "used_percentage", "resets_at", "context_window"],
      ...["current_usage", "input_tokens", "cost", "total_cost_usd", "model", "id", "type", "timestamp", "message"],
      ...["usage", "quotaLimits", "rate_limit_info", "rateLimitType", "status", "unifiedWindows", "utilization"],
      ...["hook_event_name", "error", "last_assistant_message", "transcript_path", "isApiErrorMessage", "__proto__"]
    ),
    tie("value"),
    { maxKeys: 12 }
  )
}))

describe("whatever Claude Code may give", () => {
  it.effect("never breaks a feed, and what it reports is always stored", () =>
    Effect.gen(function* () {
      const store = yield* SessionStore
      const samples = FastCheck.sample(FastCheck.tuple(hostile.object, hostile.value), { numRuns: 150, seed: 7 })
      const events = ["SessionStart", "Stop", "StopFailure", "SessionEnd", "Other"]
      const types = ["assistant", "user"]
      let stored = 0
      for (const [index, [object, value]] of samples.entries()) {
        const given: object = {
          ...(typeof object === "object" ? object : {}),
          session_id: "s",
          sessionId: "s",
          timestamp: "2026-11-22T15:00:00Z",
          hook_event_name: events[index % events.length]
        }
        const reports = [
          reportOfStatusline(given, context),
          reportOfHook(given, context, `${JSON.stringify(object)}\n${JSON.stringify(value)}`),
          reportOfRateLimitEvent({ ...given, type: "rate_limit_event" }, context),
          reportOfTranscriptLine({ ...given, type: types[index % types.length] }, context),
          reportOfStatusline(value, context),
          reportOfHook(value, context),
          reportOfTranscriptLine(value, context)
        ].flatMap((report) => report ?? [])
        for (const report of reports) {
          expect(() => statusLine(report)).not.toThrow()
          yield* store.record(report)
          stored += 1
        }
        const together = merged(reports)
        if (together !== undefined) yield* store.record(together)
      }
      expect(stored).toBeGreaterThan(500)
      // All rows can be read again.
      yield* store.list({ limit: 1000 })
      yield* store.limits
    }).pipe(Effect.provide(SessionStore.layerMemory))
  )
})
