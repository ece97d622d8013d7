import type { Block, HitLimit, Line, LineOrigin, MessageUsage } from "./Line.js"

/** One message of a conversation: what a person, a tool or the model said in one go. */
export interface Turn {
  readonly role: "user" | "assistant"
  readonly blocks: ReadonlyArray<Block>
  /** Epoch ms. */
  readonly at: number | undefined
  /** Written by Claude Code itself, or by a compaction. */
  readonly origin: "person" | "tool" | "model" | "program" | "compaction"
}

/** How much a conversation holds, for saying later that nothing of it was lost. */
export interface Counts {
  /** Requests of the person. */
  readonly requests: number
  readonly answers: number
  readonly toolUses: number
  readonly toolResults: number
  /** Tool uses that have their result. */
  readonly toolPairs: number
  readonly images: number
  /** Lines of subagents: no part of the conversation. */
  readonly subagentLines: number
  /** Lines of earlier attempts that were rewound, and of what a compaction dropped. */
  readonly abandonedLines: number
  readonly compactions: number
  /** Lines that cannot be read, such as a half-written last one. */
  readonly brokenLines: number
}

/** Something the session has still to do. */
export interface Todo {
  readonly text: string
  readonly status: "pending" | "in_progress"
}

/** A request of the person. */
export interface LastRequest {
  readonly text: string
  /** Epoch ms. */
  readonly at: number | undefined
  /** It has no answer: the limit was hit first. */
  readonly refused: boolean
}

/** What a transcript tells of its session. */
export interface Conversation extends LineOrigin {
  /** The conversation as the model would be sent it, oldest first. */
  readonly turns: ReadonlyArray<Turn>
  readonly counts: Counts
  /** Tool uses without a result, by id. */
  readonly openToolUses: ReadonlyArray<string>
  /** Results without their tool use, by its id. */
  readonly orphanResults: ReadonlyArray<string>
  readonly todos: ReadonlyArray<Todo>
  readonly lastRequest: LastRequest | undefined
  readonly model: string | undefined
  /** Tokens in the context after the latest answer, as the provider counted them. */
  readonly contextTokens: number | undefined
  /** All answers, each counted once. */
  readonly usage: MessageUsage
  /** The refusal that stands at the end, where one does. */
  readonly limit: HitLimit | undefined
  /** Epoch ms of the latest line. */
  readonly lastAt: number | undefined
}

/** Takes in a transcript line by line. */
export interface ConversationReader {
  readonly add: (line: Line, origin: LineOrigin) => void
  readonly addBroken: () => void
  readonly conversation: () => Conversation
}

type Message = Extract<Line, { _tag: "User" | "Assistant" }>

/** What Claude Code writes into user messages about its own commands. */
const commandMarks =
  /^\s*<(?:command-name|command-message|command-args|local-command-stdout|local-command-caveat|bash-stdout|bash-stderr|task-notification)\b/

const textOf = (blocks: ReadonlyArray<Block>): string =>
  blocks.flatMap((block) => (block._tag === "Text" ? block.text : [])).join("\n")

const originOf = (line: Message): Turn["origin"] => {
  if (line._tag === "Assistant") return "model"
  if (line.isSummary) return "compaction"
  if (line.blocks.some(({ _tag }) => _tag === "ToolResult")) return "tool"
  return line.isMeta || commandMarks.test(textOf(line.blocks)) ? "program" : "person"
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const stringAt = (record: Readonly<Record<string, unknown>>, ...names: ReadonlyArray<string>): string | undefined =>
  names.map((name) => record[name]).find((value) => typeof value === "string")

const isOpen = (status: string | undefined): status is Todo["status"] =>
  status === "pending" || status === "in_progress"

/** The to-do list as its tools left it: one that is written whole each time, or one of single tasks with numbers. */
const todosOf = (turns: ReadonlyArray<Turn>): ReadonlyArray<Todo> => {
  const todos = new Map<string, { text: string; status: string }>()
  let tasks = 0
  for (const block of turns.flatMap(({ blocks }) => blocks)) {
    if (block._tag !== "ToolUse" || !isRecord(block.input)) continue
    const { input, name } = block
    if (name === "TodoWrite" && Array.isArray(input.todos)) {
      todos.clear()
      input.todos.filter(isRecord).forEach((todo, index) => {
        todos.set(`todo ${index}`, { text: stringAt(todo, "content") ?? "", status: stringAt(todo, "status") ?? "" })
      })
    }
    if (name === "TaskCreate") {
      tasks += 1
      todos.set(`${tasks}`, { text: stringAt(input, "subject", "description") ?? "", status: "pending" })
    }
    if (name === "TaskUpdate") {
      const id = stringAt(input, "taskId")
      const task = id === undefined ? undefined : todos.get(id)
      if (task !== undefined) {
        task.status = stringAt(input, "status") ?? task.status
        task.text = stringAt(input, "subject") ?? task.text
      }
    }
  }
  return [...todos.values()].flatMap(({ status, text }) => (isOpen(status) ? { text, status } : []))
}

/**
 * Finds in a transcript the conversation that its session is in now. Lines form a tree (a rewound request leaves its
 * branch behind), so the conversation is the way back from the latest line; where a parent is lost it goes on with the
 * line above, so that a damaged file costs its damaged lines and no more.
 */
export const makeConversationReader = (): ConversationReader => {
  const lines: Array<Line> = []
  const origins: Array<LineOrigin> = []
  let broken = 0

  /** Indexes of the lines on the way from the last one back to the first, or to the latest compaction. */
  const wayBack = (): Set<number> => {
    const byUuid = new Map<string, number>()
    lines.forEach((line, index) => {
      if (line.uuid !== undefined) byUuid.set(line.uuid, index)
    })
    const main = (index: number): boolean => lines[index]?.uuid !== undefined && lines[index]?.isSidechain === false
    const above = (index: number): number => {
      let before = index - 1
      while (before >= 0 && !main(before)) before -= 1
      return before
    }
    const way = new Set<number>()
    let index = above(lines.length)
    while (index >= 0 && !way.has(index)) {
      way.add(index)
      const line = lines[index]
      if (line === undefined || line._tag === "Compacted") break
      if (line.parent === undefined) {
        if (line._tag === "User" && line.isSummary && line.logicalParent === undefined) break
        if (line.logicalParent === undefined) break
      }
      const parent = line.parent ?? line.logicalParent
      const known = parent === undefined ? undefined : byUuid.get(parent)
      index = known !== undefined && known < index ? known : above(index)
    }
    return way
  }

  /** Answers are written block by block and tool results beside each other: what belongs to the way is taken in too. */
  const withSiblings = (way: Set<number>): ReadonlyArray<Message> => {
    const messageIds = new Set<string>()
    const first = Math.min(...way)
    for (const index of way) {
      const line = lines[index]
      if (line?._tag === "Assistant" && line.messageId !== undefined) messageIds.add(line.messageId)
    }
    const isOfAnswer = (line: Line): boolean =>
      line._tag === "Assistant" && line.messageId !== undefined && messageIds.has(line.messageId)
    const toolUses = new Set(
      lines.flatMap((line, index) =>
        index >= first && (way.has(index) || isOfAnswer(line)) && line._tag === "Assistant"
          ? line.blocks.flatMap((block) => (block._tag === "ToolUse" ? block.id : []))
          : []
      )
    )
    const answersOne = (line: Line): boolean =>
      line._tag === "User" && line.blocks.some((block) => block._tag === "ToolResult" && toolUses.has(block.id))
    return lines.flatMap((line, index) =>
      (line._tag === "User" || line._tag === "Assistant") &&
      !line.isSidechain &&
      (way.has(index) || (index >= first && (isOfAnswer(line) || answersOne(line))))
        ? line
        : []
    )
  }

  const turnsOf = (messages: ReadonlyArray<Message>): ReadonlyArray<Turn> => {
    const turns: Array<{ turn: Turn; messageId: string | undefined }> = []
    const seenResults = new Set<string>()
    for (const line of messages) {
      const blocks = line.blocks.filter((block) => {
        if (block._tag !== "ToolResult") return true
        const repeated = seenResults.has(block.id)
        seenResults.add(block.id)
        return !repeated
      })
      if (blocks.length === 0) continue
      const messageId = line._tag === "Assistant" ? line.messageId : undefined
      const origin = originOf(line)
      const last = turns.at(-1)
      const goesOn =
        last !== undefined &&
        ((messageId !== undefined && last.messageId === messageId) ||
          (origin === "tool" && last.turn.origin === "tool"))
      // The results between the blocks of one answer follow it.
      const answer =
        goesOn || messageId === undefined ? undefined : turns.findLast((turn) => turn.messageId === messageId)
      const grown = goesOn ? last : answer
      if (grown === undefined) {
        turns.push({
          messageId,
          turn: { role: line._tag === "Assistant" ? "assistant" : "user", blocks, at: line.at, origin }
        })
      } else {
        grown.turn = { ...grown.turn, blocks: [...grown.turn.blocks, ...blocks] }
      }
    }
    return turns.map(({ turn }) => turn)
  }

  const lastRequestOf = (turns: ReadonlyArray<Turn>, refusedAt: number): LastRequest | undefined => {
    const index = turns.findLastIndex(({ origin }) => origin === "person")
    const turn = turns[index]
    if (turn === undefined) return undefined
    const answered = turns.slice(index + 1).some(({ role }) => role === "assistant")
    return { text: textOf(turn.blocks), at: turn.at, refused: refusedAt >= 0 && !answered }
  }

  const conversation = (): Conversation => {
    const way = wayBack()
    const messages = way.size === 0 ? [] : withSiblings(way)
    const turns = turnsOf(messages)
    const blocks = turns.flatMap((turn) => turn.blocks)
    const uses = blocks.flatMap((block) => (block._tag === "ToolUse" ? block.id : []))
    const results = blocks.flatMap((block) => (block._tag === "ToolResult" ? block.id : []))
    const answered = new Set(results)
    const used = new Set(uses)
    const answers = messages.flatMap((line) => (line._tag === "Assistant" ? line : []))
    const lastAnswer = answers.findLast(({ usage }) => usage !== undefined)
    const usageOf = new Map<string, MessageUsage>()
    lines.forEach((line, index) => {
      if (line._tag !== "Assistant" || line.usage === undefined) return
      usageOf.set(`${line.messageId ?? index}/${line.requestId ?? ""}`, line.usage)
    })
    const sum = (amount: (usage: MessageUsage) => number): number =>
      [...usageOf.values()].reduce((total, usage) => total + amount(usage), 0)
    const isMessage = ({ _tag }: Line): boolean => _tag === "User" || _tag === "Assistant"
    const refusedAt = lines.findLastIndex(({ _tag, isSidechain }) => _tag === "Refused" && !isSidechain)
    const lastAnswerAt = lines.findLastIndex(({ _tag, isSidechain }) => _tag === "Assistant" && !isSidechain)
    const refusal = refusedAt > lastAnswerAt ? lines[refusedAt] : undefined
    const last = <A>(of: (origin: LineOrigin) => A | undefined): A | undefined =>
      origins.map(of).findLast((value) => value !== undefined)
    const { usage } = lastAnswer ?? {}
    return {
      turns,
      counts: {
        requests: turns.filter(({ origin }) => origin === "person").length,
        answers: turns.filter(({ origin }) => origin === "model").length,
        toolUses: uses.length,
        toolResults: results.length,
        toolPairs: uses.filter((id) => answered.has(id)).length,
        images: blocks.reduce(
          (images, block) => images + (block._tag === "Image" ? 1 : block._tag === "ToolResult" ? block.images : 0),
          0
        ),
        subagentLines: lines.filter(({ isSidechain }) => isSidechain).length,
        abandonedLines: lines.filter((line) => isMessage(line) && !line.isSidechain).length - messages.length,
        compactions: lines.filter(({ _tag }) => _tag === "Compacted").length,
        brokenLines: broken
      },
      openToolUses: uses.filter((id) => !answered.has(id)),
      orphanResults: results.filter((id) => !used.has(id)),
      todos: todosOf(turns),
      lastRequest: lastRequestOf(turns, refusal === undefined ? -1 : refusedAt),
      model: answers.findLast(({ model }) => model !== undefined)?.model,
      contextTokens:
        usage === undefined
          ? undefined
          : usage.inputTokens + usage.cacheCreationTokens + usage.cacheReadTokens + usage.outputTokens,
      usage: {
        inputTokens: sum(({ inputTokens }) => inputTokens),
        cacheCreationTokens: sum(({ cacheCreationTokens }) => cacheCreationTokens),
        cacheReadTokens: sum(({ cacheReadTokens }) => cacheReadTokens),
        outputTokens: sum(({ outputTokens }) => outputTokens)
      },
      limit: refusal?._tag === "Refused" ? refusal.limit : undefined,
      lastAt: lines.map(({ at }) => at).findLast((at) => at !== undefined),
      sessionId: last(({ sessionId }) => sessionId),
      cwd: last(({ cwd }) => cwd),
      gitBranch: last(({ gitBranch }) => gitBranch),
      version: last(({ version }) => version)
    }
  }

  return {
    add: (line, origin) => {
      lines.push(line)
      origins.push(origin)
    },
    addBroken: () => {
      broken += 1
    },
    conversation
  }
}
