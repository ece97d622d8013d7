import type { SqlClient } from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Effect, identity } from "effect"
import { type Booking, limitOf } from "../Domain/Budget.js"
import type { TaskSubmission } from "../Domain/Task.js"
import { inTurn } from "../Sql/inTurn.js"

/** A task's own budget, as columns of its row. */
export const budgetColumns = ({ maxCostUsd, maxTokens }: Pick<TaskSubmission, "maxCostUsd" | "maxTokens">) => ({
  max_nano_usd: maxCostUsd === undefined ? null : limitOf(maxCostUsd),
  max_tokens: maxTokens ?? null
})

/** What bookings add to the columns of the task they are made for. */
export const spentBy = (bookings: ReadonlyArray<Booking | undefined>): { nanoUsd: number; tokens: number } => {
  const spent = { nanoUsd: 0, tokens: 0 }
  for (const booking of bookings) {
    spent.nanoUsd += booking?.amount.nanoUsd ?? 0
    spent.tokens += booking?.amount.tokens ?? 0
  }
  return spent
}

/**
 * Adds a booking to the books of its day, of the tasks the booked one was made for, and of its job; as part of a write.
 * The books of the task itself are columns of its row.
 */
export const book = (
  sql: SqlClient,
  { amount, day, job, parents, platform, tenant }: Booking
): Effect.Effect<unknown, SqlError> => {
  const nanoUsd = amount.nanoUsd ?? 0
  const { tokens } = amount
  if (nanoUsd === 0 && tokens === 0) return Effect.void
  const ofItsDay = sql`
    INSERT INTO spending (day, kind, name, nano_usd, tokens)
    VALUES (${day}, 'platform', ${platform}, ${nanoUsd}, ${tokens}), (${day}, 'key', ${tenant}, ${nanoUsd}, ${tokens})
    ON CONFLICT (day, kind, name) DO UPDATE
    SET nano_usd = spending.nano_usd + excluded.nano_usd, tokens = spending.tokens + excluded.tokens`
  if (parents.length === 0 && job === undefined) return ofItsDay
  const added = sql`spent_nano_usd = spent_nano_usd + ${nanoUsd}, spent_tokens = spent_tokens + ${tokens}`
  return inTurn(
    [
      ofItsDay,
      ...(parents.length === 0 ? [] : [sql`UPDATE tasks SET ${added} WHERE ${sql.in("id", parents)}`]),
      ...(job === undefined ? [] : [sql`UPDATE jobs SET ${added} WHERE id = ${job}`])
    ],
    identity
  )
}
