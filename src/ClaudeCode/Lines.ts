import { Chunk, Stream } from "effect"

const newline = 10

interface Pending {
  readonly parts: ReadonlyArray<Uint8Array>
  readonly size: number
}

const nothing: Pending = { parts: [], size: 0 }

/** The lines of a stream of UTF-8. One of more than `maxBytes` is left out, and never held whole. */
export const boundedLines =
  (maxBytes: number) =>
  <E, R>(bytes: Stream.Stream<Uint8Array, E, R>): Stream.Stream<string, E, R> => {
    const take = ({ parts, size }: Pending, part: Uint8Array): Pending => {
      const total = size + part.length
      return { parts: total > maxBytes ? [] : [...parts, part], size: total }
    }
    const lineOf = ({ parts, size }: Pending): ReadonlyArray<string> =>
      size === 0 || size > maxBytes ? [] : [Buffer.concat(parts).toString("utf8")]
    const end = Symbol()
    return Stream.concat(bytes, Stream.succeed(end)).pipe(
      Stream.mapAccum(nothing, (pending, chunk): readonly [Pending, Chunk.Chunk<string>] => {
        if (typeof chunk === "symbol") return [nothing, Chunk.fromIterable(lineOf(pending))]
        const lines: Array<string> = []
        let rest = pending
        let from = 0
        for (let at = chunk.indexOf(newline); at >= 0; at = chunk.indexOf(newline, from)) {
          lines.push(...lineOf(take(rest, chunk.subarray(from, at))))
          rest = nothing
          from = at + 1
        }
        return [take(rest, chunk.subarray(from)), Chunk.fromIterable(lines)]
      }),
      Stream.flattenChunks
    )
  }
