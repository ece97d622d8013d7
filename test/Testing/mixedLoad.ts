/**
 * A load with a bit of everything, over the whole service in memory. As a program of its own it prints the event log of
 * the seed it is given.
 */
import { pathToFileURL } from "node:url"
import { Effect, Either, Option, Random, TestClock, TestContext } from "effect"
import { Coordinator } from "../../src/Coordinator.js"
import type { JobId, JobSubmission } from "../../src/Domain/Job.js"
import { type Priority, type TaskId, type TaskType, TenantId } from "../../src/Domain/Task.js"
import * as Testing from "../../src/Testing.js"

const { answer, fail, failures } = Testing
const start = Date.parse("2026-03-01T00:00:00Z")
const tasks = 60

const priorities: ReadonlyArray<Priority> = ["HIGH", "MEDIUM", "LOW"]
const types: ReadonlyArray<TaskType> = ["implementation", "documentation", "testing", "analysis"]

/** Slow, sick and limited platforms, each in a rhythm of its own. */
const team = (): ReadonlyArray<Testing.Script> => [
  {
    id: "codex",
    settings: { weight: 3, limits: { requestsPerMinute: 40, maxConcurrent: 4 } },
    attempts: ({ number }) =>
      number % 7 === 0
        ? fail(failures.quota({ retryAfterMs: 20_000 }), { afterMs: 30 })
        : number % 5 === 0
          ? fail(failures.platform(), { afterMs: 400 })
          : answer("from codex", { afterMs: number % 9 === 0 ? 90_000 : 700, firstTokenAfterMs: 200 })
  },
  {
    id: "gemini",
    attempts: ({ number }) =>
      number > 10 && number < 25
        ? fail(failures.platform({ message: "an outage" }), { afterMs: 50 })
        : answer("from gemini", { afterMs: 1_500 + (number % 4) * 500 })
  },
  { id: "qwen", settings: { weight: 0.3 }, attempts: ({ number }) => answer("from qwen", { afterMs: 3_000 + number }) }
]

/** In order or at once, some waiting for others; every second one is cancelled soon. */
const jobOf = (index: number): JobSubmission => ({
  mode: index % 2 === 0 ? "auto" : "parallel",
  maxParallel: 2,
  onFailure: "continue",
  tasks: [
    ...types.slice(0, 2).map((type, part) => ({ name: `part-${part}`, prompt: `part ${part} of ${index}`, type })),
    { prompt: `the whole of ${index}`, maxOutputTokens: 100, dependsOn: ["part-0", "part-1"] }
  ]
})

const pick = <A>(from: readonly [A, ...ReadonlyArray<A>] | ReadonlyArray<A>) =>
  Effect.flatMap(Random.nextIntBetween(0, from.length), (index) => Effect.fromNullable(from[index]))

/** Submits over HTTP and directly, cancels and retries some, and goes on until all have ended. */
const load = Effect.gen(function* () {
  const coordinator = yield* Coordinator
  const http = yield* Testing.MemoryHttp
  const tenants = [TenantId.make("local"), TenantId.make("other")]
  const own: Array<readonly [TenantId, TaskId]> = []
  const cancelling: Array<readonly [TenantId, JobId]> = []
  for (let index = 0; index < tasks; index++) {
    const submission = {
      prompt: `question ${index}`,
      type: yield* pick(types),
      priority: yield* pick(priorities),
      maxOutputTokens: 200,
      ...(index % 10 === 9 ? { deadline: 4 } : {}),
      ...(index % 13 === 0 ? { affinityKey: "together" } : {})
    }
    if (index % 4 === 0) {
      const task = yield* http.client.tasks.submit({ payload: submission, headers: { "idempotency-key": `${index}` } })
      own.push([task.tenant, task.id])
    } else {
      const tenant = yield* pick(tenants)
      const key = index % 3 === 0 ? Option.some(`key ${index}`) : Option.none<string>()
      const submitted = yield* Effect.either(coordinator.submit(tenant, submission, key))
      if (Either.isRight(submitted)) own.push([tenant, submitted.right.task.id])
    }
    if (index % 12 === 7) {
      const tenant = yield* pick(tenants)
      const { job } = yield* coordinator.jobs.submit(tenant, jobOf(index), Option.none())
      if (index % 24 === 7) cancelling.push([tenant, job.id])
    }
    if (index % 12 === 10) {
      yield* Effect.forEach(cancelling.splice(0), ([tenant, id]) => Effect.ignore(coordinator.jobs.cancel(tenant, id)))
    }
    if (index % 5 === 4) yield* TestClock.adjust(yield* Random.nextIntBetween(1, 900))
    if (index % 17 === 16) {
      const [tenant, id] = yield* pick(own)
      yield* Effect.ignore(coordinator.cancel(tenant, id))
    }
  }
  const first = yield* Testing.advanceUntilIdle()
  yield* Effect.forEach(own, ([tenant, id]) => Effect.ignore(coordinator.retry(tenant, id)), { discard: true })
  const second = yield* Testing.advanceUntilIdle()
  return { log: yield* Testing.eventLog, first, second }
})

/** One run from nothing, in a world of its own. */
export const run = (seed: string) =>
  // The time is set before anything sleeps: whatever is periodic would wake up at each of its instants until then.
  Effect.zipRight(
    TestClock.setTime(start),
    load.pipe(
      Effect.provide(Testing.MemoryHttp.layer()),
      Effect.provide(
        Testing.layer(team(), { routing: { hedging: true }, tasks: { livePerClass: 8, parkAfterMs: 3_000 } })
      ),
      Effect.scoped
    )
  ).pipe(Effect.withRandom(Random.make(seed)), Effect.provide(TestContext.TestContext))

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { log } = await Effect.runPromise(run(process.argv[2] ?? "seed"))
  process.stdout.write(log)
}
