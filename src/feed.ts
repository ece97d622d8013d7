#!/usr/bin/env node
import { spawn } from "node:child_process"
import { attempted, endOf } from "./Feed/Attempt.js"
import { claudeFolder, defaultSessionsDatabase } from "./Feed/Paths.js"
import { type FeedContext, parsed, reportOfHook, reportOfStatusline, type SessionReport } from "./Feed/Report.js"
import { spool } from "./Feed/Spool.js"
import { statusLine } from "./Feed/Words.js"

/*
 * The program that Claude Code runs as its status line and as a hook. It must never be in Claude Code's way: whatever goes
 * wrong, it prints what the user's own status line prints, and exits with 0.
 */

/** What Claude Code gives on stdin is a few kilobytes. */
const maxInputBytes = 1024 * 1024
const maxChainedBytes = 256 * 1024
/** The user's own status line is ended after this long, ms. */
const chainedMs = 10_000
/** Where a refusal's window and reset stand: at the end of the transcript. */
const transcriptEndBytes = 256 * 1024

const [mode, ...options] = process.argv.slice(2)

const option = (name: string): string | undefined => {
  const place = options.indexOf(name)
  return place === -1 ? undefined : options[place + 1]
}

const input = (): Promise<Buffer> =>
  new Promise((resolve) => {
    const chunks: Array<Buffer> = []
    let length = 0
    const end = (): void => resolve(Buffer.concat(chunks))
    if (process.stdin.isTTY) return end()
    process.stdin
      .on("data", (chunk: Buffer) => {
        length += chunk.length
        if (length <= maxInputBytes) chunks.push(chunk)
      })
      .on("end", end)
      .on("error", end)
  })

/** What the user's own status line prints. */
const chained = (command: string, given: Buffer): Promise<Buffer> =>
  new Promise((resolve) => {
    const chunks: Array<Buffer> = []
    let length = 0
    const end = (): void => resolve(Buffer.concat(chunks))
    const child = spawn(command, {
      shell: true,
      stdio: ["pipe", "pipe", "inherit"],
      timeout: chainedMs,
      killSignal: "SIGKILL"
    })
    child.on("error", end).on("close", end)
    // What it started itself may go on, and keep its output open.
    setTimeout(end, chainedMs)
    child.stdout.on("error", end).on("data", (chunk: Buffer) => {
      length += chunk.length
      if (length <= maxChainedBytes) chunks.push(chunk)
    })
    // It may not read what it is given.
    child.stdin.on("error", () => undefined).end(given)
  })

const record = async (report: SessionReport): Promise<void> => {
  const database = option("--database") ?? process.env.DREAM_TEAM_SESSIONS_DB ?? defaultSessionsDatabase()
  try {
    const { store } = await import("./Feed/Store.js")
    store(database, report)
  } catch {
    attempted(() => spool(database, report))
  }
}

const context = (): FeedContext => ({
  at: Date.now(),
  account: claudeFolder(process.env.CLAUDE_CONFIG_DIR),
  // Newer releases say which process they are; without that it is not known, as there may be a shell in between.
  pid: processId(process.env.CLAUDE_PID)
})

const processId = (text = ""): number | undefined => (/^[1-9]\d{0,9}$/.test(text) ? Number(text) : undefined)

const print = (output: Uint8Array | string): Promise<void> =>
  new Promise((resolve) => {
    process.stdout.on("error", () => resolve())
    process.stdout.write(output, () => resolve())
  })

const statusline = async (): Promise<void> => {
  const given = await input()
  const command = option("--then")
  const theirs = command === undefined ? undefined : chained(command, given)
  let line = ""
  try {
    const report = reportOfStatusline(parsed(given.toString("utf8")), context())
    if (report !== undefined) {
      line = statusLine(report)
      await record(report)
    }
  } finally {
    const output = (await theirs) ?? Buffer.alloc(0)
    if (output.length > 0) await print(output)
    if (line !== "") await print(`${output.length > 0 && output.at(-1) !== 0x0a ? "\n" : ""}${line}\n`)
  }
}

const hook = async (): Promise<void> => {
  const given = parsed((await input()).toString("utf8"))
  const first = reportOfHook(given, context())
  const report =
    first?.transcriptPath === undefined || first.status === "started"
      ? first
      : reportOfHook(given, { ...context(), at: first.at }, endOf(first.transcriptPath, transcriptEndBytes))
  if (report !== undefined) await record(report)
}

const run = mode === "statusline" ? statusline : mode === "hook" ? hook : undefined
if (run === undefined) {
  console.error("Usage: dream-team-feed statusline [--then COMMAND] [--database PATH] | hook [--database PATH]")
  process.exitCode = 2
} else {
  process.on("uncaughtException", () => process.exit(0))
  try {
    await run()
  } catch {}
  // A status line that still runs is not waited for.
  process.exit(0)
}
