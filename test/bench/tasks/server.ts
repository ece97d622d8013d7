/**
 * The HTTP API over a platform that never answers, so that tasks are accepted and nothing more. `none` as the database
 * leaves the store out: a submission is read, checked and answered as always, and then forgotten.
 */
import { Clock, Effect, Layer } from "effect"
import { Coordinator } from "../../../src/Coordinator.js"
import { TaskId } from "../../../src/Domain/Task.js"
import { Http } from "../../../src/Http.js"
import { shownOf } from "../../../src/TaskStore/Rows.js"
import { TaskValidator } from "../../../src/TaskValidator.js"
import { teamOver } from "./instant.js"

const [database = "none", port = "0"] = process.argv.slice(2)

const forgetful = Layer.effect(
  Coordinator,
  Effect.gen(function* () {
    const coordinator = yield* Coordinator
    const validator = yield* TaskValidator
    let accepted = 0
    return {
      ...coordinator,
      submit: (tenant, submission) =>
        Effect.gen(function* () {
          const { deadline, priority, type } = yield* validator.validate(submission, tenant)
          const now = yield* Clock.currentTimeMillis
          const id = TaskId.make(`01900000-0000-7000-8000-${(accepted++).toString(16).padStart(12, "0")}`)
          return {
            replayed: false,
            task: {
              id,
              tenant,
              type,
              priority,
              deadline,
              state: "queued" as const,
              attempts: 0,
              createdAt: now,
              updatedAt: now,
              ...shownOf(submission)
            }
          }
        })
    }
  })
)

const team = teamOver({ database: database === "none" ? ":memory:" : database, hangs: true, port: Number(port) })

await Effect.runPromise(
  Layer.launch(
    database === "none"
      ? Http.layer.pipe(Layer.provide(forgetful), Layer.provide(team))
      : Layer.provide(Http.layer, team)
  ).pipe(Effect.withTracerEnabled(false))
)
