import { assert, describe, it } from "@effect/vitest"
import { FastCheck } from "effect"
import { afterFailure, backoffMs, endsTheCall, type Failover, fromRoute } from "../../src/Delegation/Failover.js"
import type { AttemptFailure } from "../../src/Domain/Failure.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { failures } from "../../src/Testing.js"

const windows: Readonly<Record<string, number>> = { small: 8_000, middle: 128_000, twin: 128_000, large: 1_000_000 }

const id = (name: string) => PlatformId.make(name)

const start: Failover = fromRoute({
  candidates: Object.keys(windows).map((name) => ({
    platform: id(name),
    model: `${name}-model`,
    weight: 1,
    suitability: 1,
    quality: 1
  })),
  excluded: [],
  policy: "balanced",
  patienceMs: 2_000
})

const failingAt = (name: string, make: (typeof failures)[keyof typeof failures]): AttemptFailure =>
  make()(id(name), `${name}-model`)

const afterwards = (state: Failover, name: string, failure: AttemptFailure) =>
  afterFailure(state, { platform: id(name), model: `${name}-model` }, failure, {
    now: 1_000,
    jitter: 0.5,
    contextWindow: (platform) => windows[platform] ?? 0
  })

const left = ({ contenders }: Failover) => contenders.map(({ platform }) => String(platform))

describe("Failover", () => {
  it("goes on to strictly larger windows after a context failure, and knows that waiting mends nothing", () => {
    const state = afterwards(start, "middle", failingAt("middle", failures.context))
    assert.deepStrictEqual(left(state), ["large"])
    assert.isFalse(state.mayRecover)
    assert.deepStrictEqual(
      state.excluded.map(({ platform, reason }) => `${platform}: ${reason}`),
      [
        "small: its context window is no larger than that of middle, which the call did not fit",
        "middle: the call is too long for it: the context is too long",
        "twin: its context window is no larger than that of middle, which the call did not fit"
      ]
    )
  })

  it("tells when a locked-out model comes back", () => {
    const failure = failures.model({ resetsAt: 5_000 })(id("large"), "large-model")
    const state = afterwards(start, "large", failure)
    assert.deepStrictEqual(left(state), ["small", "middle", "twin"])
    assert.isTrue(state.mayRecover)
    assert.strictEqual(state.excluded[0]?.earliestAt, 5_000)
  })

  it("ends the call for a request that is invalid or against a policy, for nothing else", () => {
    const ending = Object.entries(failures).flatMap(([name, make]) =>
      endsTheCall(failingAt("small", make)) ? [name] : []
    )
    assert.deepStrictEqual(ending, ["invalid", "policy"])
  })

  it("changes nothing of any other platform, whatever failed before", () => {
    const names = FastCheck.constantFrom(...Object.keys(windows))
    const makers = FastCheck.constantFrom(failures.model, failures.credential, failures.quota, failures.platform)
    FastCheck.assert(
      FastCheck.property(FastCheck.array(FastCheck.tuple(names, makers), { maxLength: 12 }), (steps) => {
        let state = start
        for (const [name, make] of steps) {
          const next = afterwards(state, name, failingAt(name, make))
          const others = ({ contenders }: Failover) => contenders.filter(({ platform }) => platform !== name)
          assert.deepStrictEqual(others(next), others(state))
          assert.strictEqual(
            new Set([...left(next), ...next.excluded.map(({ platform }) => platform)]).size,
            Object.keys(windows).length
          )
          state = next
        }
      })
    )
  })

  it("backs off from 500 ms to 30 s, never by less than half", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.integer({ min: 1, max: 2_000 }),
        FastCheck.double({ min: 0, max: 0.999, noNaN: true }),
        (count, jitter) => {
          const full = Math.min(30_000, 500 * 2 ** (count - 1))
          const wait = backoffMs(count, jitter)
          assert.isTrue(wait >= Math.floor(full / 2) && wait <= full)
        }
      )
    )
  })

  it("waits at least as long as the platform asked for", () => {
    const asked = failures.platform({ retryAfterMs: 60_000 })(id("large"), "large-model")
    const state = afterwards(start, "large", asked)
    assert.deepStrictEqual(
      state.contenders.map(({ notBefore }) => notBefore),
      [undefined, undefined, undefined, 61_000]
    )
  })

  it("does not believe that a platform is sick for days: it asks again within an hour", () => {
    const asked = failures.platform({ retryAfterMs: 30 * 86_400_000 })(id("large"), "large-model")
    assert.strictEqual(afterwards(start, "large", asked).contenders.at(-1)?.notBefore, 3_601_000)
  })
})
