import { assert, describe, it } from "@effect/vitest"
import type { CallTimes } from "../../src/Benchmark.js"
import { holdBack, sensibleWaitMs } from "../../src/Delegation/Deadline.js"
import type { Contender } from "../../src/Delegation/Failover.js"
import { PlatformId } from "../../src/Domain/Platform.js"

const contender = (name: string, over: Partial<Contender> = {}): Contender => ({
  platform: PlatformId.make(name),
  model: `${name}-model`,
  weight: 1,
  suitability: 1,
  quality: 1,
  failures: 0,
  ...over
})

const [quick, slow, unknown] = [contender("quick"), contender("slow"), contender("unknown")]
const times: Readonly<Record<string, CallTimes>> = {
  quick: { typicalMs: 20_000, longMs: 50_000 },
  slow: { typicalMs: 80_000, longMs: 200_000 }
}
const timesOf = ({ platform }: Contender): CallTimes | undefined => times[platform]

const held = (leftMs: number, contenders: ReadonlyArray<Contender> = [quick, slow, unknown]) =>
  holdBack(contenders, timesOf, { now: 1_000, deadlineAt: 1_000 + leftMs }).map(
    ({ heldBack, notBefore, platform }) => ({
      platform,
      notBefore,
      heldBack
    })
  )

describe("a call's deadline", () => {
  it("holds nobody back while all of them answer in time, or while nobody is known to", () => {
    for (const leftMs of [260_000, 86_400_000]) {
      assert.isTrue(held(leftMs).every(({ notBefore }) => notBefore === undefined))
    }
    assert.isTrue(held(60_000).every(({ notBefore }) => notBefore === undefined))
    assert.isTrue(held(10_000, [slow, unknown]).every(({ notBefore }) => notBefore === undefined))
  })

  it("holds back who may answer too late, for as long as another one still answers in time, a minute at most", () => {
    assert.deepStrictEqual(held(90_000), [
      { platform: quick.platform, notBefore: undefined, heldBack: undefined },
      {
        platform: slow.platform,
        notBefore: 26_000,
        heldBack: "a long answer takes it 260 s, and the call has 90 s left"
      },
      { platform: unknown.platform, notBefore: undefined, heldBack: undefined }
    ])
    assert.strictEqual(held(250_000)[1]?.notBefore, 61_000)
  })

  it("leaves a longer rest after a failure as it is", () => {
    const resting = contender("slow", { failures: 3, notBefore: 500_000 })
    assert.deepStrictEqual(held(90_000, [quick, resting])[1], {
      platform: slow.platform,
      notBefore: 500_000,
      heldBack: undefined
    })
  })

  it("bounds the wait by the time that a typical answer takes the fastest one", () => {
    assert.strictEqual(sensibleWaitMs([slow, quick, unknown], timesOf, 100_000), 80_000)
    assert.strictEqual(sensibleWaitMs([slow], timesOf, 100_000), 20_000)
    assert.strictEqual(sensibleWaitMs([slow], timesOf, 50_000), 0)
    assert.strictEqual(sensibleWaitMs([unknown], timesOf, 50_000), 50_000)
  })
})
