import { Redacted, Schema } from "effect"
import { CredentialFailure, PlatformFailure, QuotaFailure } from "../../src/Domain/Failure.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { TenantId } from "../../src/Domain/Task.js"
import type { Usage } from "../../src/Domain/Usage.js"
import type { LeaseRequest } from "../../src/ResourceManager/Dispatcher.js"
import type { PlatformLimits, PlatformSettings, SettingsShape } from "../../src/Settings.js"

export const id = Schema.decodeSync(PlatformId)
export const tenant = Schema.decodeSync(TenantId)

export const alpha = id("alpha")
export const beta = id("beta")

export const limitsOf = (limits: Partial<PlatformLimits>): PlatformLimits => ({
  tokensCounted: "reserved",
  maxConcurrent: 1_000,
  ...limits
})

export const platformOf = (
  platform: PlatformId,
  limits: Partial<PlatformLimits> = {},
  breaker: PlatformSettings["breaker"] = { failures: 3, openMs: 10_000 }
): PlatformSettings => ({
  id: platform,
  wire: "openai-chat",
  baseUrl: "http://127.0.0.1:1",
  apiKey: Redacted.make("key"),
  model: "small",
  capabilities: ["text"],
  contextWindow: 100_000,
  weight: 1,
  suitability: {
    implementation: 1,
    documentation: 1,
    testing: 1,
    architecture: 1,
    analysis: 1,
    "question-answering": 1
  },
  limits: limitsOf(limits),
  breaker,
  timeouts: { connectMs: 1_000, firstTokenMs: 1_000, betweenTokensMs: 1_000, attemptMs: 1_000 },
  prices: {}
})

export const settingsOf = (...platforms: ReadonlyArray<PlatformSettings>): SettingsShape => ({
  host: "127.0.0.1",
  port: 0,
  apiKeys: [],
  maxBodyBytes: 1_000_000,
  database: ":memory:",
  platforms,
  absent: [],
  tasks: { deadlineMs: 60_000, maxAttempts: 6, maxOutputTokens: 1_000, parkAfterMs: 30_000, livePerClass: 100 },
  health: { intervalMs: 60_000, timeoutMs: 1_000 },
  shutdownGraceMs: 1_000,
  logLevel: "Info"
})

export const candidate = (platform: PlatformId, weight = 1, notBefore?: number, model = "small") => ({
  platform,
  model,
  weight,
  notBefore
})

export const requestOf = (request: Partial<LeaseRequest> = {}): LeaseRequest => ({
  candidates: [candidate(alpha)],
  tokens: { input: 0, maxOutput: 0 },
  priority: "MEDIUM",
  tenant: tenant("local"),
  maxWaitMs: 3_600_000,
  ...request
})

export const usageOf = (inputTokens: number, outputTokens: number): Usage => ({
  inputTokens,
  cachedInputTokens: 0,
  outputTokens,
  reasoningTokens: 0
})

export const succeeded = { _tag: "Succeeded", usage: usageOf(1, 1) } as const

export const quotaFailure = (fields: Partial<ConstructorParameters<typeof QuotaFailure>[0]> = {}): QuotaFailure =>
  new QuotaFailure({ platform: alpha, message: "too many", reason: "rate", ...fields })

export const platformFailure = (
  fields: Partial<ConstructorParameters<typeof PlatformFailure>[0]> = {}
): PlatformFailure => new PlatformFailure({ platform: alpha, message: "sick", reason: "server", ...fields })

export const credentialFailure = (): CredentialFailure => new CredentialFailure({ platform: alpha, message: "bad key" })
