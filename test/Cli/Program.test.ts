import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Schema } from "effect"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import manifest from "../../package.json" with { type: "json" }
import { AttemptList, TaskList } from "../../src/Coordinator/Api.js"
import { ResourcesView } from "../../src/Domain/Lease.js"
import { Task, TaskPreview } from "../../src/Domain/Task.js"
import { PlatformList } from "../../src/PlatformDetector/Api.js"
import { dreamTeam, node, type Running, startDreamTeam } from "../support/Command.js"
import { eventually, freePort } from "../support/Service.js"
import { type Simulated, simulate } from "../support/Simulated.js"

const folder = mkdtempSync(join(tmpdir(), "dream-team-cli-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const read = <A, I>(schema: Schema.Schema<A, I>, text: string): A =>
  Schema.decodeUnknownSync(Schema.parseJson(schema))(text)

describe("dream-team as a process", () => {
  it("answers help and version on stdout, fast", { timeout: 60_000 }, async () => {
    const help = await dreamTeam(["--help"])
    assert.deepEqual([help.code, help.stderr], [0, ""])
    assert.include(help.stdout, "Usage: dream-team <command> [options]")
    assert.deepEqual(await dreamTeam(["--version"]), { code: 0, stdout: `${manifest.version}\n`, stderr: "" })

    // The best of several is the least disturbed by what else the machine does.
    const best = async (run: () => Promise<unknown>): Promise<number> => {
      let least = Number.POSITIVE_INFINITY
      for (let round = 0; round < 7; round++) {
        const from = performance.now()
        await run()
        least = Math.min(least, performance.now() - from)
      }
      return least
    }
    const bare = await best(() => node(["-e", "0"]))
    const ours = await best(() => dreamTeam(["--help"]))
    assert.isBelow(ours / bare, 5, `--help takes ${ours.toFixed()} ms, node -e 0 ${bare.toFixed()} ms`)
  })

  it("tells misuse on stderr with exit code 2, failure with 1", async () => {
    const port = await freePort()
    const env = { DREAM_TEAM_PORT: String(port) }
    const [typo, settings, nobody, refused, usage] = await Promise.all([
      dreamTeam(["dmeo"]),
      dreamTeam(["tasks", "list"], { env: { DREAM_TEAM_PORT: "seven" } }),
      dreamTeam(["serve"], { env, cwd: folder }),
      dreamTeam(["platforms", "--json"], { env }),
      dreamTeam(["submit", "--wait"], { env, stdin: "a question\n" })
    ])
    assert.deepEqual([typo.code, typo.stdout], [2, ""])
    assert.include(typo.stderr, "Did you mean 'demo'?")
    assert.deepEqual([settings.code, settings.stdout], [2, ""])
    assert.include(settings.stderr, "DREAM_TEAM_PORT")
    assert.deepEqual([nobody.code, nobody.stdout], [2, ""])
    assert.include(nobody.stderr, "OPENAI_API_KEY")
    assert.include(nobody.stderr, "dream-team demo")
    for (const { code, stderr, stdout } of [refused, usage]) {
      assert.deepEqual([code, stdout], [1, ""])
      assert.strictEqual(
        stderr,
        `No service answers at http://127.0.0.1:${port}. Start it with 'dream-team serve', or say where it is with --url.\n`
      )
    }
  })
})

describe("dream-team against a running service", () => {
  let simulated: Simulated
  let service: Running
  let url: string
  let env: Readonly<Record<string, string>>
  const key = "a-key-of-sixteen"

  beforeAll(async () => {
    simulated = await simulate()
    const port = await freePort()
    url = `http://127.0.0.1:${port}`
    env = {
      ...simulated.simulator.environment,
      DREAM_TEAM_PORT: String(port),
      DREAM_TEAM_DATABASE: join(folder, "tasks.db"),
      DREAM_TEAM_API_KEYS: `ann:${key}`
    }
    service = startDreamTeam(["serve", "--json"], { env })
    await eventually("the service is live", 30_000, () =>
      fetch(`${url}/health/live`).then(
        (response) => (response.ok ? true : undefined),
        () => undefined
      )
    )
  }, 40_000)
  afterAll(async () => {
    service.process.kill("SIGKILL")
    await service.ended
    await simulated.close()
  })

  it("submits, waits and prints the answer's text alone", async () => {
    const [waited, piped] = await Promise.all([
      dreamTeam(["submit", "Why is the sky blue?", "--wait", "--platform", "gemini"], { env }),
      dreamTeam(["submit", "-", "--wait", "--json", "--priority", "high"], { env, stdin: "From a pipe\n" })
    ])
    assert.deepEqual([waited.code, waited.stderr], [0, ""])
    assert.match(waited.stdout, /^Simulated answer of gemini/)
    const task = read(Task, piped.stdout)
    assert.deepEqual([task.prompt, task.priority, task.state], ["From a pipe", "HIGH", "succeeded"])
  })

  it("shows, lists, watches, cancels and retries tasks", { timeout: 60_000 }, async () => {
    const submitted = await dreamTeam(["submit", "Test it", "--type", "testing", "--idempotency-key", "k1"], { env })
    assert.strictEqual(submitted.code, 0, submitted.stderr)
    const id = submitted.stdout.trim()
    const again = await dreamTeam(["submit", "Test it", "--type", "testing", "--idempotency-key", "k1"], { env })
    assert.strictEqual(again.stdout.trim(), id)

    const watched = await dreamTeam(["tasks", "watch", id, "--json"], { env })
    assert.strictEqual(watched.code, 0, watched.stderr)
    const types = watched.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line).type)
    assert.deepEqual([types[0], types.at(-1)], ["task.queued", "task.succeeded"])

    const [shown, text, listed, table, cancelled, unknown] = await Promise.all([
      dreamTeam(["tasks", "show", id, "--json"], { env }),
      dreamTeam(["tasks", "show", id], { env }),
      dreamTeam(["tasks", "list", "--json", "--type", "testing", "--state", "succeeded"], { env }),
      dreamTeam(["tasks", "list"], { env }),
      dreamTeam(["tasks", "cancel", id], { env }),
      dreamTeam(["tasks", "retry", "01a203e9-f9ca-7000-aa2c-096f46a1f373"], { env })
    ])
    const whole = read(Schema.Struct({ task: Task, attempts: AttemptList.fields.attempts }), shown.stdout)
    assert.deepEqual([whole.task.id, whole.attempts.length], [id, 1])
    assert.match(text.stdout, /Attempt 1 on \w+ \(.*\) answered after/)
    assert.deepEqual(
      read(TaskList, listed.stdout).tasks.map((task) => task.id),
      [id]
    )
    assert.include(table.stdout, id)
    assert.deepEqual([cancelled.code, cancelled.stdout], [1, ""])
    assert.include(cancelled.stderr, "succeeded")
    assert.strictEqual(unknown.code, 1)
  })

  it("explains a choice without making it", async () => {
    const prompt = ["Write a parser", "--type", "implementation", "--dry-run"]
    const before = await dreamTeam(["tasks", "list"], { env })
    const [text, json, same, refused, unflagged] = await Promise.all([
      dreamTeam(["route", ...prompt, "--policy", "best"], { env }),
      dreamTeam(["route", ...prompt, "--json", "--affinity-key", "a", "--max-cost-usd", "5"], { env }),
      dreamTeam(["submit", ...prompt, "--json"], { env }),
      dreamTeam(["route", "x", "--model", "no-such-model", "--dry-run"], { env }),
      dreamTeam(["route", "x"], { env })
    ])
    assert.deepEqual([text.code, text.stderr], [0, ""])
    assert.match(text.stdout, /^Now it would go to \w+: of the \d that are free it is its turn/m)
    assert.match(text.stdout, /^PLATFORM +MODEL +WEIGHT +SUITS +QUALITY +SHARE +COSTS AT MOST +NOW$/m)
    assert.include(text.stdout, "by the policy best. Nothing was submitted.")
    const preview = read(TaskPreview, json.stdout)
    assert.deepEqual([preview.accepted, preview.type, preview.candidates.length], [true, "implementation", 4])
    assert.strictEqual(read(TaskPreview, same.stdout).type, "implementation")
    assert.strictEqual(refused.code, 1)
    assert.include(refused.stderr, "codex: it does not serve the model no-such-model")
    assert.strictEqual(unflagged.code, 2)
    assert.strictEqual(
      (await dreamTeam(["tasks", "list"], { env })).stdout.split("\n").length,
      before.stdout.split("\n").length
    )
  })

  it("shows platforms and resources", async () => {
    const [platforms, checked, resources, table] = await Promise.all([
      dreamTeam(["platforms", "--json"], { env }),
      dreamTeam(["platforms", "check", "codex", "--json"], { env }),
      dreamTeam(["resources", "--json"], { env }),
      dreamTeam(["resources"], { env })
    ])
    assert.deepEqual(
      read(PlatformList, platforms.stdout).platforms.map(({ id }) => String(id)),
      ["codex", "gemini", "qwen", "synthetic"]
    )
    assert.strictEqual(read(PlatformList, checked.stdout).platforms[0]?.status, "available")
    assert.strictEqual(read(ResourcesView, resources.stdout).platforms.length, 4)
    assert.match(table.stdout, /^PLATFORM +LIMIT +FREE +FOR HIGH +REFILL +NEXT +USED 1 MIN +5 MIN +SOURCE$/m)
    assert.include(table.stdout, "In memory: 0 of at most 10,000 waiting calls, 0 B of at most 256 MiB of requests")
  })

  it("explains a refused task and a wrong key", async () => {
    const [refused, stranger] = await Promise.all([
      dreamTeam(["submit", "why", "--platform", "nobody"], { env }),
      dreamTeam(["tasks", "list", "--url", url], { env: { DREAM_TEAM_API_KEYS: "eve:another-key-than-that" } })
    ])
    assert.deepEqual([refused.code, refused.stdout], [1, ""])
    assert.strictEqual(
      refused.stderr,
      "The service refuses this:\n  platform: no platform nobody is configured; there are: codex, gemini, qwen, synthetic\n"
    )
    assert.deepEqual([stranger.code, stranger.stdout], [1, ""])
    assert.include(stranger.stderr, "does not know the API key it was sent, which is the first of DREAM_TEAM_API_KEYS")
    assert.notInclude(stranger.stderr, "another-key")
  })

  it("refuses the address and the database of one that runs", async () => {
    const elsewhere = await freePort()
    const [samePort, sameFile] = await Promise.all([
      dreamTeam(["serve", "--database", join(folder, "other.db")], { env }),
      dreamTeam(["serve", "--port", String(elsewhere)], { env })
    ])
    assert.deepEqual([samePort.code, sameFile.code], [1, 1])
    assert.include(samePort.stderr, "Something else listens there already")
    assert.include(sameFile.stderr, "tasks.db")
    for (const { stderr } of [samePort, sameFile]) assert.notInclude(stderr, "The service stops", "it never started")
  })

  it("ends cleanly on SIGTERM, with logs as JSON lines", async () => {
    service.process.kill("SIGTERM")
    const { code, stderr, stdout } = await service.ended
    assert.strictEqual(code, 0)
    const { platforms, url: announced } = JSON.parse(stdout)
    assert.deepEqual([announced, platforms.length], [url, 4])
    const entries = stderr
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))
    assert.isTrue(entries.some(({ message }) => message === "The service is ready"))
    assert.notInclude(stderr + stdout, key)
    await eventually("the port is free again", 2_000, () =>
      fetch(url).then(
        () => undefined,
        () => true
      )
    )
  })
})

describe("dream-team simulate", () => {
  it("prints the settings of a service that uses it, and runs until stopped", async () => {
    const port = await freePort()
    const running = startDreamTeam(["simulate", "--port", String(port), "--json"])
    const stats = await eventually("the simulator answers", 10_000, () =>
      fetch(`http://127.0.0.1:${port}/__stats`).then(
        (response) => response.json(),
        () => undefined
      )
    )
    assert.isObject(stats)
    running.process.kill("SIGINT")
    const { code, stdout } = await running.ended
    assert.strictEqual(code, 0)
    assert.strictEqual(JSON.parse(stdout).environment.DREAM_TEAM_CODEX_BASE_URL, `http://127.0.0.1:${port}/codex/v1`)
  })

  it("simulates a Claude subscription as well, and never over a real login", async () => {
    const port = await freePort()
    const claude = join(folder, "claude")
    const running = startDreamTeam(["simulate", "--port", String(port), "--claude", claude, "--json"])
    const subscription = () =>
      fetch(`http://127.0.0.1:${port}/__subscription`).then(
        (response) => response.json(),
        () => undefined
      )
    assert.isObject(await eventually("the simulator answers", 10_000, subscription))
    running.process.kill("SIGINT")
    const { stdout } = await running.ended
    assert.deepInclude(JSON.parse(stdout).environment, {
      CLAUDE_CONFIG_DIR: claude,
      ANTHROPIC_BASE_URL: `http://127.0.0.1:${port}/anthropic`
    })
    const login = join(claude, ".credentials.json")
    assert.strictEqual(statSync(login).mode & 0o777, 0o600)
    writeFileSync(login, "{}")
    const refused = await dreamTeam(["simulate", "--port", "0", "--claude", claude])
    assert.strictEqual(refused.code, 1)
    assert.include(refused.stderr, "somebody is logged in there")
    assert.strictEqual(readFileSync(login, "utf8"), "{}")
  })
})
