import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted, TestClock } from "effect"
import { PlatformId } from "../../src/Domain/Platform.js"
import { type TaskSubmission, TenantId } from "../../src/Domain/Task.js"
import * as Testing from "../../src/Testing.js"

const { answer, settled } = Testing

const keys = {
  alice: { tenant: TenantId.make("alice"), key: Redacted.make("alice-has-a-secret") },
  bob: { tenant: TenantId.make("bob"), key: Redacted.make("bob-has-a-secret-too") }
}

const codex: Testing.Script = {
  id: "codex",
  settings: { prices: { "codex-model": { input: 1, output: 1, asOf: "2026-11-01" } } },
  attempts: [
    answer("Because.", { usage: { inputTokens: 400, cachedInputTokens: 0, outputTokens: 500, reasoningTokens: 0 } })
  ]
}

const service = Testing.MemoryHttp.layer({ apiKey: keys.alice.key }).pipe(
  Layer.provideMerge(
    Testing.layer([codex], {
      apiKeys: [keys.alice, keys.bob],
      budgets: {
        perKey: { usdPerDay: 0.0015 },
        keys: { alice: { requestsPerMinute: 3 } },
        platforms: { codex: { tokensPerDay: 10_000 } }
      }
    })
  )
)

const submit = (who: keyof typeof keys, rest: Partial<TaskSubmission> = {}) =>
  Effect.flatMap(Testing.MemoryHttp, ({ fetch }) =>
    Effect.promise(() =>
      fetch("/v1/tasks", {
        method: "POST",
        headers: { "content-type": "application/json", "x-api-key": Redacted.value(keys[who].key) },
        body: JSON.stringify({ prompt: "Why?", maxOutputTokens: 1_000, ...rest })
      })
    )
  )

const errorOf = (response: Response) => Effect.promise(() => response.text())

describe("budgets over HTTP", () => {
  it.effect("are shown, hold, and say when to come again", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* submit("alice")).status, 202)
      yield* settled
      const { client } = yield* Testing.MemoryHttp
      const view = yield* client.budgets.show()
      assert.deepStrictEqual(view, {
        day: "1970-01-01",
        resetsAt: 86_400_000,
        key: {
          tenant: keys.alice.tenant,
          usd: { limit: 0.0015, spent: 0.0009, reserved: 0 },
          tokens: { spent: 900, reserved: 0 }
        },
        platforms: [
          {
            platform: PlatformId.make("codex"),
            usd: { spent: 0.0009, reserved: 0 },
            tokens: { limit: 10_000, spent: 900, reserved: 0 }
          }
        ]
      })

      const late = yield* submit("alice", { deadline: 60 })
      assert.strictEqual(late.status, 429)
      assert.strictEqual(late.headers.get("retry-after"), "86400")
      assert.match(yield* errorOf(late), /no budget leaves room for the task before its deadline/)

      const large = yield* submit("bob", { maxOutputTokens: 20_000 })
      assert.strictEqual(large.status, 422)
      assert.match(yield* errorOf(large), /more than the API key's budget of the day/)
    }).pipe(Effect.provide(service))
  )

  it.effect("bound the submissions of a key in any minute, and of no other", () =>
    Effect.gen(function* () {
      // what the key has spent is not to stand in the way
      const deadline = 2 * 86_400
      const statuses = yield* Effect.replicateEffect(
        Effect.map(submit("alice", { deadline }), ({ status }) => status),
        3
      )
      assert.deepStrictEqual(statuses, [202, 202, 202])
      const refused = yield* submit("alice")
      assert.strictEqual(refused.status, 429)
      assert.strictEqual(refused.headers.get("retry-after"), "61")
      assert.match(yield* errorOf(refused), /may make 3 submissions a minute/)
      assert.strictEqual((yield* submit("bob", { deadline })).status, 202)
      yield* TestClock.adjust("61 seconds")
      assert.strictEqual((yield* submit("alice", { deadline })).status, 202)
    }).pipe(Effect.provide(service))
  )
})
