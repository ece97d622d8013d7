import type { SqlError } from "@effect/sql/SqlError"
import { Effect, Stream } from "effect"
import { ServiceUnavailable } from "../Domain/ApiError.js"
import { Events } from "../Events.js"
import * as Endpoints from "../Http/Endpoints.js"
import { eventStream } from "../Http/EventStream.js"
import { EventsGroup } from "./Api.js"

const unavailable = (error: SqlError) =>
  Effect.zipRight(
    Effect.logError("The events could not be read", error),
    new ServiceUnavailable({ message: "The task database does not answer" })
  )

/** The endpoint of all events. */
export const endpoints = Endpoints.of(
  EventsGroup,
  Effect.gen(function* () {
    const events = yield* Events

    return {
      follow: ({ headers, tenant, urlParams: { after, type: types, ...filter } }) =>
        Effect.gen(function* () {
          const resumed = headers["last-event-id"] ?? after
          // Known before the answer begins: what the client does once it has it is new to the client.
          const from = resumed ?? (yield* Effect.catchAll(events.newest, unavailable))
          const followed = yield* events
            .follow({ ...filter, tenant, types }, from)
            .pipe(Effect.catchTag("SqlError", unavailable))
          return yield* eventStream(Stream.catchAll(followed, unavailable), from)
        })
    }
  })
)
