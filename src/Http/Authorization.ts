import { createHash, timingSafeEqual } from "node:crypto"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import { Effect, Layer, Option, Redacted } from "effect"
import { Authorization, localTenant } from "../Domain/Access.js"
import { Unauthorized } from "../Domain/ApiError.js"
import type { TenantId } from "../Domain/Task.js"
import { type ApiKey, Settings } from "../Settings.js"

const digest = (key: Redacted.Redacted<string>): Buffer => createHash("sha256").update(Redacted.value(key)).digest()

/** Digests are of one length and every one is compared, so the time taken says nothing of any key. */
const ownerOf = (keys: ReadonlyArray<ApiKey>): ((presented: Redacted.Redacted<string>) => Option.Option<TenantId>) => {
  const owners = keys.map(({ tenant, key }) => ({ tenant, digest: digest(key) }))
  return (presented) => {
    const candidate = digest(presented)
    return owners.reduce<Option.Option<TenantId>>(
      (found, owner) => (timingSafeEqual(owner.digest, candidate) ? Option.some(owner.tenant) : found),
      Option.none()
    )
  }
}

/** Knows each request's tenant by its API key; without configured keys everybody is `local`. */
export const layer: Layer.Layer<Authorization, never, Settings> = Layer.effect(
  Authorization,
  Effect.map(Settings, ({ apiKeys }) => {
    const owner = ownerOf(apiKeys)
    const unknown = new Unauthorized({ message: "The API key is not known here" })
    const missing = new Unauthorized({
      message: "Send an API key as `Authorization: Bearer <key>` or `x-api-key: <key>`"
    })
    const enter = (presented: Redacted.Redacted<string>) => {
      if (apiKeys.length === 0) return Effect.succeed(localTenant)
      if (Redacted.value(presented) !== "") {
        return Option.match(owner(presented), { onNone: () => unknown, onSome: (tenant) => Effect.succeed(tenant) })
      }
      // The framework tries one scheme after the other and tells only the last one's complaint.
      return Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers }) =>
        /^Bearer\s+\S/i.test(headers.authorization ?? "") ? unknown : missing
      )
    }
    return { bearer: enter, apiKey: enter }
  })
)
