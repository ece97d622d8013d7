import { assert, describe, it } from "@effect/vitest"
import { Effect, Random } from "effect"
import * as Testing from "../../src/Testing.js"

const tasks = 24
/** So much that most of them are parked before their turn comes. */
const answerMs = 5_000

/** Answers one call at a time. */
const narrow: Testing.Script = {
  id: "narrow",
  settings: { limits: { maxConcurrent: 1 } },
  attempts: Array.from({ length: tasks }, () => Testing.answer("done", { afterMs: answerMs }))
}

describe("a platform that takes one call at a time", () => {
  for (const priorities of [["MEDIUM"], ["MEDIUM", "LOW"]] as const) {
    it.scoped(`is never idle while ${priorities.join(" and ")} tasks wait for it`, () =>
      Effect.gen(function* () {
        const { client } = yield* Testing.MemoryHttp
        for (let n = 0; n < tasks; n++) {
          const priority = priorities[n % priorities.length]
          yield* client.tasks.submit({ payload: { prompt: `question ${n}`, priority }, headers: {} })
        }
        const { elapsedMs } = yield* Testing.advanceUntilIdle()
        assert.strictEqual(elapsedMs, tasks * answerMs)
      }).pipe(
        Effect.provide(Testing.MemoryHttp.layer()),
        Effect.provide(Testing.layer([narrow])),
        Effect.withRandom(Random.make("any seed"))
      )
    )
  }
})
