import { Option } from "effect"
import type { Decision, PlatformReason } from "../Domain/Failure.js"
import type { PlatformId, RoutingPolicy } from "../Domain/Platform.js"
import type { PreviewCandidate, TaskType } from "../Domain/Task.js"
import type { Lease, Outlook } from "../ResourceManager.js"
import type { Contender } from "./Failover.js"

const weighingOf = ({ preferred, quality, suitability, weight }: Contender) => ({
  weight,
  suitability,
  quality,
  ...(preferred === true ? { preferred } : {})
})

/** Calls whose weights are alike take turns: a failed attempt's fewer contenders go on in the same ones. */
export const rotationOf = (type: TaskType, policy: RoutingPolicy, model: string | undefined): string =>
  `${type} ${policy} ${model ?? ""}`

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
    const { heldBack, model, platform } = contender
    const busy = lease.busy.find((reason) => reason.platform === platform)
    return {
      platform,
      model,
      ...weighingOf(contender),
      free: lease.free.includes(platform),
      ...(busy === undefined ? {} : { busy: heldBack ?? busy.reason })
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
    const { heldBack, model, platform, weight } = contender
    const standing = busy.find((reason) => reason.platform === platform)
    return {
      platform,
      model,
      ...weighingOf(contender),
      share: weight / weights,
      free: free.includes(platform),
      busy: standing === undefined || heldBack === undefined ? standing : { ...standing, reason: heldBack },
      maxCostUsd: Option.getOrUndefined(maxCostOf(platform, model))
    }
  })
}
