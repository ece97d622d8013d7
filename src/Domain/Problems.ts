import { ParseResult } from "effect"
import { type FieldProblem, InvalidRequest, TaskRefused } from "./ApiError.js"

const maxProblems = 50
/** Of more than these only the first are looked at. */
const maxIssues = 500
const maxProblemLength = 300

/** At most `length` characters of a text that may be long. */
export const shorten = (text: string, length: number): string =>
  text.length <= length ? text : `${text.slice(0, length)}…`

type Issue = ParseResult.ArrayFormatterIssue

const describeIssue = (issue: Issue): string => {
  switch (issue._tag) {
    case "Missing":
      return "is missing"
    case "Unexpected":
      return "is not a known field"
    default:
      return issue.message
  }
}

const isWithin = (inner: Issue, outer: Issue): boolean =>
  inner.path.length > outer.path.length && outer.path.every((key, index) => inner.path[index] === key)

/**
 * The members of a union complain one by one, and an optional field is a union too: that the field could be absent, or
 * text instead of the object whose fields are at fault, is no help.
 */
const isTelling = (issue: Issue, all: ReadonlyArray<Issue>): boolean =>
  issue._tag !== "Type" ||
  !(
    issue.message.startsWith("Expected undefined, actual") ||
    all.some((other) => other._tag !== "Unexpected" && isWithin(other, issue))
  )

/** What is expected in the words of JSON: the names of our own types say nothing to who sends it. */
const inJson = (expected: string): string => {
  if (expected.startsWith("ReadonlyArray<")) return "an array"
  return expected.startsWith("{ ") || /^[A-Z][A-Za-z]*$/.test(expected) ? "an object" : expected.replace(/\.$/, "")
}

/** One sentence of what the members of a union said of one value. */
const merge = (messages: ReadonlyArray<string>): string => {
  const expectations: Array<string> = []
  const others: Array<string> = []
  let actual = ""
  for (const message of new Set(messages)) {
    const [, expected, got] = /^Expected (.+?), actual (.*)$/s.exec(message) ?? []
    if (expected === undefined || got === undefined) others.push(message)
    else {
      expectations.push(inJson(expected))
      actual = got
    }
  }
  const expected =
    expectations.length === 0 ? [] : [`expected ${[...new Set(expectations)].join(" or ")}, got ${shorten(actual, 80)}`]
  return shorten([...others, ...expected].join("; or "), maxProblemLength)
}

/** Each field once, with all that is wrong with it. */
const problemsOf = (issue: ParseResult.ParseIssue): ReadonlyArray<FieldProblem> => {
  const issues = ParseResult.ArrayFormatter.formatIssueSync(issue).slice(0, maxIssues)
  const telling = issues.filter((issue) => isTelling(issue, issues))
  const byField = new Map<string, Array<string>>()
  for (const issue of telling.length === 0 ? issues : telling) {
    const field = shorten(issue.path.map(String).join("."), maxProblemLength)
    const messages = byField.get(field)
    if (messages !== undefined) messages.push(describeIssue(issue))
    else if (byField.size < maxProblems) byField.set(field, [describeIssue(issue)])
  }
  return Array.from(byField, ([field, messages]) => ({ field, problem: merge(messages) }))
}

const inWords = (problems: ReadonlyArray<FieldProblem>, separator: string): string => {
  const named = problems.slice(0, 3).map(({ field, problem }) => (field === "" ? problem : `${field}: ${problem}`))
  return `${named.join(separator)}${problems.length > named.length ? ` (and ${problems.length - named.length} more)` : ""}`
}

/** What is wrong with a request that could not be decoded, field by field. */
export const invalidRequest = (issue: ParseResult.ParseIssue): InvalidRequest => {
  const problems = problemsOf(issue)
  return new InvalidRequest({ message: `The request is not valid. ${inWords(problems, ". ")}`, problems })
}

/** The same of a submission that a program made, whose types do not say all that must hold. */
export const invalidSubmission = (issue: ParseResult.ParseIssue): TaskRefused => {
  const problems = problemsOf(issue)
  return new TaskRefused({ message: `the submission is not valid: ${inWords(problems, "; ")}`, problems, reasons: [] })
}
