import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { SqlClient } from "@effect/sql/SqlClient"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Option, Scope, TestClock } from "effect"
import { LeaseUnavailable } from "../../src/Domain/Failure.js"
import { Settings } from "../../src/Settings.js"
import { SqlWriter } from "../../src/Sql/Writer.js"
import { Sql } from "../../src/Sql.js"
import { type ClaimedTask, TaskStore } from "../../src/TaskStore.js"
import { taskOf } from "../TaskStore/fixtures.js"
import {
  ask,
  codex,
  error,
  eventually,
  failAttempt,
  firstEvents,
  makeScript,
  reaches,
  settings,
  settle,
  start,
  startOn,
  storeLayer,
  submitted,
  succeed,
  tenant
} from "./harness.js"

const decision = { candidates: [], excluded: [], waitedMs: 0 }

const newTask = (store: TaskStore["Type"], n: number) =>
  Effect.flatMap(store.classOf([codex], "MEDIUM"), ({ id }) => store.insert(taskOf(n, id)))

/** An owner that claims, starts attempts where told to, and is gone without a word. */
const deadOwner = (
  client: Layer.Layer<SqlClient | SqlWriter>,
  work: (store: TaskStore["Type"]) => Effect.Effect<unknown, unknown>
) =>
  Effect.flatMap(TaskStore, work).pipe(Effect.provide(Layer.provide(storeLayer, client)), Effect.scoped, Effect.orDie)

const claimAll = (store: TaskStore["Type"]) =>
  Effect.flatMap(store.classOf([codex], "MEDIUM"), ({ id }) => store.claim(id, 100))

const startAttempt = (store: TaskStore["Type"]) => (task: ClaimedTask) =>
  store.attemptStarted(task, { number: task.attempts + 1, platform: codex, model: "gpt", decision })

const sharedMemory = Effect.map(Layer.build(Sql.layerMemory), (context) => Layer.succeedContext(context))

describe("Coordinator after its owner died", () => {
  it.scoped("goes on with queued, claimed, running and waiting tasks at once, from the same file", () =>
    Effect.gen(function* () {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "dream-team-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
      )
      const file = Sql.layer.pipe(
        Layer.provide(Settings.layer({ ...settings, database: join(folder, "deep", "tasks.db") })),
        Layer.orDie
      )
      yield* deadOwner(file, (store) =>
        Effect.gen(function* () {
          for (const n of [0, 1, 2]) yield* newTask(store, n)
          const [running, waiting] = yield* claimAll(store)
          assert(running !== undefined && waiting !== undefined)
          yield* startAttempt(store)(running)
          yield* store.park(waiting, 3_600_000, "all busy")
          yield* newTask(store, 3)
        })
      )
      const script = yield* makeScript
      const { coordinator, store } = yield* startOn(file, script)
      assert.strictEqual(store.epoch, 2)
      for (const n of [0, 1, 2, 3]) yield* script.say(`task ${n}`, start, succeed(`answer ${n}`))
      const { tasks } = yield* eventually(coordinator.list(tenant, {}), ({ tasks }) =>
        tasks.every(({ state }) => state === "succeeded")
      )
      assert.strictEqual(tasks.length, 4)
      const interrupted = tasks.find(({ preview }) => preview === "task 0")
      assert(interrupted !== undefined)
      assert.deepStrictEqual(
        (yield* coordinator.attempts(tenant, interrupted.id)).map(({ outcome }) => outcome),
        ["interrupted", "succeeded"]
      )
      const calls = script.seen.filter(({ prompt, what }) => prompt === "task 0" && what === "called")
      assert.deepStrictEqual(
        calls.map(({ made, spent }) => ({ made, spent })),
        [{ made: 1, spent: 0 }]
      )
      assert.deepStrictEqual(
        (yield* firstEvents(coordinator, interrupted.id, 10)).map(({ type }) => type),
        [
          "task.queued",
          "attempt.started",
          "attempt.interrupted",
          "attempt.started",
          "attempt.succeeded",
          "task.succeeded"
        ]
      )
    })
  )

  it.scoped("counts failed attempts against the budget, not those its owner's death cut", () =>
    Effect.gen(function* () {
      const client = yield* sharedMemory
      yield* deadOwner(client, (store) =>
        Effect.gen(function* () {
          yield* newTask(store, 0)
          const [task] = yield* claimAll(store)
          assert(task !== undefined)
          yield* startAttempt(store)(task)
          yield* store.attemptEnded(task, {
            number: 1,
            platform: codex,
            model: "gpt",
            durationMs: 5,
            outcome: { _tag: "Failed", failure: { scope: "platform", message: "down" } }
          })
          yield* store.attemptStarted(task, { number: 2, platform: codex, model: "gpt", decision })
        })
      )
      const script = yield* makeScript
      yield* startOn(client, script)
      const [call] = yield* eventually(
        Effect.sync(() => script.seen),
        (seen) => seen.length > 0
      )
      assert.strictEqual(call?.made, 2)
      assert.strictEqual(call?.spent, 1)
    })
  )

  it.scoped("fails a task as poison once three owners died during its attempts", () =>
    Effect.gen(function* () {
      const client = yield* sharedMemory
      yield* deadOwner(client, (store) => newTask(store, 0))
      for (let death = 1; death <= 3; death++) {
        yield* deadOwner(client, (store) =>
          Effect.gen(function* () {
            yield* store.recover
            const claimed = yield* claimAll(store)
            assert.strictEqual(claimed.length, 1)
            yield* Effect.forEach(claimed, startAttempt(store))
          })
        )
      }
      const script = yield* makeScript
      const { coordinator } = yield* startOn(client, script)
      const [task] = (yield* coordinator.list(tenant, {})).tasks
      assert.strictEqual(task?.state, "failed")
      assert.strictEqual(task?.error?.type, "poison")
      yield* settle
      assert.deepStrictEqual(script.seen, [])
      assert(task !== undefined)
      const again = yield* coordinator.retry(tenant, task.id)
      yield* script.say("task 0", start, succeed("harmless after all"))
      yield* reaches(coordinator, again.id, "succeeded")
    })
  )

  it.scoped("does not blame a task whose owner died while it only waited for its turn", () =>
    Effect.gen(function* () {
      const client = yield* sharedMemory
      yield* deadOwner(client, (store) => newTask(store, 0))
      for (let death = 0; death < 5; death++) {
        yield* deadOwner(client, (store) => Effect.zipRight(store.recover, claimAll(store)))
      }
      const script = yield* makeScript
      const { coordinator } = yield* startOn(client, script)
      const [task] = (yield* coordinator.list(tenant, {})).tasks
      assert.strictEqual(task?.state, "queued")
    })
  )

  it.scoped("takes up all that is queued, however much more than can be alive at once", () =>
    Effect.gen(function* () {
      const client = yield* sharedMemory
      const numbers = Array.from({ length: 3 * settings.tasks.livePerClass }, (_, n) => n)
      yield* deadOwner(client, (store) => Effect.forEach(numbers, (n) => newTask(store, n)))
      const script = yield* makeScript
      yield* Effect.forEach(numbers, (n) => script.say(`task ${n}`, start, succeed("done")))
      const { coordinator } = yield* startOn(client, script)
      yield* eventually(
        coordinator.list(tenant, { state: "succeeded" }),
        ({ tasks }) => tasks.length === numbers.length
      )
    })
  )

  it.scoped("fails what missed its deadline while nobody was there", () =>
    Effect.gen(function* () {
      const client = yield* sharedMemory
      yield* deadOwner(client, (store) => newTask(store, 0))
      yield* TestClock.adjust("2 days")
      const { coordinator } = yield* startOn(client, yield* makeScript)
      const { tasks } = yield* eventually(coordinator.list(tenant, {}), ({ tasks }) => tasks[0]?.state === "failed")
      assert.strictEqual(tasks[0]?.error?.type, "deadline")
    })
  )
})

describe("Coordinator that is shut down", () => {
  const shutDown = (scope: Scope.CloseableScope) => Effect.fork(Scope.close(scope, Exit.void))

  it.scoped("lets running attempts finish, and starts nothing more", () =>
    Effect.gen(function* () {
      const client = yield* sharedMemory
      const script = yield* makeScript
      const scope = yield* Scope.make()
      const { coordinator } = yield* Scope.extend(startOn(client, script), scope)
      const running = yield* submitted(coordinator, ask("running"))
      yield* submitted(coordinator, ask("idle"))
      yield* script.say("running", start)
      yield* reaches(coordinator, running.id, "running")
      const closing = yield* shutDown(scope)
      yield* eventually(
        Effect.sync(() => script.count("idle", "interrupted")),
        (count) => count === 1
      )
      const refused = yield* Effect.exit(coordinator.submit(tenant, ask("late"), Option.none()))
      assert.isTrue(Exit.isFailure(refused))
      yield* script.say("running", succeed("in time"))
      yield* closing.await
      const next = yield* startOn(client, script)
      assert.strictEqual((yield* next.coordinator.get(tenant, running.id)).result?.text, "in time")
      assert.strictEqual((yield* next.coordinator.list(tenant, {})).tasks.length, 2)
    })
  )

  it.scoped("lets an attempt go on whose start is just being written", () =>
    Effect.gen(function* () {
      const context = yield* Layer.build(Sql.layerMemory)
      const writer = Context.get(context, SqlWriter)
      const gate = yield* Effect.makeLatch(true)
      const held = SqlWriter.of({
        ...writer,
        write: (operation) => Effect.zipRight(Effect.uninterruptible(gate.await), writer.write(operation))
      })
      const client = Layer.succeedContext(Context.add(context, SqlWriter, held))
      const script = yield* makeScript
      const scope = yield* Scope.make()
      const { coordinator } = yield* Scope.extend(startOn(client, script), scope)
      const task = yield* submitted(coordinator, ask("starting"))
      yield* eventually(
        Effect.sync(() => script.count("starting", "called")),
        (count) => count === 1
      )
      yield* settle
      yield* gate.close
      yield* script.say("starting", start)
      yield* settle
      const closing = yield* shutDown(scope)
      yield* settle
      yield* gate.open
      yield* script.say("starting", succeed("in time"))
      yield* closing.await
      const next = yield* startOn(client, script)
      assert.strictEqual((yield* next.coordinator.get(tenant, task.id)).result?.text, "in time")
      assert.strictEqual((yield* next.coordinator.attempts(tenant, task.id)).length, 1)
    })
  )

  it.scoped("journals an attempt that outlasts the grace as interrupted, and the next start goes on with it", () =>
    Effect.gen(function* () {
      const client = yield* sharedMemory
      const script = yield* makeScript
      const scope = yield* Scope.make()
      const { coordinator } = yield* Scope.extend(startOn(client, script), scope)
      const task = yield* submitted(coordinator, ask("slow"))
      yield* script.say("slow", start)
      yield* reaches(coordinator, task.id, "running")
      const closing = yield* shutDown(scope)
      yield* settle
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual(script.count("slow", "interrupted"), 0)
      yield* TestClock.adjust("1 second")
      yield* closing.await
      assert.strictEqual(script.count("slow", "interrupted"), 1)
      // It was given back in order: nobody died over it.
      const left = yield* Effect.provide(
        Effect.flatMap(SqlClient, (sql) => sql`SELECT state, claim_epoch, owner_deaths FROM tasks`),
        client
      )
      assert.deepStrictEqual(left, [{ state: "queued", claim_epoch: null, owner_deaths: 0 }])
      const next = yield* startOn(client, script)
      const [attempt] = yield* next.coordinator.attempts(tenant, task.id)
      assert.strictEqual(attempt?.outcome, "interrupted")
      yield* script.say("slow", start, succeed("after all"))
      const done = yield* reaches(next.coordinator, task.id, "succeeded")
      assert.strictEqual(done.attempts, 2)
    })
  )

  it.scoped("ends a task's work after the attempt that failed meanwhile", () =>
    Effect.gen(function* () {
      const client = yield* sharedMemory
      const script = yield* makeScript
      const scope = yield* Scope.make()
      const { coordinator } = yield* Scope.extend(startOn(client, script), scope)
      const task = yield* submitted(coordinator, ask("fails"))
      yield* script.say("fails", start)
      yield* reaches(coordinator, task.id, "running")
      const closing = yield* shutDown(scope)
      yield* settle
      yield* script.say("fails", failAttempt)
      yield* closing.await
      assert.strictEqual(script.count("fails", "sent"), 1)
      const parked = error(new LeaseUnavailable({ message: "busy", reasons: [] }))
      yield* script.say("fails", parked)
      const next = yield* startOn(client, script)
      yield* reaches(next.coordinator, task.id, "waiting")
      assert.strictEqual(script.seen.at(-1)?.spent, 1)
    })
  )
})
