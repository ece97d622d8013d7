import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Stream } from "effect"
import type { TaskEvent } from "../src/Domain/Event.js"
import { Events } from "../src/Events.js"
import { TaskStore } from "../src/TaskStore.js"
import { codex, settle, storeLayer, tenant } from "./Coordinator/harness.js"
import { describeOnEachDatabase } from "./support/databases.js"
import { idOf, taskOf } from "./TaskStore/fixtures.js"

const id = idOf(1)

const oneTask = Effect.gen(function* () {
  const store = yield* TaskStore
  const { id: classId } = yield* store.classOf([codex], "MEDIUM")
  yield* store.insert(taskOf(1, classId))
  const [claim] = yield* store.claim(classId, 1)
  assert(claim !== undefined)
  return {
    store,
    claim,
    events: yield* Events,
    cancel: store.cancel(tenant, id),
    retry: store.retry(tenant, id)
  }
})

const ids = (events: Iterable<TaskEvent>) => Array.from(events, (event) => event.id)
const upTo = (count: number) => Array.from({ length: count }, (_, n) => n + 1)

describeOnEachDatabase("Events", (database) => {
  const onIt = storeLayer.pipe(Layer.provideMerge(database))

  it.scoped("loses nothing and repeats nothing, however slow the reader", () =>
    Effect.gen(function* () {
      const { cancel, claim, events, store } = yield* oneTask
      const seen: Array<TaskEvent> = []
      const slow = yield* Stream.unwrap(events.stream(id, 0)).pipe(
        Stream.runForEach((event) =>
          Effect.zipRight(
            Effect.sync(() => seen.push(event)),
            event.id % 50 === 0 ? settle : Effect.void
          )
        ),
        Effect.fork
      )
      yield* Effect.yieldNow()
      const decision = { candidates: [], excluded: [], waitedMs: 0 }
      yield* Effect.forEach(upTo(150), (number) =>
        Effect.zipRight(
          store.attemptStarted(claim, { number, platform: codex, model: "gpt", decision }),
          store.attemptEnded(claim, {
            number,
            platform: codex,
            model: "gpt",
            durationMs: 1,
            outcome: { _tag: "Ignored" }
          })
        )
      )
      yield* cancel
      yield* Fiber.join(slow)
      assert.deepStrictEqual(ids(seen), upTo(302))
      assert.strictEqual(seen.at(-1)?.type, "task.cancelled")
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("serves many readers of one task, and those that leave disturb nobody", () =>
    Effect.gen(function* () {
      const { cancel, events } = yield* oneTask
      const leaving = yield* Effect.fork(Stream.runDrain(Stream.unwrap(events.stream(id, 0))))
      const readers = yield* Effect.forEach(upTo(5), () =>
        Effect.fork(Stream.runCollect(Stream.unwrap(events.stream(id, 0))))
      )
      yield* settle
      yield* Fiber.interrupt(leaving)
      yield* cancel
      for (const reader of readers) assert.deepStrictEqual(ids(yield* Fiber.join(reader)), [1, 2])
    }).pipe(Effect.provide(onIt))
  )

  it.scoped("goes on after the event a reader saw last", () =>
    Effect.gen(function* () {
      const { cancel, events, retry } = yield* oneTask
      yield* Effect.repeatN(Effect.zipRight(cancel, retry), 99)
      yield* cancel
      for (const after of [0, 1, 100, 201, 202]) {
        const rest = yield* Stream.runCollect(Stream.unwrap(events.stream(id, after)))
        assert.deepStrictEqual(ids(rest), upTo(202).slice(after))
      }
    }).pipe(Effect.provide(onIt))
  )
})
