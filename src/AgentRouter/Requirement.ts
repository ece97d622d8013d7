import { Array as Arr, Either, Schema } from "effect"
import type { PlatformReason } from "../Domain/Failure.js"
import type { Requirement } from "../Domain/Lease.js"
import { ModelClass } from "../Domain/Platform.js"
import { costUsd, inUsd, type Price } from "../Domain/Usage.js"
import type { PlatformSettings } from "../Settings.js"

/** A platform that can serve a call, and the model it would serve it with. */
export interface Able {
  readonly settings: PlatformSettings
  readonly model: string
  /** What the call may cost there at list price, USD; absent where the model has no price. */
  readonly costUsd?: number | undefined
}

/** How far an estimate of the input may be off: what a call may cost at most counts it with this margin. */
const inputMargin = 1.25

const isClass = Schema.is(ModelClass)

const count = (tokens: number): string => tokens.toLocaleString("en-US")

/** Three digits, rounded up: what is above a bound never reads as the bound. */
export const roundedUp = (amount: number): number => {
  const digit = 10 ** (Math.floor(Math.log10(amount)) - 2)
  return Number((Math.ceil(amount / digit - 1e-9) * digit).toPrecision(3))
}

const priceOf = (platform: PlatformSettings, model: string): Price | undefined =>
  Object.hasOwn(platform.prices, model) ? platform.prices[model] : undefined

/** What the call costs there when its answer is as long as it may be; where its parts are not told, rather too much. */
const costOf = (requirement: Requirement, price: Price | undefined, margin: number): number | undefined => {
  const { contextTokens, inputTokens = contextTokens, outputTokens = contextTokens } = requirement
  return costUsd({ inputTokens: inputTokens * margin, cachedInputTokens: 0, outputTokens, reasoningTokens: 0 }, price)
}

/** What one attempt with `model` may cost there at most at list price, USD; absent where the model has no price. */
export const maxCostOf = (platform: PlatformSettings, model: string, requirement: Requirement): number | undefined =>
  costOf(requirement, priceOf(platform, model), inputMargin)

/** The most tokens one attempt may use: its input with the margin of the estimate, and the longest answer. */
export const maxTokensOf = ({ contextTokens, inputTokens = contextTokens, outputTokens = 0 }: Requirement): number =>
  Math.ceil(inputTokens * inputMargin) + outputTokens

/** The models that a platform is known to serve: its own first, those of its classes, those it has a price for. */
export const knownModels = ({ classes, model, prices }: PlatformSettings): ReadonlyArray<string> =>
  Arr.dedupe([model, ...Object.values(classes), ...Object.keys(prices)])

/**
 * The model of `platform` that serves a call which names `model`, or why there is none. The models it is known to
 * serve and the classes can be named, alone or as `platform/model`.
 */
const servedModel = (platform: PlatformSettings, model: string | undefined): Either.Either<string, string> => {
  if (model === undefined) return Either.right(platform.model)
  const serves = (name: string): boolean => knownModels(platform).includes(name)
  const prefix = `${platform.id}/`
  const name = !serves(model) && model.startsWith(prefix) ? model.slice(prefix.length) : model
  if (isClass(name)) {
    const mapped = platform.classes[name] ?? (name === "balanced" ? platform.model : undefined)
    if (mapped !== undefined) return Either.right(mapped)
    return serves(name) ? Either.right(name) : Either.left(`none of its models is of the class ${name}`)
  }
  return serves(name)
    ? Either.right(name)
    : Either.left(`it does not serve the model ${model}; its own is ${platform.model}`)
}

/**
 * Whether a platform can serve the call, and why not. It is not enough that nothing speaks against it: what a platform
 * is not known to have, it has not.
 */
export const judge = (platform: PlatformSettings, requirement: Requirement): Either.Either<Able, string> => {
  if (requirement.platform !== undefined && requirement.platform !== platform.id) {
    return Either.left(`the task asks for ${requirement.platform} only`)
  }
  if (requirement.deny?.includes(platform.id) === true) return Either.left("the task denies it")
  const obstacles: Array<string> = []
  const missing = requirement.capabilities.filter((capability) => !platform.capabilities.includes(capability))
  if (missing.length > 0) obstacles.push(`it lacks ${missing.join(", ")}`)
  if (!(requirement.contextTokens <= platform.contextWindow)) {
    obstacles.push(
      `its context window of ${count(platform.contextWindow)} tokens is smaller than the ${count(requirement.contextTokens)} the call may need`
    )
  }
  const served = servedModel(platform, requirement.model)
  if (Either.isLeft(served)) return Either.left([...obstacles, served.left].join("; "))
  const model = served.right
  const price = priceOf(platform, model)
  const { maxCostUsd, maxTokens } = requirement
  if (maxTokens !== undefined && maxTokensOf(requirement) > maxTokens) {
    obstacles.push(
      `the call may use ${count(maxTokensOf(requirement))} tokens, more than the ${count(maxTokens)} it may use at most`
    )
  }
  if (maxCostUsd !== undefined) {
    const atMost = maxCostOf(platform, model, requirement)
    if (atMost === undefined) obstacles.push(`its price is unknown: the settings have none for the model ${model}`)
    else if (!(atMost <= maxCostUsd)) {
      obstacles.push(
        `the call may cost ${inUsd(roundedUp(atMost))} there, more than the ${inUsd(maxCostUsd)} it may cost at most`
      )
    }
  }
  return obstacles.length > 0
    ? Either.left(obstacles.join("; "))
    : Either.right({ settings: platform, model, costUsd: costOf(requirement, price, 1) })
}

/** Who of `platforms` can serve the call, in their order, and why the others cannot. */
export const filter = (
  platforms: Iterable<PlatformSettings>,
  requirement: Requirement
): { readonly able: ReadonlyArray<Able>; readonly excluded: ReadonlyArray<PlatformReason> } => {
  const able: Array<Able> = []
  const excluded: Array<PlatformReason> = []
  for (const platform of platforms) {
    const judged = judge(platform, requirement)
    if (Either.isRight(judged)) able.push(judged.right)
    else excluded.push({ platform: platform.id, reason: judged.left })
  }
  return { able, excluded }
}
