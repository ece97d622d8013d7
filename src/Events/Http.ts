import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import type { SqlError } from "@effect/sql/SqlError"
import { Effect, Stream } from "effect"
import { CurrentTenant } from "../Domain/Access.js"
import { ServiceUnavailable } from "../Domain/ApiError.js"
import { Events } from "../Events.js"
import { eventStream } from "../Http/EventStream.js"
import { EventsApi } from "./Api.js"

const unavailable = (error: SqlError) =>
  Effect.zipRight(
    Effect.logError("The events could not be read", error),
    new ServiceUnavailable({ message: "The task database does not answer" })
  )

/** The endpoint of all events. */
export const layer = HttpApiBuilder.group(EventsApi, "events", (handlers) =>
  Effect.gen(function* () {
    const events = yield* Events

    return handlers.handle("follow", ({ headers, urlParams: { after, type, ...filter } }) =>
      Effect.gen(function* () {
        const tenant = yield* CurrentTenant
        const resumed = headers["last-event-id"] ?? after
        // Known before the answer begins: what the client does once it has it is new to the client.
        const from = resumed ?? (yield* Effect.catchAll(events.newest, unavailable))
        const followed = events.follow({ ...filter, tenant, types: type?.split(",") }, from)
        return yield* eventStream(Stream.catchAll(followed, unavailable), from)
      })
    )
  })
)
