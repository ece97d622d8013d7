import type { Conversation, Turn } from "./Conversation.js"
import type { Block } from "./Line.js"

/** What had to be changed so that another platform takes the conversation. */
export interface Repairs {
  /** Thoughts that another model could not verify. */
  readonly thinkingDropped: number
  /** Tool uses that got a result saying there is none. */
  readonly resultsAdded: number
  /** Results without their tool use, kept as text. */
  readonly resultsAsText: number
}

const noResult = (id: string): Block => ({
  _tag: "ToolResult",
  id,
  text: "[no result: the session was cut before this tool answered]",
  isError: true,
  images: 0
})

/**
 * The conversation as any platform accepts it: no thinking, and after every message with tool uses one with exactly
 * their results.
 */
export const repair = ({ turns }: Pick<Conversation, "turns">): { readonly turns: ReadonlyArray<Turn> } & Repairs => {
  const results = new Map<string, Block>()
  const uses = new Set<string>()
  for (const block of turns.flatMap(({ blocks }) => blocks)) {
    if (block._tag === "ToolResult") results.set(block.id, block)
    if (block._tag === "ToolUse") uses.add(block.id)
  }
  let thinkingDropped = 0
  let resultsAdded = 0
  let resultsAsText = 0

  const withoutThinking = (blocks: ReadonlyArray<Block>): ReadonlyArray<Block> =>
    blocks.filter(({ _tag }) => {
      if (_tag === "Thinking") thinkingDropped += 1
      return _tag !== "Thinking"
    })

  const repaired = turns.flatMap((turn): ReadonlyArray<Turn> => {
    if (turn.role === "assistant") {
      const blocks = withoutThinking(turn.blocks)
      const ids = blocks.flatMap((block) => (block._tag === "ToolUse" ? block.id : []))
      const answers = ids.map((id): Block => {
        const result = results.get(id)
        if (result === undefined) resultsAdded += 1
        return result ?? noResult(id)
      })
      return [
        ...(blocks.length === 0 ? [] : [{ ...turn, blocks }]),
        ...(answers.length === 0 ? [] : [{ role: "user", blocks: answers, at: turn.at, origin: "tool" } as const])
      ]
    }
    // Results stand behind their tool uses already.
    const blocks = turn.blocks.flatMap((block): ReadonlyArray<Block> => {
      if (block._tag !== "ToolResult") return [block]
      if (uses.has(block.id)) return []
      resultsAsText += 1
      return [{ _tag: "Text", text: `[result of a tool call that this conversation does not hold]\n${block.text}` }]
    })
    return blocks.length === 0 ? [] : [{ ...turn, blocks }]
  })
  return { turns: repaired, thinkingDropped, resultsAdded, resultsAsText }
}
