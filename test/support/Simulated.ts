import { Effect, Exit, Scope } from "effect"
import { type RunningSimulator, Simulator, type SimulatorOptions } from "../../src/Simulator.js"

export interface Simulated {
  readonly simulator: RunningSimulator
  readonly close: () => Promise<void>
}

/** A simulator in the test's own process, for services in processes of their own. */
export const simulate = async (options: SimulatorOptions = Simulator.instant): Promise<Simulated> => {
  const scope = await Effect.runPromise(Scope.make())
  const simulator = await Effect.runPromise(Scope.extend(Simulator.make(options), scope))
  return { simulator, close: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}

/** The instant simulator, but each answer takes about `ms`. */
export const slowedDown = (ms: number): SimulatorOptions => ({
  ...Simulator.instant,
  platforms: Object.fromEntries(
    Object.entries(Simulator.instant.platforms).map(([id, platform]) => [
      id,
      { ...platform, latency: { ...platform.latency, firstTokenMs: { median: ms, sigma: 0.3 } } }
    ])
  )
})
