import type { PlatformId } from "../Domain/Platform.js"

/** Keys remembered at most; beyond it, the one that was not used for the longest time is forgotten. */
const maxKeys = 10_000
/** How long a key is remembered without a call, ms. */
const maxAgeMs = 60 * 60_000
/** The latest calls with a key, by which it is judged whether a platform has too many of them. */
const lookBack = 256
/** A platform may have this many times its share of them, */
const excess = 1.25
/** and this many more. */
const allowance = 2

/** What a platform's weight is multiplied by for the calls it is preferred for. */
export const preference = 8

interface Weighted {
  readonly platform: PlatformId
  readonly weight: number
}

/** Which platform served the calls of a key. Instants are monotonic, ms. */
export interface Affinity {
  /**
   * The platform that a call with `key` should rather go to: the one the key's last call went to, unless keys have
   * brought it more calls already than is fair to the other candidates.
   */
  readonly preferred: (key: string, candidates: ReadonlyArray<Weighted>, now: number) => PlatformId | undefined
  /** A call with `key` goes to `platform`. */
  readonly chosen: (key: string, platform: PlatformId, now: number) => void
}

export const make = (): Affinity => {
  /** The one used last comes last. */
  const keys = new Map<string, { readonly platform: PlatformId; readonly at: number }>()
  const choices: Array<PlatformId> = []
  let next = 0
  const counts = new Map<PlatformId, number>()

  const count = (platform: PlatformId, by: number): void => {
    counts.set(platform, (counts.get(platform) ?? 0) + by)
  }

  return {
    preferred: (key, candidates, now) => {
      const last = keys.get(key)
      if (last === undefined || now - last.at > maxAgeMs) return undefined
      const own = candidates.find(({ platform }) => platform === last.platform)
      if (own === undefined) return undefined
      const share = own.weight / candidates.reduce((sum, { weight }) => sum + weight, 0)
      const fair = excess * share * choices.length + allowance
      return (counts.get(own.platform) ?? 0) < fair ? own.platform : undefined
    },
    chosen: (key, platform, now) => {
      keys.delete(key)
      keys.set(key, { platform, at: now })
      if (keys.size > maxKeys) {
        for (const unused of keys.keys()) {
          keys.delete(unused)
          break
        }
      }
      const dropped = choices[next]
      if (dropped !== undefined) count(dropped, -1)
      choices[next] = platform
      next = (next + 1) % lookBack
      count(platform, 1)
    }
  }
}
