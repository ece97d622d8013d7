import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as OpenApi from "@effect/platform/OpenApi"
import { Schema } from "effect"
import { Authorization, Open } from "../Domain/Access.js"
import { ErrorBody, ReadinessCheck } from "../Domain/ApiError.js"

export const Liveness = Schema.Struct({ status: Schema.Literal("live") }).annotations({ identifier: "Liveness" })
export type Liveness = typeof Liveness.Type

export const Readiness = Schema.Struct({
  status: Schema.Literal("ready"),
  checks: Schema.Array(ReadinessCheck)
}).annotations({ identifier: "Readiness" })
export type Readiness = typeof Readiness.Type

const live = HttpApiEndpoint.get("live", "/health/live")
  .addSuccess(Liveness)
  .annotate(Open, true)
  .annotateContext(
    OpenApi.annotations({
      summary: "Is the process alive?",
      description: "Answers as long as the process does. Needs no API key."
    })
  )

const ready = HttpApiEndpoint.get("ready", "/health/ready")
  .addSuccess(Readiness)
  .addError(ErrorBody.NotReady)
  .middleware(Authorization)
  .annotateContext(
    OpenApi.annotations({
      summary: "Should it get traffic?",
      description:
        "503 while it shuts down, or its database does not answer or refuses writes. The state of the platforms is shown, but tasks wait for them."
    })
  )

/** Health over HTTP. */
export class HealthGroup extends HttpApiGroup.make("health")
  .add(live)
  .add(ready)
  .annotateContext(OpenApi.annotations({ title: "Health", description: "For supervisors and load balancers." })) {}
