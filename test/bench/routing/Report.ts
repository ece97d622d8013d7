import type { PlatformId } from "../../../src/Domain/Platform.js"
import { mean, percentile } from "../support/Figures.js"
import { type Check, count, percent, seconds, table } from "../support/Report.js"
import { type Day, dayBeginsAt, type LoadName, type Trouble } from "./Day.js"
import { DEADLINE_MS, type Ended, type Outcome } from "./Outcome.js"
import { platforms } from "./SickPlatforms.js"

export type Policy = "dream-team" | "round robin" | "weighted random"

export interface PolicyFigures {
  readonly policy: Policy
  readonly tasks: number
  /** Of the tasks, those with an answer within the deadline, 0 to 1. */
  readonly succeeded: number
  /** Of the answered tasks, from their arrival to the answer, ms. */
  readonly completionMsMean: number
  readonly completionMsP95: number
  /** Of all tasks, where one without an answer counts its whole deadline, ms. */
  readonly allMsMean: number
  readonly attemptsPerTask: number
  /** 429s. */
  readonly refused: number
  /** Of the answered tasks: how well their platform suits their type, 0 to 1. */
  readonly suitability: number
  /** Of the answered tasks, the part that each platform answered. */
  readonly shares: Readonly<Record<string, number>>
  /** How many tasks failed, by why. */
  readonly failures: Readonly<Record<string, number>>
}

const completionMs = ({ at, task }: Ended): number => at - task.arrivesAt

const suitabilityOf = ({ by, task }: Ended): number =>
  platforms.find(({ id }) => id === by)?.suitability[task.type] ?? 0

const share = (ended: ReadonlyArray<Ended>, id: PlatformId): number =>
  ended.length === 0 ? 0 : ended.filter(({ by }) => by === id).length / ended.length

export const figuresOf = (policy: Policy, { attempts, ended, refused }: Outcome): PolicyFigures => {
  const answered = ended.filter(({ by }) => by !== undefined)
  const failures: Record<string, number> = {}
  for (const { why } of ended) {
    if (why === undefined) continue
    const [name = why] = why.split(":")
    failures[name] = (failures[name] ?? 0) + 1
  }
  return {
    policy,
    tasks: ended.length,
    succeeded: answered.length / Math.max(1, ended.length),
    completionMsMean: mean(answered.map(completionMs)),
    completionMsP95: percentile(answered.map(completionMs), 0.95),
    allMsMean: mean(ended.map((end) => (end.by === undefined ? DEADLINE_MS : completionMs(end)))),
    attemptsPerTask: attempts / Math.max(1, ended.length),
    refused,
    suitability: mean(answered.map(suitabilityOf)),
    shares: Object.fromEntries(platforms.map(({ id }) => [id, share(answered, id)])),
    failures
  }
}

const above = (name: string, value: number, other: number): Check => ({
  name,
  value,
  target: `> ${Number(other.toPrecision(4))}`,
  isMet: value > other
})

const below = (name: string, value: number, other: number): Check => ({
  name,
  value,
  target: `< ${Number(other.toPrecision(4))}`,
  isMet: value < other
})

/** The product against each of the others, over the same day. */
export const checksOf = (own: PolicyFigures, others: ReadonlyArray<PolicyFigures>): ReadonlyArray<Check> =>
  others.flatMap((other) => [
    above(`tasks answered, percent, against ${other.policy}`, 100 * own.succeeded, 100 * other.succeeded),
    below(
      `mean completion of answered tasks, s, against ${other.policy}`,
      own.completionMsMean / 1_000,
      other.completionMsMean / 1_000
    ),
    below(`mean completion of all tasks, s, against ${other.policy}`, own.allMsMean / 1_000, other.allMsMean / 1_000)
  ])

/** One day at one load, by each policy. */
export interface DayReport {
  readonly load: LoadName
  readonly seed: string
  readonly day: Day
  readonly own: PolicyFigures
  readonly others: ReadonlyArray<PolicyFigures>
  readonly checks: ReadonlyArray<Check>
}

// For people

export const figuresTable = (rows: ReadonlyArray<PolicyFigures>): string =>
  table([
    [
      "policy",
      "",
      "answered %",
      "failed",
      "mean s",
      "p95 s",
      "all mean s",
      "attempts/task",
      "429s",
      "suitability",
      ...platforms.map(({ id }) => `${id} %`)
    ],
    ...rows.map((row) => [
      row.policy,
      "",
      (row.succeeded * 100).toFixed(2),
      count(Math.round(row.tasks * (1 - row.succeeded))),
      seconds(row.completionMsMean),
      seconds(row.completionMsP95),
      seconds(row.allMsMean),
      row.attemptsPerTask.toFixed(3),
      count(row.refused),
      row.suitability.toFixed(3),
      ...platforms.map(({ id }) => percent(row.shares[id] ?? 0))
    ])
  ])

const clock = (ms: number): string => {
  const minutes = Math.floor(ms / 60_000) + dayBeginsAt * 60
  const hour = Math.floor(minutes / 60) % 24
  return `${String(hour).padStart(2, "0")}:${String(minutes % 60).padStart(2, "0")}`
}

const troubleText = ({ from, kind, platform, to }: Trouble): string => `${clock(from)}-${clock(to)} ${platform} ${kind}`

const ROW = 4

export const dayText = ({ load, seed, day: { tasks, troubles } }: DayReport, hours: number): string =>
  [
    `Load ${load}, seed ${seed}: ${count(tasks.length)} tasks in ${hours} hours from ${clock(0)} on. Troubles:`,
    ...Array.from({ length: Math.ceil(troubles.length / ROW) }, (_, row) =>
      `  ${troubles
        .slice(row * ROW, (row + 1) * ROW)
        .map((trouble) => troubleText(trouble).padEnd(32))
        .join("")}`.trimEnd()
    )
  ].join("\n")

/** Who won each day: the policies' figures side by side, ours first. */
export const verdictsTable = (reports: ReadonlyArray<DayReport>): string =>
  table([
    ["load", "seed", "answered %", "", "", "failed", "", "", "mean s", "", "", "verdict"],
    ...reports.map(({ checks, load, others, own, seed }) => {
      const all = [own, ...others]
      const missed = checks.filter(({ isMet }) => !isMet).length
      return [
        load,
        seed,
        ...all.map(({ succeeded }) => (succeeded * 100).toFixed(2)),
        ...all.map(({ succeeded, tasks }) => count(Math.round(tasks * (1 - succeeded)))),
        ...all.map(({ completionMsMean }) => seconds(completionMsMean)),
        missed === 0 ? "dream-team wins on both" : `dream-team loses ${missed} of ${checks.length}`
      ]
    })
  ])
