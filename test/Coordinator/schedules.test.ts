import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, FastCheck, Layer, Logger, Scope, TestClock, TestContext } from "effect"
import { Budgets } from "../../src/Budgets.js"
import { Coordinator } from "../../src/Coordinator.js"
import { ServiceUnavailable } from "../../src/Domain/ApiError.js"
import { isFinal } from "../../src/Domain/Event.js"
import { AttemptsExhausted, LeaseUnavailable } from "../../src/Domain/Failure.js"
import { isTerminal, type TaskId } from "../../src/Domain/Task.js"
import { Settings } from "../../src/Settings.js"
import { Sql } from "../../src/Sql.js"
import { TaskStore } from "../../src/TaskStore.js"
import {
  ask,
  error,
  failAttempt,
  firstEvents,
  makeDetector,
  makeScript,
  type Step,
  settings,
  settle,
  start,
  storeLayer,
  submitted,
  succeed,
  tenant,
  validator
} from "./harness.js"

type Command =
  | { readonly _tag: "Submit"; readonly qwen: boolean }
  | { readonly _tag: "Cancel" | "Retry"; readonly which: number }
  | { readonly _tag: "Step"; readonly which: number; readonly step: Step }
  | { readonly _tag: "Kill" | "Restart" | "Wait" }

const step: FastCheck.Arbitrary<Step> = FastCheck.oneof(
  FastCheck.constantFrom<Step>(start, start, failAttempt, succeed("done"), { _tag: "Die" }),
  FastCheck.constantFrom<Step>(
    error(new LeaseUnavailable({ message: "busy", reasons: [] })),
    error(new AttemptsExhausted({ message: "enough", attempts: 1 }))
  )
)

const which = FastCheck.nat(9)

const command: FastCheck.Arbitrary<Command> = FastCheck.oneof(
  {
    weight: 4,
    arbitrary: FastCheck.record({ _tag: FastCheck.constant("Submit" as const), qwen: FastCheck.boolean() })
  },
  { weight: 2, arbitrary: FastCheck.record({ _tag: FastCheck.constant("Cancel" as const), which }) },
  { weight: 2, arbitrary: FastCheck.record({ _tag: FastCheck.constant("Retry" as const), which }) },
  { weight: 8, arbitrary: FastCheck.record({ _tag: FastCheck.constant("Step" as const), which, step }) },
  {
    weight: 3,
    arbitrary: FastCheck.record({ _tag: FastCheck.constantFrom("Kill" as const, "Restart" as const, "Wait" as const) })
  }
)

/** A store whose process can die: from then on nothing it is told reaches the disk. */
const mortal = (state: { dead: boolean }) =>
  Layer.provideMerge(
    Layer.effect(
      TaskStore,
      Effect.map(TaskStore, (store) => {
        const gated = <A, E>(effect: Effect.Effect<A, E>) =>
          Effect.suspend<A, E | ServiceUnavailable, never>(() =>
            state.dead ? Effect.fail(new ServiceUnavailable({ message: "dead" })) : effect
          )
        return TaskStore.of({
          ...store,
          claim: (...args) => gated(store.claim(...args)),
          attemptStarted: (...args) => gated(store.attemptStarted(...args)),
          attemptEnded: (...args) => gated(store.attemptEnded(...args)),
          finish: (...args) => gated(store.finish(...args)),
          park: (...args) => gated(store.park(...args)),
          release: (...args) => gated(store.release(...args)),
          wakeDue: gated(store.wakeDue),
          wakeClass: (id) => gated(store.wakeClass(id)),
          expire: gated(store.expire)
        })
      })
    ),
    storeLayer
  )

const run = (commands: ReadonlyArray<Command>) =>
  Effect.gen(function* () {
    const client = Layer.succeedContext(yield* Layer.build(Sql.layerMemory))
    const script = yield* makeScript
    const detector = yield* makeDetector
    const begin = Effect.gen(function* () {
      const scope = yield* Scope.make()
      const state = { dead: false }
      const layer = Coordinator.layer.pipe(
        Layer.provide(mortal(state)),
        Layer.provide([client, script.layer, detector.layer, validator, Budgets.layer]),
        Layer.provide(Settings.layer({ ...settings, shutdownGraceMs: 0 }))
      )
      const coordinator = yield* Effect.provide(Coordinator, yield* Scope.extend(Layer.build(layer), scope))
      return { scope, state, coordinator }
    })

    let process = yield* begin
    const tasks: Array<{ readonly id: TaskId; readonly prompt: string }> = []
    const nth = (n: number) => tasks[n % Math.max(1, tasks.length)]

    for (const command of commands) {
      switch (command._tag) {
        case "Submit": {
          const prompt = `${command.qwen ? "qwen" : "codex"} ${tasks.length}`
          tasks.push({ id: (yield* submitted(process.coordinator, ask(prompt))).id, prompt })
          break
        }
        case "Cancel":
        case "Retry": {
          const task = nth(command.which)
          if (task === undefined) break
          const act = command._tag === "Cancel" ? process.coordinator.cancel : process.coordinator.retry
          yield* Effect.exit(act(tenant, task.id))
          break
        }
        case "Step": {
          const task = nth(command.which)
          if (task !== undefined) yield* script.say(task.prompt, command.step)
          if (command.which % 2 === 0) yield* settle
          break
        }
        case "Wait":
          yield* settle
          yield* TestClock.adjust("31 seconds")
          break
        case "Kill":
        case "Restart":
          process.state.dead = command._tag === "Kill"
          yield* Scope.close(process.scope, Exit.void)
          process = yield* begin
      }
    }

    const { coordinator } = process
    const unfinished = Effect.filter(tasks, ({ id }) =>
      Effect.map(coordinator.get(tenant, id), ({ state }) => !isTerminal(state))
    )
    let left = yield* unfinished
    for (let round = 0; left.length > 0 && round < 100; round++) {
      yield* Effect.forEach(left, ({ prompt }) => script.say(prompt, succeed("done")))
      yield* settle
      left = yield* unfinished
      if (left.length > 0) yield* TestClock.adjust("31 seconds")
    }
    assert.deepStrictEqual(left, [])
    const listed = (yield* coordinator.list(tenant, { limit: 200 })).tasks
    assert.strictEqual(listed.length, tasks.length)
    for (const { id } of tasks) {
      const task = yield* coordinator.get(tenant, id)
      const events = yield* firstEvents(coordinator, id, 10_000)
      const attempts = yield* coordinator.attempts(tenant, id)
      assert.deepStrictEqual(
        attempts.map(({ number }) => number),
        attempts.map((_, index) => index + 1)
      )
      assert.isTrue(attempts.every(({ outcome }) => outcome !== "running"))
      assert.isAtMost(attempts.filter(({ outcome }) => outcome === "succeeded").length, 1)
      assert.strictEqual(task.result !== undefined, task.state === "succeeded")
      assert.strictEqual(task.error !== undefined, task.state === "failed")
      // Every life of a task, from its submission or a retry on, has exactly one end, and nothing comes after it.
      let over = false
      for (const event of events) {
        if (over) assert.strictEqual(event.type, "task.retried")
        over = isFinal(event)
      }
      assert.isTrue(over)
      assert.strictEqual(
        events.filter(({ type }) => type === "task.succeeded").length,
        task.result === undefined ? 0 : 1
      )
      assert.strictEqual(
        events.filter(({ type }) => type === "attempt.started").length,
        events.filter(({ type }) => type.startsWith("attempt.") && type !== "attempt.started").length
      )
    }
    yield* Scope.close(process.scope, Exit.void)
  }).pipe(Effect.scoped, Effect.provide(Logger.remove(Logger.defaultLogger)), Effect.provide(TestContext.TestContext))

describe("Coordinator under any schedule", () => {
  it(
    "never loses a task and never gives it two results",
    () =>
      FastCheck.assert(
        FastCheck.asyncProperty(FastCheck.array(command, { minLength: 5, maxLength: 30 }), (commands) =>
          Effect.runPromise(run(commands))
        ),
        { numRuns: 25 }
      ),
    60_000
  )

  it.scoped("keeps what a crash interrupts between any two steps", () =>
    Effect.promise(() =>
      Effect.runPromise(
        run([
          { _tag: "Submit", qwen: false },
          { _tag: "Step", which: 0, step: start },
          { _tag: "Kill" },
          { _tag: "Step", which: 0, step: failAttempt },
          { _tag: "Kill" },
          { _tag: "Cancel", which: 0 },
          { _tag: "Retry", which: 0 },
          { _tag: "Kill" }
        ])
      )
    )
  )
})
