import { Args, HelpDoc, Options, ValidationError } from "@effect/cli"
import { Either, Option, Schema } from "effect"
import { RoutingPolicy } from "../Domain/Platform.js"
import { Priority, TaskType } from "../Domain/Task.js"
import { InstantText } from "../Domain/Time.js"
import { didYouMean } from "./Help.js"

/* Options and arguments of the commands. Values are checked here, so that a mistake is told with the option's name. */

export const checked = <A>(name: string, check: (text: string) => Either.Either<A, string>): Options.Options<A> =>
  Options.text(name).pipe(
    Options.withPseudoName(name.replaceAll("-", "_").toUpperCase()),
    Options.mapEffect((text) =>
      Either.mapLeft(check(text), (problem) => ValidationError.invalidValue(HelpDoc.p(`--${name} ${problem}`)))
    )
  )

const maybe = <A>(option: Options.Options<A>): Options.Options<A | undefined> =>
  Options.map(Options.optional(option), Option.getOrUndefined)

export const oneOf = <const A extends string>(name: string, values: ReadonlyArray<A>, description: string) =>
  checked(name, (text) => {
    const value = values.find((candidate) => candidate.toLowerCase() === text.toLowerCase())
    return value === undefined
      ? Either.left(`must be one of ${values.join(", ")}, not '${text}'.${didYouMean(text, values)}`)
      : Either.right(value)
  }).pipe(Options.withDescription(`${description} One of ${values.join(", ")}.`))

export const wholeNumber = (name: string, from: number, to: number, description: string): Options.Options<number> =>
  checked(name, (text) => {
    const value = Number(text)
    return /^\d+$/.test(text) && value >= from && value <= to
      ? Either.right(value)
      : Either.left(`must be a whole number from ${from} to ${to}, not '${text}'.`)
  }).pipe(Options.withDescription(description))

export const text = (name: string, description: string): Options.Options<string> =>
  checked(name, (value) => (value === "" ? Either.left("must not be empty.") : Either.right(value))).pipe(
    Options.withDescription(description)
  )

export const json = Options.boolean("json").pipe(
  Options.withDescription("Print JSON for programs instead of text for people.")
)

export const url = Options.optional(
  text(
    "url",
    "Where the service answers; by default the host and port of the settings (http://127.0.0.1:7337). It is asked with the API key DREAM_TEAM_API_KEY, or else the first of DREAM_TEAM_API_KEYS."
  )
)

export const limit = wholeNumber("limit", 1, 200, "How many at most, up to 200. Default 50.").pipe(
  Options.withDefault(50)
)
export const cursor = Options.optional(text("cursor", "Go on where the list before ended, as it said."))

export const sessionArgument = Args.text({ name: "ID" }).pipe(
  Args.withDescription("The session's id, as 'sessions list' shows it.")
)
export const platformArgument = Args.text({ name: "PLATFORM" }).pipe(
  Args.withDescription("The platform's id, as 'platforms list' shows it.")
)

const reasonLength = 300
export const drainReason = Options.optional(
  checked("reason", (value) =>
    value.length >= 1 && value.length <= reasonLength
      ? Either.right(value)
      : Either.left(`must have 1 to ${reasonLength} characters.`)
  ).pipe(Options.withDescription("Why, for those who read the platform's status and history."))
)

export const taskArgument = Args.text({ name: "ID" }).pipe(
  Args.withDescription("The task's id, as 'submit' and 'tasks list' show it.")
)

export const idempotencyKey = Options.optional(
  checked("idempotency-key", (written) =>
    /^[\x21-\x7e]{1,255}$/.test(written)
      ? Either.right(written)
      : Either.left("must be 1 to 255 visible ASCII characters without blanks.")
  ).pipe(Options.withDescription("Makes a repeated submission answer the task of the first one."))
)

export const jobArgument = Args.text({ name: "ID" }).pipe(
  Args.withDescription("The job's id, as 'jobs submit' and 'jobs list' show it.")
)

/** What is said of a task. */
export const submissionOptions = {
  prompt: Args.text({ name: "PROMPT" }).pipe(
    Args.withDescription("What to do, in quotes; '-' or nothing reads it from standard input."),
    Args.optional
  ),
  type: Options.optional(oneOf("type", TaskType.literals, "What kind of task. Default question-answering.")),
  priority: Options.optional(oneOf("priority", Priority.literals, "Default MEDIUM.")),
  platform: Options.optional(text("platform", "Only this platform.")),
  model: Options.optional(text("model", "Only this model, or a class of models: fast, balanced or best.")),
  policy: Options.optional(
    oneOf("policy", RoutingPolicy.literals, "What the choice goes by. Default as configured (balanced).")
  ),
  affinityKey: Options.optional(
    checked("affinity-key", (written) =>
      written.length >= 1 && written.length <= 128
        ? Either.right(written)
        : Either.left(`must have 1 to 128 characters, not ${written.length}.`)
    ).pipe(
      Options.withDescription("Tasks with the same key go to the same platform, where that is fair to the others.")
    )
  ),
  maxCostUsd: Options.optional(
    checked("max-cost-usd", (written) => {
      const value = Number(written)
      return written.trim() !== "" && Number.isFinite(value) && value > 0
        ? Either.right(value)
        : Either.left(`must be a number greater than 0, not '${written}'.`)
    }).pipe(Options.withDescription("What all attempts together may cost at most at list prices, US dollars."))
  ),
  maxTokens: Options.optional(
    wholeNumber(
      "max-tokens",
      1,
      Number.MAX_SAFE_INTEGER,
      "Tokens, input and output, that all attempts together may use."
    )
  ),
  system: Options.optional(text("system", "Instructions that stand above the prompt.")),
  maxOutputTokens: Options.optional(
    wholeNumber("max-output-tokens", 1, 1_000_000, "Upper bound of the answer, tokens.")
  ),
  deadline: Options.optional(
    checked("deadline", (written): Either.Either<string | number, string> => {
      if (/^\d+(\.\d+)?$/.test(written) && Number(written) > 0) return Either.right(Number(written))
      return Schema.is(InstantText)(written)
        ? Either.right(written)
        : Either.left(`must be seconds from now, or an instant such as 2026-11-22T12:00:00Z, not '${written}'.`)
    }).pipe(Options.withDescription("When the task is of no use any more: seconds from now, or an ISO 8601 instant."))
  ),
  callbackUrl: Options.optional(
    checked("callback-url", (written) =>
      /^https?:\/\//.test(written)
        ? Either.right(written)
        : Either.left(
            `must begin with https:// (or http:// where the service allows private addresses), not '${written}'.`
          )
    ).pipe(Options.withDescription("Told of the task's end by a signed webhook."))
  )
}

export const settingsFlags = {
  host: maybe(text("host", "The address to listen on. Other than loopback needs API keys. Default 127.0.0.1.")),
  port: maybe(wholeNumber("port", 0, 65_535, "The port to listen on, 0 for any free one. Default 7337.")),
  database: maybe(
    text("database", "The SQLite file, or postgres:// URL, that keeps the tasks. Default dream-team.db.")
  ),
  platforms: maybe(
    text("platforms", "The ids of the platforms to use, with commas between. Default: every one with a key.")
  ).pipe(Options.map((list) => list?.split(",").map((id) => id.trim()))),
  logLevel: maybe(
    oneOf(
      "log-level",
      ["all", "trace", "debug", "info", "warning", "error", "fatal", "none"],
      "The least severe log entries to write. Default info."
    )
  ),
  config: maybe(text("config", "The JSON file with settings. Default: what DREAM_TEAM_CONFIG names."))
}

export const claudeFlags = {
  settings: maybe(
    text("settings", "The settings file of Claude Code. Default settings.json in CLAUDE_CONFIG_DIR, or in ~/.claude.")
  ),
  dryRun: Options.boolean("dry-run").pipe(Options.withDescription("Only show what would change."))
}
