import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Random } from "effect"
import { afterAll } from "vitest"
import { mixedLoad } from "../../src/Cli/Demo/Load.js"
import { frame, makeScreen } from "../../src/Cli/Demo/Progress.js"
import { complaint, inWords, type Summary, summarize } from "../../src/Cli/Demo/Summary.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { type Attempt, TaskId, type TaskState, type TaskSummary, TenantId } from "../../src/Domain/Task.js"
import { dreamTeam, startDreamTeam } from "../support/Command.js"
import { eventually } from "../support/Service.js"

const temporary = mkdtempSync(join(tmpdir(), "dream-team-demo-test-"))
afterAll(() => rmSync(temporary, { recursive: true, force: true }))
const env = { TMPDIR: temporary }

const task = (state: TaskState, waitMs: number): TaskSummary => ({
  id: TaskId.make("01a203e9-f9ca-7000-aa2c-096f46a1f373"),
  tenant: TenantId.make("local"),
  type: "testing",
  priority: "LOW",
  state,
  attempts: 1,
  createdAt: 1_000,
  updatedAt: 1_000,
  deadline: 90_000,
  startedAt: 1_000 + waitMs,
  preview: "Test it"
})

const attempt = (platform: "codex" | "qwen", outcome: Attempt["outcome"]): Attempt => ({
  number: 1,
  platform: PlatformId.make(platform),
  model: "m",
  outcome,
  startedAt: 1_000,
  durationMs: 200,
  ...(outcome === "succeeded"
    ? { usage: { inputTokens: 7, cachedInputTokens: 0, outputTokens: 3, reasoningTokens: 0 } }
    : {}),
  decision: { candidates: [], excluded: [], waitedMs: 0 }
})

const summaryOf = (tasks: ReadonlyArray<TaskSummary>, violations = 0): Summary =>
  summarize({
    submitted: 3,
    tasks,
    attempts: [
      [attempt("codex", "failed"), attempt("qwen", "succeeded")],
      [attempt("qwen", "failed"), attempt("qwen", "succeeded")]
    ],
    platforms: ["codex", "qwen"],
    stats: { violations, platforms: {}, uptimeMs: 1_234 },
    wallMs: 1_234
  })

describe("the demo's summary", () => {
  const whole = summaryOf([task("succeeded", 10), task("succeeded", 20), task("failed", 30)])

  it("counts what was done, by whom, and what moved to another platform", () => {
    assert.deepStrictEqual(whole.tasks, { submitted: 3, succeeded: 2, failed: 1, lost: 0 })
    assert.strictEqual(whole.failovers, 1)
    assert.deepStrictEqual(whole.byPriority.LOW, { count: 2, waitMsP50: 20, waitMsP99: 30 })
    assert.deepStrictEqual(whole.byPlatform.qwen, {
      succeeded: 2,
      attempts: 3,
      failedAttempts: 1,
      tokens: 20,
      durationMsP50: 200,
      durationMsP95: 200
    })
    assert.isUndefined(complaint(whole), "a task that failed has ended: it is not lost")
  })

  it("complains of every task that did not end or is gone, and of every violated limit", () => {
    const stuck = summaryOf([task("succeeded", 10), task("running", 20)])
    assert.strictEqual(stuck.tasks.lost, 2)
    assert.strictEqual(complaint(stuck), "2 tasks lost and 0 limit violations; both must be 0.")
    const beyond = summaryOf([task("succeeded", 1), task("succeeded", 2), task("succeeded", 3)], 1)
    assert.strictEqual(complaint(beyond), "0 tasks lost and 1 limit violation; both must be 0.")
  })

  it("tells people what was done to the team, and shows no time where nothing was measured", () => {
    const text = inWords(whole, "codex was made to fail for 4.0 s")
    assert.include(text, "3 tasks submitted, 2 succeeded, 1 failed, 0 lost, in 1.2 s.")
    assert.include(text, "codex was made to fail for 4.0 s: 1 failover to another platform. 0 limit violations.")
    assert.match(text, /^codex +0 +1 +1 +0 +- +-$/m)
    assert.match(text, /^HIGH +0 +- +-$/m)
  })
})

describe("the demo's load", () => {
  const load = (seed: number) => Effect.runSync(mixedLoad(200).pipe(Effect.withRandom(Random.make(seed))))

  it("is the same for the same seed, and has every type and priority", () => {
    assert.deepStrictEqual(load(7), load(7))
    assert.notDeepEqual(load(7), load(8))
    assert.strictEqual(new Set(load(7).map(({ type }) => type)).size, 6)
    assert.strictEqual(new Set(load(7).map(({ priority }) => priority)).size, 3)
  })
})

describe("the demo's live picture", () => {
  const picture = frame({ submitted: 4, done: 1, doneBy: {}, platforms: [], elapsedMs: 500 })

  const drawn = (isTTY: boolean) => {
    const written: Array<string> = []
    const draw = Effect.runSync(
      makeScreen({
        isTTY,
        columns: 20,
        write: (text: string | Uint8Array) => {
          written.push(String(text))
          return true
        }
      })
    )
    Effect.runSync(Effect.zipRight(draw(picture), draw(picture)))
    return written
  }

  it("replaces the one before, and no line of it is wider than the terminal", () => {
    const [first = "", second = ""] = drawn(true)
    const lines = picture.split("\n").length
    assert.isTrue(second.startsWith(`\u001b[${lines}A\u001b[0J`))
    for (const line of first.replace("\u001b[0J", "").split("\n")) assert.isAtMost(line.length, 20)
    assert.strictEqual(first.split("\n").length - 1, lines)
  })

  it("is not drawn where there is no terminal", () => {
    assert.deepStrictEqual(drawn(false), [])
  })
})

describe("dream-team demo", () => {
  it("prints one JSON object and nothing else, loses nothing, and leaves nothing behind", async () => {
    const { code, stderr, stdout } = await dreamTeam(["demo", "--tasks", "12", "--seed", "3", "--json"], { env })
    assert.deepEqual([code, stderr], [0, ""])
    const summary = JSON.parse(stdout)
    assert.hasAllKeys(summary, ["tasks", "byPlatform", "byPriority", "failovers", "limitViolations", "wallMs"])
    assert.deepEqual(summary.tasks, { submitted: 12, succeeded: 12, failed: 0, lost: 0 })
    assert.hasAllKeys(summary.byPriority, ["HIGH", "MEDIUM", "LOW"])
    assert.strictEqual(summary.limitViolations, 0)
    assert.deepEqual(readdirSync(temporary), [])
  })

  it("ends cleanly when it is stopped, and leaves nothing behind", async () => {
    const running = startDreamTeam(["demo"], { env })
    await eventually("the demo has begun", 10_000, async () => readdirSync(temporary).length > 0 || undefined)
    running.process.kill("SIGINT")
    assert.deepEqual(await running.ended, { code: 130, stdout: "", stderr: "" })
    assert.deepEqual(readdirSync(temporary), [])
  })
})
