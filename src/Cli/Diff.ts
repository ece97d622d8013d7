/** Lines shown around each change. */
const around = 2
/** A comparison of more pairs of lines takes too long; then all lines between the first and the last change are shown. */
const maxPairs = 4_000_000

interface Line {
  readonly sign: " " | "-" | "+"
  readonly text: string
}

const signed = (sign: Line["sign"], lines: ReadonlyArray<string>): ReadonlyArray<Line> =>
  lines.map((text) => ({ sign, text }))

/** What stays, goes and comes, by the longest common part. */
const compared = (before: ReadonlyArray<string>, after: ReadonlyArray<string>): ReadonlyArray<Line> => {
  let head = 0
  while (head < before.length && head < after.length && before[head] === after[head]) head++
  let tail = 0
  const room = Math.min(before.length, after.length) - head
  while (tail < room && before[before.length - 1 - tail] === after[after.length - 1 - tail]) tail++
  const old = before.slice(head, before.length - tail)
  const now = after.slice(head, after.length - tail)
  return [
    ...signed(" ", before.slice(0, head)),
    ...(old.length * now.length > maxPairs ? [...signed("-", old), ...signed("+", now)] : changed(old, now)),
    ...signed(" ", before.slice(before.length - tail))
  ]
}

const changed = (before: ReadonlyArray<string>, after: ReadonlyArray<string>): ReadonlyArray<Line> => {
  const width = after.length + 1
  const common = new Uint32Array((before.length + 1) * width)
  const length = (i: number, j: number): number => common[i * width + j] ?? 0
  for (let i = before.length - 1; i >= 0; i--) {
    for (let j = after.length - 1; j >= 0; j--) {
      common[i * width + j] =
        before[i] === after[j] ? length(i + 1, j + 1) + 1 : Math.max(length(i + 1, j), length(i, j + 1))
    }
  }
  const lines: Array<Line> = []
  let [i, j] = [0, 0]
  while (i < before.length || j < after.length) {
    const [old, now] = [before[i], after[j]]
    if (old !== undefined && old === now) {
      lines.push({ sign: " ", text: old })
      i++
      j++
    } else if (old !== undefined && (now === undefined || length(i + 1, j) >= length(i, j + 1))) {
      lines.push({ sign: "-", text: old })
      i++
    } else {
      lines.push({ sign: "+", text: now ?? "" })
      j++
    }
  }
  return lines
}

/** The changed lines of a text with those around them, as `diff` marks them; empty where nothing changed. */
export const difference = (before: string, after: string): string => {
  const split = (text: string): ReadonlyArray<string> => (text === "" ? [] : text.replace(/\r?\n$/, "").split(/\r?\n/))
  const lines = compared(split(before), split(after))
  const isNear = lines.map((_, index) =>
    lines.slice(Math.max(0, index - around), index + around + 1).some(({ sign }) => sign !== " ")
  )
  return lines
    .flatMap(({ sign, text }, index) =>
      isNear[index] === true ? [...(index > 0 && isNear[index - 1] !== true ? ["…"] : []), `${sign} ${text}`] : []
    )
    .join("\n")
}
