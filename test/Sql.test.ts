import { spawn } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { SqlClient } from "@effect/sql/SqlClient"
import { assert, describe, it } from "@effect/vitest"
import Sqlite from "better-sqlite3"
import { Effect, Layer, Logger } from "effect"
import { Settings } from "../src/Settings.js"
import { DatabaseUnavailable, Sql } from "../src/Sql.js"
import { settings } from "./Coordinator/harness.js"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "dream-team-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const open = (database: string) =>
  Effect.provide(SqlClient, Sql.layer.pipe(Layer.provide(Settings.layer({ ...settings, database }))))

/** Uses the database and closes it again. */
const using = <A, E>(database: string, use: (sql: SqlClient) => Effect.Effect<A, E>) =>
  Effect.flatMap(SqlClient, use).pipe(
    Effect.provide(Sql.layer.pipe(Layer.provide(Settings.layer({ ...settings, database }))))
  )

const refused = (database: string) =>
  Effect.map(Effect.flip(open(database)), (error) => {
    assert.instanceOf(error, DatabaseUnavailable)
    assert.include(error.message, database)
    return error.message
  })

describe("Sql", () => {
  it.scoped("makes the folder and the file, with every commit flushed to disk", () =>
    Effect.gen(function* () {
      const file = join(yield* folder, "not", "there", "tasks.db")
      yield* using(file, (sql) =>
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* sql`PRAGMA journal_mode`, [{ journal_mode: "wal" }])
          assert.deepStrictEqual(yield* sql`PRAGMA synchronous`, [{ synchronous: 2 }])
          assert.deepStrictEqual(yield* sql`PRAGMA foreign_keys`, [{ foreign_keys: 1 }])
          yield* sql`INSERT INTO epochs (started_at) VALUES (1)`
          for (const made of [file, `${file}-wal`]) assert.strictEqual(statSync(made).mode & 0o777, 0o600)
        })
      )
      const kept = yield* using(file, (sql) => sql`SELECT epoch FROM epochs`)
      assert.deepStrictEqual(kept, [{ epoch: 1 }])
    })
  )

  it.scoped("refuses a second owner, under any name of the file, until the first is gone", () =>
    Effect.gen(function* () {
      const path = yield* folder
      const file = join(path, "tasks.db")
      yield* using(file, () => Effect.void)
      const link = join(path, "link.db")
      symlinkSync(file, link)
      yield* using(file, () =>
        Effect.gen(function* () {
          assert.include(yield* refused(file), "in use by another Dream Team process")
          const throughLink = yield* Effect.flip(open(link))
          assert.instanceOf(throughLink, DatabaseUnavailable)
        })
      )
      yield* using(link, () => Effect.void)
    })
  )

  it.scoped("is free again as soon as its owner is killed", () =>
    Effect.gen(function* () {
      const file = join(yield* folder, "tasks.db")
      yield* using(file, () => Effect.void)
      const sqlite = pathToFileURL(join(process.cwd(), "node_modules/better-sqlite3/lib/index.js")).href
      const script = `
        import Sqlite from ${JSON.stringify(sqlite)}
        const lock = new Sqlite(${JSON.stringify(`${file}.lock`)})
        lock.exec("BEGIN EXCLUSIVE")
        console.log("held")
        setInterval(() => lock.open, 1000)`
      const owner = yield* Effect.acquireRelease(
        Effect.sync(() => spawn(process.execPath, ["--input-type=module", "-e", script])),
        (child) => Effect.sync(() => child.kill("SIGKILL"))
      )
      yield* Effect.async<void>((resume) => {
        owner.stdout.once("data", () => resume(Effect.void))
      })
      assert.include(yield* refused(file), "DREAM_TEAM_DATABASE")
      yield* Effect.async<void>((resume) => {
        owner.once("exit", () => resume(Effect.void))
        owner.kill("SIGKILL")
      })
      yield* using(file, () => Effect.void)
    })
  )

  it.scoped("says what is wrong with a file that cannot be used, and leaves it as it is", () =>
    Effect.gen(function* () {
      const path = yield* folder
      const text = join(path, "notes.txt")
      writeFileSync(text, "these are notes, ".repeat(100))
      assert.include(yield* refused(text), "not a SQLite database")
      assert.strictEqual(readFileSync(text, "utf8"), "these are notes, ".repeat(100))
      assert.include(yield* refused(join(text, "tasks.db")), "cannot be opened")
      assert.include(yield* refused(path), "cannot be opened")

      const damaged = join(path, "damaged.db")
      yield* using(damaged, () => Effect.void)
      const bytes = readFileSync(damaged)
      writeFileSync(damaged, Buffer.concat([bytes.subarray(0, 100), Buffer.alloc(bytes.length - 100, 0x5a)]))
      assert.include(yield* refused(damaged), "damaged")
    })
  )

  for (const mode of ["delete", "wal"]) {
    it.scoped(`refuses a file of another program, in the journal mode ${mode}, and leaves it as it is`, () =>
      Effect.gen(function* () {
        const path = yield* folder
        const file = join(path, "theirs.db")
        const theirs = new Sqlite(file)
        theirs.pragma(`journal_mode = ${mode}`)
        theirs.exec("CREATE TABLE tasks (a); CREATE VIEW recent AS SELECT a FROM tasks; INSERT INTO tasks VALUES (1)")
        const look = () => ({ bytes: readFileSync(file), files: readdirSync(path) })
        for (const isClosed of [false, true]) {
          if (isClosed) theirs.close()
          const before = look()
          assert.match(yield* refused(file), /another program \(recent, tasks\).*DREAM_TEAM_DATABASE/)
          assert.deepStrictEqual(look(), before)
        }
      })
    )
  }

  it.scoped("refuses a file of another program that a former version has put its table into", () =>
    Effect.gen(function* () {
      const file = join(yield* folder, "theirs.db")
      const theirs = new Sqlite(file)
      theirs.exec("CREATE TABLE tasks (a); CREATE TABLE dream_team_migrations (migration_id INTEGER PRIMARY KEY)")
      theirs.close()
      assert.include(yield* refused(file), "another program (tasks)")
    })
  )

  it.scoped("takes an empty file, and one of its own that was not closed", () =>
    Effect.gen(function* () {
      const path = yield* folder
      const empty = join(path, "empty.db")
      writeFileSync(empty, "")
      yield* using(empty, () => Effect.void)
      const without = join(path, "without.db")
      const begun = new Sqlite(without)
      begun.pragma("user_version = 3")
      begun.exec(
        "CREATE TABLE dream_team_migrations (migration_id INTEGER PRIMARY KEY NOT NULL, created_at datetime NOT NULL DEFAULT current_timestamp, name VARCHAR(255) NOT NULL)"
      )
      begun.close()
      yield* using(without, () => Effect.void)
      const killed = join(path, "killed.db")
      yield* using(killed, (sql) =>
        Effect.gen(function* () {
          yield* sql`INSERT INTO epochs (started_at) VALUES (1)`
          for (const end of ["", "-wal"]) writeFileSync(join(path, `copy.db${end}`), readFileSync(`${killed}${end}`))
        })
      )
      assert.lengthOf(yield* using(join(path, "copy.db"), (sql) => sql`SELECT epoch FROM epochs`), 1)
    })
  )

  it.scoped("tells the log of the folder and of the file that it makes, once", () =>
    Effect.gen(function* () {
      const path = yield* folder
      const told: Array<string> = []
      const logger = Logger.replace(
        Logger.defaultLogger,
        Logger.make(({ message }) => told.push(String(message)))
      )
      const inFolder = join(path, "mistyped", "deep", "tasks.db")
      const alone = join(path, "tasks.db")
      for (const file of [inFolder, inFolder, alone])
        yield* Effect.provide(
          using(file, () => Effect.void),
          logger
        )
      assert.lengthOf(told, 2)
      assert.include(told[0], `Created the folder ${join(path, "mistyped")} `)
      assert.include(told[0], inFolder)
      assert.include(told[1], `Created the database ${alone}`)
    })
  )

  it.scoped("refuses a database of a newer version", () =>
    Effect.gen(function* () {
      const file = join(yield* folder, "tasks.db")
      yield* using(file, (sql) => sql`INSERT INTO dream_team_migrations (migration_id, name) VALUES (9999, 'future')`)
      assert.include(yield* refused(file), "newer version")
    })
  )

  it.scoped("refuses a folder that may not be written", () =>
    Effect.gen(function* () {
      // Nobody, root included, makes files there.
      const readOnly = process.platform === "linux" ? "/proc/self/tasks.db" : "/dev/null/tasks.db"
      const error = yield* Effect.flip(open(readOnly))
      assert.instanceOf(error, DatabaseUnavailable)
    })
  )

  it.scoped("uses an index for every read of the store", () =>
    Effect.gen(function* () {
      const plans = [
        "SELECT * FROM tasks WHERE tenant = 'a' ORDER BY seq DESC LIMIT 51",
        "SELECT * FROM tasks WHERE tenant = 'a' AND state = 'failed' AND seq < 9 ORDER BY seq DESC LIMIT 51",
        "SELECT * FROM tasks WHERE tenant = 'a' AND type = 'testing' ORDER BY seq DESC LIMIT 51",
        "SELECT * FROM tasks WHERE tenant = 'a' AND priority = 1 ORDER BY seq DESC LIMIT 51",
        "SELECT * FROM tasks WHERE tenant = 'a' AND platform = 'codex' ORDER BY seq DESC LIMIT 51",
        "SELECT * FROM tasks WHERE tenant = 'a' AND idempotency_key = 'k'",
        "SELECT seq FROM tasks WHERE class_id = 1 AND state = 'queued' AND claim_epoch IS NULL ORDER BY seq LIMIT 4",
        "SELECT seq FROM tasks WHERE state = 'waiting' AND wake_at <= 5 LIMIT 200",
        "SELECT seq FROM tasks WHERE state = 'waiting' AND blocked_by = 0 AND held = 0 AND wake_at <= 5 LIMIT 200",
        "SELECT seq FROM tasks WHERE state = 'waiting' AND blocked_by = 0 AND held = 0 AND class_id = 5 LIMIT 200",
        "SELECT seq FROM tasks WHERE state = 'queued' AND claim_epoch IS NULL AND deadline <= 5 LIMIT 200",
        "SELECT id FROM tasks WHERE claim_epoch IS NOT NULL AND claim_epoch < 5 LIMIT 200",
        "SELECT * FROM events WHERE task_id = 'a' AND id > 5 ORDER BY id LIMIT 100",
        "SELECT id FROM events WHERE platform IS NULL AND at <= 5 LIMIT 200",
        "SELECT seq FROM tasks WHERE idempotency_key IS NOT NULL AND created_at <= 5 LIMIT 200",
        "SELECT seq FROM tasks WHERE finished_at IS NOT NULL AND finished_at <= 5 AND (finished_at, seq) > (1, 1) ORDER BY finished_at, seq LIMIT 200",
        "SELECT seq FROM jobs WHERE finished_at IS NOT NULL AND finished_at <= 5 AND (finished_at, seq) > (1, 1) ORDER BY finished_at, seq LIMIT 200",
        "SELECT 1 FROM dependencies WHERE depends_on = 'a'",
        "SELECT * FROM attempts WHERE task_id = 'a' ORDER BY number LIMIT 1000"
      ]
      yield* using(":memory:", (sql) =>
        Effect.forEach(plans, (query) =>
          Effect.map(sql.unsafe<{ readonly detail: string }>(`EXPLAIN QUERY PLAN ${query}`), (plan) => {
            for (const { detail } of plan) assert.match(detail, /^SEARCH/, query)
          })
        )
      )
    })
  )

  it("gives memory databases that know nothing of each other", () =>
    Effect.gen(function* () {
      const insert = Effect.flatMap(
        SqlClient,
        (sql) => sql<{ readonly epoch: number }>`INSERT INTO epochs (started_at) VALUES (1) RETURNING epoch`
      )
      for (let i = 0; i < 2; i++) {
        assert.deepStrictEqual(yield* Effect.provide(insert, Sql.layerMemory), [{ epoch: 1 }])
      }
    }).pipe(Effect.runPromise))
})
