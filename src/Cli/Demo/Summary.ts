import { percentile } from "../../Benchmark/percentile.js"
import type { Attempt, Priority, TaskSummary } from "../../Domain/Task.js"
import type { Stats } from "../../Simulator.js"
import { counted, duration, table } from "../Output.js"

export interface PrioritySummary {
  /** Tasks that succeeded. */
  readonly count: number
  /** From submission to the first attempt, ms. */
  readonly waitMsP50: number
  readonly waitMsP99: number
}

export interface PlatformSummary {
  /** Tasks it answered. */
  readonly succeeded: number
  readonly attempts: number
  readonly failedAttempts: number
  /** Input and output, as the platform counted them. */
  readonly tokens: number
  readonly durationMsP50: number
  readonly durationMsP95: number
}

/** What `demo --json` prints. */
export interface Summary {
  readonly tasks: {
    readonly submitted: number
    readonly succeeded: number
    readonly failed: number
    /** Accepted, but not ended. */
    readonly lost: number
  }
  readonly byPlatform: Readonly<Record<string, PlatformSummary>>
  readonly byPriority: Readonly<Record<Priority, PrioritySummary>>
  /** Attempts that failed and were followed by one on another platform. */
  readonly failovers: number
  /** Requests that a platform refused because a limit of its own forbade them. */
  readonly limitViolations: number
  /** From the first submission to the last answer, ms. */
  readonly wallMs: number
}

/** In whole ms; 0 where there is nothing to measure. */
const wholeMs = (values: ReadonlyArray<number>, share: number): number => Math.round(percentile(values, share) ?? 0)

const failoversOf = (attempts: ReadonlyArray<Attempt>): number =>
  attempts.filter((attempt, index) => {
    const next = attempts[index + 1]
    return attempt.outcome === "failed" && next !== undefined && next.platform !== attempt.platform
  }).length

const waitsOf = (tasks: ReadonlyArray<TaskSummary>, priority: Priority): PrioritySummary => {
  const own = tasks.filter((task) => task.priority === priority)
  const waits = own.flatMap(({ startedAt, createdAt }) => (startedAt === undefined ? [] : [startedAt - createdAt]))
  const count = own.filter(({ state }) => state === "succeeded").length
  return { count, waitMsP50: wholeMs(waits, 0.5), waitMsP99: wholeMs(waits, 0.99) }
}

export const summarize = (demo: {
  readonly submitted: number
  readonly tasks: ReadonlyArray<TaskSummary>
  readonly attempts: ReadonlyArray<ReadonlyArray<Attempt>>
  readonly platforms: ReadonlyArray<string>
  readonly stats: Stats
  readonly wallMs: number
}): Summary => {
  const succeeded = demo.tasks.filter(({ state }) => state === "succeeded").length
  const failed = demo.tasks.filter(({ state }) => state === "failed" || state === "cancelled").length
  const attempts = demo.attempts.flat()
  return {
    tasks: { submitted: demo.submitted, succeeded, failed, lost: demo.submitted - succeeded - failed },
    byPlatform: Object.fromEntries(
      demo.platforms.map((platform): [string, PlatformSummary] => {
        const own = attempts.filter((attempt) => attempt.platform === platform)
        const answered = own.filter(({ outcome }) => outcome === "succeeded")
        const durations = answered.flatMap(({ durationMs }) => durationMs ?? [])
        return [
          platform,
          {
            succeeded: answered.length,
            attempts: own.length,
            failedAttempts: own.filter(({ outcome }) => outcome === "failed").length,
            tokens: answered.reduce(
              (sum, { usage }) => sum + (usage?.inputTokens ?? 0) + (usage?.outputTokens ?? 0),
              0
            ),
            durationMsP50: wholeMs(durations, 0.5),
            durationMsP95: wholeMs(durations, 0.95)
          }
        ]
      })
    ),
    byPriority: {
      HIGH: waitsOf(demo.tasks, "HIGH"),
      MEDIUM: waitsOf(demo.tasks, "MEDIUM"),
      LOW: waitsOf(demo.tasks, "LOW")
    },
    failovers: demo.attempts.reduce((sum, own) => sum + failoversOf(own), 0),
    limitViolations: demo.stats.violations,
    wallMs: demo.wallMs
  }
}

const count = (value: number): string => value.toLocaleString("en-US")

/** A measured time; `-` where there was nothing to measure. */
const measured = (of: number, ms: number): string => (of === 0 ? "-" : duration(ms))

/** The summary for people, with what was done to the team on the way. */
export const inWords = (summary: Summary, fault: string): string => {
  const { tasks, byPlatform, byPriority, failovers, limitViolations, wallMs } = summary
  return [
    `${counted(tasks.submitted, "task")} submitted, ${count(tasks.succeeded)} succeeded, ${count(tasks.failed)} failed, ${count(tasks.lost)} lost, in ${duration(wallMs)}.`,
    "",
    table(
      ["platform", "done", "attempts", "failed", "tokens", "p50", "p95"],
      Object.entries(byPlatform).map(([platform, own]) => [
        platform,
        count(own.succeeded),
        count(own.attempts),
        count(own.failedAttempts),
        count(own.tokens),
        measured(own.succeeded, own.durationMsP50),
        measured(own.succeeded, own.durationMsP95)
      ])
    ),
    "",
    table(
      ["priority", "done", "wait p50", "wait p99"],
      Object.entries(byPriority).map(([priority, own]) => [
        priority,
        count(own.count),
        measured(own.count, own.waitMsP50),
        measured(own.count, own.waitMsP99)
      ])
    ),
    "",
    `${fault}: ${counted(failovers, "failover")} to another platform. ${counted(limitViolations, "limit violation")}.`
  ].join("\n")
}

/** What must not happen, if it did. */
export const complaint = ({ limitViolations, tasks: { lost } }: Summary): string | undefined =>
  lost === 0 && limitViolations === 0
    ? undefined
    : `${counted(lost, "task")} lost and ${counted(limitViolations, "limit violation")}; both must be 0.`
