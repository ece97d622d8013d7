import * as HttpApiMiddleware from "@effect/platform/HttpApiMiddleware"
import * as HttpApiSecurity from "@effect/platform/HttpApiSecurity"
import * as OpenApi from "@effect/platform/OpenApi"
import { Context } from "effect"
import { ErrorBody } from "./ApiError.js"
import { TenantId } from "./Task.js"

/** The tenant of every request where the service runs without API keys. */
export const localTenant: TenantId = TenantId.make("local")

/** Whose request is being answered: the name of its API key, or `local`. */
export class CurrentTenant extends Context.Tag("dream-team/CurrentTenant")<CurrentTenant, TenantId>() {}

/** The door of an endpoint: knows the API key and who it belongs to. */
export class Authorization extends HttpApiMiddleware.Tag<Authorization>()("dream-team/Authorization", {
  failure: ErrorBody.Unauthorized,
  provides: CurrentTenant,
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
