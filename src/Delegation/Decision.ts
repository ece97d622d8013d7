import { Option } from "effect"
import type { Decision, PlatformReason } from "../Domain/Failure.js"
import type { PlatformId, RoutingPolicy } from "../Domain/Platform.js"
import type { PreviewCandidate } from "../Domain/Task.js"
import type { Lease, Outlook } from "../ResourceManager.js"
import type { Contender } from "./Failover.js"

const weighingOf = ({ preferred, quality, suitability, weight }: Contender) => ({
  weight,
  suitability,
  quality,
  ...(preferred === true ? { preferred } : {})
})

/** What is written down of the choice that gave a call its lease. */
export const decisionOf = (
  lease: Pick<Lease, "busy" | "free" | "platform" | "waitedMs">,
  choice: {
    readonly contenders: ReadonlyArray<Contender>
    readonly excluded: ReadonlyArray<PlatformReason>
    readonly policy: RoutingPolicy
    readonly isHedge: boolean
  }
): Decision => ({
  candidates: choice.contenders.map((contender) => {
    const { model, platform } = contender
    const busy = lease.busy.find((reason) => reason.platform === platform)
    return {
      platform,
      model,
      ...weighingOf(contender),
      free: lease.free.includes(platform),
      ...(busy === undefined ? {} : { busy: busy.reason })
    }
  }),
  excluded: choice.excluded,
  chosen: lease.platform,
  policy: choice.policy,
  ...(choice.isHedge ? { hedge: true } : {}),
  waitedMs: lease.waitedMs
})

/** The candidates of a call that nobody has made yet. */
export const candidatesOf = (
  contenders: ReadonlyArray<Contender>,
  { busy, free }: Outlook,
  maxCostOf: (platform: PlatformId, model: string) => Option.Option<number>
): ReadonlyArray<PreviewCandidate> => {
  const weights = contenders.reduce((sum, { weight }) => sum + weight, 0)
  return contenders.map((contender) => {
    const { model, platform, weight } = contender
    return {
      platform,
      model,
      ...weighingOf(contender),
      share: weight / weights,
      free: free.includes(platform),
      busy: busy.find((reason) => reason.platform === platform),
      maxCostUsd: Option.getOrUndefined(maxCostOf(platform, model))
    }
  })
}
