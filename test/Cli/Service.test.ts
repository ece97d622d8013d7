import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Schema } from "effect"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { AttemptList, BulkVerdict } from "../../src/Coordinator/Api.js"
import { JobResult } from "../../src/Domain/Job.js"
import { Task } from "../../src/Domain/Task.js"
import { type Fault, Simulator } from "../../src/Simulator.js"
import { dreamTeam } from "../support/Command.js"
import { eventually, freePort, type Service, startService } from "../support/Service.js"
import { type Simulated, simulate } from "../support/Simulated.js"

const folder = mkdtempSync(join(tmpdir(), "dream-team-service-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const read = <A, I>(schema: Schema.Schema<A, I>, text: string): A =>
  Schema.decodeUnknownSync(Schema.parseJson(schema))(text)

const TaskWithAttempts = Schema.Struct({ task: Task, attempts: AttemptList.fields.attempts })

const key = "a-key-that-the-platform-knows"

/** Each platform as the instant simulator has it, but codex wants its key and qwen allows two requests a minute. */
const options = {
  ...Simulator.instant,
  platforms: {
    ...Simulator.instant.platforms,
    codex: { ...Simulator.instant.platforms.codex, apiKey: key },
    qwen: {
      ...Simulator.instant.platforms.qwen,
      limits: { requests: [{ limit: 2, windowMs: 60_000 }] }
    }
  }
}

let simulated: Simulated
beforeAll(async () => {
  simulated = await simulate(options)
})
afterAll(() => simulated.close())

const statsOf = (platform: string) => Effect.runSync(simulated.simulator.stats).platforms[platform]
const fault = (spec: Fault) => Effect.runPromise(simulated.simulator.fault(spec))

/** Starts a service, runs `use` against it, and ends it whatever happens. */
const withService = async (
  variables: Readonly<Record<string, string>>,
  use: (service: Service, env: Readonly<Record<string, string>>) => Promise<void>
): Promise<void> => {
  const port = await freePort()
  const env = { ...simulated.simulator.environment, ...variables, DREAM_TEAM_PORT: String(port) }
  const service = await startService(port, env)
  try {
    await use(service, env)
  } finally {
    await service.stop("SIGKILL")
  }
}

describe("dream-team serve, with everything real but the platforms", () => {
  it("names every mistake in the settings at once and exits with 2", async () => {
    const env = {
      ...simulated.simulator.environment,
      DREAM_TEAM_PORT: "seven",
      DREAM_TEAM_PROT: "7",
      DREAM_TEAM_CODEX_WEIGHT: "heavy",
      DREAM_TEAM_API_KEYS: "short-secret"
    }
    const { code, stderr, stdout } = await dreamTeam(["serve", "--host", "0.0.0.0"], { env, cwd: folder })
    assert.deepEqual([code, stdout], [2, ""])
    assert.include(stderr, 'DREAM_TEAM_PORT="seven": wrong value; expected a whole number from 0 to 65535')
    assert.include(stderr, "DREAM_TEAM_PROT: unknown variable, did you mean DREAM_TEAM_PORT?")
    assert.include(stderr, 'DREAM_TEAM_CODEX_WEIGHT="heavy": wrong value')
    assert.include(stderr, "DREAM_TEAM_API_KEYS: wrong value of key 1")
    assert.notInclude(stderr, "short-secret")
  })

  it("refuses other than loopback without keys, before anything is opened", async () => {
    const env = { ...simulated.simulator.environment, DREAM_TEAM_DATABASE: join(folder, "never.db") }
    const { code, stderr } = await dreamTeam(["serve", "--host", "0.0.0.0"], { env, cwd: folder })
    assert.strictEqual(code, 2)
    assert.include(stderr, "--host=0.0.0.0: without API keys the service listens on loopback only")
  })

  it("has a doctor that asks each platform and says which key is refused", async () => {
    const env = {
      ...simulated.simulator.environment,
      // A Claude Code of this machine is asked as well, and writes into its home.
      HOME: folder,
      DREAM_TEAM_PORT: "0",
      DREAM_TEAM_DATABASE: join(folder, "doctor.db")
    }
    const Report = Schema.Struct({
      ok: Schema.Boolean,
      checks: Schema.Array(Schema.Struct({ name: Schema.String, status: Schema.String, found: Schema.String }))
    })
    const well = await dreamTeam(["doctor", "--json"], { env })
    const { checks, ok } = read(Report, well.stdout)
    assert.deepEqual([well.code, ok], [0, true])
    for (const name of ["codex", "gemini", "qwen", "synthetic"]) {
      assert.match(checks.find((check) => check.name === name)?.found ?? "", /; answers in /)
    }
    const wrong = "a-key-it-does-not-know"
    const sick = await dreamTeam(["doctor"], { env: { ...env, DREAM_TEAM_CODEX_API_KEY: wrong } })
    assert.strictEqual(sick.code, 1)
    assert.match(sick.stdout, /^problem +codex .*the key is refused/m)
    assert.match(sick.stdout, /^ok +gemini .*answers in/m)
    assert.notInclude(sick.stdout, wrong)
  })

  it("takes a file of tasks in one request, and a job", { timeout: 120_000 }, async () => {
    await withService({ DREAM_TEAM_DATABASE: join(folder, "jobs.db") }, async (_, env) => {
      const tasks = join(folder, "tasks.jsonl")
      writeFileSync(tasks, '{"prompt":"One"}\n{"prompt":""}\n\n{"prompt":"Four","platform":"gemini"}\n')
      const refused = await dreamTeam(["submit", "--file", tasks], { env })
      assert.strictEqual(refused.code, 1)
      assert.match(
        refused.stdout,
        /^1 {2}[0-9a-f-]{36} {2}queued\n2 {2}refused: .*it is empty\n4 {2}[0-9a-f-]{36} {2}queued\n$/
      )
      assert.include(refused.stderr, "1 line refused.")

      writeFileSync(tasks, '{"prompt":"One"}\n{"prompt":"Two"}')
      const waited = await dreamTeam(["submit", "--file", tasks, "--wait", "--json", "--idempotency-key", "K"], { env })
      const lines = waited.stdout.trim().split("\n")
      const [first, second, ...done] = lines
      assert.deepEqual([waited.code, lines.length], [0, 4])
      for (const [index, line] of [first, second].entries()) {
        const verdict = read(BulkVerdict, line ?? "")
        assert.deepEqual([verdict.line, "id" in verdict], [index + 1, true])
      }
      assert.isTrue(done.every((line) => read(Task, line).state === "succeeded"))
      const again = await dreamTeam(["submit", "--file", "-", "--idempotency-key", "K"], {
        env,
        stdin: '{"prompt":"One"}\n{"prompt":"Two"}'
      })
      assert.match(again.stdout, /^1 .* submitted before\n2 .* submitted before\n$/)

      const mixed = await dreamTeam(["submit", "Say hello", "--file", tasks], { env })
      assert.strictEqual(mixed.code, 2)
      const absent = await dreamTeam(["submit", "--file", join(folder, "absent.jsonl")], { env })
      assert.deepEqual([absent.code, absent.stdout], [1, ""])
      assert.include(absent.stderr, "cannot be read")

      const file = join(folder, "job.json")
      writeFileSync(
        file,
        JSON.stringify({
          mode: "sequential",
          tasks: [
            { name: "a", prompt: "A" },
            { name: "b", prompt: "B" }
          ]
        })
      )
      const id = (await dreamTeam(["jobs", "submit", file], { env })).stdout.trim()
      const ended = await eventually("the job ends", 10_000, async () => {
        const { stdout } = await dreamTeam(["jobs", "show", id, "--json"], { env })
        const job = read(JobResult, stdout)
        return job.state === "running" ? undefined : job
      })
      assert.deepEqual([ended.state, ended.counts.succeeded], ["succeeded", 2])
      const shown = await dreamTeam(["jobs", "show", id], { env })
      assert.include(shown.stdout, `Job ${id}: succeeded, 2 of 2 ended`)
      const list = await dreamTeam(["jobs", "list", "--state", "succeeded"], { env })
      assert.include(list.stdout, id)
      const late = await dreamTeam(["jobs", "cancel", id], { env })
      assert.deepEqual([late.code, late.stdout], [1, ""])
      assert.include(late.stderr, "has ended already")

      writeFileSync(file, JSON.stringify({ tasks: [{ prompt: "A", dependsOn: ["nobody"] }] }))
      const wrong = await dreamTeam(["jobs", "submit", file], { env })
      assert.strictEqual(wrong.code, 1)
      assert.include(wrong.stderr, "tasks.0.dependsOn.0: there is no task called nobody in this job")
    })
  })

  it("closes the connection of a running attempt that is cancelled", { timeout: 60_000 }, async () => {
    await withService({ DREAM_TEAM_DATABASE: join(folder, "cancel.db") }, async (_, env) => {
      await fault({ platform: "gemini", fault: "hang" })
      const submitted = await dreamTeam(["submit", "Hang", "--platform", "gemini"], { env })
      await eventually("the request hangs", 10_000, async () => statsOf("gemini")?.inFlight === 1 || undefined)
      const before = statsOf("gemini")?.aborted ?? 0
      const cancelled = await dreamTeam(["tasks", "cancel", submitted.stdout.trim()], { env })
      assert.deepEqual([cancelled.code, cancelled.stdout], [0, `${submitted.stdout.trim()} is cancelled.\n`])
      await eventually(
        "its connection is closed",
        2_000,
        async () => statsOf("gemini")?.aborted === before + 1 || undefined
      )
      assert.strictEqual(statsOf("gemini")?.inFlight, 0)
      await Effect.runPromise(simulated.simulator.clearFaults("gemini"))
    })
  })

  it("gives running attempts their grace at SIGTERM, journals them as interrupted, and goes on at the next start", {
    timeout: 60_000
  }, async () => {
    const config = join(folder, "grace.json")
    const graceMs = 1_000
    writeFileSync(config, JSON.stringify({ shutdownGraceMs: graceMs, database: join(folder, "grace.db") }))
    const variables = { DREAM_TEAM_CONFIG: config }
    await fault({ platform: "gemini", fault: "hang" })
    let id = ""
    await withService(variables, async (service, env) => {
      id = (await dreamTeam(["submit", "Hang", "--platform", "gemini"], { env })).stdout.trim()
      await eventually("the request hangs", 10_000, async () => statsOf("gemini")?.inFlight === 1 || undefined)
      const from = performance.now()
      assert.strictEqual(await service.stop("SIGTERM"), 0)
      assert.isAtLeast(performance.now() - from, graceMs)
      assert.include(service.log(), "The service stops; running attempts have 1.0 s to end")
      assert.strictEqual(statsOf("gemini")?.inFlight, 0)
    })
    await Effect.runPromise(simulated.simulator.clearFaults("gemini"))
    await withService(variables, async (_, env) => {
      const watched = await dreamTeam(["tasks", "watch", id], { env })
      assert.strictEqual(watched.code, 0, watched.stderr)
      assert.include(watched.stdout, "attempt 1 on gemini was interrupted by a stop of the service")
      const { attempts, task } = read(
        TaskWithAttempts,
        (await dreamTeam(["tasks", "show", id, "--json"], { env })).stdout
      )
      assert.strictEqual(task.state, "succeeded")
      assert.deepEqual(
        attempts.map(({ outcome }) => outcome),
        ["interrupted", "succeeded"]
      )
    })
  })

  it("logs when a platform falls out and comes back, once each, whatever is asked meanwhile", {
    timeout: 60_000
  }, async () => {
    const variables = { DREAM_TEAM_DATABASE: join(folder, "log.db"), DREAM_TEAM_PLATFORMS: "gemini" }
    await withService(variables, async (service, env) => {
      const entries = () =>
        service
          .log()
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line))
          .filter(({ annotations }) => annotations.platform === "gemini")
      const check = () => dreamTeam(["platforms", "check", "gemini"], { env })
      await fault({ platform: "gemini", fault: "status", status: 503, routes: "all" })
      for (let round = 0; round < 4; round++) await check()
      const out = await eventually("the outage is logged", 5_000, async () =>
        entries().some(({ message }) => message === "The platform is unavailable") ? entries() : undefined
      )
      assert.isAtMost(out.length, 2)
      assert.isTrue(out.every(({ logLevel }) => logLevel === "WARN"))
      await Effect.runPromise(simulated.simulator.clearFaults("gemini"))
      await check()
      await eventually("the recovery is logged", 5_000, async () =>
        entries().at(-1)?.message === "The platform is available" ? true : undefined
      )
      assert.notInclude(service.log(), "    at ")
    })
  })

  it("violates a platform's limit where it is told a wider one, and the platform counts it", {
    timeout: 60_000
  }, async () => {
    const variables = {
      DREAM_TEAM_DATABASE: join(folder, "violation.db"),
      DREAM_TEAM_QWEN_REQUESTS_PER_MINUTE: "1000"
    }
    await withService(variables, async (_, env) => {
      assert.strictEqual(statsOf("qwen")?.violations.requests, 0)
      await Promise.all(["a", "b", "c"].map((prompt) => dreamTeam(["submit", prompt, "--platform", "qwen"], { env })))
      await eventually("a request is refused", 10_000, async () =>
        (statsOf("qwen")?.violations.requests ?? 0) > 0 ? true : undefined
      )
    })
  })

  it("delegates to any OpenAI-compatible platform by configuration, and exports spans without keys and prompts", {
    timeout: 60_000
  }, async () => {
    const received: Array<string> = []
    const collector = createServer((request, response) => {
      let body = ""
      request.on("data", (chunk: Buffer) => {
        body += chunk.toString()
      })
      request.on("end", () => {
        received.push(body)
        response.end("{}")
      })
    })
    const collectorPort = await freePort()
    await new Promise<void>((resolve) => collector.listen(collectorPort, "127.0.0.1", resolve))
    const tenantKey = "the-key-of-a-tenant"
    const variables = {
      DREAM_TEAM_DATABASE: join(folder, "spans.db"),
      DREAM_TEAM_PLATFORMS: "my-llm,codex",
      DREAM_TEAM_MY_LLM_BASE_URL: simulated.simulator.baseUrls.synthetic ?? "",
      DREAM_TEAM_MY_LLM_MODEL: Simulator.instant.platforms.synthetic.models[0],
      DREAM_TEAM_MY_LLM_API_KEY: "the-key-of-my-llm",
      DREAM_TEAM_API_KEYS: `ann:${tenantKey}`,
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${collectorPort}`
    }
    await withService(variables, async (service, env) => {
      const args = ["submit", "A secret prompt", "--system", "A secret system", "--platform", "my-llm", "--wait"]
      const answered = await dreamTeam(args, { env })
      assert.deepEqual([answered.code, answered.stderr], [0, ""])
      assert.include(answered.stdout, "A secret prompt")
      assert.strictEqual(await service.stop("SIGTERM"), 0)
      for (const secret of [tenantKey, key, "the-key-of-my-llm", "secret prompt", "secret system"]) {
        assert.notInclude(service.log(), secret)
      }
    })
    collector.close()
    const names = new Set(received.flatMap((body) => [...body.matchAll(/"name":"([^"]+)"/g)].map(([, name]) => name)))
    for (const span of ["Coordinator.task", "Delegation.delegate", "ResourceManager.acquire", "Delegation.attempt"]) {
      assert.isTrue(names.has(span), `${span} is among ${[...names].join(", ")}`)
    }
    assert.isTrue(names.has("sql.execute"))
    for (const secret of [tenantKey, key, "the-key-of-my-llm", "secret prompt", "secret system", "Simulated answer"]) {
      assert.notInclude(received.join("\n"), secret)
    }
  })
})
