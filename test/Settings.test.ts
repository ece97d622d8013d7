import { FileSystem } from "@effect/platform"
import { NodeFileSystem } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { ConfigProvider, Effect, Redacted } from "effect"
import { databaseName, Settings, type SettingsFlags, SettingsInvalid, type SettingsShape } from "../src/Settings.js"

const withVariables = (variables: Record<string, string>) =>
  Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables)), { pathDelim: "_" }))

const settings = (variables: Record<string, string>, flags?: SettingsFlags) =>
  Settings.pipe(
    Effect.provide(Settings.layerConfig(flags)),
    Effect.provide(NodeFileSystem.layer),
    withVariables(variables)
  )

const mistakes = (variables: Record<string, string>, flags?: SettingsFlags) =>
  settings(variables, flags).pipe(
    Effect.flip,
    Effect.map((error) => {
      expect(error).toBeInstanceOf(SettingsInvalid)
      return error
    })
  )

const withFile = <A, E, R>(content: unknown, use: (path: string) => Effect.Effect<A, E, R>) =>
  Effect.scoped(
    Effect.gen(function* () {
      const fileSystem = yield* FileSystem.FileSystem
      const path = `${yield* fileSystem.makeTempDirectoryScoped()}/dream-team.json`
      yield* fileSystem.writeFileString(path, typeof content === "string" ? content : JSON.stringify(content))
      return yield* use(path)
    })
  ).pipe(Effect.provide(NodeFileSystem.layer))

const platform = (shape: SettingsShape, id: string) => {
  const found = shape.platforms.find((candidate) => candidate.id === id)
  if (found === undefined) throw new Error(`no platform ${id}`)
  return found
}

describe("Settings.layerConfig", () => {
  it.effect("knows Claude by its name alone, and needs no key of its: it has the login of Claude Code", () =>
    Effect.gen(function* () {
      const shape = yield* settings({
        DREAM_TEAM_PLATFORMS: "codex,claude",
        DREAM_TEAM_CODEX_API_KEY: "sk-1",
        DREAM_TEAM_CLAUDE_MODEL: "opus",
        DREAM_TEAM_CLAUDE_COMMAND: "/opt/claude",
        DREAM_TEAM_CLAUDE_CONFIG_DIR: "/home/of/claude"
      })
      expect(shape.platforms.map(({ id, model, wire }) => [id, wire, model])).toEqual([
        ["codex", "openai-responses", "gpt-6-sol"],
        ["claude", "claude-code", "opus"]
      ])
      expect(shape.claude).toEqual({ command: "/opt/claude", configDir: "/home/of/claude" })
      const without = yield* settings({ DREAM_TEAM_CODEX_API_KEY: "sk-1" })
      expect([...without.platforms, ...without.absent].map(({ id }) => id)).not.toContain("claude")
    })
  )

  it.effect("takes what starts the router of sessions, where it listens and where it lives", () =>
    Effect.gen(function* () {
      const shape = yield* settings({
        DREAM_TEAM_CCR_COMMAND: "/opt/ccr",
        DREAM_TEAM_CCR_PORT: "3456",
        DREAM_TEAM_CCR_HOME: "/var/lib/ccr"
      })
      expect(shape.ccr).toEqual({ command: "/opt/ccr", port: 3456, home: "/var/lib/ccr" })
      expect((yield* mistakes({ DREAM_TEAM_CCR_PORT: "0" })).problems).toMatchObject([
        { key: "DREAM_TEAM_CCR_PORT", value: "0", expected: "a port from 1 to 65535" }
      ])
    })
  )

  it.effect("needs nothing: every default, and each platform left out with the variable that is missing", () =>
    Effect.gen(function* () {
      const shape = yield* settings({})
      expect(shape).toMatchObject({
        host: "127.0.0.1",
        port: 7337,
        apiKeys: [],
        maxBodyBytes: 4 * 1024 * 1024,
        platforms: [],
        shutdownGraceMs: 10_000
      })
      expect(shape.absent).toEqual([
        { id: "codex", reason: "no API key: set DREAM_TEAM_CODEX_API_KEY or OPENAI_API_KEY" },
        { id: "gemini", reason: "no API key: set DREAM_TEAM_GEMINI_API_KEY or GEMINI_API_KEY" },
        { id: "qwen", reason: "no API key: set DREAM_TEAM_QWEN_API_KEY or DASHSCOPE_API_KEY" },
        { id: "synthetic", reason: "no API key: set DREAM_TEAM_SYNTHETIC_API_KEY or SYNTHETIC_API_KEY" }
      ])
    })
  )

  it.effect("reads every variable of a platform", () =>
    Effect.gen(function* () {
      const shape = yield* settings({
        DREAM_TEAM_CODEX_BASE_URL: "http://127.0.0.1:9/v1/",
        DREAM_TEAM_CODEX_API_KEY: " sk-own ",
        OPENAI_API_KEY: "sk-provider",
        DREAM_TEAM_CODEX_MODEL: "gpt-x",
        DREAM_TEAM_CODEX_WEIGHT: "2.5",
        DREAM_TEAM_CODEX_CAPABILITIES: "text, code",
        DREAM_TEAM_CODEX_REQUESTS_PER_MINUTE: "30",
        DREAM_TEAM_CODEX_TOKENS_PER_MINUTE: "none",
        DREAM_TEAM_CODEX_TOKENS_COUNTED: "actual",
        DREAM_TEAM_CODEX_BURST: "5",
        DREAM_TEAM_CODEX_WINDOW_REQUESTS: "100",
        DREAM_TEAM_CODEX_WINDOW: "1h30m",
        DREAM_TEAM_CODEX_MAX_CONCURRENT: "3",
        DREAM_TEAM_CODEX_BREAKER_FAILURES: "7",
        DREAM_TEAM_CODEX_BREAKER_OPEN: "500ms",
        DREAM_TEAM_CODEX_TIMEOUT: "30s"
      })
      const codex = platform(shape, "codex")
      expect(Redacted.value(codex.apiKey)).toBe("sk-own")
      expect(codex).toMatchObject({
        wire: "openai-responses",
        baseUrl: "http://127.0.0.1:9/v1",
        model: "gpt-x",
        weight: 2.5,
        capabilities: ["text", "code"],
        limits: {
          requestsPerMinute: 30,
          tokensPerMinute: undefined,
          tokensCounted: "actual",
          burst: 5,
          windowRequests: 100,
          windowMs: 5_400_000,
          maxConcurrent: 3
        },
        breaker: { failures: 7, openMs: 500 },
        timeouts: { connectMs: 10_000, attemptMs: 30_000 }
      })
    })
  )

  it.effect("understands the providers' own names of keys; an empty variable is not set", () =>
    Effect.gen(function* () {
      const shape = yield* settings({
        OPENAI_API_KEY: "a",
        GEMINI_API_KEY: "b",
        DASHSCOPE_API_KEY: "c",
        SYNTHETIC_API_KEY: "",
        DREAM_TEAM_PORT: ""
      })
      expect(shape.platforms.map(({ apiKey, id }) => [id, Redacted.value(apiKey)])).toEqual([
        ["codex", "a"],
        ["gemini", "b"],
        ["qwen", "c"]
      ])
      expect(shape.port).toBe(7337)
    })
  )

  it.effect("asks Synthetic's quotas beside the base URL in use", () =>
    Effect.gen(function* () {
      const usual = yield* settings({ SYNTHETIC_API_KEY: "k" })
      expect(platform(usual, "synthetic")).toMatchObject({
        quotasUrl: "https://api.synthetic.new/v2/quotas",
        limits: {
          windowRequests: 500,
          windowMs: 18_000_000,
          windows: [{ windowMs: 604_800_000, costUsd: 24 }],
          maxConcurrent: 4,
          maxConcurrentPerModel: 1,
          models: { "hf:zai-org/GLM-4.7-Flash": { requestCost: 0.1 } },
          adapt: false
        }
      })
      const moved = yield* settings({
        SYNTHETIC_API_KEY: "k",
        DREAM_TEAM_SYNTHETIC_BASE_URL: "http://127.0.0.1:1234/synthetic/openai/v1"
      })
      expect(platform(moved, "synthetic").quotasUrl).toBe("http://127.0.0.1:1234/synthetic/v2/quotas")
    })
  )

  it.effect("takes further platforms by configuration alone, hyphens as underscores, in the order given", () =>
    Effect.gen(function* () {
      const shape = yield* settings({
        DREAM_TEAM_PLATFORMS: "my-llm, my, codex",
        OPENAI_API_KEY: "a",
        GEMINI_API_KEY: "unused",
        DREAM_TEAM_MY_BASE_URL: "http://127.0.0.1:1/v1",
        DREAM_TEAM_MY_MODEL: "m1",
        DREAM_TEAM_MY_API_KEY: "k1",
        DREAM_TEAM_MY_LLM_BASE_URL: "http://127.0.0.1:2/v1",
        DREAM_TEAM_MY_LLM_MODEL: "m2",
        DREAM_TEAM_MY_LLM_API_KEY: "k2"
      })
      expect(shape.platforms.map(({ baseUrl, id, wire }) => [id, wire, baseUrl])).toEqual([
        ["my-llm", "openai-chat", "http://127.0.0.1:2/v1"],
        ["my", "openai-chat", "http://127.0.0.1:1/v1"],
        ["codex", "openai-responses", "https://api.openai.com/v1"]
      ])
      expect(shape.absent.map(({ id, reason }) => `${id}: ${reason}`)).toContain(
        "gemini: not among the platforms to use (DREAM_TEAM_PLATFORMS)"
      )
    })
  )

  it.effect("takes how to choose, and each platform's model of a class, laid over the built-in ones", () =>
    withFile(
      {
        routing: { policy: "best", adaptMs: "1s" },
        platforms: {
          codex: { apiKey: "from-file", classes: { fast: "my-fast" } },
          local: { baseUrl: "http://127.0.0.1:5/v1", model: "llama", apiKey: "local-key" }
        }
      },
      (path) =>
        Effect.gen(function* () {
          const shape = yield* settings({ DREAM_TEAM_CONFIG: path, DREAM_TEAM_POLICY: "Cheapest" })
          expect(shape.routing).toEqual({ policy: "cheapest", hedging: false, adaptMs: 1_000 })
          expect(platform(shape, "codex").classes).toEqual({ fast: "my-fast", best: "gpt-6-astra" })
          expect(platform(shape, "local").classes).toEqual({})
          const hedging = yield* settings({ DREAM_TEAM_HEDGING: "true" })
          expect(hedging.routing).toEqual({ policy: "balanced", hedging: true, adaptMs: 5_000 })
        })
    )
  )

  it.effect("takes who checks tasks and what is tried for those that failed", () =>
    withFile(
      {
        validation: { platform: "local", timeoutMs: "2s", onInvalid: "note" },
        alternatives: { order: ["partial", "class"], maxChildren: 3, maxMs: "1h", maxCostUsd: 0.5 }
      },
      (path) =>
        Effect.gen(function* () {
          const shape = yield* settings({ DREAM_TEAM_CONFIG: path, DREAM_TEAM_VALIDATION: "true" })
          expect(shape.validation).toEqual({
            enabled: true,
            platform: "local",
            model: undefined,
            timeoutMs: 2_000,
            onInvalid: "note"
          })
          expect(shape.alternatives).toEqual({
            enabled: true,
            order: ["partial", "class"],
            maxChildren: 3,
            maxMs: 3_600_000,
            maxCostUsd: 0.5
          })
          const plain = yield* settings({ DREAM_TEAM_ALTERNATIVES: "false", DREAM_TEAM_VALIDATION_PLATFORM: "Gemini" })
          expect(plain.validation).toMatchObject({ enabled: false, platform: "gemini", timeoutMs: 5_000 })
          expect(plain.alternatives).toMatchObject({ enabled: false, maxChildren: 8, maxMs: 1_800_000 })
        })
    )
  )

  it.effect("lets a flag win over the environment, that over the file, and that over the default", () =>
    withFile(
      {
        host: "::1",
        port: 1,
        database: "file.db",
        logLevel: "debug",
        maxBodyBytes: 1000,
        shutdownGraceMs: "2s",
        tasks: { maxAttempts: 2, parkAfterMs: 5000 },
        health: { timeoutMs: "3s" },
        platforms: {
          qwen: {
            apiKey: "from-file",
            model: "file-model",
            wire: "openai-responses",
            contextWindow: 1000,
            suitability: { testing: 0.1 },
            timeouts: { connectMs: 100 },
            limits: { tokensPerMinute: null },
            prices: { mine: { input: 1, output: 2, asOf: "2026-01-01" } }
          },
          local: { baseUrl: "http://127.0.0.1:5/v1", model: "llama", apiKey: "local-key" }
        }
      },
      (path) =>
        Effect.gen(function* () {
          const variables = {
            DREAM_TEAM_CONFIG: path,
            DREAM_TEAM_PORT: "2",
            DREAM_TEAM_DATABASE: "variable.db",
            DREAM_TEAM_QWEN_MODEL: "variable-model",
            DREAM_TEAM_LOCAL_WEIGHT: "3"
          }
          const shape = yield* settings(variables, { database: "flag.db", port: undefined })
          expect(shape).toMatchObject({
            host: "::1",
            port: 2,
            database: "flag.db",
            logLevel: "Debug",
            maxBodyBytes: 1000,
            shutdownGraceMs: 2000,
            tasks: { maxAttempts: 2, parkAfterMs: 5000, deadlineMs: 86_400_000 },
            health: { timeoutMs: 3000, intervalMs: 60_000 }
          })
          const qwen = platform(shape, "qwen")
          expect(Redacted.value(qwen.apiKey)).toBe("from-file")
          expect(qwen).toMatchObject({
            model: "variable-model",
            wire: "openai-responses",
            contextWindow: 1000,
            timeouts: { connectMs: 100, attemptMs: 600_000 },
            limits: { requestsPerMinute: 60, tokensPerMinute: undefined }
          })
          expect(qwen.suitability).toMatchObject({ testing: 0.1, documentation: 0.7 })
          expect(Object.keys(qwen.prices)).toEqual(expect.arrayContaining(["mine", "qwen3.8-max"]))
          expect(platform(shape, "local").weight).toBe(3)
          const byFlag = yield* settings({}, { config: path })
          expect(byFlag.database).toBe("file.db")
        })
    )
  )

  it.effect("gives each key its tenant: the name before the colon, or one made from the key itself", () =>
    Effect.gen(function* () {
      const first = yield* settings({ DREAM_TEAM_API_KEYS: "0123456789abcdef,team-a:fedcba9876543210" })
      const other = yield* settings({ DREAM_TEAM_API_KEYS: "team-a:fedcba9876543210,0123456789abcdef" })
      expect(first.apiKeys[1]).toMatchObject({ tenant: "team-a" })
      expect(first.apiKeys.map(({ key }) => Redacted.value(key))).toEqual(["0123456789abcdef", "fedcba9876543210"])
      expect(first.apiKeys[0]?.tenant).toMatch(/^key-[0-9a-f]{8}$/)
      expect(other.apiKeys[1]?.tenant).toBe(first.apiKeys[0]?.tenant)
    })
  )

  it.effect("takes the key that a client sends, which lets nobody in", () =>
    Effect.gen(function* () {
      const { apiKey, apiKeys } = yield* settings({ DREAM_TEAM_API_KEY: "short" })
      expect(apiKey === undefined ? undefined : Redacted.value(apiKey)).toBe("short")
      expect(apiKeys).toEqual([])
      const { problems } = yield* mistakes({ DREAM_TEAM_API_KEY: "two words", DREAM_TEAM_HOST: "0.0.0.0" })
      expect(problems.map(({ key }) => key)).toEqual(["DREAM_TEAM_API_KEY", "DREAM_TEAM_HOST"])
      expect(JSON.stringify(problems)).not.toContain("two words")
    })
  )

  it.effect("names every mistake at once, from every source, with what would be right", () =>
    withFile(
      { prot: 1, maxBodyBytes: "big", platforms: { gemini: { modle: "x", prices: { m: { input: 1 } } } } },
      (path) =>
        Effect.gen(function* () {
          const { message, problems } = yield* mistakes(
            {
              DREAM_TEAM_CONFIG: path,
              DREAM_TEAM_PORT: "eighty",
              DREAM_TEAM_PROT: "80",
              DREAM_TEAM_QWEN_CAPABILITIES: "text,cod",
              DREAM_TEAM_PLATFORMS: "codx,gemini",
              DREAM_TEAM_OTHER_MODEL: "x",
              DREAM_TEAM_GEMNI_MODEL: "x",
              DREAM_TEAM_CODEX_WINDOW: "5"
            },
            { port: 70_000 }
          )
          const byKey = Object.fromEntries(problems.map((problem) => [problem.key, problem]))
          expect(byKey["--port"]).toEqual({
            key: "--port",
            source: "flag",
            value: "70000",
            problem: "wrong value",
            expected: "a whole number from 0 to 65535"
          })
          expect(byKey.DREAM_TEAM_PORT).toMatchObject({ source: "environment", value: '"eighty"' })
          expect(byKey.DREAM_TEAM_PROT?.problem).toBe("unknown variable, did you mean DREAM_TEAM_PORT?")
          expect(byKey.DREAM_TEAM_GEMNI_MODEL?.problem).toContain("DREAM_TEAM_GEMINI_MODEL")
          expect(byKey.DREAM_TEAM_OTHER_MODEL?.expected).toContain("`other` to be named in DREAM_TEAM_PLATFORMS")
          expect(byKey.DREAM_TEAM_QWEN_CAPABILITIES).toMatchObject({
            value: '"cod"',
            problem: "wrong value, did you mean code?"
          })
          expect(byKey.DREAM_TEAM_CODEX_WINDOW?.expected).toContain("5h")
          expect(byKey.DREAM_TEAM_CODX_BASE_URL?.problem).toContain("did you mean codex?")
          expect(byKey.prot).toMatchObject({ source: path, problem: "unknown key, did you mean port?" })
          expect(byKey.maxBodyBytes?.value).toBe('"big"')
          expect(byKey["platforms.gemini.modle"]?.problem).toBe("unknown key, did you mean model?")
          expect(byKey["platforms.gemini.prices.m.output"]?.problem).toBe("missing")
          for (const { key } of problems) expect(message).toContain(key)
        })
    )
  )

  it.effect("shows no secret in a mistake, whichever way it got there", () =>
    Effect.gen(function* () {
      const secret = "hush"
      const variables = {
        DREAM_TEAM_API_KEYS: `ok:0123456789abcdef,${secret}`,
        DREAM_TEAM_CODEX_API_KEY: `${secret} ${secret}`,
        DREAM_TEAM_CODX_API_KEY: secret,
        DREAM_TEAM_DATABASE: `postgres://user:1/${secret}@host/db`,
        DREAM_TEAM_QWEN_BASE_URL: `https://user:${secret}@host/v1?key=${secret}`
      }
      const inFile = yield* withFile(
        { apiKeys: [secret], platforms: { codex: { apiKey: `${secret}\n`, apikey: secret }, qwen: secret } },
        (path) => mistakes({ ...variables, DREAM_TEAM_CONFIG: path })
      )
      expect(inFile.problems.length).toBeGreaterThanOrEqual(9)
      expect(JSON.stringify(inFile)).not.toContain(secret)
      expect(inFile.message).not.toContain(secret)
      const malformed = yield* withFile(`{ "apiKeys": [${secret}] }`, (path) => mistakes({ DREAM_TEAM_CONFIG: path }))
      expect(malformed.problems).toMatchObject([{ key: "DREAM_TEAM_CONFIG" }])
      expect(malformed.message).not.toContain(secret)
    })
  )

  it.effect("takes no list of nothing, which would switch authentication off", () =>
    Effect.gen(function* () {
      const { problems } = yield* mistakes({ DREAM_TEAM_API_KEYS: " , " })
      expect(problems).toMatchObject([{ key: "DREAM_TEAM_API_KEYS", expected: "a list" }])
    })
  )

  it.effect("keeps the URL of a PostgreSQL database where nobody prints it, and shows it without its password", () =>
    Effect.gen(function* () {
      for (const scheme of ["postgres", "postgresql"]) {
        const url = `${scheme}://ann:hu%40sh@db.example:5433/tasks?sslmode=require&password=hush`
        const shape = yield* settings({ DREAM_TEAM_DATABASE: url })
        expect(shape.database).toEqual(Redacted.make(url))
        expect(JSON.stringify(shape)).not.toContain("hush")
        expect(databaseName(shape.database)).toBe("postgres://ann@db.example:5433/tasks")
      }
      expect(Settings.make({ database: "postgres://ann:hush@db/tasks" }).database).toSatisfy(Redacted.isRedacted)
    })
  )

  it.effect("refuses a URL of PostgreSQL that cannot mean what was meant", () =>
    Effect.gen(function* () {
      for (const wrong of ["postgres:tasks", "postgres://", "postgres://u:p#w@host/db", "postgres://u:1/w@host/db"]) {
        const { problems } = yield* mistakes({ DREAM_TEAM_DATABASE: wrong })
        expect(problems).toMatchObject([{ key: "DREAM_TEAM_DATABASE", problem: "wrong value" }])
        expect(problems[0]?.expected).toContain("percent-encoded")
      }
    })
  )

  it.effect("takes how long things are kept from the file and the environment", () =>
    withFile({ retention: { tasksMs: "90d", keysMs: "2h" } }, (path) =>
      Effect.gen(function* () {
        const { retention } = yield* settings({ DREAM_TEAM_CONFIG: path, DREAM_TEAM_RETENTION_KEYS: "1h" })
        expect(retention).toEqual({ tasksMs: 90 * 86_400_000, eventsMs: 7 * 86_400_000, keysMs: 3_600_000 })
      })
    )
  )

  it.effect("names what is wrong with how long things are kept", () =>
    Effect.gen(function* () {
      const { problems } = yield* mistakes({ DREAM_TEAM_RETENTION_TASKS: "for ever", DREAM_TEAM_RETENTION_EVENT: "1d" })
      expect(problems.map(({ key }) => key)).toEqual(["DREAM_TEAM_RETENTION_TASKS", "DREAM_TEAM_RETENTION_EVENT"])
      expect(problems[1]?.problem).toContain("did you mean DREAM_TEAM_RETENTION_EVENTS?")
    })
  )

  it.effect("refuses a host beyond loopback without API keys, and only then", () =>
    Effect.gen(function* () {
      const { problems } = yield* mistakes({}, { host: "0.0.0.0" })
      expect(problems).toMatchObject([{ key: "--host", value: "0.0.0.0" }])
      const open = yield* settings({ DREAM_TEAM_API_KEYS: "0123456789abcdef" }, { host: "0.0.0.0" })
      expect(open.host).toBe("0.0.0.0")
      for (const host of ["127.0.0.1", "127.8.8.8", "::1", "localhost"]) {
        expect((yield* settings({}, { host })).host).toBe(host)
      }
    })
  )

  it.effect("finds what is wrong only in the sum", () =>
    Effect.gen(function* () {
      const { problems } = yield* mistakes({
        OPENAI_API_KEY: "a",
        GEMINI_API_KEY: "b",
        DASHSCOPE_API_KEY: "c",
        DREAM_TEAM_CODEX_BURST: "61",
        DREAM_TEAM_GEMINI_WINDOW_REQUESTS: "10",
        DREAM_TEAM_QWEN_WINDOW: "5h",
        DREAM_TEAM_API_KEYS: "a:0123456789abcdef,b:0123456789abcdef"
      })
      expect(problems.map(({ key }) => key).sort()).toEqual([
        "DREAM_TEAM_API_KEYS",
        "DREAM_TEAM_CODEX_BURST",
        "DREAM_TEAM_GEMINI_WINDOW_REQUESTS",
        "DREAM_TEAM_QWEN_WINDOW"
      ])
    })
  )

  it.effect("reads limits of several windows, of single models, and whether the provider may raise them", () =>
    withFile(
      {
        maxHeldBytes: 8_388_608,
        platforms: {
          synthetic: {
            limits: {
              windows: [
                { windowMs: "7d", costUsd: 48 },
                { windowMs: "1d", requests: 2000, tokens: 5_000_000 }
              ],
              models: {
                "hf:moonshotai/Kimi-K3": {
                  requestsPerMinute: 5,
                  maxConcurrent: 2,
                  requestCost: 1.5,
                  windows: [{ windowMs: 3_600_000, tokens: 1000 }]
                }
              }
            }
          }
        }
      },
      (path) =>
        Effect.gen(function* () {
          const shape = yield* settings({
            DREAM_TEAM_CONFIG: path,
            SYNTHETIC_API_KEY: "a",
            OPENAI_API_KEY: "b",
            DREAM_TEAM_SYNTHETIC_MAX_CONCURRENT_PER_MODEL: "2",
            DREAM_TEAM_SYNTHETIC_WINDOW_REQUESTS: "none",
            DREAM_TEAM_SYNTHETIC_ADAPT: "True",
            DREAM_TEAM_CODEX_WINDOW: "5h",
            DREAM_TEAM_CODEX_WINDOW_TOKENS: "900000"
          })
          expect(shape.maxHeldBytes).toBe(8_388_608)
          expect(platform(shape, "synthetic").limits).toEqual({
            tokensCounted: "actual",
            windows: [
              { windowMs: 604_800_000, costUsd: 48 },
              { windowMs: 86_400_000, requests: 2000, tokens: 5_000_000 }
            ],
            maxConcurrent: 4,
            maxConcurrentPerModel: 2,
            models: {
              "hf:zai-org/GLM-4.7-Flash": { requestCost: 0.1 },
              "hf:moonshotai/Kimi-K3": {
                requestsPerMinute: 5,
                maxConcurrent: 2,
                requestCost: 1.5,
                windows: [{ windowMs: 3_600_000, tokens: 1000 }]
              }
            },
            adapt: true
          })
          expect(platform(shape, "codex").limits).toMatchObject({ windowTokens: 900_000, windowMs: 18_000_000 })
        })
    )
  )

  it.effect("takes the file that the README shows", () =>
    Effect.gen(function* () {
      const readme = yield* Effect.flatMap(FileSystem.FileSystem, (files) => files.readFileString("README.md"))
      const shown = /```json\n(.*?)```/s.exec(readme)?.[1] ?? ""
      const shape = yield* withFile(shown, (path) => settings({ SYNTHETIC_API_KEY: "a" }, { config: path }))
      expect(platform(shape, "synthetic").limits).toMatchObject({
        windowRequests: 1500,
        windowMs: 18_000_000,
        windows: [{ windowMs: 604_800_000, costUsd: 72 }],
        maxConcurrent: 6,
        maxConcurrentPerModel: 3
      })
    }).pipe(Effect.provide(NodeFileSystem.layer))
  )

  it.effect("lets a user's own bound of attempts at once replace the built-in one per model", () =>
    Effect.gen(function* () {
      const limits = (variables: Record<string, string>) =>
        Effect.map(settings({ SYNTHETIC_API_KEY: "a", ...variables }), (shape) => platform(shape, "synthetic").limits)
      expect((yield* limits({ DREAM_TEAM_SYNTHETIC_MAX_CONCURRENT: "3" })).maxConcurrentPerModel).toBeUndefined()
      expect(
        yield* limits({
          DREAM_TEAM_SYNTHETIC_MAX_CONCURRENT: "6",
          DREAM_TEAM_SYNTHETIC_MAX_CONCURRENT_PER_MODEL: "3"
        })
      ).toMatchObject({ maxConcurrent: 6, maxConcurrentPerModel: 3 })
      const lifted = yield* limits({ DREAM_TEAM_SYNTHETIC_MAX_CONCURRENT_PER_MODEL: "none" })
      expect(lifted).toMatchObject({ maxConcurrent: 4, maxConcurrentPerModel: undefined })
    })
  )

  it.effect("names what is wrong with windows and models, under the name it was written with", () =>
    withFile(
      {
        maxHeldBytes: 1000,
        platforms: {
          codex: {
            apiKey: "k",
            limits: {
              windows: [{ windowMs: "5h" }, { windowMs: 60_000, requests: 3 }, { windowMs: "60d", tokens: 1 }],
              models: {
                "gpt-6.1-sol": { requestCost: 0, windows: [{ window: "1h", tokens: 1 }] },
                "gpt-6.1-luna": {
                  windows: [
                    { windowMs: "1d", tokens: 1 },
                    { windowMs: "24h", tokens: 2 }
                  ]
                }
              }
            }
          }
        }
      },
      (path) =>
        Effect.gen(function* () {
          const { problems } = yield* mistakes({
            DREAM_TEAM_CONFIG: path,
            DREAM_TEAM_CODEX_ADAPT: "yes",
            DREAM_TEAM_CODEX_WINDOW_TOKENS: "10"
          })
          const found = Object.fromEntries(problems.map(({ expected, key, problem }) => [key, [problem, expected]]))
          const limits = "platforms.codex.limits"
          expect(found).toEqual({
            DREAM_TEAM_CODEX_ADAPT: ["wrong value", "true or false"],
            DREAM_TEAM_CODEX_WINDOW_TOKENS: [
              "tokens of a window whose length is not known",
              "the window's length beside it, such as 5h"
            ],
            maxHeldBytes: [
              "the largest request body would never find room",
              "maxHeldBytes of at least maxBodyBytes, and better many times that"
            ],
            [`${limits}.windows.0`]: ["a window without an amount", "requests, tokens or costUsd beside its windowMs"],
            [`${limits}.windows.1.requests`]: [
              "a second limit of the window that requestsPerMinute bounds",
              "one limit per unit and window"
            ],
            [`${limits}.windows.2.windowMs`]: ["wrong value", "a duration from 1s to 31d, such as 30s, 5h or 7d"],
            [`${limits}.models.gpt-6.1-sol.requestCost`]: ["wrong value", "a number greater than 0"],
            [`${limits}.models.gpt-6.1-sol.windows.0.window`]: [
              "unknown key, did you mean windowMs?",
              "one of windowMs, requests, tokens, costUsd"
            ],
            [`${limits}.models.gpt-6.1-sol.windows.0.windowMs`]: ["missing", "a value"],
            [`${limits}.models.gpt-6.1-luna.windows.1.tokens`]: [
              "a second limit of the window that models.gpt-6.1-luna.windows.0.tokens bounds",
              "one limit per unit and window"
            ]
          })
        })
    )
  )

  it.effect("says where the file is missing, is not JSON, or is not an object", () =>
    Effect.gen(function* () {
      const gone = yield* mistakes({ DREAM_TEAM_PORT: "x" }, { config: "/nowhere/at-all.json" })
      expect(gone.problems.map(({ key }) => key)).toEqual(["--config", "DREAM_TEAM_PORT"])
      expect(gone.message).toContain("there is no such file")
      const broken = yield* withFile('{\n  "port": 1,\n}', (path) => mistakes({}, { config: path }))
      expect(broken.message).toContain("not valid JSON at line 3, column 1")
      const list = yield* withFile([1], (path) => mistakes({}, { config: path }))
      expect(list.problems).toMatchObject([{ key: "(the whole file)", expected: "an object" }])
    })
  )

  it.effect("reads the environment however its names are split", () =>
    Effect.gen(function* () {
      const whole = yield* Settings.pipe(
        Effect.provide(Settings.layerConfig()),
        Effect.provide(NodeFileSystem.layer),
        Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["DREAM_TEAM_PORT", "4000"]])))
      )
      expect(whole.port).toBe(4000)
    })
  )
})

describe("Settings.make", () => {
  it("takes undefined for what is left out, but for limits, which it lifts", () => {
    const given = {
      apiKeys: undefined,
      database: undefined,
      health: undefined,
      tasks: { maxAttempts: undefined, livePerClass: 9 }
    }
    expect(Settings.make(given)).toEqual(Settings.make({ tasks: { livePerClass: 9 } }))
    const platform = Settings.platformDefaults("codex", {
      apiKey: "k",
      model: undefined,
      timeouts: { connectMs: undefined, attemptMs: 1_000 },
      suitability: { testing: undefined },
      breaker: undefined,
      limits: { tokensPerMinute: undefined }
    })
    const plain = Settings.platformDefaults("codex", { apiKey: "k" })
    expect(platform).toEqual({
      ...plain,
      timeouts: { ...plain.timeouts, attemptMs: 1_000 },
      limits: { ...plain.limits, tokensPerMinute: undefined }
    })
  })

  it("completes what a program gives", () => {
    const shape = Settings.make({
      database: ":memory:",
      tasks: { maxAttempts: 2 },
      platforms: [
        Settings.platformDefaults("codex", { apiKey: "k", limits: { tokensPerMinute: undefined, maxConcurrent: 9 } }),
        Settings.platformDefaults("local", { apiKey: "k", baseUrl: "http://127.0.0.1:1/v1/", model: "m" })
      ]
    })
    expect(shape).toMatchObject({ port: 7337, database: ":memory:", tasks: { maxAttempts: 2, parkAfterMs: 30_000 } })
    expect(shape.platforms[0]).toMatchObject({
      model: "gpt-6-sol",
      limits: { requestsPerMinute: 60, tokensPerMinute: undefined, maxConcurrent: 9 }
    })
    expect(shape.platforms[1]).toMatchObject({ wire: "openai-chat", baseUrl: "http://127.0.0.1:1/v1", model: "m" })
  })

  it("takes a program's own bound of attempts at once in place of the built-in one per model", () => {
    const limits = (given: Parameters<typeof Settings.platformDefaults>[1]["limits"]) =>
      Settings.platformDefaults("synthetic", { apiKey: "k", ...(given === undefined ? {} : { limits: given }) }).limits
    expect(limits(undefined)).toMatchObject({ maxConcurrent: 4, maxConcurrentPerModel: 1 })
    expect(limits({ maxConcurrent: 2 })).toMatchObject({ maxConcurrent: 2, maxConcurrentPerModel: undefined })
    expect(limits({ maxConcurrent: 2, maxConcurrentPerModel: 2 })).toMatchObject({ maxConcurrentPerModel: 2 })
    expect(limits({ windowRequests: undefined }).windowMs).toBeUndefined()
    expect(limits({ models: { other: { maxConcurrent: 1 } } }).models).toEqual({
      "hf:zai-org/GLM-4.7-Flash": { requestCost: 0.1 },
      other: { maxConcurrent: 1 }
    })
  })

  it("knows the price of each platform's default model", () => {
    for (const id of ["codex", "gemini", "qwen", "synthetic"] as const) {
      const { model, prices } = Settings.platformDefaults(id, { apiKey: "k" })
      expect(prices[model]?.input).toBeGreaterThan(0)
    }
  })
})
