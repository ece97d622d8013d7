/** Rotations of which the turns are remembered; the one that was not used for the longest time is forgotten. */
const MAX_ROTATIONS = 1_000

/** One of those who are free for a call. */
export interface Contestant<Place> {
  readonly slot: Place
  /** More than 0. */
  readonly weight: number
}

/**
 * Whose turn it is, by smooth weighted round robin: each call is owed to every place that is free by its weight, the place
 * that is owed most has it and pays what all were owed. Nothing is left to chance, and a place that is not free is owed
 * nothing for it. In weights, not in parts of a turn: what is owed of old weighs little against a weight that is raised
 * for one call.
 *
 * Where the same places are always free, each has had at most one more than its share of all calls, and of any n calls that
 * follow each other it gets less than two more than its share with up to six places, and hardly more with many (at the most
 * 2.3 more was found with twenty). No order of calls whatever keeps to the share and one, unless the weights are as special
 * as 4, 2, 1.
 */
export interface Turns<Place> {
  readonly next: <C extends Contestant<Place>>(free: readonly [C, ...ReadonlyArray<C>], rotation: string) => C
  /** The same one, and it has had its turn. */
  readonly take: <C extends Contestant<Place>>(free: readonly [C, ...ReadonlyArray<C>], rotation: string) => C
}

export const make = <Place>(): Turns<Place> => {
  /** What each place is owed. */
  const rotations = new Map<string, Map<Place, number>>()
  /** The rotation that was used last. */
  let latest: string | undefined

  const next: Turns<Place>["next"] = (free, rotation) => {
    const owed = rotations.get(rotation)
    let [chosen] = free
    let most = Number.NEGATIVE_INFINITY
    for (const contestant of free) {
      const due = (owed?.get(contestant.slot) ?? 0) + contestant.weight
      if (due <= most) continue
      chosen = contestant
      most = due
    }
    return chosen
  }

  return {
    next,
    take: (free, rotation) => {
      const chosen = next(free, rotation)
      const owed = rotations.get(rotation) ?? new Map<Place, number>()
      let total = 0
      for (const { weight } of free) total += weight
      for (const contestant of free) {
        const { slot, weight } = contestant
        owed.set(slot, (owed.get(slot) ?? 0) + weight - (contestant === chosen ? total : 0))
      }
      if (rotation === latest) return chosen
      latest = rotation
      rotations.delete(rotation)
      rotations.set(rotation, owed)
      const [oldest] = rotations.keys()
      if (rotations.size > MAX_ROTATIONS && oldest !== undefined) rotations.delete(oldest)
      return chosen
    }
  }
}
