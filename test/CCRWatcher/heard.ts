import { Either, Schema } from "effect"

/** One part of a conversation. A tool's call and its result have the same `call`, the place of that call in its order. */
export interface Heard {
  readonly role: "user" | "assistant"
  readonly text?: string
  readonly call?: number
  /** Of a call: its name and arguments. */
  readonly made?: string
  /** Of a result: its text. */
  readonly result?: string
}

const Text = Schema.Struct({ text: Schema.String })
const texts = (content: unknown): ReadonlyArray<string> => {
  if (typeof content === "string") return [content]
  if (!Array.isArray(content)) return []
  return content.flatMap((part) => (Schema.is(Text)(part) ? [part.text] : []))
}

const sorted = (value: unknown): unknown =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).sort(([left], [right]) => (left < right ? -1 : 1)))
    : value
const madeOf = (name: string, input: unknown): string => `${name} ${JSON.stringify(sorted(input))}`
const json = Schema.decodeUnknownSync(Schema.parseJson())

/** Numbers calls in their order, whatever a wire calls them. */
const numbering = () => {
  const ids: Array<string> = []
  const answered: Array<string> = []
  return {
    called: (id: string): number => ids.push(id) - 1,
    answered: (id: string): number => {
      answered.push(id)
      return ids.lastIndexOf(id)
    },
    /** Where a wire has no ids, results come in the order of the calls. */
    next: (): number => answered.push("") - 1
  }
}

const Line = Schema.parseJson(
  Schema.Struct({
    type: Schema.Literal("user", "assistant"),
    isSidechain: Schema.optional(Schema.Boolean),
    isMeta: Schema.optional(Schema.Boolean),
    isApiErrorMessage: Schema.optional(Schema.Boolean),
    message: Schema.Struct({ content: Schema.Unknown })
  })
)
const Block = Schema.Union(
  Schema.Struct({ type: Schema.Literal("text"), text: Schema.String }),
  Schema.Struct({ type: Schema.Literal("tool_use"), id: Schema.String, name: Schema.String, input: Schema.Unknown }),
  Schema.Struct({ type: Schema.Literal("tool_result"), tool_use_id: Schema.String, content: Schema.Unknown })
)

/** What was said in a session, read from its transcript line by line. */
export const heardOf = (transcript: string): ReadonlyArray<Heard> => {
  const calls = numbering()
  return transcript.split("\n").flatMap((text): ReadonlyArray<Heard> => {
    const read = Schema.decodeUnknownEither(Line)(text)
    if (Either.isLeft(read)) return []
    const { isApiErrorMessage, isMeta, isSidechain, message, type: role } = read.right
    if (isApiErrorMessage === true || isMeta === true || isSidechain === true) return []
    if (typeof message.content === "string") return [{ role, text: message.content }]
    const blocks = Array.isArray(message.content) ? message.content : []
    return blocks.flatMap((block): ReadonlyArray<Heard> => {
      if (!Schema.is(Block)(block)) return []
      if (block.type === "text") return [{ role, text: block.text }]
      return block.type === "tool_use"
        ? [{ role, call: calls.called(block.id), made: madeOf(block.name, block.input) }]
        : [{ role, call: calls.answered(block.tool_use_id), result: texts(block.content).join("\n") }]
    })
  })
}

const roleOf = (role: string): Heard["role"] => (role === "assistant" || role === "model" ? "assistant" : "user")

const Chat = Schema.Struct({
  messages: Schema.Array(
    Schema.Struct({
      role: Schema.String,
      content: Schema.optional(Schema.Unknown),
      tool_call_id: Schema.optional(Schema.String),
      tool_calls: Schema.optional(
        Schema.Array(
          Schema.Struct({
            id: Schema.String,
            function: Schema.Struct({ name: Schema.String, arguments: Schema.String })
          })
        )
      )
    })
  )
})
const Responses = Schema.Struct({
  input: Schema.Array(
    Schema.Union(
      Schema.Struct({
        type: Schema.Literal("function_call"),
        call_id: Schema.String,
        name: Schema.String,
        arguments: Schema.String
      }),
      Schema.Struct({
        type: Schema.Literal("function_call_output"),
        call_id: Schema.String,
        output: Schema.Unknown
      }),
      Schema.Struct({ role: Schema.String, content: Schema.Unknown })
    )
  )
})
const Contents = Schema.Struct({
  contents: Schema.Array(
    Schema.Struct({
      role: Schema.String,
      parts: Schema.Array(
        Schema.Union(
          Text,
          Schema.Struct({ functionCall: Schema.Struct({ name: Schema.String, args: Schema.Unknown }) }),
          Schema.Struct({ functionResponse: Schema.Struct({ name: Schema.String, response: Schema.Unknown }) })
        )
      )
    })
  )
})

/** What a platform was told, whatever its wire. */
export const heardIn = (body: unknown): ReadonlyArray<Heard> => {
  const calls = numbering()
  if (Schema.is(Chat)(body)) {
    return body.messages.flatMap(({ content, role, tool_call_id: id, tool_calls: made = [] }): ReadonlyArray<Heard> => {
      if (id !== undefined) return [{ role: "user", call: calls.answered(id), result: texts(content).join("\n") }]
      return [
        ...texts(content).map((text) => ({ role: roleOf(role), text })),
        ...made.map((call) => ({
          role: "assistant" as const,
          call: calls.called(call.id),
          made: madeOf(call.function.name, json(call.function.arguments))
        }))
      ]
    })
  }
  if (Schema.is(Responses)(body)) {
    return body.input.flatMap((item): ReadonlyArray<Heard> => {
      if ("role" in item) return texts(item.content).map((text) => ({ role: roleOf(item.role), text }))
      return item.type === "function_call"
        ? [
            {
              role: "assistant",
              call: calls.called(item.call_id),
              made: madeOf(item.name, json(item.arguments))
            }
          ]
        : [{ role: "user", call: calls.answered(item.call_id), result: texts(item.output).join("\n") }]
    })
  }
  return Schema.decodeUnknownSync(Contents)(body).contents.flatMap(({ parts, role }) =>
    parts.map((part): Heard => {
      if ("text" in part) return { role: roleOf(role), text: part.text }
      return "functionCall" in part
        ? {
            role: "assistant",
            call: calls.called(part.functionCall.name),
            made: madeOf(part.functionCall.name, part.functionCall.args)
          }
        : { role: "user", call: calls.next(), result: JSON.stringify(part.functionResponse.response) }
    })
  )
}

/**
 * How much of a conversation arrived, in its order: each text within one of the same speaker, each call with its name
 * and arguments, each result as that of its call.
 */
export const whole = (said: ReadonlyArray<Heard>, heard: ReadonlyArray<Heard>) => {
  let at = 0
  const arrived = said.filter((part) => {
    const found = heard.findIndex(
      (other, index) =>
        index >= at &&
        other.role === part.role &&
        other.call === part.call &&
        other.made === part.made &&
        (part.text === undefined || other.text?.includes(part.text) === true) &&
        (part.result === undefined ||
          other.result?.includes(part.result) === true ||
          other.result?.includes(JSON.stringify(part.result).slice(1, -1)) === true)
    )
    if (found < 0) return false
    // Texts of one turn may be told as one.
    at = found
    return true
  })
  const calls = arrived.flatMap(({ call, made }) => (made === undefined ? [] : [call]))
  return {
    turns: arrived.filter(({ text }) => text !== undefined).length,
    toolPairs: arrived.filter(({ call, result }) => result !== undefined && calls.includes(call)).length,
    missing: said.filter((part) => !arrived.includes(part))
  }
}
