import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as OpenApi from "@effect/platform/OpenApi"
import { Schema } from "effect"
import { Authorization } from "../Domain/Access.js"
import { ChatCompletion, ChatCompletionRequest, ModelList, OpenAiError } from "../Domain/ChatCompletion.js"
import { Priority } from "../Domain/Task.js"
import { eventStream } from "../Http/Parameters.js"

const ChunkStream = eventStream(
  "With `stream`: server-sent events whose `data` is a ChatCompletionChunk as JSON each, then `[DONE]`; an answer that " +
    "breaks off ends with an OpenAiError in its place."
)

const chatCompletions = HttpApiEndpoint.post("chatCompletions", "/v1/chat/completions")
  .setHeaders(
    Schema.Struct({
      "x-dream-team-priority": Schema.optional(Priority).annotations({
        description: "Before which other calls it goes; default HIGH."
      })
    })
  )
  .setPayload(ChatCompletionRequest)
  .addSuccess(Schema.Union(ChatCompletion, ChunkStream))
  .addError(OpenAiError, { status: 400 })
  .annotateContext(
    OpenApi.annotations({
      summary: "Answer a conversation now",
      description:
        "OpenAI's Chat Completions, whole or streamed, with functions, images and JSON answers, made by the platform that " +
        "`model` names or leaves open; `model` and the header `x-dream-team-platform` say who answered. It waits at most " +
        "10 minutes, and ends with the connection of whoever asked. Fields that are not known are passed over; what would " +
        "change the answer's meaning and is not done here (`n`, `stop`, `logprobs`, `logit_bias`, `audio`, `functions`) is " +
        "refused. Errors have OpenAI's shape: 400, 401, 403, 404 `model_not_found`, 413, 429 with `retry-after`, 502, 503, 504."
    })
  )

const models = HttpApiEndpoint.get("models", "/v1/models")
  .addSuccess(ModelList)
  .annotateContext(
    OpenApi.annotations({
      summary: "List the names of models",
      description: "What may stand in `model`: `auto`, every platform, and every model that is known of it."
    })
  )

/** OpenAI's endpoints. */
export class GatewayGroup extends HttpApiGroup.make("gateway")
  .add(chatCompletions)
  .add(models)
  .middleware(Authorization)
  .annotateContext(OpenApi.annotations({ title: "Gateway", description: "For clients that speak OpenAI's API." })) {}
