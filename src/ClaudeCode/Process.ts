import * as Command from "@effect/platform/Command"
import type { CommandExecutor, Process } from "@effect/platform/CommandExecutor"
import type { PlatformError } from "@effect/platform/Error"
import { Effect, type Scope, Stream } from "effect"

/** How long a process that was told to end has for it, ms. */
export const endingMs = 5_000

/** Ends the process and its group, by force where it does not listen. */
const endProcess = (process: Process): Effect.Effect<void> => {
  const byForce = { duration: endingMs, onSuccess: () => Effect.void, onTimeout: () => process.kill("SIGKILL") }
  const ended = process.kill("SIGTERM").pipe(Effect.interruptible, Effect.timeoutTo(byForce), Effect.flatten)
  return Effect.whenEffect(
    Effect.ignore(ended),
    Effect.orElseSucceed(process.isRunning, () => false)
  )
}

/** Starts a program that ends with the scope, and all it started with it. */
export const startProcess = (
  command: Command.Command
): Effect.Effect<Process, PlatformError, CommandExecutor | Scope.Scope> =>
  Effect.tap(Command.start(command), (process) => Effect.addFinalizer(() => endProcess(process)))

/** The end of what a program writes, read as it comes so that it never waits for its reader. */
export interface Tail {
  /** What was kept so far. */
  readonly text: () => string
  /** Done when there is no more to read. */
  readonly done: Effect.Effect<void>
}

/** Reads a stream of UTF-8 in the background and keeps its last `characters`. */
export const tailOf = (
  bytes: Stream.Stream<Uint8Array, PlatformError>,
  characters: number
): Effect.Effect<Tail, never, Scope.Scope> =>
  Effect.suspend(() => {
    let kept = ""
    return bytes.pipe(
      Stream.decodeText(),
      Stream.runForEach((text) =>
        Effect.sync(() => {
          kept = (kept + text).slice(-characters)
        })
      ),
      Effect.ignore,
      Effect.forkScoped,
      Effect.map((fiber) => ({ text: () => kept, done: Effect.asVoid(fiber.await) }))
    )
  })
