/** What must hold of one figure. */
export interface Check {
  readonly name: string
  readonly value: number
  readonly target: string
  readonly isMet: boolean
}

export const atMost = (name: string, value: number, limit: number): Check => ({
  name,
  value,
  target: `<= ${limit}`,
  isMet: value <= limit
})

export const atLeast = (name: string, value: number, limit: number): Check => ({
  name,
  value,
  target: `>= ${limit}`,
  isMet: value >= limit
})

// For people

export const count = (value: number): string => value.toLocaleString("en")

export const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? "").length)))
  return rows
    .map((row) =>
      row
        .map((cell, column) => (column < 2 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}

export const percent = (share: number): string => (share * 100).toFixed(1)
export const seconds = (ms: number): string => (ms / 1_000).toFixed(1)
export const minutes = (ms: number): string => (ms / 60_000).toFixed(1)

/** Each of the missed targets, or that there is none. */
export const verdictOf = (checks: ReadonlyArray<Check>): string => {
  const missed = checks.filter(({ isMet }) => !isMet)
  return missed.length === 0
    ? `All ${checks.length} targets are met.`
    : `${missed.length} of ${checks.length} targets are missed:\n${missed.map(checkLine).join("\n")}`
}

const checkLine = ({ isMet, name, target, value }: Check): string =>
  `${isMet ? "met   " : "MISSED"} ${name}: ${Number(value.toPrecision(4))} (${target})`
