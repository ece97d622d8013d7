import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { NodeContext } from "@effect/platform-node"
import { Effect, Layer, type Scope } from "effect"
import { ClaudeCode } from "../../src/ClaudeCode.js"

/** The real programs, as npm installs them. */
export const claudeCommand = resolve("node_modules/.bin/claude")
export const ccrCommand = resolve("node_modules/.bin/ccr")

/** Whether they are installed: both are optional for those who work on other things. */
export const haveClaude = existsSync(claudeCommand)
export const haveCcr = existsSync(ccrCommand)

/** A home folder of its own, so that nothing of the machine's user is read or written. */
export interface ClaudeHome {
  readonly home: string
  /** Where Claude Code keeps settings, login and transcripts: the account. */
  readonly configDir: string
  /** A working folder. */
  readonly project: string
  /** What any process of this home needs; it reaches Anthropic at `baseUrl`. */
  readonly environment: (baseUrl: string) => Readonly<Record<string, string>>
}

/** The text of each transcript there is, by the session's id. */
export const transcriptsOf = ({ configDir }: ClaudeHome): Readonly<Record<string, string>> => {
  const projects = join(configDir, "projects")
  if (!existsSync(projects)) return {}
  const paths = readdirSync(projects, { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".jsonl"))
  return Object.fromEntries(
    paths.map((path) => [path.replace(/^.*\//, "").replace(/\.jsonl$/, ""), readFileSync(join(projects, path), "utf8")])
  )
}

/** Such a home, logged in with a made-up subscription, which Claude Code takes as it is. */
export const claudeHome: Effect.Effect<ClaudeHome, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => {
    const home = realpathSync(mkdtempSync(join(tmpdir(), "dream-team-claude-home-")))
    const configDir = join(home, ".claude")
    const project = join(home, "project")
    mkdirSync(configDir)
    mkdirSync(project)
    const login = {
      claudeAiOauth: {
        accessToken: "sk-ant-oat01-simulated",
        refreshToken: "sk-ant-ort01-simulated",
        expiresAt: 4_102_444_800_000,
        scopes: ["user:inference", "user:profile"],
        subscriptionType: "max",
        rateLimitTier: "default_claude_max_5x"
      }
    }
    writeFileSync(join(configDir, ".credentials.json"), JSON.stringify(login), { mode: 0o600 })
    return {
      home,
      configDir,
      project,
      environment: (baseUrl: string) => ({ HOME: home, ANTHROPIC_BASE_URL: baseUrl, ANTHROPIC_API_KEY: "" })
    }
  }),
  ({ home }) => Effect.sync(() => rmSync(home, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }))
)

/** The real Claude Code in that home. */
export const claudeCode = (home: ClaudeHome, baseUrl: string): Layer.Layer<ClaudeCode> =>
  ClaudeCode.layer({ command: claudeCommand, environment: home.environment(baseUrl) }).pipe(
    Layer.provide(NodeContext.layer)
  )
