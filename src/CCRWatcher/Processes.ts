import * as Command from "@effect/platform/Command"
import * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import { Context, Effect, Layer, Predicate } from "effect"

/** What the system answers for a process of another user: so there is one. */
const isNotPermitted = (error: unknown): boolean => Predicate.hasProperty(error, "code") && error.code === "EPERM"

/** Whether there is a process of that id, whoever it belongs to. */
const signalled = (pid: number): Effect.Effect<boolean> =>
  Effect.try(() => process.kill(pid, 0)).pipe(Effect.catchAll(({ error }) => Effect.succeed(isNotPermitted(error))))

/** The processes of this machine, as far as they must not be disturbed. */
export class Processes extends Context.Tag("dream-team/Processes")<
  Processes,
  {
    readonly isAlive: (pid: number) => Effect.Effect<boolean>
    /** A process, not this one, with that text in its command line. */
    readonly withArgument: (text: string) => Effect.Effect<number | undefined>
  }
>() {
  static readonly layer: Layer.Layer<Processes, never, FileSystem.FileSystem | CommandExecutor.CommandExecutor> =
    Layer.effect(
      Processes,
      Effect.gen(function* () {
        const files = yield* FileSystem.FileSystem
        const executor = yield* CommandExecutor.CommandExecutor

        const isOther = (pid: number): boolean => Number.isInteger(pid) && pid > 0 && pid !== process.pid

        /** Linux tells it in files; a container may have no `ps`. */
        const fromFiles = (text: string) =>
          Effect.gen(function* () {
            const ids = (yield* files.readDirectory("/proc")).map(Number).filter(isOther)
            return yield* Effect.findFirst(ids, (id) =>
              files.readFileString(`/proc/${id}/cmdline`).pipe(
                Effect.map((line) => line.includes(text)),
                Effect.orElseSucceed(() => false)
              )
            )
          })
        const fromTable = (text: string) =>
          executor.lines(Command.make("ps", "-Ao", "pid=,args=")).pipe(
            Effect.timeout("5 seconds"),
            Effect.map((lines) => lines.filter((line) => line.includes(text)).map((line) => Number.parseInt(line, 10))),
            Effect.map((ids) => ids.find(isOther)),
            Effect.orElseSucceed(() => undefined)
          )

        return {
          isAlive: (pid) => (pid > 0 ? signalled(pid) : Effect.succeed(false)),
          withArgument: (text) =>
            Effect.matchEffect(fromFiles(text), {
              onFailure: () => fromTable(text),
              onSuccess: (found) => Effect.succeed(found._tag === "Some" ? found.value : undefined)
            })
        }
      })
    )
}
