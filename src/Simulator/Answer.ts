import { jsonValueOf } from "./JsonValue.js"
import { defaultMaxOutputTokens, type SimulatedPlatform } from "./Options.js"
import type { SimulatedRequest, SimulatedTool } from "./Request.js"
import { type Seeded, seeded } from "./Seeded.js"
import { firstCharacters, firstTokens, imageTokens, tokensOf } from "./Tokens.js"

/** A piece of an answer and how long after the piece before it (the first: after the request) it is there, ms. */
export interface Piece {
  readonly text: string
  readonly afterMs: number
}

/** What the simulated model says. A function of the seed, the platform and the request's content alone, where it is not told. */
export interface Answer {
  /** 24 hexadecimal digits. */
  readonly id: string
  readonly model: string
  /** The answer's text, or the arguments of `tool`. */
  readonly pieces: ReadonlyArray<Piece>
  readonly text: string
  readonly tool: { readonly name: string; readonly arguments: string } | undefined
  readonly finish: "stop" | "length" | "tool-calls"
  readonly inputTokens: number
  /** Part of `inputTokens`. */
  readonly cachedTokens: number
  /** Reasoning included. */
  readonly outputTokens: number
  readonly reasoningTokens: number
}

export const inputTokensOf = (request: SimulatedRequest): number =>
  Math.max(1, Math.ceil(request.texts.reduce((bytes, text) => bytes + Buffer.byteLength(text), 0) / 4)) +
  request.images * imageTokens

/** The most an answer may be long: what the request says, but never more than the model can. */
const outputBoundOf = (platform: SimulatedPlatform, request: SimulatedRequest): number => {
  const most = platform.maxOutputTokens ?? defaultMaxOutputTokens
  return request.maxOutputTokens === undefined ? most : Math.min(request.maxOutputTokens, most)
}

/** Tokens that come in one piece of a stream. */
const pieceTokens = 6

export const answerOf = (options: {
  readonly seed: number
  readonly platformId: string
  readonly platform: SimulatedPlatform
  readonly latencyScale: number
  readonly request: SimulatedRequest
  readonly inputTokens: number
  /** In place of its own words. */
  readonly said?: string | undefined
}): Answer => {
  const { platform, platformId, request, inputTokens, said } = options
  const bound = outputBoundOf(platform, request)
  const random = seeded(options.seed, [
    platformId,
    request.model,
    String(bound),
    String(request.images),
    JSON.stringify([request.texts, request.toolChoice, request.json])
  ])
  const wantsReasoning = platform.reasoningTokens === undefined ? 0 : random.sample(platform.reasoningTokens)
  const reasoningTokens = Math.min(Math.round(wantsReasoning), Math.floor(bound / 2))
  const textBound = bound - reasoningTokens
  const tool = said === undefined ? calledTool(request) : undefined
  const wanted = Math.max(1, Math.round(random.sample(platform.answerTokens)))
  const heading = `Simulated answer of ${platformId} (${request.model})`
  const whole =
    said ??
    (tool !== undefined
      ? JSON.stringify(jsonValueOf(tool.parameters, firstWords(request.prompt)))
      : request.json !== undefined
        ? jsonAnswer(request, heading)
        : prose(heading, firstWords(request.prompt), wanted, textBound, random))
  const text = firstTokens(whole, textBound)
  const cut = text.length < whole.length
  const outputTokens = Math.max(1, tokensOf(text)) + reasoningTokens
  const pieces = piecesOf(text).map((piece, index) => ({
    text: piece,
    afterMs:
      options.latencyScale *
      (index === 0
        ? random.sample(platform.latency.firstTokenMs)
        : tokensOf(piece) * random.sample(platform.latency.tokenMs))
  }))
  return {
    id: random.id,
    model: request.model,
    pieces,
    text,
    tool: tool === undefined ? undefined : { name: tool.name, arguments: text },
    finish: cut ? "length" : tool !== undefined ? "tool-calls" : "stop",
    inputTokens,
    // Prompt caches work in blocks of 128 tokens from 1,024 on; half of a long prompt is taken to be cached.
    cachedTokens: inputTokens < 1_024 ? 0 : Math.floor(inputTokens / 256) * 128,
    outputTokens,
    reasoningTokens
  }
}

/** From the request to the end of the answer, ms. */
export const durationOf = (answer: Answer): number => answer.pieces.reduce((sum, piece) => sum + piece.afterMs, 0)

const calledTool = (request: SimulatedRequest): SimulatedTool | undefined => {
  const choice = request.toolChoice
  if (choice === "none") return undefined
  if (typeof choice === "object") return request.tools.find((tool) => tool.name === choice.name)
  if (choice !== "required" && !/\bcall (the|a|this) (tool|function)\b/i.test(request.prompt)) return undefined
  return request.tools.find((tool) => request.prompt.includes(tool.name)) ?? request.tools[0]
}

const firstWords = (prompt: string): string => {
  const words = firstCharacters(prompt, 400)
    .split(/\s+/)
    .filter((word) => word !== "")
  return firstCharacters(words.slice(0, 8).join(" "), 80)
}

const jsonAnswer = (request: SimulatedRequest, heading: string): string => {
  const text = `${heading} to: ${firstWords(request.prompt)}`
  return JSON.stringify(
    request.json?.schema === undefined ? { simulated: true, answer: text } : jsonValueOf(request.json.schema, text)
  )
}

const words =
  "the a each every one this that system module service request task answer result value input output state store queue limit window stream client server test case error check step part path plan note keeps reads writes returns starts ends waits sends takes gives finds holds builds runs before after while because with without from into over under again first next last small whole clear exact stable simple".split(
    " "
  )

const prose = (heading: string, subject: string, tokens: number, bound: number, random: Seeded): string => {
  let text = `${heading} to: ${subject === "" ? "(nothing)" : subject}\n\n`
  // Some more than the bound lets the cut show as the answer's end by length.
  const bytes = Math.min(tokens, bound + 1) * 4
  let length = Buffer.byteLength(text)
  let inSentence = 0
  while (length < bytes) {
    const word = words[random.below(words.length)] ?? "the"
    const next = inSentence === 0 ? word.charAt(0).toUpperCase() + word.slice(1) : ` ${word}`
    inSentence++
    const ends = inSentence >= 6 && random.next() < 0.25
    const piece = ends ? `${next}. ` : next
    if (ends) inSentence = 0
    text += piece
    length += piece.length
  }
  return inSentence === 0 ? text.trimEnd() : `${text}.`
}

const piecesOf = (text: string): ReadonlyArray<string> => {
  const characters = pieceTokens * 4
  const pieces: Array<string> = []
  let start = 0
  while (start < text.length) {
    let end = Math.min(start + characters, text.length)
    // A surrogate pair is one character: never cut it.
    const code = text.charCodeAt(end - 1)
    if (end < text.length && code >= 0xd800 && code <= 0xdbff) end++
    pieces.push(text.slice(start, end))
    start = end
  }
  return pieces.length === 0 ? [""] : pieces
}
