import { IncomingMessage } from "node:http"
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import { Effect, Stream } from "effect"
import { InvalidRequest, type Overloaded, PayloadTooLarge } from "../Domain/ApiError.js"

/**
 * A client that is still sending sees our answer only if we go on reading: closing at once makes the system reset the
 * connection. Beyond this many bytes it is cut off all the same.
 */
const maxDiscardedBytes = 64 * 1024 * 1024

/** Deeper JSON than this overflows the stack of whoever walks it recursively. */
const maxDepth = 100

/** What is read at once: all that was sent, or one line of it. */
type Piece = "body" | "line"

export const tooLarge = (maxBytes: number, piece: Piece = "body"): PayloadTooLarge =>
  new PayloadTooLarge({ message: `The ${piece} is larger than ${maxBytes} bytes`, maxBytes })

const unreadable = (message: string): InvalidRequest => new InvalidRequest({ message, problems: [] })

const readIncoming = (source: IncomingMessage, maxBytes: number) =>
  Effect.async<Uint8Array, PayloadTooLarge | InvalidRequest>((resume) => {
    const chunks: Array<Buffer> = []
    let size = 0
    const onData = (chunk: Buffer): void => {
      size += chunk.length
      if (size <= maxBytes) {
        chunks.push(chunk)
        return
      }
      chunks.length = 0
      resume(tooLarge(maxBytes))
      if (size > maxBytes + maxDiscardedBytes) source.destroy()
    }
    const onEnd = (): void => {
      // Every request is closed at last; an error for each would be made for nothing.
      source.off("close", onClose)
      resume(Effect.succeed(Buffer.concat(chunks)))
    }
    const onClose = (): void => resume(unreadable("The connection closed before the body was complete"))
    // An error is followed by `close`; without a listener it would end the process.
    const onError = (): void => {}
    source.on("data", onData).on("end", onEnd).on("close", onClose).on("error", onError)
    return Effect.sync(() => {
      source.off("data", onData).off("end", onEnd).off("close", onClose)
      chunks.length = 0
    })
  })

const readWeb = (source: Request, maxBytes: number): Effect.Effect<Uint8Array, PayloadTooLarge | InvalidRequest> =>
  Effect.suspend(() => {
    const body = source.body
    if (body === null) return Effect.succeed(new Uint8Array())
    const chunks: Array<Uint8Array> = []
    let size = 0
    return Stream.fromReadableStream(
      () => body,
      () => unreadable("The body could not be read")
    ).pipe(
      Stream.runForEach((chunk) => {
        size += chunk.length
        chunks.push(chunk)
        return size > maxBytes ? tooLarge(maxBytes) : Effect.void
      }),
      Effect.map(() => Buffer.concat(chunks))
    )
  })

const readBody = (source: unknown, maxBytes: number): Effect.Effect<Uint8Array, PayloadTooLarge | InvalidRequest> => {
  if (source instanceof IncomingMessage) return readIncoming(source, maxBytes)
  return source instanceof Request
    ? readWeb(source, maxBytes)
    : Effect.dieMessage("The request came from neither Node's HTTP server nor a web handler")
}

const isTooDeep = (json: string): boolean => {
  let depth = 0
  let inString = false
  for (let index = 0; index < json.length; index++) {
    const character = json[index]
    if (inString) {
      if (character === "\\") index++
      else if (character === '"') inString = false
    } else if (character === '"') inString = true
    else if (character === "{" || character === "[") {
      depth++
      if (depth > maxDepth) return true
    } else if (character === "}" || character === "]") depth--
  }
  return false
}

const utf8 = new TextDecoder("utf-8", { fatal: true })

const attempt = <A>(read: () => A): A | Error => {
  try {
    return read()
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  }
}

/** Whether text that is not JSON as a whole is JSON Lines: its first line is an object by itself. */
const isJsonLines = (text: string): boolean => {
  const [first = "", rest = ""] = text.trim().split(/\n(.*)/s)
  return first.startsWith("{") && rest !== "" && !(attempt((): unknown => JSON.parse(first)) instanceof Error)
}

/** JSON in UTF-8, as deep as the service can walk. */
export const parseJson = (bytes: Uint8Array, piece: Piece = "body"): Effect.Effect<unknown, InvalidRequest> => {
  const text = attempt(() => utf8.decode(bytes))
  if (text instanceof Error) return unreadable(`The ${piece} is not UTF-8 text`)
  if (text.trim() === "") return unreadable(`The ${piece} is empty; JSON was expected`)
  if (isTooDeep(text)) return unreadable(`The ${piece}'s JSON is nested more than ${maxDepth} levels deep`)
  const value = attempt((): unknown => JSON.parse(text))
  if (!(value instanceof Error)) return Effect.succeed(value)
  const hint = isJsonLines(text)
    ? ". It holds a JSON value a line: POST /v1/tasks takes a task a line as Content-Type: application/x-ndjson"
    : ""
  return unreadable(`The ${piece} is not JSON: ${value.message}${hint}`)
}

/** The type of the body as its sender names it: in lower case, without parameters. */
export const mediaTypeOf = ({ headers }: HttpServerRequest.HttpServerRequest): string | undefined =>
  headers["content-type"]?.split(";", 1)[0]?.trim().toLowerCase()

/** What the request says of its body before any of it is read. */
export const declaredLength = (request: HttpServerRequest.HttpServerRequest): number | undefined => {
  const length = request.headers["content-length"]
  return length !== undefined && /^\d+$/.test(length) ? Number(length) : undefined
}

export const hasBody = (request: HttpServerRequest.HttpServerRequest): boolean =>
  request.source instanceof Request
    ? request.source.body !== null
    : (declaredLength(request) ?? 0) > 0 || request.headers["transfer-encoding"] !== undefined

/** Lets a body that nobody will read run out, within bounds. */
export const discardBody = ({ source }: HttpServerRequest.HttpServerRequest): void => {
  if (!(source instanceof IncomingMessage)) return
  let size = 0
  source
    .on("error", () => {})
    .on("data", (chunk: Buffer) => {
      size += chunk.length
      if (size > maxDiscardedBytes) source.destroy()
    })
}

/**
 * The body as JSON. `hold` first makes sure that there is room for as many bytes as it may have; those that come are
 * counted, and what is wrong with them is said in our own errors.
 */
export const readJson = <R>(
  request: HttpServerRequest.HttpServerRequest,
  maxBytes: number,
  hold: (bytes: number) => Effect.Effect<void, Overloaded, R>
): Effect.Effect<unknown, InvalidRequest | PayloadTooLarge | Overloaded, R> =>
  Effect.suspend(() => {
    const bytes = hasBody(request) ? Math.min(declaredLength(request) ?? maxBytes, maxBytes) : 0
    return Effect.matchEffect(hold(bytes), {
      onFailure: (overloaded) => {
        discardBody(request)
        return overloaded
      },
      onSuccess: () => Effect.flatMap(readBody(request.source, maxBytes), parseJson)
    })
  })
