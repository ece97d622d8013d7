import { describe, expect, it } from "@effect/vitest"
import { Chunk, Effect, FastCheck, Stream } from "effect"
import { boundedLines } from "../../src/Domain/Lines.js"

const read = (pieces: ReadonlyArray<Uint8Array>, maxBytes: number) =>
  Stream.fromIterable(pieces).pipe(
    boundedLines(maxBytes),
    Stream.map((line) => line?.toString("utf8")),
    Stream.runCollect,
    Effect.map(Chunk.toReadonlyArray)
  )

const piecesOf = (text: string, size: number): ReadonlyArray<Uint8Array> => {
  const bytes = Buffer.from(text)
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
    bytes.subarray(index * size, (index + 1) * size)
  )
}

describe("lines", () => {
  it.effect("may be too long, each by itself, and are long in bytes", () =>
    Effect.gen(function* () {
      for (const size of [1, 2, 5, 100]) {
        expect(yield* read(piecesOf("12345\n123456\n\nééé\néé1", size), 5)).toEqual([
          "12345",
          undefined,
          "",
          undefined,
          "éé1"
        ])
      }
      expect(yield* read([], 5)).toEqual([])
      expect(yield* read(piecesOf("1\n", 5), 5)).toEqual(["1"])
    })
  )

  it.effect("are the same however the stream is cut, each time it runs", () =>
    Effect.promise(() =>
      FastCheck.assert(
        FastCheck.asyncProperty(
          FastCheck.string({ unit: FastCheck.constantFrom("a", "é", "😀", "\r", "\n"), maxLength: 60 }),
          FastCheck.integer({ min: 1, max: 20 }),
          async (text, size) => {
            const expected = text.endsWith("\n") ? text.slice(0, -1).split("\n") : text === "" ? [] : text.split("\n")
            const lines = read(piecesOf(text, size), 1_000)
            expect(await Effect.runPromise(Effect.all([lines, lines]))).toEqual([expected, expected])
          }
        ),
        { numRuns: 200 }
      )
    )
  )
})
