import * as HttpClient from "@effect/platform/HttpClient"
import { Context, Effect, Layer, Option } from "effect"
import type { PlatformId } from "./Domain/Platform.js"
import type { PlatformClient } from "./Platforms/Client.js"
import { makeHttpPlatform } from "./Platforms/HttpPlatform.js"
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

  /** One client over HTTP for each platform of the settings, in the wire format the settings name. */
  static readonly layer: Layer.Layer<Platforms, never, Settings | HttpClient.HttpClient> = Layer.unwrapEffect(
    Effect.gen(function* () {
      const settings = yield* Settings
      const httpClient = yield* HttpClient.HttpClient
      return Platforms.layerClients(
        settings.platforms.map((platform) => makeHttpPlatform(platform, httpClient, settings.health.timeoutMs))
      )
    })
  )
}
