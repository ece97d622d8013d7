import { assert, describe, it } from "vitest"
import { pause } from "../support/Service.js"
import { Chaos, points, type Verdict } from "./Chaos.js"

const randomKills = 20

const nothingWrong = (verdict: Verdict): void => {
  const story = JSON.stringify(verdict)
  assert.deepStrictEqual(
    [verdict.lost, verdict.unknown, verdict.doubled, verdict.unfinished],
    [0, 0, 0, 0],
    `lost, unknown, doubled, unfinished: ${story}`
  )
  assert.isAtMost(verdict.interrupted, verdict.inFlightAtKills, story)
  // What a death or a cancel cut may have been answered all the same.
  assert.isAtMost(verdict.executedTwice, verdict.interrupted + (verdict.states.cancelled ?? 0), story)
}

describe("a service that dies under a mixed load, while its platforms have troubles of their own", () => {
  it(`at each of ${points.length} points between two journal writes, and at ${randomKills} of any kind`, {
    timeout: 600_000
  }, async () => {
    const chaos = await Chaos.start()
    try {
      await chaos.up()
      chaos.startLoad()
      for (const point of points) {
        await chaos.service?.stop("SIGKILL")
        await chaos.up(point)
        await chaos.died(point, 30_000)
      }
      for (let kill = 0; kill < randomKills; kill++) {
        await chaos.up()
        await pause(100 + Math.random() * 300)
        await chaos.kill()
      }
      await chaos.up()
      await chaos.finishLoad(120_000)
      assert.strictEqual(await chaos.service?.stop("SIGTERM"), 0)
      const verdict = chaos.verdict()
      nothingWrong(verdict)
      assert.isAbove(verdict.interrupted, 0, "no death hit an attempt: the load was too light to prove anything")
      assert.isAbove(verdict.states.succeeded ?? 0, verdict.accepted / 2)
    } finally {
      await chaos.close()
    }
  })
})

describe("a service under the same load", () => {
  it("ends in good order on SIGTERM, survives its platforms' death and a wall clock set an hour ahead and back", {
    timeout: 300_000
  }, async () => {
    const chaos = await Chaos.start()
    try {
      await chaos.up()
      chaos.startLoad()
      await pause(1_500)
      const asked = performance.now()
      assert.strictEqual(await chaos.service?.stop("SIGTERM"), 0)
      assert.isBelow(performance.now() - asked, 30_000)
      await chaos.up()
      await pause(500)
      chaos.service?.process.kill("SIGUSR2")
      await pause(1_500)
      chaos.service?.process.kill("SIGUSR2")
      await pause(1_500)
      await chaos.simulatorDies(1_500)
      await pause(500)
      await chaos.finishLoad(180_000)
      assert.strictEqual(await chaos.service?.stop("SIGTERM"), 0)
      const verdict = chaos.verdict()
      nothingWrong(verdict)
      assert.strictEqual(verdict.poisoned, 0)
    } finally {
      await chaos.close()
    }
  })
})
