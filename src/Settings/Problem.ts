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
