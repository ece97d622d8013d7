import { isRecord } from "./Request.js"
import { firstCharacters } from "./Tokens.js"

const maxDepth = 12

/** Schemas that refer to themselves would grow without end: beyond so many values the rest is null. */
const maxValues = 2_000

/** Where one value is being made. */
interface Making {
  readonly root: unknown
  readonly text: string
  left: number
}

/**
 * A value of a JSON Schema: required properties (all of them where none is required), types, enums, constants,
 * minimums, minItems, minLength, the first of alternatives, and references inside the schema. Strings hold `text`.
 * Gemini's upper-case type names are understood.
 */
export const jsonValueOf = (schema: unknown, text: string): unknown =>
  valueOf({ root: schema, text, left: maxValues }, schema, 0)

const valueOf = (making: Making, schema: unknown, depth: number): unknown => {
  making.left--
  if (!isRecord(schema) || depth > maxDepth || making.left < 0) return null
  if (typeof schema.$ref === "string") return valueOf(making, resolve(making.root, schema.$ref), depth + 1)
  if ("const" in schema) return schema.const
  if (Array.isArray(schema.enum) && schema.enum.length > 0) return schema.enum[0]
  for (const alternatives of [schema.anyOf, schema.oneOf]) {
    if (Array.isArray(alternatives) && alternatives.length > 0) return valueOf(making, alternatives[0], depth + 1)
  }
  if (Array.isArray(schema.allOf) && schema.allOf.length > 0) {
    const parts = schema.allOf.map((part) => valueOf(making, part, depth + 1))
    return parts.every(isRecord) ? Object.assign({}, ...parts) : parts[0]
  }
  const named = Array.isArray(schema.type) ? schema.type[0] : schema.type
  const type = typeof named === "string" ? named.toLowerCase() : "properties" in schema ? "object" : "string"
  switch (type) {
    case "object":
      return objectOf(making, schema, depth)
    case "array": {
      const count = typeof schema.minItems === "number" ? Math.min(Math.max(Math.ceil(schema.minItems), 1), 20) : 1
      return Array.from({ length: count }, () => valueOf(making, schema.items ?? { type: "string" }, depth + 1))
    }
    case "integer":
    case "number":
      return numberOf(schema, type === "integer" ? 1 : 0.5)
    case "boolean":
      return true
    case "null":
      return null
    default:
      return stringOf(schema, making.text)
  }
}

const objectOf = (making: Making, schema: Readonly<Record<string, unknown>>, depth: number): unknown => {
  const properties = isRecord(schema.properties) ? schema.properties : {}
  const required = Array.isArray(schema.required) ? schema.required.filter((key) => typeof key === "string") : []
  const keys = required.length > 0 ? required : Object.keys(properties)
  return Object.fromEntries(keys.map((key) => [key, valueOf(making, properties[key] ?? {}, depth + 1)]))
}

const numberOf = (schema: Readonly<Record<string, unknown>>, step: number): number => {
  const from =
    typeof schema.minimum === "number"
      ? schema.minimum
      : typeof schema.exclusiveMinimum === "number"
        ? schema.exclusiveMinimum + step
        : step
  return typeof schema.maximum === "number" ? Math.min(from, schema.maximum) : from
}

const stringOf = (schema: Readonly<Record<string, unknown>>, text: string): string => {
  const least = typeof schema.minLength === "number" ? Math.min(schema.minLength, 10_000) : 0
  const most = typeof schema.maxLength === "number" ? Math.max(0, schema.maxLength) : Number.POSITIVE_INFINITY
  return firstCharacters(text.padEnd(least, "."), most)
}

const resolve = (root: unknown, reference: string): unknown =>
  reference
    .replace(/^#\/?/, "")
    .split("/")
    .filter((key) => key !== "")
    .reduce<unknown>(
      (at, key) => (isRecord(at) ? at[key.replaceAll("~1", "/").replaceAll("~0", "~")] : undefined),
      root
    )
