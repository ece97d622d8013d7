import { Effect, Layer, Option, Redacted, Ref, Stream, SubscriptionRef } from "effect"
import { Budgets } from "../../src/Budgets.js"
import { CCRWatcher } from "../../src/CCRWatcher.js"
import { Coordinator } from "../../src/Coordinator.js"
import {
  Conflict,
  InvalidRequest,
  NotFound,
  Overloaded,
  RateLimited,
  ServiceUnavailable,
  TaskRefused
} from "../../src/Domain/ApiError.js"
import { isFinal, type PlatformEvent, type TaskEvent, type TaskEventBody } from "../../src/Domain/Event.js"
import type { PlatformView, ResourcesView } from "../../src/Domain/Lease.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import {
  isTerminal,
  type Task,
  TaskId,
  type TaskPreview,
  type TaskSubmission,
  type TaskSummary,
  TenantId
} from "../../src/Domain/Task.js"
import { Events } from "../../src/Events.js"
import { Gateway } from "../../src/Gateway.js"
import { PlatformDetector, type PlatformHealth } from "../../src/PlatformDetector.js"
import { LimitsInvalid, ResourceManager, ResourceStoreFailed } from "../../src/ResourceManager.js"
import type { SettingsShape } from "../../src/Settings.js"
import { Settings } from "../../src/Settings.js"
import { Sql } from "../../src/Sql.js"

export const idOf = (number: number): TaskId =>
  TaskId.make(`01900000-0000-7000-8000-${String(number).padStart(12, "0")}`)

const now = Date.parse("2026-11-22T12:00:00Z")

const previewOf = ({ priority = "MEDIUM", type = "question-answering" }: TaskSubmission): TaskPreview => {
  const [codex, gemini] = [PlatformId.make("codex"), PlatformId.make("gemini")]
  return {
    accepted: true,
    type,
    priority,
    policy: "balanced",
    deadline: now + 86_400_000,
    tokens: { input: 12, maxOutput: 4_096 },
    candidates: [
      {
        platform: codex,
        model: "m",
        weight: 0.9,
        suitability: 0.9,
        quality: 1,
        share: 0.75,
        free: true,
        maxCostUsd: 0.02
      },
      {
        platform: gemini,
        model: "g",
        weight: 0.3,
        suitability: 0.6,
        quality: 0.5,
        share: 0.25,
        free: false,
        busy: { platform: gemini, reason: "4 of 4 attempts at once are in use", kind: "limit" }
      }
    ],
    excluded: [{ platform: PlatformId.make("qwen"), reason: "it lacks vision" }],
    choice: codex
  }
}

interface Row {
  readonly task: Task
  readonly events: SubscriptionRef.SubscriptionRef<ReadonlyArray<TaskEvent>>
  readonly key: Option.Option<string>
  readonly submission: TaskSubmission
}

/** A coordinator that keeps tasks in memory and does with them what the test says. */
export const makeCoordinator = Effect.gen(function* () {
  const rows = yield* Ref.make<ReadonlyArray<Row>>([])
  const openStreams = yield* Ref.make(0)
  let lastEvent = 0

  const find = (tenant: TenantId, id: TaskId) =>
    Effect.flatMap(Ref.get(rows), (all) => {
      const row = all.find(({ task }) => task.id === id && task.tenant === tenant)
      return row === undefined ? new NotFound({ message: `There is no task ${id}` }) : Effect.succeed(row)
    })

  const change = (id: TaskId, f: (task: Task) => Task) =>
    Ref.update(rows, (all) => all.map((row) => (row.task.id === id ? { ...row, task: f(row.task) } : row)))

  const emit = (id: TaskId, body: TaskEventBody) =>
    Effect.gen(function* () {
      const row = (yield* Ref.get(rows)).find(({ task }) => task.id === id)
      if (row === undefined) return
      lastEvent++
      yield* SubscriptionRef.update(row.events, (all) => [...all, { id: lastEvent, taskId: id, at: now, ...body }])
    })

  const finish = (id: TaskId, text: string) =>
    change(id, (task) => ({
      ...task,
      state: "succeeded",
      finishedAt: now,
      result: {
        text,
        platform: PlatformId.make("codex"),
        model: "m",
        usage: { inputTokens: 1, cachedInputTokens: 0, outputTokens: 1, reasoningTokens: 0 }
      }
    })).pipe(Effect.zipRight(emit(id, { type: "task.succeeded", platform: PlatformId.make("codex") })))

  const service = Coordinator.of({
    submit: (tenant, submission, key) =>
      Effect.gen(function* () {
        const all = yield* Ref.get(rows)
        const seen = all.find(
          ({ task, key: other }) =>
            task.tenant === tenant && Option.isSome(key) && Option.getOrNull(other) === key.value
        )
        if (seen !== undefined) {
          return JSON.stringify(seen.submission) === JSON.stringify(submission)
            ? { task: seen.task, replayed: true }
            : yield* new Conflict({ message: "The key was used with another body" })
        }
        if (submission.prompt === "") {
          return yield* new TaskRefused({
            message: "The task cannot work",
            problems: [{ field: "prompt", problem: "is empty" }],
            reasons: [{ platform: PlatformId.make("codex"), reason: "nothing to do", earliestAt: now }]
          })
        }
        if (submission.prompt === "too late") {
          const reasons = [{ platform: PlatformId.make("codex"), reason: "it is used up", earliestAt: now + 61_500 }]
          return submission.priority === "LOW"
            ? yield* new ServiceUnavailable({ message: "It is shut off", reasons })
            : yield* new RateLimited({ message: "The limits are used up", reasons, retryAfterMs: 61_500 })
        }
        const { deadline: _, ...rest } = submission
        const task: Task = {
          ...rest,
          id: idOf(all.length + 1),
          tenant,
          type: submission.type ?? "question-answering",
          priority: submission.priority ?? "MEDIUM",
          state: "queued",
          attempts: 0,
          createdAt: now,
          updatedAt: now,
          deadline: now + 86_400_000
        }
        const events = yield* SubscriptionRef.make<ReadonlyArray<TaskEvent>>([])
        yield* Ref.update(rows, (before) => [...before, { task, events, key, submission }])
        yield* emit(task.id, { type: "task.queued" })
        return { task, replayed: false }
      }),
    preview: (_, submission) =>
      submission.prompt === ""
        ? new TaskRefused({
            message: "The task cannot work",
            problems: [{ field: "prompt", problem: "is empty" }],
            reasons: [{ platform: PlatformId.make("codex"), reason: "nothing to do", earliestAt: now }]
          })
        : Effect.succeed(previewOf(submission)),
    get: (tenant, id) => Effect.map(find(tenant, id), ({ task }) => task),
    list: (tenant, filter) =>
      Effect.gen(function* () {
        if (filter.cursor !== undefined && !/^\d+$/.test(filter.cursor)) {
          return yield* new InvalidRequest({ message: "The cursor is not one of ours", problems: [] })
        }
        const from = Number(filter.cursor ?? 0)
        const limit = filter.limit ?? 50
        const found = (yield* Ref.get(rows))
          .map(({ task }) => task)
          .filter(
            (task) =>
              task.tenant === tenant &&
              (filter.state === undefined || task.state === filter.state) &&
              (filter.type === undefined || task.type === filter.type) &&
              (filter.priority === undefined || task.priority === filter.priority)
          )
          .reverse()
        const tasks = found.slice(from, from + limit).map(
          (task): TaskSummary => ({
            id: task.id,
            tenant: task.tenant,
            type: task.type,
            priority: task.priority,
            state: task.state,
            attempts: task.attempts,
            createdAt: task.createdAt,
            updatedAt: task.updatedAt,
            deadline: task.deadline,
            preview: task.prompt.slice(0, 200)
          })
        )
        return from + limit < found.length ? { tasks, next: String(from + limit) } : { tasks }
      }),
    cancel: (tenant, id) =>
      Effect.gen(function* () {
        const { task } = yield* find(tenant, id)
        if (task.state === "succeeded") return yield* new Conflict({ message: "The task has succeeded" })
        if (task.state !== "cancelled") {
          yield* change(id, (before) => ({ ...before, state: "cancelled" }))
          yield* emit(id, { type: "task.cancelled" })
        }
        return (yield* find(tenant, id)).task
      }),
    retry: (tenant, id) =>
      Effect.gen(function* () {
        const { task } = yield* find(tenant, id)
        if (task.state !== "failed" && task.state !== "cancelled") {
          return yield* new Conflict({ message: `The task is ${task.state}` })
        }
        yield* change(id, (before) => ({ ...before, state: "queued" }))
        yield* emit(id, { type: "task.retried" })
        return (yield* find(tenant, id)).task
      }),
    wake: () => Effect.void,
    jobs: {
      submit: () => Effect.dieMessage("jobs are not scripted"),
      get: () => Effect.dieMessage("jobs are not scripted"),
      list: () => Effect.dieMessage("jobs are not scripted"),
      cancel: () => Effect.dieMessage("jobs are not scripted")
    },
    attempts: (tenant, id) =>
      Effect.as(find(tenant, id), [
        {
          number: 1,
          platform: PlatformId.make("codex"),
          model: "m",
          outcome: "succeeded",
          startedAt: now,
          decision: { candidates: [], excluded: [], waitedMs: 0 }
        }
      ]),
    events: (tenant, id, after) =>
      Effect.gen(function* () {
        const row = yield* find(tenant, id)
        return Stream.unwrapScoped(
          Effect.gen(function* () {
            yield* Effect.acquireRelease(
              Ref.update(openStreams, (count) => count + 1),
              () => Ref.update(openStreams, (count) => count - 1)
            )
            const ended = isTerminal((yield* Effect.orDie(find(tenant, id))).task.state)
            const source = ended ? Stream.fromEffect(Ref.get(row.events)) : row.events.changes
            return source.pipe(
              Stream.mapAccum(
                Option.getOrElse(after, () => 0),
                (position, all) => {
                  const fresh = all.filter((event) => event.id > position)
                  return [fresh.at(-1)?.id ?? position, fresh]
                }
              ),
              Stream.flatMap((fresh) => Stream.fromIterable(fresh)),
              Stream.takeUntil((event) => !ended && isFinal(event))
            )
          })
        )
      })
  })

  return {
    service,
    emit,
    finish,
    change,
    openStreams: Ref.get(openStreams),
    tasks: Effect.map(Ref.get(rows), (all) => all.map(({ task }) => task))
  }
})

export type Scripted = Effect.Effect.Success<typeof makeCoordinator>

const codex: PlatformView = {
  id: PlatformId.make("codex"),
  wire: "openai-responses",
  baseUrl: "http://127.0.0.1:1",
  model: "m",
  capabilities: ["text"],
  status: "available",
  reasons: [],
  checkedAt: now,
  breaker: "closed",
  inFlight: 0,
  performance: { attempts: 0, errorRate: 0, tokens: 0 },
  models: []
}

const halfUsed = { oneMinute: 0.5, fiveMinutes: 0.25 }

export const resources: ResourcesView = {
  platforms: [
    {
      platform: codex.id,
      buckets: [
        {
          name: "requests/60s",
          unit: "requests",
          windowMs: 60_000,
          capacity: 10,
          used: 1,
          level: 9,
          keptForHigh: 1,
          refillPerSecond: 10 / 60,
          nextRefillAt: now + 1_000,
          source: "configured",
          utilization: halfUsed
        }
      ],
      permits: { inUse: 0, max: 2, keptForHigh: 0, utilization: halfUsed, models: [] },
      breaker: { state: "closed", consecutiveFailures: 0, capacityPercent: 100 },
      modelBreakers: [],
      exhausted: []
    }
  ],
  queue: {
    HIGH: { depth: 0, oldestWaitMs: 0 },
    MEDIUM: { depth: 1, oldestWaitMs: 12 },
    LOW: { depth: 0, oldestWaitMs: 0 }
  },
  admission: { waiting: 1, maxWaiting: 10_000, bytes: 0, maxBytes: 1_000_000 }
}

/** One platform, `codex`: well until it is checked, which finds it `degraded`. */
const detector: Layer.Layer<PlatformDetector> = Layer.effect(
  PlatformDetector,
  Effect.map(Ref.make<PlatformView>(codex), (view) => {
    const health = (platform: PlatformId): Effect.Effect<PlatformHealth> =>
      Effect.map(Ref.get(view), ({ status, reasons }) => ({ platform, status, reasons }))
    return PlatformDetector.of({
      health,
      check: (platform) =>
        Ref.update(view, (before) => ({ ...before, status: "degraded" as const, reasons: ["slow"] })).pipe(
          Effect.zipRight(health(platform))
        ),
      report: () => Effect.void,
      changes: Stream.empty,
      view: Effect.map(Ref.get(view), (only) => [only])
    })
  })
)

/**
 * The limits of `codex`, whose history is the changes made to them. Holds at most `maxHeldBytes` of bodies; a burst of
 * more than 100 is invalid.
 */
const manager: Layer.Layer<ResourceManager, never, Settings> = Layer.effect(
  ResourceManager,
  Effect.map(Settings, ({ maxHeldBytes }) => {
    const events: Array<PlatformEvent> = []
    let bytes = 0
    const view = Effect.sync(() => ({ ...resources, admission: { ...resources.admission, bytes } }))
    return ResourceManager.of({
      acquire: () => Effect.dieMessage("not scripted"),
      withLease: () => Effect.dieMessage("not scripted"),
      forecast: () => Effect.dieMessage("not scripted"),
      outlook: () => Effect.dieMessage("not scripted"),
      setOut: () => Effect.void,
      setExhausted: () => Effect.void,
      correct: () => Effect.void,
      patch: (platform, { drained, limits, reason }, tenant) => {
        const [own] = resources.platforms
        if (own === undefined) return Effect.dieMessage("there is no platform")
        if (drained !== undefined) {
          const type = drained ? "platform.drained" : "platform.resumed"
          events.unshift({ id: events.length + 1, platform, at: now, type, tenant, why: reason })
          return Effect.succeed({ ...own, drained: drained ? { tenant, at: now, reason } : undefined })
        }
        if (limits?.burst !== undefined && limits.burst !== null && limits.burst > 100) {
          const problems = [{ field: "limits.burst", problem: "it is more than 100" }]
          return Effect.fail(new LimitsInvalid({ message: "The limits cannot be changed so", problems }))
        }
        if (limits === undefined) {
          return Effect.fail(
            new ResourceStoreFailed({ message: "The disk is full", cause: new Error("secret detail") })
          )
        }
        events.unshift({ id: events.length + 1, platform, at: now, type: "limits.changed", tenant, limits })
        return Effect.succeed(own)
      },
      note: () => Effect.void,
      history: (_, { before = Number.POSITIVE_INFINITY, limit }) =>
        Effect.sync(() => events.filter(({ id }) => id < before).slice(0, limit)),
      holdBytes: (wanted) =>
        Effect.acquireRelease(
          Effect.suspend(() => {
            if (bytes + wanted > maxHeldBytes) {
              return Effect.fail(new Overloaded({ message: "The service is full", retryAfterMs: 1_500 }))
            }
            bytes += wanted
            return Effect.void
          }),
          () =>
            Effect.sync(() => {
              bytes -= wanted
            })
        ),
      platform: () => Effect.dieMessage("not scripted"),
      view,
      transitions: Stream.empty,
      room: Stream.empty,
      changes: Stream.empty
    })
  })
)

const settings = (over: Partial<SettingsShape> = {}): SettingsShape =>
  Settings.make({ port: 0, database: ":memory:", ...over })

/** Everything the HTTP server works with. */
/** Nobody asks it anything. */
const gateway = Layer.succeed(Gateway, {
  complete: () => Effect.dieMessage("not scripted"),
  stream: () => Stream.dieMessage("not scripted"),
  models: Effect.succeed([{ name: "auto", owner: "dream-team" }]),
  answeredBy: () => Effect.succeed([])
})

export const concerns = (coordinator: Coordinator["Type"], over: Partial<SettingsShape> = {}) =>
  Layer.mergeAll(
    Layer.succeed(Coordinator, coordinator),
    detector,
    manager,
    gateway,
    CCRWatcher.layerOff,
    Budgets.layer,
    Layer.orDie(Layer.provideMerge(Events.layer, Sql.layerMemory))
  ).pipe(Layer.provideMerge(Settings.layer(settings(over))))

export const keys = {
  alice: { tenant: TenantId.make("alice"), key: Redacted.make("alice-secret-key") },
  bob: { tenant: TenantId.make("bob"), key: Redacted.make("bob-secret-key") }
}
