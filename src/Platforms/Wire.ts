import { Either, ParseResult, Predicate, Schema } from "effect"
import type { Call, Completion, Delta } from "../Domain/Call.js"

/** Why a reply that arrived with status 200 is not an answer. */
export type WireProblem =
  /** It breaks the format: `message` says where. */
  | { readonly _tag: "Malformed"; readonly message: string }
  /** It carries the provider's error object: `body` is its JSON text, to be classified like any other error. */
  | { readonly _tag: "ProviderError"; readonly body: string }
  /** The provider refused the content. */
  | { readonly _tag: "Policy"; readonly code: string; readonly message: string }

export const malformed = (message: string): WireProblem => ({ _tag: "Malformed", message })
export const providerError = (body: string): WireProblem => ({ _tag: "ProviderError", body })
export const policy = (code: string, message: string): WireProblem => ({ _tag: "Policy", code, message })

/** What one event of a streamed answer brought. */
export interface Decoded {
  readonly deltas: ReadonlyArray<Delta>
  /** The model is at work: text, reasoning or arguments came. Keep-alives and announcements are no progress. */
  readonly progress: boolean
}

/**
 * Where a streamed answer stands: `open` (more must come), `complete` (all of the answer is here, the end of the
 * body is expected), `finished` (`Finish` was given out).
 */
export type DecoderState = "open" | "complete" | "finished"

/** Decodes the events of one streamed answer, in order. Made anew for each stream. */
export interface StreamDecoder {
  readonly event: (data: string) => Either.Either<Decoded, WireProblem>
  /** The body has ended: the last deltas, or what is missing. */
  readonly end: () => Either.Either<ReadonlyArray<Delta>, WireProblem>
  readonly state: () => DecoderState
}

/** One wire format: how a call is written and how its answers are read. Pure; paths are relative to the base URL. */
export interface Wire {
  readonly authorization: (secret: string) => Readonly<Record<string, string>>
  readonly completePath: (model: string) => string
  readonly streamPath: (model: string) => string
  readonly modelsPath: string
  /** The request's body as JSON text; a string on the left says why this format cannot carry the call. */
  readonly encode: (request: {
    readonly model: string
    readonly call: Call
    readonly stream: boolean
    readonly baseUrl: string
  }) => Either.Either<string, string>
  /** `model` is the one asked for: the answer's, where the format lets the answer leave it out. */
  readonly decodeCompletion: (body: string, model: string) => Either.Either<Completion, WireProblem>
  readonly decodeModels: (body: string) => Either.Either<ReadonlyArray<string>, WireProblem>
  readonly makeStreamDecoder: (model: string) => StreamDecoder
}

/** A field that providers leave out or send as null. */
export const maybe = <A, I>(schema: Schema.Schema<A, I>) => Schema.optional(Schema.NullOr(schema))

/** A field read where it has the expected type and passed over where it has another. */
export const lenient = <A, I>(schema: Schema.Schema<A, I>) =>
  Schema.optional(Schema.UndefinedOr(schema).annotations({ decodingFallback: () => Either.right(undefined) }))

/** A JSON object of any content, such as a caller's own JSON Schema. */
export const JsonObject = Schema.Record({ key: Schema.String, value: Schema.Unknown })

/** A count of tokens. */
export const TokenCount = Schema.NonNegativeInt

/** Where a value breaks its schema, without quoting the whole value. */
const firstIssue = (error: ParseResult.ParseError): string => {
  const issue = ParseResult.ArrayFormatter.formatErrorSync(error)[0]
  if (issue === undefined) {
    return "does not fit its format"
  }
  return issue.path.length === 0 ? issue.message : `${issue.path.join(".")}: ${issue.message}`
}

/** Decodes JSON text; `what` names it in the message of a failure. */
export const decodeJson = <A, I>(schema: Schema.Schema<A, I>, what: string) => {
  const decode = Schema.decodeUnknownEither(Schema.parseJson(schema))
  return (text: string): Either.Either<A, WireProblem> =>
    Either.mapLeft(decode(text), (error) => malformed(`${what} is malformed: ${firstIssue(error)}`))
}

/** Decodes a value already parsed from JSON. */
export const decodeValue = <A, I>(schema: Schema.Schema<A, I>, what: string) => {
  const decode = Schema.decodeUnknownEither(schema)
  return (value: unknown): Either.Either<A, WireProblem> =>
    Either.mapLeft(decode(value), (error) => malformed(`${what} is malformed: ${firstIssue(error)}`))
}

/** Runs for every event of every stream, so it goes without a schema. */
export const parseJson = (text: string, what: string): Either.Either<unknown, WireProblem> =>
  Either.try({
    try: (): unknown => JSON.parse(text),
    catch: (error) => malformed(`${what} is malformed: ${error instanceof Error ? error.message : String(error)}`)
  })

const errorMember = Schema.is(Schema.Struct({ error: Schema.Union(Schema.Object, Schema.NonEmptyString) }))
const flatError = Schema.is(
  Schema.Struct({ message: Schema.String, code: Schema.Union(Schema.NonEmptyString, Schema.Number) })
)

// Asked of every event of every stream, and a look at the member's name settles most.
const holdsError = (value: unknown): boolean => Predicate.hasProperty(value, "error") && errorMember(value)

/** Whether a JSON value that arrived in the place of an answer is an error object. */
export const isErrorValue = (value: unknown): boolean =>
  Array.isArray(value)
    ? value.some(holdsError)
    : holdsError(value) || (Predicate.hasProperty(value, "message") && flatError(value))

/**
 * A request's body as JSON text. It is made here and typed, so that it needs no schema; it fails only where the caller's own
 * JSON Schemas hold what JSON cannot.
 */
export const encodeJson = (request: object): Either.Either<string, string> =>
  Either.try({ try: () => JSON.stringify(request), catch: () => "the call cannot be written as JSON" })

/**
 * Whether some text of the call speaks of JSON. OpenAI and DashScope answer 400 to a plain JSON response format
 * where no message has the word.
 */
export const speaksOfJson = (call: Call): boolean => {
  const has = (text: string | undefined) => text !== undefined && /json/i.test(text)
  return call.messages.some((message) =>
    typeof message.content === "string"
      ? has(message.content)
      : message.content.some((part) => part.type === "text" && has(part.text))
  )
}

export const jsonInstruction = "Answer with one JSON value and nothing else."

/** Name given to a caller's JSON Schema where the format wants one. */
export const jsonSchemaName = "answer"
