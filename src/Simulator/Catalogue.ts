import { longest } from "./Limits.js"
import { defaultMaxOutputTokens } from "./Options.js"
import type { PlatformState } from "./Platform.js"

/** The platform's list of models, in its own shape. */
export const modelList = (platform: PlatformState, createdAt: number): unknown => {
  if (platform.dialect === "gemini") {
    return { models: platform.options.models.map((model) => geminiModel(platform, model)) }
  }
  return { object: "list", data: platform.options.models.map((model) => openAiModel(platform, model, createdAt)) }
}

/** One model, in the platform's own shape. */
export const modelEntry = (platform: PlatformState, model: string, createdAt: number): unknown =>
  platform.dialect === "gemini" ? geminiModel(platform, model) : openAiModel(platform, model, createdAt)

const geminiModel = (platform: PlatformState, model: string) => ({
  name: `models/${model}`,
  version: "simulated",
  displayName: model,
  inputTokenLimit: platform.contextWindow,
  outputTokenLimit: platform.options.maxOutputTokens ?? defaultMaxOutputTokens,
  supportedGenerationMethods: ["generateContent", "countTokens"]
})

const openAiModel = (platform: PlatformState, model: string, createdAt: number) => ({
  id: model,
  object: "model",
  created: createdAt,
  owned_by: "simulated",
  ...(platform.dialect === "synthetic"
    ? {
        context_length: platform.contextWindow,
        pricing: { prompt: "$0.0000014", completion: "$0.0000044" }
      }
    : {})
})

const iso = (epochMs: number): string => new Date(epochMs).toISOString()

/** Synthetic's `/v2/quotas`: its longest request window as the five-hour limit, credits spent at list price. */
export const quotas = (platform: PlatformState, now: number, wallMs: number): unknown => {
  const window = longest(platform.limiter.requests)
  const max = window?.limit ?? 500
  const used = window?.used(now) ?? 0
  const remaining = max - used
  const windowMs = window?.windowMs ?? 18_000_000
  const wholeInMs = window?.untilEmpty(now) ?? 0
  const tickInMs = window === undefined || used === 0 ? windowMs / 20 : window.untilAtMost(used - 1, now)
  const maxCredits = 24
  const spent = (platform.counters.inputTokens * 1.4 + platform.counters.outputTokens * 4.4) / 1_000_000
  const remainingCredits = Math.max(0, maxCredits - spent)
  return {
    subscription: { limit: max, requests: used, renewsAt: iso(wallMs + wholeInMs) },
    search: { hourly: { limit: 250, requests: 0, renewsAt: iso(wallMs + 3_600_000) } },
    freeToolCalls: { limit: 0, requests: 0, renewsAt: iso(wallMs + 86_400_000) },
    weeklyTokenLimit: {
      nextRegenAt: iso(wallMs + 3_600_000),
      percentRemaining: Math.round((remainingCredits / maxCredits) * 10_000) / 100,
      maxCredits: `$${maxCredits.toFixed(2)}`,
      remainingCredits: `$${remainingCredits.toFixed(2)}`,
      nextRegenCredits: "$0.48"
    },
    rollingFiveHourLimit: {
      nextTickAt: iso(wallMs + tickInMs),
      tickPercent: 0.05,
      remaining,
      max,
      limited: remaining <= 0
    }
  }
}
