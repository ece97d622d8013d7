import { Schema } from "effect"

/** A JSON column holds a type's own side (instants as numbers), so that writing one is a plain JSON.stringify. */
export const jsonColumn = <A, I>(schema: Schema.Schema<A, I>): Schema.Schema<A, string> =>
  Schema.parseJson(Schema.typeSchema(schema))

/** Reads such a column. */
export const decodeColumn = <A, I>(schema: Schema.Schema<A, I>) => Schema.decode(jsonColumn(schema))
