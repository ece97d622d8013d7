import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodePath from "@effect/platform-node/NodePath"
import * as NodeTerminal from "@effect/platform-node/NodeTerminal"
import { Cause, Console, Effect, Fiber, Layer, Logger, LogLevel } from "effect"
import { type Reportable, run, stopsBySignal } from "../Cli.js"

const environment = Layer.mergeAll(
  NodeFileSystem.layer,
  NodePath.layer,
  NodeTerminal.layer,
  // Standard output belongs to the commands' results.
  Logger.replace(Logger.defaultLogger, Logger.withConsoleError(Logger.logfmtLogger)),
  Logger.minimumLogLevel(LogLevel.Warning)
)

const misuses: ReadonlySet<string> = new Set(["Misuse", "SettingsInvalid", "UnprotectedAddress"])

const report = (error: Reportable): Effect.Effect<number> =>
  Effect.as(Console.error(error.message), misuses.has(error._tag) ? 2 : 1)

/**
 * Runs the program in this process and exits: 0 done, 1 failed, 2 misuse, 130 or 143 stopped by a signal (0 for commands
 * that run until stopped). The first SIGINT or SIGTERM ends the command cleanly, the second one at once.
 */
export const execute = (args: ReadonlyArray<string>): void => {
  const fiber = run(args).pipe(
    Effect.as(0),
    Effect.catchAll(report),
    Effect.tapErrorCause((cause) =>
      Cause.isInterruptedOnly(cause)
        ? Effect.void
        : Console.error(`Internal error, please report it:\n${Cause.pretty(cause)}`)
    ),
    Effect.provide(environment),
    Effect.runFork
  )
  let stoppedBy: "SIGINT" | "SIGTERM" | undefined
  const onSignal = (signal: "SIGINT" | "SIGTERM"): void => {
    const code = signal === "SIGINT" ? 130 : 143
    if (stoppedBy !== undefined) process.exit(code)
    stoppedBy = signal
    Effect.runFork(Fiber.interruptFork(fiber))
  }
  process.on("SIGINT", onSignal)
  process.on("SIGTERM", onSignal)
  // A reader that has seen enough (`| head`) closes the pipe: that is no mistake.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1))
  fiber.addObserver((exit) => {
    const signalled = stopsBySignal(args) ? 0 : stoppedBy === "SIGINT" ? 130 : 143
    const code = exit._tag === "Success" ? exit.value : Cause.isInterruptedOnly(exit.cause) ? signalled : 1
    // What was written last may still be on its way.
    process.stdout.write("", () => process.stderr.write("", () => process.exit(code)))
  })
}
