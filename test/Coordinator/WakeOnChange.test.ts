import { describe, it } from "@effect/vitest"
import { Effect, Option, TestClock } from "effect"
import { Coordinator } from "../../src/Coordinator.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { TaskSubmission, TenantId } from "../../src/Domain/Task.js"
import { ResourceManager } from "../../src/ResourceManager.js"
import * as Testing from "../../src/Testing.js"
import { eventually } from "../Http/server.js"

const codex = PlatformId.make("codex")
const tenant = TenantId.make("local")

describe("a program that changes a platform's limits itself", () => {
  it.effect("wakes the tasks that are parked for them", () =>
    Effect.gen(function* () {
      const coordinator = yield* Coordinator
      const manager = yield* ResourceManager
      const ids = yield* Effect.forEach(["a", "b", "c", "d"], (prompt) =>
        Effect.map(
          coordinator.submit(tenant, TaskSubmission.make({ prompt, priority: "HIGH" }), Option.none()),
          ({ task }) => task.id
        )
      )
      const states = Effect.forEach(ids, (id) => Effect.map(coordinator.get(tenant, id), ({ state }) => state))
      const count = (wanted: string) => Effect.map(states, (all) => all.filter((state) => state === wanted).length)
      yield* eventually(count("succeeded"), (done) => done === 1)
      yield* TestClock.adjust("31 seconds")
      yield* eventually(count("waiting"), (parked) => parked === 3)

      yield* manager.patch(codex, { limits: { requestsPerMinute: 10 } }, tenant)
      // Without the clock.
      yield* eventually(count("succeeded"), (done) => done === 4)
    }).pipe(
      Effect.provide(
        Testing.layer([
          { id: "codex", settings: { limits: { requestsPerMinute: 1, tokensCounted: "reserved", maxConcurrent: 4 } } }
        ])
      )
    )
  )
})
