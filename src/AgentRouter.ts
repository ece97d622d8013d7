import { Context, type Effect } from "effect"
import type { NoCapablePlatform, PlatformReason } from "./Domain/Failure.js"
import type { Candidate, Requirement } from "./Domain/Lease.js"
import type { TaskType } from "./Domain/Task.js"

export interface Route {
  /** Best first; never empty. */
  readonly candidates: ReadonlyArray<Candidate>
  readonly excluded: ReadonlyArray<PlatformReason>
}

/** Who suits best: filters by what a call needs, then weighs by the type of task. Says nothing of who is free. */
export class AgentRouter extends Context.Tag("dream-team/AgentRouter")<
  AgentRouter,
  {
    readonly route: (requirement: Requirement, type: TaskType) => Effect.Effect<Route, NoCapablePlatform>
  }
>() {}
