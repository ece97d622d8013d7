import * as HttpApi from "@effect/platform/HttpApi"
import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as OpenApi from "@effect/platform/OpenApi"
import { Authorization } from "../Domain/Access.js"
import { ErrorBody } from "../Domain/ApiError.js"
import { ResourcesView } from "../Domain/Lease.js"

const show = HttpApiEndpoint.get("show", "/v1/resources")
  .addSuccess(ResourcesView)
  .annotateContext(
    OpenApi.annotations({
      summary: "Show limits and queues",
      description: "Every limit, permit and breaker as it stands now, and the calls that wait, by priority."
    })
  )

/** Limits, permits, breakers and queues over HTTP. */
export class ResourcesGroup extends HttpApiGroup.make("resources")
  .add(show)
  .addError(ErrorBody.InvalidRequest)
  .middleware(Authorization)
  .annotateContext(
    OpenApi.annotations({ title: "Resources", description: "What may go now, what is used up, and what waits." })
  ) {}

/** The part of the API that this concern implements; the whole API has the same identifier. */
export const ResourcesApi = HttpApi.make("dream-team").add(ResourcesGroup)
