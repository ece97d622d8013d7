import type { LogLevel, Redacted } from "effect"
import type {
  Capability,
  ModelClass,
  PlatformId,
  PlatformWire,
  RoutingPolicy,
  TokensCounted
} from "../Domain/Platform.js"
import type { HandoffPolicy } from "../Domain/Session.js"
import type { AlternativeKind, TaskType, TenantId } from "../Domain/Task.js"
import type { Price } from "../Domain/Usage.js"
import type { DatabaseSetting } from "./Database.js"

/** A rolling window of a platform's limits; at least one of its amounts is there. */
export interface WindowLimit {
  /** Length, ms: one second to 31 days. */
  readonly windowMs: number
  readonly requests?: number | undefined
  /** Tokens, counted as the platform's `tokensCounted` says. */
  readonly tokens?: number | undefined
  /** What the calls cost at the platform's `prices`, USD; a model without a price counts nothing. */
  readonly costUsd?: number | undefined
}

/** The limits of one model alone, beside those of its platform. */
export interface ModelLimits {
  readonly requestsPerMinute?: number | undefined
  readonly tokensPerMinute?: number | undefined
  readonly windows?: ReadonlyArray<WindowLimit> | undefined
  readonly maxConcurrent?: number | undefined
  /** What one request counts in the request limits of windows longer than a minute; default 1. */
  readonly requestCost?: number | undefined
}

/** A platform's limits. What is absent is not limited by us, but learned where the provider shows a limit. */
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
  /** Tokens in any `windowMs`, counted as `tokensCounted` says. */
  readonly windowTokens?: number | undefined
  /** Length of the rolling window of `windowRequests` and `windowTokens`, ms. */
  readonly windowMs?: number | undefined
  /** Further rolling windows. */
  readonly windows?: ReadonlyArray<WindowLimit> | undefined
  /** Attempts in flight at once. */
  readonly maxConcurrent: number
  /** Attempts in flight at once on any one model. */
  readonly maxConcurrentPerModel?: number | undefined
  /** By model: limits of that model alone. */
  readonly models?: Readonly<Record<string, ModelLimits>> | undefined
  /** Whether the provider's own word may raise a limit above the configured one; default false. */
  readonly adapt?: boolean | undefined
}

/** What may be spent in one UTC day; what is absent is not limited. */
export interface DailyBudget {
  /** At list prices. */
  readonly usdPerDay?: number | undefined
  /** Input and output together. */
  readonly tokensPerDay?: number | undefined
}

/** What one API key may do. */
export interface KeyBudget extends DailyBudget {
  /** Submissions over HTTP in any 60 s. */
  readonly requestsPerMinute?: number | undefined
}

export interface PlatformSettings {
  readonly id: PlatformId
  readonly wire: PlatformWire
  /** Without a trailing slash; of the wire `claude-code` the program instead. */
  readonly baseUrl: string
  /** Empty for the wire `claude-code`, which has a login of its own. */
  readonly apiKey: Redacted.Redacted<string>
  /** The model used where a task names none. */
  readonly model: string
  /** Which of its models serves a class of models; `balanced` is `model` where it is absent. */
  readonly classes: Readonly<Partial<Record<ModelClass, string>>>
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
    /** Until a connection stands, ms; default 10,000. */
    readonly connectMs: number
    /** From the attempt's start until its answer begins, ms; default 120,000. */
    readonly firstTokenMs: number
    /** From one piece of an answer to the next, ms; default 60,000. */
    readonly betweenTokensMs: number
    /** The whole attempt (`DREAM_TEAM_<ID>_TIMEOUT`), ms; default 600,000. */
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

/** The levels of use that something can be done at. */
export type TriggerLevel = "warning" | "critical" | "emergency"

export interface SettingsShape {
  readonly host: string
  /** 0 = any free port. */
  readonly port: number
  /** None = no authentication, loopback only. */
  readonly apiKeys: ReadonlyArray<ApiKey>
  /** What the command line sends to the service; the first of `apiKeys` where absent. */
  readonly apiKey?: Redacted.Redacted<string> | undefined
  /** Largest request body accepted, bytes. */
  readonly maxBodyBytes: number
  /** Bytes of request bodies being read and of calls that wait, at most; beyond it the service says that it is full. */
  readonly maxHeldBytes: number
  readonly database: DatabaseSetting
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
  /** How long what is over is kept, ms. */
  readonly retention: {
    /** A task with its attempts and events, after its end. */
    readonly tasksMs: number
    readonly eventsMs: number
    /** An idempotency key stands for its task this long after it was first used. */
    readonly keysMs: number
  }
  readonly health: {
    readonly intervalMs: number
    readonly timeoutMs: number
  }
  readonly routing: {
    /** What the choice among platforms goes by where a task does not say. */
    readonly policy: RoutingPolicy
    /** Whether a HIGH call that takes unusually long is made a second time, elsewhere. */
    readonly hedging: boolean
    /** How often the weights follow what is measured, ms. */
    readonly adaptMs: number
  }
  /** The check of each submission by a model, before it is accepted. */
  readonly validation: {
    readonly enabled: boolean
    /** Who checks. */
    readonly platform: PlatformId
    /** Its model, by name or class; by default its `fast` one, or its own where it has none. */
    readonly model?: string | undefined
    /** How long one check may take, the wait for its turn included, ms; beyond it the task is accepted unchecked. */
    readonly timeoutMs: number
    /** What becomes of a task found invalid: it is refused, or accepted with the verdict noted. */
    readonly onInvalid: "refuse" | "note"
  }
  /** What is tried for a HIGH task whose attempts are used up. */
  readonly alternatives: {
    readonly enabled: boolean
    /** In this order; what is left out is not tried. */
    readonly order: ReadonlyArray<AlternativeKind>
    /** Tasks made for one such task. */
    readonly maxChildren: number
    /** For all alternatives of one task together, ms. */
    readonly maxMs: number
    /** What the alternatives of one task may cost together at list prices, USD. */
    readonly maxCostUsd?: number | undefined
  }
  /** How the ends of tasks and jobs are told over HTTP. */
  readonly webhooks: {
    /** What they are signed with, each `whsec_` and base64; a new one beside the old while receivers change over. */
    readonly secrets: ReadonlyArray<Redacted.Redacted<string>>
    /** Whether they may go to addresses that are not public, and by plain HTTP. */
    readonly allowPrivate: boolean
    /** Told of tasks that failed and need a person, or of all ends; beside a task's own `callbackUrl`. */
    readonly url?: string | undefined
    readonly urlFor: "attention" | "all"
    /** How long one is tried to be delivered, ms. */
    readonly expireMs: number
  }
  readonly budgets: {
    /** Of each API key; without keys, of everybody together. */
    readonly perKey: KeyBudget
    /** Of single keys by their tenant's name, laid over `perKey`. */
    readonly keys: Readonly<Record<string, KeyBudget>>
    /** By platform id. */
    readonly platforms: Readonly<Record<string, DailyBudget>>
  }
  /** What is done about Claude Code sessions that near a limit of their account. */
  readonly sessions: {
    /** The SQLite file into which feeds report; `sessionsDatabaseOf` says which it is where none is named. */
    readonly database?: string | undefined
    /** How often the limits are looked at, ms. */
    readonly pollMs: number
    /** The level at which a hand-off begins. */
    readonly trigger: TriggerLevel
    /** Parts of a window's limit, rising. */
    readonly levels: Readonly<Record<TriggerLevel, number>>
    /** What happens by itself to sessions of which nothing else is said. */
    readonly handoff: HandoffPolicy
    /** Who continues, in order of preference. */
    readonly chain: ReadonlyArray<PlatformId>
    /** A session is left alone until this long after it last did something, ms. */
    readonly quietMs: number
    /** An SQLite file with a table `coordination_sessions`, or the name of such a table in the database. */
    readonly table?: string | undefined
  }
  /** Claude Code Router, through which sessions are continued. */
  readonly ccr: {
    /** What starts it; `ccr`, as the `PATH` finds it, where absent. */
    readonly command?: string | undefined
    /** On 127.0.0.1; any free port, and the same again, where absent. */
    readonly port?: number | undefined
    /** The folder it has as its home; `ccr` beside the sessions database where absent. */
    readonly home?: string | undefined
  }
  /** Claude Code, as it continues sessions and does tasks. */
  readonly claude: {
    /** What starts it; `claude`, as the `PATH` finds it, where absent. */
    readonly command?: string | undefined
    /** The account that does tasks: the folder of its configuration; `~/.claude` where absent. */
    readonly configDir?: string | undefined
  }
  /** Running attempts get this long at shutdown, ms. */
  readonly shutdownGraceMs: number
  /** The least severe log entries written; default `Info`. */
  readonly logLevel?: LogLevel.Literal | undefined
}
