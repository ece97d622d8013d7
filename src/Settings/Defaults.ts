import { Redacted } from "effect"
import { type Capability, type ModelClass, PlatformId, type PlatformWire } from "../Domain/Platform.js"
import type { TaskType } from "../Domain/Task.js"
import type { Price } from "../Domain/Usage.js"
import { databaseSetting } from "./Database.js"
import { prices } from "./prices.js"
import type { PlatformLimits, PlatformSettings, SettingsShape } from "./Shape.js"

/** Everything but the platforms, as it is where nothing is configured. */
export const defaults = {
  host: "127.0.0.1",
  port: 7337,
  apiKeys: [],
  apiKey: undefined,
  maxBodyBytes: 4 * 1024 * 1024,
  maxHeldBytes: 256 * 1024 * 1024,
  database: "dream-team.db",
  platforms: [],
  absent: [],
  tasks: {
    deadlineMs: 24 * 60 * 60_000,
    maxAttempts: 6,
    maxOutputTokens: 8192,
    parkAfterMs: 30_000,
    livePerClass: 64
  },
  retention: { tasksMs: 30 * 24 * 60 * 60_000, eventsMs: 7 * 24 * 60 * 60_000, keysMs: 24 * 60 * 60_000 },
  health: { intervalMs: 60_000, timeoutMs: 10_000 },
  routing: { policy: "balanced", hedging: false, adaptMs: 5_000 },
  validation: { enabled: false, platform: PlatformId.make("qwen"), timeoutMs: 5_000, onInvalid: "refuse" },
  alternatives: {
    enabled: true,
    order: ["class", "shrink", "split", "partial"],
    maxChildren: 8,
    maxMs: 30 * 60_000,
    maxCostUsd: undefined
  },
  webhooks: { secrets: [], allowPrivate: false, url: undefined, urlFor: "attention", expireMs: 3 * 24 * 60 * 60_000 },
  budgets: { perKey: {}, keys: {}, platforms: {} },
  sessions: {
    database: undefined,
    pollMs: 5_000,
    trigger: "critical",
    levels: { warning: 0.7, critical: 0.85, emergency: 0.95 },
    handoff: "ask",
    chain: [PlatformId.make("codex"), PlatformId.make("synthetic"), PlatformId.make("gemini")],
    quietMs: 30_000,
    table: undefined
  },
  ccr: { command: undefined, port: undefined, home: undefined },
  claude: { command: undefined, configDir: undefined },
  shutdownGraceMs: 10_000,
  logLevel: "Info"
} as const satisfies SettingsShape

/** A platform's settings but for what only the user can know: its key, and for further platforms its URL and model. */
export interface PlatformTemplate {
  readonly wire: PlatformWire
  readonly baseUrl?: string | undefined
  readonly model?: string | undefined
  readonly classes: Readonly<Partial<Record<ModelClass, string>>>
  /** The provider's own name of the variable that holds its key. */
  readonly keyVariable?: string | undefined
  readonly capabilities: ReadonlyArray<Capability>
  readonly contextWindow: number
  readonly weight: number
  readonly suitability: Readonly<Record<TaskType, number>>
  readonly limits: PlatformLimits
  readonly breaker: PlatformSettings["breaker"]
  readonly timeouts: PlatformSettings["timeouts"]
  readonly prices: Readonly<Record<string, Price>>
}

const suitability = (
  implementation: number,
  documentation: number,
  testing: number,
  architecture: number,
  analysis: number,
  questionAnswering: number
): Readonly<Record<TaskType, number>> => ({
  implementation,
  documentation,
  testing,
  architecture,
  analysis,
  "question-answering": questionAnswering
})

const breaker = { failures: 5, openMs: 60_000 }

// Reasoning models may think for minutes before their first token.
const timeouts = { connectMs: 10_000, firstTokenMs: 120_000, betweenTokensMs: 60_000, attemptMs: 600_000 }

const known = {
  /**
   * The context window stops at the 272,000 tokens up to which OpenAI's list price is flat.
   * OpenAI counts a request's input and its maximum output against the minute when it arrives.
   */
  codex: {
    wire: "openai-responses",
    baseUrl: "https://api.openai.com/v1",
    model: "gpt-6-sol",
    classes: { fast: "gpt-6-luna", best: "gpt-6-astra" },
    keyVariable: "OPENAI_API_KEY",
    capabilities: ["text", "code", "vision", "tools", "json", "long-context", "reasoning", "streaming"],
    contextWindow: 272_000,
    weight: 1,
    suitability: suitability(0.95, 0.6, 0.7, 0.8, 0.7, 0.7),
    limits: { requestsPerMinute: 60, tokensPerMinute: 500_000, tokensCounted: "reserved", maxConcurrent: 4 },
    breaker,
    timeouts,
    prices: prices.codex
  },
  /** Gemini's window and its input-only count of tokens are those of ai.google.dev. */
  gemini: {
    wire: "gemini",
    baseUrl: "https://generativelanguage.googleapis.com/v1beta",
    model: "gemini-3.8-flash",
    classes: { fast: "gemini-3.5-flash-lite", best: "gemini-3.1-pro-preview" },
    keyVariable: "GEMINI_API_KEY",
    capabilities: ["text", "code", "vision", "tools", "json", "long-context", "reasoning", "streaming"],
    contextWindow: 1_048_576,
    weight: 1,
    suitability: suitability(0.7, 0.95, 0.6, 0.8, 0.9, 0.9),
    limits: { requestsPerMinute: 60, tokensPerMinute: 1_048_576, tokensCounted: "input", maxConcurrent: 4 },
    breaker,
    timeouts,
    prices: prices.gemini
  },
  /** DashScope's international endpoint; keys are bound to their region, so a key of another one needs its base URL. */
  qwen: {
    wire: "openai-chat",
    baseUrl: "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
    model: "qwen3.8-max",
    classes: { fast: "qwen3.8-flash", best: "qwen3.8-max" },
    keyVariable: "DASHSCOPE_API_KEY",
    capabilities: ["text", "code", "tools", "json", "reasoning", "streaming"],
    contextWindow: 131_072,
    weight: 1,
    suitability: suitability(0.8, 0.7, 0.95, 0.6, 0.8, 0.8),
    limits: { requestsPerMinute: 60, tokensPerMinute: 500_000, tokensCounted: "actual", maxConcurrent: 4 },
    breaker,
    timeouts,
    prices: prices.qwen
  },
  /**
   * One pack of synthetic.new (https://synthetic.new/rate-limits): 500 requests in 5 hours, of which small models use a
   * part each; credits of 24 USD a week, spent at list price; one request at a time per model.
   */
  synthetic: {
    wire: "openai-chat",
    baseUrl: "https://api.synthetic.new/openai/v1",
    model: "hf:zai-org/GLM-5.2",
    classes: { fast: "hf:zai-org/GLM-4.7-Flash", best: "hf:moonshotai/Kimi-K3" },
    keyVariable: "SYNTHETIC_API_KEY",
    capabilities: ["text", "code", "tools", "json", "reasoning", "streaming"],
    contextWindow: 131_072,
    weight: 1,
    suitability: suitability(0.85, 0.8, 0.8, 0.7, 0.75, 0.8),
    limits: {
      tokensCounted: "actual",
      windowRequests: 500,
      windowMs: 5 * 60 * 60_000,
      windows: [{ windowMs: 7 * 24 * 60 * 60_000, costUsd: 24 }],
      maxConcurrent: 4,
      maxConcurrentPerModel: 1,
      models: { "hf:zai-org/GLM-4.7-Flash": { requestCost: 0.1 } }
    },
    breaker,
    timeouts,
    prices: prices.synthetic
  }
} as const satisfies Record<string, PlatformTemplate>

/**
 * Claude by the login of this machine's user; takes part only where it is named. Its limits are the account's own, which
 * Claude Code tells of; tools, pictures and formats stay with those asked over HTTP.
 */
const claude: PlatformTemplate = {
  wire: "claude-code",
  baseUrl: "claude -p",
  model: "sonnet",
  classes: { fast: "haiku", best: "opus" },
  capabilities: ["text", "code", "long-context", "reasoning", "streaming"],
  contextWindow: 200_000,
  weight: 1,
  suitability: suitability(0.6, 0.8, 0.7, 0.95, 0.9, 0.8),
  limits: { tokensCounted: "actual", maxConcurrent: 2 },
  breaker,
  timeouts,
  prices: {}
}

/** Any platform that is not known by name: nothing of it is assumed but OpenAI's Chat Completions. */
const further: PlatformTemplate = {
  wire: "openai-chat",
  classes: {},
  capabilities: ["text", "code", "streaming"],
  contextWindow: 131_072,
  weight: 1,
  suitability: suitability(0.7, 0.7, 0.7, 0.7, 0.7, 0.7),
  limits: { requestsPerMinute: 60, tokensCounted: "reserved", maxConcurrent: 4 },
  breaker,
  timeouts,
  prices: {}
}

/** The platform that is not among those used by default. */
const claudePlatform = "claude"

export type KnownPlatform = keyof typeof known

/** The platforms known by name, in the order in which they are used. */
export const knownPlatforms: ReadonlyArray<KnownPlatform> = ["codex", "gemini", "qwen", "synthetic"]

const isKnown = (id: string): id is KnownPlatform => Object.hasOwn(known, id)

export const templateOf = (id: string): PlatformTemplate =>
  isKnown(id) ? known[id] : id === claudePlatform ? claude : further

/**
 * Limits that a program gives, over the built-in ones. Who bounds the attempts in flight, but not those per model,
 * has replaced the built-in bound per model as well; and a built-in window's length goes with its amounts.
 */
const overDefaults = (builtIn: PlatformLimits, set: Partial<PlatformLimits>): PlatformLimits => {
  const limits = { ...builtIn, ...set }
  const isWindow = limits.windowRequests !== undefined || limits.windowTokens !== undefined
  return {
    ...limits,
    windowMs: isWindow || set.windowMs !== undefined ? limits.windowMs : undefined,
    maxConcurrentPerModel:
      "maxConcurrentPerModel" in set || set.maxConcurrent === undefined ? limits.maxConcurrentPerModel : undefined,
    models: { ...builtIn.models, ...set.models }
  }
}

/** Where Synthetic tells its quotas, next to its OpenAI endpoint. */
export const quotasUrlOf = (id: string, baseUrl: string): string | undefined =>
  id === "synthetic" && baseUrl.endsWith("/openai/v1")
    ? `${baseUrl.slice(0, -"/openai/v1".length)}/v2/quotas`
    : undefined

/** What is laid over something complete: what is absent or `undefined` stays as it is there. */
export type Overlay<T> = { readonly [K in keyof T]?: T[K] | undefined }

export const laidOver = <T extends object>(base: T, over: Overlay<T> = {}): T => ({
  ...base,
  ...Object.fromEntries(Object.entries(over).filter(([, value]) => value !== undefined))
})

/**
 * What a program says of a platform. What is absent or `undefined` is the platform's default, which for platforms that are
 * not known by name is given here as the last.
 */
export interface PlatformOptions {
  readonly apiKey: string | Redacted.Redacted<string>
  /** Known platforms have their own; others `openai-chat`. */
  readonly wire?: PlatformWire | undefined
  /** Known platforms have their own; others need one. */
  readonly baseUrl?: string | undefined
  /** Where a task names none. Known platforms have their own; others need one. */
  readonly model?: string | undefined
  /** Laid over the platform's defaults. */
  readonly classes?: Readonly<Partial<Record<ModelClass, string>>> | undefined
  /** Known platforms have their own; others `text`, `code` and `streaming`. */
  readonly capabilities?: ReadonlyArray<Capability> | undefined
  /** Tokens, input and output together. Known platforms have their own; others 131,072. */
  readonly contextWindow?: number | undefined
  /** Multiplies the suitability: at 2 the platform ranks as if it suited twice as well. More than 0; default 1. */
  readonly weight?: number | undefined
  /** Score per task type, 0 to 1, laid over the platform's defaults; others have 0.7 for each. */
  readonly suitability?: Overlay<Record<TaskType, number>> | undefined
  /**
   * Laid over the platform's defaults; `undefined` lifts a limit. `models` is laid over them model by model.
   * `maxConcurrent` without `maxConcurrentPerModel` lifts the default one per model too.
   */
  readonly limits?: Partial<PlatformLimits> | undefined
  /** Laid over the defaults: 5 failures, 60,000 ms. */
  readonly breaker?: Overlay<PlatformSettings["breaker"]> | undefined
  /** Laid over the defaults, ms: `connectMs` 10,000, `firstTokenMs` 120,000, `betweenTokensMs` 60,000, `attemptMs` 600,000. */
  readonly timeouts?: Overlay<PlatformSettings["timeouts"]> | undefined
  /** Where the health check asks; `undefined` for the platform's list of models. By default Synthetic tells its quotas. */
  readonly quotasUrl?: string | undefined
  /** By model, USD per million tokens, laid over the list prices. What a model without one costs is unknown. */
  readonly prices?: Readonly<Record<string, Price>> | undefined
}

/** A platform's complete settings: its defaults and, over them, what a program gives. */
export function platformDefaults(id: KnownPlatform, options: PlatformOptions): PlatformSettings
export function platformDefaults(
  id: string,
  options: PlatformOptions & { readonly baseUrl: string; readonly model: string }
): PlatformSettings
export function platformDefaults(id: string, options: PlatformOptions): PlatformSettings {
  const template = templateOf(id)
  const baseUrl = (options.baseUrl ?? template.baseUrl ?? "").replace(/\/+$/, "")
  return {
    id: PlatformId.make(id),
    wire: options.wire ?? template.wire,
    baseUrl,
    apiKey: typeof options.apiKey === "string" ? Redacted.make(options.apiKey) : options.apiKey,
    model: options.model ?? template.model ?? "",
    classes: { ...template.classes, ...options.classes },
    capabilities: options.capabilities ?? template.capabilities,
    contextWindow: options.contextWindow ?? template.contextWindow,
    weight: options.weight ?? template.weight,
    suitability: laidOver(template.suitability, options.suitability),
    limits: overDefaults(template.limits, options.limits ?? {}),
    breaker: laidOver(template.breaker, options.breaker),
    timeouts: laidOver(template.timeouts, options.timeouts),
    quotasUrl: "quotasUrl" in options ? options.quotasUrl : quotasUrlOf(id, baseUrl),
    prices: { ...template.prices, ...options.prices }
  }
}

export type SettingsOptions = Overlay<
  Omit<
    SettingsShape,
    | "alternatives"
    | "budgets"
    | "tasks"
    | "retention"
    | "health"
    | "routing"
    | "sessions"
    | "ccr"
    | "claude"
    | "validation"
    | "webhooks"
  >
> & {
  readonly tasks?: Overlay<SettingsShape["tasks"]> | undefined
  readonly retention?: Overlay<SettingsShape["retention"]> | undefined
  readonly health?: Overlay<SettingsShape["health"]> | undefined
  readonly routing?: Overlay<SettingsShape["routing"]> | undefined
  readonly validation?: Overlay<SettingsShape["validation"]> | undefined
  readonly alternatives?: Overlay<SettingsShape["alternatives"]> | undefined
  readonly budgets?: Overlay<SettingsShape["budgets"]> | undefined
  readonly sessions?: Overlay<SettingsShape["sessions"]> | undefined
  readonly ccr?: Overlay<SettingsShape["ccr"]> | undefined
  readonly claude?: Overlay<SettingsShape["claude"]> | undefined
  readonly webhooks?: Overlay<SettingsShape["webhooks"]> | undefined
}

/** Complete settings for an embedding program or a test: the defaults and, over them, what is given. */
export const make = ({
  alternatives,
  budgets,
  ccr,
  claude,
  health,
  retention,
  routing,
  sessions,
  tasks,
  validation,
  webhooks,
  ...options
}: SettingsOptions): SettingsShape => ({
  ...laidOver<SettingsShape>(defaults, options),
  database:
    typeof options.database === "string" ? databaseSetting(options.database) : (options.database ?? defaults.database),
  alternatives: laidOver<SettingsShape["alternatives"]>(defaults.alternatives, alternatives),
  budgets: laidOver<SettingsShape["budgets"]>(defaults.budgets, budgets),
  ccr: laidOver<SettingsShape["ccr"]>(defaults.ccr, ccr),
  claude: laidOver<SettingsShape["claude"]>(defaults.claude, claude),
  health: laidOver<SettingsShape["health"]>(defaults.health, health),
  retention: laidOver<SettingsShape["retention"]>(defaults.retention, retention),
  routing: laidOver<SettingsShape["routing"]>(defaults.routing, routing),
  sessions: laidOver<SettingsShape["sessions"]>(defaults.sessions, sessions),
  tasks: laidOver<SettingsShape["tasks"]>(defaults.tasks, tasks),
  validation: laidOver<SettingsShape["validation"]>(defaults.validation, validation),
  webhooks: laidOver<SettingsShape["webhooks"]>(defaults.webhooks, webhooks)
})
