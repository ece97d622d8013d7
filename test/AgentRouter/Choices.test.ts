import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Random } from "effect"
import { AgentRouter, type Route } from "../../src/AgentRouter.js"
import { Benchmark } from "../../src/Benchmark.js"
import { rotationOf } from "../../src/Delegation/Decision.js"
import type { NoCapablePlatform } from "../../src/Domain/Failure.js"
import { PlatformId, type RoutingPolicy } from "../../src/Domain/Platform.js"
import { TaskType, TenantId } from "../../src/Domain/Task.js"
import * as Dispatcher from "../../src/ResourceManager/Dispatcher.js"
import * as Heap from "../../src/ResourceManager/Heap.js"
import { makeLocal } from "../../src/ResourceManager/PlatformBudget.js"
import { Settings } from "../../src/Settings.js"
import * as Testing from "../../src/Testing.js"

/** A kind of call: those of one kind take turns of their own. */
interface Kind {
  readonly type: TaskType
  readonly policy: RoutingPolicy
  readonly route: Route
}

const policies: ReadonlyArray<RoutingPolicy> = ["balanced", "fastest", "cheapest", "best"]
const allTypes: ReadonlyArray<TaskType> = TaskType.literals

/** What the router makes of calls of these types and policies. */
const kindsOf = (
  scripts: ReadonlyArray<Testing.Script>,
  mixed: { readonly types: ReadonlyArray<TaskType>; readonly policies: ReadonlyArray<RoutingPolicy> }
): Effect.Effect<ReadonlyArray<Kind>, NoCapablePlatform> =>
  Effect.flatMap(AgentRouter, ({ route }) =>
    Effect.forEach(
      mixed.types.flatMap((type) => mixed.policies.map((policy) => ({ type, policy }))),
      ({ policy, type }) =>
        Effect.map(route({ capabilities: [], contextTokens: 100, policy }, type), (route) => ({ type, policy, route }))
    )
  ).pipe(
    Effect.provide(
      AgentRouter.layer.pipe(
        Layer.provide([Benchmark.layer, Testing.platforms(scripts), Settings.layer(Testing.settings(scripts))])
      )
    )
  )

/** Platforms that suit every type of work as told. */
const scriptsOf = (suitability: Readonly<Record<string, number>>): ReadonlyArray<Testing.Script> =>
  Object.entries(suitability).map(([id, score]) => ({
    id,
    settings: { suitability: Object.fromEntries(allTypes.map((type) => [type, score])) }
  }))

const oneKind = { types: ["implementation"], policies: ["balanced"] } as const

/** A dispatcher whose platforms take as many calls at once as told. */
const dispatcherOf = (
  permits: Readonly<Record<string, number>>,
  scripts: ReadonlyArray<Testing.Script>
): Dispatcher.Dispatcher =>
  Dispatcher.make({
    platforms: scripts.map(({ id }) => ({
      id: PlatformId.make(id),
      budget: makeLocal({
        limits: { tokensCounted: "actual", maxConcurrent: permits[id] ?? 1 },
        prices: {}
      }),
      breaker: { failures: 5, openMs: 60_000 }
    })),
    onTransition: () => {},
    onEvent: () => {},
    onRoom: () => {},
    maxBytes: 1_000_000
  })

const requestOf = ({ policy, route: { candidates, patienceMs }, type }: Kind): Dispatcher.LeaseRequest => ({
  candidates,
  patienceMs,
  rotation: rotationOf(type, policy, undefined),
  tokens: { input: 10, maxOutput: 10 },
  type,
  // so that nothing is kept from it
  priority: "HIGH",
  tenant: TenantId.make("local"),
  maxWaitMs: Number.POSITIVE_INFINITY
})

const usage = { inputTokens: 1, cachedInputTokens: 0, outputTokens: 1, reasoningTokens: 0 }
const at = (ms: number) => ({ ms, epochMs: ms })

/** One call enters every 10 ms and takes `callMs`; of each kind, where its calls went, in order. */
const simulate = (
  dispatcher: Dispatcher.Dispatcher,
  kinds: ReadonlyArray<Kind>,
  calls: number,
  callMs: number,
  kindOf: (call: number) => number = () => 0
): ReadonlyArray<ReadonlyArray<PlatformId>> => {
  const choices = kinds.map((): Array<PlatformId> => [])
  const requests = kinds.map(requestOf)
  const ends = Heap.make<{ readonly at: number; readonly held: Dispatcher.Held }>((a, b) => a.at < b.at)
  const settleUntil = (now: number): void => {
    for (let end = ends.peek(); end !== undefined && end.at <= now; end = ends.peek()) {
      ends.remove(end)
      dispatcher.settle(end.held, { _tag: "Succeeded", usage }, at(end.at), 0)
    }
  }
  for (let call = 0; call < calls; call++) {
    const now = call * 10
    settleUntil(now)
    const kind = kindOf(call) % kinds.length
    const request = requests[kind]
    if (request === undefined) throw new Error("no such kind")
    const ticket = dispatcher.enter(request, at(now))
    const start = (answer: Dispatcher.Answer): void => {
      if (answer._tag === "Refused") throw answer.error
      choices[kind]?.push(answer.held.platform)
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

/** Within 1 % of the weights, and in any run of n calls of a kind no more than the share of n, rounded up, and one. */
const assertFair = (kinds: ReadonlyArray<Kind>, choices: ReadonlyArray<ReadonlyArray<PlatformId>>): void => {
  kinds.forEach(({ route }, kind) => {
    for (const { most, off } of judge(choices[kind] ?? [], route)) {
      assert.isBelow(off, 0.01)
      assert.isBelow(most, 2)
    }
  })
}

const count = (choices: ReadonlyArray<ReadonlyArray<PlatformId>>): number =>
  choices.reduce((sum, { length }) => sum + length, 0)

const idle = [
  { calls: 20_000, suitability: { codex: 0.95, gemini: 0.7, qwen: 0.8, synthetic: 0.85 } },
  { calls: 10_000, suitability: { first: 1, second: 0.3, third: 0.17, fourth: 0.05, fifth: 0.02 } }
]

describe("choices by the router's weights", () => {
  for (const { calls, suitability } of idle) {
    it.effect(
      `${calls}, idle: within 1 % of ${Object.values(suitability).join(", ")}, none far ahead in any run of calls`,
      () =>
        Effect.gen(function* () {
          const scripts = scriptsOf(suitability)
          const kinds = yield* kindsOf(scripts, oneKind)
          const choices = simulate(dispatcherOf({}, scripts), kinds, calls, 5)
          assert.strictEqual(count(choices), calls)
          assertFair(kinds, choices)
        })
    )
  }

  it.effect("100,000 of all types and policies mixed, idle: the same for each of them", () =>
    Effect.gen(function* () {
      const ids = ["codex", "gemini", "qwen", "synthetic"] as const
      const scripts = ids.map((id) => {
        const { suitability } = Settings.platformDefaults(id, { apiKey: "key" })
        return { id, settings: { suitability } }
      })
      const kinds = yield* kindsOf(scripts, { types: allTypes, policies })
      assert.strictEqual(kinds.length, 24)
      const random = Random.make("mixed")
      const order = yield* Effect.replicateEffect(random.nextIntBetween(0, kinds.length), 100_000)
      const choices = simulate(dispatcherOf({}, scripts), kinds, order.length, 5, (call) => order[call] ?? 0)
      assert.strictEqual(count(choices), 100_000)
      assert.isAbove(Math.min(...choices.map(({ length }) => length)), 3_500)
      assertFair(kinds, choices)
    })
  )

  it.effect("20,000 at 100 % load: the same, where each platform can take its share", () =>
    Effect.gen(function* () {
      const calls = 20_000
      const scripts = scriptsOf({ three: 0.6, two: 0.4, one: 0.2 })
      const kinds = yield* kindsOf(scripts, oneKind)
      // twelve at once, each of 120 ms, and one more every 10 ms: every permit is taken, nobody ever waits
      const choices = simulate(dispatcherOf({ three: 6, two: 4, one: 2 }, scripts), kinds, calls, 120)
      assert.strictEqual(count(choices), calls)
      assertFair(kinds, choices)
    })
  )

  it.effect("100,000 of all types and three policies in turn, at 100 % load: the same for each of them", () =>
    Effect.gen(function* () {
      const calls = 100_000
      const scripts = scriptsOf({ six: 0.6, four: 0.4, three: 0.3 })
      const kinds = yield* kindsOf(scripts, { types: allTypes, policies: ["balanced", "fastest", "cheapest"] })
      // thirteen at once, and eighteen kinds: each comes upon each of the permits in turn
      const dispatcher = dispatcherOf({ six: 6, four: 4, three: 3 }, scripts)
      const choices = simulate(dispatcher, kinds, calls, 130, (call) => call)
      assert.strictEqual(count(choices), calls)
      assertFair(kinds, choices)
    })
  )
})
