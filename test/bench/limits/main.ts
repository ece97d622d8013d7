/**
 * `npm run bench:limits`: how far the limits of platforms are used, and what that costs whom, in a simulation of hours
 * that takes a minute or two. Prints one report, or with `--json` one JSON object; the exit code is 1 where a target is
 * missed. The figures of the simulation are the same each time; grants per second and memory are this machine's.
 * `--only TEXT` runs the loads whose name holds the text, and nothing else.
 */
import { parseArgs } from "node:util"
import { Effect } from "effect"
import { Settings } from "../../../src/Settings.js"
import { verdictOf } from "../support/Report.js"
import { runBaseline } from "./Baselines.js"
import { makeBounds } from "./Bounds.js"
import { isolationSpecs, runIsolation } from "./Isolation.js"
import { capacityBound, oracleKnows, runOracle } from "./Oracle.js"
import {
  isolationReport,
  isolationTable,
  policiesTable,
  type ScenarioFigures,
  scenarioFigures,
  speedReport,
  speedTable
} from "./Report.js"
import { makeScenarios, type Scenario } from "./Scenarios.js"
import { measureMemory, measureSpeed } from "./Speed.js"
import { runSubject } from "./Subject.js"

const SEED = "limits"
const { values: flags } = parseArgs({ options: { json: { type: "boolean" }, only: { type: "string" } } })
const { only } = flags

const progress = (text: string) => Effect.sync(() => process.stderr.write(`${text}\n`))

const compare = (scenario: Scenario): Effect.Effect<ScenarioFigures> =>
  Effect.gen(function* () {
    const { calls, name, platforms } = scenario
    const start = performance.now()
    const own = yield* runSubject(platforms, calls, SEED)
    yield* progress(`${name}: ${calls.length} calls in ${((performance.now() - start) / 1_000).toFixed(1)} s`)
    return scenarioFigures(scenario, capacityBound(platforms, calls), {
      "dream-team": own,
      oracle: runOracle(platforms, calls, makeBounds(platforms)),
      packer: runOracle(platforms, calls, makeBounds(platforms), false),
      "weighted-random": runBaseline("weighted-random", platforms, calls, SEED),
      "least-busy": runBaseline("least-busy", platforms, calls, SEED)
    })
  })

const LIVE_PER_CLASS = Settings.defaults.tasks.livePerClass
/** Of a standing backlog of LOW calls; a line holds no more than 10,000. */
const backlogs = [
  { low: 0, live: 0 },
  { low: 1_000, live: 1_000 },
  { low: 9_000, live: 9_000 },
  { low: 100_000, live: LIVE_PER_CLASS }
]

const footnotes = [
  "429s: refusals by simulated providers that count every rolling window strictly; excesses: answers that took a window",
  "of `actual` tokens beyond its limit, which no 429 can prevent. used: of the binding limit as the provider counts it,",
  "over the saturated time. held: of the same, what running calls kept from others for what they might have used and did",
  "not, or for what the provider counts when they end; used and held together are the limit's use. Where permits bind, one of four is kept for HIGH: the baselines use it, and let HIGH wait.",
  oracleKnows,
  "The baselines know no limits: as many calls are out at once as there are permits, first come first served; a 429 cools",
  "its platform down for 5 s. They go by a random choice weighted by the platforms' requests, or by the fewest in flight.",
  `A line holds 10,000 at most: the 100,000 stand behind a feeder that keeps ${LIVE_PER_CLASS} of them in it, as the service does with`,
  "its tasks. The backlog is kept at its size. HIGH's waits count from the fourth minute of the saturation on: the first",
  "burst is there for whoever comes, so HIGH calls that come right after it wait longer."
].join("\n")

const program = Effect.gen(function* () {
  const scenarios = makeScenarios(SEED).filter(({ name }) => only === undefined || name.includes(only))
  const loads = yield* Effect.forEach(scenarios, compare)
  const isolation = yield* Effect.forEach(only === undefined ? isolationSpecs : [], (spec) =>
    Effect.forEach(backlogs, (backlog) =>
      Effect.zipRight(progress(`HIGH while ${spec.name}, ${backlog.low} LOW`), runIsolation(spec, backlog, SEED))
    ).pipe(Effect.map((rows) => isolationReport(spec, rows)))
  )
  const speed =
    only === undefined ? [speedReport(yield* measureSpeed([10, 1_000, 10_000]), yield* measureMemory(10_000))] : []
  const checks = [...loads, ...isolation, ...speed].flatMap((part) => part.checks)
  const missed = checks.filter(({ isMet }) => !isMet)
  yield* Effect.sync(() => {
    process.stdout.write(
      flags.json === true
        ? `${JSON.stringify({ loads, isolation, speed: speed[0], missed }, null, 2)}\n`
        : [
            policiesTable(loads),
            ...(isolation.length === 0 ? [] : [isolationTable(isolation)]),
            ...speed.map(speedTable),
            footnotes,
            verdictOf(checks)
          ]
            .join("\n\n")
            .concat("\n")
    )
    if (missed.length > 0) process.exitCode = 1
  })
})

Effect.runPromise(program).catch((error: unknown) => {
  process.stderr.write(`${String(error)}\n`)
  process.exitCode = 1
})
