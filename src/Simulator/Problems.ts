import { ParseResult } from "effect"
import type { FieldProblem } from "../Domain/ApiError.js"

/**
 * What was wrong with a value, by field. An optional field's alternative "nothing" is no help to anyone: of the issues
 * on one path only those of the innermost fields are kept, and the first of each.
 */
export const problemsOf = (error: ParseResult.ParseError): ReadonlyArray<FieldProblem> => {
  const issues = ParseResult.ArrayFormatter.formatErrorSync(error).map((issue) => ({
    field: issue.path.map(String).join("."),
    problem: issue.message.slice(0, 300)
  }))
  return issues.filter(
    ({ field }, index) =>
      issues.findIndex((other) => other.field === field) === index &&
      !issues.some((other) => other.field.startsWith(field === "" ? "" : `${field}.`) && other.field !== field)
  )
}
