import type { PlatformSettings } from "../Settings.js"
import type { ValidTask } from "../TaskValidator.js"

/** The results of earlier tasks get no more of a call than this, tokens. */
const maxRoom = 32_000

const tokenLimits = ({ limits }: PlatformSettings): ReadonlyArray<number> => [
  ...(limits.tokensPerMinute === undefined ? [] : [limits.tokensPerMinute]),
  ...(limits.windowTokens === undefined ? [] : [limits.windowTokens])
]

/** What the results of the tasks it waits for may add to a task's call, tokens, so that a platform can still serve it. */
export const roomOf = (
  { requirement, route }: Pick<ValidTask, "requirement" | "route">,
  platforms: ReadonlyArray<PlatformSettings>
): number => {
  const able = platforms.filter(({ id }) => route.candidates.some(({ platform }) => platform === id))
  // A program that brings its own platforms says nothing of their size.
  if (able.length === 0) return maxRoom
  const sizes = able.map((platform) => Math.min(platform.contextWindow, ...tokenLimits(platform)))
  return Math.max(0, Math.min(maxRoom, Math.max(...sizes) - requirement.contextTokens))
}
