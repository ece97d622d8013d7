import { createServer, type Server } from "node:http"
import { FileSystem } from "@effect/platform"
import { NodeFileSystem, NodeHttpClient } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { ConfigProvider, Effect, Fiber, Layer, Stream, TestClock } from "effect"
import * as Doctor from "../../src/Cli/Doctor.js"
import { type AttemptFailure, CredentialFailure, PlatformFailure, QuotaFailure } from "../../src/Domain/Failure.js"
import { type CheckResult, type PlatformClient, Platforms } from "../../src/Platforms.js"
import { Settings, type SettingsShape } from "../../src/Settings.js"
import { own } from "../../src/Sql/Ownership.js"
import { captured } from "../support/CapturedConsole.js"
import { startPostgres, startTimeout } from "../support/Postgres.js"

const withVariables = (variables: Record<string, string>) =>
  Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables)), { pathDelim: "_" }))

const clientOf = (
  settings: SettingsShape["platforms"][number],
  check: Effect.Effect<CheckResult, AttemptFailure>
): PlatformClient => ({
  id: settings.id,
  settings,
  complete: () => Effect.dieMessage("not used"),
  stream: () => Stream.dieMessage("not used"),
  listModels: Effect.dieMessage("not used"),
  check
})

const codex = Settings.platformDefaults("codex", { apiKey: "sk-hush" })

const examine = (
  options: Parameters<typeof Settings.make>[0],
  check: Effect.Effect<CheckResult, AttemptFailure> = Effect.succeed({ models: [], readings: [] })
) => {
  const settings = Settings.make({ port: 0, database: ":memory:", platforms: [codex], ...options })
  return Doctor.examine({ settings, entries: [], file: undefined }).pipe(
    Effect.provide(Platforms.layerClients(settings.platforms.map((platform) => clientOf(platform, check)))),
    Effect.provide(Layer.merge(NodeHttpClient.layer, NodeFileSystem.layer)),
    Effect.map((checks) => (name: string) => checks.find((candidate) => candidate.name === name))
  )
}

const serving = (answer: unknown) =>
  Effect.acquireRelease(
    Effect.async<{ readonly server: Server; readonly port: number }>((resume) => {
      const server = createServer((_, response) => {
        response.setHeader("content-type", "application/json")
        response.end(JSON.stringify(answer))
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        resume(Effect.succeed({ server, port: typeof address === "object" && address !== null ? address.port : 0 }))
      })
    }),
    ({ server }) => Effect.sync(() => server.close())
  )

const temporary = Effect.flatMap(FileSystem.FileSystem, (fileSystem) => fileSystem.makeTempDirectoryScoped()).pipe(
  Effect.provide(NodeFileSystem.layer)
)

describe("doctor: platforms", () => {
  const failure = { platform: codex.id, message: "said so" }

  it.live("tells what is configured and that it answers", () =>
    Effect.gen(function* () {
      const check = (yield* examine({}, Effect.succeed({ models: ["gpt-6-sol"], readings: [] })))("codex")
      expect(check?.status).toBe("ok")
      expect(check?.found).toContain("https://api.openai.com/v1, model gpt-6-sol, key from DREAM_TEAM_CODEX_API_KEY")
      expect(check?.found).not.toContain("hush")
    })
  )

  it.live("says what to do about each kind of failure", () =>
    Effect.gen(function* () {
      const found = (check: Effect.Effect<CheckResult, AttemptFailure>) =>
        Effect.map(examine({}, check), (checks) => checks("codex"))
      expect(yield* found(new CredentialFailure({ ...failure, status: 401 }))).toMatchObject({
        status: "problem",
        found: expect.stringContaining("the key is refused: said so (HTTP 401)"),
        toDo: expect.stringContaining("OPENAI_API_KEY")
      })
      expect(yield* found(new PlatformFailure({ ...failure, reason: "network" }))).toMatchObject({
        status: "problem",
        toDo: expect.stringContaining("DREAM_TEAM_CODEX_BASE_URL")
      })
      expect(yield* found(new QuotaFailure({ ...failure, reason: "rate" }))).toMatchObject({ status: "note" })
      expect(yield* found(Effect.succeed({ models: ["a", "b"], readings: [] }))).toMatchObject({
        status: "note",
        toDo: "set DREAM_TEAM_CODEX_MODEL to one it has, such as a, b"
      })
      const readings: CheckResult["readings"] = [
        { unit: "requests", name: "weekly", limit: 100, remaining: 0, resetsInMs: 86_400_000 },
        { unit: "requests", name: "of another model", model: "another", remaining: 0 },
        { unit: "tokens", name: "daily", remaining: 5 }
      ]
      const usedUp = yield* found(Effect.succeed({ models: [], readings }))
      expect(usedUp).toMatchObject({
        status: "note",
        found: expect.stringMatching(/used up: weekly until \d{4}-\d\d-\d\dT[^ ]+Z$/)
      })
    })
  )

  it.live("tells what is left of the quotas", () =>
    Effect.gen(function* () {
      const readings: CheckResult["readings"] = [
        { unit: "requests", name: "5h", limit: 500, remaining: 364.5, refillsInMs: 900_000 },
        { unit: "usd", name: "weekly", limit: 24, remaining: 11.2 },
        { unit: "percent", limit: 100, remaining: 46.7 },
        { unit: "tokens", limit: 5 }
      ]
      const check = (yield* examine({}, Effect.succeed({ models: [], readings })))("codex")
      expect(check?.status).toBe("ok")
      expect(check?.found).toMatch(
        /; 364\.5 of 500 requests left \(5h\); \$11\.20 of \$24\.00 left \(weekly\); 46\.7 % left$/
      )
    })
  )

  it.effect("waits 10 s for an answer, not longer", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.fork(examine({}, Effect.never))
      // The port is checked for real before the platform is asked: time goes on until the check has begun to wait.
      yield* Effect.repeat(TestClock.adjust("10 seconds").pipe(Effect.zipRight(Effect.yieldNow())), {
        until: () => Effect.map(Fiber.poll(fiber), (exit) => exit._tag === "Some")
      })
      expect((yield* Fiber.join(fiber))("codex")).toMatchObject({
        status: "problem",
        found: expect.stringContaining("no answer within 10 s")
      })
    })
  )
})

describe("doctor: port", () => {
  it.scopedLive("tells a free port, a running dream-team and another program apart", () =>
    Effect.gen(function* () {
      expect((yield* examine({ port: 0 }))("port")).toMatchObject({ status: "ok" })
      const own = yield* serving({ status: "live" })
      expect((yield* examine({ port: own.port }))("port")).toMatchObject({
        status: "ok",
        found: expect.stringContaining("already running")
      })
      const other = yield* serving({ hello: "world" })
      expect((yield* examine({ port: other.port }))("port")).toMatchObject({
        status: "problem",
        toDo: expect.stringContaining("DREAM_TEAM_PORT")
      })
    })
  )

  it.live("says where an address is not this machine's", () =>
    Effect.gen(function* () {
      expect((yield* examine({ host: "203.0.113.7", port: 1234 }))("port")).toMatchObject({
        status: "problem",
        toDo: expect.stringContaining("DREAM_TEAM_HOST")
      })
    })
  )
})

describe("doctor: database", () => {
  it.scopedLive("says whether it can be created, opened, or is somebody else's", () =>
    Effect.gen(function* () {
      const fileSystem = yield* FileSystem.FileSystem
      const folder = yield* temporary
      const check = (database: string) => Effect.map(examine({ database }), (checks) => checks("database"))
      expect(yield* check(`${folder}/new/folder/team.db`)).toMatchObject({
        status: "ok",
        found: expect.stringContaining("will be created")
      })
      expect(yield* fileSystem.readDirectory(folder)).toEqual([])

      const file = `${folder}/team.db`
      yield* fileSystem.writeFileString(file, "")
      expect(yield* check(file)).toMatchObject({ status: "ok", found: expect.stringContaining("can be opened") })
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* own(file)
          expect(yield* check(file)).toMatchObject({ status: "problem", found: expect.stringContaining("in use") })
          const running = yield* serving({ status: "live" })
          const checks = yield* examine({ database: file, port: running.port })
          expect(checks("database")).toMatchObject({ status: "ok", found: expect.stringContaining("is running") })
        })
      )

      yield* fileSystem.writeFileString(file, "this is no database, whatever its name may say".repeat(50))
      expect(yield* check(file)).toMatchObject({ status: "problem" })
      const elsewhere = yield* serving({ status: "live" })
      const besides = yield* examine({ database: file, port: elsewhere.port })
      expect(besides("database"), "damage is not excused by a service that runs").toMatchObject({ status: "problem" })
      expect(yield* check(`${file}/below/a/file.db`)).toMatchObject({ status: "problem" })
      expect(yield* check(":memory:")).toMatchObject({ status: "note" })
    }).pipe(Effect.provide(NodeFileSystem.layer))
  )

  it.scopedLive(
    "asks the server of a PostgreSQL database, and names no password",
    () =>
      Effect.gen(function* () {
        const server = yield* Effect.acquireRelease(
          Effect.promise(() => startPostgres()),
          (started) => Effect.promise(() => started.remove())
        )
        const url = yield* Effect.promise(() => server.database())
        const check = (database: string) => Effect.map(examine({ database }), (checks) => checks("database"))
        const name = `postgres://dream@${new URL(url).host}${new URL(url).pathname}`
        expect(yield* check(url)).toMatchObject({
          status: "ok",
          found: expect.stringMatching(new RegExp(`^${name} answers \\(PostgreSQL \\d+\\.\\d+\\)$`))
        })
        expect(
          yield* Effect.promise(() => server.query(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        ).toEqual([])
        const wrong = yield* check(server.urlOf("postgres", { password: "hush" }))
        expect(wrong).toMatchObject({ status: "problem", found: expect.stringContaining("password is wrong") })
        expect(wrong?.found).not.toContain("hush")
      }),
    startTimeout
  )
})

describe("doctor: node", () => {
  it.each([
    ["20.19.0", "ok"],
    ["20.18.9", "problem"],
    ["18.20.0", "problem"],
    ["22.3.1", "ok"]
  ])("judges %s", (version, status) => {
    expect(Doctor.checkNode(version).status).toBe(status)
  })
})

describe("doctor", () => {
  const run = (variables: Record<string, string>, json: boolean) =>
    captured(Doctor.run({ json, port: 0, database: ":memory:" })).pipe(
      Effect.provide(NodeFileSystem.layer),
      withVariables(variables)
    )

  it.live("without any key says so, points at the demo, and fails", () =>
    Effect.gen(function* () {
      const { exit, out } = yield* run({}, false)
      expect(exit).toMatchObject({ _tag: "Failure", cause: { error: { _tag: "DoctorFoundProblems" } } })
      expect(out).toContain("dream-team demo")
      expect(out).toContain("set DREAM_TEAM_CODEX_API_KEY or OPENAI_API_KEY")
      const columns = out.split("\n").filter((line) => !line.trimStart().startsWith("->"))
      expect(new Set(columns.map((line) => line.search(/(?<=^\S+\s+\S+\s+)\S/))).size).toBe(1)
    })
  )

  it.live("reports wrong settings like any other problem", () =>
    Effect.gen(function* () {
      const { exit, out } = yield* run({ DREAM_TEAM_LOG_LEVEL: "loud", DREAM_TEAM_WHAT: "x" }, true)
      expect(exit._tag).toBe("Failure")
      const report = JSON.parse(out)
      expect(report.ok).toBe(false)
      expect(report.checks.filter(({ name }: { name: string }) => name === "settings")).toHaveLength(2)
    })
  )

  it.scopedLive("notes a settings file whose keys others may read", () =>
    Effect.gen(function* () {
      const fileSystem = yield* FileSystem.FileSystem
      const file = `${yield* temporary}/team.json`
      yield* fileSystem.writeFileString(file, JSON.stringify({ apiKeys: ["0123456789abcdef"] }), { mode: 0o644 })
      const status = Effect.map(
        run({ DREAM_TEAM_CONFIG: file }, true),
        ({ out }) => JSON.parse(out).checks.find(({ name }: { name: string }) => name === "settings").status
      )
      expect(yield* status).toBe("note")
      yield* fileSystem.chmod(file, 0o600)
      expect(yield* status).toBe("ok")
    }).pipe(Effect.provide(NodeFileSystem.layer))
  )

  it.scopedLive("asks a configured platform over HTTP and succeeds when all is well", () =>
    Effect.gen(function* () {
      const { port } = yield* serving({ object: "list", data: [{ id: "m", object: "model" }] })
      const { exit, out } = yield* run(
        {
          DREAM_TEAM_PLATFORMS: "local",
          DREAM_TEAM_LOCAL_BASE_URL: `http://127.0.0.1:${port}/v1`,
          DREAM_TEAM_LOCAL_MODEL: "m",
          DREAM_TEAM_LOCAL_API_KEY: "hush"
        },
        true
      )
      expect(exit._tag).toBe("Success")
      expect(JSON.parse(out).checks).toContainEqual(
        expect.objectContaining({ name: "local", status: "ok", found: expect.stringContaining("answers in") })
      )
      expect(out).not.toContain("hush")
    })
  )
})
