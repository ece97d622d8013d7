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

export const HandoffId = Schema.String.pipe(
  Schema.pattern(/^[0-9a-f-]{36}$/),
  Schema.brand("HandoffId"),
  Schema.annotations({ identifier: "HandoffId" })
)
export type HandoffId = typeof HandoffId.Type

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
