import { Effect, Layer, Option, Stream } from "effect"
import type { Delta } from "../../src/Domain/Call.js"
import { Coordinator, type PlatformClient, Platforms, Settings, Team, TenantId } from "../../src/index.js"

const tenant = TenantId.make("my-program")

const settings = Settings.platformDefaults("echo", {
  wire: "openai-chat",
  baseUrl: "http://echo.invalid",
  model: "echo-1",
  apiKey: "none",
  limits: { maxConcurrent: 8 }
})

/** Anything that answers a call as a stream of pieces is a platform: a model in this process, a queue, a person. */
export const echo: PlatformClient = {
  id: settings.id,
  settings,
  stream: (model, { messages }) =>
    Stream.make<Array<Delta>>(
      { _tag: "Start", limits: [] },
      { _tag: "Text", text: `You said: ${messages.at(-1)?.content}` },
      {
        _tag: "Finish",
        finishReason: "stop",
        model,
        usage: { inputTokens: 10, cachedInputTokens: 0, outputTokens: 5, reasoningTokens: 0 }
      }
    ),
  complete: () => Effect.dieMessage("only streams are asked for"),
  listModels: Effect.succeed([settings.model]),
  check: Effect.succeed({ models: [settings.model], readings: [] })
}

/** The whole service over platforms of one's own; everything else of the program goes beside it. */
export const team = Team.layerWithPlatforms.pipe(
  Layer.provide(Platforms.layerClients([echo])),
  Layer.provide(Settings.layer(Settings.make({ database: ":memory:" })))
)

/** A durable task, from its submission to its result. */
export const ask = Effect.fn("ask")(function* (prompt: string) {
  const coordinator = yield* Coordinator
  const { task } = yield* coordinator.submit(tenant, { prompt }, Option.none())
  yield* Stream.runDrain(Stream.unwrap(coordinator.events(tenant, task.id, Option.none())))
  return yield* coordinator.get(tenant, task.id)
})
