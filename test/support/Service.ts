import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { createServer } from "node:net"

/** Where the suite's global setup puts the bundled program: below the project, which brings what is not bundled. */
export const bin = `node_modules/.cache/dream-team-test/${process.env.TEST_RUN_ID}/main.js`

export const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  server.close()
  await once(server, "close")
  if (address === null || typeof address === "string") throw new Error("no port was given")
  return address.port
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** Asks until `check` answers something, at most `withinMs`. */
export const eventually = async <A>(
  what: string,
  withinMs: number,
  check: () => Promise<A | undefined>
): Promise<A> => {
  const until = performance.now() + withinMs
  for (;;) {
    const found = await check()
    if (found !== undefined) return found
    if (performance.now() > until) throw new Error(`not within ${withinMs} ms: ${what}`)
    await pause(25)
  }
}

export interface Service {
  readonly url: string
  readonly process: ChildProcess
  /** All it has written to stderr. */
  readonly log: () => string
  /** Ends it with `signal` and waits until it is gone; answers its exit code, or the signal that ended it. */
  readonly stop: (signal: NodeJS.Signals) => Promise<number | NodeJS.Signals | null>
}

/** A real `dream-team serve` on loopback; answers once it is ready. */
export const startService = async (
  port: number,
  environment: Readonly<Record<string, string>>,
  program: string = bin
): Promise<Service> => {
  const child = spawn(process.execPath, [program, "serve"], {
    env: { PATH: process.env.PATH, HOME: process.env.HOME, DREAM_TEAM_PORT: String(port), ...environment },
    stdio: ["ignore", "ignore", "pipe"]
  })
  let log = ""
  child.stderr?.on("data", (chunk: Buffer) => {
    log = (log + chunk.toString()).slice(-200_000)
  })
  const exited = once(child, "exit")
  const url = `http://127.0.0.1:${port}`
  const key = environment.DREAM_TEAM_API_KEYS?.split(",")[0]?.split(":").at(-1)
  const headers: Record<string, string> = key === undefined ? {} : { "x-api-key": key }
  try {
    await eventually(`${url} is ready`, 60_000, async () => {
      if (child.exitCode !== null || child.signalCode !== null) {
        throw new Error(`the service ended with ${child.exitCode ?? child.signalCode}:\n${log}`)
      }
      const response = await fetch(`${url}/health/ready`, { headers }).catch(() => undefined)
      await response?.arrayBuffer()
      return response?.ok === true ? true : undefined
    })
  } catch (error) {
    child.kill("SIGKILL")
    throw error
  }
  return {
    url,
    process: child,
    log: () => log,
    stop: async (signal) => {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill(signal)
        await exited
      }
      return child.exitCode ?? child.signalCode
    }
  }
}
