import * as HttpBody from "@effect/platform/HttpBody"
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { Effect, Stream } from "effect"
import { bulkType, isBulkType } from "../Coordinator/Api.js"
import {
  Forbidden,
  InvalidRequest,
  type PayloadTooLarge,
  ServiceUnavailable,
  UnsupportedMediaType
} from "../Domain/ApiError.js"
import { speaksOpenAi } from "../Gateway/OpenAiErrors.js"
import { Settings, type SettingsShape } from "../Settings.js"
import { declaredLength, discardBody, hasBody, mediaTypeOf, tooLarge } from "./Body.js"
import { pathOf } from "./Errors.js"
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
): InvalidRequest | Forbidden | undefined => {
  const host = hostOf(request)
  if (host === undefined || host === "") {
    return new InvalidRequest({
      message: "The Host header is missing",
      problems: [{ field: "host", problem: "is missing" }]
    })
  }
  return settings.apiKeys.length > 0 || isLoopback(withoutPort(host))
    ? undefined
    : new Forbidden({
        message:
          "Without API keys the service answers to localhost, 127.0.0.1 and [::1] only. " +
          "Use one of them, or configure API keys to serve other names"
      })
}

/** No page of another origin may change anything here, whatever its visitor's browser knows. */
const checkOrigin = (request: HttpServerRequest.HttpServerRequest): Forbidden | undefined => {
  const origin = request.headers.origin?.toLowerCase()
  const host = hostOf(request)?.toLowerCase()
  return origin === undefined || origin === `http://${host}` || origin === `https://${host}`
    ? undefined
    : new Forbidden({ message: "Pages of other origins may not change anything here" })
}

/** The one endpoint that takes its body line by line, and bounds each of them by itself. */
const takesBulk = (request: HttpServerRequest.HttpServerRequest): boolean =>
  request.method === "POST" && pathOf(request) === "/v1/tasks"

const checkBody = (
  request: HttpServerRequest.HttpServerRequest,
  settings: SettingsShape
): PayloadTooLarge | UnsupportedMediaType | undefined => {
  if (!hasBody(request)) return undefined
  const contentType = mediaTypeOf(request)
  const isBulk = isBulkType(contentType) && takesBulk(request)
  if (!isBulk && (declaredLength(request) ?? 0) > settings.maxBodyBytes) {
    discardBody(request)
    return tooLarge(settings.maxBodyBytes)
  }
  if (!changesState(request.method)) return undefined
  if (!isBulk && contentType !== "application/json") {
    return new UnsupportedMediaType({
      message: [
        "The body must be sent as Content-Type: application/json",
        takesBulk(request) ? ` or, with a task a line, ${bulkType}` : "",
        contentType === undefined ? "" : `, not ${contentType.slice(0, 100)}`
      ].join("")
    })
  }
  const encoding = request.headers["content-encoding"]?.trim().toLowerCase() ?? "identity"
  return encoding === "identity"
    ? undefined
    : new UnsupportedMediaType({
        message: `The body must be sent without Content-Encoding, not ${encoding.slice(0, 100)}`
      })
}

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

const headers = { "x-content-type-options": "nosniff" }
const lastHeaders = { ...headers, connection: "close" }

export type Refusal = InvalidRequest | Forbidden | PayloadTooLarge | UnsupportedMediaType | ServiceUnavailable

/** What every request passes on its way in, and its response on the way out. */
export interface Doors {
  /** Why a request is not let in. Plain code: it is run for every request. */
  readonly refuse: (request: HttpServerRequest.HttpServerRequest) => Refusal | undefined
  /** The last touch to every response, errors included. */
  readonly finish: (
    response: HttpServerResponse.HttpServerResponse,
    request: HttpServerRequest.HttpServerRequest
  ) => HttpServerResponse.HttpServerResponse
}

export const make: Effect.Effect<Doors, never, Settings | Shutdown> = Effect.gen(function* () {
  const settings = yield* Settings
  const shutdown = yield* Shutdown
  return {
    refuse: (request) =>
      shutdown.hasBegun() && !isHealth(request)
        ? new ServiceUnavailable({ message: "The service is shutting down" })
        : (checkHost(request, settings) ??
          (changesState(request.method) ? checkOrigin(request) : undefined) ??
          checkBody(request, settings)),
    finish: (response, request) => {
      // A streamed answer has an end, which is waited for as that of any other answer is.
      const ending = speaksOpenAi(pathOf(request)) ? response : endsOn(shutdown.awaitBegin, response)
      return HttpServerResponse.setHeaders(ending, shutdown.hasBegun() ? lastHeaders : headers)
    }
  }
})
