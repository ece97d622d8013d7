import { randomBytes } from "node:crypto"
import { createServer } from "node:net"
import { dirname, join, resolve } from "node:path"
import * as Command from "@effect/platform/Command"
import type { CommandExecutor, Process } from "@effect/platform/CommandExecutor"
import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import { Context, Deferred, Effect, Either, Layer, Option, Redacted, Ref, Schedule, Schema, Stream } from "effect"
import { startProcess, type Tail, tailOf } from "../ClaudeCode/Process.js"
import type { ClaudeEndpoint } from "../ClaudeCode.js"
import { TenantId } from "../Domain/Task.js"
import { monotonicMs } from "../Domain/Time.js"
import { readVariables } from "../Settings/Environment.js"
import { Settings, type SettingsShape, sessionsDatabaseOf } from "../Settings.js"
import { putFile } from "./putFile.js"

/** Claude Code Router is not installed, or does not answer; `message` says which and what to do. */
export class RouterUnavailable extends Schema.TaggedError<RouterUnavailable>()("RouterUnavailable", {
  message: Schema.String
}) {}

/** Where this service is reached by programs on this machine, once it listens. */
export class OwnAddress extends Context.Tag("dream-team/OwnAddress")<
  OwnAddress,
  {
    /** Waits until it is known. Without a trailing slash. */
    readonly url: Effect.Effect<string>
    readonly announce: (url: string) => Effect.Effect<void>
  }
>() {
  static readonly layer: Layer.Layer<OwnAddress> = Layer.effect(
    OwnAddress,
    Effect.map(Deferred.make<string>(), (url) => ({
      url: Deferred.await(url),
      announce: (known) => Effect.asVoid(Deferred.succeed(url, known))
    }))
  )
}

/** Whose key the router uses, where the service has keys. */
export const routerTenant = TenantId.make("claude-code-router")

/** The folder the router has as its home, absolute. */
export const routerHomeOf = (settings: Pick<SettingsShape, "ccr" | "database" | "sessions">): string =>
  settings.ccr.home === undefined ? join(dirname(sessionsDatabaseOf(settings)), "ccr") : resolve(settings.ccr.home)

/** The router's name of this service. */
const provider = "dream-team"

/** A model of this service, as Claude Code is to ask the router for it. */
const modelFor = (gatewayModel: string): string => `${provider},${gatewayModel}`

/** What is known of the router that was started last, kept beside its configuration. */
const Started = Schema.parseJson(
  Schema.Struct({
    port: Schema.Int,
    token: Schema.String,
    /** The process that started it. */
    owner: Schema.Int
  })
)
type Started = typeof Started.Type

/** The versions of Claude Code Router that this service knows how to run: others route and are configured differently. */
const routerMajor = 2

/** What installs the right one. */
export const installRouter = "npm install --global @musistudio/claude-code-router@2.0.0"

/** Whether a version is one that this service can run. */
export const isKnownRouter = (version: string): boolean => Number.parseInt(version, 10) === routerMajor

/** How long it may take to tell its version, ms. */
const versionMs = 10_000

/** Which Claude Code Router a command is, such as `2.0.0`. */
export const routerVersion = Effect.fn("ClaudeCodeRouter.version")(function* (
  command: string,
  variables: Readonly<Record<string, string>> = {}
) {
  const absent = (why: string) =>
    unavailable(`Claude Code Router (${command}) cannot be started: ${why}. '${installRouter}' installs it`)
  const text = yield* Command.string(
    Command.make(command, "version").pipe(Command.env(variables), Command.stdin(Stream.empty))
  ).pipe(
    Effect.mapError(({ message }) => absent(message)),
    Effect.timeoutFail({ duration: versionMs, onTimeout: () => absent("it does not tell its version") })
  )
  return /\d+\.\d+\.\d+\S*/.exec(text)?.[0] ?? (yield* absent("it does not tell its version"))
})

/** How long a start may take, ms. */
const startMs = 30_000
const healthEveryMs = 5_000
const healthTimeoutMs = 3_000
/** Health checks that fail in a row before it is started anew. */
const maxAilments = 3
/** Between two starts, ms: doubled from the first to the last where it does not live long. */
const shortestPauseMs = 500
const longestPauseMs = 30_000
/** Having lived so long it counts as well, ms. */
const longLifeMs = 60_000
/** How long `endpoint` waits at most, ms. */
const patienceMs = 60_000

/** The router's own limit on one answer, ms: that of interactive calls. */
const answerMs = 600_000

const unavailable = (message: string): RouterUnavailable => new RouterUnavailable({ message })

const unwritable = (error: PlatformError): RouterUnavailable =>
  unavailable(`The router's folder cannot be written: ${error.message}`)

/** The router's configuration: this service for whatever comes, and nobody beside it. */
const configuration = (settings: SettingsShape, url: string, { port, token }: Started): unknown => {
  const key = settings.apiKeys.find(({ tenant }) => tenant === routerTenant) ?? settings.apiKeys[0]
  const chain = settings.sessions.chain.join(">")
  const model = modelFor(chain)
  return {
    LOG: false,
    HOST: "127.0.0.1",
    PORT: port,
    APIKEY: token,
    API_TIMEOUT_MS: answerMs,
    NON_INTERACTIVE_MODE: true,
    Providers: [
      {
        name: provider,
        api_base_url: `${url}/v1/chat/completions`,
        api_key: key === undefined ? "none" : Redacted.value(key.key),
        models: [chain]
      }
    ],
    // Claude Code's main requests are those that think: each kind goes the same way.
    Router: { default: model, background: model, think: model, longContext: model, webSearch: model, image: model }
  }
}

/** A port of 127.0.0.1 that is free now: `wanted`, if it is. */
const freePort = (wanted: number): Effect.Effect<Option.Option<number>> =>
  Effect.async<Option.Option<number>>((resume) => {
    const server = createServer()
    server.once("error", () => resume(Effect.succeedNone))
    server.listen(wanted, "127.0.0.1", () => {
      const address = server.address()
      const port = typeof address === "object" && address !== null ? address.port : wanted
      server.close(() => resume(Effect.succeedSome(port)))
    })
  })

/** Whether a process of this user has got it. One of another user is not what was started, but has its id by now. */
const signal = (pid: number, name: NodeJS.Signals | 0): Effect.Effect<boolean> =>
  Effect.orElseSucceed(
    Effect.try(() => process.kill(pid, name)),
    () => false
  )

const make = Effect.gen(function* () {
  const settings = yield* Settings
  const files = yield* FileSystem.FileSystem
  const client = yield* HttpClient.HttpClient
  const own = yield* OwnAddress
  const environment = yield* Effect.context<CommandExecutor | FileSystem.FileSystem>()
  const withheld = yield* readVariables

  const command = settings.ccr.command ?? "ccr"
  const home = routerHomeOf(settings)
  const folder = join(home, ".claude-code-router")
  const stateFile = join(home, "router.json")
  const variables = {
    ...Object.fromEntries([...withheld.keys()].map((name) => [name, ""])),
    // Its folder is in its home, and what it leaves in a temporary folder is ours as well.
    HOME: home,
    USERPROFILE: home,
    TMPDIR: join(home, "tmp"),
    SERVICE_PORT: ""
  }

  const answers = (port: number, path: string, token: string): Effect.Effect<boolean> =>
    client
      .execute(HttpClientRequest.get(`http://127.0.0.1:${port}${path}`).pipe(HttpClientRequest.bearerToken(token)))
      .pipe(
        Effect.tap((response) => Effect.ignore(response.text)),
        Effect.map((response) => response.status === 200),
        Effect.scoped,
        Effect.timeout(healthTimeoutMs),
        Effect.orElseSucceed(() => false)
      )
  const isWell = ({ port, token }: Started) => answers(port, "/health", token)
  /** Only the one that was given this token takes it. */
  const isOurs = ({ port, token }: Started) => answers(port, "/api/transformers", token)

  const before = files.readFileString(stateFile).pipe(Effect.flatMap(Schema.decode(Started)), Effect.option)

  /** A service that was killed has left its router behind. */
  const endLeftover = Effect.fn("ClaudeCodeRouter.endLeftover")(function* (started: Started) {
    if (!(yield* isOurs(started))) return
    if (started.owner !== process.pid && (yield* signal(started.owner, 0))) {
      return yield* unavailable(
        `Another service (process ${started.owner}) has its router in ${home}: name another folder in DREAM_TEAM_CCR_HOME`
      )
    }
    const pid = Number(
      yield* Effect.orElseSucceed(files.readFileString(join(folder, ".claude-code-router.pid")), () => "")
    )
    if (!Number.isInteger(pid) || pid <= 1) return
    const isGone = Effect.map(signal(pid, 0), (lives) => !lives)
    const within = (ms: number) =>
      Effect.repeat(isGone, { until: (gone) => gone, schedule: Schedule.spaced(50) }).pipe(Effect.timeoutOption(ms))
    yield* signal(pid, "SIGTERM")
    if (Option.isNone(yield* within(3_000))) {
      yield* signal(pid, "SIGKILL")
      yield* within(1_000)
    }
  })

  const portFor = Effect.fn("ClaudeCodeRouter.portFor")(function* (previous: Option.Option<Started>) {
    const { port } = settings.ccr
    if (port !== undefined) {
      if (Option.isSome(yield* freePort(port))) return port
      return yield* unavailable(`Something else listens on port ${port}: name another in DREAM_TEAM_CCR_PORT`)
    }
    // The same as before where it is free: launchers that were written name it.
    const kept = Option.isSome(previous) ? yield* freePort(previous.value.port) : Option.none<number>()
    const found = Option.isSome(kept) ? kept : yield* freePort(0)
    return Option.isSome(found) ? found.value : yield* unavailable("No port of 127.0.0.1 is free")
  })

  const prepare = Effect.gen(function* () {
    const previous = yield* before
    if (Option.isSome(previous)) yield* endLeftover(previous.value)
    const port = yield* portFor(previous)
    const token = Option.isSome(previous) ? previous.value.token : randomBytes(32).toString("hex")
    const started: Started = { port, token, owner: process.pid }
    const url = yield* own.url
    yield* Effect.gen(function* () {
      for (const path of [home, folder, join(home, "tmp")]) {
        yield* files.makeDirectory(path, { recursive: true, mode: 0o700 })
      }
      const text = JSON.stringify(configuration(settings, url, started), undefined, 2)
      yield* putFile(join(folder, "config.json"), `${text}\n`)
      yield* putFile(stateFile, `${JSON.stringify(started)}\n`)
    }).pipe(Effect.mapError(unwritable))
    return started
  })

  const start = Effect.fn("ClaudeCodeRouter.start")(function* () {
    const child = yield* startProcess(
      Command.make(command, "start").pipe(Command.env(variables), Command.stdin("pipe"))
    ).pipe(
      Effect.mapError((error) =>
        unavailable(
          `Claude Code Router (${command}) cannot be started: ${error.message}. '${installRouter}' installs it`
        )
      )
    )
    yield* tailOf(child.stdout, 0)
    return { child, complaints: yield* tailOf(child.stderr, 2_000) }
  })

  const exited = (child: Process, complaints: Tail): Effect.Effect<string> =>
    Effect.option(child.exitCode).pipe(
      Effect.zipLeft(complaints.done),
      Effect.map((code) => {
        const how = Option.isSome(code) ? `with ${code.value}` : "by a signal"
        const why = complaints.text().trim()
        return `Claude Code Router ended ${how}${why === "" ? "" : `: ${why}`}`
      })
    )

  /** Fails where it does not become well; else tells, when it is over, why. */
  const live = (onReady: (endpoint: ClaudeEndpoint) => Effect.Effect<void>) =>
    Effect.gen(function* () {
      const version = yield* routerVersion(command, variables)
      if (!isKnownRouter(version)) {
        return yield* unavailable(
          `Claude Code Router ${version} (${command}) cannot continue sessions, only ${routerMajor}.x can: '${installRouter}', or name another one in DREAM_TEAM_CCR_COMMAND`
        )
      }
      const started = yield* prepare
      const { child, complaints } = yield* start()
      yield* isWell(started).pipe(
        Effect.repeat({ until: (well) => well, schedule: Schedule.spaced(100) }),
        Effect.timeoutFail({
          duration: startMs,
          onTimeout: () => unavailable(`Claude Code Router did not answer within ${startMs / 1_000} s of its start`)
        }),
        Effect.raceFirst(Effect.flatMap(exited(child, complaints), (why) => Effect.fail(unavailable(why))))
      )
      yield* onReady({
        baseUrl: `http://127.0.0.1:${started.port}`,
        token: Redacted.make(started.token)
      })
      let ailments = 0
      const ailing = isWell(started).pipe(
        Effect.tap((well) =>
          Effect.sync(() => {
            ailments = well ? 0 : ailments + 1
          })
        ),
        Effect.delay(healthEveryMs),
        Effect.repeat({ until: () => ailments >= maxAilments }),
        Effect.as("Claude Code Router answers no more")
      )
      return yield* Effect.raceFirst(exited(child, complaints), ailing)
    }).pipe(Effect.scoped, Effect.provide(environment))

  const wanted = yield* Effect.makeLatch(false)
  const promise = Deferred.make<ClaudeEndpoint, RouterUnavailable>()
  const current = yield* Ref.make(yield* promise)
  let early = 0

  const nextLife = Effect.gen(function* () {
    yield* wanted.await
    const from = yield* monotonicMs
    const ended = yield* Effect.either(
      live((endpoint) =>
        Effect.flatMap(Ref.get(current), Deferred.succeed(endpoint)).pipe(
          Effect.zipRight(Effect.logInfo("Claude Code Router is ready")),
          Effect.annotateLogs({ url: endpoint.baseUrl })
        )
      )
    )
    // After a start that failed it is started again when somebody asks for it.
    if (Either.isLeft(ended)) yield* wanted.close
    // Whoever asks from now on waits for the next start.
    const over = yield* Ref.getAndSet(current, yield* promise)
    if (Either.isLeft(ended)) yield* Deferred.fail(over, ended.left)
    yield* Effect.logWarning(Either.isLeft(ended) ? ended.left.message : `${ended.right}; it is started again`)
    early = (yield* monotonicMs) - from > longLifeMs ? 0 : early + 1
    yield* Effect.sleep(Math.min(longestPauseMs, shortestPauseMs * 2 ** Math.min(early, 10)))
  })
  yield* Effect.forkScoped(Effect.forever(nextLife))

  return {
    endpoint: wanted.open.pipe(
      Effect.zipRight(Ref.get(current)),
      Effect.flatMap(Deferred.await),
      Effect.timeoutFail({
        duration: patienceMs,
        onTimeout: () => unavailable("Claude Code Router could not be started in time")
      })
    ),
    modelFor
  }
})

/** Claude Code Router, through which Claude Code reaches the other platforms: its only provider is this service. */
export class ClaudeCodeRouter extends Context.Tag("dream-team/ClaudeCodeRouter")<
  ClaudeCodeRouter,
  {
    /** Starts it where it does not run yet, and answers once it is well; waits a minute at most. */
    readonly endpoint: Effect.Effect<ClaudeEndpoint, RouterUnavailable>
    /** The model to ask Claude Code for, so that the router sends the turn to that model of this service. */
    readonly modelFor: (gatewayModel: string) => string
  }
>() {
  /**
   * Claude Code Router 2.0.0 as a program of its own that ends with the scope: with a home folder and a configuration
   * that nobody else uses, started when it is first asked for, and again whenever it ends or answers no more. One that a
   * killed service left behind is ended first. Its port and token stay the same as long as they can.
   */
  static readonly layerConfig: Layer.Layer<
    ClaudeCodeRouter,
    never,
    Settings | OwnAddress | CommandExecutor | FileSystem.FileSystem | HttpClient.HttpClient
  > = Layer.scoped(ClaudeCodeRouter, make)
}
