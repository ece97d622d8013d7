import { HttpApiDecodeError } from "@effect/platform/HttpApiError"
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import { Effect, Schema } from "effect"

const maxValuesChecked = 1_000

/** Whether a JSON value holds few values in all; looks at no more than it must. */
const isSmall = (json: unknown): boolean => {
  const open: Array<unknown> = [json]
  for (let seen = 0; open.length > 0; seen++) {
    if (seen + open.length > maxValuesChecked) return false
    const value = open.pop()
    if (typeof value !== "object" || value === null) continue
    const inner: ReadonlyArray<unknown> = Array.isArray(value) ? value : Object.values(value)
    if (inner.length > maxValuesChecked) return false
    open.push(...inner)
  }
  return true
}

/**
 * Reads JSON as `schema`. All mistakes are told at once, but for values so large that to list them would hold everybody
 * else up.
 */
export const decoderOf = <A, I>(schema: Schema.Schema<A, I>) => {
  const decode = Schema.decodeUnknown(schema)
  return (json: unknown): Effect.Effect<A, HttpApiDecodeError> =>
    Effect.catchTag(
      decode(json, { errors: isSmall(json) ? "all" : "first" }),
      "ParseError",
      HttpApiDecodeError.refailParseError
    )
}

/** The same for the body of a request. */
export const payloadOf = <A, I>(schema: Schema.Schema<A, I>) => {
  const decode = decoderOf(schema)
  return (request: HttpServerRequest.HttpServerRequest): Effect.Effect<A, HttpApiDecodeError> =>
    Effect.flatMap(Effect.orDie(request.json), decode)
}
