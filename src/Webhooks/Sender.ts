import { lookup } from "node:dns"
import type { LookupFunction } from "node:net"
import * as Undici from "@effect/platform-node/Undici"
import { Context, Effect, Layer, Predicate, Schema, type Scope } from "effect"
import { urlProblem } from "../Settings/CallbackUrl.js"
import { isPublicAddress } from "../Settings/PublicAddress.js"
import { Settings } from "../Settings.js"

/** Until a connection stands, and for the whole exchange, ms. */
const connectMs = 5_000
const exchangeMs = 15_000
/** Of the answer's header lines together, bytes. */
const maxHeaderBytes = 16 * 1024

export interface WebhookRequest {
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

export interface WebhookAnswer {
  readonly status: number
  readonly retryAfter?: string | undefined
}

/** The request was not answered, or not made at all; `message` may be shown to the webhook's owner. */
export class WebhookUnanswered extends Schema.TaggedError<WebhookUnanswered>()("WebhookUnanswered", {
  message: Schema.String
}) {}

const notPublic = "its address is not public (webhooks.allowPrivate would let it pass)"

class NotPublic extends Error {}

const codeOf = (error: unknown): string =>
  Predicate.hasProperty(error, "code") && typeof error.code === "string" ? error.code : ""

const words: Readonly<Record<string, string>> = {
  ENOTFOUND: "its host name is not known",
  EAI_AGAIN: "its host name could not be resolved just now",
  ECONNREFUSED: "nothing listens there",
  ECONNRESET: "the connection was cut",
  EHOSTUNREACH: "it cannot be reached",
  ENETUNREACH: "it cannot be reached",
  UND_ERR_SOCKET: "the connection was cut",
  UND_ERR_CONNECT_TIMEOUT: `no connection within ${connectMs / 1_000} s`,
  UND_ERR_HEADERS_TIMEOUT: `no answer within ${exchangeMs / 1_000} s`,
  UND_ERR_HEADERS_OVERFLOW: "the answer's headers are too large"
}

/** What went wrong, without anything of what was sent or came back. */
const reasonOf = (error: unknown): string => {
  if (error instanceof NotPublic) return notPublic
  const code = codeOf(error)
  const known = words[code]
  if (known !== undefined) return known
  if (/CERT|TLS|SSL|ALTNAME/.test(code)) return `its certificate is not accepted (${code})`
  return code === "" ? "the request failed" : `the request failed (${code})`
}

/**
 * Resolves names as the system does, to public addresses only. A connection is made to what this answers, so a name
 * that is resolved to something else a moment later gains nothing.
 */
export const publicOnly =
  (resolve: LookupFunction): LookupFunction =>
  (hostname, options, callback) =>
    resolve(hostname, { ...options, all: true }, (error, found) => {
      if (error !== null) return callback(error, "", 0)
      const all = typeof found === "string" ? [] : found
      const open = all.filter(({ address }) => isPublicAddress(address))
      const [first] = open
      if (first === undefined) return callback(new NotPublic(notPublic), "", 0)
      if (options.all === true) callback(null, open)
      else callback(null, first.address, first.family)
    })

/** A client for one request: it keeps no connection, so each delivery looks anew where its name leads. */
const clientFor = (origin: string, allowPrivate: boolean, resolve: LookupFunction) => {
  const connect = Undici.buildConnector({
    timeout: connectMs,
    ...(allowPrivate ? {} : { lookup: publicOnly(resolve) })
  })
  return new Undici.Client(origin, {
    // The last look is at the connection itself, however it came about.
    connect: (options, callback) =>
      connect(options, (error, socket) => {
        if (error !== null) return callback(error, null)
        if (allowPrivate || isPublicAddress(socket.remoteAddress ?? "")) return callback(null, socket)
        socket.destroy()
        callback(new NotPublic(notPublic), null)
      }),
    headersTimeout: exchangeMs,
    bodyTimeout: exchangeMs,
    maxHeaderSize: maxHeaderBytes,
    pipelining: 1
  })
}

/** Makes one attempt to deliver a webhook. */
export class WebhookSender extends Context.Tag("dream-team/WebhookSender")<
  WebhookSender,
  {
    /** Answers with what the receiver did, whatever its status. Takes 15 s at most. */
    readonly send: (request: WebhookRequest) => Effect.Effect<WebhookAnswer, WebhookUnanswered>
  }
>() {
  /**
   * Over HTTP, to public addresses only unless the settings allow others: what the name resolves to is checked, and the
   * address of the connection itself. Redirects are not followed, no part of the answer but its status and `Retry-After`
   * is read, and nothing of this process's own tracing goes out. `resolve` is for tests: the system's resolver by default.
   */
  static readonly layerWith = (resolve: LookupFunction): Layer.Layer<WebhookSender, never, Settings> =>
    Layer.effect(
      WebhookSender,
      Effect.map(Settings, ({ webhooks: { allowPrivate } }) => {
        const exchange = ({
          body,
          headers,
          url
        }: WebhookRequest): Effect.Effect<WebhookAnswer, WebhookUnanswered, Scope.Scope> =>
          Effect.gen(function* () {
            const { origin, pathname, search } = new URL(url)
            const client = yield* Effect.acquireRelease(
              Effect.sync(() => clientFor(origin, allowPrivate, resolve)),
              (opened) => Effect.promise(() => opened.destroy())
            )
            const answer = yield* Effect.tryPromise({
              try: (signal) => client.request({ method: "POST", path: `${pathname}${search}`, headers, body, signal }),
              catch: (error) => new WebhookUnanswered({ message: reasonOf(error) })
            })
            // Its body is not read; an error of the connection that is then cut is none of ours.
            answer.body.on("error", () => undefined)
            answer.body.destroy()
            const retryAfter = answer.headers["retry-after"]
            return {
              status: answer.statusCode,
              retryAfter: typeof retryAfter === "string" ? retryAfter : undefined
            }
          })

        return {
          send: (request) =>
            Effect.gen(function* () {
              // The settings may have changed since it was accepted.
              const problem = urlProblem(request.url, allowPrivate)
              if (problem !== undefined) return yield* new WebhookUnanswered({ message: problem })
              return yield* Effect.scoped(exchange(request)).pipe(
                Effect.timeoutFail({
                  duration: exchangeMs,
                  onTimeout: () => new WebhookUnanswered({ message: `no answer within ${exchangeMs / 1_000} s` })
                })
              )
            })
        }
      })
    )

  static readonly layer: Layer.Layer<WebhookSender, never, Settings> = WebhookSender.layerWith(
    (hostname, options, callback) => lookup(hostname, options, callback)
  )
}
