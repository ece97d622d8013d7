import type { JobEvent, KeyEvent, PlatformEvent, ServiceEvent, TaskEvent, TaskEventBody } from "../Domain/Event.js"
import type { LimitsPatch } from "../Domain/Lease.js"
import { counted, duration, oneLine } from "./Output.js"
import { sessionEventWords } from "./SessionWords.js"
import { failure, sentence, taskError, verdictText } from "./TaskWords.js"

/** What happened at an instant, epoch ms, as a line. */
const line = (at: number, ...words: ReadonlyArray<string>): string => [new Date(at).toISOString(), ...words].join("  ")

const webhookEventWords = (event: Extract<TaskEventBody, { type: "webhook.delivered" | "webhook.failed" }>): string =>
  event.type === "webhook.delivered"
    ? `webhook delivered (attempt ${event.attempts}, status ${event.status})`
    : `webhook given up after ${counted(event.attempts, "attempt")}: ${oneLine(event.why, 200)}`

const taskEventWords = (event: TaskEvent): string => {
  switch (event.type) {
    case "task.queued":
      return "queued"
    case "task.validated":
      return verdictText(event.verdict)
    case "task.alternative":
      return `alternative ${event.step}: task ${event.child}${event.note === undefined ? "" : ` (${sentence(event.note)})`}`
    case "task.waiting":
      return `waits until ${new Date(event.until).toISOString()} at the latest: ${oneLine(event.why, 200)}`
    case "attempt.started":
      return `attempt ${event.number} on ${event.platform} (${event.model}) started after ${duration(event.waitedMs)} of waiting`
    case "attempt.succeeded":
      return `attempt ${event.number} on ${event.platform} answered`
    case "attempt.failed":
      return `attempt ${event.number} on ${event.platform} failed: ${failure(event.failure)}`
    case "attempt.interrupted":
      return `attempt ${event.number} on ${event.platform} was interrupted by a stop of the service`
    case "attempt.ignored":
      return `attempt ${event.number} on ${event.platform} was cut short`
    case "task.succeeded":
      return `succeeded on ${event.platform}`
    case "task.failed":
      return taskError(event.error)
    case "task.cancelled":
      return "cancelled"
    case "task.retried":
      return "queued again"
    case "webhook.delivered":
    case "webhook.failed":
      return webhookEventWords(event)
  }
}

/** One event of a task as a line. */
export const eventLine = (event: TaskEvent): string => line(event.at, taskEventWords(event))

const limitsInWords = (limits: LimitsPatch): string =>
  Object.entries(limits)
    .flatMap(([name, value]) => (value === undefined ? [] : [value === null ? `${name} lifted` : `${name} ${value}`]))
    .join(", ")

const platformEventWords = (event: PlatformEvent): string => {
  const ofModel = "model" in event && event.model !== undefined ? ` of ${event.model}` : ""
  const why = "why" in event && event.why !== undefined ? `: ${oneLine(event.why, 200)}` : ""
  const by =
    "attempt" in event && event.attempt !== undefined
      ? ` (attempt ${event.attempt.number} of ${oneLine(event.attempt.id, 80)})`
      : ""
  const words = (): string => {
    switch (event.type) {
      case "breaker.changed":
        return event.from === "closed" && event.to === "closed"
          ? `breaker${ofModel} recovers, ${event.capacityPercent} % of the capacity`
          : `breaker${ofModel} from ${event.from} to ${event.to}, ${event.capacityPercent} % of the capacity`
      case "quota.exhausted":
        return `quota ${event.window}${ofModel} used up until ${new Date(event.until).toISOString()}`
      case "quota.reset":
        return `quota ${event.window}${ofModel} is there again`
      case "limit.learned":
        return `limit ${event.bucket}${ofModel} learned: ${event.to}${event.from === undefined ? "" : `, before ${event.from}`}`
      case "limits.changed":
        return event.limits === null
          ? `limits set back to the settings by ${event.tenant}`
          : `limits changed by ${event.tenant}: ${limitsInWords(event.limits) || "nothing"}`
      case "platform.out":
        return `${event.model === undefined ? "" : `its model ${event.model} is `}out of service${event.until === undefined ? "" : ` until ${new Date(event.until).toISOString()}`}`
      case "platform.back":
        return event.model === undefined ? "back in service" : `its model ${event.model} is back in service`
      case "platform.status":
        return `status from ${event.from} to ${event.to}${event.reasons.length === 0 ? "" : `: ${oneLine(event.reasons.join("; "), 300)}`}`
      case "platform.drained":
        return `drained by ${event.tenant}`
      case "platform.resumed":
        return `resumed by ${event.tenant}`
      case "budget.exhausted":
        return `budget of the day used up until ${new Date(event.until).toISOString()}`
      case "budget.reset":
        return "a new day's budget"
    }
  }
  return `${words()}${why}${by}`
}

/** One event of a platform as a line. */
export const platformEventLine = (event: PlatformEvent): string => line(event.at, platformEventWords(event))

const jobEventWords = (event: JobEvent): string => {
  switch (event.type) {
    case "webhook.delivered":
    case "webhook.failed":
      return webhookEventWords(event)
    default: {
      const { cancelled, failed, succeeded, total, type } = event
      return `${type.slice("job.".length)}: ${succeeded} of ${total} succeeded, ${failed} failed, ${cancelled} cancelled`
    }
  }
}

const keyEventWords = (event: KeyEvent): string =>
  event.type === "budget.exhausted"
    ? `budget of the day used up until ${new Date(event.until).toISOString()}: ${oneLine(event.why, 200)}`
    : "a new day's budget"

/** Any event of the service as a line, with what it belongs to. */
export const serviceEventLine = (event: ServiceEvent): string => {
  if ("taskId" in event) return line(event.at, `task ${event.taskId}`, taskEventWords(event))
  if ("sessionId" in event) return line(event.at, `session ${event.sessionId}`, sessionEventWords(event))
  if ("jobId" in event) return line(event.at, `job ${event.jobId}`, jobEventWords(event))
  return "platform" in event
    ? line(event.at, `platform ${event.platform}`, platformEventWords(event))
    : line(event.at, `key ${event.tenant}`, keyEventWords(event))
}
