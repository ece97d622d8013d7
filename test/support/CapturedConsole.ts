import { type Console, Effect } from "effect"

/** Runs `effect` with a console that keeps what is printed instead of printing it. */
export const captured = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const out: Array<string> = []
    const error: Array<string> = []
    const keep =
      (into: Array<string>) =>
      (...parts: ReadonlyArray<unknown>): void => {
        into.push(parts.map(String).join(" "))
      }
    const own = yield* Effect.console
    const console: Console.Console = {
      ...own,
      log: (...parts) => Effect.sync(() => keep(out)(...parts)),
      error: (...parts) => Effect.sync(() => keep(error)(...parts)),
      unsafe: { ...own.unsafe, log: keep(out), error: keep(error) }
    }
    const exit = yield* Effect.exit(Effect.withConsole(effect, console))
    return { exit, out: out.join("\n"), error: error.join("\n") }
  })
