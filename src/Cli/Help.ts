import { HelpDoc } from "@effect/cli"
import { nearest } from "../Domain/nearest.js"

/** A command that runs: its words after the program's name, and how it is called. */
export interface CommandHelp {
  readonly path: ReadonlyArray<string>
  readonly summary: string
  /** Its arguments as a usage line shows them, such as `ID`. */
  readonly usage: string
  /** What @effect/cli knows of its options and arguments. */
  readonly doc: HelpDoc.HelpDoc
}

type Row = readonly [left: string, right: string]

// biome-ignore lint/suspicious/noControlCharactersInRegex: the escape character begins every ANSI sequence
const ansi = /\u001b\[[0-9;]*m/g

/** A help document as plain text on one line. */
export const plain = (doc: HelpDoc.HelpDoc): string =>
  HelpDoc.toAnsiText(doc).replaceAll(ansi, "").replaceAll(/\s+/g, " ").trim()

const blocks = (doc: HelpDoc.HelpDoc): ReadonlyArray<HelpDoc.HelpDoc> =>
  doc._tag === "Sequence" ? [...blocks(doc.left), ...blocks(doc.right)] : doc._tag === "Empty" ? [] : [doc]

/** Of what @effect/cli says of an option, only the description given to it: types and defaults are told there. */
const description = (doc: HelpDoc.HelpDoc): string =>
  blocks(doc)
    .slice(1)
    .map(plain)
    .filter((text) => !text.startsWith("This setting is optional"))
    .join(" ")

/** The rows of the section with this heading (`OPTIONS` or `ARGUMENTS`). */
const section = (doc: HelpDoc.HelpDoc, heading: string): ReadonlyArray<Row> => {
  const all = blocks(doc)
  const start = all.findIndex((block) => block._tag === "Header" && plain(block) === heading)
  const rows: Array<Row> = []
  if (start === -1) return rows
  for (const block of all.slice(start + 1)) {
    if (block._tag === "Header") break
    if (block._tag !== "DescriptionList") continue
    for (const [span, text] of block.definitions) rows.push([plain(HelpDoc.p(span)), description(text)])
  }
  return rows
}

const width = 100

const wrap = (text: string, room: number): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = ""
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > room) {
      lines.push(line)
      line = word
    } else line = line === "" ? word : `${line} ${word}`
  }
  return [...lines, line]
}

const table = (title: string, rows: ReadonlyArray<Row>): ReadonlyArray<string> => {
  if (rows.length === 0) return []
  const left = Math.max(...rows.map(([text]) => text.length))
  return [
    "",
    `${title}:`,
    ...rows.flatMap(([name, text]) =>
      wrap(text, width - left - 4).map((line, index) =>
        `  ${(index === 0 ? name : "").padEnd(left)}  ${line}`.trimEnd()
      )
    )
  ]
}

/** The option names a command takes, with their dashes. */
export const optionNames = (command: CommandHelp): ReadonlyArray<string> =>
  section(command.doc, "OPTIONS").flatMap(([left]) => left.match(/--?[a-z][a-z-]*/g) ?? [])

/** Whether the option takes a value, such as `--type TYPE`. */
const takesValue = (command: CommandHelp, option: string): boolean =>
  section(command.doc, "OPTIONS").some(([left]) => left.startsWith(`${option} `))

/** Arguments told apart: what is text is behind `--`. */
interface Sorted {
  readonly args: ReadonlyArray<string>
  /** The first option that the command does not have. */
  readonly unknown: string | undefined
  /** The first option whose value is missing. */
  readonly withoutValue: string | undefined
}

/**
 * Tells options from text. Text are `-` alone and what begins with a dash but has a space in it: @effect/cli reads no
 * option after them. It also takes an unknown option for text, where text is expected.
 */
export const sortArguments = (command: CommandHelp, args: ReadonlyArray<string>): Sorted => {
  const known = new Set([...optionNames(command), "--version"])
  const options: Array<string> = []
  const text: Array<string> = []
  let unknown: string | undefined
  let withoutValue: string | undefined
  for (let index = 0; index < args.length; index++) {
    const arg = args[index] ?? ""
    if (arg === "--") {
      text.push(...args.slice(index + 1))
      break
    }
    const name = arg.split("=")[0] ?? arg
    if (!arg.startsWith("-") || arg === "-" || (!known.has(name) && /\s/.test(arg))) text.push(arg)
    else {
      if (!known.has(name)) unknown ??= name
      options.push(arg)
      if (takesValue(command, name)) {
        const value = arg === name ? args[index + 1] : arg.slice(name.length + 1) || undefined
        if (value === undefined) withoutValue ??= name
        else if (arg === name) {
          options.push(value)
          index++
        }
      }
    }
  }
  return { args: text.length === 0 ? options : [...options, "--", ...text], unknown, withoutValue }
}

/** What `--help` prints for one command. */
export const commandHelp = (program: string, command: CommandHelp): string =>
  [
    command.summary,
    "",
    `Usage: ${[program, ...command.path, "[options]", command.usage].filter((word) => word !== "").join(" ")}`,
    ...table("Arguments", section(command.doc, "ARGUMENTS")),
    ...table("Options", [...section(command.doc, "OPTIONS"), ["-h, --help", "Show this help."]])
  ].join("\n")

/** What `--help` prints for the program, or for a group of commands such as `tasks`. */
export const groupHelp = (
  program: string,
  about: string,
  path: ReadonlyArray<string>,
  commands: ReadonlyArray<CommandHelp>,
  options: ReadonlyArray<Row>
): string => {
  const own = commands.filter((command) => path.every((word, index) => command.path[index] === word))
  return [
    about,
    "",
    `Usage: ${[program, ...path, "<command> [options]"].join(" ")}`,
    ...table(
      "Commands",
      own.map((command) => [
        [...command.path.slice(path.length), command.usage].filter((word) => word !== "").join(" "),
        command.summary
      ])
    ),
    ...table("Options", [...options, ["-h, --help", "Show this help, or that of a command."]])
  ].join("\n")
}

/** ` Did you mean 'demo'?`, or nothing where no word is near. */
export const didYouMean = (word: string, words: Iterable<string>): string => {
  const byLowerCase = new Map(Array.from(words, (candidate) => [candidate.toLowerCase(), candidate]))
  const meant = nearest(word.toLowerCase(), byLowerCase.keys())
  return meant === undefined ? "" : ` Did you mean '${byLowerCase.get(meant)}'?`
}
