import { ParseResult, Schema } from "effect"

/** An instant: milliseconds since the Unix epoch in programs, an ISO 8601 UTC string on the wire. */
export const Instant = Schema.transformOrFail(
  Schema.String.annotations({ jsonSchema: { type: "string", format: "date-time" } }),
  Schema.Number,
  {
    strict: true,
    decode: (text, _, ast) => {
      const epochMs = Date.parse(text)
      return Number.isNaN(epochMs)
        ? ParseResult.fail(new ParseResult.Type(ast, text, "expected an ISO 8601 instant such as 2026-11-22T12:00:00Z"))
        : ParseResult.succeed(epochMs)
    },
    encode: (epochMs) => ParseResult.succeed(new Date(epochMs).toISOString())
  }
).annotations({ identifier: "Instant" })
export type Instant = typeof Instant.Type
