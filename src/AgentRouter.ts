import { Context, Effect, Either, Layer } from "effect"
import { NoCapablePlatform, type PlatformReason } from "./Domain/Failure.js"
import type { Candidate, Requirement } from "./Domain/Lease.js"
import type { TaskType } from "./Domain/Task.js"
import { Platforms } from "./Platforms.js"
import type { PlatformSettings } from "./Settings.js"
import { Settings } from "./Settings.js"

export interface Route {
  /** Best first; never empty. */
  readonly candidates: ReadonlyArray<Candidate>
  readonly excluded: ReadonlyArray<PlatformReason>
}

/** The least weight: a platform that can serve a call is never shut out by a low score. */
const minWeight = 0.001

const count = (tokens: number): string => tokens.toLocaleString("en-US")

/**
 * The model of `platform` that serves a call which names `model`: its configured model and every model it has a price
 * for can be named, alone or as `platform/model`.
 */
const servedModel = (platform: PlatformSettings, model: string | undefined): string | undefined => {
  if (model === undefined) return platform.model
  const serves = (name: string): boolean => name === platform.model || Object.hasOwn(platform.prices, name)
  if (serves(model)) return model
  const prefix = `${platform.id}/`
  const rest = model.startsWith(prefix) ? model.slice(prefix.length) : undefined
  return rest !== undefined && serves(rest) ? rest : undefined
}

/** The model a platform would serve the call with, or why it cannot. */
const judge = (platform: PlatformSettings, requirement: Requirement): Either.Either<string, string> => {
  if (requirement.platform !== undefined && requirement.platform !== platform.id) {
    return Either.left(`the task asks for ${requirement.platform} only`)
  }
  if (requirement.deny?.includes(platform.id) === true) return Either.left("the task denies it")
  const missing = requirement.capabilities.filter((capability) => !platform.capabilities.includes(capability))
  if (missing.length > 0) return Either.left(`it lacks ${missing.join(", ")}`)
  const model = servedModel(platform, requirement.model)
  if (model === undefined) {
    return Either.left(`it does not serve the model ${requirement.model}; its own is ${platform.model}`)
  }
  return requirement.contextTokens > platform.contextWindow
    ? Either.left(
        `its context window of ${count(platform.contextWindow)} tokens is smaller than the ${count(requirement.contextTokens)} the call may need`
      )
    : Either.right(model)
}

/** Who suits best: filters by what a call needs, then weighs by the type of task. Says nothing of who is free. */
export class AgentRouter extends Context.Tag("dream-team/AgentRouter")<
  AgentRouter,
  {
    readonly route: (requirement: Requirement, type: TaskType) => Effect.Effect<Route, NoCapablePlatform>
  }
>() {
  static readonly layer: Layer.Layer<AgentRouter, never, Platforms | Settings> = Layer.effect(
    AgentRouter,
    Effect.gen(function* () {
      const platforms = yield* Platforms
      const { absent } = yield* Settings

      const route = Effect.fnUntraced(function* (requirement: Requirement, type: TaskType) {
        const candidates: Array<Candidate> = []
        const excluded: Array<PlatformReason> = []
        for (const { settings } of platforms.all) {
          Either.match(judge(settings, requirement), {
            onLeft: (reason) => excluded.push({ platform: settings.id, reason }),
            onRight: (model) =>
              candidates.push({
                platform: settings.id,
                model,
                weight: Math.max(minWeight, settings.suitability[type] * settings.weight)
              })
          })
        }
        if (candidates.length === 0) {
          const left = absent.map(({ id, reason }) => ({ platform: id, reason: `it is left out: ${reason}` }))
          return yield* new NoCapablePlatform({
            message: platforms.all.length === 0 ? "no platform is configured" : "no configured platform can serve this",
            reasons: [...excluded, ...left]
          })
        }
        candidates.sort((left, right) => right.weight - left.weight)
        return { candidates, excluded }
      })

      return { route }
    })
  )
}
