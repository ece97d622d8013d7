import { SqlClient } from "@effect/sql/SqlClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FastCheck, Layer, Option, Scope, Stream } from "effect"
import { Delegation, type DelegationError, type DelegationRequest } from "../../src/Delegation.js"
import type { TaskEvent } from "../../src/Domain/Event.js"
import { CallRefused } from "../../src/Domain/Failure.js"
import { type Job, JobId, type JobSubmission, type JobTaskSubmission } from "../../src/Domain/Job.js"
import { isTerminal, TaskId } from "../../src/Domain/Task.js"
import { SqlWriter } from "../../src/Sql/Writer.js"
import { Sql } from "../../src/Sql.js"
import { TaskStore } from "../../src/TaskStore.js"
import {
  ask,
  booking,
  codex,
  eventually,
  makeScript,
  reaches,
  type Script,
  settle,
  start,
  startOn,
  storeLayer,
  submitted,
  succeed,
  tenant
} from "./harness.js"

const sharedMemory = Effect.map(Layer.build(Sql.layerMemory), (context) => Layer.succeedContext(context))

/** A database whose owner can be killed: from then on nothing it writes arrives, and it is told nothing any more. */
const mortal = (database: Layer.Layer<SqlClient | SqlWriter>) => {
  const life = { isOver: false }
  const writer = Layer.effect(
    SqlWriter,
    Effect.map(SqlWriter, (whole) => ({
      ...whole,
      write: (operation) => Effect.suspend(() => (life.isOver ? Effect.never : whole.write(operation))),
      writeSteps: (steps) => Effect.suspend(() => (life.isOver ? Effect.never : whole.writeSteps(steps)))
    }))
  )
  return { life, layer: Layer.provideMerge(writer, database) }
}

/** Starts a coordinator that nobody ever stops. */
const startMortal = (database: Layer.Layer<SqlClient | SqlWriter>, script: Pick<Script, "layer">) =>
  Effect.gen(function* () {
    const { layer, life } = mortal(database)
    const scope = yield* Scope.make()
    const started = yield* Scope.extend(startOn(layer, script), scope)
    return { ...started, life }
  })

const named = (name: string, rest: Partial<JobTaskSubmission> = {}): JobTaskSubmission => ({
  name,
  prompt: name,
  ...rest
})

describe("jobs after their owner died", () => {
  it.scoped("go on where they were, whatever of them was under way", () =>
    Effect.gen(function* () {
      const database = yield* Effect.orDie(sharedMemory)
      const before = yield* makeScript
      const first = yield* startMortal(database, before)
      const { job } = yield* first.coordinator.jobs.submit(
        tenant,
        {
          mode: "parallel",
          maxParallel: 2,
          tasks: [named("a"), named("b"), named("c", { dependsOn: ["a"] }), named("d")]
        },
        Option.none()
      )
      yield* before.say("a", start, succeed("A"))
      yield* before.say("b", start)
      yield* eventually(first.coordinator.jobs.get(tenant, job.id, {}), ({ counts }) => counts.succeeded === 1)
      yield* settle
      first.life.isOver = true

      const script = yield* makeScript
      const { coordinator } = yield* startOn(database, script)
      for (const name of ["b", "c", "d"]) yield* script.say(name, start, succeed(name.toUpperCase()))
      const done = yield* eventually(coordinator.jobs.get(tenant, job.id, {}), ({ state }) => state !== "running")
      assert.strictEqual(done.state, "succeeded")
      assert.deepStrictEqual(done.counts, { total: 4, open: 0, succeeded: 4, failed: 0, cancelled: 0 })
      assert.strictEqual(script.count("a", "called"), 0)
    })
  )

  it.scoped("are not there at all where they were not wholly accepted", () =>
    Effect.gen(function* () {
      const database = yield* Effect.orDie(sharedMemory)
      yield* Effect.gen(function* () {
        const store = yield* TaskStore
        const sql = yield* SqlClient
        const { id: classId } = yield* store.classOf([codex], "MEDIUM")
        yield* store.jobs.insert({
          id: JobId.make("01900000-0000-7000-8000-00000000000f"),
          tenant,
          mode: "parallel",
          onFailure: "skip",
          maxParallel: 4,
          metadata: undefined,
          maxCostUsd: undefined,
          maxTokens: undefined,
          callbackUrl: undefined,
          idempotency: Option.none(),
          tasks: Array.from({ length: 450 }, (_, index) => ({
            id: TaskId.make(`01900000-0000-7000-8000-${String(index).padStart(12, "0")}`),
            classId,
            type: "testing" as const,
            priority: "MEDIUM" as const,
            submission: ask(`task ${index}`),
            request: {
              call: { messages: [{ role: "user" as const, content: `task ${index}` }] as const },
              requirement: { capabilities: [], contextTokens: 10 }
            },
            deadline: 86_400_000,
            name: undefined,
            chained: false,
            dependsOn: []
          }))
        })
        // As the writes before the last one leave it.
        yield* sql`UPDATE tasks SET state = 'waiting', held = 1`
        yield* sql`DELETE FROM events`
        yield* sql`UPDATE jobs SET state = 'accepting', accepting_epoch = ${store.epoch}`
      }).pipe(Effect.provide(Layer.provideMerge(storeLayer, database)), Effect.scoped)

      const script = yield* makeScript
      const { coordinator } = yield* startOn(database, script)
      assert.lengthOf((yield* coordinator.jobs.list(tenant, {})).jobs, 0)
      assert.lengthOf((yield* coordinator.list(tenant, {})).tasks, 0)
      const sql = yield* Effect.provide(SqlClient, database)
      assert.deepStrictEqual(yield* sql`SELECT id FROM tasks`, [])
      yield* settle
      assert.lengthOf(script.seen, 0)
    })
  )

  it.scoped("settle what was too much for one write", () =>
    Effect.gen(function* () {
      const database = yield* Effect.orDie(sharedMemory)
      const before = yield* makeScript
      const first = yield* startMortal(database, before)
      const root = yield* submitted(first.coordinator, ask("root"))
      const dependants = yield* Effect.forEach(
        Array.from({ length: 260 }, (_, index) => `dependant ${index}`),
        (prompt) => submitted(first.coordinator, ask(prompt, { dependsOn: [root.id] }))
      )
      const sql = yield* Effect.provide(SqlClient, database)
      // It dies with the very write that ends the task.
      const cancelling = Effect.map(
        sql<{ readonly count: number }>`SELECT COUNT(*) AS count FROM tasks WHERE state = 'cancelled'`,
        ([row]) => row?.count ?? 0
      )
      yield* first.coordinator.cancel(tenant, root.id)
      first.life.isOver = true
      const atOnce = yield* cancelling
      assert(atOnce !== undefined && atOnce > 1 && atOnce < 261, `${atOnce} were cancelled by it`)

      const { coordinator } = yield* startOn(database, yield* makeScript)
      const last = dependants.at(-1)
      assert(last !== undefined)
      yield* reaches(coordinator, last.id, "cancelled")
      assert.strictEqual(yield* cancelling, 261)
      assert.deepStrictEqual(yield* sql`SELECT seq FROM settling`, [])
    })
  )
})

interface Plan {
  readonly submission: JobSubmission
  readonly failing: ReadonlySet<string>
  /** The process is killed when so many attempts were started, each time. */
  readonly kills: ReadonlyArray<number>
}

const plans: FastCheck.Arbitrary<Plan> = FastCheck.record({
  tasks: FastCheck.array(
    FastCheck.record({
      on: FastCheck.uniqueArray(FastCheck.nat({ max: 11 }), { maxLength: 3 }),
      type: FastCheck.constantFrom("testing" as const, "documentation" as const),
      fails: FastCheck.integer({ min: 0, max: 5 })
    }),
    { minLength: 1, maxLength: 12 }
  ),
  mode: FastCheck.constantFrom("parallel" as const, "sequential" as const, "auto" as const),
  onFailure: FastCheck.constantFrom("skip" as const, "stop" as const, "continue" as const),
  maxParallel: FastCheck.integer({ min: 1, max: 4 }),
  kills: FastCheck.array(FastCheck.integer({ min: 1, max: 6 }), { maxLength: 2 })
}).map(({ kills, maxParallel, mode, onFailure, tasks }) => ({
  submission: {
    mode,
    onFailure,
    maxParallel,
    tasks: tasks.map(({ on, type }, index) =>
      named(`t${index}`, {
        type,
        // Only earlier ones, so that there is no circle.
        dependsOn: on.filter((place) => place < index).map((place) => `t${place}`)
      })
    )
  },
  failing: new Set(tasks.flatMap(({ fails }, index) => (fails === 0 ? [`t${index}`] : []))),
  kills
}))

/** Delegation that starts an attempt at once and ends it a moment later, as the plan says. */
const worker = (failing: ReadonlySet<string>, onStart: Effect.Effect<void>) => {
  const delegate = <E>(request: DelegationRequest<E>) =>
    Effect.gen(function* () {
      const prompt = String(request.call.messages.at(-1)?.content)
      const at = { number: request.attemptsMade + 1, platform: codex, model: "gpt" }
      yield* request.journal.attemptStarted({ ...at, booking, decision: { candidates: [], excluded: [], waitedMs: 0 } })
      yield* onStart
      yield* Effect.async<void>((resume) => {
        const handle = setImmediate(() => resume(Effect.void))
        return Effect.sync(() => clearImmediate(handle))
      })
      if (failing.has(prompt)) {
        const failure = { scope: "request" as const, message: "no" }
        return yield* Effect.fail<DelegationError>(
          new CallRefused({ message: "refused", platform: codex, failure, trace: [] })
        )
      }
      const usage = { inputTokens: 1, cachedInputTokens: 0, outputTokens: 1, reasoningTokens: 0 }
      yield* request.journal.attemptEnded({
        ...at,
        correction: booking,
        durationMs: 1,
        result: { _tag: "Succeeded", usage }
      })
      return {
        completion: { text: prompt, toolCalls: [], finishReason: "stop" as const, model: "gpt", usage },
        platform: codex,
        costUsd: undefined,
        attempts: at.number,
        trace: []
      }
    })
  return {
    layer: Layer.succeed(Delegation, {
      delegate,
      stream: () => Stream.dieMessage("not asked"),
      preview: () => Effect.dieMessage("not asked")
    })
  }
}

/** Whom each task waits for, by the job's mode and its own word. */
const waitsFor = ({ mode, tasks }: JobSubmission): ReadonlyMap<string, ReadonlyArray<string>> => {
  let last: string | undefined
  return new Map(
    tasks.map(({ dependsOn = [], name = "", type }) => {
      const chained = mode === "sequential" || (mode === "auto" && type !== "documentation")
      const all = chained && last !== undefined ? [...dependsOn, last] : [...dependsOn]
      if (chained) last = name
      return [name, all]
    })
  )
}

describe("any job, killed anywhere", () => {
  it.scoped.prop(
    "ends with every task ended, in order, within its bounds, as its word on failures says",
    [plans],
    ([plan]) =>
      Effect.gen(function* () {
        const database = yield* Effect.orDie(sharedMemory)
        let id: Job["id"] | undefined
        for (const kill of plan.kills) {
          let started = 0
          const life: { current: { isOver: boolean } | undefined } = { current: undefined }
          const die = Effect.sync(() => {
            started += 1
            if (started === kill && life.current !== undefined) life.current.isOver = true
          })
          const owner = yield* startMortal(database, worker(plan.failing, die))
          life.current = owner.life
          id ??= (yield* owner.coordinator.jobs.submit(tenant, plan.submission, Option.none())).job.id
          const jobId = id
          yield* eventually(
            Effect.zip(
              Effect.sync(() => owner.life.isOver),
              owner.coordinator.jobs.get(tenant, jobId, {})
            ),
            ([isDead, { state }]) => isDead || state !== "running"
          )
          owner.life.isOver = true
        }
        const { coordinator } = yield* startOn(database, worker(plan.failing, Effect.void))
        const jobId = id ?? (yield* coordinator.jobs.submit(tenant, plan.submission, Option.none())).job.id
        const done = yield* eventually(coordinator.jobs.get(tenant, jobId, {}), ({ state }) => state !== "running")

        // Every task has ended, and the job is what its tasks are.
        const states = new Map(done.tasks.map(({ name = "", state }) => [name as string, state]))
        assert.isTrue([...states.values()].every(isTerminal))
        const all = [...states.values()]
        assert.strictEqual(
          done.state,
          all.includes("failed") ? "failed" : all.includes("cancelled") ? "cancelled" : "succeeded"
        )
        assert.deepStrictEqual(done.counts, {
          total: all.length,
          open: 0,
          succeeded: all.filter((state) => state === "succeeded").length,
          failed: all.filter((state) => state === "failed").length,
          cancelled: all.filter((state) => state === "cancelled").length
        })

        const events = (yield* Effect.forEach(done.tasks, ({ id: taskId, name = "" }) =>
          Effect.flatMap(coordinator.events(tenant, taskId, Option.none()), (stream) =>
            Effect.map(Stream.runCollect(stream), (found) =>
              [...found].map((event) => ({ name: name as string, event }))
            )
          )
        ))
          .flat()
          .sort((a, b) => a.event.id - b.event.id)
        const firstOf = (name: string, types: ReadonlyArray<TaskEvent["type"]>) =>
          events.find((one) => one.name === name && types.includes(one.event.type))?.event.id
        const over: ReadonlyArray<TaskEvent["type"]> = ["task.succeeded", "task.failed", "task.cancelled"]

        // None starts before those it waits for have ended, and none ends twice.
        const dependencies = waitsFor(plan.submission)
        for (const [name, needed] of dependencies) {
          const begun = firstOf(name, ["attempt.started"])
          for (const other of needed) {
            const ended = firstOf(other, over)
            assert(ended !== undefined)
            if (begun !== undefined) assert.isBelow(ended, begun, `${name} before ${other}`)
          }
          assert.lengthOf(
            events.filter((one) => one.name === name && over.includes(one.event.type)),
            1
          )
        }

        // No more at a time than it may.
        const running = new Set<string>()
        for (const { event, name } of events) {
          if (event.type === "attempt.started") running.add(name)
          else if (event.type.startsWith("attempt.") || over.includes(event.type)) running.delete(name)
          assert.isAtMost(running.size, plan.submission.maxParallel ?? 0)
        }

        // What a failure means.
        const own = (name: string) => (plan.failing.has(name) ? "failed" : "succeeded")
        const firstFailure = events.find(({ event }) => event.type === "task.failed")?.event.id
        for (const [name, needed] of dependencies) {
          const state = states.get(name)
          const isLost = needed.some((other) => states.get(other) !== "succeeded")
          switch (plan.submission.onFailure) {
            case "continue":
              assert.strictEqual(state, own(name))
              break
            case "skip":
              assert.strictEqual(state, isLost ? "cancelled" : own(name))
              break
            default: {
              const begun = firstOf(name, ["attempt.started"])
              if (begun === undefined) assert.strictEqual(state, "cancelled")
              else {
                assert.strictEqual(state, own(name))
                if (firstFailure !== undefined) assert.isBelow(begun, firstFailure, `${name} started after the failure`)
              }
            }
          }
        }
      }),
    { fastCheck: { numRuns: 25 }, timeout: 120_000 }
  )
})
