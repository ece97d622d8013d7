import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, FastCheck } from "effect"
import * as Turns from "../../src/ResourceManager/Turns.js"
import { Settings } from "../../src/Settings.js"

type Contestant = Turns.Contestant<number>

const contestantsOf = (weights: ReadonlyArray<number>): ReadonlyArray<Contestant> =>
  weights.map((weight, slot) => ({ slot, weight }))

const take = (turns: Turns.Turns<number>, free: ReadonlyArray<Contestant>, rotation = "all"): number => {
  if (!Arr.isNonEmptyReadonlyArray(free)) throw new Error("nobody is free")
  const next = turns.next(free, rotation)
  const taken = turns.take(free, rotation)
  if (taken !== next) throw new Error("it was another one's turn")
  return taken.slot
}

const sum = (values: ReadonlyArray<number>): number => values.reduce((all, each) => all + each, 0)

/** The most that any place got above its share in any run of choices. */
const mostAhead = (choices: ReadonlyArray<number>, weights: ReadonlyArray<number>): number =>
  Math.max(
    ...weights.map((weight, slot) => {
      const share = weight / sum(weights)
      let most = 0
      let ahead = 0
      for (const choice of choices) {
        ahead = Math.max(0, ahead) - share + (choice === slot ? 1 : 0)
        most = Math.max(most, ahead)
      }
      return most
    })
  )

/**
 * Whether there is any order of choices, going on for ever, in which nobody ever gets more than its share and `bound`
 * hundredths above it in a run. Whole weights, so that what each is ahead of its share has finitely many values.
 */
const canKeepTo = (bound: number, weights: ReadonlyArray<number>): boolean => {
  const total = sum(weights)
  const most = Math.floor((bound * total) / 100)
  const dead = new Set<string>()
  const path = new Set<string>()
  const states: Array<{ readonly ahead: ReadonlyArray<number>; readonly key: string; next: number }> = []
  const push = (ahead: ReadonlyArray<number>): void => {
    path.add(ahead.join())
    states.push({ ahead, key: ahead.join(), next: 0 })
  }
  push(weights.map(() => 0))
  for (let state = states.at(-1); state !== undefined; state = states.at(-1)) {
    const chosen = state.next
    state.next += 1
    if (chosen >= weights.length) {
      states.pop()
      path.delete(state.key)
      dead.add(state.key)
      continue
    }
    const after = state.ahead.map((ahead, slot) => ahead - (weights[slot] ?? 0) + (slot === chosen ? total : 0))
    if ((after[chosen] ?? 0) > most) continue
    const next = after.map((ahead) => Math.max(0, ahead))
    if (path.has(next.join())) return true
    if (!dead.has(next.join())) push(next)
  }
  return false
}

const weightsOf = (least: number, most: number) =>
  FastCheck.array(
    FastCheck.oneof(
      FastCheck.integer({ min: 1, max: 20 }),
      FastCheck.double({ min: 0.01, max: 100, noNaN: true }),
      FastCheck.constantFrom(1, 1, 0.05)
    ),
    { minLength: least, maxLength: most }
  )

describe("turns", () => {
  for (const [least, most, bound] of [
    [1, 6, 2],
    [7, 12, 2.25]
  ] as const) {
    it(`give each of ${least} to ${most} its share and less than ${bound} more in any run, whatever the weights`, () => {
      FastCheck.assert(
        FastCheck.property(weightsOf(least, most), (weights) => {
          const turns = Turns.make<number>()
          const free = contestantsOf(weights)
          const choices = Array.from({ length: 1_000 }, () => take(turns, free))
          assert.isBelow(mostAhead(choices, weights), bound)
          for (const [slot, weight] of weights.entries()) {
            const share = weight / sum(weights)
            let ahead = 0
            let most = 0
            for (const choice of choices) {
              ahead += (choice === slot ? 1 : 0) - share
              most = Math.max(most, ahead)
            }
            assert.isBelow(most, 1 + 1e-6)
          }
        }),
        { numRuns: 100 }
      )
    })
  }

  it("keep to the share and one where any order can: with two, and with weights of 4, 2, 1 or 3, 2, 1", () => {
    for (const weights of [
      [4, 2, 1],
      [3, 2, 1],
      [1, 1, 1, 1],
      [19, 14],
      [7, 3],
      [8, 4, 2, 1]
    ]) {
      const turns = Turns.make<number>()
      const choices = Array.from({ length: 5_000 }, () => take(turns, contestantsOf(weights)))
      assert.isAtMost(mostAhead(choices, weights), 1 + 1e-6)
    }
  })

  it("are less than half a turn from that by default, where no order whatever keeps to it", () => {
    for (const type of ["implementation", "documentation", "testing", "architecture", "analysis"] as const) {
      const weights = (["codex", "gemini", "qwen", "synthetic"] as const).map((id) =>
        Math.round(100 * Settings.platformDefaults(id, { apiKey: "key" }).suitability[type])
      )
      const unit = weights.every((weight) => weight % 5 === 0) ? 5 : 1
      const whole = weights.map((weight) => weight / unit)
      assert.isFalse(canKeepTo(100, whole))
      assert.isTrue(canKeepTo(125, whole))
      const turns = Turns.make<number>()
      const choices = Array.from({ length: 5_000 }, () => take(turns, contestantsOf(whole)))
      assert.isBelow(mostAhead(choices, whole), 1.45)
    }
  })

  it("give each what it was owed while it was free, within two turns of all, whoever is free", () => {
    const steps = FastCheck.array(
      FastCheck.record({
        free: FastCheck.array(FastCheck.boolean(), { minLength: 5, maxLength: 5 }),
        times: FastCheck.integer({ min: 1, max: 40 })
      }),
      { minLength: 1, maxLength: 40 }
    )
    FastCheck.assert(
      FastCheck.property(weightsOf(5, 5), steps, (weights, periods) => {
        const turns = Turns.make<number>()
        const owed = new Map<number, number>()
        let most = 0
        for (const { free, times } of periods) {
          const some = contestantsOf(weights).filter(({ slot }) => free[slot] === true)
          if (some.length === 0) continue
          const total = sum(some.map(({ weight }) => weight))
          for (let time = 0; time < times; time++) {
            for (const { slot, weight } of some) owed.set(slot, (owed.get(slot) ?? 0) + weight)
            const chosen = take(turns, some)
            owed.set(chosen, (owed.get(chosen) ?? 0) - total)
            most = Math.max(most, ...[...owed.values()].map(Math.abs))
          }
        }
        assert.isBelow(most, 2 * sum(weights))
      }),
      { numRuns: 200 }
    )
  })

  it("of one rotation are not those of another, and the one that was not used for long is forgotten", () => {
    const turns = Turns.make<number>()
    const free = contestantsOf([2, 1])
    assert.deepStrictEqual([take(turns, free, "a"), take(turns, free, "a"), take(turns, free, "b")], [0, 1, 0])
    for (let other = 0; other < 999; other++) {
      take(turns, free, `other ${other}`)
      if (other === 500) assert.strictEqual(take(turns, free, "a"), 0)
    }
    // "a" was used in between and goes on; "b" starts anew
    assert.deepStrictEqual([take(turns, free, "a"), take(turns, free, "b")], [0, 0])
  })
})
