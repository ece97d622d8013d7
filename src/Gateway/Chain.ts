import { Array as Arr, Option, Schema } from "effect"
import { knownBefore } from "../Delegation/Failover.js"
import type { DelegationError } from "../Delegation.js"
import { LeaseUnavailable, PlatformReason } from "../Domain/Failure.js"
import type { Target } from "./ModelName.js"

/** The call is longer than what any platform that could serve it holds. */
export class ContextTooLong extends Schema.TaggedError<ContextTooLong>()("ContextTooLong", {
  message: Schema.String,
  reasons: Schema.Array(PlatformReason)
}) {}

/** Why an alternative did not answer. */
export type Miss = DelegationError | ContextTooLong

/** One alternative of a chain that did not answer. */
export interface Missed {
  readonly target: Target
  readonly error: Miss
}

/**
 * Whether the next alternative may try. Not where the call itself is refused by its content, and not where its time is
 * over: neither would be better elsewhere.
 */
export const goesOn = (error: Miss): boolean => {
  switch (error._tag) {
    case "ContextTooLong":
    case "NoCapablePlatform":
    case "LeaseUnavailable":
    case "AttemptsExhausted":
    case "BudgetExhausted":
      return true
    case "CallRefused":
      return !(error.failure.scope === "request" && error.failure.reason !== "context")
    case "DeadlineExceeded":
      return false
  }
}

const reasonsOf = ({ error, target }: Missed): ReadonlyArray<PlatformReason> => {
  switch (error._tag) {
    case "ContextTooLong":
    case "NoCapablePlatform":
    case "LeaseUnavailable":
    case "BudgetExhausted": {
      const own = error.reasons.filter(({ platform }) => target.platform === undefined || platform === target.platform)
      return own.length > 0 ? own : error.reasons
    }
    case "CallRefused":
      return [{ platform: error.platform, reason: error.message }]
    case "AttemptsExhausted":
    case "DeadlineExceeded": {
      const last = error.trace.at(-1)?.platform ?? target.platform
      return last === undefined ? [] : [{ platform: last, reason: error.message, kind: "failure" }]
    }
  }
}

/** When it may start, epoch ms: 0 = at any moment, and nothing where that is not known. */
const backAt = ({ error }: Missed): number | undefined => {
  if (error._tag !== "LeaseUnavailable") return undefined
  const mayAnyMoment = error.reasons.some(({ earliestAt, kind }) => kind === "limit" && earliestAt === undefined)
  return mayAnyMoment ? 0 : error.earliestAt
}

/** The alternative that may start first, where one may before the deadline (epoch ms). */
export const firstBack = (missed: ReadonlyArray<Missed>, deadline: number): Option.Option<Target> => {
  let first: { readonly target: Target; readonly at: number } | undefined
  for (const one of missed) {
    const at = backAt(one)
    if (at !== undefined && at < (first?.at ?? deadline)) first = { target: one.target, at }
  }
  return Option.map(Option.fromNullable(first), ({ target }) => target)
}

/** What a chain fails with that nobody answered: with the reasons of all its alternatives where there are several. */
export const failureOf = (missed: Arr.NonEmptyReadonlyArray<Missed>, deadline: number): Miss => {
  const waiting = missed.flatMap(({ error }) => (error._tag === "LeaseUnavailable" ? [error] : []))
  if (waiting.length === 0) return Arr.lastNonEmpty(missed).error
  const reasons = missed.flatMap(reasonsOf)
  const instants = waiting.flatMap(({ earliestAt }) => earliestAt ?? [])
  return new LeaseUnavailable({
    message: `none of the alternatives can answer now: ${missed.map(({ error, target }) => `${target.link}: ${error.message}`).join("; ")}`,
    reasons,
    earliestAt: knownBefore(
      deadline,
      instants.length === 0 ? undefined : Math.min(...instants),
      instants.length < waiting.length
    )
  })
}
