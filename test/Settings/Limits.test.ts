import { describe, expect, it } from "@effect/vitest"
import { limitsProblems, type PlatformLimits, Settings } from "../../src/Settings.js"

const fields = (limits: Partial<PlatformLimits>) =>
  limitsProblems({ tokensCounted: "reserved", maxConcurrent: 4, ...limits }).map(({ field }) => field)

describe("a platform's limits", () => {
  it("are sound as they are built in", () => {
    for (const id of ["codex", "gemini", "qwen", "synthetic"] as const) {
      expect(limitsProblems(Settings.platformDefaults(id, { apiKey: "k" }).limits)).toEqual([])
    }
  })

  it.each<readonly [Partial<PlatformLimits>, ReadonlyArray<string>]>([
    [{}, []],
    [{ burst: 2 }, ["burst"]],
    [{ burst: 3, requestsPerMinute: 2 }, ["burst"]],
    [{ burst: 2, requestsPerMinute: 2 }, []],
    [{ windowRequests: 1 }, ["windowRequests"]],
    [{ windowTokens: 1 }, ["windowTokens"]],
    [{ windowMs: 5_000 }, ["windowMs"]],
    [{ windowMs: 5_000, windowTokens: 1 }, []],
    [{ windowMs: 999, windowTokens: 1 }, ["windowMs"]],
    [{ windowMs: Number.NaN, windowTokens: 1 }, ["windowMs"]],
    [{ windowMs: 31 * 86_400_000, windowTokens: 1 }, []],
    [{ windows: [{ windowMs: 31 * 86_400_000 + 1, costUsd: 1 }] }, ["windows.0.windowMs"]],
    [{ windows: [{ windowMs: 5_000 }] }, ["windows.0"]],
    [{ windows: [{ windowMs: 5_000, costUsd: 0 }] }, ["windows.0.costUsd"]],
    [{ windows: [{ windowMs: 5_000, requests: 0.5 }] }, ["windows.0.requests"]],
    [{ windows: [{ windowMs: 5_000, requests: 1, tokens: 1, costUsd: 0.1 }] }, []],
    [{ requestsPerMinute: 1, windows: [{ windowMs: 60_000, requests: 1, tokens: 1 }] }, ["windows.0.requests"]],
    [{ windowMs: 5_000, windowTokens: 1, windows: [{ windowMs: 5_000, tokens: 1 }] }, ["windows.0.tokens"]],
    [{ windowMs: 60_000, windowRequests: 1, requestsPerMinute: 1 }, ["windowRequests"]],
    [{ maxConcurrent: 0 }, ["maxConcurrent"]],
    [{ maxConcurrentPerModel: 1.5 }, ["maxConcurrentPerModel"]],
    [{ requestsPerMinute: -1, tokensPerMinute: Number.POSITIVE_INFINITY }, ["requestsPerMinute", "tokensPerMinute"]],
    [
      { models: { "a.b": { requestCost: 0 }, c: { maxConcurrent: 0 } } },
      ["models.a.b.requestCost", "models.c.maxConcurrent"]
    ],
    [
      { requestsPerMinute: 1, models: { a: { requestsPerMinute: 1, windows: [{ windowMs: 1_000, requests: 1 }] } } },
      []
    ],
    [
      { models: { a: { tokensPerMinute: 1, windows: [{ windowMs: 60_000, tokens: 1 }] } } },
      ["models.a.windows.0.tokens"]
    ]
  ])("%j", (limits, expected) => {
    expect(fields(limits)).toEqual(expected)
  })

  it("name each place also where a model's name holds dots", () => {
    const [problem] = limitsProblems({
      tokensCounted: "input",
      maxConcurrent: 1,
      models: { "a.b": { requestCost: -1 } }
    })
    expect(problem?.path).toEqual(["models", "a.b", "requestCost"])
  })
})
