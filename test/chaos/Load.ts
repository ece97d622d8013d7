import { Schema } from "effect"
import { TaskList } from "../../src/Coordinator/Api.js"
import { JobList } from "../../src/Coordinator/Jobs/Api.js"
import { pause } from "../support/Service.js"
import type { Promised } from "./Journal.js"

/** What the platforms are told by words in a prompt; see `Chaos.faults`. */
export const words = { refused: "You will refuse this.", planned: "was too much for one answer" }

const submitters = 6
/** Tasks that have not ended, above which nothing new is submitted. */
const maxOpen = 60
/** Requests that get no answer within this time are made again, ms. */
const patienceMs = 10_000

const decodeTasks = Schema.decodeUnknownSync(TaskList)
const decodeJobs = Schema.decodeUnknownSync(JobList)
const idOf = (json: unknown): string => Schema.decodeUnknownSync(Schema.Struct({ id: Schema.String }))(json).id

/** About 1,500 tokens of conversation: enough to be worth shortening. */
const turns = Array.from({ length: 6 }, (_, turn) => ({
  role: turn % 2 === 0 ? "user" : "assistant",
  content: `Turn ${turn}. ${"So it went on and on. ".repeat(50)}`
}))

/** One thing that users do. */
export type Act = keyof Load["acts"]

/** Users of all kinds, who repeat each request under its key until it is answered. */
export class Load {
  private readonly tasks = new Set<string>()
  private readonly jobs = new Map<string, number>()
  private isLoading = true
  private isAbandoned = false
  private submitted = 0
  private open = 0
  private failure: unknown
  private running: Promise<unknown> = Promise.resolve()
  private readonly url: string
  private readonly callbackUrl: string

  constructor(url: string, callbackUrl: string) {
    this.url = url
    this.callbackUrl = callbackUrl
  }

  get promised(): Promised {
    return { tasks: this.tasks, jobs: this.jobs }
  }

  readonly start = (): void => {
    this.running = Promise.all([...Array.from({ length: submitters }, this.submitter), this.counter()])
    this.running.catch(this.fail)
  }

  /** Has one of them do one thing; what goes wrong with it is told by `check`. */
  readonly act = (act: Act): Promise<unknown> => this.acts[act]().catch(this.fail)

  private readonly fail = (error: unknown): void => {
    this.isLoading = false
    this.failure ??= error
  }

  /** Lets each user finish what they are at; fails where one of them was told what nobody should be told. */
  readonly stop = async (): Promise<void> => {
    this.isLoading = false
    await this.running
    this.check()
  }

  /** Nobody waits any more for a service that is gone for good. */
  readonly abandon = (): void => {
    this.isLoading = false
    this.isAbandoned = true
  }

  readonly check = (): void => {
    if (this.failure !== undefined) throw this.failure
  }

  /** How many tasks have not ended, up to a few hundred; none where nobody answers. */
  readonly countOpen = async (): Promise<number | undefined> => {
    const states = ["queued", "running", "waiting"].map(async (state) => {
      const page = await this.get(`/v1/tasks?state=${state}&limit=100`)
      return page === undefined ? Number.NaN : decodeTasks(page).tasks.length
    })
    const open = (await Promise.all(states)).reduce((sum, count) => sum + count, 0)
    return Number.isNaN(open) ? undefined : open
  }

  private readonly ask = async (method: string, path: string, key?: string, body?: object) => {
    const response = await fetch(`${this.url}${path}`, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      headers: {
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(key === undefined ? {} : { "idempotency-key": key })
      },
      signal: AbortSignal.timeout(patienceMs)
    }).catch(() => undefined)
    const text = await response?.text().catch(() => undefined)
    return response === undefined || text === undefined ? undefined : { status: response.status, text }
  }

  private readonly get = async (path: string): Promise<unknown> => {
    const answer = await this.ask("GET", path)
    return answer?.status === 200 ? JSON.parse(answer.text) : undefined
  }

  /** The same request again and again until it is answered: what a careful client does. */
  private readonly insist = async (path: string, body: object): Promise<string> => {
    const key = `load-${this.submitted++}`
    for (;;) {
      if (this.isAbandoned) throw new Error("abandoned")
      const answer = await this.ask("POST", path, key, body)
      if (answer !== undefined && answer.status < 300) return idOf(JSON.parse(answer.text))
      if (answer !== undefined && answer.status >= 400 && answer.status < 500 && answer.status !== 429) {
        throw new Error(`refused: ${answer.status} ${answer.text}`)
      }
      await pause(50)
    }
  }

  private readonly submit = async (task: object): Promise<string> => {
    const index = this.submitted
    const id = await this.insist("/v1/tasks", {
      prompt: `Question ${index}`,
      priority: (["HIGH", "MEDIUM", "LOW"] as const)[index % 3],
      ...(index % 2 === 0 ? { callbackUrl: this.callbackUrl } : {}),
      ...task
    })
    this.tasks.add(id)
    return id
  }

  private readonly submitJob = async (job: { readonly tasks: ReadonlyArray<object> }): Promise<string> => {
    const id = await this.insist("/v1/jobs", { callbackUrl: this.callbackUrl, ...job })
    this.jobs.set(id, job.tasks.length)
    return id
  }

  /** What users do, one by one. */
  readonly acts = {
    question: () => this.submit({}),
    /** One at a time: most of these wait in the database, and some until it is too late. */
    scarce: () => this.submit({ platform: "synthetic", deadline: this.submitted % 2 === 0 ? 2 : 6 }),
    budgeted: () => this.submit({ maxOutputTokens: 100, maxTokens: 400, maxCostUsd: 0.02 }),
    /** Fails, for no other platform is asked after a refusal. */
    refused: () => this.submit({ prompt: `Question ${this.submitted}. ${words.refused}` }),
    cancelled: async () => {
      await this.ask("DELETE", `/v1/tasks/${await this.submit({ platform: "synthetic" })}`)
    },
    retried: async () => {
      const page = await this.get("/v1/tasks?state=failed&limit=10")
      const failed = page === undefined ? [] : decodeTasks(page).tasks
      const one = failed[Math.floor(Math.random() * failed.length)]
      if (one !== undefined) await this.ask("POST", `/v1/tasks/${one.id}/retry`)
    },
    /** For the platform that mostly cannot: elsewhere where vision is not needed after all. */
    elsewhere: () => this.submit({ priority: "HIGH", requires: ["vision"], callbackUrl: this.callbackUrl }),
    /** For that one and no other: by its other models, shortened, in parts, or as far as it came. */
    frail: () =>
      this.submit({
        priority: "HIGH",
        platform: "frail",
        callbackUrl: this.callbackUrl,
        ...(this.submitted % 2 === 0 ? { context: turns } : {})
      }),
    parallel: () =>
      this.submitJob({
        tasks: [1, 2, 3, 4].map((part) => ({ prompt: `Part ${part} of ${this.submitted}` })),
        ...{ mode: "parallel", maxParallel: 2, maxTokens: 200_000, maxCostUsd: 5 }
      }),
    sequential: () =>
      this.submitJob({
        tasks: [1, 2, 3].map((chapter) => ({ prompt: `Chapter ${chapter} of ${this.submitted}`, priority: "HIGH" })),
        ...{ mode: "sequential", onFailure: "stop" }
      }),
    graph: () =>
      this.submitJob({
        tasks: [
          { name: "ground", prompt: `Ground of ${this.submitted}` },
          { name: "left", prompt: "Left", dependsOn: ["ground"] },
          { name: "right", prompt: "Right", dependsOn: ["ground"], callbackUrl: this.callbackUrl },
          { name: "roof", prompt: "Roof", dependsOn: ["left", "right"] },
          { name: "no", prompt: `No. ${words.refused}` },
          { name: "never", prompt: "Never", dependsOn: ["no"] }
        ],
        ...{ mode: "parallel", onFailure: this.submitted % 3 === 0 ? "continue" : "skip" }
      }),
    cancelledJob: async () => {
      const tasks = Array.from({ length: 8 }, (_, part) => ({ prompt: `Piece ${part}` }))
      const job = { tasks, mode: "parallel", maxParallel: 2 }
      await this.ask("DELETE", `/v1/jobs/${await this.submitJob(job)}`)
    },
    retriedJob: async () => {
      const page = await this.get("/v1/jobs?state=failed&limit=5")
      const [job] = page === undefined ? [] : decodeJobs(page).jobs
      const shown = job === undefined ? undefined : await this.get(`/v1/jobs/${job.id}`)
      const failed = Schema.decodeUnknownSync(
        Schema.Struct({ tasks: Schema.Array(Schema.Struct({ id: Schema.String, state: Schema.String })) })
      )(shown ?? { tasks: [] }).tasks.find(({ state }) => state === "failed")
      if (failed !== undefined) await this.ask("POST", `/v1/tasks/${failed.id}/retry`)
    }
  }

  /** How often each comes. */
  private readonly mixture: ReadonlyArray<Act> = [
    ...["question", "question", "question", "question", "question", "scarce", "budgeted", "refused"],
    ...["cancelled", "retried", "elsewhere", "frail", "parallel", "sequential", "graph", "cancelledJob", "retriedJob"]
  ] as const satisfies ReadonlyArray<Act>

  private readonly submitter = async (): Promise<void> => {
    while (this.isLoading) {
      if (this.open < maxOpen) {
        const act = this.mixture[Math.floor(Math.random() * this.mixture.length)] ?? "question"
        await this.acts[act]()
      }
      await pause(25)
    }
  }

  private readonly counter = async (): Promise<void> => {
    while (this.isLoading) {
      this.open = (await this.countOpen()) ?? this.open
      await pause(200)
    }
  }
}
