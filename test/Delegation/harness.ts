import { Effect, Layer } from "effect"
import { AgentRouter } from "../../src/AgentRouter.js"
import { Benchmark } from "../../src/Benchmark.js"
import { Budgets } from "../../src/Budgets.js"
import {
  type AttemptEnded,
  type AttemptStarted,
  Delegation,
  type DelegationRequest,
  type Journal
} from "../../src/Delegation.js"
import { TenantId } from "../../src/Domain/Task.js"
import { PlatformDetector } from "../../src/PlatformDetector.js"
import type { ResourceManager } from "../../src/ResourceManager.js"
import { Settings, type SettingsOptions } from "../../src/Settings.js"
import * as Testing from "../../src/Testing.js"

/** Everything real but the platforms and, where it is not the real one, the resource manager. */
export const delegating = <E, R>(
  scripts: ReadonlyArray<Testing.Script>,
  resources: Layer.Layer<ResourceManager, E, R>,
  options: Omit<SettingsOptions, "platforms"> = {}
) =>
  Delegation.layer.pipe(
    Layer.provide([AgentRouter.layer, Budgets.layer]),
    Layer.provideMerge(PlatformDetector.layer),
    Layer.provideMerge(Layer.mergeAll(Benchmark.layer, Testing.platforms(scripts), resources)),
    Layer.provide(Settings.layer(Testing.settings(scripts, options)))
  )

/** Weights 3, 2 and 1: the first is tried first. */
export const trio = (attempts: ReadonlyArray<Testing.Script["attempts"]>): ReadonlyArray<Testing.Script> =>
  ["first", "second", "third"].slice(0, attempts.length).map((id, index) => ({
    id,
    attempts: attempts[index],
    settings: { weight: 3 - index }
  }))

/** What a journal was told, its bookings left out; `at` is epoch ms. */
export interface Written {
  readonly started: Array<Omit<AttemptStarted, "booking"> & { readonly at: number }>
  readonly ended: Array<Omit<AttemptEnded, "correction">>
}

export const journal = (written: Written): Journal<never> => ({
  attemptStarted: ({ booking: _, ...attempt }) =>
    Effect.map(Effect.clock, (clock) => {
      written.started.push({ ...attempt, at: clock.unsafeCurrentTimeMillis() })
    }),
  attemptEnded: ({ correction: _, ...attempt }) =>
    Effect.sync(() => {
      written.ended.push(attempt)
    })
})

/** A question of no special kind, with ten minutes' time from the start of TestClock. */
export const request = <E = never>(
  journal: Journal<E>,
  over: Partial<DelegationRequest<E>> = {}
): DelegationRequest<E> => ({
  call: { messages: [{ role: "user", content: "Why?" }], maxOutputTokens: 100 },
  requirement: { capabilities: [], contextTokens: 200 },
  type: "analysis",
  priority: "MEDIUM",
  tenant: TenantId.make("local"),
  deadline: 600_000,
  id: "task",
  attemptsMade: 0,
  attemptsSpent: 0,
  maxWaitMs: 600_000,
  journal,
  ...over
})
