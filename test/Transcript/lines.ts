/** Lines as Claude Code writes them, by hand: each builder fills in what every line has. */

const sessionId = "0b6f2f5e-6f6c-4f60-9d38-0d8d7f1f5a01"

let written = 0
/** Each line is a second younger than the one before. */
const nextInstant = (): string => {
  written += 1
  return new Date(Date.parse("2026-11-20T10:00:00.000Z") + written * 1_000).toISOString()
}

type Json = Readonly<Record<string, unknown>>

const common = (uuid: string, parentUuid: string | null, extra: Json): Json => ({
  parentUuid,
  isSidechain: false,
  userType: "external",
  cwd: "/home/ada/engine",
  sessionId,
  version: "2.1.330",
  gitBranch: "main",
  uuid,
  timestamp: nextInstant(),
  ...extra
})

export const user = (uuid: string, parent: string | null, content: unknown, extra: Json = {}): Json => ({
  ...common(uuid, parent, extra),
  type: "user",
  message: { role: "user", content }
})

const usage = (input: number, output: number): Json => ({
  input_tokens: input,
  cache_creation_input_tokens: 100,
  cache_read_input_tokens: 1_000,
  output_tokens: output
})

export const assistant = (
  uuid: string,
  parent: string,
  messageId: string,
  blocks: ReadonlyArray<Json>,
  extra: Json = {},
  tokens: readonly [number, number] = [10, 5]
): Json => ({
  ...common(uuid, parent, extra),
  type: "assistant",
  requestId: `req_${messageId}`,
  message: {
    id: messageId,
    type: "message",
    role: "assistant",
    model: "claude-sonnet-5-5",
    content: blocks,
    usage: usage(...tokens)
  }
})

export const text = (text: string): Json => ({ type: "text", text })
export const thinking: Json = { type: "thinking", thinking: "hm", signature: "c2ln" }
export const use = (id: string, name: string, input: Json): Json => ({ type: "tool_use", id, name, input })
export const result = (id: string, content: unknown, isError = false): Json => ({
  type: "tool_result",
  tool_use_id: id,
  content,
  ...(isError ? { is_error: true } : {})
})
export const image: Json = { type: "image", source: { type: "base64", media_type: "image/png", data: "iVBORw0KGgo=" } }

export const refused = (uuid: string, parent: string, extra: Json = {}): Json => ({
  ...common(uuid, parent, {}),
  type: "assistant",
  isApiErrorMessage: true,
  error: "rate_limit",
  apiError: "usage_limit_reached",
  apiErrorStatus: 429,
  message: {
    id: uuid,
    type: "message",
    role: "assistant",
    model: "<synthetic>",
    content: [text("You've hit your 5-hour limit · resets 3:22pm (UTC)")],
    usage: { input_tokens: 0, output_tokens: 0 }
  },
  ...extra
})

export const other = (type: string, extra: Json = {}): Json => ({ type, sessionId, ...extra })

export const boundary = (uuid: string, logicalParentUuid: string): Json => ({
  ...common(uuid, null, {}),
  type: "system",
  subtype: "compact_boundary",
  content: "Conversation compacted",
  logicalParentUuid,
  compactMetadata: { trigger: "auto", preTokens: 160_000 }
})

export const jsonl = (lines: ReadonlyArray<Json | string>): string =>
  lines.map((line) => `${typeof line === "string" ? line : JSON.stringify(line)}\n`).join("")
