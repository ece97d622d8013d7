import { randomBytes } from "node:crypto"
import * as NodeCommandExecutor from "@effect/platform-node/NodeCommandExecutor"
import { Cause, Console, Context, Effect, Exit, Fiber, Layer, Option, Redacted, Scope, Stream } from "effect"
import { ClaudeCodeRouter, OwnAddress, routerTenant } from "../CCRWatcher/Router.js"
import { ClaudeCode } from "../ClaudeCode.js"
import { Http } from "../Http.js"
import { PlatformDetector } from "../PlatformDetector.js"
import * as Transport from "../Platforms/Transport.js"
import { SessionHandoffs } from "../SessionStore/Requests.js"
import { load } from "../Settings/Load.js"
import { databaseName, Settings, type SettingsFlags, type SettingsShape } from "../Settings.js"
import { DatabaseUnavailable, Ownership } from "../Sql.js"
import * as Watching from "../Team/Watching.js"
import { Team } from "../Team.js"
import { Telemetry } from "../Telemetry.js"
import { Misuse } from "./Exit.js"
import { duration, printJson, table } from "./Output.js"

export interface ServeOptions extends SettingsFlags {
  readonly json: boolean
}

/** Requests, attempts and the database get this long beyond the attempts' grace at shutdown, ms. */
const closingMs = 10_000

const absentLines = ({ absent }: SettingsShape): ReadonlyArray<string> =>
  absent.map(({ id, reason }) => `  ${id}: ${reason}`)

const noPlatform = (settings: SettingsShape): Misuse =>
  new Misuse({
    message: [
      "No platform is configured, so there is nobody to delegate to.",
      ...absentLines(settings),
      "Give at least one of them its key, then start again; 'dream-team doctor' tells what is missing.",
      "To see the team at work without any key: 'dream-team demo'."
    ].join("\n")
  })

const announce = (url: string, settings: SettingsShape, json: boolean): Effect.Effect<void> =>
  json
    ? printJson({
        url,
        database: databaseName(settings.database),
        platforms: settings.platforms.map(({ baseUrl, id, model }) => ({ id, model, baseUrl })),
        absent: settings.absent
      })
    : Console.log(
        [
          `Dream Team answers at ${url} (API: ${url}/docs).`,
          "",
          table(
            ["PLATFORM", "MODEL", "AT"],
            settings.platforms.map(({ baseUrl, id, model }) => [id, model, baseUrl])
          ),
          ...(settings.absent.length === 0 ? [] : ["", "Left out:", ...absentLines(settings)]),
          "",
          `Tasks are kept in ${databaseName(settings.database)}. Stop with Ctrl-C.`
        ].join("\n")
      )

/** Beside other keys, the one that Claude Code Router is let in by: made for this run, and nobody else's. */
const withRouterKey = (settings: SettingsShape): SettingsShape =>
  settings.apiKeys.length === 0
    ? settings
    : {
        ...settings,
        apiKeys: [
          ...settings.apiKeys,
          { tenant: routerTenant, key: Redacted.make(`dtr-${randomBytes(32).toString("hex")}`) }
        ]
      }

/** What stands around the service and outlives it: settings, Claude Code and its router, the HTTP client, log and spans. */
const surroundings = (settings: SettingsShape) =>
  Layer.mergeAll(ClaudeCodeRouter.layerConfig, ClaudeCode.layerConfig, SessionHandoffs.layer, Watching.stores).pipe(
    Layer.provideMerge(OwnAddress.layer),
    Layer.provideMerge(Telemetry.layerConfig),
    Layer.provideMerge(Transport.layer),
    Layer.provideMerge(NodeCommandExecutor.layer),
    Layer.provideMerge(Telemetry.layer),
    Layer.provideMerge(Settings.layer(settings))
  )

/** One log entry whenever a platform's status changes, so that an outage can be seen without asking. */
const statusLog = Layer.scopedDiscard(
  Effect.gen(function* () {
    const { changes } = yield* PlatformDetector
    const seen = new Map<string, string>()
    yield* Stream.runForEach(changes, ({ platform, reasons, status }) => {
      const before = seen.get(platform)
      seen.set(platform, status)
      // That each platform is well at the start goes without saying.
      if (status === before || (before === undefined && status === "available")) return Effect.void
      const entry = status === "available" ? Effect.logInfo : Effect.logWarning
      return Effect.annotateLogs(entry(`The platform is ${status}`), {
        platform,
        ...(reasons.length === 0 ? {} : { reasons: reasons.join("; ") })
      })
    }).pipe(Effect.forkScoped)
  })
)

/** Closes in the background, so that whoever hangs there cannot hold the process for ever. */
const closeWithin = (scope: Scope.CloseableScope, ms: number) => (exit: Exit.Exit<unknown, unknown>) =>
  Effect.forkDaemon(Scope.close(scope, exit)).pipe(
    Effect.flatMap((fiber) => Fiber.join(fiber).pipe(Effect.interruptible, Effect.timeoutOption(ms))),
    Effect.flatMap((closed) =>
      Option.isSome(closed) ? Effect.void : Console.error(`The service did not end within ${duration(ms)}.`)
    )
  )

/** Whether the database belongs to another process, so that nothing of what this one does can be kept. */
const isTaken = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isFailure(exit) &&
  Option.exists(
    Cause.failureOption(exit.cause),
    (error) => error instanceof DatabaseUnavailable && error.inUse === true
  )

/** Runs the service until stopped, or until another process has taken its database over. At the end running attempts get their grace, and the whole a bit more. */
export const run = Effect.fn("Cli.serve")(function* ({ json, ...flags }: ServeOptions) {
  const settings = withRouterKey((yield* load(flags)).settings)
  if (settings.platforms.length === 0) return yield* noPlatform(settings)
  return yield* Effect.acquireUseRelease(
    Scope.make(),
    (scope) =>
      Layer.buildWithScope(Layer.provideMerge(Layer.merge(Http.layer, statusLog), Team.layerWatching), scope).pipe(
        Effect.tap((context) => announce(Context.get(context, Http).url, settings, json)),
        Effect.tap((context) =>
          Effect.logInfo("The service is ready").pipe(Effect.annotateLogs({ url: Context.get(context, Http).url }))
        ),
        Effect.flatMap((context) => Context.get(context, Ownership).lost),
        Effect.onInterrupt(() =>
          Effect.logInfo(`The service stops; running attempts have ${duration(settings.shutdownGraceMs)} to end`)
        )
      ),
    (scope, exit) => (isTaken(exit) ? Effect.void : closeWithin(scope, settings.shutdownGraceMs + closingMs)(exit))
  ).pipe(Effect.provide(surroundings(settings)))
})
