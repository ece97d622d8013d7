import { assert, it } from "@effect/vitest"
import { Effect, Random } from "effect"
import * as Testing from "../../src/Testing.js"

/** The better platform is down for its first two attempts; the other one is slow but well. */
const team: ReadonlyArray<Testing.Script> = [
  {
    id: "better",
    settings: { weight: 5 },
    attempts: [
      Testing.fail(Testing.failures.platform(), { afterMs: 50 }),
      Testing.fail(Testing.failures.quota({ retryAfterMs: 60_000 })),
      Testing.answer("from the better one")
    ]
  },
  { id: "slow", attempts: [Testing.answer("from the slow one", { afterMs: 20_000 })] }
]

it.scoped("a task goes on elsewhere when its platform fails, and no second of it is waited for", () =>
  Effect.gen(function* () {
    const { client } = yield* Testing.MemoryHttp
    const { id } = yield* client.tasks.submit({ payload: { prompt: "Why?", priority: "HIGH" }, headers: {} })

    const { elapsedMs } = yield* Testing.advanceUntilIdle()

    const task = yield* client.tasks.get({ path: { id } })
    assert.strictEqual(task.result?.text, "from the slow one")
    assert.strictEqual(elapsedMs, 20_050)
    const { attempts } = yield* client.tasks.attempts({ path: { id } })
    assert.deepStrictEqual(
      attempts.map(({ outcome, platform }) => `${platform} ${outcome}`),
      ["better failed", "slow succeeded"]
    )
  }).pipe(
    Effect.provide(Testing.MemoryHttp.layer()),
    Effect.provide(Testing.layer(team)),
    Effect.withRandom(Random.make("any seed"))
  )
)
