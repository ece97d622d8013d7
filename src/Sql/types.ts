import type { SqlClient } from "@effect/sql/SqlClient"

/** What the databases call the same column types. */
export const columnTypes = (sql: SqlClient) =>
  sql.onDialectOrElse({
    pg: () => ({
      /** A key that grows with each row. */
      serial: sql.literal("BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
      /** 64 bits, read as a number: counts, ranks and instants in epoch ms. */
      integer: sql.literal("BIGINT"),
      real: sql.literal("DOUBLE PRECISION"),
      /** For a table that is read by its primary key only, and so needs no other order of its rows. */
      withoutRowId: sql.literal("")
    }),
    orElse: () => ({
      serial: sql.literal("INTEGER PRIMARY KEY AUTOINCREMENT"),
      integer: sql.literal("INTEGER"),
      real: sql.literal("REAL"),
      withoutRowId: sql.literal(" WITHOUT ROWID")
    })
  })
