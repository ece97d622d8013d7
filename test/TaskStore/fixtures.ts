import { Effect, Option } from "effect"
import { TaskId, type TaskSubmission } from "../../src/Domain/Task.js"
import type { AttemptEnd, NewTask, TaskClaim, TaskEnd, TaskStore } from "../../src/TaskStore.js"
import { ask, codex, tenant } from "../Coordinator/harness.js"

export const idOf = (n: number): TaskId => TaskId.make(`01900000-0000-7000-8000-${String(n).padStart(12, "0")}`)

export interface TaskOptions {
  readonly key?: string
  readonly submission?: Partial<TaskSubmission>
  /** Epoch ms. */
  readonly deadline?: number
}

export const taskOf = (n: number, classId: number, options: TaskOptions = {}): NewTask => ({
  id: idOf(n),
  tenant,
  classId,
  type: "testing",
  priority: "MEDIUM",
  submission: ask(`task ${n}`, options.submission),
  request: {
    call: { messages: [{ role: "user", content: `task ${n}` }] },
    requirement: { capabilities: [], contextTokens: 10 }
  },
  deadline: options.deadline ?? 86_400_000,
  idempotency: options.key === undefined ? Option.none() : Option.some({ key: options.key, hash: `hash of ${n}` })
})

const usage = { inputTokens: 1, cachedInputTokens: 0, outputTokens: 1, reasoningTokens: 0 }
const where = { number: 1, platform: codex, model: "gpt" }

export const started = { ...where, decision: { candidates: [], excluded: [], waitedMs: 0 } }
export const answered: AttemptEnd = { ...where, durationMs: 1, outcome: { _tag: "Succeeded", usage } }
export const success: TaskEnd = {
  _tag: "Succeeded",
  attempt: Option.some(answered),
  result: { text: "yes", platform: codex, model: "gpt", usage }
}

/** Carries a claimed task to its result, by one attempt. */
export const complete = (store: TaskStore["Type"], claim: TaskClaim) =>
  Effect.zipRight(store.attemptStarted(claim, started), store.finish(claim, success))
