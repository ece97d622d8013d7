import { createHash } from "node:crypto"
import { Effect, Option } from "effect"
import { TaskRefused } from "../Domain/ApiError.js"
import type { JobSubmission } from "../Domain/Job.js"
import type { TaskSubmission } from "../Domain/Task.js"
import type { Idempotency } from "../TaskStore/Keys.js"

const maxKeyLength = 255

/** JSON in which equal values are equal texts: keys sorted, absent fields left out. */
const canonical = (value: unknown): string => {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`
  if (typeof value === "object" && value !== null) {
    const fields = Object.entries(value)
      .filter(([, field]) => field !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, field]) => `${JSON.stringify(key)}:${canonical(field)}`)
    return `{${fields.join(",")}}`
  }
  return JSON.stringify(value) ?? "null"
}

/** Tells whether two submissions under one idempotency key ask for the same. */
const requestHash = (submission: TaskSubmission | JobSubmission): string =>
  createHash("sha256").update(canonical(submission)).digest("hex")

/** A key as the store wants it, or why it cannot be used. */
export const idempotencyOf = (
  key: Option.Option<string>,
  submission: TaskSubmission | JobSubmission
): Effect.Effect<Option.Option<Idempotency>, TaskRefused> => {
  if (Option.isNone(key)) return Effect.succeedNone
  const { length } = key.value
  if (length >= 1 && length <= maxKeyLength) {
    return Effect.succeedSome({ key: key.value, hash: requestHash(submission) })
  }
  const problem = `it must have 1 to ${maxKeyLength} characters`
  return new TaskRefused({
    message: `The idempotency key cannot be used: ${problem}`,
    problems: [{ field: "Idempotency-Key", problem }],
    reasons: []
  })
}
