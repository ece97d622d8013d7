import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as OpenApi from "@effect/platform/OpenApi"
import { Schema } from "effect"
import { Authorization } from "../Domain/Access.js"
import { ErrorBody } from "../Domain/ApiError.js"
import { PlatformEvent } from "../Domain/Event.js"
import { PlatformPatch, PlatformResources, ResourcesView } from "../Domain/Lease.js"
import { EventNumber, PageSize, strict } from "../Http/Parameters.js"
import { PlatformPath } from "../PlatformDetector/Api.js"

/** A change as it comes in: a field that is not known is a mistake. */
export const PatchBody = PlatformPatch.annotations({
  identifier: "PlatformPatch",
  parseOptions: { onExcessProperty: "error" }
})

const HistoryParams = Schema.Struct({
  limit: Schema.optional(PageSize).annotations({ description: "Events in one page. Default 50." }),
  before: Schema.optional(EventNumber).annotations({
    description: "Only events before this one: `next` of the page before."
  })
}).annotations(strict)

export const PlatformHistory = Schema.Struct({
  events: Schema.Array(PlatformEvent).annotations({ description: "The latest first." }),
  next: Schema.optional(
    Schema.Int.annotations({ description: "`before` of the next page; absent where nothing older is kept." })
  )
}).annotations({ identifier: "PlatformHistory" })
export type PlatformHistory = typeof PlatformHistory.Type

const show = HttpApiEndpoint.get("show", "/v1/resources")
  .addSuccess(ResourcesView)
  .annotateContext(
    OpenApi.annotations({
      summary: "Show limits and queues",
      description:
        "Every limit, permit and breaker as it stands now, how far each was used of late, the calls that wait, by " +
        "priority, and what the service may hold in memory."
    })
  )

const history = HttpApiEndpoint.get("history", "/v1/platforms/:id/history")
  .setPath(PlatformPath)
  .setUrlParams(HistoryParams)
  .addSuccess(PlatformHistory)
  .addError(ErrorBody.NotFound)
  .annotateContext(
    OpenApi.annotations({
      summary: "Show what happened to a platform",
      description:
        "Its changes of status, its breakers' transitions, quotas used up and reset, limits learned, and changes and " +
        "drains by hand: when, from what to what, why, and by which attempt or tenant. The latest first, a page at a time; the latest 1,000 are kept."
    })
  )

const patch = HttpApiEndpoint.patch("patch", "/v1/platforms/:id")
  .setPath(PlatformPath)
  .setPayload(PatchBody)
  .addSuccess(PlatformResources)
  .addError(ErrorBody.NotFound)
  .addError(ErrorBody.PayloadTooLarge)
  .addError(ErrorBody.UnsupportedMediaType)
  .addError(ErrorBody.Overloaded)
  .annotateContext(
    OpenApi.annotations({
      summary: "Change a platform's limits, drain or resume it",
      description:
        "Holds at once, for what waits as for what comes, and over restarts; the change is part of the platform's " +
        "history. What is left out stays as it is. A drained platform gets no new attempts, whatever its health; running " +
        "ones end in peace. Answers the platform's limits as they then stand."
    })
  )

/** Limits, permits, breakers and queues over HTTP. */
export class ResourcesGroup extends HttpApiGroup.make("resources")
  .add(show)
  .add(history)
  .add(patch)
  .addError(ErrorBody.InvalidRequest)
  .middleware(Authorization)
  .annotateContext(
    OpenApi.annotations({ title: "Resources", description: "What may go now, what is used up, and what waits." })
  ) {}
