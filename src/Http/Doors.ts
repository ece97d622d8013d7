import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { Effect, Scope, Stream } from "effect"
import { bulkType } from "../Coordinator/Api.js"
import {
  Forbidden,
  InvalidRequest,
  type PayloadTooLarge,
  ServiceUnavailable,
  UnsupportedMediaType
} from "../Domain/ApiError.js"
import { speaksOpenAi } from "../Gateway/OpenAiErrors.js"
import { ResourceManager } from "../ResourceManager.js"
import { Settings, type SettingsShape } from "../Settings.js"
import { declaredLength, discardBody, hasBody, tooLarge, withCheckedJson } from "./Body.js"
import { Shutdown } from "./Shutdown.js"

/** Whether a host name or address is this machine's own loopback, as it stands (names are not resolved). */
export const isLoopback = (host: string): boolean => {
  const name = host.toLowerCase().replace(/^\[(.*)\]$/, "$1")
  return name === "localhost" || name === "::1" || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(name)
}

const withoutPort = (host: string): string => host.replace(/:\d*$/, "")

const changesState = (method: string): boolean => method !== "GET" && method !== "HEAD" && method !== "OPTIONS"

/** Requests that are made in memory have their host in the URL alone. */
const hostOf = (request: HttpServerRequest.HttpServerRequest): string | undefined =>
  request.headers.host ?? (request.source instanceof Request ? new URL(request.source.url).host : undefined)

/**
 * Without API keys the address is all that keeps strangers out, so a web page must not get in by a name of its own that
 * resolves to this machine (DNS rebinding).
 */
const checkHost = (
  request: HttpServerRequest.HttpServerRequest,
  settings: SettingsShape
): Effect.Effect<void, InvalidRequest | Forbidden> => {
  const host = hostOf(request)
  if (host === undefined || host === "") {
    return new InvalidRequest({
      message: "The Host header is missing",
      problems: [{ field: "host", problem: "is missing" }]
    })
  }
  return settings.apiKeys.length > 0 || isLoopback(withoutPort(host))
    ? Effect.void
    : new Forbidden({
        message:
          "Without API keys the service answers to localhost, 127.0.0.1 and [::1] only. " +
          "Use one of them, or configure API keys to serve other names"
      })
}

/** No page of another origin may change anything here, whatever its visitor's browser knows. */
const checkOrigin = (request: HttpServerRequest.HttpServerRequest): Effect.Effect<void, Forbidden> => {
  const origin = request.headers.origin?.toLowerCase()
  const host = hostOf(request)?.toLowerCase()
  return origin === undefined || origin === `http://${host}` || origin === `https://${host}`
    ? Effect.void
    : new Forbidden({ message: "Pages of other origins may not change anything here" })
}

/** The one endpoint that takes its body line by line, and bounds each of them by itself. */
const takesBulk = ({ method, url }: HttpServerRequest.HttpServerRequest): boolean =>
  method === "POST" && url.split("?", 1)[0] === "/v1/tasks"

const checkBody = (
  request: HttpServerRequest.HttpServerRequest,
  settings: SettingsShape
): Effect.Effect<void, PayloadTooLarge | UnsupportedMediaType> => {
  if (!hasBody(request)) return Effect.void
  const contentType = request.headers["content-type"]?.split(";", 1)[0]?.trim().toLowerCase()
  const isBulk = contentType === bulkType && takesBulk(request)
  if (!isBulk && (declaredLength(request) ?? 0) > settings.maxBodyBytes) {
    return Effect.zipRight(discardBody(request), tooLarge(settings.maxBodyBytes))
  }
  if (!changesState(request.method)) return Effect.void
  if (!isBulk && contentType !== "application/json") {
    return new UnsupportedMediaType({
      message: `The body must be sent as Content-Type: application/json${contentType === undefined ? "" : `, not ${contentType.slice(0, 100)}`}`
    })
  }
  const encoding = request.headers["content-encoding"]?.trim().toLowerCase() ?? "identity"
  return encoding === "identity"
    ? Effect.void
    : new UnsupportedMediaType({
        message: `The body must be sent without Content-Encoding, not ${encoding.slice(0, 100)}`
      })
}

const pathOf = ({ url }: HttpServerRequest.HttpServerRequest): string => url.split("?", 1)[0] ?? url

const isHealth = (request: HttpServerRequest.HttpServerRequest): boolean => request.url.startsWith("/health/")

/** Streams of events have no end of their own to wait for: they end when the server does. */
const endsOn = (
  shutdown: Effect.Effect<void>,
  response: HttpServerResponse.HttpServerResponse
): HttpServerResponse.HttpServerResponse =>
  response.body._tag === "Stream"
    ? HttpServerResponse.setBody(
        response,
        HttpBody.stream(
          Stream.interruptWhen(response.body.stream, shutdown),
          response.body.contentType,
          response.body.contentLength
        )
      )
    : response

type Refusal = InvalidRequest | Forbidden | PayloadTooLarge | UnsupportedMediaType | ServiceUnavailable

/** What every request passes on its way in, and its response on the way out. */
export const make: Effect.Effect<
  <E, R>(app: HttpApp.Default<E, R>) => HttpApp.Default<E | Refusal, R>,
  never,
  ResourceManager | Settings | Shutdown
> = Effect.gen(function* () {
  const resources = yield* ResourceManager
  const settings = yield* Settings
  const shutdown = yield* Shutdown

  const enter = (request: HttpServerRequest.HttpServerRequest): Effect.Effect<void, Refusal> =>
    Effect.gen(function* () {
      if ((yield* shutdown.begun) && !isHealth(request)) {
        return yield* new ServiceUnavailable({ message: "The service is shutting down" })
      }
      yield* checkHost(request, settings)
      if (changesState(request.method)) yield* checkOrigin(request)
      yield* checkBody(request, settings)
    })

  return (app) =>
    Effect.gen(function* () {
      const request = yield* HttpServerRequest.HttpServerRequest
      yield* enter(request)
      // What a body takes up is held from before its first byte is read until the request is answered.
      const response = yield* Effect.acquireUseRelease(
        Scope.make(),
        (held) =>
          Effect.provideService(
            app,
            HttpServerRequest.HttpServerRequest,
            withCheckedJson(request, settings.maxBodyBytes, (bytes) => Scope.extend(resources.holdBytes(bytes), held))
          ),
        Scope.close
      )
      // A streamed answer has an end, which is waited for as that of any other answer is.
      return speaksOpenAi(pathOf(request)) ? response : endsOn(shutdown.awaitBegin, response)
    })
})

/** The last touch to every response, errors included. */
export const finish: Effect.Effect<<E, R>(app: HttpApp.Default<E, R>) => HttpApp.Default<E, R>, never, Shutdown> =
  Effect.map(
    Shutdown,
    (shutdown) => (app) =>
      Effect.flatMap(app, (response) =>
        Effect.map(shutdown.begun, (begun) =>
          HttpServerResponse.setHeaders(response, {
            "x-content-type-options": "nosniff",
            ...(begun ? { connection: "close" } : {})
          })
        )
      )
  )
