import { FastCheck } from "effect"
import { expect, it } from "vitest"
import * as SortedQueue from "../../src/ResourceManager/SortedQueue.js"

it("gives its members in order, whichever way they come and go", () => {
  const operation = FastCheck.record({
    kind: FastCheck.constantFrom("add", "last", "remove", "first"),
    pick: FastCheck.nat(1_000),
    rank: FastCheck.nat(1_000_000)
  })
  FastCheck.assert(
    FastCheck.property(FastCheck.array(operation, { maxLength: 300, size: "max" }), (operations) => {
      const queue = SortedQueue.make<number>((a, b) => a < b)
      let members: ReadonlyArray<number> = []
      for (const { kind, pick, rank } of operations) {
        const chosen = kind === "first" ? queue.peek() : members[pick % Math.max(1, members.length)]
        if (kind === "add" || kind === "last") {
          const added = kind === "add" ? rank : Math.max(rank, ...members) + 1
          if (members.includes(added)) continue
          members = [...members, added].sort((a, b) => a - b)
          queue.add(added)
        } else if (chosen !== undefined) {
          members = members.filter((member) => member !== chosen)
          queue.remove(chosen)
          queue.remove(chosen)
        }
        expect([queue.size(), queue.peek()]).toEqual([members.length, members[0]])
        expect(queue.front((member) => member < 500_000)).toEqual(members.filter((member) => member < 500_000))
      }
    }),
    { numRuns: 100 }
  )
})
