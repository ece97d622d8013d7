/** A program that embeds the service with its own `effect`: one scripted platform, everything in memory. */
import { Coordinator, Http, type Settings, Simulator, Team } from "dream-team"
import type { Client } from "dream-team/client"
import { type TaskId, TenantId } from "dream-team/Domain/Task"
import { ResourceManager } from "dream-team/ResourceManager"
import * as Testing from "dream-team/testing"
import { Console, Effect, Layer, Option, Stream } from "effect"

/** What a program needs to open the whole service to the network; typed only. */
export const service: Layer.Layer<Http, unknown, Settings | Layer.Layer.Context<typeof Team.layer>> = Layer.provide(
  Http.layer,
  Team.layer
)

export const simulated = Layer.scopedDiscard(Simulator.make(Simulator.instant))

export const answerOf = (client: Client, id: TaskId): Effect.Effect<string | undefined, unknown> =>
  Effect.map(client.waitFor(id), (task) => task.result?.text)

const program = Effect.gen(function* () {
  const coordinator = yield* Coordinator
  const resources = yield* ResourceManager
  const tenant = TenantId.make("embedded")
  const { task } = yield* coordinator.submit(tenant, { prompt: "Why?" }, Option.none())
  yield* Stream.runDrain(Stream.unwrap(coordinator.events(tenant, task.id, Option.none())))
  const { result } = yield* coordinator.get(tenant, task.id)
  const { platforms } = yield* resources.view
  yield* Console.log(
    JSON.stringify({
      text: result?.text,
      platform: result?.platform,
      inFlight: platforms.map(({ permits }) => permits.inUse)
    })
  )
})

Effect.runPromise(Effect.provide(program, Testing.layer([{ id: "codex", attempts: [Testing.answer("Because.")] }])))
