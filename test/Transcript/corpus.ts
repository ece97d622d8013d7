import type { Counts } from "../../src/Transcript.js"
import { assistant, boundary, image, jsonl, other, refused, result, text, thinking, use, user } from "./lines.js"

/** One shape that transcripts take, and what is to be read out of it. */
export interface Shape {
  readonly name: string
  readonly jsonl: string
  /** Role, and the text or what stands for it, of each message. */
  readonly turns: ReadonlyArray<string>
  readonly counts?: Partial<Counts>
  readonly openToolUses?: ReadonlyArray<string>
  readonly orphanResults?: ReadonlyArray<string>
  readonly todos?: ReadonlyArray<string>
  readonly lastRequest?: { readonly text: string; readonly refused: boolean }
  readonly limit?: { readonly window: string | undefined; readonly resetsAt: number | undefined }
}

const remember = user("u1", null, "remember the number 4711")
const remembered = assistant("a1", "u1", "m1", [text("I will remember 4711.")])

export const corpus: ReadonlyArray<Shape> = [
  { name: "an empty file", jsonl: "", turns: [], counts: { requests: 0, brokenLines: 0 } },
  {
    name: "a question and its answer",
    jsonl: jsonl([remember, remembered]),
    turns: ["user: remember the number 4711", "assistant: I will remember 4711."],
    counts: { requests: 1, answers: 1, toolUses: 0 },
    lastRequest: { text: "remember the number 4711", refused: false }
  },
  {
    name: "an answer written block by block, with thinking",
    jsonl: jsonl([
      remember,
      assistant("a1", "u1", "m1", [thinking]),
      assistant("a2", "a1", "m1", [text("Let me look.")]),
      assistant("a3", "a2", "m1", [use("t1", "Read", { file_path: "/a" })]),
      user("r1", "a3", [result("t1", "content of a")]),
      assistant("a4", "r1", "m2", [text("Done.")])
    ]),
    turns: [
      "user: remember the number 4711",
      "assistant: ~ Let me look. Read(t1)",
      "user: t1=content of a",
      "assistant: Done."
    ],
    counts: { requests: 1, answers: 2, toolUses: 1, toolResults: 1, toolPairs: 1 }
  },
  {
    name: "tools used beside each other, whose results are on different branches",
    jsonl: jsonl([
      remember,
      assistant("a1", "u1", "m1", [use("t1", "Read", { file_path: "/a" })]),
      assistant("a2", "a1", "m1", [use("t2", "Read", { file_path: "/b" })]),
      user("r1", "a1", [result("t1", "a")]),
      user("r2", "a2", [result("t2", "b")]),
      assistant("a3", "r2", "m2", [text("Both read.")])
    ]),
    turns: [
      "user: remember the number 4711",
      "assistant: Read(t1) Read(t2)",
      "user: t1=a t2=b",
      "assistant: Both read."
    ],
    counts: { toolUses: 2, toolResults: 2, toolPairs: 2, abandonedLines: 0 }
  },
  {
    name: "a result that came between the blocks of one answer",
    jsonl: jsonl([
      remember,
      assistant("a1", "u1", "m1", [use("t1", "Read", { file_path: "/a" })]),
      user("r1", "a1", [result("t1", "a")]),
      assistant("a2", "r1", "m1", [use("t2", "Read", { file_path: "/b" })]),
      user("r2", "a2", [result("t2", "b")]),
      assistant("a3", "r2", "m2", [text("Both read.")])
    ]),
    turns: [
      "user: remember the number 4711",
      "assistant: Read(t1) Read(t2)",
      "user: t1=a t2=b",
      "assistant: Both read."
    ],
    counts: { toolPairs: 2 }
  },
  {
    name: "the limit hit in mid-work",
    jsonl: jsonl([
      remember,
      remembered,
      user("u2", "a1", "now build it"),
      refused("e1", "u2", {
        quotaLimits: { status: "rejected", resetsAt: 1_795_360_961, rateLimitType: "five_hour" }
      })
    ]),
    turns: ["user: remember the number 4711", "assistant: I will remember 4711.", "user: now build it"],
    lastRequest: { text: "now build it", refused: true },
    limit: { window: "five_hour", resetsAt: 1_795_360_961_000 }
  },
  {
    name: "the limit told in the error's parameters, as text",
    jsonl: jsonl([
      remember,
      refused("e1", "u1", {
        apiErrorParams: { rate_limit_info: { resetsAt: "2026-11-22T15:22:00Z", rateLimitType: "seven_day" } }
      })
    ]),
    turns: ["user: remember the number 4711"],
    lastRequest: { text: "remember the number 4711", refused: true },
    limit: { window: "seven_day", resetsAt: Date.parse("2026-11-22T15:22:00Z") }
  },
  {
    name: "a limit that is over: an answer came after it",
    jsonl: jsonl([
      remember,
      refused("e1", "u1"),
      user("u2", "e1", "go on"),
      assistant("a2", "u2", "m2", [text("Yes.")])
    ]),
    turns: ["user: remember the number 4711", "user: go on", "assistant: Yes."],
    lastRequest: { text: "go on", refused: false }
  },
  {
    name: "a subagent's lines among those of the session",
    jsonl: jsonl([
      remember,
      assistant("a1", "u1", "m1", [use("t1", "Task", { prompt: "look around" })]),
      user("s1", null, "look around", { isSidechain: true }),
      assistant("s2", "s1", "ms", [text("a subagent speaks")], { isSidechain: true }),
      user("r1", "a1", [result("t1", [text("found it")])]),
      assistant("a2", "r1", "m2", [text("Found.")])
    ]),
    turns: ["user: remember the number 4711", "assistant: Task(t1)", "user: t1=found it", "assistant: Found."],
    counts: { subagentLines: 2, toolPairs: 1 }
  },
  {
    name: "images of the person and of a tool",
    jsonl: jsonl([
      user("u1", null, [text("what is this?"), image]),
      assistant("a1", "u1", "m1", [use("t1", "Screenshot", {})]),
      user("r1", "a1", [result("t1", [image, text("taken")])]),
      assistant("a2", "r1", "m2", [text("A cat.")])
    ]),
    turns: ["user: what is this? image/png", "assistant: Screenshot(t1)", "user: t1=taken", "assistant: A cat."],
    counts: { images: 2, requests: 1 }
  },
  {
    name: "a compaction",
    jsonl: jsonl([
      remember,
      remembered,
      boundary("b1", "a1"),
      user("c1", "b1", "The session is about the number 4711.", {
        isCompactSummary: true,
        isVisibleInTranscriptOnly: true
      }),
      user("u2", "c1", "which number?"),
      assistant("a2", "u2", "m2", [text("4711.")])
    ]),
    turns: ["user: The session is about the number 4711.", "user: which number?", "assistant: 4711."],
    counts: { compactions: 1, requests: 1, abandonedLines: 2 },
    lastRequest: { text: "which number?", refused: false }
  },
  {
    name: "a rewound request",
    jsonl: jsonl([
      remember,
      remembered,
      user("u2", "a1", "a bad idea"),
      assistant("a2", "u2", "m2", [text("Bad, done.")]),
      user("u3", "a1", "a better idea"),
      assistant("a3", "u3", "m3", [text("Better, done.")])
    ]),
    turns: [
      "user: remember the number 4711",
      "assistant: I will remember 4711.",
      "user: a better idea",
      "assistant: Better, done."
    ],
    counts: { abandonedLines: 2, requests: 2 }
  },
  {
    name: "a half-written last line",
    jsonl: `${jsonl([remember, remembered])}{"parentUuid":"a1","type":"user","mess`,
    turns: ["user: remember the number 4711", "assistant: I will remember 4711."],
    counts: { brokenLines: 1 }
  },
  {
    name: "a lost line in the middle",
    jsonl: jsonl([
      remember,
      remembered,
      '{"type":"user","uuid":"u2", this line was damaged',
      assistant("a2", "u2", "m2", [text("Still here.")])
    ]),
    turns: ["user: remember the number 4711", "assistant: I will remember 4711.", "assistant: Still here."],
    counts: { brokenLines: 1, abandonedLines: 0 }
  },
  {
    name: "a huge tool result",
    jsonl: jsonl([
      remember,
      assistant("a1", "u1", "m1", [use("t1", "Bash", { command: "yes" })]),
      user("r1", "a1", [result("t1", "y\n".repeat(500_000))]),
      assistant("a2", "r1", "m2", [text("Many.")])
    ]),
    turns: ["user: remember the number 4711", "assistant: Bash(t1)", "user: t1=(long)", "assistant: Many."],
    counts: { toolPairs: 1 }
  },
  {
    name: "a tool that never answered",
    jsonl: jsonl([remember, assistant("a1", "u1", "m1", [text("Working."), use("t1", "Bash", { command: "make" })])]),
    turns: ["user: remember the number 4711", "assistant: Working. Bash(t1)"],
    counts: { toolUses: 1, toolPairs: 0 },
    openToolUses: ["t1"]
  },
  {
    name: "a result without its tool use",
    jsonl: jsonl([
      user("r0", null, [result("t0", "from before")]),
      user("u1", "r0", "go on"),
      assistant("a1", "u1", "m1", [text("On.")])
    ]),
    turns: ["user: t0=from before", "user: go on", "assistant: On."],
    counts: { toolResults: 1, toolPairs: 0 },
    orphanResults: ["t0"]
  },
  {
    name: "a failed tool, and a result told twice",
    jsonl: jsonl([
      remember,
      assistant("a1", "u1", "m1", [use("t1", "Bash", { command: "false" })]),
      user("r1", "a1", [result("t1", "exit code 1", true)]),
      user("r2", "r1", [result("t1", "exit code 1", true)]),
      assistant("a2", "r2", "m2", [text("It failed.")])
    ]),
    turns: ["user: remember the number 4711", "assistant: Bash(t1)", "user: t1!exit code 1", "assistant: It failed."],
    counts: { toolResults: 1, toolPairs: 1 }
  },
  {
    name: "a to-do list written whole",
    jsonl: jsonl([
      remember,
      assistant("a1", "u1", "m1", [
        use("t1", "TodoWrite", {
          todos: [
            { content: "plan", status: "completed", activeForm: "Planning" },
            { content: "build", status: "in_progress", activeForm: "Building" },
            { content: "test", status: "pending", activeForm: "Testing" }
          ]
        })
      ]),
      user("r1", "a1", [result("t1", "Todos have been modified")]),
      assistant("a2", "r1", "m2", [text("Planned.")])
    ]),
    turns: [
      "user: remember the number 4711",
      "assistant: TodoWrite(t1)",
      "user: t1=Todos have been modified",
      "assistant: Planned."
    ],
    todos: ["build in_progress", "test pending"]
  },
  {
    name: "a to-do list of single tasks",
    jsonl: jsonl([
      remember,
      assistant("a1", "u1", "m1", [
        use("t1", "TaskCreate", { subject: "plan" }),
        use("t2", "TaskCreate", { subject: "build" })
      ]),
      user("r1", "a1", [result("t1", "Task #1 created"), result("t2", "Task #2 created")]),
      assistant("a2", "r1", "m2", [use("t3", "TaskUpdate", { taskId: "1", status: "completed" })]),
      user("r2", "a2", [result("t3", "Updated task #1")])
    ]),
    turns: [
      "user: remember the number 4711",
      "assistant: TaskCreate(t1) TaskCreate(t2)",
      "user: t1=Task #1 created t2=Task #2 created",
      "assistant: TaskUpdate(t3)",
      "user: t3=Updated task #1"
    ],
    todos: ["build pending"]
  },
  {
    name: "commands, reminders and lines of unknown kinds",
    jsonl: jsonl([
      other("summary", { summary: "Numbers", leafUuid: "a1" }),
      other("file-history-snapshot", { messageId: "u1", snapshot: {} }),
      user("u0", null, "Caveat: the messages below were generated", { isMeta: true }),
      user("c1", "u0", "<command-name>/model</command-name>\n<command-message>model</command-message>"),
      user("c2", "c1", "<local-command-stdout>Set model to sonnet</local-command-stdout>"),
      user("u1", "c2", "remember the number 4711"),
      { ...other("attachment"), uuid: "x1", parentUuid: "u1", isSidechain: false, attachment: { type: "todo" } },
      assistant("a1", "x1", "m1", [text("I will remember 4711."), { type: "new_kind", value: 1 }]),
      other("queue-operation", { operation: "enqueue" }),
      other("cost-state", { cost: { total: 1 } }),
      "null",
      "[1, 2]"
    ]),
    turns: [
      "user: Caveat: the messages below were generated",
      "user: <command-name>/model</command-name>\n<command-message>model</command-message>",
      "user: <local-command-stdout>Set model to sonnet</local-command-stdout>",
      "user: remember the number 4711",
      "assistant: I will remember 4711. ?new_kind"
    ],
    counts: { requests: 1, brokenLines: 2 },
    lastRequest: { text: "remember the number 4711", refused: false }
  },
  {
    name: "a chain of parents that runs in a circle",
    jsonl: jsonl([user("u1", "a1", "one"), assistant("a1", "u1", "m1", [text("two")])]),
    turns: ["user: one", "assistant: two"],
    counts: { requests: 1 }
  }
]
