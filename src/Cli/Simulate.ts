import { Console, Effect } from "effect"
import { Simulator } from "../Simulator.js"
import { CommandFailed } from "./Exit.js"
import { printJson } from "./Output.js"

export interface SimulateOptions {
  readonly port: number
  readonly seed: number
  readonly latencyScale: number
  readonly json: boolean
}

/** Starts the four simulated platforms, prints the settings that point a service at them, and runs until stopped. */
export const run = Effect.fn("Cli.simulate")(function* ({ json, latencyScale, port, seed }: SimulateOptions) {
  const { environment, url } = yield* Simulator.make({ ...Simulator.defaults, port, seed, latencyScale }).pipe(
    Effect.mapError(
      ({ message }) => new CommandFailed({ message: `${message}\nAnother port can be named with --port.` })
    )
  )
  if (json) {
    yield* printJson({ url, environment })
    return yield* Effect.never
  }
  yield* Console.error(
    `Four simulated platforms answer at ${url} until you stop this (Ctrl-C).\n` +
      "Set these in another terminal and start the service there with 'dream-team serve':\n"
  )
  for (const [name, value] of Object.entries(environment)) yield* Console.log(`export ${name}='${value}'`)
  yield* Console.error(
    `\nWhat they received: ${url}/__stats. Faults on command: POST ${url}/__faults, such as\n` +
      `  curl ${url}/__faults -H 'content-type: application/json' -d '{"platform":"codex","fault":"status","status":503,"count":5}'`
  )
  return yield* Effect.never
}, Effect.scoped)
