import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { SqlClient } from "@effect/sql/SqlClient"
import { Effect, Layer } from "effect"
import { afterAll, beforeAll, describe } from "vitest"
import { Settings } from "../../src/Settings.js"
import type { SqlWriter } from "../../src/Sql/Writer.js"
import { type Ownership, Sql } from "../../src/Sql.js"
import { type Postgres, startPostgres, startTimeout } from "./Postgres.js"

/** An empty database, gone with its scope: another one for each `Effect.provide` of it. */
export type EmptyDatabase = Layer.Layer<SqlClient | SqlWriter | Ownership>

const at = (setting: Effect.Effect<string, never, never>): EmptyDatabase =>
  Layer.unwrapEffect(
    Effect.map(setting, (database) => Layer.provide(Sql.layer, Settings.layer(Settings.make({ database }))))
  ).pipe(Layer.orDie)

const onFile: EmptyDatabase = Layer.unwrapScoped(
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "dream-team-contract-"))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
    ),
    (folder) => at(Effect.succeed(join(folder, "tasks.db")))
  )
)

/** The same tests on every kind of database that the service runs on. */
export const describeOnEachDatabase = (name: string, tests: (database: EmptyDatabase) => void): void => {
  describe(`${name} on SQLite in memory`, () => tests(at(Effect.succeed(":memory:"))))
  describe(`${name} on an SQLite file`, () => tests(onFile))
  describe(`${name} on PostgreSQL`, () => {
    let server: Postgres | undefined
    beforeAll(async () => {
      server = await startPostgres()
    }, startTimeout)
    afterAll(() => server?.remove())
    tests(at(Effect.promise(async () => (await server?.database()) ?? "")))
  })
}
