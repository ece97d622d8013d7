import * as HttpApiMiddleware from "@effect/platform/HttpApiMiddleware"
import * as HttpApiSecurity from "@effect/platform/HttpApiSecurity"
import * as OpenApi from "@effect/platform/OpenApi"
import { Context } from "effect"
import { ErrorBody } from "./ApiError.js"
import { TenantId } from "./Task.js"

/** The tenant of every request where the service runs without API keys. */
export const localTenant: TenantId = TenantId.make("local")

/** Stands at an endpoint that answers anybody. Every other one asks for a key, so that none is open by an oversight. */
export class Open extends Context.Tag("dream-team/Open")<Open, true>() {}

/** Tells clients that an endpoint needs a key, and how it is sent; `Http/Authorization.ts` asks for it. */
export class Authorization extends HttpApiMiddleware.Tag<Authorization>()("dream-team/Authorization", {
  failure: ErrorBody.Unauthorized,
  security: {
    bearer: HttpApiSecurity.bearer.pipe(
      HttpApiSecurity.annotate(
        OpenApi.Description,
        "An API key of the service's, as `Authorization: Bearer <key>`. Without configured keys none is needed."
      )
    ),
    apiKey: HttpApiSecurity.apiKey({ in: "header", key: "x-api-key" }).pipe(
      HttpApiSecurity.annotate(OpenApi.Description, "The same key in a header of its own.")
    )
  }
}) {}
