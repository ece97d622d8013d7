import type * as Reactivity from "@effect/experimental/Reactivity"
import type { SqlClient } from "@effect/sql/SqlClient"
import * as PgClient from "@effect/sql-pg/PgClient"
import { Effect, type Redacted, type Scope } from "effect"
import { databaseName } from "../Settings/Database.js"
import { codeOf, DatabaseUnavailable, rootOf, textOf } from "./Ownership.js"

/** Connections at once: one writes, the others read. */
const maxConnections = 10
const connectTimeout = "5 seconds"

/** PostgreSQL's ids of the types that are read as numbers: BIGINT, INTEGER, SMALLINT, REAL, DOUBLE PRECISION, NUMERIC. */
const numeric: ReadonlySet<number> = new Set([20, 23, 21, 700, 701, 1700])

/** A PostgreSQL error of these codes, or of these classes (their first two characters), has a known remedy. */
const remedies: Readonly<Record<string, string>> = {
  "28": "The user or the password is wrong: check them in DREAM_TEAM_DATABASE (what is special in a password is percent-encoded there).",
  "3D000": "There is no such database: create it, or correct its name in DREAM_TEAM_DATABASE.",
  "42501": "The user may not create or change tables there: grant it that right on the database and its schema.",
  "53300": "The server has no connection left: allow it more (max_connections), or end others.",
  "57P03": "The server is starting or shutting down: try again in a moment.",
  "53100": "The server's disk is full: free some space there.",
  ECONNREFUSED: "No server answers there: start it, or correct host and port in DREAM_TEAM_DATABASE.",
  ENOTFOUND: "There is no such host: correct it in DREAM_TEAM_DATABASE.",
  EAI_AGAIN: "The host's name cannot be resolved just now: check the network, or the name in DREAM_TEAM_DATABASE."
}

/** Says what a failure of PostgreSQL or of the way to it means for the person who started the service. */
export const explainPostgres = (database: string, error: unknown): DatabaseUnavailable => {
  const cause = rootOf(error)
  const code = codeOf(cause)
  // Where a host has several addresses the reason is that of each.
  const texts = cause instanceof AggregateError ? cause.errors.map(textOf).join("; ") : textOf(cause)
  const remedy =
    remedies[code] ??
    remedies[code.slice(0, 2)] ??
    "Check that the server runs and can be reached from here, and that DREAM_TEAM_DATABASE is right."
  return new DatabaseUnavailable({ database, message: `The database ${database} cannot be used (${texts}). ${remedy}` })
}

/** A pool of connections to the database at `url`, closed with the scope. */
export const connect = (
  url: Redacted.Redacted<string>
): Effect.Effect<SqlClient, DatabaseUnavailable, Scope.Scope | Reactivity.Reactivity> =>
  PgClient.make({
    url,
    applicationName: "dream-team",
    maxConnections,
    connectTimeout,
    types: {
      getTypeParser: (type: number) => (numeric.has(type) ? Number : (text: string) => text)
    }
  }).pipe(Effect.mapError((error) => explainPostgres(databaseName(url), error)))
