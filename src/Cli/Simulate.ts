import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { Console, Effect, Option } from "effect"
import { ensureFolder } from "../Feed/Paths.js"
import { type SimulatedPlatform, Simulator } from "../Simulator.js"
import { CommandFailed } from "./Exit.js"
import { printJson } from "./Output.js"

export interface SimulateOptions {
  readonly port: number
  readonly seed: number
  readonly latencyScale: number
  /** A configuration folder for a Claude Code whose subscription is simulated too. */
  readonly claude: Option.Option<string>
  readonly json: boolean
}

/** Known to nobody but the simulator, and good for nothing elsewhere. */
const accessToken = "sk-ant-oat01-simulated"

const login = JSON.stringify({
  claudeAiOauth: {
    accessToken,
    refreshToken: "sk-ant-ort01-simulated",
    // 2100-01-01
    expiresAt: 4_102_444_800_000,
    scopes: ["user:inference", "user:profile"],
    subscriptionType: "max",
    rateLimitTier: "default_claude_max_5x"
  }
})

/** Puts a made-up login into a folder for Claude Code; never over a real one. */
const logIn = (folder: string): Effect.Effect<void, CommandFailed> =>
  Effect.try({
    try: () => {
      const file = join(folder, ".credentials.json")
      if (existsSync(file) && !readFileSync(file, "utf8").includes(accessToken)) {
        throw new Error("somebody is logged in there; name a folder of its own")
      }
      ensureFolder(folder)
      writeFileSync(file, login, { mode: 0o600 })
      const state = join(folder, ".claude.json")
      if (!existsSync(state)) writeFileSync(state, JSON.stringify({ hasCompletedOnboarding: true }), { mode: 0o600 })
    },
    catch: (error) =>
      new CommandFailed({
        message: `${folder} cannot be used for a simulated login: ${error instanceof Error ? error.message : String(error)}`
      })
  })

/**
 * Starts the four simulated platforms, and a simulated subscription of Claude where it is wanted, prints the settings that
 * point a service at them, and runs until stopped.
 */
export const run = Effect.fn("Cli.simulate")(function* (given: SimulateOptions) {
  const { json, latencyScale, port, seed } = given
  const folder = Option.map(given.claude, (path) => resolve(path))
  if (Option.isSome(folder)) yield* logIn(folder.value)
  const platforms: Readonly<Record<string, SimulatedPlatform>> = {
    ...Simulator.defaults.platforms,
    ...(Option.isSome(folder) ? { anthropic: Simulator.anthropic } : {})
  }
  const { environment, url } = yield* Simulator.make({
    ...Simulator.defaults,
    platforms,
    port,
    seed,
    latencyScale
  }).pipe(
    Effect.mapError(
      ({ message }) => new CommandFailed({ message: `${message}\nAnother port can be named with --port.` })
    )
  )
  const claude: Readonly<Record<string, string>> = Option.match(folder, {
    onNone: () => ({}),
    onSome: (path) => ({ CLAUDE_CONFIG_DIR: path, ANTHROPIC_BASE_URL: `${url}/anthropic`, ANTHROPIC_API_KEY: "" })
  })
  const variables = { ...environment, ...claude }
  if (json) {
    yield* printJson({ url, environment: variables })
    return yield* Effect.never
  }
  yield* Console.error(
    `Four simulated platforms${Option.isSome(folder) ? ", and a Claude subscription," : ""} answer at ${url} until you stop this (Ctrl-C).\n` +
      "Set these in another terminal and start the service there with 'dream-team serve':\n"
  )
  for (const [name, value] of Object.entries(variables)) yield* Console.log(`export ${name}='${value}'`)
  yield* Console.error(
    `\nWhat they received: ${url}/__stats. Faults on command: POST ${url}/__faults, such as\n` +
      `  curl ${url}/__faults -H 'content-type: application/json' -d '{"platform":"codex","fault":"status","status":503,"count":5}'`
  )
  if (Option.isSome(folder)) {
    yield* Console.error(
      "\nWith the same settings 'claude' has that subscription. To take it to its limit (1 is all of it):\n" +
        `  curl ${url}/__subscription -H 'content-type: application/json' -d '{"platform":"anthropic","five_hour":{"utilization":1}}'`
    )
  }
  return yield* Effect.never
}, Effect.scoped)
