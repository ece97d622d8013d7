import { Redacted } from "effect"

/** The longest message of a provider's that is kept, characters. */
const messageLimit = 500

// Providers quote keys, whole or masked, in their own messages.
const keyLike = [
  /\b(?:sk|gk|rk|pk|syn|key)[-_][A-Za-z0-9_*.-]{6,}/g,
  /\bAIza[A-Za-z0-9_*-]{6,}/g,
  /\bBearer\s+[^\s"',}]+/gi,
  /([?&](?:key|api_key|apikey|token)=)[^\s&"']+/gi
]

/** A text from outside without the platform's key or anything that looks like a key, cut to `limit` characters. */
export const scrub = (text: string, secret: Redacted.Redacted<string>, limit = messageLimit): string => {
  const value = Redacted.value(secret)
  let clean = text
  if (value !== "") {
    for (const form of new Set([value, encodeURIComponent(value), JSON.stringify(value).slice(1, -1)])) {
      clean = clean.split(form).join("<redacted>")
    }
  }
  for (const pattern of keyLike) {
    clean = clean.replace(pattern, (_, prefix) => `${typeof prefix === "string" ? prefix : ""}<redacted>`)
  }
  return clean.length <= limit ? clean : `${clean.slice(0, limit - 1)}…`
}
