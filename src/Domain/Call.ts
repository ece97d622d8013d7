import { Schema } from "effect"
import { Usage } from "./Usage.js"

export const TextPart = Schema.Struct({ type: Schema.Literal("text"), text: Schema.String })

/** An image, as base64 data or as an https URL that the platform fetches itself. */
export const ImagePart = Schema.Struct({
  type: Schema.Literal("image"),
  source: Schema.Union(
    Schema.Struct({
      kind: Schema.Literal("base64"),
      mediaType: Schema.Literal("image/png", "image/jpeg", "image/gif", "image/webp"),
      data: Schema.String.pipe(Schema.pattern(/^[A-Za-z0-9+/]*={0,2}$/, { message: () => "expected base64 data" }))
    }),
    Schema.Struct({ kind: Schema.Literal("url"), url: Schema.String.pipe(Schema.pattern(/^https?:\/\//)) })
  )
})
export const Part = Schema.Union(TextPart, ImagePart).annotations({ identifier: "Part" })
export type Part = typeof Part.Type

export const Message = Schema.Struct({
  role: Schema.Literal("user", "assistant"),
  content: Schema.Union(Schema.String, Schema.Array(Part))
}).annotations({ identifier: "Message" })
export type Message = typeof Message.Type

/** A function the model may ask to have called. `parameters` is a JSON Schema object. */
export const Tool = Schema.Struct({
  name: Schema.String.pipe(Schema.pattern(/^[a-zA-Z0-9_-]{1,64}$/)),
  description: Schema.optional(Schema.String),
  parameters: Schema.Record({ key: Schema.String, value: Schema.Unknown })
}).annotations({ identifier: "Tool" })
export type Tool = typeof Tool.Type

/** The model asks for a function to be called. `arguments` is JSON text, as the model wrote it. */
export const ToolCall = Schema.Struct({ id: Schema.String, name: Schema.String, arguments: Schema.String }).annotations(
  { identifier: "ToolCall" }
)
export type ToolCall = typeof ToolCall.Type

/** What the model asked for, and what came of it: `toolCallId` and `name` are those of the call that it answers. */
export const ToolResult = Schema.Struct({
  role: Schema.Literal("tool"),
  toolCallId: Schema.String,
  name: Schema.String,
  content: Schema.String
}).annotations({ identifier: "ToolResult" })
export type ToolResult = typeof ToolResult.Type

/**
 * One turn of a conversation in which functions may be called. Every tool call of the assistant's is followed by its
 * result before the next turn of a user.
 */
export const Turn = Schema.Union(
  Schema.Struct({ role: Schema.Literal("user"), content: Message.fields.content }),
  Schema.Struct({
    role: Schema.Literal("assistant"),
    content: Message.fields.content,
    toolCalls: Schema.optional(Schema.Array(ToolCall))
  }),
  ToolResult
).annotations({ identifier: "Turn" })
export type Turn = typeof Turn.Type

/** Tells a turn with a text of somebody's from a function's result. */
export const isMessage = (turn: Turn): turn is Exclude<Turn, ToolResult> => turn.role !== "tool"

/** Whether the model may, must or must not ask for a function to be called, or for which. */
export const ToolChoice = Schema.Union(
  Schema.Literal("auto", "none", "required"),
  Schema.Struct({ name: Schema.String })
).annotations({ identifier: "ToolChoice" })
export type ToolChoice = typeof ToolChoice.Type

/** `json` asks for an answer that is one JSON value, of the given JSON Schema where there is one. */
export const ResponseFormat = Schema.Union(
  Schema.Struct({ type: Schema.Literal("text") }),
  Schema.Struct({
    type: Schema.Literal("json"),
    schema: Schema.optional(Schema.Record({ key: Schema.String, value: Schema.Unknown }))
  })
).annotations({ identifier: "ResponseFormat" })
export type ResponseFormat = typeof ResponseFormat.Type

/** One neutral request to a model: what every wire format is made from. */
export const Call = Schema.Struct({
  system: Schema.optional(Schema.String),
  messages: Schema.NonEmptyArray(Turn),
  /** Upper bound of the answer, tokens (reasoning included). */
  maxOutputTokens: Schema.optional(Schema.Int.pipe(Schema.positive())),
  temperature: Schema.optional(Schema.Number.pipe(Schema.between(0, 2))),
  responseFormat: Schema.optional(ResponseFormat),
  tools: Schema.optional(Schema.Array(Tool)),
  /** Left to the model (`auto`) by default; without tools it means nothing. */
  toolChoice: Schema.optional(ToolChoice)
}).annotations({ identifier: "Call" })
export type Call = typeof Call.Type

export const FinishReason = Schema.Literal("stop", "length", "tool-calls").annotations({ identifier: "FinishReason" })
export type FinishReason = typeof FinishReason.Type

/** A whole answer. `model` is the one that answered, as the platform names it. */
export const Completion = Schema.Struct({
  text: Schema.String,
  toolCalls: Schema.Array(ToolCall),
  finishReason: FinishReason,
  model: Schema.String,
  usage: Usage
}).annotations({ identifier: "Completion" })
export type Completion = typeof Completion.Type

/** What a provider says of one of its own limits, in a response's headers, an error, or where it tells its quotas. */
export interface LimitReading {
  /** What is counted; `usd` is credit, `percent` stands where only the used part of a limit is told (`limit` = 100). */
  readonly unit: "requests" | "tokens" | "usd" | "percent"
  /** The provider's own name of the limit, such as `primary` or `weekly`. */
  readonly name?: string | undefined
  /** Length of the limit's window, ms, where it is told. */
  readonly windowMs?: number | undefined
  /** Set where the limit is that of one model only. */
  readonly model?: string | undefined
  /** In `unit`, as what remains of it. */
  readonly limit?: number | undefined
  readonly remaining?: number | undefined
  /** Until the limit is whole again, ms. */
  readonly resetsInMs?: number | undefined
  /** Until a part of it is there again, ms, such as a rolling window's next tick. */
  readonly refillsInMs?: number | undefined
}

/**
 * A piece of a streamed answer. `Start` comes first, when the response's headers are there;
 * `Finish` comes last, exactly once, in every stream that succeeds.
 */
export type Delta =
  | { readonly _tag: "Start"; readonly limits: ReadonlyArray<LimitReading> }
  | { readonly _tag: "Text"; readonly text: string }
  | { readonly _tag: "ToolCall"; readonly toolCall: ToolCall }
  | {
      readonly _tag: "Finish"
      readonly finishReason: FinishReason
      readonly model: string
      readonly usage: Usage
    }

/**
 * Tokens of a text, rather too many than too few: 4 ASCII characters a token, 2 of other Latin, Greek or Cyrillic
 * letters, 1 of every other UTF-16 unit (Hebrew, Arabic, Indic and East Asian scripts, half an emoji).
 */
export const textTokens = (text: string): number => {
  let quarters = text.length
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    if (unit >= 0x80) quarters += unit < 0x590 ? 1 : 3
  }
  return quarters / 4
}

/** The tool calls that a turn of the assistant's made. */
export const toolCallsOf = (turn: Turn): ReadonlyArray<ToolCall> =>
  turn.role === "assistant" ? (turn.toolCalls ?? []) : []

/** What a turn says beside its content: the names, ids and arguments of its tool calls, or which one it answers. */
const beside = (turn: Turn): string =>
  turn.role === "tool"
    ? turn.name + turn.toolCallId
    : toolCallsOf(turn).reduce((all, { arguments: given, id, name }) => all + name + id + given, "")

/** Size of a call's input in tokens, for routing and reservations: that of its texts, 1,000 an image. Not for billing. */
export const estimateInputTokens = (call: Call): number => {
  const contentTokens = (content: Message["content"]): number =>
    typeof content === "string"
      ? textTokens(content)
      : content.reduce((sum, part) => sum + (part.type === "text" ? textTokens(part.text) : 1_000), 0)
  const tools = call.tools === undefined ? 0 : textTokens(JSON.stringify(call.tools))
  const schema = call.responseFormat?.type === "json" ? textTokens(JSON.stringify(call.responseFormat)) : 0
  const system = textTokens(call.system ?? "")
  const fixed = system + tools + schema + 4
  return Math.ceil(
    call.messages.reduce((sum, turn) => sum + contentTokens(turn.content) + textTokens(beside(turn)) + 4, fixed)
  )
}

/** Memory that a call's texts take up, bytes, at most: two for each UTF-16 unit. */
export const heldBytes = (call: Call): number => {
  const lengthOf = (content: Message["content"]): number =>
    typeof content === "string"
      ? content.length
      : content.reduce((sum, part) => {
          if (part.type === "text") return sum + part.text.length
          return sum + (part.source.kind === "url" ? part.source.url.length : part.source.data.length)
        }, 0)
  const tools = call.tools === undefined ? 0 : JSON.stringify(call.tools).length
  const fixed = (call.system ?? "").length + tools
  return 2 * call.messages.reduce((sum, turn) => sum + lengthOf(turn.content) + beside(turn).length, fixed)
}
