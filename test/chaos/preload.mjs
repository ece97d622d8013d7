/**
 * Loaded before the real program (`node --import`), so that the program itself knows nothing of what befalls it.
 *
 * `CHAOS_POINT=kind:before:2` kills the process just before (or `after`) the second commit that holds a step of that kind
 * of the tasks' journal. `SIGUSR2` sets the wall clock an hour ahead, and the next one an hour back behind the true time.
 */
import { createRequire } from "node:module"
import { pathToFileURL } from "node:url"

const require = createRequire(pathToFileURL(process.argv[1] ?? `${process.cwd()}/`))
const Sqlite = require("better-sqlite3")

/** Each step of the journal by what only it writes. */
const kinds = [
  ["class", /^INSERT INTO classes/],
  ["submit", /^INSERT INTO tasks/],
  ["submit-job", /^INSERT INTO jobs/],
  ["claim", /^UPDATE tasks SET claim_epoch = \?, claims = claims \+ 1/],
  ["attempt-start", /^INSERT INTO attempts/],
  ["attempt-end", /^UPDATE tasks SET attempts_spent = attempts_spent \+/],
  ["succeed", /^UPDATE tasks SET state = 'succeeded'/],
  ["fail", /^UPDATE tasks SET state = 'failed', error = \?, claim_epoch = NULL/],
  ["park", /^UPDATE tasks SET state = 'waiting', wake_at = \?, waiting_why = \?, claim_epoch = NULL, updated_at/],
  ["wake", /^UPDATE tasks SET state = 'queued', wake_at = NULL/],
  ["expire", /^UPDATE tasks SET state = 'failed', error = \?, wake_at = NULL/],
  ["cancel", /^UPDATE tasks SET state = 'cancelled', wake_at/],
  ["retry", /^UPDATE tasks SET state = 'queued', error = NULL, attempts_spent = 0/],
  ["recover", /^UPDATE tasks SET state = \?, claim_epoch = NULL, owner_deaths/]
]

const kindOf = new Map()
const kind = (source) => {
  const known = kindOf.get(source)
  if (known !== undefined) return known
  const text = source.replace(/\s+/g, " ").trim()
  const found = kinds.find(([, pattern]) => pattern.test(text))?.[0] ?? null
  kindOf.set(source, found)
  return found
}

const [point, side, count] = (process.env.CHAOS_POINT ?? "").split(":")
let left = Number(count ?? 1)
let isReached = false

const die = () => process.kill(process.pid, "SIGKILL")

const note = (source) => {
  if (kind(source) === point) isReached = true
}

if (point !== "") {
  const probe = new Sqlite(":memory:")
  const prototype = Object.getPrototypeOf(probe.prepare("SELECT 1"))
  probe.close()
  for (const name of ["run", "all", "get"]) {
    const original = prototype[name]
    prototype[name] = function (...params) {
      if (this.source === "BEGIN") isReached = false
      if (this.source !== "COMMIT" || !isReached) {
        note(this.source)
        return original.apply(this, params)
      }
      isReached = false
      left -= 1
      if (left === 0 && side === "before") die()
      const result = original.apply(this, params)
      if (left === 0) die()
      return result
    }
  }
}

const hour = 3_600_000
const trueNow = Date.now
let aheadMs = 0
process.on("SIGUSR2", () => {
  aheadMs = aheadMs === hour ? -hour : hour
})
Date.now = () => trueNow() + aheadMs
