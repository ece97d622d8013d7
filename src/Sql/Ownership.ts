import { accessSync, closeSync, constants, existsSync, mkdirSync, openSync, realpathSync } from "node:fs"
import { basename, dirname, join, resolve } from "node:path"
import type { SqlError } from "@effect/sql/SqlError"
import Sqlite from "better-sqlite3"
import { Context, Effect, Predicate, Schema, type Scope } from "effect"

/** The database cannot be used: `message` says what is wrong, where, and what to do about it. */
export class DatabaseUnavailable extends Schema.TaggedError<DatabaseUnavailable>()("DatabaseUnavailable", {
  /** Its file, or its URL without what is secret. */
  database: Schema.String,
  message: Schema.String,
  /** Whether another Dream Team process holds it. */
  inUse: Schema.optional(Schema.Boolean)
}) {}

/** What became of a transaction whose end was not answered. */
export type Fate = "committed" | "undone" | "unknown"

/** That this process, and no other, works on the database. */
export class Ownership extends Context.Tag("dream-team/Ownership")<
  Ownership,
  {
    /**
     * For the beginning of a transaction: fails once another process has taken the database over, and keeps any other
     * from doing so until the transaction ends. Answers how to ask afterwards whether it was committed, should nobody have
     * heard of that.
     */
    readonly check: Effect.Effect<Effect.Effect<Fate>, SqlError | DatabaseUnavailable>
    /** Waits, and fails once another process has taken the database over: then this one can do nothing more. */
    readonly lost: Effect.Effect<never, DatabaseUnavailable>
  }
>() {
  /** Ownership that nobody can take away while the process lives, of a database that answers whatever it does. */
  static readonly certain: Ownership["Type"] = {
    check: Effect.succeed(Effect.succeed("undone")),
    lost: Effect.never
  }
}

/** The code that a database or the system gave with an error; empty where there is none. */
export const codeOf = (cause: unknown): string =>
  Predicate.hasProperty(cause, "code") && typeof cause.code === "string" ? cause.code : ""

export const textOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

/** The error the database itself gave, under whatever wrappers. */
export const rootOf = (error: unknown): unknown =>
  Predicate.hasProperty(error, "cause") && error.cause !== undefined ? rootOf(error.cause) : error

/** Says what a failure of SQLite's or the file system's means for the person who started the service. */
export const explain = (file: string, cause: unknown): DatabaseUnavailable => {
  const code = codeOf(cause)
  const say = (message: string): DatabaseUnavailable => new DatabaseUnavailable({ database: file, message })
  if (code.startsWith("SQLITE_NOTADB")) {
    return say(`${file} is not a SQLite database. Point DREAM_TEAM_DATABASE at another file, or move this one away.`)
  }
  if (code.startsWith("SQLITE_CORRUPT")) {
    return say(`The database ${file} is damaged (${textOf(cause)}). Restore it from a backup, or move it away.`)
  }
  if (code.startsWith("SQLITE_BUSY")) {
    return say(`Another program has locked the database ${file}. Close it there, then start again.`)
  }
  if (code.startsWith("SQLITE_FULL") || code === "ENOSPC") {
    return say(`The disk that holds ${file} is full. Free some space and start again.`)
  }
  if (code.startsWith("SQLITE_READONLY") || code === "EROFS" || code === "EACCES" || code === "EPERM") {
    return say(
      `The database ${file} cannot be written (${textOf(cause)}). Give this user write access to it and its folder.`
    )
  }
  return say(
    `The database ${file} cannot be opened (${textOf(cause)}). The path must be a file in a folder this user may write.`
  )
}

/** Where a database file is. */
export interface Located {
  /** The one name of the file, whatever links or relative paths lead to it. */
  readonly file: string
  /** What was made so that it is there, for the log; absent where it was there. */
  readonly made?: string
}

/** Finds a database file. It and its folder are made where missing. */
export const locate = (path: string): Effect.Effect<Located, DatabaseUnavailable> =>
  Effect.try({
    try: () => {
      const absolute = resolve(path)
      const folder = mkdirSync(dirname(absolute), { recursive: true })
      const isThere = existsSync(absolute)
      const file = isThere ? realpathSync(absolute) : join(realpathSync(dirname(absolute)), basename(absolute))
      // SQLite keeps files of its own beside it, and tells of a folder that takes none only that it cannot open the file.
      accessSync(dirname(file), constants.W_OK)
      // It holds what people ask: for its owner alone, unless they made it otherwise. SQLite's own files follow it.
      closeSync(openSync(file, "a", 0o600))
      if (isThere) return { file }
      return {
        file,
        made: folder === undefined ? `the database ${file}` : `the folder ${folder} and in it the database ${file}`
      }
    },
    catch: (cause) => explain(resolve(path), cause)
  })

/**
 * Makes this process the only owner of `file` until the scope closes. The lock is an exclusive transaction on a
 * database beside it, so the operating system gives it back however the process ends.
 */
export const own = (file: string): Effect.Effect<void, DatabaseUnavailable, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () => {
        const lock = new Sqlite(`${file}.lock`, { timeout: 0 })
        try {
          lock.exec("BEGIN EXCLUSIVE")
          return lock
        } catch (cause) {
          lock.close()
          throw cause
        }
      },
      catch: (cause) =>
        codeOf(cause).startsWith("SQLITE_BUSY")
          ? new DatabaseUnavailable({
              database: file,
              inUse: true,
              message: `The database ${file} is in use by another Dream Team process (it holds ${file}.lock). Stop that process, or give this one its own file with DREAM_TEAM_DATABASE.`
            })
          : explain(file, cause)
    }),
    (lock) => Effect.sync(() => lock.close())
  ).pipe(Effect.asVoid)
