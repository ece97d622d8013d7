import { Effect, Either, ParseResult, type Schema } from "effect"
import type { InvalidRequest } from "../Domain/ApiError.js"
import { invalidRequest } from "../Domain/Problems.js"

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
  const decode = ParseResult.decodeUnknownEither(schema)
  return (json: unknown): Effect.Effect<A, InvalidRequest> => {
    // Most of what comes is right, so the others are looked for where one was found.
    const first = decode(json)
    if (Either.isRight(first)) return Effect.succeed(first.right)
    const all = isSmall(json) ? decode(json, { errors: "all" }) : first
    return Either.isLeft(all) ? invalidRequest(all.left) : Effect.succeed(all.right)
  }
}

/** The same for the body of a request. */
export const payloadOf = <A, I>(schema: Schema.Schema<A, I>) => {
  const decode = decoderOf(schema)
  return <E>(body: Effect.Effect<unknown, E>): Effect.Effect<A, E | InvalidRequest> => Effect.flatMap(body, decode)
}
