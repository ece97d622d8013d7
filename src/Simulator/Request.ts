import { Predicate } from "effect"

export interface SimulatedTool {
  readonly name: string
  /** JSON Schema of the arguments. */
  readonly parameters: unknown
}

/** What every wire format's request comes down to. */
export interface SimulatedRequest {
  readonly model: string
  readonly stream: boolean
  /** Whether a Chat Completions stream ends with a usage chunk. */
  readonly includeUsage: boolean
  /** Whether a Gemini stream is server-sent events; else it is one JSON array. */
  readonly sse: boolean
  /** Every text the model reads, system prompt, tools and schemas included. */
  readonly texts: ReadonlyArray<string>
  readonly images: number
  /** The text of the last message where the user wrote it, else nothing. */
  readonly prompt: string
  readonly maxOutputTokens: number | undefined
  /** The answer is to be one JSON value, of `schema` where there is one. */
  readonly json: { readonly schema: unknown } | undefined
  /** Whether a message says "JSON", which OpenAI and DashScope want for JSON without a schema. */
  readonly speaksOfJson: boolean
  readonly tools: ReadonlyArray<SimulatedTool>
  /** `required` or a name forces a tool call, `none` forbids it. */
  readonly toolChoice: "auto" | "none" | "required" | { readonly name: string }
}

/** Why a request is refused before a model sees it. */
export interface BadRequest {
  readonly message: string
  /** Path of the field, where it is about one. */
  readonly param: string | undefined
}

export const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  Predicate.isRecord(value) && !Array.isArray(value)
