import { createServer, type Server, STATUS_CODES } from "node:http"
import type { Socket } from "node:net"
import type { Duplex } from "node:stream"
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import type * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as HttpApp from "@effect/platform/HttpApp"
import type * as HttpClient from "@effect/platform/HttpClient"
import * as HttpMiddleware from "@effect/platform/HttpMiddleware"
import type { ServeError } from "@effect/platform/HttpServerError"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Context, Duration, Effect, Layer, Option, Schema, Scope } from "effect"
import type { Api } from "./Api.js"
import * as BudgetsHttp from "./Budgets/Http.js"
import { RequestLimits } from "./Budgets/RequestLimits.js"
import type { Budgets } from "./Budgets.js"
import * as SessionsHttp from "./CCRWatcher/Http.js"
import { OwnAddress } from "./CCRWatcher/Router.js"
import type { CCRWatcher } from "./CCRWatcher.js"
import * as TasksHttp from "./Coordinator/Http.js"
import * as JobsHttp from "./Coordinator/Jobs/Http.js"
import type { Coordinator } from "./Coordinator.js"
import { type ApiError, InvalidRequest } from "./Domain/ApiError.js"
import * as EventsHttp from "./Events/Http.js"
import type { Events } from "./Events.js"
import * as GatewayHttp from "./Gateway/Http.js"
import type { Gateway } from "./Gateway.js"
import * as App from "./Http/App.js"
import * as Docs from "./Http/Docs.js"
import * as Doors from "./Http/Doors.js"
import type { Served } from "./Http/Endpoints.js"
import * as Errors from "./Http/Errors.js"
import * as Health from "./Http/Health.js"
import { Shutdown } from "./Http/Shutdown.js"
import * as PlatformsHttp from "./PlatformDetector/Http.js"
import type { PlatformDetector } from "./PlatformDetector.js"
import * as ResourcesHttp from "./ResourceManager/Http.js"
import type { ResourceManager } from "./ResourceManager.js"
import { Settings } from "./Settings.js"
import type { SqlWriter } from "./Sql.js"
import { isTraced } from "./Telemetry/traced.js"

/** Without API keys anybody who reaches the address could use the team, so no address but loopback is opened. */
export class UnprotectedAddress extends Schema.TaggedError<UnprotectedAddress>()("UnprotectedAddress", {
  message: Schema.String,
  host: Schema.String
}) {}

/** The address could not be opened. `code` is the system's own, such as `EADDRINUSE`. */
export class CannotListen extends Schema.TaggedError<CannotListen>()("CannotListen", {
  message: Schema.String,
  host: Schema.String,
  port: Schema.Int,
  code: Schema.optional(Schema.String)
}) {}

/** Requests in flight get this long at shutdown; most need milliseconds. `shutdownGraceMs` bounds it too. */
const maxDrain = Duration.seconds(5)

/** What the endpoints work with. */
export type Concerns =
  | Settings
  | Budgets
  | CCRWatcher
  | Coordinator
  | Events
  | Gateway
  | PlatformDetector
  | ResourceManager
  | SqlWriter

/** What the groups of endpoints are made of. */
type Parts = Concerns | RequestLimits | Shutdown

/** Every group of the API has its place here. */
const groups: {
  readonly [Name in HttpApiGroup.HttpApiGroup.Name<(typeof Api)["groups"][string]>]: Effect.Effect<
    ReadonlyArray<Served>,
    never,
    Parts
  >
} = {
  tasks: TasksHttp.endpoints,
  jobs: JobsHttp.endpoints,
  events: EventsHttp.endpoints,
  platforms: PlatformsHttp.endpoints,
  resources: ResourcesHttp.endpoints,
  budgets: BudgetsHttp.endpoints,
  gateway: GatewayHttp.endpoints,
  sessions: SessionsHttp.endpoints,
  health: Health.endpoints
}

class WholeApp extends Context.Tag("dream-team/Http/WholeApp")<WholeApp, HttpApp.Default<never, Scope.Scope>>() {
  static readonly layer: Layer.Layer<WholeApp, never, Concerns | Shutdown> = Layer.effect(
    WholeApp,
    Effect.all([Docs.served, ...Object.values(groups)]).pipe(Effect.flatMap((served) => App.make(served.flat())))
  ).pipe(Layer.provide(RequestLimits.layer))
}

const refuseUnprotected = Effect.flatMap(Settings, ({ host, apiKeys }) =>
  apiKeys.length > 0 || Doors.isLoopback(host)
    ? Effect.void
    : new UnprotectedAddress({
        host,
        message:
          `Without API keys the service listens on this machine only, not on ${host}. ` +
          "Set DREAM_TEAM_API_KEYS to let others in, or DREAM_TEAM_HOST to 127.0.0.1 to stay alone."
      })
)

const whyNotListening: Readonly<Record<string, string>> = {
  EADDRINUSE:
    "Something else listens there already, perhaps another Dream Team. Stop it, or choose another port with DREAM_TEAM_PORT (0 = any free one).",
  EACCES: "The system does not allow it. Choose a port above 1023 with DREAM_TEAM_PORT.",
  EADDRNOTAVAIL: "This machine has no such address. Choose one it has with DREAM_TEAM_HOST.",
  ENOTFOUND: "The name is not known. Choose an address of this machine with DREAM_TEAM_HOST."
}

const cannotListen =
  (host: string, port: number) =>
  ({ cause }: ServeError): CannotListen => {
    const code =
      typeof cause === "object" && cause !== null && "code" in cause && typeof cause.code === "string"
        ? cause.code
        : undefined
    const why = code === undefined ? undefined : whyNotListening[code]
    return new CannotListen({
      host,
      port,
      code,
      message: `Cannot listen on ${host}:${port}. ${why ?? String(cause)}`
    })
  }

const rawResponse = (error: ApiError, status: number): string => {
  const body = JSON.stringify(Errors.toParts(error).body)
  return [
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}`,
    "content-type: application/json",
    `content-length: ${Buffer.byteLength(body)}`,
    "connection: close",
    "",
    body
  ].join("\r\n")
}

const unparsable: Readonly<Record<string, { readonly status: number; readonly message: string }>> = {
  HPE_HEADER_OVERFLOW: { status: 431, message: "The request's headers are too large" },
  ERR_HTTP_REQUEST_TIMEOUT: { status: 408, message: "The request did not arrive in time" }
}

/** Requests that Node's parser refuses never reach the application; they get the same shape of error. */
const answerUnparsable = (error: Error & { readonly code?: string }, socket: Duplex): void => {
  if (!socket.writable || error.code === "ECONNRESET") {
    socket.destroy()
    return
  }
  const { status, message } = unparsable[error.code ?? ""] ?? { status: 400, message: "This is not an HTTP request" }
  socket.end(rawResponse(new InvalidRequest({ message, problems: [] }), status))
}

/**
 * Closes a server in an orderly way: every response goes out whole and its connection ends with it; connections that ask
 * nothing end when the last response is out. Node alone would wait for them, for as long as their clients like.
 */
const orderlyClose = (server: Server): Effect.Effect<void> => {
  const sockets = new Set<Socket>()
  let inFlight = 0
  let closing = false
  const endIfQuiet = (): void => {
    if (closing && inFlight === 0) for (const socket of sockets) socket.destroy()
  }
  server.on("connection", (socket) => {
    sockets.add(socket)
    socket.once("close", () => sockets.delete(socket))
  })
  server.on("request", (request, response) => {
    inFlight++
    // Its headers may be out already, so they cannot say that the connection ends.
    response.once("finish", () => {
      if (closing) request.socket.destroySoon()
    })
    response.once("close", () => {
      inFlight--
      endIfQuiet()
    })
  })
  return Effect.async((resume) => {
    closing = true
    server.close(() => resume(Effect.void))
    endIfQuiet()
  })
}

/** Where clients on this machine reach an address, every-address ones included. */
const urlHostOf = (address: string): string => {
  if (address === "0.0.0.0") return "127.0.0.1"
  if (address === "::") return "[::1]"
  return address.includes(":") ? `[${address}]` : address
}

const serve = Effect.gen(function* () {
  const { host, port, shutdownGraceMs } = yield* Settings
  const address = host.replace(/^\[(.*)\]$/, "$1")
  const shutdown = yield* Shutdown
  yield* refuseUnprotected

  const app = yield* WholeApp

  // A missing Host header is refused by our own doors, in our own words.
  const node = createServer({ requireHostHeader: false })
  node.on("clientError", answerUnparsable)
  // Node would refuse an unknown `Expect` without a word; it may as well be passed over.
  node.on("checkExpectation", (request, response) => node.emit("request", request, response))
  const close = orderlyClose(node)

  const server = yield* Effect.mapError(
    NodeHttpServer.make(() => node, { host: address, port }),
    cannotListen(host, port)
  )
  // A span for each request, with its URL parsed and its headers redacted, is made in vain where nobody sees spans.
  const isSeen = yield* Effect.withFiberRuntime<boolean>((fiber) => Effect.succeed(isTraced(fiber)))
  yield* server.serve(app).pipe(
    HttpMiddleware.withTracerDisabledWhenEffect((request) => !isSeen || request.url.startsWith("/health/")),
    // The app has all it needs: a context of many services would be copied several times for every request.
    Effect.mapInputContext((context: Context.Context<Scope.Scope>) => Context.pick(Scope.Scope)(context))
  )

  // Finalizers run last first: requests end here, while the handlers and all below them are still there.
  yield* Effect.addFinalizer(() =>
    shutdown.begin.pipe(
      Effect.zipRight(close),
      Effect.interruptible,
      Effect.timeoutTo({
        duration: Duration.min(maxDrain, Duration.millis(shutdownGraceMs)),
        onSuccess: () => undefined,
        onTimeout: () => node.closeAllConnections()
      })
    )
  )

  const bound = node.address()
  const boundPort = typeof bound === "object" && bound !== null ? bound.port : port
  const url = `http://${urlHostOf(address)}:${boundPort}`
  const own = yield* Effect.serviceOption(OwnAddress)
  if (Option.isSome(own)) yield* own.value.announce(url)
  return { host, port: boundPort, url }
})

const handler = Effect.gen(function* () {
  const app = yield* WholeApp
  const runtime = yield* Effect.mapInputContext(Effect.runtime<never>(), (_: Context.Context<never>) => Context.empty())
  return HttpApp.toWebHandlerRuntime(runtime)(app)
})

/** The HTTP server: the API, its description, and the doors in front of it. */
export class Http extends Context.Tag("dream-team/Http")<
  Http,
  {
    /** As configured. */
    readonly host: string
    /** The port really bound, also where 0 was configured. */
    readonly port: number
    /** Where clients on this machine reach it, without a trailing slash. */
    readonly url: string
  }
>() {
  /**
   * Listens on the settings' host and port. At the end it takes no new work (503), ends event streams, lets requests in
   * flight finish (at most 5 s, or `shutdownGraceMs` if less), and only then lets go of what it works with.
   */
  static readonly layer: Layer.Layer<Http, UnprotectedAddress | CannotListen, Concerns> = Layer.scoped(
    Http,
    serve
  ).pipe(Layer.provide(WholeApp.layer), Layer.provide(Shutdown.layer))

  /** The same API without a socket: what `fetch` would answer. Runs on the clock and services of whoever makes it. */
  static readonly webHandler: Effect.Effect<(request: Request) => Promise<Response>, never, Concerns | Scope.Scope> =
    Effect.flatMap(Layer.build(Layer.provide(WholeApp.layer, Shutdown.layer)), (context) =>
      Effect.provide(handler, context)
    )

  /** An `HttpClient` that reaches a handler in memory, whatever host its URLs name. */
  static readonly layerClientOver = (
    handle: (request: Request) => Promise<Response>
  ): Layer.Layer<HttpClient.HttpClient> =>
    Layer.provide(
      FetchHttpClient.layer,
      Layer.succeed(FetchHttpClient.Fetch, (input, init) => handle(new Request(input, init)))
    )

  /** An `HttpClient` that reaches the API in memory, whatever host its URLs name; for tests under a test clock. */
  static readonly layerClientMemory: Layer.Layer<HttpClient.HttpClient, never, Concerns> = Layer.unwrapScoped(
    Effect.map(Http.webHandler, Http.layerClientOver)
  )
}
