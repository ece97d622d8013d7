import { Context, Deferred, Effect, Layer, Queue, Schema } from "effect"
import type { LimitWindow, SessionId } from "../Domain/Session.js"

/** Nobody carries the session on; `message` says why. */
export class SessionHandoffRefused extends Schema.TaggedError<SessionHandoffRefused>()("SessionHandoffRefused", {
  message: Schema.String
}) {}

/** How the turn that a limit refused went on elsewhere. */
export interface SessionContinued {
  /** The answer to the refused turn. */
  readonly text: string
  /** The session it goes on in: another one where it was forked. */
  readonly sessionId: SessionId
  /** Platform and model that answered, as `codex/gpt-6-sol`, where that is known. */
  readonly answeredBy?: string | undefined
}

/** A session of a task whose turn was refused by a limit. */
export interface SessionHandoffNeed {
  readonly sessionId: SessionId
  /** The account: the folder of its configuration. */
  readonly account: string
  readonly cwd: string
  readonly window?: LimitWindow | undefined
  /** Epoch ms. */
  readonly resetsAt?: number | undefined
}

/** Such a need, and where its answer goes. */
export interface SessionHandoffRequest extends SessionHandoffNeed {
  /** Done, with a refusal, also when nobody waits for it any more. */
  readonly reply: Deferred.Deferred<SessionContinued, SessionHandoffRefused>
}

const unheard = new SessionHandoffRefused({ message: "nobody waits for the answer any more" })

/** Needs that wait to be taken; more are refused at once. */
const maxWaiting = 64

/** Between those who run Claude Code sessions and the watcher that hands them off. */
export class SessionHandoffs extends Context.Tag("dream-team/SessionHandoffs")<
  SessionHandoffs,
  {
    /** Asks for a session to be carried on, and waits for its answer. */
    readonly ask: (need: SessionHandoffNeed) => Effect.Effect<SessionContinued, SessionHandoffRefused>
    /** The next one asked for; waits for it. For the one who serves them. */
    readonly take: Effect.Effect<SessionHandoffRequest>
  }
>() {
  static readonly layer: Layer.Layer<SessionHandoffs> = Layer.scoped(
    SessionHandoffs,
    Effect.gen(function* () {
      const waiting = yield* Effect.acquireRelease(Queue.dropping<SessionHandoffRequest>(maxWaiting), Queue.shutdown)
      return {
        ask: Effect.fn("SessionHandoffs.ask")(function* (need) {
          const reply = yield* Deferred.make<SessionContinued, SessionHandoffRefused>()
          if (!(yield* Queue.offer(waiting, { ...need, reply }))) {
            return yield* new SessionHandoffRefused({ message: `${maxWaiting} sessions wait to be handed off already` })
          }
          return yield* Deferred.await(reply).pipe(Effect.onInterrupt(() => Deferred.fail(reply, unheard)))
        }),
        take: Queue.take(waiting)
      }
    })
  )
}
