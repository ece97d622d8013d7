import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { pathToFileURL } from "node:url"
import Sqlite from "better-sqlite3"
import { Effect, Schema } from "effect"
import { TaskList } from "../../src/Coordinator/Api.js"
import { bin, eventually, freePort, pause, type Service, startService } from "../support/Service.js"
import { type Simulated, simulate, slowedDown } from "../support/Simulated.js"

/** Attempts all platforms together take at once. */
export const inFlight = 16
const submitters = 6
/** Accepted tasks not yet answered, above which the submitters wait. */
const maxBacklog = 60

/** The steps of the tasks' journal at whose commits the process can be made to die; see `preload.mjs`. */
export const kinds = [
  "class",
  "submit",
  "claim",
  "attempt-start",
  "attempt-end",
  "succeed",
  "fail",
  "park",
  "wake",
  "expire",
  "cancel",
  "retry",
  "recover"
] as const

/** Just before and just after the commit of each step. */
export const points: ReadonlyArray<string> = kinds.flatMap((kind) => [`${kind}:before`, `${kind}:after`])

/** What a run came to. */
export interface Verdict {
  readonly accepted: number
  /** Accepted tasks the database does not know. */
  readonly lost: number
  /** Tasks the database has and nobody was promised. */
  readonly unknown: number
  /** Tasks with more than one successful attempt or more than one end. */
  readonly doubled: number
  readonly unfinished: number
  readonly states: Readonly<Record<string, number>>
  /** Failed because their owners died three times during their attempts. */
  readonly poisoned: number
  /** Attempts cut by a death, and the most that can have been in flight at all deaths together. */
  readonly interrupted: number
  readonly inFlightAtKills: number
  /** Calls the platforms answered whole beyond the attempts whose result was kept: what was done twice. */
  readonly executedTwice: number
  readonly kills: number
}

const decodeList = Schema.decodeUnknownSync(TaskList)

/** A service under load on one database, whose processes come and go. */
export class Chaos {
  readonly folder: string
  readonly database: string
  readonly port: number
  readonly program: string
  simulated: Simulated
  service: Service | undefined
  kills = 0
  private readonly environment: Record<string, string>
  private readonly accepted = new Map<string, string>()
  private answeredBefore = 0
  private isLoading = true
  private submitted = 0
  private load: Promise<unknown> = Promise.resolve()

  private constructor(simulated: Simulated, port: number, program: string) {
    this.simulated = simulated
    this.port = port
    this.program = program
    this.folder = mkdtempSync(join(tmpdir(), "dream-team-chaos-"))
    this.database = join(this.folder, "tasks.db")
    const config = join(this.folder, "config.json")
    writeFileSync(config, JSON.stringify({ tasks: { parkAfterMs: "500ms" } }))
    this.environment = {
      ...simulated.simulator.environment,
      ...Object.fromEntries(
        Object.keys(simulated.simulator.baseUrls).flatMap((id) => [
          [`DREAM_TEAM_${id.toUpperCase()}_MAX_CONCURRENT`, id === "synthetic" ? "1" : String((inFlight - 1) / 3)],
          [`DREAM_TEAM_${id.toUpperCase()}_BREAKER_FAILURES`, "50"]
        ])
      ),
      DREAM_TEAM_CONFIG: config,
      DREAM_TEAM_DATABASE: this.database,
      NODE_OPTIONS: `--import ${pathToFileURL(resolve("test/chaos/preload.mjs")).href}`
    }
  }

  static readonly start = async (program: string = bin): Promise<Chaos> => {
    const simulated = await simulate(slowedDown(40))
    const chaos = new Chaos(simulated, await freePort(), program)
    await chaos.faults()
    return chaos
  }

  /** Troubles of the platforms themselves, all the time. */
  private readonly faults = async (): Promise<void> => {
    const { fault } = this.simulated.simulator
    await Effect.runPromise(fault({ platform: "codex", fault: "status", status: 500, rate: 0.08 }))
    await Effect.runPromise(fault({ platform: "gemini", fault: "reset", rate: 0.05 }))
    await Effect.runPromise(fault({ platform: "qwen", fault: "truncate", rate: 0.05 }))
    // No other platform is asked after a refusal: the task fails.
    await Effect.runPromise(fault({ platform: "qwen", fault: "status", status: 400, rate: 0.05 }))
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  readonly answered = (): number =>
    this.answeredBefore +
    Object.values(Effect.runSync(this.simulated.simulator.stats).platforms).reduce(
      (sum, { answered }) => sum + answered,
      0
    )

  /** Starts a process; it dies at `point` (`kind:before` or `kind:after`) where one is given. */
  readonly up = async (point?: string): Promise<void> => {
    const environment = point === undefined ? this.environment : { ...this.environment, CHAOS_POINT: `${point}:1` }
    // A point may lie in the start itself: then it is dead before it answers.
    this.service = await startService(this.port, environment, this.program).catch((error) => {
      if (point === undefined || !String(error).includes("ended with")) throw error
      return undefined
    })
  }

  /** Waits until the process has died at its point. */
  readonly died = async (point: string, withinMs: number): Promise<void> => {
    const { service } = this
    if (service !== undefined) {
      await eventually(`the service reached ${point}`, withinMs, async () =>
        service.process.signalCode === null && service.process.exitCode === null ? undefined : true
      )
      if (service.process.signalCode !== "SIGKILL") throw new Error(`ended otherwise at ${point}: ${service.log()}`)
    }
    this.kills++
  }

  readonly kill = async (): Promise<void> => {
    await this.service?.stop("SIGKILL")
    this.kills++
  }

  /** The platforms are gone, and come back after `ms`. */
  readonly simulatorDies = async (ms: number): Promise<void> => {
    const { port } = this.simulated.simulator
    this.answeredBefore = this.answered()
    await this.simulated.close()
    await pause(ms)
    this.simulated = await simulate({ ...slowedDown(40), port })
    await this.faults()
  }

  /** The same request again and again until it is answered: what a careful client does. */
  private readonly insist = async (key: string, body: object): Promise<string> => {
    for (;;) {
      const response = await fetch(`${this.url}/v1/tasks`, {
        method: "POST",
        headers: { "content-type": "application/json", "idempotency-key": key },
        body: JSON.stringify(body)
      }).catch(() => undefined)
      const text = await response?.text().catch(() => undefined)
      if (response?.ok === true && text !== undefined) {
        const id: unknown = JSON.parse(text).id
        if (typeof id === "string") return id
      }
      if (response !== undefined && response.status >= 400 && response.status < 500 && response.status !== 429) {
        throw new Error(`refused: ${response.status} ${text}`)
      }
      await pause(50)
    }
  }

  private readonly send = async (method: string, path: string): Promise<Response | undefined> => {
    const response = await fetch(`${this.url}${path}`, { method }).catch(() => undefined)
    await response
      ?.clone()
      .arrayBuffer()
      .catch(() => undefined)
    return response
  }

  private readonly submitter = async (): Promise<void> => {
    while (this.isLoading) {
      const index = this.submitted++
      const key = `load-${index}`
      const scarce = index % 6 === 0
      const id = await this.insist(key, {
        prompt: `Question ${key}`,
        priority: (["HIGH", "MEDIUM", "LOW"] as const)[index % 3],
        // One at a time: most of these wait in the database, and some until it is too late.
        ...(scarce ? { platform: "synthetic", deadline: index % 12 === 0 ? 2 : 20 } : {})
      })
      this.accepted.set(key, id)
      if (index % 15 === 7) await this.send("DELETE", `/v1/tasks/${id}`)
      if (index % 25 === 3) {
        const failed = await this.send("GET", "/v1/tasks?state=failed&limit=1")
        const page: unknown = failed?.ok === true ? await failed.json().catch(() => undefined) : undefined
        const [first] = page === undefined ? [] : decodeList(page).tasks
        if (first !== undefined) await this.send("POST", `/v1/tasks/${first.id}/retry`)
      }
      while (this.isLoading && this.accepted.size > this.answered() + maxBacklog) await pause(25)
      await pause(25)
    }
  }

  readonly startLoad = (): void => {
    this.load = Promise.all(Array.from({ length: submitters }, this.submitter))
    // Whoever ends the load hears of it.
    this.load.catch(() => undefined)
  }

  /** Ends the load and waits until every task has ended. */
  readonly finishLoad = async (withinMs: number): Promise<void> => {
    this.isLoading = false
    await this.load
    const left = async (state: string): Promise<number> => {
      const response = await fetch(`${this.url}/v1/tasks?state=${state}&limit=1`)
      return decodeList(await response.json()).tasks.length
    }
    await eventually("every task has ended", withinMs, async () =>
      (await left("queued")) + (await left("running")) + (await left("waiting")) === 0 ? true : undefined
    )
  }

  /** What the database says in the end; nothing may run any more. */
  readonly verdict = (): Verdict => {
    const sqlite = new Sqlite(this.database, { readonly: true })
    const count = (sql: string): number => Number(sqlite.prepare(sql).pluck().get())
    const ids = new Set(sqlite.prepare("SELECT id FROM tasks WHERE parent_id IS NULL").pluck().all())
    const promised = new Set<unknown>(this.accepted.values())
    const states = sqlite.prepare("SELECT state, COUNT(*) FROM tasks GROUP BY state").raw().all()
    const kept = count("SELECT COUNT(*) FROM attempts WHERE outcome = 'succeeded'")
    const verdict: Verdict = {
      accepted: this.accepted.size,
      lost: [...promised].filter((id) => !ids.has(id)).length,
      unknown: [...ids].filter((id) => !promised.has(id)).length,
      doubled: count(`
        SELECT COUNT(*) FROM tasks WHERE
          (SELECT COUNT(*) FROM attempts WHERE task_id = tasks.id AND outcome = 'succeeded') > 1
          OR (state = 'succeeded') <> (result IS NOT NULL)
          OR (SELECT COUNT(*) FROM events WHERE task_id = tasks.id
                AND type IN ('task.succeeded', 'task.failed', 'task.cancelled'))
            - (SELECT COUNT(*) FROM events WHERE task_id = tasks.id AND type = 'task.retried') <> 1`),
      unfinished: count(`
        SELECT (SELECT COUNT(*) FROM tasks WHERE state NOT IN ('succeeded', 'failed', 'cancelled'))
          + (SELECT COUNT(*) FROM attempts WHERE outcome = 'running')`),
      states: Object.fromEntries(
        states.map((row) => (Array.isArray(row) ? [String(row[0]), Number(row[1])] : ["", 0]))
      ),
      poisoned: count(`SELECT COUNT(*) FROM tasks WHERE state = 'failed' AND json_extract(error, '$.type') = 'poison'`),
      interrupted: count("SELECT COUNT(*) FROM attempts WHERE outcome = 'interrupted'"),
      inFlightAtKills: this.kills * inFlight,
      executedTwice: Math.max(0, this.answered() - kept),
      kills: this.kills
    }
    sqlite.close()
    return verdict
  }

  readonly close = async (): Promise<void> => {
    this.isLoading = false
    await this.service?.stop("SIGKILL")
    await this.simulated.close()
    rmSync(this.folder, { recursive: true, force: true })
  }
}
