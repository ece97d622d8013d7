import type * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import type * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import type * as HttpMethod from "@effect/platform/HttpMethod"
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { Context, Effect, Either, Exit, Option, ParseResult, Schema, type Scope } from "effect"
import { Open } from "../Domain/Access.js"
import type {
  ApiError,
  Forbidden,
  InternalError,
  InvalidRequest,
  Overloaded,
  PayloadTooLarge,
  ServiceUnavailable
} from "../Domain/ApiError.js"
import { invalidRequest } from "../Domain/Problems.js"
import type { TenantId } from "../Domain/Task.js"
import { jsonResponse } from "./Json.js"

type Endpoint = HttpApiEndpoint.HttpApiEndpoint.Any
type AnyEndpoint = HttpApiEndpoint.HttpApiEndpoint.AnyWithProps
type AnyGroup = HttpApiGroup.HttpApiGroup.AnyWithProps

/** Why a body could not be read. */
export type BodyProblem = InvalidRequest | PayloadTooLarge | Overloaded

/** A request that was let in. */
export interface Admitted {
  readonly request: HttpServerRequest.HttpServerRequest
  /** Whose request it is: the name of its API key, or `local`. */
  readonly tenant: TenantId
  /** Reads the body as JSON, as far as there is room for it. */
  readonly body: Effect.Effect<unknown, BodyProblem>
}

/** What an endpoint is asked: its path, headers and parameters are decoded, its body is not. */
export type Asked<E extends Endpoint> = HttpApiEndpoint.HttpApiEndpoint.RequestRaw<E> & Admitted

type Answer<A, E> = Effect.Effect<A, E, HttpServerRequest.HttpServerRequest | Scope.Scope>

/** A function for each endpoint of a group; it answers with a success as it is described, or with the response itself. */
export type Handlers<G extends HttpApiGroup.HttpApiGroup.Any> = {
  readonly [E in HttpApiGroup.HttpApiGroup.Endpoints<G> as HttpApiEndpoint.HttpApiEndpoint.Name<E>]: (
    asked: Asked<E>
  ) => Answer<
    HttpApiEndpoint.HttpApiEndpoint.Success<E> | HttpServerResponse.HttpServerResponse,
    | HttpApiEndpoint.HttpApiEndpoint.Error<E>
    | HttpApiGroup.HttpApiGroup.Error<G>
    | BodyProblem
    | Forbidden
    | InternalError
    | ServiceUnavailable
  >
}

/** A request that was let in, with what its URL says. */
export interface Located extends Admitted {
  readonly path: unknown
  readonly urlParams: unknown
}

/** A path of the server's, with what answers there. */
export interface Served {
  readonly method: HttpMethod.HttpMethod
  readonly path: `/${string}`
  readonly needsKey: boolean
  readonly takesBody: boolean
  readonly answer: (located: Located) => Answer<HttpServerResponse.HttpServerResponse, ApiError>
}

type Decode = (value: unknown) => Either.Either<unknown, ParseResult.ParseIssue>

/** An endpoint that says nothing of a part of the request takes whatever is there, and does not look at it. */
const decoderOf = (schema: Option.Option<Schema.Schema.All>): Decode =>
  Option.match(schema, {
    onNone: () => () => Either.right(undefined),
    onSome: ({ ast }) => ParseResult.decodeUnknownEither(Schema.make<unknown, unknown>(ast))
  })

/**
 * What a handler came to as a response. An endpoint with several successes answers with responses itself: which of them it
 * is meant to be is not looked for.
 */
const responderOf = ({ ast }: Schema.Schema.All): ((success: unknown) => HttpServerResponse.HttpServerResponse) => {
  const encode = ParseResult.encodeUnknownSync(Schema.make<unknown, unknown>(ast))
  const options = { status: HttpApiSchema.getStatusSuccessAST(ast) }
  return (success) => (HttpServerResponse.isServerResponse(success) ? success : jsonResponse(encode(success), options))
}

type AnyHandler = (asked: Asked<AnyEndpoint>) => Answer<unknown, ApiError>

const serve = (endpoint: AnyEndpoint, handler: AnyHandler): Served => {
  const decodePath = decoderOf(endpoint.pathSchema)
  const decodeHeaders = decoderOf(endpoint.headersSchema)
  const decodeParams = decoderOf(endpoint.urlParamsSchema)
  const respond = responderOf(endpoint.successSchema)
  return {
    method: endpoint.method,
    path: endpoint.path,
    needsKey: Option.isNone(Context.getOption(endpoint.annotations, Open)),
    takesBody: Option.isSome(endpoint.payloadSchema),
    // Plain code up to the handler: an interpreted step of each of these would cost more than what it does.
    answer: ({ body, path, request, tenant, urlParams }) => {
      const decodedPath = decodePath(path)
      if (Either.isLeft(decodedPath)) return invalidRequest(decodedPath.left)
      const headers = decodeHeaders(request.headers)
      if (Either.isLeft(headers)) return invalidRequest(headers.left)
      const params = decodeParams(urlParams)
      if (Either.isLeft(params)) return invalidRequest(params.left)
      return Effect.flatMap(
        handler({
          request,
          tenant,
          body,
          path: decodedPath.right,
          headers: headers.right,
          urlParams: params.right
        }),
        (success) => Exit.succeed(respond(success))
      )
    }
  }
}

/** The endpoints of a group with what answers them, made once what they work with is there. */
export function of<const G extends HttpApiGroup.HttpApiGroup.Any, E, R>(
  group: G,
  handlers: Effect.Effect<Handlers<G>, E, R>
): Effect.Effect<ReadonlyArray<Served>, E, R>
export function of<E, R>(
  group: AnyGroup,
  handlers: Effect.Effect<Readonly<Record<string, AnyHandler>>, E, R>
): Effect.Effect<ReadonlyArray<Served>, E, R> {
  return Effect.map(handlers, (byName) =>
    Object.values(group.endpoints).flatMap((endpoint) => {
      const handler = byName[endpoint.name]
      return handler === undefined ? [] : [serve(endpoint, handler)]
    })
  )
}
