import type { Either } from "effect"
import type { ErrorKind } from "./Errors.js"
import type { PlatformState } from "./Platform.js"
import type { BadRequest, SimulatedRequest } from "./Request.js"
import { chatWriter, readChat } from "./Wire/Chat.js"
import { geminiWriter, readGemini } from "./Wire/Gemini.js"
import { messagesWriter, readMessages } from "./Wire/Messages.js"
import { readResponses, responsesWriter } from "./Wire/Responses.js"
import type { AnswerWriter } from "./Wire.js"

/** What a request to a platform is for. */
export type Route =
  | {
      readonly _tag: "Call"
      readonly read: (body: unknown) => Either.Either<SimulatedRequest, BadRequest>
      readonly writer: AnswerWriter
    }
  | { readonly _tag: "CountTokens"; readonly model: string }
  | { readonly _tag: "CountMessages" }
  | { readonly _tag: "Models" }
  | { readonly _tag: "Model"; readonly model: string }
  | { readonly _tag: "Quotas" }
  | { readonly _tag: "Error"; readonly kind: ErrorKind }

const wrongMethod: Route = { _tag: "Error", kind: "wrong-method" }
const notFound: Route = { _tag: "Error", kind: "route-not-found" }

/** `path` begins after the platform's prefix. */
export const routeOf = (platform: PlatformState, method: string, path: string, query: URLSearchParams): Route => {
  if (platform.dialect === "synthetic" && path === "/v2/quotas") {
    return method === "GET" ? { _tag: "Quotas" } : wrongMethod
  }
  if (!path.startsWith(`${platform.basePath}/`)) return notFound
  const route = path.slice(platform.basePath.length)
  if (platform.options.wire === "anthropic-messages") return anthropicRoute(method, route)
  if (route === "/models") return method === "GET" ? { _tag: "Models" } : wrongMethod
  if (platform.options.wire === "gemini") return geminiRoute(method, route, query)
  if (route.startsWith("/models/")) return method === "GET" ? { _tag: "Model", model: route.slice(8) } : wrongMethod
  const call: Route | undefined =
    route === "/chat/completions"
      ? { _tag: "Call", read: readChat, writer: chatWriter }
      : route === "/responses" && platform.options.wire === "openai-responses"
        ? { _tag: "Call", read: readResponses, writer: responsesWriter }
        : undefined
  if (call === undefined) return notFound
  return method === "POST" ? call : wrongMethod
}

const anthropicRoute = (method: string, route: string): Route => {
  if (route === "/v1/models") return method === "GET" ? { _tag: "Models" } : wrongMethod
  if (route.startsWith("/v1/models/")) return method === "GET" ? { _tag: "Model", model: route.slice(11) } : wrongMethod
  const call: Route | undefined =
    route === "/v1/messages"
      ? { _tag: "Call", read: readMessages, writer: messagesWriter }
      : route === "/v1/messages/count_tokens"
        ? { _tag: "CountMessages" }
        : undefined
  if (call === undefined) return notFound
  return method === "POST" ? call : wrongMethod
}

const geminiRoute = (method: string, route: string, query: URLSearchParams): Route => {
  if (!route.startsWith("/models/")) return notFound
  const rest = route.slice(8)
  const colon = rest.lastIndexOf(":")
  if (colon < 0) return method === "GET" ? { _tag: "Model", model: rest } : wrongMethod
  const model = rest.slice(0, colon)
  const sse = query.get("alt") === "sse"
  const call = (stream: boolean): Route => ({
    _tag: "Call",
    read: (body) => readGemini(body, { model, stream, sse }),
    writer: geminiWriter
  })
  if (method !== "POST") return wrongMethod
  switch (rest.slice(colon + 1)) {
    case "generateContent":
      return call(false)
    case "streamGenerateContent":
      return call(true)
    case "countTokens":
      return { _tag: "CountTokens", model }
    default:
      return notFound
  }
}
