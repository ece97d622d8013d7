import { Effect, Option } from "effect"
import { boundOf } from "../Budgets/Amount.js"
import type { Budgets, Held, Payer, Unaffordable } from "../Budgets.js"
import type { ServiceUnavailable } from "../Domain/ApiError.js"
import type { Amount } from "../Domain/Budget.js"
import type { Call } from "../Domain/Call.js"
import { BudgetExhausted, type FailureView, LeaseUnavailable, type TraceEntry } from "../Domain/Failure.js"
import type { Candidate } from "../Domain/Lease.js"
import type { TenantId } from "../Domain/Task.js"
import { monotonicMs } from "../Domain/Time.js"
import type { Platforms } from "../Platforms.js"
import { type Contender, earliestOf, type Failover, knownBefore } from "./Failover.js"

/** A call whose attempts are to be paid for. */
export interface Paid {
  readonly call: Call
  readonly tenant: TenantId
  readonly held?: Held | undefined
}

export interface Affordable {
  readonly affordable: ReadonlyArray<Contender>
  readonly unaffordable: ReadonlyArray<Unaffordable>
  readonly settlements: number
}

export const payerOf = ({ held, tenant }: Paid): Payer => ({ held, tenant })

/** Without the budgets nobody knows what may be spent, so nothing is. */
export const budgetsUnknown = ({ message }: ServiceUnavailable) => new LeaseUnavailable({ message, reasons: [] })

/** Which contenders the budgets leave room for. */
export interface WithinBudgets {
  /** What the call may use at most on a platform. */
  readonly boundOn: (call: Call, inputTokens: number, contender: Pick<Candidate, "model" | "platform">) => Amount
  readonly now: (
    paid: Paid,
    contenders: ReadonlyArray<Contender>,
    inputTokens: number
  ) => Effect.Effect<Affordable, ServiceUnavailable>
  /** Where attempts under way hold what all of them need, waits for those, until then at most (monotonic, ms). */
  readonly until: (
    until: number,
    paid: Paid,
    contenders: ReadonlyArray<Contender>,
    inputTokens: number
  ) => Effect.Effect<Affordable, LeaseUnavailable>
}

export const make = (
  budgets: Budgets["Type"],
  platforms: Platforms["Type"],
  defaults: { readonly maxOutputTokens: number }
): WithinBudgets => {
  const boundOn: WithinBudgets["boundOn"] = ({ maxOutputTokens = defaults.maxOutputTokens }, inputTokens, contender) =>
    Option.match(platforms.get(contender.platform), {
      // whoever serves a call is a platform of ours; for another one nothing would be known
      onNone: () => ({ nanoUsd: undefined, tokens: Number.POSITIVE_INFINITY }),
      onSome: ({ settings }) => boundOf(settings, contender.model, { input: inputTokens, maxOutput: maxOutputTokens })
    })

  const now: WithinBudgets["now"] = (paid, contenders, inputTokens) => {
    const prospects = contenders.map((contender) => ({
      platform: contender.platform,
      amount: boundOn(paid.call, inputTokens, contender)
    }))
    return Effect.map(budgets.outlook(payerOf(paid), prospects), ({ affordable, ...outlook }) => ({
      ...outlook,
      affordable: contenders.filter(({ platform }) => affordable.includes(platform))
    }))
  }

  return {
    boundOn,
    now,
    until: (until, paid, contenders, inputTokens) => {
      const look: Effect.Effect<Affordable, ServiceUnavailable> = Effect.flatMap(
        now(paid, contenders, inputTokens),
        (outlook) => {
          const maySettle =
            outlook.affordable.length === 0 && outlook.unaffordable.some(({ kind }) => kind === "reserved")
          return maySettle
            ? Effect.flatMap(monotonicMs, (at) =>
                at >= until
                  ? Effect.succeed(outlook)
                  : Effect.zipRight(Effect.timeoutOption(budgets.settled(outlook.settlements), until - at), look)
              )
            : Effect.succeed(outlook)
        }
      )
      return Effect.mapError(look, budgetsUnknown)
    }
  }
}

/** The budgets leave no room for the call on any of the platforms that could serve it. */
export const beyondBudgets = (
  unaffordable: ReadonlyArray<Unaffordable>,
  state: Failover,
  deadline: number,
  so: { readonly attempts: number; readonly last: FailureView | undefined; readonly trace: ReadonlyArray<TraceEntry> }
): LeaseUnavailable | BudgetExhausted => {
  const reasons = [...unaffordable.map(({ reason }) => reason), ...state.excluded]
  const message = `the budgets leave no room for this call: ${reasons.map(({ platform, reason }) => `${platform}: ${reason}`).join("; ")}`
  const maySettle = unaffordable.some(({ kind }) => kind === "reserved")
  const othersMayCome = state.mayRecover && !unaffordable.every(({ isOwn }) => isOwn)
  return maySettle || othersMayCome || unaffordable.some(({ kind }) => kind === "spent")
    ? new LeaseUnavailable({
        message,
        reasons,
        // attempts under way may end at any moment
        earliestAt: maySettle ? undefined : knownBefore(deadline, earliestOf(reasons), state.mayRecoverUnannounced)
      })
    : new BudgetExhausted({ message, reasons, ...so })
}
