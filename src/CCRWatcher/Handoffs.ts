import { dirname } from "node:path"
import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import { Cause, Clock, Effect, Option, Ref, Schedule, Schema, Stream } from "effect"
import { type ClaudeCode, type ClaudeFailure, PermissionMode } from "../ClaudeCode.js"
import { textTokens } from "../Domain/Call.js"
import type { PlatformId } from "../Domain/Platform.js"
import { type HandoffId, type SessionEventBody, SessionId } from "../Domain/Session.js"
import { randomUuid } from "../Domain/Uuid.js"
import type { Conveyance, HandoffChange, HandoffRecord, HandoffStore } from "../SessionStore/Handoffs.js"
import type { SessionRecord, SessionStore, SessionsUnavailable } from "../SessionStore.js"
import { type Conversation, readTranscript, summarize } from "../Transcript.js"
import { type Choice, type Continuer, choose } from "./Choice.js"
import { type Kept, keepContext } from "./Keeping.js"
import { maxPromptBytes, writeLauncher } from "./Launcher.js"
import type { Processes } from "./Processes.js"
import type { ClaudeCodeRouter } from "./Router.js"

/** What hand-offs are made with. */
export interface Means {
  readonly handoffs: HandoffStore["Type"]
  readonly sessions: SessionStore["Type"]
  readonly claude: ClaudeCode["Type"]
  readonly router: ClaudeCodeRouter["Type"]
  readonly processes: Processes["Type"]
  /** Each platform of the settings as it is now. */
  readonly continuers: Effect.Effect<ReadonlyMap<PlatformId, Continuer>>
  /** Who answered the turns of a hand-off, the newest last. */
  readonly answeredBy: (
    id: HandoffId
  ) => Effect.Effect<ReadonlyArray<{ readonly platform: string; readonly model: string }>>
  /** Whether anybody still waits for it, where somebody must. */
  readonly isAwaited: (record: HandoffRecord) => boolean
  readonly announce: (session: SessionId, body: SessionEventBody) => Effect.Effect<void>
  readonly settings: {
    readonly chain: ReadonlyArray<PlatformId>
    readonly quietMs: number
    /** What starts Claude Code. */
    readonly command: string
    /** Where transcripts and launchers are kept. */
    readonly folder: string
  }
  /** This process, among those that watch the same database. */
  readonly owner: string
}

/** How a hand-off is had by its owner, ms: after a crash another one takes it when that is over. */
export const leaseMs = 60_000
const renewMs = leaseMs / 4
/** One headless run, ms. */
const runMs = 60 * 60_000
/** Runs of one hand-off. */
const maxRuns = 4
/** Between two runs of which the first one failed, ms; each one more doubles it. */
const againMs = 30_000
/** A person may have started the launcher, or the window may have reset: how often that is looked at, ms. */
const launcherLookMs = 10_000
const nobodyLookMs = 60_000
const longestLookMs = 10 * 60_000
/** A process that may hold the session is looked at again after this, ms. */
const aliveLookMs = 5_000
/** A transcript that cannot be read is tried again for so long, ms. */
const keepingMs = 10 * 60_000
/** What a summary may take of the window of the platform that gets it. */
const summaryShare = 0.5
const smallestSummary = 2_000
/** A launcher hands its prompt over as one word of a command line; four bytes are a token at least. */
const largestSummary = Math.floor(maxPromptBytes / 4)

/** The work on a hand-off ended because it is another's now, or is over. */
class Lost extends Schema.TaggedError<Lost>()("HandoffLost", { message: Schema.String }) {}

/** What to do next: look at it again at once, or when its time has come, or never. */
type Next = "again" | "later"

const carryOn = (refused: boolean): string =>
  refused
    ? "The usage limit was reached before my last request was answered. You carry on from here: answer it, and go on with the work where it stopped."
    : "You carry on from here. Go on with the work where it stopped; where nothing is left to do, say so in one sentence."

/** What the one who continues is told first. The conversation itself holds a refused request already. */
const promptOf = (
  kept: Kept,
  conveyance: Conveyance,
  window: number
): { readonly text: string; readonly leftOut: ReadonlyArray<string> } => {
  if (conveyance === "whole") {
    return { text: carryOn(kept.context.lastRequest?.refused === true), leftOut: [] }
  }
  const maxTokens = Math.max(smallestSummary, Math.min(largestSummary, Math.floor(window * summaryShare)))
  const { leftOut, text } = summarize(kept.conversation, { maxTokens, git: kept.git })
  return { text, leftOut }
}

/** Tokens in the context: as the provider counted them, else as the feed told, else estimated. */
const contextTokensOf = ({ context, conversation }: Kept, session: SessionRecord | undefined): number =>
  context.contextTokens ??
  session?.contextTokens ??
  textTokens(conversation.turns.flatMap(({ blocks }) => blocks.map((block) => JSON.stringify(block))).join("\n"))

/** The text of the answer a session ends with; none where it was cut, or refused, before one. */
const lastAnswer = ({ limit, openToolUses, turns }: Conversation): string | undefined => {
  const last = turns.at(-1)
  if (limit !== undefined || openToolUses.length > 0 || last?.role !== "assistant") return undefined
  const text = last.blocks.flatMap((block) => (block._tag === "Text" ? block.text : [])).join("\n")
  return text === "" ? undefined : text
}

/** Whether something of the session is left to be done. */
const isUnfinished = ({ context, conversation }: Kept): boolean =>
  context.lastRequest?.refused === true ||
  conversation.limit !== undefined ||
  context.todos.length > 0 ||
  context.openToolUses > 0 ||
  conversation.turns.at(-1)?.role === "user"

/**
 * What a headless run may do: what its session may, and never more. Where a mode is not known, the one that asks is: nobody
 * is there to say yes. A session of a task has no tools, and so has none where it goes on.
 */
const permissionsOf = ({ allowedTools, launchedBy, permissionMode }: SessionRecord) => ({
  permissionMode: Schema.is(PermissionMode)(permissionMode) ? permissionMode : ("default" as const),
  allowedTools,
  tools: launchedBy === "dream-team" && allowedTools?.length === 0 ? [] : undefined
})

/** Where its transcript is: as a feed told it, or as Claude Code names it by the folder the session works in. */
const transcriptOf = ({ account, cwd, id, transcriptPath }: SessionRecord): string | undefined =>
  transcriptPath ??
  (cwd === undefined ? undefined : `${account}/projects/${cwd.replace(/[^A-Za-z0-9]/g, "-")}/${id}.jsonl`)

/** Where the transcript of another session is that works in the same folder. */
const transcriptBeside = (session: SessionRecord, other: SessionId): string | undefined => {
  const own = transcriptOf(session)
  return own === undefined ? undefined : `${dirname(own)}/${other}.jsonl`
}

/** Carries hand-offs on, each step one write that only its owner can make. */
export const makeHandoffs = (means: Means) => {
  const { answeredBy, claude, continuers, handoffs, owner, processes, router, sessions, settings } = means
  const transcripts = `${settings.folder}/transcripts`
  const folderOf = (id: HandoffId): string => `${settings.folder}/handoffs/${id}`

  /** One step, announced where the state is another, nobody can continue, or a person can. */
  const step = Effect.fnUntraced(function* (record: Ref.Ref<HandoffRecord>, change: HandoffChange) {
    const before = yield* Ref.get(record)
    if (!(yield* handoffs.write(before.id, before.epoch, change))) {
      return yield* new Lost({ message: `The hand-off ${before.id} is over, or another process has taken it` })
    }
    const known = (yield* handoffs.get(before.id)) ?? before
    yield* Ref.set(record, known)
    const isNewReason = known.state === "choosing" && known.why !== undefined && known.why !== before.why
    if (
      known.state !== before.state ||
      isNewReason ||
      (known.launcher !== undefined && before.launcher === undefined)
    ) {
      yield* means.announce(known.sessionId, {
        type: "handoff.changed",
        handoff: known.id,
        state: known.state,
        platform: known.chain[0],
        why: known.why
      })
    }
    return known
  })

  const later = (record: Ref.Ref<HandoffRecord>, change: HandoffChange, waitMs: number) =>
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const { cause } = yield* Ref.get(record)
      // Each look is a sign that a task is still served.
      yield* step(record, { ...change, nextAt: now + (cause === "task" ? Math.min(waitMs, leaseMs) : waitMs) })
      return "later" as const
    })

  const end = (record: Ref.Ref<HandoffRecord>, state: "failed" | "cancelled", why: string) =>
    Effect.as(step(record, { state, why, nextAt: null, pid: null }), "later" as const)

  const keep = (session: SessionRecord | undefined) => {
    const path = session === undefined ? undefined : transcriptOf(session)
    return path === undefined ? Effect.succeedNone : Effect.asSome(keepContext(path, session?.cwd, transcripts))
  }

  const keptChange = ({ context, hash, path }: Kept): HandoffChange => ({
    context,
    transcriptHash: hash,
    transcriptPath: path
  })

  /** Gathers what there is, and stores it in the one write that ends this state. */
  const keeping = Effect.fnUntraced(function* (record: Ref.Ref<HandoffRecord>) {
    const { createdAt, sessionId } = yield* Ref.get(record)
    const session = yield* sessions.get(sessionId)
    const kept = yield* Effect.either(keep(session))
    if (kept._tag === "Left") {
      const now = yield* Clock.currentTimeMillis
      return now - createdAt > keepingMs
        ? yield* end(record, "failed", kept.left.message)
        : yield* later(record, { why: kept.left.message }, aliveLookMs)
    }
    if (Option.isNone(kept.right)) {
      return yield* end(record, "failed", "nothing tells where the transcript of this session is")
    }
    yield* step(record, { ...keptChange(kept.right.value), state: "choosing", why: null, nextAt: null })
    return "again" as const
  })

  const choice = (kept: Kept, session: SessionRecord | undefined, to: PlatformId | undefined) =>
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const contextTokens = contextTokensOf(kept, session)
      return choose({ chain: settings.chain, to, contextTokens }, yield* continuers, now)
    })

  /** Reads what was kept. Where the copy is gone it is made anew. */
  const keptOf = Effect.fnUntraced(function* (record: HandoffRecord, session: SessionRecord | undefined) {
    const { context, transcriptHash, transcriptPath } = record
    const anew = Effect.orElseSucceed(keep(session), () => Option.none<Kept>())
    if (context === undefined || transcriptHash === undefined || transcriptPath === undefined) return yield* anew
    const conversation = yield* Effect.option(readTranscript(transcriptPath))
    return Option.isNone(conversation)
      ? yield* anew
      : Option.some<Kept>({
          hash: transcriptHash,
          path: transcriptPath,
          context,
          conversation: conversation.value,
          git: context.git === undefined ? undefined : { ...context.git, commit: context.git.commit }
        })
  })

  const isReset = ({ cause, windowResetsAt }: HandoffRecord, now: number): boolean =>
    cause === "level" && windowResetsAt !== undefined && windowResetsAt <= now

  const chosenChange = (record: HandoffRecord, kept: Kept, chosen: Extract<Choice, { _tag: "Chosen" }>) => {
    // What turned out to be too large as a whole goes as a summary, whatever its provider says of its window.
    const conveyance = record.attempts > 0 && record.conveyance === "summary" ? "summary" : chosen.conveyance
    return {
      chain: chosen.chain,
      conveyance,
      leftOut: promptOf(kept, conveyance, chosen.window).leftOut
    } as const
  }

  const choosing = Effect.fnUntraced(function* (record: Ref.Ref<HandoffRecord>) {
    const current = yield* Ref.get(record)
    const now = yield* Clock.currentTimeMillis
    if (isReset(current, now)) return yield* end(record, "cancelled", "its window has reset before anybody continued")
    const session = yield* sessions.get(current.sessionId)
    const kept = yield* keptOf(current, session)
    if (Option.isNone(kept)) return yield* end(record, "failed", "what was kept of the session is gone")
    const chosen: Choice = yield* choice(kept.value, session, current.to)
    if (chosen._tag === "Nobody") {
      const wait = chosen.earliestAt === undefined ? nobodyLookMs : chosen.earliestAt - now
      return yield* later(record, { why: chosen.why }, Math.min(longestLookMs, Math.max(aliveLookMs, wait)))
    }
    yield* step(record, {
      state: "ready",
      ...chosenChange(current, kept.value, chosen),
      why: chosen.others.length === 0 ? null : chosen.others.join("; "),
      launcher: null,
      nextAt: null
    })
    return "again" as const
  })

  /** Why nothing may be started on the session yet, and when to look again, ms from now. */
  const notQuiet = Effect.fnUntraced(function* (session: SessionRecord, lastAt: number | undefined) {
    if (session.pid !== undefined && session.status !== "ended" && (yield* processes.isAlive(session.pid))) {
      return Option.some({ why: `its Claude Code (process ${session.pid}) is still open`, waitMs: aliveLookMs })
    }
    const now = yield* Clock.currentTimeMillis
    const quietAt = Math.max(session.updatedAt, lastAt ?? 0) + settings.quietMs
    return quietAt > now ? Option.some({ why: "it did something a moment ago", waitMs: quietAt - now }) : Option.none()
  })

  const windowOf = (chain: ReadonlyArray<PlatformId>) =>
    Effect.map(continuers, (known) =>
      Math.min(...chain.map((id) => known.get(id)?.settings.contextWindow ?? Number.MAX_SAFE_INTEGER))
    )

  const modelOf = ({ chain, id }: HandoffRecord): string => router.modelFor(`${chain.join(">")}#${id}`)

  /** The conversation of the session in which it goes on, as far as there is one. */
  const continued = Effect.fnUntraced(function* (session: SessionRecord, id: SessionId) {
    const path = transcriptBeside(session, id)
    const files = yield* FileSystem.FileSystem
    if (path === undefined || !(yield* Effect.orElseSucceed(files.exists(path), () => false))) return Option.none()
    return yield* Effect.option(readTranscript(path))
  })

  /** Who answered it, as this process knows, or else as was stored before it started. */
  const answerer = Effect.fnUntraced(function* (id: HandoffId) {
    const last = (yield* answeredBy(id)).at(-1)
    return last === undefined ? (yield* handoffs.get(id))?.answeredBy : `${last.platform}/${last.model}`
  })

  const succeed = Effect.fnUntraced(function* (
    record: Ref.Ref<HandoffRecord>,
    session: SessionRecord,
    newSessionId: SessionId | undefined,
    answer: string | undefined
  ) {
    const { id } = yield* Ref.get(record)
    const there = newSessionId === undefined ? Option.none<Conversation>() : yield* continued(session, newSessionId)
    yield* step(record, {
      state: "succeeded",
      answer,
      newSessionId,
      carried: Option.getOrUndefined(Option.map(there, ({ counts }) => counts)),
      answeredBy: yield* answerer(id),
      pid: null,
      nextAt: null,
      why: null
    })
    yield* sessions.setStatus(session.id, "handed-off")
    return "later" as const
  })

  /** What becomes of a hand-off whose run gave no answer. */
  const afterFailure = Effect.fnUntraced(function* (record: Ref.Ref<HandoffRecord>, failure: ClaudeFailure) {
    const { attempts, conveyance } = yield* Ref.get(record)
    const why = failure.message
    if (failure._tag === "ClaudeNotInstalled" || attempts >= maxRuns) return yield* end(record, "failed", why)
    if (failure._tag === "ClaudePromptTooLong" && conveyance !== "summary") {
      // In another session: the one that was begun holds the whole conversation.
      yield* step(record, {
        state: "choosing",
        conveyance: "summary",
        newSessionId: null,
        pid: null,
        why,
        nextAt: null
      })
      return "again" as const
    }
    return yield* later(record, { state: "choosing", pid: null, why }, againMs * 2 ** (attempts - 1))
  })

  /** One headless run, from its process to its end. */
  const run = Effect.fnUntraced(function* (
    record: Ref.Ref<HandoffRecord>,
    session: SessionRecord,
    kept: Kept,
    newSessionId: SessionId
  ) {
    const current = yield* Ref.get(record)
    const cwd = session.cwd ?? kept.conversation.cwd
    if (cwd === undefined) return yield* end(record, "failed", "nothing tells in which folder this session works")
    const endpoint = yield* Effect.either(router.endpoint)
    if (endpoint._tag === "Left") {
      return yield* later(record, { state: "ready", pid: null, why: endpoint.left.message }, againMs)
    }
    const begun = yield* continued(session, newSessionId)
    const whole = current.conveyance !== "summary"
    const contextWindow = yield* windowOf(current.chain)
    const prompt = promptOf(kept, whole ? "whole" : "summary", contextWindow)
    const answer = yield* Ref.make(Option.none<string>())
    /** The session it goes on in is one that the service launched, with what its own session may do. */
    const tell = (status: "active" | "ended", pid: number | undefined) =>
      Effect.flatMap(Clock.currentTimeMillis, (at) =>
        sessions.record({
          sessionId: newSessionId,
          account: session.account,
          source: "rate_limit_event",
          at,
          status,
          cwd,
          transcriptPath: transcriptBeside(session, newSessionId),
          pid,
          permissionMode: session.permissionMode,
          allowedTools: session.allowedTools,
          launchedBy: "dream-team",
          readings: [],
          usage: []
        })
      )
    const told = claude
      .run({
        // What was begun and cut is gone on with, so that no step of it is made twice.
        ...(Option.isSome(begun)
          ? { prompt: carryOn(false), resume: newSessionId }
          : whole
            ? { prompt: prompt.text, resume: session.id, fork: true, sessionId: newSessionId }
            : { prompt: prompt.text, sessionId: newSessionId }),
        cwd,
        ...permissionsOf(session),
        model: modelOf(current),
        router: endpoint.right,
        contextWindow,
        configDir: session.account,
        timeoutMs: runMs
      })
      .pipe(
        Stream.runForEach((event) => {
          if (event._tag === "Spawned")
            return Effect.zipRight(step(record, { pid: event.pid }), tell("active", event.pid))
          return event._tag === "Finished"
            ? Effect.zipRight(Ref.set(answer, Option.some(event.text)), tell("ended", undefined))
            : Effect.void
        })
      )
    // A run that we cut ourselves says nothing of whether the next one brings an answer.
    const uncounted = Effect.ignore(
      Effect.flatMap(Ref.get(record), ({ attempts }) => step(record, { attempts: attempts - 1, pid: null }))
    )
    return yield* told.pipe(
      Effect.onInterrupt(() => uncounted),
      Effect.matchEffect({
        onSuccess: () =>
          Effect.flatMap(Ref.get(answer), (text) =>
            succeed(record, session, newSessionId, Option.getOrUndefined(text))
          ),
        onFailure: (failure): Effect.Effect<Next, Lost | SessionsUnavailable> =>
          failure._tag === "HandoffLost" || failure._tag === "SessionsUnavailable"
            ? Effect.fail(failure)
            : afterFailure(record, failure)
      })
    )
  })

  const launch = Effect.fnUntraced(function* (record: Ref.Ref<HandoffRecord>, session: SessionRecord, kept: Kept) {
    const current = yield* Ref.get(record)
    const cwd = session.cwd ?? kept.conversation.cwd
    if (cwd === undefined) return yield* end(record, "failed", "nothing tells in which folder this session works")
    const endpoint = yield* Effect.either(router.endpoint)
    if (endpoint._tag === "Left") return yield* later(record, { why: endpoint.left.message }, againMs)
    const newSessionId = SessionId.make(yield* randomUuid)
    const whole = current.conveyance !== "summary"
    const contextWindow = yield* windowOf(current.chain)
    const prompt = promptOf(kept, whole ? "whole" : "summary", contextWindow)
    const isAsked = !whole || kept.context.lastRequest?.refused === true
    const written = yield* Effect.either(
      writeLauncher(
        {
          id: current.id,
          command: settings.command,
          cwd,
          account: session.account,
          endpoint: endpoint.right,
          model: modelOf(current),
          contextWindow,
          resume: whole ? session.id : undefined,
          newSessionId,
          permissionMode: Schema.is(PermissionMode)(session.permissionMode) ? session.permissionMode : undefined,
          allowedTools: session.allowedTools ?? [],
          prompt: isAsked ? prompt.text : undefined
        },
        folderOf(current.id)
      )
    )
    if (written._tag === "Left") {
      return yield* later(record, { why: `its launcher cannot be written: ${written.left.message}` }, againMs)
    }
    return yield* later(
      record,
      {
        ...keptChange(kept),
        launcher: written.right,
        newSessionId,
        leftOut: prompt.leftOut,
        why: `dream-team sessions resume ${session.id}`
      },
      launcherLookMs
    )
  })

  const ready = Effect.fnUntraced(function* (record: Ref.Ref<HandoffRecord>) {
    const current = yield* Ref.get(record)
    const now = yield* Clock.currentTimeMillis
    if (current.launcher !== undefined && (yield* answerer(current.id)) !== undefined) {
      const session = yield* sessions.get(current.sessionId)
      if (session !== undefined) return yield* succeed(record, session, current.newSessionId, undefined)
    }
    if (isReset(current, now)) {
      return yield* end(record, "cancelled", "its window has reset before anybody continued: go on in Claude itself")
    }
    if (current.launcher !== undefined && current.mode === "launcher") {
      return yield* later(record, {}, launcherLookMs)
    }
    const session = yield* sessions.get(current.sessionId)
    if (session === undefined) return yield* end(record, "failed", "the session is no longer known")
    // As it is now: it may have gone on since the hand-off was begun.
    const again = yield* Effect.either(keep(session))
    if (again._tag === "Left") return yield* later(record, { why: again.left.message }, aliveLookMs)
    if (Option.isNone(again.right)) return yield* end(record, "failed", "its transcript is gone")
    const kept = again.right.value
    if (!kept.context.complete) {
      return yield* later(record, { why: "tool uses and results of its transcript do not add up" }, nobodyLookMs)
    }
    const isDone = current.cause === "level" && session.status === "ended" && !isUnfinished(kept)
    if (isDone && session.launchedBy === "dream-team") {
      return yield* end(record, "cancelled", "it came to its end before its limit did")
    }
    // Whoever has ended their session with everything answered did not mean it to go on without them.
    const mode = isDone ? "launcher" : current.mode
    if (mode === "headless") {
      const unquiet = yield* notQuiet(session, kept.context.lastAt)
      if (Option.isSome(unquiet)) return yield* later(record, { why: unquiet.value.why }, unquiet.value.waitMs)
      if (current.attempts >= maxRuns) return yield* end(record, "failed", `${maxRuns} runs brought no answer`)
    }
    const chosen: Choice = yield* choice(kept, session, current.to)
    if (chosen._tag === "Nobody") {
      yield* step(record, { ...keptChange(kept), state: "choosing", nextAt: null })
      return "again" as const
    }
    const change = { ...keptChange(kept), ...chosenChange(current, kept, chosen) }
    if (mode === "launcher") {
      yield* step(record, { ...change, mode })
      return yield* launch(record, session, kept)
    }
    const newSessionId = current.newSessionId ?? SessionId.make(yield* randomUuid)
    yield* step(record, {
      ...change,
      state: "running",
      newSessionId,
      pid: null,
      attempts: current.attempts + 1,
      nextAt: null,
      why: null
    })
    return yield* run(record, session, kept, newSessionId)
  })

  /** A run whose owner is gone: it may still be at work, have ended, have been cut, or never have begun. */
  const running = Effect.fnUntraced(function* (record: Ref.Ref<HandoffRecord>) {
    const current = yield* Ref.get(record)
    const session = yield* sessions.get(current.sessionId)
    const { newSessionId } = current
    if (session === undefined || newSessionId === undefined) {
      return yield* end(record, "failed", "the session is no longer known")
    }
    const now = yield* Clock.currentTimeMillis
    const found = yield* processes.withArgument(newSessionId)
    const known = current.pid
    // Some versions hide their command line. An id is given to another process sooner or later, so it counts for a while.
    const isOurs = known !== undefined && now - current.updatedAt < runMs && (yield* processes.isAlive(known))
    const pid = found ?? (isOurs ? known : undefined)
    if (pid !== undefined) {
      yield* handoffs.release(current.id, current.epoch)
      yield* Effect.logDebug(`The run of hand-off ${current.id} goes on in process ${pid}`)
      return "later" as const
    }
    const there = yield* continued(session, newSessionId)
    const answer = Option.getOrUndefined(Option.flatMapNullable(there, lastAnswer))
    const isBegun = Option.isSome(there)
    const beforeIt = current.context?.counts.answers ?? 0
    if (
      answer !== undefined &&
      isBegun &&
      there.value.counts.answers > (current.conveyance === "summary" ? 0 : beforeIt)
    ) {
      return yield* succeed(record, session, newSessionId, answer)
    }
    if (!means.isAwaited(current)) return yield* end(record, "cancelled", "the task that needed it is no longer there")
    if (current.attempts >= maxRuns) return yield* end(record, "failed", `${maxRuns} runs brought no answer`)
    const kept = yield* keptOf(current, session)
    if (Option.isNone(kept)) return yield* end(record, "failed", "what was kept of the session is gone")
    yield* step(record, { attempts: current.attempts + 1, pid: null })
    return yield* run(record, session, kept.value, newSessionId)
  })

  const advanceOnce = (record: Ref.Ref<HandoffRecord>) =>
    Effect.flatMap(Ref.get(record), ({ state }) => {
      switch (state) {
        case "keeping":
          return keeping(record)
        case "choosing":
          return choosing(record)
        case "ready":
          return ready(record)
        case "running":
          return running(record)
        default:
          return Effect.succeed<Next>("later")
      }
    })

  /** Goes on with a hand-off as far as it goes now, having taken it; nothing where another has it. */
  const advance: (
    id: HandoffId
  ) => Effect.Effect<
    HandoffRecord | undefined,
    SessionsUnavailable,
    FileSystem.FileSystem | CommandExecutor.CommandExecutor
  > = Effect.fn("CCRWatcher.advance")(
    function* (id: HandoffId) {
      const taken = yield* handoffs.take(id, owner, leaseMs)
      if (taken === undefined) return undefined
      const record = yield* Ref.make(taken)
      const keepLease = handoffs.renew(id, taken.epoch, leaseMs).pipe(
        Effect.flatMap((mine) =>
          mine ? Effect.void : new Lost({ message: `The hand-off ${id} was taken by another process` })
        ),
        Effect.retry({
          while: ({ _tag }) => _tag === "SessionsUnavailable",
          schedule: Schedule.spaced(renewMs / 4),
          times: 4
        }),
        Effect.delay(renewMs),
        Effect.forever
      )
      const work = Effect.gen(function* () {
        while ((yield* advanceOnce(record)) === "again") yield* Effect.yieldNow()
      })
      yield* Effect.raceFirst(work, keepLease).pipe(
        Effect.catchTag("HandoffLost", ({ message }) => Effect.logInfo(message)),
        Effect.ensuring(Effect.ignore(handoffs.release(id, taken.epoch)))
      )
      return yield* handoffs.get(id)
    },
    (effect, id) =>
      Effect.tapErrorCause(effect, (cause) =>
        Cause.isInterruptedOnly(cause) ? Effect.void : Effect.logWarning(`The hand-off ${id} could not go on`, cause)
      )
  )

  return { advance, notQuiet, folderOf }
}
