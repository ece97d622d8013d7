import { describe, expect, it } from "@effect/vitest"
import { type Duration, Effect, Fiber, FastCheck as fc, TestClock } from "effect"
import { RollingWindow } from "../../src/Simulator/Limits.js"
import { ask, at, limitedTo, listAt, numberAt, simulator } from "./support.js"

const perSecond = (limit: number) => ({ requests: [{ limit, windowMs: 1_000 }] })

describe("requests in rolling windows", () => {
  it.scoped("refuses exactly beyond the limit, and admits again exactly when the oldest leaves the window", () =>
    Effect.gen(function* () {
      const running = yield* limitedTo("codex", perSecond(3))
      const call = (name: string) => ask(running.baseUrls, "codex", name).pipe(Effect.map((reply) => reply.status))
      expect(yield* call("a")).toBe(200)
      yield* TestClock.adjust("400 millis")
      expect(yield* call("b")).toBe(200)
      expect(yield* call("c")).toBe(200)
      expect(yield* call("d")).toBe(429)
      yield* TestClock.adjust("599 millis")
      expect(yield* call("e")).toBe(429)
      yield* TestClock.adjust("1 millis")
      expect(yield* call("f")).toBe(200)
      expect(yield* call("g")).toBe(429)
      yield* TestClock.adjust("400 millis")
      expect(yield* call("h")).toBe(200)
      expect(yield* call("i")).toBe(200)
      expect(yield* call("j")).toBe(429)
      const stats = yield* running.stats
      expect(stats.violations).toBe(4)
      expect(stats.platforms.codex).toMatchObject({
        received: 10,
        answered: 6,
        violations: { requests: 4, tokens: 0, concurrency: 0 },
        limits: { requests: [{ limit: 3, windowMs: 1_000, used: 3, peak: 3, total: 6, history: [3, 3] }] }
      })
    })
  )

  it.scoped("all of several windows hold", () =>
    Effect.gen(function* () {
      const running = yield* limitedTo("qwen", {
        requests: [
          { limit: 2, windowMs: 1_000 },
          { limit: 3, windowMs: 10_000 }
        ]
      })
      const statuses: Array<number> = []
      for (let call = 0; call < 4; call++) {
        statuses.push((yield* ask(running.baseUrls, "qwen", `call ${call}`)).status)
        yield* TestClock.adjust("1 second")
      }
      expect(statuses).toEqual([200, 200, 200, 429])
    })
  )

  it.scoped("what was refused, and lists of models, count for nothing", () =>
    Effect.gen(function* () {
      const running = yield* limitedTo("synthetic", perSecond(1))
      expect((yield* ask(running.baseUrls, "synthetic", "x".repeat(900_000))).status).toBe(400)
      expect((yield* ask(running.baseUrls, "synthetic", "a")).status).toBe(200)
      expect((yield* ask(running.baseUrls, "synthetic", "b")).status).toBe(429)
      yield* TestClock.adjust("1 second")
      expect((yield* ask(running.baseUrls, "synthetic", "c")).status).toBe(200)
    })
  )

  it("a window holds what is younger than it, however long it runs", () => {
    const window = new RollingWindow({ limit: 5, windowMs: 100 })
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(60), fc.nat(3)), { maxLength: 200 }), (steps) => {
        const model: Array<{ readonly at: number; readonly amount: number }> = []
        const tested = new RollingWindow({ limit: 5, windowMs: 100 })
        let now = 0
        for (const [pause, amount] of steps) {
          now += pause
          tested.add(amount, now)
          model.push({ at: now, amount })
          const used = (at: number) =>
            model.filter((entry) => at - entry.at < 100).reduce((sum, entry) => sum + entry.amount, 0)
          expect(tested.used(now)).toBe(used(now))
          const waitMs = tested.untilAtMost(2, now)
          expect(used(now + waitMs)).toBeLessThanOrEqual(2)
          if (waitMs > 0) expect(used(now + waitMs - 1)).toBeGreaterThan(2)
        }
      })
    )
    for (let call = 0; call < 100_000; call++) window.add(1, call * 50)
    expect(window.read(100_000 * 50)).toMatchObject({ peak: 2, total: 100_000 })
    expect(window.read(100_000 * 50).history).toHaveLength(120)
  })
})

describe("tokens in rolling windows", () => {
  const tokens = (tokensCounted: "reserved" | "input" | "actual", limit: number) => ({
    tokens: [{ limit, windowMs: 1_000 }],
    tokensCounted
  })
  /** 10 tokens of input. */
  const prompt = "x".repeat(40)

  it.scoped("reserved: input and the most the answer may be, at arrival", () =>
    Effect.gen(function* () {
      const running = yield* limitedTo("codex", tokens("reserved", 220))
      const call = (maxOutputTokens: number) => ask(running.baseUrls, "codex", prompt, { maxOutputTokens })
      expect((yield* call(100)).status).toBe(200)
      expect((yield* call(101)).status).toBe(429)
      const fits = yield* call(100)
      expect(fits.status).toBe(200)
      expect(fits.headers.get("x-ratelimit-limit-tokens")).toBe("220")
      expect(fits.headers.get("x-ratelimit-remaining-tokens")).toBe("0")
      expect(fits.headers.get("x-ratelimit-reset-tokens")).toBe("1s")
      expect((yield* running.stats).platforms.codex?.violations).toMatchObject({
        requests: 0,
        tokens: 1,
        credits: 0,
        concurrency: 0
      })
      yield* TestClock.adjust("1 second")
      expect((yield* call(210)).status).toBe(200)
    })
  )

  it.scoped("reserved: a request that names no bound reserves the platform's own", () =>
    Effect.gen(function* () {
      const limits = tokens("reserved", 1_010)
      const running = yield* simulator({ codex: { limits, maxOutputTokens: 1_000 } })
      expect((yield* ask(running.baseUrls, "codex", prompt)).status).toBe(200)
      const window = (yield* running.stats).platforms.codex?.limits.tokens[0]
      expect(window?.used).toBe(1_010)
    })
  )

  it.scoped("input: input alone", () =>
    Effect.gen(function* () {
      const running = yield* limitedTo("gemini", tokens("input", 20))
      expect((yield* ask(running.baseUrls, "gemini", prompt)).status).toBe(200)
      expect((yield* ask(running.baseUrls, "gemini", prompt)).status).toBe(200)
      expect((yield* ask(running.baseUrls, "gemini", prompt)).status).toBe(429)
    })
  )

  it.scoped("actual: input and output as used, when the answer is complete", () =>
    Effect.gen(function* () {
      const running = yield* limitedTo("qwen", tokens("actual", 50))
      const first = yield* ask(running.baseUrls, "qwen", prompt, { maxOutputTokens: 4_000 })
      const used = numberAt(first.json, "usage", "total_tokens")
      expect((yield* running.stats).platforms.qwen?.limits.tokens[0]?.used).toBe(used)
      expect(used).toBeGreaterThan(30)
      yield* ask(running.baseUrls, "qwen", prompt)
      expect((yield* ask(running.baseUrls, "qwen", prompt)).status).toBe(429)
      yield* TestClock.adjust("1 second")
      expect((yield* ask(running.baseUrls, "qwen", prompt)).status).toBe(200)
    })
  )
})

describe("what one model is allowed, and what it counts", () => {
  const flash = "hf:zai-org/GLM-4.7-Flash"

  it.scoped("a model's windows hold beside those of the platform", () =>
    Effect.gen(function* () {
      const running = yield* limitedTo("codex", {
        requests: [{ limit: 3, windowMs: 1_000 }],
        models: { "gpt-6-luna": { requests: [{ limit: 1, windowMs: 1_000 }] } }
      })
      const status = (model: string) =>
        Effect.map(ask(running.baseUrls, "codex", "a", { model }), (reply) => reply.status)
      expect(yield* status("gpt-6-luna")).toBe(200)
      expect(yield* status("gpt-6-luna")).toBe(429)
      expect(yield* status("gpt-6-sol")).toBe(200)
      expect(yield* status("gpt-6-sol")).toBe(200)
      expect(yield* status("gpt-6-sol")).toBe(429)
      expect((yield* running.stats).platforms.codex).toMatchObject({
        violations: { requests: 2 },
        limits: { models: { "gpt-6-luna": { requests: [{ limit: 1, used: 1 }] } } }
      })
    })
  )

  it.scoped("a request of a small model counts a part of one, in windows longer than a minute", () =>
    Effect.gen(function* () {
      const running = yield* limitedTo("synthetic", {
        requests: [
          { limit: 12, windowMs: 60_000 },
          { limit: 1, windowMs: 18_000_000 }
        ],
        models: { [flash]: { requestCost: 0.1 } }
      })
      const status = (model: string) =>
        Effect.map(ask(running.baseUrls, "synthetic", "a", { model }), (reply) => reply.status)
      for (let call = 0; call < 10; call++) expect(yield* status(flash)).toBe(200)
      expect(yield* status(flash)).toBe(429)
      const [minute, fiveHours] = (yield* running.stats).platforms.synthetic?.limits.requests ?? []
      expect(minute?.used).toBe(10)
      expect(fiveHours?.used).toBeCloseTo(1)
      yield* TestClock.adjust("5 hours")
      expect(yield* status("hf:zai-org/GLM-5.2")).toBe(200)
      expect(yield* status(flash)).toBe(429)
    })
  )

  it.scoped("credits are spent when an answer ends, and come back as it leaves the window", () =>
    Effect.gen(function* () {
      const limits = { credits: [{ limitUsd: 0.0001, windowMs: 604_800_000 }] }
      const running = yield* simulator({ synthetic: { limits } })
      expect((yield* ask(running.baseUrls, "synthetic", "a", { maxOutputTokens: 100 })).status).toBe(200)
      const refused = yield* ask(running.baseUrls, "synthetic", "b")
      expect(refused.status).toBe(429)
      expect(refused.json).toEqual({ error: expect.stringContaining("Weekly credits") })
      expect((yield* running.stats).platforms.synthetic?.violations.credits).toBe(1)
      yield* TestClock.adjust("7 days")
      expect((yield* ask(running.baseUrls, "synthetic", "c")).status).toBe(200)
    })
  )
})

describe("concurrency", () => {
  const latency = { firstTokenMs: { median: 3_600_000, sigma: 0 }, tokenMs: { median: 0, sigma: 0 } }

  it.scoped("refuses what comes while every place is taken", () =>
    Effect.gen(function* () {
      const running = yield* simulator({ synthetic: { latency, limits: { maxConcurrent: 2 } } })
      const call = (name: string) => Effect.fork(ask(running.baseUrls, "synthetic", name))
      const first = yield* call("a")
      const second = yield* call("b")
      yield* inFlight(running, "synthetic", 2)
      const third = yield* call("c")
      yield* passing("25 millis", third)
      const refused = yield* third
      expect(refused.status).toBe(429)
      expect(refused.json).toEqual({ error: expect.stringContaining("concurrent") })
      yield* TestClock.adjust("1 hour")
      expect((yield* first).status).toBe(200)
      expect((yield* second).status).toBe(200)
      expect((yield* running.stats).platforms.synthetic).toMatchObject({
        violations: { requests: 0, tokens: 0, concurrency: 1 },
        inFlight: 0,
        maxInFlight: 2
      })
    })
  )

  it.scoped("counts each model by itself where its places are its own", () =>
    Effect.gen(function* () {
      const limits = { maxConcurrentPerModel: 1, models: { "hf:moonshotai/Kimi-K3": { maxConcurrent: 2 } } }
      const running = yield* simulator({ synthetic: { latency, limits: { ...limits, maxConcurrent: 3 } } })
      const call = (model: string) => Effect.fork(ask(running.baseUrls, "synthetic", "a", { model }))
      const first = yield* call("hf:zai-org/GLM-5.2")
      yield* inFlight(running, "synthetic", 1)
      const refused = yield* call("hf:zai-org/GLM-5.2")
      yield* passing("25 millis", refused)
      expect((yield* refused).status).toBe(429)
      const second = yield* call("hf:zai-org/GLM-4.7-Flash")
      const third = yield* call("hf:moonshotai/Kimi-K3")
      yield* inFlight(running, "synthetic", 3)
      const fourth = yield* call("hf:openai/gpt-oss-120b")
      yield* passing("25 millis", fourth)
      expect((yield* fourth).status).toBe(429)
      yield* TestClock.adjust("1 hour")
      for (const answered of [first, second, third]) expect((yield* answered).status).toBe(200)
      expect((yield* running.stats).platforms.synthetic).toMatchObject({ violations: { concurrency: 2 }, inFlight: 0 })
    })
  )

  it.scoped("a client that gives up frees its place and is counted as aborted", () =>
    Effect.gen(function* () {
      const running = yield* simulator({ synthetic: { latency, limits: { maxConcurrent: 1 } } })
      const first = yield* Effect.fork(ask(running.baseUrls, "synthetic", "given up"))
      yield* inFlight(running, "synthetic", 1)
      // The next request is on its way before the first one's connection is seen to close.
      yield* Fiber.interruptFork(first)
      const second = yield* Effect.fork(ask(running.baseUrls, "synthetic", "the next"))
      yield* running.stats.pipe(
        Effect.tap(() => turn),
        Effect.repeat({ until: ({ platforms: { synthetic } }) => synthetic?.aborted === 1 && synthetic.received === 2 })
      )
      yield* passing("1 minute", second)
      expect((yield* second).status).toBe(200)
      expect((yield* running.stats).platforms.synthetic).toMatchObject({
        violations: { concurrency: 0 },
        aborted: 1,
        answered: 1,
        inFlight: 0
      })
    })
  )
})

describe("each platform's own 429", () => {
  it.scoped("OpenAI: rate_limit_exceeded with retry-after and x-ratelimit headers", () =>
    Effect.gen(function* () {
      const running = yield* limitedTo("codex", { requests: [{ limit: 1, windowMs: 60_000 }] })
      const admitted = yield* ask(running.baseUrls, "codex", "a")
      expect(admitted.headers.get("x-ratelimit-limit-requests")).toBe("1")
      expect(admitted.headers.get("x-ratelimit-remaining-requests")).toBe("0")
      expect(admitted.headers.get("x-ratelimit-reset-requests")).toBe("1m0s")
      yield* TestClock.adjust("17500 millis")
      const refused = yield* ask(running.baseUrls, "codex", "b")
      expect(refused.status).toBe(429)
      expect(refused.headers.get("retry-after")).toBe("43")
      expect(refused.headers.get("x-ratelimit-reset-requests")).toBe("42.5s")
      expect(at(refused.json, "error")).toMatchObject({
        code: "rate_limit_exceeded",
        type: "requests",
        param: null,
        message: expect.stringContaining("Please try again in 42.5s")
      })
    })
  )

  it.scoped("Gemini: RESOURCE_EXHAUSTED with QuotaFailure and RetryInfo, per minute or per day", () =>
    Effect.gen(function* () {
      const running = yield* limitedTo("gemini", {
        requests: [
          { limit: 1, windowMs: 60_000 },
          { limit: 2, windowMs: 86_400_000 }
        ]
      })
      yield* ask(running.baseUrls, "gemini", "a")
      yield* TestClock.adjust("20 seconds")
      const minute = yield* ask(running.baseUrls, "gemini", "b")
      expect(minute.status).toBe(429)
      expect(minute.headers.get("retry-after")).toBeNull()
      expect(at(minute.json, "error")).toMatchObject({ code: 429, status: "RESOURCE_EXHAUSTED" })
      const details = (reply: typeof minute, type: string) =>
        listAt(reply.json, "error", "details").find((detail) => String(at(detail, "@type")).endsWith(type))
      expect(at(details(minute, "QuotaFailure"), "violations", 0, "quotaId")).toContain("PerMinute")
      expect(at(details(minute, "RetryInfo"), "retryDelay")).toBe("40s")
      yield* TestClock.adjust("40 seconds")
      yield* ask(running.baseUrls, "gemini", "c")
      yield* TestClock.adjust("1 minute")
      const day = yield* ask(running.baseUrls, "gemini", "d")
      expect(at(details(day, "QuotaFailure"), "violations", 0, "quotaId")).toContain("PerDay")
      expect(at(details(day, "RetryInfo"), "retryDelay")).toBe("86280s")
    })
  )

  it.scoped("Gemini: whose limit it is, of which size, and whether of one model", () =>
    Effect.gen(function* () {
      const running = yield* limitedTo("gemini", {
        requests: [{ limit: 1, windowMs: 30_000 }],
        tokens: [{ limit: 1_000, windowMs: 60_000 }],
        tokensCounted: "input",
        models: {
          "gemini-2.5-pro": { requests: [{ limit: 5, windowMs: 86_400_000 }], tokens: [{ limit: 2, windowMs: 60_000 }] }
        }
      })
      const violation = (reply: Effect.Effect.Success<ReturnType<typeof ask>>) =>
        at(reply.json, "error", "details", 0, "violations", 0)
      const large = yield* ask(running.baseUrls, "gemini", "x".repeat(4_004))
      expect(violation(large)).toMatchObject({
        quotaId: "GenerateContentInputTokensPerMinute",
        quotaValue: "1000",
        quotaDimensions: { location: "global" }
      })
      const ofModel = yield* ask(running.baseUrls, "gemini", "x".repeat(12), { model: "gemini-2.5-pro" })
      expect(violation(ofModel)).toMatchObject({
        quotaId: "GenerateContentInputTokensPerModelPerMinute",
        quotaValue: "2",
        quotaDimensions: { location: "global", model: "gemini-2.5-pro" }
      })
      yield* ask(running.baseUrls, "gemini", "a")
      const requests = yield* ask(running.baseUrls, "gemini", "b")
      expect(violation(requests)).toMatchObject({ quotaId: "GenerateRequestsPer30SecondsPerProject", quotaValue: "1" })
    })
  )

  it.scoped("a ChatGPT plan: its two windows in percent, and when each is there again", () =>
    Effect.gen(function* () {
      const limits = {
        requests: [
          { limit: 100, windowMs: 60_000 },
          { limit: 8, windowMs: 604_800_000 },
          { limit: 3, windowMs: 18_000_000 }
        ]
      }
      const running = yield* simulator({ codex: { limits, plan: true } })
      const first = yield* ask(running.baseUrls, "codex", "a")
      const told = (reply: typeof first) =>
        Object.fromEntries([...reply.headers].filter(([name]) => /^x-(codex|ratelimit)/.test(name)))
      expect(told(first)).toEqual({
        "x-codex-primary-used-percent": "33.33",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": "18000",
        "x-codex-secondary-used-percent": "12.5",
        "x-codex-secondary-window-minutes": "10080",
        "x-codex-secondary-reset-at": "604800"
      })
      yield* TestClock.adjust("1 hour")
      yield* ask(running.baseUrls, "codex", "b")
      yield* ask(running.baseUrls, "codex", "c")
      const refused = yield* ask(running.baseUrls, "codex", "d")
      expect(refused.status).toBe(429)
      expect(refused.json).toMatchObject({
        error: { type: "usage_limit_reached", resets_at: 18_000, resets_in_seconds: 14_400 }
      })
      expect(told(refused)).toMatchObject({
        "x-codex-primary-used-percent": "100",
        "x-codex-primary-reset-at": "18000",
        "x-codex-secondary-used-percent": "37.5"
      })
      yield* TestClock.adjust("4 hours")
      expect((yield* ask(running.baseUrls, "codex", "e")).status).toBe(200)
    })
  )

  it.scoped("DashScope: limit_requests; insufficient_quota for tokens", () =>
    Effect.gen(function* () {
      const running = yield* limitedTo("qwen", {
        requests: [{ limit: 2, windowMs: 60_000 }],
        tokens: [{ limit: 10, windowMs: 60_000 }],
        tokensCounted: "input"
      })
      yield* ask(running.baseUrls, "qwen", "abcd")
      const tokens = yield* ask(running.baseUrls, "qwen", "x".repeat(40))
      expect(tokens.status).toBe(429)
      expect(tokens.json).toMatchObject({ error: { code: "insufficient_quota" }, request_id: expect.any(String) })
      yield* ask(running.baseUrls, "qwen", "abcd")
      const requests = yield* ask(running.baseUrls, "qwen", "abcd")
      expect(requests.json).toMatchObject({ error: { code: "limit_requests", type: "limit_requests" } })
      expect([...requests.headers.keys()].filter((name) => name.includes("ratelimit"))).toEqual([])
    })
  )

  it.scoped("Synthetic: a plain string", () =>
    Effect.gen(function* () {
      const running = yield* limitedTo("synthetic", { requests: [{ limit: 1, windowMs: 60_000 }] })
      yield* ask(running.baseUrls, "synthetic", "a")
      const refused = yield* ask(running.baseUrls, "synthetic", "b")
      expect(refused.status).toBe(429)
      expect(refused.json).toEqual({ error: "Rate limit exceeded: 1 requests per min" })
    })
  )
})

type Running = Effect.Effect.Success<ReturnType<typeof simulator>>

/** One turn of the event loop: sockets move on, the test's clock does not. */
const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

const inFlight = (running: Running, id: string, count: number) =>
  running.stats.pipe(
    Effect.tap(() => turn),
    Effect.repeat({ until: (stats) => stats.platforms[id]?.inFlight === count })
  )

/** Lets time pass in small steps, sockets in between, until the fiber is done. */
const passing = <A>(step: Duration.DurationInput, fiber: Fiber.RuntimeFiber<A>) =>
  turn.pipe(Effect.zipRight(TestClock.adjust(step)), Effect.repeat({ until: () => fiber.unsafePoll() !== null }))
