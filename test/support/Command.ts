import { type ChildProcess, spawn } from "node:child_process"
import { dirname, join, resolve } from "node:path"
import { bin } from "./Service.js"

export interface Ran {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  /** Beside these, only what any process needs. */
  readonly env?: Readonly<Record<string, string>> | undefined
  readonly stdin?: string | undefined
  readonly cwd?: string | undefined
}

export interface Running {
  readonly process: ChildProcess
  readonly ended: Promise<Ran>
}

/** Starts any program in a process of its own. */
export const startProgram = (
  command: string,
  args: ReadonlyArray<string>,
  { cwd, env, stdin }: RunOptions
): Running => {
  const child = spawn(command, args, {
    cwd,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env },
    stdio: ["pipe", "pipe", "pipe"]
  })
  let stdout = ""
  let stderr = ""
  child.stdout.on("data", (chunk: Buffer) => {
    stdout += chunk.toString()
  })
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += chunk.toString()
  })
  // A program may end without having read its input.
  child.stdin.on("error", () => undefined)
  child.stdin.end(stdin ?? "")
  const ended = new Promise<Ran>((done, failed) => {
    child.on("error", failed)
    child.on("close", (code) => done({ code, stdout, stderr }))
  })
  return { process: child, ended }
}

const start = (args: ReadonlyArray<string>, options: RunOptions): Running =>
  startProgram(process.execPath, args, options)

/** Runs Node with these arguments in a process of its own, until it ends. */
export const node = (args: ReadonlyArray<string>): Promise<Ran> => start(args, {}).ended

/** Starts `dream-team` in a process of its own. */
export const startDreamTeam = (args: ReadonlyArray<string>, options: RunOptions = {}): Running =>
  start([resolve(bin), ...args], options)

/** Runs `dream-team` until it ends. */
export const dreamTeam = (args: ReadonlyArray<string>, options: RunOptions = {}): Promise<Ran> =>
  startDreamTeam(args, options).ended

/** The feed's program, beside `dream-team`. */
export const feedProgram = join(dirname(resolve(bin)), "dream-team-feed.js")

/** Runs `dream-team-feed` until it ends, as Claude Code does. */
export const feed = (args: ReadonlyArray<string>, options: RunOptions = {}): Promise<Ran> =>
  start([feedProgram, ...args], options).ended
