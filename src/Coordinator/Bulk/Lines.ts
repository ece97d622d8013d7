import { Chunk, Option, Stream } from "effect"
import { boundedLines } from "../../Domain/Lines.js"

/** One line of a body, without its end, counted from 1; `bytes` is absent where it is longer than it may be. */
export interface Line {
  readonly number: number
  readonly bytes: Uint8Array | undefined
}

const isBlank = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d)

/** A body's lines as they come in, none held beyond `maxBytes`. Blank lines are counted and passed over. */
export const linesOf =
  (maxBytes: number) =>
  <E, R>(body: Stream.Stream<Uint8Array, E, R>): Stream.Stream<Line, E, R> =>
    Stream.suspend(() => {
      let number = 0
      return Stream.mapChunks(
        boundedLines(maxBytes)(body),
        Chunk.filterMap((bytes) => {
          number += 1
          return bytes !== undefined && isBlank(bytes) ? Option.none() : Option.some({ number, bytes })
        })
      )
    })

/** Lines in groups of at most `maxLines` and, but for a single line, `maxBytes`, as soon as they are there. */
export const groupsOf =
  (maxLines: number, maxBytes: number) =>
  <E, R>(lines: Stream.Stream<Line, E, R>): Stream.Stream<ReadonlyArray<Line>, E, R> =>
    Stream.chunks(lines).pipe(
      Stream.mapConcat((chunk) => {
        const groups: Array<Array<Line>> = []
        let bytes = 0
        for (const line of chunk) {
          const group = groups.at(-1)
          const size = line.bytes?.length ?? 0
          if (group === undefined || group.length === maxLines || bytes + size > maxBytes) {
            groups.push([line])
            bytes = size
          } else {
            group.push(line)
            bytes += size
          }
        }
        return groups
      })
    )
