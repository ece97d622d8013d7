import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import { Schema } from "effect"

/** What comes in is taken as it is described: an unknown parameter is a mistake, and all mistakes are told at once. */
export const strict = { parseOptions: { onExcessProperty: "error", errors: "all" } } as const

/** How many entries one page of a list holds: 1 to 200, 50 by default. */
export const PageSize = Schema.NumberFromString.pipe(Schema.int(), Schema.between(1, 200)).annotations({
  jsonSchema: { type: "integer", minimum: 1, maximum: 200, default: 50 }
})

/** The number of an event, from which a reader goes on. */
export const EventNumber = Schema.NumberFromString.pipe(Schema.int(), Schema.nonNegative()).annotations({
  jsonSchema: { type: "integer", minimum: 0 }
})

/** Where a list goes on. */
export const Cursor = Schema.optional(Schema.String.pipe(Schema.minLength(1), Schema.maxLength(500))).annotations({
  description: "`next` of the page before."
})

/** What the `cursor` of the page that follows is. */
export const NextCursor = Schema.optional(
  Schema.String.annotations({ description: "Cursor of the next page; absent on the last one." })
)

/** What a reader of events sends that comes back. */
export const ResumeHeaders = Schema.Struct({
  "last-event-id": Schema.optional(EventNumber).annotations({
    description: "Go on after this event. Wins over `after`."
  })
})

/** Server-sent events, which nothing decodes as a whole. */
export const eventStream = (description: string) =>
  Schema.String.pipe(HttpApiSchema.withEncoding({ kind: "Text", contentType: "text/event-stream" })).annotations({
    description
  })
