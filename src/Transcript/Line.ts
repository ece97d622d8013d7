import { Option, Schema } from "effect"

/** Characters kept of one tool result or one text; what is longer is cut in the middle. */
const maxBlockChars = 200_000

/** What a message of a transcript is made of. */
export type Block =
  | { readonly _tag: "Text"; readonly text: string }
  /** Signed by the model that thought it: worthless to any other. */
  | { readonly _tag: "Thinking" }
  | { readonly _tag: "Image"; readonly mediaType: string }
  | { readonly _tag: "ToolUse"; readonly id: string; readonly name: string; readonly input: unknown }
  | {
      readonly _tag: "ToolResult"
      /** Of the tool use it answers. */
      readonly id: string
      readonly text: string
      readonly isError: boolean
      readonly images: number
    }
  | { readonly _tag: "Unknown"; readonly type: string }

/** Tokens of one answer, as the provider counted them. */
export interface MessageUsage {
  readonly inputTokens: number
  readonly cacheCreationTokens: number
  readonly cacheReadTokens: number
  readonly outputTokens: number
}

/** What a refusal says of the limit that was hit. */
export interface HitLimit {
  /** Such as `five_hour` or `seven_day`. */
  readonly window: string | undefined
  /** Epoch ms. */
  readonly resetsAt: number | undefined
}

interface Place {
  readonly uuid: string | undefined
  readonly parent: string | undefined
  /** The parent across a compaction, where the line itself has none. */
  readonly logicalParent: string | undefined
  readonly isSidechain: boolean
  /** Epoch ms. */
  readonly at: number | undefined
}

/** One line of a transcript, by what it means. */
export type Line =
  | (Place & {
      readonly _tag: "User"
      /** Written by Claude Code itself, not by the person. */
      readonly isMeta: boolean
      /** The summary that replaced what a compaction dropped. */
      readonly isSummary: boolean
      readonly blocks: ReadonlyArray<Block>
    })
  | (Place & {
      readonly _tag: "Assistant"
      /** Lines of one answer share it: each block of an answer may be a line of its own. */
      readonly messageId: string | undefined
      readonly requestId: string | undefined
      readonly model: string | undefined
      readonly blocks: ReadonlyArray<Block>
      readonly usage: MessageUsage | undefined
    })
  /** An error that stands where an answer would: never sent to a model. */
  | (Place & { readonly _tag: "Refused"; readonly status: number | undefined; readonly limit: HitLimit | undefined })
  | (Place & { readonly _tag: "Compacted" })
  | (Place & { readonly _tag: "Other"; readonly type: string })

/** What lines say of the session they belong to. */
export interface LineOrigin {
  readonly sessionId: string | undefined
  readonly cwd: string | undefined
  readonly gitBranch: string | undefined
  readonly version: string | undefined
}

const text = Schema.optional(Schema.NullOr(Schema.String))
const flag = Schema.optional(Schema.NullOr(Schema.Boolean))
const count = Schema.optional(Schema.NullOr(Schema.Number))

const LimitInfo = Schema.Struct({
  status: text,
  resetsAt: Schema.optional(Schema.NullOr(Schema.Union(Schema.Number, Schema.String))),
  rateLimitType: text
})

const RawLine = Schema.Struct({
  type: Schema.String,
  subtype: text,
  uuid: text,
  parentUuid: text,
  logicalParentUuid: text,
  isSidechain: flag,
  isMeta: flag,
  isCompactSummary: flag,
  isVisibleInTranscriptOnly: flag,
  isApiErrorMessage: flag,
  timestamp: text,
  sessionId: text,
  cwd: text,
  gitBranch: text,
  version: text,
  requestId: text,
  apiErrorStatus: count,
  error: Schema.optional(Schema.Unknown),
  quotaLimits: Schema.optional(Schema.NullOr(LimitInfo)),
  apiErrorParams: Schema.optional(
    Schema.NullOr(Schema.Struct({ rate_limit_info: Schema.optional(Schema.NullOr(LimitInfo)) }))
  ),
  message: Schema.optional(
    Schema.NullOr(
      Schema.Struct({
        id: text,
        model: text,
        content: Schema.optional(Schema.NullOr(Schema.Union(Schema.String, Schema.Array(Schema.Unknown)))),
        usage: Schema.optional(
          Schema.NullOr(
            Schema.Struct({
              input_tokens: count,
              output_tokens: count,
              cache_creation_input_tokens: count,
              cache_read_input_tokens: count
            })
          )
        )
      })
    )
  )
})
type RawLine = typeof RawLine.Type

const ResultPart = Schema.Union(
  Schema.Struct({ type: Schema.Literal("text"), text: Schema.String }),
  Schema.Struct({ type: Schema.String })
)

const RawBlock = Schema.Union(
  Schema.Struct({ type: Schema.Literal("text"), text: Schema.String }),
  Schema.Struct({ type: Schema.Literal("thinking", "redacted_thinking") }),
  Schema.Struct({
    type: Schema.Literal("tool_use"),
    id: Schema.String,
    name: Schema.String,
    input: Schema.optional(Schema.Unknown)
  }),
  Schema.Struct({
    type: Schema.Literal("tool_result"),
    tool_use_id: Schema.String,
    content: Schema.optional(Schema.NullOr(Schema.Union(Schema.String, Schema.Array(ResultPart)))),
    is_error: flag
  }),
  Schema.Struct({
    type: Schema.Literal("image", "document"),
    source: Schema.optional(Schema.NullOr(Schema.Struct({ media_type: text })))
  }),
  Schema.Struct({ type: Schema.String })
)

const decodeLine = Schema.decodeUnknownOption(Schema.parseJson(RawLine))
const decodeBlock = Schema.decodeUnknownOption(RawBlock)

/** Long text without its middle. */
export const shorten = (long: string, maxChars: number): string => {
  if (long.length <= maxChars) return long
  const head = Math.ceil((maxChars * 2) / 3)
  const tail = maxChars - head
  const cut = long.length - head - tail
  return `${long.slice(0, head)}\n[${cut} characters left out]\n${tail === 0 ? "" : long.slice(-tail)}`
}

const blockOf = (raw: unknown): Block =>
  Option.match(decodeBlock(raw), {
    onNone: (): Block => ({ _tag: "Unknown", type: typeof raw }),
    onSome: (block): Block => {
      if ("text" in block) return { _tag: "Text", text: shorten(block.text, maxBlockChars) }
      if ("tool_use_id" in block) {
        const { content } = block
        const parts = typeof content === "string" || content == null ? [] : content
        const texts =
          typeof content === "string" ? [content] : parts.flatMap((part) => ("text" in part ? part.text : []))
        return {
          _tag: "ToolResult",
          id: block.tool_use_id,
          text: shorten(texts.join("\n"), maxBlockChars),
          isError: block.is_error === true,
          images: parts.filter(({ type }) => type === "image").length
        }
      }
      if ("name" in block) return { _tag: "ToolUse", id: block.id, name: block.name, input: block.input }
      switch (block.type) {
        case "thinking":
        case "redacted_thinking":
          return { _tag: "Thinking" }
        case "image":
        case "document":
          return { _tag: "Image", mediaType: ("source" in block ? block.source?.media_type : undefined) ?? block.type }
        default:
          return { _tag: "Unknown", type: block.type }
      }
    }
  })

const blocksOf = (raw: RawLine): ReadonlyArray<Block> => {
  const content = raw.message?.content
  if (content == null || content === "") return []
  return typeof content === "string" ? [{ _tag: "Text", text: shorten(content, maxBlockChars) }] : content.map(blockOf)
}

const instantOf = (raw: string | null | undefined): number | undefined => {
  const at = raw == null ? Number.NaN : Date.parse(raw)
  return Number.isNaN(at) ? undefined : at
}

/** Providers write instants as seconds or as text. */
const resetOf = (raw: number | string | null | undefined): number | undefined => {
  if (raw == null) return undefined
  if (typeof raw === "string") return instantOf(raw)
  return raw < 1e11 ? raw * 1_000 : raw
}

const limitOf = (raw: RawLine): HitLimit | undefined => {
  const info = raw.quotaLimits ?? raw.apiErrorParams?.rate_limit_info
  if (info != null) return { window: info.rateLimitType ?? undefined, resetsAt: resetOf(info.resetsAt) }
  return raw.error === "rate_limit" || raw.apiErrorStatus === 429
    ? { window: undefined, resetsAt: undefined }
    : undefined
}

const meaningOf = (raw: RawLine): Line => {
  const place: Place = {
    uuid: raw.uuid ?? undefined,
    parent: raw.parentUuid ?? undefined,
    logicalParent: raw.logicalParentUuid ?? undefined,
    isSidechain: raw.isSidechain === true,
    at: instantOf(raw.timestamp)
  }
  if (raw.type === "user" && raw.message != null) {
    const isSummary = raw.isCompactSummary === true
    const isMeta = raw.isMeta === true || (raw.isVisibleInTranscriptOnly === true && !isSummary)
    return { _tag: "User", ...place, isMeta, isSummary, blocks: blocksOf(raw) }
  }
  if (raw.type === "assistant" && raw.message != null) {
    if (raw.isApiErrorMessage === true || raw.message.model === "<synthetic>") {
      return { _tag: "Refused", ...place, status: raw.apiErrorStatus ?? undefined, limit: limitOf(raw) }
    }
    const { id, model, usage } = raw.message
    return {
      _tag: "Assistant",
      ...place,
      messageId: id ?? undefined,
      requestId: raw.requestId ?? undefined,
      model: model ?? undefined,
      blocks: blocksOf(raw),
      usage:
        usage == null
          ? undefined
          : {
              inputTokens: usage.input_tokens ?? 0,
              cacheCreationTokens: usage.cache_creation_input_tokens ?? 0,
              cacheReadTokens: usage.cache_read_input_tokens ?? 0,
              outputTokens: usage.output_tokens ?? 0
            }
    }
  }
  if (raw.type === "system" && raw.subtype === "compact_boundary") return { _tag: "Compacted", ...place }
  return { _tag: "Other", ...place, type: raw.type }
}

/** A line by its meaning, and where it comes from; none where it is no line of a transcript, such as a half-written one. */
export const parseLine = (json: string): Option.Option<{ readonly line: Line; readonly origin: LineOrigin }> =>
  Option.map(decodeLine(json), (raw) => ({
    line: meaningOf(raw),
    origin: {
      sessionId: raw.sessionId ?? undefined,
      cwd: raw.cwd ?? undefined,
      gitBranch: raw.gitBranch == null || raw.gitBranch === "" ? undefined : raw.gitBranch,
      version: raw.version ?? undefined
    }
  }))
