import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import { Effect } from "effect"
import { ResourceManager } from "../ResourceManager.js"
import { ResourcesApi } from "./Api.js"

/** The endpoints of limits and queues. */
export const layer = HttpApiBuilder.group(ResourcesApi, "resources", (handlers) =>
  Effect.map(ResourceManager, (manager) => handlers.handle("show", () => manager.view))
)
