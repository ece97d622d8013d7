import { Schema } from "effect"
import { LimitWindow, SessionId } from "../Domain/Session.js"
import { Instant } from "../Domain/Time.js"
import type { Result, Trouble } from "./Output.js"

/** A usage limit of the account refused the turn. `resetsAt` and `window` are there where Claude Code told them. */
export class ClaudeLimitReached extends Schema.TaggedError<ClaudeLimitReached>()("ClaudeLimitReached", {
  message: Schema.String,
  sessionId: Schema.optional(SessionId),
  window: Schema.optional(LimitWindow),
  resetsAt: Schema.optional(Instant)
}) {}

/** Nobody is logged in, or the login is no longer accepted. */
export class ClaudeNotLoggedIn extends Schema.TaggedError<ClaudeNotLoggedIn>()("ClaudeNotLoggedIn", {
  message: Schema.String
}) {}

/** The conversation does not fit into the model's context window. */
export class ClaudePromptTooLong extends Schema.TaggedError<ClaudePromptTooLong>()("ClaudePromptTooLong", {
  message: Schema.String
}) {}

/** The endpoint refused or failed for another reason than those above, after Claude Code's own retries. */
export class ClaudeApiFailed extends Schema.TaggedError<ClaudeApiFailed>()("ClaudeApiFailed", {
  message: Schema.String,
  /** HTTP status; absent where no answer came. */
  status: Schema.optional(Schema.Int),
  /** What Claude Code calls the error, such as `overloaded_error` or `billing_error`. */
  type: Schema.optional(Schema.String)
}) {}

/** Claude Code cannot be started. */
export class ClaudeNotInstalled extends Schema.TaggedError<ClaudeNotInstalled>()("ClaudeNotInstalled", {
  message: Schema.String
}) {}

/** The run took longer than it may, and was ended. */
export class ClaudeTimedOut extends Schema.TaggedError<ClaudeTimedOut>()("ClaudeTimedOut", {
  message: Schema.String,
  timeoutMs: Schema.Number
}) {}

/** Any other end without an answer: a session that is not there, too many turns, a process that broke off. */
export class ClaudeFailed extends Schema.TaggedError<ClaudeFailed>()("ClaudeFailed", {
  message: Schema.String,
  exitCode: Schema.optional(Schema.Int)
}) {}

export type ClaudeFailure =
  | ClaudeLimitReached
  | ClaudeNotLoggedIn
  | ClaudePromptTooLong
  | ClaudeApiFailed
  | ClaudeNotInstalled
  | ClaudeTimedOut
  | ClaudeFailed

/** Longest message of a failure, characters. */
const maxMessage = 2_000

const messageOf = (result: Result): string =>
  (result.result || (result.errors ?? []).join("; ") || result.subtype || "Claude Code ended without an answer").slice(
    0,
    maxMessage
  )

/** Why a run failed, by the fields of its result and of what it said before. */
export const failureOf = (result: Result, { error, refusal }: Trouble): ClaudeFailure => {
  const message = messageOf(result)
  // Older versions tell a limit by their event alone.
  if (result.api_error === "usage_limit_reached" || (refusal !== undefined && error === "rate_limit")) {
    return new ClaudeLimitReached({
      message,
      sessionId: result.session_id,
      window: refusal?.window,
      resetsAt: refusal?.resetsAt
    })
  }
  if (error === "authentication_failed") return new ClaudeNotLoggedIn({ message })
  if (result.terminal_reason === "prompt_too_long") return new ClaudePromptTooLong({ message })
  const status = result.api_error_status ?? undefined
  if (status !== undefined || error !== undefined) {
    return new ClaudeApiFailed({ message, status, type: result.api_error_type ?? error })
  }
  return new ClaudeFailed({ message })
}

/** A process that ended without a result; `stderr` is what it complained of. */
export const brokenOff = (exitCode: number | undefined, stderr: string): ClaudeFailed => {
  const complaint = stderr.trim().slice(-maxMessage)
  return new ClaudeFailed({
    message: `Claude Code ended without a result${complaint === "" ? "" : `: ${complaint}`}`,
    exitCode
  })
}
