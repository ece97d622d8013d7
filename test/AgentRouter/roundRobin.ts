import { Array as Arr } from "effect"
import type { PlatformId } from "../../src/Domain/Platform.js"
import * as Turns from "../../src/ResourceManager/Turns.js"

/** Chooses by turns, as the dispatcher does where all are free. */
export const make = () => {
  const turns = Turns.make<PlatformId>()
  return (weighted: ReadonlyArray<{ readonly platform: PlatformId; readonly weight: number }>): PlatformId => {
    const free = weighted.map(({ platform, weight }) => ({ slot: platform, weight }))
    if (!Arr.isNonEmptyReadonlyArray(free)) throw new Error("there is nobody to choose")
    return turns.take(free, "all").slot
  }
}
