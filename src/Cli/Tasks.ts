import { Clock, Console, Effect, Option, Schema, Stream } from "effect"
import { AttemptList, TaskList } from "../Coordinator/Api.js"
import { isFinal, TaskEvent } from "../Domain/Event.js"
import { type Priority, Task, type TaskState, type TaskType } from "../Domain/Task.js"
import { printAs, type ServiceOptions, withService } from "./Connection.js"
import { eventLine } from "./EventWords.js"
import { CommandFailed } from "./Exit.js"
import { platformId, taskId } from "./Ids.js"
import { taskTable, taskText } from "./TaskWords.js"

export interface OneTask extends ServiceOptions {
  readonly id: string
}

export interface ListOptions extends ServiceOptions {
  readonly state: Option.Option<TaskState>
  readonly type: Option.Option<TaskType>
  readonly priority: Option.Option<Priority>
  readonly platform: Option.Option<string>
  readonly limit: number
  readonly cursor: Option.Option<string>
}

const TaskWithAttempts = Schema.Struct({ task: Task, attempts: AttemptList.fields.attempts })

export const list = (options: ListOptions) =>
  withService(options.url, (client) =>
    Effect.gen(function* () {
      const platform = yield* Effect.transposeOption(Option.map(options.platform, platformId))
      const page = yield* client.tasks.list({
        urlParams: {
          state: Option.getOrUndefined(options.state),
          type: Option.getOrUndefined(options.type),
          priority: Option.getOrUndefined(options.priority),
          platform: Option.getOrUndefined(platform),
          limit: options.limit,
          cursor: Option.getOrUndefined(options.cursor)
        }
      })
      if (options.json) return yield* printAs(TaskList, page)
      if (page.tasks.length === 0) return yield* Console.log("No tasks.")
      yield* Console.log(taskTable(page.tasks, yield* Clock.currentTimeMillis))
      if (page.next !== undefined) yield* Console.log(`\nMore: --cursor ${page.next}`)
    })
  )

export const show = (options: OneTask) =>
  withService(options.url, (client) =>
    Effect.gen(function* () {
      const path = { id: yield* taskId(options.id) }
      const task = yield* client.tasks.get({ path })
      const { attempts } = yield* client.tasks.attempts({ path })
      yield* options.json
        ? printAs(TaskWithAttempts, { task, attempts })
        : Console.log(taskText(task, attempts, yield* Clock.currentTimeMillis))
    })
  )

/** Prints a task's events as they happen, until it ends; with `json`, one object a line. Fails where the task does. */
export const watch = (options: OneTask) =>
  withService(options.url, (client) =>
    Effect.gen(function* () {
      const id = yield* taskId(options.id)
      const encode = Schema.encode(Schema.parseJson(TaskEvent))
      const last = yield* client.events(id).pipe(
        Stream.tap((event) =>
          options.json
            ? Effect.flatMap(Effect.orDie(encode(event)), (line) => Console.log(line))
            : Console.log(eventLine(event))
        ),
        // What became of its webhook may follow its end.
        Stream.filter(isFinal),
        Stream.runLast
      )
      if (Option.isSome(last) && last.value.type !== "task.succeeded") {
        return yield* new CommandFailed({
          message: `The task did not succeed. 'dream-team tasks show ${id}' says why.`
        })
      }
    })
  )

export const cancel = (options: OneTask) =>
  withService(options.url, (client) =>
    Effect.gen(function* () {
      const task = yield* client.tasks.cancel({ path: { id: yield* taskId(options.id) } })
      yield* options.json ? printAs(Task, task) : Console.log(`${task.id} is ${task.state}.`)
    })
  )

export const retry = (options: OneTask) =>
  withService(options.url, (client) =>
    Effect.gen(function* () {
      const task = yield* client.tasks.retry({ path: { id: yield* taskId(options.id) } })
      yield* options.json ? printAs(Task, task) : Console.log(`${task.id} is ${task.state} again.`)
    })
  )
