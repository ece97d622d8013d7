import type { IncomingMessage, ServerResponse } from "node:http"
import { Either } from "effect"

/** Largest request body, bytes. */
const maxBodyBytes = 8 * 1024 * 1024

/** A larger body is read to its end, so that its sender can read the refusal, but not beyond this. */
const maxDiscardedBytes = 8 * maxBodyBytes

/** Reads a request to its end; `undefined` where its body is larger than is taken. */
export const readBody = (incoming: IncomingMessage, done: (text: string | undefined) => void): void => {
  const chunks: Array<Buffer> = []
  let size = 0
  incoming.on("data", (chunk: Buffer) => {
    size += chunk.length
    if (size <= maxBodyBytes) {
      chunks.push(chunk)
      return
    }
    chunks.length = 0
    if (size > maxDiscardedBytes) incoming.destroy()
  })
  incoming.on("end", () => done(size > maxBodyBytes ? undefined : Buffer.concat(chunks).toString("utf8")))
  // A sender that leaves halfway is told of by the response's "close".
  incoming.on("error", () => {})
}

export const parseJson = (text: string): Either.Either<unknown, string> =>
  Either.try({ try: (): unknown => JSON.parse(text), catch: () => "The request body is not valid JSON." })

export const sendJson = (response: ServerResponse, status: number, body: unknown): void => {
  const data = JSON.stringify(body)
  response.on("error", () => {})
  response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(data) })
  response.end(data)
}

/** An error in the shape of the simulator's own endpoints. */
export const sendError = (
  response: ServerResponse,
  status: number,
  type: string,
  message: string,
  details: unknown = {}
): void => sendJson(response, status, { error: { type, message, details } })
