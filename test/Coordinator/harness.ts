import type { SqlClient } from "@effect/sql/SqlClient"
import { Cause, Effect, Exit, Layer, Option, PubSub, Queue, Stream } from "effect"
import { Budgets } from "../../src/Budgets.js"
import { Coordinator } from "../../src/Coordinator.js"
import { type Delegated, Delegation, type DelegationError, type DelegationRequest } from "../../src/Delegation.js"
import { type FieldProblem, TaskRefused } from "../../src/Domain/ApiError.js"
import type { Booking } from "../../src/Domain/Budget.js"
import type { Call } from "../../src/Domain/Call.js"
import type { TaskEvent } from "../../src/Domain/Event.js"
import { PlatformFailure } from "../../src/Domain/Failure.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { type Task, type TaskId, type TaskState, type TaskSubmission, TenantId } from "../../src/Domain/Task.js"
import { epochMsOf } from "../../src/Domain/Time.js"
import { Events } from "../../src/Events.js"
import { PlatformDetector, type PlatformHealth } from "../../src/PlatformDetector.js"
import { Settings } from "../../src/Settings.js"
import type { SqlWriter } from "../../src/Sql/Writer.js"
import { Sql } from "../../src/Sql.js"
import { TaskStore } from "../../src/TaskStore.js"
import { TaskValidator } from "../../src/TaskValidator.js"

export const tenant = TenantId.make("local")
export const other = TenantId.make("other")
export const codex = PlatformId.make("codex")
export const qwen = PlatformId.make("qwen")

export const settings = Settings.make({
  port: 0,
  database: ":memory:",
  tasks: { maxOutputTokens: 1_000, livePerClass: 4 }
})

const usage = { inputTokens: 3, cachedInputTokens: 0, outputTokens: 5, reasoningTokens: 0 }

/** Costs nothing, so that it is nobody's matter. */
export const booking: Booking = {
  day: "1970-01-01",
  tenant,
  platform: codex,
  parents: [],
  amount: { nanoUsd: 0, tokens: 0 }
}

export const broken = new PlatformFailure({ platform: codex, reason: "server", status: 500, message: "down" })

/** What the scripted delegation does next for a task. */
export type Step =
  | { readonly _tag: "Start" }
  | { readonly _tag: "Succeed"; readonly text: string }
  | { readonly _tag: "FailAttempt" }
  | { readonly _tag: "Error"; readonly error: DelegationError }
  | { readonly _tag: "Die" }

export const start: Step = { _tag: "Start" }
export const succeed = (text: string): Step => ({ _tag: "Succeed", text })
export const failAttempt: Step = { _tag: "FailAttempt" }
export const error = (error: DelegationError): Step => ({ _tag: "Error", error })

export interface Seen {
  readonly prompt: string
  readonly what: "called" | "sent" | "interrupted"
  readonly made: number
  readonly spent: number
}

/** Delegation that does for each prompt what the test says, step by step, and waits where nothing is said. */
export const makeScript = Effect.gen(function* () {
  const steps = new Map<string, Queue.Queue<Step>>()
  const seen: Array<Seen> = []
  const calls: Array<Call> = []
  const stepsOf = (prompt: string) =>
    Effect.flatMap(Queue.unbounded<Step>(), (fresh) =>
      Effect.sync(() => {
        const queue = steps.get(prompt) ?? fresh
        steps.set(prompt, queue)
        return queue
      })
    )

  const delegate = <E>(request: DelegationRequest<E>): Effect.Effect<Delegated, DelegationError | E> =>
    Effect.gen(function* () {
      const last = request.call.messages.at(-1)
      const prompt = typeof last?.content === "string" ? last.content : ""
      const queue = yield* stepsOf(prompt)
      const note = (what: Seen["what"]) =>
        Effect.sync(() => {
          seen.push({ prompt, what, made: request.attemptsMade, spent: request.attemptsSpent })
        })
      calls.push(request.call)
      yield* note("called")
      const follow = Effect.gen(function* () {
        let number = request.attemptsMade
        let out = false
        const where = () => ({ number, platform: codex, model: "gpt" })
        const send = Effect.gen(function* () {
          if (out) return
          out = true
          number += 1
          yield* request.journal.attemptStarted({
            ...where(),
            booking,
            decision: { candidates: [{ platform: codex, model: "gpt", weight: 1 }], excluded: [], waitedMs: 7 }
          })
          yield* note("sent")
        })
        while (true) {
          const step = yield* Queue.take(queue)
          switch (step._tag) {
            case "Start":
              yield* send
              break
            case "FailAttempt":
              yield* send
              out = false
              yield* request.journal.attemptEnded({
                ...where(),
                correction: booking,
                durationMs: 11,
                result: { _tag: "Failed", failure: broken }
              })
              break
            case "Succeed": {
              yield* send
              yield* request.journal.attemptEnded({
                ...where(),
                correction: booking,
                durationMs: 13,
                timeToFirstTokenMs: 2,
                result: { _tag: "Succeeded", usage, costUsd: 0.25 }
              })
              return {
                completion: { text: step.text, toolCalls: [], finishReason: "stop" as const, model: "gpt-1", usage },
                platform: codex,
                costUsd: 0.25,
                attempts: number,
                trace: []
              }
            }
            case "Error":
              return yield* Effect.fail(step.error)
            case "Die":
              return yield* Effect.die("a bug")
          }
        }
      })
      return yield* Effect.onInterrupt(follow, () => note("interrupted"))
    })

  return {
    layer: Layer.succeed(Delegation, {
      delegate,
      stream: () => Stream.dieMessage("not scripted"),
      preview: () => Effect.dieMessage("not scripted")
    }),
    seen: seen as ReadonlyArray<Seen>,
    /** What it was asked, in order. */
    calls: calls as ReadonlyArray<Call>,
    count: (prompt: string, what: Seen["what"]) => seen.filter((s) => s.prompt === prompt && s.what === what).length,
    say: (prompt: string, ...next: ReadonlyArray<Step>) =>
      Effect.flatMap(stepsOf(prompt), (queue) => Queue.offerAll(queue, next))
  }
})

export type Script = Effect.Effect.Success<typeof makeScript>

const validate: TaskValidator["Type"]["validate"] = (submission) => {
  const problems: ReadonlyArray<FieldProblem> =
    submission.prompt === "" ? [{ field: "prompt", problem: "it is empty" }] : []
  if (problems.length > 0) return Effect.fail(new TaskRefused({ message: "refused", problems, reasons: [] }))
  const platform = submission.prompt.includes("qwen") ? qwen : codex
  const { deadline = 86_400 } = submission
  return Effect.map(
    Effect.clockWith((clock) => clock.currentTimeMillis),
    (now) => ({
      type: submission.type ?? "question-answering",
      priority: submission.priority ?? "MEDIUM",
      call: { messages: [{ role: "user" as const, content: submission.prompt }] as const },
      requirement: { capabilities: [], contextTokens: 100 },
      route: {
        candidates: [{ platform, model: "gpt", weight: 1, suitability: 1, quality: 1 }],
        excluded: [],
        policy: "balanced" as const,
        patienceMs: 0
      },
      deadline: typeof deadline === "string" ? epochMsOf(deadline) : now + deadline * 1_000
    })
  )
}

/** Accepts everything but an empty prompt; `qwen` in the prompt makes qwen the only candidate. */
export const validator = Layer.succeed(TaskValidator, { validate, prepare: validate })

export const makeDetector = Effect.map(PubSub.unbounded<PlatformHealth>(), (pubsub) => ({
  publish: (health: PlatformHealth) => PubSub.publish(pubsub, health),
  layer: Layer.succeed(
    PlatformDetector,
    PlatformDetector.of({
      health: (platform) => Effect.succeed({ platform, status: "available", reasons: [] }),
      check: (platform) => Effect.succeed({ platform, status: "available", reasons: [] }),
      report: () => Effect.void,
      changes: Stream.fromPubSub(pubsub),
      view: Effect.succeed([])
    })
  )
}))

export const storeLayer = TaskStore.layer.pipe(
  Layer.provideMerge(Events.layer),
  Layer.provide(Settings.layer(settings))
)

/** A coordinator on the given database, alive until the scope closes. */
export const startOn = (
  client: Layer.Layer<SqlClient | SqlWriter>,
  script: Pick<Script, "layer">,
  options: { readonly detector?: Layer.Layer<PlatformDetector> } = {}
) =>
  Effect.gen(function* () {
    const detector = options.detector ?? (yield* makeDetector).layer
    const context = yield* Layer.build(
      Coordinator.layer.pipe(
        Layer.provide(Budgets.layerStored),
        Layer.provideMerge(storeLayer),
        Layer.provide([client, script.layer, detector, validator, Settings.layer(settings)])
      )
    )
    return yield* Effect.map(Effect.all([Coordinator, TaskStore]), ([coordinator, store]) => ({
      coordinator,
      store
    })).pipe(Effect.provide(context))
  })

/** A coordinator on a database of its own, with its script. */
export const fresh = () =>
  Effect.gen(function* () {
    const script = yield* makeScript
    const detector = yield* makeDetector
    const started = yield* startOn(Layer.orDie(Sql.layerMemory), script, { detector: detector.layer })
    return { ...started, script, detector }
  })

/** Lets everything that can go on without the clock go on. */
export const settle = Effect.repeatN(
  Effect.async<void>((resume) => {
    const handle = setImmediate(() => resume(Effect.void))
    return Effect.sync(() => clearImmediate(handle))
  }),
  20
)

/** Looks again and again, without the clock, until it holds; what it saw last is in the failure. */
export const eventually = <A, E, R>(look: Effect.Effect<A, E, R>, holds: (a: A) => boolean): Effect.Effect<A, E, R> =>
  Effect.gen(function* () {
    let seen = yield* look
    for (let round = 0; round < 500 && !holds(seen); round++) {
      yield* settle
      seen = yield* look
    }
    return holds(seen) ? seen : yield* Effect.dieMessage(`never came to hold; last seen ${JSON.stringify(seen)}`)
  })

export const ask = (prompt: string, rest: Partial<TaskSubmission> = {}): TaskSubmission => ({ prompt, ...rest })

export const submitted = (coordinator: Coordinator["Type"], submission: TaskSubmission) =>
  Effect.map(coordinator.submit(tenant, submission, Option.none()), ({ task }) => task)

export const reaches = (coordinator: Coordinator["Type"], id: TaskId, state: TaskState): Effect.Effect<Task, unknown> =>
  eventually(coordinator.get(tenant, id), (task) => task.state === state)

/** The stored events of a task, as long as there are `count` of them. */
export const firstEvents = (coordinator: Coordinator["Type"], id: TaskId, count: number) =>
  Effect.flatMap(coordinator.events(tenant, id, Option.none()), (stream) =>
    Effect.map(Stream.runCollect(Stream.take(stream, count)), (events): ReadonlyArray<TaskEvent> => [...events])
  )

export const failureOf = <A, E>(exit: Exit.Exit<A, E>): E | undefined =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.failureOption(exit.cause)) : undefined
