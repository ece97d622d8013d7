import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, TestClock } from "effect"
import { ask, at, events, type FourIds, ids, listAt, maybeAt, models, send, simulator, textOf } from "./support.js"

const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

describe("faults on command", () => {
  it.scoped("status: the platform's own shape for it, until it is cleared", () =>
    Effect.gen(function* () {
      const running = yield* simulator()
      const shapes: Record<FourIds, object> = {
        codex: { error: { code: "server_is_overloaded" } },
        gemini: { error: { code: 503, status: "UNAVAILABLE" } },
        qwen: { error: { code: "ModelUnavailable" } },
        synthetic: { error: expect.any(String) }
      }
      for (const id of ids) {
        const set = yield* send(`${running.url}/__faults`, { body: { platform: id, fault: "status", status: 503 } })
        expect(set.status).toBe(201)
        for (const stream of [false, true]) {
          const reply = yield* ask(running.baseUrls, id, "hello", { stream })
          expect(reply.status, id).toBe(503)
          expect(reply.json, id).toMatchObject(shapes[id])
        }
        expect((yield* send(`${running.baseUrls[id]}/models`)).status).toBe(200)
      }
      const listed = yield* send(`${running.url}/__faults`)
      expect(at(listed.json, "faults")).toHaveLength(4)
      expect(at(listed.json, "faults", 0)).toMatchObject({ struck: 2, fault: { platform: "codex", fault: "status" } })
      expect((yield* send(`${running.url}/__faults?platform=codex`, { method: "DELETE" })).json).toEqual({ cleared: 1 })
      expect((yield* send(`${running.url}/__faults`, { method: "DELETE" })).json).toEqual({ cleared: 3 })
      for (const id of ids) expect((yield* ask(running.baseUrls, id, "hello")).status, id).toBe(200)
      expect((yield* running.stats).platforms.gemini).toMatchObject({ faultsInjected: 2, answered: 1, received: 3 })
    })
  )

  it.scoped("status: error shapes, own bodies and own headers", () =>
    Effect.gen(function* () {
      const running = yield* simulator()
      yield* running.fault({ platform: "codex", fault: "status", errorShape: "quota-exhausted", count: 1 })
      const quota = yield* ask(running.baseUrls, "codex", "hello")
      expect(quota).toMatchObject({ status: 429, json: { error: { code: "insufficient_quota" } } })
      yield* running.fault({ platform: "gemini", fault: "status", errorShape: "policy", count: 2 })
      const blocked = yield* ask(running.baseUrls, "gemini", "hello")
      expect(blocked).toMatchObject({ status: 200, json: { promptFeedback: { blockReason: "PROHIBITED_CONTENT" } } })
      const streamed = yield* ask(running.baseUrls, "gemini", "hello", { stream: true })
      expect(streamed.headers.get("content-type")).toContain("text/event-stream")
      expect(events(streamed.text)).toMatchObject([{ promptFeedback: { blockReason: "PROHIBITED_CONTENT" } }])
      yield* running.fault({
        platform: "qwen",
        fault: "status",
        status: 502,
        body: "<html>Bad Gateway</html>",
        headers: { "Retry-After": "7" },
        count: 1
      })
      const html = yield* ask(running.baseUrls, "qwen", "hello")
      expect(html).toMatchObject({ status: 502, text: "<html>Bad Gateway</html>" })
      expect(html.headers.get("content-type")).toContain("text/html")
      expect(html.headers.get("retry-after")).toBe("7")
      yield* running.fault({ platform: "*", fault: "status", status: 429, body: { own: true }, count: 1 })
      expect(yield* ask(running.baseUrls, "synthetic", "hello")).toMatchObject({ status: 429, json: { own: true } })
    })
  )

  it.scoped("by count, by time, by rate, on every route", () =>
    Effect.gen(function* () {
      const running = yield* simulator()
      const statuses = (times: number) =>
        Effect.all(
          Array.from({ length: times }, (_, call) =>
            ask(running.baseUrls, "qwen", `call ${call}`).pipe(Effect.map((reply) => reply.status))
          )
        )
      yield* running.fault({ platform: "qwen", fault: "status", count: 2 })
      expect(yield* statuses(4)).toEqual([500, 500, 200, 200])
      yield* running.fault({ platform: "qwen", fault: "status", forMs: 1_000 })
      expect(yield* statuses(1)).toEqual([500])
      yield* TestClock.adjust("999 millis")
      expect(yield* statuses(1)).toEqual([500])
      yield* TestClock.adjust("1 millis")
      expect(yield* statuses(1)).toEqual([200])
      yield* running.fault({ platform: "qwen", fault: "status", rate: 0.3 })
      const struck = (yield* statuses(100)).filter((status) => status === 500).length
      expect(struck).toBeGreaterThan(15)
      expect(struck).toBeLessThan(45)
      yield* running.clearFaults()
      yield* running.fault({ platform: "synthetic", fault: "status", routes: "all" })
      expect((yield* send(`${running.baseUrls.synthetic}/models`)).status).toBe(500)
      expect((yield* send(running.quotasUrl ?? "")).status).toBe(500)
      expect(yield* running.clearFaults("synthetic")).toBe(1)
    })
  )

  it.scoped("answer: what the model is told to say, to the calls it is told to say it to", () =>
    Effect.gen(function* () {
      const running = yield* simulator()
      const says = { valid: false, problems: ["It has no meaning."] }
      const set = yield* send(`${running.url}/__faults`, {
        body: { platform: "*", fault: "answer", containing: "nonsense", says }
      })
      expect(set.status).toBe(201)
      for (const id of ids) {
        for (const stream of [false, true]) {
          const told = yield* ask(running.baseUrls, id, "some nonsense", { stream })
          expect(told.status, id).toBe(200)
          if (!stream) expect(JSON.parse(textOf(told)), id).toEqual(says)
          const own = yield* ask(running.baseUrls, id, "hello", { stream })
          expect(own.text, id).toContain("Simulated answer of")
        }
        expect((yield* send(`${running.baseUrls[id]}/models`)).status, id).toBe(200)
      }
      expect((yield* running.stats).platforms.codex).toMatchObject({ answered: 4, received: 4, faultsInjected: 2 })
      yield* running.clearFaults()
      yield* running.fault({ platform: "qwen", fault: "answer", says: "Just this." })
      expect(textOf(yield* ask(running.baseUrls, "qwen", "anything"))).toBe("Just this.")
      expect((yield* send(`${running.url}/__faults`, { body: { platform: "qwen", fault: "answer" } })).status).toBe(400)
    })
  )

  it.scoped("reset: before the response, and in the middle of it", () =>
    Effect.gen(function* () {
      const running = yield* simulator()
      yield* running.fault({ platform: "codex", fault: "reset", count: 1 })
      expect(Exit.isFailure(yield* Effect.exit(ask(running.baseUrls, "codex", "hello")))).toBe(true)
      yield* running.fault({ platform: "codex", fault: "reset", after: 0.5, count: 2 })
      const response = yield* Effect.promise(() =>
        fetch(`${running.baseUrls.codex}/responses`, {
          method: "POST",
          headers: { authorization: "Bearer k" },
          body: JSON.stringify({ model: models.codex, input: "hello", stream: true })
        })
      )
      expect(response.status).toBe(200)
      expect(Exit.isFailure(yield* Effect.exit(Effect.tryPromise(() => response.text())))).toBe(true)
      expect(Exit.isFailure(yield* Effect.exit(ask(running.baseUrls, "codex", "hello")))).toBe(true)
      const stats = (yield* running.stats).platforms.codex
      expect(stats).toMatchObject({ received: 3, answered: 0, aborted: 0, faultsInjected: 3, inFlight: 0 })
      expect((yield* ask(running.baseUrls, "codex", "hello")).status).toBe(200)
    })
  )

  it.scoped("hang: says nothing until the client leaves", () =>
    Effect.gen(function* () {
      const running = yield* simulator()
      yield* running.fault({ platform: "gemini", fault: "hang", count: 1 })
      const hanging = yield* Effect.fork(ask(running.baseUrls, "gemini", "hello"))
      const until = (inFlight: number) =>
        running.stats.pipe(
          Effect.tap(() => turn),
          Effect.repeat({ until: (stats) => stats.platforms.gemini?.inFlight === inFlight })
        )
      yield* until(1)
      yield* TestClock.adjust("1 hour")
      expect(hanging.unsafePoll()).toBeNull()
      yield* Fiber.interrupt(hanging)
      yield* until(0)
      expect((yield* running.stats).platforms.gemini).toMatchObject({ aborted: 1, answered: 0 })
    })
  )

  it.scoped("drip: the whole answer, slowly", () =>
    Effect.gen(function* () {
      const running = yield* simulator()
      const whole = yield* ask(running.baseUrls, "qwen", "hello")
      yield* running.fault({ platform: "qwen", fault: "drip", everyMs: 1_000, count: 1 })
      const dripping = yield* Effect.fork(ask(running.baseUrls, "qwen", "hello"))
      for (let second = 0; second < 9; second++) {
        yield* Effect.repeatN(turn, 5)
        yield* TestClock.adjust("1 second")
      }
      yield* Effect.repeatN(turn, 5)
      expect(dripping.unsafePoll()).toBeNull()
      const tick = TestClock.adjust("1 second").pipe(Effect.zipRight(Effect.repeatN(turn, 5)))
      yield* Effect.repeat(tick, { until: () => dripping.unsafePoll() !== null })
      expect(textOf(yield* dripping)).toBe(textOf(whole))
    })
  )

  it.scoped("truncate: ends in good order before it is whole", () =>
    Effect.gen(function* () {
      const running = yield* simulator()
      yield* running.fault({ platform: "*", fault: "truncate" })
      for (const id of ids) {
        const whole = yield* ask(running.baseUrls, id, "hello")
        expect(whole.status, id).toBe(200)
        expect(whole.json, id).toBeUndefined()
        expect(whole.text.length, id).toBeGreaterThan(20)
        const sent = events((yield* ask(running.baseUrls, id, "hello", { stream: true })).text)
        expect(sent.length, id).toBeGreaterThan(0)
        expect(sent.at(-1), id).not.toBe("[DONE]")
        expect(maybeAt(sent, -1, "type"), id).not.toBe("response.completed")
        expect(at(maybeAt(sent, -1, "candidates") ?? [{}], 0, "finishReason"), id).toBeUndefined()
      }
    })
  )

  it.scoped("malformed: a 200 that is not what it says it is", () =>
    Effect.gen(function* () {
      const running = yield* simulator()
      yield* running.fault({ platform: "*", fault: "malformed" })
      for (const id of ids) {
        const whole = yield* ask(running.baseUrls, id, "hello")
        expect(whole.status, id).toBe(200)
        expect(whole.headers.get("content-type"), id).toContain("application/json")
        expect(whole.json, id).toBeUndefined()
        const stream = yield* ask(running.baseUrls, id, "hello", { stream: true })
        expect(() => events(stream.text), id).toThrow()
      }
      yield* running.clearFaults()
      yield* running.fault({ platform: "codex", fault: "malformed", body: "<html>hello</html>" })
      expect((yield* ask(running.baseUrls, "codex", "hello")).text).toBe("<html>hello</html>")
    })
  )

  it.scoped("stream-error: an error inside a 200", () =>
    Effect.gen(function* () {
      const running = yield* simulator()
      yield* running.fault({ platform: "*", fault: "stream-error", errorShape: "overloaded" })
      const last: Record<FourIds, object> = {
        codex: {
          type: "response.failed",
          response: { status: "failed", error: { code: "server_is_overloaded", message: expect.any(String) } }
        },
        gemini: { error: { code: 503, status: "UNAVAILABLE" } },
        qwen: { error: { code: "ModelUnavailable" } },
        synthetic: { error: expect.any(String) }
      }
      for (const id of ids) {
        const stream = yield* ask(running.baseUrls, id, "hello", { stream: true })
        expect(stream.status, id).toBe(200)
        const sent = events(stream.text)
        expect(sent.length, id).toBeGreaterThan(2)
        expect(sent.at(-1), id).toMatchObject(last[id])
        const whole = yield* ask(running.baseUrls, id, "hello")
        expect(whole.status, id).toBe(200)
        expect(whole.json, id).toMatchObject(id === "codex" ? { status: "failed", error: {} } : last[id])
      }
    })
  )

  it.scoped("a request that a fault strikes still counts against the limits", () =>
    Effect.gen(function* () {
      const running = yield* simulator({ qwen: { limits: { requests: [{ limit: 1, windowMs: 1_000 }] } } })
      yield* running.fault({ platform: "qwen", fault: "status", status: 503 })
      expect((yield* ask(running.baseUrls, "qwen", "a")).status).toBe(503)
      expect((yield* ask(running.baseUrls, "qwen", "b")).status).toBe(429)
    })
  )
})

describe("bad input to /__faults", () => {
  it.scoped("is a 400 that names each field", () =>
    Effect.gen(function* () {
      const running = yield* simulator()
      const post = (body: unknown) => send(`${running.url}/__faults`, { method: "POST", body })
      const fields = (body: unknown) =>
        post(body).pipe(
          Effect.map((reply) => {
            expect(reply.status).toBe(400)
            expect(at(reply.json, "error", "type")).toBe("invalid-request")
            return listAt(reply.json, "error", "details", "problems").map((problem) => at(problem, "field"))
          })
        )
      expect(yield* fields("{")).toEqual([])
      expect(yield* fields({ platform: "codex", fault: "explode" })).toEqual(["fault"])
      expect(yield* fields({ platform: "nobody", fault: "reset" })).toEqual(["platform"])
      expect(yield* fields({ platform: "codex", fault: "status", rate: 2, count: 0 })).toEqual(["rate", "count"])
      expect(yield* fields({ platform: "codex", fault: "reset", status: 500 })).toEqual(["status"])
      expect(yield* fields({ platform: "codex", fault: "status", headers: { "a b": "c" } })).toEqual(["headers.a b"])
      expect(yield* fields({ fault: "reset" })).toEqual(["platform"])
      const error = yield* Effect.flip(running.fault({ platform: "codex", fault: "hang", after: 3 }))
      expect(error.problems.map(({ field }) => field)).toEqual(["after"])
      expect(yield* running.faults).toEqual([])
    })
  )
})
