import { existsSync, readFileSync } from "node:fs"
import { createServer } from "node:net"
import { dirname, resolve } from "node:path"
import * as Reactivity from "@effect/experimental/Reactivity"
import * as FileSystem from "@effect/platform/FileSystem"
import * as HttpClient from "@effect/platform/HttpClient"
import * as NodeCommandExecutor from "@effect/platform-node/NodeCommandExecutor"
import Sqlite from "better-sqlite3"
import { Clock, Console, Data, Duration, Effect, Layer, Predicate, Redacted } from "effect"
import { installRouter, isKnownRouter, routerHomeOf, routerVersion } from "../CCRWatcher/Router.js"
import { ClaudeCode } from "../ClaudeCode.js"
import type { LimitReading } from "../Domain/Call.js"
import type { AttemptFailure } from "../Domain/Failure.js"
import { monotonicMs } from "../Domain/Time.js"
import * as Transport from "../Platforms/Transport.js"
import { type PlatformClient, Platforms } from "../Platforms.js"
import { keyVariables, platformVariable } from "../Settings/Environment.js"
import { type Loaded, load, type SettingsFlags } from "../Settings/Load.js"
import type { SettingsInvalid } from "../Settings/Problem.js"
import { type DatabaseSetting, databaseName, Settings, type SettingsShape, sessionsDatabaseOf } from "../Settings.js"
import { explain, own } from "../Sql/Ownership.js"
import { settingsFile } from "./Claude.js"
import { notesOn, projectSettings } from "./ClaudeFeeds.js"
import { feedsIn } from "./ClaudeSettings.js"
import { codeOf, urlOf } from "./Connection.js"
import { counted, duration, oneLine, printJson } from "./Output.js"

/** Something that the service needs is broken; the report, already printed, says what. */
export class DoctorFoundProblems extends Data.TaggedError("DoctorFoundProblems")<{ readonly message: string }> {}

export interface Check {
  /** What was looked at: `node`, `settings`, `database`, `port`, or a platform's id. */
  readonly name: string
  /** `note`: works, but is worth knowing. `absent`: not configured, and not needed. */
  readonly status: "ok" | "note" | "absent" | "problem"
  readonly found: string
  /** What to do about it. */
  readonly toDo?: string | undefined
}

const checkTimeout = Duration.seconds(10)
const oldestNode = [20, 19] as const

/** Judges a version such as `20.19.2`. */
export const checkNode = (version: string): Check => {
  const [major = 0, minor = 0] = version.split(".").map(Number)
  const [oldestMajor, oldestMinor] = oldestNode
  return major > oldestMajor || (major === oldestMajor && minor >= oldestMinor)
    ? { name: "node", status: "ok", found: `Node.js ${version}` }
    : {
        name: "node",
        status: "problem",
        found: `Node.js ${version} is too old`,
        toDo: `install Node.js ${oldestMajor}.${oldestMinor} or newer`
      }
}

/** Whether a server could listen there: nothing, or the system's error code. */
const tryToListen = (host: string, port: number): Effect.Effect<void, string> =>
  Effect.async<void, string>((resume) => {
    const server = createServer()
    server.once("error", (error) => resume(Effect.fail(codeOf(error) ?? error.message)))
    server.listen({ host, port, exclusive: true }, () => {
      server.close(() => resume(Effect.void))
    })
    return Effect.sync(() => server.close())
  })

const isRunning = (host: string, port: number): Effect.Effect<boolean, never, HttpClient.HttpClient> =>
  HttpClient.get(`${urlOf(host, port)}/health/live`).pipe(
    Effect.flatMap((response) => (response.status === 200 ? response.json : Effect.succeed(undefined))),
    Effect.map((body) => Predicate.hasProperty(body, "status") && body.status === "live"),
    Effect.timeout("2 seconds"),
    Effect.orElseSucceed(() => false),
    Effect.scoped
  )

const checkPort = (
  host: string,
  port: number
): Effect.Effect<{ readonly check: Check; readonly running: boolean }, never, HttpClient.HttpClient> =>
  tryToListen(host.replace(/^\[(.*)\]$/, "$1"), port).pipe(
    Effect.as<{ readonly check: Check; readonly running: boolean }>({
      check: {
        name: "port",
        status: "ok",
        found: port === 0 ? `${host}, any free port` : `${host}:${port} is free`
      },
      running: false
    }),
    Effect.catchAll((code) =>
      Effect.gen(function* () {
        const problem = (found: string, toDo: string): Check => ({ name: "port", status: "problem", found, toDo })
        if (code === "EADDRINUSE") {
          const running = yield* isRunning(host, port)
          const check: Check = running
            ? { name: "port", status: "ok", found: `a dream-team is already running on ${host}:${port}` }
            : problem(
                `${host}:${port} is used by another program`,
                "stop it, or choose another port with DREAM_TEAM_PORT"
              )
          return { check, running }
        }
        const check =
          code === "EACCES"
            ? problem(
                `port ${port} is not allowed to this user`,
                "choose a port of 1024 or higher with DREAM_TEAM_PORT"
              )
            : problem(
                `nothing can listen on ${host}:${port} (${code})`,
                "set DREAM_TEAM_HOST to an address of this machine"
              )
        return { check, running: false }
      })
    )
  )

/** Opens the file as the service would, writes nothing, and lets it go. */
const open = (file: string) =>
  Effect.scoped(
    Effect.zipRight(
      own(file),
      Effect.try({
        try: () => {
          const database = new Sqlite(file, { fileMustExist: true, timeout: 0 })
          try {
            database.exec("BEGIN IMMEDIATE; ROLLBACK")
          } finally {
            database.close()
          }
        },
        catch: (cause) => explain(file, cause)
      })
    )
  )

/** Asks the server of a PostgreSQL database, as the service would, and changes nothing. */
const checkPostgres = (url: Redacted.Redacted<string>) =>
  Effect.gen(function* () {
    const { connect } = yield* Effect.promise(() => import("../Sql/Postgres.js"))
    const sql = yield* connect(url)
    const [about] = yield* sql<{ readonly version: string }>`SELECT current_setting('server_version') AS version`
    return `${databaseName(url)} answers (PostgreSQL ${about?.version.split(" ")[0]})`
  }).pipe(
    Effect.scoped,
    Effect.provide(Reactivity.layer),
    Effect.match({
      onSuccess: (found): Check => ({ name: "database", status: "ok", found }),
      onFailure: ({ message }): Check => ({ name: "database", status: "problem", found: message })
    })
  )

const checkDatabase = Effect.fn("Doctor.checkDatabase")(function* (database: DatabaseSetting, running: boolean) {
  if (Redacted.isRedacted(database)) return yield* checkPostgres(database)
  const fileSystem = yield* FileSystem.FileSystem
  const ok = (found: string): Check => ({ name: "database", status: "ok", found })
  if (database === ":memory:") {
    const check: Check = {
      name: "database",
      status: "note",
      found: "in memory: tasks are lost when the service ends",
      toDo: "name a file with DREAM_TEAM_DATABASE to keep them"
    }
    return check
  }
  const file = resolve(database)
  const exists = (path: string) => fileSystem.exists(path).pipe(Effect.orElseSucceed(() => false))
  if (yield* exists(file)) {
    return yield* open(file).pipe(
      Effect.as(ok(`${file} can be opened`)),
      Effect.catchAll(
        (error): Effect.Effect<Check> =>
          Effect.succeed(
            running && error.inUse === true
              ? ok(`${file} is in use by the dream-team that is running`)
              : { name: "database", status: "problem", found: error.message }
          )
      )
    )
  }
  const nearest = (folder: string): Effect.Effect<string> =>
    Effect.flatMap(exists(folder), (there) =>
      there || dirname(folder) === folder ? Effect.succeed(folder) : nearest(dirname(folder))
    )
  const folder = yield* nearest(dirname(file))
  // Trying it is the only sure way to know: permissions alone do not tell of read-only or special file systems.
  return yield* Effect.scoped(
    fileSystem.makeTempDirectoryScoped({ directory: folder, prefix: ".dream-team-doctor-" })
  ).pipe(
    Effect.as(true),
    Effect.orElseSucceed(() => false),
    Effect.map(
      (writable): Check =>
        writable
          ? ok(`${file} does not exist yet and will be created`)
          : {
              name: "database",
              status: "problem",
              found: `${file} cannot be created: ${folder} is not a folder that this user may write`,
              toDo: "name another file with DREAM_TEAM_DATABASE, or change the folder's permissions"
            }
    )
  )
})

/** What a failed check of a platform means for the person who configured it. */
const failed = (name: string, about: string, keyVariable: string, failure: AttemptFailure): Check => {
  const said = `${oneLine(failure.message, 200)}${failure.status === undefined ? "" : ` (HTTP ${failure.status})`}`
  const problem = (found: string, toDo: string): Check => ({
    name,
    status: "problem",
    found: `${about}; ${found}`,
    toDo
  })
  switch (failure._tag) {
    case "CredentialFailure":
      return problem(`the key is refused: ${said}`, `check the key in ${keyVariable}`)
    case "QuotaFailure":
      return { name, status: "note", found: `${about}; it answers, but a limit is reached: ${said}` }
    case "PlatformFailure":
      return problem(
        `it does not answer as it should: ${said}`,
        `check the network and ${platformVariable(name, "BASE_URL")}, or try again later`
      )
    case "RequestFailure":
    case "ModelFailure":
      return problem(`the check was refused: ${said}`, `check ${platformVariable(name, "BASE_URL")}`)
  }
}

const quotaInWords = ({ name, refillsInMs, resetsInMs, unit }: LimitReading, now: number): string => {
  const untilMs = refillsInMs ?? resetsInMs
  return `${oneLine(name ?? unit, 60)}${untilMs === undefined ? "" : ` until ${new Date(now + untilMs).toISOString()}`}`
}

const amountText = (unit: LimitReading["unit"], amount: number): string =>
  unit === "usd" ? `$${amount.toFixed(2)}` : amount.toLocaleString("en-US", { maximumFractionDigits: 1 })

/** What is left of a quota: `364.5 of 500 requests left (5h)`, `46.7 % left (weekly)`. */
const leftInWords = ({ limit, name, remaining, unit }: LimitReading): ReadonlyArray<string> => {
  if (remaining === undefined) return []
  const of = limit === undefined || unit === "percent" ? "" : ` of ${amountText(unit, limit)}`
  const counted = unit === "percent" ? " %" : unit === "usd" ? "" : ` ${unit}`
  return [`${amountText(unit, remaining)}${of}${counted} left${name === undefined ? "" : ` (${oneLine(name, 60)})`}`]
}

const checkPlatform = Effect.fn("Doctor.checkPlatform")(function* (client: PlatformClient, keySource: string) {
  const { baseUrl, model } = client.settings
  const about = `${baseUrl}, model ${model}, key from ${keySource}`
  const begin = yield* monotonicMs
  const base = { name: client.id }
  return yield* client.check.pipe(
    Effect.flatMap(({ models, readings }) =>
      Effect.gen(function* () {
        const ms = (yield* monotonicMs) - begin
        const now = yield* Clock.currentTimeMillis
        const answers = `${about}; answers in ${duration(ms)}`
        const usedUp = readings.filter(
          (reading) =>
            reading.remaining !== undefined &&
            reading.remaining <= 0 &&
            (reading.model === undefined || reading.model === model)
        )
        if (usedUp.length > 0) {
          const which = usedUp.map((reading) => quotaInWords(reading, now)).join(", ")
          const check: Check = { ...base, status: "note", found: `${answers}, but a quota is used up: ${which}` }
          return check
        }
        if (models.length > 0 && !models.includes(model)) {
          const check: Check = {
            ...base,
            status: "note",
            found: `${answers}, but does not list the model ${model}`,
            toDo: `set ${platformVariable(client.id, "MODEL")} to one it has, such as ${models
              .slice(0, 5)
              .map((name) => oneLine(name, 60))
              .join(", ")}`
          }
          return check
        }
        const left = readings.flatMap(leftInWords)
        const check: Check = { ...base, status: "ok", found: [answers, ...left].join("; ") }
        return check
      })
    ),
    Effect.catchAll((failure) => Effect.succeed(failed(client.id, about, keySource, failure))),
    Effect.timeoutTo({
      duration: checkTimeout,
      onSuccess: (check): Check => check,
      onTimeout: (): Check => ({
        ...base,
        status: "problem",
        found: `${about}; no answer within ${duration(Duration.toMillis(checkTimeout))}`,
        toDo: `check the network and ${platformVariable(client.id, "BASE_URL")}`
      })
    })
  )
})

/** The settings are valid; is a file that holds keys its owner's alone? */
const checkSettings = Effect.fn("Doctor.checkSettings")(function* ({ entries, file }: Loaded) {
  const base = { name: "settings", found: `valid (environment, ${file === undefined ? "" : `${file}, `}defaults)` }
  const check: Check = { ...base, status: "ok" }
  const holdsKeys = entries.some(({ key, source }) => source.kind === "file" && /(^|\.)apiKeys?$/.test(key))
  if (file === undefined || !holdsKeys) return check
  const fileSystem = yield* FileSystem.FileSystem
  const mode = yield* fileSystem.stat(file).pipe(
    Effect.map((info) => info.mode),
    Effect.orElseSucceed(() => 0)
  )
  const open: Check = {
    ...base,
    status: "note",
    found: `${base.found}, but other users may read the keys in ${file}`,
    toDo: `chmod 600 ${file}`
  }
  return (mode & 0o077) === 0 ? check : open
})

/** Every check of a service with these settings. */
export const examine = Effect.fn("Doctor.examine")(function* (loaded: Loaded) {
  const { entries, settings } = loaded
  const platforms = yield* Platforms
  const { check: port, running } = yield* checkPort(settings.host, settings.port)
  const database = yield* checkDatabase(settings.database, running)
  const present = yield* Effect.forEach(
    // What goes through Claude Code is told with that.
    platforms.all.filter(({ settings }) => settings.wire !== "claude-code"),
    (client) => {
      const source = entries.find(({ key }) => key === `platforms.${client.id}.apiKey`)?.source.name
      return checkPlatform(client, source ?? keyVariables(client.id).join(" or "))
    },
    { concurrency: "unbounded" }
  )
  const absent = settings.absent.map(({ id, reason }): Check => ({ name: id, status: "absent", found: reason }))
  const none: Check = {
    name: "platforms",
    status: "problem",
    found: "no platform is configured, so no task can be done",
    toDo: "set one of the keys named above, or try `dream-team demo`, which needs none"
  }
  return [
    yield* checkSettings(loaded),
    database,
    port,
    ...present,
    ...absent,
    ...(platforms.all.length === 0 ? [none] : [])
  ]
})

/** What `claude` says of itself; a problem only where it is to do tasks. */
const checkClaude = Effect.fn("Doctor.checkClaude")(function* ({ claude, platforms }: SettingsShape) {
  const code = yield* ClaudeCode
  const needed = platforms.some(({ wire }) => wire === "claude-code")
  const lacks = (found: string, toDo: string): Check =>
    needed ? { name: "claude", status: "problem", found, toDo } : { name: "claude", status: "absent", found, toDo }
  return yield* Effect.zip(code.version, code.isLoggedIn(claude.configDir)).pipe(
    Effect.map(([version, loggedIn]) => {
      const found = `Claude Code ${version}`
      const check: Check = { name: "claude", status: "ok", found: `${found}, logged in` }
      return loggedIn ? check : lacks(`${found}, but nobody is logged in`, "run 'claude' and log in")
    }),
    Effect.catchAll(({ message }) =>
      Effect.succeed(
        lacks(
          `${oneLine(message, 200)}; only its sessions need it`,
          "install it, or name it in DREAM_TEAM_CLAUDE_COMMAND"
        )
      )
    )
  )
})

/** Whether sessions could be continued on other platforms. */
const checkRouter = Effect.fn("Doctor.checkRouter")(function* (settings: SettingsShape) {
  const { command = "ccr" } = settings.ccr
  const check = (status: Check["status"], found: string): Check => ({
    name: "ccr",
    status,
    found,
    ...(status === "ok" ? {} : { toDo: installRouter })
  })
  return yield* Effect.match(routerVersion(command), {
    onSuccess: (version) =>
      isKnownRouter(version)
        ? check("ok", `Claude Code Router ${version}, with its home in ${routerHomeOf(settings)}`)
        : check("note", `Claude Code Router ${version} (${command}) is not one that can continue sessions`),
    onFailure: () => check("absent", `${command} is not installed; only sessions that are continued need it`)
  })
})

/** Whether Claude Code reports its sessions to this service, and what keeps it from telling all. */
const checkFeeds = Effect.fn("Doctor.checkFeeds")(function* (settings: SettingsShape) {
  const file = yield* settingsFile(undefined)
  const text = yield* Effect.orElseSucceed(
    Effect.try(() => (existsSync(file) ? readFileSync(file, "utf8") : undefined)),
    () => undefined
  )
  const database = sessionsDatabaseOf(settings)
  const feeds = (check: Omit<Check, "name">): Check => ({ name: "feeds", ...check })
  if (!feedsIn(text ?? "").isInstalled) {
    return [
      feeds({
        status: "absent",
        found: "Claude Code does not report its sessions; without that only their transcripts tell of limits",
        toDo: "dream-team claude install"
      })
    ]
  }
  const notes = notesOn({ file, text }, yield* projectSettings(database, file), database)
  return notes.length === 0
    ? [feeds({ status: "ok", found: `Claude Code reports its sessions to ${database}` })]
    : notes.map((note) => feeds({ status: "note", ...note }))
})

const invalid = ({ problems }: SettingsInvalid): ReadonlyArray<Check> =>
  problems.map((problem) => ({
    name: "settings",
    status: "problem",
    found: `${problem.key}${problem.value === undefined ? "" : `=${problem.value}`}: ${problem.problem}`,
    toDo: `it takes ${problem.expected}`
  }))

/** The report as a person reads it: aligned, what to do under what is wrong. */
const render = (checks: ReadonlyArray<Check>): string => {
  const width = Math.max(...checks.map(({ name }) => name.length))
  return checks
    .flatMap(({ found, name, status, toDo }) => [
      `${status.padEnd(7)}  ${name.padEnd(width)}  ${found}`,
      ...(toDo === undefined ? [] : [`${" ".repeat(7 + 2 + width + 2)}-> ${toDo}`])
    ])
    .join("\n")
}

export interface DoctorOptions extends SettingsFlags {
  readonly json: boolean
}

/** Prints a report on everything the service needs. Fails with `DoctorFoundProblems` if something is broken. */
export const run = Effect.fn("Doctor.run")(function* (options: DoctorOptions) {
  const checks = yield* load(options).pipe(
    Effect.flatMap((loaded) => {
      const settings = Settings.layer(loaded.settings)
      const sessions = Effect.map(
        Effect.all([checkClaude(loaded.settings), checkRouter(loaded.settings), checkFeeds(loaded.settings)], {
          concurrency: "unbounded"
        }),
        ([claude, router, feeds]) => [claude, router, ...feeds]
      )
      return Effect.zipWith(examine(loaded), sessions, (team, more) => [...team, ...more]).pipe(
        Effect.provide(
          Platforms.layer.pipe(
            Layer.provideMerge(Layer.merge(Transport.layer, ClaudeCode.layerConfig)),
            Layer.provideMerge(NodeCommandExecutor.layer),
            Layer.provide(settings)
          )
        )
      )
    }),
    Effect.catchTag("SettingsInvalid", (error) => Effect.succeed(invalid(error))),
    Effect.map((found) => [checkNode(process.versions.node), ...found])
  )
  const problems = checks.filter(({ status }) => status === "problem").length
  yield* options.json ? printJson({ ok: problems === 0, checks }) : Console.log(render(checks))
  if (problems > 0) return yield* new DoctorFoundProblems({ message: `${counted(problems, "problem")} found.` })
})
