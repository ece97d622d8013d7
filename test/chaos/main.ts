/**
 * `npm run test:chaos -- --kills 1000 --minutes 60`: kills the service under a mixed load at every point between two
 * journal writes and then at random, as often as asked or as time allows. Progress goes to stderr, the figures to stdout.
 * Ends with 1 where anything was lost, doubled, left or not told.
 */
import { rmSync } from "node:fs"
import { parseArgs } from "node:util"
import { buildBin } from "../../esbuild.config.js"
import { Chaos, points } from "./Chaos.js"
import { violations } from "./Journal.js"

const { values } = parseArgs({ options: { kills: { type: "string" }, minutes: { type: "string" } } })
const kills = Number(values.kills ?? 100)
const minutes = Number(values.minutes ?? Number.POSITIVE_INFINITY)
if (!(kills >= 1 && minutes > 0)) throw new Error("--kills and --minutes take numbers above 0")

const everyKills = 25
const drainMs = 300_000

/** Nested figures, one a line. */
const lines = (value: unknown, name = ""): ReadonlyArray<string> =>
  typeof value === "object" && value !== null
    ? Object.entries(value).flatMap(([key, inner]) => lines(inner, name === "" ? key : `${name}, ${key}`))
    : [`${name.padEnd(60)} ${String(value).padStart(10)}`]

const folder = `node_modules/.cache/dream-team-chaos/${process.pid}`
await buildBin(folder)
const chaos = await Chaos.start(`${folder}/main.js`)
try {
  const start = performance.now()
  const elapsed = () => (performance.now() - start) / 60_000
  chaos.load.start()
  while (chaos.kills < kills && elapsed() < minutes) {
    const point = points[chaos.kills]
    await (point === undefined ? chaos.dieAnyhow() : chaos.dieAt(point, 120_000))
    if (chaos.kills % everyKills === 0) process.stderr.write(`${elapsed().toFixed(1)} min: ${chaos.story()}\n`)
  }
  const killing = elapsed()
  await chaos.up()
  const verdict = await chaos.finish(drainMs)
  const found = violations(verdict)
  process.stdout.write(
    `${lines({ minutes: elapsed().toFixed(1), "kills a minute": (verdict.kills / killing).toFixed(1), ...verdict }).join("\n")}\n` +
      `${found.length === 0 ? "No violation." : `VIOLATIONS: ${found.join("; ")}`}\n`
  )
  if (found.length > 0) {
    process.exitCode = 1
    process.stdout.write(`What the database holds is kept in ${chaos.keep()}\n`)
  }
} finally {
  await chaos.close()
  rmSync(folder, { recursive: true, force: true })
}
