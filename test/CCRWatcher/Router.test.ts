import { spawn } from "node:child_process"
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { FetchHttpClient, HttpClient, HttpClientResponse } from "@effect/platform"
import { NodeContext } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Effect, Fiber, Layer, Redacted, Schema, Stream, TestClock } from "effect"
import { ClaudeCodeRouter, OwnAddress, routerTenant } from "../../src/CCRWatcher/Router.js"
import { ClaudeCode, type ClaudeEndpoint } from "../../src/ClaudeCode.js"
import { SessionId } from "../../src/Domain/Session.js"
import { TenantId } from "../../src/Domain/Task.js"
import { Settings } from "../../src/Settings.js"
import { Simulator } from "../../src/Simulator.js"
import { ccrCommand, claudeCode, claudeHome, haveCcr, haveClaude } from "../support/Claude.js"
import { freePort, startService } from "../support/Service.js"

const routerOver = (home: string, gateway: string, command = ccrCommand, client = FetchHttpClient.layer) =>
  ClaudeCodeRouter.layerConfig.pipe(
    Layer.provide(
      Layer.mergeAll(
        Settings.layer(
          Settings.make({
            apiKeys: [
              { tenant: TenantId.make("somebody"), key: Redacted.make("key-of-somebody-else") },
              { tenant: routerTenant, key: Redacted.make("key-of-the-one-router") }
            ],
            ccr: { command, home }
          })
        ),
        Layer.succeed(OwnAddress, { url: Effect.succeed(gateway), announce: () => Effect.void }),
        NodeContext.layer,
        client
      )
    )
  )

const State = Schema.parseJson(Schema.Struct({ port: Schema.Int, token: Schema.String, owner: Schema.Int }))
const stateOf = (home: string) => Schema.decodeSync(State)(readFileSync(join(home, "router.json"), "utf8"))
const pidOf = (home: string) => Number(readFileSync(join(home, ".claude-code-router/.claude-code-router.pid"), "utf8"))

const statusOf = ({ baseUrl, token }: ClaudeEndpoint, given = Redacted.value(token)) =>
  Effect.promise(async () => {
    const response = await fetch(`${baseUrl}/api/transformers`, { headers: { "x-api-key": given } }).catch(
      () => undefined
    )
    await response?.arrayBuffer()
    return response?.status
  })

/** A router that a killed service has left behind, which keeps running; ended with the scope at the latest. */
const leftover = (home: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const environment = { PATH: process.env.PATH, HOME: home, TMPDIR: join(home, "tmp") }
      const child = spawn(ccrCommand, ["start"], { detached: true, stdio: "ignore", env: environment })
      return child.pid ?? 0
    }),
    (pid) => Effect.ignore(Effect.try(() => process.kill(pid, "SIGKILL")))
  )

const lives = (pid: number) =>
  Effect.orElseSucceed(
    Effect.try(() => process.kill(pid, 0)),
    () => false
  )

const chain = "codex/gpt-6-sol>synthetic/hf:zai-org/GLM-5.2>gemini#handoff-1"

const platforms = Simulator.make({
  seed: 1,
  keepRequests: 20,
  platforms: { ...Simulator.instant.platforms, anthropic: Simulator.anthropic }
})

const Turns = Schema.Struct({
  messages: Schema.Array(
    Schema.Struct({
      role: Schema.String,
      content: Schema.optional(Schema.Unknown),
      tool_calls: Schema.optional(
        Schema.Array(Schema.Struct({ id: Schema.String, function: Schema.Struct({ name: Schema.String }) }))
      ),
      tool_call_id: Schema.optional(Schema.String)
    })
  )
})

/** The turns of a chat, its tool calls numbered in their order. */
const turnsOf = (body: unknown) => {
  const { messages } = Schema.decodeUnknownSync(Turns)(body)
  const ids = messages.flatMap(({ tool_calls = [] }) => tool_calls.map(({ id }) => id))
  const named = (id: string) => `call-${ids.indexOf(id) + 1}`
  return messages.map(({ tool_call_id: id, tool_calls: calls, ...turn }) => ({
    ...turn,
    ...(calls === undefined ? {} : { tool_calls: calls.map((call) => ({ ...call, id: named(call.id) })) }),
    ...(id === undefined ? {} : { tool_call_id: named(id) })
  }))
}

/** The real service over simulated platforms, with a key. */
const service = (environment: Readonly<Record<string, string>>, database: string) =>
  Effect.acquireRelease(
    Effect.promise(async () =>
      startService(await freePort(), {
        ...environment,
        DREAM_TEAM_DATABASE: database,
        DREAM_TEAM_API_KEYS: "somebody:key-of-somebody-else,claude-code-router:key-of-the-one-router"
      })
    ),
    ({ stop }) => Effect.promise(() => stop("SIGTERM"))
  )

describe.skipIf(!haveCcr || !haveClaude)("the real Claude Code Router", () => {
  it.live(
    "carries a session of the real Claude Code through this service to who can answer, with its earlier turns",
    () =>
      Effect.gen(function* () {
        const simulator = yield* platforms
        const home = yield* claudeHome
        const { url } = yield* service(simulator.environment, join(home.home, "tasks.db"))
        const ccr = join(home.home, "ccr")
        const session = SessionId.make("11111111-1111-4111-8111-111111111111")
        const prompt = "remember the number 4711, then call the tool Read"
        yield* Effect.gen(function* () {
          const router = yield* ClaudeCodeRouter
          const claude = yield* ClaudeCode
          const first = yield* Stream.runCollect(
            claude.run({ prompt, cwd: home.project, sessionId: session, timeoutMs: 50_000 })
          ).pipe(Effect.zipLeft(simulator.subscription("anthropic", { five_hour: { utilization: 1 } })))
          expect(Chunk.toReadonlyArray(first).at(-1)).toMatchObject({ _tag: "Finished" })

          yield* simulator.fault({ platform: "codex", fault: "status", status: 429, errorShape: "quota-exhausted" })
          const endpoint = yield* router.endpoint
          const continued = yield* Stream.runCollect(
            claude.run({
              prompt: "continue",
              cwd: home.project,
              resume: session,
              fork: true,
              model: router.modelFor(chain),
              router: endpoint,
              timeoutMs: 50_000
            })
          )
          const finished = Chunk.toReadonlyArray(continued).at(-1)
          expect(finished).toMatchObject({ _tag: "Finished" })
          expect(finished).toHaveProperty(
            "text",
            expect.stringContaining("Simulated answer of synthetic (hf:zai-org/GLM-5.2)")
          )
          const received = (yield* simulator.requests).filter(({ platform }) => platform !== "anthropic")
          expect(received.at(-1)).toMatchObject({ platform: "synthetic", model: "hf:zai-org/GLM-5.2" })
          const turns = JSON.stringify(received.at(-1)?.body)
          for (const turn of [prompt, "Simulated answer of anthropic", "continue"]) {
            expect(turns).toContain(turn)
          }

          // What it had called, and what came of that, arrive together.
          expect(turnsOf(received.at(-1)?.body)).toMatchObject([
            { role: "system" },
            { role: "user" },
            { role: "assistant", tool_calls: [{ id: "call-1", function: { name: "Read" } }] },
            { role: "tool", tool_call_id: "call-1", content: expect.any(String) },
            { role: "assistant" },
            { role: "user" }
          ])

          // Nobody without its token gets in, and nobody else reads what it knows.
          expect(yield* statusOf(endpoint, "another")).toBe(401)
          const files = readdirSync(ccr, { recursive: true, encoding: "utf8" })
          const secret = files.filter((file) => {
            const path = join(ccr, file)
            return statSync(path).isFile() && /key-of|"token"/.test(readFileSync(path, "utf8"))
          })
          expect(secret.sort()).toEqual([".claude-code-router/config.json", "router.json"])
          for (const file of secret) expect(statSync(join(ccr, file)).mode & 0o777).toBe(0o600)
          const config = readFileSync(join(ccr, ".claude-code-router/config.json"), "utf8")
          expect(config).toContain("key-of-the-one-router")
          expect(config).not.toContain("key-of-somebody-else")
          expect(config).not.toContain("fallback")
        }).pipe(Effect.provide(Layer.merge(routerOver(ccr, url), claudeCode(home, simulator.baseUrls.anthropic))))
        expect(yield* lives(pidOf(ccr))).toBe(false)
      }).pipe(Effect.scoped),
    60_000
  )

  it.live(
    "is started again when it dies, at the same place, and what a killed service left behind is ended",
    () =>
      Effect.gen(function* () {
        const { home } = yield* claudeHome
        const ccr = join(home, "ccr")
        const running = Effect.flatMap(ClaudeCodeRouter, (router) => router.endpoint)
        const service = routerOver(ccr, "http://127.0.0.1:1")
        const endpoint = yield* Effect.gen(function* () {
          const endpoint = yield* running
          const first = pidOf(ccr)
          expect(yield* statusOf(endpoint)).toBe(200)
          process.kill(first, "SIGKILL")
          yield* Effect.repeat(Effect.sleep(100), {
            until: () => Effect.map(statusOf(endpoint), (status) => status === 200 && pidOf(ccr) !== first)
          }).pipe(Effect.timeout("20 seconds"))
          return endpoint
        }).pipe(Effect.provide(service))

        const left = yield* leftover(ccr)
        yield* Effect.repeat(Effect.sleep(100), {
          until: () => Effect.map(statusOf(endpoint), (status) => status === 200)
        }).pipe(Effect.timeout("20 seconds"))
        const state = stateOf(ccr)
        writeFileSync(join(ccr, "router.json"), JSON.stringify({ ...state, owner: process.ppid }))
        const refused = yield* Effect.flip(Effect.provide(running, service))
        expect(refused.message).toContain("DREAM_TEAM_CCR_HOME")
        expect(yield* lives(left)).toBe(true)

        writeFileSync(join(ccr, "router.json"), JSON.stringify({ ...state, owner: 2 ** 30 }))
        expect(yield* Effect.provide(running, service)).toEqual(endpoint)
        expect(yield* lives(left)).toBe(false)
        expect(stateOf(ccr).owner).toBe(process.pid)
      }).pipe(Effect.scoped),
    60_000
  )
})

/** A program that passes for Claude Code Router: tells a version, and does that when it is started. */
const passesFor = (folder: string, version: string, start: string): string => {
  const file = join(folder, `ccr-${version}`)
  writeFileSync(
    file,
    `#!/usr/bin/env node
if (process.argv[2] === "version") console.log("claude-code-router version: ${version}")
else {
  const { appendFileSync, readFileSync } = require("node:fs")
  const config = JSON.parse(readFileSync(process.env.HOME + "/.claude-code-router/config.json", "utf8"))
  ${start}
}
`,
    { mode: 0o755 }
  )
  return file
}

describe("Claude Code Router of another kind", () => {
  it.live("is refused where its version is not one that is known, and not started", () =>
    Effect.gen(function* () {
      const { home } = yield* claudeHome
      const command = passesFor(home, "3.1.1", `appendFileSync(${JSON.stringify(join(home, "starts"))}, "x")`)
      const failed = yield* Effect.flatMap(ClaudeCodeRouter, ({ endpoint }) => Effect.flip(endpoint)).pipe(
        Effect.provide(routerOver(join(home, "ccr"), "http://127.0.0.1:1", command))
      )
      expect(failed.message).toContain("Claude Code Router 3.1.1")
      expect(failed.message).toContain("npm install --global @musistudio/claude-code-router@2.0.0")
      expect(existsSync(join(home, "starts"))).toBe(false)
    }).pipe(Effect.scoped)
  )

  it.scoped("is started again when it answers no more, though it lives", () =>
    Effect.gen(function* () {
      const { home } = yield* claudeHome
      const starts = join(home, "starts")
      const command = passesFor(
        home,
        "2.0.0",
        `appendFileSync(${JSON.stringify(starts)}, "x"); setInterval(() => {}, 1e6)`
      )
      let isHanging = false
      const client = HttpClient.make((request) =>
        isHanging ? Effect.never : Effect.succeed(HttpClientResponse.fromWeb(request, new Response("{}")))
      )
      /** Real programs take real time to start, and no time of the test. */
      const until = (count: number) =>
        Effect.promise(async () => {
          const isThere = () => existsSync(starts) && readFileSync(starts, "utf8").length === count
          for (let look = 0; look < 1_000 && !isThere(); look++) await new Promise((resume) => setTimeout(resume, 20))
          expect(isThere()).toBe(true)
        })
      yield* Effect.gen(function* () {
        const router = yield* ClaudeCodeRouter
        const endpoint = yield* router.endpoint
        yield* until(1)
        isHanging = true
        yield* TestClock.adjust("24 seconds")
        isHanging = false
        // Its end takes a moment, and so does the pause before the next.
        const again = yield* Effect.fork(
          Effect.forever(
            Effect.zipRight(
              Effect.promise(() => new Promise(setImmediate)),
              TestClock.adjust(10)
            )
          )
        )
        yield* until(2)
        yield* Fiber.interrupt(again)
        expect(yield* router.endpoint).toEqual(endpoint)
      }).pipe(
        Effect.provide(
          routerOver(join(home, "ccr"), "http://127.0.0.1:1", command, Layer.succeed(HttpClient.HttpClient, client))
        )
      )
    })
  )
})

describe("Claude Code Router that is not there", () => {
  it.live("is told, with what installs it, whenever it is asked for", () =>
    Effect.gen(function* () {
      const { home } = yield* claudeHome
      yield* Effect.gen(function* () {
        const router = yield* ClaudeCodeRouter
        for (const _ of [1, 2]) {
          const failed = yield* Effect.flip(router.endpoint)
          expect(failed.message).toContain("npm install --global @musistudio/claude-code-router@2.0.0")
        }
      }).pipe(Effect.provide(routerOver(join(home, "ccr"), "http://127.0.0.1:1", "/nowhere/ccr")))
    }).pipe(Effect.scoped)
  )
})
