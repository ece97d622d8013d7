import { type Call, estimateInputTokens, type LimitReading, type ToolCall } from "../Domain/Call.js"
import {
  type AttemptFailure,
  CredentialFailure,
  ModelFailure,
  PlatformFailure,
  QuotaFailure,
  RequestFailure
} from "../Domain/Failure.js"
import type { PlatformId } from "../Domain/Platform.js"
import type { Usage } from "../Domain/Usage.js"
import type { CheckResult } from "../Platforms.js"
import type { Overlay } from "../Settings/Defaults.js"
import type { PlatformOptions } from "../Settings.js"

/** A failure, made for the platform and model that meet it. */
export type Failing = (platform: PlatformId, model: string) => AttemptFailure

/** What one attempt meets. Times are ms from its start. */
export type Step =
  | {
      readonly _tag: "Answer"
      readonly text: string | ((call: Call) => string)
      readonly toolCalls: ReadonlyArray<ToolCall>
      readonly firstTokenAfterMs: number
      readonly afterMs: number
      readonly usage: Usage | undefined
      readonly limits: ReadonlyArray<LimitReading>
      readonly isCut: boolean
    }
  | { readonly _tag: "Fail"; readonly failing: Failing; readonly afterMs: number; readonly text?: string | undefined }
  /** Never answers, until it is interrupted. */
  | { readonly _tag: "Hang" }
  /** The client itself has a bug and dies. */
  | { readonly _tag: "Break"; readonly defect: unknown }

/** What one health check meets. */
export type CheckStep =
  | { readonly _tag: "Pass"; readonly result: CheckResult; readonly afterMs: number }
  | Exclude<Step, { _tag: "Answer" }>

/** One attempt as it arrives. `number` counts those of its platform from 1. */
export interface ScriptedAttempt {
  readonly number: number
  readonly model: string
  readonly call: Call
}

/** A platform that does as it is told. Of a list, each arrival takes the next step, and the last step repeats. */
export interface Script {
  readonly id: string
  /** Laid over settings that have every capability, no limits but 4 attempts at once, and equal suitability. */
  readonly settings?: Overlay<PlatformOptions> | undefined
  /** By default every attempt is answered at once. */
  readonly attempts?: ReadonlyArray<Step> | ((attempt: ScriptedAttempt) => Step) | undefined
  /** By default every check passes at once. */
  readonly checks?: ReadonlyArray<CheckStep> | ((number: number) => CheckStep) | undefined
}

/** Answers `text` (or what it makes of the call) after `afterMs` ms, 0 by default. */
export const answer = (
  text: string | ((call: Call) => string),
  options: {
    readonly afterMs?: number | undefined
    /** ms from the attempt's start. Default: with the rest. */
    readonly firstTokenAfterMs?: number | undefined
    /** Default: estimated from the texts. */
    readonly usage?: Usage | undefined
    /** Default none. */
    readonly toolCalls?: ReadonlyArray<ToolCall> | undefined
    /** What the answer's headers say of the platform's limits; default nothing. */
    readonly limits?: ReadonlyArray<LimitReading> | undefined
    /** Whether it is cut by the bound of its length; default no. */
    readonly isCut?: boolean | undefined
  } = {}
): Step => {
  const afterMs = options.afterMs ?? 0
  return {
    _tag: "Answer",
    text,
    toolCalls: options.toolCalls ?? [],
    afterMs,
    firstTokenAfterMs: Math.min(options.firstTokenAfterMs ?? afterMs, afterMs),
    usage: options.usage,
    limits: options.limits ?? [],
    isCut: options.isCut ?? false
  }
}

/** Fails after `afterMs` ms, 0 by default; an attempt may have sent the beginning of an answer (`text`) before. */
export const fail = (
  failing: Failing,
  options: { readonly afterMs?: number | undefined; readonly text?: string | undefined } = {}
): Extract<Step, { _tag: "Fail" }> => ({
  _tag: "Fail",
  failing,
  afterMs: options.afterMs ?? 0,
  text: options.text
})

/** Never answers. The timeouts of its platform's settings end it, by default after 120 s, as they end one over HTTP. */
export const hang: Extract<Step, { _tag: "Hang" }> = { _tag: "Hang" }

/** Dies with `defect`, as a client with a bug does. */
export const breakWith = (defect: unknown): Extract<Step, { _tag: "Break" }> => ({ _tag: "Break", defect })

/** The health check passes, after `afterMs` ms, 0 by default. */
export const pass = (
  options: {
    readonly afterMs?: number | undefined
    /** What it shows of the platform's limits; default nothing. */
    readonly readings?: ReadonlyArray<LimitReading> | undefined
    /** The models it shows; default none. */
    readonly models?: ReadonlyArray<string> | undefined
  } = {}
): CheckStep => ({
  _tag: "Pass",
  result: { models: options.models ?? [], readings: options.readings ?? [] },
  afterMs: options.afterMs ?? 0
})

/** One failure of each kind; `message` has a default that says which it is. */
export const failures = {
  invalid:
    (message = "the request is invalid"): Failing =>
    (platform, model) =>
      new RequestFailure({ platform, model, status: 400, reason: "invalid", message }),
  policy:
    (message = "the content policy forbids it"): Failing =>
    (platform, model) =>
      new RequestFailure({ platform, model, status: 400, reason: "policy", message }),
  context:
    (message = "the context is too long"): Failing =>
    (platform, model) =>
      new RequestFailure({ platform, model, status: 400, reason: "context", message }),
  model:
    (
      options: {
        readonly message?: string | undefined
        /** When the model can be asked again, epoch ms by the test's clock. */
        readonly resetsAt?: number | undefined
      } = {}
    ): Failing =>
    (platform, model) =>
      new ModelFailure({
        platform,
        model,
        status: 404,
        message: options.message ?? "the model is unknown",
        resetsAt: options.resetsAt
      }),
  credential:
    (message = "the key is wrong"): Failing =>
    (platform, model) =>
      new CredentialFailure({ platform, model, status: 401, message }),
  quota:
    (
      options: {
        readonly message?: string | undefined
        /** Default `rate`. */
        readonly reason?: QuotaFailure["reason"] | undefined
        /** How long to wait, from the failure on, ms. */
        readonly retryAfterMs?: number | undefined
        /** When the limit is reset, epoch ms by the test's clock. */
        readonly resetsAt?: number | undefined
        /** The limit's name. */
        readonly window?: string | undefined
        /** What the limit counts. */
        readonly unit?: "requests" | "tokens" | undefined
        /** The limit itself, in that unit. */
        readonly limit?: number | undefined
        /** Length of the limit's window, ms. */
        readonly windowMs?: number | undefined
        /** Whether the limit is the model's alone; default the whole platform's. */
        readonly perModel?: boolean | undefined
      } = {}
    ): Failing =>
    (platform, model) =>
      new QuotaFailure({
        ...options,
        reason: options.reason ?? "rate",
        message: options.message ?? "a limit is reached",
        platform,
        model,
        status: 429
      }),
  platform:
    (
      options: {
        readonly message?: string | undefined
        /** Default `server`. */
        readonly reason?: PlatformFailure["reason"] | undefined
        /** How long to wait, from the failure on, ms. */
        readonly retryAfterMs?: number | undefined
      } = {}
    ): Failing =>
    (platform, model) =>
      new PlatformFailure({
        platform,
        model,
        status: 503,
        reason: options.reason ?? "server",
        message: options.message ?? "the platform is down",
        retryAfterMs: options.retryAfterMs
      })
}

/** Text and usage of an answer to `call`. */
export const answerOf = (step: Extract<Step, { _tag: "Answer" }>, call: Call): { text: string; usage: Usage } => {
  const text = typeof step.text === "string" ? step.text : step.text(call)
  return {
    text,
    usage: step.usage ?? {
      inputTokens: estimateInputTokens(call),
      cachedInputTokens: 0,
      outputTokens: Math.ceil(text.length / 4),
      reasoningTokens: 0
    }
  }
}
