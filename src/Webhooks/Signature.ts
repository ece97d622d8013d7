import { createHmac } from "node:crypto"
import { Redacted } from "effect"

const prefix = "whsec_"

/**
 * The headers by which a receiver knows a webhook, as Standard Webhooks defines them
 * (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md): HMAC-SHA256 over
 * `id.timestamp.body`, once with each secret. `at` is in epoch ms.
 */
export const signedHeaders = (
  secrets: ReadonlyArray<Redacted.Redacted<string>>,
  id: string,
  at: number,
  body: string
): Readonly<Record<string, string>> => {
  const timestamp = String(Math.floor(at / 1_000))
  const signature = (secret: Redacted.Redacted<string>): string => {
    const key = Buffer.from(Redacted.value(secret).slice(prefix.length), "base64")
    return `v1,${createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64")}`
  }
  return {
    "webhook-id": id,
    "webhook-timestamp": timestamp,
    "webhook-signature": secrets.map(signature).join(" ")
  }
}
