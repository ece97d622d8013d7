/** Tasks from their submission to their stored result, in one process, over a platform that answers at once; as JSON. */
import { SqlClient } from "@effect/sql/SqlClient"
import { Effect, Option } from "effect"
import { Coordinator } from "../../../src/Coordinator.js"
import { TenantId } from "../../../src/Domain/Task.js"
import { median } from "../support/Figures.js"
import { teamOver } from "./instant.js"

const [database = ":memory:", tasks = "3000"] = process.argv.slice(2)
const tenant = TenantId.make("bench")
const submitters = 64
const rounds = 3

const program = Effect.gen(function* () {
  const coordinator = yield* Coordinator
  const sql = yield* SqlClient
  const round = Effect.fnUntraced(function* (count: number) {
    const cpu = process.cpuUsage()
    const start = performance.now()
    yield* Effect.forEach(
      Array.from({ length: count }, (_, index) => index),
      (index) => coordinator.submit(tenant, { prompt: `question ${index}`, maxOutputTokens: 64 }, Option.none()),
      { concurrency: submitters, discard: true }
    )
    const left = sql<{ readonly id: string }>`
      SELECT id FROM tasks WHERE tenant = ${tenant} AND state IN ('queued', 'running', 'waiting') LIMIT 1`
    yield* Effect.repeat(Effect.zipRight(Effect.sleep(2), left), { until: (rows) => rows.length === 0 })
    const { system, user } = process.cpuUsage(cpu)
    return {
      perSecond: count / ((performance.now() - start) / 1_000),
      cpuMs: (user + system) / 1_000 / count
    }
  })
  yield* round(2_000)
  const measured = yield* Effect.replicateEffect(round(Number(tasks)), rounds)
  return {
    perSecond: median(measured.map(({ perSecond }) => perSecond)),
    cpuMs: median(measured.map(({ cpuMs }) => cpuMs))
  }
})

const figures = await Effect.runPromise(
  program.pipe(Effect.provide(teamOver({ database, hangs: false })), Effect.scoped, Effect.withTracerEnabled(false))
)
process.stdout.write(JSON.stringify(figures))
