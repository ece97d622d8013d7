import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as OpenApi from "@effect/platform/OpenApi"
import { Schema } from "effect"
import { Authorization } from "../Domain/Access.js"
import { ErrorBody } from "../Domain/ApiError.js"
import { PlatformView } from "../Domain/Lease.js"
import { PlatformId } from "../Domain/Platform.js"

/** The path of an endpoint about one platform. */
export const PlatformPath = Schema.Struct({
  id: Schema.propertySignature(PlatformId).annotations({ description: "The platform's id, as in the settings." })
})

export const PlatformList = Schema.Struct({
  platforms: Schema.Array(PlatformView).annotations({ description: "In the order of the settings." })
}).annotations({ identifier: "PlatformList" })
export type PlatformList = typeof PlatformList.Type

const list = HttpApiEndpoint.get("list", "/v1/platforms")
  .addSuccess(PlatformList)
  .annotateContext(
    OpenApi.annotations({
      summary: "List the platforms",
      description:
        "Each configured platform and the models it was used with: whether it can be used, why not, its breaker, and what " +
        "was measured of it: latency and errors over the latest attempts."
    })
  )

const get = HttpApiEndpoint.get("get", "/v1/platforms/:id")
  .setPath(PlatformPath)
  .addSuccess(PlatformView)
  .addError(ErrorBody.NotFound)
  .annotateContext(OpenApi.annotations({ summary: "Show a platform", description: "The same of one platform." }))

const check = HttpApiEndpoint.post("check", "/v1/platforms/:id/check")
  .setPath(PlatformPath)
  .addSuccess(PlatformView)
  .addError(ErrorBody.NotFound)
  .annotateContext(
    OpenApi.annotations({
      summary: "Check a platform now",
      description:
        "Asks the platform whether it answers, whatever the schedule, and shows it as it then stands. No tokens are used."
    })
  )

/** Platforms over HTTP. */
export class PlatformsGroup extends HttpApiGroup.make("platforms")
  .add(list)
  .add(get)
  .add(check)
  .addError(ErrorBody.InvalidRequest)
  .middleware(Authorization)
  .annotateContext(OpenApi.annotations({ title: "Platforms", description: "The team, and how each of it is." })) {}
