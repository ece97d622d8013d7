import type { SqlClient } from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Effect } from "effect"
import type { JobId, TaskId, WebhookStatus } from "../Domain/Task.js"

/** What became of telling the latest end of a task or job to its `callbackUrl`; nothing where that was not to be told. */
export const webhookOf = (
  sql: SqlClient,
  column: "task_id" | "job_id",
  id: TaskId | JobId,
  url: string
): Effect.Effect<WebhookStatus | undefined, SqlError> =>
  Effect.map(
    sql<{
      readonly state: WebhookStatus["state"]
      readonly attempts: number
      readonly last_status: number | null
      readonly last_error: string | null
      readonly next_at: number | null
    }>`
      SELECT state, attempts, last_status, last_error, next_at FROM deliveries
      WHERE ${sql(column)} = ${id} AND url = ${url} ORDER BY seq DESC LIMIT 1`,
    ([row]) =>
      row === undefined
        ? undefined
        : {
            state: row.state,
            attempts: row.attempts,
            lastStatus: row.last_status ?? undefined,
            lastError: row.last_error ?? undefined,
            nextAt: row.next_at ?? undefined
          }
  )
