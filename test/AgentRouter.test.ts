import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { AgentRouter } from "../src/AgentRouter.js"
import { Benchmark } from "../src/Benchmark.js"
import type { Requirement } from "../src/Domain/Lease.js"
import { PlatformId } from "../src/Domain/Platform.js"
import { Settings } from "../src/Settings.js"
import * as Testing from "../src/Testing.js"

const price = { input: 1, output: 2, asOf: "2026-11-01" }

const team: ReadonlyArray<Testing.Script> = [
  {
    id: "small",
    settings: { capabilities: ["text"], contextWindow: 8_000, suitability: { analysis: 0.9 }, weight: 1 }
  },
  {
    id: "large",
    settings: {
      capabilities: ["text", "vision", "tools"],
      contextWindow: 200_000,
      suitability: { analysis: 0.6 },
      prices: { "org/other": price }
    }
  },
  { id: "heavy", settings: { contextWindow: 100_000, suitability: { analysis: 0.5, documentation: 0 }, weight: 3 } }
]

const layerOf = (scripts: ReadonlyArray<Testing.Script>) =>
  AgentRouter.layer.pipe(
    Layer.provide([Benchmark.layer, Testing.platforms(scripts)]),
    Layer.provide(
      Settings.layer(
        Testing.settings(scripts, { absent: [{ id: PlatformId.make("gemini"), reason: "it has no API key" }] })
      )
    )
  )

const need = (over: Partial<Requirement> = {}): Requirement => ({ capabilities: [], contextTokens: 1_000, ...over })

const routed = (requirement: Requirement) =>
  Effect.gen(function* () {
    const { route } = yield* AgentRouter
    const { candidates, excluded } = yield* route(requirement, "analysis")
    return {
      candidates: candidates.map(({ platform, model }) => `${platform}:${model}`),
      excluded: Object.fromEntries(excluded.map(({ platform, reason }) => [platform, reason]))
    }
  })

describe("AgentRouter", () => {
  it.effect("weighs by suitability for the type times the configured weight, best first", () =>
    Effect.gen(function* () {
      const { route } = yield* AgentRouter
      const { candidates, excluded } = yield* route(need(), "analysis")
      assert.deepStrictEqual(candidates, [
        { platform: PlatformId.make("heavy"), model: "heavy-model", weight: 1.5, suitability: 0.5, quality: 1 },
        { platform: PlatformId.make("small"), model: "small-model", weight: 0.9, suitability: 0.9, quality: 1 },
        { platform: PlatformId.make("large"), model: "large-model", weight: 0.6, suitability: 0.6, quality: 1 }
      ])
      assert.deepStrictEqual(excluded, [])
    }).pipe(Effect.provide(layerOf(team)))
  )

  it.effect("never lets a weight fall to 0", () =>
    Effect.gen(function* () {
      const { route } = yield* AgentRouter
      const { candidates } = yield* route(need({ platform: PlatformId.make("heavy") }), "documentation")
      assert.isAbove(candidates[0]?.weight ?? 0, 0)
    }).pipe(Effect.provide(layerOf(team)))
  )

  it.effect("keeps the order of the settings among equals", () =>
    Effect.gen(function* () {
      const { candidates } = yield* routed(need())
      assert.deepStrictEqual(candidates, ["b:b-model", "a:a-model", "c:c-model"])
    }).pipe(Effect.provide(layerOf([{ id: "b" }, { id: "a" }, { id: "c" }])))
  )

  it.effect("leaves out whoever lacks what the call needs and says why", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* routed(need({ capabilities: ["vision", "json"] })), {
        candidates: ["heavy:heavy-model"],
        excluded: { small: "it lacks vision, json", large: "it lacks json" }
      })
      assert.deepStrictEqual(yield* routed(need({ contextTokens: 150_000 })), {
        candidates: ["large:large-model"],
        excluded: {
          small: "its context window of 8,000 tokens is smaller than the 150,000 the call may need",
          heavy: "its context window of 100,000 tokens is smaller than the 150,000 the call may need"
        }
      })
      assert.deepStrictEqual(yield* routed(need({ deny: [PlatformId.make("heavy")] })), {
        candidates: ["small:small-model", "large:large-model"],
        excluded: { heavy: "the task denies it" }
      })
      assert.deepStrictEqual(yield* routed(need({ platform: PlatformId.make("large") })), {
        candidates: ["large:large-model"],
        excluded: { small: "the task asks for large only", heavy: "the task asks for large only" }
      })
    }).pipe(Effect.provide(layerOf(team)))
  )

  it.effect("lets a context window be filled to the last token", () =>
    Effect.gen(function* () {
      assert.include((yield* routed(need({ contextTokens: 200_000 }))).candidates, "large:large-model")
      assert.include(
        (yield* Effect.flip(routed(need({ contextTokens: 200_001 })))).reasons.map(({ platform }) => platform),
        PlatformId.make("large")
      )
    }).pipe(Effect.provide(layerOf(team)))
  )

  it.effect("serves a named model where it is configured or priced, by its own name or as platform/model", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual((yield* routed(need({ model: "small-model" }))).candidates, ["small:small-model"])
      assert.deepStrictEqual((yield* routed(need({ model: "org/other" }))).candidates, ["large:org/other"])
      assert.deepStrictEqual((yield* routed(need({ model: "large/org/other" }))).candidates, ["large:org/other"])
      assert.deepStrictEqual((yield* routed(need({ model: "heavy/heavy-model" }))).candidates, ["heavy:heavy-model"])
      for (const model of ["nobody", "small/large-model", "constructor"]) {
        const { reasons } = yield* Effect.flip(routed(need({ model })))
        assert.deepStrictEqual(reasons[0], {
          platform: PlatformId.make("small"),
          reason: `it does not serve the model ${model}; its own is small-model`
        })
      }
    }).pipe(Effect.provide(layerOf(team)))
  )

  it.effect("gives a reason for every platform when nobody can, those left out included", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(routed(need({ capabilities: ["reasoning"], deny: [PlatformId.make("heavy")] })))
      assert.strictEqual(error._tag, "NoCapablePlatform")
      assert.deepStrictEqual(
        error.reasons.map(({ platform, reason }) => `${platform}: ${reason}`),
        [
          "small: it lacks reasoning",
          "large: it lacks reasoning",
          "heavy: the task denies it",
          "gemini: it is left out: it has no API key"
        ]
      )
    }).pipe(Effect.provide(layerOf(team)))
  )

  it.effect("says so when there is no platform at all", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(routed(need()))
      assert.strictEqual(error.message, "no platform is configured")
    }).pipe(Effect.provide(layerOf([])))
  )
})
