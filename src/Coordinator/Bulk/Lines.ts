import { Chunk, Option, Stream } from "effect"

/** One line of a body, without its end, counted from 1; `bytes` is absent where it is longer than it may be. */
export interface Line {
  readonly number: number
  readonly bytes: Uint8Array | undefined
}

const newline = 0x0a

interface State {
  /** The pieces of the line that has not ended yet; of one that is too long nothing is kept. */
  readonly pieces: ReadonlyArray<Uint8Array>
  readonly size: number
  readonly number: number
}

const isBlank = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d)

/**
 * A body's lines as they come in. No more of a line is held than `maxBytes`, however long it is. Blank lines are counted
 * and passed over.
 */
export const linesOf =
  (maxBytes: number) =>
  <E, R>(body: Stream.Stream<Uint8Array, E, R>): Stream.Stream<Line, E, R> => {
    const grown = (state: State, piece: Uint8Array): State => {
      const size = state.size + piece.length
      return { ...state, size, pieces: size > maxBytes ? [] : [...state.pieces, piece] }
    }
    const ended = ({ number, pieces, size }: State): ReadonlyArray<Line> => {
      if (size > maxBytes) return [{ number, bytes: undefined }]
      const bytes = pieces.length === 1 ? (pieces[0] ?? new Uint8Array()) : Buffer.concat(pieces)
      return isBlank(bytes) ? [] : [{ number, bytes }]
    }
    const first: State = { pieces: [], size: 0, number: 1 }
    return Stream.map(body, Option.some).pipe(
      Stream.concat(Stream.make(Option.none<Uint8Array>())),
      Stream.mapAccum(first, (before, chunk): readonly [State, ReadonlyArray<Line>] => {
        if (Option.isNone(chunk)) return [before, ended(before)]
        const lines: Array<Line> = []
        let state = before
        let from = 0
        for (let at = chunk.value.indexOf(newline); at !== -1; at = chunk.value.indexOf(newline, from)) {
          lines.push(...ended(grown(state, chunk.value.subarray(from, at))))
          state = { pieces: [], size: 0, number: state.number + 1 }
          from = at + 1
        }
        return [from < chunk.value.length ? grown(state, chunk.value.subarray(from)) : state, lines]
      }),
      Stream.mapConcatChunk(Chunk.unsafeFromArray)
    )
  }

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
