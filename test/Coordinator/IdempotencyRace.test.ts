import { it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { assert, describe } from "vitest"
import { Http } from "../../src/Http.js"
import * as Testing from "../../src/Testing.js"

const submissions = 100

const service = Http.layer.pipe(
  Layer.provideMerge(Testing.layer([{ id: "codex", attempts: [Testing.hang] }], { port: 0 }))
)

/** All at once over real connections; answers each one's status and task. */
const race = (key: string, prompt: (index: number) => string) =>
  Effect.flatMap(Http, ({ url }) =>
    Effect.promise(() =>
      Promise.all(
        Array.from({ length: submissions }, async (_, index) => {
          const response = await fetch(`${url}/v1/tasks`, {
            method: "POST",
            headers: { "content-type": "application/json", "idempotency-key": key },
            body: JSON.stringify({ prompt: prompt(index) })
          })
          const body = JSON.parse(await response.text())
          return { status: response.status, prompt: prompt(index), id: String(body.id ?? body.error.type) }
        })
      )
    )
  )

const stored = Effect.flatMap(Http, ({ url }) =>
  Effect.promise(async () => JSON.parse(await (await fetch(`${url}/v1/tasks?limit=200`)).text()).tasks.length)
)

describe(`${submissions} submissions at once under one idempotency key`, () => {
  it.scopedLive("are one task", () =>
    Effect.gen(function* () {
      const answers = yield* race("same", () => "the same")
      assert.strictEqual(new Set(answers.map(({ id }) => id)).size, 1)
      assert.strictEqual(answers.filter(({ status }) => status === 202).length, 1)
      assert.strictEqual(answers.filter(({ status }) => status === 200).length, submissions - 1)
      assert.strictEqual(yield* stored, 1)
    }).pipe(Effect.provide(service))
  )

  it.scopedLive("are one task and conflicts, where they differ", () =>
    Effect.gen(function* () {
      const answers = yield* race("other", (index) => `question ${index % 2}`)
      const [accepted] = answers.filter(({ status }) => status === 202)
      for (const { id, prompt, status } of answers) {
        if (prompt === accepted?.prompt) assert.strictEqual(id, accepted.id)
        else assert.deepStrictEqual([status, id], [409, "conflict"])
      }
      assert.strictEqual(yield* stored, 1)
    }).pipe(Effect.provide(service))
  )
})
