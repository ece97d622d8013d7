import { assert, describe, it } from "vitest"
import { Chaos, points } from "./Chaos.js"
import { violations } from "./Journal.js"

const randomKills = 20

describe("a service under a mixed load, while its platforms have troubles of their own", () => {
  it(`loses and doubles nothing: killed at each of ${points.length} points between two journal writes and ${randomKills} times anyhow, ended by SIGTERM, its platforms dead for a while, its wall clock set an hour ahead and back`, {
    timeout: 1_200_000
  }, async () => {
    const chaos = await Chaos.start()
    try {
      chaos.load.start()
      for (const point of points) await chaos.dieAt(point, 120_000)
      for (let kill = 0; kill < randomKills; kill++) await chaos.dieAnyhow()

      await chaos.up()
      await chaos.progress(16)
      const asked = performance.now()
      await chaos.stop()
      assert.isBelow(performance.now() - asked, 30_000)

      await chaos.up()
      chaos.jump()
      await chaos.progress(16)
      chaos.jump()
      await chaos.progress(16)
      await chaos.platformsDie(1_500)
      await chaos.progress(16)

      const verdict = await chaos.finish(300_000)
      const story = JSON.stringify(verdict, undefined, 1)
      assert.deepStrictEqual(violations(verdict), [], story)
      // It proves nothing where little happened.
      assert.isAbove(verdict.attempts.interrupted, 0, story)
      assert.isAbove(verdict.states.succeeded ?? 0, verdict.accepted.tasks / 2, story)
      for (const state of ["succeeded", "failed", "cancelled"]) assert.isAbove(verdict.jobStates[state] ?? 0, 0, story)
      assert.isAbove(verdict.alternatives["class-1 succeeded"] ?? 0, 0, story)
      assert.isAbove(verdict.webhooks.owed, 50, story)
      assert.isAbove(verdict.webhooks.repeated, 0, story)
      assert.isAbove(verdict.budgets.used, 10, story)
    } finally {
      await chaos.close()
    }
  })
})
