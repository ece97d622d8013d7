import { homedir } from "node:os"
import { join, resolve } from "node:path"
import { NodeFileSystem } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { ConfigProvider, Effect } from "effect"
import { load } from "../../src/Settings/Load.js"
import { Settings, sessionsDatabaseOf } from "../../src/Settings.js"

const loaded = (variables: Readonly<Record<string, string>>) =>
  load().pipe(
    Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables)))),
    Effect.provide(NodeFileSystem.layer)
  )

describe("sessions", () => {
  it.effect("have defaults, and variables over them", () =>
    Effect.gen(function* () {
      expect((yield* loaded({})).settings.sessions).toEqual(Settings.defaults.sessions)
      const { entries, settings } = yield* loaded({
        DREAM_TEAM_SESSIONS_DB: "/data/sessions.db",
        DREAM_TEAM_SESSIONS_TABLE: "/data/coordination.db",
        DREAM_TEAM_HANDOFF: "AUTO",
        DREAM_TEAM_HANDOFF_CHAIN: "gemini, codex",
        DREAM_TEAM_HANDOFF_TRIGGER: "warning"
      })
      expect(settings.sessions).toMatchObject({
        database: "/data/sessions.db",
        table: "/data/coordination.db",
        handoff: "auto",
        chain: ["gemini", "codex"],
        trigger: "warning"
      })
      expect(entries).toContainEqual({
        key: "sessions.database",
        value: "/data/sessions.db",
        source: { kind: "environment", name: "DREAM_TEAM_SESSIONS_DB" }
      })
    })
  )

  it.effect("say what is wrong", () =>
    Effect.gen(function* () {
      const problem = (variables: Readonly<Record<string, string>>) =>
        Effect.map(Effect.flip(loaded(variables)), ({ message }) => message)
      expect(yield* problem({ DREAM_TEAM_HANDOFF: "always" })).toContain("one of auto, ask")
      expect(yield* problem({ DREAM_TEAM_SESSIONS_DB: ":memory:" })).toContain("the path of an SQLite file")
      expect(yield* problem({ DREAM_TEAM_HANDOFF_CHAIN: "codex,codex" })).toContain("stands there twice")
    })
  )

  it("are beside the tasks, where these are in a file", () => {
    const at = (options: Parameters<typeof Settings.make>[0]) => sessionsDatabaseOf(Settings.make(options))
    expect(at({ database: "data/tasks.db" })).toBe(resolve("data/sessions.db"))
    expect(at({ database: "data/tasks.db", sessions: { database: "mine.db" } })).toBe(resolve("mine.db"))
    for (const database of [":memory:", "postgres://localhost/tasks"]) {
      expect(at({ database })).toBe(join(homedir(), ".dream-team", "sessions.db"))
    }
  })
})
