import * as FileSystem from "@effect/platform/FileSystem"
import { Console, Effect } from "effect"
import { defaults, knownPlatforms, templateOf } from "../Settings/Defaults.js"
import { jsonSchema } from "../Settings/File.js"
import { type Entry, load, type SettingsFlags } from "../Settings/Load.js"
import { CommandFailed } from "./Exit.js"
import { counted, duration, printJson, table } from "./Output.js"

export interface ShowOptions extends SettingsFlags {
  readonly json: boolean
}

const sourceText = ({ source }: Entry): string => source.name ?? source.kind

const isRecord = (value: unknown): value is object =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const valueText = ({ key, value }: Entry): string => {
  if (value === undefined || value === null) return "none"
  if (Array.isArray(value)) {
    if (value.length === 0) return "none"
    return value.some(isRecord) ? `${counted(value.length, "window")} (see --json)` : value.join(", ")
  }
  if (typeof value === "number" && key.endsWith("Ms")) return duration(value)
  if (isRecord(value)) return `of ${counted(Object.keys(value).length, "model")} (see --json)`
  return String(value)
}

/**
 * Prints every effective setting with its source; secrets are redacted. Fails with `SettingsInvalid` where something is
 * wrong.
 */
export const show = Effect.fn("Config.show")(function* (options: ShowOptions) {
  const { entries, file, settings } = yield* load(options)
  if (options.json) {
    return yield* printJson({
      file: file ?? null,
      settings: entries.map(({ key, source, value }) => ({ key, value: value ?? null, source })),
      absent: settings.absent
    })
  }
  yield* Console.log(
    table(
      ["SETTING", "VALUE", "SOURCE"],
      entries.map((entry) => [entry.key, valueText(entry), sourceText(entry)])
    )
  )
  if (settings.absent.length > 0) {
    yield* Console.log(
      ["", "Platforms left out:", ...settings.absent.map(({ id, reason }) => `  ${id}: ${reason}`)].join("\n")
    )
  }
})

/** Prints the JSON Schema of the settings file. */
export const schema = Effect.fn("Config.schema")(function* () {
  yield* printJson(jsonSchema())
})

export interface InitOptions {
  /** Where the file goes; its JSON Schema goes beside it. */
  readonly path: string
  /** Replace what is there. */
  readonly force: boolean
  readonly json?: boolean
}

const hours = (ms: number): string => `${ms / 3_600_000}h`

const starter = (schemaFile: string): unknown => ({
  $schema: schemaFile,
  host: defaults.host,
  port: defaults.port,
  database: defaults.database,
  logLevel: defaults.logLevel.toLowerCase(),
  tasks: { deadlineMs: "24h", maxAttempts: defaults.tasks.maxAttempts },
  platforms: Object.fromEntries(
    knownPlatforms.map((id) => {
      const { limits, model } = templateOf(id)
      const { maxConcurrent, maxConcurrentPerModel, requestsPerMinute, windowMs, windowRequests, windows } = limits
      return [
        id,
        {
          model,
          limits: {
            ...(requestsPerMinute === undefined ? {} : { requestsPerMinute }),
            ...(windowRequests === undefined || windowMs === undefined
              ? {}
              : { windowRequests, windowMs: hours(windowMs) }),
            ...(windows === undefined
              ? {}
              : { windows: windows.map((window) => ({ ...window, windowMs: hours(window.windowMs) })) }),
            maxConcurrent,
            ...(maxConcurrentPerModel === undefined ? {} : { maxConcurrentPerModel })
          }
        }
      ]
    })
  )
})

const schemaPath = (path: string): string => `${path.replace(/\.json$/, "")}.schema.json`

/**
 * Writes a settings file to start from and, beside it, the JSON Schema that its `$schema` names, so that an editor
 * explains each key. Only the owner may read the file, as keys may be put into it. Nothing is replaced without `force`.
 */
export const init = Effect.fn("Config.init")(function* ({ force, json = false, path }: InitOptions) {
  const fileSystem = yield* FileSystem.FileSystem
  const schemaFile = schemaPath(path)
  const existing = yield* Effect.filter([path, schemaFile], (file) =>
    fileSystem.exists(file).pipe(Effect.orElseSucceed(() => false))
  )
  if (existing.length > 0 && !force) {
    return yield* new CommandFailed({
      message: `${existing.join(" and ")} ${existing.length === 1 ? "exists" : "exist"} already; --force replaces what is there.`
    })
  }
  const write = (file: string, content: unknown, mode: number) =>
    fileSystem
      .writeFileString(file, `${JSON.stringify(content, undefined, 2)}\n`, { flag: force ? "w" : "wx", mode })
      .pipe(
        // A file that is replaced keeps its old mode otherwise.
        Effect.zipRight(fileSystem.chmod(file, mode)),
        Effect.mapError(
          (error) =>
            new CommandFailed({
              message:
                error._tag === "SystemError" && error.reason === "NotFound"
                  ? `${file} cannot be written: its folder does not exist.`
                  : `${file} cannot be written: ${error.message}`
            })
        )
      )
  yield* write(path, starter(`./${schemaFile.split("/").at(-1)}`), 0o600)
  yield* write(schemaFile, jsonSchema(), 0o644)
  if (json) return yield* printJson({ path, schema: schemaFile })
  yield* Console.log(
    [
      `Wrote ${path} and its schema ${schemaFile}.`,
      `Use it with --config ${path} or DREAM_TEAM_CONFIG=${path}; put API keys into the environment:`,
      ...knownPlatforms.map((id) => `  ${templateOf(id).keyVariable} for ${id}`)
    ].join("\n")
  )
})
