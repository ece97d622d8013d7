import { Schema } from "effect"

/** One mistake in the settings. */
export const SettingsProblem = Schema.Struct({
  /** The name as it was written: a flag, an environment variable, or a key of the file. */
  key: Schema.String,
  /** `flag`, `environment`, or the path of the file. */
  source: Schema.String,
  /** What was found there; never a secret, and absent where it might be one. */
  value: Schema.optional(Schema.String),
  problem: Schema.String,
  /** What would be right. */
  expected: Schema.String
})
export type SettingsProblem = typeof SettingsProblem.Type

const line = (problem: SettingsProblem): string => {
  const written = problem.value === undefined ? problem.key : `${problem.key}=${problem.value}`
  const where = problem.source === "environment" || problem.source === "flag" ? "" : ` (in ${problem.source})`
  return `  ${written}${where}: ${problem.problem}; expected ${problem.expected}`
}

/** The settings are wrong: `problems` names every mistake at once. */
export class SettingsInvalid extends Schema.TaggedError<SettingsInvalid>()("SettingsInvalid", {
  problems: Schema.Array(SettingsProblem),
  message: Schema.String
}) {
  static readonly of = (problems: ReadonlyArray<SettingsProblem>): SettingsInvalid =>
    new SettingsInvalid({
      problems,
      message: [
        problems.length === 1 ? "1 setting is wrong:" : `${problems.length} settings are wrong:`,
        ...problems.map(line)
      ].join("\n")
    })
}

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
