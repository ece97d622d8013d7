import * as SqlClient from "@effect/sql/SqlClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, FastCheck, Fiber, Layer, Option, Scope, TestClock, TestContext } from "effect"
import { BudgetStore, Budgets } from "../src/Budgets.js"
import type { Amount } from "../src/Domain/Budget.js"
import { PlatformId } from "../src/Domain/Platform.js"
import { TaskId, TenantId } from "../src/Domain/Task.js"
import { Events } from "../src/Events.js"
import { Settings, type SettingsOptions } from "../src/Settings.js"
import { Sql } from "../src/Sql.js"
import { jumpingClock } from "./support/jumpingClock.js"

const codex = PlatformId.make("codex")
const gemini = PlatformId.make("gemini")
const alice = TenantId.make("alice")
const bob = TenantId.make("bob")
const dayMs = 86_400_000

const amount = (usd: number, tokens: number): Amount => ({ nanoUsd: Math.round(usd * 1e9), tokens })

const settingsOf = (budgets: NonNullable<SettingsOptions["budgets"]>) =>
  Settings.make({
    database: ":memory:",
    platforms: [
      Settings.platformDefaults("codex", { apiKey: "k" }),
      Settings.platformDefaults("gemini", { apiKey: "k" })
    ],
    budgets
  })

/** A database, and budgets over it that can be started again and again. */
const withDatabase = <A, E>(
  budgets: NonNullable<SettingsOptions["budgets"]>,
  body: (start: Effect.Effect<Process>) => Effect.Effect<A, E, SqlClient.SqlClient | Events>
) =>
  Effect.gen(function* () {
    const settings = Settings.layer(settingsOf(budgets))
    const database = yield* Layer.build(Layer.provideMerge(Events.layer, Layer.orDie(Sql.layerMemory)))
    const start = Effect.gen(function* () {
      const scope = yield* Scope.make()
      const context = yield* Layer.build(
        Budgets.layerWithStore.pipe(
          Layer.provideMerge(BudgetStore.layer),
          Layer.provide([settings, Layer.succeedContext(database)])
        )
      ).pipe(Scope.extend(scope))
      const service = yield* Effect.provide(Budgets, context)
      const store = yield* Effect.provide(BudgetStore, context)
      return { budgets: service, store, stop: Scope.close(scope, Exit.void) }
    })
    return yield* Effect.provide(body(start), database)
  }).pipe(Effect.scoped)

interface Process {
  readonly budgets: Budgets["Type"]
  readonly store: BudgetStore["Type"]
  readonly stop: Effect.Effect<void>
}

const reserve = ({ budgets, store }: Process, tenant: TenantId, platform: PlatformId, bound: Amount) =>
  Effect.gen(function* () {
    const taken = yield* budgets.reserve({ tenant }, { platform, amount: bound })
    if (Option.isNone(taken)) return Option.none()
    yield* store.book(taken.value.booking)
    return Option.some({
      settle: (used: Amount) => Effect.flatMap(taken.value.settle(used), store.book),
      abandon: taken.value.settle(bound)
    })
  })

describe("Budgets", () => {
  it.effect("reserves what may be used, settles what was, and turns away what does not fit", () =>
    withDatabase({ platforms: { codex: { usdPerDay: 1 } } }, (start) =>
      Effect.gen(function* () {
        const process = yield* start
        const first = yield* reserve(process, alice, codex, amount(0.6, 100))
        assert.isTrue(Option.isNone(yield* reserve(process, alice, codex, amount(0.6, 100))))
        assert.isTrue(Option.isSome(yield* reserve(process, alice, gemini, amount(5, 100))))
        const held = yield* process.budgets.outlook({ tenant: alice }, [{ platform: codex, amount: amount(0.6, 1) }])
        assert.deepStrictEqual(
          held.unaffordable.map(({ kind }) => kind),
          ["reserved"]
        )
        if (Option.isSome(first)) yield* first.value.settle(amount(0.1, 20))
        assert.isTrue(Option.isSome(yield* reserve(process, alice, codex, amount(0.6, 100))))
        const { platforms } = yield* process.budgets.view(alice)
        assert.deepStrictEqual(platforms[0], {
          platform: codex,
          usd: { limit: 1, spent: 0.1, reserved: 0.6 },
          tokens: { spent: 20, reserved: 100 }
        })
      })
    )
  )

  it.effect("says what never fits, what fits on another day, and what has no price", () =>
    withDatabase({ perKey: { usdPerDay: 1, tokensPerDay: 1_000 } }, (start) =>
      Effect.gen(function* () {
        yield* TestClock.setTime(dayMs + 3_600_000)
        const process = yield* start
        const why = (tenant: TenantId, bound: Amount) =>
          Effect.map(process.budgets.outlook({ tenant }, [{ platform: codex, amount: bound }]), ({ unaffordable }) =>
            unaffordable.map(({ kind, reason }) => [kind, reason.reason, reason.earliestAt])
          )
        assert.deepStrictEqual(yield* why(alice, amount(2, 1)), [
          ["never", "the call may use 2 USD, more than the API key's budget of the day of 1 USD", undefined]
        ])
        assert.deepStrictEqual(yield* why(alice, { nanoUsd: undefined, tokens: 1 }), [
          [
            "never",
            "the model has no price in the settings, and the API key's budget of the day is limited in USD",
            undefined
          ]
        ])
        const taken = yield* reserve(process, alice, codex, amount(0.5, 800))
        if (Option.isSome(taken)) yield* taken.value.settle(amount(0.5, 800))
        assert.deepStrictEqual(yield* why(alice, amount(0.1, 300)), [
          [
            "spent",
            "of the API key's budget of the day of 1,000 tokens, 800 tokens are used, and the call may use 300 tokens",
            2 * dayMs
          ]
        ])
        assert.deepStrictEqual(yield* why(bob, amount(0.1, 300)), [])
        yield* TestClock.setTime(2 * dayMs)
        assert.deepStrictEqual(yield* why(alice, amount(0.1, 300)), [])
      })
    )
  )

  it.effect("gives the last of a budget to one of many who ask at once", () =>
    withDatabase({ platforms: { codex: { tokensPerDay: 350 } } }, (start) =>
      Effect.gen(function* () {
        const process = yield* start
        const taken = yield* Effect.all(
          Array.from({ length: 50 }, () => reserve(process, alice, codex, amount(0, 100))),
          { concurrency: "unbounded" }
        )
        assert.lengthOf(taken.filter(Option.isSome), 3)
      })
    )
  )

  it.effect("wakes those who wait for a settlement, also where it came first", () =>
    withDatabase({}, (start) =>
      Effect.gen(function* () {
        const process = yield* start
        const { settlements } = yield* process.budgets.outlook({ tenant: alice }, [])
        const waiting = yield* Effect.fork(process.budgets.settled(settlements))
        const taken = yield* reserve(process, alice, codex, amount(0, 1))
        if (Option.isSome(taken)) yield* taken.value.abandon
        yield* Fiber.join(waiting)
        yield* process.budgets.settled(settlements)
      })
    )
  )

  it.effect("counts an abandoned attempt whole, and what was under way at a crash", () =>
    withDatabase({ platforms: { codex: { tokensPerDay: 1_000 } } }, (start) =>
      Effect.gen(function* () {
        const first = yield* start
        const abandoned = yield* reserve(first, alice, codex, amount(0.25, 100))
        if (Option.isSome(abandoned)) yield* abandoned.value.abandon
        yield* reserve(first, alice, codex, amount(0.5, 300))
        yield* first.stop
        const second = yield* start
        const { key, platforms } = yield* second.budgets.view(alice)
        const spent = { usd: { spent: 0.75, reserved: 0 }, tokens: { spent: 400, reserved: 0 } }
        assert.deepStrictEqual(key, { tenant: alice, ...spent })
        assert.deepStrictEqual(platforms[0], {
          platform: codex,
          usd: spent.usd,
          tokens: { limit: 1_000, ...spent.tokens }
        })
      })
    )
  )

  it.effect("keeps the books of a day for 400 days", () =>
    withDatabase({}, (start) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const process = yield* start
        const days = Effect.map(sql<{ readonly day: string }>`SELECT DISTINCT day FROM spending ORDER BY day`, (rows) =>
          rows.map(({ day }) => day)
        )
        for (const day of [0, 200, 400, 401]) {
          yield* TestClock.setTime(day * dayMs)
          yield* reserve(process, alice, codex, amount(1, 1))
        }
        assert.deepStrictEqual(yield* days, ["1970-07-20", "1971-02-05", "1971-02-06"])
      })
    )
  )

  it.effect("tells once that a budget of the day leaves no room, and that a new day begins", () =>
    withDatabase({ perKey: { tokensPerDay: 100 }, platforms: { codex: { tokensPerDay: 100 } } }, (start) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const told = Effect.map(
          sql<{ readonly type: string; readonly tenant: string | null; readonly platform: string | null }>`
            SELECT type, tenant, platform FROM events ORDER BY id`,
          (rows) => rows.map(({ platform, tenant, type }) => `${type} ${tenant ?? platform}`)
        )
        const first = yield* start
        const taken = yield* reserve(first, alice, codex, amount(0, 90))
        if (Option.isSome(taken)) yield* taken.value.settle(amount(0, 90))
        const ask = ({ budgets }: Process) =>
          budgets.outlook({ tenant: alice }, [{ platform: codex, amount: amount(0, 20) }])
        yield* ask(first)
        yield* ask(first)
        yield* first.stop
        const second = yield* start
        yield* ask(second)
        assert.deepStrictEqual(yield* told, ["budget.exhausted alice", "budget.exhausted codex"])
        yield* TestClock.adjust("1 day")
        yield* ask(second)
        assert.sameMembers((yield* told).slice(2), ["budget.reset alice", "budget.reset codex"])
      })
    )
  )

  it.effect("has a task spend the budgets of those it was made for, and of its job", () =>
    withDatabase({}, (start) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const ids = [1, 2, 3].map((n) => TaskId.make(`0193549e-7000-7000-8000-00000000000${n}`))
        const [root, child, leaf] = ids
        if (root === undefined || child === undefined || leaf === undefined) return assert.fail("no ids")
        yield* sql`INSERT INTO classes (candidates, priority) VALUES ('codex', 0)`
        const insert = (id: TaskId, parent: TaskId | null, maxTokens: number | null) => sql`
          INSERT INTO tasks (id, tenant, class_id, type, priority, state, preview, submission, request, deadline,
            allowed_ms, created_at, updated_at, parent_id, max_tokens)
          VALUES (${id}, 'alice', 1, 'analysis', 0, 'queued', '', '{}', '{}', 0, 0, 0, 0, ${parent}, ${maxTokens})`
        yield* insert(root, null, 1_000)
        yield* insert(child, root, null)
        yield* insert(leaf, child, 500)
        const { budgets, store } = yield* start
        const scope = yield* Scope.make()
        const held = yield* Scope.extend(budgets.hold(leaf, undefined), scope)
        assert.deepStrictEqual(held.parents, [child, root])
        const payer = { tenant: alice, held }
        const fits = (tokens: number, from = payer) =>
          Effect.map(budgets.outlook(from, [{ platform: codex, amount: amount(0, tokens) }]), ({ unaffordable }) =>
            unaffordable.map(({ isOwn, kind }) => `${kind} ${isOwn}`)
          )
        assert.deepStrictEqual(yield* fits(600), ["never true"])
        const taken = yield* budgets.reserve(payer, { platform: codex, amount: amount(0, 400) })
        if (Option.isNone(taken)) return assert.fail("it does not fit")
        yield* store.book(taken.value.booking)
        assert.deepStrictEqual(yield* fits(200), ["reserved true"])
        // another task of the same root sees what the first one holds
        const other = yield* Scope.extend(budgets.hold(child, undefined), scope)
        assert.deepStrictEqual(yield* fits(700, { tenant: alice, held: other }), ["reserved true"])
        yield* Effect.flatMap(taken.value.settle(amount(0, 350)), store.book)
        assert.deepStrictEqual(yield* fits(200), ["never true"])
        assert.deepStrictEqual(yield* fits(650, { tenant: alice, held: other }), [])
        yield* Scope.close(scope, Exit.void)
        // nobody holds it any more: what the store tells is the same
        const again = yield* budgets.hold(child, undefined)
        assert.deepStrictEqual(yield* fits(651, { tenant: alice, held: again }), ["never true"])
        assert.deepStrictEqual(yield* fits(650, { tenant: alice, held: again }), [])
      }).pipe(Effect.scoped)
    )
  )
})

// Random schedules

type Command =
  | { readonly _tag: "Reserve"; readonly tenant: TenantId; readonly platform: PlatformId; readonly tokens: number }
  /** Ends the n-th attempt under way with a part of its bound, which may be more than the whole. */
  | { readonly _tag: "Settle"; readonly nth: number; readonly part: number }
  | { readonly _tag: "Abandon"; readonly nth: number }
  | { readonly _tag: "Crash" }
  | { readonly _tag: "Clock"; readonly hours: number }

const command: FastCheck.Arbitrary<Command> = FastCheck.oneof(
  {
    weight: 6,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("Reserve" as const),
      tenant: FastCheck.constantFrom(alice, bob),
      platform: FastCheck.constantFrom(codex, gemini),
      tokens: FastCheck.integer({ min: 1, max: 400 })
    })
  },
  {
    weight: 4,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("Settle" as const),
      nth: FastCheck.nat(20),
      part: FastCheck.constantFrom(0, 0.1, 0.5, 1, 1.7)
    })
  },
  { weight: 1, arbitrary: FastCheck.record({ _tag: FastCheck.constant("Abandon" as const), nth: FastCheck.nat(20) }) },
  { weight: 1, arbitrary: FastCheck.constant<Command>({ _tag: "Crash" }) },
  {
    weight: 1,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("Clock" as const),
      hours: FastCheck.constantFrom(-72, -24, -1, 1, 6, 24, 100)
    })
  }
)

const limits: Readonly<Record<string, number>> = { codex: 1_000, gemini: 700, alice: 1_200, bob: 500 }

/** What one owner's day holds: what is spent, what is reserved, and by how much attempts exceeded their bounds. */
interface Books {
  spent: number
  reserved: number
  debt: number
}

const obey = (commands: ReadonlyArray<Command>) =>
  Effect.gen(function* () {
    const { jump, jumping } = yield* jumpingClock
    yield* TestClock.setTime(10 * dayMs)
    const daily = (name: string) => ({ tokensPerDay: limits[name], usdPerDay: (limits[name] ?? 0) / 1_000 })
    yield* withDatabase(
      {
        keys: { alice: daily("alice"), bob: daily("bob") },
        platforms: { codex: daily("codex"), gemini: daily("gemini") }
      },
      (start) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          let process = yield* start
          const model = new Map<string, Books>()
          const booksOf = (day: string, name: string): Books => {
            const key = `${day} ${name}`
            const books = model.get(key) ?? { spent: 0, reserved: 0, debt: 0 }
            model.set(key, books)
            return books
          }
          const today = Effect.map(Effect.clock, (clock) =>
            new Date(clock.unsafeCurrentTimeMillis()).toISOString().slice(0, 10)
          )
          interface UnderWay {
            readonly owners: ReadonlyArray<Books>
            readonly tokens: number
            readonly settle: (used: Amount) => Effect.Effect<void, unknown>
            readonly abandon: Effect.Effect<void>
          }
          let underWay: Array<UnderWay> = []
          const usdFor = (tokens: number): Amount => amount(tokens / 1_000, tokens)
          const end = (attempt: UnderWay, used: number): void => {
            for (const books of attempt.owners) {
              books.reserved -= attempt.tokens
              books.spent += used
              books.debt += Math.max(0, used - attempt.tokens)
            }
          }
          const taken = (nth: number): UnderWay | undefined =>
            underWay.splice(underWay.length === 0 ? 0 : nth % underWay.length, 1)[0]

          for (const command of commands) {
            switch (command._tag) {
              case "Reserve": {
                const { platform, tenant, tokens } = command
                const day = yield* today
                const owners = [booksOf(day, tenant), booksOf(day, platform)]
                const fits = [tenant, platform].every((name, index) => {
                  const { reserved = 0, spent = 0 } = owners[index] ?? {}
                  return spent + reserved + tokens <= (limits[name] ?? 0)
                })
                const reserved = yield* reserve(process, tenant, platform, usdFor(tokens))
                assert.strictEqual(Option.isSome(reserved), fits)
                if (Option.isNone(reserved)) break
                for (const books of owners) books.reserved += tokens
                underWay.push({ owners, tokens, ...reserved.value })
                break
              }
              case "Settle": {
                const attempt = taken(command.nth)
                if (attempt === undefined) break
                const used = Math.round(attempt.tokens * command.part)
                yield* attempt.settle(usdFor(used))
                end(attempt, used)
                break
              }
              case "Abandon": {
                const attempt = taken(command.nth)
                if (attempt === undefined) break
                yield* attempt.abandon
                end(attempt, attempt.tokens)
                break
              }
              case "Crash":
                yield* process.stop
                process = yield* start
                for (const attempt of underWay) end(attempt, attempt.tokens)
                underWay = []
                break
              case "Clock":
                jump(command.hours * 3_600_000)
            }
            for (const [key, { debt, reserved, spent }] of model) {
              const most = limits[key.slice("YYYY-MM-DD ".length)] ?? 0
              assert.isAtMost(spent + reserved, most + debt)
            }
          }
          for (const attempt of underWay) {
            yield* attempt.settle(usdFor(1))
            end(attempt, 1)
          }

          // What is told of today, and what is stored of every day, is what was used.
          const day = yield* today
          for (const tenant of [alice, bob]) {
            const { key, platforms } = yield* process.budgets.view(tenant)
            assert.strictEqual(key.tokens.spent, booksOf(day, tenant).spent)
            assert.strictEqual(key.tokens.reserved, 0)
            assert.strictEqual(key.usd.reserved, 0)
            for (const { platform, tokens, usd } of platforms) {
              assert.strictEqual(tokens.spent, booksOf(day, platform).spent)
              assert.strictEqual(tokens.reserved, 0)
              assert.strictEqual(usd.reserved, 0)
              assert.strictEqual(Math.round(usd.spent * 1_000), tokens.spent)
            }
          }
          const rows = yield* sql<{
            readonly day: string
            readonly name: string
            readonly nano_usd: number
            readonly tokens: number
          }>`SELECT day, name, nano_usd, tokens FROM spending`
          const stored = new Map(rows.map((row) => [`${row.day} ${row.name}`, row]))
          for (const [key, { spent }] of model) {
            assert.strictEqual(stored.get(key)?.tokens ?? 0, spent)
            assert.strictEqual(stored.get(key)?.nano_usd ?? 0, spent * 1_000_000)
          }
          yield* process.stop
        }).pipe(Effect.withClock(jumping))
    )
  }).pipe(Effect.provide(TestContext.TestContext))

describe("any schedule of attempts, failures, crashes and clocks", () => {
  it(
    "never spends and reserves more than a budget, but for what attempts use above their bounds",
    () =>
      FastCheck.assert(
        FastCheck.asyncProperty(FastCheck.array(command, { minLength: 10, maxLength: 80 }), (commands) =>
          Effect.runPromise(obey(commands))
        ),
        { numRuns: 20 }
      ),
    60_000
  )
})
