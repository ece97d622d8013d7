import { Predicate } from "effect"

/** How many rows a statement changed, by what the driver says of it (its `raw`). */
export const changedRows = (raw: unknown): number => {
  // better-sqlite3
  if (Predicate.hasProperty(raw, "changes") && typeof raw.changes === "number") return raw.changes
  // pg
  return Predicate.hasProperty(raw, "rowCount") && typeof raw.rowCount === "number" ? raw.rowCount : 0
}
