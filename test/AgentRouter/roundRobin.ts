import type { PlatformId } from "../../src/Domain/Platform.js"

/** Smooth weighted round robin, as the dispatcher chooses among free platforms: the highest balance pays for all. */
export const make = () => {
  const balances = new Map<PlatformId, number>()
  return (weighted: ReadonlyArray<{ readonly platform: PlatformId; readonly weight: number }>): PlatformId => {
    let total = 0
    for (const { platform, weight } of weighted) {
      balances.set(platform, (balances.get(platform) ?? 0) + weight)
      total += weight
    }
    const [first, ...others] = weighted.map(({ platform }) => platform)
    if (first === undefined) throw new Error("there is nobody to choose")
    let chosen = first
    for (const platform of others) {
      if ((balances.get(platform) ?? 0) > (balances.get(chosen) ?? 0)) chosen = platform
    }
    balances.set(chosen, (balances.get(chosen) ?? 0) - total)
    return chosen
  }
}
