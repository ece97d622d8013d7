/**
 * Loaded before the real program (`node --import`), so that the program itself knows nothing of what befalls it.
 *
 * What it is to do is told on standard input, once the program's code is loaded: so the next process can be ready before
 * the one before it is dead. `kind:before` kills the process just before (`after`: just after) the first commit that holds
 * a step of that kind of the tasks' journal; `-` lets it live. Where nothing is told, because nobody is there any more, it
 * ends. `SIGUSR2` sets the wall clock an hour ahead, and the next one an hour back behind the true time.
 */
import { readdirSync, readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { text } from "node:stream/consumers"
import { pathToFileURL } from "node:url"

const program = process.argv[1] ?? `${process.cwd()}/`
const require = createRequire(pathToFileURL(program))
const Sqlite = require("better-sqlite3")

/** Each step of the journal by what only it writes. */
const kinds = [
  ["epoch", /^INSERT INTO epochs/],
  ["class", /^INSERT INTO classes/],
  ["submit", /^INSERT INTO tasks \(id, tenant, class_id, type, priority, state, idempotency_key/],
  ["stage-job", /^INSERT INTO jobs/],
  ["accept-job", /^UPDATE jobs SET state = 'running', accepting_epoch = NULL/],
  ["stage-tasks", /^INSERT INTO tasks \("/],
  ["discard-job", /^DELETE FROM jobs WHERE state = 'accepting'/],
  ["claim", /^UPDATE tasks SET claim_epoch = \?, claims = claims \+ 1/],
  ["attempt-start", /^INSERT INTO attempts/],
  ["attempt-end", /^UPDATE tasks SET attempts_spent = attempts_spent \+/],
  ["keep-partial", /^INSERT INTO partials/],
  ["branch", /^UPDATE tasks SET state = 'waiting', wake_at = \?, waiting_why = \?, claim_epoch = NULL, ladder/],
  ["make-child", /^INSERT INTO tasks \(id, tenant, class_id, type, priority, state, preview/],
  ["succeed", /^UPDATE tasks SET state = 'succeeded'/],
  ["fail", /^UPDATE tasks SET state = 'failed', error = \?, claim_epoch = NULL/],
  ["tell-dependants", /^UPDATE dependencies SET is_open = 0/],
  ["release-dependant", /^UPDATE tasks SET state = 'queued', held = 0/],
  ["cancel-other", /^UPDATE tasks SET state = 'cancelled', error = /],
  ["count-end", /^UPDATE jobs SET updated_at = \?, succeeded = succeeded \+/],
  ["end-job", /^UPDATE jobs SET state = \?, finished_at/],
  ["cancel-job", /^UPDATE jobs SET closing = 'cancelled'/],
  ["reopen-job", /^UPDATE jobs SET state = 'running', finished_at = NULL/],
  ["owe-webhook", /^INSERT INTO deliveries/],
  ["record-webhook", /^UPDATE deliveries SET state/],
  ["park", /^UPDATE tasks SET state = 'waiting', wake_at = \?, waiting_why = \?, claim_epoch = NULL, updated_at/],
  ["wake", /^UPDATE tasks SET state = 'queued', wake_at = NULL/],
  ["expire", /^UPDATE tasks SET state = 'failed', error = \?, wake_at = NULL/],
  ["cancel", /^UPDATE tasks SET state = 'cancelled', wake_at/],
  ["retry", /^UPDATE tasks SET state = 'queued', error = NULL, attempts_spent = 0/],
  ["wait-again", /^UPDATE tasks SET state = 'waiting', held = CASE/],
  ["give-back", /^UPDATE tasks SET state = 'queued', claim_epoch = NULL, updated_at/],
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

const chunks = dirname(program)
const serve = readdirSync(chunks).find(
  (name) => name.startsWith("chunk-") && readFileSync(join(chunks, name), "utf8").includes('"Cli.serve"')
)
if (serve === undefined) throw new Error(`${program} has no command that serves`)
await import(pathToFileURL(join(chunks, serve)).href)

const told = await text(process.stdin)
if (told === "") process.exit()
const [point, side] = told === "-" ? [] : told.split(":")
if (point !== undefined && kinds.every(([name]) => name !== point)) throw new Error(`there is no step ${point}`)

const die = () => process.kill(process.pid, "SIGKILL")

if (point !== undefined) {
  let isReached = false
  const probe = new Sqlite(":memory:")
  const prototype = Object.getPrototypeOf(probe.prepare("SELECT 1"))
  probe.close()
  for (const name of ["run", "all", "get"]) {
    const original = prototype[name]
    prototype[name] = function (...params) {
      if (this.source === "BEGIN") isReached = false
      if (this.source === "COMMIT" && isReached) {
        if (side === "before") die()
        original.apply(this, params)
        die()
      }
      const result = original.apply(this, params)
      // A step that changes nothing is none.
      if (kind(this.source) === point && (Array.isArray(result) ? result.length : result?.changes) !== 0)
        isReached = true
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
