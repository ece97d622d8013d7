import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import type * as FileSystem from "@effect/platform/FileSystem"
import type { HttpApiDecodeError } from "@effect/platform/HttpApiError"
import type { HttpClientError } from "@effect/platform/HttpClientError"
import { Console, Effect, Option, type ParseResult, Predicate, Schema } from "effect"
import { type Client, make } from "../Client.js"
import type { ApiError } from "../Domain/ApiError.js"
import { TaskId } from "../Domain/Task.js"
import { load } from "../Settings/Load.js"
import type { SettingsInvalid } from "../Settings/Problem.js"
import { CommandFailed, Misuse } from "./Exit.js"
import { printable } from "./Output.js"

/** What a request to the service may fail with. */
export type RequestProblem = ApiError | HttpApiDecodeError | HttpClientError | ParseResult.ParseError

/** Where a service with these settings is reached from this machine. */
const urlOf = (host: string, port: number): string => {
  const reachable = host === "0.0.0.0" ? "127.0.0.1" : host === "::" || host === "[::]" ? "::1" : host
  return `http://${reachable.includes(":") && !reachable.startsWith("[") ? `[${reachable}]` : reachable}:${port}`
}

/** The system's code of an error, however deep it is wrapped. */
const codeOf = (error: unknown): string | undefined =>
  Predicate.hasProperty(error, "code") && typeof error.code === "string"
    ? error.code
    : Predicate.hasProperty(error, "cause")
      ? codeOf(error.cause)
      : undefined

const fields = (problems: ReadonlyArray<{ readonly field: string; readonly problem: string }>): ReadonlyArray<string> =>
  problems.map(({ field, problem }) => `  ${field}: ${problem}`)

const explain = (url: string, problem: RequestProblem): string => {
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
      return `${problem.message}. The first key of DREAM_TEAM_API_KEYS is the one that is sent.`
    case "InvalidRequest":
      return [problem.message, ...fields(problem.problems)].join("\n")
    case "TaskRefused":
      return [
        problem.message,
        ...fields(problem.problems),
        ...problem.reasons.map(({ platform, reason }) => `  ${platform}: ${reason}`)
      ].join("\n")
    default:
      return problem.message
  }
}

/** Asks the running service, at `url` or where the settings say, with the first configured API key. */
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
    const client = yield* Effect.provide(make({ baseUrl, apiKey: settings.apiKeys[0]?.key }), FetchHttpClient.layer)
    return yield* Effect.mapError(use(client), (problem) =>
      problem._tag === "CommandFailed" || problem._tag === "Misuse"
        ? problem
        : new CommandFailed({ message: printable(explain(baseUrl, problem)) })
    )
  })

/** A task's id as typed by a person. */
export const taskId = (text: string): Effect.Effect<TaskId, Misuse> =>
  Effect.mapError(
    Schema.decodeUnknown(TaskId)(text.trim().toLowerCase()),
    () => new Misuse({ message: `'${text}' is not a task's id; 'dream-team tasks list' shows them.` })
  )

/** Prints a value as the API sends it, two spaces deep. */
export const printAs = <A, I>(schema: Schema.Schema<A, I>, value: A): Effect.Effect<void> =>
  Schema.encode(schema)(value).pipe(
    Effect.orDie,
    Effect.flatMap((encoded) => Console.log(JSON.stringify(encoded, undefined, 2)))
  )
