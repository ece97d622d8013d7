import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import type * as FileSystem from "@effect/platform/FileSystem"
import type { HttpApiDecodeError } from "@effect/platform/HttpApiError"
import type { HttpClientError } from "@effect/platform/HttpClientError"
import { Clock, Effect, Option, type ParseResult, Predicate, type Redacted, Schema } from "effect"
import { type Client, make, type VerdictsMissing } from "../Client.js"
import type { ApiError } from "../Domain/ApiError.js"
import type { PlatformReason } from "../Domain/Failure.js"
import { load } from "../Settings/Load.js"
import type { SettingsInvalid } from "../Settings/Problem.js"
import type { SettingsShape } from "../Settings/Shape.js"
import { CommandFailed, Misuse } from "./Exit.js"
import { duration, printable, printJson, relative } from "./Output.js"

/** What a request to the service may fail with. */
export type RequestProblem = ApiError | HttpApiDecodeError | HttpClientError | ParseResult.ParseError | VerdictsMissing

/** Where a service with these settings is reached from this machine. */
export const urlOf = (host: string, port: number): string => {
  const reachable = host === "0.0.0.0" ? "127.0.0.1" : host === "::" || host === "[::]" ? "::1" : host
  return `http://${reachable.includes(":") && !reachable.startsWith("[") ? `[${reachable}]` : reachable}:${port}`
}

/** The system's code of an error, however deep it is wrapped. */
export const codeOf = (error: unknown): string | undefined =>
  Predicate.hasProperty(error, "code") && typeof error.code === "string"
    ? error.code
    : Predicate.hasProperty(error, "cause")
      ? codeOf(error.cause)
      : undefined

const reasonLine = ({ earliestAt, platform, reason }: PlatformReason, now: number): string =>
  `  ${platform}: ${reason}${earliestAt === undefined ? "" : `; not before ${new Date(earliestAt).toISOString()} (${relative(earliestAt, now)})`}`

/** What is wrong, a line each; the message alone, which tells them in one, where there are none. */
const refused = (
  { message }: { readonly message: string },
  problems: ReadonlyArray<{ readonly field: string; readonly problem: string }>,
  reasons: ReadonlyArray<PlatformReason>,
  now: number
): string => {
  const lines = [
    ...problems.map(({ field, problem }) => `  ${field === "" ? "" : `${field}: `}${problem}`),
    ...reasons.map((reason) => reasonLine(reason, now))
  ]
  return lines.length === 0 ? message : ["The service refuses this:", ...lines].join("\n")
}

/** The key that a request is sent with, and what it is called where it is set. */
interface SentKey {
  readonly key: Redacted.Redacted
  readonly name: string
}

const keyOf = ({ apiKey, apiKeys }: SettingsShape): SentKey | undefined => {
  if (apiKey !== undefined) return { key: apiKey, name: "DREAM_TEAM_API_KEY" }
  const [first] = apiKeys
  return first === undefined ? undefined : { key: first.key, name: "the first of DREAM_TEAM_API_KEYS" }
}

const explain = (url: string, sent: SentKey | undefined, problem: RequestProblem, now: number): string => {
  switch (problem._tag) {
    case "RequestError": {
      const code = codeOf(problem.cause)
      return code === undefined || code === "ECONNREFUSED"
        ? `No service answers at ${url}. Start it with 'dream-team serve', or say where it is with --url.`
        : `The service at ${url} cannot be reached (${code}).`
    }
    case "ResponseError":
    case "ParseError":
    case "HttpApiDecodeError":
      return `What answers at ${url} is not a Dream Team service of this version: ${problem.message}`
    case "Unauthorized":
      return sent === undefined
        ? `The service at ${url} wants an API key: put yours into DREAM_TEAM_API_KEY.`
        : `The service at ${url} does not know the API key it was sent, which is ${sent.name}.`
    case "InvalidRequest":
      return refused(problem, problem.problems, [], now)
    case "TaskRefused": {
      const why = refused(problem, problem.problems, problem.reasons, now)
      return problem.suggestion === undefined ? why : `${why}\nThe check suggests: ${problem.suggestion}`
    }
    case "RateLimited":
      if (problem.reasons.length === 0) return `${problem.message} There is room in ${duration(problem.retryAfterMs)}.`
      return [
        `The limits leave no room for it before its deadline; try again in ${duration(problem.retryAfterMs)}:`,
        ...problem.reasons.map((reason) => reasonLine(reason, now))
      ].join("\n")
    case "ServiceUnavailable":
      return problem.reasons === undefined
        ? problem.message
        : [
            "No platform can start it before its deadline:",
            ...problem.reasons.map((reason) => reasonLine(reason, now))
          ].join("\n")
    default:
      return problem.message
  }
}

/** What every command takes that asks the service. */
export interface ServiceOptions {
  readonly url: Option.Option<string>
  /** Whether to print JSON instead of text for people. */
  readonly json: boolean
}

/** Asks the running service, at `url` or where the settings say, with `DREAM_TEAM_API_KEY` or else the first of the service's own keys. */
export const withService = <A, R>(
  url: Option.Option<string>,
  use: (client: Client) => Effect.Effect<A, RequestProblem | CommandFailed | Misuse, R>
): Effect.Effect<A, CommandFailed | Misuse | SettingsInvalid, R | FileSystem.FileSystem> =>
  Effect.gen(function* () {
    const { settings } = yield* load()
    const baseUrl = Option.getOrElse(url, () => urlOf(settings.host, settings.port))
    if (!URL.canParse(baseUrl) || !/^https?:$/.test(new URL(baseUrl).protocol)) {
      return yield* new Misuse({ message: `--url must be an http or https URL, not '${baseUrl}'.` })
    }
    const sent = keyOf(settings)
    const client = yield* Effect.provide(make({ baseUrl, apiKey: sent?.key }), FetchHttpClient.layer)
    return yield* Effect.catchAll(use(client), (problem) =>
      problem._tag === "CommandFailed" || problem._tag === "Misuse"
        ? Effect.fail(problem)
        : Effect.flatMap(
            Clock.currentTimeMillis,
            (now) => new CommandFailed({ message: printable(explain(baseUrl, sent, problem, now)) })
          )
    )
  })

/** Prints a value as the API sends it, two spaces deep. */
export const printAs = <A, I>(schema: Schema.Schema<A, I>, value: A): Effect.Effect<void> =>
  Schema.encode(schema)(value).pipe(Effect.orDie, Effect.flatMap(printJson))
