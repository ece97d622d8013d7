import { Effect, Layer } from "effect"
import { AgentRouter } from "../../../src/AgentRouter.js"
import { Benchmark } from "../../../src/Benchmark.js"
import { Budgets } from "../../../src/Budgets.js"
import { Delegation } from "../../../src/Delegation.js"
import { PlatformDetector } from "../../../src/PlatformDetector.js"
import type { PlatformClient } from "../../../src/Platforms.js"
import { Platforms } from "../../../src/Platforms.js"
import { ResourceManager } from "../../../src/ResourceManager.js"
import { Settings } from "../../../src/Settings.js"
import { runWorld } from "../support/World.js"
import type { Day, DayTask } from "./Day.js"
import { DEADLINE_MS, type Ended, type Outcome } from "./Outcome.js"
import { makeSickPlatforms } from "./SickPlatforms.js"

/** The product over these platforms, but for its doors and its database. */
const layerOf = (clients: ReadonlyArray<PlatformClient>): Layer.Layer<Delegation> =>
  Delegation.layer.pipe(
    Layer.provide([AgentRouter.layer, Budgets.layer, PlatformDetector.layer]),
    Layer.provide([Benchmark.layer, Platforms.layerClients(clients), ResourceManager.layer]),
    Layer.provide(Settings.layer(Settings.make({ platforms: clients.map(({ settings }) => settings) })))
  )

/** The day through the product's own delegation. */
export const runSubject = (day: Day, seed: string): Effect.Effect<Outcome> => {
  const sick = makeSickPlatforms(day, seed)
  return runWorld(seed, layerOf(sick.clients), (world) =>
    Effect.gen(function* () {
      const { delegate } = yield* Delegation
      const ended: Array<Ended> = []

      const run = (task: DayTask): Effect.Effect<void> => {
        const { estimatedInput, maxOutput, tenant, type } = task
        return delegate({
          call: sick.callOf(task),
          requirement: {
            capabilities: ["text"],
            contextTokens: estimatedInput + maxOutput,
            inputTokens: estimatedInput,
            outputTokens: maxOutput
          },
          type,
          priority: "HIGH",
          tenant,
          deadline: task.arrivesAt + DEADLINE_MS,
          id: String(task.id),
          attemptsMade: 0,
          attemptsSpent: 0,
          maxWaitMs: DEADLINE_MS,
          journal: { attemptStarted: () => Effect.void, attemptEnded: () => Effect.void }
        }).pipe(
          Effect.match({
            onSuccess: ({ platform }) => ended.push({ task, at: world.now(), by: platform }),
            onFailure: ({ _tag, message }) => ended.push({ task, at: world.now(), why: `${_tag}: ${message}` })
          }),
          Effect.forkDaemon,
          Effect.asVoid
        )
      }

      for (const task of day.tasks) {
        world.agenda.add(
          task.arrivesAt,
          Effect.suspend(() => run(task))
        )
      }
      return {
        isOver: () => ended.length === day.tasks.length,
        outcome: (): Outcome => ({ ended, attempts: sick.attempts(), refused: sick.refused() })
      }
    })
  )
}
