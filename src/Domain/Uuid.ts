import { Effect, Random } from "effect"

/** A whole number in so many hexadecimal digits. */
export const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, "0")

const randomHex = (digits: number): Effect.Effect<string> =>
  Effect.map(Random.nextIntBetween(0, 16 ** digits), (value) => hex(value, digits))

/** A random UUID: version 4 of RFC 9562. */
export const randomUuid: Effect.Effect<string> = Effect.gen(function* () {
  const first = yield* randomHex(8)
  const rest = yield* Effect.all([randomHex(4), randomHex(3), randomHex(3), randomHex(6), randomHex(6)])
  const variant = hex(8 + (yield* Random.nextIntBetween(0, 4)), 1)
  return `${first}-${rest[0]}-4${rest[1]}-${variant}${rest[2]}-${rest[3]}${rest[4]}`
})
