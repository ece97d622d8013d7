import { assert, describe, it } from "@effect/vitest"
import { Either, FastCheck, Redacted } from "effect"
import { type AttemptFailure, viewOf } from "../../src/Domain/Failure.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { classify } from "../../src/Platforms/Classification.js"
import { readQuotas } from "../../src/Platforms/Quotas.js"
import { scrub } from "../../src/Platforms/Secrets.js"
import { parseDuration, parseReset, parseRetryAfter, readLimits } from "../../src/Platforms/Wire/RateLimitHeaders.js"

const now = Date.parse("2026-11-22T12:00:00Z")
const secret = Redacted.make("the-key-nobody-may-see")

const classified = (
  status: number,
  body: string,
  options: { readonly nowMs?: number; readonly headers?: Record<string, string> } = {}
): AttemptFailure =>
  classify({
    platform: PlatformId.make("some"),
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
      const { resetsAt } = viewOf(classified(429, body, { nowMs: Date.parse(instant) }))
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
      { unit: "tokens", windowMs: undefined, limit: undefined, remaining: 5, resetsInMs: undefined }
    ])
    assert.deepStrictEqual(readLimits({ "x-ratelimit-limit-requests": "many" }, now), [])
  })

  it("limits: the window is told where limit, rest and reset leave one reading alone", () => {
    const windowOf = (limit: string, remaining: string, reset: string) =>
      readLimits(
        {
          "x-ratelimit-limit-requests": limit,
          "x-ratelimit-remaining-requests": remaining,
          "x-ratelimit-reset-requests": reset
        },
        now
      )[0]?.windowMs
    assert.strictEqual(windowOf("30000", "0", "1m0s"), 60_000)
    assert.strictEqual(windowOf("30000", "12000", "36s"), 60_000)
    // A minute that comes back evenly, or five seconds that come back at once.
    assert.strictEqual(windowOf("12", "11", "5s"), undefined)
    assert.strictEqual(windowOf("500", "499", "120ms"), undefined)
    // A day that comes back evenly, or an hour that comes back at once.
    assert.strictEqual(windowOf("24", "23", "1h0m0s"), undefined)
    // One of 10,000 a day, or a fixed minute of which 8.64 s are left: nobody can tell.
    assert.strictEqual(windowOf("10000", "9999", "8.64s"), undefined)
    assert.strictEqual(windowOf("500", "499", "59s"), undefined)
    assert.strictEqual(windowOf("500", "0", "30s"), undefined)
    assert.strictEqual(windowOf("500", "500", "0s"), undefined)
    assert.strictEqual(windowOf("500", "501", "1s"), undefined)
    assert.strictEqual(windowOf("500", "0", "6h"), undefined)
  })

  it("limits: the two windows of a ChatGPT plan, and none where their values are none", () => {
    const plan = (name: string, used: string, minutes: string, resetAt: string) => ({
      [`x-codex-${name}-used-percent`]: used,
      [`x-codex-${name}-window-minutes`]: minutes,
      [`x-codex-${name}-reset-at`]: resetAt
    })
    const resetAt = String(now / 1_000 + 600)
    assert.deepStrictEqual(
      readLimits({ ...plan("primary", "42.5", "300", resetAt), ...plan("secondary", "103", "10080", resetAt) }, now),
      [
        { unit: "percent", name: "primary", windowMs: 18_000_000, limit: 100, remaining: 57.5, resetsInMs: 600_000 },
        { unit: "percent", name: "secondary", windowMs: 604_800_000, limit: 100, remaining: 0, resetsInMs: 600_000 }
      ]
    )
    assert.deepStrictEqual(readLimits(plan("primary", "all", "300", resetAt), now), [])
    assert.deepStrictEqual(readLimits(plan("primary", "-5", "300", resetAt), now), [])
    assert.deepStrictEqual(readLimits(plan("primary", "5", "0", "soon"), now), [
      { unit: "percent", name: "primary", windowMs: undefined, limit: 100, remaining: 95, resetsInMs: undefined }
    ])
    assert.strictEqual(readLimits(plan("primary", "5", "300", "1"), now)[0]?.resetsInMs, 0)
  })

  it("no value of a header breaks the reader, or makes it tell what is no amount", () => {
    const value = FastCheck.oneof(
      FastCheck.string(),
      FastCheck.double().map(String),
      FastCheck.bigInt().map(String),
      FastCheck.nat().map((nat) => `${nat}s`),
      FastCheck.constantFrom(
        "0",
        "1m0s",
        "9".repeat(400),
        `1.${"0".repeat(5_000)}s`,
        "1e999",
        "NaN",
        "Infinity",
        " 5 "
      ),
      FastCheck.date({ noInvalidDate: false }).map((date) => (Number.isNaN(date.getTime()) ? "T" : date.toISOString()))
    )
    const name = FastCheck.constantFrom(
      ...["requests", "tokens"].flatMap((unit) =>
        ["limit", "remaining", "reset"].map((what) => `x-ratelimit-${what}-${unit}`)
      ),
      ...["primary", "secondary"].flatMap((window) =>
        ["used-percent", "window-minutes", "reset-at"].map((what) => `x-codex-${window}-${what}`)
      ),
      "retry-after",
      "retry-after-ms"
    )
    FastCheck.assert(
      FastCheck.property(FastCheck.dictionary(name, value), FastCheck.constantFrom(200, 429), (headers, status) => {
        const readings = readLimits(headers, now)
        assert.isAtMost(readings.length, 4)
        for (const { limit, remaining, resetsInMs, windowMs } of readings) {
          for (const amount of [limit, remaining, resetsInMs, windowMs]) {
            assert.isTrue(amount === undefined || (Number.isFinite(amount) && amount >= 0), JSON.stringify(readings))
          }
          assert.notStrictEqual(windowMs, 0)
        }
        const failure = classified(status, "{}", { headers })
        if (failure._tag === "QuotaFailure") {
          assert.isTrue(failure.limit === undefined || failure.limit > 0)
          assert.isTrue(failure.windowMs === undefined || failure.windowMs > 0)
        }
      }),
      { numRuns: 1_000 }
    )
  })
})

describe("quotas", () => {
  it("never throw, and tell amounts or nothing", () => {
    const value = FastCheck.oneof(
      FastCheck.double(),
      FastCheck.string(),
      FastCheck.constantFrom(
        "$24.00",
        "$0.005",
        "$-1",
        "$1e9",
        `$${"9".repeat(300)}`,
        "2026-11-22T12:15:00Z",
        null,
        true
      ),
      FastCheck.jsonValue()
    )
    const member = (...names: ReadonlyArray<string>) =>
      FastCheck.oneof(
        value,
        FastCheck.record(Object.fromEntries(names.map((name) => [name, value])), { requiredKeys: [] })
      )
    const body = FastCheck.record(
      {
        rollingFiveHourLimit: member("remaining", "max", "limited", "nextTickAt"),
        weeklyTokenLimit: member("percentRemaining", "maxCredits", "remainingCredits", "nextRegenAt"),
        subscription: member("limit", "requests", "renewsAt"),
        search: value
      },
      { requiredKeys: [] }
    )
    FastCheck.assert(
      FastCheck.property(FastCheck.oneof(body, FastCheck.jsonValue()), (quotas) => {
        const readings = readQuotas(JSON.stringify(quotas), now)
        for (const reading of Either.getOrElse(readings, () => [])) {
          for (const amount of [reading.limit, reading.remaining, reading.refillsInMs, reading.resetsInMs]) {
            assert.isTrue(amount === undefined || (Number.isFinite(amount) && amount >= 0), JSON.stringify(reading))
          }
          assert.notStrictEqual(reading.limit, 0)
        }
      }),
      { numRuns: 1_000 }
    )
    assert.isTrue(Either.isLeft(readQuotas("no JSON", now)))
    assert.isTrue(Either.isLeft(readQuotas('{"rollingFiveHourLimit":{"remaining":1e999}}', now)))
  })
})
