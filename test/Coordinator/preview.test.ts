import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option, Schema, TestClock } from "effect"
import { Coordinator } from "../../src/Coordinator.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { TaskPreview } from "../../src/Domain/Task.js"
import { ResourceManager } from "../../src/ResourceManager.js"
import * as Testing from "../../src/Testing.js"
import { ask, eventually, reaches, submitted, tenant } from "./harness.js"

const [codex, gemini, qwen] = [PlatformId.make("codex"), PlatformId.make("gemini"), PlatformId.make("qwen")]

const price = { input: 2, output: 8, asOf: "2026-11-01" }

/** Weights 1, 0.5 and 0.5; one attempt at once each. */
const team = Testing.layer([
  {
    id: "codex",
    attempts: [Testing.answer("yes", { afterMs: 10_000 })],
    settings: { weight: 2, prices: { "codex-model": price }, limits: { maxConcurrent: 1 } }
  },
  { id: "gemini", attempts: [Testing.answer("yes", { afterMs: 10_000 })], settings: { limits: { maxConcurrent: 1 } } },
  { id: "qwen", settings: { capabilities: ["text"] } }
]).pipe(Layer.orDie)

const question = ask("Why is the sky blue?", { requires: ["vision"], maxOutputTokens: 1_000 })

const platformOf = (coordinator: Coordinator["Type"], prompt: string) =>
  Effect.gen(function* () {
    const { id } = yield* submitted(coordinator, { ...question, prompt })
    const [attempt] = yield* eventually(coordinator.attempts(tenant, id), (attempts) => attempts.length === 1)
    return { id, attempt }
  })

describe("a preview", () => {
  it.effect("tells who would get the task, who else could, who could not and why, and what it may cost", () =>
    Effect.gen(function* () {
      const coordinator = yield* Coordinator
      const preview = yield* coordinator.preview(tenant, question)
      assert.deepInclude(preview, {
        accepted: true,
        type: "question-answering",
        priority: "MEDIUM",
        policy: "balanced",
        deadline: 86_400_000,
        choice: codex
      })
      assert.strictEqual(preview.tokens.maxOutput, 1_000)
      assert.deepStrictEqual(
        preview.candidates.map(({ free, model, platform, quality, suitability, weight }) => ({
          free,
          model,
          platform,
          quality,
          suitability,
          weight
        })),
        [
          { platform: codex, model: "codex-model", weight: 1, suitability: 0.5, quality: 1, free: true },
          { platform: gemini, model: "gemini-model", weight: 0.5, suitability: 0.5, quality: 1, free: true }
        ]
      )
      const [first, second] = preview.candidates
      assert.approximately(first?.share ?? 0, 2 / 3, 1e-9)
      // a quarter more input than estimated, and all of the output it may have
      assert.approximately(first?.maxCostUsd ?? 0, (preview.tokens.input * 1.25 * 2 + 1_000 * 8) / 1e6, 1e-12)
      assert.isUndefined(second?.maxCostUsd)
      assert.deepStrictEqual(preview.excluded, [{ platform: qwen, reason: "it lacks vision" }])
      assert.deepStrictEqual(Schema.decodeSync(TaskPreview)(Schema.encodeSync(TaskPreview)(preview)).choice, codex)
    }).pipe(Effect.provide(team))
  )

  it.effect("changes nothing: the choice is then made as it was told, and no task is stored", () =>
    Effect.gen(function* () {
      const coordinator = yield* Coordinator
      const told = yield* Effect.replicateEffect(coordinator.preview(tenant, question), 5)
      assert.deepStrictEqual([...new Set(told.map(({ choice }) => choice))], [codex])
      assert.lengthOf((yield* coordinator.list(tenant, {})).tasks, 0)
      const { attempt, id } = yield* platformOf(coordinator, "one")
      yield* TestClock.adjust("10 seconds")
      yield* reaches(coordinator, id, "succeeded")
      assert.strictEqual(attempt?.platform, codex)
      assert.deepStrictEqual(attempt?.decision, {
        candidates: [
          { platform: codex, model: "codex-model", weight: 1, suitability: 0.5, quality: 1, free: true },
          { platform: gemini, model: "gemini-model", weight: 0.5, suitability: 0.5, quality: 1, free: true }
        ],
        excluded: [{ platform: qwen, reason: "it lacks vision" }],
        chosen: codex,
        policy: "balanced",
        waitedMs: 0
      })
    }).pipe(Effect.provide(team))
  )

  it.effect("says who is busy and why, and so does the attempt that met it", () =>
    Effect.gen(function* () {
      const coordinator = yield* Coordinator
      const resources = yield* ResourceManager
      yield* platformOf(coordinator, "one")
      const next = yield* coordinator.preview(tenant, question)
      assert.strictEqual(next.choice, gemini)
      assert.deepStrictEqual(
        next.candidates.map(({ free }) => free),
        [false, true]
      )
      assert.deepInclude(next.candidates[0]?.busy, { platform: codex, kind: "limit" })

      const { attempt } = yield* platformOf(coordinator, "two")
      assert.strictEqual(attempt?.platform, gemini)
      const [first, second] = attempt?.decision.candidates ?? []
      assert.deepInclude(first, { platform: codex, free: false, busy: next.candidates[0]?.busy?.reason })
      assert.deepInclude(second, { platform: gemini, free: true })

      const none = yield* coordinator.preview(tenant, question)
      assert.isUndefined(none.choice)
      const waiting = yield* submitted(coordinator, question)
      yield* resources.setOut({ platform: gemini }, { reason: "it is drained", until: 60_000 })
      const out = yield* coordinator.preview(tenant, question)
      assert.deepStrictEqual(out.candidates[1]?.busy, {
        platform: gemini,
        reason: "it is drained",
        kind: "out",
        earliestAt: 60_000
      })
      yield* TestClock.adjust("30 seconds")
      yield* reaches(coordinator, waiting.id, "succeeded")
      const [waited] = yield* coordinator.attempts(tenant, waiting.id)
      assert.strictEqual(waited?.decision.waitedMs, 10_000)
    }).pipe(Effect.provide(team))
  )

  it.effect("fails as the submission does", () =>
    Effect.gen(function* () {
      const coordinator = yield* Coordinator
      for (const submission of [
        ask(""),
        ask("x", { platform: qwen, requires: ["vision"] }),
        ask("x", { maxCostUsd: 0.000_001 }),
        ask("x", { deadline: "2020-01-01T00:00:00Z" })
      ]) {
        const previewed = yield* Effect.flip(coordinator.preview(tenant, submission))
        const submitted = yield* Effect.flip(coordinator.submit(tenant, submission, Option.none()))
        // what they say, not in whose span they were made
        assert.deepStrictEqual({ ...previewed }, { ...submitted })
        assert.strictEqual(previewed._tag, "TaskRefused")
      }
    }).pipe(Effect.provide(team))
  )

  it.effect("tells of the patience that leaves a free platform for a much better one", () =>
    Effect.gen(function* () {
      const coordinator = yield* Coordinator
      yield* coordinator.submit(tenant, ask("one"), Option.none())
      yield* TestClock.adjust("59 seconds")
      const preview = yield* coordinator.preview(tenant, ask("two"))
      assert.deepStrictEqual(
        preview.candidates.map(({ free, platform }) => [platform, free]),
        [
          [codex, false],
          [gemini, true]
        ]
      )
      assert.isUndefined(preview.choice)
      assert.strictEqual(preview.patientUntil, 61_000)
    }).pipe(
      Effect.provide(
        Testing.layer([
          { id: "codex", settings: { weight: 5, limits: { requestsPerMinute: 1 } } },
          { id: "gemini" }
        ]).pipe(Layer.orDie)
      )
    )
  )
})
