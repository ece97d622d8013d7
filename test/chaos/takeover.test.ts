import { once } from "node:events"
import { Effect, Schema } from "effect"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { AttemptList, TaskList } from "../../src/Coordinator/Api.js"
import { Task } from "../../src/Domain/Task.js"
import { type Postgres, startPostgres, startTimeout } from "../support/Postgres.js"
import { eventually, freePort, startService } from "../support/Service.js"
import { simulate, slowedDown } from "../support/Simulated.js"

let server: Postgres
beforeAll(async () => {
  server = await startPostgres()
}, startTimeout)
afterAll(() => server.remove())

const tasks = 60

const get = async <A, I>(schema: Schema.Schema<A, I>, url: string): Promise<A> =>
  Schema.decodeUnknownSync(schema)(await (await fetch(url)).json())

describe("two services on one PostgreSQL database", () => {
  it("give each task one result, though the first was stopped beyond its lease and goes on later", {
    timeout: 120_000
  }, async () => {
    const { close, simulator } = await simulate(slowedDown(400))
    const environment = {
      ...simulator.environment,
      ...Object.fromEntries(
        Object.keys(simulator.baseUrls).map((id) => [`DREAM_TEAM_${id.toUpperCase()}_MAX_CONCURRENT`, "2"])
      ),
      DREAM_TEAM_DATABASE: await server.database()
    }
    const answered = () =>
      Object.values(Effect.runSync(simulator.stats).platforms).reduce((sum, platform) => sum + platform.answered, 0)
    const first = await startService(await freePort(), environment)
    const standby = startService(await freePort(), environment)
    const ids = await Promise.all(
      Array.from({ length: tasks }, async (_, n) => {
        const response = await fetch(`${first.url}/v1/tasks`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ prompt: `Question ${n}` })
        })
        return Schema.decodeUnknownSync(Task)(await response.json()).id
      })
    )
    await eventually("the first is at work", 20_000, async () => answered() >= 4 || undefined)

    first.process.kill("SIGSTOP")
    const second = await standby
    assert.match(second.log(), /stands by and takes over/)
    const listed = () => get(TaskList, `${second.url}/v1/tasks?limit=200`)
    await eventually("every task has ended", 40_000, async () => {
      const { tasks } = await listed()
      return tasks.every(({ state }) => state === "succeeded") || undefined
    })
    const before = await listed()
    assert.deepStrictEqual(new Set(before.tasks.map(({ id }) => id)), new Set(ids))

    const exited = once(first.process, "exit")
    first.process.kill("SIGCONT")
    assert.deepStrictEqual(await exited, [1, null])
    assert.match(first.log(), /Another process has taken over the database postgres:\/\/dream@127\.0\.0\.1/)
    assert.notInclude(first.log() + second.log(), "p%40ss")

    assert.deepStrictEqual(await listed(), before)
    let cut = 0
    for (const id of ids) {
      const { attempts } = await get(AttemptList, `${second.url}/v1/tasks/${id}/attempts`)
      const outcomes = attempts.map(({ outcome }) => outcome)
      assert.strictEqual(outcomes.filter((outcome) => outcome === "succeeded").length, 1, `${id}: ${outcomes}`)
      assert.isBelow(outcomes.length, 3, `${id}: ${outcomes}`)
      cut += outcomes.length - 1
      const events = await (await fetch(`${second.url}/v1/tasks/${id}/events`)).text()
      assert.strictEqual(events.match(/^event: task\.(succeeded|failed|cancelled)$/gm)?.length, 1, id)
    }
    assert.isAbove(cut, 0, "nothing was under way when the first was stopped: it proves nothing")
    assert.strictEqual(await second.stop("SIGTERM"), 0)
    await close()
  })
})
