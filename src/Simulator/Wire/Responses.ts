import { Either, Schema } from "effect"
import type { Answer } from "../Answer.js"
import { type BadRequest, isRecord, type SimulatedRequest } from "../Request.js"
import { type AnswerWriter, decoder, type Frame, orNull, textOf } from "../Wire.js"

const Part = Schema.Union(
  Schema.Struct({ type: Schema.Literal("input_text", "output_text"), text: Schema.String }),
  Schema.Struct({ type: Schema.Literal("input_image"), image_url: orNull(Schema.String) })
)

const Item = Schema.Union(
  Schema.Struct({
    type: Schema.optional(Schema.Literal("message")),
    role: Schema.Literal("system", "developer", "user", "assistant"),
    content: Schema.Union(Schema.String, Schema.Array(Part))
  }),
  Schema.Struct({
    type: Schema.Literal("function_call"),
    call_id: Schema.String,
    name: Schema.String,
    arguments: Schema.String
  }),
  Schema.Struct({ type: Schema.Literal("function_call_output"), call_id: Schema.String, output: Schema.Unknown }),
  Schema.Struct({ type: Schema.Literal("reasoning", "item_reference") })
)

const ResponsesRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  input: Schema.Union(Schema.String, Schema.NonEmptyArray(Item)),
  instructions: orNull(Schema.String),
  stream: orNull(Schema.Boolean),
  max_output_tokens: orNull(Schema.Int.pipe(Schema.positive())),
  temperature: orNull(Schema.Number.pipe(Schema.between(0, 2))),
  text: orNull(
    Schema.Struct({
      format: orNull(
        Schema.Union(
          Schema.Struct({ type: Schema.Literal("text", "json_object") }),
          Schema.Struct({ type: Schema.Literal("json_schema"), name: Schema.NonEmptyString, schema: Schema.Unknown })
        )
      )
    })
  ),
  tools: orNull(
    Schema.Array(
      Schema.Struct({
        type: Schema.String,
        name: orNull(Schema.String),
        description: orNull(Schema.String),
        parameters: orNull(Schema.Unknown)
      })
    )
  ),
  tool_choice: orNull(
    Schema.Union(
      Schema.Literal("auto", "none", "required"),
      Schema.Struct({ type: Schema.Literal("function"), name: Schema.String })
    )
  )
}).annotations({ identifier: "a response request" })

const decode = decoder(ResponsesRequest)

const itemText = (item: typeof Item.Type): string => {
  if (!("content" in item)) return textOf(item)
  return typeof item.content === "string"
    ? item.content
    : item.content.map((part) => ("text" in part ? part.text : "")).join("")
}

/** Every function call has its output among the items, after it, and no output is that of another one. */
const unpaired = (items: ReadonlyArray<typeof Item.Type>): BadRequest | undefined => {
  const open = new Set<string>()
  const answered = new Set<string>()
  for (const item of items) {
    if (!("call_id" in item)) continue
    if (item.type === "function_call") open.add(item.call_id)
    else if (open.delete(item.call_id)) answered.add(item.call_id)
    else if (!answered.has(item.call_id)) {
      return { message: `No tool call found for function call output with call_id ${item.call_id}.`, param: "input" }
    }
  }
  const [first] = open
  return first === undefined
    ? undefined
    : { message: `No tool output found for function call ${first}.`, param: "input" }
}

const decodePaired = (body: unknown) =>
  Either.flatMap(decode(body), (request) => {
    const problem = typeof request.input === "string" ? undefined : unpaired(request.input)
    return problem === undefined ? Either.right(request) : Either.left(problem)
  })

export const readResponses = (body: unknown): Either.Either<SimulatedRequest, BadRequest> =>
  Either.map(decodePaired(body), (request) => {
    const input = request.input
    const items = typeof input === "string" ? [] : input
    const inputTexts = typeof input === "string" ? [input] : items.map(itemText)
    const last = items[items.length - 1]
    const format = request.text?.format ?? undefined
    const choice = request.tool_choice ?? "auto"
    return {
      model: request.model,
      stream: request.stream === true,
      includeUsage: true,
      sse: true,
      texts: [
        request.instructions ?? "",
        ...inputTexts,
        ...(request.tools ?? []).map(({ description, name, parameters }) => textOf({ name, description, parameters })),
        format?.type === "json_schema" ? textOf(format.schema) : ""
      ],
      images: items.reduce(
        (sum, item) =>
          sum +
          ("content" in item && Array.isArray(item.content)
            ? item.content.filter((part) => part.type === "input_image").length
            : 0),
        0
      ),
      prompt:
        typeof input === "string"
          ? input
          : last !== undefined && "role" in last && last.role === "user"
            ? itemText(last)
            : "",
      maxOutputTokens: request.max_output_tokens ?? undefined,
      json:
        format === undefined || format.type === "text"
          ? undefined
          : { schema: format.type === "json_schema" ? format.schema : undefined },
      // The instructions do not count.
      speaksOfJson: inputTexts.some((text) => /json/i.test(text)),
      tools: (request.tools ?? []).flatMap((tool) =>
        tool.type === "function" && typeof tool.name === "string"
          ? [{ name: tool.name, parameters: tool.parameters ?? { type: "object", properties: {} } }]
          : []
      ),
      toolChoice: typeof choice === "string" ? choice : { name: choice.name }
    }
  })

const usageOf = (answer: Answer) => ({
  input_tokens: answer.inputTokens,
  input_tokens_details: { cached_tokens: answer.cachedTokens },
  output_tokens: answer.outputTokens,
  output_tokens_details: { reasoning_tokens: answer.reasoningTokens },
  total_tokens: answer.inputTokens + answer.outputTokens
})

const reasoningItem = (answer: Answer) => ({ id: `rs_${answer.id}`, type: "reasoning", summary: [] })

const textPart = (text: string) => ({ type: "output_text", text, annotations: [], logprobs: [] })

const messageItem = (answer: Answer, status: string, text: string | undefined) => ({
  id: `msg_${answer.id}`,
  type: "message",
  status,
  role: "assistant",
  content: text === undefined ? [] : [textPart(text)]
})

const toolItem = (answer: Answer, name: string, status: string, args: string) => ({
  id: `fc_${answer.id}`,
  type: "function_call",
  status,
  call_id: `call_${answer.id}`,
  name,
  arguments: args
})

const mainItem = (answer: Answer, status: string, text: string | undefined) =>
  answer.tool === undefined ? messageItem(answer, status, text) : toolItem(answer, answer.tool.name, status, text ?? "")

const endStatus = (answer: Answer): "completed" | "incomplete" =>
  answer.finish === "length" ? "incomplete" : "completed"

const response = (
  answer: Answer,
  createdAt: number,
  status: "in_progress" | "completed" | "incomplete" | "failed",
  error: unknown = null
) => {
  const ended = status === "completed" || status === "incomplete"
  return {
    id: `resp_${answer.id}`,
    object: "response",
    created_at: createdAt,
    status,
    error,
    incomplete_details: status === "incomplete" ? { reason: "max_output_tokens" } : null,
    model: answer.model,
    output: ended
      ? [
          ...(answer.reasoningTokens > 0 ? [reasoningItem(answer)] : []),
          mainItem(answer, status, answer.tool?.arguments ?? answer.text)
        ]
      : [],
    parallel_tool_calls: true,
    previous_response_id: null,
    usage: ended ? usageOf(answer) : null,
    metadata: {}
  }
}

/** What a failed response says of itself: OpenAI's errors carry code and message in there. */
const failureOf = (error: unknown): { readonly code: string; readonly message: string } => {
  const inner = isRecord(error) && isRecord(error.error) ? error.error : {}
  return {
    code: typeof inner.code === "string" ? inner.code : "server_error",
    message: typeof inner.message === "string" ? inner.message : "The model failed to answer."
  }
}

const event = (type: string, sequence: number, fields: object): string =>
  `event: ${type}\ndata: ${JSON.stringify({ type, sequence_number: sequence, ...fields })}\n\n`

export const responsesWriter: AnswerWriter = {
  whole: (answer, createdAt) => response(answer, createdAt, endStatus(answer)),
  frames: (answer, _, createdAt) => {
    const frames: Array<Frame> = []
    const send = (afterMs: number, type: string, fields: object) => {
      frames.push({ afterMs, data: event(type, frames.length, fields) })
    }
    const reasoning = answer.reasoningTokens > 0
    const output_index = reasoning ? 1 : 0
    const text = answer.tool?.arguments ?? answer.text
    const item_id = answer.tool === undefined ? `msg_${answer.id}` : `fc_${answer.id}`
    const place = { item_id, output_index, content_index: 0 }
    send(0, "response.created", { response: response(answer, createdAt, "in_progress") })
    send(0, "response.in_progress", { response: response(answer, createdAt, "in_progress") })
    if (reasoning) {
      send(0, "response.output_item.added", { output_index: 0, item: reasoningItem(answer) })
    }
    const firstAfterMs = answer.pieces[0]?.afterMs ?? 0
    if (reasoning) send(firstAfterMs, "response.output_item.done", { output_index: 0, item: reasoningItem(answer) })
    send(reasoning ? 0 : firstAfterMs, "response.output_item.added", {
      output_index,
      item: mainItem(answer, "in_progress", undefined)
    })
    if (answer.tool === undefined) send(0, "response.content_part.added", { ...place, part: textPart("") })
    for (const [index, piece] of answer.pieces.entries()) {
      const afterMs = index === 0 ? 0 : piece.afterMs
      if (answer.tool === undefined)
        send(afterMs, "response.output_text.delta", { ...place, delta: piece.text, logprobs: [] })
      else send(afterMs, "response.function_call_arguments.delta", { item_id, output_index, delta: piece.text })
    }
    if (answer.tool === undefined) {
      send(0, "response.output_text.done", { ...place, text, logprobs: [] })
      send(0, "response.content_part.done", { ...place, part: textPart(text) })
    } else {
      send(0, "response.function_call_arguments.done", {
        item_id,
        output_index,
        name: answer.tool.name,
        arguments: text
      })
    }
    const status = endStatus(answer)
    send(0, "response.output_item.done", { output_index, item: mainItem(answer, status, text) })
    send(0, `response.${status}`, { response: response(answer, createdAt, status) })
    return frames
  },
  failedFrame: (answer, error, createdAt) =>
    event("response.failed", answer.pieces.length + 100, {
      response: response(answer, createdAt, "failed", failureOf(error))
    }),
  failedWhole: (answer, error, createdAt) => response(answer, createdAt, "failed", failureOf(error)),
  brokenFrame: 'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":\n\n'
}
