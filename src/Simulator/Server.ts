import type { IncomingMessage, ServerResponse } from "node:http"
import { Either } from "effect"
import { parseJson, readBody, sendError } from "./Body.js"
import { modelEntry, modelList, quotas } from "./Catalogue.js"
import { type ControlContext, control } from "./Control.js"
import { type ErrorFacts, type ErrorKind, errorReply } from "./Errors.js"
import { Exchange, type Fork, type Reply } from "./Exchange.js"
import type { Fault } from "./Faults.js"
import type { PlatformState } from "./Platform.js"
import { type Arrival, answerToReply, errorToReply, jsonReply, struck } from "./Replies.js"
import type { BadRequest, SimulatedRequest } from "./Request.js"
import { type Route, routeOf } from "./Routes.js"
import { readGeminiCount } from "./Wire/Gemini.js"
import { readMessagesCount } from "./Wire/Messages.js"
import type { AnswerWriter } from "./Wire.js"

/**
 * A client that gives up closes its connection and may send its next request at the same moment, on another one: that
 * request can arrive first. So a request that finds all places taken is judged only after this, ms.
 */
const concurrencyGraceMs = 20

export interface ServerContext extends ControlContext {
  readonly fork: Fork
}

/** Answers the simulator's HTTP requests. */
export const makeHandler = (context: ServerContext) => {
  let requests = 0
  return (incoming: IncomingMessage, response: ServerResponse): void => {
    const url = incoming.url ?? "/"
    const queryAt = url.indexOf("?")
    const path = decodePath(queryAt < 0 ? url : url.slice(0, queryAt))
    const query = new URLSearchParams(queryAt < 0 ? "" : url.slice(queryAt + 1))
    if (path.startsWith("/__")) {
      control(context, incoming, response, path, query)
      return
    }
    const slash = path.indexOf("/", 1)
    const platform = context.platforms.get(path.slice(1, slash < 0 ? undefined : slash))
    if (platform === undefined) {
      const known = [...context.platforms.keys()].map((id) => `/${id}`).join(", ")
      sendError(response, 404, "not-found", `No platform is simulated at ${path}. There are: ${known}.`)
      return
    }
    requests++
    const arrival: Arrival = {
      platform,
      requestId: `req_simulated_${String(requests).padStart(8, "0")}`,
      createdAt: Math.floor(context.clock.unsafeCurrentTimeMillis() / 1_000)
    }
    const route = routeOf(platform, incoming.method ?? "GET", slash < 0 ? "/" : path.slice(slash), query)
    servePlatform(context, arrival, route, query, incoming, response)
  }
}

/** How a request is turned away for what it is. */
type Refuse = (kind: ErrorKind, facts?: Omit<ErrorFacts, "requestId">) => void

const servePlatform = (
  context: ServerContext,
  arrival: Arrival,
  route: Route,
  query: URLSearchParams,
  incoming: IncomingMessage,
  response: ServerResponse
): void => {
  const { platform, requestId } = arrival
  const isCall = route._tag === "Call" || (route._tag === "Error" && incoming.method === "POST")
  if (isCall) platform.counters.received++
  else platform.counters.otherRequests++
  const exchange = new Exchange(response, context.clock, context.fork, () => {
    if (isCall) platform.counters.aborted++
  })
  const refuse: Refuse = (kind, facts = {}) => {
    if (isCall) platform.counters.refused++
    exchange.play(errorToReply(arrival, errorReply(platform.dialect, kind, { requestId, ...facts })))
  }
  const problem = route._tag === "Error" ? route.kind : keyProblem(platform, incoming, query)
  readBody(incoming, (text) => {
    // Clients of OpenAI may try a WebSocket first; told to upgrade otherwise they fall back to HTTP at once.
    if (incoming.headers.upgrade?.toLowerCase() === "websocket") {
      refuse("wrong-method", { status: 426, message: "WebSocket is not offered here: use HTTP." })
    } else if (problem !== undefined) refuse(problem)
    else if (text === undefined) refuse("too-large")
    else if (route._tag === "Call") {
      Either.match(readCall(platform, text, route.read, refuse), {
        onLeft: (turnAway) => turnAway(),
        onRight: (call) => serveCall(context, arrival, route.writer, { ...call, text }, exchange)
      })
    } else if (route._tag !== "Error") serveOther(context, arrival, route, text, exchange)
  })
}

interface ReadCall {
  readonly request: SimulatedRequest
  readonly inputTokens: number
}

/** With the body it was read from. */
interface ReceivedCall extends ReadCall {
  readonly text: string
}

const readJson = <A>(
  text: string,
  read: (body: unknown) => Either.Either<A, BadRequest>
): Either.Either<A, BadRequest> =>
  Either.flatMap(
    Either.mapLeft(parseJson(text), (message): BadRequest => ({ message, param: undefined })),
    read
  )

/** A call that could be answered, or how to turn it away. */
const readCall = (
  platform: PlatformState,
  text: string,
  read: (body: unknown) => Either.Either<SimulatedRequest, BadRequest>,
  refuse: Refuse
): Either.Either<ReadCall, () => void> =>
  Either.gen(function* () {
    const request = yield* Either.mapLeft(readJson(text, read), (problem) => () => refuse("invalid-request", problem))
    if (!platform.knows(request.model)) {
      return yield* Either.left(() => refuse("model-not-found", { model: request.model }))
    }
    const inputTokens = platform.inputTokens(request)
    if (inputTokens > platform.contextWindow) {
      const context = { input: inputTokens, max: platform.contextWindow }
      return yield* Either.left(() => refuse("context-too-long", { context }))
    }
    if (lacksWordJson(platform, request)) {
      return yield* Either.left(() =>
        refuse("invalid-request", {
          message: "'messages' must contain the word 'json' in some form, to use the format 'json_object'.",
          param: "messages"
        })
      )
    }
    return { request, inputTokens }
  })

/** OpenAI and DashScope refuse JSON mode without a schema where no message speaks of JSON. */
const lacksWordJson = (platform: PlatformState, request: SimulatedRequest): boolean =>
  (platform.dialect === "openai" || platform.dialect === "dashscope") &&
  request.json !== undefined &&
  request.json.schema === undefined &&
  !request.speaksOfJson

const serveCall = (
  context: ServerContext,
  arrival: Arrival,
  writer: AnswerWriter,
  { inputTokens, request, text }: ReceivedCall,
  exchange: Exchange
): void => {
  const { platform, requestId } = arrival
  const { counters, limiter } = platform
  if (request.stream) counters.streams++

  const judge = () => {
    const now = context.now()
    if (platform.subscription?.refuses(context.clock.unsafeCurrentTimeMillis()) === true) {
      counters.refusedBySubscription++
      const reply = errorToReply(arrival, errorReply(platform.dialect, "quota-exhausted", { requestId }))
      const limits = platform.limitHeaders(now, context.clock.unsafeCurrentTimeMillis())
      exchange.play({ ...reply, headers: { ...reply.headers, ...limits, "x-should-retry": "false" } })
      return
    }
    const violation = limiter.admit(request.model, inputTokens, platform.reservedOutput(request), now)
    if (violation !== undefined) {
      platform.violations[violation.kind]++
      const wallMs = context.clock.unsafeCurrentTimeMillis()
      const planResetsAt = platform.isOfPlan(violation) ? wallMs + violation.waitMs : undefined
      const facts = { requestId, model: request.model, violation, planResetsAt }
      const reply = errorToReply(arrival, errorReply(platform.dialect, "rate-limit", facts))
      exchange.play({ ...reply, headers: { ...reply.headers, ...platform.limitHeaders(now, wallMs) } })
      return
    }
    counters.inputTokens += inputTokens
    const at = context.clock.unsafeCurrentTimeMillis()
    context.recorder.add({ platform: platform.id, model: request.model, at, text })
    const fault = context.faults.draw(platform.id, request.texts, now)
    const call = { writer, request, answer: platform.answer(request, inputTokens, saidBy(fault)) }
    const whole = answerToReply(arrival, call, platform.limitHeaders(now, context.clock.unsafeCurrentTimeMillis()))
    if (fault !== undefined) counters.faultsInjected++
    const reply = fault === undefined ? whole : struck(fault, arrival, whole, call)
    const isAnswer = fault === undefined || fault.fault === "drip" || fault.fault === "answer"
    // A request that a status answers used nothing; any other used its input and what was sent of the answer.
    const usesTokens = fault?.fault !== "status"
    const end = () => {
      const share = usesTokens ? Math.min(1, exchange.sent / (isAnswer ? reply : whole).frames.length) : 0
      const outputTokens = Math.round(call.answer.outputTokens * share)
      counters.outputTokens += outputTokens
      limiter.release(request.model, usesTokens ? inputTokens : 0, outputTokens, context.now())
    }
    exchange.whenGone(end)
    exchange.play(reply, () => {
      if (isAnswer) counters.answered++
      end()
    })
  }

  if (limiter.full(request.model) !== undefined) exchange.later(concurrencyGraceMs, judge)
  else judge()
}

/** What the model was told to say. */
const saidBy = (fault: Fault | undefined): string | undefined => {
  if (fault?.fault !== "answer") return undefined
  return typeof fault.says === "string" ? fault.says : JSON.stringify(fault.says)
}

const serveOther = (
  context: ServerContext,
  arrival: Arrival,
  route: Exclude<Route, { readonly _tag: "Call" | "Error" }>,
  text: string,
  exchange: Exchange
): void => {
  const { platform } = arrival
  const now = context.now()
  const whole = otherReply(context, arrival, route, text, now)
  const fault = context.faults.draw(platform.id, undefined, now)
  if (fault !== undefined) platform.counters.faultsInjected++
  exchange.play(fault === undefined ? whole : struck(fault, arrival, whole, undefined))
}

const otherReply = (
  context: ServerContext,
  arrival: Arrival,
  route: Exclude<Route, { readonly _tag: "Call" | "Error" }>,
  text: string,
  now: number
): Reply => {
  const { platform, requestId } = arrival
  const refused = (kind: ErrorKind, facts: Omit<ErrorFacts, "requestId">) =>
    errorToReply(arrival, errorReply(platform.dialect, kind, { requestId, ...facts }))
  switch (route._tag) {
    case "Models":
      return jsonReply(arrival, modelList(platform, arrival.createdAt))
    case "Model":
      return platform.knows(route.model)
        ? jsonReply(arrival, modelEntry(platform, route.model, arrival.createdAt))
        : refused("model-not-found", { model: route.model })
    case "Quotas":
      return jsonReply(arrival, quotas(platform, now, context.clock.unsafeCurrentTimeMillis()))
    case "CountMessages":
      return Either.match(readJson(text, readMessagesCount), {
        onLeft: (problem) => refused("invalid-request", problem),
        onRight: (request) =>
          platform.knows(request.model)
            ? jsonReply(arrival, { input_tokens: platform.inputTokens(request) })
            : refused("model-not-found", { model: request.model })
      })
    case "CountTokens":
      return platform.knows(route.model)
        ? Either.match(
            readJson(text, (body) => readGeminiCount(body, route.model)),
            {
              onLeft: (problem) => refused("invalid-request", problem),
              onRight: (request) => jsonReply(arrival, { totalTokens: platform.inputTokens(request) })
            }
          )
        : refused("model-not-found", { model: route.model })
  }
}

const decodePath = (path: string): string =>
  Either.getOrElse(
    Either.try(() => decodeURIComponent(path)),
    () => path
  )

const headerOf = (incoming: IncomingMessage, name: string): string => {
  const value = incoming.headers[name]
  return (typeof value === "string" ? value : value?.[0]) ?? ""
}

const bearerOf = (incoming: IncomingMessage): string =>
  /^Bearer\s+(\S+)\s*$/i.exec(incoming.headers.authorization ?? "")?.[1] ?? ""

const keyOf = (platform: PlatformState, incoming: IncomingMessage, query: URLSearchParams): string => {
  switch (platform.dialect) {
    case "gemini":
      return headerOf(incoming, "x-goog-api-key") || query.get("key") || ""
    case "anthropic":
      return headerOf(incoming, "x-api-key") || bearerOf(incoming)
    default:
      return bearerOf(incoming)
  }
}

const keyProblem = (
  platform: PlatformState,
  incoming: IncomingMessage,
  query: URLSearchParams
): "missing-key" | "invalid-key" | undefined => {
  const given = keyOf(platform, incoming, query)
  if (given === "") return "missing-key"
  return platform.options.apiKey === undefined || platform.options.apiKey === given ? undefined : "invalid-key"
}
