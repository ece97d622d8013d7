import type { DelegationRequest, Journal } from "../../src/Delegation.js"
import { TenantId } from "../../src/Domain/Task.js"

/** A question of no special kind, with ten minutes' time from the start of TestClock. */
export const request = <E = never>(
  journal: Journal<E>,
  over: Partial<DelegationRequest<E>> = {}
): DelegationRequest<E> => ({
  call: { messages: [{ role: "user", content: "Why?" }], maxOutputTokens: 100 },
  requirement: { capabilities: [], contextTokens: 200 },
  type: "analysis",
  priority: "MEDIUM",
  tenant: TenantId.make("local"),
  deadline: 600_000,
  id: "task",
  attemptsMade: 0,
  attemptsSpent: 0,
  maxWaitMs: 600_000,
  journal,
  ...over
})
