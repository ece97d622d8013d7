import { Effect, Option } from "effect"
import type { HandoffContext } from "../Domain/Session.js"
import { type Conversation, type GitState, gitState, keepTranscript, readTranscript, repair } from "../Transcript.js"

/** What was kept of a session, and what it came from. */
export interface Kept {
  readonly hash: string
  /** The copy. */
  readonly path: string
  readonly context: HandoffContext
  readonly conversation: Conversation
  readonly git: GitState | undefined
}

/** Of the last request so much is stored beside the transcript, characters. */
const maxRequestChars = 20_000
const maxTodos = 200
const maxTodoChars = 2_000

/**
 * Whether every tool use and every result is accounted for: as a pair, or as one that lacks the other. Where it is not,
 * the transcript was read wrongly, and nothing may be built on it.
 */
const addsUp = ({ counts, openToolUses, orphanResults, turns }: Conversation): boolean => {
  const repaired = repair({ turns }).turns.flatMap(({ blocks }) => blocks)
  const uses = repaired.filter(({ _tag }) => _tag === "ToolUse").length
  const results = repaired.filter(({ _tag }) => _tag === "ToolResult").length
  return (
    counts.toolUses === counts.toolPairs + openToolUses.length &&
    counts.toolResults === counts.toolPairs + orphanResults.length &&
    uses === counts.toolUses &&
    results === uses
  )
}

const contextOf = (conversation: Conversation, git: GitState | undefined): HandoffContext => {
  const { contextTokens, counts, lastAt, lastRequest, model, openToolUses, orphanResults, todos, turns } = conversation
  return {
    counts,
    turns: repair({ turns }).turns.length,
    complete: addsUp(conversation),
    openToolUses: openToolUses.length,
    orphanResults: orphanResults.length,
    contextTokens,
    model,
    lastAt,
    lastRequest:
      lastRequest === undefined
        ? undefined
        : { text: lastRequest.text.slice(0, maxRequestChars), refused: lastRequest.refused },
    todos: todos.slice(0, maxTodos).map(({ status, text }) => ({ status, text: text.slice(0, maxTodoChars) })),
    git
  }
}

/** Copies a session's transcript into a folder by the hash of its content, and reads from the copy what there is to know. */
export const keepContext = Effect.fn("CCRWatcher.keepContext")(function* (
  transcriptPath: string,
  cwd: string | undefined,
  folder: string
) {
  const { hash, path } = yield* keepTranscript(transcriptPath, folder)
  const conversation = yield* readTranscript(path)
  const folderOfGit = cwd ?? conversation.cwd
  const git = folderOfGit === undefined ? undefined : Option.getOrUndefined(yield* gitState(folderOfGit))
  const kept: Kept = { hash, path, conversation, git, context: contextOf(conversation, git) }
  return kept
})
