import { Array as Arr, Context, Effect, Either, Layer, Schema } from "effect"
import { maxTokensOf } from "./AgentRouter/Requirement.js"
import { AgentRouter, type Route } from "./AgentRouter.js"
import { Budgets } from "./Budgets.js"
import { Delegation } from "./Delegation.js"
import { type FieldProblem, RateLimited, ServiceUnavailable, TaskRefused } from "./Domain/ApiError.js"
import { type Call, estimateInputTokens, type Message } from "./Domain/Call.js"
import type { LeaseUnavailable, NoCapablePlatform } from "./Domain/Failure.js"
import type { Requirement } from "./Domain/Lease.js"
import { type Capability, ModelClass, type PlatformId } from "./Domain/Platform.js"
import type { Priority, TaskSubmission, TaskType, TenantId, Verdict } from "./Domain/Task.js"
import { epochMs, epochMsOf } from "./Domain/Time.js"
import { Platforms } from "./Platforms.js"
import { ResourceManager } from "./ResourceManager.js"
import { callbackProblems } from "./Settings/CallbackUrl.js"
import { Settings } from "./Settings.js"
import { makeEarlyCheck } from "./TaskValidator/EarlyCheck.js"
import { withinBudgets } from "./TaskValidator/WithinBudgets.js"
import { traced } from "./Telemetry/traced.js"

/** A submission with its defaults filled in and the call it makes. */
export interface ValidTask {
  readonly type: TaskType
  readonly priority: Priority
  readonly call: Call
  readonly requirement: Requirement
  readonly route: Route
  /** Epoch ms. */
  readonly deadline: number
  /** What a model found of it, where one was asked. */
  readonly verdict?: Verdict | undefined
}

/** The longest a task may take, ms: ten years; beyond it lies a mistake, or the end of what a date can hold. */
const maxDeadlineMs = 10 * 365 * 86_400_000

const hasImage = (message: Message): boolean =>
  typeof message.content !== "string" && message.content.some((part) => part.type === "image")

const callOf = (submission: TaskSubmission, maxOutputTokens: number): Call => ({
  system: submission.system,
  messages: Arr.append(submission.context ?? [], { role: "user", content: submission.prompt }),
  maxOutputTokens,
  responseFormat: submission.responseFormat,
  tools: submission.tools
})

const capabilitiesOf = (submission: TaskSubmission): ReadonlyArray<Capability> => {
  const shown: Array<Capability> = []
  if (submission.context?.some(hasImage) === true) shown.push("vision")
  if (submission.tools !== undefined && submission.tools.length > 0) shown.push("tools")
  if (submission.responseFormat?.type === "json") shown.push("json")
  return Arr.dedupe([...(submission.requires ?? []), ...shown])
}

const isClass = Schema.is(ModelClass)

/** Each demand that may leave nobody, the field it comes from, and the requirement without it, which leaves who is `able`. */
const relaxations = (
  requirement: Requirement
): ReadonlyArray<{ field: string; problem: string | ((able: string) => string); without: Requirement }> => [
  {
    field: "prompt",
    problem: `with its context and maxOutputTokens it may need ${requirement.contextTokens} tokens, more than any platform that could serve it holds: shorten it, or lower maxOutputTokens`,
    without: { ...requirement, contextTokens: 0 }
  },
  {
    field: "model",
    problem: isClass(requirement.model)
      ? `no platform that could serve the task has a model of the class ${requirement.model}`
      : `no platform that could serve the task has the model ${requirement.model}`,
    without: { ...requirement, model: undefined }
  },
  {
    field: "maxCostUsd",
    problem:
      "the task may cost more than that on every platform that could serve it, or its price is unknown: raise it, or lower maxOutputTokens",
    without: { ...requirement, maxCostUsd: undefined }
  },
  {
    field: "maxTokens",
    problem: `with the longest answer it may have, the task may use ${maxTokensOf(requirement)} tokens`,
    without: { ...requirement, maxTokens: undefined }
  },
  {
    field: "requires",
    problem: `no platform that could serve the task has all of ${requirement.capabilities.join(", ")}: ask for less`,
    without: { ...requirement, capabilities: [] }
  },
  {
    field: "platform",
    problem: `${requirement.platform} cannot serve the task, though another platform could`,
    without: { ...requirement, platform: undefined }
  },
  {
    field: "deny",
    problem: (able) => `it denies those that could serve the task as it stands: ${able}`,
    without: { ...requirement, deny: [] }
  }
]

/**
 * Refuses a task that cannot start before its deadline, and says when to try again; not where a platform that is out may
 * be back at any moment, because the task may wait for that.
 */
const refuseTooLate = (
  { earliestAt, message, reasons }: LeaseUnavailable,
  now: number
): Effect.Effect<void, RateLimited | ServiceUnavailable> => {
  const instants = reasons.flatMap(({ earliestAt }) => earliestAt ?? [])
  const limited = reasons.every(({ kind }) => kind === "limit")
  if (limited && instants.length === reasons.length && Arr.isNonEmptyArray(instants)) {
    return new RateLimited({ message, reasons, retryAfterMs: Math.max(0, Math.min(...instants) - now) })
  }
  return reasons.every(({ earliestAt, kind }) => kind === "limit" || earliestAt !== undefined)
    ? new ServiceUnavailable({
        message,
        reasons,
        retryAfterMs: earliestAt === undefined ? undefined : Math.max(0, earliestAt - now)
      })
    : Effect.void
}

const refuseInvalid = ({ model, platform, problems, suggestion }: Verdict) =>
  new TaskRefused({
    message: `the task cannot work, as ${platform} (${model}) sees it: ${problems.join("; ")}${
      suggestion === undefined ? "" : `. It suggests: ${suggestion}`
    }`,
    problems: problems.map((problem) => ({ field: "prompt", problem })),
    reasons: [],
    suggestion
  })

/**
 * Refuses before the queue what cannot work: empty, impossible deadline, nobody capable, or no start before the deadline
 * however things go; each with its reason. Where the settings say so a model is asked as well (`validation`).
 */
export class TaskValidator extends Context.Tag("dream-team/TaskValidator")<
  TaskValidator,
  {
    readonly validate: (
      submission: TaskSubmission,
      tenant: TenantId
    ) => Effect.Effect<ValidTask, TaskRefused | RateLimited | ServiceUnavailable>
    /** The same without asking a model: for tasks that the service makes itself. */
    readonly prepare: (
      submission: TaskSubmission,
      tenant: TenantId
    ) => Effect.Effect<ValidTask, TaskRefused | RateLimited | ServiceUnavailable>
  }
>() {
  static readonly layer: Layer.Layer<
    TaskValidator,
    never,
    AgentRouter | Budgets | Delegation | Platforms | ResourceManager | Settings
  > = Layer.scoped(
    TaskValidator,
    Effect.gen(function* () {
      const budgets = yield* Budgets
      const delegation = yield* Delegation
      const router = yield* AgentRouter
      const platforms = yield* Platforms
      const resources = yield* ResourceManager
      const settings = yield* Settings
      const check = yield* makeEarlyCheck({ budgets, delegation, platforms }, settings)

      const unknownPlatform = (id: PlatformId): string => {
        const absent = settings.absent.find((platform) => platform.id === id)
        const known = platforms.all.map((platform) => platform.id).join(", ")
        return absent === undefined
          ? `no platform ${id} is configured; there are: ${known}`
          : `the platform ${id} is left out: ${absent.reason}`
      }

      const isKnown = (id: PlatformId): boolean => platforms.all.some((platform) => platform.id === id)

      const deadlineOf = (deadline: TaskSubmission["deadline"], now: number): number => {
        switch (typeof deadline) {
          case "string":
            return epochMsOf(deadline)
          case "number":
            return now + deadline * 1_000
          default:
            return now + settings.tasks.deadlineMs
        }
      }

      const staticProblems = (submission: TaskSubmission, deadline: number, now: number): Array<FieldProblem> => {
        const problems: Array<FieldProblem> = []
        if (submission.prompt.trim() === "") problems.push({ field: "prompt", problem: "it is empty" })
        if (deadline <= now)
          problems.push({
            field: "deadline",
            problem: "it lies in the past: name an instant to come, or seconds from now"
          })
        if (deadline > now + maxDeadlineMs) {
          problems.push({ field: "deadline", problem: "it lies more than ten years ahead" })
        }
        const { platform, deny = [] } = submission
        if (platform !== undefined && !isKnown(platform)) {
          problems.push({ field: "platform", problem: unknownPlatform(platform) })
        }
        deny.forEach((id, index) => {
          // One that is left out may be denied all the same: the task means it for whatever is configured.
          if (!isKnown(id) && !settings.absent.some((absent) => absent.id === id)) {
            problems.push({ field: `deny.${index}`, problem: unknownPlatform(id) })
          }
        })
        if (platform !== undefined && deny.includes(platform)) {
          problems.push({ field: "deny", problem: `it denies ${platform}, the one platform the task asks for` })
        }
        problems.push(...callbackProblems(submission.callbackUrl, settings.webhooks))
        return problems
      }

      const refuseIncapable = Effect.fnUntraced(function* (
        requirement: Requirement,
        type: TaskType,
        { message, reasons }: NoCapablePlatform
      ) {
        const problems: Array<FieldProblem> = []
        for (const { field, problem, without } of relaxations(requirement)) {
          const route = yield* Effect.either(router.route(without, type))
          if (Either.isLeft(route)) continue
          const able = route.right.candidates.map(({ platform }) => platform).join(", ")
          problems.push({ field, problem: typeof problem === "string" ? problem : problem(able) })
        }
        return yield* new TaskRefused({
          message:
            reasons.length === 0
              ? message
              : `${message}: ${reasons.map(({ platform, reason }) => `${platform}: ${reason}`).join("; ")}`,
          problems,
          reasons
        })
      })

      const prepare = Effect.fnUntraced(function* (submission: TaskSubmission, tenant: TenantId) {
        const now = yield* epochMs
        const deadline = Math.round(deadlineOf(submission.deadline, now))
        const problems = staticProblems(submission, deadline, now)
        if (Arr.isNonEmptyArray(problems)) {
          return yield* new TaskRefused({
            message: `the task cannot work: ${problems.map(({ field, problem }) => `${field}: ${problem}`).join("; ")}`,
            problems,
            reasons: []
          })
        }
        const type = submission.type ?? "question-answering"
        const priority = submission.priority ?? "MEDIUM"
        const maxOutputTokens = submission.maxOutputTokens ?? settings.tasks.maxOutputTokens
        const call = callOf(submission, maxOutputTokens)
        const inputTokens = estimateInputTokens(call)
        const requirement: Requirement = {
          capabilities: capabilitiesOf(submission),
          contextTokens: inputTokens + maxOutputTokens,
          inputTokens,
          outputTokens: maxOutputTokens,
          model: submission.model,
          platform: submission.platform,
          deny: submission.deny,
          policy: submission.policy,
          // one tenant's key says nothing of another's
          affinityKey: submission.affinityKey === undefined ? undefined : `${tenant}/${submission.affinityKey}`,
          maxCostUsd: submission.maxCostUsd,
          maxTokens: submission.maxTokens
        }
        const routed = yield* Effect.catchAll(router.route(requirement, type), (none) =>
          refuseIncapable(requirement, type, none)
        )
        const tokens = { input: inputTokens, maxOutput: maxOutputTokens }
        const { inTime, route } = yield* withinBudgets(budgets, settings.platforms, {
          tenant,
          route: routed,
          tokens,
          deadline,
          now
        })
        const asked = { candidates: inTime, tokens, type, priority, tenant, maxWaitMs: deadline - now }
        yield* Effect.catchAll(resources.forecast(asked), (unavailable) => refuseTooLate(unavailable, now))
        return { type, priority, call, requirement, route, deadline } satisfies ValidTask
      }, traced("TaskValidator.prepare"))

      const prepareAndCheck = Effect.fnUntraced(function* (submission: TaskSubmission, tenant: TenantId) {
        const valid = yield* prepare(submission, tenant)
        const verdict = yield* check({ submission, tenant, type: valid.type, priority: valid.priority })
        return verdict.status === "invalid" && settings.validation.onInvalid === "refuse"
          ? yield* refuseInvalid(verdict)
          : { ...valid, verdict }
      })
      const prepared = settings.validation.enabled ? prepareAndCheck : prepare
      const validate: typeof prepare | typeof prepareAndCheck = (submission, tenant) =>
        traced("TaskValidator.validate")(prepared(submission, tenant))

      return { validate, prepare }
    })
  )
}
