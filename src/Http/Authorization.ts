import { createHash, timingSafeEqual } from "node:crypto"
import type * as Headers from "@effect/platform/Headers"
import { Effect, Redacted } from "effect"
import { localTenant } from "../Domain/Access.js"
import { Unauthorized } from "../Domain/ApiError.js"
import type { TenantId } from "../Domain/Task.js"
import { type ApiKey, Settings } from "../Settings.js"

const digest = (key: Redacted.Redacted<string>): Buffer => createHash("sha256").update(Redacted.value(key)).digest()

/** Digests are of one length and every one is compared, so the time taken says nothing of any key. */
const ownerOf = (keys: ReadonlyArray<ApiKey>): ((presented: Redacted.Redacted<string>) => TenantId | undefined) => {
  const owners = keys.map(({ tenant, key }) => ({ tenant, digest: digest(key) }))
  return (presented) => {
    const candidate = digest(presented)
    return owners.reduce<TenantId | undefined>(
      (found, owner) => (timingSafeEqual(owner.digest, candidate) ? owner.tenant : found),
      undefined
    )
  }
}

/** Knows a request's tenant by its API key, in either header; without configured keys everybody is `local`. */
export const make: Effect.Effect<(headers: Headers.Headers) => TenantId | Unauthorized, never, Settings> = Effect.map(
  Settings,
  ({ apiKeys }) => {
    if (apiKeys.length === 0) return () => localTenant
    const owner = ownerOf(apiKeys)
    const unknown = new Unauthorized({ message: "The API key is not known here" })
    const missing = new Unauthorized({
      message: "Send an API key as `Authorization: Bearer <key>` or `x-api-key: <key>`"
    })
    return (headers) => {
      const authorization = headers.authorization ?? ""
      const key = headers["x-api-key"] ?? ""
      for (const presented of [authorization.slice("Bearer ".length), key]) {
        const tenant = presented === "" ? undefined : owner(Redacted.make(presented))
        if (tenant !== undefined) return tenant
      }
      return key !== "" || /^Bearer\s+\S/i.test(authorization) ? unknown : missing
    }
  }
)
