import { mean, percentile } from "../support/Figures.js"
import { atLeast, atMost, type Check, count, minutes, percent, seconds, table } from "../support/Report.js"
import type { IsolationFigures, IsolationSpec } from "./Isolation.js"
import type { LimitUse, Run } from "./Run.js"
import type { Scenario } from "./Scenarios.js"
import type { SpeedFigures } from "./Speed.js"

export type Policy = "dream-team" | "oracle" | "packer" | "weighted-random" | "least-busy"

export interface ScenarioFigures {
  readonly scenario: string
  readonly calls: number
  /** No schedule at all is shorter, ms. */
  readonly capacityBoundMs: number
  readonly policies: ReadonlyArray<{
    readonly policy: Policy
    readonly refused: number
    readonly excesses: number
    /** The use of the binding limit, 0 to 1, the mean of all platforms. */
    readonly used: number
    /** What running calls held of it beyond what was counted of them by then, 0 to 1. */
    readonly held: number
    readonly makespanMs: number
    readonly makespanToOracle: number
    readonly highWaitMsMean: number
    readonly highWaitMsP95: number
    readonly limits: Run["used"]
  }>
  readonly checks: ReadonlyArray<Check>
}

/** Each platform at the most used of its binding limits; one that has none of them does not count. */
const bindingUse = ({ binding, platforms }: Scenario, { used }: Run): Pick<LimitUse, "held" | "share"> => {
  const uses = platforms.flatMap(({ id }) =>
    used
      .filter(({ limit, platform }) => platform === id && binding.includes(limit))
      .sort((a, b) => b.share - a.share)
      .slice(0, 1)
  )
  return { share: mean(uses.map(({ share }) => share)), held: mean(uses.map(({ held }) => held)) }
}

export const scenarioFigures = (
  scenario: Scenario,
  capacityBoundMs: number,
  runs: Readonly<Record<Policy, Run>>
): ScenarioFigures => {
  const own = runs["dream-team"]
  const used = bindingUse(scenario, own)
  const toBeat = bindingUse(scenario, runs.oracle)
  const toOracle = (run: Run): number => run.makespanMs / runs.oracle.makespanMs
  const policies: ReadonlyArray<Policy> = ["dream-team", "oracle", "packer", "weighted-random", "least-busy"]
  return {
    scenario: scenario.name,
    calls: scenario.calls.length,
    capacityBoundMs,
    policies: policies.map((policy) => {
      const run = runs[policy]
      return {
        policy,
        refused: run.refused,
        excesses: run.excesses,
        used: bindingUse(scenario, run).share,
        held: bindingUse(scenario, run).held,
        makespanMs: run.makespanMs,
        makespanToOracle: toOracle(run),
        highWaitMsMean: mean(run.highWaits),
        highWaitMsP95: percentile(run.highWaits, 0.95),
        limits: run.used
      }
    }),
    checks: [
      atMost(`${scenario.name}: provider 429s`, own.refused, 0),
      atMost(`${scenario.name}: token windows beyond their limit`, own.excesses, 0),
      atMost(`${scenario.name}: calls without an answer`, scenario.calls.length - own.completed, 0),
      scenario.against === "limit"
        ? atLeast(`${scenario.name}: use of ${scenario.binding.join(", ")}`, used.share + used.held, 0.98)
        : atLeast(
            `${scenario.name}: use of ${scenario.binding.join(", ")} beside the oracle's`,
            (used.share + used.held) / (toBeat.share + toBeat.held),
            0.98
          ),
      atMost(`${scenario.name}: makespan beside the oracle's`, toOracle(own), 1.03)
    ]
  }
}

export interface IsolationReport {
  readonly load: string
  readonly rows: ReadonlyArray<IsolationFigures>
  readonly checks: ReadonlyArray<Check>
}

/** `rows`: the first with an empty queue, the second with the backlog that the others are compared with. */
export const isolationReport = (spec: IsolationSpec, rows: ReadonlyArray<IsolationFigures>): IsolationReport => {
  const [idle, few, ...many] = rows
  return {
    load: spec.name,
    rows,
    checks:
      idle === undefined || few === undefined
        ? []
        : [
            ...rows.map((row) => atMost(`HIGH while ${spec.name}, ${backlogText(row)}: provider 429s`, row.refused, 0)),
            ...many.map((row) =>
              atMost(
                `HIGH while ${spec.name}, ${backlogText(row)}: p99 wait beside that with ${backlogText(few)}`,
                row.waitMsP99 / few.waitMsP99,
                1.05
              )
            ),
            atMost(
              `HIGH while ${spec.name}: p99 wait beyond that of an idle queue, in units of ${spec.allowedBy}`,
              Math.max(...[few, ...many].map(({ waitMsP99 }) => waitMsP99 - idle.waitMsP99)) / spec.allowedMs,
              1
            )
          ]
  }
}

export interface SpeedReport {
  readonly rows: ReadonlyArray<SpeedFigures>
  readonly bytesPerWaiter: number
  readonly checks: ReadonlyArray<Check>
}

export const speedReport = (rows: ReadonlyArray<SpeedFigures>, bytesPerWaiter: number): SpeedReport => {
  const rates = rows.map(({ grantsPerSecond }) => grantsPerSecond)
  return {
    rows,
    bytesPerWaiter,
    checks: [atMost("grants per second: the fastest beside the slowest", Math.max(...rates) / Math.min(...rates), 1.5)]
  }
}

// For people

function backlogText({ backlog: { live, low } }: Pick<IsolationFigures, "backlog">): string {
  if (low === 0) return "no LOW"
  return live < low ? `${count(low)} LOW, ${count(live)} of them live` : `${count(low)} LOW in the line`
}

export const policiesTable = (all: ReadonlyArray<ScenarioFigures>): string =>
  table([
    [
      "load",
      "policy",
      "429s",
      "excesses",
      "used %",
      "held %",
      "makespan min",
      "/ oracle's",
      "HIGH wait s: mean",
      "p95"
    ],
    ...all.flatMap(({ calls, capacityBoundMs, policies, scenario }) => [
      ...policies.map((row, index) => [
        index === 0 ? `${scenario}, ${count(calls)} calls` : "",
        row.policy,
        count(row.refused),
        count(row.excesses),
        percent(row.used),
        percent(row.held),
        minutes(row.makespanMs),
        row.makespanToOracle.toFixed(3),
        seconds(row.highWaitMsMean),
        seconds(row.highWaitMsP95)
      ]),
      ["", "(capacity alone)", "", "", "", "", minutes(capacityBoundMs)]
    ])
  ])

export const isolationTable = (all: ReadonlyArray<IsolationReport>): string =>
  table([
    ["HIGH's wait while", "behind", "p99 s", "mean s", "LOW done", "longest of the first 3 min s"],
    ...all.flatMap(({ load, rows }) =>
      rows.map((row, index) => [
        index === 0 ? load : "",
        backlogText(row),
        (row.waitMsP99 / 1_000).toFixed(3),
        (row.waitMsMean / 1_000).toFixed(3),
        count(row.lowDone),
        seconds(row.firstWaitMsMax)
      ])
    )
  ])

export const speedTable = ({ bytesPerWaiter, rows }: SpeedReport): string =>
  table([
    ["waiting", "grants a second of CPU time", "beside the first"],
    ...rows.map(({ grantsPerSecond, waiting }) => [
      count(waiting),
      count(Math.round(grantsPerSecond)),
      (grantsPerSecond / (rows[0]?.grantsPerSecond ?? 1)).toFixed(2)
    ])
  ]).concat(`\nmemory of a waiting call, with its fiber and scope: ${count(Math.round(bytesPerWaiter))} bytes`)
