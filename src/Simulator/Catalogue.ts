import { type RollingWindow, windowOf } from "./Limits.js"
import { defaultMaxOutputTokens } from "./Options.js"
import type { PlatformState } from "./Platform.js"

/** The platform's list of models, in its own shape. */
export const modelList = (platform: PlatformState, createdAt: number): unknown => {
  if (platform.dialect === "gemini") {
    return { models: platform.options.models.map((model) => geminiModel(platform, model)) }
  }
  if (platform.dialect === "anthropic") {
    const data = platform.options.models.map((model) => anthropicModel(model, createdAt))
    return { data, first_id: data[0]?.id ?? null, last_id: data[data.length - 1]?.id ?? null, has_more: false }
  }
  return { object: "list", data: platform.options.models.map((model) => openAiModel(platform, model, createdAt)) }
}

/** One model, in the platform's own shape. */
export const modelEntry = (platform: PlatformState, model: string, createdAt: number): unknown => {
  switch (platform.dialect) {
    case "gemini":
      return geminiModel(platform, model)
    case "anthropic":
      return anthropicModel(model, createdAt)
    default:
      return openAiModel(platform, model, createdAt)
  }
}

const anthropicModel = (model: string, createdAt: number) => ({
  type: "model",
  id: model,
  display_name: model,
  created_at: iso(createdAt * 1_000)
})

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

const fiveHoursMs = 5 * 3_600_000
const weekMs = 7 * 86_400_000
/** Parts of a window that come back at once: a twentieth of the requests, a fiftieth of the credits. */
const tickPart = 0.05
const regenPart = 0.02

/** How long until a part of a window is back, or all that is used of it where that is less, ms. */
const nextPartMs = (window: RollingWindow, part: number, now: number): number => {
  const used = window.used(now)
  return used === 0 ? window.windowMs * part : window.untilAtMost(Math.max(0, used - window.limit * part), now)
}

/** Never more than there is. */
const cents = (usd: number): string => `$${(Math.floor(usd * 100 + 1e-6) / 100).toFixed(2)}`

/**
 * Synthetic's `/v2/quotas`: its requests of five hours and its credits of seven days as they stand, each only where it is
 * limited. What is shorter or longer has no place in there.
 */
export const quotas = (platform: PlatformState, now: number, wallMs: number): unknown => {
  const requests = windowOf(platform.limiter.requests, fiveHoursMs)
  const credits = windowOf(platform.limiter.credits, weekMs)
  const instant = (inMs: number) => iso(wallMs + Math.ceil(inMs))
  const requestsLeft = requests === undefined ? 0 : Math.max(0, requests.limit - requests.used(now))
  const creditsLeft = credits === undefined ? 0 : Math.max(0, credits.limit - credits.used(now))
  return {
    ...(requests === undefined
      ? {}
      : {
          subscription: {
            limit: requests.limit,
            requests: requests.limit - requestsLeft,
            renewsAt: instant(requests.untilEmpty(now))
          },
          rollingFiveHourLimit: {
            nextTickAt: instant(nextPartMs(requests, tickPart, now)),
            tickPercent: tickPart,
            remaining: requestsLeft,
            max: requests.limit,
            limited: requestsLeft <= 0
          }
        }),
    ...(credits === undefined
      ? {}
      : {
          weeklyTokenLimit: {
            nextRegenAt: instant(nextPartMs(credits, regenPart, now)),
            percentRemaining: Math.floor((creditsLeft / credits.limit) * 10_000) / 100,
            maxCredits: cents(credits.limit),
            remainingCredits: cents(creditsLeft),
            nextRegenCredits: cents(credits.limit * regenPart)
          }
        }),
    search: { hourly: { limit: 250, requests: 0, renewsAt: iso(wallMs + 3_600_000) } },
    freeToolCalls: { limit: 0, requests: 0, renewsAt: iso(wallMs + 86_400_000) }
  }
}
