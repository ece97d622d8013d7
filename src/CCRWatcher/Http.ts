import { Effect } from "effect"
import { CCRWatcher, type HandoffRefused, type NoSuchSession } from "../CCRWatcher.js"
import { Conflict, NotFound, ServiceUnavailable } from "../Domain/ApiError.js"
import * as Endpoints from "../Http/Endpoints.js"
import { payloadOf } from "../Http/Payload.js"
import type { SessionsUnavailable } from "../SessionStore.js"
import { HandoffWish, SessionsGroup } from "./Api.js"

const defaultPage = 50

const readWish = payloadOf(HandoffWish)

const inWords = {
  SessionsUnavailable: ({ message }: SessionsUnavailable) => new ServiceUnavailable({ message }),
  NoSuchSession: ({ message }: NoSuchSession) => new NotFound({ message }),
  HandoffRefused: ({ message }: HandoffRefused) => new Conflict({ message })
}

/** The endpoints of Claude Code sessions. */
export const endpoints = Endpoints.of(
  SessionsGroup,
  Effect.gen(function* () {
    const watcher = yield* CCRWatcher

    return {
      list: ({ urlParams: { limit = defaultPage, status } }) =>
        Effect.all({ accounts: watcher.accounts, sessions: watcher.sessions({ status, limit }) }).pipe(
          Effect.catchTag("SessionsUnavailable", inWords.SessionsUnavailable)
        ),
      get: ({ path: { id } }) =>
        Effect.catchTags(watcher.session(id), {
          SessionsUnavailable: inWords.SessionsUnavailable,
          NoSuchSession: inWords.NoSuchSession
        }),
      handoff: ({ body, path: { id } }) =>
        Effect.gen(function* () {
          const wish = yield* readWish(body)
          return yield* Effect.catchTags(watcher.handOff(id, wish), inWords)
        }),
      handoffs: ({ urlParams: { limit = defaultPage, session, state } }) =>
        watcher.handoffs({ session, state, limit }).pipe(
          Effect.map((found) => ({ handoffs: found })),
          Effect.catchTag("SessionsUnavailable", inWords.SessionsUnavailable)
        )
    }
  })
)
