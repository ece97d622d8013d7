import { Console, type Effect } from "effect"

/** Prints a value as JSON, two spaces deep. */
export const printJson = (value: unknown): Effect.Effect<void> => Console.log(JSON.stringify(value, undefined, 2))

/** Without the control characters with which foreign text could drive a terminal; line ends and tabs stay. */
export const printable = (text: string): string =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  text.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "")

/** One line, at most `length` characters. */
export const oneLine = (text: string, length: number): string => {
  const line = printable(text).replaceAll(/\s+/g, " ").trim()
  return line.length <= length ? line : `${line.slice(0, length - 1)}…`
}

/** Columns as wide as their widest cell, under a heading each. */
export const table = (heading: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const all = [heading, ...rows]
  const widths = heading.map((_, column) => Math.max(...all.map((row) => (row[column] ?? "").length)))
  return all
    .map((row) =>
      widths
        .map((width, column) => (row[column] ?? "").padEnd(width))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}

/** A length of time in the unit a person would use: `340 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`, `4 d`. */
export const duration = (ms: number): string => {
  if (ms < 999.5) return `${Math.round(ms)} ms`
  if (ms < 9_950) return `${(ms / 1_000).toFixed(1)} s`
  const seconds = Math.round(ms / 1_000)
  if (seconds < 60) return `${seconds} s`
  const parts = (big: number, bigUnit: string, small: number, smallUnit: string): string =>
    small === 0 ? `${big} ${bigUnit}` : `${big} ${bigUnit} ${small} ${smallUnit}`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return parts(minutes, "min", seconds % 60, "s")
  const hours = Math.floor(minutes / 60)
  if (hours < 48) return parts(hours, "h", minutes % 60, "min")
  return `${Math.floor(hours / 24)} d`
}

/** An instant (epoch ms) seen from now: `in 12 s`, `5 min ago`. */
export const relative = (at: number, now: number): string =>
  at > now ? `in ${duration(at - now)}` : `${duration(now - at)} ago`

/** `1 task`, `2,000 tasks`. */
export const counted = (count: number, noun: string): string =>
  `${count.toLocaleString("en-US")} ${noun}${count === 1 ? "" : "s"}`

/** A share from 0 to 1 as `82 %`. */
export const percent = (share: number): string => `${Math.round(share * 100)} %`

/** `512 B`, `3.5 KiB`, `256 MiB`. */
export const byteSize = (bytes: number): string => {
  if (bytes < 1_024) return `${bytes} B`
  const units = ["KiB", "MiB", "GiB"]
  const power = Math.min(units.length, Math.floor(Math.log2(bytes) / 10))
  const value = bytes / 1_024 ** power
  return `${value.toLocaleString("en-US", { maximumFractionDigits: value < 10 ? 1 : 0 })} ${units[power - 1]}`
}
