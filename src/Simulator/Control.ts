import type { IncomingMessage, ServerResponse } from "node:http"
import { type Clock, Either, Schema } from "effect"
import { type FieldProblem, InvalidRequest } from "../Domain/ApiError.js"
import { parseJson, readBody, sendError, sendJson } from "./Body.js"
import { type ActiveFault, Fault, type FaultBoard, maxFaults } from "./Faults.js"
import type { PlatformState } from "./Platform.js"
import { problemsOf } from "./Problems.js"
import type { Recorder } from "./Recorder.js"
import type { Stats } from "./Stats.js"
import { SubscriptionChange } from "./Subscription.js"

/** What the simulator's own endpoints speak of. */
export interface ControlContext {
  readonly platforms: ReadonlyMap<string, PlatformState>
  readonly faults: FaultBoard
  readonly recorder: Recorder
  readonly clock: Clock.Clock
  /** Monotonic ms since the start. */
  readonly now: () => number
}

const decodeFault = Schema.decodeUnknownEither(Fault, { errors: "all", onExcessProperty: "error" })

const invalidFault = (problems: ReadonlyArray<FieldProblem>): InvalidRequest =>
  new InvalidRequest({ message: "The fault is not valid.", problems })

/** Sets a fault that came from outside, or says what is wrong with it. */
export const setFault = (
  { faults, now, platforms }: ControlContext,
  input: unknown
): Either.Either<ActiveFault, InvalidRequest> =>
  Either.gen(function* () {
    const fault = yield* Either.mapLeft(decodeFault(input), (error) => invalidFault(problemsOf(error)))
    if (fault.platform !== "*" && !platforms.has(fault.platform)) {
      const known = [...platforms.keys(), "*"].join(", ")
      return yield* Either.left(invalidFault([{ field: "platform", problem: `expected one of ${known}` }]))
    }
    const active = faults.add(fault, now())
    if (active === undefined) {
      return yield* Either.left(
        invalidFault([{ field: "", problem: `there are ${maxFaults} faults already: clear some first` }])
      )
    }
    return active
  })

const decodeChange = Schema.decodeUnknownEither(
  Schema.Struct({ platform: Schema.String, ...SubscriptionChange.fields }),
  { errors: "all", onExcessProperty: "error" }
)

/** Changes what a platform's subscription allows, or says what is wrong with the change. */
export const changeSubscription = (
  { clock, platforms }: ControlContext,
  input: unknown
): Either.Either<void, InvalidRequest> =>
  Either.gen(function* () {
    const invalid = (problems: ReadonlyArray<FieldProblem>) =>
      new InvalidRequest({ message: "The change of a subscription is not valid.", problems })
    const { platform, ...change } = yield* Either.mapLeft(decodeChange(input), (error) => invalid(problemsOf(error)))
    const subscription = platforms.get(platform)?.subscription
    if (subscription === undefined) {
      const known = [...platforms].flatMap(([id, one]) => (one.subscription === undefined ? [] : id)).join(", ")
      return yield* Either.left(invalid([{ field: "platform", problem: `expected one of: ${known}` }]))
    }
    subscription.change(change, clock.unsafeCurrentTimeMillis())
  })

/** Every platform's subscription, by its id, where it has one. */
const subscriptionsOf = ({ clock, platforms }: ControlContext): unknown =>
  Object.fromEntries(
    [...platforms].flatMap(([id, { subscription }]) =>
      subscription === undefined ? [] : [[id, subscription.read(clock.unsafeCurrentTimeMillis())]]
    )
  )

export const statsOf = ({ now, platforms }: ControlContext): Stats => {
  const at = now()
  const byPlatform = [...platforms].map(([id, platform]) => [id, platform.stats(at)] as const)
  return {
    uptimeMs: Math.round(at),
    violations: byPlatform.reduce(
      (sum, [, { violations }]) =>
        sum + violations.requests + violations.tokens + violations.credits + violations.concurrency,
      0
    ),
    platforms: Object.fromEntries(byPlatform)
  }
}

const endpoints: ReadonlyArray<string> = ["/__health", "/__stats", "/__faults", "/__requests", "/__subscription"]

/** Answers a request to the simulator itself. */
export const control = (
  context: ControlContext,
  incoming: IncomingMessage,
  response: ServerResponse,
  path: string,
  query: URLSearchParams
): void => {
  const method = incoming.method ?? "GET"
  switch (`${method} ${path}`) {
    case "GET /__health":
      sendJson(response, 200, { status: "ok", simulated: true, platforms: [...context.platforms.keys()] })
      return
    case "GET /__stats":
      sendJson(response, 200, statsOf(context))
      return
    case "GET /__faults":
      sendJson(response, 200, { faults: context.faults.list(context.now()) })
      return
    case "DELETE /__faults":
      sendJson(response, 200, {
        cleared: context.faults.clear(query.get("platform") ?? undefined, context.now())
      })
      return
    case "GET /__requests":
      sendJson(response, 200, { requests: context.recorder.list(query.get("platform") ?? undefined) })
      return
    case "GET /__subscription":
      sendJson(response, 200, subscriptionsOf(context))
      return
    case "POST /__faults":
      readBody(incoming, (text) => post(response, text, 201, (input) => setFault(context, input)))
      return
    case "POST /__subscription":
      readBody(incoming, (text) =>
        post(response, text, 200, (input) =>
          Either.map(changeSubscription(context, input), () => subscriptionsOf(context))
        )
      )
      return
    default:
      if (endpoints.includes(path)) sendError(response, 405, "wrong-method", `${method} is not offered at ${path}.`)
      else sendError(response, 404, "not-found", `There is nothing at ${path}. There are: ${endpoints.join(", ")}.`)
  }
}

/** Does what a body asks for, and answers with what came of it. */
const post = (
  response: ServerResponse,
  text: string | undefined,
  status: number,
  run: (input: unknown) => Either.Either<unknown, InvalidRequest>
): void => {
  if (text === undefined) {
    sendError(response, 413, "too-large", "The body is too large.")
    return
  }
  const parsed = parseJson(text)
  if (Either.isLeft(parsed)) {
    sendError(response, 400, "invalid-request", parsed.left, { problems: [] })
    return
  }
  Either.match(run(parsed.right), {
    onLeft: ({ message, problems }) => sendError(response, 400, "invalid-request", message, { problems }),
    onRight: (done) => sendJson(response, status, done)
  })
}
