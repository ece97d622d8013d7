import { FastCheck } from "effect"
import { expect, it } from "vitest"
import * as Heap from "../../src/ResourceManager/Heap.js"

it("gives its members in order, whatever was removed or re-ranked", () => {
  const operation = FastCheck.record({
    kind: FastCheck.constantFrom("add", "remove", "update"),
    pick: FastCheck.nat(1_000),
    rank: FastCheck.nat(50)
  })
  FastCheck.assert(
    FastCheck.property(FastCheck.array(operation, { maxLength: 80 }), (operations) => {
      const heap = Heap.make<{ rank: number }>((a, b) => a.rank < b.rank)
      const members: Array<{ rank: number }> = []
      for (const { kind, pick, rank } of operations) {
        const chosen = members[pick % Math.max(1, members.length)]
        if (kind === "add" || chosen === undefined) {
          const added = { rank }
          members.push(added)
          heap.add(added)
        } else if (kind === "remove") {
          members.splice(members.indexOf(chosen), 1)
          heap.remove(chosen)
          heap.remove(chosen)
        } else {
          chosen.rank = rank
          heap.update(chosen)
        }
        expect(heap.size()).toBe(members.length)
      }
      const drained: Array<number> = []
      for (let top = heap.peek(); top !== undefined; top = heap.peek()) {
        drained.push(top.rank)
        heap.remove(top)
      }
      expect(drained).toEqual(members.map(({ rank }) => rank).sort((a, b) => a - b))
    }),
    { numRuns: 300 }
  )
})
