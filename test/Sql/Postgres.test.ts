import { SqlClient } from "@effect/sql/SqlClient"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Logger, Option, Schedule, Scope } from "effect"
import { afterAll, beforeAll } from "vitest"
import { Settings } from "../../src/Settings.js"
import { tableNames } from "../../src/Sql/Foreign.js"
import { SqlWriter } from "../../src/Sql/Writer.js"
import { DatabaseUnavailable, Ownership, Sql } from "../../src/Sql.js"
import { failureOf } from "../Coordinator/harness.js"
import { type Postgres, startPostgres, startTimeout } from "../support/Postgres.js"
import { freePort } from "../support/Service.js"

let server: Postgres
beforeAll(async () => {
  server = await startPostgres()
}, startTimeout)
afterAll(() => server.remove())

const database = Effect.promise(() => server.database())
const query = (url: string, sql: string) => Effect.promise(() => server.query(url, sql))

/** A process's hold on the database: its services, and how it ends. */
const open = (url: string) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const built = Sql.layer.pipe(Layer.provide(Settings.layer(Settings.make({ database: url }))))
    const context = yield* Layer.buildWithScope(built, scope)
    return {
      sql: Context.get(context, SqlClient),
      writer: Context.get(context, SqlWriter),
      ownership: Context.get(context, Ownership),
      close: Scope.close(scope, Exit.void)
    }
  })

const until = <A>(what: string, look: Effect.Effect<A, unknown>, holds: (a: A) => boolean) =>
  look.pipe(
    Effect.option,
    Effect.filterOrFail(
      (seen) => Option.exists(seen, holds),
      () => what
    ),
    Effect.retry(Schedule.spaced("50 millis")),
    Effect.timeoutFail({ duration: "30 seconds", onTimeout: () => what }),
    Effect.orDie
  )

/** As if the first owner were stopped: whatever it renews is out of date at once. Until the scope closes. */
const expire = (url: string) =>
  query(url, "UPDATE ownership SET expires_at = clock_timestamp() WHERE epoch = 1").pipe(
    Effect.repeat(Schedule.spaced("100 millis")),
    Effect.forkScoped
  )

const epochs = (url: string) => Effect.map(query(url, "SELECT epoch FROM epochs"), (rows) => rows.length)
const startEpoch = (sql: SqlClient) => Effect.asVoid(sql`INSERT INTO epochs (started_at) VALUES (1)`)

describe("Sql on PostgreSQL", () => {
  it.live("reads every kind of number as a number", () =>
    Effect.gen(function* () {
      const { close, sql } = yield* open(yield* database)
      const [row] = yield* sql`
        SELECT 9007199254740991::BIGINT AS a, COUNT(*) AS b, SUM(x) AS c, AVG(x) AS d, 0.5::DOUBLE PRECISION AS e, NULL AS f
        FROM (VALUES (1::BIGINT), (2)) AS t (x)`
      assert.deepStrictEqual(row, { a: 9_007_199_254_740_991, b: 2, c: 3, d: 1.5, e: 0.5, f: null })
      yield* close
    })
  )

  it.live("has everything after a restart, which waits for nothing", () =>
    Effect.gen(function* () {
      const url = yield* database
      const first = yield* open(url)
      yield* first.writer.write(startEpoch(first.sql))
      yield* first.close
      const [waited, second] = yield* Effect.timed(open(url))
      assert.isBelow(Number(waited.value._tag === "Millis" ? waited.value.millis : 0), 5_000)
      assert.lengthOf(yield* second.sql`SELECT epoch FROM epochs`, 1)
      yield* second.close
    })
  )

  it.live("lets a second process stand by until the first has ended", () =>
    Effect.gen(function* () {
      const url = yield* database
      const told: Array<string> = []
      const logger = Logger.replace(
        Logger.defaultLogger,
        Logger.make(({ message }) => told.push(String(message)))
      )
      const first = yield* open(url)
      const second = yield* Effect.fork(Effect.provide(open(url), logger))
      yield* until(
        "the second stands by",
        Effect.sync(() => told.length),
        (lines) => lines > 0
      )
      assert.match(told[0] ?? "", /^Another Dream Team process works on postgres:\/\/dream@127.0.0.1:\d+\/tasks_\d+\./)
      yield* first.writer.write(startEpoch(first.sql))
      assert.isTrue(Option.isNone(yield* Fiber.poll(second)))
      yield* first.close
      const { close, sql } = yield* Fiber.join(second)
      assert.lengthOf(yield* sql`SELECT epoch FROM epochs`, 1)
      yield* close
    })
  )

  it.live("gives the database to another process whose former owner let its lease expire, and to nobody else", () =>
    Effect.gen(function* () {
      const url = yield* database
      const first = yield* open(url)
      const second = yield* Effect.scoped(Effect.zipRight(expire(url), open(url)))
      const late = yield* Effect.exit(
        Effect.forEach([1, 2, 3], () => Effect.exit(first.writer.write(startEpoch(first.sql))), {
          concurrency: "unbounded"
        })
      )
      assert(Exit.isSuccess(late))
      for (const exit of late.value) {
        assert.deepInclude(failureOf(exit), { _tag: "ServiceUnavailable" })
        assert.match(failureOf(exit)?.message ?? "", /^Another process has taken over the database postgres:/)
      }
      assert.strictEqual(yield* epochs(url), 0)
      const lost = yield* Effect.flip(first.ownership.lost)
      assert.instanceOf(lost, DatabaseUnavailable)
      assert.isTrue(lost.inUse)
      yield* second.writer.write(startEpoch(second.sql))
      // The end of the former owner takes nothing from the new one.
      yield* first.close
      yield* second.writer.write(startEpoch(second.sql))
      assert.strictEqual(yield* epochs(url), 2)
      yield* second.close
    })
  )

  it.live("keeps its lease though it has nothing to do, and finds out by itself that it lost it", () =>
    Effect.gen(function* () {
      const url = yield* database
      const first = yield* open(url)
      const expiry = Effect.map(query(url, "SELECT expires_at::TEXT AS at FROM ownership"), ([row]) => String(row?.at))
      const before = yield* expiry
      yield* until("the lease is renewed", expiry, (now) => now !== before)
      yield* query(url, "UPDATE ownership SET epoch = epoch + 1")
      const lost = yield* Effect.timeout(Effect.flip(first.ownership.lost), "20 seconds")
      assert.include(lost.message, "taken over")
      yield* first.close
    })
  )

  it.live("takes over only after the former owner's last transaction, so that none is half seen", () =>
    Effect.gen(function* () {
      const url = yield* database
      const first = yield* open(url)
      const held = yield* Effect.fork(
        first.writer.write(Effect.zipRight(startEpoch(first.sql), Effect.asVoid(first.sql`SELECT pg_sleep(3)`)))
      )
      yield* until(
        "the write is under way",
        query(
          url,
          "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(3)%' AND pid <> pg_backend_pid()"
        ),
        (rows) => rows.length > 0
      )
      const second = yield* Effect.scoped(Effect.zipRight(expire(url), open(url)))
      assert.lengthOf(yield* second.sql`SELECT epoch FROM epochs`, 1)
      yield* Fiber.join(held)
      yield* first.close
      yield* second.close
    })
  )

  it.live("says what is wrong, what to do, and no secret", () =>
    Effect.gen(function* () {
      const url = yield* database
      const refused = (wrong: string) =>
        Effect.gen(function* () {
          const error = yield* Effect.flip(open(wrong))
          assert.instanceOf(error, DatabaseUnavailable)
          assert.notInclude(JSON.stringify(error) + String(error), "hush")
          assert.notInclude(JSON.stringify(error) + String(error), encodeURIComponent("p@ss"))
          return error.message
        })
      const name = new URL(url).pathname.slice(1)
      assert.include(yield* refused(server.urlOf(name, { password: "hush" })), "The user or the password is wrong")
      assert.include(yield* refused(server.urlOf(name, { user: "nobody" })), "The user or the password is wrong")
      assert.include(yield* refused(server.urlOf("not_there")), "There is no such database")
      const nobody = yield* Effect.promise(() => freePort())
      assert.include(yield* refused(`postgres://dream:hush@127.0.0.1:${nobody}/tasks`), "No server answers there")
      yield* query(url, "CREATE ROLE reader LOGIN PASSWORD 'hush'")
      assert.include(
        yield* refused(server.urlOf(name, { user: "reader", password: "hush" })),
        "The user may not create or change tables there"
      )
    })
  )

  it.live("refuses a database with another program's tables of the same names, and leaves it as it is", () =>
    Effect.gen(function* () {
      const url = yield* database
      yield* query(url, "CREATE TABLE invoices (id INTEGER)")
      const relations = query(
        url,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY relname"
      )
      for (const name of ["tasks", "ownership"]) {
        yield* query(url, `CREATE TABLE ${name} (a INTEGER)`)
        const before = yield* relations
        const error = yield* Effect.flip(open(url))
        assert.instanceOf(error, DatabaseUnavailable)
        assert.match(error.message, new RegExp(`another program.*\\(${name}\\).*DREAM_TEAM_DATABASE`))
        assert.deepStrictEqual(yield* relations, before)
        yield* query(url, `DROP TABLE ${name}`)
      }
      yield* Effect.flatMap(open(url), ({ close }) => close)
      yield* Effect.flatMap(open(url), ({ close }) => close)
    })
  )

  it.live("knows the names of all its tables", () =>
    Effect.gen(function* () {
      const url = yield* database
      yield* Effect.flatMap(open(url), ({ close }) => close)
      const tables = yield* query(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
      assert.includeMembers(
        [...tableNames],
        tables.map(({ tablename }) => String(tablename))
      )
    })
  )

  it.live("refuses a database of a newer version", () =>
    Effect.gen(function* () {
      const url = yield* database
      yield* Effect.flatMap(open(url), ({ close }) => close)
      yield* query(url, "INSERT INTO dream_team_migrations (migration_id, name) VALUES (9999, 'future')")
      assert.include((yield* Effect.flip(open(url))).message, "newer version")
    })
  )

  it.live("refuses writes while the server is away, and goes on when it is back", () =>
    Effect.gen(function* () {
      const url = yield* database
      const { close, ownership, sql, writer } = yield* open(url)
      yield* writer.write(startEpoch(sql))
      yield* Effect.promise(() => server.stop())
      const exits = yield* Effect.forEach([1, 2, 3], () => Effect.exit(writer.write(startEpoch(sql))), {
        concurrency: "unbounded"
      })
      for (const exit of exits) assert.strictEqual(failureOf(exit)?._tag, "ServiceUnavailable")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(sql`SELECT 1`)))
      yield* Effect.promise(() => server.start())
      yield* until("it writes again", Effect.exit(writer.write(startEpoch(sql))), Exit.isSuccess)
      assert.strictEqual(yield* epochs(url), 2)
      assert.isTrue(Option.isNone(yield* Effect.timeoutOption(Effect.flip(ownership.lost), "10 millis")))
      yield* close
    })
  )
})
