import type { SqlClient } from "@effect/sql/SqlClient"
import { Clock, Context, Deferred, Effect, FiberId, Layer, type Option, type Scope } from "effect"
import * as Account from "./Budgets/Account.js"
import { differenceOf } from "./Budgets/Amount.js"
import { BudgetStore, type DailyOwner, type OwnBudget, type Purse } from "./Budgets/BudgetStore.js"
import { dayOf, nextDayAt } from "./Budgets/Day.js"
import type { ServiceUnavailable } from "./Domain/ApiError.js"
import { type Amount, type Booking, type BudgetsView, limitOf, usdOf } from "./Domain/Budget.js"
import type { PlatformReason } from "./Domain/Failure.js"
import type { PlatformId } from "./Domain/Platform.js"
import type { JobId, TaskId, TenantId } from "./Domain/Task.js"
import { monotonicMs, monotonicMsOf } from "./Domain/Time.js"
import type { Events } from "./Events.js"
import { type DailyBudget, Settings } from "./Settings.js"
import type { SqlWriter } from "./Sql/Writer.js"

export { BudgetStore } from "./Budgets/BudgetStore.js"

/** The budgets of a task and of its job, held in memory as long as the scope they were taken in. */
export interface Held {
  readonly accounts: ReadonlyArray<Account.Account>
  readonly parents: ReadonlyArray<TaskId>
  readonly job: JobId | undefined
}

/** Whose budgets an attempt uses, beside its platform's. */
export interface Payer {
  readonly tenant: TenantId
  /** Absent where it is no task's. */
  readonly held?: Held | undefined
}

/** An attempt that might be made. */
export interface Prospect {
  readonly platform: PlatformId
  /** What it may use at most. */
  readonly amount: Amount
}

/** Why an attempt cannot be made. */
export interface Unaffordable {
  readonly platform: PlatformId
  /** `never`: not with these budgets; `spent`: not on this day; `reserved`: not before attempts under way have ended. */
  readonly kind: Account.Obstacle["kind"]
  /** Whether the budget of the task or of its job stands in the way. */
  readonly isOwn: boolean
  readonly reason: PlatformReason
}

/** Who may take a call within the budgets it uses. */
export interface Affordability {
  readonly affordable: ReadonlyArray<PlatformId>
  readonly unaffordable: ReadonlyArray<Unaffordable>
  /** For `settled`: how many reservations had been settled. */
  readonly settlements: number
}

/** What one attempt may use at most, taken from every budget it uses. */
export interface Reservation {
  /** To be stored with the attempt's start. */
  readonly booking: Booking
  /**
   * The attempt has used this. Answers with what is to be stored with its end; settled once, later calls change nothing.
   */
  readonly settle: (used: Amount) => Effect.Effect<Booking>
}

/** Days that nobody has asked for that long (ms) are read from the store again. */
const forgottenAfterMs = 48 * 3_600_000

interface Daily {
  readonly owner: DailyOwner
  readonly account: Account.Account
  /** Whether it was told that it leaves no room. */
  isExhausted: boolean
}

/** The books of one day. */
interface Day {
  readonly day: string
  readonly dailies: Map<string, Daily>
  /** Monotonic, ms. */
  usedAt: number
}

const limitOfDay = (budget: DailyBudget | undefined): Account.Limit => ({
  nanoUsd: budget?.usdPerDay === undefined ? undefined : limitOf(budget.usdPerDay),
  tokens: budget?.tokensPerDay
})

const keyOf = ({ kind, name }: DailyOwner): string => `${kind} ${name}`

/**
 * Who may still spend: a task, its job, an API key on one UTC day, a platform on one UTC day; each in USD, in tokens, in
 * both, or without a limit. What an attempt may use at most is reserved before it is made and settled with what it used:
 * what is spent and what is reserved are together never above a limit, but for what an attempt used above its bound.
 */
export class Budgets extends Context.Tag("dream-team/Budgets")<
  Budgets,
  {
    /**
     * The budgets of a task and of its job. Hold them until what was spent is stored: they are read from the store when
     * nobody holds them.
     */
    readonly hold: (task: TaskId, job: JobId | undefined) => Effect.Effect<Held, ServiceUnavailable, Scope.Scope>
    /** Which of these attempts could be made now. Takes nothing. */
    readonly outlook: (
      payer: Payer,
      prospects: ReadonlyArray<Prospect>
    ) => Effect.Effect<Affordability, ServiceUnavailable>
    /**
     * Reserves what an attempt may use, or nothing where it cannot be made now: one step, however many ask. Whoever asks
     * has to settle it, and so asks where nothing interrupts; what nobody knows the use of counts as used.
     */
    readonly reserve: (
      payer: Payer,
      prospect: Prospect
    ) => Effect.Effect<Option.Option<Reservation>, ServiceUnavailable>
    /** Waits until there have been more settlements. */
    readonly settled: (settlements: number) => Effect.Effect<void>
    /** Stores a booking of an attempt that no store of tasks keeps. */
    readonly book: (booking: Booking) => Effect.Effect<void, ServiceUnavailable>
    /** The budgets of the day: of every platform, and of the one API key. */
    readonly view: (tenant: TenantId) => Effect.Effect<BudgetsView, ServiceUnavailable>
  }
>() {
  static readonly layerWithStore: Layer.Layer<Budgets, never, BudgetStore | Settings> = Layer.scoped(
    Budgets,
    Effect.suspend(() => make)
  )

  /** What is spent is forgotten with the process; tasks and jobs have no budgets. */
  static readonly layer: Layer.Layer<Budgets, never, Settings> = Budgets.layerWithStore.pipe(
    Layer.provide(BudgetStore.layerMemory)
  )

  /** What is spent outlives the process. */
  static readonly layerStored: Layer.Layer<Budgets, never, Events | Settings | SqlClient | SqlWriter> =
    Budgets.layerWithStore.pipe(Layer.provide(BudgetStore.layer))
}

const make = Effect.gen(function* () {
  const store = yield* BudgetStore
  const { budgets, platforms } = yield* Settings
  const scope = yield* Effect.scope

  const limitOfOwner = ({ kind, name }: DailyOwner): Account.Limit =>
    limitOfDay(
      kind === "platform"
        ? Object.hasOwn(budgets.platforms, name)
          ? budgets.platforms[name]
          : undefined
        : { ...budgets.perKey, ...(Object.hasOwn(budgets.keys, name) ? budgets.keys[name] : undefined) }
    )

  const inWords = ({ kind }: DailyOwner): string =>
    kind === "platform" ? "its budget of the day" : "the API key's budget of the day"

  // The books of days

  const days = new Map<string, Day>()
  const loading = new Map<string, Deferred.Deferred<void, ServiceUnavailable>>()

  const dailyOf = (day: Day, owner: DailyOwner, spent: Account.Totals = { nanoUsd: 0, tokens: 0 }): Daily => {
    const key = keyOf(owner)
    const known = day.dailies.get(key)
    if (known !== undefined) return known
    const daily: Daily = {
      owner,
      account: Account.make(inWords(owner), limitOfOwner(owner), spent),
      isExhausted: false
    }
    day.dailies.set(key, daily)
    return daily
  }

  /** Whatever was spent on days that nobody has used for so long is stored by now. */
  const forget = (now: number): void => {
    for (const [name, { dailies, usedAt }] of days) {
      const isQuiet = [...dailies.values()].every(({ account }) => {
        const { nanoUsd, tokens } = account.reserved()
        return nanoUsd === 0 && tokens === 0
      })
      if (isQuiet && now - usedAt > forgottenAfterMs) days.delete(name)
    }
  }

  const load = (name: string): Effect.Effect<void, ServiceUnavailable> =>
    Effect.suspend(() => {
      const others = loading.get(name)
      if (others !== undefined) return Deferred.await(others)
      const done = Deferred.unsafeMake<void, ServiceUnavailable>(FiberId.none)
      loading.set(name, done)
      const read = Effect.gen(function* () {
        const stored = yield* store.begin(name)
        const usedAt = yield* monotonicMs
        forget(usedAt)
        const day: Day = { day: name, dailies: new Map(), usedAt }
        for (const { isExhausted, owner, spent } of stored) dailyOf(day, owner, spent).isExhausted = isExhausted
        // another day's budgets are told to be whole again, should that day come back
        for (const other of days.values()) for (const daily of other.dailies.values()) daily.isExhausted = false
        days.set(name, day)
      }).pipe(Effect.ensuring(Effect.sync(() => loading.delete(name))))
      // whoever asked first may go away; the others still wait for it
      return Effect.zipRight(Effect.forkIn(Effect.intoDeferred(read, done), scope), Deferred.await(done))
    })

  /** Runs one step on the books of the day it is; nothing happens between the look at the clock and the step. */
  const today = <A>(
    step: (day: Day, now: number) => Effect.Effect<A>,
    read: typeof load = load
  ): Effect.Effect<A, ServiceUnavailable> =>
    Effect.withFiberRuntime<A, ServiceUnavailable>((fiber) => {
      const clock = Context.get(fiber.currentDefaultServices, Clock.Clock)
      const now = clock.unsafeCurrentTimeMillis()
      const day = days.get(dayOf(now))
      if (day === undefined) return Effect.zipRight(read(dayOf(now)), today(step, read))
      day.usedAt = monotonicMsOf(clock)
      return step(day, now)
    })

  // The budgets of tasks and jobs

  interface Shared {
    holders: number
    account: Account.Account | undefined
  }
  const shared = new Map<string, Shared>()

  /** One budget, read from the store where nobody holds it. */
  const holdOne = (budget: OwnBudget) =>
    Effect.gen(function* () {
      const key = `${budget.kind} ${budget.id}`
      // Held before it is read: what is read stays true, because from now on nobody lets go of what is spent meanwhile.
      const entry = yield* Effect.acquireRelease(
        Effect.sync(() => {
          const entry = shared.get(key) ?? { holders: 0, account: undefined }
          entry.holders += 1
          shared.set(key, entry)
          return entry
        }),
        (entry) =>
          Effect.sync(() => {
            entry.holders -= 1
            if (entry.holders === 0) shared.delete(key)
          })
      )
      if (entry.account !== undefined) return entry.account
      const spent = yield* store.spent(budget)
      const account = entry.account ?? Account.make(`the ${budget.kind}'s budget`, budget.limit, spent)
      entry.account = account
      return account
    })

  const hold = Effect.fn("Budgets.hold")(function* (task: TaskId, job: JobId | undefined) {
    const purse: Purse = yield* store.purse(task, job)
    const accounts = yield* Effect.forEach(purse.budgets, holdOne)
    return { accounts, parents: purse.parents, job: purse.job }
  })

  // Attempts

  const dailiesOf = (day: Day, { tenant }: Payer, platform: PlatformId): readonly [Daily, Daily] => [
    dailyOf(day, { kind: "key", name: tenant }),
    dailyOf(day, { kind: "platform", name: platform })
  ]

  /** What stands in an attempt's way, and the budgets of the day that leave it no room. */
  interface Judged {
    readonly unaffordable: Unaffordable | undefined
    readonly exhausts: ReadonlyArray<{ readonly daily: Daily; readonly why: string }>
  }
  const affordable: Judged = { unaffordable: undefined, exhausts: [] }

  /** Why an attempt cannot be made. */
  const judge = (
    own: ReadonlyArray<Account.Account>,
    dailies: readonly [Daily, Daily],
    now: number,
    { amount, platform }: Prospect
  ): Judged => {
    let worst: { readonly kind: Account.Obstacle["kind"]; readonly isOwn: boolean; readonly why: string } | undefined
    for (const account of own) {
      const obstacle = account.obstacle(amount)
      if (obstacle === undefined) continue
      // what a task or a job has spent does not come back
      const kind = obstacle.kind === "spent" ? "never" : obstacle.kind
      worst = Account.graver(worst, { kind, isOwn: true, why: obstacle.why })
    }
    const exhausts: Array<{ readonly daily: Daily; readonly why: string }> = []
    for (const daily of dailies) {
      const obstacle = daily.account.obstacle(amount)
      if (obstacle === undefined) continue
      if (obstacle.kind === "spent") exhausts.push({ daily, why: obstacle.why })
      worst = Account.graver(worst, { ...obstacle, isOwn: false })
    }
    if (worst === undefined) return affordable
    const { isOwn, kind, why } = worst
    return {
      unaffordable: {
        platform,
        kind,
        isOwn,
        reason: {
          platform,
          reason: why,
          kind: "budget",
          ...(kind === "spent" ? { earliestAt: nextDayAt(now) } : {})
        }
      },
      exhausts
    }
  }

  const ownOf = ({ held }: Payer): ReadonlyArray<Account.Account> => held?.accounts ?? none
  const none: ReadonlyArray<never> = []

  const outlook = (payer: Payer, prospects: ReadonlyArray<Prospect>) =>
    today((day, now) => {
      const affordable: Array<PlatformId> = []
      const unaffordable: Array<Unaffordable> = []
      const news: Array<{ readonly daily: Daily; readonly why: string }> = []
      for (const prospect of prospects) {
        const judged = judge(ownOf(payer), dailiesOf(day, payer, prospect.platform), now, prospect)
        if (judged.unaffordable === undefined) affordable.push(prospect.platform)
        else unaffordable.push(judged.unaffordable)
        for (const exhausted of judged.exhausts) {
          if (!exhausted.daily.isExhausted) news.push(exhausted)
          exhausted.daily.isExhausted = true
        }
      }
      const seen: Affordability = { affordable, unaffordable, settlements }
      if (news.length === 0) return Effect.succeed(seen)
      const until = nextDayAt(now)
      return Effect.as(
        Effect.forEach(
          news,
          ({ daily, why }) => Effect.ignoreLogged(store.exhausted(day.day, daily.owner, { until, why })),
          { discard: true }
        ),
        seen
      )
    })

  let settlements = 0
  const waiting = new Set<() => void>()

  const loadInterruptibly = (day: string) => Effect.interruptible(load(day))

  const reserve = (payer: Payer, prospect: Prospect) =>
    today<Option.Option<Reservation>>((day, now) => {
      const { amount, platform } = prospect
      const own = ownOf(payer)
      const dailies = dailiesOf(day, payer, platform)
      if (judge(own, dailies, now, prospect).unaffordable !== undefined) return Effect.succeedNone
      const accounts = [...own, dailies[0].account, dailies[1].account]
      for (const account of accounts) account.reserve(amount)
      const booking: Booking = {
        day: day.day,
        tenant: payer.tenant,
        platform,
        parents: payer.held?.parents ?? none,
        job: payer.held?.job,
        amount
      }
      let settledWith: Amount | undefined
      const settle = (used: Amount): Booking => {
        if (settledWith === undefined) {
          settledWith = used
          for (const account of accounts) account.settle(amount, used)
          settlements += 1
          const woken = [...waiting]
          waiting.clear()
          for (const resume of woken) resume()
        }
        return { ...booking, amount: differenceOf(settledWith, amount) }
      }
      return Effect.succeedSome({ booking, settle: (used) => Effect.sync(() => settle(used)) })
    }, loadInterruptibly)

  const settled = (seen: number) =>
    Effect.async<void>((resume) => {
      if (settlements !== seen) {
        resume(Effect.void)
        return
      }
      const wake = () => resume(Effect.void)
      waiting.add(wake)
      return Effect.sync(() => waiting.delete(wake))
    })

  const figuresOf = ({ limit, reserved, spent }: Account.Account) => ({
    usd: {
      ...(limit.nanoUsd === undefined ? {} : { limit: usdOf(limit.nanoUsd) }),
      spent: usdOf(spent().nanoUsd),
      reserved: usdOf(reserved().nanoUsd)
    },
    tokens: {
      ...(limit.tokens === undefined ? {} : { limit: limit.tokens }),
      spent: spent().tokens,
      reserved: reserved().tokens
    }
  })

  return Budgets.of({
    hold,
    outlook,
    reserve,
    settled,
    book: store.book,
    view: (tenant) =>
      today((day, now) =>
        Effect.succeed({
          day: day.day,
          resetsAt: nextDayAt(now),
          key: { tenant, ...figuresOf(dailyOf(day, { kind: "key", name: tenant }).account) },
          platforms: platforms.map(({ id }) => ({
            platform: id,
            ...figuresOf(dailyOf(day, { kind: "platform", name: id }).account)
          }))
        })
      )
  })
})
