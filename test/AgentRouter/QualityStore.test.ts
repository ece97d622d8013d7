import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { QualityStore, type SavedQuality } from "../../src/AgentRouter/QualityStore.js"
import { codex, qwen } from "../Coordinator/harness.js"
import { describeOnEachDatabase } from "../support/databases.js"

const quality = (rest: Partial<SavedQuality> = {}): SavedQuality => ({
  platform: codex,
  model: "gpt",
  reliability: 0.123456789,
  speed: 1.75,
  savedAt: 1_795_000_000_000,
  ...rest
})

const byModel = (all: ReadonlyArray<SavedQuality>) => [...all].sort((a, b) => (a.model < b.model ? -1 : 1))

describeOnEachDatabase("QualityStore", (database) => {
  it.scoped("gives back what was saved last, and nothing of before", () =>
    Effect.gen(function* () {
      const { load, save } = yield* QualityStore
      assert.deepStrictEqual(yield* load, [])
      yield* save([quality(), quality({ platform: qwen, model: "old" })])
      const last = [quality({ reliability: 1 }), quality({ model: "größer/modell:1", speed: 0.25 })]
      yield* save(last)
      assert.deepStrictEqual(byModel(yield* load), last)
      yield* save([])
      assert.deepStrictEqual(yield* load, [])
    }).pipe(Effect.provide(Layer.provide(QualityStore.layer, database)))
  )

  it.scoped("keeps it beyond the process that saved it", () =>
    Effect.gen(function* () {
      const shared = Layer.succeedContext(yield* Layer.build(database))
      const inProcess = <A, E>(work: Effect.Effect<A, E, QualityStore>) =>
        Effect.provide(work, Layer.fresh(Layer.provide(QualityStore.layer, shared)))
      yield* inProcess(Effect.flatMap(QualityStore, ({ save }) => save([quality()])))
      assert.deepStrictEqual(yield* inProcess(Effect.flatMap(QualityStore, ({ load }) => load)), [quality()])
    })
  )
})
