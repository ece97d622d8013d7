import { Either, Schema } from "effect"
import type { Answer } from "../Answer.js"
import { type BadRequest, isRecord, type SimulatedRequest } from "../Request.js"
import { type AnswerWriter, decoder, type Frame, orNull, textOf } from "../Wire.js"

const Block = Schema.Struct(
  { type: Schema.String, text: Schema.optional(Schema.Unknown) },
  Schema.Record({
    key: Schema.String,
    value: Schema.Unknown
  })
)
type Block = typeof Block.Type

const Content = Schema.Union(Schema.String, Schema.Array(Block))

const MessagesRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  /** Newer clients send further system prompts as messages. */
  messages: Schema.NonEmptyArray(
    Schema.Struct({ role: Schema.Literal("user", "assistant", "system"), content: Content })
  ),
  system: orNull(Content),
  stream: orNull(Schema.Boolean),
  max_tokens: Schema.Int.pipe(Schema.positive()),
  temperature: orNull(Schema.Number.pipe(Schema.between(0, 1))),
  tools: orNull(
    Schema.Array(
      Schema.Struct({
        name: orNull(Schema.String),
        description: orNull(Schema.String),
        input_schema: orNull(Schema.Unknown)
      })
    )
  ),
  tool_choice: orNull(
    Schema.Union(
      Schema.Struct({ type: Schema.Literal("auto", "any", "none") }),
      Schema.Struct({ type: Schema.Literal("tool"), name: Schema.String })
    )
  )
}).annotations({ identifier: "a messages request" })

const CountRequest = MessagesRequest.omit("max_tokens")

const decodeMessages = decoder(MessagesRequest)
const decodeCount = decoder(CountRequest)

const blocksOf = (content: typeof Content.Type | null | undefined): ReadonlyArray<Block> =>
  typeof content === "string" ? [{ type: "text", text: content }] : (content ?? [])

/** What of a block a model reads; an image counts by itself. */
const blockText = (block: Block): string => {
  if (typeof block.text === "string") return block.text
  return block.type === "image" ? "" : textOf(block)
}

/** Claude Code puts what it itself has to say into the user's messages, in such tags. */
const isReminder = (text: string): boolean => text.startsWith("<system-reminder>")

const toolChoiceOf = (choice: typeof MessagesRequest.Type.tool_choice): SimulatedRequest["toolChoice"] => {
  switch (choice?.type) {
    case "tool":
      return { name: choice.name }
    case "any":
      return "required"
    case "none":
      return "none"
    default:
      return "auto"
  }
}

const requestOf = (request: typeof CountRequest.Type, maxOutputTokens: number | undefined): SimulatedRequest => {
  const blocks = [...blocksOf(request.system), ...request.messages.flatMap(({ content }) => blocksOf(content))]
  const last = request.messages.findLast(({ role }) => role !== "system")
  const said = blocksOf(last?.role === "user" ? last.content : undefined).flatMap(({ text }) =>
    typeof text === "string" && !isReminder(text) ? [text] : []
  )
  return {
    model: request.model,
    stream: request.stream === true,
    includeUsage: true,
    sse: true,
    texts: [...blocks.map(blockText), ...(request.tools ?? []).map(textOf)],
    images: blocks.filter(({ type }) => type === "image").length,
    prompt: said[said.length - 1] ?? "",
    maxOutputTokens,
    json: undefined,
    speaksOfJson: false,
    tools: (request.tools ?? []).flatMap((tool) =>
      typeof tool.name === "string" && isRecord(tool.input_schema)
        ? [{ name: tool.name, parameters: tool.input_schema }]
        : []
    ),
    toolChoice: toolChoiceOf(request.tool_choice)
  }
}

export const readMessages = (body: unknown): Either.Either<SimulatedRequest, BadRequest> =>
  Either.map(decodeMessages(body), (request) => requestOf(request, request.max_tokens))

export const readMessagesCount = (body: unknown): Either.Either<SimulatedRequest, BadRequest> =>
  Either.map(decodeCount(body), (request) => requestOf(request, undefined))

const usageOf = (answer: Answer, outputTokens: number) => ({
  input_tokens: answer.inputTokens - answer.cachedTokens,
  cache_creation_input_tokens: 0,
  cache_read_input_tokens: answer.cachedTokens,
  output_tokens: outputTokens
})

const stopReasonOf = (answer: Answer): string => {
  switch (answer.finish) {
    case "stop":
      return "end_turn"
    case "length":
      return "max_tokens"
    case "tool-calls":
      return "tool_use"
  }
}

const message = (answer: Answer, content: ReadonlyArray<unknown>, stopReason: string | null, outputTokens: number) => ({
  id: `msg_${answer.id}`,
  type: "message",
  role: "assistant",
  model: answer.model,
  content,
  stop_reason: stopReason,
  stop_sequence: null,
  usage: usageOf(answer, outputTokens)
})

const inputOf = (json: string): unknown =>
  Either.getOrElse(
    Either.try((): unknown => JSON.parse(json)),
    () => ({})
  )

/** An event is named twice in this format, in its line and in its data. */
const event = (type: string, data: object): string => `event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`

/** Anthropic's Messages format, as its API reference describes it. */
export const messagesWriter: AnswerWriter = {
  whole: (answer) =>
    message(
      answer,
      answer.tool === undefined
        ? [{ type: "text", text: answer.text }]
        : [{ type: "tool_use", id: `toolu_${answer.id}`, name: answer.tool.name, input: inputOf(answer.text) }],
      stopReasonOf(answer),
      answer.outputTokens
    ),
  frames: (answer) => {
    const tool = answer.tool
    const start =
      tool === undefined
        ? { type: "text", text: "" }
        : { type: "tool_use", id: `toolu_${answer.id}`, name: tool.name, input: {} }
    const frames: Array<Frame> = [
      {
        afterMs: answer.pieces[0]?.afterMs ?? 0,
        data:
          event("message_start", { message: message(answer, [], null, 1) }) +
          event("content_block_start", { index: 0, content_block: start }) +
          event("ping", {})
      },
      ...answer.pieces.map(({ text, afterMs }, index) => ({
        afterMs: index === 0 ? 0 : afterMs,
        data: event("content_block_delta", {
          index: 0,
          delta: tool === undefined ? { type: "text_delta", text } : { type: "input_json_delta", partial_json: text }
        })
      })),
      {
        afterMs: 0,
        data:
          event("content_block_stop", { index: 0 }) +
          event("message_delta", {
            delta: { stop_reason: stopReasonOf(answer), stop_sequence: null },
            usage: usageOf(answer, answer.outputTokens)
          }) +
          event("message_stop", {})
      }
    ]
    return frames
  },
  failedFrame: (_, error) => `event: error\ndata: ${JSON.stringify(error)}\n\n`,
  failedWhole: (_, error) => error,
  brokenFrame: 'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"text":\n\n'
}
