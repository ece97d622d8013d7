import { Stream } from "effect"

const newline = 0x0a

const empty = Buffer.alloc(0)

/**
 * The lines of a stream of bytes, without their ends, the empty ones too; no piece of a character is lost wherever the
 * stream is cut. In the place of a line of more than `maxBytes` stands `undefined`, and it is never held whole.
 */
export const boundedLines =
  (maxBytes: number) =>
  <E, R>(bytes: Stream.Stream<Uint8Array, E, R>): Stream.Stream<Buffer | undefined, E, R> =>
    Stream.suspend(() => {
      let pieces: Array<Uint8Array> = []
      let size = 0
      const take = (piece: Uint8Array): void => {
        size += piece.length
        if (size > maxBytes) pieces = []
        else pieces.push(piece)
      }
      const ended = (): Buffer | undefined => {
        if (size === 0) return empty
        const line = size > maxBytes ? undefined : Buffer.concat(pieces)
        pieces = []
        size = 0
        return line
      }
      const cut = (chunk: Uint8Array): ReadonlyArray<Buffer | undefined> => {
        const lines: Array<Buffer | undefined> = []
        let from = 0
        for (let at = chunk.indexOf(newline); at >= 0; at = chunk.indexOf(newline, from)) {
          if (from < at) take(chunk.subarray(from, at))
          lines.push(ended())
          from = at + 1
        }
        if (from < chunk.length) take(chunk.subarray(from))
        return lines
      }
      const last = Stream.suspend(() => (size === 0 ? Stream.empty : Stream.succeed(ended())))
      return Stream.concat(Stream.mapConcat(bytes, cut), last)
    })
