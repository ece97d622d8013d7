import { FileSystem } from "@effect/platform"
import { NodeFileSystem } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { ConfigProvider, Effect } from "effect"
import * as Config from "../../src/Cli/Config.js"
import { Settings } from "../../src/Settings.js"
import { captured } from "../support/CapturedConsole.js"

const withVariables = (variables: Record<string, string>) =>
  Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables)), { pathDelim: "_" }))

const inFolder = <A, E>(use: (folder: string) => Effect.Effect<A, E, FileSystem.FileSystem>) =>
  Effect.scoped(
    Effect.flatMap(
      Effect.flatMap(FileSystem.FileSystem, (fileSystem) => fileSystem.makeTempDirectoryScoped()),
      use
    )
  ).pipe(Effect.provide(NodeFileSystem.layer))

const secrets = {
  OPENAI_API_KEY: "sk-hush",
  DREAM_TEAM_API_KEYS: "team-a:hush-hush-hush-hush",
  DREAM_TEAM_API_KEY: "hush-hush",
  DREAM_TEAM_DATABASE: "postgres://ann:hush@db.example/tasks?password=hush"
}

describe("config show", () => {
  it.effect("shows each effective value with its source, and no secret", () =>
    inFolder((folder) =>
      Effect.gen(function* () {
        const fileSystem = yield* FileSystem.FileSystem
        const path = `${folder}/dream-team.json`
        yield* fileSystem.writeFileString(path, JSON.stringify({ tasks: { maxAttempts: 3 }, host: "::1" }))
        const variables = { ...secrets, DREAM_TEAM_CONFIG: path, DREAM_TEAM_CODEX_WEIGHT: "2" }
        const { out } = yield* captured(Config.show({ json: false, port: 1234 })).pipe(withVariables(variables))
        const row = (key: string) =>
          out
            .split("\n")
            .find((line) => line.startsWith(`${key} `))
            ?.split(/\s{2,}/)
        expect(row("port")).toEqual(["port", "1234", "--port"])
        expect(row("host")).toEqual(["host", "::1", path])
        expect(row("database")).toEqual(["database", "postgres://ann@db.example/tasks", "DREAM_TEAM_DATABASE"])
        expect(row("tasks.maxAttempts")).toEqual(["tasks.maxAttempts", "3", path])
        expect(row("tasks.deadlineMs")?.[1]).toBe("24 h")
        expect(row("apiKeys")).toEqual(["apiKeys", "team-a:<redacted>", "DREAM_TEAM_API_KEYS"])
        expect(row("apiKey")).toEqual(["apiKey", "<redacted>", "DREAM_TEAM_API_KEY"])
        expect(row("platforms.codex.weight")).toEqual(["platforms.codex.weight", "2", "DREAM_TEAM_CODEX_WEIGHT"])
        expect(row("platforms.codex.apiKey")).toEqual(["platforms.codex.apiKey", "<redacted>", "OPENAI_API_KEY"])
        expect(row("platforms.codex.limits.burst")?.[1]).toBe("none")
        expect(out).toContain("gemini: no API key: set DREAM_TEAM_GEMINI_API_KEY or GEMINI_API_KEY")
        expect(out).not.toContain("hush")

        const json = yield* captured(Config.show({ json: true, port: 1234 })).pipe(withVariables(variables))
        expect(json.out).not.toContain("hush")
        const shown = JSON.parse(json.out)
        expect(shown.file).toBe(path)
        expect(shown.settings).toContainEqual({ key: "port", value: 1234, source: { kind: "flag", name: "--port" } })
        expect(shown.settings).toContainEqual({
          key: "platforms.codex.limits.burst",
          value: null,
          source: { kind: "default" }
        })
        expect(shown.absent).toHaveLength(3)
      })
    )
  )

  it.effect("fails with every mistake", () =>
    Config.show({ json: false }).pipe(
      Effect.flip,
      Effect.provide(NodeFileSystem.layer),
      withVariables({ DREAM_TEAM_PORT: "x", DREAM_TEAM_HOSTT: "y" }),
      Effect.map((error) =>
        expect(error.problems.map(({ key }) => key)).toEqual(["DREAM_TEAM_PORT", "DREAM_TEAM_HOSTT"])
      )
    )
  )
})

describe("config schema", () => {
  it.effect("prints the JSON Schema of the file", () =>
    Effect.gen(function* () {
      const { out } = yield* captured(Config.schema())
      expect(JSON.parse(out)).toMatchObject({
        $schema: "http://json-schema.org/draft-07/schema#",
        properties: { port: { minimum: 0, maximum: 65_535 }, platforms: { type: "object" } }
      })
    })
  )
})

describe("config init", () => {
  it.effect("writes a file that only its owner may read, that is valid, and that names its schema", () =>
    inFolder((folder) =>
      Effect.gen(function* () {
        const fileSystem = yield* FileSystem.FileSystem
        const path = `${folder}/team.json`
        const { exit, out } = yield* captured(Config.init({ path, force: false }))
        expect(exit._tag).toBe("Success")
        expect(out).toContain(path)
        expect((yield* fileSystem.stat(path)).mode & 0o777).toBe(0o600)
        const written = JSON.parse(yield* fileSystem.readFileString(path))
        expect(written.$schema).toBe("./team.schema.json")
        expect(JSON.parse(yield* fileSystem.readFileString(`${folder}/team.schema.json`))).toHaveProperty("properties")
        const read = (flags: { readonly config?: string }) =>
          Settings.pipe(Effect.provide(Settings.layerConfig(flags)), withVariables({ SYNTHETIC_API_KEY: "k" }))
        expect(yield* read({ config: path })).toEqual(yield* read({}))
      })
    )
  )

  it.effect("replaces nothing without force", () =>
    inFolder((folder) =>
      Effect.gen(function* () {
        const fileSystem = yield* FileSystem.FileSystem
        const path = `${folder}/team.json`
        yield* fileSystem.writeFileString(path, "mine", { mode: 0o644 })
        const { exit } = yield* captured(Config.init({ path, force: false }))
        expect(exit).toMatchObject({ _tag: "Failure", cause: { error: { _tag: "CommandFailed" } } })
        expect(yield* fileSystem.readFileString(path)).toBe("mine")
        expect(yield* fileSystem.exists(`${folder}/team.schema.json`)).toBe(false)
        const forced = yield* captured(Config.init({ path, force: true, json: true }))
        expect(JSON.parse(forced.out)).toEqual({ path, schema: `${folder}/team.schema.json` })
        expect(yield* fileSystem.readFileString(path)).not.toBe("mine")
        expect((yield* fileSystem.stat(path)).mode & 0o777).toBe(0o600)
      })
    )
  )

  it.effect("says so where the folder does not exist", () =>
    inFolder((folder) =>
      Config.init({ path: `${folder}/nowhere/team.json`, force: false }).pipe(
        Effect.flip,
        Effect.map((error) => expect(error.message).toContain("its folder does not exist"))
      )
    )
  )
})
