import * as NodeStream from "@effect/platform-node/NodeStream"
import { Clock, Console, Effect, Option, Stream } from "effect"
import type { RoutingPolicy } from "../Domain/Platform.js"
import { type Priority, TaskPreview, type TaskSubmission, type TaskType } from "../Domain/Task.js"
import { printAs } from "./Connection.js"
import { CommandFailed, Misuse } from "./Exit.js"
import { platformId } from "./Ids.js"
import { previewText } from "./TaskWords.js"

/** What a person says of a task on the command line. */
export interface SubmissionOptions {
  /** `-` or absent: read from standard input. */
  readonly prompt: Option.Option<string>
  readonly type: Option.Option<TaskType>
  readonly priority: Option.Option<Priority>
  readonly platform: Option.Option<string>
  readonly model: Option.Option<string>
  readonly policy: Option.Option<RoutingPolicy>
  readonly affinityKey: Option.Option<string>
  readonly maxCostUsd: Option.Option<number>
  readonly maxTokens: Option.Option<number>
  readonly system: Option.Option<string>
  /** Seconds from now, or an ISO 8601 instant. */
  readonly deadline: Option.Option<string | number>
  readonly maxOutputTokens: Option.Option<number>
  readonly callbackUrl: Option.Option<string>
}

/** All of standard input, as text. */
export const standardInput = NodeStream.stdin.pipe(
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

export const submissionOf = (options: SubmissionOptions): Effect.Effect<TaskSubmission, Misuse | CommandFailed> =>
  Effect.gen(function* () {
    const platform = yield* Effect.transposeOption(Option.map(options.platform, platformId))
    return {
      prompt: yield* promptOf(options.prompt),
      type: Option.getOrUndefined(options.type),
      priority: Option.getOrUndefined(options.priority),
      platform: Option.getOrUndefined(platform),
      model: Option.getOrUndefined(options.model),
      policy: Option.getOrUndefined(options.policy),
      affinityKey: Option.getOrUndefined(options.affinityKey),
      maxCostUsd: Option.getOrUndefined(options.maxCostUsd),
      maxTokens: Option.getOrUndefined(options.maxTokens),
      system: Option.getOrUndefined(options.system),
      maxOutputTokens: Option.getOrUndefined(options.maxOutputTokens),
      deadline: Option.getOrUndefined(options.deadline),
      callbackUrl: Option.getOrUndefined(options.callbackUrl)
    }
  })

/** Prints what would become of a task. */
export const printPreview = (preview: TaskPreview, json: boolean): Effect.Effect<void> =>
  json
    ? printAs(TaskPreview, preview)
    : Effect.flatMap(Clock.currentTimeMillis, (now) => Console.log(previewText(preview, now)))
