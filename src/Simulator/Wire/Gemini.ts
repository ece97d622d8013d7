import { Either, Schema } from "effect"
import type { Answer } from "../Answer.js"
import { type BadRequest, isRecord, type SimulatedRequest } from "../Request.js"
import { type AnswerWriter, decoder, type Frame, orNull, textOf } from "../Wire.js"

const Part = Schema.Struct({
  text: orNull(Schema.String),
  inlineData: orNull(Schema.Struct({ mimeType: Schema.String, data: Schema.String })),
  fileData: orNull(Schema.Struct({ fileUri: Schema.String })),
  functionCall: orNull(Schema.Struct({ name: Schema.NonEmptyString, args: orNull(Schema.Object) })),
  functionResponse: orNull(Schema.Struct({ name: Schema.NonEmptyString, response: Schema.Object })),
  thoughtSignature: orNull(Schema.String)
})

const Content = Schema.Struct({
  role: orNull(Schema.Literal("user", "model", "function")),
  parts: Schema.NonEmptyArray(Part)
})

const Tools = Schema.Array(
  Schema.Struct({
    functionDeclarations: orNull(
      Schema.Array(
        Schema.Struct({
          name: Schema.NonEmptyString,
          description: orNull(Schema.String),
          parameters: orNull(Schema.Unknown),
          parametersJsonSchema: orNull(Schema.Unknown)
        })
      )
    )
  })
)

const GeminiRequest = Schema.Struct({
  contents: Schema.NonEmptyArray(Content),
  systemInstruction: orNull(Schema.Struct({ parts: Schema.Array(Part) })),
  tools: orNull(Tools),
  toolConfig: orNull(
    Schema.Struct({
      functionCallingConfig: orNull(
        Schema.Struct({
          mode: orNull(Schema.Literal("MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED")),
          allowedFunctionNames: orNull(Schema.Array(Schema.String))
        })
      )
    })
  ),
  generationConfig: orNull(
    Schema.Struct({
      maxOutputTokens: orNull(Schema.Int.pipe(Schema.positive())),
      temperature: orNull(Schema.Number.pipe(Schema.between(0, 2))),
      responseMimeType: orNull(Schema.Literal("text/plain", "application/json", "text/x.enum")),
      responseSchema: orNull(Schema.Unknown),
      responseJsonSchema: orNull(Schema.Unknown)
    })
  )
}).annotations({ identifier: "a GenerateContentRequest" })

/** The fields of a request. Gemini refuses any other by name, where OpenAI's wires pass over it. */
const knownFields = new Set([
  "contents",
  "systemInstruction",
  "tools",
  "toolConfig",
  "generationConfig",
  "safetySettings",
  "cachedContent",
  "labels",
  "model",
  "store",
  "serviceTier"
])

const decode = decoder(GeminiRequest)

const camelCase = (name: string): string => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())

/** `system_instruction` and `systemInstruction` are the same field to Google's JSON. */
const withCamelCaseFields = (body: unknown): unknown =>
  isRecord(body) ? Object.fromEntries(Object.entries(body).map(([key, value]) => [camelCase(key), value])) : body

const partsText = (parts: ReadonlyArray<typeof Part.Type>): string =>
  parts
    .map((part) => part.text ?? `${textOf(part.functionCall)}${textOf(part.functionResponse)}`)
    .filter((text) => text !== "")
    .join("")

const count = (content: typeof Content.Type | undefined, what: "functionCall" | "functionResponse"): number =>
  (content?.parts ?? []).filter((part) => part[what] !== undefined && part[what] !== null).length

/** As many responses follow as there were calls; and the first call of a step has a thought's signature, for Gemini 3. */
const unpaired = (contents: ReadonlyArray<typeof Content.Type>): BadRequest | undefined => {
  for (const [index, content] of contents.entries()) {
    const calls = count(content, "functionCall")
    if (calls !== count(contents[index + 1], "functionResponse")) {
      return {
        message:
          "Please ensure that the number of function response parts is equal to the number of function call parts of " +
          "the function call turn.",
        param: undefined
      }
    }
    const first = content.parts.find(({ functionCall }) => functionCall !== undefined && functionCall !== null)
    if (first !== undefined && !first.thoughtSignature) {
      return {
        message: `Function call is missing a thought_signature in functionCall parts. Function call: ${first.functionCall?.name}, position ${index}.`,
        param: undefined
      }
    }
  }
  return count(contents[0], "functionResponse") === 0
    ? undefined
    : {
        message: "Please ensure that function response turn comes immediately after a function call turn.",
        param: undefined
      }
}

export const readGemini = (
  body: unknown,
  route: { readonly model: string; readonly stream: boolean; readonly sse: boolean }
): Either.Either<SimulatedRequest, BadRequest> => {
  const named = withCamelCaseFields(body)
  const unknown = isRecord(named) ? Object.keys(named).find((key) => !knownFields.has(key)) : undefined
  if (unknown !== undefined) {
    return Either.left({
      message: `Invalid JSON payload received. Unknown name "${unknown}": Cannot find field.`,
      param: unknown
    })
  }
  const read = Either.flatMap(decode(named), (request) => {
    const problem = unpaired(request.contents)
    return problem === undefined ? Either.right(request) : Either.left(problem)
  })
  return Either.map(read, (request) => {
    const last = request.contents[request.contents.length - 1]
    const config = request.generationConfig
    const schema = config?.responseJsonSchema ?? config?.responseSchema ?? undefined
    const calling = request.toolConfig?.functionCallingConfig
    const allowed = calling?.allowedFunctionNames?.[0]
    const declarations = (request.tools ?? []).flatMap((tool) => tool.functionDeclarations ?? [])
    return {
      model: route.model,
      stream: route.stream,
      includeUsage: true,
      sse: route.sse,
      texts: [
        partsText(request.systemInstruction?.parts ?? []),
        ...request.contents.map(({ parts }) => partsText(parts)),
        ...declarations.map(textOf),
        textOf(schema)
      ],
      images: request.contents.reduce(
        (sum, { parts }) => sum + parts.filter((part) => isRecord(part.inlineData) || isRecord(part.fileData)).length,
        0
      ),
      prompt:
        last !== undefined && (last.role ?? "user") === "user"
          ? last.parts.map((part) => part.text ?? "").join("")
          : "",
      maxOutputTokens: config?.maxOutputTokens ?? undefined,
      json: config?.responseMimeType === "application/json" ? { schema } : undefined,
      speaksOfJson: true,
      tools: declarations.map(({ name, parameters, parametersJsonSchema }) => ({
        name,
        parameters: parametersJsonSchema ?? parameters ?? { type: "object", properties: {} }
      })),
      toolChoice:
        calling?.mode === "NONE"
          ? "none"
          : calling?.mode === "ANY"
            ? allowed === undefined
              ? "required"
              : { name: allowed }
            : "auto"
    }
  })
}

/** `countTokens` takes contents alone, or a whole `generateContentRequest`. */
export const readGeminiCount = (body: unknown, model: string): Either.Either<SimulatedRequest, BadRequest> => {
  const fields = withCamelCaseFields(body)
  const whole = isRecord(fields) && "generateContentRequest" in fields
  return readGemini(whole ? fields.generateContentRequest : body, {
    model,
    stream: false,
    sse: false
  })
}

const usageOf = (answer: Answer) => ({
  promptTokenCount: answer.inputTokens,
  candidatesTokenCount: answer.outputTokens - answer.reasoningTokens,
  totalTokenCount: answer.inputTokens + answer.outputTokens,
  ...(answer.cachedTokens > 0 ? { cachedContentTokenCount: answer.cachedTokens } : {}),
  ...(answer.reasoningTokens > 0 ? { thoughtsTokenCount: answer.reasoningTokens } : {})
})

/** The arguments as an object; Gemini gives no half-written ones: what was cut off is no call. */
const argumentsOf = (answer: Answer): unknown =>
  answer.tool === undefined || answer.finish === "length"
    ? undefined
    : Either.getOrUndefined(Schema.decodeUnknownEither(Schema.parseJson())(answer.tool.arguments))

const content = (answer: Answer, parts: ReadonlyArray<unknown>, last: boolean) => ({
  candidates: [
    {
      content: { parts, role: "model" },
      ...(last ? { finishReason: answer.finish === "length" ? "MAX_TOKENS" : "STOP" } : {}),
      index: 0
    }
  ],
  usageMetadata: usageOf(answer),
  modelVersion: answer.model,
  responseId: answer.id
})

const toolParts = (answer: Answer): ReadonlyArray<unknown> => {
  const args = argumentsOf(answer)
  return args === undefined ? [] : [{ functionCall: { id: `call_${answer.id}`, name: answer.tool?.name, args } }]
}

const whole = (answer: Answer) =>
  content(answer, answer.tool === undefined ? [{ text: answer.text }] : toolParts(answer), true)

const event = (data: unknown): string => `data: ${JSON.stringify(data)}\r\n\r\n`

export const geminiWriter: AnswerWriter = {
  whole,
  frames: (answer, request) => {
    const duration = answer.pieces.reduce((sum, piece) => sum + piece.afterMs, 0)
    const chunks: ReadonlyArray<{ readonly body: unknown; readonly afterMs: number }> =
      answer.tool !== undefined
        ? [{ body: whole(answer), afterMs: duration }]
        : answer.pieces.map(({ text, afterMs }, index) => ({
            body: content(answer, [{ text }], index === answer.pieces.length - 1),
            afterMs
          }))
    return request.sse
      ? chunks.map(({ body, afterMs }): Frame => ({ afterMs, data: event(body) }))
      : chunks.map(
          ({ body, afterMs }, index): Frame => ({
            afterMs,
            data: `${index === 0 ? "[" : ",\r\n"}${JSON.stringify(body)}${index === chunks.length - 1 ? "]" : ""}`
          })
        )
  },
  failedFrame: (_, error) => event(error),
  failedWhole: (_, error) => error,
  brokenFrame: 'data: {"candidates":[{"content":{"parts":[{"text":\r\n\r\n'
}
