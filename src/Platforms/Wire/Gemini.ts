import { Either, Schema } from "effect"
import {
  type Call,
  type Completion,
  type Delta,
  type FinishReason,
  type Message,
  type ToolCall,
  type Turn,
  toolCallsOf
} from "../../Domain/Call.js"
import type { Usage } from "../../Domain/Usage.js"
import {
  type Decoded,
  decodeJson,
  decodeValue,
  encodeJson,
  isErrorValue,
  JsonObject,
  malformed,
  maybe,
  parseJson,
  policy,
  providerError,
  TokenCount,
  type Wire,
  type WireProblem
} from "../Wire.js"

type JsonValues = typeof JsonObject.Type

type RequestPart =
  | { readonly text: string }
  | { readonly inlineData: { readonly mimeType: string; readonly data: string } }
  | { readonly fileData: { readonly mimeType: string | undefined; readonly fileUri: string } }
  | { readonly functionCall: { readonly name: string; readonly args: JsonValues }; readonly thoughtSignature?: string }
  | { readonly functionResponse: { readonly name: string; readonly response: JsonValues } }

interface Request {
  readonly contents: ReadonlyArray<{ readonly role: "user" | "model"; readonly parts: ReadonlyArray<RequestPart> }>
  readonly systemInstruction: { readonly parts: ReadonlyArray<{ readonly text: string }> } | undefined
  readonly tools:
    | ReadonlyArray<{
        readonly functionDeclarations: ReadonlyArray<{
          readonly name: string
          readonly description: string | undefined
          readonly parametersJsonSchema: JsonValues
        }>
      }>
    | undefined
  readonly toolConfig:
    | {
        readonly functionCallingConfig: {
          readonly mode: "AUTO" | "ANY" | "NONE"
          readonly allowedFunctionNames?: ReadonlyArray<string>
        }
      }
    | undefined
  readonly generationConfig:
    | {
        readonly maxOutputTokens: number | undefined
        readonly temperature: number | undefined
        readonly responseMimeType: "application/json" | undefined
        readonly responseJsonSchema: JsonValues | undefined
      }
    | undefined
}

const UsageBody = Schema.Struct({
  promptTokenCount: TokenCount,
  candidatesTokenCount: maybe(TokenCount),
  thoughtsTokenCount: maybe(TokenCount),
  cachedContentTokenCount: maybe(TokenCount)
})

const ResponsePart = Schema.Struct({
  text: maybe(Schema.String),
  thought: maybe(Schema.Boolean),
  functionCall: maybe(Schema.Struct({ id: maybe(Schema.String), name: Schema.String, args: maybe(JsonObject) }))
})

const ResponseBody = Schema.Struct({
  candidates: maybe(
    Schema.Array(
      Schema.Struct({
        content: maybe(Schema.Struct({ parts: maybe(Schema.Array(ResponsePart)) })),
        finishReason: maybe(Schema.String),
        finishMessage: maybe(Schema.String)
      })
    )
  ),
  promptFeedback: maybe(Schema.Struct({ blockReason: maybe(Schema.String), blockReasonMessage: maybe(Schema.String) })),
  usageMetadata: maybe(UsageBody),
  modelVersion: maybe(Schema.String)
})
const decodeResponse = decodeValue(ResponseBody, "the response")

const decodeModelList = decodeJson(
  Schema.Struct({ models: Schema.Array(Schema.Struct({ name: Schema.String })) }),
  "the list of models"
)

const imageType: Readonly<Record<string, string>> = {
  png: "image/png",
  jpg: "image/jpeg",
  jpeg: "image/jpeg",
  gif: "image/gif",
  webp: "image/webp"
}

const parts = (content: Message["content"]): ReadonlyArray<RequestPart> =>
  typeof content === "string"
    ? [{ text: content }]
    : content.map((part) => {
        if (part.type === "text") {
          return { text: part.text }
        }
        if (part.source.kind === "base64") {
          return { inlineData: { mimeType: part.source.mediaType, data: part.source.data } }
        }
        const extension = /\.([a-z]+)(?:[?#]|$)/i.exec(part.source.url)?.[1]?.toLowerCase()
        const mimeType = extension === undefined ? undefined : imageType[extension]
        return { fileData: { mimeType, fileUri: part.source.url } }
      })

/**
 * Stands for the signature of a thought that this model did not have: Gemini 3 refuses a function call of the
 * conversation that has none (https://ai.google.dev/gemini-api/docs/thought-signatures), and turns may come from elsewhere.
 */
const foreignThought = "skip_thought_signature_validator"

const objectOf = decodeJson(JsonObject, "an object")

/** Gemini takes objects only; what is none is put into one. */
const objectIn = (text: string, name: string): Record<string, unknown> =>
  Either.match(objectOf(text), { onLeft: () => ({ [name]: text }), onRight: (object) => ({ ...object }) })

const partsOf = (turn: Turn): ReadonlyArray<RequestPart> => {
  if (turn.role === "tool") {
    return [{ functionResponse: { name: turn.name, response: objectIn(turn.content, "output") } }]
  }
  const calls = toolCallsOf(turn).map(
    ({ arguments: given, name }, index): RequestPart => ({
      functionCall: { name, args: given === "" ? {} : objectIn(given, "input") },
      // Of calls made at once the first one carries the thought.
      ...(index === 0 ? { thoughtSignature: foreignThought } : {})
    })
  )
  return turn.content === "" && calls.length > 0 ? calls : [...parts(turn.content), ...calls]
}

/** Results of calls made at once come in one turn, as many of them as there were calls. */
const contentsOf = (turns: Call["messages"]): Request["contents"] => {
  const contents: Array<{ readonly role: "user" | "model"; readonly parts: ReadonlyArray<RequestPart> }> = []
  let before: Turn["role"] | undefined
  for (const turn of turns) {
    const last = contents.at(-1)
    if (turn.role === "tool" && before === "tool" && last !== undefined) {
      contents[contents.length - 1] = { ...last, parts: [...last.parts, ...partsOf(turn)] }
    } else {
      contents.push({ role: turn.role === "assistant" ? "model" : "user", parts: partsOf(turn) })
    }
    before = turn.role
  }
  return contents
}

const choice = ({ toolChoice, tools = [] }: Call): Request["toolConfig"] => {
  if (tools.length === 0 || toolChoice === undefined) return undefined
  if (typeof toolChoice !== "string") {
    return { functionCallingConfig: { mode: "ANY", allowedFunctionNames: [toolChoice.name] } }
  }
  const mode = { auto: "AUTO", none: "NONE", required: "ANY" } as const
  return { functionCallingConfig: { mode: mode[toolChoice] } }
}

const config = (call: Call): Request["generationConfig"] => {
  const json = call.responseFormat?.type === "json" ? call.responseFormat : undefined
  return call.maxOutputTokens === undefined && call.temperature === undefined && json === undefined
    ? undefined
    : {
        maxOutputTokens: call.maxOutputTokens,
        temperature: call.temperature,
        responseMimeType: json === undefined ? undefined : "application/json",
        responseJsonSchema: json?.schema
      }
}

const encode: Wire["encode"] = ({ call }) =>
  encodeJson({
    contents: contentsOf(call.messages),
    systemInstruction: call.system === undefined ? undefined : { parts: [{ text: call.system }] },
    tools:
      call.tools === undefined || call.tools.length === 0
        ? undefined
        : [
            {
              functionDeclarations: call.tools.map((tool) => ({
                name: tool.name,
                description: tool.description,
                parametersJsonSchema: tool.parameters
              }))
            }
          ],
    toolConfig: choice(call),
    generationConfig: config(call)
  } satisfies Request)

const usageOf = (usage: typeof UsageBody.Type): Usage => {
  const thoughts = usage.thoughtsTokenCount ?? 0
  return {
    inputTokens: usage.promptTokenCount,
    cachedInputTokens: usage.cachedContentTokenCount ?? 0,
    // Thoughts are billed as output and are not inside `candidatesTokenCount`.
    outputTokens: (usage.candidatesTokenCount ?? 0) + thoughts,
    reasoningTokens: thoughts
  }
}

const policyReasons = new Set([
  "SAFETY",
  "RECITATION",
  "PROHIBITED_CONTENT",
  "SPII",
  "BLOCKLIST",
  "IMAGE_SAFETY",
  "IMAGE_PROHIBITED_CONTENT",
  "IMAGE_RECITATION"
])

const finishOf = (
  reason: string,
  message: string | null | undefined,
  hasToolCalls: boolean
): Either.Either<FinishReason, WireProblem> => {
  if (reason === "STOP") {
    return Either.right(hasToolCalls ? "tool-calls" : "stop")
  }
  if (reason === "MAX_TOKENS") {
    return Either.right("length")
  }
  return Either.left(
    policyReasons.has(reason)
      ? policy(reason, message || `the answer was blocked: ${reason}`)
      : malformed(`the answer ended with the finish reason ${reason}${message ? `: ${message}` : ""}`)
  )
}

/** Gathers the answer from one response or from the chunks of a stream. */
const makeCollector = (requestedModel: string) => {
  let model = requestedModel
  let usage: Usage | undefined
  let finish: { readonly reason: string; readonly message: string | null | undefined } | undefined
  let toolCalls = 0

  const add = (value: unknown, body: string): Either.Either<Decoded, WireProblem> =>
    Either.gen(function* () {
      if (isErrorValue(value)) {
        return yield* Either.left(providerError(body))
      }
      const response = yield* decodeResponse(value)
      const block = response.promptFeedback?.blockReason
      if (block) {
        return yield* Either.left(
          policy(block, response.promptFeedback?.blockReasonMessage || `the prompt was blocked: ${block}`)
        )
      }
      model = response.modelVersion ?? model
      usage = response.usageMetadata ? usageOf(response.usageMetadata) : usage
      const candidate = response.candidates?.[0]
      if (candidate?.finishReason) {
        finish = { reason: candidate.finishReason, message: candidate.finishMessage }
      }
      const deltas: Array<Delta> = []
      let progress = Boolean(candidate?.finishReason)
      for (const part of candidate?.content?.parts ?? []) {
        progress = true
        if (part.functionCall) {
          const { args, id, name } = part.functionCall
          deltas.push({
            _tag: "ToolCall",
            toolCall: { id: id || `call_${toolCalls}`, name, arguments: JSON.stringify(args ?? {}) }
          })
          toolCalls++
        } else if (part.text && part.thought !== true) {
          deltas.push({ _tag: "Text", text: part.text })
        }
      }
      return { deltas, progress }
    })

  const end = (): Either.Either<Extract<Delta, { _tag: "Finish" }>, WireProblem> =>
    Either.gen(function* () {
      if (finish === undefined) {
        return yield* Either.left(malformed("the answer was cut off: it ended without finishReason"))
      }
      const finishReason = yield* finishOf(finish.reason, finish.message, toolCalls > 0)
      if (usage === undefined) {
        return yield* Either.left(malformed("the response is malformed: usageMetadata: is missing"))
      }
      return { _tag: "Finish" as const, finishReason, model, usage }
    })

  return { add, end, isComplete: () => finish !== undefined && usage !== undefined }
}

const decodeCompletion: Wire["decodeCompletion"] = (body, requestedModel) =>
  Either.gen(function* () {
    const collector = makeCollector(requestedModel)
    const { deltas } = yield* collector.add(yield* parseJson(body, "the response"), body)
    const { finishReason, model, usage } = yield* collector.end()
    let text = ""
    const toolCalls: Array<ToolCall> = []
    for (const delta of deltas) {
      if (delta._tag === "Text") {
        text += delta.text
      } else if (delta._tag === "ToolCall") {
        toolCalls.push(delta.toolCall)
      }
    }
    const completion: Completion = { text, toolCalls, finishReason, model, usage }
    return completion
  })

const makeStreamDecoder: Wire["makeStreamDecoder"] = (requestedModel) => {
  const collector = makeCollector(requestedModel)
  let finished = false
  return {
    state: () => (finished ? "finished" : collector.isComplete() ? "complete" : "open"),
    event: (data) => Either.flatMap(parseJson(data, "an event of the stream"), (value) => collector.add(value, data)),
    end: () =>
      finished
        ? Either.right([])
        : Either.map(collector.end(), (finish) => {
            finished = true
            return [finish]
          })
  }
}

const modelPath = (model: string): string =>
  /^(models|tunedModels)\//.test(model) ? model : `models/${encodeURIComponent(model)}`

/** Gemini's generateContent (https://ai.google.dev/api/generate-content), version v1beta. */
export const gemini: Wire = {
  authorization: (secret) => ({ "x-goog-api-key": secret }),
  completePath: (model) => `/${modelPath(model)}:generateContent`,
  streamPath: (model) => `/${modelPath(model)}:streamGenerateContent?alt=sse`,
  modelsPath: "/models?pageSize=1000",
  encode,
  decodeCompletion,
  decodeModels: (body) =>
    Either.map(decodeModelList(body), (list) => list.models.map((model) => model.name.replace(/^models\//, ""))),
  makeStreamDecoder
}
