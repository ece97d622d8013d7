const dayMs = 86_400_000

/** The UTC day of an instant (epoch ms), `YYYY-MM-DD`. */
export const dayOf = (epochMs: number): string => {
  const number = Math.floor(epochMs / dayMs)
  // asked for at every attempt, and mostly of the same day
  if (number !== latest.number) latest = { number, name: new Date(epochMs).toISOString().slice(0, 10) }
  return latest.name
}

let latest = { number: Number.NaN, name: "" }

/** When the UTC day after that of an instant begins, epoch ms. */
export const nextDayAt = (epochMs: number): number => (Math.floor(epochMs / dayMs) + 1) * dayMs
