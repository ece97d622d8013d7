import type { SqlClient } from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Deferred, Duration, Effect, Option, Schedule, type Scope } from "effect"
import { DatabaseUnavailable, type Fate, type Ownership } from "./Ownership.js"

/** How long a lease lasts beyond its latest renewal, by the database's clock. */
const lasts = Duration.seconds(10)
const renewedEvery = Duration.seconds(2)
/** How often a standby looks whether it may take over. */
const lookedEvery = Duration.seconds(1)

/**
 * A transaction whose end was not answered is asked for this often, and for this long: by then the server has started anew,
 * or has ended a session of which it hears no more.
 */
const askedEvery = Duration.millis(250)
const askedFor = Duration.sum(lasts, Duration.seconds(2))

const untilThen = `clock_timestamp() + interval '${Duration.toMillis(lasts)} milliseconds'`

/**
 * One row says who works on a PostgreSQL database and until when, judged by the database's clock alone. Its epoch grows
 * with every owner. It is a key, because only a change of a key waits for those who hold the row `FOR KEY SHARE`: so a
 * new owner waits for the former one's last transaction, while renewals wait for nobody.
 */
const prepare = (sql: SqlClient): Effect.Effect<void, SqlError> =>
  sql.withTransaction(
    Effect.gen(function* () {
      // Two processes that start at once would both make the table.
      yield* sql`SELECT pg_advisory_xact_lock(hashtext('dream-team ownership'))`
      yield* sql`CREATE TABLE IF NOT EXISTS ownership (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch BIGINT NOT NULL UNIQUE,
        expires_at TIMESTAMPTZ NOT NULL
      )`
      yield* sql`INSERT INTO ownership (one, epoch, expires_at) VALUES (1, 0, clock_timestamp()) ON CONFLICT DO NOTHING`
    })
  )

/**
 * Makes this process the only one that works on the database, until the scope closes: a second one waits here until
 * the lease of the first is given back or has expired. A process that was stopped for longer and goes on finds its epoch
 * gone and can commit nothing more.
 */
export const takeLease = (sql: SqlClient, database: string): Effect.Effect<Ownership["Type"], SqlError, Scope.Scope> =>
  Effect.gen(function* () {
    yield* prepare(sql)

    const take = Effect.map(
      sql<{ readonly epoch: number }>`
        UPDATE ownership SET epoch = epoch + 1, expires_at = ${sql.literal(untilThen)}
        WHERE expires_at <= clock_timestamp() RETURNING epoch`,
      (rows) => Option.fromNullable(rows[0]?.epoch)
    )
    const giveBack = (epoch: number) =>
      Effect.ignore(sql`UPDATE ownership SET expires_at = clock_timestamp() WHERE epoch = ${epoch}`)

    const waitForIt = Effect.gen(function* () {
      yield* Effect.logInfo(
        `Another Dream Team process works on ${database}. This one stands by and takes over when that one ends.`
      )
      const epoch = yield* take.pipe(
        // Whoever waits for a failure of the other process may well outlast one of the database.
        Effect.tapError((error) => Effect.logWarning("The database does not answer; still standing by", error)),
        Effect.orElseSucceed(() => Option.none<number>()),
        Effect.delay(lookedEvery),
        Effect.repeat({ until: Option.isSome }),
        Effect.flatMap((taken) => Effect.orDie(taken))
      )
      yield* Effect.logInfo(`This process has taken over ${database}.`)
      return epoch
    })

    const epoch = yield* Effect.acquireRelease(
      Effect.flatMap(
        take,
        Option.match({ onNone: () => Effect.interruptible(waitForIt), onSome: (taken) => Effect.succeed(taken) })
      ),
      giveBack
    )

    const gone = yield* Deferred.make<never, DatabaseUnavailable>()
    const failure = new DatabaseUnavailable({
      database,
      inUse: true,
      message: `Another process has taken over the database ${database}, because this one did not renew its lease for ${Duration.toSeconds(lasts)} s. What it was doing is void; the other process goes on with it.`
    })
    const mine = <A>([row]: ReadonlyArray<A>): Effect.Effect<A, DatabaseUnavailable> =>
      row === undefined ? Effect.zipRight(Deferred.fail(gone, failure), failure) : Effect.succeed(row)

    /** PostgreSQL knows of each recent transaction what became of it. */
    const fateOf = (transaction: number): Effect.Effect<Fate> =>
      sql<{ readonly status: string | null }>`SELECT txid_status(${transaction}) AS status`.pipe(
        Effect.flatMap(
          ([row]): Effect.Effect<Fate, string> =>
            row?.status === "committed"
              ? Effect.succeed("committed")
              : row?.status === "aborted"
                ? Effect.succeed("undone")
                : Effect.fail("it has not ended yet")
        ),
        Effect.retry(Schedule.intersect(Schedule.spaced(askedEvery), Schedule.upTo(Schedule.forever, askedFor))),
        Effect.orElseSucceed((): Fate => "unknown")
      )

    yield* sql`UPDATE ownership SET expires_at = ${sql.literal(untilThen)} WHERE epoch = ${epoch} RETURNING epoch`.pipe(
      Effect.tapError((error) => Effect.logWarning("The lease of the database could not be renewed", error)),
      Effect.orElseSucceed(() => [{ epoch }]),
      Effect.flatMap(mine),
      Effect.repeat(Schedule.spaced(renewedEvery)),
      Effect.ignore,
      Effect.interruptible,
      Effect.forkScoped
    )

    return {
      // A process that stops in the midst of a transaction holds the row; the database ends its session after a while.
      check: sql<{ readonly transaction: number }>`
        SELECT set_config('idle_in_transaction_session_timeout', ${String(Duration.toMillis(lasts))}, true),
          txid_current() AS transaction
        FROM ownership WHERE epoch = ${epoch} FOR KEY SHARE`.pipe(
        Effect.flatMap(mine),
        Effect.map(({ transaction }) => fateOf(transaction))
      ),
      lost: Deferred.await(gone)
    }
  })
