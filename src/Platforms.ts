import * as FileSystem from "@effect/platform/FileSystem"
import * as HttpClient from "@effect/platform/HttpClient"
import { Context, Effect, Layer, Option } from "effect"
import { ClaudeCode } from "./ClaudeCode.js"
import type { PlatformId } from "./Domain/Platform.js"
import { makeClaudePlatform } from "./Platforms/Cli/ClaudeCode.js"
import type { PlatformClient } from "./Platforms/Client.js"
import { makeHttpPlatform } from "./Platforms/HttpPlatform.js"
import { SessionHandoffs } from "./SessionStore/Requests.js"
import { SessionStore } from "./SessionStore.js"
import { Settings } from "./Settings.js"

export type { CheckResult, PlatformClient } from "./Platforms/Client.js"

/** The platforms of the team, one client each, in the order of the settings. */
export class Platforms extends Context.Tag("dream-team/Platforms")<
  Platforms,
  {
    readonly all: ReadonlyArray<PlatformClient>
    readonly get: (id: PlatformId) => Option.Option<PlatformClient>
  }
>() {
  /** Clients given by a program: platforms of its own, or scripted ones. */
  static readonly layerClients = (clients: ReadonlyArray<PlatformClient>): Layer.Layer<Platforms> => {
    const byId = new Map(clients.map((client) => [client.id, client]))
    return Layer.succeed(Platforms, { all: clients, get: (id) => Option.fromNullable(byId.get(id)) })
  }

  /**
   * One client for each platform of the settings: over HTTP in the wire format the settings name, or through Claude Code
   * where the program has that.
   */
  static readonly layer: Layer.Layer<Platforms, never, Settings | HttpClient.HttpClient> = Layer.unwrapEffect(
    Effect.gen(function* () {
      const settings = yield* Settings
      const httpClient = yield* HttpClient.HttpClient
      const means = yield* Effect.all({
        claude: Effect.serviceOption(ClaudeCode),
        sessions: Effect.serviceOption(SessionStore),
        handoffs: Effect.serviceOption(SessionHandoffs),
        files: Effect.serviceOption(FileSystem.FileSystem)
      })
      return Platforms.layerClients(
        settings.platforms.map(({ wire, ...platform }) =>
          wire === "claude-code"
            ? makeClaudePlatform({ ...platform, wire }, settings, means)
            : makeHttpPlatform({ ...platform, wire }, httpClient, settings.health.timeoutMs)
        )
      )
    })
  )
}
