import { closeSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { SqlClient } from "@effect/sql/SqlClient"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Option, Scope } from "effect"
import { afterAll } from "vitest"
import { Settings } from "../../src/Settings.js"
import { DatabaseUnavailable, Sql } from "../../src/Sql.js"
import { TaskStore } from "../../src/TaskStore.js"
import { codex, failureOf, settings, storeLayer, tenant } from "../Coordinator/harness.js"
import { smallDisk } from "../support/smallDisk.js"
import { complete, idOf, taskOf } from "../TaskStore/fixtures.js"

const folder = mkdtempSync(join(tmpdir(), "dream-team-failures-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const disk = smallDisk(3)
afterAll(() => disk?.remove())

/** A process's store on a file, and its end. */
const open = (database: string) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const context = yield* Layer.buildWithScope(
      storeLayer.pipe(
        Layer.provideMerge(Sql.layer),
        Layer.provide(Settings.layer(Settings.make({ ...settings, database })))
      ),
      scope
    )
    return {
      sql: Context.get(context, SqlClient),
      store: Context.get(context, TaskStore),
      close: Scope.close(scope, Exit.void)
    }
  })

interface Disk {
  readonly file: string
  readonly fill: (sql: SqlClient) => Effect.Effect<unknown, unknown>
  readonly free: (sql: SqlClient) => Effect.Effect<unknown, unknown>
}

const disks: ReadonlyArray<readonly [string, Disk | undefined]> = [
  [
    "a disk without a byte left",
    disk === undefined
      ? undefined
      : {
          file: join(disk.folder, "tasks.db"),
          fill: () => Effect.sync(() => disk.fill()),
          free: () => Effect.sync(() => disk.free())
        }
  ],
  [
    "a database file that may not grow",
    {
      file: join(folder, "bounded.db"),
      fill: (sql) => sql`PRAGMA max_page_count = 1`,
      free: (sql) => sql`PRAGMA max_page_count = 1073741823`
    }
  ]
]

const numbers = (from: number, count: number) => Array.from({ length: count }, (_, n) => from + n)

describe("a store whose database fails", () => {
  for (const [name, full] of disks) {
    it.live.skipIf(full === undefined)(`refuses tasks on ${name}, keeps what it accepted, and recovers`, () =>
      Effect.gen(function* () {
        assert(full !== undefined)
        const { close, sql, store } = yield* open(full.file)
        const { id: classId } = yield* store.classOf([codex], "MEDIUM")
        const long = { system: "s".repeat(3_000) }
        const submit = (n: number) => Effect.exit(store.insert(taskOf(n, classId, { submission: long })))
        const before = yield* Effect.forEach(numbers(0, 50), submit, { concurrency: "unbounded" })
        assert.isTrue(before.every(Exit.isSuccess))
        const [claim] = yield* store.claim(classId, 1)
        assert(claim !== undefined)

        yield* full.fill(sql)
        // What is left in the files themselves is used up first.
        const accepted = new Set(numbers(0, 50))
        let refused = 0
        for (let group = 0; group < 40 && refused < 20; group++) {
          const from = 1_000 + group * 20
          const exits = yield* Effect.forEach(numbers(from, 20), submit, { concurrency: "unbounded" })
          exits.forEach((exit, n) => {
            if (Exit.isSuccess(exit)) accepted.add(from + n)
            else {
              refused += 1
              const failure = failureOf(exit)
              assert.strictEqual(failure?._tag, "ServiceUnavailable")
              assert.match(failure?.message ?? "", /^The disk of the task database is full\./)
            }
          })
        }
        assert.isAtLeast(refused, 20)
        assert.strictEqual((yield* store.get(tenant, idOf(7))).state, "queued")

        yield* full.free(sql)
        assert.isTrue(
          (yield* Effect.forEach(numbers(5_000, 20), submit, { concurrency: "unbounded" })).every(Exit.isSuccess)
        )
        for (const n of numbers(5_000, 20)) accepted.add(n)
        yield* complete(store, claim)
        yield* close

        const again = yield* open(full.file)
        assert.deepStrictEqual(yield* again.sql`PRAGMA integrity_check`, [{ integrity_check: "ok" }])
        const rows = yield* again.sql<{ readonly id: string }>`SELECT id FROM tasks`
        assert.deepStrictEqual(new Set(rows.map(({ id }) => id)), new Set([...accepted].map(idOf)))
        assert.strictEqual((yield* again.store.get(tenant, claim.id)).state, "succeeded")
        yield* again.close
      })
    )
  }

  it.live.skipIf(disk === undefined)("says that its folder is read-only, and loses nothing by it", () =>
    Effect.gen(function* () {
      assert(disk !== undefined)
      const file = join(disk.folder, "read-only.db")
      const first = yield* open(file)
      const { id: classId } = yield* first.store.classOf([codex], "MEDIUM")
      yield* first.store.insert(taskOf(1, classId))
      yield* first.close
      disk.readOnly(true)
      const refused = yield* Effect.flip(open(file))
      assert.instanceOf(refused, DatabaseUnavailable)
      assert.include(refused.message, "cannot be written")
      assert.include(refused.message, file)
      assert.instanceOf(yield* Effect.flip(open(join(disk.folder, "not", "there", "tasks.db"))), DatabaseUnavailable)
      disk.readOnly(false)
      const { close, store } = yield* open(file)
      assert.strictEqual((yield* store.get(tenant, idOf(1))).state, "queued")
      yield* close
    })
  )

  it.live("refuses what touches a damaged part, and goes on with the rest", () =>
    Effect.gen(function* () {
      const file = join(folder, "damaged.db")
      const first = yield* open(file)
      const { id: classId } = yield* first.store.classOf([codex], "MEDIUM")
      yield* Effect.forEach(numbers(0, 200), (n) => first.store.insert(taskOf(n, classId)), {
        concurrency: "unbounded"
      })
      yield* first.close
      // The second half of the file, as a failing disk may leave it; the schema is at its beginning.
      const { size } = statSync(file)
      const half = size - (size % 8_192) / 2 - Math.floor(size / 8_192) * 4_096
      const bytes = openSync(file, "r+")
      writeSync(bytes, Buffer.alloc(size - half, 0x5a), 0, size - half, half)
      closeSync(bytes)
      const opened = yield* Effect.either(open(file))
      if (opened._tag === "Left") {
        assert.match(opened.left.message, /damaged|does not answer/)
        return
      }
      const { close, store } = opened.right
      const exits = yield* Effect.forEach(numbers(0, 200), (n) => Effect.exit(store.get(tenant, idOf(n))))
      assert.isTrue(exits.some(Exit.isFailure))
      for (const exit of exits) {
        if (Exit.isFailure(exit)) assert.strictEqual(failureOf(exit)?._tag, "ServiceUnavailable")
      }
      yield* Effect.ignore(store.insert({ ...taskOf(9_000, classId), idempotency: Option.none() }))
      yield* close
    })
  )
})
