import { createHash } from "node:crypto"
import type { TaskSubmission } from "../Domain/Task.js"

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
export const requestHash = (submission: TaskSubmission): string =>
  createHash("sha256").update(canonical(submission)).digest("hex")
