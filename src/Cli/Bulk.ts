import * as FileSystem from "@effect/platform/FileSystem"
import * as NodeStream from "@effect/platform-node/NodeStream"
import { Console, Effect, Option, Schema, Sink, Stream } from "effect"
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

/** The first bytes of what common programs compress: gzip, zip, zstd, bzip2, xz. */
const compressed: ReadonlyArray<ReadonlyArray<number>> = [
  [0x1f, 0x8b],
  [0x50, 0x4b, 0x03, 0x04],
  [0x28, 0xb5, 0x2f, 0xfd],
  [0x42, 0x5a, 0x68],
  [0xfd, 0x37, 0x7a, 0x58, 0x5a]
]

const isCompressed = (bytes: Uint8Array): boolean =>
  compressed.some((magic) => magic.every((byte, index) => bytes[index] === byte))

/** What a file is called in a sentence. */
const nameOf = (file: string): string => (file === "-" ? "Standard input" : `The file ${file}`)

/** The bytes of the file, once it is certain that it can be opened. */
const bytesOf = (file: string) =>
  Effect.gen(function* () {
    const cannotRead = new CommandFailed({ message: `${nameOf(file)} cannot be read.` })
    if (file === "-") return NodeStream.stdin.pipe(Stream.mapError(() => cannotRead))
    const files = yield* FileSystem.FileSystem
    const info = yield* Effect.mapError(files.stat(file), () => cannotRead)
    if (info.type === "Directory") return yield* cannotRead
    yield* Effect.mapError(files.access(file, { readable: true }), () => cannotRead)
    return files.stream(file).pipe(Stream.mapError(() => cannotRead))
  })

/** The same once their beginning was read: what is compressed is refused before anything is sent. */
const contentOf = (file: string) =>
  Effect.gen(function* () {
    const [start, rest] = yield* Stream.peel(yield* bytesOf(file), Sink.head<Uint8Array>())
    if (Option.exists(start, isCompressed)) {
      return yield* new CommandFailed({
        message: `${nameOf(file)} is compressed: tasks are read as text, a line each.`
      })
    }
    return Stream.concat(Stream.fromIterable(Option.toArray(start)), rest)
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

/** Submits a task a line in one request, printing each line's verdict; fails where a line was refused, or there was none. */
export const run = (options: BulkOptions) =>
  withService(options.url, (client) =>
    Effect.gen(function* () {
      const content = yield* contentOf(options.file)
      const accepted = new Map<number, TaskId>()
      let told = 0
      let refused = 0
      yield* client.tasks.submitLines(content, { idempotencyKey: Option.getOrUndefined(options.idempotencyKey) }).pipe(
        Stream.runForEach((verdict) => {
          told += 1
          if (!("id" in verdict)) refused += 1
          else if (options.wait) accepted.set(verdict.line, verdict.id)
          return options.json
            ? Effect.flatMap(Effect.orDie(encodeVerdict(verdict)), (text) => Console.log(text))
            : Console.log(verdictLine(verdict))
        })
      )
      if (told === 0) {
        return yield* new CommandFailed({ message: `${nameOf(options.file)} holds no task: nothing was submitted.` })
      }
      const unsuccessful = options.wait ? yield* waitForAll(client, accepted, options.json) : 0
      const problems = [
        ...(refused === 0 ? [] : [`${counted(refused, "line")} refused`]),
        ...(unsuccessful === 0 ? [] : [`${counted(unsuccessful, "task")} without success`])
      ]
      if (problems.length > 0) return yield* new CommandFailed({ message: `${problems.join(", ")}.` })
    }).pipe(Effect.scoped)
  )
