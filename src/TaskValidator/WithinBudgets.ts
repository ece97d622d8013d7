import { Effect } from "effect"
import type { Route } from "../AgentRouter.js"
import { boundOf } from "../Budgets/Amount.js"
import type { Budgets } from "../Budgets.js"
import { RateLimited, type ServiceUnavailable, TaskRefused } from "../Domain/ApiError.js"
import type { PlatformReason } from "../Domain/Failure.js"
import type { TenantId } from "../Domain/Task.js"
import type { PlatformSettings } from "../Settings.js"

const inWords = (reasons: ReadonlyArray<PlatformReason>): string =>
  reasons.map(({ platform, reason }) => `${platform}: ${reason}`).join("; ")

/** What the budgets leave of a route, and with what of it the task may start in time. */
interface Within {
  readonly route: Route
  readonly inTime: Route["candidates"]
}

/**
 * Refuses a task that no budget of a day can ever hold, or none before its deadline. Answers with its route without the
 * platforms where it never fits, and with those that it may start on in time.
 */
export const withinBudgets = (
  budgets: Budgets["Type"],
  platforms: ReadonlyArray<PlatformSettings>,
  task: {
    readonly tenant: TenantId
    readonly route: Route
    readonly tokens: { readonly input: number; readonly maxOutput: number }
    /** Epoch ms. */
    readonly deadline: number
    readonly now: number
  }
): Effect.Effect<Within, TaskRefused | RateLimited | ServiceUnavailable> =>
  Effect.suspend(() => {
    const { deadline, now, route, tenant, tokens } = task
    const prospects = route.candidates.flatMap(({ model, platform }) => {
      const settings = platforms.find(({ id }) => id === platform)
      return settings === undefined ? [] : [{ platform, amount: boundOf(settings, model, tokens) }]
    })
    return Effect.flatMap(
      budgets.outlook({ tenant }, prospects),
      ({ unaffordable }): Effect.Effect<Within, TaskRefused | RateLimited> => {
        if (unaffordable.length === 0) return Effect.succeed({ route, inTime: route.candidates })
        const never = unaffordable.filter(({ kind }) => kind === "never").map(({ reason }) => reason)
        const late = unaffordable
          .filter(({ kind, reason }) => kind === "spent" && (reason.earliestAt ?? 0) >= deadline)
          .map(({ reason }) => reason)
        const without = (reasons: ReadonlyArray<PlatformReason>) =>
          route.candidates.filter(({ platform }) => !reasons.some((reason) => reason.platform === platform))
        const reasons = [...late, ...never, ...route.excluded]
        const inTime = without([...late, ...never])
        if (inTime.length === 0 && late.length > 0) {
          return new RateLimited({
            message: `no budget leaves room for the task before its deadline: ${inWords(late)}`,
            reasons,
            retryAfterMs: Math.max(0, Math.min(...late.map(({ earliestAt = now }) => earliestAt)) - now)
          })
        }
        if (inTime.length === 0) {
          return new TaskRefused({
            message: `no budget can ever hold the task: ${inWords(never)}`,
            problems: [
              {
                field: "maxOutputTokens",
                problem: "with the longest answer it may have, the task may use more than the budgets of a day allow"
              }
            ],
            reasons
          })
        }
        return Effect.succeed({
          route: { ...route, candidates: without(never), excluded: [...route.excluded, ...never] },
          inTime
        })
      }
    )
  })
