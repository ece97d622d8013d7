import { Array as Arr, Either } from "effect"
import type { Call, ImagePart, Part, ToolCall, Turn } from "../Domain/Call.js"
import type {
  ChatCompletion,
  ChatCompletionChunk,
  ChatCompletionRequest,
  ChatMessage,
  ChatUsage
} from "../Domain/ChatCompletion.js"
import type { Usage } from "../Domain/Usage.js"
import type { GatewayAnswer, GatewayPiece } from "../Gateway.js"
import { type OpenAiReply, refusal } from "./OpenAiErrors.js"

/* OpenAI's Chat Completions, from and to the neutral call. */

/** A request as the gateway takes it. */
export interface Asked {
  readonly model: string
  readonly call: Call
  readonly stream: boolean
  readonly includeUsage: boolean
  /** Whether at most one function may be asked for in one answer. */
  readonly oneToolCall: boolean
}

const isEmpty = (value: unknown): boolean =>
  value === undefined ||
  value === null ||
  value === false ||
  value === "" ||
  (typeof value === "object" && Object.keys(value).length === 0)

const unsupported = (param: string, instead: string) =>
  refusal(`This service cannot do what \`${param}\` asks for. ${instead}`, param, "unsupported_parameter")

/** Fields that mean something else than an answer without them would; all others that are not known are passed over. */
const meaningful: ReadonlyArray<{
  readonly field: string
  readonly asks: (value: unknown) => boolean
  readonly instead: string
}> = [
  { field: "n", asks: (value) => typeof value === "number" && value > 1, instead: "Ask once for each answer" },
  { field: "stop", asks: (value) => !isEmpty(value), instead: "Leave it out, and cut the answer yourself" },
  { field: "logprobs", asks: (value) => value === true, instead: "Leave it out" },
  { field: "logit_bias", asks: (value) => !isEmpty(value), instead: "Leave it out" },
  { field: "audio", asks: (value) => !isEmpty(value), instead: "Answers are text" },
  {
    field: "modalities",
    asks: (value) => Array.isArray(value) && value.some((one) => one !== "text"),
    instead: "Answers are text"
  },
  { field: "functions", asks: (value) => !isEmpty(value), instead: "Use `tools`" },
  { field: "web_search_options", asks: (value) => value !== undefined && value !== null, instead: "Leave it out" }
]

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** The first field of a body that asks for what is not done here. */
export const refused = (body: unknown): OpenAiReply | undefined => {
  if (!isRecord(body)) return undefined
  const found = meaningful.find(({ asks, field }) => Object.hasOwn(body, field) && asks(body[field]))
  return found === undefined ? undefined : unsupported(found.field, found.instead)
}

const textIn = (
  content: string | ReadonlyArray<{ readonly type: string; readonly text?: string }> | null | undefined
) => (typeof content === "string" ? content : (content ?? []).map(({ text }) => text ?? "").join(""))

const mediaTypes: Readonly<
  Record<string, Extract<(typeof ImagePart.Type)["source"], { kind: "base64" }>["mediaType"]>
> = {
  "image/png": "image/png",
  "image/jpeg": "image/jpeg",
  "image/jpg": "image/jpeg",
  "image/gif": "image/gif",
  "image/webp": "image/webp"
}

const image = (url: string, param: string): Either.Either<typeof ImagePart.Type, OpenAiReply> => {
  if (/^https?:\/\//i.test(url)) return Either.right({ type: "image", source: { kind: "url", url } })
  const comma = url.indexOf(",")
  const head = /^data:([a-z]+\/[a-z]+)(?:;[^;,]*)*;base64$/i.exec(url.slice(0, Math.max(0, comma)))
  const mediaType = mediaTypes[head?.[1]?.toLowerCase() ?? ""]
  const data = url.slice(comma + 1)
  return mediaType === undefined || !/^[A-Za-z0-9+/]*={0,2}$/.test(data)
    ? Either.left(
        refusal(
          "An image is an http(s) URL, or a base64 data URL of a PNG, JPEG, GIF or WebP image.",
          param,
          "invalid_image"
        )
      )
    : Either.right({ type: "image", source: { kind: "base64", mediaType, data } })
}

const usersParts = (
  content: Extract<ChatMessage, { readonly role: "user" }>["content"],
  param: string
): Either.Either<string | ReadonlyArray<Part>, OpenAiReply> =>
  typeof content === "string"
    ? Either.right(content)
    : Either.all(
        content.map((part, index) =>
          part.type === "text"
            ? Either.right<Part>({ type: "text", text: part.text })
            : image(part.image_url.url, `${param}.content.${index}.image_url`)
        )
      )

interface Conversation {
  readonly system: string | undefined
  readonly turns: Arr.NonEmptyReadonlyArray<Turn>
}

const conversationOf = (messages: ReadonlyArray<ChatMessage>): Either.Either<Conversation, OpenAiReply> =>
  Either.gen(function* () {
    const system: Array<string> = []
    const turns: Array<Turn> = []
    const called = new Map<string, string>()
    for (const [index, message] of messages.entries()) {
      const param = `messages.${index}`
      switch (message.role) {
        case "system":
        case "developer":
          system.push(textIn(message.content))
          break
        case "user":
          turns.push({ role: "user", content: yield* usersParts(message.content, param) })
          break
        case "assistant": {
          const content = textIn(message.content)
          const toolCalls = (message.tool_calls ?? []).map(
            (call): ToolCall => ({ id: call.id, name: call.function.name, arguments: call.function.arguments })
          )
          for (const { id, name } of toolCalls) called.set(id, name)
          if (toolCalls.length > 0) turns.push({ role: "assistant", content, toolCalls })
          // A turn may have held nothing but a thought, of which nothing is left here.
          else if (content !== "") turns.push({ role: "assistant", content })
          break
        }
        case "tool": {
          const name = called.get(message.tool_call_id)
          if (name === undefined) {
            return yield* Either.left(
              refusal(
                "A tool message answers a tool call of an assistant message before it, and this one's `tool_call_id` is that of none.",
                `${param}.tool_call_id`,
                "invalid_value"
              )
            )
          }
          turns.push({ role: "tool", toolCallId: message.tool_call_id, name, content: textIn(message.content) })
        }
      }
    }
    if (!Arr.isNonEmptyReadonlyArray(turns)) {
      return yield* Either.left(refusal("There is no message to answer.", "messages", "invalid_value"))
    }
    const said = system.filter((text) => text.trim() !== "")
    return { system: said.length === 0 ? undefined : said.join("\n\n"), turns }
  })

const formatOf = (format: ChatCompletionRequest["response_format"]): Call["responseFormat"] => {
  if (format === undefined || format === null || format.type === "text") return undefined
  const schema = format.type === "json_schema" ? format.json_schema.schema : undefined
  return schema === undefined || schema === null ? { type: "json" } : { type: "json", schema }
}

const choiceOf = (choice: ChatCompletionRequest["tool_choice"]): Call["toolChoice"] => {
  if (choice === undefined || choice === null) return undefined
  if (typeof choice !== "string") return { name: choice.function.name }
  // "any" is what Anthropic calls it, and what routers between the two pass on
  return choice === "any" ? "required" : choice
}

/** The call that a request asks for. */
export const askedOf = (request: ChatCompletionRequest): Either.Either<Asked, OpenAiReply> =>
  Either.map(conversationOf(request.messages), ({ system, turns }) => ({
    model: request.model,
    stream: request.stream === true,
    includeUsage: request.stream_options?.include_usage === true,
    oneToolCall: request.parallel_tool_calls === false,
    call: {
      system,
      messages: turns,
      maxOutputTokens: request.max_completion_tokens ?? request.max_tokens ?? undefined,
      temperature: request.temperature ?? undefined,
      responseFormat: formatOf(request.response_format),
      tools: (request.tools ?? []).map(({ function: { description, name, parameters } }) => ({
        name,
        description: description ?? undefined,
        parameters: parameters ?? { type: "object", properties: {} }
      })),
      toolChoice: choiceOf(request.tool_choice)
    }
  }))

const usageOf = ({ cachedInputTokens, inputTokens, outputTokens, reasoningTokens }: Usage): ChatUsage => ({
  prompt_tokens: inputTokens,
  completion_tokens: outputTokens,
  total_tokens: inputTokens + outputTokens,
  prompt_tokens_details: { cached_tokens: cachedInputTokens },
  completion_tokens_details: { reasoning_tokens: reasoningTokens }
})

const finishes = { stop: "stop", length: "length", "tool-calls": "tool_calls" } as const

const idOf = (id: string): string => `chatcmpl-${id.replaceAll("-", "")}`

const modelOf = ({ model, platform }: { readonly platform: string; readonly model: string }): string =>
  `${platform}/${model}`

const calledOf = ({ arguments: given, id, name }: ToolCall) => ({
  id,
  type: "function" as const,
  function: { name, arguments: given }
})

/** A whole answer. `created`: epoch seconds. */
export const completionOf = (
  answer: GatewayAnswer,
  { created, oneToolCall }: { readonly created: number; readonly oneToolCall: boolean }
): ChatCompletion => {
  const { finishReason, text, toolCalls, usage } = answer.completion
  const called = (oneToolCall ? toolCalls.slice(0, 1) : toolCalls).map(calledOf)
  return {
    id: idOf(answer.id),
    object: "chat.completion",
    created,
    model: modelOf(answer),
    choices: [
      {
        index: 0,
        message: {
          role: "assistant",
          content: text === "" && called.length > 0 ? null : text,
          refusal: null,
          ...(called.length === 0 ? {} : { tool_calls: called })
        },
        logprobs: null,
        finish_reason: finishes[finishReason]
      }
    ],
    usage: usageOf(usage)
  }
}

/** The last data of a stream that is whole. */
export const done = "[DONE]"

/**
 * Writes the chunks of one streamed answer. Where usage was not asked for in a chunk of its own, the last chunk of the
 * answer has it: routers count what they pass on by that.
 */
export const makeChunkWriter = ({
  created,
  includeUsage,
  oneToolCall
}: {
  /** Epoch seconds. */
  readonly created: number
  readonly includeUsage: boolean
  readonly oneToolCall: boolean
}): ((piece: GatewayPiece) => ReadonlyArray<ChatCompletionChunk>) => {
  let head: Pick<ChatCompletionChunk, "id" | "object" | "created" | "model"> | undefined
  let toolCalls = 0

  type Choice = ChatCompletionChunk["choices"][number]
  const chunk = (delta: Choice["delta"], finish: Choice["finish_reason"] = null): ReadonlyArray<ChatCompletionChunk> =>
    head === undefined
      ? []
      : [
          {
            ...head,
            choices: [{ index: 0, delta, logprobs: null, finish_reason: finish }],
            ...(includeUsage ? { usage: null } : {})
          }
        ]

  const begin = (from: { readonly id: string; readonly platform: string; readonly model: string }) => {
    head = { id: idOf(from.id), object: "chat.completion.chunk", created, model: modelOf(from) }
    return chunk({ role: "assistant", content: "" })
  }

  return (piece) => {
    switch (piece._tag) {
      case "Began":
        return begin(piece)
      case "Text":
        return chunk({ content: piece.text })
      case "ToolCall": {
        const index = toolCalls++
        return oneToolCall && index > 0 ? [] : chunk({ tool_calls: [{ index, ...calledOf(piece.toolCall) }] })
      }
      case "Ended": {
        const { answer } = piece
        const opened = head === undefined ? begin(answer) : []
        const usage = usageOf(answer.completion.usage)
        const last = chunk({}, finishes[answer.completion.finishReason])
        return [
          ...opened,
          ...(includeUsage ? last : last.map((ending) => ({ ...ending, usage }))),
          ...(includeUsage && head !== undefined ? [{ ...head, choices: [], usage }] : [])
        ]
      }
    }
  }
}
