import type { JobId, TaskId, TenantId } from "../Domain/Task.js"

/** One end that is told to one URL. Instants are epoch ms. */
export interface DeliveryRow {
  readonly seq: number
  readonly tenant: TenantId
  readonly task_id: TaskId | null
  readonly job_id: JobId | null
  readonly type: string
  readonly url: string
  readonly host: string
  /** Attempts made so far. */
  readonly attempts: number
  readonly next_at: number
  /** When the task or job ended. */
  readonly at: number
  readonly expires_at: number
}

export const rowColumns = "seq, tenant, task_id, job_id, type, url, host, attempts, next_at, at, expires_at"

/** The same at every attempt, and of no other delivery, so that receivers can tell a repetition. */
export const webhookIdOf = ({ job_id, seq, task_id }: Pick<DeliveryRow, "job_id" | "seq" | "task_id">): string =>
  `msg_${task_id ?? job_id ?? ""}_${seq}`
