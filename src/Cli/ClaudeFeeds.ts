import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import Sqlite from "better-sqlite3"
import { Effect } from "effect"
import { feedsIn, saysOfFeeds } from "./ClaudeSettings.js"

/** Something about the feeds that their user should know, and what to do about it. */
export interface FeedNote {
  readonly found: string
  readonly toDo: string
}

export interface SettingsText {
  readonly file: string
  readonly text: string | undefined
}

/** Folders of sessions that are looked at for settings of their own. */
const maxFolders = 50

/** Where sessions worked lately, as the sessions database knows; none where it cannot be read. */
const knownFolders = (database: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.try(() => {
    if (!existsSync(database)) return []
    const opened = new Sqlite(database, { readonly: true, timeout: 1_000 })
    try {
      return opened
        .prepare<[number], { readonly cwd: string }>(
          "SELECT cwd FROM sessions WHERE cwd IS NOT NULL GROUP BY cwd ORDER BY MAX(updated_at) DESC LIMIT ?"
        )
        .all(maxFolders)
        .map(({ cwd }) => cwd)
    } finally {
      opened.close()
    }
  }).pipe(Effect.orElseSucceed(() => []))

const read = (file: string): SettingsText => {
  try {
    return { file, text: existsSync(file) ? readFileSync(file, "utf8") : undefined }
  } catch {
    return { file, text: undefined }
  }
}

/** The settings that projects have of their own: of this folder, and of those in which sessions worked. */
export const projectSettings = (database: string, user: string): Effect.Effect<ReadonlyArray<SettingsText>> =>
  Effect.map(knownFolders(database), (folders) =>
    [...new Set([process.cwd(), ...folders])]
      .flatMap((folder) => ["settings.json", "settings.local.json"].map((name) => join(folder, ".claude", name)))
      .filter((file) => file !== user)
      .map(read)
  )

/**
 * What keeps the feeds, though they are installed in the user's settings, from telling all they could, and Claude Code
 * from waiting for its hand-off.
 */
export const notesOn = (
  user: SettingsText,
  projects: ReadonlyArray<SettingsText>,
  database: string
): ReadonlyArray<FeedNote> => {
  const { database: reported } = feedsIn(user.text ?? "")
  const elsewhere: ReadonlyArray<FeedNote> =
    reported === undefined || reported === database
      ? []
      : [
          {
            found: `Claude Code reports its sessions to ${reported}, but this service reads ${database}`,
            toDo: `run 'dream-team claude install' here, or set DREAM_TEAM_SESSIONS_DB=${reported}`
          }
        ]
  return [
    ...elsewhere,
    ...[user, ...projects].flatMap(({ file, text }): ReadonlyArray<FeedNote> => {
      const { goesOnByItself, hidesHooks, hidesStatusLine } = saysOfFeeds(text ?? "")
      return [
        ...(goesOnByItself
          ? [
              {
                found: `${file} sets autoContinueAtUsageLimit: at the reset Claude Code resumes a session by itself, also one that went on elsewhere`,
                toDo: "set it to false there"
              }
            ]
          : []),
        ...(hidesStatusLine && file !== user.file
          ? [
              {
                found: `${file} has a status line of its own, which takes the place of the one that reports: of sessions there only hooks and transcripts tell`,
                toDo: "take its statusLine out, or put the command of your own settings' statusLine there"
              }
            ]
          : []),
        ...(hidesHooks
          ? [
              {
                found: `${file} sets disableAllHooks, so neither hooks nor the status line report`,
                toDo: "set it to false there"
              }
            ]
          : [])
      ]
    })
  ]
}
