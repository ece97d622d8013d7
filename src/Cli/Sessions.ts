import { spawn } from "node:child_process"
import { basename } from "node:path"
import { Clock, Console, Effect, Option } from "effect"
import { SessionList } from "../CCRWatcher/Api.js"
import type { Client } from "../Client.js"
import { type HandoffView, type SessionId, type SessionStatus, SessionView } from "../Domain/Session.js"
import { printAs, type ServiceOptions, withService } from "./Connection.js"
import { CommandFailed } from "./Exit.js"
import { platformId, sessionId } from "./Ids.js"
import { handoffWords, sessionTable } from "./SessionWords.js"

export interface ListOptions extends ServiceOptions {
  readonly status: Option.Option<SessionStatus>
  readonly limit: number
}

/** Prints the sessions, and how near their limits are. */
export const list = ({ json, limit, status, url }: ListOptions) =>
  withService(url, (client) =>
    Effect.gen(function* () {
      const found = yield* client.sessions.list({ urlParams: { status: Option.getOrUndefined(status), limit } })
      if (json) return yield* printAs(SessionList, found)
      yield* Console.log(sessionTable(found, yield* Clock.currentTimeMillis))
    })
  )

/** How long a hand-off is followed before the command says where it is and ends, ms. */
const followedMs = 90_000
const lookEveryMs = 500

/** Whether there is something to tell of a hand-off: it is over, or waits for somebody or something. */
const isSettled = ({ launcher, nextAt, state, why }: HandoffView): boolean => {
  switch (state) {
    case "keeping":
      return false
    case "choosing":
      return nextAt !== undefined && why !== undefined
    case "ready":
      return launcher !== undefined || (nextAt !== undefined && why !== undefined)
    default:
      return true
  }
}

/** Asks for a hand-off and follows it until there is something to tell. */
const asked = (client: Client, id: SessionId, wish: Parameters<Client["sessions"]["handoff"]>[0]["payload"]) =>
  Effect.gen(function* () {
    const first = yield* client.sessions.handoff({ path: { id }, payload: wish })
    const look = client.sessions.get({ path: { id } })
    const followed = Effect.gen(function* () {
      while (true) {
        const session = yield* look
        const { lastHandoff } = session
        if (lastHandoff?.id === first.id && isSettled(lastHandoff)) return session
        yield* Effect.sleep(lookEveryMs)
      }
    })
    const settled = yield* Effect.timeoutOption(followed, followedMs)
    return Option.isSome(settled) ? settled.value : yield* look
  })

export interface HandoffOptions extends ServiceOptions {
  readonly id: string
  readonly to: Option.Option<string>
  readonly launcher: boolean
}

/** Hands a session off, and says what became of it. */
export const handoff = ({ id, json, launcher, to, url }: HandoffOptions) =>
  withService(url, (client) =>
    Effect.gen(function* () {
      const platform = yield* Effect.transposeOption(Option.map(to, platformId))
      const session = yield* asked(client, yield* sessionId(id), {
        to: Option.getOrUndefined(platform),
        ...(launcher ? { launcher } : {})
      })
      if (json) return yield* printAs(SessionView, session)
      yield* Console.log(handoffWords(session, yield* Clock.currentTimeMillis))
      if (session.lastHandoff?.state === "failed") {
        return yield* new CommandFailed({ message: session.lastHandoff.why ?? "The hand-off failed." })
      }
    })
  )

/** Runs a program in this one's place, as far as one process can for another; answers its exit code. */
const inPlace = (file: string): Effect.Effect<number, CommandFailed> =>
  Effect.async<number, CommandFailed>((resume) => {
    const child = spawn(file, [], { stdio: "inherit" })
    child.once("error", (error) =>
      resume(new CommandFailed({ message: `The launcher cannot be started: ${error.message}` }))
    )
    child.once("exit", (code) => resume(Effect.succeed(code ?? 1)))
  }).pipe(
    // A key that interrupts is for the program at the terminal, which gets it as well.
    Effect.uninterruptible
  )

/** Continues a session on another platform, in this terminal; with `json` it says what would be started, and starts nothing. */
export const resume = ({ id, json, url }: ServiceOptions & { readonly id: string }) =>
  Effect.gen(function* () {
    const known = yield* sessionId(id)
    const file = yield* withService(url, (client) =>
      Effect.gen(function* () {
        const before = yield* client.sessions.get({ path: { id: known } })
        const { busy, cwd, lastHandoff } = before
        if (busy !== undefined) {
          return yield* new CommandFailed({
            message: `Nothing may be started on this session: ${busy}. Close it there, wait half a minute, and try again.`
          })
        }
        if (lastHandoff?.state === "succeeded" && lastHandoff.newSessionId !== undefined) {
          return yield* new CommandFailed({
            message: `It goes on in another session already: claude --resume ${lastHandoff.newSessionId}${cwd === undefined ? "" : ` (in ${basename(cwd)})`}, or 'dream-team sessions resume ${lastHandoff.newSessionId}'.`
          })
        }
        const session = yield* asked(client, known, { launcher: true })
        const launcher = session.lastHandoff?.launcher
        if (launcher === undefined) {
          return yield* new CommandFailed({ message: handoffWords(session, yield* Clock.currentTimeMillis) })
        }
        if (json) yield* printAs(SessionView, session)
        return launcher
      })
    )
    if (json) return
    const code = yield* inPlace(file)
    if (code !== 0) return yield* new CommandFailed({ message: `Claude Code ended with ${code}.` })
  })
