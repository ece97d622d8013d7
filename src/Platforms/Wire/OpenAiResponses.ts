import { Either, Predicate, Schema } from "effect"
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
  type DecoderState,
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

type InputContent =
  | { readonly type: "input_text" | "output_text"; readonly text: string }
  | { readonly type: "input_image"; readonly image_url: string }

type InputItem =
  | { readonly role: "user" | "assistant" | "developer"; readonly content: string | ReadonlyArray<InputContent> }
  | { readonly type: "function_call"; readonly call_id: string; readonly name: string; readonly arguments: string }
  | { readonly type: "function_call_output"; readonly call_id: string; readonly output: string }

interface Request {
  readonly model: string
  readonly input: ReadonlyArray<InputItem>
  readonly instructions: string | undefined
  readonly store: false
  readonly stream: true | undefined
  readonly max_output_tokens: number | undefined
  readonly temperature: number | undefined
  readonly text?: {
    readonly format:
      | { readonly type: "json_object" }
      | {
          readonly type: "json_schema"
          readonly name: string
          readonly schema: typeof JsonObject.Type
          readonly strict: boolean
        }
  }
  readonly tools:
    | ReadonlyArray<{
        readonly type: "function"
        readonly name: string
        readonly description: string | undefined
        readonly parameters: typeof JsonObject.Type
        readonly strict: boolean
      }>
    | undefined
  readonly tool_choice: "auto" | "none" | "required" | { readonly type: "function"; readonly name: string } | undefined
}

const UsageBody = Schema.Struct({
  input_tokens: TokenCount,
  input_tokens_details: maybe(Schema.Struct({ cached_tokens: maybe(TokenCount) })),
  output_tokens: TokenCount,
  output_tokens_details: maybe(Schema.Struct({ reasoning_tokens: maybe(TokenCount) }))
})

const MessageItem = Schema.Struct({
  type: Schema.Literal("message"),
  content: Schema.Array(
    Schema.Union(
      Schema.Struct({ type: Schema.Literal("output_text"), text: Schema.String }),
      Schema.Struct({ type: Schema.Literal("refusal"), refusal: Schema.String })
    )
  )
})
const FunctionCallItem = Schema.Struct({
  type: Schema.Literal("function_call"),
  call_id: Schema.String,
  name: Schema.String,
  arguments: Schema.String
})
const decodeMessageItem = decodeValue(MessageItem, "an output message")
const decodeFunctionCall = decodeValue(FunctionCallItem, "a function call")

// Items are decoded one by one, by type: kinds that do not concern an answer (reasoning, searches) may have any shape.
const OutputItem = Schema.Struct({ type: Schema.String }, { key: Schema.String, value: Schema.Unknown })

const ending = {
  status: maybe(Schema.String),
  incomplete_details: maybe(Schema.Struct({ reason: maybe(Schema.String) })),
  model: Schema.String,
  usage: UsageBody
}
const Ending = Schema.Struct(ending)
const decodeEnding = decodeValue(Ending, "the last event of the stream")
const ResponseBody = Schema.Struct({ ...ending, output: Schema.Array(OutputItem) })
const decodeResponse = decodeValue(ResponseBody, "the response")

const FailedResponse = Schema.Struct({ status: Schema.Literal("failed", "cancelled"), error: maybe(Schema.Unknown) })
const isFailedResponse = Schema.is(FailedResponse)

const Event = Schema.Struct({ type: Schema.String }, { key: Schema.String, value: Schema.Unknown })
type Event = typeof Event.Type
const decodeEvent = decodeValue(Event, "an event of the stream")
const decodeDelta = decodeValue(Schema.Struct({ delta: Schema.String }), "a delta of the stream")
const decodeItem = decodeValue(Schema.Struct({ item: OutputItem }), "an output item of the stream")
const decodeFinal = decodeValue(Schema.Struct({ response: Schema.Unknown }), "the last event of the stream")

const items = (turn: Turn): Either.Either<ReadonlyArray<InputItem>, string> => {
  if (turn.role === "tool") {
    return Either.right([{ type: "function_call_output", call_id: turn.toolCallId, output: turn.content }])
  }
  const { content, role } = turn
  const calls = toolCallsOf(turn).map(
    ({ arguments: given, id, name }): InputItem => ({ type: "function_call", call_id: id, name, arguments: given })
  )
  if (typeof content === "string") {
    return Either.right(content === "" && calls.length > 0 ? calls : [{ role, content }, ...calls])
  }
  const parts: Array<InputContent> = []
  for (const part of content) {
    if (part.type === "text") {
      parts.push({ type: role === "user" ? "input_text" : "output_text", text: part.text })
    } else if (role === "assistant") {
      return Either.left(usersImagesOnly)
    } else {
      parts.push({ type: "input_image", image_url: imageUrl(part) })
    }
  }
  return Either.right([{ role, content: parts }, ...calls])
}

const choice = ({ toolChoice, tools = [] }: Call): Request["tool_choice"] => {
  if (tools.length === 0 || toolChoice === undefined) return undefined
  return typeof toolChoice === "string" ? toolChoice : { type: "function", name: toolChoice.name }
}

const format = (call: Call): Pick<Request, "text"> => {
  const wanted = call.responseFormat
  if (wanted?.type !== "json") {
    return {}
  }
  // `strict` wants a narrower dialect of JSON Schema and refuses any other, so it cannot be asked for on the caller's behalf.
  return wanted.schema === undefined
    ? { text: { format: { type: "json_object" } } }
    : { text: { format: { type: "json_schema", name: jsonSchemaName, schema: wanted.schema, strict: false } } }
}

const encode: Wire["encode"] = ({ call, model, stream }) =>
  Either.flatMap(Either.all(call.messages.map(items)), (turns) => {
    const input = turns.flat()
    const needsWord =
      call.responseFormat?.type === "json" && call.responseFormat.schema === undefined && !speaksOfJson(call)
    return encodeJson({
      model,
      // The word has to stand in `input`; the instructions do not count.
      input: needsWord ? [...input, { role: "developer", content: jsonInstruction }] : input,
      instructions: call.system,
      store: false,
      stream: stream ? true : undefined,
      max_output_tokens: call.maxOutputTokens,
      temperature: call.temperature,
      ...format(call),
      tools:
        call.tools === undefined || call.tools.length === 0
          ? undefined
          : call.tools.map(({ description, name, parameters }) => ({
              type: "function" as const,
              name,
              description,
              parameters,
              strict: false
            })),
      tool_choice: choice(call)
    } satisfies Request)
  })

const usageOf = (usage: typeof UsageBody.Type): Usage => ({
  inputTokens: usage.input_tokens,
  cachedInputTokens: usage.input_tokens_details?.cached_tokens ?? 0,
  outputTokens: usage.output_tokens,
  reasoningTokens: usage.output_tokens_details?.reasoning_tokens ?? 0
})

const finishOf = (response: typeof Ending.Type, hasToolCalls: boolean): Either.Either<FinishReason, WireProblem> => {
  const reason = response.incomplete_details?.reason
  if (reason === "content_filter") {
    return Either.left(policy("content_filter", "the answer was cut by the content filter"))
  }
  if (reason === "max_output_tokens") {
    return Either.right("length")
  }
  if ((response.status ?? "completed") !== "completed") {
    return Either.left(malformed(`the response ended as ${response.status} (${reason ?? "no reason given"})`))
  }
  return Either.right(hasToolCalls ? "tool-calls" : "stop")
}

const toolCallOf = (item: typeof FunctionCallItem.Type): ToolCall => ({
  id: item.call_id,
  name: item.name,
  arguments: item.arguments
})

const failedError = (response: unknown): WireProblem | undefined =>
  isFailedResponse(response)
    ? providerError(
        JSON.stringify({ error: response.error ?? { message: `the response ended as ${response.status}` } })
      )
    : undefined

const completionOf = (response: typeof ResponseBody.Type): Either.Either<Completion, WireProblem> =>
  Either.gen(function* () {
    let text = ""
    const toolCalls: Array<ToolCall> = []
    for (const item of response.output) {
      if (item.type === "message") {
        for (const part of (yield* decodeMessageItem(item)).content) {
          if (part.type === "refusal") {
            return yield* Either.left(policy("refusal", part.refusal))
          }
          text += part.text
        }
      } else if (item.type === "function_call") {
        toolCalls.push(toolCallOf(yield* decodeFunctionCall(item)))
      }
    }
    const finishReason = yield* finishOf(response, toolCalls.length > 0)
    return { text, toolCalls, finishReason, model: response.model, usage: usageOf(response.usage) }
  })

const decodeCompletion: Wire["decodeCompletion"] = (body) =>
  Either.gen(function* () {
    const value = yield* parseJson(body, "the response")
    const failed = failedError(value)
    if (failed !== undefined || isErrorValue(value)) {
      return yield* Either.left(failed ?? providerError(body))
    }
    return yield* completionOf(yield* decodeResponse(value))
  })

const none: Decoded = { deltas: [], progress: false }
const progress: Decoded = { deltas: [], progress: true }

// Asked of every event: the schemas come in only to say what is wrong with one.
const isEvent = (value: unknown): value is Event =>
  Predicate.hasProperty(value, "type") && Predicate.isString(value.type)
const eventOf = (value: unknown): Either.Either<Event, WireProblem> =>
  isEvent(value) ? Either.right(value) : decodeEvent(value)
const deltaOf = (event: Event): Either.Either<string, WireProblem> =>
  Predicate.isString(event.delta) ? Either.right(event.delta) : Either.map(decodeDelta(event), ({ delta }) => delta)
const itemOf = (event: Event): Either.Either<Event, WireProblem> =>
  isEvent(event.item) ? Either.right(event.item) : Either.map(decodeItem(event), ({ item }) => item)

const textOf = (text: string): Decoded => ({ deltas: text === "" ? [] : [{ _tag: "Text", text }], progress: true })

const makeStreamDecoder: Wire["makeStreamDecoder"] = () => {
  let state: DecoderState = "open"
  let toolCalls = 0
  let refusal = ""

  const final = (response: unknown): Either.Either<ReadonlyArray<Delta>, WireProblem> =>
    Either.gen(function* () {
      const body = yield* decodeEnding(response)
      const finishReason = yield* finishOf(body, toolCalls > 0)
      if (refusal !== "") {
        return yield* Either.left(policy("refusal", refusal))
      }
      state = "finished"
      return [{ _tag: "Finish" as const, finishReason, model: body.model, usage: usageOf(body.usage) }]
    })

  const refused = (delta: string): Decoded => {
    refusal += delta
    return progress
  }
  const called = (item: typeof FunctionCallItem.Type): Decoded => {
    toolCalls++
    return { deltas: [{ _tag: "ToolCall", toolCall: toolCallOf(item) }], progress: true }
  }

  const read = (event: Event, data: string): Either.Either<Decoded, WireProblem> => {
    switch (event.type) {
      case "response.output_text.delta":
        return Either.map(deltaOf(event), textOf)
      case "error":
        return Either.left(providerError(data))
      case "response.failed":
        return Either.flatMap(decodeFinal(event), ({ response }) =>
          Either.left(failedError(response) ?? providerError(data))
        )
      case "response.refusal.delta":
        return Either.map(deltaOf(event), refused)
      case "response.reasoning_text.delta":
      case "response.reasoning_summary_text.delta":
      case "response.function_call_arguments.delta":
        return Either.right(progress)
      case "response.output_item.done":
        return Either.flatMap(itemOf(event), (item) =>
          item.type === "function_call" ? Either.map(decodeFunctionCall(item), called) : Either.right(none)
        )
      case "response.completed":
      case "response.incomplete":
        return Either.flatMap(decodeFinal(event), ({ response }) =>
          Either.map(final(response), (deltas) => ({ deltas, progress: true }))
        )
      default:
        return Either.right(none)
    }
  }

  return {
    state: () => state,
    event: (data) => {
      if (state === "finished" || data === "[DONE]") return Either.right(none)
      const value = parseJson(data, "an event of the stream")
      if (Either.isLeft(value)) return Either.left(value.left)
      if (isErrorValue(value.right)) return Either.left(providerError(data))
      return Either.flatMap(eventOf(value.right), (event) => read(event, data))
    },
    end: () =>
      state === "finished"
        ? Either.right([])
        : Either.left(malformed("the stream was cut off: it ended without response.completed"))
  }
}

/**
 * OpenAI's Responses API (https://platform.openai.com/docs/api-reference/responses). Nothing is stored at the provider
 * (`store: false`).
 */
export const openAiResponses: Wire = {
  authorization,
  completePath: () => "/responses",
  streamPath: () => "/responses",
  modelsPath: "/models",
  encode,
  decodeCompletion,
  decodeModels,
  makeStreamDecoder
}
