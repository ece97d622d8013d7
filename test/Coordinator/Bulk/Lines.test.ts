import { assert, describe, it } from "@effect/vitest"
import { Chunk, Effect, FastCheck, Stream } from "effect"
import { groupsOf, type Line, linesOf } from "../../../src/Coordinator/Bulk/Lines.js"

const encoder = new TextEncoder()
const decoder = new TextDecoder()

const shown = ({ bytes, number }: Line): string =>
  `${number}:${bytes === undefined ? "too long" : decoder.decode(bytes)}`

const read = (parts: ReadonlyArray<string>, maxBytes: number) =>
  Stream.fromIterable(parts.map((part) => encoder.encode(part))).pipe(linesOf(maxBytes), Stream.runCollect)

describe("the lines of a body", () => {
  it.effect("are counted with the blank ones, which are passed over", () =>
    Effect.gen(function* () {
      const lines = yield* read(["a\r\n\n  \nb", "c\n", "\nlast"], 10)
      assert.deepStrictEqual(Chunk.toReadonlyArray(lines).map(shown), ["1:a\r", "4:bc", "6:last"])
    })
  )

  it.effect("may be too long, each by itself", () =>
    Effect.gen(function* () {
      const lines = yield* read(["12345\n123", "456\n12345"], 5)
      assert.deepStrictEqual(Chunk.toReadonlyArray(lines).map(shown), ["1:12345", "2:too long", "3:12345"])
    })
  )

  it.effect("are the same however the body is cut", () =>
    Effect.promise(() =>
      FastCheck.assert(
        FastCheck.asyncProperty(
          FastCheck.array(FastCheck.string({ unit: FastCheck.constantFrom("a", "é", " ", "\n"), maxLength: 12 })),
          FastCheck.nat({ max: 20 }),
          (parts, size) =>
            Effect.runPromise(
              Effect.gen(function* () {
                const bytes = encoder.encode(parts.join(""))
                const pieces = Array.from({ length: Math.ceil(bytes.length / (size + 1)) }, (_, index) =>
                  bytes.subarray(index * (size + 1), (index + 1) * (size + 1))
                )
                const lines = yield* Stream.fromIterable(pieces).pipe(linesOf(1_000), Stream.runCollect)
                const expected = parts
                  .join("")
                  .split("\n")
                  .flatMap((line, index) => (line.trim() === "" ? [] : [`${index + 1}:${line}`]))
                assert.deepStrictEqual(Chunk.toReadonlyArray(lines).map(shown), expected)
              })
            )
        ),
        { numRuns: 200 }
      )
    )
  )

  it.effect("come in groups bounded in lines and bytes", () =>
    Effect.gen(function* () {
      const groups = yield* Stream.make(encoder.encode("1\n2\n3\n4444444\n5\n66666\n7")).pipe(
        linesOf(10),
        groupsOf(2, 6),
        Stream.runCollect
      )
      assert.deepStrictEqual(
        Chunk.toReadonlyArray(groups).map((group) => group.map(({ number }) => number)),
        [[1, 2], [3], [4], [5, 6], [7]]
      )
    })
  )
})
