import type { LogLevel, Redacted } from "effect"
import type { Capability, PlatformId, TokensCounted, WireFormat } from "../Domain/Platform.js"
import type { TaskType, TenantId } from "../Domain/Task.js"
import type { Price } from "../Domain/Usage.js"

/** A platform's limits. What is absent is not limited by us. */
export interface PlatformLimits {
  /** Requests in any 60 s. */
  readonly requestsPerMinute?: number | undefined
  /** Tokens in any 60 s, counted as `tokensCounted` says. */
  readonly tokensPerMinute?: number | undefined
  readonly tokensCounted: TokensCounted
  /** Requests that may start at once before `requestsPerMinute` paces them; default: the whole minute's limit. */
  readonly burst?: number | undefined
  /** Requests in any `windowMs`. */
  readonly windowRequests?: number | undefined
  /** Length of the rolling window of `windowRequests`, ms. */
  readonly windowMs?: number | undefined
  /** Attempts in flight at once. */
  readonly maxConcurrent: number
}

export interface PlatformSettings {
  readonly id: PlatformId
  readonly wire: WireFormat
  /** Without a trailing slash. */
  readonly baseUrl: string
  readonly apiKey: Redacted.Redacted<string>
  /** The model used where a task names none. */
  readonly model: string
  readonly capabilities: ReadonlyArray<Capability>
  /** Tokens, input and output together. */
  readonly contextWindow: number
  /** Multiplies the suitability; > 0. */
  readonly weight: number
  /** Score per task type, 0 to 1. */
  readonly suitability: Readonly<Record<TaskType, number>>
  readonly limits: PlatformLimits
  readonly breaker: {
    /** Consecutive platform failures that open it. */
    readonly failures: number
    /** How long it stays open before a probe, ms. */
    readonly openMs: number
  }
  readonly timeouts: {
    readonly connectMs: number
    readonly firstTokenMs: number
    readonly betweenTokensMs: number
    /** The whole attempt (`DREAM_TEAM_<ID>_TIMEOUT`). */
    readonly attemptMs: number
  }
  /** Where the health check asks; by default the platform's list of models. */
  readonly quotasUrl?: string | undefined
  /** By model. */
  readonly prices: Readonly<Record<string, Price>>
}

export interface ApiKey {
  readonly tenant: TenantId
  readonly key: Redacted.Redacted<string>
}

export interface SettingsShape {
  readonly host: string
  /** 0 = any free port. */
  readonly port: number
  /** None = no authentication, loopback only. */
  readonly apiKeys: ReadonlyArray<ApiKey>
  /** Largest request body accepted, bytes. */
  readonly maxBodyBytes: number
  /** Path of the SQLite file, or `:memory:`. */
  readonly database: string
  readonly platforms: ReadonlyArray<PlatformSettings>
  /** Known platforms that are left out, and why. */
  readonly absent: ReadonlyArray<{ readonly id: PlatformId; readonly reason: string }>
  readonly tasks: {
    /** Until a task without a deadline fails, ms. */
    readonly deadlineMs: number
    readonly maxAttempts: number
    /** Where a task names no bound of its answer, tokens. */
    readonly maxOutputTokens: number
    /** A task that cannot start for this long is parked in the database, ms. */
    readonly parkAfterMs: number
    /** Tasks kept live at once, per class. */
    readonly livePerClass: number
  }
  readonly health: {
    readonly intervalMs: number
    readonly timeoutMs: number
  }
  /** Running attempts get this long at shutdown, ms. */
  readonly shutdownGraceMs: number
  /** The least severe log entries written; default `Info`. */
  readonly logLevel?: LogLevel.Literal | undefined
}
