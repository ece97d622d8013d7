import { costUsd } from "../../../src/Domain/Usage.js"
import * as TokenBounds from "../../../src/ResourceManager/TokenBounds.js"
import type { SimulatedPlatform } from "../support/Provider.js"
import type { SimulatedCall } from "./Load.js"
import type { Bounds } from "./Oracle.js"

/** The product's own rule of how much a call reserves, learning as it does. */
export const makeBounds = (platforms: ReadonlyArray<SimulatedPlatform>): Bounds => {
  const rules = new Map(platforms.map(({ id }) => [id, TokenBounds.make()]))
  const estimateOf = ({ estimatedInput, maxOutput }: SimulatedCall) => ({ input: estimatedInput, maxOutput })
  return {
    reservedFor: ({ id, limits, model, prices }, unit, call) => {
      const rule = rules.get(id)
      if (rule === undefined || unit === "requests") return 1
      const tokens = estimateOf(call)
      if (unit === "tokens") return rule.counted(call.type, tokens, limits.tokensCounted)
      const usage = {
        inputTokens: rule.input(call.type, tokens),
        cachedInputTokens: 0,
        outputTokens: rule.output(call.type, tokens),
        reasoningTokens: 0
      }
      return costUsd(usage, prices[model]) ?? 0
    },
    learn: (platform, call) => {
      const { inputTokens, outputTokens, type } = call
      const usage = { inputTokens, cachedInputTokens: 0, outputTokens, reasoningTokens: 0 }
      rules.get(platform)?.learn(type, estimateOf(call), usage)
    }
  }
}
