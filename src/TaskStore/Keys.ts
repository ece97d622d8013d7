import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Effect, Option, type ParseResult } from "effect"
import { Conflict, type ServiceUnavailable } from "../Domain/ApiError.js"
import type { TenantId } from "../Domain/Task.js"
import { epochMs } from "../Domain/Time.js"
import { firstOf, type Read } from "./Rows.js"

/** `hash` tells a repeated request from another one with the same key. */
export interface Idempotency {
  readonly key: string
  readonly hash: string
}

interface KeyedRow {
  readonly id: string
  readonly request_hash: string | null
}

export interface KeysOptions<Row, A> {
  readonly table: "tasks" | "jobs"
  readonly columns: string
  /** How long a key stands for its row, ms. */
  readonly keptMs: number
  readonly read: Read
  /** What a row says. */
  readonly valueOf: (row: Row) => Effect.Effect<A, ParseResult.ParseError>
}

/** What the idempotency keys of a table stand for; one of its age stands for nothing any more. */
export const makeKeys = <Row extends KeyedRow, A>(
  sql: SqlClient.SqlClient,
  { columns, keptMs, read, table, valueOf }: KeysOptions<Row, A>
) => {
  const rowOf = (tenant: TenantId, key: string, now: number): Effect.Effect<Option.Option<Row>, SqlError> =>
    Effect.map(
      sql<Row>`
        SELECT ${sql.literal(columns)} FROM ${sql(table)}
        WHERE tenant = ${tenant} AND idempotency_key = ${key} AND created_at > ${now - keptMs}`,
      firstOf
    )

  const sameRequest = (row: Row, hash: string): Effect.Effect<A, Conflict | ServiceUnavailable> =>
    row.request_hash === hash
      ? read(valueOf(row))
      : new Conflict({
          message: `The idempotency key was used before with another request (${table.slice(0, -1)} ${row.id})`
        })

  const replay = (
    tenant: TenantId,
    { hash, key }: Idempotency
  ): Effect.Effect<Option.Option<A>, Conflict | ServiceUnavailable> =>
    Effect.gen(function* () {
      const row = yield* read(rowOf(tenant, key, yield* epochMs))
      return Option.isNone(row) ? Option.none() : Option.some(yield* sameRequest(row.value, hash))
    })

  return { rowOf, sameRequest, replay }
}
