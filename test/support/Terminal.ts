import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { stripVTControlCharacters } from "node:util"
import type { RunOptions } from "./Command.js"
import { eventually, pause } from "./Service.js"

const script = "/usr/bin/script"

/** Whether there is what makes terminals: `script` of util-linux, which every Debian has. */
export const haveTerminal = existsSync(script)

/** Between what is typed and the key after it, or it is taken for pasted text, ms. */
const keyMs = 500

export interface Terminal {
  readonly shows: (what: RegExp, withinMs?: number) => Promise<void>
  readonly type: (text: string) => Promise<void>
  /** Ctrl-C, as its users end it, until it is gone. */
  readonly interrupt: () => Promise<void>
}

/** Starts a program that talks to people in a terminal of its own. The arguments go through a shell. */
export const startInTerminal = (
  command: string,
  args: ReadonlyArray<string>,
  { cwd, env }: Pick<RunOptions, "cwd" | "env">
): Terminal => {
  const line = `stty cols 160 rows 50; exec ${[command, ...args].join(" ")}`
  const child = spawn(script, ["-qfec", line, "/dev/null"], {
    cwd,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, TERM: "xterm-256color", ...env },
    stdio: ["pipe", "pipe", "ignore"]
  })
  let output = ""
  child.stdout.on("data", (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-1_000_000)
  })
  child.stdin.on("error", () => undefined)
  /** All that was ever shown, without the moves of the cursor. */
  const shown = () => stripVTControlCharacters(output)
  const until = (what: string, withinMs: number, holds: () => boolean) =>
    eventually(what, withinMs, async () => (holds() ? true : undefined)).then(
      () => undefined,
      (error: unknown) => {
        child.kill("SIGKILL")
        throw new Error(`${error}\n${shown().slice(-2_000)}`)
      }
    )
  const press = async (key: string) => {
    child.stdin.write(key)
    await pause(keyMs)
  }
  return {
    shows: (what, withinMs = 30_000) => until(`the terminal shows ${what}`, withinMs, () => what.test(shown())),
    type: async (text) => {
      await press(text)
      await press("\r")
    },
    interrupt: async () => {
      const isGone = () => child.exitCode !== null || child.signalCode !== null
      // The first may only end what it is doing, and the second comes too late where the machine is busy.
      for (let times = 0; times < 20 && !isGone(); times++) await press("\x03")
      await until("the program is gone", 20_000, isGone)
    }
  }
}
