import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option, Redacted } from "effect"
import { Coordinator } from "../../src/Coordinator.js"
import { TenantId } from "../../src/Domain/Task.js"
import type { SettingsOptions } from "../../src/Settings.js"
import * as Testing from "../../src/Testing.js"
import { eventually } from "../Coordinator/harness.js"

const tenant = TenantId.make("local")
const secret = `whsec_${Buffer.from("a secret of at least 24 bytes").toString("base64")}`
const callbackUrl = "https://receiver.example/hook"

const team = (webhooks: NonNullable<SettingsOptions["webhooks"]>) =>
  Testing.layer([{ id: "codex", attempts: [Testing.answer("done")] }], { webhooks }).pipe(Layer.orDie)

const signed = team({ secrets: [Redacted.make(secret)] })

const told = (count: number) =>
  eventually(
    Effect.flatMap(Testing.SentWebhooks, ({ all }) => all),
    (all) => all.length >= count
  ).pipe(Effect.map((all) => all.map(({ body }) => Object(JSON.parse(body)))))

describe("a submission with a callbackUrl", () => {
  it.scoped("is refused where nothing can be signed, or where its webhook could not go", () =>
    Effect.gen(function* () {
      const refusal = (url: string) =>
        Effect.gen(function* () {
          const coordinator = yield* Coordinator
          const refused = yield* Effect.flip(
            coordinator.submit(tenant, { prompt: "x", callbackUrl: url }, Option.none())
          )
          assert(refused._tag === "TaskRefused")
          return refused.problems.map(({ field, problem }) => `${field}: ${problem}`).join()
        })
      assert.match(yield* Effect.provide(refusal(callbackUrl), team({})), /^callbackUrl: .*DREAM_TEAM_WEBHOOK_SECRETS/)
      assert.match(yield* Effect.provide(refusal("https://127.0.0.1/"), signed), /^callbackUrl: .*not public/)
      assert.match(yield* Effect.provide(refusal("http://receiver.example/"), signed), /^callbackUrl: .*https/)
    })
  )

  it.scoped("is told its end, and shows that it was", () =>
    Effect.gen(function* () {
      const coordinator = yield* Coordinator
      const { task } = yield* coordinator.submit(tenant, { prompt: "x", callbackUrl }, Option.none())
      assert.strictEqual(task.callbackUrl, callbackUrl)
      const [message] = yield* told(1)
      assert.strictEqual(message.type, "task.succeeded")
      assert.strictEqual(message.data.result.text, "done")
      const shown = yield* eventually(coordinator.get(tenant, task.id), ({ webhook }) => webhook?.state === "delivered")
      assert.strictEqual(shown.callbackUrl, callbackUrl)
    }).pipe(Effect.provide(signed))
  )

  it.scoped("is told the end of a whole job", () =>
    Effect.gen(function* () {
      const { jobs } = yield* Coordinator
      const tasks = [{ prompt: "one" }, { prompt: "two", callbackUrl: `${callbackUrl}/two` }]
      const { job } = yield* jobs.submit(tenant, { tasks, callbackUrl }, Option.none())
      const messages = yield* told(2)
      assert.sameMembers(
        messages.map(({ type }) => type),
        ["task.succeeded", "job.succeeded"]
      )
      const ended = messages.find(({ type }) => type === "job.succeeded")
      assert.deepInclude(ended?.data, { id: job.id, state: "succeeded" })
      assert.deepInclude(ended?.data.counts, { total: 2, succeeded: 2 })
      const { webhook } = yield* eventually(
        jobs.get(tenant, job.id, {}),
        (shown) => shown.webhook !== undefined && shown.webhook.state !== "pending"
      )
      assert.deepStrictEqual(webhook, {
        state: "delivered",
        attempts: 1,
        lastStatus: 204,
        lastError: undefined,
        nextAt: undefined
      })
    }).pipe(Effect.provide(signed))
  )
})
