import { type Answer, durationOf } from "./Answer.js"
import { type ErrorKind, type ErrorReply, errorReply, shapeOfStatus } from "./Errors.js"
import type { Reply } from "./Exchange.js"
import type { Fault } from "./Faults.js"
import type { PlatformState } from "./Platform.js"
import type { SimulatedRequest } from "./Request.js"
import type { AnswerWriter, Frame } from "./Wire.js"

/** A request as far as its reply depends on it. */
export interface Arrival {
  readonly platform: PlatformState
  readonly requestId: string
  /** Wall time of the arrival, s. */
  readonly createdAt: number
}

/** A call that was admitted, and what the model says to it. */
export interface AnsweredCall {
  readonly writer: AnswerWriter
  readonly request: SimulatedRequest
  readonly answer: Answer
}

const baseHeaders = ({ platform, requestId }: Arrival): Record<string, string> => {
  switch (platform.dialect) {
    case "openai":
      return { "x-simulated": "true", "x-request-id": requestId, "openai-version": "2020-10-01" }
    case "dashscope":
      return { "x-simulated": "true", "x-request-id": requestId }
    case "anthropic":
      return { "x-simulated": "true", "request-id": requestId }
    case "gemini":
    case "synthetic":
      return { "x-simulated": "true" }
  }
}

export const jsonReply = (
  arrival: Arrival,
  body: unknown,
  options: {
    readonly status?: number
    readonly headers?: Readonly<Record<string, string>>
    readonly afterMs?: number
  } = {}
): Reply => {
  const data = JSON.stringify(body)
  return {
    status: options.status ?? 200,
    headers: {
      ...baseHeaders(arrival),
      ...options.headers,
      "content-type": arrival.platform.dialect === "gemini" ? "application/json; charset=UTF-8" : "application/json",
      "content-length": String(Buffer.byteLength(data))
    },
    frames: [{ data, afterMs: options.afterMs ?? 0 }],
    ending: "end"
  }
}

export const errorToReply = (arrival: Arrival, error: ErrorReply): Reply =>
  jsonReply(arrival, error.body, { status: error.status, headers: error.headers })

/** The whole answer, at its own pace. `limits`: the headers that tell of the platform's limits. */
export const answerToReply = (
  arrival: Arrival,
  { answer, request, writer }: AnsweredCall,
  limits: Readonly<Record<string, string>>
): Reply => {
  if (request.stream) {
    return {
      status: 200,
      headers: {
        ...baseHeaders(arrival),
        ...limits,
        "content-type": request.sse ? "text/event-stream; charset=utf-8" : "application/json; charset=UTF-8",
        "cache-control": "no-cache"
      },
      frames: writer.frames(answer, request, arrival.createdAt),
      ending: "end"
    }
  }
  const afterMs = durationOf(answer)
  const timing: Record<string, string> =
    arrival.platform.dialect === "openai" ? { "openai-processing-ms": String(Math.round(afterMs)) } : {}
  return jsonReply(arrival, writer.whole(answer, arrival.createdAt), { headers: { ...limits, ...timing }, afterMs })
}

/** What a request gets that a fault strikes, in place of `whole`. */
export const struck = (fault: Fault, arrival: Arrival, whole: Reply, call: AnsweredCall | undefined): Reply => {
  const stream = call?.request.stream === true ? call : undefined
  const errorOf = (shape: ErrorKind, status?: number) =>
    errorReply(arrival.platform.dialect, shape, { requestId: arrival.requestId, model: call?.request.model, status })
  const { "content-length": _, ...unsized } = whole.headers
  switch (fault.fault) {
    case "status": {
      const shape = fault.errorShape ?? shapeOfStatus(fault.status ?? 500)
      const error = errorOf(shape, fault.status ?? (fault.errorShape === undefined ? 500 : undefined))
      const reply = errorToReply(arrival, error)
      const headers = Object.fromEntries(
        Object.entries(fault.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value])
      )
      if (fault.body === undefined && error.status === 200 && stream !== undefined) {
        const data = stream.writer.failedFrame(stream.answer, error.body, arrival.createdAt)
        return { ...whole, headers: { ...unsized, ...headers }, frames: [{ data, afterMs: 0 }] }
      }
      const body = fault.body === undefined ? error.body : fault.body
      const text = typeof body === "string"
      const data = text ? body : JSON.stringify(body)
      return {
        ...reply,
        headers: {
          ...reply.headers,
          ...(text ? { "content-type": "text/html; charset=utf-8" } : {}),
          ...headers,
          "content-length": String(Buffer.byteLength(data))
        },
        frames: [{ data, afterMs: 0 }]
      }
    }
    case "answer":
      return whole
    case "reset":
    case "hang":
      return { ...whole, frames: firstPart(whole.frames, fault.after ?? 0), ending: fault.fault }
    case "drip":
      return { ...whole, frames: dripped(whole.frames, fault.everyMs ?? 1_000) }
    case "truncate":
      return { ...whole, headers: unsized, frames: firstPart(whole.frames, fault.after ?? 0.5) }
    case "malformed": {
      const first = whole.frames[0] ?? { data: "", afterMs: 0 }
      const broken =
        stream === undefined
          ? first.data.slice(0, Math.floor(first.data.length / 2))
          : first.data + stream.writer.brokenFrame
      return { ...whole, headers: unsized, frames: [{ data: fault.body ?? broken, afterMs: first.afterMs }] }
    }
    case "stream-error": {
      const { body } = errorOf(fault.errorShape ?? "server-error")
      const failed: Frame = {
        data:
          stream !== undefined
            ? stream.writer.failedFrame(stream.answer, body, arrival.createdAt)
            : JSON.stringify(call === undefined ? body : call.writer.failedWhole(call.answer, body, arrival.createdAt)),
        afterMs: 0
      }
      const before = stream === undefined ? [] : firstPart(whole.frames, fault.after ?? 0.5)
      return { ...whole, headers: unsized, frames: [...before, failed] }
    }
  }
}

/** The first `part` of the frames; of a single one the first `part` of its text. */
const firstPart = (frames: ReadonlyArray<Frame>, part: number): ReadonlyArray<Frame> => {
  const [only] = frames
  if (frames.length === 1 && only !== undefined) {
    const characters = Math.floor(only.data.length * part)
    return characters === 0 ? [] : [{ ...only, data: only.data.slice(0, characters) }]
  }
  return frames.slice(0, Math.floor(frames.length * part))
}

/** Pieces a body is dripped in, where it is not a stream. */
const dripPieces = 10

const dripped = (frames: ReadonlyArray<Frame>, everyMs: number): ReadonlyArray<Frame> => {
  const [only] = frames
  if (frames.length !== 1 || only === undefined) return frames.map(({ data }) => ({ data, afterMs: everyMs }))
  const size = Math.max(1, Math.ceil(only.data.length / dripPieces))
  return Array.from({ length: Math.ceil(only.data.length / size) }, (_, index) => ({
    data: only.data.slice(index * size, (index + 1) * size),
    afterMs: everyMs
  }))
}
