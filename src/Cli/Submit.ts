import { Console, Effect, Option, Stream } from "effect"
import type { Client } from "../Client.js"
import { Task, type TaskId } from "../Domain/Task.js"
import * as Bulk from "./Bulk.js"
import { printAs, type ServiceOptions, withService } from "./Connection.js"
import { eventLine } from "./EventWords.js"
import { CommandFailed, Misuse } from "./Exit.js"
import { printable } from "./Output.js"
import { printPreview, type SubmissionOptions, submissionOf } from "./Submission.js"
import { taskError } from "./TaskWords.js"

export interface SubmitOptions extends SubmissionOptions, ServiceOptions {
  readonly idempotencyKey: Option.Option<string>
  /** Many tasks, one a line; `-`: standard input. */
  readonly file: Option.Option<string>
  readonly dryRun: boolean
  readonly wait: boolean
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

/** Whether nothing is said of one task alone. */
const isAlone = ({ dryRun, file: _, idempotencyKey: __, json: ___, url: ____, wait: _____, ...task }: SubmitOptions) =>
  !dryRun && Object.values(task).every(Option.isNone)

/** Submits a task; prints its id, or with `wait` its answer. Fails where the task it waited for does. */
export const run = (options: SubmitOptions) => {
  if (options.dryRun && (options.wait || Option.isSome(options.idempotencyKey))) {
    return new Misuse({
      message:
        "--dry-run submits nothing, so there is nothing to --wait for and nothing that takes an --idempotency-key.\n" +
        "See 'dream-team submit --help' for what it takes."
    })
  }
  if (Option.isSome(options.file)) {
    return isAlone(options)
      ? Bulk.run({ ...options, file: options.file.value })
      : new Misuse({
          message:
            "--file takes tasks from a file, each with all that is said of it, so there is no prompt and no other option " +
            "of a task beside it.\nSee 'dream-team submit --help' for what it takes."
        })
  }
  return withService(options.url, (client) =>
    Effect.gen(function* () {
      const payload = yield* submissionOf(options)
      if (options.dryRun) return yield* printPreview(yield* client.tasks.preview(payload), options.json)
      const submitted = yield* client.tasks.submit({
        payload,
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
      if (task.partial === true) {
        yield* Console.error(`This answer is not whole. 'dream-team tasks show ${task.id}' tells more.`)
      }
      if (task.state !== "succeeded") {
        const why = task.error === undefined ? `is ${task.state}` : taskError(task.error)
        return yield* new CommandFailed({
          message: `The task ${why}. 'dream-team tasks show ${task.id}' tells its attempts.`
        })
      }
    })
  )
}
