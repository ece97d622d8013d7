import { connect, type Socket } from "node:net"
import { Effect, Layer } from "effect"
import { Http } from "../../src/Http.js"
import type { SettingsShape } from "../../src/Settings.js"
import { concerns, makeCoordinator, type Scripted } from "./scripted.js"

/** The real server on a free port of loopback, over scripted concerns; it ends with the scope. */
export const start = (
  over: Partial<SettingsShape> = {},
  change: (service: Scripted["service"]) => Scripted["service"] = (same) => same
) =>
  Effect.gen(function* () {
    const scripted = yield* makeCoordinator
    const context = yield* Layer.build(Http.layer.pipe(Layer.provide(concerns(change(scripted.service), over))))
    const { url, port } = yield* Effect.provide(Http, context)
    return { url, port, scripted }
  })

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: unknown
}

/** One request by `fetch`, its body read as JSON where it is some. */
export const ask = (url: string, init?: RequestInit): Effect.Effect<Answer> =>
  Effect.promise(async (signal) => {
    const response = await fetch(url, { signal, ...init })
    const text = await response.text()
    const isJson = response.headers.get("content-type")?.startsWith("application/json") === true
    return { status: response.status, headers: response.headers, body: isJson && text !== "" ? JSON.parse(text) : text }
  })

const send =
  (method: string) =>
  (url: string, body: unknown, headers: Readonly<Record<string, string>> = {}): Effect.Effect<Answer> =>
    ask(url, {
      method,
      headers: { "content-type": "application/json", ...headers },
      body: typeof body === "string" ? body : JSON.stringify(body)
    })

export const post = send("POST")
export const patch = send("PATCH")

/** A connection that says nothing yet. */
export const dial = (port: number): Effect.Effect<Socket> =>
  Effect.async((resume) => {
    const socket = connect(port, "127.0.0.1")
    socket.once("connect", () => resume(Effect.succeed(socket)))
  })

/** Writes bytes to a connection and answers all that came back until it closed, or until `until` was seen. */
export const converse = (
  socket: Socket,
  pieces: ReadonlyArray<string | Buffer>,
  until?: RegExp
): Effect.Effect<string> =>
  Effect.async((resume) => {
    let text = ""
    const end = (): void => {
      resume(Effect.succeed(text))
      socket.destroy()
    }
    socket.on("data", (chunk) => {
      text += chunk.toString()
      if (until?.test(text) === true) end()
    })
    socket.on("close", end).on("error", (error) => {
      text += `\n<<${error.message}>>`
      end()
    })
    for (const piece of pieces) socket.write(piece)
    return Effect.sync(() => socket.destroy())
  })

/** The same over a new connection. */
export const raw = (port: number, pieces: ReadonlyArray<string | Buffer>, until?: RegExp): Effect.Effect<string> =>
  Effect.suspend(() => converse(connect(port, "127.0.0.1"), pieces, until))

/** The body of a raw HTTP response. */
export const rawBody = (text: string): unknown => {
  const start = text.indexOf("{")
  const end = text.lastIndexOf("}")
  return start === -1 ? undefined : JSON.parse(text.slice(start, end + 1))
}

/** Asks again and again until the answer is as wished; in between, whatever else waits on the event loop goes on. */
export const eventually = <A, E, R>(
  ask: Effect.Effect<A, E, R>,
  wished: (answer: A) => boolean
): Effect.Effect<A, E, R> =>
  Effect.repeat(
    Effect.zipLeft(
      ask,
      Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))
    ),
    { until: wished }
  )
