import * as NodeStream from "@effect/platform-node/NodeStream"
import { Console, Effect, Option, Stream } from "effect"
import type { Client } from "../Client.js"
import { type Priority, Task, type TaskId, type TaskType } from "../Domain/Task.js"
import { printAs, withService } from "./Connection.js"
import { CommandFailed, Misuse } from "./Exit.js"
import { printable } from "./Output.js"
import { platformId } from "./Tasks.js"
import { eventLine, taskError } from "./Words.js"

export interface SubmitOptions {
  /** `-` or absent: read from standard input. */
  readonly prompt: Option.Option<string>
  readonly type: Option.Option<TaskType>
  readonly priority: Option.Option<Priority>
  readonly platform: Option.Option<string>
  readonly model: Option.Option<string>
  readonly system: Option.Option<string>
  /** Seconds from now, or an ISO 8601 instant. */
  readonly deadline: Option.Option<string | number>
  readonly maxOutputTokens: Option.Option<number>
  readonly idempotencyKey: Option.Option<string>
  readonly wait: boolean
  readonly url: Option.Option<string>
  readonly json: boolean
}

const standardInput = NodeStream.stdin.pipe(
  Stream.decodeText(),
  Stream.mkString,
  Effect.mapError(() => new CommandFailed({ message: "Standard input cannot be read." }))
)

const promptOf = (given: Option.Option<string>): Effect.Effect<string, Misuse | CommandFailed> => {
  if (Option.isSome(given) && given.value !== "-") return Effect.succeed(given.value)
  return Option.isNone(given) && process.stdin.isTTY
    ? new Misuse({ message: "Nothing to submit: give a prompt in quotes, or '-' to read it from standard input." })
    : Effect.map(standardInput, (text) => text.trimEnd())
}

/** Waits for the task; on a terminal its events are told on the way. */
const finished = (client: Client, id: TaskId) =>
  (process.stderr.isTTY
    ? Stream.runForEach(client.events(id), (event) => Console.error(eventLine(event)))
    : Effect.void
  ).pipe(
    Effect.zipRight(client.waitFor(id)),
    Effect.onInterrupt(() =>
      Console.error(`The task goes on without this command: 'dream-team tasks watch ${id}' follows it.`)
    )
  )

/** Submits a task; prints its id, or with `wait` its answer. Fails where the task it waited for does. */
export const run = (options: SubmitOptions) =>
  withService(options.url, (client) =>
    Effect.gen(function* () {
      const prompt = yield* promptOf(options.prompt)
      const platform = yield* Effect.transposeOption(Option.map(options.platform, platformId))
      const submitted = yield* client.tasks.submit({
        payload: {
          prompt,
          type: Option.getOrUndefined(options.type),
          priority: Option.getOrUndefined(options.priority),
          platform: Option.getOrUndefined(platform),
          model: Option.getOrUndefined(options.model),
          system: Option.getOrUndefined(options.system),
          maxOutputTokens: Option.getOrUndefined(options.maxOutputTokens),
          deadline: Option.getOrUndefined(options.deadline)
        },
        headers: { "idempotency-key": Option.getOrUndefined(options.idempotencyKey) }
      })
      if (!options.wait) {
        return yield* options.json ? printAs(Task, submitted) : Console.log(submitted.id)
      }
      const task = yield* finished(client, submitted.id)
      if (options.json) yield* printAs(Task, task)
      else if (task.result !== undefined) {
        yield* Console.log(process.stdout.isTTY ? printable(task.result.text) : task.result.text)
      }
      if (task.state !== "succeeded") {
        const why = task.error === undefined ? `is ${task.state}` : taskError(task.error)
        return yield* new CommandFailed({
          message: `The task ${why}. 'dream-team tasks show ${task.id}' tells its attempts.`
        })
      }
    })
  )
