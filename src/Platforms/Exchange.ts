import * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import { Effect, type Exit, Fiber, Stream } from "effect"
import { makeOneShot } from "../Domain/OneShot.js"
import { type Alarm, makeAlarm } from "./Watchdog.js"
import type { ResponseHeaders } from "./Wire/RateLimitHeaders.js"

/** One request to a platform. */
export interface Outgoing {
  readonly method: "GET" | "POST"
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  /** JSON text. */
  readonly body?: string | undefined
}

export interface Head {
  readonly status: number
  readonly headers: ResponseHeaders
}

/** Why there is no reply, or no whole one: the URL is none, the request got no answer, the reply broke off. */
export interface Broken {
  readonly at: "url" | "request" | "reply"
  readonly cause: unknown
}

/** A reply on its way in, as its one reader sees it. */
export interface Incoming {
  readonly head: () => Head | undefined
  /** What has come of the body since the last time. */
  readonly take: () => ReadonlyArray<Uint8Array>
  /** How the reply ended, once it has and all that came of its body is taken. */
  readonly ending: () => Exit.Exit<void, Broken> | undefined
  /** Waits until there is more than at the last `take`; false where the instant `at` (monotonic, ms) came first. */
  readonly more: (at?: number) => Effect.Effect<boolean>
}

/**
 * Sends a request and hands the reply to `use`; where that ends before the reply does, the connection is closed. Redirects
 * are not followed, bodies not decompressed, our trace ids not handed on, and only the time to connect is bounded. It makes
 * no span: that would carry the request's headers, and with them Gemini's key.
 */
export type Exchange = <A, E>(
  outgoing: Outgoing,
  use: (incoming: Incoming) => Effect.Effect<A, E>
) => Effect.Effect<A, E>

/** As much of a body as waits for its reader before the sender is held up, bytes. */
const heldUpAtBytes = 64 * 1024

/** A reply as whoever receives it writes it down. */
export interface Inbox extends Incoming {
  readonly begin: (head: Head) => void
  /** Whether no more is to be given before `goOn`. */
  readonly add: (piece: Uint8Array) => boolean
  readonly end: (ending: Exit.Exit<void, Broken>) => void
}

const came = Effect.succeed(true)
const cameNot = Effect.succeed(false)

/**
 * Between the callbacks of a connection and the fiber that reads: all that has come by then is read in one go, and the
 * fiber wakes up once for it.
 */
export const makeInbox = (alarm: Alarm, goOn: () => void): Inbox => {
  let head: Head | undefined
  let ending: Exit.Exit<void, Broken> | undefined
  let pieces: Array<Uint8Array> = []
  let bytes = 0
  let isNew = false
  let wake: (() => void) | undefined

  const tell = () => {
    isNew = true
    wake?.()
  }

  return {
    begin: (begun) => {
      head = begun
      tell()
    },
    add: (piece) => {
      pieces.push(piece)
      bytes += piece.length
      tell()
      return bytes >= heldUpAtBytes
    },
    end: (ended) => {
      ending ??= ended
      tell()
    },
    head: () => head,
    take: () => {
      const taken = pieces
      const isHeldUp = bytes >= heldUpAtBytes
      pieces = []
      bytes = 0
      isNew = false
      if (isHeldUp) goOn()
      return taken
    },
    // To take may let more of the body in, and the end with it.
    ending: () => (pieces.length === 0 ? ending : undefined),
    more: (at) =>
      Effect.suspend(() =>
        isNew
          ? came
          : Effect.async<boolean>((resume) => {
              const stop = (outcome: Effect.Effect<boolean>) => {
                wake = undefined
                alarm.rest()
                resume(outcome)
              }
              wake = () => stop(came)
              if (at !== undefined) alarm.set(at, () => stop(cameNot))
            })
      )
  }
}

const brokenOf = (error: HttpClientError.HttpClientError): Broken => ({
  at: error._tag === "ResponseError" ? "reply" : error.reason === "InvalidUrl" ? "url" : "request",
  cause: error.cause
})

/** Exchanges over any HTTP client, such as one that a program brings along. */
const overHttpClient = (httpClient: HttpClient.HttpClient): Exchange => {
  const client = httpClient.pipe(
    HttpClient.withTracerPropagation(false),
    HttpClient.withTracerDisabledWhen(() => true),
    HttpClient.withScope
  )
  return ({ body, headers, method, url }, use) =>
    Effect.flatMap(Effect.runtime<never>(), (runtime) => {
      const request = HttpClientRequest.make(method)(url, { headers })
      let isDrained = makeOneShot<void, never>()
      const alarm = makeAlarm(runtime)
      const inbox = makeInbox(alarm, () => isDrained.done(Effect.void))
      const receive = client
        .execute(body === undefined ? request : HttpClientRequest.bodyText(request, body, "application/json"))
        .pipe(
          Effect.flatMap((response) => {
            inbox.begin(response)
            return Stream.runForEachChunk(response.stream, (pieces) => {
              isDrained = makeOneShot()
              let isHeldUp = false
              for (const piece of pieces) isHeldUp = inbox.add(piece)
              return isHeldUp ? isDrained.wait : Effect.void
            })
          }),
          Effect.mapError((error) => {
            // Of a response that the client itself would not take, the status and the headers still say why.
            if (error._tag === "ResponseError" && inbox.head() === undefined) inbox.begin(error.response)
            return brokenOf(error)
          }),
          Effect.scoped
        )
      return Effect.acquireUseRelease(
        Effect.map(Effect.forkDaemon(Effect.interruptible(receive)), (fiber) => {
          fiber.addObserver(inbox.end)
          return fiber
        }),
        () => use(inbox),
        (fiber) => Effect.map(Fiber.interrupt(fiber), alarm.stop)
      )
    })
}

const exchange = Symbol("dream-team/Platforms/Exchange")

interface ExchangingClient extends HttpClient.HttpClient {
  readonly [exchange]: Exchange
}

/** The client with a shorter way of its own to exchange. A program that wraps or replaces it has left that way. */
export const withExchange = (client: HttpClient.HttpClient, shorter: Exchange): HttpClient.HttpClient =>
  Object.assign(client, { [exchange]: shorter })

const exchanges = (client: HttpClient.HttpClient): client is ExchangingClient => exchange in client

export const exchangeOf = (client: HttpClient.HttpClient): Exchange =>
  exchanges(client) ? client[exchange] : overHttpClient(client)
