import type * as SqlClient from "@effect/sql/SqlClient"
import { assert, describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, type Scope, Stream } from "effect"
import type { CCRWatcher } from "../src/CCRWatcher.js"
import { ClaudeApiFailed, type ClaudeEvent, ClaudeLimitReached, ClaudePromptTooLong } from "../src/ClaudeCode.js"
import { localTenant } from "../src/Domain/Access.js"
import { HandoffId, SessionId } from "../src/Domain/Session.js"
import { HandoffStore } from "../src/SessionStore/Handoffs.js"
import { SessionHandoffs } from "../src/SessionStore/Requests.js"
import { SessionStore } from "../src/SessionStore.js"
import {
  account,
  answeredTranscript,
  answers,
  codex,
  cwd,
  fiveHour,
  gemini,
  latest,
  layerOf,
  makeWorld,
  noon,
  pass,
  report,
  session,
  sessionEvents,
  settingsWith,
  settle,
  synthetic,
  transcriptPath,
  type World,
  watch
} from "./CCRWatcher/world.js"
import { assistant, jsonl, refused, text, user } from "./Transcript/lines.js"

const minutes = (count: number): number => count * 60_000

/** Of those who may go on. */
const smallestWindow = Math.min(...settingsWith().platforms.map(({ contextWindow }) => contextWindow))

/** A test in a world of its own. */
const inWorld = <A, E>(
  test: (
    world: World
  ) => Effect.Effect<
    A,
    E,
    | Effect.Effect.Context<typeof watch>
    | SqlClient.SqlClient
    | Scope.Scope
    | SessionStore
    | HandoffStore
    | SessionHandoffs
  >,
  sessions: Parameters<typeof settingsWith>[0] = {}
) =>
  Effect.suspend(() => {
    const world = makeWorld()
    return Effect.provide(Effect.scoped(test(world)), layerOf(world, settingsWith(sessions)))
  })

const tell = (change: Parameters<typeof report>[0]) =>
  Effect.flatMap(SessionStore, (store) => store.record(report(change)))

describe("a limit", () => {
  it.effect("that is near hands the session off: once, kept whole, by the chain, with its own permissions", () =>
    inWorld((world) =>
      Effect.gen(function* () {
        yield* tell({
          readings: [fiveHour(90)],
          permissionMode: "acceptEdits",
          allowedTools: ["Read", "Edit"],
          status: "active"
        })
        yield* watch
        yield* pass(minutes(2))
        expect(world.runs).toHaveLength(1)
        const record = yield* latest
        expect(world.runs[0]).toMatchObject({
          resume: session,
          fork: true,
          sessionId: record.newSessionId,
          cwd,
          permissionMode: "acceptEdits",
          allowedTools: ["Read", "Edit"],
          model: `dream-team,codex>synthetic>gemini#${record.id}`,
          configDir: account,
          // Claude Code is to keep within the smallest window of those who may answer.
          contextWindow: smallestWindow
        })
        // The refused request is in the conversation already.
        expect(world.runs[0]?.prompt).not.toContain("which number")
        expect(record).toMatchObject({
          state: "succeeded",
          window: "five_hour",
          cause: "level",
          mode: "headless",
          conveyance: "whole",
          answer: "It was 4711.",
          answeredBy: "codex/gpt-x",
          context: { complete: true, lastRequest: { text: "which number was it?", refused: true } },
          carried: { requests: 2, answers: 2 }
        })
        assert(record.transcriptPath !== undefined)
        expect(world.modes.get(record.transcriptPath)).toBe(0o600)
        const store = yield* SessionStore
        expect((yield* store.get(session))?.status).toBe("handed-off")
        // The session it goes on in is no candidate, and neither is this one again.
        yield* tell({ readings: [fiveHour(99)], at: noon + minutes(3), status: "active" })
        yield* pass(minutes(3))
        expect(world.runs).toHaveLength(1)
        expect((yield* sessionEvents).filter((event) => event !== "session.reading")).toEqual([
          "session.level unknown->critical",
          "handoff.changed keeping",
          "handoff.changed choosing",
          "handoff.changed ready",
          "handoff.changed running",
          "handoff.changed succeeded",
          "session.level critical->emergency"
        ])
      })
    )
  )

  it.effect("that refuses hands off at once, whatever the source", () =>
    inWorld((world) =>
      Effect.gen(function* () {
        yield* tell({
          source: "hook",
          status: "limited",
          limit: { window: "five_hour", hitAt: noon - 60_000, resetsAt: noon + minutes(60) }
        })
        yield* watch
        yield* pass(2_000)
        expect(world.runs).toHaveLength(1)
        expect((yield* latest).state).toBe("succeeded")
      })
    )
  )

  it.effect("that is not near leaves the session alone", () =>
    inWorld((world) =>
      Effect.gen(function* () {
        yield* tell({ readings: [fiveHour(84)], status: "active" })
        const watcher = yield* watch
        yield* pass(minutes(2))
        expect(world.runs).toEqual([])
        expect(yield* watcher.accounts).toMatchObject([
          {
            account,
            level: "warning",
            away: false,
            windows: [{ window: "five_hour", level: "warning", usedPercent: 84 }]
          }
        ])
      })
    )
  )

  it.effect("that is reached by a person's session prepares it, and starts nothing", () =>
    inWorld(
      (world) =>
        Effect.gen(function* () {
          yield* tell({ readings: [fiveHour(90)], status: "active" })
          const watcher = yield* watch
          yield* pass(minutes(1))
          expect(world.runs).toEqual([])
          // Nothing went elsewhere yet, so there is no way back to look for.
          expect(yield* watcher.accounts).toMatchObject([{ level: "critical", away: false }])
          const { lastHandoff } = yield* watcher.session(session)
          assert(lastHandoff?.launcher !== undefined)
          expect(lastHandoff).toMatchObject({ state: "ready", mode: "launcher" })
          expect(JSON.stringify(lastHandoff)).not.toContain("router-token")
          expect(world.modes.get(lastHandoff.launcher)).toBe(0o700)
          const script = Buffer.from(world.files.get(lastHandoff.launcher) ?? []).toString("utf8")
          expect(script).toContain(`cd '${cwd}'`)
          expect(script).toContain(`'--resume' '${session}' '--fork-session'`)
          expect(script).toContain("ANTHROPIC_AUTH_TOKEN='router-token'")
          const settings = world.files.get(lastHandoff.launcher.replace("continue.sh", "settings.json"))
          // What Claude Code asks beside the main turns, and its subagents, go the same way.
          const model = `dream-team,codex>synthetic>gemini#${lastHandoff.id}`
          expect(JSON.parse(Buffer.from(settings ?? []).toString("utf8"))).toMatchObject({
            autoContinueAtUsageLimit: false,
            env: {
              ANTHROPIC_DEFAULT_HAIKU_MODEL: model,
              CLAUDE_CODE_SUBAGENT_MODEL: model,
              CLAUDE_CODE_MAX_CONTEXT_TOKENS: String(smallestWindow),
              ANTHROPIC_API_KEY: ""
            }
          })
          expect(script).toContain(`export CLAUDE_CODE_SUBAGENT_MODEL='${model}'`)
          expect(script).toMatch(/^unset ANTHROPIC_API_KEY .*CLAUDECODE$/m)
          // A person has started it, and another platform has answered.
          world.answered.set(lastHandoff.id, { platform: codex, model: "gpt-x" })
          yield* pass(minutes(1))
          expect(yield* latest).toMatchObject({ state: "succeeded", answeredBy: "codex/gpt-x" })
        }),
      { handoff: "ask" }
    )
  )

  it.effect("knows after a restart of the service that a launcher was gone on with", () =>
    inWorld(
      (world) =>
        Effect.gen(function* () {
          yield* tell({ readings: [fiveHour(90)], status: "active" })
          yield* Effect.scoped(Effect.zipRight(watch, pass(minutes(1))))
          const { id } = yield* latest
          // The gateway of the process that was killed noted it, and its watcher had not looked since.
          yield* Effect.flatMap(HandoffStore, (store) => store.answered(id, "synthetic/glm"))
          expect(world.answered.has(id)).toBe(false)
          yield* watch
          yield* pass(minutes(1))
          expect(yield* latest).toMatchObject({ id, state: "succeeded", answeredBy: "synthetic/glm" })
        }),
      { handoff: "ask" }
    )
  )

  it.effect("leaves a session alone while it is open or did something a moment ago", () =>
    inWorld((world) =>
      Effect.gen(function* () {
        world.processes.set(4242, "claude")
        yield* tell({ readings: [fiveHour(90)], status: "active", pid: 4242, at: noon })
        yield* watch
        yield* pass(minutes(2))
        expect(world.runs).toEqual([])
        expect((yield* latest).why).toBe("its Claude Code (process 4242) is still open")
        // It goes on for a while, and ends.
        world.processes.delete(4242)
        yield* tell({ readings: [fiveHour(91)], at: noon + minutes(2) - 1_000, status: "active" })
        yield* pass(28_000)
        expect(world.runs).toEqual([])
        yield* pass(10_000)
        expect(world.runs).toHaveLength(1)
      })
    )
  )

  it.effect("does not continue by itself what was answered and closed", () =>
    inWorld((world) =>
      Effect.gen(function* () {
        world.put(transcriptPath, answeredTranscript)
        world.processes.set(4242, "claude")
        yield* tell({ readings: [fiveHour(90)], status: "active", pid: 4242 })
        yield* watch
        yield* pass(20_000)
        world.processes.delete(4242)
        yield* tell({ source: "hook", status: "ended", at: noon + 20_000 })
        yield* pass(minutes(2))
        expect(world.runs).toEqual([])
        expect(yield* latest).toMatchObject({ state: "ready", mode: "launcher" })
      })
    )
  )

  it.effect("is forgotten with its window's reset, where nobody has continued", () =>
    inWorld(
      () =>
        Effect.gen(function* () {
          yield* tell({ readings: [fiveHour(90, noon + minutes(3))], status: "active" })
          yield* watch
          yield* pass(minutes(4))
          expect((yield* latest).state).toBe("cancelled")
        }),
      { handoff: "ask" }
    )
  )
})

describe("who continues", () => {
  it.effect("is the next of the chain where the first ones cannot, and nobody before one can", () =>
    inWorld((world) =>
      Effect.gen(function* () {
        world.views.set(codex, { status: "unavailable", reasons: ["down"] })
        world.exhausted.set(synthetic, noon + minutes(5))
        world.views.set(gemini, { drained: { tenant: localTenant, at: noon } })
        yield* tell({ readings: [fiveHour(90)], status: "active" })
        yield* watch
        yield* pass(minutes(2))
        expect(world.runs).toEqual([])
        expect((yield* latest).why).toContain("codex: down")
        world.views.delete(gemini)
        yield* pass(minutes(5))
        expect(yield* latest).toMatchObject({ state: "succeeded", chain: [synthetic, gemini] })
      })
    )
  )

  it.effect("gets a summary where its window is too small, and what is left out is said", () =>
    inWorld(
      (world) =>
        Effect.gen(function* () {
          const lines = Buffer.from(world.files.get(transcriptPath) ?? []).toString("utf8")
          world.put(
            transcriptPath,
            lines.replaceAll('"cache_read_input_tokens":1000', '"cache_read_input_tokens":190000')
          )
          yield* tell({ readings: [fiveHour(90)], status: "active" })
          yield* watch
          yield* pass(minutes(1))
          const record = yield* latest
          expect(record).toMatchObject({ state: "succeeded", conveyance: "summary", chain: [synthetic] })
          expect(world.runs[0]).toMatchObject({ sessionId: record.newSessionId })
          expect(world.runs[0]?.resume).toBeUndefined()
          expect(world.runs[0]?.prompt).toContain("remember the number 4711")
        }),
      { chain: [synthetic] }
    )
  )

  it.effect("is told what a summary leaves out, as the row and the person are", () =>
    inWorld(
      (world) =>
        Effect.gen(function* () {
          const long = "a long answer ".repeat(40_000)
          world.put(
            transcriptPath,
            jsonl([
              user("u1", null, "remember the number 4711"),
              assistant("a1", "u1", "m1", [text(long)]),
              user("u2", "a1", "and now?"),
              assistant("a2", "u2", "m2", [text(long)]),
              user("u3", "a2", "which number was it?"),
              refused("r1", "u3")
            ]).replaceAll('"cache_read_input_tokens":1000', '"cache_read_input_tokens":190000')
          )
          yield* tell({ readings: [fiveHour(90)], status: "active" })
          const watcher = yield* watch
          yield* pass(minutes(1))
          const { lastHandoff } = yield* watcher.session(session)
          expect(lastHandoff).toMatchObject({ state: "succeeded", conveyance: "summary" })
          const leftOut = lastHandoff?.leftOut ?? []
          expect(leftOut.length).toBeGreaterThan(0)
          for (const what of leftOut) expect(world.runs[0]?.prompt).toContain(what)
          expect(world.runs[0]?.prompt).toContain("which number was it?")
        }),
      { chain: [synthetic] }
    )
  )

  it.effect("gets a summary where the whole turned out to be too long", () =>
    inWorld((world) =>
      Effect.gen(function* () {
        const good = answers(world)
        world.play = (run) =>
          run.resume === undefined ? good(run) : Stream.fail(new ClaudePromptTooLong({ message: "too long" }))
        yield* tell({ readings: [fiveHour(90)], status: "active" })
        yield* watch
        yield* pass(minutes(1))
        expect(world.runs.map(({ resume }) => resume)).toEqual([session, undefined])
        expect(yield* latest).toMatchObject({ state: "succeeded", conveyance: "summary" })
      })
    )
  )

  it.effect("is asked again where a run failed, and not for ever", () =>
    inWorld((world) =>
      Effect.gen(function* () {
        world.play = () => Stream.fail(new ClaudeApiFailed({ message: "everybody is out", status: 429 }))
        yield* tell({ readings: [fiveHour(90, noon + minutes(300))], status: "active" })
        yield* watch
        yield* pass(minutes(20))
        expect(world.runs).toHaveLength(4)
        expect(yield* latest).toMatchObject({ state: "failed", why: "everybody is out" })
        // One session for all of them, so that nothing is made twice.
        expect(new Set(world.runs.map(({ sessionId }) => sessionId)).size).toBe(1)
      })
    )
  )

  it.effect("is asked again after each stop of the service in the midst of its run, however many there are", () =>
    inWorld((world) =>
      Effect.gen(function* () {
        const good = answers(world)
        world.play = (run) => Stream.concat(Stream.drain(Stream.fromEffect(Effect.sleep(minutes(10)))), good(run))
        yield* tell({ readings: [fiveHour(90, noon + minutes(300))], status: "active" })
        for (let stop = 0; stop < 6; stop += 1) {
          yield* Effect.scoped(Effect.zipRight(watch, pass(minutes(2))))
          expect((yield* latest).state).toBe("running")
        }
        world.play = good
        yield* watch
        yield* pass(minutes(2))
        expect((yield* latest).state).toBe("succeeded")
      })
    )
  )
})

describe("a person", () => {
  it.effect("hands a session off to the platform they name, whatever its level", () =>
    inWorld((world) =>
      Effect.gen(function* () {
        yield* tell({ readings: [fiveHour(10)], status: "active" })
        const watcher = yield* watch
        yield* watcher.handOff(session, { to: gemini })
        yield* pass(minutes(1))
        expect(yield* latest).toMatchObject({ state: "succeeded", cause: "person", window: "manual", chain: [gemini] })
        expect(world.runs[0]?.model).toContain("dream-team,gemini#")
        expect(yield* Effect.flip(watcher.handOff(SessionId.make("nobody"), {}))).toMatchObject({
          _tag: "NoSuchSession"
        })
      })
    )
  )

  it.effect("gets a launcher for their own session, even where they ask for more", () =>
    inWorld(
      (world) =>
        Effect.gen(function* () {
          yield* tell({ readings: [fiveHour(90)], status: "active" })
          const watcher = yield* watch
          yield* pass(20_000)
          const first = yield* latest
          expect((yield* watcher.handOff(session, {})).id).toBe(first.id)
          yield* pass(20_000)
          expect(world.runs).toEqual([])
          expect(yield* latest).toMatchObject({ id: first.id, state: "ready", mode: "launcher" })
        }),
      { handoff: "ask" }
    )
  )
})

describe("a task's session", () => {
  it.effect("gets its answer from the hand-off", () =>
    inWorld((world) =>
      Effect.gen(function* () {
        yield* watch
        const { ask } = yield* SessionHandoffs
        const asked = yield* Effect.fork(
          ask({ sessionId: session, account, cwd, window: "five_hour", resetsAt: noon + minutes(60) })
        )
        yield* pass(20_000)
        expect(world.runs).toEqual([])
        yield* pass(minutes(1))
        const { newSessionId } = yield* latest
        expect(yield* Fiber.join(asked)).toEqual({
          text: "It was 4711.",
          sessionId: newSessionId,
          answeredBy: "codex/gpt-x"
        })
      })
    )
  )

  it.effect("stops going on elsewhere when its task is cancelled, and may do there what it might before", () =>
    inWorld((world) =>
      Effect.gen(function* () {
        world.play = () =>
          Stream.concat(Stream.make<[ClaudeEvent]>({ _tag: "Spawned", pid: 71 }), Stream.fromEffect(Effect.never))
        yield* watch
        const { ask } = yield* SessionHandoffs
        const need = { sessionId: session, account, cwd, window: "five_hour", resetsAt: noon + minutes(60) }
        const one = yield* Effect.fork(ask(need))
        const other = yield* Effect.fork(ask(need))
        yield* pass(minutes(2))
        expect(world.atWork.size).toBe(1)
        expect(world.runs[0]).toMatchObject({ permissionMode: "default", tools: [] })
        yield* Fiber.interrupt(one)
        yield* pass(2_000)
        expect(world.atWork.size).toBe(1)
        yield* Fiber.interrupt(other)
        yield* pass(2_000)
        expect(world.atWork.size).toBe(0)
        expect(yield* latest).toMatchObject({ state: "cancelled", why: "the task that needed it was cancelled" })
        yield* pass(minutes(3))
        expect(world.runs).toHaveLength(1)
        expect((yield* sessionEvents).at(-1)).toBe("handoff.changed cancelled")
      })
    )
  )

  it.effect("stops going on elsewhere when the service that served its task is gone, and says so", () =>
    inWorld(() =>
      Effect.gen(function* () {
        const store = yield* HandoffStore
        yield* store.open({
          id: HandoffId.make("0b6f2f5e-6f6c-4f60-9d38-0d8d7f1f5a02"),
          account,
          sessionId: session,
          window: "five_hour",
          windowResetsAt: noon + minutes(60),
          cause: "task",
          mode: "headless",
          to: undefined
        })
        yield* watch
        yield* pass(minutes(5))
        expect(yield* latest).toMatchObject({
          state: "cancelled",
          why: "the task that needed it is no longer there"
        })
        expect((yield* sessionEvents).at(-1)).toBe("handoff.changed cancelled")
      })
    )
  )

  it.effect("that was answered is not prepared for anybody when its account comes near a limit", () =>
    inWorld((world) =>
      Effect.gen(function* () {
        world.put(transcriptPath, answeredTranscript)
        yield* tell({ readings: [fiveHour(90)], status: "active", launchedBy: "dream-team", handoff: "auto", at: noon })
        yield* watch
        yield* pass(10_000)
        yield* tell({ status: "ended", at: noon + 11_000 })
        yield* pass(minutes(2))
        expect(world.runs).toEqual([])
        expect(yield* latest).toMatchObject({ state: "cancelled" })
      })
    )
  )

  it.effect("is told where nobody could continue", () =>
    inWorld((world) =>
      Effect.gen(function* () {
        world.play = () => Stream.fail(new ClaudeApiFailed({ message: "everybody is out", status: 429 }))
        yield* watch
        const { ask } = yield* SessionHandoffs
        const asked = yield* Effect.fork(Effect.flip(ask({ sessionId: session, account, cwd })))
        yield* pass(minutes(10))
        expect((yield* Fiber.join(asked)).message).toBe("everybody is out")
      })
    )
  )
})

describe("two watchers on one database", () => {
  it.effect("hand a session off once", () =>
    inWorld((world) =>
      Effect.gen(function* () {
        yield* tell({ readings: [fiveHour(90)], status: "active" })
        yield* Effect.all([watch, watch, watch])
        yield* pass(minutes(3))
        expect(world.runs).toHaveLength(1)
        const store = yield* HandoffStore
        expect(yield* store.list({ limit: 10 })).toHaveLength(1)
      })
    )
  )

  it.effect("wait for a run that takes long, for as long as its owner lives", () =>
    inWorld((world) =>
      Effect.gen(function* () {
        const good = answers(world)
        world.play = (run) => Stream.concat(Stream.drain(Stream.fromEffect(Effect.sleep(minutes(10)))), good(run))
        yield* tell({ readings: [fiveHour(90)], status: "active" })
        yield* Effect.all([watch, watch])
        yield* pass(minutes(12))
        expect(world.runs).toHaveLength(1)
        expect((yield* latest).state).toBe("succeeded")
      })
    )
  )
})

describe("the way back", () => {
  const hour = minutes(60)

  it.effect("begins with the reset, and ends with a probe turn that passed", () =>
    inWorld(
      (world) =>
        Effect.gen(function* () {
          yield* tell({ readings: [{ ...fiveHour(100), status: "rejected" }], status: "limited" })
          const watcher = yield* watch
          yield* pass(minutes(2))
          expect(yield* watcher.accounts).toMatchObject([{ away: true, level: "rejected" }])
          expect(world.runs).toHaveLength(1)
          const good = answers(world)
          const refusing = { count: 1 }
          world.play = (run) => {
            if (refusing.count === 0) return good(run)
            refusing.count -= 1
            return Stream.fail(new ClaudeLimitReached({ message: "still at its limit" }))
          }
          yield* pass(hour - minutes(3))
          expect(world.runs).toHaveLength(1)
          yield* pass(minutes(4))
          expect(world.runs).toHaveLength(2)
          const probe = world.runs[1]
          expect(probe?.router).toBeUndefined()
          expect(probe).toMatchObject({ maxTurns: 1, configDir: account })
          expect(yield* watcher.accounts).toMatchObject([{ away: true }])
          yield* pass(minutes(8))
          expect(world.runs).toHaveLength(3)
          expect(yield* watcher.accounts).toMatchObject([{ away: false }])
          expect((yield* sessionEvents).at(-1)).toBe("claude.back")
          yield* pass(minutes(20))
          expect(world.runs).toHaveLength(3)
        }),
      { pollMs: minutes(1) }
    )
  )

  it.effect("waits for every window that was exhausted", () =>
    inWorld(
      (world) =>
        Effect.gen(function* () {
          const weekly = {
            window: "seven_day",
            usedPercent: 100,
            resetsAt: noon + 3 * hour,
            status: "rejected" as const
          }
          yield* tell({ readings: [{ ...fiveHour(100), status: "rejected" }, weekly], status: "limited" })
          const watcher = yield* watch
          yield* pass(2 * hour)
          expect(world.runs).toHaveLength(1)
          expect(yield* watcher.accounts).toMatchObject([{ away: true }])
          yield* pass(hour + minutes(5))
          expect(world.runs).toHaveLength(2)
          expect(yield* watcher.accounts).toMatchObject([{ away: false }])
        }),
      { pollMs: minutes(1) }
    )
  )

  it.effect("is gone by one watcher alone", () =>
    inWorld(
      (world) =>
        Effect.gen(function* () {
          yield* tell({ readings: [{ ...fiveHour(100), status: "rejected" }], status: "limited" })
          yield* Effect.all([watch, watch])
          yield* pass(hour + minutes(5))
          yield* settle
          expect(world.runs).toHaveLength(2)
        }),
      { pollMs: minutes(1) }
    )
  )
})

it.effect("says what to do where nothing is watched", () =>
  Effect.gen(function* () {
    const { CCRWatcher } = yield* Effect.promise(() => import("../src/CCRWatcher.js"))
    const error = yield* Effect.flip(
      Effect.flatMap(CCRWatcher, (watcher: CCRWatcher["Type"]) => watcher.accounts).pipe(
        Effect.provide(CCRWatcher.layerOff)
      )
    )
    expect(error.message).toContain("dream-team claude install")
  })
)
