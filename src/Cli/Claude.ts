import { chmodSync, existsSync, readFileSync, realpathSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs"
import { dirname, join, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { Config, Console, Effect, Layer, Option } from "effect"
import { claudeFolder, ensureFolder } from "../Feed/Paths.js"
import { SessionsSql } from "../SessionStore.js"
import { load } from "../Settings/Load.js"
import { sessionsDatabaseOf } from "../Settings.js"
import { notesOn, projectSettings } from "./ClaudeFeeds.js"
import { type FeedCommands, installed, isInstalled, quoted, uninstalled } from "./ClaudeSettings.js"
import { difference } from "./Diff.js"
import { CommandFailed } from "./Exit.js"
import { printJson } from "./Output.js"

export interface ClaudeOptions {
  /** The settings file of Claude Code; by default that of the user. */
  readonly settings?: string | undefined
  readonly dryRun: boolean
  readonly json: boolean
}

export interface InstallOptions extends ClaudeOptions {
  readonly config?: string | undefined
}

/** Beside the bundled program. */
const feedFile = fileURLToPath(new URL("./dream-team-feed.js", import.meta.url))

const backupOf = (file: string): string => `${file}.before-dream-team`

const failed = (message: string): CommandFailed => new CommandFailed({ message })

const attempt = <A>(file: string, act: () => A): Effect.Effect<A, CommandFailed> =>
  Effect.try({
    try: act,
    catch: (error) => failed(`${file} was not changed: ${error instanceof Error ? error.message : String(error)}`)
  })

/** The file itself, where the name is a link to it. */
export const settingsFile = (given: string | undefined): Effect.Effect<string> =>
  Effect.gen(function* () {
    const folder = yield* Effect.orElseSucceed(Config.option(Config.string("CLAUDE_CONFIG_DIR")), Option.none<string>)
    const file = resolve(given ?? join(claudeFolder(Option.getOrUndefined(folder)), "settings.json"))
    return existsSync(file) ? realpathSync(file) : file
  })

const textOf = (file: string): string | undefined => (existsSync(file) ? readFileSync(file, "utf8") : undefined)

/** Writes the file whole or not at all, and not over what somebody else wrote since it was read. */
const write = (file: string, before: string | undefined, after: string): void => {
  ensureFolder(dirname(file))
  const draft = `${file}.${process.pid}.tmp`
  const mode = before === undefined ? 0o600 : statSync(file).mode & 0o777
  try {
    writeFileSync(draft, after, { mode })
    chmodSync(draft, mode)
    if (textOf(file) !== before) throw new Error("it was changed by another program meanwhile; try again")
    renameSync(draft, file)
  } finally {
    rmSync(draft, { force: true })
  }
}

const commandsFor = (database: string): FeedCommands => {
  const program = [process.execPath, feedFile].map(quoted).join(" ")
  const named = `--database ${quoted(database)}`
  return {
    statusline: (chained) =>
      `${program} statusline ${named}${chained === undefined ? "" : ` --then ${quoted(chained)}`}`,
    hook: `${program} hook ${named}`
  }
}

/**
 * Lets Claude Code report its sessions and limits: puts the feed into its settings as status line and hooks, beside what
 * is there, after a copy of them was made. With `dryRun` it only says what would change.
 */
export const install = Effect.fn("Claude.install")(function* ({ config, dryRun, json, settings }: InstallOptions) {
  if (!existsSync(feedFile)) return yield* failed(`${feedFile} is missing: install Dream Team again.`)
  const file = yield* settingsFile(settings)
  const database = sessionsDatabaseOf((yield* load({ config })).settings)
  const before = yield* attempt(file, () => textOf(file))
  const after = yield* Effect.mapError(installed(before ?? "", commandsFor(database)), (problem) =>
    failed(`${file} was not changed: ${problem}. Mend it first.`)
  )
  const isChanged = after !== before
  const backup = before === undefined || isInstalled(before) ? undefined : backupOf(file)
  if (!dryRun) {
    // The service looks after sessions once their database is there.
    yield* Effect.scoped(Layer.build(SessionsSql.layerFile(database)))
    yield* attempt(file, () => {
      if (!isChanged) return
      if (backup !== undefined) writeFileSync(backup, before ?? "", { mode: 0o600 })
      write(file, before, after)
    })
  }
  const notes = notesOn({ file, text: after }, yield* projectSettings(database, file), database)
  if (json) {
    return yield* printJson({
      settings: file,
      changed: isChanged,
      dryRun,
      database,
      backup: isChanged ? (backup ?? null) : null,
      diff: difference(before ?? "", after),
      notes
    })
  }
  const noted = notes.flatMap(({ found, toDo }) => ["", `Note: ${found}.`, `  -> ${toDo}`])
  if (!isChanged) return yield* Console.log([`${file} reports to ${database} already.`, ...noted].join("\n"))
  yield* Console.log(
    dryRun
      ? [`${file} would change:\n\n${difference(before ?? "", after)}`, ...noted].join("\n")
      : [
          `${file} now reports to ${database}.`,
          ...(backup === undefined ? [] : [`As it was before: ${backup}`]),
          "Sessions that are open already take it up as they go on; `dream-team claude uninstall` takes it out again.",
          ...noted
        ].join("\n")
  )
})

/** Takes the feed out of Claude Code's settings again; what else was changed in them since stays. */
export const uninstall = Effect.fn("Claude.uninstall")(function* ({ dryRun, json, settings }: ClaudeOptions) {
  const file = yield* settingsFile(settings)
  const now = yield* attempt(file, () => textOf(file))
  const backup = yield* attempt(file, () => textOf(backupOf(file)))
  const rest = yield* Effect.mapError(uninstalled(now ?? "", backup), (problem) =>
    failed(`${file} was not changed: ${problem}. Mend it first.`)
  )
  const isChanged = now !== undefined && rest !== now
  // A file that the installation made goes with it.
  const after = isChanged && backup === undefined && rest.replaceAll(/\s/g, "") === "{}" ? undefined : rest
  if (!dryRun && isChanged) {
    yield* attempt(file, () => {
      if (after === undefined) rmSync(file)
      else write(file, now, after)
      if (after === backup) rmSync(backupOf(file), { force: true })
    })
  }
  const diff = difference(now ?? "", after ?? "")
  if (json) return yield* printJson({ settings: file, changed: isChanged, dryRun, removed: after === undefined, diff })
  if (!isChanged) return yield* Console.log(`${file} does not report to Dream Team.`)
  if (dryRun) return yield* Console.log(`${file} would change:\n\n${diff}`)
  yield* Console.log(
    after === undefined
      ? `${file} is gone, as it was before.`
      : after === backup
        ? `${file} is as it was before.`
        : `${file} no longer reports to Dream Team; what else was changed in it since is kept.`
  )
})
