import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option, Stream } from "effect"
import { Coordinator } from "../../../src/Coordinator.js"
import { layer as transportLayer } from "../../../src/Platforms/Transport.js"
import { Settings } from "../../../src/Settings.js"
import { Simulator } from "../../../src/Simulator.js"
import { Team } from "../../../src/Team.js"
import { tenant } from "../harness.js"

const ids = ["codex", "qwen"] as const

describe("a HIGH task whose platform breaks off, over real HTTP", () => {
  it.scopedLive("is taken unchecked where the check gives no verdict, and ends with what had come", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make({ ...Simulator.defaults, latencyScale: 0 })
      const settings = Settings.make({
        database: ":memory:",
        tasks: { maxAttempts: 1 },
        validation: { enabled: true },
        alternatives: { order: ["partial"] },
        platforms: ids.map((id) =>
          Settings.platformDefaults(id, { apiKey: simulator.apiKeys[id], baseUrl: simulator.baseUrls[id] })
        )
      })
      yield* simulator.fault({ fault: "reset", platform: "codex", after: 0.5 })
      yield* Effect.gen(function* () {
        const coordinator = yield* Coordinator
        const { task } = yield* coordinator.submit(
          tenant,
          { prompt: "Tell a long story", priority: "HIGH", requires: ["vision"] },
          Option.none()
        )
        // the simulator answers with JSON, but of its own making
        assert.deepInclude(task.validation, { status: "unchecked", why: "its answer is no verdict" })
        assert.isAbove(task.validation?.costUsd ?? 0, 0)
        yield* Effect.flatMap(coordinator.events(tenant, task.id, Option.none()), Stream.runDrain)
        const ended = yield* coordinator.get(tenant, task.id)
        assert.deepInclude(ended, { state: "succeeded", partial: true, attempts: 1 })
        assert.include(ended.result?.text ?? "", "Simulated answer of codex")
        assert.match(ended.result?.note ?? "", /^not whole: what attempt 1 on codex had answered/)
      }).pipe(Effect.provide(Team.layer.pipe(Layer.provide(transportLayer), Layer.provide(Settings.layer(settings)))))
    })
  )
})
