/**
 * `npm run bench`: figures of the service, each beside the same figure of the least program that does the same I/O,
 * taken in the same run. Prints one JSON object. Figures of one machine say little; the ratios travel better.
 */
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { Agent } from "node:http"
import { cpus, tmpdir } from "node:os"
import { join } from "node:path"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Effect, Layer, Logger, LogLevel } from "effect"
import { build } from "esbuild"
import { Delegation } from "../../src/Delegation.js"
import { TenantId } from "../../src/Domain/Task.js"
import { Settings } from "../../src/Settings.js"
import type { RunningSimulator } from "../../src/Simulator.js"
import { Team } from "../../src/Team.js"
import { eventually, freePort, startService } from "../support/Service.js"
import { simulate } from "../support/Simulated.js"
import { median, percentile } from "./support/Figures.js"
import { inParallel, send } from "./support/Http.js"

const program = "dist/bin/main.js"
const submissions = 2_000
const calls = 1_000
const submitters = 32
const rounds = 3

const folder = mkdtempSync(join(tmpdir(), "dream-team-bench-"))
const agent = new Agent({ keepAlive: true, maxSockets: submitters })

const json = { "content-type": "application/json", authorization: "Bearer simulated" }
const read = (url: string): Promise<string> => send(agent, "GET", url)
const post = (url: string, body: object): Promise<string> => send(agent, "POST", url, json, JSON.stringify(body))

/** Posts `count` bodies, `submitters` at a time; answers how many a second. */
const submitAll = (url: string, count: number, body: (index: number) => object): Promise<number> =>
  inParallel(submitters, count, (index) => post(url, body(index)))

const rounded = (value: number): number => Number(value.toPrecision(4))

const rssMb = (pid: number | undefined): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? Number.NaN) / 1024

interface Figures {
  readonly readyMs: number
  readonly idleRssMb: number
  readonly submittedPerSecond: number
  readonly endToEndPerSecond: number
}

interface Subject {
  readonly pid: number | undefined
  readonly tasksUrl: string
  /** Accepted and not worked on, so that the cost of accepting is measured alone. */
  readonly held: (index: number) => object
  readonly live: (index: number) => object
  readonly allDone: () => Promise<true | undefined>
  readonly stop: () => Promise<unknown>
}

const measure = async (start: () => Promise<Subject>): Promise<Figures> => {
  const launched = performance.now()
  const subject = await start()
  const readyMs = performance.now() - launched
  await new Promise((resolve) => setTimeout(resolve, 1_000))
  const idleRssMb = rssMb(subject.pid)
  await submitAll(subject.tasksUrl, 200, subject.live)
  await eventually("the warm-up has ended", 60_000, subject.allDone)
  const began = performance.now()
  await submitAll(subject.tasksUrl, submissions, subject.live)
  await eventually("all tasks have ended", 120_000, subject.allDone)
  const endToEndPerSecond = submissions / ((performance.now() - began) / 1_000)
  const submittedPerSecond = await submitAll(subject.tasksUrl, submissions, subject.held)
  await subject.stop()
  return { readyMs, idleRssMb, submittedPerSecond, endToEndPerSecond }
}

const unlimited = (simulator: RunningSimulator): Record<string, string> => ({
  DREAM_TEAM_CODEX_BASE_URL: simulator.environment.DREAM_TEAM_CODEX_BASE_URL ?? "",
  DREAM_TEAM_CODEX_API_KEY: simulator.environment.DREAM_TEAM_CODEX_API_KEY ?? "",
  DREAM_TEAM_CODEX_MODEL: simulator.environment.DREAM_TEAM_CODEX_MODEL ?? "",
  DREAM_TEAM_CODEX_REQUESTS_PER_MINUTE: "10000000",
  DREAM_TEAM_CODEX_TOKENS_PER_MINUTE: "100000000000",
  DREAM_TEAM_CODEX_MAX_CONCURRENT: "64",
  // Hangs, one call at a time: tasks pinned to it are accepted and stay queued.
  DREAM_TEAM_QWEN_BASE_URL: simulator.environment.DREAM_TEAM_QWEN_BASE_URL ?? "",
  DREAM_TEAM_QWEN_API_KEY: "simulated",
  DREAM_TEAM_QWEN_MAX_CONCURRENT: "1"
})

const ours = async (simulator: RunningSimulator, round: number): Promise<Subject> => {
  const service = await startService(
    await freePort(),
    { ...unlimited(simulator), DREAM_TEAM_DATABASE: join(folder, `ours-${round}.db`) },
    program
  )
  const left = async (state: string) =>
    JSON.parse(await read(`${service.url}/v1/tasks?state=${state}&limit=1`)).tasks.length
  return {
    pid: service.process.pid,
    tasksUrl: `${service.url}/v1/tasks`,
    held: (index) => ({ prompt: `held ${index}`, platform: "qwen", maxOutputTokens: 64 }),
    live: (index) => ({ prompt: `live ${index}`, platform: "codex", maxOutputTokens: 64 }),
    allDone: async () =>
      (await left("queued")) + (await left("running")) + (await left("waiting")) === 0 ? true : undefined,
    stop: () => service.stop("SIGKILL")
  }
}

const bare = async (simulator: RunningSimulator, script: string, round: number): Promise<Subject> => {
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const child = spawn(
    process.execPath,
    [script, String(port), join(folder, `bare-${round}.db`), simulator.baseUrls.codex ?? ""],
    { stdio: ["ignore", "ignore", "inherit"] }
  )
  const exited = once(child, "exit")
  await eventually("the bare service is ready", 20_000, () => read(url).catch(() => undefined))
  return {
    pid: child.pid,
    tasksUrl: url,
    held: (index) => ({ prompt: `held ${index}`, hold: true }),
    live: (index) => ({ prompt: `live ${index}` }),
    allDone: async () => (JSON.parse(await read(`${url}/left`)).left === 0 ? true : undefined),
    stop: async () => {
      child.kill("SIGKILL")
      await exited
    }
  }
}

/** One call at a time, ours and the bare request in turn, so that both see the same machine. */
const delegationOverhead = (simulator: RunningSimulator) => {
  const settings = Settings.make({
    database: ":memory:",
    platforms: [
      Settings.platformDefaults("codex", {
        apiKey: "simulated",
        baseUrl: simulator.baseUrls.codex ?? "",
        model: "gpt-6.1-sol",
        limits: { requestsPerMinute: 10_000_000, tokensPerMinute: 100_000_000_000, maxConcurrent: 64 }
      })
    ]
  })
  const input = { model: "gpt-6.1-sol", input: "What does HTTP 409 mean?", stream: true, max_output_tokens: 64 }
  return Effect.gen(function* () {
    const delegation = yield* Delegation
    const delegated: Array<number> = []
    const direct: Array<number> = []
    for (let index = 0; index < calls + 100; index++) {
      const before = performance.now()
      yield* delegation.delegate({
        call: { messages: [{ role: "user", content: input.input }], maxOutputTokens: 64 },
        requirement: { capabilities: ["text"], contextTokens: 100 },
        type: "question-answering",
        priority: "MEDIUM",
        tenant: TenantId.make("bench"),
        deadline: Date.now() + 60_000,
        id: "task",
        attemptsMade: 0,
        attemptsSpent: 0,
        maxWaitMs: 60_000,
        journal: { attemptStarted: () => Effect.void, attemptEnded: () => Effect.void }
      })
      const between = performance.now()
      yield* Effect.promise(() => post(`${simulator.baseUrls.codex}/responses`, input))
      const after = performance.now()
      if (index < 100) continue
      delegated.push(between - before)
      direct.push(after - between)
    }
    return {
      p50: rounded(percentile(delegated, 0.5) - percentile(direct, 0.5)),
      p99: rounded(percentile(delegated, 0.99) - percentile(direct, 0.99)),
      delegated: { p50: rounded(percentile(delegated, 0.5)), p99: rounded(percentile(delegated, 0.99)) },
      direct: { p50: rounded(percentile(direct, 0.5)), p99: rounded(percentile(direct, 0.99)) }
    }
  }).pipe(
    Effect.provide(Team.layer.pipe(Layer.provide([Settings.layer(settings), NodeHttpClient.layerUndici]))),
    Logger.withMinimumLogLevel(LogLevel.Warning),
    Effect.scoped
  )
}

const commandMs = (args: ReadonlyArray<string>): number => {
  const start = performance.now()
  spawnSync(process.execPath, args, { stdio: "ignore" })
  return performance.now() - start
}

const beside = (figure: keyof Figures, own: ReadonlyArray<Figures>, other: ReadonlyArray<Figures>) => {
  const dreamTeam = median(own.map((round) => round[figure]))
  const bareLoop = median(other.map((round) => round[figure]))
  return { dreamTeam: rounded(dreamTeam), bareLoop: rounded(bareLoop), ratio: rounded(dreamTeam / bareLoop) }
}

const main = async (): Promise<void> => {
  const script = join(folder, "bareService.mjs")
  await build({
    entryPoints: ["test/bench/bareService.ts"],
    outfile: script,
    bundle: true,
    format: "esm",
    platform: "node",
    alias: { "better-sqlite3": join(process.cwd(), "node_modules/better-sqlite3/lib/index.js") },
    external: [join(process.cwd(), "node_modules/better-sqlite3/lib/index.js")]
  })
  const { simulator, close } = await simulate()
  await Effect.runPromise(simulator.fault({ platform: "qwen", fault: "hang" }))
  const own: Array<Figures> = []
  const other: Array<Figures> = []
  const help: Array<number> = []
  const nothing: Array<number> = []
  for (let round = 0; round < rounds; round++) {
    own.push(await measure(() => ours(simulator, round)))
    other.push(await measure(() => bare(simulator, script, round)))
  }
  for (let round = 0; round < 10; round++) {
    help.push(commandMs([program, "--help"]))
    nothing.push(commandMs(["-e", "0"]))
  }
  const delegation = await Effect.runPromise(delegationOverhead(simulator))
  await close()
  agent.destroy()
  const figures = {
    machine: { cpus: cpus().length, model: cpus()[0]?.model ?? "unknown", node: process.version },
    readyMs: beside("readyMs", own, other),
    idleRssMb: beside("idleRssMb", own, other),
    submittedTasksPerSecond: beside("submittedPerSecond", own, other),
    endToEndTasksPerSecond: beside("endToEndPerSecond", own, other),
    delegationOverheadMs: delegation,
    helpMs: {
      dreamTeam: rounded(median(help)),
      nodeNothing: rounded(median(nothing)),
      ratio: rounded(median(help) / median(nothing))
    }
  }
  process.stdout.write(`${JSON.stringify(figures, undefined, 2)}\n`)
}

try {
  await main()
} finally {
  rmSync(folder, { recursive: true, force: true })
}
