import { Redacted } from "effect"

/** Where the tasks are kept: the path of an SQLite file, `:memory:`, or the URL of a PostgreSQL database. */
export type DatabaseSetting = string | Redacted.Redacted<string>

/** Whether the text means a PostgreSQL database. */
export const isPostgres = (text: string): boolean => /^postgres(ql)?:/i.test(text)

/** Whether it is a URL of PostgreSQL that leads somewhere and whose password is written so that it cannot be misread. */
export const isPostgresUrl = (text: string): boolean => {
  if (!/^postgres(ql)?:\/\//i.test(text) || !URL.canParse(text)) return false
  const { hash, host, pathname, searchParams } = new URL(text)
  return hash === "" && !pathname.includes("@") && (host !== "" || searchParams.has("host"))
}

/** A URL may hold a password, so it is kept where nobody prints it. */
export const databaseSetting = (text: string): DatabaseSetting => (isPostgres(text) ? Redacted.make(text) : text)

/** What a database may be called before anybody: its file, or its URL without password and parameters. */
export const databaseName = (database: DatabaseSetting): string => {
  const text = Redacted.isRedacted(database) ? Redacted.value(database) : database
  if (!isPostgres(text)) return text
  if (!isPostgresUrl(text)) return "postgres://…"
  const { host, pathname, username } = new URL(text)
  return `postgres://${username === "" ? "" : `${username}@`}${host}${pathname}`
}
