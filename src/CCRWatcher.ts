import { dirname } from "node:path"
import type { CommandExecutor } from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import {
  Cause,
  Clock,
  Context,
  Deferred,
  Duration,
  Effect,
  FiberMap,
  Layer,
  Option,
  Schedule,
  Schema,
  Stream
} from "effect"
import { makeGuard } from "./CCRWatcher/Guard.js"
import { leaseMs, makeHandoffs } from "./CCRWatcher/Handoffs.js"
import { highest, type LevelChange, look, pauseMs, reaches, unseen, type WindowState } from "./CCRWatcher/Levels.js"
import { Processes } from "./CCRWatcher/Processes.js"
import { ClaudeCodeRouter } from "./CCRWatcher/Router.js"
import { accountView, handoffView, sessionView } from "./CCRWatcher/Views.js"
import { ClaudeCode } from "./ClaudeCode.js"
import { localTenant } from "./Domain/Access.js"
import { PlatformId } from "./Domain/Platform.js"
import {
  type AccountView,
  type HandoffCause,
  HandoffId,
  type HandoffMode,
  type HandoffPolicy,
  type HandoffState,
  type HandoffView,
  isHandoffOver,
  LimitWindow,
  type SessionEventBody,
  SessionId,
  type SessionLimitReading,
  type SessionStatus,
  type SessionView,
  shortestWindowMs
} from "./Domain/Session.js"
import { randomUuid } from "./Domain/Uuid.js"
import { Events } from "./Events.js"
import { claudeFolder } from "./Feed/Paths.js"
import { reportOfRateLimitEvent } from "./Feed/Report.js"
import { Gateway } from "./Gateway.js"
import { PlatformDetector } from "./PlatformDetector.js"
import { ResourceManager } from "./ResourceManager.js"
import { type HandoffRecord, HandoffStore } from "./SessionStore/Handoffs.js"
import { type SessionContinued, SessionHandoffRefused, SessionHandoffs } from "./SessionStore/Requests.js"
import { type SessionRecord, SessionStore, SessionsUnavailable } from "./SessionStore.js"
import { Settings, sessionsDatabaseOf } from "./Settings.js"
import { SqlWriter } from "./Sql/Writer.js"
import { supervised } from "./Telemetry/supervised.js"

/** No session of that id was heard of. */
export class NoSuchSession extends Schema.TaggedError<NoSuchSession>()("NoSuchSession", { message: Schema.String }) {}

/** It cannot be handed off now; `message` says why. */
export class HandoffRefused extends Schema.TaggedError<HandoffRefused>()("HandoffRefused", {
  message: Schema.String
}) {}

/** How a person wants a session to go on. */
export interface Wish {
  /** That platform alone. */
  readonly to?: PlatformId | undefined
  /** By a launcher, also where it could go on by itself. */
  readonly launcher?: boolean | undefined
}

/** A session that did nothing for longer is no longer at work, ms: levels do not hand it off. */
const recentMs = 60 * 60_000
/** Sessions looked at, and hand-offs carried on, at once. */
const maxSessions = 500
const maxAtOnce = 4
/** Hand-offs that are over are deleted after this, ms, with what was kept for them. */
const keptMs = 30 * 24 * 3_600_000
const pruneEveryMs = 3_600_000
/** The probe turn of the way back: how long it may take, and until another one is made after it failed, ms. */
const probeMs = 2 * 60_000
const probeAgainMs = 5 * 60_000
/** While an account is away its platform is told so for this long at a time, ms. */
const awayMs = 10 * 60_000
/** The platform that answers through Claude Code. */
const claudePlatform = PlatformId.make("claude")
const manual = LimitWindow.make("manual")
const unknownWindow = LimitWindow.make("unknown")

/** Claude Code sessions: how near their accounts' limits are, and their hand-off to other platforms. */
export class CCRWatcher extends Context.Tag("dream-team/CCRWatcher")<
  CCRWatcher,
  {
    readonly accounts: Effect.Effect<ReadonlyArray<AccountView>, SessionsUnavailable>
    /** The last heard of first. */
    readonly sessions: (options: {
      readonly status?: SessionStatus | undefined
      readonly limit: number
    }) => Effect.Effect<ReadonlyArray<SessionView>, SessionsUnavailable>
    readonly session: (id: SessionId) => Effect.Effect<SessionView, SessionsUnavailable | NoSuchSession>
    /** The newest first. */
    readonly handoffs: (options: {
      readonly session?: SessionId | undefined
      readonly state?: HandoffState | undefined
      readonly limit: number
    }) => Effect.Effect<ReadonlyArray<HandoffView>, SessionsUnavailable>
    /** Hands a session off now, whatever its level; or goes on with the hand-off it has. */
    readonly handOff: (
      id: SessionId,
      wish: Wish
    ) => Effect.Effect<HandoffView, SessionsUnavailable | NoSuchSession | HandoffRefused>
  }
>() {
  /** Where no sessions are watched: everything says so. */
  static readonly layerOff: Layer.Layer<CCRWatcher> = Layer.sync(CCRWatcher, () => {
    const off = new SessionsUnavailable({
      message:
        "Claude Code sessions are not watched here. Run 'dream-team claude install', or set DREAM_TEAM_SESSIONS_DB, and start the service again."
    })
    return {
      accounts: off,
      sessions: () => off,
      session: () => off,
      handoffs: () => off,
      handOff: () => off
    }
  })

  /** Watches the sessions database, for as long as its scope. */
  static readonly layer: Layer.Layer<
    CCRWatcher,
    never,
    | ClaudeCode
    | ClaudeCodeRouter
    | CommandExecutor
    | Events
    | FileSystem.FileSystem
    | Gateway
    | HandoffStore
    | PlatformDetector
    | Processes
    | ResourceManager
    | SessionHandoffs
    | SessionStore
    | Settings
    | SqlWriter
  > = Layer.scoped(
    CCRWatcher,
    Effect.suspend(() => make)
  )
}

const make = Effect.gen(function* () {
  const settings = yield* Settings
  const events = yield* Events
  const writer = yield* SqlWriter
  const store = yield* SessionStore
  const handoffs = yield* HandoffStore
  const requests = yield* SessionHandoffs
  const detector = yield* PlatformDetector
  const resources = yield* ResourceManager
  const gateway = yield* Gateway
  const claude = yield* ClaudeCode
  const router = yield* ClaudeCodeRouter
  const processes = yield* Processes
  const files = yield* FileSystem.FileSystem
  const context = yield* Effect.context<FileSystem.FileSystem | CommandExecutor>()
  const { chain, handoff: defaultPolicy, levels: bounds, pollMs, quietMs, trigger } = settings.sessions
  const folder = dirname(sessionsDatabaseOf(settings))
  /** The account whose limits are those of the platform `claude`; others do not concern it. */
  const platformAccount = settings.platforms.some(({ id }) => id === claudePlatform)
    ? claudeFolder(settings.claude.configDir)
    : undefined
  const guarded = yield* makeGuard
  const owner = yield* randomUuid

  const announce = (session: SessionId, body: SessionEventBody): Effect.Effect<void> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => writer.write(events.appendSession(session, now, [body]))).pipe(
      Effect.catchAll((error) => Effect.logWarning("An event of a session could not be stored", error))
    )

  const continuers = Effect.map(Effect.all([detector.view, resources.view]), ([views, { platforms }]) => {
    const known = settings.platforms.flatMap((platform) => {
      const view = views.find(({ id }) => id === platform.id)
      const held = platforms.find((each) => each.platform === platform.id)
      return view === undefined || held === undefined
        ? []
        : [[platform.id, { settings: platform, view, resources: held }] as const]
    })
    return new Map(known)
  })

  /** Those who wait for the end of a hand-off. */
  const waiting = new Map<HandoffId, Array<Deferred.Deferred<SessionContinued, SessionHandoffRefused>>>()
  const isAwaited = ({ cause, id }: HandoffRecord): boolean => cause !== "task" || waiting.has(id)
  /**
   * A hand-off for a task that is awaited nowhere, as no process has gone on with it: the task was cut by a stop of the
   * service, and asks anew.
   */
  const isAbandoned = (record: HandoffRecord, now: number): boolean =>
    !isAwaited(record) && now - record.updatedAt > 2 * leaseMs

  const work = makeHandoffs({
    handoffs,
    sessions: store,
    claude,
    router,
    processes,
    continuers,
    answeredBy: gateway.answeredBy,
    isAwaited,
    announce,
    settings: { chain, quietMs, command: settings.claude.command ?? "claude", folder },
    owner
  })

  // Levels

  const accounts = new Map<string, Map<LimitWindow, WindowState>>()
  const away = new Set<string>()

  const toldOf = (reading: SessionLimitReading | undefined): string =>
    reading === undefined
      ? ""
      : `${reading.status} ${Math.floor(reading.usedPercent ?? -1)} ${Math.floor((reading.resetsAt ?? 0) / 60_000)}`

  const announceLevel = ({ from, reading, to, window }: LevelChange, before: SessionLimitReading | undefined) => {
    const session = (reading ?? before)?.sessionId
    return session === undefined
      ? Effect.void
      : Effect.zipRight(
          Effect.logInfo(`The ${window} limit of Claude Code is at level ${to}`),
          announce(session, {
            type: "session.level",
            window,
            from,
            to,
            usedPercent: reading?.usedPercent,
            resetsAt: reading?.resetsAt,
            source: reading?.source
          })
        )
  }

  const lookAtLevels = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    for (const { account, readings } of yield* guarded(store.limits)) {
      const states = accounts.get(account) ?? new Map<LimitWindow, WindowState>()
      accounts.set(account, states)
      for (const window of new Set([...states.keys(), ...readings.map((reading) => reading.window)])) {
        const before = states.get(window) ?? unseen(window)
        const { change, state } = look(
          before,
          readings.filter((reading) => reading.window === window),
          bounds,
          now
        )
        states.set(window, state)
        if (state.reading !== undefined && toldOf(state.reading) !== toldOf(before.reading)) {
          const { resetsAt, sessionId, source, status, usedPercent } = state.reading
          yield* announce(sessionId, { type: "session.reading", window, status, usedPercent, resetsAt, source })
        }
        if (change !== undefined) yield* announceLevel(change, before.reading)
      }
    }
  })

  const statesOf = (account: string): ReadonlyArray<WindowState> => [...(accounts.get(account)?.values() ?? [])]

  /** The window of an account for which its sessions are to be handed off: of several the one that resets last. */
  const triggering = (account: string): WindowState | undefined =>
    statesOf(account)
      .filter(({ level }) => reaches(level, trigger))
      .sort((left, right) => (right.reading?.resetsAt ?? 0) - (left.reading?.resetsAt ?? 0))[0]

  // Hand-offs

  const policyOf = ({ handoff, launchedBy }: SessionRecord): HandoffPolicy =>
    launchedBy === "dream-team" ? "auto" : (handoff ?? defaultPolicy)

  const modeOf = (session: SessionRecord, { launcher }: Wish): HandoffMode =>
    launcher !== true && policyOf(session) === "auto" ? "headless" : "launcher"

  const begin = Effect.fnUntraced(function* (
    session: SessionRecord,
    window: { readonly name: LimitWindow; readonly resetsAt: number | undefined },
    cause: HandoffCause,
    wish: Wish
  ) {
    const id = HandoffId.make(yield* randomUuid)
    const opened = yield* guarded(
      handoffs.open({
        id,
        account: session.account,
        sessionId: session.id,
        window: window.name,
        windowResetsAt: window.resetsAt,
        cause,
        mode: modeOf(session, wish),
        to: wish.to
      })
    )
    if (opened !== undefined) {
      yield* announce(session.id, { type: "handoff.changed", handoff: id, state: opened.state })
    }
    return opened
  })

  /** The refusal a session stands before, where it has not reset since. */
  const refusedBy = ({ limit, status }: SessionRecord, now: number) => {
    if (status !== "limited" || limit === undefined) return undefined
    const until = limit.resetsAt ?? limit.hitAt + shortestWindowMs
    return until > now ? { name: limit.window, resetsAt: limit.resetsAt } : undefined
  }

  const beginAll = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const sessions = (yield* Effect.all([
      guarded(store.list({ status: "active", limit: maxSessions })),
      guarded(store.list({ status: "limited", limit: maxSessions }))
    ])).flat()
    const candidates = sessions.flatMap((session) => {
      const state = triggering(session.account)
      const near =
        state !== undefined && now - session.updatedAt <= recentMs
          ? { name: state.window, resetsAt: state.reading?.resetsAt }
          : undefined
      const window = refusedBy(session, now) ?? near
      return window === undefined || (session.transcriptPath === undefined && session.cwd === undefined)
        ? []
        : [{ session, window }]
    })
    if (candidates.length === 0) return
    const elsewhere = yield* guarded(handoffs.continuations)
    for (const { session, window } of candidates) {
      // What goes on elsewhere is not near the limit of the account it left.
      if (!elsewhere.has(session.id)) yield* begin(session, window, "level", {})
    }
  })

  const running = yield* FiberMap.make<HandoffId>()

  const settleWaiting = (record: HandoffRecord): Effect.Effect<void> => {
    const replies = waiting.get(record.id)
    if (replies === undefined || !isHandoffOver(record.state)) return Effect.void
    waiting.delete(record.id)
    const { answer, answeredBy, newSessionId, sessionId, state, why } = record
    return Effect.forEach(
      replies,
      (reply) =>
        state === "succeeded"
          ? Deferred.succeed(reply, { text: answer ?? "", sessionId: newSessionId ?? sessionId, answeredBy })
          : Deferred.fail(reply, new SessionHandoffRefused({ message: why ?? `the hand-off has ${state}` })),
      { discard: true }
    )
  }

  const carryOn = (id: HandoffId) =>
    FiberMap.run(
      running,
      id,
      work.advance(id).pipe(
        Effect.flatMap((record) => (record === undefined ? Effect.void : settleWaiting(record))),
        Effect.provide(context),
        Effect.catchAllCause((cause) =>
          Cause.isInterruptedOnly(cause) ? Effect.void : Effect.logError(`The hand-off ${id} broke`, cause)
        )
      ),
      { onlyIfMissing: true }
    )

  /** Ends a hand-off that nobody is at work on. */
  const cancel = Effect.fnUntraced(function* (id: HandoffId, why: string) {
    const taken = yield* guarded(handoffs.take(id, owner, leaseMs))
    if (taken === undefined) return
    const change = { state: "cancelled", why, pid: null, nextAt: null } as const
    if (yield* guarded(handoffs.write(id, taken.epoch, change))) {
      yield* announce(taken.sessionId, { type: "handoff.changed", handoff: id, state: "cancelled", why })
    }
  })

  const carryOnAll = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    for (const record of yield* guarded(handoffs.due(maxSessions))) {
      if ((yield* FiberMap.size(running)) >= maxAtOnce) return
      if (isAwaited(record) || record.state === "running") {
        yield* carryOn(record.id)
      } else if (isAbandoned(record, now)) {
        yield* cancel(record.id, "the task that needed it is no longer there")
      }
    }
    for (const id of waiting.keys()) {
      const record = yield* guarded(handoffs.get(id))
      if (record !== undefined) yield* settleWaiting(record)
    }
  })

  // Requests of tasks

  const scope = yield* Effect.scope

  /** Ends a hand-off, and its run, once the last of those who wait for it has left. */
  const cancelUnheard = (id: HandoffId, reply: Deferred.Deferred<SessionContinued, SessionHandoffRefused>) =>
    Effect.gen(function* () {
      yield* Effect.exit(Deferred.await(reply))
      const replies = waiting.get(id)
      if (replies === undefined) return
      const others = replies.filter((each) => each !== reply)
      if (others.length > 0) {
        waiting.set(id, others)
        return
      }
      waiting.delete(id)
      const record = yield* guarded(handoffs.get(id))
      // What a person asked for is theirs.
      if (record === undefined || isHandoffOver(record.state) || record.cause === "person") return
      yield* FiberMap.remove(running, id)
      yield* cancel(id, "the task that needed it was cancelled")
    }).pipe(
      Effect.catchTag("SessionsUnavailable", ({ message }) =>
        Effect.logWarning(`A hand-off that nobody waits for could not be cancelled: ${message}`)
      )
    )

  const serve = Effect.fnUntraced(function* () {
    const { account, cwd, reply, resetsAt, sessionId, window } = yield* requests.take
    const served = Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const known = yield* guarded(store.get(sessionId))
      if (known === undefined) {
        yield* guarded(
          store.record({
            sessionId,
            account,
            source: "rate_limit_event",
            at: now,
            status: "limited",
            cwd,
            allowedTools: [],
            launchedBy: "dream-team",
            readings: [],
            usage: []
          })
        )
      }
      const session = known ?? (yield* guarded(store.get(sessionId)))
      if (session === undefined) {
        return yield* new SessionHandoffRefused({ message: `the session ${sessionId} is not known` })
      }
      const opened = yield* begin(session, { name: window ?? unknownWindow, resetsAt }, "task", {})
      const [latest] = opened === undefined ? yield* guarded(handoffs.list({ session: sessionId, limit: 1 })) : [opened]
      if (latest === undefined || isHandoffOver(latest.state)) {
        return yield* new SessionHandoffRefused({ message: "it was handed off for this limit before" })
      }
      waiting.set(latest.id, [...(waiting.get(latest.id) ?? []), reply])
      yield* carryOn(latest.id)
      yield* Effect.forkIn(cancelUnheard(latest.id, reply), scope)
    })
    // Whoever asked may have left while it waited to be taken.
    if (yield* Deferred.isDone(reply)) return
    yield* served.pipe(
      Effect.catchTags({
        SessionsUnavailable: ({ message }) => Deferred.fail(reply, new SessionHandoffRefused({ message })),
        SessionHandoffRefused: (refused) => Deferred.fail(reply, refused)
      }),
      Effect.catchAllCause((cause) =>
        Effect.zipRight(
          Effect.logError("A hand-off of a task broke", cause),
          Deferred.fail(reply, new SessionHandoffRefused({ message: "it broke; the log says how" }))
        )
      )
    )
  })

  // The way back

  const probes = yield* FiberMap.make<string>()

  const comeBack = Effect.fnUntraced(function* (account: string, session: SessionId) {
    if (!(yield* guarded(handoffs.returned(account)))) return
    away.delete(account)
    const why = "every exhausted window has reset, and a probe turn passed"
    yield* Effect.logInfo(`New work goes to Claude again: ${why}`)
    yield* announce(session, { type: "claude.back", why })
    for (const { account: whose, id } of yield* guarded(store.list({ status: "limited", limit: maxSessions }))) {
      if (whose === account) yield* guarded(store.setStatus(id, "active"))
    }
    if (account === platformAccount) {
      yield* Effect.ignore(resources.patch(claudePlatform, { exhausted: null }, localTenant))
    }
  })

  /** One turn of the account itself. Where a limit refuses it, that is a reading like any other. */
  const probe = Effect.fn("CCRWatcher.probe")(function* (account: string, session: SessionId) {
    const cwd = `${folder}/probe`
    yield* files.makeDirectory(cwd, { recursive: true, mode: 0o700 })
    const sessionId = SessionId.make(yield* randomUuid)
    yield* claude
      .run({
        prompt: "Answer with the one word ready.",
        cwd,
        sessionId,
        configDir: account,
        permissionMode: "plan",
        maxTurns: 1,
        timeoutMs: probeMs
      })
      .pipe(
        Stream.runForEach((event) =>
          event._tag === "LimitReported"
            ? Effect.flatMap(Clock.currentTimeMillis, (at) => {
                const report = reportOfRateLimitEvent(event.event, { account, at })
                return report === undefined
                  ? Effect.void
                  : Effect.ignore(guarded(store.record({ ...report, source: "probe", launchedBy: "dream-team" })))
              })
            : Effect.void
        )
      )
    yield* comeBack(account, session)
  })

  const wayBack = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const absent = yield* guarded(handoffs.away)
    away.clear()
    for (const { account, resetsAt, sessionId, since } of absent) {
      away.add(account)
      const until = resetsAt ?? since + shortestWindowMs
      if (account === platformAccount) {
        yield* resources.setExhausted(claudePlatform, {
          window: "claude-account",
          until: Math.max(until, now + awayMs),
          why: "its account reached a limit, and is not known to be back"
        })
      }
      const isReset = until <= now && !reaches(highest(statesOf(account).map(({ level }) => level)), trigger)
      if (!isReset || (yield* FiberMap.has(probes, account))) continue
      if (!(yield* guarded(handoffs.claimProbe(account, probeAgainMs)))) continue
      yield* FiberMap.run(
        probes,
        account,
        probe(account, sessionId).pipe(
          Effect.catchAll((failure) => Effect.logInfo(`Claude is not back yet: ${failure.message}`)),
          Effect.catchAllCause((cause) =>
            Cause.isInterruptedOnly(cause) ? Effect.void : Effect.logError("The probe of Claude broke", cause)
          )
        )
      )
    }
  })

  let prunedAt = Number.NEGATIVE_INFINITY
  const prune = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    if (now - prunedAt < pruneEveryMs) return
    prunedAt = now
    for (const { id, transcriptHash, transcriptPath } of yield* guarded(handoffs.prune(now - keptMs))) {
      yield* Effect.ignore(files.remove(work.folderOf(id), { recursive: true, force: true }))
      if (transcriptPath === undefined || transcriptHash === undefined) continue
      if (!(yield* guarded(handoffs.keeps(transcriptHash)))) {
        yield* Effect.ignore(files.remove(transcriptPath, { force: true }))
      }
    }
  })

  // The fiber

  let isTold = false
  /** One look at everything; answers how long to wait for the next, ms. What fails is tried again with the next. */
  const lookOnce: Effect.Effect<number> = Effect.gen(function* () {
    yield* guarded(store.drainSpool)
    yield* lookAtLevels
    yield* beginAll
    yield* carryOnAll
    yield* wayBack
    yield* prune
    isTold = false
  }).pipe(
    Effect.catchTag("SessionsUnavailable", ({ message }) => {
      const entry = isTold ? Effect.logDebug(message) : Effect.logWarning(message)
      isTold = true
      return entry
    }),
    Effect.withSpan("CCRWatcher.look"),
    Effect.zipRight(Clock.currentTimeMillis),
    Effect.map((now) =>
      pauseMs(
        [...accounts.values()].flatMap((states) => [...states.values()]),
        pollMs,
        now
      )
    )
  )

  const schedule = Schedule.identity<number>().pipe(
    Schedule.addDelay((ms) => Duration.millis(ms)),
    Schedule.jittered
  )
  yield* supervised(
    "The watcher of Claude Code sessions broke and is started anew",
    Effect.repeat(lookOnce, schedule),
    pollMs
  )
  yield* supervised("What serves the hand-offs of tasks broke and is started anew", Effect.forever(serve()), pollMs)

  // What is asked

  const viewOf = (session: SessionRecord, last: HandoffRecord | undefined) =>
    Effect.map(work.notQuiet(session, undefined), (unquiet) =>
      sessionView(session, policyOf(session), Option.getOrUndefined(unquiet)?.why, last)
    )

  const known = (id: SessionId) =>
    Effect.flatMap(guarded(store.get(id)), (session) =>
      session === undefined
        ? Effect.fail(new NoSuchSession({ message: `No session ${id} was heard of` }))
        : Effect.succeed(session)
    )

  return {
    accounts: Effect.map(guarded(store.limits), (limits) =>
      limits.map(({ account }) => accountView(account, statesOf(account), away.has(account)))
    ),
    sessions: Effect.fn("CCRWatcher.sessions")(function* (options) {
      const sessions = yield* guarded(store.list(options))
      const latest = yield* guarded(handoffs.latest(sessions.map(({ id }) => id)))
      return yield* Effect.forEach(sessions, (session) => viewOf(session, latest.get(session.id)))
    }),
    session: Effect.fn("CCRWatcher.session")(function* (id) {
      const session = yield* known(id)
      const [last] = yield* guarded(handoffs.list({ session: id, limit: 1 }))
      return yield* viewOf(session, last)
    }),
    handoffs: (options) => Effect.map(guarded(handoffs.list(options)), (records) => records.map(handoffView)),
    handOff: Effect.fn("CCRWatcher.handOff")(function* (id, wish) {
      const session = yield* known(id)
      if (wish.to !== undefined && !settings.platforms.some((platform) => platform.id === wish.to)) {
        return yield* new HandoffRefused({
          message: `There is no platform ${wish.to}, only ${settings.platforms.map((platform) => platform.id).join(", ")}`
        })
      }
      const now = yield* Clock.currentTimeMillis
      const [last] = yield* guarded(handoffs.list({ session: id, limit: 1 }))
      if (last !== undefined && !isHandoffOver(last.state)) {
        if (last.state === "running") {
          return yield* new HandoffRefused({ message: `Its hand-off ${last.id} is running already` })
        }
        yield* guarded(handoffs.wake(last.id, { mode: modeOf(session, wish), to: wish.to }))
        yield* carryOn(last.id)
        return handoffView((yield* guarded(handoffs.get(last.id))) ?? last)
      }
      const opened = yield* begin(session, { name: manual, resetsAt: now }, "person", wish)
      if (opened === undefined) {
        return yield* new HandoffRefused({ message: "It is being handed off at this moment; ask again" })
      }
      yield* carryOn(opened.id)
      return handoffView(opened)
    })
  } satisfies CCRWatcher["Type"]
})
