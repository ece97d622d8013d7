import { HttpClient, HttpClientError, HttpClientResponse } from "@effect/platform"
import { Effect, Layer, Option } from "effect"
import { PlatformId } from "../../src/Domain/Platform.js"
import { Platforms } from "../../src/Platforms.js"
import { type PlatformOptions, Settings } from "../../src/Settings.js"

/** A key of no shape that a provider uses, so that only the exact match can scrub it. */
export const apiKey = "the-key-nobody-may-see"

export interface ScriptedReply {
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body: string | Uint8Array | ReadableStream<Uint8Array>
}

export interface Received {
  readonly method: string
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: unknown
}

/** An HTTP client that gives one reply to everything and keeps what was sent. */
export const scripted = (
  reply: ScriptedReply | ((received: Received) => ScriptedReply | "unreachable" | "silent")
): { readonly received: Array<Received>; readonly layer: Layer.Layer<HttpClient.HttpClient> } => {
  const received: Array<Received> = []
  const client = HttpClient.make((request, url) => {
    const text = request.body._tag === "Uint8Array" ? new TextDecoder().decode(request.body.body) : ""
    const seen = {
      method: request.method,
      url: url.toString(),
      headers: { ...request.headers },
      body: text === "" ? undefined : JSON.parse(text)
    }
    received.push(seen)
    const answer = typeof reply === "function" ? reply(seen) : reply
    if (answer === "silent") {
      return Effect.never
    }
    if (answer === "unreachable") {
      const cause = Object.assign(new Error(`connect ECONNREFUSED ${apiKey}`), { code: "ECONNREFUSED" })
      return Effect.fail(new HttpClientError.RequestError({ request, reason: "Transport", cause }))
    }
    return Effect.succeed(
      HttpClientResponse.fromWeb(
        request,
        new Response(answer.body, { status: answer.status ?? 200, headers: { ...answer.headers } })
      )
    )
  })
  return { received, layer: Layer.succeed(HttpClient.HttpClient, client) }
}

const known = ["codex", "gemini", "qwen", "synthetic"] as const
export type Known = (typeof known)[number]

/** The client of one platform over a scripted HTTP client. */
export const clientOf = (
  id: Known,
  http: Layer.Layer<HttpClient.HttpClient>,
  options: Omit<PlatformOptions, "apiKey"> = {}
) =>
  Effect.flatMap(Platforms, (platforms) => platforms.get(PlatformId.make(id)).pipe(Effect.orDie)).pipe(
    Effect.provide(
      Platforms.layer.pipe(
        Layer.provide(http),
        Layer.provide(
          Settings.layer(Settings.make({ platforms: [Settings.platformDefaults(id, { apiKey, ...options })] }))
        )
      )
    )
  )

/** Lets promises of the platform (not of Effect) go on, under any Clock. */
export const settle = Effect.promise(async () => {
  for (let turn = 0; turn < 10; turn++) {
    await new Promise<void>((resolve) => setImmediate(resolve))
  }
})

/** A body that the test feeds by hand. */
export const manualBody = () => {
  let controller = Option.none<ReadableStreamDefaultController<Uint8Array>>()
  const body = new ReadableStream<Uint8Array>({
    start: (opened) => {
      controller = Option.some(opened)
    }
  })
  const using = (act: (opened: ReadableStreamDefaultController<Uint8Array>) => void) =>
    Effect.zipRight(
      Effect.sync(() => Option.map(controller, act)),
      settle
    )
  return {
    body,
    push: (text: string) => using((opened) => opened.enqueue(new TextEncoder().encode(text))),
    close: using((opened) => opened.close()),
    fail: using((opened) => opened.error(new Error("socket hang up")))
  }
}

/** A body cut into the given pieces. */
export const pieces = (chunks: Iterable<Uint8Array>): ReadableStream<Uint8Array> =>
  new ReadableStream({
    start: (controller) => {
      for (const chunk of chunks) {
        controller.enqueue(chunk)
      }
      controller.close()
    }
  })

/** Events of a stream as its body. */
export const sse = (...events: ReadonlyArray<unknown>): string =>
  events.map((event) => `data: ${typeof event === "string" ? event : JSON.stringify(event)}\n\n`).join("")

export const eventStream = { "content-type": "text/event-stream" }
