import * as FileSystem from "@effect/platform/FileSystem"
import { Effect } from "effect"
import { type ClaudeEndpoint, routed } from "../ClaudeCode.js"
import type { HandoffId, SessionId } from "../Domain/Session.js"
import { putFile } from "./putFile.js"

/** What a person starts to continue a session. */
export interface Launch {
  readonly id: HandoffId
  /** What starts Claude Code. */
  readonly command: string
  readonly cwd: string
  /** The folder of the account's configuration. */
  readonly account: string
  readonly endpoint: ClaudeEndpoint
  readonly model: string
  /** The smallest window of those who may answer, tokens. */
  readonly contextWindow: number | undefined
  /** The session that is gone on with, in a copy; none where a summary begins a new one. */
  readonly resume: SessionId | undefined
  readonly newSessionId: SessionId
  readonly permissionMode: string | undefined
  readonly allowedTools: ReadonlyArray<string>
  /** The first thing said; nothing where the person says it. */
  readonly prompt: string | undefined
}

/** One word of a POSIX shell, whatever it holds. */
const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

/** The script, without what is secret in it standing on any command line. */
const script = (launch: Launch, folder: string): string => {
  const { account, allowedTools, command, cwd, endpoint, model, newSessionId, permissionMode, prompt, resume } = launch
  const variables = Object.entries(routed(endpoint, model, launch.contextWindow))
  const words = [
    ...(resume === undefined ? [] : ["--resume", resume, "--fork-session"]),
    "--session-id",
    newSessionId,
    "--model",
    model,
    "--settings",
    `${folder}/settings.json`,
    ...(permissionMode === undefined ? [] : ["--permission-mode", permissionMode]),
    ...(allowedTools.length === 0 ? [] : ["--allowedTools", ...allowedTools])
  ]
  return [
    "#!/bin/sh",
    `# Continues a Claude Code session on other platforms. Holds a token: keep it to yourself.`,
    `cd ${quote(cwd)} || exit 1`,
    `[ ${quote(account)} = "$HOME/.claude" ] || export CLAUDE_CONFIG_DIR=${quote(account)}`,
    `unset ${[...variables.flatMap(([name, value]) => (value === "" ? name : [])), "CLAUDECODE"].join(" ")}`,
    ...variables.flatMap(([name, value]) => (value === "" ? [] : `export ${name}=${quote(value)}`)),
    "export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 DISABLE_COST_WARNINGS=1",
    // The prompt stands before the options, because some of these take as many words as follow.
    `exec ${quote(command)} ${prompt === undefined ? "" : `"$(cat ${quote(`${folder}/prompt.md`)})" `}${words.map(quote).join(" ")}`,
    ""
  ].join("\n")
}

/** A shell hands over no longer word, bytes. */
export const maxPromptBytes = 100_000

/** Writes the launcher and what it needs into the hand-off's own folder, for its owner's eyes alone; answers its path. */
export const writeLauncher = Effect.fn("CCRWatcher.writeLauncher")(function* (launch: Launch, folder: string) {
  const files = yield* FileSystem.FileSystem
  const settings = {
    autoContinueAtUsageLimit: false,
    // Over those of the user's settings, where another router may be set.
    env: routed(launch.endpoint, launch.model, launch.contextWindow)
  }
  yield* files.makeDirectory(folder, { recursive: true, mode: 0o700 })
  yield* putFile(`${folder}/settings.json`, `${JSON.stringify(settings, undefined, 2)}\n`)
  if (launch.prompt !== undefined) yield* putFile(`${folder}/prompt.md`, launch.prompt)
  const launcher = `${folder}/continue.sh`
  yield* putFile(launcher, script(launch, folder), 0o700)
  return launcher
})
