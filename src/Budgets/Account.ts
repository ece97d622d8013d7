import { roundedUp } from "../AgentRouter/Requirement.js"
import { type Amount, usdOf } from "../Domain/Budget.js"
import { inUsd } from "../Domain/Usage.js"

/** What may be used; what is absent is not limited. */
export interface Limit {
  readonly nanoUsd?: number | undefined
  readonly tokens?: number | undefined
}

export interface Totals {
  readonly nanoUsd: number
  readonly tokens: number
}

/** What stands between an attempt and a budget: for ever, until the budget begins anew, or until others have ended. */
export interface Obstacle {
  readonly kind: "never" | "spent" | "reserved"
  readonly why: string
}

/** The books of one budget: what is spent, and what attempts under way may use at most. */
export interface Account {
  /** Whose it is, in words. */
  readonly owner: string
  readonly limit: Limit
  readonly spent: () => Totals
  readonly reserved: () => Totals
  /** Why an attempt that may use `amount` cannot be made now. */
  readonly obstacle: (amount: Amount) => Obstacle | undefined
  readonly reserve: (amount: Amount) => void
  /** An attempt that had reserved `bound` has ended and used `used`, more than it reserved if need be. */
  readonly settle: (bound: Amount, used: Amount) => void
}

const plus = (totals: Totals, { nanoUsd = 0, tokens }: Amount, sign: 1 | -1): Totals => ({
  nanoUsd: totals.nanoUsd + sign * nanoUsd,
  tokens: totals.tokens + sign * tokens
})

const units = ["nanoUsd", "tokens"] as const

const inWords = (unit: (typeof units)[number], amount: number): string => {
  if (unit === "tokens") return `${amount.toLocaleString("en-US")} tokens`
  return inUsd(amount <= 0 ? 0 : roundedUp(usdOf(amount)))
}

/** A limit as it was set: it is not rounded. */
const limitInWords = (unit: (typeof units)[number], limit: number): string =>
  unit === "tokens" ? inWords(unit, limit) : inUsd(usdOf(limit))

const rank = { never: 2, spent: 1, reserved: 0 }

/** The graver of two. */
export const graver = <A extends { readonly kind: Obstacle["kind"] }>(one: A | undefined, other: A | undefined) =>
  one === undefined || (other !== undefined && rank[other.kind] > rank[one.kind]) ? other : one

export const make = (owner: string, limit: Limit, before: Totals): Account => {
  let spent = before
  let reserved: Totals = { nanoUsd: 0, tokens: 0 }

  const obstacleIn = (unit: (typeof units)[number], amount: Amount): Obstacle | undefined => {
    const most = limit[unit]
    if (most === undefined) return undefined
    const needed = amount[unit]
    if (needed === undefined) {
      return {
        kind: "never",
        why: `the model has no price in the settings, and ${owner} is limited in USD`
      }
    }
    const used = spent[unit]
    const isSpent = used + needed > most
    // what follows is words, which nobody needs of an attempt that can be made
    if (needed <= most && !isSpent && used + reserved[unit] + needed <= most) return undefined
    const may = `the call may use ${inWords(unit, needed)}`
    if (needed > most) return { kind: "never", why: `${may}, more than ${owner} of ${limitInWords(unit, most)}` }
    const whole = `${owner} of ${limitInWords(unit, most)}`
    return isSpent
      ? { kind: "spent", why: `of ${whole}, ${inWords(unit, used)} are used, and ${may}` }
      : { kind: "reserved", why: `attempts under way hold what is left of ${whole}, and ${may}` }
  }

  return {
    owner,
    limit,
    spent: () => spent,
    reserved: () => reserved,
    obstacle: (amount) => {
      let worst: Obstacle | undefined
      for (const unit of units) worst = graver(worst, obstacleIn(unit, amount))
      return worst
    },
    reserve: (amount) => {
      reserved = plus(reserved, amount, 1)
    },
    settle: (bound, used) => {
      reserved = plus(reserved, bound, -1)
      spent = plus(spent, used, 1)
    }
  }
}
