import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as OpenApi from "@effect/platform/OpenApi"
import { Either, ParseResult, Schema } from "effect"
import { Authorization } from "../Domain/Access.js"
import { ErrorBody } from "../Domain/ApiError.js"
import { EventKind, EventTypeFilter, parseEventTypes } from "../Domain/Event.js"
import { PlatformId } from "../Domain/Platform.js"
import { SessionId } from "../Domain/Session.js"
import { JobId, TaskId } from "../Domain/Task.js"
import { EventNumber, eventStream, ResumeHeaders, strict } from "../Http/Parameters.js"

/** Types of events, separated by commas, each whole or a family. */
const EventTypes = Schema.transformOrFail(
  Schema.String.annotations({ jsonSchema: { type: "string", minLength: 1 } }),
  Schema.Array(EventTypeFilter),
  {
    strict: true,
    decode: (list, _, ast) =>
      Either.mapLeft(parseEventTypes(list), (problem) => new ParseResult.Type(ast, list, problem)),
    encode: (types) => ParseResult.succeed(types.join(","))
  }
)

const Params = Schema.Struct({
  type: Schema.optional(EventTypes).annotations({
    description: "Only these types, separated by commas: each whole (`task.failed`) or a family (`task.*`)."
  }),
  kind: Schema.optional(EventKind).annotations({
    description: "Only events of tasks, of jobs, of platforms, of the own API key, or of Claude Code sessions."
  }),
  task: Schema.optional(TaskId).annotations({ description: "Only this task's events." }),
  job: Schema.optional(JobId).annotations({ description: "Only this job's events and those of its tasks." }),
  platform: Schema.optional(PlatformId).annotations({ description: "Only this platform's own events." }),
  session: Schema.optional(SessionId).annotations({ description: "Only this Claude Code session's events." }),
  after: Schema.optional(EventNumber).annotations({
    description: "Go on after this event; 0 = from the oldest that is kept. Absent: only what happens from now on."
  })
}).annotations(strict)

const EventStream = eventStream(
  "Server-sent events: `id` (an integer that grows), `event` (the type) and `data` (a ServiceEvent as JSON) each, in " +
    "the order of their ids. Comments keep the connection alive."
)

const follow = HttpApiEndpoint.get("follow", "/v1/events")
  .setHeaders(ResumeHeaders)
  .setUrlParams(Params)
  .addSuccess(EventStream)
  .annotateContext(
    OpenApi.annotations({
      summary: "Follow all events",
      description:
        "What happens to the own tasks, jobs and API key, to the platforms and to Claude Code sessions, as server-sent " +
        "events; it never ends by itself. " +
        "All filters that are given hold together. After a broken connection send the last `id` seen as " +
        "`Last-Event-ID`, as browsers do by themselves: nothing is lost and nothing is repeated. A reader that takes " +
        "nothing for half a minute is cut off and can come back the same way."
    })
  )

/** Events over HTTP. */
export class EventsGroup extends HttpApiGroup.make("events")
  .add(follow)
  .addError(ErrorBody.InvalidRequest)
  .middleware(Authorization)
  .annotateContext(
    OpenApi.annotations({ title: "Events", description: "What happens to tasks, jobs and platforms." })
  ) {}
