import { Context, type Effect } from "effect"
import type { Call, Completion } from "./Domain/Call.js"
import type {
  AttemptFailure,
  AttemptsExhausted,
  CallRefused,
  DeadlineExceeded,
  LeaseUnavailable,
  NoCapablePlatform
} from "./Domain/Failure.js"
import type { Requirement } from "./Domain/Lease.js"
import type { PlatformId } from "./Domain/Platform.js"
import type { Decision, Priority, TaskType, TenantId } from "./Domain/Task.js"
import type { Usage } from "./Domain/Usage.js"

export interface AttemptStarted {
  readonly number: number
  readonly platform: PlatformId
  readonly model: string
  readonly decision: Decision
}

export interface AttemptEnded {
  readonly number: number
  readonly platform: PlatformId
  readonly model: string
  readonly durationMs: number
  readonly timeToFirstTokenMs?: number | undefined
  readonly result:
    | { readonly _tag: "Succeeded"; readonly usage: Usage; readonly costUsd?: number | undefined }
    | { readonly _tag: "Failed"; readonly failure: AttemptFailure }
    | { readonly _tag: "Ignored" }
}

/** Where a delegation writes down each step before it goes on; its errors end the delegation. */
export interface Journal<E> {
  readonly attemptStarted: (attempt: AttemptStarted) => Effect.Effect<void, E>
  readonly attemptEnded: (attempt: AttemptEnded) => Effect.Effect<void, E>
}

export interface DelegationRequest<E> {
  readonly call: Call
  readonly requirement: Requirement
  readonly type: TaskType
  readonly priority: Priority
  readonly tenant: TenantId
  /** Epoch ms. */
  readonly deadline: number
  /** Attempts already made by earlier owners; the first one here gets the next number. */
  readonly attemptsMade: number
  /** Of the attempts already made, those that count against the budget. */
  readonly attemptsSpent: number
  /** How long to wait for one lease before `LeaseUnavailable`, ms (the deadline bounds it too). */
  readonly maxWaitMs: number
  readonly journal: Journal<E>
}

export interface Delegated {
  readonly completion: Completion
  readonly platform: PlatformId
  readonly costUsd?: number | undefined
  readonly attempts: number
}

export type DelegationError = NoCapablePlatform | LeaseUnavailable | DeadlineExceeded | AttemptsExhausted | CallRefused

/** One call, one deadline, one attempt budget: lease, attempt, classify, then the next platform, a wait, or the end. */
export class Delegation extends Context.Tag("dream-team/Delegation")<
  Delegation,
  {
    readonly delegate: <E = never>(request: DelegationRequest<E>) => Effect.Effect<Delegated, DelegationError | E>
  }
>() {}
