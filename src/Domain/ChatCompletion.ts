import { Schema } from "effect"

/*
 * OpenAI's Chat Completions API (https://platform.openai.com/docs/api-reference/chat) as this service answers it. What a
 * request has beside these fields is passed over, as clients of many kinds send more than any one service knows.
 */

/** Clients leave a field out, or send it as null. */
const maybe = <A, I>(schema: Schema.Schema<A, I>) => Schema.optional(Schema.NullOr(schema))

const TextPart = Schema.Struct({ type: Schema.Literal("text"), text: Schema.String })
const RefusalPart = Schema.Struct({ type: Schema.Literal("refusal"), refusal: Schema.String })
const ImageUrlPart = Schema.Struct({
  type: Schema.Literal("image_url"),
  image_url: Schema.Struct({ url: Schema.String })
})

const ChatToolCall = Schema.Struct({
  id: Schema.NonEmptyString,
  type: Schema.optional(Schema.Literal("function")),
  function: Schema.Struct({ name: Schema.NonEmptyString, arguments: Schema.String })
})

export const ChatMessage = Schema.Union(
  Schema.Struct({
    role: Schema.Literal("system", "developer"),
    content: Schema.Union(Schema.String, Schema.Array(TextPart))
  }),
  Schema.Struct({
    role: Schema.Literal("user"),
    content: Schema.Union(Schema.String, Schema.Array(Schema.Union(TextPart, ImageUrlPart)))
  }),
  Schema.Struct({
    role: Schema.Literal("assistant"),
    content: maybe(Schema.Union(Schema.String, Schema.Array(Schema.Union(TextPart, RefusalPart)))),
    tool_calls: maybe(Schema.Array(ChatToolCall))
  }),
  Schema.Struct({
    role: Schema.Literal("tool"),
    tool_call_id: Schema.String,
    content: maybe(Schema.Union(Schema.String, Schema.Array(TextPart)))
  })
).annotations({ identifier: "ChatMessage" })
export type ChatMessage = typeof ChatMessage.Type

const JsonObject = Schema.Record({ key: Schema.String, value: Schema.Unknown })

export const ChatCompletionRequest = Schema.Struct({
  model: Schema.String.annotations({
    description:
      "`auto` (routing chooses), a platform (`codex`), one of its models (`codex/gpt-6-sol`), a model that is known " +
      "somewhere, or alternatives in their order (`codex>synthetic>gemini`), of which the next is asked only where those " +
      "before it cannot answer now. `#tag` at the end keeps calls of one tag on one platform."
  }),
  messages: Schema.NonEmptyArray(ChatMessage),
  stream: maybe(Schema.Boolean),
  stream_options: maybe(Schema.Struct({ include_usage: maybe(Schema.Boolean) })),
  max_tokens: maybe(Schema.Int.pipe(Schema.positive())),
  max_completion_tokens: maybe(Schema.Int.pipe(Schema.positive())),
  temperature: maybe(Schema.Number.pipe(Schema.between(0, 2))),
  response_format: maybe(
    Schema.Union(
      Schema.Struct({ type: Schema.Literal("text", "json_object") }),
      Schema.Struct({
        type: Schema.Literal("json_schema"),
        json_schema: Schema.Struct({ schema: maybe(JsonObject) })
      })
    )
  ),
  tools: maybe(
    Schema.Array(
      Schema.Struct({
        type: Schema.Literal("function"),
        function: Schema.Struct({
          name: Schema.String.pipe(
            Schema.pattern(/^[a-zA-Z0-9_-]{1,64}$/, { message: () => "expected 1 to 64 letters, digits, _ or -" })
          ),
          description: maybe(Schema.String),
          parameters: maybe(JsonObject)
        })
      })
    )
  ),
  tool_choice: maybe(
    Schema.Union(
      Schema.Literal("auto", "none", "required", "any"),
      Schema.Struct({ type: Schema.Literal("function"), function: Schema.Struct({ name: Schema.String }) })
    )
  ),
  parallel_tool_calls: maybe(Schema.Boolean)
}).annotations({ identifier: "ChatCompletionRequest" })
export type ChatCompletionRequest = typeof ChatCompletionRequest.Type

export const ChatUsage = Schema.Struct({
  prompt_tokens: Schema.Int,
  completion_tokens: Schema.Int,
  total_tokens: Schema.Int,
  prompt_tokens_details: Schema.Struct({ cached_tokens: Schema.Int }),
  completion_tokens_details: Schema.Struct({ reasoning_tokens: Schema.Int })
}).annotations({ identifier: "ChatUsage" })
export type ChatUsage = typeof ChatUsage.Type

const FinishReason = Schema.Literal("stop", "length", "tool_calls")

const AnsweredToolCall = Schema.Struct({
  id: Schema.String,
  type: Schema.Literal("function"),
  function: Schema.Struct({ name: Schema.String, arguments: Schema.String })
})

const model = Schema.String.annotations({ description: "Who answered, as `platform/model`." })

export const ChatCompletion = Schema.Struct({
  id: Schema.String,
  object: Schema.Literal("chat.completion"),
  /** Epoch seconds. */
  created: Schema.Int,
  model,
  choices: Schema.NonEmptyArray(
    Schema.Struct({
      index: Schema.Int,
      message: Schema.Struct({
        role: Schema.Literal("assistant"),
        content: Schema.NullOr(Schema.String),
        refusal: Schema.Null,
        tool_calls: Schema.optional(Schema.Array(AnsweredToolCall))
      }),
      logprobs: Schema.Null,
      finish_reason: FinishReason
    })
  ),
  usage: ChatUsage
}).annotations({ identifier: "ChatCompletion" })
export type ChatCompletion = typeof ChatCompletion.Type

export const ChatCompletionChunk = Schema.Struct({
  id: Schema.String,
  object: Schema.Literal("chat.completion.chunk"),
  /** Epoch seconds. */
  created: Schema.Int,
  model,
  choices: Schema.Array(
    Schema.Struct({
      index: Schema.Int,
      delta: Schema.Struct({
        role: Schema.optional(Schema.Literal("assistant")),
        content: Schema.optional(Schema.String),
        tool_calls: Schema.optional(Schema.Array(Schema.Struct({ index: Schema.Int, ...AnsweredToolCall.fields })))
      }),
      logprobs: Schema.Null,
      finish_reason: Schema.NullOr(FinishReason)
    })
  ),
  usage: Schema.optional(Schema.NullOr(ChatUsage))
}).annotations({ identifier: "ChatCompletionChunk" })
export type ChatCompletionChunk = typeof ChatCompletionChunk.Type

export const ModelList = Schema.Struct({
  object: Schema.Literal("list"),
  data: Schema.Array(
    Schema.Struct({
      id: Schema.String,
      object: Schema.Literal("model"),
      created: Schema.Int,
      owned_by: Schema.String
    })
  )
}).annotations({ identifier: "ModelList" })
export type ModelList = typeof ModelList.Type

/** An error as OpenAI's clients expect it. */
export const OpenAiError = Schema.Struct({
  error: Schema.Struct({
    message: Schema.String,
    type: Schema.String,
    param: Schema.NullOr(Schema.String),
    code: Schema.NullOr(Schema.String)
  })
}).annotations({ identifier: "OpenAiError" })
export type OpenAiError = typeof OpenAiError.Type
