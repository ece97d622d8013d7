/** Nearest rank: the smallest value that at least `share` (0 to 1) of all values do not exceed; none of none. */
export const percentile = (values: ReadonlyArray<number>, share: number): number | undefined =>
  [...values].sort((left, right) => left - right)[Math.max(0, Math.ceil(values.length * share) - 1)]
