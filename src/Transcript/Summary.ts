import { textTokens } from "../Domain/Call.js"
import type { Conversation, Turn } from "./Conversation.js"
import type { GitState } from "./Git.js"
import { type Block, shorten } from "./Line.js"
import { repair } from "./Repair.js"

/** A conversation told in fewer tokens. */
export interface Summary {
  readonly text: string
  /** Estimated. */
  readonly tokens: number
  /** What the text does not hold, in words; empty where it holds everything. */
  readonly leftOut: ReadonlyArray<string>
}

/** Characters of a tool's result that are told. */
const maxResultChars = 2_000
const maxCondensedRequest = 400
const maxCondensedAnswer = 200
/** The part of the budget that the latest turns may take whole. */
const wholeShare = 0.6

const inputOf = (input: unknown, maxChars: number): string => shorten(JSON.stringify(input) ?? "", maxChars)

const whole = (block: Block, cut: { results: number; images: number }): string => {
  switch (block._tag) {
    case "Text":
      return block.text
    case "ToolUse":
      return `[uses the tool ${block.name}: ${inputOf(block.input, maxResultChars)}]`
    case "ToolResult": {
      if (block.text.length > maxResultChars) cut.results += 1
      cut.images += block.images
      const images = block.images === 0 ? "" : ` and ${block.images} images`
      return `[the tool ${block.isError ? "failed" : "answered"}${images}: ${shorten(block.text, maxResultChars)}]`
    }
    case "Image":
      cut.images += 1
      return `[an image, ${block.mediaType}]`
    case "Thinking":
    case "Unknown":
      return ""
  }
}

const speaker = ({ origin }: Turn): string => {
  switch (origin) {
    case "person":
      return "User"
    case "model":
      return "Assistant"
    case "tool":
      return "Tools"
    case "program":
      return "Claude Code"
    case "compaction":
      return "Summary of what came before"
  }
}

const told = (turn: Turn, cut: { results: number; images: number }): string =>
  `${speaker(turn)}:\n${turn.blocks
    .map((block) => whole(block, cut))
    .filter((text) => text !== "")
    .join("\n")}`

const oneLine = (text: string, maxChars: number): string => {
  const flat = text.replace(/\s+/g, " ").trim()
  return flat.length <= maxChars ? flat : `${flat.slice(0, maxChars)}...`
}

/** What a turn was about; nothing of tool results, which the answers after them speak of. */
const condensed = (turn: Turn): string | undefined => {
  const text = turn.blocks.flatMap((block) => (block._tag === "Text" ? block.text : [])).join(" ")
  switch (turn.origin) {
    case "compaction":
      return `- Summary of what came before: ${oneLine(text, 4_000)}`
    case "person":
      return `- User: ${oneLine(text, maxCondensedRequest)}`
    case "model": {
      const tools = turn.blocks.flatMap((block) =>
        block._tag === "ToolUse" ? `${block.name} ${oneLine(inputOf(block.input, 160), 120)}` : []
      )
      const used = tools.length === 0 ? "" : ` [used: ${tools.join("; ")}]`
      return text === "" && used === "" ? undefined : `- Assistant: ${oneLine(text, maxCondensedAnswer)}${used}`
    }
    case "tool":
    case "program":
      return undefined
  }
}

const gitSection = ({ branch, commit, diffStat, untracked }: GitState): string =>
  [
    `Branch ${branch}${commit === undefined ? "" : ` at ${commit.slice(0, 12)}`}.`,
    diffStat === "" ? "No changes against the latest commit." : `Changed against the latest commit:\n${diffStat}`,
    ...(untracked.length === 0 ? [] : [`Not known to git: ${untracked.join(", ")}`])
  ].join("\n")

/**
 * Tells a conversation in at most `maxTokens` (estimated), for a platform whose window is too small for all of it:
 * the latest turns whole (long tool results trimmed), older ones in a line each, the oldest of those dropped first; the
 * to-do list, the state of git and the last request always. What is missing is said in the text itself.
 */
export const summarize = (
  conversation: Conversation,
  options: { readonly maxTokens: number; readonly git?: GitState | undefined }
): Summary => {
  const { turns } = repair(conversation)
  const { lastRequest, todos } = conversation
  const section = (title: string, text: string): string => `## ${title}\n${text}`
  const maxRequestChars = Math.max(1_000, Math.floor(options.maxTokens))

  const fixed = [
    "This is the state of a Claude Code session that you carry on. Go on with its work where it stopped; do not start over.",
    ...(conversation.cwd === undefined ? [] : [`Working folder: ${conversation.cwd}`]),
    ...(options.git === undefined ? [] : [section("Git", gitSection(options.git))]),
    ...(todos.length === 0
      ? []
      : [
          section(
            "To do",
            todos.map(({ status, text }) => `- ${text}${status === "in_progress" ? " (begun)" : ""}`).join("\n")
          )
        ])
  ]
  const request =
    lastRequest === undefined
      ? []
      : [
          section(
            lastRequest.refused ? "The last request, not answered yet" : "The last request",
            shorten(lastRequest.text, maxRequestChars)
          )
        ]
  const fixedTokens = textTokens([...fixed, ...request].join("\n\n"))
  const budget = Math.max(0, options.maxTokens - fixedTokens - 300)

  const cut = { results: 0, images: 0 }
  const latest: Array<string> = []
  let spent = 0
  let next = turns.length - 1
  for (; next >= 0; next -= 1) {
    const turn = turns[next]
    if (turn === undefined) break
    const before = { ...cut }
    const text = told(turn, cut)
    const tokens = textTokens(text) + 2
    if (spent + tokens > budget * wholeShare) {
      Object.assign(cut, before)
      break
    }
    spent += tokens
    latest.unshift(text)
  }
  const older = turns.slice(0, next + 1)
  const lines: Array<string> = []
  let dropped = 0
  for (const turn of [...older].reverse()) {
    const line = condensed(turn)
    if (line === undefined) continue
    const tokens = textTokens(line) + 1
    if (dropped > 0 || spent + tokens > budget) {
      dropped += 1
      continue
    }
    spent += tokens
    lines.unshift(line)
  }

  const olderResults = older.flatMap(({ blocks }) => blocks).filter(({ _tag }) => _tag === "ToolResult").length
  const olderImages = older
    .flatMap(({ blocks }) => blocks)
    .reduce((sum, block) => sum + (block._tag === "Image" ? 1 : block._tag === "ToolResult" ? block.images : 0), 0)
  const images = cut.images + olderImages
  const requestCut = lastRequest !== undefined && lastRequest.text.length > maxRequestChars
  const leftOut = [
    ...(older.length === 0 ? [] : [`${older.length} of ${turns.length} messages are condensed`]),
    ...(dropped === 0 ? [] : [`the ${dropped} oldest of these are left out`]),
    ...(olderResults === 0 ? [] : [`${olderResults} tool results are left out`]),
    ...(cut.results === 0 ? [] : [`${cut.results} long tool results are trimmed`]),
    ...(images === 0 ? [] : [`${images} images are left out`]),
    ...(requestCut ? ["the last request is trimmed"] : [])
  ]
  const text = [
    ...fixed,
    ...(lines.length === 0 ? [] : [section("Earlier", lines.join("\n"))]),
    ...(latest.length === 0 ? [] : [section("Latest", latest.join("\n\n"))]),
    ...(leftOut.length === 0 ? [] : [section("Not in this text", `${leftOut.join("; ")}.`)]),
    ...request
  ].join("\n\n")
  return { text, tokens: textTokens(text), leftOut }
}
