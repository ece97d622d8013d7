import { assert, describe, it } from "@effect/vitest"
import { FastCheck, Redacted } from "effect"
import { type AttemptFailure, viewOf } from "../../src/Domain/Failure.js"
import { PlatformId, type WireFormat } from "../../src/Domain/Platform.js"
import { classify } from "../../src/Platforms/Classification.js"
import { scrub } from "../../src/Platforms/Secrets.js"
import { parseDuration, parseReset, parseRetryAfter, readLimits } from "../../src/Platforms/Wire/RateLimitHeaders.js"

const now = Date.parse("2026-11-22T12:00:00Z")
const secret = Redacted.make("the-key-nobody-may-see")

const classified = (
  status: number,
  body: string,
  options: { readonly wire?: WireFormat; readonly nowMs?: number; readonly headers?: Record<string, string> } = {}
): AttemptFailure =>
  classify({
    platform: PlatformId.make("some"),
    wire: options.wire ?? "openai-chat",
    baseUrl: "https://example.com/v1",
    apiKey: secret,
    status,
    headers: options.headers ?? {},
    body,
    nowMs: options.nowMs ?? now
  })

describe("classification", () => {
  it("knows when a day ends in California, also where clocks change", () => {
    const body = JSON.stringify({ error: { details: [{ violations: [{ quotaId: "RequestsPerDay" }] }] } })
    const resetFrom = (instant: string) => {
      const { resetsAt } = viewOf(classified(429, body, { wire: "gemini", nowMs: Date.parse(instant) }))
      return resetsAt === undefined ? undefined : new Date(resetsAt).toISOString()
    }
    assert.strictEqual(resetFrom("2026-07-01T06:59:59Z"), "2026-07-01T07:00:00.000Z")
    assert.strictEqual(resetFrom("2026-07-01T07:00:00Z"), "2026-07-02T07:00:00.000Z")
    assert.strictEqual(resetFrom("2026-03-08T09:00:00Z"), "2026-03-09T07:00:00.000Z")
    assert.strictEqual(resetFrom("2026-11-01T08:00:00Z"), "2026-11-02T08:00:00.000Z")
  })

  it("never throws, never shows the key, and keeps its instants within what a date can hold", () => {
    const text = FastCheck.oneof(
      FastCheck.string(),
      FastCheck.string().map((before) => `${before}${Redacted.value(secret)}${before}`)
    )
    const value = FastCheck.oneof(text, FastCheck.double(), FastCheck.jsonValue())
    const body = FastCheck.oneof(
      text,
      FastCheck.json(),
      FastCheck.record(
        {
          error: FastCheck.oneof(
            value,
            FastCheck.record(
              { message: value, code: value, type: value, status: value, details: value, resets_at: value },
              { requiredKeys: [] }
            )
          ),
          message: value,
          code: value,
          resets_in_seconds: value
        },
        { requiredKeys: [] }
      ).map((error) => JSON.stringify(error))
    )
    FastCheck.assert(
      FastCheck.property(
        FastCheck.integer({ min: 100, max: 599 }),
        body,
        FastCheck.dictionary(FastCheck.constantFrom("retry-after", "retry-after-ms", "x-ratelimit-reset-tokens"), text),
        (status, said, headers) => {
          const failure = classified(status, said, { headers })
          const { resetsAt, retryAfterMs } = viewOf(failure)
          assert.notInclude(JSON.stringify(failure), Redacted.value(secret))
          assert.isAtMost(failure.message.length, 500)
          assert.isTrue(retryAfterMs === undefined || (retryAfterMs >= 0 && Number.isFinite(retryAfterMs)))
          assert.isTrue(resetsAt === undefined || !Number.isNaN(new Date(resetsAt).getTime()))
        }
      ),
      { numRuns: 500 }
    )
  })
})

describe("secrets", () => {
  it("go before the text is cut, so that no half of one stays", () => {
    const text = `${"x".repeat(495)}${Redacted.value(secret)}`
    assert.strictEqual(scrub(text, secret).length, 500)
    assert.notInclude(scrub(text, secret), "the-")
    assert.notInclude(scrub("see https://example.com/?a=1&key=abcdefg", secret), "abcdefg")
    assert.notInclude(scrub("Authorization: Bearer abcdefg", secret), "abcdefg")
    assert.strictEqual(scrub("nothing to hide", Redacted.make("")), "nothing to hide")
  })
})

describe("rate limit headers", () => {
  it("durations", () => {
    const cases: ReadonlyArray<readonly [string, number | undefined]> = [
      ["120ms", 120],
      ["6m0s", 360_000],
      ["1h2m3.5s", 3_723_500],
      ["34.074824224s", 34_075],
      ["1d", 86_400_000],
      ["0s", 0],
      ["", undefined],
      ["soon", undefined],
      ["5", undefined],
      ["-3s", undefined]
    ]
    for (const [text, ms] of cases) {
      assert.strictEqual(parseDuration(text), ms, text)
    }
  })

  it("resets: durations, seconds, and instants in three spellings", () => {
    const in90s = now + 90_000
    for (const text of ["90s", "1m30s", "90", `${in90s / 1_000}`, `${in90s}`, new Date(in90s).toISOString()]) {
      assert.strictEqual(parseReset(text, now), 90_000, text)
    }
    assert.strictEqual(parseReset("whenever", now), undefined)
  })

  it("retry-after", () => {
    assert.strictEqual(parseRetryAfter({ "retry-after": "1.5" }, now), 1_500)
    assert.strictEqual(parseRetryAfter({ "retry-after": "2s" }, now), 2_000)
    assert.strictEqual(parseRetryAfter({ "retry-after": "Sun, 22 Nov 2026 12:01:00 GMT" }, now), 60_000)
    assert.strictEqual(parseRetryAfter({ "retry-after-ms": "7", "retry-after": "1" }, now), 7)
    assert.strictEqual(parseRetryAfter({}, now), undefined)
  })

  it("limits: what is absent stays absent", () => {
    assert.deepStrictEqual(readLimits({}, now), [])
    assert.deepStrictEqual(readLimits({ "x-ratelimit-remaining-tokens": "5" }, now), [
      { unit: "tokens", limit: undefined, remaining: 5, resetsInMs: undefined }
    ])
    assert.deepStrictEqual(readLimits({ "x-ratelimit-limit-requests": "many" }, now), [])
  })
})
