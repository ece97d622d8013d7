import { SqlClient } from "@effect/sql/SqlClient"
import { assert, describe, it } from "@effect/vitest"
import { Chunk, Clock, Deferred, Effect, Layer, Option, Redacted, Schema, Stream, TestClock } from "effect"
import { Webhook } from "standardwebhooks"
import type { TaskEvent } from "../src/Domain/Event.js"
import { Task } from "../src/Domain/Task.js"
import { Events } from "../src/Events.js"
import { Settings, type SettingsOptions } from "../src/Settings.js"
import { Sql } from "../src/Sql.js"
import { TaskStore } from "../src/TaskStore.js"
import { type Receiver, SentWebhooks, scriptedWebhooks } from "../src/Testing/ScriptedWebhooks.js"
import { type WebhookRequest, WebhookUnanswered } from "../src/Webhooks/Sender.js"
import { Webhooks } from "../src/Webhooks.js"
import { ask, codex, eventually, settle, tenant } from "./Coordinator/harness.js"
import { describeOnEachDatabase } from "./support/databases.js"
import { jumpingClock } from "./support/jumpingClock.js"
import { idOf, taskOf } from "./TaskStore/fixtures.js"

const secret = `whsec_${Buffer.from("a secret of at least 24 bytes").toString("base64")}`
const oldSecret = `whsec_${Buffer.from("the secret of the year before").toString("base64")}`
const url = "https://receiver.example/hooks?from=team"
const hour = 3_600_000

type WebhookSettings = NonNullable<SettingsOptions["webhooks"]>

const onSql = (
  over: WebhookSettings = {},
  database: Layer.Layer<Layer.Layer.Success<typeof Sql.layerMemory>> = Layer.orDie(Sql.layerMemory)
) =>
  Webhooks.layer.pipe(
    Layer.provideMerge(TaskStore.layer),
    Layer.provideMerge(Events.layer),
    Layer.provideMerge(database),
    Layer.provideMerge(scriptedWebhooks),
    Layer.provideMerge(Settings.layer(Settings.make({ webhooks: { secrets: [Redacted.make(secret)], ...over } }))),
    Layer.orDie
  )

const insert = (n: number, callbackUrl: string | null = url) =>
  Effect.gen(function* () {
    const store = yield* TaskStore
    const { id: classId } = yield* store.classOf([codex], "MEDIUM")
    const submission = ask(`secret prompt ${n}`, callbackUrl === null ? {} : { callbackUrl })
    yield* store.insert({ ...taskOf(n, classId), submission })
    return classId
  })

const usage = { inputTokens: 3, cachedInputTokens: 0, outputTokens: 5, reasoningTokens: 0 }

/** Ends the oldest queued task. */
const end = (classId: number) =>
  Effect.gen(function* () {
    const store = yield* TaskStore
    const [claim] = yield* store.claim(classId, 1)
    assert(claim !== undefined)
    yield* store.finish(claim, {
      _tag: "Succeeded",
      attempt: Option.none(),
      result: { text: "done", platform: codex, model: "gpt", usage }
    })
  })

const ended = (n: number, callbackUrl: string | null = url) =>
  Effect.flatMap(insert(n, callbackUrl), (classId) => end(classId))

const sentSoFar = Effect.flatMap(SentWebhooks, ({ all }) => all)
const sent = (count: number) => eventually(sentSoFar, (all) => all.length >= count)
const answering = (receiver: Receiver) => Effect.flatMap(SentWebhooks, ({ answerWith }) => answerWith(receiver))
const answers = (...statuses: ReadonlyArray<number>) => {
  let next = 0
  return answering(() => Effect.sync(() => ({ status: statuses[next++] ?? 200 })))
}
const shown = (n: number) => Effect.flatMap(TaskStore, (store) => store.get(tenant, idOf(n)))
const webhookOf = (n: number) => Effect.map(shown(n), ({ webhook }) => webhook)
const reaches = (n: number, state: "delivered" | "failed") =>
  eventually(webhookOf(n), (webhook) => webhook?.state === state)
const eventsOf = (n: number) =>
  Effect.flatMap(Events, (events) => Stream.runCollect(Stream.unwrap(events.stream(idOf(n), 0)))).pipe(
    Effect.map((all): ReadonlyArray<TaskEvent> => Chunk.toReadonlyArray(all))
  )
const webhookId = (request: WebhookRequest | undefined) => request?.headers["webhook-id"]

/** Verifies at the time of the test's clock what the package verifies at its own. */
const verify = (request: WebhookRequest, key: string): unknown => {
  const {
    "webhook-id": id = "",
    "webhook-signature": signature = "",
    "webhook-timestamp": timestamp = ""
  } = request.headers
  const expected = new Webhook(key).sign(id, new Date(Number(timestamp) * 1_000), request.body)
  assert.include(signature.split(" "), expected)
  return JSON.parse(request.body)
}

describeOnEachDatabase("Webhooks", (database) => {
  it.scoped("tell the end of a task, signed, with its result and without what was submitted", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(1_800_000_000_000)
      yield* ended(1)
      const [request, ...others] = yield* sent(1)
      assert(request !== undefined)
      assert.lengthOf(others, 0)
      assert.strictEqual(request.url, url)
      assert.strictEqual(request.headers["webhook-timestamp"], "1800000000")
      const body = Object(verify(request, secret))
      assert.strictEqual(body.type, "task.succeeded")
      assert.strictEqual(body.timestamp, "2027-01-15T08:00:00.000Z")
      assert.deepInclude(body.data, { id: idOf(1), state: "succeeded", tenant: "local" })
      assert.strictEqual(body.data.result.text, "done")
      assert.notInclude(request.body, "secret prompt")
      assert.notInclude(request.body, "receiver.example")
      assert.deepStrictEqual(yield* reaches(1, "delivered"), {
        state: "delivered",
        attempts: 1,
        lastStatus: 204,
        lastError: undefined,
        nextAt: undefined
      })
      const last = (yield* eventsOf(1)).at(-1)
      assert.deepInclude(last, { type: "webhook.delivered", attempts: 1, status: 204 })
      yield* TestClock.adjust("10 days")
      assert.lengthOf(yield* sentSoFar, 1)
      Schema.encodeSync(Task)(yield* shown(1))
    }).pipe(Effect.provide(onSql({}, database)))
  )

  it.scoped("try again at growing distances under the same id, until it is accepted", () =>
    Effect.gen(function* () {
      yield* answers(500, 302, 404)
      yield* ended(1)
      yield* sent(1)
      const first = yield* eventually(webhookOf(1), (webhook) => webhook?.attempts === 1)
      assert.deepInclude(first, { state: "pending", lastStatus: 500, lastError: "it answered 500" })
      const wait = first?.nextAt ?? 0
      assert.isTrue(wait >= 4_000 && wait <= 6_000, String(wait))
      yield* TestClock.adjust(wait - 1)
      yield* settle
      assert.lengthOf(yield* sentSoFar, 1)
      yield* TestClock.adjust(1)
      yield* sent(2)
      const second = yield* eventually(webhookOf(1), (webhook) => webhook?.attempts === 2)
      assert.include(second?.lastError ?? "", "redirects are not followed")
      assert.isTrue((second?.nextAt ?? 0) - wait >= 12_000)
      yield* TestClock.adjust("20 seconds")
      yield* sent(3)
      yield* eventually(webhookOf(1), (webhook) => webhook?.attempts === 3)
      yield* TestClock.adjust("1 minute")
      const all = yield* sent(4)
      assert.lengthOf(new Set(all.map(webhookId)), 1)
      assert.deepInclude(yield* reaches(1, "delivered"), { attempts: 4, lastStatus: 200 })
      for (const request of all) verify(request, secret)
    }).pipe(Effect.provide(onSql({}, database)))
  )
})

describe("Webhooks", () => {
  it.scoped("send nothing again that was delivered while the next ones were looked up", () => {
    // A server answers with what it saw when it was asked; until `late` is open, later than that.
    const late = Effect.unsafeMakeLatch(true)
    const slow = Layer.effect(
      SqlClient,
      Effect.map(
        SqlClient,
        (sql) =>
          new Proxy(sql, {
            apply: (client, _, [strings, ...args]: [TemplateStringsArray, ...Array<never>]) =>
              strings.join("").includes("FROM deliveries WHERE state = 'pending' AND host")
                ? Effect.zipLeft(client(strings, ...args), late.await)
                : client(strings, ...args)
          })
      )
    )
    const onIt = Webhooks.layer.pipe(
      Layer.provide(slow),
      Layer.provideMerge(TaskStore.layer),
      Layer.provideMerge(Events.layer),
      Layer.provideMerge(Sql.layerMemory),
      Layer.provideMerge(scriptedWebhooks),
      Layer.provideMerge(Settings.layer(Settings.make({ webhooks: { secrets: [Redacted.make(secret)] } }))),
      Layer.orDie
    )
    return Effect.gen(function* () {
      const answered = yield* Deferred.make<void>()
      yield* answering(() => Effect.as(Deferred.await(answered), { status: 200 }))
      yield* ended(1)
      yield* sent(1)
      yield* late.close
      yield* ended(2)
      yield* settle
      yield* Deferred.succeed(answered, undefined)
      yield* reaches(1, "delivered")
      yield* late.open
      yield* reaches(2, "delivered")
      yield* settle
      assert.lengthOf(yield* sentSoFar, 2)
    }).pipe(Effect.provide(onIt))
  })

  it.scoped("wait for time to pass, though the wall clock is set ahead and back meanwhile", () =>
    Effect.gen(function* () {
      const start = 1_800_000_000_000
      yield* TestClock.setTime(start)
      const { clock, jump, jumping } = yield* jumpingClock
      const pass = (duration: `${number} seconds`) => Effect.withClock(TestClock.adjust(duration), clock)
      yield* Effect.gen(function* () {
        yield* answers(500, 500)
        jump(hour)
        yield* ended(1)
        yield* eventually(webhookOf(1), (webhook) => webhook?.attempts === 1)
        jump(-2 * hour)
        yield* pass("6 seconds")
        yield* eventually(webhookOf(1), (webhook) => webhook?.attempts === 2)
        const last = yield* eventually(
          Effect.zipRight(pass("1 seconds"), webhookOf(1)),
          (webhook) => webhook?.state === "delivered"
        )
        assert.deepInclude(last, { attempts: 3, lastStatus: 200 })
        assert.isBelow((yield* Clock.currentTimeMillis) + hour - start, 60_000)
      }).pipe(Effect.provide(onSql()), Effect.withClock(jumping))
    })
  )

  it.scoped("are signed with every secret, so that receivers can change over", () =>
    Effect.gen(function* () {
      yield* ended(1)
      const [request] = yield* sent(1)
      assert(request !== undefined)
      verify(request, secret)
      verify(request, oldSecret)
    }).pipe(Effect.provide(onSql({ secrets: [Redacted.make(secret), Redacted.make(oldSecret)] })))
  )

  it.scoped("tell nothing of tasks that name no URL, and nothing without a secret", () =>
    Effect.gen(function* () {
      yield* Effect.provide(Effect.zipRight(ended(1), settle), onSql({ secrets: [] }))
      yield* Effect.gen(function* () {
        const classId = yield* insert(1, null)
        yield* end(classId)
        yield* settle
        assert.lengthOf(yield* sentSoFar, 0)
        assert.isUndefined(yield* webhookOf(1))
      }).pipe(Effect.provide(onSql()))
    })
  )

  it.scoped("wait as long as a busy receiver asks, in seconds or until a date", () =>
    Effect.gen(function* () {
      const asked = ["3600", "Thu, 01 Jan 1970 03:00:00 GMT"]
      yield* answering(() =>
        Effect.sync(() => {
          const retryAfter = asked.shift()
          return retryAfter === undefined ? { status: 200 } : { status: 429, retryAfter }
        })
      )
      yield* ended(1)
      yield* sent(1)
      yield* TestClock.adjust(hour - 1)
      yield* settle
      assert.lengthOf(yield* sentSoFar, 1)
      yield* TestClock.adjust(1)
      yield* sent(2)
      yield* eventually(webhookOf(1), (webhook) => webhook?.attempts === 2)
      assert.strictEqual((yield* webhookOf(1))?.nextAt, 3 * hour)
      yield* TestClock.adjust(2 * hour)
      yield* sent(3)
      yield* reaches(1, "delivered")
    }).pipe(Effect.provide(onSql()))
  )

  it.scoped("give up when their time is over, and say so", () =>
    Effect.gen(function* () {
      yield* answering(() => new WebhookUnanswered({ message: "nothing listens there" }))
      yield* ended(1)
      let rounds = 0
      while ((yield* webhookOf(1))?.state === "pending" && rounds < 200) {
        const before = (yield* webhookOf(1))?.attempts ?? 0
        yield* TestClock.adjust("5 hours")
        yield* eventually(webhookOf(1), (webhook) => webhook?.state === "failed" || (webhook?.attempts ?? 0) > before)
        rounds += 1
      }
      const failed = yield* webhookOf(1)
      assert.strictEqual(failed?.state, "failed")
      assert.strictEqual(failed?.lastError, "nothing listens there; its time is over")
      assert.isTrue((failed?.attempts ?? 0) >= 10, String(failed?.attempts))
      const last = (yield* eventsOf(1)).at(-1)
      assert.deepInclude(last, { type: "webhook.failed", why: "nothing listens there; its time is over" })
      const { length } = yield* sentSoFar
      yield* TestClock.adjust("30 days")
      yield* settle
      assert.lengthOf(yield* sentSoFar, length)
    }).pipe(Effect.provide(onSql()))
  )

  it.scoped("stop at once where the receiver is gone for good", () =>
    Effect.gen(function* () {
      yield* answers(410)
      yield* ended(1)
      assert.deepInclude(yield* reaches(1, "failed"), { attempts: 1, lastStatus: 410 })
    }).pipe(Effect.provide(onSql()))
  )

  it.scoped("keep a slow host from the others, and bound what is under way", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      let slowNow = 0
      let slowMost = 0
      yield* answering(({ url }) =>
        url.includes("slow.example")
          ? Effect.gen(function* () {
              slowNow += 1
              slowMost = Math.max(slowMost, slowNow)
              yield* Deferred.await(gate)
              slowNow -= 1
              return { status: 200 }
            })
          : Effect.succeed({ status: 200 })
      )
      for (let n = 1; n <= 20; n++) yield* ended(n, "https://slow.example/")
      yield* ended(21, "https://quick.example/")
      yield* reaches(21, "delivered")
      assert.strictEqual(slowMost, 4)
      yield* Deferred.succeed(gate, undefined)
      for (let n = 1; n <= 20; n++) yield* reaches(n, "delivered")
      assert.strictEqual(slowMost, 4)
      assert.lengthOf(new Set((yield* sentSoFar).map(webhookId)), 21)
    }).pipe(Effect.provide(onSql()))
  )

  it.scoped("are told of each end of a task that is retried, and not of an end that was undone", () =>
    Effect.gen(function* () {
      const store = yield* TaskStore
      yield* answers(500)
      yield* insert(1)
      yield* store.cancel(tenant, idOf(1))
      yield* sent(1)
      yield* eventually(webhookOf(1), (webhook) => webhook?.attempts === 1)
      const { classId } = yield* store.retry(tenant, idOf(1))
      yield* TestClock.adjust("1 hour")
      yield* settle
      assert.lengthOf(yield* sentSoFar, 1)
      yield* end(classId)
      const [cancelled, succeeded] = yield* sent(2)
      assert.notStrictEqual(webhookId(cancelled), webhookId(succeeded))
      assert.strictEqual(Object(JSON.parse(succeeded?.body ?? "")).type, "task.succeeded")
      assert.deepInclude(yield* reaches(1, "delivered"), { attempts: 1 })
    }).pipe(Effect.provide(onSql()))
  )

  it.scoped("tell the URL of the settings what needs a person, or every end", () =>
    Effect.gen(function* () {
      const own = "https://ops.example/"
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient
        const quiet = yield* insert(1, null)
        yield* end(quiet)
        yield* insert(2, null)
        yield* sql`UPDATE tasks SET attention = 1 WHERE id = ${idOf(2)}`
        yield* Effect.flatMap(TaskStore, (store) => store.cancel(tenant, idOf(2)))
        const [request] = yield* sent(1)
        assert.deepInclude(request, { url: own })
        assert.include(request?.body ?? "", idOf(2))
        yield* settle
        assert.lengthOf(yield* sentSoFar, 1)
      }).pipe(Effect.provide(onSql({ url: own })))
      yield* Effect.gen(function* () {
        yield* ended(1)
        assert.sameMembers(
          (yield* sent(2)).map((request) => request.url),
          [own, url]
        )
      }).pipe(Effect.provide(onSql({ url: own, urlFor: "all" })))
    })
  )

  it.scoped("are still told after a restart, under the same id, even where an answer was not written down", () =>
    Effect.gen(function* () {
      const database = yield* Layer.build(Layer.orDie(Sql.layerMemory))
      const start = <A, E>(use: Effect.Effect<A, E, TaskStore | Events | SentWebhooks>) =>
        Effect.provide(use, onSql({}, Layer.succeedContext(database)))
      const [before] = yield* start(
        Effect.gen(function* () {
          yield* answering(() => Effect.never)
          yield* ended(1)
          return yield* sent(1)
        })
      )
      const [after] = yield* start(Effect.zipRight(reaches(1, "delivered"), sentSoFar))
      assert.isDefined(webhookId(before))
      assert.strictEqual(webhookId(after), webhookId(before))
      assert.strictEqual(after?.body, before?.body)
    })
  )

  it.scoped("go on after the database failed them", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient
      yield* insert(2)
      yield* answering(() =>
        Effect.as(
          Effect.orDie(sql`CREATE TRIGGER full BEFORE UPDATE ON deliveries BEGIN SELECT RAISE(FAIL, 'disk full'); END`),
          { status: 200 }
        )
      )
      const classId = yield* insert(1)
      yield* end(classId)
      yield* sent(1)
      yield* settle
      yield* sql`DROP TRIGGER full`
      yield* TestClock.adjust("1 minute")
      yield* reaches(2, "delivered")
      assert.lengthOf(yield* sentSoFar, 1)
    }).pipe(Effect.provide(onSql()))
  )
})
