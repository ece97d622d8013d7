/**
 * `npm run test:chaos -- --kills 1000 --minutes 10`: kills the service under a mixed load at every point between two
 * journal writes and then at random, as often as asked or as time allows, and prints what it came to as JSON. Ends with
 * 1 where anything was lost, doubled or left.
 */
import { rmSync } from "node:fs"
import { parseArgs } from "node:util"
import { buildBin } from "../../esbuild.config.js"
import { pause } from "../support/Service.js"
import { Chaos, points } from "./Chaos.js"

const { values } = parseArgs({ options: { kills: { type: "string" }, minutes: { type: "string" } } })
const kills = Number(values.kills ?? 100)
const until = performance.now() + Number(values.minutes ?? 600) * 60_000

const folder = `node_modules/.cache/dream-team-chaos/${process.pid}`
await buildBin(folder)
const chaos = await Chaos.start(`${folder}/main.js`)
try {
  const start = performance.now()
  await chaos.up()
  chaos.startLoad()
  while (chaos.kills < kills && performance.now() < until) {
    const point = points[chaos.kills]
    await chaos.service?.stop("SIGKILL")
    await chaos.up(point)
    if (point === undefined) {
      await pause(Math.random() * 400)
      await chaos.kill()
    } else {
      await chaos.died(point, 60_000)
    }
    if (process.stderr.isTTY || chaos.kills % 50 === 0)
      process.stderr.write(`${chaos.kills} kills, ${Math.round(performance.now() / 1000)} s\n`)
  }
  await chaos.up()
  await chaos.finishLoad(300_000)
  const exitCode = await chaos.service?.stop("SIGTERM")
  const verdict = chaos.verdict()
  process.stdout.write(
    `${JSON.stringify({ ...verdict, minutes: (performance.now() - start) / 60_000, exitCode }, undefined, 2)}\n`
  )
  const { doubled, lost, unfinished, unknown } = verdict
  if (lost + unknown + doubled + unfinished > 0 || exitCode !== 0) process.exitCode = 1
} finally {
  await chaos.close()
  rmSync(folder, { recursive: true, force: true })
}
