/**
 * `npm run bench:routing`: a simulated day of tasks over four platforms that fall ill in turn, through the product's own
 * routing and through two plain routers. Prints one report, or with `--json` one JSON object; the exit code is 1 where a
 * target is missed. The figures are the same each time. `--hours N` simulates only the first N hours of the day, `--seed
 * TEXT` another day, `--tasks N` a day of another number of tasks.
 */
import { parseArgs } from "node:util"
import { Effect } from "effect"
import { checkLine } from "../support/Report.js"
import { runBaseline } from "./Baselines.js"
import { makeDay } from "./Day.js"
import { DEADLINE_MS } from "./Outcome.js"
import { checksOf, dayText, figuresOf, figuresTable, type Policy } from "./Report.js"
import { platformIds } from "./SickPlatforms.js"
import { runSubject } from "./Subject.js"

const { values: flags } = parseArgs({
  options: {
    json: { type: "boolean" },
    hours: { type: "string" },
    seed: { type: "string" },
    tasks: { type: "string" }
  }
})
const seed = flags.seed ?? "day"
const hours = Number(flags.hours ?? 24)
const tasksADay = Number(flags.tasks ?? 5_000)

const footnotes = [
  "The day: Poisson arrivals, 1.6 times the average in the early afternoon and 0.4 times at night; all platforms being well,",
  "the busiest hour needs about two fifths of their 13 permits. Each platform answers at a speed of its own, log-normal by",
  "the length of the output; the n-th attempt of a task on a platform is the same whoever sends it. down: attempts and health",
  "checks fail at once, running calls break off. hangs: no attempt is answered, each fails after its 120 s for a first token;",
  "health checks pass. errors: 30 % of the attempts fail within 10 s (0.5 % always do). slow: 4 times. used up: a 429 that",
  "names its reset. Providers count every limit of the default settings strictly.",
  `A task fails ${DEADLINE_MS / 60_000} minutes after its arrival, or with its sixth failed attempt; the budget and the deadline are the same for all.`,
  "mean, p95, HIGH: from the arrival to the answer, of the tasks answered. all mean: one that failed counts its deadline.",
  "suitability: the mean score, for the task's type, of who answered. 429s count as attempts.",
  "dream-team is the product's Delegation with its router, detector and resource manager as configured by default. It knows",
  "the configured limits, permits and suitabilities, the type, priority and estimated size of each task, the provider's word",
  "on limits (codex's headers, synthetic's quotas, resets named by 429s), what its own attempts and health checks showed, and",
  "nothing of the troubles. It serves HIGH first, and keeps one permit of four for HIGH.",
  "The baselines know the permits; weighted random knows the suitabilities too. First come first served, each attempt goes to",
  "a platform with a permit free (in turn, or by chance), never to the one that has just failed the task; after a failure the",
  "task waits for the product's own backoff, after a 429 nobody uses that platform for 5 s. They know no limits, no resets,",
  "no health, no speed, no priorities, and keep nothing for anybody."
].join("\n")

const timed = <A>(policy: Policy, run: Effect.Effect<A>): Effect.Effect<A> =>
  Effect.gen(function* () {
    const start = performance.now()
    const result = yield* run
    process.stderr.write(`${policy}: ${((performance.now() - start) / 1_000).toFixed(1)} s\n`)
    return result
  })

const program = Effect.gen(function* () {
  const day = makeDay({ seed, hours, tasksADay, platforms: platformIds })
  const own = figuresOf("dream-team", yield* timed("dream-team", runSubject(day, seed)))
  const others = yield* Effect.forEach(["round robin", "weighted random"] as const, (rule) =>
    Effect.map(timed(rule, runBaseline(rule, day, seed)), (outcome) => figuresOf(rule, outcome))
  )
  const checks = checksOf(own, others)
  const missed = checks.filter(({ isMet }) => !isMet)
  yield* Effect.sync(() => {
    process.stdout.write(
      flags.json === true
        ? `${JSON.stringify({ seed, hours, deadlineMs: DEADLINE_MS, troubles: day.troubles, policies: [own, ...others], checks, missed }, null, 2)}\n`
        : [
            dayText(day, hours),
            figuresTable([own, ...others]),
            footnotes,
            missed.length === 0
              ? `All ${checks.length} targets are met.`
              : `${missed.length} of ${checks.length} targets are missed:\n${missed.map(checkLine).join("\n")}`
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
