import { Schema } from "effect"
import { CredentialFailure, PlatformFailure, QuotaFailure } from "../../src/Domain/Failure.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { TenantId } from "../../src/Domain/Task.js"
import type { Usage } from "../../src/Domain/Usage.js"
import type { LeaseRequest } from "../../src/ResourceManager/Dispatcher.js"
import { type PlatformLimits, type PlatformSettings, Settings, type SettingsShape } from "../../src/Settings.js"

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
  ...Settings.platformDefaults(platform, { apiKey: "key", baseUrl: "http://127.0.0.1:1", model: "small", breaker }),
  limits: limitsOf(limits)
})

export const settingsOf = (...platforms: ReadonlyArray<PlatformSettings>): SettingsShape =>
  Settings.make({ port: 0, database: ":memory:", platforms })

export const candidate = (platform: PlatformId, weight = 1, notBefore?: number, model = "small") => ({
  platform,
  model,
  weight,
  notBefore
})

export const requestOf = (request: Partial<LeaseRequest> = {}): LeaseRequest => ({
  candidates: [candidate(alpha)],
  tokens: { input: 0, maxOutput: 0 },
  type: "question-answering",
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
