import * as HttpClient from "@effect/platform/HttpClient"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as Undici from "@effect/platform-node/Undici"
import { Effect, Exit, Layer, Option } from "effect"
import { Settings } from "../Settings.js"
import { type Exchange, makeInbox, withExchange } from "./Exchange.js"
import { maxBodyBytes } from "./Reply.js"
import { makeAlarm } from "./Watchdog.js"
import type { ResponseHeaders } from "./Wire/RateLimitHeaders.js"

const parseUrl = Option.liftThrowable((url: string) => new URL(url))

const originOf = (url: string): string | undefined => Option.getOrUndefined(parseUrl(url))?.origin

const headersOf = (given: Record<string, string | ReadonlyArray<string> | undefined>): ResponseHeaders => {
  const headers: Record<string, string | undefined> = {}
  for (const name in given) {
    const value = given[name]
    headers[name] = typeof value === "object" ? value.join(", ") : value
  }
  return headers
}

/**
 * Whether the sender of a reply may be held up. Where a connection ends with its reply and is closed or reset while that is
 * held up, undici 7 throws where nobody can catch it, which ends the process (https://github.com/nodejs/undici/issues/5360).
 * A reply in chunks over a connection that stays is none of those.
 */
const mayBeHeldUp = (headers: ResponseHeaders): boolean =>
  /chunked/i.test(headers["transfer-encoding"] ?? "") && !/close/i.test(headers.connection ?? "")

/** As NodeHttpClient has it: what waits for an answer sets its own time. */
const headersTimeout = 3_600_000
const bodyTimeout = 0

/**
 * Exchanges by undici's callbacks. The request, the response and the stream of a body that an HTTP client makes of them
 * take several times as long as all else that is done for a call.
 */
const overUndici =
  (dispatcher: Undici.Dispatcher): Exchange =>
  ({ body, headers, method, url }, use) =>
    Effect.flatMap(Effect.runtime<never>(), (runtime) => {
      let connection: Undici.Dispatcher.DispatchController | undefined
      let isClosed = false
      let isPatient = false
      let receivedBytes = 0
      const alarm = makeAlarm(runtime)
      const inbox = makeInbox(alarm, () => connection?.resume())

      const send = () => {
        const target = parseUrl(url)
        if (Option.isNone(target)) return inbox.end(Exit.fail({ at: "url", cause: undefined }))
        const { hash, origin, pathname, search } = target.value
        dispatcher.dispatch(
          {
            method,
            origin,
            path: pathname + search + hash,
            headers: body === undefined ? headers : { ...headers, "content-type": "application/json" },
            body: body ?? null,
            headersTimeout,
            bodyTimeout
          },
          {
            onRequestStart: (begun) => {
              connection = begun
              if (isClosed) begun.abort(new Undici.errors.RequestAbortedError())
            },
            onResponseStart: (_, status, given) => {
              // below 200 stands what comes before the reply
              if (status < 200) return
              const headers = headersOf(given)
              isPatient = mayBeHeldUp(headers)
              inbox.begin({ status, headers })
            },
            onResponseData: (answering, piece) => {
              const isMuch = inbox.add(piece)
              receivedBytes += piece.length
              if (isPatient) {
                if (isMuch) answering.pause()
              } else if (receivedBytes > maxBodyBytes) {
                // More than any answer may have: its reader refuses it once it comes to that.
                answering.abort(new Undici.errors.ResponseExceededMaxSizeError())
              }
            },
            onResponseEnd: () => inbox.end(Exit.void),
            onResponseError: (_, cause) =>
              inbox.end(Exit.fail({ at: inbox.head() === undefined ? "request" : "reply", cause }))
          }
        )
      }

      const close = () => {
        isClosed = true
        alarm.stop()
        if (inbox.ending() === undefined) connection?.abort(new Undici.errors.RequestAbortedError())
        return Effect.void
      }

      return Effect.onExit(
        Effect.suspend(() => {
          send()
          return use(inbox)
        }),
        close
      )
    })

/**
 * An HTTP client on undici that gives up connecting to a platform after its `timeouts.connectMs`. Only the transport
 * can tell connecting from waiting for an answer; undici's own bound is 10 s for all.
 */
export const layer: Layer.Layer<HttpClient.HttpClient, never, Settings> = Layer.scoped(
  HttpClient.HttpClient,
  Effect.gen(function* () {
    const { platforms } = yield* Settings
    const connectMs = new Map<string, number>()
    for (const { baseUrl, timeouts } of platforms) {
      const origin = originOf(baseUrl)
      if (origin !== undefined) {
        connectMs.set(origin, Math.max(timeouts.connectMs, connectMs.get(origin) ?? 0))
      }
    }
    const agent = yield* Effect.acquireRelease(
      Effect.sync(
        () =>
          new Undici.Agent({
            factory: (origin, options) => {
              const timeout = connectMs.get(originOf(origin.toString()) ?? "")
              return new Undici.Pool(origin, timeout === undefined ? options : { ...options, connect: { timeout } })
            }
          })
      ),
      (agent) => Effect.promise(() => agent.destroy())
    )
    return withExchange(NodeHttpClient.makeUndici(agent), overUndici(agent))
  })
)
