import { Schema } from "effect"
import { PlatformId } from "./Platform.js"
import { Instant } from "./Time.js"

/** A Claude Code session, by the id that Claude Code gives it. */
export const SessionId = Schema.String.pipe(
  Schema.pattern(/^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/, { message: () => "expected the id of a Claude Code session" }),
  Schema.brand("SessionId"),
  Schema.annotations({ identifier: "SessionId" })
)
export type SessionId = typeof SessionId.Type

/** `limited`: refused by a limit that has not reset since; `handed-off`: its work goes on elsewhere. */
export const SessionStatus = Schema.Literal("active", "limited", "handed-off", "ended").annotations({
  identifier: "SessionStatus"
})
export type SessionStatus = typeof SessionStatus.Type

/** The provider's name of a window, such as `five_hour`, `seven_day` or `seven_day_opus`. */
export const LimitWindow = Schema.String.pipe(
  Schema.pattern(/^[a-z0-9][a-z0-9_]{0,63}$/),
  Schema.annotations({ identifier: "LimitWindow" })
)
export type LimitWindow = typeof LimitWindow.Type

/** The length of the shortest window, ms: one whose reset is not known is taken for over after it. */
export const shortestWindowMs = 5 * 3_600_000

/** What a reading says of its window: further use is allowed, allowed with a warning, or was refused. */
export const LimitStatus = Schema.Literal("allowed", "warning", "rejected").annotations({ identifier: "LimitStatus" })
export type LimitStatus = typeof LimitStatus.Type

/** Where a reading comes from. */
export const ReadingSource = Schema.Literal(
  "probe",
  "rate_limit_event",
  "statusline",
  "hook",
  "transcript",
  "table"
).annotations({ identifier: "ReadingSource" })
export type ReadingSource = typeof ReadingSource.Type

/** How much of one window of the account was used, as one source told it. */
export interface SessionLimitReading {
  readonly window: LimitWindow
  /** 0 to 100; absent where the source tells the status alone. */
  readonly usedPercent?: number | undefined
  /** Epoch ms. */
  readonly resetsAt?: number | undefined
  readonly status: LimitStatus
  readonly source: ReadingSource
  /** When it was taken, epoch ms. */
  readonly at: number
  readonly sessionId: SessionId
}

/** How near a window is to its limit; `unknown` without a reading that still counts. */
export const LimitLevel = Schema.Literal(
  "unknown",
  "normal",
  "warning",
  "critical",
  "emergency",
  "rejected"
).annotations({ identifier: "LimitLevel" })
export type LimitLevel = typeof LimitLevel.Type

/** What happens by itself when a session reaches the trigger level: `auto` hands it off, `ask` prepares it and says so. */
export const HandoffPolicy = Schema.Literal("auto", "ask").annotations({ identifier: "HandoffPolicy" })
export type HandoffPolicy = typeof HandoffPolicy.Type

/**
 * Where a hand-off is: `keeping` its context, `choosing` a platform, `ready` to be continued by a person or when it is
 * quiet, `running` elsewhere, and then over.
 */
export const HandoffState = Schema.Literal(
  "keeping",
  "choosing",
  "ready",
  "running",
  "succeeded",
  "failed",
  "cancelled"
).annotations({ identifier: "HandoffState" })
export type HandoffState = typeof HandoffState.Type

/** The states in which nothing becomes of a hand-off any more. */
export const finalHandoffStates: ReadonlyArray<HandoffState> = ["succeeded", "failed", "cancelled"]
export const isHandoffOver = (state: HandoffState): boolean => finalHandoffStates.includes(state)

export const HandoffId = Schema.String.pipe(
  Schema.pattern(/^[0-9a-f-]{36}$/),
  Schema.brand("HandoffId"),
  Schema.annotations({ identifier: "HandoffId" })
)
export type HandoffId = typeof HandoffId.Type

/** A field, with the sentence that describes it to users of the API. */
const field = <A, I>(schema: Schema.Schema<A, I>, description: string) =>
  Schema.propertySignature(schema).annotations({ description })
const maybe = <A, I>(schema: Schema.Schema<A, I>, description: string) =>
  Schema.optional(schema).annotations({ description })

/** Who continues: a headless run of Claude Code by the service, or a person who starts a launcher. */
export const HandoffMode = Schema.Literal("headless", "launcher").annotations({ identifier: "HandoffMode" })
export type HandoffMode = typeof HandoffMode.Type

/** What asked for a hand-off: a window's level, a person, or a task whose session was refused. */
export const HandoffCause = Schema.Literal("level", "person", "task").annotations({ identifier: "HandoffCause" })
export type HandoffCause = typeof HandoffCause.Type

/** How much a conversation holds; see `Transcript`. */
export const ConversationCounts = Schema.Struct({
  requests: Schema.Int,
  answers: Schema.Int,
  toolUses: Schema.Int,
  toolResults: Schema.Int,
  toolPairs: Schema.Int,
  images: Schema.Int,
  subagentLines: Schema.Int,
  abandonedLines: Schema.Int,
  compactions: Schema.Int,
  brokenLines: Schema.Int
}).annotations({ identifier: "ConversationCounts" })
export type ConversationCounts = typeof ConversationCounts.Type

/** What is kept of a session beside its transcript when it is handed off. */
export const HandoffContext = Schema.Struct({
  counts: field(ConversationCounts, "Of the transcript that was kept."),
  turns: field(Schema.Int, "Messages as another model is given them."),
  complete: field(Schema.Boolean, "Whether every tool use and every result is accounted for."),
  openToolUses: field(Schema.Int, "Tool uses without a result, which get one that says so."),
  orphanResults: field(Schema.Int, "Results without their tool use, which become text."),
  contextTokens: maybe(Schema.Int, "Tokens in the context, as the provider counted them."),
  model: Schema.optional(Schema.String),
  lastAt: maybe(Instant, "When the transcript last grew."),
  lastRequest: Schema.optional(
    Schema.Struct({ text: Schema.String, refused: field(Schema.Boolean, "It was refused by the limit.") })
  ),
  todos: Schema.Array(Schema.Struct({ text: Schema.String, status: Schema.Literal("pending", "in_progress") })),
  git: Schema.optional(
    Schema.Struct({
      branch: Schema.String,
      commit: Schema.optional(Schema.String),
      diffStat: Schema.String,
      untracked: Schema.Array(Schema.String)
    })
  )
}).annotations({ identifier: "HandoffContext" })
export type HandoffContext = typeof HandoffContext.Type

/** A hand-off as the API shows it. */
export const HandoffView = Schema.Struct({
  id: HandoffId,
  sessionId: SessionId,
  account: field(Schema.String, "The Claude configuration folder."),
  window: field(LimitWindow, "Whose limit it is for; `manual` where a person asked without one."),
  windowResetsAt: maybe(Instant, "When that window resets, where that is known."),
  cause: HandoffCause,
  state: HandoffState,
  why: maybe(Schema.String, "Why it is in this state."),
  mode: HandoffMode,
  to: maybe(PlatformId, "The platform that was asked for."),
  chain: field(Schema.Array(PlatformId), "Who may continue, in this order; empty until it was chosen."),
  conveyance: maybe(
    Schema.Literal("whole", "summary"),
    "`whole`: the conversation itself; `summary`: what was told of it, because the window there is smaller."
  ),
  leftOut: field(Schema.Array(Schema.String), "What a summary does not hold."),
  transcriptHash: maybe(Schema.String, "SHA-256 of the transcript that was kept."),
  transcriptPath: maybe(Schema.String, "Where it is kept."),
  context: Schema.optional(HandoffContext),
  carried: maybe(ConversationCounts, "The same counts in the session that went on, where it was read."),
  launcher: maybe(Schema.String, "The file that continues it; `dream-team sessions resume` starts it."),
  newSessionId: maybe(SessionId, "The session in which it goes on."),
  attempts: field(Schema.Int, "Runs that were started."),
  nextAt: maybe(Instant, "When it is looked at again."),
  answeredBy: maybe(Schema.String, "Platform and model that answered."),
  createdAt: Instant,
  updatedAt: Instant
}).annotations({ identifier: "Handoff" })
export type HandoffView = typeof HandoffView.Type

/** One window of an account as it stands. */
export const WindowView = Schema.Struct({
  window: LimitWindow,
  level: LimitLevel,
  usedPercent: maybe(Schema.Number, "0 to 100."),
  resetsAt: Schema.optional(Instant),
  source: Schema.optional(ReadingSource),
  at: maybe(Instant, "When it was read.")
}).annotations({ identifier: "LimitWindowStatus" })
export type WindowView = typeof WindowView.Type

/** An account: all sessions of one Claude configuration folder share its limits. */
export const AccountView = Schema.Struct({
  account: Schema.String,
  level: field(LimitLevel, "The highest of its windows."),
  windows: Schema.Array(WindowView),
  away: field(Schema.Boolean, "Its work goes on elsewhere, until its windows have reset and a probe turn passed.")
}).annotations({ identifier: "ClaudeAccount" })
export type AccountView = typeof AccountView.Type

/** A Claude Code session as the API shows it. */
export const SessionView = Schema.Struct({
  id: SessionId,
  account: Schema.String,
  cwd: Schema.optional(Schema.String),
  model: Schema.optional(Schema.String),
  status: SessionStatus,
  contextUsedPercent: Schema.optional(Schema.Number),
  contextTokens: Schema.optional(Schema.Number),
  contextWindow: Schema.optional(Schema.Number),
  inputTokens: Schema.optional(Schema.Number),
  outputTokens: Schema.optional(Schema.Number),
  costUsd: Schema.optional(Schema.Number),
  launchedBy: Schema.Literal("user", "dream-team"),
  handoff: field(HandoffPolicy, "What happens by itself at the trigger level."),
  busy: maybe(Schema.String, "Why nothing may be started on it now: it is open, or did something a moment ago."),
  lastHandoff: Schema.optional(HandoffView),
  startedAt: Instant,
  endedAt: Schema.optional(Instant),
  updatedAt: field(Instant, "When it last did something.")
}).annotations({ identifier: "Session" })
export type SessionView = typeof SessionView.Type

/** What happened to a session, by type. */
export const SessionEventBody = Schema.Union(
  Schema.Struct({
    type: Schema.Literal("session.level"),
    window: LimitWindow,
    from: LimitLevel,
    to: LimitLevel,
    usedPercent: Schema.optional(Schema.Number),
    resetsAt: Schema.optional(Instant),
    source: Schema.optional(ReadingSource)
  }),
  Schema.Struct({
    type: Schema.Literal("session.reading"),
    window: LimitWindow,
    status: LimitStatus,
    usedPercent: Schema.optional(Schema.Number),
    resetsAt: Schema.optional(Instant),
    source: ReadingSource
  }),
  Schema.Struct({
    type: Schema.Literal("handoff.changed"),
    handoff: HandoffId,
    state: HandoffState,
    platform: Schema.optional(PlatformId),
    why: Schema.optional(Schema.String)
  }),
  Schema.Struct({
    type: Schema.Literal("claude.back"),
    why: Schema.String
  })
)
export type SessionEventBody = typeof SessionEventBody.Type
