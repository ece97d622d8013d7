import { existsSync } from "node:fs"
import type { CommandExecutor } from "@effect/platform/CommandExecutor"
import type { FileSystem } from "@effect/platform/FileSystem"
import { Context, Deferred, Effect, Layer } from "effect"
import { Processes } from "../CCRWatcher/Processes.js"
import type { ClaudeCodeRouter } from "../CCRWatcher/Router.js"
import { CCRWatcher } from "../CCRWatcher.js"
import type { ClaudeCode } from "../ClaudeCode.js"
import type { Events } from "../Events.js"
import { claudeFolder } from "../Feed/Paths.js"
import type { Gateway } from "../Gateway.js"
import type { PlatformDetector } from "../PlatformDetector.js"
import type { ResourceManager } from "../ResourceManager.js"
import { HandoffStore } from "../SessionStore/Handoffs.js"
import { SessionHandoffRefused, SessionHandoffs } from "../SessionStore/Requests.js"
import { runTable } from "../SessionStore/Table.js"
import { runTailer } from "../SessionStore/Tailer.js"
import { SessionStore, SessionsSql } from "../SessionStore.js"
import { Settings, type SettingsShape, sessionsDatabaseOf } from "../Settings.js"
import type { SqlWriter } from "../Sql/Writer.js"

/** Whether Claude Code sessions are watched here. */
export class Watched extends Context.Tag("dream-team/Watched")<Watched, boolean>() {}

/** Where their database is configured, where the feeds have made it, and where tasks run in sessions. */
const isWanted = (settings: SettingsShape): boolean =>
  settings.sessions.database !== undefined ||
  settings.platforms.some(({ wire }) => wire === "claude-code") ||
  existsSync(sessionsDatabaseOf(settings))

const inMemory = Layer.merge(Layer.orDie(SessionStore.layerMemory), Layer.succeed(Watched, false))

/**
 * What is known of Claude Code sessions. A database that cannot be opened costs the watcher alone: the tasks go on
 * without it.
 */
export const stores: Layer.Layer<HandoffStore | SessionStore | SessionsSql | Watched, never, Settings> =
  HandoffStore.layer.pipe(
    Layer.provideMerge(
      Layer.unwrapEffect(
        Effect.map(Settings, (settings) =>
          isWanted(settings)
            ? SessionStore.layer.pipe(
                Layer.provideMerge(SessionsSql.layer),
                Layer.merge(Layer.succeed(Watched, true)),
                Layer.catchAll(({ message }) =>
                  Layer.merge(
                    Layer.effectDiscard(Effect.logError(`Claude Code sessions are not watched: ${message}`)),
                    inMemory
                  )
                )
              )
            : inMemory
        )
      )
    )
  )

/** What watching needs beside the team. */
export type Surroundings =
  | ClaudeCode
  | ClaudeCodeRouter
  | CommandExecutor
  | FileSystem
  | HandoffStore
  | SessionHandoffs
  | SessionStore
  | SessionsSql
  | Watched

type Needs = Events | Gateway | PlatformDetector | ResourceManager | Settings | SqlWriter | Surroundings

/** Transcripts are the backstop of the feeds: a refusal is found in them within this, ms. */
const followedEveryMs = 5_000

/** What knows of sessions without a feed: their transcripts, and another program's table. */
const followed = Layer.scopedDiscard(
  Effect.flatMap(Settings, ({ claude, sessions }) => {
    const account = claude.configDir ?? claudeFolder(undefined)
    const { table } = sessions
    return Effect.all([
      Effect.forkScoped(runTailer({ accounts: [account], everyMs: followedEveryMs })),
      table === undefined
        ? Effect.void
        : Effect.forkScoped(runTable({ setting: table, account, everyMs: followedEveryMs }))
    ])
  })
)

/** Nobody serves them, so nobody is to wait. */
const refusal = Layer.scopedDiscard(
  Effect.flatMap(SessionHandoffs, ({ take }) =>
    Effect.flatMap(take, ({ reply }) =>
      Deferred.fail(reply, new SessionHandoffRefused({ message: "Claude Code sessions are not watched here" }))
    ).pipe(Effect.forever, Effect.forkScoped)
  )
)

/** The watcher, with what feeds it, where sessions are watched. */
export const layer: Layer.Layer<CCRWatcher, never, Needs> = Layer.unwrapEffect(
  Effect.map(Watched, (isOn) =>
    isOn
      ? Layer.merge(Layer.provide(CCRWatcher.layer, Processes.layer), followed)
      : Layer.merge(CCRWatcher.layerOff, refusal)
  )
)
