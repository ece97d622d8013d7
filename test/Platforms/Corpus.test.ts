import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream, TestClock } from "effect"
import type { Call } from "../../src/Domain/Call.js"
import { viewOf } from "../../src/Domain/Failure.js"
import { corpus, type ErrorCase, now } from "./corpus.js"
import { apiKey, clientOf, scripted } from "./scripted.js"

const call: Call = { messages: [{ role: "user", content: "what is 2+2" }] }

const check = (labelled: ErrorCase, asked: "complete" | "stream") =>
  Effect.gen(function* () {
    yield* TestClock.setTime(now)
    const { reply } = labelled
    const client = yield* clientOf(
      labelled.platform,
      scripted(() => reply).layer,
      labelled.baseUrl === undefined ? {} : { baseUrl: labelled.baseUrl }
    )
    const failure = yield* Effect.flip(
      asked === "complete" ? client.complete("some-model", call) : Stream.runDrain(client.stream("some-model", call))
    )
    const view = viewOf(failure)
    assert.deepStrictEqual(
      {
        scope: view.scope,
        reason: view.reason,
        retryAfterMs: view.retryAfterMs,
        resetsAt: view.resetsAt === undefined ? undefined : new Date(view.resetsAt).toISOString()
      },
      {
        scope: labelled.scope,
        reason: labelled.reason,
        retryAfterMs: labelled.retryAfterMs,
        resetsAt: labelled.resetsAt
      },
      `${view.code}: ${view.message}`
    )
    if (failure._tag === "QuotaFailure") {
      const { limit, perModel, unit, window, windowMs } = failure
      const told = { limit, perModel, unit, window, windowMs }
      assert.deepStrictEqual(
        Object.fromEntries(Object.entries(told).filter(([, value]) => value !== undefined)),
        labelled.limit ?? {},
        view.message
      )
    }
    if (labelled.code !== undefined) {
      assert.strictEqual(view.code, labelled.code)
    }
    assert.strictEqual<string>(failure.platform, labelled.platform)
    assert.strictEqual(failure.model, "some-model")
    assert.isAtMost(view.message.length, 500)
    assert.isAtLeast(view.message.length, 1)
    const everything = JSON.stringify(failure)
    assert.notInclude(everything, apiKey)
    assert.notInclude(everything, "wxyz")
  })

describe("the error corpus", () => {
  it("has every platform and enough cases", () => {
    assert.isAtLeast(corpus.length, 60)
    assert.deepStrictEqual([...new Set(corpus.map((labelled) => labelled.platform))].sort(), [
      "codex",
      "gemini",
      "qwen",
      "synthetic"
    ])
  })
  for (const labelled of corpus) {
    const ways = labelled.asked === "both" ? (["complete", "stream"] as const) : ([labelled.asked] as const)
    for (const asked of ways) {
      it.effect(`${labelled.platform}, ${asked}: ${labelled.name}`, () => check(labelled, asked))
    }
  }
})
