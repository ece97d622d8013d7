import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Ref, Scope, Stream, TestClock } from "effect"
import { Simulator } from "../src/Simulator.js"
import { ask, at, events, ids, maybeAt, models, type Reply, send, simulator, textOf } from "./Simulator/support.js"

describe("Simulator", () => {
  it.scoped("says where it is and that it is well", () =>
    Effect.gen(function* () {
      const running = yield* simulator({
        qwen: {
          limits: {
            requests: [
              { limit: 7, windowMs: 60_000 },
              { limit: 9, windowMs: 5_000 }
            ],
            tokensCounted: "actual",
            maxConcurrent: 3
          }
        }
      })
      expect(running.baseUrls).toEqual({
        codex: `${running.url}/codex/v1`,
        gemini: `${running.url}/gemini/v1beta`,
        qwen: `${running.url}/qwen/compatible-mode/v1`,
        synthetic: `${running.url}/synthetic/openai/v1`
      })
      expect(running.quotasUrl).toBe(`${running.url}/synthetic/v2/quotas`)
      expect(running.environment).toMatchObject({
        DREAM_TEAM_QWEN_BASE_URL: running.baseUrls.qwen,
        DREAM_TEAM_QWEN_MODEL: models.qwen,
        DREAM_TEAM_QWEN_REQUESTS_PER_MINUTE: "7",
        DREAM_TEAM_QWEN_WINDOW_REQUESTS: "9",
        DREAM_TEAM_QWEN_WINDOW: "5000ms",
        DREAM_TEAM_QWEN_TOKENS_PER_MINUTE: "none",
        DREAM_TEAM_QWEN_TOKENS_COUNTED: "actual",
        DREAM_TEAM_QWEN_MAX_CONCURRENT: "3"
      })
      const health = yield* send(`${running.url}/__health`)
      expect(health.json).toEqual({ status: "ok", simulated: true, platforms: [...ids] })
    })
  )

  it.scoped("answers every platform in its own format, says it is simulated, and names the prompt", () =>
    Effect.gen(function* () {
      const running = yield* simulator()
      for (const id of ids) {
        const reply = yield* ask(running.baseUrls, id, "Write a haiku about queues")
        expect(reply.status, id).toBe(200)
        expect(textOf(reply), id).toMatch(
          new RegExp(`^Simulated answer of ${id} \\(.*\\) to: Write a haiku about queues`)
        )
      }
    })
  )

  it.scoped("the seed and the content alone decide the answer", () =>
    Effect.gen(function* () {
      const prompts = ["one", "two", "three"]
      const first = yield* simulator({}, { seed: 7 })
      const second = yield* simulator({}, { seed: 7 })
      const other = yield* simulator({}, { seed: 8 })
      for (const id of ids) {
        const forwards = yield* Effect.forEach(prompts, (prompt) => ask(first.baseUrls, id, prompt))
        const backwards = yield* Effect.forEach([...prompts].reverse(), (prompt) => ask(second.baseUrls, id, prompt))
        expect(forwards.map(textOf)).toEqual(backwards.reverse().map(textOf))
        const others = yield* Effect.forEach(prompts, (prompt) => ask(other.baseUrls, id, prompt))
        expect(others.map(textOf)).not.toEqual(forwards.map(textOf))
        expect(new Set(forwards.map(textOf)).size).toBe(3)
      }
    })
  )

  it.scoped("a stream says what the whole answer says", () =>
    Effect.gen(function* () {
      const running = yield* simulator()
      const streamedText: Record<(typeof ids)[number], (reply: Reply) => string> = {
        codex: (reply) =>
          events(reply.text)
            .filter((event) => at(event, "type") === "response.output_text.delta")
            .map((event) => at(event, "delta"))
            .join(""),
        gemini: (reply) =>
          events(reply.text)
            .map((event) => at(event, "candidates", 0, "content", "parts", 0, "text"))
            .join(""),
        qwen: (reply) =>
          events(reply.text)
            .map((event) => maybeAt(event, "choices", 0, "delta", "content") ?? "")
            .join(""),
        synthetic: (reply) =>
          events(reply.text)
            .map((event) => maybeAt(event, "choices", 0, "delta", "content") ?? "")
            .join("")
      }
      for (const id of ids) {
        const whole = yield* ask(running.baseUrls, id, "Explain leases")
        const stream = yield* ask(running.baseUrls, id, "Explain leases", { stream: true })
        expect(stream.headers.get("content-type"), id).toMatch(/^text\/event-stream/)
        expect(streamedText[id](stream), id).toBe(textOf(whole))
        expect(events(stream.text).length, id).toBeGreaterThan(3)
      }
      const stats = yield* running.stats
      expect(stats.platforms.codex).toMatchObject({ received: 2, answered: 2, streams: 1, inFlight: 0, aborted: 0 })
    })
  )

  it.scoped("latency holds back a whole answer until its end, a stream piece by piece", () =>
    Effect.gen(function* () {
      const latency = { firstTokenMs: { median: 1_000, sigma: 0 }, tokenMs: { median: 10, sigma: 0 } }
      const running = yield* simulator({ qwen: { latency, answerTokens: { median: 60, sigma: 0 } } })
      const whole = yield* Effect.fork(ask(running.baseUrls, "qwen", "slowly"))
      yield* arrived(running, "qwen", 1)
      yield* TestClock.adjust("1 second")
      expect((yield* running.stats).platforms.qwen?.inFlight).toBe(1)
      yield* TestClock.adjust("1 second")
      expect((yield* whole).status).toBe(200)
      expect((yield* running.stats).platforms.qwen).toMatchObject({ inFlight: 0, answered: 1 })

      const received = yield* Ref.make("")
      const stream = yield* Effect.fork(
        Effect.promise(() =>
          fetch(`${running.baseUrls.qwen}/chat/completions`, {
            method: "POST",
            headers: { authorization: "Bearer k" },
            body: JSON.stringify({ model: models.qwen, stream: true, messages: [{ role: "user", content: "slowly" }] })
          })
        ).pipe(
          Effect.flatMap((response) =>
            Stream.fromReadableStream(() => response.body ?? new ReadableStream(), String).pipe(
              Stream.decodeText(),
              Stream.runForEach((text) => Ref.update(received, (before) => before + text))
            )
          )
        )
      )
      const pieces = Effect.map(Ref.get(received), (text) => events(text).length)
      yield* arrived(running, "qwen", 1)
      yield* TestClock.adjust("999 millis")
      expect(yield* pieces).toBe(0)
      yield* TestClock.adjust("1 millis")
      yield* turn.pipe(Effect.zipRight(pieces), Effect.repeat({ until: (count) => count >= 2 }))
      expect(yield* pieces).toBe(2)
      // A piece is 6 tokens; it is due so long after the server is done with the one before.
      yield* Effect.repeatN(turn, 10)
      yield* TestClock.adjust("60 millis")
      yield* turn.pipe(Effect.zipRight(pieces), Effect.repeat({ until: (count) => count >= 3 }))
      expect(yield* pieces).toBe(3)
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(stream)
      expect(yield* Ref.get(received)).toMatch(/data: \[DONE\]\n\n$/)
    })
  )

  it.scoped("refuses options that make no sense, each by name", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        Simulator.make({
          seed: 1,
          platforms: {
            codex: {
              ...Simulator.instant.platforms.codex,
              limits: { requests: [{ limit: 0, windowMs: -1 }] }
            }
          }
        })
      )
      expect(error._tag).toBe("SimulatorError")
      expect(error.problems.map(({ field }) => field)).toEqual([
        "platforms.codex.limits.requests.0.limit",
        "platforms.codex.limits.requests.0.windowMs"
      ])
    })
  )

  it.scoped("fails as a value where its port is taken", () =>
    Effect.gen(function* () {
      const running = yield* simulator()
      const error = yield* Effect.flip(Simulator.make({ ...Simulator.instant, port: running.port }))
      expect(error.message).toContain(`cannot listen on 127.0.0.1:${running.port}`)
    })
  )

  it.effect("closes at once, whatever hangs", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const running = yield* Scope.extend(simulator(), scope)
      yield* running.fault({ platform: "codex", fault: "hang" })
      yield* running.fault({ platform: "qwen", fault: "hang", after: 0.5 })
      const hanging = yield* Effect.fork(
        Effect.all(
          [Effect.exit(ask(running.baseUrls, "codex", "hang")), Effect.exit(ask(running.baseUrls, "qwen", "hang"))],
          { concurrency: 2 }
        )
      )
      yield* arrived(running, "codex", 1)
      yield* arrived(running, "qwen", 1)
      yield* Scope.close(scope, Exit.void)
      const exits = yield* hanging
      expect(exits.every(Exit.isFailure)).toBe(true)
      expect(Exit.isFailure(yield* Effect.exit(send(`${running.url}/__health`)))).toBe(true)
    })
  )

  it.scoped("further OpenAI-compatible platforms are options only", () =>
    Effect.gen(function* () {
      const running = yield* Simulator.make({
        seed: 1,
        platforms: {
          "my-lab": {
            wire: "openai-chat",
            models: ["lab-1"],
            apiKey: "lab-key",
            limits: { requests: [{ limit: 5, windowMs: 60_000 }] },
            latency: Simulator.instant.platforms.qwen.latency,
            answerTokens: { median: 20, sigma: 0 }
          }
        }
      })
      expect(running.baseUrls["my-lab"]).toBe(`${running.url}/my-lab/v1`)
      expect(running.environment.DREAM_TEAM_MY_LAB_API_KEY).toBe("lab-key")
      expect(running.quotasUrl).toBeUndefined()
      const body = { model: "lab-1", messages: [{ role: "user", content: "hello" }] }
      const reply = yield* send(`${running.baseUrls["my-lab"]}/chat/completions`, { key: "lab-key", body })
      expect(textOf(reply)).toContain("Simulated answer of my-lab (lab-1) to: hello")
      expect(reply.headers.get("x-ratelimit-remaining-requests")).toBe("4")
      expect((yield* send(`${running.baseUrls["my-lab"]}/responses`, { key: "lab-key", body })).status).toBe(404)
    })
  )

  it.scoped("an unknown place is a clear 404", () =>
    Effect.gen(function* () {
      const running = yield* simulator()
      const reply = yield* send(`${running.url}/elsewhere/v1/models`)
      expect(reply.status).toBe(404)
      expect(at(reply.json, "error", "message")).toContain("/codex, /gemini, /qwen, /synthetic")
      expect((yield* send(`${running.url}/__nothing`)).status).toBe(404)
      expect((yield* send(`${running.url}/__health`, { body: {} })).status).toBe(405)
    })
  )
})

/** One turn of the event loop: sockets move on, the test's clock does not. */
const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

/** Waits, without the clock, until so many calls have arrived. */
const arrived = (running: { readonly stats: typeof Simulator.Service.stats }, id: string, count: number) =>
  running.stats.pipe(
    Effect.tap(() => turn),
    Effect.repeat({ until: (stats) => (stats.platforms[id]?.inFlight ?? 0) >= count })
  )
