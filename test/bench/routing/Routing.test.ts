import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { tenantId } from "../support/Draw.js"
import { runBaseline } from "./Baselines.js"
import { type Day, type DayTask, loads, makeDay, type Trouble, type TroubleKind } from "./Day.js"
import { checksOf, figuresOf } from "./Report.js"
import { platformIds, platforms } from "./SickPlatforms.js"
import { runSubject } from "./Subject.js"

const MINUTE = 60_000
const HOUR = 60 * MINUTE

const task = (id: number, arrivesAt: number): DayTask => ({
  id,
  type: "analysis",
  tenant: tenantId("local"),
  arrivesAt,
  estimatedInput: 500,
  inputTokens: 500,
  maxOutput: 2_000,
  outputTokens: 500
})
/** Three tasks a minute, the first after one. */
const tasks = (count: number) => Array.from({ length: count }, (_, id) => task(id, MINUTE + id * 20_000))
const all = (kind: TroubleKind, to: number): ReadonlyArray<Trouble> =>
  platformIds.map((platform) => ({ kind, platform, from: 0, to }))
const only = (kind: TroubleKind, index: number): ReadonlyArray<Trouble> =>
  all(kind, 24 * HOUR).filter(({ platform }) => platform === platformIds[index])

const baseline = (day: Day) => runBaseline("round robin", day, "seed")

describe("the day", () => {
  const options = { seed: "seed", hours: 24, load: loads.ordinary, platforms: platformIds }
  const day = makeDay(options)

  it("is the same for the same seed, and another one for another", () => {
    expect(makeDay(options)).toEqual(day)
    expect(makeDay({ ...options, seed: "other" })).not.toEqual(day)
  })

  it("has as many tasks as it is said to have, most of them by day", () => {
    expect(day.tasks.length).toBeGreaterThan(4_700)
    expect(day.tasks.length).toBeLessThan(5_300)
    const between = (from: number, to: number) =>
      day.tasks.filter(({ arrivesAt }) => arrivesAt >= from * HOUR && arrivesAt < to * HOUR).length
    expect(between(5, 7) / between(17, 19)).toBeGreaterThan(3)
    expect(between(5, 7) / between(17, 19)).toBeLessThan(5)
  })

  it("begins the same however much of it there is", () => {
    expect(makeDay({ ...options, hours: 2 }).tasks).toEqual(day.tasks.filter(({ arrivesAt }) => arrivesAt < 2 * HOUR))
  })

  it("brings every platform troubles, one after the other", () => {
    expect(day.troubles.length).toBe(12)
    for (const id of platformIds) expect(day.troubles.filter(({ platform }) => platform === id).length).toBe(3)
    expect(day.troubles.map(({ from }) => from)).toEqual(day.troubles.map(({ from }) => from).sort((a, b) => a - b))
  })

  it("never needs more than the platforms have", () => {
    const permits = 13
    const slowest = Math.max(...platforms.map(({ speed }) => speed.msPerToken))
    const busiest = day.tasks.filter(({ arrivesAt }) => arrivesAt >= 5 * HOUR && arrivesAt < 7 * HOUR)
    const neededMs = busiest.reduce((sum, { outputTokens }) => sum + outputTokens * slowest, 0)
    expect(neededMs).toBeLessThan(permits * 2 * HOUR)
  })
})

describe("a plain router", () => {
  it.effect("gives each platform its turn", () =>
    Effect.gen(function* () {
      const { attempts, ended, refused } = yield* baseline({ tasks: tasks(40), troubles: [] })
      expect(refused).toBe(0)
      expect(attempts).toBeLessThan(43)
      for (const id of platformIds) expect(ended.filter(({ by }) => by === id).length).toBeGreaterThan(6)
    })
  )

  it.effect("tries again elsewhere, and never finds out that a platform is down", () =>
    Effect.gen(function* () {
      const { attempts, ended } = yield* baseline({ tasks: tasks(30), troubles: only("down", 1) })
      expect(ended.every(({ by }) => by !== undefined && by !== platformIds[1])).toBe(true)
      expect(attempts).toBeGreaterThan(35)
    })
  )

  it.effect("gives up after as many attempts as the product makes", () =>
    Effect.gen(function* () {
      const { attempts, ended } = yield* baseline({ tasks: tasks(1), troubles: all("down", 24 * HOUR) })
      expect(attempts).toBe(6)
      expect(ended[0]?.why).toBe("AttemptsExhausted")
    })
  )

  it.effect("gives up at the deadline", () =>
    Effect.gen(function* () {
      const { attempts, ended } = yield* baseline({ tasks: tasks(1), troubles: all("hangs", 24 * HOUR) })
      expect(attempts).toBe(5)
      expect(ended[0]).toMatchObject({ why: "DeadlineExceeded", at: 11 * MINUTE })
    })
  )

  it.effect("leaves a platform that answered 429 alone for five seconds, and no longer", () =>
    Effect.gen(function* () {
      const { attempts, ended, refused } = yield* baseline({
        tasks: tasks(1),
        troubles: all("used up", MINUTE + 4_000)
      })
      expect(refused).toBe(4)
      expect(attempts).toBe(5)
      expect(ended[0]?.by).toBeDefined()
    })
  )
})

describe("the product", () => {
  it.effect("finds out that a platform is down, and when a quota is there again", () =>
    Effect.gen(function* () {
      const troubles = [...only("down", 1), ...only("used up", 2)]
      const { attempts, ended, refused } = yield* runSubject({ tasks: tasks(30), troubles }, "seed")
      expect(ended.every(({ by }) => by === platformIds[0] || by === platformIds[3])).toBe(true)
      expect(refused).toBe(1)
      expect(attempts).toBeLessThan(36)
    })
  )

  it.effect("meets the same platforms as the others do", () =>
    Effect.gen(function* () {
      const day = { tasks: tasks(30), troubles: [] }
      const own = yield* runSubject(day, "seed")
      const other = yield* baseline(day)
      const shared = own.ended.flatMap((end) => {
        const same = other.ended.find(({ by, task: { id } }) => id === end.task.id && by === end.by)
        return same === undefined ? [] : [[end.at, same.at] as const]
      })
      expect(shared.length).toBeGreaterThan(3)
      // one may have failed elsewhere first
      const same = shared.filter(([left, right]) => Math.abs(left - right) < 10)
      expect(same.length).toBeGreaterThan(shared.length - 2)
    })
  )
})

describe("the report", () => {
  const ended = (ms: number, answered: boolean) => ({
    task: task(1, 0),
    at: ms,
    ...(answered ? { by: platformIds[0] } : { why: "DeadlineExceeded: too late" })
  })
  const good = figuresOf("dream-team", { ended: [ended(10_000, true)], attempts: 1, refused: 0 })
  const bad = figuresOf("round robin", {
    ended: [ended(20_000, true), ended(600_000, false)],
    attempts: 4,
    refused: 1
  })

  it("counts a failed task's deadline, and why it failed", () => {
    expect(bad).toMatchObject({
      succeeded: 0.5,
      completionMsMean: 20_000,
      allMsMean: 310_000,
      attemptsPerTask: 2,
      failures: { DeadlineExceeded: 1 }
    })
  })

  it("names each target that is missed", () => {
    expect(checksOf(good, [bad]).every(({ isMet }) => isMet)).toBe(true)
    const missed = checksOf({ ...bad, policy: "dream-team" }, [{ ...good, policy: "round robin" }])
    expect(missed.map(({ isMet }) => isMet)).toEqual([false, false, false])
    expect(missed[0]).toMatchObject({ value: 50, target: "> 100" })
  })
})
