import { Chunk, Effect, Layer, Logger, LogLevel, Stream } from "effect"
import type { Delta } from "../../../src/Domain/Call.js"
import { type PlatformClient, Platforms } from "../../../src/Platforms.js"
import { Settings } from "../../../src/Settings.js"
import { Team } from "../../../src/Team.js"

const settings = Settings.platformDefaults("instant", {
  wire: "openai-chat",
  baseUrl: "http://instant.invalid",
  model: "instant-1",
  apiKey: "none",
  quotasUrl: undefined,
  limits: {
    requestsPerMinute: undefined,
    tokensPerMinute: undefined,
    burst: undefined,
    windowRequests: undefined,
    windowMs: undefined,
    tokensCounted: "actual",
    maxConcurrent: 64
  }
})

const answer: Chunk.Chunk<Delta> = Chunk.fromIterable<Delta>([
  { _tag: "Start", limits: [] },
  { _tag: "Text", text: "Because." },
  {
    _tag: "Finish",
    finishReason: "stop",
    model: "instant-1",
    usage: { inputTokens: 10, cachedInputTokens: 0, outputTokens: 5, reasoningTokens: 0 }
  }
])

/** The whole service over one platform in its own process, which answers at once or (`hangs`) never. */
export const teamOver = (options: {
  readonly database: string
  readonly hangs: boolean
  readonly port?: number | undefined
}) => {
  const client: PlatformClient = {
    id: settings.id,
    settings,
    stream: () => (options.hangs ? Stream.never : Stream.fromChunk(answer)),
    // As the clients of real platforms have it.
    streamTo: (_model, _call, take) => (options.hangs ? Effect.never : take(answer)),
    complete: () => Effect.dieMessage("only streams are asked for"),
    listModels: Effect.succeed([settings.model]),
    check: Effect.succeed({ models: [], readings: [] })
  }
  return Team.layerWithPlatforms.pipe(
    Layer.provideMerge(Platforms.layerClients([client])),
    Layer.provideMerge(
      Settings.layer(
        Settings.make({
          database: options.database,
          port: options.port ?? 0,
          tasks: { livePerClass: options.hangs ? 1 : 128 }
        })
      )
    ),
    // As `serve` does where no collector is configured.
    Layer.provide(Layer.setTracerEnabled(false)),
    // What is measured is written to stdout.
    Layer.provide(Logger.minimumLogLevel(LogLevel.Warning))
  )
}
