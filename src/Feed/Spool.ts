import { closeSync, fstatSync, openSync, statSync, writeSync } from "node:fs"
import type { SessionReport } from "./Report.js"

/** The file in which feeds leave what a busy database did not take, one report a line. */
export const spoolOf = (database: string): string => `${database}.spool`

/** Beyond it reports are dropped: nobody empties it. */
export const maxSpoolBytes = 4 * 1024 * 1024
/** A longer report is not written. */
const maxLineBytes = 64 * 1024

/**
 * Appends a report in one write, so that lines of several feeds stay whole. Whoever empties the file renames it first:
 * a line that may have come too late for them is written again, which does no harm.
 */
export const spool = (database: string, report: SessionReport): boolean => {
  const file = spoolOf(database)
  const line = Buffer.from(`${JSON.stringify(report)}\n`)
  if (line.length > maxLineBytes) return false
  for (let attempt = 0; attempt < 3; attempt++) {
    const opened = openSync(file, "a", 0o600)
    try {
      const { ino, size } = fstatSync(opened)
      if (size + line.length > maxSpoolBytes) return false
      if (writeSync(opened, line) === line.length && inodeOf(file) === ino) return true
    } finally {
      closeSync(opened)
    }
  }
  return false
}

const inodeOf = (file: string): number | undefined => statSync(file, { throwIfNoEntry: false })?.ino
