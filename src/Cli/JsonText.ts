/**
 * Changes to a JSON text that leave everything else in it as its author wrote it: indentation, order, line ends.
 * The text must be valid JSON.
 */

interface Span {
  readonly start: number
  readonly end: number
}

interface Member extends Span {
  readonly key: string
  readonly value: Node
}

type Node = Span &
  (
    | { readonly kind: "object"; readonly members: ReadonlyArray<Member> }
    | { readonly kind: "array"; readonly items: ReadonlyArray<Node> }
    | { readonly kind: "scalar" }
  )

export type JsonPath = ReadonlyArray<string | number>

const isJsonString = (value: unknown): value is string => typeof value === "string"

const stringAt = (text: string, start: number): string => {
  const value: unknown = JSON.parse(text.slice(start, afterString(text, start)))
  return isJsonString(value) ? value : ""
}

const afterString = (text: string, start: number): number => {
  let end = start + 1
  while (text[end] !== '"') end += text[end] === "\\" ? 2 : 1
  return end + 1
}

const afterBlank = (text: string, start: number): number => {
  let end = start
  while (/[\s\ufeff]/.test(text[end] ?? "")) end++
  return end
}

const nodeAt = (text: string, from: number): Node => {
  const start = afterBlank(text, from)
  switch (text[start]) {
    case "{": {
      const members: Array<Member> = []
      let at = afterBlank(text, start + 1)
      while (text[at] !== "}") {
        const key = stringAt(text, at)
        const value = nodeAt(text, afterBlank(text, afterString(text, at)) + 1)
        members.push({ key, start: at, end: value.end, value })
        at = afterBlank(text, value.end)
        if (text[at] === ",") at = afterBlank(text, at + 1)
      }
      return { kind: "object", start, end: at + 1, members }
    }
    case "[": {
      const items: Array<Node> = []
      let at = afterBlank(text, start + 1)
      while (text[at] !== "]") {
        const item = nodeAt(text, at)
        items.push(item)
        at = afterBlank(text, item.end)
        if (text[at] === ",") at = afterBlank(text, at + 1)
      }
      return { kind: "array", start, end: at + 1, items }
    }
    case '"':
      return { kind: "scalar", start, end: afterString(text, start) }
    default: {
      let end = start
      while (/[-+.\w]/.test(text[end] ?? "")) end++
      return { kind: "scalar", start, end }
    }
  }
}

/** What a container holds; of members of one name the last one counts, as it does for JSON.parse. */
const child = (node: Node, step: string | number): Node | undefined => {
  if (node.kind === "object") return node.members.findLast(({ key }) => key === step)?.value
  return node.kind === "array" ? node.items[Number(step)] : undefined
}

const find = (text: string, path: JsonPath): Node | undefined =>
  path.reduce<Node | undefined>((node, step) => node && child(node, step), nodeAt(text, 0))

const lineEnd = (text: string): string => (text.includes("\r\n") ? "\r\n" : "\n")

/** One step of indentation, as the text has it; two blanks where it has none. */
const unitOf = (text: string): string => /\n([ \t]+)\S/.exec(text)?.[1] ?? "  "

const written = (text: string, value: unknown, depth: number): string => {
  const unit = unitOf(text)
  return JSON.stringify(value, undefined, unit).replaceAll("\n", `${lineEnd(text)}${unit.repeat(depth)}`)
}

const replaced = (text: string, { end, start }: Span, by: string): string =>
  `${text.slice(0, start)}${by}${text.slice(end)}`

/** Puts something behind the last thing in a container. */
const appended = (text: string, container: Node, depth: number, what: (value: string) => string, value: unknown) => {
  const inside = container.kind === "object" ? container.members : container.kind === "array" ? container.items : []
  const last = inside.at(-1)
  const isOneLine = last !== undefined && !text.slice(container.start, container.end).includes("\n")
  if (isOneLine) return replaced(text, { start: last.end, end: last.end }, `, ${what(JSON.stringify(value))}`)
  const [unit, end] = [unitOf(text), lineEnd(text)]
  const entry = `${end}${unit.repeat(depth + 1)}${what(written(text, value, depth + 1))}`
  return last === undefined
    ? replaced(text, { start: container.start + 1, end: container.end - 1 }, `${entry}${end}${unit.repeat(depth)}`)
    : replaced(text, { start: last.end, end: last.end }, `,${entry}`)
}

/** The text with this value there; the last step is a member's name, and what it is a member of is there already. */
export const withValue = (text: string, path: JsonPath, value: unknown): string => {
  const existing = find(text, path)
  if (existing !== undefined) return replaced(text, existing, written(text, value, path.length))
  const container = find(text, path.slice(0, -1))
  return container === undefined
    ? text
    : appended(text, container, path.length - 1, (shown) => `${JSON.stringify(path.at(-1))}: ${shown}`, value)
}

/** The text with one more item in the list there. */
export const withItem = (text: string, path: JsonPath, value: unknown): string => {
  const list = find(text, path)
  return list === undefined ? text : appended(text, list, path.length, (shown) => shown, value)
}

/** The text without the member or item there. */
export const without = (text: string, path: JsonPath): string => {
  const container = find(text, path.slice(0, -1))
  const step = path.at(-1)
  if (container === undefined || step === undefined || container.kind === "scalar") return text
  const inside: ReadonlyArray<Span> = container.kind === "object" ? container.members : container.items
  const place = container.kind === "object" ? container.members.findLastIndex(({ key }) => key === step) : Number(step)
  const [before, here, after] = [inside[place - 1], inside[place], inside[place + 1]]
  if (here === undefined) return text
  if (after !== undefined) return replaced(text, { start: here.start, end: after.start }, "")
  return before === undefined
    ? replaced(text, { start: container.start + 1, end: container.end - 1 }, "")
    : replaced(text, { start: before.end, end: here.end }, "")
}
