import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { expect, layer } from "@effect/vitest"
import { Context, Effect, Layer, Schema } from "effect"
import { HandoffList, SessionList } from "../../src/CCRWatcher/Api.js"
import type { HandoffPolicy, HandoffView } from "../../src/Domain/Session.js"
import { SessionStore, SessionsSql } from "../../src/SessionStore.js"
import { Settings } from "../../src/Settings.js"
import { type RunningSimulator, Simulator } from "../../src/Simulator.js"
import { claudeCommand, claudeHome, haveCcr, haveClaude, transcriptsOf } from "../support/Claude.js"
import { dreamTeam, feed, feedProgram, type Ran, startProgram } from "../support/Command.js"
import { bin, eventually, freePort, type Service, startService } from "../support/Service.js"
import { haveTerminal, startInTerminal } from "../support/Terminal.js"
import { heardIn, heardOf, whole } from "./heard.js"

const platforms = { ...Simulator.instant.platforms, anthropic: Simulator.anthropic }
type Team = RunningSimulator<keyof typeof platforms>

/** A session of the real Claude Code on an account of its own, in which a number was told, and a tool was used. */
interface Session {
  readonly id: string
  readonly number: string
  readonly account: string
}

const Subscriptions = Schema.Struct({
  anthropic: Schema.Struct({ five_hour: Schema.Struct({ resetsAt: Schema.Number }) })
})

const get = async <A, I>(url: string, schema: Schema.Schema<A, I>): Promise<A> =>
  Schema.decodeUnknownSync(schema)(await (await fetch(url)).json())

/** Processes with a text in their command line or environment. */
const processesWith = (text: string): ReadonlyArray<number> =>
  readdirSync("/proc")
    .map(Number)
    .filter((pid) => {
      if (!Number.isInteger(pid) || pid <= 1 || pid === process.pid) return false
      try {
        return ["cmdline", "environ"].some((file) => readFileSync(`/proc/${pid}/${file}`, "utf8").includes(text))
      } catch {
        return false
      }
    })

/** Ends a process, where it still is. */
const kill = (pid: number) => Effect.ignore(Effect.try(() => process.kill(pid, "SIGKILL")))

const make = Effect.gen(function* () {
  const simulator: Team = yield* Simulator.make({ seed: 1, keepRequests: 200, platforms })
  const home = yield* claudeHome
  const port = yield* Effect.promise(freePort)
  const temporary = join(home.home, "tmp")
  mkdirSync(temporary)
  const config = join(home.home, "config.json")
  const database = join(home.home, "sessions.db")
  const environment = {
    ...simulator.environment,
    ...home.environment(simulator.baseUrls.anthropic),
    PATH: `${resolve("node_modules/.bin")}:${process.env.PATH}`,
    TMPDIR: temporary,
    DREAM_TEAM_PORT: String(port),
    DREAM_TEAM_PLATFORMS: "codex,gemini,synthetic,claude",
    DREAM_TEAM_DATABASE: join(home.home, "tasks.db"),
    DREAM_TEAM_SESSIONS_DB: database,
    DREAM_TEAM_CONFIG: config
  }

  // A service that was killed leaves processes behind.
  yield* Effect.addFinalizer(() => Effect.forEach(processesWith(home.home), kill, { discard: true }))

  let service: Service | undefined
  const stop = (signal: NodeJS.Signals) => Effect.promise(async () => service?.stop(signal))
  const start = (handoff: HandoffPolicy) =>
    Effect.promise(async () => {
      writeFileSync(config, JSON.stringify({ sessions: { quietMs: "100ms", pollMs: "200ms", handoff } }))
      service = await startService(port, environment)
    })
  yield* Effect.addFinalizer(() => stop("SIGTERM"))

  /** Another login, with limits of its own as far as Claude Code and the watcher know. */
  const account = (name: string): string => {
    const folder = join(home.home, name)
    mkdirSync(folder)
    copyFileSync(join(home.configDir, ".credentials.json"), join(folder, ".credentials.json"))
    return folder
  }

  const own = (folder: string): Readonly<Record<string, string>> =>
    folder === home.configDir ? environment : { ...environment, CLAUDE_CONFIG_DIR: folder }

  /** The user's own `claude -p`, which knows nothing of the service. */
  const claude = (folder: string, prompt: string, ...args: ReadonlyArray<string>): Effect.Effect<Ran> =>
    Effect.promise(() => {
      const words = ["-p", "--output-format", "json", ...args]
      return startProgram(claudeCommand, words, { cwd: home.project, env: own(folder), stdin: prompt }).ended
    })

  const transcript = ({ account: configDir }: Pick<Session, "account">, id: string): string =>
    transcriptsOf({ ...home, configDir })[id] ?? ""

  const session = (folder: string, id: string, number: string) =>
    Effect.gen(function* () {
      const ran = yield* claude(folder, `remember the number ${number}, then call the tool Read`, "--session-id", id)
      expect(ran.code, ran.stderr + ran.stdout).toBe(0)
      const told: Session = { id, number, account: folder }
      const said = heardOf(transcript(told, id))
      expect(whole(said, said)).toEqual({ turns: 2, toolPairs: 1, missing: [] })
      return told
    })

  /** Its user has been asked before what Claude Code asks at the first time in a terminal. */
  const isKnown = ({ account: folder }: Session): void => {
    const file = join(folder, ".claude.json")
    const known = JSON.parse(readFileSync(file, "utf8"))
    const projects = { [home.project]: { hasTrustDialogAccepted: true } }
    writeFileSync(file, JSON.stringify({ ...known, hasCompletedOnboarding: true, projects }))
  }

  /** The session as its user has it open. */
  const open = (session: Session) =>
    Effect.promise(async () => {
      isKnown(session)
      const options = { cwd: home.project, env: own(session.account) }
      const terminal = startInTerminal(claudeCommand, ["--resume", session.id], options)
      await terminal.shows(/shift\+tab/)
      return terminal
    })

  /** What its user types once it is handed off, until it is answered. */
  const resume = (session: Session, answeredBy: string) =>
    Effect.promise(async () => {
      isKnown(session)
      const args = [resolve(bin), "sessions", "resume", session.id]
      const terminal = startInTerminal(process.execPath, args, { cwd: home.home, env: environment })
      await terminal.shows(new RegExp(`Simulated\\s*answer\\s*of\\s*${answeredBy}`), 60_000)
      await terminal.interrupt()
    })

  /** Its next request, which a limit refuses. */
  const refused = ({ account: folder, id }: Session) =>
    Effect.gen(function* () {
      const ran = yield* claude(folder, "which number was it?", "--resume", id)
      expect(ran.code).toBe(1)
      expect(ran.stdout).toContain("limit")
    })

  /** What Claude Code gives its status line, of a session whose five hours are used so far. */
  const statusline = ({ account: folder, id }: Session, usedPercent: number) =>
    Effect.promise(async () => {
      const { anthropic } = await get(`${simulator.url}/__subscription`, Subscriptions)
      const resetsAt = Math.floor(anthropic.five_hour.resetsAt / 1_000)
      const project = home.project.replaceAll(/[^A-Za-z0-9]/g, "-")
      const status = {
        hook_event_name: "Status",
        session_id: id,
        transcript_path: join(folder, "projects", project, `${id}.jsonl`),
        cwd: home.project,
        model: { id: "claude-opus-5-5", display_name: "Opus" },
        workspace: { current_dir: home.project, project_dir: home.project },
        version: "2.1.330",
        cost: { total_cost_usd: 0.01, total_duration_ms: 1_000 },
        context_window: {
          total_input_tokens: 2_000,
          total_output_tokens: 100,
          context_window_size: 200_000,
          used_percentage: 1,
          remaining_percentage: 99
        },
        exceeds_200k_tokens: false,
        rate_limits: {
          five_hour: { used_percentage: usedPercent, resets_at: resetsAt },
          seven_day: { used_percentage: 12, resets_at: resetsAt + 86_400 }
        }
      }
      const ran = await feed(["statusline"], { env: own(folder), stdin: JSON.stringify(status) })
      expect(ran).toMatchObject({ code: 0, stdout: expect.stringContaining(`5h ${usedPercent}%`) })
    })

  const url = `http://127.0.0.1:${port}`
  const sessions = Effect.promise(() => get(`${url}/v1/sessions`, SessionList))
  /** The only hand-off of a session, once it is as wanted. */
  const handoff = (id: string, wanted: (handoff: HandoffView) => boolean, withinMs = 60_000) =>
    Effect.promise(async () => {
      let last: unknown
      try {
        return await eventually(`the hand-off of ${id}`, withinMs, async () => {
          const found = (await get(`${url}/v1/handoffs?session=${id}`, HandoffList)).handoffs
          last = found
          return found.length === 1 ? found.find(wanted) : undefined
        })
      } catch (error) {
        throw new Error(`${error}\n${JSON.stringify(last)}\n${service?.log()}`)
      }
    })
  const isOver = ({ state }: HandoffView): boolean => state === "succeeded" || state === "failed"

  /** What the watcher goes by for an account. */
  const level = (folder: string) =>
    Effect.map(sessions, ({ accounts }) =>
      accounts.find((one) => one.account === folder)?.windows.find(({ window }) => window === "five_hour")
    )

  /** The newest request in which a platform was told of a session, as far as it is of the conversation. */
  const told = (number: string, platform: string) =>
    Effect.map(simulator.requests, (requests) =>
      heardIn(
        requests
          .filter((one) => one.platform === platform)
          .filter(({ body }) => JSON.stringify(body).includes(`number ${number}`))
          .at(-1)?.body
      )
    )

  /**
   * Follows a hand-off that nobody asked for to its end, and checks all that is promised of it: who answered, that they
   * were told every turn and every tool pair, and that the session itself is as it was.
   */
  const goesOn = (session: Session, platform: string) =>
    Effect.gen(function* () {
      const before = transcript(session, session.id)
      const done = yield* handoff(session.id, isOver)
      expect(done).toMatchObject({ state: "succeeded", mode: "headless", cause: "level", window: "five_hour" })
      expect(done.answeredBy).toMatch(new RegExp(`^${platform}/`))
      const heard = yield* told(session.number, platform)
      expect(whole(heardOf(before), heard)).toEqual(whole(heardOf(before), heardOf(before)))
      expect(done.carried?.toolPairs).toBe(done.context?.counts.toolPairs)
      expect(done.context?.complete).toBe(true)
      expect(transcript(session, session.id)).toBe(before)
      const news = transcript(session, done.newSessionId ?? "")
      expect(news).toContain(`Simulated answer of ${platform}`)
      const { sessions: all } = yield* sessions
      expect(all.find(({ id }) => id === session.id)).toMatchObject({
        status: "handed-off",
        lastHandoff: { id: done.id, answeredBy: done.answeredBy }
      })
      return done
    })

  /** Who told that the five hours of an account are nearly or quite used up. */
  const sources = (folder: string) =>
    Effect.map(SessionStore, ({ limits }) => limits).pipe(
      Effect.flatten,
      Effect.map((all) =>
        all
          .filter((one) => one.account === folder)
          .flatMap(({ readings }) => readings)
          .filter(({ status, usedPercent = 0 }) => status === "rejected" || usedPercent >= 85)
          .map(({ source, window }) => `${window} by ${source}`)
      ),
      Effect.provide(
        SessionStore.layer.pipe(
          Layer.provide(Layer.merge(SessionsSql.layerFile(database), Settings.layer(Settings.make({}))))
        )
      )
    )
  /** While nothing but the programs of Claude Code can write down what happens. */
  const withoutService = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.acquireUseRelease(
      Effect.sync(() => service?.process.kill("SIGSTOP")),
      () => effect,
      () => Effect.sync(() => service?.process.kill("SIGCONT"))
    )

  const atLimit = (platform: "codex" | "synthetic") =>
    simulator.fault({ platform, fault: "status", status: 429, errorShape: "quota-exhausted" })

  // Two hand-offs are in the middle of their runs when the service is killed. Another one may take them a minute later, so
  // that what became of them is looked at last.
  const orphaned = yield* session(account("orphaned"), "10000000-0000-4000-8000-000000000000", "4700")
  const killed = yield* session(account("killed"), "11000000-0000-4000-8000-000000000000", "4711")
  const idle = yield* session(home.configDir, "20000000-0000-4000-8000-000000000000", "4722")
  yield* start("auto")
  const cut = yield* Effect.forEach(
    [orphaned, killed],
    (session) =>
      Effect.gen(function* () {
        yield* simulator.fault({ platform: "codex", fault: "hang", containing: `number ${session.number}` })
        yield* statusline(session, 100)
        return { session, running: yield* handoff(session.id, ({ state }) => state === "running") }
      }),
    { concurrency: 2 }
  )
  yield* Effect.promise(() =>
    eventually("the requests of both runs", 60_000, async () =>
      (await Effect.runPromise(simulator.faults)).every(({ struck }) => struck > 0) ? true : undefined
    )
  )
  yield* stop("SIGKILL")
  // Of one of them everything else dies as well; the run of the other one goes on without its service.
  yield* Effect.forEach(processesWith(cut[1]?.running.newSessionId ?? "none"), kill, { discard: true })
  yield* simulator.clearFaults()
  yield* start("auto")

  return {
    account,
    atLimit,
    cut,
    environment,
    goesOn,
    handoff,
    home,
    idle,
    isOver,
    level,
    log: () => service?.log() ?? "",
    open,
    refused,
    resume,
    session,
    simulator,
    sources,
    start,
    statusline,
    stop,
    told,
    transcript,
    withoutService
  }
})

class World extends Context.Tag("RealPrograms/World")<World, Effect.Effect.Success<typeof make>>() {
  static readonly layer = Layer.scoped(World, Effect.orDie(make))
}

if (haveCcr && haveClaude && haveTerminal && existsSync("/proc/self/environ")) {
  layer(World.layer, { timeout: 180_000, excludeTestServices: true })(
    "a session of the real Claude Code that reaches its limit goes on elsewhere, by itself",
    (it) => {
      it.effect(
        "where only the status line of an open one tells of it, once that is closed",
        () =>
          Effect.gen(function* () {
            const { account, goesOn, level, open, session, simulator, sources } = yield* World
            const folder = account("statusline")
            const told = yield* session(folder, "30000000-0000-4000-8000-000000000000", "4733")
            writeFileSync(
              join(folder, "settings.json"),
              JSON.stringify({
                statusLine: { type: "command", command: `'${process.execPath}' ${feedProgram} statusline` }
              })
            )
            yield* simulator.subscription("anthropic", { five_hour: { utilization: 0.96 } })
            const terminal = yield* open(told)
            yield* Effect.promise(() => terminal.type("and which one is next?"))
            yield* Effect.promise(() => terminal.shows(/5h\s*96%/))
            yield* Effect.promise(terminal.interrupt)
            yield* goesOn(told, "codex")
            expect(yield* level(folder)).toMatchObject({ level: "emergency", source: "statusline" })
            expect(yield* sources(folder)).toEqual(["five_hour by statusline"])
          }),
        90_000
      )

      it.effect(
        "where only the event of another session on its account tells of it, and past a platform at its limit",
        () =>
          Effect.gen(function* () {
            const { atLimit, environment, goesOn, idle, level, log, simulator, sources } = yield* World
            yield* atLimit("codex")
            yield* simulator.subscription("anthropic", { five_hour: { utilization: 0.96 } })
            const args = ["submit", "say hello", "--platform", "claude", "--wait", "--json"]
            const ran = yield* Effect.promise(() => dreamTeam(args, { env: environment }))
            expect(ran.code, ran.stderr + ran.stdout + log()).toBe(0)
            yield* goesOn(idle, "synthetic")
            expect(yield* level(idle.account)).toMatchObject({ level: "emergency", source: "rate_limit_event" })
            expect(yield* sources(idle.account)).toEqual(["five_hour by rate_limit_event"])
          }),
        90_000
      )

      it.effect(
        "where only the hooks tell of the refusal, down to the end of the chain",
        () =>
          Effect.gen(function* () {
            const world = yield* World
            const { account, atLimit, environment, goesOn, level, refused, session, simulator } = world
            const { sources, withoutService } = world
            const folder = account("hooks")
            const settings = join(folder, "settings.json")
            const ran = yield* Effect.promise(() =>
              dreamTeam(["claude", "install", "--settings", settings], { env: environment })
            )
            expect(ran.code, ran.stderr).toBe(0)
            yield* simulator.subscription("anthropic", { five_hour: { utilization: 0.5 } })
            const told = yield* session(folder, "40000000-0000-4000-8000-000000000000", "4744")
            yield* atLimit("synthetic")
            yield* simulator.subscription("anthropic", { five_hour: { utilization: 1 } })
            yield* withoutService(
              Effect.gen(function* () {
                yield* refused(told)
                expect(yield* sources(folder)).toEqual(["five_hour by hook"])
              })
            )
            const done = yield* goesOn(told, "gemini")
            expect(done.chain).toEqual(["synthetic", "gemini"])
            expect(yield* level(folder)).toMatchObject({ level: "rejected", source: "hook" })
          }),
        90_000
      )

      it.effect(
        "where only its transcript tells of the refusal",
        () =>
          Effect.gen(function* () {
            const { account, goesOn, level, refused, session, simulator, sources, statusline } = yield* World
            yield* simulator.subscription("anthropic", { five_hour: { utilization: 0.1 } })
            const told = yield* session(account("transcript"), "50000000-0000-4000-8000-000000000000", "4755")
            yield* statusline(told, 10)
            yield* simulator.subscription("anthropic", { five_hour: { utilization: 1 } })
            yield* refused(told)
            yield* goesOn(told, "gemini")
            expect(yield* level(told.account)).toMatchObject({ level: "rejected", source: "transcript" })
            expect(yield* sources(told.account)).toEqual(["five_hour by transcript"])
          }),
        90_000
      )

      it.effect(
        "or by one command in a terminal, where its user is to be asked",
        () =>
          Effect.gen(function* () {
            const world = yield* World
            const {
              account,
              environment,
              handoff,
              refused,
              resume,
              session,
              simulator,
              start,
              stop,
              told,
              transcript
            } = world
            yield* simulator.subscription("anthropic", { five_hour: { utilization: 0.1 } })
            const asked = yield* session(account("asked"), "60000000-0000-4000-8000-000000000000", "4766")
            yield* stop("SIGTERM")
            yield* start("ask")
            yield* world.statusline(asked, 10)
            yield* simulator.subscription("anthropic", { five_hour: { utilization: 1 } })
            yield* refused(asked)
            const before = transcript(asked, asked.id)
            const ready = yield* handoff(asked.id, ({ launcher }) => launcher !== undefined)
            expect(ready).toMatchObject({ state: "ready", mode: "launcher" })
            expect(JSON.stringify(ready)).not.toContain("sk-")

            const run = (...args: ReadonlyArray<string>) =>
              Effect.promise(() => dreamTeam(["sessions", ...args], { env: environment }))
            const row = (yield* run()).stdout.split("\n").find((line) => line.startsWith(asked.id))
            expect(row).toMatch(/project +limited +5h \[#{10}\] refused .* ready \(/)
            const unknown = yield* run("handoff", "nobody")
            expect(unknown).toMatchObject({
              code: 1,
              stderr: expect.stringContaining("No session nobody was heard of")
            })
            const chosen = yield* run("handoff", asked.id, "--to", "gemini")
            expect(chosen.code, chosen.stderr).toBe(0)
            expect(chosen.stdout).toContain(`dream-team sessions resume ${asked.id}`)
            expect((yield* handoff(asked.id, ({ state }) => state === "ready")).chain).toEqual(["gemini"])

            yield* resume(asked, "gemini")
            const done = yield* handoff(asked.id, ({ state }) => state === "succeeded", 30_000)
            expect(done.answeredBy).toMatch(/^gemini\//)
            expect(whole(heardOf(before), yield* told(asked.number, "gemini"))).toEqual(
              whole(heardOf(before), heardOf(before))
            )
            expect(transcript(asked, asked.id)).toBe(before)
            expect(transcript(asked, done.newSessionId ?? "")).toContain("Simulated answer of gemini")
          }),
        90_000
      )

      it.effect(
        "once, where the service was killed in the midst of it",
        () =>
          Effect.gen(function* () {
            const { cut, handoff, home, isOver, told, transcript } = yield* World
            for (const { running, session } of cut) {
              const done = yield* handoff(session.id, isOver, 120_000)
              expect(done).toMatchObject({ id: running.id, state: "succeeded", newSessionId: running.newSessionId })
              const all = transcriptsOf({ ...home, configDir: session.account })
              expect(Object.keys(all).sort()).toEqual([session.id, running.newSessionId].sort())
              const before = heardOf(transcript(session, session.id))
              const after = heardOf(all[running.newSessionId ?? ""] ?? "")
              expect(whole(before, after)).toEqual(whole(before, before))
              // Claude Code itself answers for a turn that was cut, when it is gone on with.
              const answers = after
                .slice(before.length)
                .filter(({ role, text }) => role === "assistant" && text !== "No response requested.")
              const platform = done.answeredBy?.split("/")[0] ?? "nobody"
              expect(answers).toEqual([
                { role: "assistant", text: expect.stringContaining(`Simulated answer of ${platform} `) }
              ])
              expect(whole(before, yield* told(session.number, platform))).toEqual(whole(before, before))
            }
          }),
        150_000
      )
    }
  )
}
