import { join } from "node:path"
import { Schema } from "effect"
import { afterAll, assert, describe, it } from "vitest"
import { TaskList } from "../../src/Coordinator/Api.js"
import { Task } from "../../src/Domain/Task.js"
import { eventually, freePort, startService } from "../support/Service.js"
import { simulate, slowedDown } from "../support/Simulated.js"
import { smallDisk } from "../support/smallDisk.js"

const disk = smallDisk(32)
afterAll(() => disk?.remove())

const long = "s".repeat(3_000)

describe.skipIf(disk === undefined)("a service whose disk becomes full", () => {
  it("says so, refuses what it cannot keep, and finishes what it has accepted once there is room", {
    timeout: 180_000
  }, async () => {
    assert(disk !== undefined)
    const { simulator, close } = await simulate(slowedDown(300))
    const service = await startService(await freePort(), {
      ...simulator.environment,
      DREAM_TEAM_DATABASE: join(disk.folder, "tasks.db")
    })
    const submit = async (prompt: string) => {
      const response = await fetch(`${service.url}/v1/tasks`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ prompt, system: long })
      })
      return { status: response.status, text: await response.text() }
    }
    const accepted = new Set<string>()
    const accept = async (count: number) => {
      const answers = await Promise.all(Array.from({ length: count }, (_, n) => submit(`task ${n}`)))
      for (const { status, text } of answers) {
        if (status === 202) accepted.add(Schema.decodeUnknownSync(Schema.parseJson(Task))(text).id)
      }
      return answers.filter(({ status }) => status !== 202)
    }
    assert.deepStrictEqual(await accept(30), [])
    disk.fill()
    // what is left in the files themselves is used up first
    const refused = await eventually("a task is refused", 60_000, async () => {
      const answers = await accept(20)
      return answers.length === 0 ? undefined : answers
    })
    for (const { status, text } of refused) {
      assert.strictEqual(status, 503)
      assert.include(text, "The disk of the task database is full. Nothing was changed")
    }
    const readiness = async () => (await fetch(`${service.url}/health/ready`)).status
    await eventually("it is not ready", 10_000, async () => ((await readiness()) === 503 ? true : undefined))
    assert.strictEqual((await fetch(`${service.url}/health/live`)).status, 200)
    assert.strictEqual((await fetch(`${service.url}/v1/tasks?limit=1`)).status, 200)

    disk.free()
    await eventually("it is ready", 10_000, async () => ((await readiness()) === 200 ? true : undefined))
    assert.deepStrictEqual(await accept(5), [])
    const ended = await eventually("every task has ended", 120_000, async () => {
      const response = await fetch(`${service.url}/v1/tasks?limit=200`)
      const { tasks } = Schema.decodeUnknownSync(TaskList)(await response.json())
      return tasks.every(({ state }) => state === "succeeded") ? tasks : undefined
    })
    assert.deepStrictEqual(new Set(ended.map(({ id }) => id)), accepted)
    assert.include(service.log(), "The task database refused a write")
    assert.strictEqual(await service.stop("SIGTERM"), 0)
    await close()
  })
})
