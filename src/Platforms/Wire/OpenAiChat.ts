import { Either, Schema } from "effect"
import {
  type Call,
  type Completion,
  type Delta,
  type FinishReason,
  type ToolCall,
  type Turn,
  toolCallsOf
} from "../../Domain/Call.js"
import type { Usage } from "../../Domain/Usage.js"
import {
  type Decoded,
  decodeValue,
  encodeJson,
  isErrorValue,
  type JsonObject,
  jsonInstruction,
  jsonSchemaName,
  malformed,
  maybe,
  parseJson,
  policy,
  providerError,
  speaksOfJson,
  TokenCount,
  type Wire,
  type WireProblem
} from "../Wire.js"
import { authorization, decodeModels, imageUrl, usersImagesOnly } from "./OpenAi.js"

type ContentPart =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "image_url"; readonly image_url: { readonly url: string } }

interface RequestMessage {
  readonly role: "system" | "user" | "assistant" | "tool"
  readonly content: string | ReadonlyArray<ContentPart> | null
  readonly tool_calls?: ReadonlyArray<{
    readonly id: string
    readonly type: "function"
    readonly function: { readonly name: string; readonly arguments: string }
  }>
  readonly tool_call_id?: string
}

interface Request {
  readonly model: string
  readonly messages: ReadonlyArray<RequestMessage>
  readonly stream: true | undefined
  readonly stream_options: { readonly include_usage: true } | undefined
  readonly max_tokens?: number | undefined
  readonly max_completion_tokens?: number | undefined
  readonly temperature: number | undefined
  readonly response_format?:
    | { readonly type: "json_object" }
    | {
        readonly type: "json_schema"
        readonly json_schema: {
          readonly name: string
          readonly schema: typeof JsonObject.Type
          readonly strict: boolean
        }
      }
  readonly tools:
    | ReadonlyArray<{
        readonly type: "function"
        readonly function: {
          readonly name: string
          readonly description: string | undefined
          readonly parameters: typeof JsonObject.Type
        }
      }>
    | undefined
  readonly tool_choice:
    | "auto"
    | "none"
    | "required"
    | { readonly type: "function"; readonly function: { readonly name: string } }
    | undefined
}

const UsageBody = Schema.Struct({
  prompt_tokens: TokenCount,
  completion_tokens: TokenCount,
  prompt_tokens_details: maybe(Schema.Struct({ cached_tokens: maybe(TokenCount) })),
  completion_tokens_details: maybe(Schema.Struct({ reasoning_tokens: maybe(TokenCount) }))
})

const ResponseBody = Schema.Struct({
  model: Schema.String,
  choices: Schema.NonEmptyArray(
    Schema.Struct({
      message: Schema.Struct({
        content: maybe(Schema.String),
        refusal: maybe(Schema.String),
        tool_calls: maybe(
          Schema.Array(
            Schema.Struct({
              id: Schema.String,
              function: Schema.Struct({ name: Schema.String, arguments: Schema.String })
            })
          )
        )
      }),
      finish_reason: Schema.String
    })
  ),
  usage: UsageBody
})
const decodeResponse = decodeValue(ResponseBody, "the response")

const ChunkBody = Schema.Struct({
  model: maybe(Schema.String),
  choices: Schema.Array(
    Schema.Struct({
      delta: maybe(
        Schema.Struct({
          content: maybe(Schema.String),
          refusal: maybe(Schema.String),
          reasoning_content: maybe(Schema.String),
          reasoning: maybe(Schema.String),
          tool_calls: maybe(
            Schema.Array(
              Schema.Struct({
                index: maybe(Schema.Int),
                id: maybe(Schema.String),
                function: maybe(Schema.Struct({ name: maybe(Schema.String), arguments: maybe(Schema.String) }))
              })
            )
          )
        })
      ),
      finish_reason: maybe(Schema.String)
    })
  ),
  usage: maybe(UsageBody)
})
const decodeChunk = decodeValue(ChunkBody, "an event of the stream")

const message = (turn: Turn): Either.Either<RequestMessage, string> => {
  if (turn.role === "tool") {
    return Either.right({ role: "tool", content: turn.content, tool_call_id: turn.toolCallId })
  }
  const { content, role } = turn
  const calls = toolCallsOf(turn)
  const called =
    calls.length === 0
      ? {}
      : {
          tool_calls: calls.map(({ arguments: given, id, name }) => ({
            id,
            type: "function" as const,
            function: { name, arguments: given }
          }))
        }
  if (typeof content === "string") {
    return Either.right({ role, content: content === "" && calls.length > 0 ? null : content, ...called })
  }
  const parts: Array<ContentPart> = []
  for (const part of content) {
    if (part.type === "text") {
      parts.push({ type: "text", text: part.text })
    } else if (role === "assistant") {
      return Either.left(usersImagesOnly)
    } else {
      parts.push({ type: "image_url", image_url: { url: imageUrl(part) } })
    }
  }
  return Either.right({ role, content: parts, ...called })
}

const format = (call: Call): Pick<Request, "response_format"> => {
  const wanted = call.responseFormat
  if (wanted?.type !== "json") {
    return {}
  }
  // `strict` wants a narrower dialect of JSON Schema and refuses any other, so it cannot be asked for on the caller's behalf.
  return wanted.schema === undefined
    ? { response_format: { type: "json_object" } }
    : {
        response_format: {
          type: "json_schema",
          json_schema: { name: jsonSchemaName, schema: wanted.schema, strict: false }
        }
      }
}

const choice = ({ toolChoice, tools = [] }: Call): Request["tool_choice"] => {
  if (tools.length === 0 || toolChoice === undefined) return undefined
  return typeof toolChoice === "string" ? toolChoice : { type: "function", function: { name: toolChoice.name } }
}

const encode: Wire["encode"] = ({ baseUrl, call, model, stream }) =>
  Either.flatMap(Either.all(call.messages.map(message)), (turns) => {
    const needsWord =
      call.responseFormat?.type === "json" &&
      call.responseFormat.schema === undefined &&
      !speaksOfJson(call) &&
      !/json/i.test(call.system ?? "")
    const system = [call.system, needsWord ? jsonInstruction : undefined].filter((text) => text !== undefined)
    return encodeJson({
      model,
      messages: system.length === 0 ? turns : [{ role: "system", content: system.join("\n\n") }, ...turns],
      stream: stream ? true : undefined,
      stream_options: stream ? { include_usage: true } : undefined,
      // OpenAI's own reasoning models refuse `max_tokens`; the compatible endpoints know no other name.
      ...(/^https:\/\/[a-z.-]*\bopenai\.com\//.test(baseUrl)
        ? { max_completion_tokens: call.maxOutputTokens }
        : { max_tokens: call.maxOutputTokens }),
      temperature: call.temperature,
      ...format(call),
      tools:
        call.tools === undefined || call.tools.length === 0
          ? undefined
          : call.tools.map(({ description, name, parameters }) => ({
              type: "function" as const,
              function: { name, description, parameters }
            })),
      tool_choice: choice(call)
    } satisfies Request)
  })

const usageOf = (usage: typeof UsageBody.Type): Usage => ({
  inputTokens: usage.prompt_tokens,
  cachedInputTokens: usage.prompt_tokens_details?.cached_tokens ?? 0,
  outputTokens: usage.completion_tokens,
  reasoningTokens: usage.completion_tokens_details?.reasoning_tokens ?? 0
})

const finishOf = (reason: string, hasToolCalls: boolean): Either.Either<FinishReason, WireProblem> => {
  switch (reason) {
    case "stop":
    case "eos":
    case "end_turn":
    case "stop_sequence":
      return Either.right(hasToolCalls ? "tool-calls" : "stop")
    case "tool_calls":
    case "function_call":
      return Either.right("tool-calls")
    case "length":
    case "max_tokens":
      return Either.right("length")
    case "content_filter":
    case "sensitive":
      return Either.left(policy(reason, "the answer was cut by the content filter"))
    default:
      return Either.left(malformed(`the answer ended with the finish reason ${reason}`))
  }
}

const completionOf = (response: typeof ResponseBody.Type): Either.Either<Completion, WireProblem> =>
  Either.gen(function* () {
    const [choice] = response.choices
    if (choice.message.refusal) {
      return yield* Either.left(policy("refusal", choice.message.refusal))
    }
    const toolCalls = (choice.message.tool_calls ?? []).map(
      (call): ToolCall => ({ id: call.id, name: call.function.name, arguments: call.function.arguments })
    )
    return {
      text: choice.message.content ?? "",
      toolCalls,
      finishReason: yield* finishOf(choice.finish_reason, toolCalls.length > 0),
      model: response.model,
      usage: usageOf(response.usage)
    }
  })

const decodeCompletion: Wire["decodeCompletion"] = (body) =>
  Either.gen(function* () {
    const value = yield* parseJson(body, "the response")
    if (isErrorValue(value)) {
      return yield* Either.left(providerError(body))
    }
    return yield* completionOf(yield* decodeResponse(value))
  })

const none: Decoded = { deltas: [], progress: false }

const makeStreamDecoder: Wire["makeStreamDecoder"] = (requestedModel) => {
  let finished = false
  let model = requestedModel
  let finishReason: string | undefined
  let usage: Usage | undefined
  let refusal = ""
  const toolCalls = new Map<number, { id: string; name: string; arguments: string }>()

  const finish = (): Either.Either<ReadonlyArray<Delta>, WireProblem> =>
    Either.gen(function* () {
      if (finishReason === undefined || usage === undefined) {
        const missing = finishReason === undefined ? "finish_reason" : "usage"
        return yield* Either.left(malformed(`the stream was cut off: it ended without ${missing}`))
      }
      if (refusal !== "") {
        return yield* Either.left(policy("refusal", refusal))
      }
      const reason = yield* finishOf(finishReason, toolCalls.size > 0)
      const deltas: Array<Delta> = []
      for (const toolCall of toolCalls.values()) {
        if (toolCall.name === "") {
          return yield* Either.left(malformed("a tool call of the stream has no name"))
        }
        deltas.push({ _tag: "ToolCall", toolCall })
      }
      finished = true
      deltas.push({ _tag: "Finish", finishReason: reason, model, usage })
      return deltas
    })

  return {
    state: () => (finished ? "finished" : finishReason !== undefined && usage !== undefined ? "complete" : "open"),
    event: (data) =>
      Either.gen(function* () {
        if (finished) {
          return none
        }
        if (data === "[DONE]") {
          return { deltas: yield* finish(), progress: true }
        }
        const value = yield* parseJson(data, "an event of the stream")
        if (isErrorValue(value)) {
          return yield* Either.left(providerError(data))
        }
        const chunk = yield* decodeChunk(value)
        model = chunk.model || model
        usage = chunk.usage ? usageOf(chunk.usage) : usage
        const choice = chunk.choices[0]
        if (choice === undefined) {
          return { deltas: [], progress: usage !== undefined }
        }
        finishReason = choice.finish_reason || finishReason
        const delta = choice.delta
        refusal += delta?.refusal ?? ""
        for (const piece of delta?.tool_calls ?? []) {
          const index = piece.index ?? toolCalls.size
          const known = toolCalls.get(index) ?? { id: "", name: "", arguments: "" }
          toolCalls.set(index, {
            id: known.id || (piece.id ?? ""),
            name: known.name || (piece.function?.name ?? ""),
            arguments: known.arguments + (piece.function?.arguments ?? "")
          })
        }
        const text = delta?.content ?? ""
        const progress =
          text !== "" ||
          Boolean(delta?.reasoning_content || delta?.reasoning || delta?.refusal || delta?.tool_calls?.length) ||
          Boolean(choice.finish_reason)
        return { deltas: text === "" ? [] : [{ _tag: "Text" as const, text }], progress }
      }),
    end: () => (finished ? Either.right([]) : finish())
  }
}

/**
 * OpenAI's Chat Completions API (https://platform.openai.com/docs/api-reference/chat), as OpenAI, DashScope, Synthetic
 * and many others serve it. Streamed usage comes in a last chunk without choices.
 */
export const openAiChat: Wire = {
  authorization,
  completePath: () => "/chat/completions",
  streamPath: () => "/chat/completions",
  modelsPath: "/models",
  encode,
  decodeCompletion,
  decodeModels,
  makeStreamDecoder
}
