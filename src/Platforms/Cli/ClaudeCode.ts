import { dirname, join, resolve } from "node:path"
import type * as FileSystem from "@effect/platform/FileSystem"
import { Chunk, Clock, Effect, Either, Option, Stream } from "effect"
import type { ClaudeCode, ClaudeFailure, ClaudeLimitReached } from "../../ClaudeCode.js"
import { type Call, type Completion, type Delta, type LimitReading, type Turn, toolCallsOf } from "../../Domain/Call.js"
import {
  type AttemptFailure,
  CredentialFailure,
  ModelFailure,
  PlatformFailure,
  QuotaFailure,
  RequestFailure
} from "../../Domain/Failure.js"
import type { SessionId } from "../../Domain/Session.js"
import { claudeFolder } from "../../Feed/Paths.js"
import { reportOfRateLimitEvent, type SessionReport } from "../../Feed/Report.js"
import type { SessionHandoffs } from "../../SessionStore/Requests.js"
import type { SessionStore } from "../../SessionStore.js"
import { type PlatformSettings, type SettingsShape, sessionsDatabaseOf } from "../../Settings.js"
import type { PlatformClient } from "../Client.js"

/** What the platform works with. Without a store nobody hears of its sessions; without hand-offs a limit ends them. */
export interface ClaudePlatformMeans {
  readonly claude: Option.Option<ClaudeCode["Type"]>
  readonly sessions: Option.Option<SessionStore["Type"]>
  readonly handoffs: Option.Option<SessionHandoffs["Type"]>
  readonly files: Option.Option<FileSystem.FileSystem>
}

const textOf = ({ content }: Turn): string =>
  typeof content === "string" ? content : content.map((part) => (part.type === "text" ? part.text : "")).join("")

const speaker = (turn: Turn): string => {
  switch (turn.role) {
    case "user":
      return "User"
    case "assistant":
      return "Assistant"
    case "tool":
      return `Result of ${turn.name}`
  }
}

/** A call as one text: the last turn alone, or the conversation before it too. */
const promptOf = ({ messages, system }: Call): string => {
  const [only, ...more] = messages
  const turns = messages.map((turn) => {
    const calls = toolCallsOf(turn).map(({ arguments: given, name }) => `[calls ${name} with ${given}]`)
    return `${speaker(turn)}: ${[textOf(turn), ...calls].filter((text) => text !== "").join("\n")}`
  })
  const said =
    more.length === 0
      ? textOf(only)
      : `The conversation so far:\n\n${turns.slice(0, -1).join("\n\n")}\n\nAnswer what comes last:\n\n${turns.slice(-1).join("")}`
  return system === undefined ? said : `${system}\n\n${said}`
}

const hourMs = 3_600_000

/** How long a window is, by the provider's name of it. */
const lengthOf = (window: string | undefined): number | undefined => {
  if (window === "five_hour") return 5 * hourMs
  return window?.startsWith("seven_day") === true ? 7 * 24 * hourMs : undefined
}

/** Whether a window counts one family of models alone. */
const isOfModel = (window: string | undefined): boolean => /^seven_day_(opus|sonnet|haiku)/.test(window ?? "")

const readingsOf = (report: SessionReport, nowMs: number): ReadonlyArray<LimitReading> =>
  report.readings.flatMap(({ resetsAt, status, usedPercent, window }) =>
    usedPercent === undefined && status !== "rejected"
      ? []
      : [
          {
            unit: "percent",
            name: window,
            windowMs: lengthOf(window),
            limit: 100,
            remaining: status === "rejected" ? 0 : Math.max(0, 100 - (usedPercent ?? 0)),
            resetsInMs: resetsAt === undefined ? undefined : Math.max(0, resetsAt - nowMs)
          }
        ]
  )

/** The most a message says, characters. */
const maxMessage = 500

/** Why an attempt failed, in the terms of every platform. */
export const attemptFailureOf = (
  { id: platform }: Pick<PlatformSettings, "id">,
  model: string,
  failure: ClaudeFailure
): AttemptFailure => {
  const said = { platform, model, message: failure.message.slice(0, maxMessage) }
  switch (failure._tag) {
    case "ClaudeLimitReached":
      return new QuotaFailure({
        ...said,
        reason: "window",
        resetsAt: failure.resetsAt,
        window: failure.window,
        windowMs: lengthOf(failure.window),
        perModel: isOfModel(failure.window)
      })
    case "ClaudeNotLoggedIn":
      return new CredentialFailure(said)
    case "ClaudePromptTooLong":
      return new RequestFailure({ ...said, reason: "context" })
    case "ClaudeNotInstalled":
      return new PlatformFailure({ ...said, reason: "unreachable" })
    case "ClaudeTimedOut":
      return new PlatformFailure({ ...said, reason: "timeout" })
    case "ClaudeFailed":
      return new PlatformFailure({ ...said, reason: "malformed" })
    case "ClaudeApiFailed": {
      const { status, type: code } = failure
      const told = { ...said, status, code }
      if (code === "billing_error" || status === 401 || status === 402 || status === 403) {
        return new CredentialFailure(told)
      }
      if (status === 404) return new ModelFailure(told)
      if (status === 429 || status === 529) return new QuotaFailure({ ...told, reason: "rate" })
      if (status === undefined) return new PlatformFailure({ ...told, reason: "network" })
      return status >= 500 || status === 408
        ? new PlatformFailure({ ...told, reason: "server" })
        : new RequestFailure({ ...told, reason: "invalid" })
    }
  }
}

interface Answered {
  readonly completion: Completion
  readonly limits: ReadonlyArray<LimitReading>
}

/**
 * Claude, asked through Claude Code (`claude -p`) with the login of this machine's user. Each attempt is a session of
 * its own, in a folder that holds nothing else and without tools. A session that meets a limit of the account is offered
 * to whoever hands sessions off; the answer then is theirs.
 */
export const makeClaudePlatform = (
  settings: PlatformSettings,
  all: Pick<SettingsShape, "claude" | "database" | "sessions">,
  means: ClaudePlatformMeans
): PlatformClient => {
  const configDir = all.claude.configDir === undefined ? undefined : resolve(all.claude.configDir)
  const account = configDir ?? claudeFolder(undefined)
  const cwd = join(dirname(sessionsDatabaseOf(all)), "claude-tasks")

  const record = (report: SessionReport): Effect.Effect<void> =>
    Option.match(means.sessions, {
      onNone: () => Effect.void,
      // A task is not held up because nobody could be told of its session.
      onSome: (store) => Effect.catchAll(store.record(report), (error) => Effect.logWarning(error.message))
    })

  const plain = (sessionId: SessionId, at: number) => ({
    sessionId,
    account,
    source: "rate_limit_event" as const,
    at,
    readings: [],
    usage: []
  })

  const missing = (model: string, what: string) =>
    new PlatformFailure({ platform: settings.id, model, reason: "unreachable", message: what })

  /** The answer of whoever goes on with a session that a limit refused, or else why it failed. */
  const handedOff = (model: string, limit: ClaudeLimitReached): Effect.Effect<Completion, AttemptFailure> => {
    const failed = attemptFailureOf(settings, model, limit)
    const { resetsAt, sessionId, window } = limit
    if (Option.isNone(means.handoffs) || sessionId === undefined) return Effect.fail(failed)
    return means.handoffs.value.ask({ sessionId, account, cwd, window, resetsAt }).pipe(
      Effect.map(
        ({ answeredBy, text }): Completion => ({
          text,
          toolCalls: [],
          finishReason: "stop",
          model: answeredBy ?? model,
          // Whoever answered has counted it.
          usage: { inputTokens: 0, cachedInputTokens: 0, outputTokens: 0, reasoningTokens: 0 }
        })
      ),
      Effect.catchAll(({ message }) =>
        Effect.zipRight(
          Effect.logInfo(`The session of a task was not handed off: ${message}`).pipe(
            Effect.annotateLogs({ session: sessionId })
          ),
          Effect.fail(failed)
        )
      )
    )
  }

  const answer = Effect.fn("Platforms.claude")(function* (model: string, call: Call) {
    if (Option.isNone(means.claude) || Option.isNone(means.files)) {
      return yield* missing(model, "Claude Code is not part of this program")
    }
    const { value: claude } = means.claude
    yield* Effect.mapError(means.files.value.makeDirectory(cwd, { recursive: true, mode: 0o700 }), (error) =>
      missing(model, `the folder of its sessions cannot be made: ${error.message}`)
    )
    let limits: ReadonlyArray<LimitReading> = []
    let completion: Completion | undefined
    let session: SessionId | undefined
    let pid: number | undefined
    const run = claude.run({
      prompt: promptOf(call),
      cwd,
      model,
      tools: [],
      configDir,
      timeoutMs: settings.timeouts.attemptMs
    })
    const told = yield* Stream.runForEach(run, (event) =>
      Effect.gen(function* () {
        const at = yield* Clock.currentTimeMillis
        switch (event._tag) {
          case "Spawned":
            pid = event.pid
            return
          case "Started": {
            session = event.sessionId
            const report = { ...plain(session, at), status: "started" as const, cwd, model: event.model, pid }
            return yield* record({ ...report, allowedTools: [], launchedBy: "dream-team", handoff: "auto" })
          }
          case "LimitReported": {
            const report = reportOfRateLimitEvent(event.event, { at, account, pid })
            if (report === undefined) return
            limits = readingsOf(report, at)
            return yield* record(report)
          }
          case "Finished":
            completion = {
              text: event.text,
              toolCalls: [],
              finishReason: "stop",
              model,
              usage: event.usage
            }
            return
          case "Text":
          case "Retrying":
            return
        }
      })
    ).pipe(Effect.either)
    const over = Effect.flatMap(Clock.currentTimeMillis, (at) =>
      session === undefined ? Effect.void : record({ ...plain(session, at), status: "ended" })
    )
    if (Either.isLeft(told)) {
      if (told.left._tag === "ClaudeLimitReached") {
        const completion = yield* handedOff(model, told.left)
        return { completion, limits } satisfies Answered
      }
      yield* over
      return yield* attemptFailureOf(settings, model, told.left)
    }
    yield* over
    if (completion !== undefined) return { completion, limits } satisfies Answered
    return yield* new PlatformFailure({
      platform: settings.id,
      model,
      reason: "malformed",
      message: "Claude Code ended without an answer"
    })
  })

  const models = [settings.model, ...Object.values(settings.classes)]
  const available = Option.match(means.claude, {
    onNone: () => Effect.fail(missing(settings.model, "Claude Code is not part of this program")),
    onSome: (claude) =>
      Effect.matchEffect(claude.isLoggedIn(configDir), {
        onFailure: ({ message }) => Effect.fail(missing(settings.model, message)),
        onSuccess: (loggedIn) =>
          loggedIn
            ? Effect.void
            : Effect.fail(
                new CredentialFailure({
                  platform: settings.id,
                  message: `nobody is logged in to Claude Code (${account})`
                })
              )
      })
  })

  const deltas = (model: string, call: Call) =>
    Effect.map(
      answer(model, call),
      ({ completion, limits }): ReadonlyArray<Delta> => [
        { _tag: "Start", limits },
        { _tag: "Text", text: completion.text },
        {
          _tag: "Finish",
          finishReason: completion.finishReason,
          model: completion.model,
          usage: completion.usage
        }
      ]
    )

  return {
    id: settings.id,
    settings,
    complete: (model, call) => Effect.map(answer(model, call), ({ completion }) => completion),
    stream: (model, call) => Stream.fromIterableEffect(deltas(model, call)),
    streamTo: (model, call, take) => Effect.flatMap(deltas(model, call), (all) => take(Chunk.unsafeFromArray(all))),
    listModels: Effect.as(available, models),
    check: Effect.as(available, { models, readings: [] })
  }
}
