const distance = (left: string, right: string): number => {
  let previous = Array.from({ length: right.length + 1 }, (_, index) => index)
  for (let row = 1; row <= left.length; row++) {
    const current = [row]
    for (let column = 1; column <= right.length; column++) {
      const substitution = (previous[column - 1] ?? 0) + (left[row - 1] === right[column - 1] ? 0 : 1)
      current.push(Math.min(substitution, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1))
    }
    previous = current
  }
  return previous[right.length] ?? 0
}

/** The candidate that was most likely meant, if any is near enough. */
export const nearest = (written: string, candidates: Iterable<string>): string | undefined => {
  const text = written.slice(0, 100)
  let best: { readonly candidate: string; readonly distance: number } | undefined
  for (const candidate of candidates) {
    const found = distance(text, candidate)
    if (best === undefined || found < best.distance) best = { candidate, distance: found }
  }
  if (best === undefined) return undefined
  const { length } = best.candidate
  return best.distance <= (length < 4 ? 1 : Math.max(2, Math.floor(length / 4))) ? best.candidate : undefined
}
