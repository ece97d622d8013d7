import * as FileSystem from "@effect/platform/FileSystem"
import * as NodeStream from "@effect/platform-node/NodeStream"
import { Console, Effect, Option, Schema, Stream } from "effect"
import type { Client } from "../Client.js"
import { BulkVerdict } from "../Coordinator/Api.js"
import { Task, type TaskId } from "../Domain/Task.js"
import { type ServiceOptions, withService } from "./Connection.js"
import { CommandFailed } from "./Exit.js"
import { counted, oneLine } from "./Output.js"
import { taskError } from "./TaskWords.js"

export interface BulkOptions extends ServiceOptions {
  /** `-`: standard input. */
  readonly file: string
  readonly idempotencyKey: Option.Option<string>
  readonly wait: boolean
}

/** Tasks waited for at a time. */
const waitedForAtOnce = 16

const encodeVerdict = Schema.encode(Schema.parseJson(BulkVerdict))
const encodeTask = Schema.encode(Schema.parseJson(Task))

/** The bytes of the file, once it is certain that it can be read. */
const contentOf = (file: string) =>
  Effect.gen(function* () {
    const cannotRead = new CommandFailed({ message: `The file ${file} cannot be read.` })
    if (file === "-") return NodeStream.stdin.pipe(Stream.mapError(() => cannotRead))
    const files = yield* FileSystem.FileSystem
    const info = yield* Effect.mapError(files.stat(file), () => cannotRead)
    if (info.type === "Directory") return yield* cannotRead
    yield* Effect.mapError(files.access(file, { readable: true }), () => cannotRead)
    return files.stream(file).pipe(Stream.mapError(() => cannotRead))
  })

const verdictLine = (verdict: BulkVerdict): string =>
  "id" in verdict
    ? `${verdict.line}  ${verdict.id}  ${verdict.state}${verdict.replayed === true ? ", submitted before" : ""}`
    : `${verdict.line}  refused: ${oneLine(verdict.error.message, 300)}`

const endLine = (line: number, task: Task): string =>
  `${line}  ${task.id}  ${task.error === undefined ? task.state : taskError(task.error)}`

/** Waits for every task; answers how many did not succeed. */
const waitForAll = (client: Client, accepted: ReadonlyMap<number, TaskId>, json: boolean) =>
  Stream.fromIterable(accepted).pipe(
    Stream.mapEffect(([line, id]) => Effect.map(client.waitFor(id), (task) => ({ line, task })), {
      concurrency: waitedForAtOnce
    }),
    Stream.tap(({ line, task }) =>
      json
        ? Effect.flatMap(Effect.orDie(encodeTask(task)), (text) => Console.log(text))
        : Console.log(endLine(line, task))
    ),
    Stream.filter(({ task }) => task.state !== "succeeded"),
    Stream.runCount
  )

/** Submits a task a line in one request, printing each line's verdict; fails where a line was refused. */
export const run = (options: BulkOptions) =>
  withService(options.url, (client) =>
    Effect.gen(function* () {
      const content = yield* contentOf(options.file)
      const accepted = new Map<number, TaskId>()
      let refused = 0
      yield* client.tasks.submitLines(content, { idempotencyKey: Option.getOrUndefined(options.idempotencyKey) }).pipe(
        Stream.runForEach((verdict) => {
          if (!("id" in verdict)) refused += 1
          else if (options.wait) accepted.set(verdict.line, verdict.id)
          return options.json
            ? Effect.flatMap(Effect.orDie(encodeVerdict(verdict)), (text) => Console.log(text))
            : Console.log(verdictLine(verdict))
        })
      )
      const unsuccessful = options.wait ? yield* waitForAll(client, accepted, options.json) : 0
      const problems = [
        ...(refused === 0 ? [] : [`${counted(refused, "line")} refused`]),
        ...(unsuccessful === 0 ? [] : [`${counted(unsuccessful, "task")} without success`])
      ]
      if (problems.length > 0) return yield* new CommandFailed({ message: `${problems.join(", ")}.` })
    })
  )
