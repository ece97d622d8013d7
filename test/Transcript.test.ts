import { execFileSync } from "node:child_process"
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as NodeContext from "@effect/platform-node/NodeContext"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FastCheck, Option } from "effect"
import { textTokens } from "../src/Domain/Call.js"
import { type Block, gitState, keepTranscript, readTranscript, repair, summarize } from "../src/Transcript.js"
import { corpus } from "./Transcript/corpus.js"
import { assistant, image, jsonl, refused, result, text, thinking, use, user } from "./Transcript/lines.js"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "transcript-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const readText = (content: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const path = join(yield* folder, "session.jsonl")
      writeFileSync(path, content)
      return yield* readTranscript(path)
    })
  ).pipe(Effect.provide(NodeContext.layer))

const short = (block: Block): string => {
  switch (block._tag) {
    case "Text":
      return block.text
    case "Thinking":
      return "~"
    case "Image":
      return block.mediaType
    case "ToolUse":
      return `${block.name}(${block.id})`
    case "ToolResult":
      return `${block.id}${block.isError ? "!" : "="}${block.text.length > 1_000 ? "(long)" : block.text}`
    case "Unknown":
      return `?${block.type}`
  }
}

describe("a transcript", () => {
  for (const shape of corpus) {
    it.effect(`is read: ${shape.name}`, () =>
      Effect.gen(function* () {
        const read = yield* readText(shape.jsonl)
        assert.deepStrictEqual(
          read.turns.map(({ blocks, role }) => `${role}: ${blocks.map(short).join(" ")}`),
          shape.turns
        )
        assert.deepInclude(read.counts, shape.counts ?? {})
        assert.deepStrictEqual(read.openToolUses, shape.openToolUses ?? [])
        assert.deepStrictEqual(read.orphanResults, shape.orphanResults ?? [])
        assert.deepStrictEqual(
          read.todos.map((todo) => `${todo.text} ${todo.status}`),
          shape.todos ?? []
        )
        assert.deepStrictEqual(read.limit, shape.limit)
        if (shape.lastRequest !== undefined) assert.deepInclude(read.lastRequest, shape.lastRequest)
      })
    )
  }

  it.effect("tells where its session works, and counts the tokens of each answer once", () =>
    Effect.gen(function* () {
      const read = yield* readText(
        jsonl([
          user("u1", null, "hello"),
          assistant("a1", "u1", "m1", [thinking], {}, [10, 1]),
          assistant("a2", "a1", "m1", [text("hi")], {}, [10, 5]),
          user("u2", "a2", "more", { cwd: "/home/ada/engine/sub", gitBranch: "feature" }),
          assistant("a3", "u2", "m2", [text("more")], { gitBranch: "feature", cwd: "/home/ada/engine/sub" }, [20, 7])
        ])
      )
      assert.deepInclude(read, { cwd: "/home/ada/engine/sub", gitBranch: "feature", model: "claude-sonnet-5-5" })
      assert.deepStrictEqual(read.usage, {
        inputTokens: 30,
        cacheCreationTokens: 200,
        cacheReadTokens: 2_000,
        outputTokens: 12
      })
      assert.strictEqual(read.contextTokens, 20 + 100 + 1_000 + 7)
    })
  )

  it.effect("that is not there is said to be so", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(readTranscript("/nowhere/session.jsonl"))
      assert.strictEqual(error._tag, "TranscriptUnavailable")
      assert.include(error.message, "/nowhere/session.jsonl")
    }).pipe(Effect.provide(NodeContext.layer))
  )

  it.effect(
    "is read whatever became of its bytes",
    () =>
      Effect.promise(() =>
        FastCheck.assert(
          FastCheck.asyncProperty(
            FastCheck.constantFrom(...corpus.filter(({ jsonl }) => jsonl.length < 20_000).map(({ jsonl }) => jsonl)),
            FastCheck.array(
              FastCheck.tuple(FastCheck.nat(), FastCheck.nat(3_000), FastCheck.string({ maxLength: 20 })),
              {
                maxLength: 4
              }
            ),
            async (whole, damages) => {
              const damaged = damages.reduce((content, [at, length, put]) => {
                const from = content.length === 0 ? 0 : at % content.length
                return content.slice(0, from) + put + content.slice(from + length)
              }, whole)
              const read = await Effect.runPromise(readText(damaged))
              const { turns } = repair(read)
              turns.forEach(({ blocks, role }, index) => {
                const uses =
                  role === "assistant" ? blocks.flatMap((block) => (block._tag === "ToolUse" ? block.id : [])) : []
                const answers =
                  turns[index + 1]?.blocks.flatMap((block) => (block._tag === "ToolResult" ? block.id : [])) ?? []
                if (uses.length > 0) assert.deepStrictEqual(answers, uses)
              })
              assert.isAtLeast(read.counts.toolUses, read.counts.toolPairs)
              summarize(read, { maxTokens: 500 })
            }
          ),
          { numRuns: 300, seed: 11 }
        )
      ),
    60_000
  )
})

describe("a repaired conversation", () => {
  it.effect("has no thinking, and a result after every tool use", () =>
    Effect.gen(function* () {
      const read = yield* readText(
        jsonl([
          user("r0", null, [result("t0", "lost")]),
          user("u1", "r0", "work"),
          assistant("a1", "u1", "m1", [thinking, use("t1", "Read", {}), use("t2", "Bash", {})]),
          user("r1", "a1", [result("t2", "two")])
        ])
      )
      const repaired = repair(read)
      assert.deepStrictEqual(
        repaired.turns.map(({ blocks, role }) => `${role}: ${blocks.map(short).join(" ")}`),
        [
          "user: [result of a tool call that this conversation does not hold]\nlost",
          "user: work",
          "assistant: Read(t1) Bash(t2)",
          "user: t1![no result: the session was cut before this tool answered] t2=two"
        ]
      )
      assert.deepInclude(repaired, { thinkingDropped: 1, resultsAdded: 1, resultsAsText: 1 })
    })
  )
})

describe("a summary", () => {
  const long = (words: number): string => "word ".repeat(words)
  const session = jsonl([
    user("u0", null, [text("first of all, the number is 4711"), image]),
    ...Array.from({ length: 40 }, (_, index) => [
      assistant(`a${index}`, index === 0 ? "u0" : `r${index - 1}`, `m${index}`, [
        text(`step ${index}: ${long(30)}`),
        use(`t${index}`, "Bash", { command: `make step-${index}` })
      ]),
      user(`r${index}`, `a${index}`, [result(`t${index}`, `output ${index}: ${long(1_000)}`)])
    ]).flat(),
    user("u1", "r39", "and now finish step 41"),
    refused("e1", "u1")
  ])

  it.effect("fits its bound, keeps what matters and says what it leaves out", () =>
    Effect.gen(function* () {
      const read = yield* readText(session)
      for (const maxTokens of [3_000, 8_000, 30_000]) {
        const summary = summarize(read, {
          maxTokens,
          git: { branch: "main", commit: "0123456789abcdef", diffStat: " a.ts | 2 +-", untracked: ["b.ts"] }
        })
        assert.isAtMost(textTokens(summary.text), maxTokens)
        assert.include(summary.text, "and now finish step 41")
        assert.include(summary.text, "not answered yet")
        assert.include(summary.text, "a.ts | 2 +-")
        assert.include(summary.text, "/home/ada/engine")
        assert.include(summary.text, "step 39")
        assert.include(summary.leftOut.join(), "condensed")
        for (const said of summary.leftOut) assert.include(summary.text, said)
      }
      const roomy = summarize(read, { maxTokens: 30_000 })
      assert.include(roomy.text, "4711")
    })
  )

  it.effect("of what fits holds everything", () =>
    Effect.gen(function* () {
      const read = yield* readText(
        jsonl([
          user("u1", null, "remember the number 4711"),
          assistant("a1", "u1", "m1", [text("I will remember 4711.")])
        ])
      )
      const { leftOut, text: told } = summarize(read, { maxTokens: 10_000 })
      assert.deepStrictEqual(leftOut, [])
      assert.include(told, "User:\nremember the number 4711\n\nAssistant:\nI will remember 4711.")
    })
  )
})

describe("a kept transcript", () => {
  it.scoped("is stored once under the hash of its content, for its owner alone", () =>
    Effect.gen(function* () {
      const home = yield* folder
      const path = join(home, "session.jsonl")
      writeFileSync(path, jsonl([user("u1", null, "one")]))
      const first = yield* keepTranscript(path, join(home, "kept"))
      const again = yield* keepTranscript(path, join(home, "kept"))
      assert.deepStrictEqual(again, first)
      appendFileSync(path, jsonl([user("u2", "u1", "two")]))
      const grown = yield* keepTranscript(path, join(home, "kept"))
      assert.notStrictEqual(grown.hash, first.hash)
      assert.deepStrictEqual(
        readdirSync(join(home, "kept")).sort(),
        [`${first.hash}.jsonl`, `${grown.hash}.jsonl`].sort()
      )
      assert.strictEqual(readFileSync(grown.path, "utf8"), readFileSync(path, "utf8"))
      assert.strictEqual(statSync(grown.path).mode & 0o777, 0o600)
      yield* Effect.flip(keepTranscript(join(home, "gone.jsonl"), join(home, "kept")))
      assert.strictEqual(readdirSync(join(home, "kept")).length, 2)
    }).pipe(Effect.provide(NodeContext.layer))
  )
})

describe("the state of git", () => {
  it.scoped("tells branch, changes and unknown files, and nothing where there is no repository", () =>
    Effect.gen(function* () {
      const home = yield* folder
      const git = (...args: ReadonlyArray<string>): void => {
        execFileSync("git", ["-C", home, "-c", "user.name=a", "-c", "user.email=a@b", ...args], { stdio: "ignore" })
      }
      assert.isTrue(Option.isNone(yield* gitState(home)))
      assert.isTrue(Option.isNone(yield* gitState(join(home, "gone"))))
      git("init", "-b", "trunk")
      const empty = yield* gitState(home)
      assert.deepInclude(Option.getOrThrow(empty), { branch: "trunk", commit: undefined, diffStat: "" })
      writeFileSync(join(home, "a.txt"), "one\n")
      git("add", ".")
      git("commit", "-m", "one")
      writeFileSync(join(home, "a.txt"), "two\n")
      mkdirSync(join(home, "new folder"))
      writeFileSync(join(home, "new folder", "b.txt"), "b\n")
      const state = Option.getOrThrow(yield* gitState(home))
      assert.strictEqual(state.branch, "trunk")
      assert.include(state.diffStat, "a.txt")
      assert.deepStrictEqual(state.untracked, ["new folder/"])
      git("checkout", "--detach")
      assert.strictEqual(Option.getOrThrow(yield* gitState(home)).branch, "HEAD")
    }).pipe(Effect.provide(NodeContext.layer))
  )
})
