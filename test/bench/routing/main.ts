/**
 * `npm run bench:routing`: simulated days of tasks over four platforms that fall ill in turn, through the product's own
 * routing and through two plain routers: two loads, three days each. Prints one report, or with `--json` one JSON object;
 * the exit code is 1 where a target is missed. The figures are the same each time. `--loads ordinary,heavy` and `--seeds
 * a,b` say which loads and which days, `--hours N` simulates only the first N hours of each, `--tasks N` is another
 * number of tasks a day. A day takes a minute or two.
 */
import { parseArgs } from "node:util"
import { Effect, Schema } from "effect"
import { verdictOf } from "../support/Report.js"
import { runBaseline } from "./Baselines.js"
import { type LoadName, loads, makeDay } from "./Day.js"
import { DEADLINE_MS } from "./Outcome.js"
import { checksOf, type DayReport, dayText, figuresOf, figuresTable, type Policy, verdictsTable } from "./Report.js"
import { platformIds } from "./SickPlatforms.js"
import { runSubject } from "./Subject.js"

const { values: flags } = parseArgs({
  options: {
    json: { type: "boolean" },
    hours: { type: "string", default: "24" },
    loads: { type: "string", default: "ordinary,heavy" },
    seeds: { type: "string", default: "day,second,third" },
    tasks: { type: "string" }
  }
})
const hours = Number(flags.hours)
const loadNames = Schema.decodeUnknownSync(Schema.Array(Schema.Literal("ordinary", "heavy")))(flags.loads.split(","))
const seeds = flags.seeds.split(",")

const footnotes = [
  "A day: Poisson arrivals, 1.6 times the average in the early afternoon and 0.4 times at night; all platforms being well,",
  "the busiest hour needs about two fifths of their 13 permits at the ordinary load (answers of 2,500 tokens in the median,",
  "12,000 at most), three fifths at the heavy one (3,500, 32,768). Each platform answers at a speed of its own, log-normal",
  "by the length of the output; the n-th attempt of a task on a platform is the same whoever sends it. down: attempts and health",
  "checks fail at once, running calls break off. hangs: no attempt is answered, each fails after its 120 s for a first token;",
  "health checks pass. errors: 30 % of the attempts fail within 10 s (0.5 % always do). slow: 4 times. used up: a 429 that",
  "names its reset. Providers count every limit of the default settings strictly.",
  `A task fails ${DEADLINE_MS / 60_000} minutes after its arrival, or with its sixth failed attempt; the budget and the deadline are the same for all.`,
  "mean, p95: from the arrival to the answer, of the tasks answered. all mean: one that failed counts its deadline.",
  "suitability: the mean score, for the task's type, of who answered. 429s count as attempts.",
  "dream-team is the product's Delegation with its router, detector and resource manager as configured by default. It knows",
  "the configured limits, permits and suitabilities, the type and estimated size of each task, the provider's word",
  "on limits (codex's headers, synthetic's quotas, resets named by 429s), what its own attempts and health checks showed, and",
  "nothing of the troubles. All tasks have one priority, HIGH, for which nothing is kept back: the comparison is of the",
  "choice among platforms alone.",
  "The baselines know the permits; weighted random knows the suitabilities too. First come first served, each attempt goes to",
  "a platform with a permit free (in turn, or by chance), never to the one that has just failed the task; after a failure the",
  "task waits for the product's own backoff, after a 429 nobody uses that platform for 5 s. They know no limits, no resets,",
  "no health and no speed."
].join("\n")

const timed = <A>(policy: Policy, run: Effect.Effect<A>): Effect.Effect<A> =>
  Effect.gen(function* () {
    const start = performance.now()
    const result = yield* run
    process.stderr.write(`${policy}: ${((performance.now() - start) / 1_000).toFixed(1)} s\n`)
    return result
  })

const reportOf = (load: LoadName, seed: string): Effect.Effect<DayReport> =>
  Effect.gen(function* () {
    const tasksADay = Number(flags.tasks ?? loads[load].tasksADay)
    const day = makeDay({ seed, hours, load: { ...loads[load], tasksADay }, platforms: platformIds })
    process.stderr.write(`load ${load}, seed ${seed}\n`)
    const own = figuresOf("dream-team", yield* timed("dream-team", runSubject(day, seed)))
    const others = yield* Effect.forEach(["round robin", "weighted random"] as const, (rule) =>
      Effect.map(timed(rule, runBaseline(rule, day, seed)), (outcome) => figuresOf(rule, outcome))
    )
    return { load, seed, day, own, others, checks: checksOf(own, others) }
  })

const program = Effect.gen(function* () {
  const reports = yield* Effect.forEach(loadNames, (load) => Effect.forEach(seeds, (seed) => reportOf(load, seed)))
  const days = reports.flat()
  const checks = days.flatMap(({ checks, load, seed }) =>
    checks.map((check) => ({ ...check, name: `${load} ${seed}: ${check.name}` }))
  )
  const missed = checks.filter(({ isMet }) => !isMet)
  yield* Effect.sync(() => {
    process.stdout.write(
      flags.json === true
        ? `${JSON.stringify({ hours, deadlineMs: DEADLINE_MS, days: days.map(({ day, load, others, own, seed }) => ({ load, seed, troubles: day.troubles, policies: [own, ...others] })), checks, missed }, null, 2)}\n`
        : [
            ...days.map((report) => `${dayText(report, hours)}\n\n${figuresTable([report.own, ...report.others])}`),
            footnotes,
            `Dream-team, round robin, weighted random:\n${verdictsTable(days)}`,
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
