import { Args, CliConfig, Command, CommandDescriptor, Options } from "@effect/cli"
import type { FileSystem, Path, Terminal } from "@effect/platform"
import { Console, Effect, Either, type Types } from "effect"
import manifest from "../package.json" with { type: "json" }
import { Misuse } from "./Cli/Exit.js"
import { type CommandHelp, commandHelp, didYouMean, groupHelp, optionNames, plain, sortArguments } from "./Cli/Help.js"
import {
  checked,
  claudeFlags,
  cursor,
  drainReason,
  idempotencyKey,
  jobArgument,
  json,
  limit,
  oneOf,
  platformArgument,
  sessionArgument,
  settingsFlags,
  submissionOptions,
  taskArgument,
  text,
  url,
  wholeNumber
} from "./Cli/Options.js"
import { JobMode, JobState } from "./Domain/Job.js"
import { SessionStatus } from "./Domain/Session.js"
import { Priority, TaskState, TaskType } from "./Domain/Task.js"

const program = "dream-team"
const config = CliConfig.make({ isCaseSensitive: true, showBuiltIns: false })

type Environment = FileSystem.FileSystem | Path.Path | Terminal.Terminal

/** What a command may fail with: a message for the person at the terminal. */
export interface Reportable {
  readonly _tag: string
  readonly message: string
}

export interface Leaf extends CommandHelp {
  readonly run: (args: ReadonlyArray<string>) => Effect.Effect<void, Reportable, Environment>
}

/**
 * A command by its words, such as `tasks list`; `usage` shows its arguments. What runs it is loaded when it runs: `--help`
 * loads none of them.
 */
const leaf = <const Config extends Command.Command.Config>(
  words: string,
  summary: string,
  usage: string,
  parameters: Config,
  load: () => Promise<
    (options: Types.Simplify<Command.Command.ParseConfig<Config>>) => Effect.Effect<void, Reportable, Environment>
  >
): Leaf => {
  const path = words.split(" ")
  const last = path.at(-1) ?? ""
  const command = Command.make(last, parameters, (options) =>
    Effect.flatMap(Effect.promise(load), (handle) => handle(options))
  )
  const help: CommandHelp = { path, summary, usage, doc: Command.getHelp(command, config) }
  const name = [program, ...path].join(" ")
  const misuse = (message: string) =>
    new Misuse({ message: `${name}: ${message}\nSee '${name} --help' for what it takes.` })
  const run = (given: ReadonlyArray<string>): Effect.Effect<void, Reportable, Environment> => {
    const { args, unknown, withoutValue } = sortArguments(help, given)
    if (unknown !== undefined) return misuse(`unknown option '${unknown}'.${didYouMean(unknown, optionNames(help))}`)
    if (withoutValue !== undefined) return misuse(`${withoutValue} needs a value.`)
    return CommandDescriptor.parse(command.descriptor, [last, ...args], config).pipe(
      Effect.mapError((error) => misuse(plain(error.error))),
      Effect.flatMap((directive): Effect.Effect<void, Reportable, Environment> => {
        if (directive._tag === "BuiltIn") return version
        const [unexpected] = directive.leftover
        return unexpected === undefined
          ? command.handler(directive.value)
          : misuse(
              `unexpected argument '${unexpected}'${usage === "[PROMPT]" ? "; text of more than one word needs quotes" : ""}.`
            )
      })
    )
  }
  return { ...help, run }
}

/** Every command, in the order in which help lists them. */
export const commands: ReadonlyArray<Leaf> = [
  leaf(
    "serve",
    "Run the service: HTTP API, queue and delegation, until stopped.",
    "",
    { ...settingsFlags, json },
    async () => (await import("./Cli/Serve.js")).run
  ),
  leaf(
    "demo",
    "Watch four simulated platforms work through a load of tasks. Needs no key.",
    "",
    {
      tasks: wholeNumber("tasks", 1, 100_000, "How many tasks to submit. Default 200.").pipe(Options.withDefault(200)),
      seed: wholeNumber("seed", 0, 2 ** 31 - 1, "The same seed makes the same load and answers. Default 1.").pipe(
        Options.withDefault(1)
      ),
      json
    },
    async () => (await import("./Cli/Demo.js")).run
  ),
  leaf(
    "simulate",
    "Run four simulated platforms over real HTTP, until stopped, and print the settings that point a service at them.",
    "",
    {
      port: wholeNumber("port", 0, 65_535, "The port to listen on, 0 for any free one. Default 7338.").pipe(
        Options.withDefault(7338)
      ),
      seed: wholeNumber("seed", 0, 2 ** 31 - 1, "The same seed makes the same answers. Default 1.").pipe(
        Options.withDefault(1)
      ),
      latencyScale: checked("latency-scale", (written) => {
        const value = Number(written)
        return written.trim() !== "" && value >= 0 && value <= 1_000
          ? Either.right(value)
          : Either.left(`must be a number from 0 to 1000, not '${written}'.`)
      }).pipe(
        Options.withDescription("Multiplies every latency; 0 answers at once. Default 1."),
        Options.withDefault(1)
      ),
      claude: Options.text("claude").pipe(
        Options.withPseudoName("FOLDER"),
        Options.withDescription(
          "Simulate a Claude subscription too, for a Claude Code whose configuration, with a made-up login, is in that folder."
        ),
        Options.optional
      ),
      json
    },
    async () => (await import("./Cli/Simulate.js")).run
  ),
  leaf(
    "submit",
    "Submit a task to the running service and print its id, or with --wait its answer.",
    "[PROMPT]",
    {
      ...submissionOptions,
      idempotencyKey,
      file: Options.optional(
        text(
          "file",
          "Submit many tasks in one request: a file with a JSON object a line, as the API takes them; '-' reads standard input. Prints each line's verdict; exit code 1 where one was refused."
        )
      ),
      dryRun: Options.boolean("dry-run").pipe(
        Options.withDescription("Submit nothing; say where the task would go and why, or why it would be refused.")
      ),
      wait: Options.boolean("wait").pipe(
        Options.withDescription("Wait for the answer and print its text; exit code 1 where the task fails.")
      ),
      url,
      json
    },
    async () => (await import("./Cli/Submit.js")).run
  ),
  leaf(
    "route",
    "Explain where a task would go and why, without submitting it. Needs --dry-run.",
    "[PROMPT]",
    {
      ...submissionOptions,
      dryRun: Options.boolean("dry-run").pipe(
        Options.withDescription("Explain the choice without making it; this command does nothing else.")
      ),
      url,
      json
    },
    async () => (await import("./Cli/Route.js")).run
  ),
  leaf(
    "tasks list",
    "List tasks, newest first.",
    "",
    {
      state: Options.optional(oneOf("state", TaskState.literals, "Only tasks in this state.")),
      type: Options.optional(oneOf("type", TaskType.literals, "Only tasks of this type.")),
      priority: Options.optional(oneOf("priority", Priority.literals, "Only tasks of this priority.")),
      platform: Options.optional(text("platform", "Only tasks whose latest attempt was on this platform.")),
      limit,
      cursor,
      url,
      json
    },
    async () => (await import("./Cli/Tasks.js")).list
  ),
  leaf(
    "tasks show",
    "Show a task: its answer or error, each attempt, and why it went where it went.",
    "ID",
    { id: taskArgument, url, json },
    async () => (await import("./Cli/Tasks.js")).show
  ),
  leaf(
    "tasks watch",
    "Follow what happens to a task until it ends.",
    "ID",
    { id: taskArgument, url, json },
    async () => (await import("./Cli/Tasks.js")).watch
  ),
  leaf(
    "tasks cancel",
    "Cancel a task; a running attempt is interrupted.",
    "ID",
    { id: taskArgument, url, json },
    async () => (await import("./Cli/Tasks.js")).cancel
  ),
  leaf(
    "tasks retry",
    "Queue a failed or cancelled task again.",
    "ID",
    { id: taskArgument, url, json },
    async () => (await import("./Cli/Tasks.js")).retry
  ),
  leaf(
    "jobs submit",
    "Submit several tasks that belong together, and print the job's id.",
    "FILE",
    {
      file: Args.text({ name: "FILE" }).pipe(
        Args.withDescription("A JSON file with the job, as the API takes it; '-' reads standard input.")
      ),
      idempotencyKey,
      url,
      json
    },
    async () => (await import("./Cli/Jobs.js")).submit
  ),
  leaf(
    "jobs list",
    "List jobs, newest first.",
    "",
    {
      state: Options.optional(oneOf("state", JobState.literals, "Only jobs in this state.")),
      mode: Options.optional(oneOf("mode", JobMode.literals, "Only jobs of this mode.")),
      limit,
      cursor,
      url,
      json
    },
    async () => (await import("./Cli/Jobs.js")).list
  ),
  leaf(
    "jobs show",
    "Show a job: how far it is, what it used, and its tasks with their results.",
    "ID",
    {
      id: jobArgument,
      limit: wholeNumber("limit", 1, 200, "How many tasks at most, up to 200. Default 50.").pipe(
        Options.withDefault(50)
      ),
      cursor: Options.optional(text("cursor", "Go on where the tasks before ended, as it said.")),
      url,
      json
    },
    async () => (await import("./Cli/Jobs.js")).show
  ),
  leaf(
    "jobs cancel",
    "Cancel every task of a job that has not ended; running attempts are interrupted.",
    "ID",
    { id: jobArgument, url, json },
    async () => (await import("./Cli/Jobs.js")).cancel
  ),
  leaf(
    "platforms list",
    "Show each platform: whether it can be used, and how it does. Also what 'platforms' alone does.",
    "",
    { url, json },
    async () => (await import("./Cli/Platforms.js")).list
  ),
  leaf(
    "platforms check",
    "Ask the platforms, or one of them, whether they answer now. Uses no tokens.",
    "[PLATFORM]",
    {
      id: Args.text({ name: "PLATFORM" }).pipe(
        Args.withDescription("The platform's id; without one, each is asked."),
        Args.optional
      ),
      url,
      json
    },
    async () => (await import("./Cli/Platforms.js")).check
  ),
  leaf(
    "platforms drain",
    "Give a platform no new attempts until it is resumed; running ones end in peace. Holds over restarts.",
    "PLATFORM",
    { id: platformArgument, reason: drainReason, url, json },
    async () => (await import("./Cli/Platforms.js")).drain
  ),
  leaf(
    "platforms resume",
    "Give a drained platform attempts again.",
    "PLATFORM",
    { id: platformArgument, reason: drainReason, url, json },
    async () => (await import("./Cli/Platforms.js")).resume
  ),
  leaf(
    "platforms history",
    "Show what happened to a platform, the latest first: its status, breaker, quotas, limits, drains.",
    "PLATFORM",
    {
      id: platformArgument,
      limit,
      before: Options.optional(
        wholeNumber("before", 0, Number.MAX_SAFE_INTEGER, "Go on where the page before ended, as it said.")
      ),
      url,
      json
    },
    async () => (await import("./Cli/Platforms.js")).history
  ),
  leaf(
    "resources",
    "Show every limit, permit, breaker and queue as it stands now.",
    "",
    { url, json },
    async () => (await import("./Cli/Resources.js")).run
  ),
  leaf(
    "budgets",
    "Show what the API key and each platform have spent today, and what they may.",
    "",
    { url, json },
    async () => (await import("./Cli/Budgets.js")).run
  ),
  leaf(
    "sessions list",
    "Show Claude Code sessions, and how near their limits are. Also what 'sessions' alone does.",
    "",
    {
      status: Options.optional(oneOf("status", SessionStatus.literals, "Only sessions of this status.")),
      limit,
      url,
      json
    },
    async () => (await import("./Cli/Sessions.js")).list
  ),
  leaf(
    "sessions handoff",
    "Let a session go on with another platform, its context kept.",
    "ID",
    {
      id: sessionArgument,
      to: Options.optional(text("to", "This platform alone. Default: the chain of the settings.")),
      launcher: Options.boolean("launcher").pipe(
        Options.withDescription("Make a launcher, also where the service could continue by itself.")
      ),
      url,
      json
    },
    async () => (await import("./Cli/Sessions.js")).handoff
  ),
  leaf(
    "sessions resume",
    "Go on with a session in this terminal, with another platform.",
    "ID",
    { id: sessionArgument, url, json },
    async () => (await import("./Cli/Sessions.js")).resume
  ),
  leaf(
    "events",
    "Follow what happens to tasks, jobs, platforms and Claude Code sessions, until stopped.",
    "",
    {
      type: Options.optional(
        text("type", "Only these types, with commas between: each whole (task.failed) or a family ('task.*').")
      ),
      after: Options.optional(
        wholeNumber(
          "after",
          0,
          Number.MAX_SAFE_INTEGER,
          "Go on after this event, 0 = from the oldest kept. Default: from now on."
        )
      ),
      url,
      json
    },
    async () => (await import("./Cli/Events.js")).run
  ),
  leaf(
    "doctor",
    "Check settings, keys, platforms, database, port and Node version; tell what is missing.",
    "",
    { ...settingsFlags, json },
    async () => (await import("./Cli/Doctor.js")).run
  ),
  leaf(
    "claude install",
    "Let Claude Code report its sessions and limits: adds a status line and hooks to its settings.",
    "",
    { ...claudeFlags, config: settingsFlags.config, json },
    async () => (await import("./Cli/Claude.js")).install
  ),
  leaf(
    "claude uninstall",
    "Take them out of Claude Code's settings again.",
    "",
    { ...claudeFlags, json },
    async () => (await import("./Cli/Claude.js")).uninstall
  ),
  leaf(
    "config show",
    "Show every setting with its source; secrets are redacted.",
    "",
    { ...settingsFlags, json },
    async () => (await import("./Cli/Config.js")).show
  ),
  leaf(
    "config schema",
    "Print the JSON Schema of the settings file.",
    "",
    { json },
    async () => (await import("./Cli/Config.js")).schema
  ),
  leaf(
    "config init",
    "Write a settings file to start from, with its JSON Schema beside it.",
    "[PATH]",
    {
      path: Args.text({ name: "PATH" }).pipe(
        Args.withDescription("Where the file goes. Default dream-team.json."),
        Args.withDefault("dream-team.json")
      ),
      force: Options.boolean("force").pipe(Options.withDescription("Replace what is there.")),
      json
    },
    async () => (await import("./Cli/Config.js")).init
  )
]

/** What a group of commands does where none of them is named. */
const defaults: Readonly<Record<string, string>> = { platforms: "list", sessions: "list" }

const about = `Dream Team ${manifest.version}. ${manifest.description}`

/** Whether this is a command that runs until it is stopped, so that a signal is its normal end. */
export const stopsBySignal = ([command]: ReadonlyArray<string>): boolean =>
  command === "serve" || command === "simulate"

/** What the program prints when called without a command. */
export const rootHelp = groupHelp(program, about, [], commands, [["--version", "Show the version."]])

const version = Console.log(manifest.version)

const isPrefix = (path: ReadonlyArray<string>, of: ReadonlyArray<string>): boolean =>
  path.every((word, index) => of[index] === word)

const asksForHelp = (args: ReadonlyArray<string>): boolean => {
  const end = args.indexOf("--")
  return args.slice(0, end === -1 ? undefined : end).some((arg) => arg === "--help" || arg === "-h")
}

const groups = [...new Set(commands.flatMap(({ path }) => path.slice(0, -1)))]

/** What the program prints about the group of commands with this name. */
const helpOf = (group: string): string =>
  groupHelp(program, `The commands of '${program} ${group}'.`, [group], commands, [])

/**
 * Everything the program answers by these arguments alone, so that it can be told without loading anything. Marked as
 * pure, so that the program itself, which never asks for it, leaves it out.
 */
export const answers: Readonly<Record<string, string>> = /* @__PURE__ */ (() =>
  Object.fromEntries([
    ...["", "--help", "-h"].map((args) => [args, rootHelp]),
    ...["--version", "-v"].map((args) => [args, manifest.version]),
    ...groups.flatMap((group) => [
      ...(defaults[group] === undefined ? [[group, helpOf(group)]] : []),
      [`${group} --help`, helpOf(group)],
      [`${group} -h`, helpOf(group)]
    ]),
    ...commands.flatMap((command) =>
      ["--help", "-h"].map((flag) => [[...command.path, flag].join(" "), commandHelp(program, command)])
    )
  ]))()

/** Runs the command that `args` (without node and script) ask for. */
export const run = (args: ReadonlyArray<string>): Effect.Effect<void, Reportable, Environment> => {
  const path: Array<string> = []
  for (const arg of args) {
    if (!commands.some((command) => isPrefix([...path, arg], command.path))) break
    path.push(arg)
  }
  const alone = args[path.length]
  const fallback = defaults[path.join(" ")]
  if (fallback !== undefined && (alone === undefined || (alone.startsWith("-") && !asksForHelp(args)))) {
    return run([...path, fallback, ...args.slice(path.length)])
  }
  const rest = args.slice(path.length)
  const [next] = rest
  const found = commands.find((command) => command.path.length === path.length && isPrefix(path, command.path))
  if (found !== undefined) {
    return asksForHelp(rest) ? Console.log(commandHelp(program, found)) : found.run(rest)
  }
  const name = [program, ...path].join(" ")
  const see = `See '${name} --help' for what there is.`
  if (next === undefined || next === "--help" || next === "-h") {
    return Console.log(path.length === 0 ? rootHelp : helpOf(path.join(" ")))
  }
  if (path.length === 0 && (next === "--version" || next === "-v")) return version
  const known = path.length === 0 ? ["--help", "--version"] : ["--help"]
  if (next.startsWith("-")) {
    return new Misuse({ message: `${name}: unknown option '${next}'.${didYouMean(next, known)}\n${see}` })
  }
  const words = commands
    .filter((command) => isPrefix(path, command.path))
    .flatMap((command) => command.path[path.length] ?? [])
  const meant = known.includes(`--${next}`) ? ` Did you mean '--${next}'?` : didYouMean(next, words)
  return new Misuse({ message: `${name}: unknown command '${next}'.${meant}\n${see}` })
}
