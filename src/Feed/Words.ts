import type { SessionReport } from "./Report.js"

const names: Readonly<Record<string, string>> = { five_hour: "5h", seven_day: "week", spend_limit: "spend" }

const two = (number: number): string => String(number).padStart(2, "0")

/** When that is, as short as it is clear: the time of a near instant, the day of a far one. */
const shortly = (instant: number, now: number): string => {
  const date = new Date(instant)
  return instant - now < 20 * 60 * 60_000
    ? `${two(date.getHours())}:${two(date.getMinutes())}`
    : `${two(date.getMonth() + 1)}-${two(date.getDate())}`
}

/** What is used, in one line for Claude Code's status line; empty where nothing is known. */
export const statusLine = ({ at, contextUsedPercent, readings }: SessionReport): string =>
  [
    ...readings.flatMap(({ resetsAt, usedPercent, window }) =>
      usedPercent === undefined
        ? []
        : [
            `${names[window] ?? window.replaceAll("_", " ")} ${Math.round(usedPercent)}%${
              resetsAt === undefined || resetsAt <= at ? "" : ` until ${shortly(resetsAt, at)}`
            }`
          ]
    ),
    ...(contextUsedPercent === undefined ? [] : [`context ${Math.round(contextUsedPercent)}%`])
  ].join(" · ")
