import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Schema } from "effect"
import { afterAll, assert, describe, it } from "vitest"
import { AttemptList, TaskList } from "../src/Coordinator/Api.js"
import { Task, type TaskSummary } from "../src/Domain/Task.js"
import { eventually, freePort, pause, type Service, startService } from "./support/Service.js"
import { simulate, slowedDown } from "./support/Simulated.js"

const folder = mkdtempSync(join(tmpdir(), "dream-team-durability-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const tasks = 500
const kills = 20
const submitters = 8
/** Attempts the platforms take at once, all four together. */
const inFlight = 16

const get = async <A, I>(schema: Schema.Schema<A, I>, url: string): Promise<A> =>
  Schema.decodeUnknownSync(schema)(await (await fetch(url)).json())

const listAll = async (url: string): Promise<ReadonlyArray<TaskSummary>> => {
  const found: Array<TaskSummary> = []
  let cursor = ""
  for (;;) {
    const page = await get(TaskList, `${url}/v1/tasks?limit=200${cursor}`)
    found.push(...page.tasks)
    if (page.next === undefined) return found
    cursor = `&cursor=${page.next}`
  }
}

describe("a service killed with SIGKILL", () => {
  it(`loses nothing and doubles nothing: ${kills} kills during a load of ${tasks} tasks`, {
    timeout: 400_000
  }, async () => {
    const { simulator, close } = await simulate(slowedDown(40))
    const port = await freePort()
    const environment = {
      ...simulator.environment,
      ...Object.fromEntries(
        Object.keys(simulator.baseUrls).map((id) => [
          `DREAM_TEAM_${id.toUpperCase()}_MAX_CONCURRENT`,
          String(inFlight / 4)
        ])
      ),
      DREAM_TEAM_DATABASE: join(folder, "tasks.db")
    }
    const statsNow = () => Effect.runSync(simulator.stats).platforms
    let service: Service = await startService(port, environment)
    const { url } = service

    // Every submitter repeats a submission under its key until it is answered: what a careful client does.
    const accepted = new Map<string, string>()
    let next = 0
    const submitter = async () => {
      while (next < tasks) {
        const key = `load-${next++}`
        for (;;) {
          const response = await fetch(`${url}/v1/tasks`, {
            method: "POST",
            headers: { "content-type": "application/json", "idempotency-key": key },
            body: JSON.stringify({
              prompt: `Question ${key}`,
              priority: (["HIGH", "MEDIUM", "LOW"] as const)[next % 3]
            })
          }).catch(() => undefined)
          const body: unknown = await response?.json().catch(() => undefined)
          if (response?.ok === true && body !== undefined) {
            accepted.set(key, Schema.decodeUnknownSync(Task)(body).id)
            break
          }
          await pause(50)
        }
        await pause(40)
      }
    }
    const submitted = Promise.all(Array.from({ length: submitters }, submitter))

    // A task whose owner dies three times during its own attempts is given up as poison. So that this stays rare, the
    // service gets as much done between two kills as it has in flight.
    const answered = () => Object.values(statsNow()).reduce((sum, platform) => sum + platform.answered, 0)
    for (let kill = 0; kill < kills; kill++) {
      const before = answered()
      await eventually("the service works", 60_000, async () => answered() >= before + inFlight || undefined)
      await pause(Math.random() * 50)
      await service.stop("SIGKILL")
      service = await startService(port, environment)
    }
    await submitted
    const all = await eventually("every task has ended", 120_000, async () => {
      const listed = await listAll(url)
      return listed.every(({ state }) => state === "succeeded" || state === "failed") ? listed : undefined
    })

    assert.strictEqual(accepted.size, tasks)
    assert.deepStrictEqual(
      new Set(all.map(({ id }) => id)),
      new Set(accepted.values()),
      "exactly the accepted tasks are there"
    )
    assert.strictEqual(all.length, tasks)
    let cut = 0
    let succeeded = 0
    for (const { id, state, error } of all) {
      const { attempts } = await get(AttemptList, `${url}/v1/tasks/${id}/attempts`)
      const outcomes = attempts.map(({ outcome }) => outcome)
      const count = (wanted: (typeof outcomes)[number]) => outcomes.filter((outcome) => outcome === wanted).length
      const story = `${id} ${state} ${error?.message}: ${outcomes}`
      // What ran twice is what was in flight when a kill came, and no more.
      assert.strictEqual(count("succeeded") + count("interrupted"), outcomes.length, story)
      if (state === "succeeded") assert.strictEqual(count("succeeded"), 1, story)
      else assert.deepStrictEqual([error?.type, count("succeeded"), count("interrupted")], ["poison", 0, 3], story)
      const events = await (await fetch(`${url}/v1/tasks/${id}/events`)).text()
      assert.strictEqual(events.match(/^event: task\.(succeeded|failed|cancelled)$/gm)?.length, 1, story)
      cut += count("interrupted")
      succeeded += count("succeeded")
    }
    assert.isAbove(cut, 0, "no kill hit an attempt: the load was too light to prove anything")
    assert.isAbove(succeeded, tasks * 0.9)
    assert.strictEqual(await service.stop("SIGTERM"), 0)
    await close()
  })
})
