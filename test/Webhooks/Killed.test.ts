import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Schema } from "effect"
import { Webhook } from "standardwebhooks"
import { afterAll, assert, describe, it } from "vitest"
import { Task } from "../../src/Domain/Task.js"
import { eventually, freePort, type Service, startService } from "../support/Service.js"
import { simulate } from "../support/Simulated.js"

const folder = mkdtempSync(join(tmpdir(), "dream-team-webhooks-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const secret = `whsec_${Buffer.from("a secret of at least 24 bytes").toString("base64")}`

describe("a service killed between a delivery and its record", () => {
  it("delivers again under the same id, and keeps its secret to itself", { timeout: 120_000 }, async () => {
    const { simulator, close } = await simulate()
    const ids: Array<string> = []
    let service: Service | undefined
    const server = createServer((request, response) => {
      let body = ""
      request.on("data", (chunk: Buffer) => {
        body += chunk.toString()
      })
      request.on("end", () => {
        const headers = Object.fromEntries(
          Object.entries(request.headers).map(([name, value]) => [name, String(value)])
        )
        const verified = new Webhook(secret).verify(body, headers)
        assert.strictEqual(Object(verified).type, "task.succeeded")
        ids.push(headers["webhook-id"] ?? "")
        // The first one was received, but the service never learns of it.
        if (ids.length === 1) service?.process.kill("SIGKILL")
        else response.writeHead(204).end()
      })
    })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    const address = server.address()
    const receiver = `http://127.0.0.1:${address !== null && typeof address === "object" ? address.port : 0}/hook`
    const environment = {
      ...simulator.environment,
      DREAM_TEAM_DATABASE: join(folder, "tasks.db"),
      DREAM_TEAM_WEBHOOK_SECRETS: secret,
      DREAM_TEAM_WEBHOOK_ALLOW_PRIVATE: "true"
    }
    const port = await freePort()
    service = await startService(port, environment)
    const { url } = service
    const submitted = await fetch(`${url}/v1/tasks`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "Say hello", callbackUrl: receiver })
    })
    assert.strictEqual(submitted.status, 202)
    const { id } = Schema.decodeUnknownSync(Task)(await submitted.json())
    await eventually("the service was killed", 30_000, async () => service?.process.signalCode ?? undefined)
    const firstLog = service.log()
    service = await startService(port, environment)
    const task = await eventually("the webhook is delivered", 30_000, async () => {
      const shown = Schema.decodeUnknownSync(Task)(await (await fetch(`${url}/v1/tasks/${id}`)).json())
      return shown.webhook?.state === "delivered" ? shown : undefined
    })
    assert.strictEqual(task.state, "succeeded")
    assert.strictEqual(ids.length, 2)
    assert.strictEqual(ids[0], ids[1])
    assert.notInclude(firstLog + service.log(), secret.slice("whsec_".length))
    assert.strictEqual(await service.stop("SIGTERM"), 0)
    server.close()
    await close()
  })
})
