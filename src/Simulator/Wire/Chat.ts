import { Either, Schema } from "effect"
import type { Answer } from "../Answer.js"
import type { BadRequest, SimulatedRequest } from "../Request.js"
import { type AnswerWriter, decoder, type Frame, orNull, textOf } from "../Wire.js"

const Part = Schema.Union(
  Schema.Struct({ type: Schema.Literal("text", "refusal"), text: Schema.optional(Schema.String) }),
  Schema.Struct({
    type: Schema.Literal("image_url"),
    image_url: Schema.Struct({ url: Schema.String })
  })
)

const ChatMessage = Schema.Struct({
  role: Schema.Literal("system", "developer", "user", "assistant", "tool"),
  content: orNull(Schema.Union(Schema.String, Schema.Array(Part))),
  tool_calls: orNull(
    Schema.Array(
      Schema.Struct({
        id: Schema.String,
        type: Schema.Literal("function"),
        function: Schema.Struct({ name: Schema.NonEmptyString, arguments: Schema.String })
      })
    )
  ),
  tool_call_id: orNull(Schema.String)
})

const ChatRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  messages: Schema.NonEmptyArray(ChatMessage),
  stream: orNull(Schema.Boolean),
  stream_options: orNull(Schema.Struct({ include_usage: orNull(Schema.Boolean) })),
  max_tokens: orNull(Schema.Int.pipe(Schema.positive())),
  max_completion_tokens: orNull(Schema.Int.pipe(Schema.positive())),
  temperature: orNull(Schema.Number.pipe(Schema.between(0, 2))),
  response_format: orNull(
    Schema.Union(
      Schema.Struct({ type: Schema.Literal("text", "json_object") }),
      Schema.Struct({
        type: Schema.Literal("json_schema"),
        json_schema: Schema.Struct({ name: Schema.NonEmptyString, schema: Schema.optional(Schema.Unknown) })
      })
    )
  ),
  tools: orNull(
    Schema.Array(
      Schema.Struct({
        type: Schema.Literal("function"),
        function: Schema.Struct({
          name: Schema.NonEmptyString,
          description: orNull(Schema.String),
          parameters: orNull(Schema.Unknown)
        })
      })
    )
  ),
  tool_choice: orNull(
    Schema.Union(
      Schema.Literal("auto", "none", "required"),
      Schema.Struct({ type: Schema.Literal("function"), function: Schema.Struct({ name: Schema.String }) })
    )
  )
}).annotations({ identifier: "a chat completion request" })

const decode = decoder(ChatRequest)

const contentText = (content: typeof ChatMessage.Type.content): string =>
  typeof content === "string"
    ? content
    : (content ?? []).map((part) => ("text" in part ? (part.text ?? "") : "")).join("")

/** Every tool call is answered by the messages right after it, and no message answers another one. */
const unpaired = (messages: ReadonlyArray<typeof ChatMessage.Type>): BadRequest | undefined => {
  let open = new Set<string>()
  const unanswered = (at: number): BadRequest => ({
    message:
      "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. " +
      `The following tool_call_ids did not have response messages: ${[...open].join(", ")}`,
    param: `messages.[${at}].role`
  })
  for (const [index, message] of messages.entries()) {
    if (message.role === "tool") {
      if (!open.delete(message.tool_call_id ?? "")) {
        return {
          message: "Messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
          param: `messages.[${index}].role`
        }
      }
    } else {
      if (open.size > 0) return unanswered(index)
      open = new Set((message.tool_calls ?? []).map(({ id }) => id))
    }
  }
  return open.size > 0 ? unanswered(messages.length) : undefined
}

const decodePaired = (body: unknown) =>
  Either.flatMap(decode(body), (request) => {
    const problem = unpaired(request.messages)
    return problem === undefined ? Either.right(request) : Either.left(problem)
  })

export const readChat = (body: unknown): Either.Either<SimulatedRequest, BadRequest> =>
  Either.map(decodePaired(body), (request) => {
    const contents = request.messages.map(({ content }) => contentText(content))
    const last = request.messages[request.messages.length - 1]
    const format = request.response_format ?? undefined
    const choice = request.tool_choice ?? "auto"
    return {
      model: request.model,
      stream: request.stream === true,
      includeUsage: request.stream_options?.include_usage === true,
      sse: true,
      texts: [
        ...contents,
        ...request.messages.map(({ tool_calls }) => textOf(tool_calls)),
        ...(request.tools ?? []).map((tool) => textOf(tool.function)),
        format?.type === "json_schema" ? textOf(format.json_schema.schema) : ""
      ],
      images: request.messages.reduce(
        (sum, { content }) =>
          sum + (Array.isArray(content) ? content.filter((part) => part.type === "image_url").length : 0),
        0
      ),
      prompt: last?.role === "user" ? contentText(last.content) : "",
      maxOutputTokens: request.max_completion_tokens ?? request.max_tokens ?? undefined,
      json:
        format === undefined || format.type === "text"
          ? undefined
          : { schema: format.type === "json_schema" ? format.json_schema.schema : undefined },
      speaksOfJson: contents.some((text) => /json/i.test(text)),
      tools: (request.tools ?? []).map((tool) => ({
        name: tool.function.name,
        parameters: tool.function.parameters ?? { type: "object", properties: {} }
      })),
      toolChoice: typeof choice === "string" ? choice : { name: choice.function.name }
    }
  })

const usageOf = (answer: Answer) => ({
  prompt_tokens: answer.inputTokens,
  completion_tokens: answer.outputTokens,
  total_tokens: answer.inputTokens + answer.outputTokens,
  prompt_tokens_details: { cached_tokens: answer.cachedTokens },
  completion_tokens_details: { reasoning_tokens: answer.reasoningTokens }
})

const finishOf = (answer: Answer): string => (answer.finish === "tool-calls" ? "tool_calls" : answer.finish)

const event = (data: unknown): string => `data: ${JSON.stringify(data)}\n\n`

export const chatWriter: AnswerWriter = {
  whole: (answer, createdAt) => ({
    id: `chatcmpl-${answer.id}`,
    object: "chat.completion",
    created: createdAt,
    model: answer.model,
    choices: [
      {
        index: 0,
        message:
          answer.tool === undefined
            ? { role: "assistant", content: answer.text }
            : {
                role: "assistant",
                content: null,
                tool_calls: [{ id: `call_${answer.id}`, type: "function", function: answer.tool }]
              },
        logprobs: null,
        finish_reason: finishOf(answer)
      }
    ],
    usage: usageOf(answer)
  }),
  frames: (answer, request, createdAt) => {
    const chunk = (choices: ReadonlyArray<unknown>, usage: unknown) =>
      event({
        id: `chatcmpl-${answer.id}`,
        object: "chat.completion.chunk",
        created: createdAt,
        model: answer.model,
        choices,
        ...(request.includeUsage ? { usage } : {})
      })
    const delta = (content: unknown, finish: string | null = null) =>
      chunk([{ index: 0, delta: content, logprobs: null, finish_reason: finish }], null)
    const tool = answer.tool
    const firstAfterMs = answer.pieces[0]?.afterMs ?? 0
    const frames: Array<Frame> = [
      {
        afterMs: firstAfterMs,
        data: delta(
          tool === undefined
            ? { role: "assistant", content: "" }
            : {
                role: "assistant",
                content: null,
                tool_calls: [
                  { index: 0, id: `call_${answer.id}`, type: "function", function: { name: tool.name, arguments: "" } }
                ]
              }
        )
      },
      ...answer.pieces.map(({ text, afterMs }, index) => ({
        afterMs: index === 0 ? 0 : afterMs,
        data: delta(
          tool === undefined ? { content: text } : { tool_calls: [{ index: 0, function: { arguments: text } }] }
        )
      })),
      { afterMs: 0, data: delta({}, finishOf(answer)) }
    ]
    if (request.includeUsage) frames.push({ afterMs: 0, data: chunk([], usageOf(answer)) })
    frames.push({ afterMs: 0, data: "data: [DONE]\n\n" })
    return frames
  },
  failedFrame: (_, error) => event(error),
  failedWhole: (_, error) => error,
  brokenFrame: 'data: {"id":"chatcmpl-broken","choices":[{"delta":{"content":\n\n'
}
