import { existsSync } from "node:fs"
import { resolve } from "node:path"
import Sqlite from "better-sqlite3"
import { ensureFile } from "./Paths.js"
import type { SessionReport } from "./Report.js"
import { schemaVersion, upgradeFrom } from "./Schema.js"
import { statementsOf } from "./Statements.js"

/** How long a feed waits for another writer, ms. */
const patienceMs = 50

/** Writes a report into the database, which is made where it is missing. Throws where that is not done at once. */
export const store = (path: string, report: SessionReport): void => {
  const file = resolve(path)
  if (!existsSync(file)) ensureFile(file)
  const database = new Sqlite(file, { timeout: patienceMs })
  try {
    database.pragma("synchronous = NORMAL")
    database.pragma("foreign_keys = ON")
    const version = (): number => Number(database.pragma("user_version", { simple: true }))
    if (version() < schemaVersion) {
      database.pragma("journal_mode = WAL")
      database
        .transaction(() => {
          const now = version()
          if (now < schemaVersion) for (const statement of upgradeFrom(now)) database.exec(statement)
        })
        .immediate()
    }
    if (version() > schemaVersion) throw new Error("the database is of a newer version")
    database
      .transaction(() => {
        for (const { sql, values } of statementsOf(report)) database.prepare(sql).run(...values)
      })
      .immediate()
  } finally {
    database.close()
  }
}
