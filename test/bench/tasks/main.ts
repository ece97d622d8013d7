/**
 * `npm run bench:tasks`: what a task costs, from its submission to its result, each figure beside a baseline of the same
 * run. Figures of one machine say little; the ratios travel better.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { Agent } from "node:http"
import { cpus, tmpdir } from "node:os"
import { join } from "node:path"
import Sqlite from "better-sqlite3"
import { Effect } from "effect"
import { build } from "esbuild"
import type { RunningSimulator } from "../../../src/Simulator.js"
import { eventually, freePort, startService } from "../../support/Service.js"
import { simulate } from "../../support/Simulated.js"
import { median } from "../support/Figures.js"
import { inParallel, send } from "../support/Http.js"
import { table } from "../support/Report.js"
import { type BenchRow, storeBench } from "./store.js"

const clients = 64
const submissions = 3_000
/** Rounds before what is measured of a service, which compiles its code as it runs. */
const warmUps = 2
const folder = mkdtempSync(join(tmpdir(), "dream-team-bench-tasks-"))
const agent = new Agent({ keepAlive: true, maxSockets: clients })

const post = (url: string, type: string, body: string): Promise<string> =>
  send(agent, "POST", url, { "content-type": type }, body)

const submission = (index: number): string =>
  JSON.stringify({ prompt: `question ${index}`, type: "analysis", priority: "MEDIUM", maxOutputTokens: 64 })

const bundle = async (name: string): Promise<string> => {
  const sqlite = join(process.cwd(), "node_modules/better-sqlite3/lib/index.js")
  const outfile = join(folder, `${name}.mjs`)
  await build({
    entryPoints: [`test/bench/tasks/${name}.ts`],
    outfile,
    bundle: true,
    format: "esm",
    platform: "node",
    logLevel: "error",
    alias: { "better-sqlite3": sqlite },
    external: [sqlite, "@parcel/watcher", "msgpackr-extract"],
    banner: { js: 'import{createRequire as __requireOf}from"node:module";const require=__requireOf(import.meta.url);' }
  })
  return outfile
}

// Accepting

const withServer = async <A>(script: string, database: string, use: (url: string) => Promise<A>): Promise<A> => {
  const port = await freePort()
  const child = spawn(process.execPath, [script, database, String(port)], { stdio: ["ignore", "ignore", "inherit"] })
  const exited = once(child, "exit")
  const url = `http://127.0.0.1:${port}`
  try {
    await eventually("the server is ready", 60_000, async () =>
      (await fetch(`${url}/health/live`).catch(() => undefined))?.ok === true ? true : undefined
    )
    return await use(`${url}/v1/tasks`)
  } finally {
    child.kill("SIGKILL")
    await exited
  }
}

const accepting = async (): Promise<ReadonlyArray<BenchRow>> => {
  const script = await bundle("server")
  const oneByOne = (url: string) =>
    inParallel(clients, submissions, (index) => post(url, "application/json", submission(index)))
  const bulk = async (url: string): Promise<number> => {
    const lines = Array.from({ length: submissions }, (_, index) => `${submission(index)}\n`).join("")
    const start = performance.now()
    await post(url, "application/x-ndjson", lines)
    return submissions / ((performance.now() - start) / 1_000)
  }
  const stored: Array<number> = []
  const forgotten: Array<number> = []
  const bulked: Array<number> = []
  for (let round = 0; round < 3; round++) {
    await withServer(script, join(folder, `accept-${round}.db`), async (url) => {
      // Each as a service has it that has run for a while.
      for (let warmingUp = 0; warmingUp < warmUps; warmingUp++) {
        await oneByOne(url)
        await bulk(url)
      }
      for (let measured = 0; measured < 3; measured++) {
        stored.push(await oneByOne(url))
        bulked.push(await bulk(url))
      }
    })
    await withServer(script, "none", async (url) => {
      for (let warmingUp = 0; warmingUp < warmUps; warmingUp++) await oneByOne(url)
      for (let measured = 0; measured < 3; measured++) forgotten.push(await oneByOne(url))
    })
  }
  const rates = { stored: median(stored), forgotten: median(forgotten), bulked: median(bulked) }
  return [
    {
      name: `accept over HTTP, ${clients} clients (baseline: the same endpoint without a store)`,
      value: rates.stored,
      unit: "tasks/s",
      baseline: rates.forgotten,
      ratio: rates.stored / rates.forgotten,
      target: ">= 0.6x",
      met: rates.stored / rates.forgotten >= 0.6
    },
    {
      name: `accept as JSONL in one request (baseline: one by one, ${clients} clients)`,
      value: rates.bulked,
      unit: "tasks/s",
      baseline: rates.stored,
      ratio: rates.bulked / rates.stored,
      target: ">= 3x",
      met: rates.bulked / rates.stored >= 3
    }
  ]
}

// From end to end

/** The least that is durable: each task and each result a commit of its own, one after the other. */
const bareLoop = (): number => {
  const sqlite = new Sqlite(join(folder, "bare.db"))
  sqlite.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
  sqlite.exec("CREATE TABLE tasks (id INTEGER PRIMARY KEY, body TEXT NOT NULL, state TEXT NOT NULL, result TEXT)")
  const insert = sqlite.prepare("INSERT INTO tasks (body, state) VALUES (?, 'queued')")
  const finish = sqlite.prepare("UPDATE tasks SET state = 'succeeded', result = ? WHERE id = ?")
  const start = performance.now()
  for (let index = 0; index < submissions; index++)
    finish.run("Because.", insert.run(submission(index)).lastInsertRowid)
  const rate = submissions / ((performance.now() - start) / 1_000)
  sqlite.close()
  return rate
}

const run = async (args: ReadonlyArray<string>): Promise<string> => {
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] })
  let text = ""
  child.stdout.on("data", (chunk: Buffer) => {
    text += chunk.toString()
  })
  const [code] = await once(child, "close")
  if (code !== 0) throw new Error(`${args.join(" ")} ended with ${code}`)
  return text
}

const inProcess = async (): Promise<ReadonlyArray<BenchRow>> => {
  const script = await bundle("endToEnd")
  const { perSecond } = JSON.parse(await run([script, join(folder, "end-to-end.db"), String(submissions)]))
  const baseline = bareLoop()
  return [
    {
      name: "end to end in one process, instant platform (baseline: bare loop, two commits a task)",
      value: perSecond,
      unit: "tasks/s",
      baseline,
      ratio: perSecond / baseline,
      target: ">= 1,000 tasks/s",
      met: perSecond >= 1_000
    }
  ]
}

/** User and system time of a process so far, ms; a tick of /proc is 10 ms. */
const cpuMs = (pid: number | undefined): number => {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? []
  return (Number(fields[11]) + Number(fields[12])) * 10
}

const environmentOf = ({ environment }: RunningSimulator, database: string): Record<string, string> => ({
  DREAM_TEAM_CODEX_BASE_URL: environment.DREAM_TEAM_CODEX_BASE_URL ?? "",
  DREAM_TEAM_CODEX_API_KEY: environment.DREAM_TEAM_CODEX_API_KEY ?? "",
  DREAM_TEAM_CODEX_MODEL: environment.DREAM_TEAM_CODEX_MODEL ?? "",
  DREAM_TEAM_CODEX_REQUESTS_PER_MINUTE: "10000000",
  DREAM_TEAM_CODEX_TOKENS_PER_MINUTE: "100000000000",
  DREAM_TEAM_CODEX_MAX_CONCURRENT: "64",
  DREAM_TEAM_DATABASE: database
})

const overHttp = async (): Promise<ReadonlyArray<BenchRow>> => {
  const { close, simulator } = await simulate()
  const measured = async (pid: number | undefined, url: string, left: () => Promise<number>): Promise<number> => {
    const round = async () => {
      await inParallel(clients, submissions, (index) => post(url, "application/json", submission(index)))
      await eventually("all tasks have ended", 300_000, async () => ((await left()) === 0 ? true : undefined))
    }
    for (let warmingUp = 0; warmingUp < warmUps; warmingUp++) await round()
    const rounds: Array<number> = []
    while (rounds.length < 3) {
      const before = cpuMs(pid)
      await round()
      rounds.push((cpuMs(pid) - before) / submissions)
    }
    return median(rounds)
  }
  const service = await startService(
    await freePort(),
    environmentOf(simulator, join(folder, "http.db")),
    "dist/bin/main.js"
  )
  const leftIn = async (state: string): Promise<number> =>
    JSON.parse(await (await fetch(`${service.url}/v1/tasks?state=${state}&limit=1`)).text()).tasks.length
  const ours = await measured(
    service.process.pid,
    `${service.url}/v1/tasks`,
    async () => (await leftIn("queued")) + (await leftIn("running")) + (await leftIn("waiting"))
  )
  await service.stop("SIGKILL")

  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const outfile = join(folder, "bareService.mjs")
  const sqlite = join(process.cwd(), "node_modules/better-sqlite3/lib/index.js")
  await build({
    entryPoints: ["test/bench/bareService.ts"],
    outfile,
    bundle: true,
    format: "esm",
    platform: "node",
    alias: { "better-sqlite3": sqlite },
    external: [sqlite]
  })
  const bare = spawn(
    process.execPath,
    [outfile, String(port), join(folder, "bare-http.db"), simulator.baseUrls.codex ?? ""],
    { stdio: ["ignore", "ignore", "inherit"] }
  )
  const exited = once(bare, "exit")
  await eventually("the bare service is ready", 20_000, () => fetch(url).catch(() => undefined))
  const baseline = await measured(bare.pid, url, async () =>
    Number(JSON.parse(await (await fetch(`${url}/left`)).text()).left)
  )
  bare.kill("SIGKILL")
  await exited
  await close()
  return [
    {
      name: "end to end over HTTP both ways, CPU of the service (baseline: bare service)",
      value: ours,
      unit: "ms/task",
      baseline,
      ratio: ours / baseline,
      target: "<= 3 ms/task",
      met: ours <= 3
    }
  ]
}

const shown = (value: number | undefined): string =>
  value === undefined ? "" : Number(value.toPrecision(3)).toLocaleString("en")

try {
  const rows = [
    ...(await Effect.runPromise(storeBench)),
    ...(await accepting()),
    ...(await inProcess()),
    ...(await overHttp())
  ]
  agent.destroy()
  const lines = rows.map(({ baseline, met, name, ratio, target, unit, value }) => [
    name,
    unit,
    shown(value),
    shown(baseline),
    shown(ratio),
    target ?? "",
    met === undefined ? "" : met ? "yes" : "NO"
  ])
  process.stdout.write(
    `${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}\n\n${table([["FIGURE", "UNIT", "VALUE", "BASELINE", "RATIO", "TARGET", "MET"], ...lines])}\n`
  )
} finally {
  rmSync(folder, { recursive: true, force: true })
}
