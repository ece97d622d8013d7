import { closeSync, existsSync, mkdirSync, openSync } from "node:fs"
import { homedir } from "node:os"
import { dirname, join, resolve } from "node:path"

/** Where what belongs to no other folder is kept. */
const dataFolder = (): string => join(homedir(), ".dream-team")

/** The sessions database where nothing names another. */
export const defaultSessionsDatabase = (): string => join(dataFolder(), "sessions.db")

/** The folder Claude Code keeps its configuration, its login and its transcripts in, absolute. */
export const claudeFolder = (configured: string | undefined): string =>
  configured === undefined || configured === "" ? join(homedir(), ".claude") : resolve(configured)

/**
 * Makes a folder and those above it, for their user only. Step by step: Node's own way of making them all goes round and
 * round for ever where the system says that there is no such place, as it does below /proc.
 */
export const ensureFolder = (path: string): void => {
  if (existsSync(path)) return
  if (dirname(path) !== path) ensureFolder(dirname(path))
  try {
    mkdirSync(path, { mode: 0o700 })
  } catch (error) {
    // Another process may have made it meanwhile.
    if (!existsSync(path)) throw error
  }
}

/** Makes a file where it is missing, for its user only; SQLite gives what it puts beside it the same mode. */
export const ensureFile = (path: string): void => {
  ensureFolder(dirname(path))
  closeSync(openSync(path, "a", 0o600))
}
