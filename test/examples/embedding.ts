import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Effect, Layer, Option, Stream } from "effect"
import { Coordinator, Settings, type SettingsShape, Team, TenantId } from "../../src/index.js"

const tenant = TenantId.make("my-program")

/** One durable task, followed to its end. */
export const ask = Effect.fn("ask")(function* (prompt: string) {
  const coordinator = yield* Coordinator
  const { task } = yield* coordinator.submit(tenant, { prompt, priority: "HIGH" }, Option.none())
  yield* Stream.runDrain(Stream.unwrap(coordinator.events(tenant, task.id, Option.none())))
  return yield* coordinator.get(tenant, task.id)
})

/** The whole service as one Layer, without its HTTP door. */
export const team = (settings: SettingsShape) =>
  Team.layer.pipe(Layer.provide([Settings.layer(settings), NodeHttpClient.layerUndici]))

export const program = (apiKey: string) =>
  ask("Which HTTP status says that a resource is locked?").pipe(
    Effect.provide(
      team(Settings.make({ database: "my-tasks.db", platforms: [Settings.platformDefaults("gemini", { apiKey })] }))
    )
  )
