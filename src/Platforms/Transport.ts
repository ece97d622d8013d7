import type * as HttpClient from "@effect/platform/HttpClient"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as Undici from "@effect/platform-node/Undici"
import { Effect, Layer } from "effect"
import { Settings } from "../Settings.js"

const originOf = (url: string): string | undefined => (URL.canParse(url) ? new URL(url).origin : undefined)

/**
 * An HTTP client on undici that gives up connecting to a platform after its `timeouts.connectMs`. Only the transport
 * can tell connecting from waiting for an answer; undici's own bound is 10 s for all.
 */
export const layer: Layer.Layer<HttpClient.HttpClient, never, Settings> =
  NodeHttpClient.layerUndiciWithoutDispatcher.pipe(
    Layer.provide(
      Layer.scoped(
        NodeHttpClient.Dispatcher,
        Effect.flatMap(Settings, ({ platforms }) => {
          const connectMs = new Map<string, number>()
          for (const { baseUrl, timeouts } of platforms) {
            const origin = originOf(baseUrl)
            if (origin !== undefined) {
              connectMs.set(origin, Math.max(timeouts.connectMs, connectMs.get(origin) ?? 0))
            }
          }
          return Effect.acquireRelease(
            Effect.sync(
              () =>
                new Undici.Agent({
                  factory: (origin, options) => {
                    const timeout = connectMs.get(originOf(origin.toString()) ?? "")
                    return new Undici.Pool(
                      origin,
                      timeout === undefined ? options : { ...options, connect: { timeout } }
                    )
                  }
                })
            ),
            (agent) => Effect.promise(() => agent.destroy())
          )
        })
      )
    )
  )
