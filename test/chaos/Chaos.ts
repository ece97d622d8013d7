import { spawn } from "node:child_process"
import { once } from "node:events"
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { pathToFileURL } from "node:url"
import { Effect } from "effect"
import type { SimulatorOptions } from "../../src/Simulator.js"
import { bin, eventually, freePort, pause } from "../support/Service.js"
import { type Simulated, simulate, slowedDown } from "../support/Simulated.js"
import { inFlight, judge, undelivered, type Verdict } from "./Journal.js"
import { type Act, Load, words } from "./Load.js"
import { Receiver, secret } from "./Receiver.js"

/** How long each answer takes, about, ms; of `synthetic`, which takes one call at a time, longer. */
const answerMs = 40
const scarceMs = 300

/** Users at once who bring about a step. */
const maxAtIt = 4

/** Attempts each platform takes at once. */
const atOnce = { codex: 5, gemini: 5, qwen: 5, synthetic: 1, frail: 3 }

/** The four platforms, and one that mostly fails and is the only one that claims to see pictures. */
const platforms = (port?: number): SimulatorOptions => {
  const four = slowedDown(answerMs)
  const [first] = Object.values(four.platforms)
  const { synthetic } = slowedDown(scarceMs).platforms
  if (first === undefined) throw new Error("nothing is simulated")
  return {
    ...four,
    ...(port === undefined ? {} : { port }),
    platforms: {
      ...four.platforms,
      ...(synthetic === undefined ? {} : { synthetic }),
      frail: { ...first, wire: "openai-chat", models: ["frail-middle", "frail-small", "frail-large"] }
    }
  }
}

const capabilities = ["text", "code", "tools", "json", "reasoning", "streaming"]

const config = {
  tasks: { parkAfterMs: "1500ms", maxAttempts: 2 },
  alternatives: { maxMs: "60s" },
  // So much that nobody reaches it: what matters is that the books agree.
  budgets: { perKey: { tokensPerDay: 1_000_000_000 }, platforms: { codex: { usdPerDay: 100_000 } } },
  platforms: {
    codex: { capabilities },
    gemini: { capabilities },
    // Each crash may count as spent what was not, and nobody here lives for a week.
    synthetic: { limits: { windows: [] } },
    frail: {
      classes: { fast: "frail-small", best: "frail-large" },
      capabilities: ["text", "vision", "json", "streaming"]
    }
  }
}

/** A step of the tasks' journal, and what users do meanwhile, so that it comes soon. */
type Step = readonly [string, ...ReadonlyArray<Act>]

/** Steps that are a write of their own; `preload.mjs` knows them. */
const writes: ReadonlyArray<Step> = [
  ["epoch"],
  ["class", "elsewhere", "frail"],
  ["submit"],
  ["stage-job", "parallel"],
  ["stage-tasks", "graph"],
  ["discard-job"],
  ["accept-job", "graph"],
  ["claim"],
  ["attempt-start"],
  ["attempt-end", "refused", "frail"],
  ["branch", "frail", "elsewhere"],
  ["succeed"],
  ["fail", "refused"],
  ["cancel-job", "cancelledJob"],
  ["record-webhook"],
  ["park", "scarce"],
  ["wake", "scarce"],
  ["expire", "scarce"],
  ["cancel", "cancelled"],
  ["retry", "refused", "retried"],
  ["give-back", "scarce"],
  ["recover"]
]

/** Steps that are always part of the write of another one. */
const parts: ReadonlyArray<Step> = [
  ["keep-partial", "frail"],
  ["make-child", "frail", "elsewhere"],
  ["tell-dependants", "graph"],
  ["release-dependant", "graph", "parallel"],
  ["cancel-other", "graph"],
  ["count-end", "sequential"],
  ["end-job", "parallel"],
  ["reopen-job", "graph", "retriedJob"],
  ["wait-again", "graph", "retriedJob"],
  ["owe-webhook"]
]

/** A moment between two journal writes: just before or just after the commit of a step. */
export interface Point {
  readonly name: string
  readonly acts: ReadonlyArray<Act>
}

/** On both sides of each write, and behind each of those that hold one of the parts. */
export const points: ReadonlyArray<Point> = [
  ...writes.flatMap(([step, ...acts]) => ["before", "after"].map((side) => ({ name: `${step}:${side}`, acts }))),
  ...parts.map(([step, ...acts]) => ({ name: `${step}:after`, acts }))
]

/** A process of the service, which has loaded its code and waits to be told to begin. */
const ready = (program: string, environment: Readonly<Record<string, string>>) => {
  const child = spawn(process.execPath, [program, "serve"], {
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...environment },
    stdio: ["pipe", "ignore", "pipe"]
  })
  let log = ""
  child.stderr.on("data", (chunk: Buffer) => {
    log = (log + chunk.toString()).slice(-100_000)
  })
  // One that died has no use for what it is told.
  child.stdin.on("error", () => undefined)
  const exited = once(child, "exit")
  return {
    child,
    log: () => log,
    isOver: () => child.exitCode !== null || child.signalCode !== null,
    begin: (point: string | undefined) => child.stdin.end(point ?? "-"),
    end: async (signal: NodeJS.Signals) => {
      if (child.exitCode === null && child.signalCode === null) child.kill(signal)
      await exited
      return child.exitCode ?? child.signalCode
    }
  }
}
type Process = ReturnType<typeof ready>

/** A service under load on one database, whose processes come and go. */
export class Chaos {
  readonly load: Load
  readonly receiver: Receiver
  kills = 0
  private readonly folder: string
  private readonly database: string
  private readonly port: number
  private readonly program: string
  private readonly environment: Record<string, string>
  private readonly inFlightAtKills = new Set<string>()
  private leaks = 0
  private simulated: Simulated
  private answeredBefore = 0
  private service: Process
  private next: Process

  private constructor(simulated: Simulated, receiver: Receiver, port: number, program: string) {
    this.simulated = simulated
    this.receiver = receiver
    this.port = port
    this.program = program
    this.load = new Load(`http://127.0.0.1:${port}`, receiver.url)
    this.folder = mkdtempSync(join(tmpdir(), "dream-team-chaos-"))
    this.database = join(this.folder, "tasks.db")
    const file = join(this.folder, "config.json")
    writeFileSync(file, JSON.stringify(config))
    this.environment = {
      ...simulated.simulator.environment,
      ...Object.fromEntries(
        Object.entries(atOnce).flatMap(([id, count]) => [
          [`DREAM_TEAM_${id.toUpperCase()}_MAX_CONCURRENT`, String(count)],
          [`DREAM_TEAM_${id.toUpperCase()}_BREAKER_FAILURES`, "50"],
          [`DREAM_TEAM_${id.toUpperCase()}_BREAKER_OPEN`, "2s"]
        ])
      ),
      DREAM_TEAM_PLATFORMS: Object.keys(atOnce).join(),
      DREAM_TEAM_CONFIG: file,
      DREAM_TEAM_DATABASE: this.database,
      DREAM_TEAM_PORT: String(port),
      DREAM_TEAM_WEBHOOK_SECRETS: secret,
      DREAM_TEAM_WEBHOOK_ALLOW_PRIVATE: "true",
      NODE_OPTIONS: `--import ${pathToFileURL(resolve("test/chaos/preload.mjs")).href}`
    }
    this.next = this.spare()
    this.service = this.next
  }

  static readonly start = async (program: string = bin): Promise<Chaos> => {
    const simulated = await simulate(platforms())
    const chaos = new Chaos(simulated, await Receiver.start(), await freePort(), resolve(program))
    await chaos.faults()
    return chaos
  }

  private readonly spare = (): Process => ready(this.program, this.environment)

  /** Troubles of the platforms themselves, all the time. */
  private readonly faults = async (): Promise<void> => {
    const { fault } = this.simulated.simulator
    const set = (...all: ReadonlyArray<Parameters<typeof fault>[0]>) =>
      Effect.runPromise(Effect.forEach(all, (one) => fault(one), { discard: true }))
    const part = (title: string) => ({ title, instructions: `Do the ${title} half.` })
    await set(
      { platform: "*", fault: "status", status: 400, containing: words.refused },
      { platform: "codex", fault: "status", status: 500, rate: 0.08 },
      { platform: "gemini", fault: "reset", rate: 0.05 },
      { platform: "qwen", fault: "truncate", rate: 0.05 },
      {
        platform: "frail",
        fault: "answer",
        containing: words.planned,
        says: { order: "parallel", parts: [part("first"), part("second")] }
      },
      { platform: "frail", fault: "status", errorShape: "context-too-long", rate: 0.45 },
      { platform: "frail", fault: "reset", after: 0.5, rate: 0.25 }
    )
  }

  /** Calls that the platforms answered whole. */
  private readonly answered = (): number =>
    this.answeredBefore +
    Object.values(Effect.runSync(this.simulated.simulator.stats).platforms).reduce(
      (sum, { answered }) => sum + answered,
      0
    )

  /** Lets the next process begin, and a further one get ready behind it. */
  private readonly begin = (point?: string): void => {
    this.service = this.next
    this.service.begin(point)
    this.next = this.spare()
  }

  /** Whether the process answers; not where it died first. */
  private readonly isUp = (): Promise<boolean> =>
    eventually("the service answers", 60_000, async () => {
      if (this.service.isOver()) return false
      const response = await fetch(`http://127.0.0.1:${this.port}/health/live`).catch(() => undefined)
      await response?.arrayBuffer().catch(() => undefined)
      return response?.ok === true ? true : undefined
    })

  readonly up = async (): Promise<void> => {
    this.begin()
    if (!(await this.isUp())) throw new Error(`the service ended by itself:\n${this.service.log()}`)
  }

  /** What was under way when it died is what the journal says, for nobody else can write it. */
  private readonly died = (): void => {
    for (const attempt of inFlight(this.database)) this.inFlightAtKills.add(attempt)
    this.kills++
    this.searchLog()
  }

  readonly die = async (): Promise<void> => {
    await this.service.end("SIGKILL")
    this.died()
  }

  /** Whether a secret stands in what the process has written. */
  private readonly searchLog = (): void => {
    if (this.service.log().includes(secret.slice("whsec_".length))) this.leaks += 1
  }

  /** One life of the service that ends at a point of the journal. */
  readonly dieAt = async ({ acts, name }: Point, withinMs: number): Promise<void> => {
    const until = performance.now() + withinMs
    const isAtEnd = name.startsWith("give-back")
    for (;;) {
      this.begin(name)
      const { service } = this
      if (isAtEnd && (await this.isUp())) {
        await Promise.race([this.load.act("scarce"), pause(1_000)])
        await pause(600)
        service.child.kill("SIGTERM")
      }
      let turn = 0
      let atIt = 0
      while (!service.isOver()) {
        this.load.check()
        if (performance.now() > until) throw new Error(`not within ${withinMs} ms: ${name}\n${service.log()}`)
        const act = acts[turn % Math.max(1, acts.length)]
        if (act !== undefined && !isAtEnd && atIt < maxAtIt) {
          turn += 1
          atIt += 1
          // It may go on beyond the process's death.
          const done = this.load.act(act).finally(() => {
            atIt -= 1
          })
          await Promise.race([done, pause(100)])
        }
        await pause(15)
      }
      const how = await service.end("SIGKILL")
      if (how === "SIGKILL") break
      if (!isAtEnd || how !== 0) throw new Error(`ended otherwise (${how}) at ${name}: ${service.log()}`)
    }
    this.died()
  }

  /** One life that ends at any moment: some before it answers, most after they have got something done. */
  readonly dieAnyhow = async (): Promise<void> => {
    this.load.check()
    const before = this.answered()
    this.begin()
    if (Math.random() < 0.2) await pause(Math.random() * 500)
    else {
      if (!(await this.isUp())) throw new Error(`the service ended by itself:\n${this.service.log()}`)
      const wanted = before + Math.random() * 20
      const until = performance.now() + 1_500
      while (this.answered() < wanted && performance.now() < until) await pause(5)
      await pause(Math.random() * 50)
    }
    await this.die()
  }

  /** Ends the process in good order. */
  readonly stop = async (): Promise<void> => {
    const how = await this.service.end("SIGTERM")
    this.searchLog()
    if (how !== 0) throw new Error(`ended with ${how}:\n${this.service.log()}`)
  }

  /** Sets the wall clock of the process an hour ahead, or, the next time, back to an hour behind. */
  readonly jump = (): void => {
    this.service.child.kill("SIGUSR2")
  }

  /** The platforms are gone, and come back after `ms`. */
  readonly platformsDie = async (ms: number): Promise<void> => {
    const { port } = this.simulated.simulator
    this.answeredBefore = this.answered()
    await this.simulated.close()
    await pause(ms)
    this.simulated = await simulate(platforms(port))
    await this.faults()
  }

  /** Ends the load, waits until everything has ended and been told, ends the service, and says what it came to. */
  readonly finish = async (withinMs: number): Promise<Verdict> => {
    this.receiver.refuses = false
    await this.load.stop()
    await eventually("every task has ended", withinMs, async () =>
      (await this.load.countOpen()) === 0 ? true : undefined
    )
    await eventually("every end was told", withinMs, async () => (undelivered(this.database) === 0 ? true : undefined))
    await this.stop()
    return judge(this.database, {
      kills: this.kills,
      promised: this.load.promised,
      inFlightAtKills: this.inFlightAtKills,
      answered: this.answered(),
      receiver: this.receiver,
      leaks: this.leaks
    })
  }

  /** Waits until the platforms have answered so many more calls. */
  readonly progress = async (calls: number): Promise<void> => {
    const wanted = this.answered() + calls
    await eventually(`${calls} more calls`, 60_000, async () => {
      this.load.check()
      return this.answered() >= wanted ? true : undefined
    })
  }

  /** What it has come to so far, in a line. */
  readonly story = (): string => {
    const { jobs, tasks } = this.load.promised
    const told = this.receiver.told.size
    return `${this.kills} kills, ${tasks.size} tasks and ${jobs.size} jobs accepted, ${this.answered()} calls answered, ${told} ends told, ${this.inFlightAtKills.size} attempts in flight at kills`
  }

  /** Keeps the database beyond the end, for whoever looks for what went wrong; answers with its path. */
  readonly keep = (): string => {
    const kept = join(tmpdir(), `dream-team-chaos-${process.pid}.db`)
    copyFileSync(this.database, kept)
    return kept
  }

  readonly close = async (): Promise<void> => {
    this.load.abandon()
    await Promise.all([this.service.end("SIGKILL"), this.next.end("SIGKILL")])
    this.receiver.close()
    await this.simulated.close()
    rmSync(this.folder, { recursive: true, force: true })
  }
}
