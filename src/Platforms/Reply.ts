import { Either } from "effect"
import type { Delta } from "../Domain/Call.js"
import { makeSseParser } from "./Sse.js"
import { isErrorValue, malformed, parseJson, providerError, type StreamDecoder, type WireProblem } from "./Wire.js"

/** Largest body of an answer, bytes. */
export const maxBodyBytes = 32 * 1024 * 1024
/** Longest line, and longest event, of a streamed answer, characters. */
const maxEventLength = 8 * 1024 * 1024

/** What a part of a body brought: the deltas before the first problem, which ends the answer. */
export interface Brought {
  readonly deltas: ReadonlyArray<Delta>
  readonly problem: WireProblem | undefined
  /** The model was seen at work. */
  readonly progress: boolean
}

/** A streamed answer, read piece by piece from a body of server-sent events. */
export interface Reply {
  readonly push: (chunks: Iterable<Uint8Array>) => Brought
  /** The body has ended. */
  readonly end: () => Brought
  /** All of the answer is here: what may still come of the body changes nothing. */
  readonly isWhole: () => boolean
}

export const tooLarge = malformed(`the reply is larger than ${maxBodyBytes / 1024 / 1024} MiB`)

export const makeReply = (decoder: StreamDecoder): Reply => {
  const sse = makeSseParser(maxEventLength)
  let received = 0

  const decode = (events: ReadonlyArray<string>, deltas: Array<Delta>) => {
    let progress = false
    for (const data of events) {
      const decoded = decoder.event(data)
      if (Either.isLeft(decoded)) return { problem: decoded.left, progress }
      deltas.push(...decoded.right.deltas)
      progress ||= decoded.right.progress
    }
    return { problem: undefined, progress }
  }

  return {
    push: (chunks) => {
      const deltas: Array<Delta> = []
      let progress = false
      for (const bytes of chunks) {
        received += bytes.length
        const { events, tooLong } = sse.push(bytes)
        const decoded = decode(events, deltas)
        progress ||= decoded.progress
        const problem = decoded.problem ?? (tooLong || received > maxBodyBytes ? tooLarge : undefined)
        if (problem !== undefined) return { deltas, problem, progress }
      }
      return { deltas, problem: undefined, progress }
    },
    end: () => {
      const deltas: Array<Delta> = []
      const { problem, progress } = decode(sse.end().events, deltas)
      if (problem !== undefined) return { deltas, problem, progress }
      const last = decoder.end()
      if (Either.isRight(last)) return { deltas: [...deltas, ...last.right], problem: undefined, progress }
      const stray = parseJson(sse.stray(), "the body")
      const isError = Either.isRight(stray) && isErrorValue(stray.right)
      return { deltas, problem: isError ? providerError(sse.stray()) : last.left, progress }
    },
    isWhole: () => decoder.state() !== "open"
  }
}
