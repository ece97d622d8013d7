import { Clock, Effect, Either, Option, Schema } from "effect"
import type { DelegationError } from "../Delegation.js"
import type { ServiceUnavailable } from "../Domain/ApiError.js"
import { ModelClass, type PlatformId } from "../Domain/Platform.js"
import {
  type AlternativeKind,
  isTerminal,
  type TaskError,
  type TaskId,
  type TaskResult,
  type TaskSubmission
} from "../Domain/Task.js"
import { inUsd, type Usage } from "../Domain/Usage.js"
import type { SettingsShape } from "../Settings.js"
import type { Branch, Child, Ladder, NewChild } from "../TaskStore/Outcomes.js"
import type { StoredRequest } from "../TaskStore/Rows.js"
import type { ClaimedTask, TaskEnd, TaskStore } from "../TaskStore.js"
import type { TaskValidator, ValidTask } from "../TaskValidator.js"
import { conversationOf, shrinkNote, shrinkOf, shrunkTurns, summaryPrompt } from "./Alternatives/Shrink.js"
import {
  combinePrompt,
  type Done,
  joined,
  maxParts,
  minParts,
  type Plan,
  partPrompt,
  planOf,
  planPrompt
} from "./Alternatives/Split.js"

/** Kept of the task's own deadline, ms: what was found by then is still to be stored as its result. */
const reserveMs = 5_000
/** Nothing is begun that has less time than this, ms. */
const minTimeMs = 1_000
/** Other classes of models, or of platforms, that are tried. */
const maxClasses = 2
const planTokens = 4_000
/** Characters of the error of a task for which nothing helped. */
const maxErrorLength = 2_000
/** Should a task be taken up while what it waits for goes on, it is looked at again after this long, ms. */
const lookAgainMs = 30_000

/** What a task goes on with. */
export type Move =
  | { readonly _tag: "Finish"; readonly end: TaskEnd }
  | { readonly _tag: "Branch"; readonly branch: Branch }
  | { readonly _tag: "Park"; readonly until: number; readonly why: string }

/**
 * What is tried for a HIGH task whose attempts are used up, or whose context is too long for everybody: one thing after
 * the other, each as tasks of their own for which it waits. Where it stands is what is stored: which of these tasks there
 * are and how they ended.
 */
export interface Alternatives {
  /** Whether there is something to try for a task that ended so. */
  readonly apply: (task: ClaimedTask, error: DelegationError) => boolean
  /** Whether the text of its attempts that break off is worth keeping. */
  readonly keepPartials: (task: ClaimedTask) => boolean
  readonly begin: (task: ClaimedTask, error: TaskError) => Effect.Effect<Move, ServiceUnavailable>
  /** Goes on once what the task waited for has ended. */
  readonly resume: (task: ClaimedTask, ladder: Ladder) => Effect.Effect<Move, ServiceUnavailable>
}

export interface AlternativesOptions {
  readonly settings: SettingsShape["alternatives"]
  readonly store: TaskStore["Type"]
  readonly validator: TaskValidator["Type"]
  readonly nextId: Effect.Effect<TaskId>
}

/** What a step decides. */
type Outcome =
  | { readonly _tag: "Done"; readonly result: TaskResult }
  | { readonly _tag: "Make"; readonly children: ReadonlyArray<NewChild> }
  /** It has nothing to offer, or nothing more. */
  | { readonly _tag: "Next"; readonly why: string }

/** A task as one of its steps finds it. */
interface Standing {
  readonly task: ClaimedTask
  readonly request: StoredRequest
  readonly ladder: Ladder
  /** All that were made in this round, ended every one. */
  readonly children: ReadonlyArray<Child>
  /** Until when what is made now has to be done, epoch ms. */
  readonly deadline: number
  readonly now: number
}

/** A task to be made. */
interface Spec {
  readonly step: string
  readonly note?: string | undefined
  readonly submission: TaskSubmission
}

const next = (why: string): Outcome => ({ _tag: "Next", why })

const isClass = Schema.is(ModelClass)
const classes: ReadonlyArray<ModelClass> = ["best", "balanced", "fast"]

const candidatesOf = ({ route }: ValidTask): ReadonlyArray<PlatformId> => [
  ...new Set(route.candidates.map(({ platform }) => platform))
]

const nothingUsed: Usage = { inputTokens: 0, cachedInputTokens: 0, outputTokens: 0, reasoningTokens: 0 }

const plus = (a: Usage, b: Usage): Usage => ({
  inputTokens: a.inputTokens + b.inputTokens,
  cachedInputTokens: a.cachedInputTokens + b.cachedInputTokens,
  outputTokens: a.outputTokens + b.outputTokens,
  reasoningTokens: a.reasoningTokens + b.reasoningTokens
})

/** What all the tasks made for one have used, as part of its own result. */
const used = (children: ReadonlyArray<Child>): Pick<TaskResult, "usage" | "costUsd"> => {
  const results = children.flatMap(({ result }) => result ?? [])
  const costs = results.flatMap(({ costUsd }) => costUsd ?? [])
  return {
    usage: results.map(({ usage }) => usage).reduce(plus, nothingUsed),
    costUsd:
      results.length > 0 && costs.length === results.length ? costs.reduce((sum, cost) => sum + cost, 0) : undefined
  }
}

const resultOf = (child: Child | undefined): TaskResult | undefined =>
  child?.state === "succeeded" ? child.result : undefined

const ofStep = ({ children }: Standing, step: string): Child | undefined =>
  children.find((child) => child.step === step)

/** The result of one of the tasks made, as that of the task itself. */
const adopted = (standing: Standing, result: TaskResult, note: string): Outcome => ({
  _tag: "Done",
  result: {
    ...result,
    ...used(standing.children),
    note: result.note === undefined ? note : `${note}; ${result.note}`
  }
})

const howItEnded = ({ error, state, step }: Child): string =>
  error === undefined ? `${step} was ${state}` : `${step} ${state}: ${error.message}`

/** The task's own submission again, as it was claimed: with the results it waited for. */
const again = ({ request: { call, requirement }, request, task }: Standing): TaskSubmission => {
  const { prompt, turns } = conversationOf(request)
  return {
    type: task.type,
    system: call.system,
    prompt,
    context: turns.length === 0 ? undefined : turns,
    requires: requirement.capabilities,
    platform: requirement.platform,
    deny: requirement.deny,
    model: requirement.model,
    policy: requirement.policy,
    maxCostUsd: requirement.maxCostUsd,
    maxOutputTokens: call.maxOutputTokens,
    tools: call.tools,
    responseFormat: call.responseFormat
  }
}

/** A small task beside the work itself, for a fast model where there is one; only where the task itself might go. */
const helping = (
  { request: { requirement } }: Standing,
  submission: Pick<TaskSubmission, "prompt" | "maxOutputTokens" | "responseFormat">
): ReadonlyArray<TaskSubmission> => {
  const common: TaskSubmission = {
    ...submission,
    type: "analysis",
    platform: requirement.platform,
    deny: requirement.deny,
    maxCostUsd: requirement.maxCostUsd
  }
  const fast: TaskSubmission = { ...common, model: "fast", policy: "fastest" }
  return submission.responseFormat === undefined
    ? [fast, common]
    : [fast, common, { ...fast, responseFormat: undefined }, { ...common, responseFormat: undefined }]
}

export const makeAlternatives = ({ nextId, settings, store, validator }: AlternativesOptions): Alternatives => {
  /** Why no further `count` tasks may be made, where that is so. */
  const bound = ({ children, deadline, now }: Standing, count: number): string | undefined => {
    if (children.length + count > settings.maxChildren) {
      return `no more than ${settings.maxChildren} tasks may be made for it`
    }
    if (deadline - now < minTimeMs) return "its time is used up"
    return settings.maxCostUsd !== undefined && spentUsd(children) >= settings.maxCostUsd
      ? `the ${inUsd(settings.maxCostUsd)} for alternatives are used up`
      : undefined
  }

  const spentUsd = (children: ReadonlyArray<Child>): number => children.reduce((sum, child) => sum + child.spentUsd, 0)

  /** What each of `count` tasks may cost, where anything bounds it. */
  const mayCost = ({ children }: Standing, own: number | undefined, count: number): number | undefined => {
    const left = settings.maxCostUsd === undefined ? undefined : (settings.maxCostUsd - spentUsd(children)) / count
    return left === undefined ? own : Math.min(left, own ?? left)
  }

  /** The first of the variants that somebody could take: of those who could, one that `fresh` names, where it is given. */
  const prepare = (
    standing: Standing,
    kind: AlternativeKind,
    variants: ReadonlyArray<Spec>,
    count: number,
    fresh?: (valid: ValidTask) => ReadonlyArray<PlatformId>
  ): Effect.Effect<Either.Either<NewChild, string>, ServiceUnavailable> =>
    Effect.gen(function* () {
      const { task } = standing
      let why = "nobody could take it"
      for (const { note, step, submission } of variants) {
        const complete: TaskSubmission = {
          ...submission,
          priority: task.priority,
          deadline: new Date(standing.deadline).toISOString(),
          maxCostUsd: mayCost(standing, submission.maxCostUsd, count)
        }
        const able = yield* Effect.either(validator.prepare(complete, task.tenant))
        if (Either.isLeft(able)) {
          why = able.left.message
          continue
        }
        const all = candidatesOf(able.right)
        const wanted = fresh === undefined ? all : fresh(able.right)
        if (wanted.length === 0) continue
        const stale = all.filter((platform) => !wanted.includes(platform))
        const narrowed: TaskSubmission =
          stale.length === 0 ? complete : { ...complete, deny: [...(complete.deny ?? []), ...stale] }
        const valid = stale.length === 0 ? able : yield* Effect.either(validator.prepare(narrowed, task.tenant))
        if (Either.isLeft(valid)) {
          why = valid.left.message
          continue
        }
        const { call, deadline, priority, requirement, type } = valid.right
        const candidates = candidatesOf(valid.right)
        const { id: classId } = yield* store.classOf(candidates, priority)
        return Either.right({
          id: yield* nextId,
          tenant: task.tenant,
          classId,
          type,
          priority,
          submission: narrowed,
          request: { call, requirement },
          deadline,
          alternative: { kind, step, note }
        })
      }
      return Either.left(why)
    })

  const make = (
    standing: Standing,
    kind: AlternativeKind,
    specs: ReadonlyArray<ReadonlyArray<Spec>>,
    fresh?: (valid: ValidTask) => ReadonlyArray<PlatformId>
  ): Effect.Effect<Outcome, ServiceUnavailable> =>
    Effect.gen(function* () {
      const refused = bound(standing, specs.length)
      if (refused !== undefined) return next(refused)
      const children: Array<NewChild> = []
      for (const variants of specs) {
        const child = yield* prepare(standing, kind, variants, specs.length, fresh)
        if (Either.isLeft(child)) return next(child.left)
        children.push(child.right)
      }
      return { _tag: "Make", children }
    })

  const classStep = (standing: Standing): Effect.Effect<Outcome, ServiceUnavailable> =>
    Effect.gen(function* () {
      const { children, ladder, request, task } = standing
      const made = children.filter(({ kind }) => kind === "class")
      const winner = made.find((child) => resultOf(child) !== undefined)
      const result = resultOf(winner)
      if (winner !== undefined && result !== undefined) {
        return adopted(standing, result, `answered ${winner.note ?? "by another class of models"}`)
      }
      const last = made.at(-1)
      if (made.length >= maxClasses && last !== undefined) return next(howItEnded(last))

      const { capabilities, model } = request.requirement
      const own = again(standing)
      const named = model !== undefined && !isClass(model)
      const models = named ? [] : classes.filter((other) => other !== model)
      // What the call itself shows it needs is found again; only what was asked for beside it is let go.
      const relaxed: TaskSubmission = { ...own, requires: undefined }
      const step = `class-${made.length + 1}`
      const variants: ReadonlyArray<Spec> = [
        ...models.map((other) => ({
          step,
          note: `by a model of the class ${other}`,
          submission: { ...own, model: other }
        })),
        { step, note: "by a platform that was not required", submission: relaxed },
        ...models.map((other) => ({
          step,
          note: `by a model of the class ${other} on a platform that was not required`,
          submission: { ...relaxed, model: other }
        }))
      ]
      const tried = yield* store.tried([task.id, ...made.map(({ id }) => id)])
      const fresh = ({ requirement, route }: ValidTask): ReadonlyArray<PlatformId> =>
        requirement.capabilities.length === capabilities.length && requirement.model === model
          ? []
          : route.candidates.flatMap(({ model, platform }) =>
              tried.some((pair) => pair.platform === platform && (ladder.isContext || pair.model === model))
                ? []
                : [platform]
            )
      const outcome = yield* make(standing, "class", [variants], fresh)
      return outcome._tag === "Next" && last !== undefined ? next(howItEnded(last)) : outcome
    })

  const shrinkStep = (standing: Standing): Effect.Effect<Outcome, ServiceUnavailable> =>
    Effect.gen(function* () {
      const shrink = shrinkOf(standing.request, standing.ladder.isContext)
      if (shrink === undefined) return next("its conversation has nothing to shorten")
      const summary = ofStep(standing, "summary")
      const shrunk = ofStep(standing, "shrunk")
      if (summary === undefined && shrunk === undefined) {
        const variants = helping(standing, {
          prompt: summaryPrompt(shrink),
          maxOutputTokens: shrink.summaryTokens
        }).map((submission): Spec => ({ step: "summary", note: "the oldest turns in summary", submission }))
        const outcome = yield* make(standing, "shrink", [variants])
        if (outcome._tag === "Make") return outcome
      }
      const summarised = resultOf(summary)
      const note = shrinkNote(
        shrink,
        summarised === undefined ? undefined : `${summarised.platform} (${summarised.model})`
      )
      if (shrunk === undefined) {
        const submission = { ...again(standing), context: shrunkTurns(shrink, summarised?.text) }
        return yield* make(standing, "shrink", [[{ step: "shrunk", note, submission }]])
      }
      const result = resultOf(shrunk)
      return result === undefined ? next(howItEnded(shrunk)) : adopted(standing, result, shrunk.note ?? note)
    })

  /** The plan, and the answers of its parts so far. */
  const splitOf = (standing: Standing): { readonly plan: Plan; readonly done: ReadonlyArray<Done> } | undefined => {
    const planner = resultOf(ofStep(standing, "plan"))
    const plan = planner === undefined ? undefined : planOf(planner.text, maxParts)
    if (plan === undefined) return undefined
    const done = plan.parts.flatMap((part, index) => {
      const result = resultOf(ofStep(standing, `part-${index + 1}`))
      return result === undefined ? [] : [{ part, text: result.text }]
    })
    return { plan, done }
  }

  const splitStep = (standing: Standing): Effect.Effect<Outcome, ServiceUnavailable> =>
    Effect.gen(function* () {
      const { children, ladder, request } = standing
      const own = again(standing)
      if (own.tools !== undefined && own.tools.length > 0) return next("a task with tools is not divided")
      const planner = ofStep(standing, "plan")
      if (planner === undefined) {
        // The plan itself, and at last what puts the parts together.
        const atMost = Math.min(maxParts, settings.maxChildren - children.length - 2)
        if (atMost < minParts) return next(`no more than ${settings.maxChildren} tasks may be made for it`)
        const variants = helping(standing, {
          prompt: planPrompt(own.prompt, standing.task.type, atMost),
          maxOutputTokens: planTokens,
          responseFormat: { type: "json" }
        }).map((submission): Spec => ({ step: "plan", note: "how to divide it", submission }))
        return yield* make(standing, "split", [variants])
      }
      const split = splitOf(standing)
      if (split === undefined) {
        return next(planner.state === "succeeded" ? "the plan of its parts cannot be read" : howItEnded(planner))
      }
      const { done, plan } = split
      const parts = children.filter(({ step }) => step.startsWith("part-"))
      const failed = parts.find((part) => part.state !== "succeeded")
      if (failed !== undefined) return next(howItEnded(failed))
      if (done.length < plan.parts.length) {
        const shrink = shrinkOf(request, ladder.isContext)
        const context =
          shrink === undefined ? own.context : shrunkTurns(shrink, resultOf(ofStep(standing, "summary"))?.text)
        const isSequence = plan.order === "sequence"
        const specs = plan.parts.flatMap(
          (part, index): ReadonlyArray<ReadonlyArray<Spec>> =>
            index < done.length || (isSequence && index > done.length)
              ? []
              : [
                  [
                    {
                      step: `part-${index + 1}`,
                      note: part.title,
                      submission: {
                        ...own,
                        context,
                        prompt: partPrompt(own.prompt, plan, index, part, isSequence ? done : []),
                        responseFormat: undefined
                      }
                    }
                  ]
                ]
        )
        // A plan that cannot be carried to its end is not begun.
        const toMake = plan.parts.length - done.length + 1
        const refused = bound(standing, toMake)
        return refused === undefined ? yield* make(standing, "split", specs) : next(refused)
      }
      const combine = ofStep(standing, "combine")
      if (combine === undefined) {
        const submission = { ...own, context: undefined, prompt: combinePrompt(own.prompt, done) }
        const note = `puts the answers of ${done.length} parts together`
        return yield* make(standing, "split", [[{ step: "combine", note, submission }]])
      }
      const result = resultOf(combine)
      if (result === undefined) return next(howItEnded(combine))
      const isPartial = parts.some((part) => part.result?.partial === true)
      return adopted(
        standing,
        isPartial ? { ...result, partial: true } : result,
        `done in ${done.length} parts and put together`
      )
    })

  const partialStep = (standing: Standing): Effect.Effect<Outcome, ServiceUnavailable> =>
    Effect.gen(function* () {
      const { children, task } = standing
      const wholes = children.filter(({ kind, step }) => kind === "class" || step === "shrunk")
      const broken = yield* store.bestPartial([task.id, ...wholes.map(({ id }) => id)])
      const split = splitOf(standing)
      const parts = split === undefined ? "" : joined(split.done)
      const lastPart = children.findLast((child) => child.step.startsWith("part-") && resultOf(child) !== undefined)
      const from = resultOf(lastPart)
      const common = { ...used(children), partial: true } as const
      if (
        split !== undefined &&
        from !== undefined &&
        parts.length > Option.match(broken, { onNone: () => 0, onSome: ({ text }) => text.length })
      ) {
        const { platform, model } = from
        const note =
          split.done.length === split.plan.parts.length
            ? "the answers of its parts, one after the other: nobody put them together"
            : `the answers of ${split.done.length} of its ${split.plan.parts.length} parts`
        return { _tag: "Done", result: { text: parts, platform, model, ...common, note } }
      }
      if (Option.isNone(broken)) return next("no attempt has left an answer that could be used")
      const { model, number, platform, text } = broken.value
      const note = `not whole: what attempt ${number} on ${platform} had answered when it broke off`
      return { _tag: "Done", result: { text, platform, model, ...common, note } }
    })

  const steps: Readonly<Record<AlternativeKind, (standing: Standing) => Effect.Effect<Outcome, ServiceUnavailable>>> = {
    class: classStep,
    shrink: shrinkStep,
    split: splitStep,
    partial: partialStep
  }

  const advance = Effect.fn("Alternatives.advance")(function* (task: ClaimedTask, from: Ladder) {
    const now = yield* Clock.currentTimeMillis
    const children = yield* store.children(task.id, from.round)
    if (children.some(({ state }) => !isTerminal(state))) {
      return { _tag: "Park", until: now + lookAgainMs, why: "waits for its alternatives" } satisfies Move
    }
    const request = yield* task.request
    const reserved = Math.min(reserveMs, (task.deadline - now) / 10)
    const deadline = Math.floor(Math.min(task.deadline - reserved, from.startedAt + settings.maxMs))
    let ladder = from
    for (let kind = ladder.order[ladder.at]; kind !== undefined; kind = ladder.order[ladder.at]) {
      const outcome = yield* steps[kind]({ task, request, ladder, children, deadline, now })
      switch (outcome._tag) {
        case "Done":
          return {
            _tag: "Finish",
            end: { _tag: "Succeeded", attempt: Option.none(), result: outcome.result }
          } satisfies Move
        case "Make":
          return { _tag: "Branch", branch: { ladder, children: outcome.children, until: task.deadline } } satisfies Move
        case "Next":
          ladder = { ...ladder, at: ladder.at + 1, notes: [...ladder.notes, `${kind}: ${outcome.why}`] }
      }
    }
    const tried = ladder.notes.length === 0 ? "" : `. Nothing else helped: ${ladder.notes.join("; ")}`
    const error: TaskError = { ...ladder.error, message: `${ladder.error.message}${tried}`.slice(0, maxErrorLength) }
    return { _tag: "Finish", end: { _tag: "Failed", error, attention: true } } satisfies Move
  })

  const isHigh = ({ priority }: ClaimedTask): boolean => settings.enabled && priority === "HIGH"

  return {
    apply: (task, error) =>
      isHigh(task) &&
      task.parentId === undefined &&
      (error._tag === "AttemptsExhausted" || (error._tag === "CallRefused" && error.failure.reason === "context")),
    keepPartials: (task) => isHigh(task) && settings.order.includes("partial"),
    begin: (task, error) =>
      Effect.flatMap(Clock.currentTimeMillis, (startedAt) =>
        advance(task, {
          round: task.rounds + 1,
          startedAt,
          order: settings.order,
          at: 0,
          error,
          isContext: error.details?.failure?.reason === "context",
          notes: []
        })
      ),
    resume: advance
  }
}
