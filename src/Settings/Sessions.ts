import { dirname, join, resolve } from "node:path"
import { Redacted } from "effect"
import { defaultSessionsDatabase } from "../Feed/Paths.js"
import type { SettingsShape } from "./Shape.js"

/**
 * The file of the sessions database, absolute: the one that is named, or `sessions.db` beside the file of the tasks, or
 * in the user's data folder where the tasks are in no file.
 */
export const sessionsDatabaseOf = ({
  database,
  sessions
}: {
  readonly database: SettingsShape["database"]
  readonly sessions: Pick<SettingsShape["sessions"], "database">
}): string => {
  if (sessions.database !== undefined) return resolve(sessions.database)
  return Redacted.isRedacted(database) || database === ":memory:"
    ? defaultSessionsDatabase()
    : join(dirname(resolve(database)), "sessions.db")
}
