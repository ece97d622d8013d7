import { Effect } from "effect"
import { assert, describe, it } from "vitest"
import { node } from "../support/Command.js"
import { run } from "./mixedLoad.js"

const typesIn = (log: string): Set<unknown> => new Set(log.split("\n").map((line) => JSON.parse(line).type as unknown))

describe("the whole service under a test clock, with a load of everything", () => {
  it("does the same for the same seed, byte for byte, in this process and in another; and differs for another seed", {
    timeout: 300_000
  }, async () => {
    const running = node(["--import", "tsx", "test/Testing/mixedLoad.ts", "one"])
    const { first, log, second } = await Effect.runPromise(run("one"))
    for (const type of [
      "task.succeeded",
      "task.failed",
      "task.cancelled",
      "task.retried",
      "task.waiting",
      "attempt.failed",
      "attempt.ignored",
      "job.queued",
      "job.progress",
      "job.succeeded",
      "job.cancelled"
    ]) {
      assert.isTrue(typesIn(log).has(type), `the load has no ${type}`)
    }
    assert.isAbove(first.elapsedMs, 0)
    assert.deepStrictEqual(
      Object.keys(second.tasks).filter((state) => state === "running" || state === "queued"),
      []
    )
    assert.strictEqual((await Effect.runPromise(run("one"))).log, log, "the second run in this process")
    const elsewhere = await running
    assert.strictEqual(elsewhere.stderr, "")
    assert.strictEqual(elsewhere.stdout, log, "the run in another process")
    assert.notStrictEqual((await Effect.runPromise(run("two"))).log, log, "another seed")
  })
})
