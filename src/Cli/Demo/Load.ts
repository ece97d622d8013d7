import { Effect, Random } from "effect"
import { PlatformId } from "../../Domain/Platform.js"
import type { Priority, TaskSubmission, TaskType } from "../../Domain/Task.js"
import { Settings, type SettingsShape } from "../../Settings.js"
import type { RunningSimulator, SimulatorOptions } from "../../Simulator.js"
import { Simulator } from "../../Simulator.js"

type Team = keyof typeof Simulator.defaults.platforms

const team: ReadonlyArray<Team> = ["codex", "gemini", "qwen", "synthetic"]

/** The platform that fails for a while, once a third of the tasks is done. */
export const patient: Team = "codex"

/** How long it fails, ms. */
export const faultMs = 4_000

/**
 * Requests each platform allows in any 5 s, and at once. Tight, so that the limits are what decides the pace;
 * short windows, so that a demonstration of half a minute sees them fill and empty several times.
 */
const allowed: Readonly<Record<Team, { readonly requests: number; readonly concurrent: number }>> = {
  codex: { requests: 25, concurrent: 6 },
  gemini: { requests: 30, concurrent: 6 },
  qwen: { requests: 20, concurrent: 5 },
  synthetic: { requests: 15, concurrent: 3 }
}

const windowMs = 5_000
const tokensPerMinute = 200_000

/** The four simulated platforms, each with the limits that the service is told. */
export const simulatorOptions = (seed: number): SimulatorOptions<Team> => {
  const platform = (id: Team) => ({
    ...Simulator.defaults.platforms[id],
    answerTokens: { median: 60, sigma: 0.4 },
    latency: { firstTokenMs: { median: 250, sigma: 0.4 }, tokenMs: { median: 4, sigma: 0.3 } },
    limits: {
      requests: [{ limit: allowed[id].requests, windowMs }],
      tokens: [{ limit: tokensPerMinute, windowMs: 60_000 }],
      tokensCounted: Settings.platformDefaults(id, { apiKey: "simulated" }).limits.tokensCounted,
      maxConcurrent: allowed[id].concurrent
    }
  })
  return {
    seed,
    platforms: {
      codex: platform("codex"),
      gemini: platform("gemini"),
      qwen: platform("qwen"),
      synthetic: platform("synthetic")
    }
  }
}

/** The service's settings for that simulator: any free port, a database of its own. */
export const settingsFor = (simulator: RunningSimulator<Team>, database: string): SettingsShape =>
  Settings.make({
    port: 0,
    database,
    platforms: team.map((id) =>
      Settings.platformDefaults(id, {
        apiKey: simulator.apiKeys[id],
        baseUrl: simulator.baseUrls[id],
        model: Simulator.defaults.platforms[id].models[0],
        limits: {
          requestsPerMinute: undefined,
          tokensPerMinute,
          windowRequests: allowed[id].requests,
          windowMs,
          maxConcurrent: allowed[id].concurrent
        },
        breaker: { failures: 3, openMs: 1_500 }
      })
    ),
    tasks: { maxAttempts: 10 },
    shutdownGraceMs: 1_000
  })

export const platformIds: ReadonlyArray<PlatformId> = team.map((id) => PlatformId.make(id))

const work: Readonly<Record<TaskType, ReadonlyArray<string>>> = {
  implementation: ["Write a debounce function in TypeScript", "Add retries to the upload client"],
  documentation: ["Describe the configuration file for new users", "Write the changelog of the last release"],
  testing: ["List the edge cases of a date parser", "Write property tests for the ledger"],
  architecture: ["Compare a queue in SQL with a message broker", "Sketch the modules of a billing service"],
  analysis: ["Find what slows this query down", "Summarise the incident of last night"],
  "question-answering": ["What does HTTP 409 mean?", "How does a circuit breaker recover?"]
}

const types = Object.keys(work).filter((type): type is TaskType => Object.hasOwn(work, type))

/** A fifth HIGH, half MEDIUM, the rest LOW, of every type: the same for the same seed. */
export const mixedLoad = (tasks: number): Effect.Effect<ReadonlyArray<TaskSubmission>> =>
  Effect.forEach(Array.from({ length: tasks }), (_, index) =>
    Effect.gen(function* () {
      const type = types[yield* Random.nextIntBetween(0, types.length)] ?? "question-answering"
      const prompts = work[type]
      const prompt = prompts[yield* Random.nextIntBetween(0, prompts.length)] ?? ""
      const share = yield* Random.next
      const priority: Priority = share < 0.2 ? "HIGH" : share < 0.7 ? "MEDIUM" : "LOW"
      return { type, priority, prompt: `${prompt} (${index + 1})`, maxOutputTokens: 256 }
    })
  )
