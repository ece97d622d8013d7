import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Schema } from "effect"
import { afterAll, assert, describe, it } from "vitest"
import { PlatformEvent } from "../../src/Domain/Event.js"
import { PlatformView, ResourcesView } from "../../src/Domain/Lease.js"
import { Task } from "../../src/Domain/Task.js"
import { Simulator } from "../../src/Simulator.js"
import { eventually, freePort, pause, type Service, startService } from "../support/Service.js"
import { simulate } from "../support/Simulated.js"

const folder = mkdtempSync(join(tmpdir(), "dream-team-limits-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const History = Schema.Struct({ events: Schema.Array(PlatformEvent) })

const get = async <A, I>(service: Service, path: string, schema: Schema.Schema<A, I>): Promise<A> => {
  const response = await fetch(`${service.url}${path}`)
  return Schema.decodeUnknownSync(schema)(await response.json())
}

const submit = async (service: Service, task: Readonly<Record<string, unknown>>): Promise<Task> => {
  const response = await fetch(`${service.url}/v1/tasks`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(task)
  })
  assert.strictEqual(response.status, 202)
  return Schema.decodeUnknownSync(Task)(await response.json())
}

const byNumber = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, index) => index)

describe("limits, over real HTTP", () => {
  it("60 s of more work than four platforms allow: no limit is run into, and each is used to at least 95 %", {
    timeout: 180_000
  }, async () => {
    const { codex, gemini, qwen, synthetic } = Simulator.instant.platforms
    const simulated = await simulate({
      ...Simulator.instant,
      platforms: {
        codex: { ...codex, limits: { tokens: [{ limit: 100_000, windowMs: 60_000 }], tokensCounted: "reserved" } },
        gemini: { ...gemini, limits: { requests: [{ limit: 100, windowMs: 60_000 }], maxConcurrent: 4 } },
        qwen: { ...qwen, limits: { requests: [{ limit: 30, windowMs: 10_000 }] } },
        synthetic: {
          ...synthetic,
          limits: {
            requests: [
              { limit: 24, windowMs: 10_000 },
              { limit: 140, windowMs: 60_000 }
            ],
            maxConcurrent: 2
          }
        }
      }
    })
    const none = { REQUESTS_PER_MINUTE: "none", TOKENS_PER_MINUTE: "none", WINDOW_REQUESTS: "none", WINDOW: "none" }
    const limits: Readonly<Record<string, Readonly<Record<string, string>>>> = {
      CODEX: { ...none, TOKENS_PER_MINUTE: "100000", TOKENS_COUNTED: "reserved" },
      GEMINI: { ...none, REQUESTS_PER_MINUTE: "100", MAX_CONCURRENT: "4" },
      QWEN: { ...none, WINDOW_REQUESTS: "30", WINDOW: "10s" },
      SYNTHETIC: { ...none, REQUESTS_PER_MINUTE: "140", WINDOW_REQUESTS: "24", WINDOW: "10s", MAX_CONCURRENT: "2" }
    }
    const port = await freePort()
    const service = await startService(port, {
      ...simulated.simulator.environment,
      ...Object.fromEntries(
        Object.entries(limits).flatMap(([id, own]) =>
          Object.entries(own).map(([name, value]) => [`DREAM_TEAM_${id}_${name}`, value])
        )
      ),
      DREAM_TEAM_DATABASE: join(folder, "saturated.db")
    })
    try {
      const priorities = ["LOW", "MEDIUM", "HIGH", "LOW"]
      const isOver = pause(60_000)
      await Promise.all(
        byNumber(8).map(async (lane) => {
          for (const index of byNumber(110)) {
            await submit(service, {
              prompt: `Question ${lane}/${index}`,
              type: index % 2 === 0 ? "implementation" : "documentation",
              priority: priorities[index % priorities.length],
              maxOutputTokens: 900
            })
          }
        })
      )
      await isOver
      const after = Effect.runSync(simulated.simulator.stats)
      assert.strictEqual(after.violations, 0)
      const waiting = (await get(service, "/v1/resources", ResourcesView)).queue
      assert.isAbove(waiting.LOW.depth + waiting.MEDIUM.depth + waiting.HIGH.depth, 0)
      const allowed = { codex: 100_000, gemini: 100, qwen: 180, synthetic: 140 }
      for (const [id, limit] of Object.entries(allowed)) {
        const { requests = [], tokens = [] } = after.platforms[id]?.limits ?? {}
        const used = [...requests, ...tokens][0]?.total ?? 0
        assert.isAtLeast(used / limit, 0.95, `${id}: ${used} of ${limit}`)
      }
    } finally {
      await service.stop("SIGKILL")
      await simulated.close()
    }
  })

  it("a circuit breaker opens, probes and closes again by nothing but submitted tasks, and its history says so", {
    timeout: 120_000
  }, async () => {
    const simulated = await simulate()
    const port = await freePort()
    const service = await startService(port, {
      ...simulated.simulator.environment,
      DREAM_TEAM_PLATFORMS: "codex",
      DREAM_TEAM_CODEX_BREAKER_FAILURES: "3",
      DREAM_TEAM_CODEX_BREAKER_OPEN: "2s",
      DREAM_TEAM_DATABASE: join(folder, "breaker.db")
    })
    try {
      await Effect.runPromise(simulated.simulator.fault({ platform: "codex", fault: "status", status: 500 }))
      const tasks = await Promise.all(byNumber(6).map((index) => submit(service, { prompt: `Question ${index}` })))
      const breaker = async () => (await get(service, "/v1/resources", ResourcesView)).platforms[0]?.breaker
      await eventually("the breaker opens", 30_000, async () => (await breaker())?.state === "open" || undefined)
      const received = Effect.runSync(simulated.simulator.stats).platforms.codex?.received ?? 0
      await Effect.runPromise(simulated.simulator.clearFaults("codex"))
      assert.isAtLeast(received, 3)
      await Promise.all(
        tasks.map(({ id }) =>
          eventually(`${id} has succeeded`, 60_000, async () =>
            (await get(service, `/v1/tasks/${id}`, Task)).state === "succeeded" ? true : undefined
          )
        )
      )
      await eventually("it is whole again", 30_000, async () => {
        const now = await breaker()
        return (now?.state === "closed" && now.capacityPercent === 100) || undefined
      })
      const { events } = await get(service, "/v1/platforms/codex/history", History)
      const changes = [...events].reverse().flatMap((event) => (event.type === "breaker.changed" ? [event] : []))
      assert.deepEqual(
        changes.slice(-6).map(({ capacityPercent, from, to }) => [from, to, capacityPercent]),
        [
          ["closed", "open", 0],
          ["open", "half-open", 0],
          ["half-open", "closed", 10],
          ["closed", "closed", 25],
          ["closed", "closed", 50],
          ["closed", "closed", 100]
        ]
      )
      const [opened] = changes
      assert.include(opened?.why, "3 failures in a row")
      assert.include(
        tasks.map(({ id }): string => id),
        opened?.attempt?.id
      )
      // What was measured of the platform and of its model is shown, and is part of the events of its status.
      const view = await get(service, "/v1/platforms/codex", PlatformView)
      const [model] = view.models
      assert(model !== undefined)
      assert.strictEqual(model.model, view.model)
      for (const { attempts, durationMsEwma, durationMsP50, durationMsP95, errorRate, timeToFirstTokenMsP50 } of [
        view.performance,
        model.performance
      ]) {
        assert.isAtLeast(attempts, 9)
        assert.isAbove(errorRate, 0)
        assert.isBelow(errorRate, 1)
        for (const ms of [durationMsEwma, durationMsP50, timeToFirstTokenMsP50]) assert.isAbove(ms ?? 0, 0)
        assert.isAtLeast(durationMsP95 ?? 0, durationMsP50 ?? 1)
      }
      const sick = events.find((event) => event.type === "platform.status" && event.to !== "available")
      assert(sick?.type === "platform.status")
      assert.isAbove(sick.performance?.errorRate ?? 0, 0)
      assert.strictEqual(sick.models?.[0]?.model, view.model)
    } finally {
      await service.stop("SIGKILL")
      await simulated.close()
    }
  })
})
