import { writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Simulator } from "../../src/Simulator.js"
import { claudeHome, haveCcr, haveClaude } from "../support/Claude.js"
import { dreamTeam } from "../support/Command.js"
import { eventually, freePort, startService } from "../support/Service.js"

const Task = Schema.parseJson(
  Schema.Struct({
    state: Schema.String,
    result: Schema.optional(Schema.Struct({ text: Schema.String, platform: Schema.String, model: Schema.String }))
  })
)

describe.skipIf(!haveCcr || !haveClaude)("a task of the platform claude", () => {
  it.live(
    "is done by the real Claude Code, and beyond the account's limit by whoever its session is handed off to",
    () =>
      Effect.gen(function* () {
        const simulator = yield* Simulator.make({
          seed: 1,
          keepRequests: 20,
          platforms: { ...Simulator.instant.platforms, anthropic: Simulator.anthropic }
        })
        const home = yield* claudeHome
        const config = join(home.home, "config.json")
        writeFileSync(config, JSON.stringify({ sessions: { quietMs: "100ms", pollMs: "200ms" } }))
        const environment = {
          ...simulator.environment,
          ...home.environment(simulator.baseUrls.anthropic),
          PATH: `${resolve("node_modules/.bin")}:${process.env.PATH}`,
          DREAM_TEAM_PORT: String(yield* Effect.promise(freePort)),
          DREAM_TEAM_PLATFORMS: "codex,gemini,qwen,synthetic,claude",
          DREAM_TEAM_DATABASE: join(home.home, "tasks.db"),
          DREAM_TEAM_CONFIG: config
        }
        const service = yield* Effect.acquireRelease(
          Effect.promise(() => startService(Number(environment.DREAM_TEAM_PORT), environment)),
          ({ stop }) => Effect.promise(() => stop("SIGTERM"))
        )
        const submit = (prompt: string) =>
          Effect.promise(async () => {
            const args = ["submit", prompt, "--platform", "claude", "--wait", "--json"]
            const ran = await dreamTeam(args, { env: environment })
            if (ran.code !== 0) throw new Error(`${ran.stderr}\n${ran.stdout}\n${service.log()}`)
            return Schema.decodeSync(Task)(ran.stdout)
          })

        expect(yield* submit("say hello")).toMatchObject({
          state: "succeeded",
          result: { platform: "claude", text: expect.stringContaining("Simulated answer of anthropic") }
        })

        yield* simulator.subscription("anthropic", { five_hour: { utilization: 1 } })
        expect(yield* submit("remember the number 4711")).toMatchObject({
          state: "succeeded",
          result: { platform: "claude", text: expect.stringContaining("Simulated answer of codex") }
        })
        const received = (yield* simulator.requests).filter(({ platform }) => platform === "codex")
        expect(JSON.stringify(received.at(-1)?.body)).toContain("remember the number 4711")
        yield* Effect.promise(() =>
          eventually("the session ends", 10_000, async () => {
            const listed = await fetch(`${service.url}/v1/sessions`).then((response) => response.text())
            return /"handed-off"|"ended"/.test(listed) ? true : undefined
          })
        )
      }).pipe(Effect.scoped),
    120_000
  )
})
