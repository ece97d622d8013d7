import type { Performance, PlatformView } from "../Domain/Lease.js"
import { duration, oneLine, percent, relative, table } from "./Output.js"

/** What was measured, a cell for each of `measuredHeading`. */
const measured = (performance: Performance): ReadonlyArray<string> => {
  const times = (...values: ReadonlyArray<number | undefined>): string =>
    values.every((value) => value === undefined)
      ? "-"
      : values.map((value) => (value === undefined ? "-" : duration(value))).join(" / ")
  const { durationMsEwma, durationMsP50, durationMsP95, outputTokensPerSecond } = performance
  return [
    String(performance.attempts),
    performance.attempts === 0 ? "-" : percent(performance.errorRate),
    times(performance.timeToFirstTokenMsP50, performance.timeToFirstTokenMsP95, performance.timeToFirstTokenMsEwma),
    times(durationMsP50, durationMsP95, durationMsEwma),
    outputTokensPerSecond === undefined ? "-" : outputTokensPerSecond.toFixed(outputTokensPerSecond < 10 ? 1 : 0)
  ]
}

const measuredHeading = ["ATTEMPTS", "ERRORS", "FIRST TOKEN", "WHOLE CALL", "TOKENS/S"]

/** Platforms as a table, their models where one has several, and below it why any of them is not available. */
export const platformTable = (platforms: ReadonlyArray<PlatformView>, now: number): string => {
  const reasons = platforms.flatMap(({ id, reasons }) => reasons.map((reason) => `${id}: ${oneLine(reason, 300)}`))
  const ofModels = platforms.flatMap(({ id, model: configured, models }) =>
    models.every(({ model }) => model === configured)
      ? []
      : models.map(({ model, performance, status }) => [id, oneLine(model, 60), status, ...measured(performance)])
  )
  return [
    table(
      ["PLATFORM", "STATUS", "BREAKER", "MODEL", "IN FLIGHT", ...measuredHeading, "CHECKED"],
      platforms.map((platform) => [
        platform.id,
        platform.status,
        platform.breaker,
        platform.model,
        String(platform.inFlight),
        ...measured(platform.performance),
        platform.checkedAt === undefined ? "never" : relative(platform.checkedAt, now)
      ])
    ),
    ...(ofModels.length === 0 ? [] : ["", table(["PLATFORM", "MODEL", "STATUS", ...measuredHeading], ofModels)]),
    ...(platforms.some(({ performance }) => performance.durationMsP50 !== undefined)
      ? [
          "",
          "Times are p50 / p95 / average, of the answers of the last 10 minutes; an answer counts half after a minute in the average."
        ]
      : []),
    ...(reasons.length === 0 ? [] : ["", ...reasons])
  ].join("\n")
}
