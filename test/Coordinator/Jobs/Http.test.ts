import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { JobId } from "../../../src/Domain/Job.js"
import { TenantId } from "../../../src/Domain/Task.js"
import { Events } from "../../../src/Events.js"
import { answer, layer, MemoryHttp, settled } from "../../../src/Testing.js"

const service = MemoryHttp.layer().pipe(
  Layer.provideMerge(
    layer([{ id: "codex", attempts: [answer((call) => `answer to ${String(call.messages.at(-1)?.content)}`)] }])
  )
)

const send = (method: string, path: string, body?: unknown, headers: Readonly<Record<string, string>> = {}) =>
  Effect.flatMap(MemoryHttp, ({ fetch }) =>
    Effect.promise(async () => {
      const response = await fetch(path, {
        method,
        headers: { ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
        ...(body === undefined ? {} : { body: JSON.stringify(body) })
      })
      return { status: response.status, headers: response.headers, body: JSON.parse(await response.text()) }
    })
  )

const job = {
  mode: "sequential",
  tasks: [
    { name: "a", prompt: "A" },
    { prompt: "B", dependsOn: ["a"] }
  ]
}

describe("jobs over HTTP", () => {
  it.scoped("have their own events and those of their tasks in one stream", () =>
    Effect.gen(function* () {
      const events = yield* Events
      const { body } = yield* send("POST", "/v1/jobs", job)
      yield* send("POST", "/v1/tasks", { prompt: "of no job" })
      const seen: Array<string> = []
      const filter = { tenant: TenantId.make("local"), job: JobId.make(body.id) }
      yield* Stream.unwrap(events.follow(filter, 0)).pipe(
        Stream.runForEach((event) =>
          Effect.sync(() => seen.push("taskId" in event ? `${event.type} of a task` : event.type))
        ),
        Effect.forkScoped
      )
      yield* settled
      assert.deepStrictEqual(seen.filter((type) => type === "task.succeeded of a task").length, 2)
      assert.include(seen, "attempt.started of a task")
      assert.strictEqual(seen[0], "job.queued")
      assert.strictEqual(seen.at(-1), "job.succeeded")
    }).pipe(Effect.provide(service))
  )

  it.effect("are accepted, shown with their results, and listed", () =>
    Effect.gen(function* () {
      const accepted = yield* send("POST", "/v1/jobs", job, { "idempotency-key": "K" })
      assert.strictEqual(accepted.status, 202)
      assert.strictEqual(accepted.headers.get("location"), `/v1/jobs/${accepted.body.id}`)
      assert.deepStrictEqual(accepted.body.counts, { total: 2, open: 2, succeeded: 0, failed: 0, cancelled: 0 })
      yield* settled
      const shown = yield* send("GET", `/v1/jobs/${accepted.body.id}`)
      assert.strictEqual(shown.status, 200)
      assert.strictEqual(shown.body.state, "succeeded")
      assert.deepStrictEqual(
        shown.body.tasks.map((task: { name?: string; result: { text: string } }) => [task.name, task.result.text]),
        [
          ["a", "answer to A"],
          [undefined, "answer to B"]
        ]
      )
      const page = yield* send("GET", `/v1/jobs/${accepted.body.id}?limit=1`)
      assert.lengthOf(page.body.tasks, 1)
      const rest = yield* send("GET", `/v1/jobs/${accepted.body.id}?limit=1&cursor=${page.body.next}`)
      assert.strictEqual(rest.body.tasks[0].result.text, "answer to B")
      const again = yield* send("POST", "/v1/jobs", job, { "idempotency-key": "K" })
      assert.strictEqual(again.status, 200)
      assert.strictEqual(again.headers.get("idempotent-replayed"), "true")
      assert.strictEqual(again.body.id, accepted.body.id)
      const list = yield* send("GET", "/v1/jobs?state=succeeded")
      assert.lengthOf(list.body.jobs, 1)
      assert.strictEqual((yield* send("DELETE", `/v1/jobs/${accepted.body.id}`)).status, 409)
    }).pipe(Effect.provide(service))
  )

  it.effect("are refused with what is wrong", () =>
    Effect.gen(function* () {
      const unreadable = yield* send("POST", "/v1/jobs", { tasks: [{ prompt: "x", wrong: 1 }] })
      assert.strictEqual(unreadable.status, 400)
      assert.strictEqual(unreadable.body.error.details.problems[0].field, "tasks.0.wrong")
      assert.strictEqual((yield* send("POST", "/v1/jobs", { tasks: [] })).status, 400)
      const refused = yield* send("POST", "/v1/jobs", { tasks: [{ prompt: "x" }, { prompt: " " }] })
      assert.strictEqual(refused.status, 422)
      assert.deepStrictEqual(refused.body.error.details.problems, [{ field: "tasks.1.prompt", problem: "it is empty" }])
      const nobody = "/v1/jobs/01900000-0000-7000-8000-000000000000"
      assert.strictEqual((yield* send("GET", nobody)).status, 404)
      assert.strictEqual((yield* send("DELETE", nobody)).status, 404)
      assert.strictEqual((yield* send("GET", "/v1/jobs?limit=0")).status, 400)
      assert.strictEqual((yield* send("GET", "/v1/jobs?cursor=nonsense")).status, 400)
    }).pipe(Effect.provide(service))
  )

  it.effect("go through the typed client", () =>
    Effect.gen(function* () {
      const { client } = yield* MemoryHttp
      const { id } = yield* client.jobs.submit({ headers: {}, payload: { tasks: [{ prompt: "x" }] } })
      yield* settled
      const shown = yield* client.jobs.get({ path: { id }, urlParams: {} })
      assert.strictEqual(shown.tasks[0]?.result?.text, "answer to x")
    }).pipe(Effect.provide(service))
  )
})
