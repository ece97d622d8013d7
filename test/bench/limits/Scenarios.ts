import type { TokensCounted } from "../../../src/Domain/Platform.js"
import { type KnownPlatform, type PlatformLimits, type PlatformSettings, Settings } from "../../../src/Settings.js"
import { type LoadSpec, makeLoad, type SimulatedCall } from "./Load.js"

/** A load for a set of platforms, and what is expected to bind it. */
export interface Scenario {
  readonly name: string
  readonly platforms: ReadonlyArray<PlatformSettings>
  readonly calls: ReadonlyArray<SimulatedCall>
  /** Names of the limits that bind, such as `tokens/60s`; each platform is measured at the most used of its own. */
  readonly binding: ReadonlyArray<string>
  /**
   * What a use of 100 % is: the limit itself, or what the oracle makes of it, where no scheduler can know that a call
   * will need less than is reserved for it, or where a permit is kept for HIGH.
   */
  readonly against: "limit" | "oracle"
}

type Kind = Pick<LoadSpec, "medianMs" | "medianInput" | "medianOutput" | "maxOutput">

/** Agents at work: the permits bind. */
const longCalls: Kind = { medianMs: 20_000, medianInput: 2_500, medianOutput: 700, maxOutput: 8_192 }
/** Questions and classifications: the number of requests binds. */
const shortCalls: Kind = { medianMs: 1_200, medianInput: 600, medianOutput: 120, maxOutput: 1_024 }

const platform = (id: KnownPlatform, limits: Partial<PlatformLimits> = {}): PlatformSettings =>
  Settings.platformDefaults(id, { apiKey: "simulated", limits })

interface ScenarioSpec extends Omit<Scenario, "calls"> {
  readonly kind: Kind
  readonly calls: number
  /** How long the load is expected to take, ms. */
  readonly expectedMs: number
}

const minutes = (count: number): number => count * 60_000

/** Limits under which nothing but the tokens of a minute binds. */
const tokensOnly = (tokensCounted: TokensCounted): PlatformSettings =>
  platform("codex", { requestsPerMinute: 6_000, tokensPerMinute: 500_000, tokensCounted, maxConcurrent: 64 })

const specs: ReadonlyArray<ScenarioSpec> = [
  {
    name: "codex, as configured",
    platforms: [platform("codex")],
    kind: longCalls,
    calls: 1_500,
    expectedMs: minutes(150),
    binding: ["permits"],
    against: "oracle"
  },
  {
    name: "codex, short calls",
    platforms: [platform("codex")],
    kind: shortCalls,
    calls: 2_430,
    expectedMs: minutes(40),
    binding: ["requests/60s"],
    against: "limit"
  },
  {
    name: "codex, big calls (reserved)",
    platforms: [platform("codex")],
    kind: { medianMs: 2_000, medianInput: 1_500, medianOutput: 900, maxOutput: 10_000 },
    calls: 1_600,
    expectedMs: minutes(38),
    binding: ["tokens/60s"],
    against: "oracle"
  },
  {
    name: "gemini, big calls (input)",
    platforms: [platform("gemini")],
    kind: { medianMs: 1_500, medianInput: 22_000, medianOutput: 300, maxOutput: 4_096 },
    calls: 1_600,
    expectedMs: minutes(38),
    binding: ["tokens/60s"],
    against: "oracle"
  },
  {
    name: "qwen, big calls (actual)",
    platforms: [platform("qwen")],
    kind: { medianMs: 2_500, medianInput: 9_000, medianOutput: 1_500, maxOutput: 8_192 },
    calls: 1_600,
    expectedMs: minutes(40),
    binding: ["tokens/60s"],
    against: "oracle"
  },
  {
    name: "synthetic, light calls",
    platforms: [platform("synthetic")],
    kind: { medianMs: 26_000, medianInput: 1_000, medianOutput: 250, maxOutput: 1_024 },
    calls: 2_600,
    expectedMs: minutes(1_560),
    binding: ["requests/5h"],
    against: "limit"
  },
  {
    name: "synthetic, big calls",
    platforms: [platform("synthetic")],
    kind: { medianMs: 60_000, medianInput: 20_000, medianOutput: 2_000, maxOutput: 8_192 },
    calls: 2_000,
    expectedMs: minutes(33_000),
    binding: ["usd/168h"],
    against: "oracle"
  },
  ...(["reserved", "input", "actual"] as const).map(
    (counted): ScenarioSpec => ({
      name: `tokens only (${counted})`,
      platforms: [tokensOnly(counted)],
      kind: { medianMs: 500, medianInput: 3_000, medianOutput: 100, maxOutput: 1_000 },
      calls: 3_000,
      expectedMs: minutes(counted === "reserved" ? 27 : counted === "input" ? 21 : 22),
      binding: ["tokens/60s"],
      against: counted === "actual" ? "oracle" : "limit"
    })
  ),
  {
    name: "all four, as configured",
    platforms: [platform("codex"), platform("gemini"), platform("qwen"), platform("synthetic")],
    kind: longCalls,
    calls: 2_600,
    expectedMs: minutes(100),
    binding: ["permits"],
    against: "oracle"
  },
  {
    name: "three by the minute, short calls",
    platforms: [platform("codex"), platform("gemini"), platform("qwen")],
    kind: shortCalls,
    calls: 4_590,
    expectedMs: minutes(26),
    binding: ["requests/60s"],
    against: "limit"
  },
  {
    name: "three by the minute, big calls",
    platforms: [platform("codex"), platform("gemini"), platform("qwen")],
    kind: { medianMs: 3_000, medianInput: 10_000, medianOutput: 1_500, maxOutput: 8_192 },
    calls: 3_000,
    expectedMs: minutes(26),
    binding: ["requests/60s", "tokens/60s"],
    against: "oracle"
  }
]

export const makeScenarios = (seed: string): ReadonlyArray<Scenario> =>
  specs.map(({ calls, expectedMs, kind, ...scenario }) => ({
    ...scenario,
    calls: makeLoad(
      {
        ...kind,
        calls,
        platforms: scenario.platforms.map(({ id }) => id),
        arrivalsMs: Math.ceil(expectedMs * 0.9)
      },
      `${seed} ${scenario.name}`
    )
  }))
