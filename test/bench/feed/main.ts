import { spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import Sqlite from "better-sqlite3"

/*
 * What a feed costs Claude Code: the whole process from its start to its end, beside a Node that does nothing. Claude Code
 * runs the status line after each change, so a feed may take at most twice that, and 50 ms.
 */

const rounds = 30
const status = JSON.stringify({
  session_id: "11111111-1111-4111-8111-111111111111",
  transcript_path: "/home/me/.claude/projects/-project/11111111-1111-4111-8111-111111111111.jsonl",
  cwd: "/project",
  model: { id: "claude-opus-5-5", display_name: "Opus" },
  cost: { total_cost_usd: 1.25 },
  context_window: { context_window_size: 200_000, used_percentage: 8 },
  rate_limits: {
    five_hour: { used_percentage: 42, resets_at: 4_102_444_800 },
    seven_day: { used_percentage: 12, resets_at: 4_102_444_800 }
  }
})
const hook = JSON.stringify({ ...JSON.parse(status), hook_event_name: "Stop" })

const folder = mkdtempSync(join(tmpdir(), "dream-team-bench-feed-"))
const database = join(folder, "sessions.db")

/** How long Node with these arguments takes, ms. */
const measured = (args: ReadonlyArray<string>, input: string): Promise<number> =>
  new Promise((resolve, reject) => {
    const start = performance.now()
    const child = spawn(process.execPath, args, { stdio: ["pipe", "ignore", "inherit"] })
    child.on("error", reject).on("exit", () => resolve(performance.now() - start))
    child.stdin.on("error", () => undefined).end(input)
  })

const median = (times: ReadonlyArray<number>): number =>
  Math.round((times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)] ?? 0) * 10) / 10

const feed = "dist/bin/dream-team-feed.js"
const cases = {
  node: { args: ["-e", "0"], input: "" },
  statusline: { args: [feed, "statusline", "--database", database], input: status },
  chained: { args: [feed, "statusline", "--database", database, "--then", "echo mine"], input: status },
  hook: { args: [feed, "hook", "--database", database], input: hook }
}

try {
  const times = new Map(Object.keys(cases).map((name) => [name, [] as number[]]))
  const measure = async (name: string, { args, input }: (typeof cases)["node"]): Promise<void> => {
    times.get(name)?.push(await measured(args, input))
  }
  for (const { args, input } of Object.values(cases)) await measured(args, input)
  // Taken in turns, so that a busy moment of the machine meets all of them.
  for (let round = 0; round < rounds; round++) for (const [name, one] of Object.entries(cases)) await measure(name, one)

  const other = new Sqlite(database)
  other.exec("BEGIN IMMEDIATE")
  times.set("busy", [])
  for (let round = 0; round < rounds / 3; round++) await measure("busy", cases.statusline)
  other.close()

  const medians = Object.fromEntries(Array.from(times, ([name, all]) => [name, median(all)]))
  const allowedMs = Math.round((2 * (medians.node ?? 0) + 50) * 10) / 10
  const slowest = Math.max(medians.statusline ?? 0, medians.chained ?? 0, medians.hook ?? 0)
  console.log(JSON.stringify({ rounds, medianMs: medians, allowedMs, within: slowest <= allowedMs }, undefined, 2))
} finally {
  rmSync(folder, { recursive: true, force: true })
}
