import { Context, Effect, Layer, type Redacted } from "effect"
import * as Client from "../Client.js"
import { type Concerns, Http } from "../Http.js"

/** Where the API in memory seems to be: a loopback name, because the doors let no other in without a key. */
const origin = "http://localhost"

/** The HTTP API of the service at hand without a socket: doors, schemas, errors and event streams as they are. */
export class MemoryHttp extends Context.Tag("dream-team/Testing/MemoryHttp")<
  MemoryHttp,
  {
    /** The typed client. */
    readonly client: Client.Client
    /** As the global `fetch`; a path alone will do. */
    readonly fetch: (input: string | URL | Request, init?: RequestInit) => Promise<Response>
  }
>() {
  /** `apiKey` is the typed client's; needed where the settings have keys. */
  static readonly layer = (options: { readonly apiKey?: Redacted.Redacted<string> | undefined } = {}) =>
    Layer.scoped(
      MemoryHttp,
      Effect.gen(function* () {
        const handle = yield* Http.webHandler
        const client = yield* Effect.provide(
          Client.make({ baseUrl: origin, apiKey: options.apiKey }),
          Http.layerClientOver(handle)
        )
        return {
          client,
          fetch: (input, init) =>
            handle(input instanceof Request ? new Request(input, init) : new Request(new URL(input, origin), init))
        }
      })
    ) satisfies Layer.Layer<MemoryHttp, never, Concerns>
}
