import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as OpenApi from "@effect/platform/OpenApi"
import { Effect } from "effect"
import { Api } from "../Api.js"
import type { Served } from "./Endpoints.js"
import { jsonResponse } from "./Json.js"
import { docsPath, openApiPath } from "./Routes.js"

/** Everything the page needs is in it: it loads nothing from anywhere. */
const contentSecurityPolicy =
  "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; font-src data:; " +
  "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/** The page's script is 2 MB of source, so it is loaded when somebody first looks at it. */
const page = Effect.gen(function* () {
  const [{ layerHttpLayerRouter }, { toHttpEffect }] = yield* Effect.promise(() =>
    Promise.all([import("@effect/platform/HttpApiSwagger"), import("@effect/platform/HttpLayerRouter")])
  )
  return yield* Effect.scoped(toHttpEffect(layerHttpLayerRouter({ api: Api, path: docsPath })))
})

const open = { method: "GET", needsKey: false, takesBody: false } as const

/** `/openapi.json`, and `/docs` to read it with. */
export const served: Effect.Effect<ReadonlyArray<Served>> = Effect.gen(function* () {
  const specification = jsonResponse(OpenApi.fromApi(Api))
  let loaded: Effect.Effect.Success<typeof page> | undefined
  // `Effect.cached` would keep for everybody that the first one who asked was interrupted.
  const keptPage = Effect.suspend(() =>
    loaded === undefined
      ? Effect.tap(page, (app) => {
          loaded = app
        })
      : Effect.succeed(loaded)
  )
  return [
    { ...open, path: openApiPath, answer: () => Effect.succeed(specification) },
    {
      ...open,
      path: docsPath,
      answer: () =>
        Effect.flatten(keptPage).pipe(
          Effect.orDie,
          Effect.map(HttpServerResponse.setHeader("content-security-policy", contentSecurityPolicy))
        )
    }
  ]
})
