import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Schema } from "effect"
import { afterAll, assert, describe, it } from "vitest"
import { PlatformEvent } from "../../src/Domain/Event.js"
import { PlatformResources } from "../../src/Domain/Lease.js"
import { Simulator } from "../../src/Simulator.js"
import { eventually, freePort, pause, type Service, startService } from "../support/Service.js"
import { simulate } from "../support/Simulated.js"

const folder = mkdtempSync(join(tmpdir(), "dream-team-killed-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const History = Schema.Struct({ events: Schema.Array(PlatformEvent) })
const Resources = Schema.Struct({ platforms: Schema.Array(PlatformResources) })

const decoded = async <A, I>(response: Response, schema: Schema.Schema<A, I>): Promise<A> =>
  Schema.decodeUnknownSync(schema)(await response.json())

const send = (service: Service, method: string, path: string, body: unknown): Promise<Response> =>
  fetch(`${service.url}${path}`, {
    method,
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body)
  })

describe("a service that is killed again and again while its platform's limit is saturated", () => {
  it("never runs into the limit, goes on with what is left of it, and remembers what was changed by hand", {
    timeout: 180_000
  }, async () => {
    const { gemini } = Simulator.instant.platforms
    const limit = 60
    const windowMs = 10_000
    const simulated = await simulate({
      ...Simulator.instant,
      platforms: { gemini: { ...gemini, limits: { requests: [{ limit, windowMs }] } } }
    })
    const port = await freePort()
    const environment = {
      ...simulated.simulator.environment,
      DREAM_TEAM_PLATFORMS: "gemini",
      DREAM_TEAM_GEMINI_REQUESTS_PER_MINUTE: "none",
      DREAM_TEAM_GEMINI_TOKENS_PER_MINUTE: "none",
      // far too high: the change by hand below brings it to what the platform really allows
      DREAM_TEAM_GEMINI_WINDOW_REQUESTS: "10000",
      DREAM_TEAM_GEMINI_WINDOW: `${windowMs}ms`,
      DREAM_TEAM_DATABASE: join(folder, "killed.db")
    }
    const received = () => Effect.runSync(simulated.simulator.stats).platforms.gemini?.received ?? 0
    let service = await startService(port, environment)
    try {
      const patched = await send(service, "PATCH", "/v1/platforms/gemini", { limits: { windowRequests: limit } })
      assert.strictEqual(patched.status, 200)
      const submit = (_: unknown, index: number) =>
        send(service, "POST", "/v1/tasks", { prompt: `Question ${index}`, priority: "HIGH" })
      const answers = await Promise.all(Array.from({ length: 300 }, submit))
      assert.isTrue(answers.every(({ status }) => status === 202))
      for (const afterMs of [100, 700, 1_500, 300, 2_500]) {
        await pause(afterMs)
        await service.stop("SIGKILL")
        service = await startService(port, environment)
      }
      const { platforms } = await decoded(await fetch(`${service.url}/v1/resources`), Resources)
      const bucket = platforms[0]?.buckets.find((found) => found.windowMs === windowMs)
      assert.strictEqual(bucket?.capacity, limit)
      const { events } = await decoded(await fetch(`${service.url}/v1/platforms/gemini/history`), History)
      assert.isTrue(events.some(({ type }) => type === "limits.changed"))
      await eventually("two windows' worth was sent", 60_000, async () => received() >= 2 * limit || undefined)
      assert.strictEqual(Effect.runSync(simulated.simulator.stats).violations, 0)
    } finally {
      await service.stop("SIGKILL")
      await simulated.close()
    }
  })
})
