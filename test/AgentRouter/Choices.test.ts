import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { AgentRouter, type Route } from "../../src/AgentRouter.js"
import { Benchmark } from "../../src/Benchmark.js"
import type { PlatformId } from "../../src/Domain/Platform.js"
import { type TaskType, TenantId } from "../../src/Domain/Task.js"
import * as Dispatcher from "../../src/ResourceManager/Dispatcher.js"
import * as Heap from "../../src/ResourceManager/Heap.js"
import { makeLocal } from "../../src/ResourceManager/PlatformBudget.js"
import { Settings } from "../../src/Settings.js"
import * as Testing from "../../src/Testing.js"

const scriptsOf = (suitability: Readonly<Record<string, number>>): ReadonlyArray<Testing.Script> =>
  Object.entries(suitability).map(([id, implementation]) => ({ id, settings: { suitability: { implementation } } }))

const routed = (scripts: ReadonlyArray<Testing.Script>, type: TaskType) =>
  Effect.flatMap(AgentRouter, ({ route }) => route({ capabilities: [], contextTokens: 100 }, type)).pipe(
    Effect.provide(
      AgentRouter.layer.pipe(
        Layer.provide([Benchmark.layer, Testing.platforms(scripts), Settings.layer(Testing.settings(scripts))])
      )
    )
  )

/** A dispatcher whose platforms take as many calls at once as told. */
const dispatcherOf = (permits: Readonly<Record<string, number>>, { candidates }: Route): Dispatcher.Dispatcher =>
  Dispatcher.make({
    platforms: candidates.map(({ platform }) => ({
      id: platform,
      budget: makeLocal({
        limits: { tokensCounted: "actual", maxConcurrent: permits[platform] ?? 1 },
        prices: {}
      }),
      breaker: { failures: 5, openMs: 60_000 }
    })),
    onTransition: () => {},
    onEvent: () => {},
    maxBytes: 1_000_000
  })

const requestOf = ({ candidates, patienceMs }: Route): Dispatcher.LeaseRequest => ({
  candidates,
  patienceMs,
  tokens: { input: 10, maxOutput: 10 },
  type: "implementation",
  // so that nothing is kept from it
  priority: "HIGH",
  tenant: TenantId.make("local"),
  maxWaitMs: Number.POSITIVE_INFINITY
})

const usage = { inputTokens: 1, cachedInputTokens: 0, outputTokens: 1, reasoningTokens: 0 }
const at = (ms: number) => ({ ms, epochMs: ms })

/** One call enters every 10 ms and takes `callMs`; where each went, in order. */
const simulate = (
  dispatcher: Dispatcher.Dispatcher,
  route: Route,
  calls: number,
  callMs: number
): ReadonlyArray<PlatformId> => {
  const choices: Array<PlatformId> = []
  const ends = Heap.make<{ readonly at: number; readonly held: Dispatcher.Held }>((a, b) => a.at < b.at)
  const request = requestOf(route)
  const settleUntil = (now: number): void => {
    for (let end = ends.peek(); end !== undefined && end.at <= now; end = ends.peek()) {
      ends.remove(end)
      dispatcher.settle(end.held, { _tag: "Succeeded", usage }, at(end.at), 0)
    }
  }
  for (let call = 0; call < calls; call++) {
    const now = call * 10
    settleUntil(now)
    const ticket = dispatcher.enter(request, at(now))
    const start = (answer: Dispatcher.Answer): void => {
      if (answer._tag === "Refused") throw answer.error
      choices.push(answer.held.platform)
      ends.add({ at: now + callMs, held: answer.held })
    }
    if (ticket.answer === undefined) ticket.onAnswer = start
    else start(ticket.answer)
  }
  return choices
}

/** The most that a platform got above its share in any run of calls, and how far its part of all is off. */
const judge = (choices: ReadonlyArray<PlatformId>, { candidates }: Route) => {
  const total = candidates.reduce((sum, { weight }) => sum + weight, 0)
  return candidates.map(({ platform, weight }) => {
    const share = weight / total
    let count = 0
    let least = 0
    let most = 0
    choices.forEach((choice, index) => {
      if (choice === platform) count += 1
      const ahead = count - share * (index + 1)
      most = Math.max(most, ahead - least)
      least = Math.min(least, ahead)
    })
    return { platform, off: Math.abs(count / choices.length / share - 1), most }
  })
}

const idle = [
  { calls: 100_000, suitability: { codex: 0.95, gemini: 0.7, qwen: 0.8, synthetic: 0.85 } },
  { calls: 10_000, suitability: { first: 1, second: 0.3, third: 0.17, fourth: 0.05, fifth: 0.02 } }
]

describe("choices by the router's weights", () => {
  for (const { calls, suitability } of idle) {
    it.effect(
      `${calls}, idle: within 1 % of ${Object.values(suitability).join(", ")}, none far ahead in any run of calls`,
      () =>
        Effect.gen(function* () {
          const route = yield* routed(scriptsOf(suitability), "implementation")
          const choices = simulate(dispatcherOf({}, route), route, calls, 5)
          assert.strictEqual(choices.length, calls)
          for (const { most, off } of judge(choices, route)) {
            assert.isBelow(off, 0.01)
            // so in any window of n calls it gets at most its share of n, rounded up, and one
            assert.isBelow(most, 2)
          }
        })
    )
  }

  it.effect("100,000 at 100 % load: the same, where each platform can take its share", () =>
    Effect.gen(function* () {
      const calls = 100_000
      const permits = { three: 6, two: 4, one: 2 }
      const route = yield* routed(scriptsOf({ three: 0.6, two: 0.4, one: 0.2 }), "implementation")
      // twelve at once, each of 120 ms, and one more every 10 ms: every permit is taken, nobody ever waits
      const choices = simulate(dispatcherOf(permits, route), route, calls, 120)
      assert.strictEqual(choices.length, calls)
      for (const { most, off } of judge(choices, route)) {
        assert.isBelow(off, 0.01)
        assert.isBelow(most, 2)
      }
    })
  )
})
