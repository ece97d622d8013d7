import type * as FileSystem from "@effect/platform/FileSystem"
import { Context, Effect, Layer } from "effect"
import { defaults, make, platformDefaults } from "./Settings/Defaults.js"
import { load, type SettingsFlags } from "./Settings/Load.js"
import type { SettingsInvalid } from "./Settings/Problem.js"
import type { SettingsShape } from "./Settings/Shape.js"

export { type DatabaseSetting, databaseName } from "./Settings/Database.js"
export type { KnownPlatform, PlatformOptions, SettingsOptions } from "./Settings/Defaults.js"
export { type LimitsProblem, limitsProblems } from "./Settings/Limits.js"
export type { SettingsFlags } from "./Settings/Load.js"
export { SettingsInvalid, SettingsProblem } from "./Settings/Problem.js"
export { sessionsDatabaseOf } from "./Settings/Sessions.js"
export type {
  ApiKey,
  DailyBudget,
  KeyBudget,
  ModelLimits,
  PlatformLimits,
  PlatformSettings,
  SettingsShape,
  TriggerLevel
} from "./Settings/Shape.js"

/** Everything that can be configured, decoded and complete. */
export class Settings extends Context.Tag("dream-team/Settings")<Settings, SettingsShape>() {
  /** What holds where nothing is configured; no platforms. */
  static readonly defaults = defaults

  /** Complete settings for a program: the defaults and, over them, what it gives. */
  static readonly make = make

  /** One platform's complete settings: its defaults and, over them, what a program gives. */
  static readonly platformDefaults = platformDefaults

  /** Settings given by a program. */
  static readonly layer = (settings: SettingsShape): Layer.Layer<Settings> => Layer.succeed(Settings, settings)

  /** Flags, over the environment, over the JSON file named by `DREAM_TEAM_CONFIG` or `--config`, over the defaults. */
  static readonly layerConfig = (
    flags: SettingsFlags = {}
  ): Layer.Layer<Settings, SettingsInvalid, FileSystem.FileSystem> =>
    Layer.effect(
      Settings,
      Effect.map(load(flags), ({ settings }) => settings)
    )
}
