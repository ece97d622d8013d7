import * as HttpApi from "@effect/platform/HttpApi"
import * as OpenApi from "@effect/platform/OpenApi"
import { BudgetsGroup } from "./Budgets/Api.js"
import { SessionsGroup } from "./CCRWatcher/Api.js"
import { BulkLine, BulkVerdict, TasksGroup } from "./Coordinator/Api.js"
import { JobsGroup } from "./Coordinator/Jobs/Api.js"
import { ErrorBody } from "./Domain/ApiError.js"
import { ChatCompletionChunk } from "./Domain/ChatCompletion.js"
import { ServiceEvent, TaskEvent } from "./Domain/Event.js"
import { EventsGroup } from "./Events/Api.js"
import { GatewayGroup } from "./Gateway/Api.js"
import { HealthGroup } from "./Http/HealthApi.js"
import { completeSpec } from "./Http/OpenApiSpec.js"
import { PlatformsGroup } from "./PlatformDetector/Api.js"
import { ResourcesGroup } from "./ResourceManager/Api.js"

/** The whole HTTP API, as server and typed client share it. */
export class Api extends HttpApi.make("dream-team")
  .add(TasksGroup)
  .add(JobsGroup)
  .add(EventsGroup)
  .add(PlatformsGroup)
  .add(ResourcesGroup)
  .add(BudgetsGroup)
  .add(GatewayGroup)
  .add(SessionsGroup)
  .add(HealthGroup)
  .addError(ErrorBody.Forbidden)
  .addError(ErrorBody.InternalError)
  .addError(ErrorBody.ServiceUnavailable)
  .annotate(HttpApi.AdditionalSchemas, [BulkLine, BulkVerdict, TaskEvent, ServiceEvent, ChatCompletionChunk])
  .annotateContext(
    OpenApi.annotations({
      title: "Dream Team",
      version: "1",
      license: { name: "MIT" },
      description:
        "One service that delegates AI tasks to a team of platforms and spends every rate limit to the full. " +
        'Every error answers `{ "error": { "type", "message", "details" } }`.',
      transform: completeSpec
    })
  ) {}
