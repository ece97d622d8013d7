import { Either, Schema } from "effect"
import type { TaskRefused } from "../Domain/ApiError.js"
import { invalidSubmission } from "../Domain/Problems.js"

/** Refuses values that the type of a schema allows and the schema does not. */
export const makeShapeCheck = <A, I>(schema: Schema.Schema<A, I>): ((value: A) => Either.Either<A, TaskRefused>) => {
  const validate = Schema.validateEither(schema, { errors: "all", onExcessProperty: "error" })
  return (value) => Either.mapLeft(validate(value), ({ issue }) => invalidSubmission(issue))
}
