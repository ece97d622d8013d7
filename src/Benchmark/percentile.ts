/** Where the smallest of `count` values stands, in their order of size, that at least `share` (0 to 1) of all do not exceed. */
export const rankOf = (count: number, share: number): number => Math.max(0, Math.ceil(count * share) - 1)

/** Nearest rank: the smallest value that at least `share` (0 to 1) of all values do not exceed; none of none. */
export const percentile = (values: ReadonlyArray<number>, share: number): number | undefined =>
  [...values].sort((left, right) => left - right)[rankOf(values.length, share)]
