import { homedir } from "node:os"
import { join } from "node:path"
import * as Command from "@effect/platform/Command"
import type { CommandExecutor, Process } from "@effect/platform/CommandExecutor"
import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import { Context, Effect, Layer, Option, Redacted, Schema, type Scope, Stream } from "effect"
import {
  brokenOff,
  ClaudeFailed,
  type ClaudeFailure,
  ClaudeNotInstalled,
  ClaudeTimedOut,
  failureOf
} from "./ClaudeCode/Failure.js"
import { addTrouble, type Line, noTrouble, type Result, readLine, usageOf } from "./ClaudeCode/Output.js"
import { endingMs, startProcess, tailOf } from "./ClaudeCode/Process.js"
import { boundedLines } from "./Domain/Lines.js"
import type { SessionId } from "./Domain/Session.js"
import type { Usage } from "./Domain/Usage.js"
import { readVariables } from "./Settings/Environment.js"
import { Settings } from "./Settings.js"

export {
  ClaudeApiFailed,
  ClaudeFailed,
  type ClaudeFailure,
  ClaudeLimitReached,
  ClaudeNotInstalled,
  ClaudeNotLoggedIn,
  ClaudePromptTooLong,
  ClaudeTimedOut
} from "./ClaudeCode/Failure.js"

/** As Claude Code names them on its command line. */
export const PermissionMode = Schema.Literal(
  "default",
  "acceptEdits",
  "auto",
  "bypassPermissions",
  "dontAsk",
  "manual",
  "plan"
).annotations({ identifier: "PermissionMode" })
export type PermissionMode = typeof PermissionMode.Type

/** Where requests go instead of to Anthropic, and what they are let in by. */
export interface ClaudeEndpoint {
  readonly baseUrl: string
  readonly token: Redacted.Redacted<string>
}

/** One headless turn of Claude Code (`claude -p`). */
export interface ClaudeRun {
  readonly prompt: string
  /** Claude Code finds a session only from the folder it was made in. */
  readonly cwd: string
  readonly resume?: SessionId | undefined
  /** The id that a new session gets (a UUID), also one forked from `resume`. */
  readonly sessionId?: SessionId | undefined
  /** Goes on in a copy of `resume`, which itself stays as it is. */
  readonly fork?: boolean | undefined
  readonly permissionMode?: PermissionMode | undefined
  readonly allowedTools?: ReadonlyArray<string> | undefined
  /** The built-in tools there are at all; those of Claude Code where absent, none where empty. */
  readonly tools?: ReadonlyArray<string> | undefined
  readonly model?: string | undefined
  readonly router?: ClaudeEndpoint | undefined
  /** The window of who answers behind the router, tokens; Claude Code takes what it does not know for a million. */
  readonly contextWindow?: number | undefined
  /** The account's folder (`CLAUDE_CONFIG_DIR`); the user's own where absent. */
  readonly configDir?: string | undefined
  readonly maxTurns?: number | undefined
  readonly timeoutMs: number
}

/** What a run tells, in order. `Finished` comes last, once, in every run that succeeds. */
export type ClaudeEvent =
  /** The process is there; nothing was sent yet. */
  | { readonly _tag: "Spawned"; readonly pid: number }
  | { readonly _tag: "Started"; readonly sessionId: SessionId; readonly model: string }
  | { readonly _tag: "Text"; readonly text: string }
  /** `event` is the whole `rate_limit_event` as Claude Code wrote it. */
  | { readonly _tag: "LimitReported"; readonly event: unknown }
  | {
      readonly _tag: "Retrying"
      readonly attempt: number
      readonly delayMs: number
      readonly status?: number | undefined
    }
  | {
      readonly _tag: "Finished"
      readonly text: string
      readonly sessionId: SessionId
      readonly usage: Usage
      /** At list prices, as Claude Code reckons it; means nothing where a router answered. */
      readonly costUsd?: number | undefined
      readonly numTurns: number
    }

/** How Claude Code is started. */
export interface ClaudeCodeOptions {
  /** Default `claude`, as the `PATH` finds it. */
  readonly command?: string | undefined
  /** Laid over the environment of this process; an empty text stands for a variable that is not set. */
  readonly environment?: Readonly<Record<string, string>> | undefined
}

/** Claude Code as it is installed on this machine, run headless. */
export class ClaudeCode extends Context.Tag("dream-team/ClaudeCode")<
  ClaudeCode,
  {
    /**
     * Runs one turn. The prompt goes over standard input, so that it may be of any size and no list of processes shows
     * it. Interrupting the stream ends the process and all it started.
     */
    readonly run: (options: ClaudeRun) => Stream.Stream<ClaudeEvent, ClaudeFailure>
    /** Such as `2.1.330`. */
    readonly version: Effect.Effect<string, ClaudeNotInstalled>
    /** Whether somebody is logged in to an account, or an API key is set; asks nobody outside of this machine. */
    readonly isLoggedIn: (configDir: string | undefined) => Effect.Effect<boolean, ClaudeNotInstalled>
  }
>() {
  static readonly layer = (
    options: ClaudeCodeOptions = {}
  ): Layer.Layer<ClaudeCode, never, CommandExecutor | FileSystem.FileSystem> =>
    Layer.effect(
      ClaudeCode,
      Effect.map(Effect.context<CommandExecutor | FileSystem.FileSystem>(), (context) => ({
        run: (run) => Stream.provideContext(runOf(options, run), context),
        version: Effect.provide(versionOf(options), context),
        isLoggedIn: (configDir) => Effect.provide(isLoggedIn(options, configDir), context)
      }))
    )

  /**
   * As the settings say. Withholds from Claude Code, and from what it starts, our settings and the other platforms'
   * keys.
   */
  static readonly layerConfig: Layer.Layer<ClaudeCode, never, CommandExecutor | FileSystem.FileSystem | Settings> =
    Layer.unwrapEffect(
      Effect.zipWith(Settings, readVariables, ({ claude }, ours) =>
        ClaudeCode.layer({
          command: claude.command,
          environment: Object.fromEntries([...ours.keys()].map((name) => [name, ""]))
        })
      )
    )
}

/** A line of output longer than this is passed over, bytes. */
const maxLineBytes = 32 * 1024 * 1024
/** Of what is written to standard error the end is kept, characters. */
const maxStderr = 4_000
/** How long Claude Code may take to tell about itself, ms. */
const askingMs = 15_000

const notInstalled = (command: string, error: PlatformError): ClaudeNotInstalled =>
  new ClaudeNotInstalled({ message: `Claude Code (${command}) cannot be started: ${error.message}` })

const commandOf = ({ command = "claude", environment }: ClaudeCodeOptions, ...args: ReadonlyArray<string>) =>
  Command.make(command, ...args).pipe(
    Command.env({
      ...environment,
      // Telemetry and updates: a run makes the requests of its turn alone.
      CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
      // It would take itself for part of the session that this process may run in.
      CLAUDECODE: ""
    })
  )

const start = (
  options: ClaudeCodeOptions,
  command: Command.Command
): Effect.Effect<Process, ClaudeNotInstalled, CommandExecutor | Scope.Scope> =>
  Effect.mapError(startProcess(command), (error) => notInstalled(options.command ?? "claude", error))

/** What a program prints, without empty lines and those of more than `maxBytes`. */
const printedLines =
  (maxBytes: number) =>
  <E, R>(bytes: Stream.Stream<Uint8Array, E, R>): Stream.Stream<string, E, R> =>
    boundedLines(maxBytes)(bytes).pipe(Stream.mapConcat((line) => (line?.length ? [line.toString("utf8")] : [])))

/** The first text that Claude Code prints, where it is asked about itself. */
const told = (
  options: ClaudeCodeOptions,
  environment: Readonly<Record<string, string>>,
  ...args: ReadonlyArray<string>
) => {
  const name = options.command ?? "claude"
  return Effect.gen(function* () {
    const asking = commandOf(options, ...args).pipe(Command.env(environment), Command.stdin(Stream.empty))
    const process = yield* start(options, asking)
    yield* tailOf(process.stderr, 0)
    const text = yield* Stream.runFold(printedLines(10_000)(process.stdout), "", (text, line) =>
      text.length > 10_000 ? text : `${text}${line}\n`
    )
    yield* Effect.ignore(process.exitCode)
    return text
  }).pipe(
    Effect.scoped,
    Effect.catchTags({
      BadArgument: (error) => notInstalled(name, error),
      SystemError: (error) => notInstalled(name, error)
    }),
    Effect.timeoutFail({
      duration: askingMs,
      onTimeout: () => new ClaudeNotInstalled({ message: `${name} does not answer` })
    })
  )
}

const versionOf = (options: ClaudeCodeOptions) =>
  Effect.flatMap(told(options, {}, "--version"), (text) => {
    const version = /^\d+\.\d+\.\d+\S*/.exec(text)?.[0]
    return version === undefined
      ? new ClaudeNotInstalled({ message: `${options.command ?? "claude"} does not tell its version` })
      : Effect.succeed(version)
  })

const AuthStatus = Schema.parseJson(Schema.Struct({ loggedIn: Schema.Boolean }))

const isLoggedIn = (options: ClaudeCodeOptions, configDir: string | undefined) =>
  told(options, accountOf(options, { configDir }), "auth", "status").pipe(
    Effect.flatMap((text) => Effect.option(Schema.decode(AuthStatus)(text))),
    Effect.map(Option.exists(({ loggedIn }) => loggedIn))
  )

/**
 * Settings of this run alone, laid over the user's, in a file that only they can read: what they set for other routers
 * does not reach it, and it never goes on by itself when a limit resets.
 */
const settingsOf = ({ contextWindow, model, router }: ClaudeRun): string =>
  JSON.stringify({
    autoContinueAtUsageLimit: false,
    ...(router === undefined ? {} : { env: routed(router, model, contextWindow) })
  })

/** Claude Code keeps some tens of thousands of tokens free for its own use; it is told of no window that leaves little beside, tokens. */
const smallestWindow = 100_000

const modelVariables = [
  "ANTHROPIC_DEFAULT_OPUS_MODEL",
  "ANTHROPIC_DEFAULT_SONNET_MODEL",
  "ANTHROPIC_DEFAULT_HAIKU_MODEL",
  "CLAUDE_CODE_SUBAGENT_MODEL"
]

/**
 * The variables that send Claude Code through a router; one that is empty is not to be set. The model stands for those of
 * subagents and side requests as well: there is nobody else behind a router.
 */
export const routed = (
  { baseUrl, token }: ClaudeEndpoint,
  model: string | undefined,
  contextWindow: number | undefined
): Readonly<Record<string, string>> => ({
  ...(contextWindow === undefined || contextWindow < smallestWindow
    ? {}
    : { CLAUDE_CODE_MAX_CONTEXT_TOKENS: String(contextWindow) }),
  ...(model === undefined
    ? {}
    : Object.fromEntries(modelVariables.map((name): readonly [string, string] => [name, model]))),
  ANTHROPIC_BASE_URL: baseUrl,
  ANTHROPIC_AUTH_TOKEN: Redacted.value(token),
  ANTHROPIC_API_KEY: "",
  ANTHROPIC_CUSTOM_HEADERS: "",
  CLAUDE_CODE_USE_BEDROCK: "",
  CLAUDE_CODE_USE_VERTEX: "",
  CLAUDE_CODE_USE_FOUNDRY: ""
})

const optional = (flag: string, value: string | number | undefined): ReadonlyArray<string> =>
  value === undefined ? [] : [flag, String(value)]

const argumentsOf = (run: ClaudeRun, settings: string): ReadonlyArray<string> => [
  "--print",
  "--output-format",
  "stream-json",
  "--verbose",
  "--settings",
  settings,
  ...optional("--resume", run.resume),
  ...(run.fork === true ? ["--fork-session"] : []),
  ...optional("--session-id", run.sessionId),
  ...optional("--permission-mode", run.permissionMode),
  ...optional("--model", run.model),
  ...optional("--max-turns", run.maxTurns),
  ...(run.tools === undefined ? [] : ["--tools", run.tools.join(",")]),
  ...((run.allowedTools ?? []).length === 0 ? [] : ["--allowedTools", ...(run.allowedTools ?? [])])
]

/** Named, the user's own folder would not be the same to Claude Code: it keeps a file beside it that it then looks for in it. */
const accountOf = (
  { environment }: ClaudeCodeOptions,
  { configDir }: Pick<ClaudeRun, "configDir">
): Readonly<Record<string, string>> =>
  configDir === undefined || configDir === join(environment?.HOME ?? homedir(), ".claude")
    ? {}
    : { CLAUDE_CONFIG_DIR: configDir }

const startRun = Effect.fn("ClaudeCode.start")(function* (options: ClaudeCodeOptions, run: ClaudeRun) {
  const files = yield* FileSystem.FileSystem
  const unwritable = (error: PlatformError) =>
    new ClaudeFailed({ message: `The settings of the run cannot be written: ${error.message}` })
  const folder = yield* Effect.mapError(files.makeTempDirectoryScoped({ prefix: "dream-team-claude-" }), unwritable)
  const settings = `${folder}/settings.json`
  yield* Effect.mapError(files.writeFileString(settings, settingsOf(run), { mode: 0o600 }), unwritable)
  return yield* start(
    options,
    commandOf(options, ...argumentsOf(run, settings)).pipe(
      Command.env({
        ...(run.router === undefined ? {} : routed(run.router, run.model, run.contextWindow)),
        ...accountOf(options, run)
      }),
      Command.workingDirectory(run.cwd),
      Command.stdin(Stream.encodeText(Stream.succeed(run.prompt)))
    )
  )
})

/** What a line tells, where it is not the result. */
const eventsOf = (line: Exclude<Line, Result>, json: unknown): ReadonlyArray<ClaudeEvent> => {
  switch (line.type) {
    case "system":
      return line.subtype === "init"
        ? [{ _tag: "Started", sessionId: line.session_id, model: line.model }]
        : [
            {
              _tag: "Retrying",
              attempt: line.attempt,
              delayMs: line.retry_delay_ms,
              status: line.error_status ?? undefined
            }
          ]
    case "rate_limit_event":
      return [{ _tag: "LimitReported", event: json }]
    case "assistant":
      // What a subagent says, and what stands for an error, is no part of the answer.
      return typeof line.parent_tool_use_id === "string" || line.is_api_error_message === true
        ? []
        : line.message.content.flatMap(({ text, type }) =>
            type === "text" && typeof text === "string" && text !== "" ? [{ _tag: "Text" as const, text }] : []
          )
  }
}

const finished = (result: Result): ClaudeEvent => ({
  _tag: "Finished",
  text: result.result ?? "",
  sessionId: result.session_id,
  usage: usageOf(result),
  costUsd: result.total_cost_usd ?? undefined,
  numTurns: result.num_turns ?? 0
})

const runOf = (
  options: ClaudeCodeOptions,
  run: ClaudeRun
): Stream.Stream<ClaudeEvent, ClaudeFailure, CommandExecutor | FileSystem.FileSystem> =>
  Effect.gen(function* () {
    const process = yield* startRun(options, run)
    const complaints = yield* tailOf(process.stderr, maxStderr)
    let trouble = noTrouble
    let over = false
    const brokeOff = Effect.gen(function* () {
      const exitCode = yield* Effect.option(process.exitCode)
      yield* complaints.done
      return yield* brokenOff(Option.getOrUndefined(exitCode), complaints.text())
    })
    // Its hooks run after the result, and are not cut.
    const ended = Effect.ignore(Effect.timeout(process.exitCode, endingMs))
    const events = process.stdout.pipe(
      printedLines(maxLineBytes),
      Stream.catchAll((error) =>
        Stream.fail(new ClaudeFailed({ message: `Its output cannot be read: ${error.message}` }))
      ),
      Stream.mapEffect((text): Effect.Effect<ReadonlyArray<ClaudeEvent>, ClaudeFailure> => {
        const read = readLine(text)
        if (Option.isNone(read)) return Effect.succeed([])
        const { json, line } = read.value
        trouble = addTrouble(trouble, line)
        if (line.type !== "result") return Effect.succeed(eventsOf(line, json))
        over = true
        return Effect.zipRight(
          ended,
          line.is_error ? Effect.fail(failureOf(line, trouble)) : Effect.succeed([finished(line)])
        )
      }),
      Stream.takeUntil((events) => events.some(({ _tag }) => _tag === "Finished")),
      Stream.mapConcat((events) => events)
    )
    const spawned: ClaudeEvent = { _tag: "Spawned", pid: Number(process.pid) }
    return Stream.succeed(spawned).pipe(
      Stream.concat(events),
      Stream.concat(Stream.unwrap(Effect.suspend(() => (over ? Effect.succeed(Stream.empty) : brokeOff))))
    )
  }).pipe(
    Stream.unwrapScoped,
    Stream.interruptWhen(
      Effect.delay(
        Effect.suspend(() =>
          Effect.fail(new ClaudeTimedOut({ message: "The run of Claude Code took too long", timeoutMs: run.timeoutMs }))
        ),
        run.timeoutMs
      )
    )
  )
