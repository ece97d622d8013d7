import type { TaskEvent } from "../Domain/Event.js"
import type { FailureView } from "../Domain/Failure.js"
import type { BucketView, PlatformView, ResourcesView } from "../Domain/Lease.js"
import type { Attempt, Task, TaskSummary } from "../Domain/Task.js"
import { counted, duration, oneLine, printable, relative, table } from "./Output.js"

/** What each scope of failure means to the person who asks why. */
const scopes: Readonly<Record<FailureView["scope"], string>> = {
  request: "the request itself was refused",
  model: "the model is not to be had there",
  credential: "the API key was refused",
  quota: "a limit of the platform was reached",
  platform: "the platform failed",
  ignored: "cut short by us"
}

/** A message as part of a sentence of ours. */
const sentence = (message: string): string => oneLine(message, 300).replace(/\.$/, "")

/** Whose fault a failure was and what the platform said of it, without a full stop. */
export const failure = (view: FailureView): string => {
  const said = [view.status === undefined ? "" : `HTTP ${view.status}`, view.code ?? ""].filter((word) => word !== "")
  const wait =
    view.resetsAt !== undefined
      ? `; it resets at ${new Date(view.resetsAt).toISOString()}`
      : view.retryAfterMs !== undefined
        ? `; it asks to wait ${duration(view.retryAfterMs)}`
        : ""
  return `${scopes[view.scope]}${said.length === 0 ? "" : ` (${said.join(", ")})`}: ${sentence(view.message)}${wait}`
}

const attemptEnd = (attempt: Attempt): string => {
  const took = attempt.durationMs === undefined ? "" : ` after ${duration(attempt.durationMs)}`
  switch (attempt.outcome) {
    case "running":
      return "is running"
    case "succeeded":
      return `answered${took}`
    case "failed":
      return `failed${took}${attempt.failure === undefined ? "" : `: ${failure(attempt.failure)}`}`
    case "interrupted":
      return `was interrupted${took} by a stop of the service; it does not count`
    case "ignored":
      return `was cut short${took} by a cancel or the task's deadline`
  }
}

const decision = ({ decision: { candidates, excluded, waitedMs } }: Attempt): string => {
  const chosen = candidates.map(({ platform, weight }) => `${platform} ${weight.toFixed(2)}`).join(", ")
  const out = excluded.map(({ platform, reason }) => `${platform} (${oneLine(reason, 120)})`).join(", ")
  return `could go to ${chosen}${out === "" ? "" : `; not to ${out}`}; waited ${duration(waitedMs)} for its turn`
}

/** How a task failed, as the end of a sentence that began with it. */
export const taskError = (error: { readonly type: string; readonly message: string }): string =>
  `failed (${error.type}): ${sentence(error.message)}`

const state = (task: Pick<Task, "state" | "waiting" | "error">, now: number): string =>
  task.state === "waiting" && task.waiting !== undefined
    ? `waiting (${oneLine(task.waiting.why, 200)}; looked at again ${relative(task.waiting.until, now)})`
    : task.state === "failed" && task.error !== undefined
      ? taskError(task.error)
      : task.state

/** A task and its attempts, told to a person. `now` is epoch ms. */
export const taskText = (task: Task, attempts: ReadonlyArray<Attempt>, now: number): string => {
  const lines = [
    `Task      ${task.id}`,
    `State     ${state(task, now)}`,
    `Type      ${task.type}, priority ${task.priority}`,
    `Submitted ${new Date(task.createdAt).toISOString()} (${relative(task.createdAt, now)})`,
    task.finishedAt === undefined
      ? `Deadline  ${new Date(task.deadline).toISOString()} (${relative(task.deadline, now)})`
      : `Finished  ${new Date(task.finishedAt).toISOString()} (${duration(task.finishedAt - task.createdAt)} after it was submitted)`,
    `Prompt    ${oneLine(task.prompt, 200)}`
  ]
  for (const attempt of attempts) {
    lines.push("", `Attempt ${attempt.number} on ${attempt.platform} (${attempt.model}) ${attemptEnd(attempt)}.`)
    lines.push(`  It ${decision(attempt)}.`)
  }
  if (attempts.length === 0) lines.push("", "No attempt yet.")
  for (const reason of task.error?.details?.reasons ?? []) {
    lines.push(`  ${reason.platform}: ${oneLine(reason.reason, 200)}`)
  }
  if (task.result !== undefined) {
    const { costUsd, model, platform, text, usage } = task.result
    const cost = costUsd === undefined ? "cost unknown" : `$${costUsd.toFixed(6)}`
    lines.push(
      "",
      `Answer of ${platform} (${model}): ${usage.inputTokens} tokens in, ${usage.outputTokens} out, ${cost}`,
      "",
      printable(text)
    )
  }
  return lines.join("\n")
}

/** Tasks as a table, in the order given. */
export const taskTable = (tasks: ReadonlyArray<TaskSummary>, now: number): string =>
  table(
    ["ID", "STATE", "PRIORITY", "TYPE", "PLATFORM", "ATTEMPTS", "SUBMITTED", "PROMPT"],
    tasks.map((task) => [
      task.id,
      task.state,
      task.priority,
      task.type,
      task.platform ?? "-",
      String(task.attempts),
      relative(task.createdAt, now),
      oneLine(task.preview, 48)
    ])
  )

/** One event of a task as a line. */
export const eventLine = (event: TaskEvent): string => {
  const at = new Date(event.at).toISOString()
  const words = (): string => {
    switch (event.type) {
      case "task.queued":
        return "queued"
      case "task.waiting":
        return `waits until ${new Date(event.until).toISOString()}: ${oneLine(event.why, 200)}`
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
    }
  }
  return `${at}  ${words()}`
}

/** Platforms as a table, and below it why any of them is not available. */
export const platformTable = (platforms: ReadonlyArray<PlatformView>, now: number): string => {
  const percent = (share: number): string => `${(share * 100).toFixed(0)} %`
  const ms = (value: number | undefined): string => (value === undefined ? "-" : duration(value))
  const reasons = platforms.flatMap(({ id, reasons }) => reasons.map((reason) => `${id}: ${oneLine(reason, 300)}`))
  return [
    table(
      ["PLATFORM", "STATUS", "BREAKER", "MODEL", "IN FLIGHT", "ATTEMPTS", "ERRORS", "P50", "P95", "CHECKED"],
      platforms.map((platform) => [
        platform.id,
        platform.status,
        platform.breaker,
        platform.model,
        String(platform.inFlight),
        String(platform.performance.attempts),
        platform.performance.attempts === 0 ? "-" : percent(platform.performance.errorRate),
        ms(platform.performance.durationMsP50),
        ms(platform.performance.durationMsP95),
        platform.checkedAt === undefined ? "never" : relative(platform.checkedAt, now)
      ])
    ),
    ...(reasons.length === 0 ? [] : ["", ...reasons])
  ].join("\n")
}

const bucketRow = (bucket: BucketView, now: number): ReadonlyArray<string> => [
  bucket.name,
  `${Math.round(bucket.used)} of ${Math.round(bucket.capacity)}`,
  bucket.nextFreeAt === undefined ? "" : `next free ${relative(bucket.nextFreeAt, now)}`,
  bucket.source
]

/** Every limit, permit, breaker and queue, told to a person. */
export const resourcesText = (view: ResourcesView, now: number): string => {
  const rows = view.platforms.flatMap(({ breaker, buckets, exhaustedUntil, permits, platform }) => [
    [platform, "attempts in flight", `${permits.inUse} of ${permits.max}`, "", "configured"],
    ...buckets.map((bucket) => [platform, ...bucketRow(bucket, now)]),
    [
      platform,
      "breaker",
      breaker.state,
      breaker.probesAt === undefined ? "" : `probes ${relative(breaker.probesAt, now)}`,
      ""
    ],
    ...(exhaustedUntil === undefined
      ? []
      : [[platform, "quota", "used up", `resets ${relative(exhaustedUntil, now)}`, "provider"]])
  ])
  const queues = (["HIGH", "MEDIUM", "LOW"] as const).map((priority) => {
    const { depth, oldestWaitMs } = view.queue[priority]
    return `${priority}: ${counted(depth, "call")}${depth === 0 ? "" : `, the oldest for ${duration(oldestWaitMs)}`}`
  })
  return [
    table(["PLATFORM", "LIMIT", "USED", "", "SOURCE"], rows),
    "",
    `Waiting for a turn - ${queues.join("; ")}`
  ].join("\n")
}
