import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import { Effect, FastCheck, TestClock, TestContext } from "effect"
import { SessionId } from "../../src/Domain/Session.js"
import { makeTailer } from "../../src/SessionStore/Tailer.js"
import { SessionStore } from "../../src/SessionStore.js"

const now = Date.parse("2026-11-23T12:00:00Z")
const id = SessionId.make("session-1")

const line = (more: object, at = now) =>
  `${JSON.stringify({ sessionId: id, timestamp: new Date(at).toISOString(), cwd: "/project", isSidechain: false, ...more })}\n`

const asked = (text = "hello") => line({ type: "user", message: { role: "user", content: text } })

const answered = (message: string, output = 10, more: object = {}, at = now) =>
  line(
    {
      type: "assistant",
      requestId: `req_${message}`,
      message: {
        id: message,
        model: "claude-opus-5-5",
        usage: {
          input_tokens: 5,
          cache_creation_input_tokens: 20,
          cache_read_input_tokens: 75,
          output_tokens: output
        }
      },
      ...more
    },
    at
  )

const refused = (at: number) =>
  line(
    {
      type: "assistant",
      isApiErrorMessage: true,
      error: "rate_limit",
      apiError: "usage_limit_reached",
      message: { id: "m", model: "<synthetic>", usage: { input_tokens: 0, output_tokens: 0 } },
      quotaLimits: { status: "rejected", resetsAt: (now + 3_600_000) / 1000, rateLimitType: "five_hour" }
    },
    at
  )

/** A configuration folder with the transcript of one session, and a tailer that searches it. */
const setUp = Effect.gen(function* () {
  const account = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "dream-team-tailer-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  const path = join(account, "projects", "-project", `${id}.jsonl`)
  mkdirSync(dirname(path), { recursive: true })
  yield* TestClock.setTime(now)
  const store = yield* SessionStore
  const make = makeTailer({ accounts: [account] })
  const { pass } = yield* make
  const touched = (file: string): void => utimesSync(file, now / 1000, now / 1000)
  return {
    account,
    path,
    store,
    /** What a process that starts now would do. */
    restarted: Effect.flatMap(make, ({ pass }) => pass),
    pass,
    write: (text: string | Uint8Array, file = path) => {
      mkdirSync(dirname(file), { recursive: true })
      appendFileSync(file, text)
      touched(file)
    },
    replace: (text: string) => {
      writeFileSync(`${path}.new`, text)
      touched(`${path}.new`)
      renameSync(`${path}.new`, path)
    },
    session: store.get(id)
  }
})

const layer = SessionStore.layerMemory

describe("transcripts", () => {
  it.scoped("tell of sessions that no feed told of: what was used, and what is in the context", () =>
    Effect.gen(function* () {
      const { account, pass, path, session, write } = yield* setUp
      write(`${asked()}${answered("m1", 3)}${answered("m1", 10)}${answered("m2")}{"type":"summary"}\n`)
      yield* pass
      expect(yield* session).toMatchObject({
        account,
        transcriptPath: path,
        cwd: "/project",
        model: "claude-opus-5-5",
        status: "active",
        contextTokens: 110,
        inputTokens: 200,
        outputTokens: 20,
        source: "transcript",
        updatedAt: now
      })
    }).pipe(Effect.provide(layer))
  )

  it.scoped("tell of a refusal, its window and its reset, and of the answer after it", () =>
    Effect.gen(function* () {
      const { account, pass, session, store, write } = yield* setUp
      write(`${answered("m1", 10, {}, now - 60_000)}${refused(now - 30_000)}`)
      yield* pass
      const limit = { window: "five_hour", hitAt: now - 30_000, resetsAt: now + 3_600_000 }
      expect(yield* session).toMatchObject({ status: "limited", limit })
      expect(yield* store.limits).toMatchObject([
        { account, readings: [{ window: "five_hour", status: "rejected", source: "transcript", at: now - 30_000 }] }
      ])
      write(answered("m2"))
      yield* pass
      expect(yield* session).toMatchObject({ status: "active", limit: undefined })
    }).pipe(Effect.provide(layer))
  )

  it.scoped("count subagents, whose context is not the session's", () =>
    Effect.gen(function* () {
      const { account, pass, session, write } = yield* setUp
      write(answered("m1"))
      write(
        answered("m2", 900, { isSidechain: true }),
        join(account, "projects", "-project", id, "subagents", "agent-1.jsonl")
      )
      yield* pass
      expect(yield* session).toMatchObject({ inputTokens: 200, outputTokens: 910, contextTokens: 110 })
    }).pipe(Effect.provide(layer))
  )

  it.scoped("are read on from where they were read, half a line once it is whole", () =>
    Effect.gen(function* () {
      const { pass, restarted, session, write } = yield* setUp
      const second = answered("m2")
      write(`${answered("m1")}${second.slice(0, 50)}`)
      expect(yield* pass).toBe(answered("m1").length)
      expect(yield* pass).toBe(0)
      expect(yield* restarted).toBe(0)
      expect(yield* session).toMatchObject({ outputTokens: 10 })
      write(second.slice(50))
      expect(yield* restarted).toBe(second.length)
      expect(yield* session).toMatchObject({ outputTokens: 20 })
    }).pipe(Effect.provide(layer))
  )

  it.scoped("may be replaced, cut and written anew; nothing is counted twice", () =>
    Effect.gen(function* () {
      const { pass, path, replace, session, write } = yield* setUp
      write(`${answered("m1")}${answered("m2")}`)
      yield* pass
      replace(`${answered("m2")}${answered("m3")}`)
      yield* pass
      expect(yield* session).toMatchObject({ outputTokens: 30 })
      truncateSync(path, 0)
      write(answered("m4"))
      yield* pass
      expect(yield* session).toMatchObject({ outputTokens: 40 })
      // Cut and grown beyond where it was read, into the midst of a line.
      truncateSync(path, 0)
      write(`${asked("x".repeat(2000))}${answered("m5")}`)
      yield* pass
      expect(yield* session).toMatchObject({ outputTokens: 50 })
      rmSync(path)
      expect(yield* pass).toBe(0)
    }).pipe(Effect.provide(layer))
  )

  it.scoped("are read in bounded parts, and lines that are too long passed over", () =>
    Effect.gen(function* () {
      const { pass, session, write } = yield* setUp
      write(`${answered("m1")}${asked("x".repeat(11 * 1024 * 1024))}${answered("m2")}`)
      expect(yield* pass).toBeLessThan(9 * 1024 * 1024)
      yield* pass
      yield* pass
      expect(yield* session).toMatchObject({ outputTokens: 20 })
    }).pipe(Effect.provide(layer))
  )

  it.scoped("may hold answers of megabytes, whose tokens count like others", () =>
    Effect.gen(function* () {
      const { pass, session, write } = yield* setUp
      const written = { content: [{ type: "tool_use", name: "Write", input: { text: "x".repeat(3 * 1024 * 1024) } }] }
      const long = line({
        type: "assistant",
        requestId: "req_long",
        message: { id: "long", model: "m", ...written, usage: { input_tokens: 7, output_tokens: 900 } }
      })
      const half = Math.floor(long.length / 2)
      write(`${answered("m1")}${asked("x".repeat(2 * 1024 * 1024))}${long.slice(0, half)}`)
      yield* pass
      yield* pass
      expect(yield* session).toMatchObject({ outputTokens: 10 })
      write(`${long.slice(half)}${answered("m2")}`)
      yield* pass
      yield* pass
      expect(yield* session).toMatchObject({ outputTokens: 920 })
    }).pipe(Effect.provide(layer))
  )

  it.scoped("that did not change for a day are left alone", () =>
    Effect.gen(function* () {
      const { pass, path, session, write } = yield* setUp
      write(answered("m1"))
      const old = now / 1000 - 2 * 24 * 60 * 60
      utimesSync(path, old, old)
      yield* pass
      expect(yield* session).toBeUndefined()
    }).pipe(Effect.provide(layer))
  )

  it("come to the same however they are cut into writes, and whatever stands between", async () => {
    const noise = FastCheck.oneof(
      FastCheck.constant(""),
      FastCheck.constant("{"),
      FastCheck.constant("null"),
      FastCheck.json().map((json) => json.replaceAll("\n", " ")),
      FastCheck.string().map((text) => text.replaceAll("\n", " ")),
      FastCheck.record({
        type: FastCheck.constantFrom("assistant", "user", "system"),
        timestamp: FastCheck.constantFrom(new Date(now).toISOString(), "soon", 5, null),
        isSidechain: FastCheck.constant(true),
        message: FastCheck.anything({ maxDepth: 2 }),
        quotaLimits: FastCheck.anything({ maxDepth: 2 })
      }).map((value) => JSON.stringify(value, (_, inner) => (typeof inner === "bigint" ? null : inner)))
    )
    const file = FastCheck.array(
      FastCheck.oneof(
        noise.map((text) => ({ text: `${text}\n`, message: undefined })),
        FastCheck.integer({ min: 0, max: 9 }).map((n) => ({ text: answered(`m${n}`), message: `m${n}` }))
      ),
      { maxLength: 20 }
    )
    await FastCheck.assert(
      FastCheck.asyncProperty(file, FastCheck.array(FastCheck.nat(), { maxLength: 6 }), (lines, cuts) =>
        Effect.gen(function* () {
          const { pass, restarted, session, write } = yield* setUp
          const bytes = Buffer.from(lines.map(({ text }) => text).join(""))
          const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].toSorted((a, b) => a - b)
          for (const [index, place] of places.entries()) {
            write(bytes.subarray(place, places[index + 1] ?? bytes.length))
            yield* index % 2 === 0 ? pass : restarted
          }
          const answers = new Set(lines.flatMap(({ message }) => message ?? []))
          expect((yield* session)?.outputTokens ?? 0).toBe(10 * answers.size)
        }).pipe(Effect.scoped, Effect.provide(layer), Effect.provide(TestContext.TestContext), Effect.runPromise)
      ),
      { numRuns: 20 }
    )
  })
})
