import * as HttpApi from "@effect/platform/HttpApi"
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as OpenApi from "@effect/platform/OpenApi"
import { Effect, Layer } from "effect"
import { Api } from "../Api.js"
import { docsPath, openApiPath } from "./Routes.js"

/** Everything the page needs is in it: it loads nothing from anywhere. */
const contentSecurityPolicy =
  "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; font-src data:; " +
  "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/** The page's script is 2 MB of source, so it is loaded when somebody first looks at it. */
const page = Effect.gen(function* () {
  const { layer } = yield* Effect.promise(() => import("@effect/platform/HttpApiSwagger"))
  const router = layer({ path: docsPath }).pipe(
    Layer.provide(Layer.succeed(HttpApi.Api, yield* HttpApi.Api)),
    Layer.provideMerge(HttpApiBuilder.Router.Live)
  )
  return yield* HttpApiBuilder.Router.router.pipe(Effect.flatMap(HttpRouter.toHttpApp), Effect.provide(router))
})

/** `/openapi.json`, and `/docs` to read it with. */
export const layer: Layer.Layer<never, never, HttpApi.Api> = HttpApiBuilder.Router.use((router) =>
  Effect.gen(function* () {
    const specification = HttpServerResponse.unsafeJson(OpenApi.fromApi(Api))
    const cachedPage = yield* Effect.cached(Effect.provideService(page, HttpApi.Api, yield* HttpApi.Api))
    yield* router.get(openApiPath, Effect.succeed(specification))
    yield* router.get(
      docsPath,
      Effect.flatten(cachedPage).pipe(
        Effect.map(HttpServerResponse.setHeader("content-security-policy", contentSecurityPolicy))
      )
    )
  })
)
