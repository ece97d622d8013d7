import { FileSystem } from "@effect/platform"
import { NodeFileSystem } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { ConfigProvider, Effect } from "effect"
import { Settings, SettingsInvalid } from "../../src/Settings.js"

const load = (variables: Readonly<Record<string, string>>, file: unknown = {}) =>
  Effect.gen(function* () {
    const fileSystem = yield* FileSystem.FileSystem
    const path = `${yield* fileSystem.makeTempDirectoryScoped()}/dream-team.json`
    yield* fileSystem.writeFileString(path, JSON.stringify(file))
    return yield* Settings.pipe(
      Effect.provide(Settings.layerConfig({ config: path })),
      Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables)), { pathDelim: "_" }))
    )
  }).pipe(Effect.scoped, Effect.provide(NodeFileSystem.layer))

const key = "k".repeat(20)

describe("the settings of budgets", () => {
  it.effect("are none by default", () =>
    Effect.gen(function* () {
      expect((yield* load({})).budgets).toEqual({ perKey: {}, keys: {}, platforms: {} })
    })
  )

  it.effect("come from variables, over the file", () =>
    Effect.gen(function* () {
      const { budgets } = yield* load(
        {
          DREAM_TEAM_API_KEYS: `ci:${key}`,
          DREAM_TEAM_KEY_USD_PER_DAY: "2.5",
          DREAM_TEAM_KEY_REQUESTS_PER_MINUTE: "60",
          DREAM_TEAM_CODEX_USD_PER_DAY: "none",
          DREAM_TEAM_CODEX_TOKENS_PER_DAY: "1000"
        },
        {
          budgets: {
            perKey: { usdPerDay: 1, tokensPerDay: 5 },
            keys: { ci: { usdPerDay: null, tokensPerDay: 7 } },
            platforms: { codex: { usdPerDay: 9 }, qwen: { usdPerDay: 0.5 } }
          }
        }
      )
      expect(budgets).toEqual({
        perKey: { usdPerDay: 2.5, tokensPerDay: 5, requestsPerMinute: 60 },
        keys: { ci: { usdPerDay: undefined, tokensPerDay: 7 } },
        platforms: { codex: { tokensPerDay: 1000 }, qwen: { usdPerDay: 0.5 } }
      })
      // null lifts for that key what holds for every key
      expect("usdPerDay" in (budgets.keys.ci ?? {})).toBe(true)
    })
  )

  it.effect("of names that nobody has are mistakes, as are amounts that are none", () =>
    Effect.gen(function* () {
      const refused = yield* Effect.flip(
        load(
          { DREAM_TEAM_API_KEYS: `ci:${key}`, DREAM_TEAM_CODEX_USD_PER_DAY: "0" },
          { budgets: { keys: { cl: { usdPerDay: 1 } }, platforms: { gemin: { usdPerDay: 1 } }, perkey: {} } }
        )
      )
      const problems = refused instanceof SettingsInvalid ? refused.problems : []
      expect(problems.map(({ key, problem }) => `${key}: ${problem}`)).toEqual([
        "DREAM_TEAM_CODEX_USD_PER_DAY: wrong value",
        "budgets.perkey: unknown key, did you mean perKey?",
        "budgets.keys.cl: there is no API key of that name, did you mean ci?",
        "budgets.platforms.gemin: there is no platform of that name, did you mean gemini?"
      ])
    })
  )
})
