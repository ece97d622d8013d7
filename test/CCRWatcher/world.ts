import * as CommandExecutor from "@effect/platform/CommandExecutor"
import { SystemError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import * as SqlClient from "@effect/sql/SqlClient"
import { Context, Effect, Layer, Option, Redacted, Stream, TestClock } from "effect"
import { Processes } from "../../src/CCRWatcher/Processes.js"
import { ClaudeCodeRouter } from "../../src/CCRWatcher/Router.js"
import { CCRWatcher } from "../../src/CCRWatcher.js"
import { ClaudeCode, type ClaudeEvent, type ClaudeFailure, type ClaudeRun } from "../../src/ClaudeCode.js"
import type { PlatformResources, PlatformView } from "../../src/Domain/Lease.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { SessionId } from "../../src/Domain/Session.js"
import type { Usage } from "../../src/Domain/Usage.js"
import { Events } from "../../src/Events.js"
import { Gateway } from "../../src/Gateway.js"
import { PlatformDetector } from "../../src/PlatformDetector.js"
import { ResourceManager } from "../../src/ResourceManager.js"
import { HandoffStore } from "../../src/SessionStore/Handoffs.js"
import { SessionHandoffs } from "../../src/SessionStore/Requests.js"
import { type SessionReport, SessionStore } from "../../src/SessionStore.js"
import { Settings, type SettingsShape } from "../../src/Settings.js"
import { Arrivals } from "../../src/Sql/Writer.js"
import { Sql } from "../../src/Sql.js"
import * as Testing from "../../src/Testing.js"
import { assistant, jsonl, refused, text, user } from "../Transcript/lines.js"

export const codex = PlatformId.make("codex")
export const synthetic = PlatformId.make("synthetic")
export const gemini = PlatformId.make("gemini")

export const account = "/home/ada/.claude"
export const cwd = "/home/ada/engine"
export const session = SessionId.make("0b6f2f5e-6f6c-4f60-9d38-0d8d7f1f5a01")
const project = `${account}/projects/-home-ada-engine`
export const transcriptPath = `${project}/${session}.jsonl`
export const transcriptOf = (id: string): string => `${project}/${id}.jsonl`

/** Well after every line of the transcripts. */
export const noon = Date.parse("2026-11-20T18:00:00.000Z")

/** A conversation that remembers something, and was refused its next request. */
const remembered = [
  user("u1", null, "remember the number 4711"),
  assistant("a1", "u1", "m1", [text("I remember 4711.")]),
  user("u2", "a1", "which number was it?")
]
const refusedTranscript = jsonl([...remembered, refused("r1", "u2")])
export const answeredTranscript = jsonl([...remembered, assistant("a2", "u2", "m2", [text("It was 4711.")])])
export const cutTranscript = jsonl(remembered)

const absent = (path: string) =>
  new SystemError({ reason: "NotFound", module: "FileSystem", method: "open", pathOrDescriptor: path })

/** Files in memory, as far as they are used here. */
const filesIn = (files: Map<string, Uint8Array>, modes: Map<string, number>) => {
  const read = (path: string) =>
    Effect.suspend(() => {
      const bytes = files.get(path)
      return bytes === undefined ? Effect.fail(absent(path)) : Effect.succeed(bytes)
    })
  return FileSystem.makeNoop({
    makeDirectory: () => Effect.void,
    exists: (path) => Effect.sync(() => files.has(path)),
    stream: (path) => Stream.fromEffect(read(path)),
    readFileString: (path) => Effect.map(read(path), (bytes) => Buffer.from(bytes).toString("utf8")),
    writeFileString: (path, data, options) =>
      Effect.sync(() => {
        files.set(path, Buffer.from(data))
        modes.set(path, options?.mode ?? 0o644)
      }),
    chmod: (path, mode) => Effect.sync(() => void modes.set(path, mode)),
    rename: (from, to) =>
      Effect.map(read(from), (bytes) => {
        files.set(to, bytes)
        files.delete(from)
        modes.set(to, modes.get(from) ?? 0o644)
      }),
    remove: (path) =>
      Effect.sync(() => {
        for (const name of files.keys()) if (name === path || name.startsWith(`${path}/`)) files.delete(name)
      }),
    open: (path, options) =>
      Effect.sync(() => {
        const parts: Array<Uint8Array> = []
        modes.set(path, options?.mode ?? 0o644)
        const write = (buffer: Uint8Array) =>
          Effect.sync(() => {
            parts.push(Uint8Array.from(buffer))
            files.set(path, Buffer.concat(parts))
          })
        const unused = Effect.dieMessage("not used here")
        return {
          [FileSystem.FileTypeId]: FileSystem.FileTypeId,
          fd: FileSystem.FileDescriptor(1),
          stat: unused,
          seek: () => unused,
          sync: Effect.void,
          read: () => unused,
          readAlloc: () => unused,
          truncate: () => unused,
          write: (buffer) => Effect.as(write(buffer), FileSystem.Size(buffer.length)),
          writeAll: write
        }
      })
  })
}

const resourcesOf = (platform: PlatformId): PlatformResources => ({
  platform,
  buckets: [],
  permits: { inUse: 0, max: 4, keptForHigh: 0, utilization: { oneMinute: 0, fiveMinutes: 0 }, models: [] },
  breaker: { state: "closed", consecutiveFailures: 0, capacityPercent: 100 },
  modelBreakers: [],
  exhausted: []
})

/** What a scripted run of Claude Code does, and whether its process dies with the one that started it. */
export type Play = (run: ClaudeRun) => Stream.Stream<ClaudeEvent, ClaudeFailure>

export interface World {
  /** Runs, in their order. */
  readonly runs: Array<ClaudeRun>
  /** Runs at work. */
  readonly atWork: Set<string>
  /** The most runs that were at work at once. */
  mostAtWork: number
  play: Play
  /** Processes that live, with their command lines. */
  readonly processes: Map<number, string>
  readonly files: Map<string, Uint8Array>
  readonly modes: Map<string, number>
  readonly views: Map<PlatformId, Partial<PlatformView>>
  readonly exhausted: Map<PlatformId, number>
  /** Tags that were answered, and by whom. */
  readonly answered: Map<string, { readonly platform: PlatformId; readonly model: string }>
  readonly put: (path: string, content: string) => void
}

const usage: Usage = { inputTokens: 1, cachedInputTokens: 0, outputTokens: 1, reasoningTokens: 0 }

/** A run that answers, and leaves a transcript as Claude Code does. */
export const answers =
  (world: World): Play =>
  (run) =>
    Stream.fromIterable<ClaudeEvent>([
      { _tag: "Spawned", pid: 700 + world.runs.length },
      { _tag: "Started", sessionId: run.sessionId ?? session, model: "sonnet" },
      { _tag: "Text", text: "It was 4711." },
      { _tag: "Finished", text: "It was 4711.", sessionId: run.sessionId ?? session, usage, numTurns: 1 }
    ]).pipe(
      Stream.tap((event) =>
        Effect.sync(() => {
          if (event._tag !== "Finished") return
          const tag = /#(.+)$/.exec(run.model ?? "")?.[1] ?? ""
          world.answered.set(tag, { platform: codex, model: "gpt-x" })
          world.put(transcriptOf(run.sessionId ?? run.resume ?? ""), answeredTranscript)
        })
      )
    )

export const makeWorld = (): World => {
  const files = new Map<string, Uint8Array>()
  const world: World = {
    runs: [],
    atWork: new Set(),
    mostAtWork: 0,
    play: () => Stream.dieMessage("no run was expected"),
    processes: new Map(),
    files,
    modes: new Map(),
    views: new Map(),
    exhausted: new Map(),
    answered: new Map(),
    put: (path, content) => void files.set(path, Buffer.from(content))
  }
  world.play = answers(world)
  world.put(transcriptPath, refusedTranscript)
  return world
}

export const settingsWith = (sessions: Partial<SettingsShape["sessions"]> = {}): SettingsShape =>
  Testing.settings(
    [
      { id: "codex", contextWindow: 400_000 },
      { id: "synthetic", contextWindow: 200_000 },
      { id: "gemini", contextWindow: 1_000_000 }
    ].map(({ contextWindow, id }) => ({ id, steps: [], contextWindow })),
    // Each look costs a test some real ms.
    { sessions: { database: "/data/sessions.db", handoff: "auto", pollMs: 20_000, ...sessions } }
  )

/** Everything the watcher works with, but the watcher: `watch` starts one. */
export const layerOf = (world: World, settings: SettingsShape) => {
  const platforms = settings.platforms.map(({ id }) => id)
  const scripted = Layer.mergeAll(
    Layer.mock(PlatformDetector, {
      view: Effect.sync(() =>
        settings.platforms.map(
          ({ capabilities, id, model }): PlatformView => ({
            id,
            wire: "openai-chat",
            baseUrl: "http://x",
            model,
            capabilities,
            status: "available",
            reasons: [],
            breaker: "closed",
            inFlight: 0,
            performance: { attempts: 0, errorRate: 0, tokens: 0 },
            models: [],
            ...world.views.get(id)
          })
        )
      )
    }),
    Layer.mock(ResourceManager, {
      view: Effect.sync(() => ({
        platforms: platforms.map((id) => {
          const until = world.exhausted.get(id)
          return {
            ...resourcesOf(id),
            exhausted: until === undefined ? [] : [{ window: "quota", until, why: "its quota is used up" }]
          }
        }),
        queue: {
          HIGH: { depth: 0, oldestWaitMs: 0 },
          MEDIUM: { depth: 0, oldestWaitMs: 0 },
          LOW: { depth: 0, oldestWaitMs: 0 }
        },
        admission: { waiting: 0, maxWaiting: 1, bytes: 0, maxBytes: 1 }
      }))
    }),
    Layer.mock(Gateway, {
      answeredBy: (tag) =>
        Effect.sync(() => {
          const found = world.answered.get(tag)
          return found === undefined ? [] : [{ ...found, at: noon }]
        })
    }),
    Layer.succeed(ClaudeCodeRouter, {
      endpoint: Effect.succeed({ baseUrl: "http://127.0.0.1:3456", token: Redacted.make("router-token") }),
      modelFor: (model) => `dream-team,${model}`
    }),
    Layer.mock(ClaudeCode, {
      run: (run) =>
        Stream.unwrapScoped(
          Effect.gen(function* () {
            const name = run.sessionId ?? run.resume ?? "?"
            yield* Effect.acquireRelease(
              Effect.sync(() => {
                world.runs.push(run)
                world.atWork.add(name)
                world.mostAtWork = Math.max(world.mostAtWork, world.atWork.size)
              }),
              () => Effect.sync(() => world.atWork.delete(name))
            )
            return world.play(run)
          })
        )
    }),
    Layer.succeed(Processes, {
      isAlive: (pid) => Effect.sync(() => world.processes.has(pid)),
      withArgument: (argument) =>
        Effect.sync(() => [...world.processes].find(([, line]) => line.includes(argument))?.[0])
    }),
    Layer.succeed(FileSystem.FileSystem, filesIn(world.files, world.modes)),
    Layer.succeed(
      CommandExecutor.CommandExecutor,
      CommandExecutor.makeExecutor(() => Effect.fail(absent("git")))
    ),
    SessionHandoffs.layer,
    Layer.provideMerge(HandoffStore.layer, Layer.orDie(SessionStore.layerMemory))
  )
  return scripted.pipe(
    Layer.provideMerge(Layer.orDie(Layer.provideMerge(Events.layer, Sql.layerMemory))),
    Layer.provideMerge(Settings.layer(settings)),
    Layer.provide(Layer.succeed(Arrivals, Effect.yieldNow())),
    Layer.tap(() => TestClock.setTime(noon))
  )
}

/** Starts a watcher of its own, for as long as the scope. */
export const watch = Effect.map(Layer.build(Layer.fresh(CCRWatcher.layer)), (context) =>
  Context.get(context, CCRWatcher)
)

/** Lets everything happen that can happen now. */
export const settle = Effect.repeatN(Effect.yieldNow(), 500)

/** Moves the clock in steps, and lets happen what follows from each. */
export const pass = (ms: number) =>
  Effect.gen(function* () {
    const step = ms > 20 * 60_000 ? 60_000 : ms > 60_000 ? 10_000 : 2_000
    for (let left = ms; left > 0; left -= step) {
      yield* TestClock.adjust(Math.min(step, left))
      yield* Effect.repeatN(Effect.yieldNow(), 80)
    }
    yield* settle
  })

export const report = (change: Partial<SessionReport> = {}): SessionReport => ({
  sessionId: session,
  account,
  source: "statusline",
  at: noon - 60_000,
  transcriptPath,
  cwd,
  readings: [],
  usage: [],
  ...change
})

export const fiveHour = (usedPercent: number, resetsAt = noon + 3_600_000) => ({
  window: "five_hour",
  usedPercent,
  resetsAt,
  status: "allowed" as const
})

/** The stored events of sessions, as `type detail`. */
export const sessionEvents = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ readonly body: string }>`SELECT body FROM events WHERE session_id IS NOT NULL ORDER BY id`
  return rows.map(({ body }) => {
    const { from, state, to, type } = JSON.parse(body)
    return [type, ...(to === undefined ? [] : [`${from}->${to}`]), ...(state === undefined ? [] : [state])].join(" ")
  })
})

export const latest = Effect.gen(function* () {
  const store = yield* HandoffStore
  const [record] = yield* store.list({ limit: 1 })
  return Option.getOrThrow(Option.fromNullable(record))
})
