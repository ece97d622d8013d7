import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Schema } from "effect"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { Task } from "../../src/Domain/Task.js"
import { dreamTeam } from "../support/Command.js"
import { freePort, type Service, startService } from "../support/Service.js"
import { type Simulated, simulate } from "../support/Simulated.js"

const folder = mkdtempSync(join(tmpdir(), "dream-team-validation-"))
let simulated: Simulated
let service: Service

beforeAll(async () => {
  simulated = await simulate()
  const { environment, fault } = simulated.simulator
  const check = { platform: "qwen", fault: "answer" } as const
  const invalid = { valid: false, problems: ["It has no meaning."], suggestion: "Say what is to be done." }
  await Effect.runPromise(fault({ ...check, containing: "gobbledygook", says: invalid }))
  await Effect.runPromise(fault({ ...check, containing: "You check tasks", says: { valid: true, problems: [] } }))
  service = await startService(await freePort(), {
    ...environment,
    DREAM_TEAM_VALIDATION: "true",
    DREAM_TEAM_DATABASE: join(folder, "tasks.db")
  })
}, 120_000)

afterAll(async () => {
  await service.stop("SIGTERM")
  await simulated.close()
  rmSync(folder, { recursive: true, force: true })
})

const submit = async (prompt: string, query = "") => {
  const response = await fetch(`${service.url}/v1/tasks${query}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt })
  })
  const body: unknown = await response.json()
  return { status: response.status, body }
}

describe("the check of tasks by a model, over real HTTP on both sides", () => {
  it("takes what the model finds valid, and keeps its verdict with the task", { timeout: 60_000 }, async () => {
    const { body, status } = await submit("Write a haiku")
    assert.strictEqual(status, 202)
    const { id, validation } = Schema.decodeUnknownSync(Task)(body)
    assert.strictEqual(validation?.status, "valid")
    assert.strictEqual(validation?.platform, "qwen")
    const shown = Schema.decodeUnknownSync(Task)(await (await fetch(`${service.url}/v1/tasks/${id}`)).json())
    assert.deepStrictEqual(shown.validation, validation)
  })

  it("refuses what it finds invalid, with its problems and its suggestion, and stores nothing", {
    timeout: 60_000
  }, async () => {
    for (const query of ["", "?dryRun=true"]) {
      const { body, status } = await submit("gobbledygook", query)
      assert.strictEqual(status, 422)
      const { details, type } = Object(body).error
      assert.strictEqual(type, "task-refused")
      assert.deepInclude(details, {
        problems: [{ field: "prompt", problem: "It has no meaning." }],
        suggestion: "Say what is to be done."
      })
    }
    assert.notInclude(await (await fetch(`${service.url}/v1/tasks`)).text(), "gobbledygook")
  })

  it("is shown by submit --dry-run, either way", { timeout: 60_000 }, async () => {
    const dryRun = (prompt: string, ...rest: ReadonlyArray<string>) =>
      dreamTeam(["submit", prompt, "--dry-run", "--url", service.url, ...rest])
    const valid = await dryRun("Write a haiku")
    assert.strictEqual(valid.code, 0, valid.stderr)
    assert.match(valid.stdout, /valid/)
    const asJson = await dryRun("Write a haiku", "--json")
    assert.strictEqual(Object(JSON.parse(asJson.stdout)).validation.status, "valid")
    const invalid = await dryRun("gobbledygook")
    assert.strictEqual(invalid.code, 1)
    assert.include(invalid.stderr, "It has no meaning.")
    assert.include(invalid.stderr, "Say what is to be done.")
  })
})
