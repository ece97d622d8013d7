import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Layer, TestClock } from "effect"
import { Budgets } from "../../src/Budgets.js"
import { Coordinator } from "../../src/Coordinator.js"
import { ServiceUnavailable } from "../../src/Domain/ApiError.js"
import { CallRefused, LeaseUnavailable } from "../../src/Domain/Failure.js"
import { Events } from "../../src/Events.js"
import { Settings } from "../../src/Settings.js"
import { Sql } from "../../src/Sql.js"
import { TaskStore } from "../../src/TaskStore.js"
import { jumpingClock } from "../support/jumpingClock.js"
import {
  ask,
  codex,
  error,
  eventually,
  failureOf,
  makeDetector,
  makeScript,
  reaches,
  settings,
  settle,
  submitted,
  succeed,
  tenant,
  validator
} from "./harness.js"

type Store = TaskStore["Type"]

const noAnswer = new ServiceUnavailable({ message: "the database does not answer" })

const refused = new CallRefused({
  message: "refused",
  platform: codex,
  failure: { scope: "request", message: "refused" },
  trace: []
})

const busyUntil = (earliestAt: number) =>
  error(new LeaseUnavailable({ message: "nobody is free", reasons: [], earliestAt }))

/** A coordinator whose store is changed by the test. */
const startWith = (change: (store: Store, detector: Effect.Effect.Success<typeof makeDetector>) => Store) =>
  Effect.gen(function* () {
    const script = yield* makeScript
    const detector = yield* makeDetector
    const changed = Layer.effect(
      TaskStore,
      Effect.map(TaskStore, (store) => change(store, detector))
    ).pipe(Layer.provide(TaskStore.layer))
    const context = yield* Layer.build(
      Coordinator.layer.pipe(
        Layer.provide([Layer.provideMerge(changed, Events.layer), Budgets.layer]),
        Layer.provide([Layer.orDie(Sql.layerMemory), script.layer, detector.layer, validator, Settings.layer(settings)])
      )
    )
    return { coordinator: yield* Effect.provide(Coordinator, context), script, detector }
  })

describe("a waiting task is woken", () => {
  it.scoped("though the database failed while the next instant was looked up", () =>
    Effect.gen(function* () {
      let failing = 0
      const { coordinator, script } = yield* startWith((store) => ({
        ...store,
        nextInstant: Effect.suspend(() => (failing-- > 0 ? Effect.fail(noAnswer) : store.nextInstant))
      }))
      yield* script.say("first", busyUntil(60_000), succeed("1"))
      yield* script.say("second", busyUntil(120_000), succeed("2"))
      const first = yield* submitted(coordinator, ask("first"))
      const second = yield* submitted(coordinator, ask("second"))
      yield* reaches(coordinator, first.id, "waiting")
      yield* reaches(coordinator, second.id, "waiting")
      failing = 1
      yield* TestClock.adjust("61 seconds")
      yield* reaches(coordinator, first.id, "succeeded")
      yield* TestClock.adjust("61 seconds")
      yield* reaches(coordinator, second.id, "succeeded")
    })
  )

  it.scoped("though the database failed after some of the due ones were queued", () =>
    Effect.gen(function* () {
      let failing = 0
      const { coordinator, script } = yield* startWith((store) => ({
        ...store,
        wakeDue: Effect.suspend(() =>
          failing-- > 0 ? Effect.zipRight(store.wakeDue, Effect.fail(noAnswer)) : store.wakeDue
        )
      }))
      yield* script.say("only", busyUntil(60_000), succeed("1"))
      const task = yield* submitted(coordinator, ask("only"))
      yield* reaches(coordinator, task.id, "waiting")
      failing = 1
      yield* TestClock.adjust("61 seconds")
      yield* settle
      yield* TestClock.adjust("2 seconds")
      yield* reaches(coordinator, task.id, "succeeded")
    })
  )

  it.scoped("after the time it was to wait, though the wall clock was set back", () =>
    Effect.gen(function* () {
      const { clock, jump, jumping } = yield* jumpingClock
      yield* Effect.gen(function* () {
        const { coordinator, script } = yield* startWith((store) => store)
        const now = yield* Clock.currentTimeMillis
        yield* script.say("patient", busyUntil(now + 60_000), succeed("done"))
        const task = yield* submitted(coordinator, ask("patient"))
        yield* reaches(coordinator, task.id, "waiting")
        jump(-3_600_000)
        yield* Effect.withClock(TestClock.adjust("121 seconds"), clock)
        yield* reaches(coordinator, task.id, "succeeded")
      }).pipe(Effect.withClock(jumping))
    })
  )

  it.scoped("by a platform that is back, though the database failed halfway", () =>
    Effect.gen(function* () {
      let failing = 0
      const { coordinator, detector, script } = yield* startWith((store) => ({
        ...store,
        wakeClass: (classId) =>
          Effect.flatMap(store.wakeClass(classId), (woken) =>
            failing-- > 0 ? Effect.fail(noAnswer) : Effect.succeed(woken)
          )
      }))
      const prompts = ["HIGH", "MEDIUM", "LOW"] as const
      const tasks = yield* Effect.forEach(prompts, (priority) =>
        Effect.gen(function* () {
          yield* script.say(priority, busyUntil(20 * 3_600_000), succeed("done"))
          const task = yield* submitted(coordinator, ask(priority, { priority }))
          yield* reaches(coordinator, task.id, "waiting")
          return task
        })
      )
      failing = 1
      yield* detector.publish({ platform: codex, status: "available", reasons: [] })
      yield* settle
      yield* TestClock.adjust("3 seconds")
      for (const task of tasks) yield* reaches(coordinator, task.id, "succeeded")
    })
  )

  it.scoped("though nobody heard that it was stored as waiting", () =>
    Effect.gen(function* () {
      let lost = 1
      const { coordinator, script } = yield* startWith((store) => ({
        ...store,
        park: (...args) => Effect.tap(store.park(...args), () => (lost-- > 0 ? noAnswer : Effect.void))
      }))
      yield* script.say("parked", busyUntil(60_000), succeed("done"))
      const task = yield* submitted(coordinator, ask("parked"))
      yield* reaches(coordinator, task.id, "waiting")
      yield* TestClock.adjust("61 seconds")
      yield* reaches(coordinator, task.id, "succeeded")
    })
  )

  it.scoped("though nobody heard that it was accepted, or queued again", () =>
    Effect.gen(function* () {
      let lost = 1
      const forgetful = <A, E>(write: Effect.Effect<A, E>) =>
        Effect.tap(write, () => (lost-- > 0 ? noAnswer : Effect.void))
      const { coordinator, script } = yield* startWith((store) => ({
        ...store,
        insert: (task) => forgetful(store.insert(task)),
        retry: (...args) => forgetful(store.retry(...args))
      }))
      yield* script.say("stored", error(refused))
      assert.strictEqual(
        failureOf(yield* Effect.exit(submitted(coordinator, ask("stored"))))?._tag,
        "ServiceUnavailable"
      )
      const { tasks } = yield* coordinator.list(tenant, {})
      const [task = assert.fail("it was not stored")] = tasks
      yield* reaches(coordinator, task.id, "failed")
      lost = 1
      assert.strictEqual(failureOf(yield* Effect.exit(coordinator.retry(tenant, task.id)))?._tag, "ServiceUnavailable")
      yield* script.say("stored", succeed("done"))
      yield* reaches(coordinator, task.id, "succeeded")
    })
  )

  it.scoped("by a platform that comes back while the task is on its way into the store", () =>
    Effect.gen(function* () {
      let parks = 0
      const { coordinator, script } = yield* startWith((store, detector) => ({
        ...store,
        park: (...args) =>
          Effect.zipRight(
            Effect.suspend(() =>
              parks++ === 0
                ? Effect.zipRight(detector.publish({ platform: codex, status: "available", reasons: [] }), settle)
                : Effect.void
            ),
            store.park(...args)
          )
      }))
      yield* script.say("racing", busyUntil(20 * 3_600_000), succeed("done"))
      const task = yield* submitted(coordinator, ask("racing"))
      yield* eventually(
        Effect.sync(() => script.count("racing", "called")),
        (count) => count === 2
      )
      assert.strictEqual(parks, 1)
      yield* reaches(coordinator, task.id, "succeeded")
    })
  )

  it.scoped("by a platform that comes back while the task still waits for a lease", () =>
    Effect.gen(function* () {
      const { coordinator, detector, script } = yield* startWith((store) => store)
      const task = yield* submitted(coordinator, ask("late"))
      yield* eventually(
        Effect.sync(() => script.count("late", "called")),
        (count) => count === 1
      )
      yield* detector.publish({ platform: codex, status: "available", reasons: [] })
      yield* settle
      yield* script.say("late", busyUntil(20 * 3_600_000), succeed("done"))
      yield* reaches(coordinator, task.id, "succeeded")
    })
  )
})
