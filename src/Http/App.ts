import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import type * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { Context, Effect, Exit, Scope, type Tracer } from "effect"
import * as FindMyWay from "find-my-way-ts"
import { localTenant } from "../Domain/Access.js"
import { type ApiError, Unauthorized } from "../Domain/ApiError.js"
import type { TenantId } from "../Domain/Task.js"
import { ResourceManager } from "../ResourceManager.js"
import { Settings } from "../Settings.js"
import * as Authorization from "./Authorization.js"
import { readJson } from "./Body.js"
import * as Doors from "./Doors.js"
import type { Located, Served } from "./Endpoints.js"
import * as Errors from "./Errors.js"
import type { Shutdown } from "./Shutdown.js"

type Request = HttpServerRequest.HttpServerRequest
type Response = HttpServerResponse.HttpServerResponse

const noBody = Effect.dieMessage("This endpoint takes no body")

/**
 * What is served as one app that answers everything itself, errors included. A request is admitted and its endpoint found
 * in plain code; the interpreter sees it once its handler has something to do.
 */
export const make = (
  served: ReadonlyArray<Served>
): Effect.Effect<HttpApp.Default<never, Scope.Scope>, never, ResourceManager | Settings | Shutdown> =>
  Effect.gen(function* () {
    const { maxBodyBytes } = yield* Settings
    const resources = yield* ResourceManager
    const doors = yield* Doors.make
    const tenantOf = yield* Authorization.make

    const router = FindMyWay.make<Served>()
    for (const endpoint of served) router.on(endpoint.method, endpoint.path, endpoint)
    const find = ({ method, url }: Request) =>
      router.find(method, url) ?? (method === "HEAD" ? router.find("GET", url) : undefined)

    /** What a body takes up is held from before its first byte is read until its request is answered. */
    const answerWithBody = ({ answer }: Served, located: Located) =>
      Effect.flatMap(Scope.make(), (held) =>
        Effect.onExit(
          Effect.interruptible(
            answer({
              ...located,
              body: readJson(located.request, maxBodyBytes, (bytes) => Scope.extend(resources.holdBytes(bytes), held))
            })
          ),
          (exit) => Scope.close(held, exit)
        )
      )

    const answer = (
      request: Request,
      span: Tracer.AnySpan | undefined
    ): Effect.Effect<Response, ApiError, HttpServerRequest.HttpServerRequest | Scope.Scope> => {
      const refusal = doors.refuse(request)
      if (refusal !== undefined) return Exit.succeed(Errors.toResponse(refusal, request))
      const found = find(request)
      if (found === undefined) return Exit.succeed(Errors.toResponse(Errors.notRouted(request), request))
      const { handler: endpoint, params, searchParams } = found
      if (span?._tag === "Span") span.attribute("http.route", endpoint.path)
      const tenant: TenantId | Unauthorized = endpoint.needsKey ? tenantOf(request.headers) : localTenant
      if (tenant instanceof Unauthorized) return Exit.succeed(Errors.toResponse(tenant, request))
      const located = { request, tenant, body: noBody, path: params, urlParams: searchParams }
      return endpoint.takesBody ? answerWithBody(endpoint, located) : Effect.interruptible(endpoint.answer(located))
    }

    return Effect.withFiberRuntime((fiber) => {
      const request = Context.unsafeGet(fiber.currentContext, HttpServerRequest.HttpServerRequest)
      return Effect.matchCauseEffect(
        Effect.suspend(() => answer(request, fiber.currentSpan)),
        {
          onFailure: (cause) =>
            Effect.map(Errors.answerCause(cause, request), (response) => doors.finish(response, request)),
          onSuccess: (response) => Exit.succeed(doors.finish(response, request))
        }
      )
    })
  })
