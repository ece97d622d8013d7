import { describe, expect, it } from "@effect/vitest"
import { FastCheck } from "effect"
import {
  debounceMs,
  levelOf,
  look,
  pauseMs,
  reaches,
  resolve,
  staleMs,
  unseen,
  type WindowState
} from "../../src/CCRWatcher/Levels.js"
import { SessionId, type SessionLimitReading } from "../../src/Domain/Session.js"

const bounds = { warning: 0.7, critical: 0.85, emergency: 0.95 }
const noon = 1_800_000_000_000
const reset = noon + 3_600_000
const sessionId = SessionId.make("session-1")

const reading = (change: Partial<SessionLimitReading>): SessionLimitReading => ({
  window: "five_hour",
  usedPercent: 50,
  resetsAt: reset,
  status: "allowed",
  source: "statusline",
  at: noon,
  sessionId,
  ...change
})

/** Looks one after the other, each at its instant; answers the levels after each. */
const levels = (
  looks: ReadonlyArray<readonly [at: number, ...readings: ReadonlyArray<SessionLimitReading>]>
): ReadonlyArray<string> => {
  let state: WindowState = unseen("five_hour")
  return looks.map(([at, ...readings]) => {
    state = look(state, readings, bounds, at).state
    return state.level
  })
}

describe("which reading counts", () => {
  it("is none where all are stale or past their reset", () => {
    expect(resolve([reading({})], noon + staleMs)).toBeDefined()
    expect(resolve([reading({})], noon + staleMs + 1)).toBeUndefined()
    expect(resolve([reading({ resetsAt: noon })], noon)).toBeUndefined()
    expect(resolve([reading({ at: noon + 120_000 })], noon)).toBeUndefined()
    expect(resolve([], noon)).toBeUndefined()
  })

  it("is the newest, and of one moment the one of higher rank", () => {
    const event = reading({ source: "rate_limit_event", usedPercent: 60, at: noon - 10_000 })
    const line = reading({ source: "statusline", usedPercent: 55 })
    expect(resolve([line, event], noon)?.usedPercent).toBe(60)
    expect(resolve([line, { ...event, at: noon - 60_000 }], noon)?.usedPercent).toBe(55)
    expect(resolve([reading({ source: "table", usedPercent: 1 }), line], noon)?.usedPercent).toBe(55)
  })

  it("is one of the newer window where two tell of different resets", () => {
    const idle = reading({ usedPercent: 99, resetsAt: noon + 60_000, source: "probe" })
    const next = reading({ usedPercent: 2, resetsAt: noon + 18_000_000, at: noon - 60_000 })
    expect(resolve([idle, next], noon)?.usedPercent).toBe(2)
  })

  it("is a refusal until it resets, or until an answer after it says otherwise", () => {
    const refused = reading({ status: "rejected", source: "transcript", usedPercent: undefined })
    const repeated = reading({ usedPercent: 100, at: noon + 5_000 })
    const answered = reading({ usedPercent: 80, source: "rate_limit_event", at: noon + 5_000 })
    expect(resolve([refused, repeated], noon + 5_000)?.status).toBe("rejected")
    expect(resolve([refused], noon + staleMs + 60_000)?.status).toBe("rejected")
    expect(resolve([refused], reset)).toBeUndefined()
    expect(resolve([refused, answered], noon + 5_000)).toEqual(answered)
    expect(resolve([{ ...refused, resetsAt: undefined }], noon + staleMs + 1)).toBeUndefined()
  })

  it("is of the refusals that tell of one moment the one of higher rank, and the newest of others", () => {
    const hook = reading({ status: "rejected", source: "hook" })
    const copied = reading({ status: "rejected", source: "transcript", at: noon + 200 })
    expect(resolve([hook, copied], noon + 1_000)?.source).toBe("hook")
    expect(resolve([hook, { ...copied, at: noon + 60_000 }], noon + 60_000)?.source).toBe("transcript")
    const between = reading({ usedPercent: 80, source: "rate_limit_event", at: noon + 100 })
    expect(resolve([hook, copied, between], noon + 1_000)?.status).toBe("rejected")
  })
})

describe("levels", () => {
  it("begin at their bounds", () => {
    expect([69.9, 70, 84.9, 85, 94.9, 95, 130].map((usedPercent) => levelOf(reading({ usedPercent }), bounds))).toEqual(
      ["normal", "warning", "warning", "critical", "critical", "emergency", "emergency"]
    )
    expect(levelOf(reading({ status: "warning", usedPercent: undefined }), bounds)).toBe("warning")
    expect(levelOf(undefined, bounds)).toBe("unknown")
  })

  it("rise only when that lasts", () => {
    const high = (at: number) => reading({ usedPercent: 90, at })
    const low = (at: number) => reading({ usedPercent: 10, at })
    expect(
      levels([
        [noon, low(noon)],
        [noon + 1_000, high(noon + 1_000)],
        [noon + 2_000, low(noon + 2_000)],
        [noon + 3_000, high(noon + 3_000)],
        [noon + 3_000 + debounceMs - 1, high(noon + 3_000)],
        [noon + 3_000 + debounceMs, high(noon + 3_000)]
      ])
    ).toEqual(["normal", "normal", "normal", "normal", "normal", "critical"])
  })

  it("rise at once on a refusal, and fall at once with its window's reset", () => {
    const refused = reading({ status: "rejected" })
    expect(
      levels([
        [noon, refused],
        [reset - 1, refused],
        [reset, refused]
      ])
    ).toEqual(["rejected", "rejected", "unknown"])
  })

  it("fall only when that is clear", () => {
    const at = (usedPercent: number, after: number, change: Partial<SessionLimitReading> = {}) =>
      [noon + after, reading({ usedPercent, at: noon + after, ...change })] as const
    expect(levels([at(86, 0), at(86, 5_000), at(84, 6_000), at(80.5, 7_000), at(80, 8_000)])).toEqual([
      "unknown",
      "critical",
      "critical",
      "critical",
      "warning"
    ])
    expect(levels([at(86, 0), at(86, 5_000), at(84, 6_000, { resetsAt: reset + 18_000_000 })]).at(-1)).toBe("warning")
    expect(levels([at(86, 0), at(86, 5_000), [noon + 5_000 + staleMs + 1, reading({ at: noon + 5_000 })]]).at(-1)).toBe(
      "unknown"
    )
  })

  it("change in one event a change", () => {
    const first = look(unseen("five_hour"), [reading({ status: "rejected" })], bounds, noon)
    expect(first.change).toMatchObject({ from: "unknown", to: "rejected" })
    expect(look(first.state, [reading({ status: "rejected" })], bounds, noon).change).toBeUndefined()
  })

  it("are always what the latest look may say, whatever is read", () => {
    const anyReading = FastCheck.record({
      usedPercent: FastCheck.option(FastCheck.double({ min: 0, max: 120, noNaN: true }), { nil: undefined }),
      resetsAt: FastCheck.option(
        FastCheck.integer({ min: -3_600_000, max: 18_000_000 }).map((by) => noon + by),
        { nil: undefined }
      ),
      status: FastCheck.constantFrom("allowed" as const, "warning" as const, "rejected" as const),
      source: FastCheck.constantFrom(
        "probe" as const,
        "rate_limit_event" as const,
        "statusline" as const,
        "transcript" as const
      ),
      at: FastCheck.integer({ min: -1_200_000, max: 120_000 }).map((by) => noon + by)
    }).map(reading)
    FastCheck.assert(
      FastCheck.property(FastCheck.array(FastCheck.array(anyReading, { maxLength: 4 }), { maxLength: 12 }), (looks) => {
        let state = unseen("five_hour")
        looks.forEach((readings, index) => {
          const now = noon + index * 1_000
          const before = state.level
          const step = look(state, readings, bounds, now)
          state = step.state
          const counted = resolve(readings, now)
          expect(step.change?.to ?? before).toBe(state.level)
          // Nothing is made worse than it is, and a refusal is never played down.
          if (counted === undefined) expect(state.level).toBe("unknown")
          if (counted?.status === "rejected") expect(state.level).toBe("rejected")
          if (counted !== undefined && !reaches(before, state.level)) {
            expect(reaches(levelOf(counted, bounds), state.level)).toBe(true)
          }
        })
      })
    )
  })
})

describe("the pause between two looks", () => {
  const at = (usedPercent: number): WindowState =>
    look(
      look(unseen("five_hour"), [reading({ usedPercent })], bounds, noon).state,
      [reading({ usedPercent })],
      bounds,
      noon + debounceMs
    ).state

  it("is shorter near a limit, and ends with a window", () => {
    expect(pauseMs([], 5_000, noon)).toBe(5_000)
    expect(pauseMs([at(10)], 5_000, noon)).toBe(5_000)
    expect(pauseMs([at(10), at(75)], 5_000, noon)).toBe(2_500)
    expect(pauseMs([at(86)], 5_000, noon)).toBe(1_000)
    expect(pauseMs([at(10)], 5_000, reset - 700)).toBe(700)
    expect(pauseMs([at(86)], 200, noon)).toBe(100)
  })
})
