import { maxCostOf, maxTokensOf } from "../AgentRouter/Requirement.js"
import { type Amount, nanoUsdOf } from "../Domain/Budget.js"
import type { AttemptFailure } from "../Domain/Failure.js"
import type { PlatformSettings } from "../Settings.js"

export const amountOf = (costUsd: number | undefined, tokens: number): Amount => ({
  nanoUsd: costUsd === undefined ? undefined : nanoUsdOf(costUsd),
  tokens
})

export const nothing: Amount = { nanoUsd: 0, tokens: 0 }

/** What one attempt may use at most: its estimated input with a margin, and the longest answer it may give. */
export const boundOf = (
  platform: PlatformSettings,
  model: string,
  tokens: { readonly input: number; readonly maxOutput: number }
): Amount => {
  const size = {
    capabilities: [],
    contextTokens: tokens.input + tokens.maxOutput,
    inputTokens: tokens.input,
    outputTokens: tokens.maxOutput
  }
  return amountOf(maxCostOf(platform, model, size), maxTokensOf(size))
}

/**
 * What a failed attempt used. A refusal costs nothing, nor does what never arrived; where the platform broke off, or
 * nobody knows how far it came, it may have used all it could.
 */
export const usedByFailure = (failure: AttemptFailure, bound: Amount): Amount => {
  if (failure._tag !== "PlatformFailure" || failure.reason === "unreachable") return nothing
  return failure.status !== undefined && failure.status >= 400 ? nothing : bound
}

/** What is to be added to books that hold `bound`, so that they hold `used`. */
export const differenceOf = (used: Amount, bound: Amount): Amount => ({
  nanoUsd: (used.nanoUsd ?? 0) - (bound.nanoUsd ?? 0),
  tokens: used.tokens - bound.tokens
})
