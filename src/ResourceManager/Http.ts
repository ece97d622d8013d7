import { Cause, Effect } from "effect"
import { InvalidRequest, type NotFound, ServiceUnavailable } from "../Domain/ApiError.js"
import type { PlatformId } from "../Domain/Platform.js"
import * as Endpoints from "../Http/Endpoints.js"
import { payloadOf } from "../Http/Payload.js"
import { noSuchPlatform } from "../PlatformDetector/Http.js"
import { ResourceManager, type ResourceStoreFailed } from "../ResourceManager.js"
import { PatchBody, ResourcesGroup } from "./Api.js"

const defaultPage = 50

const readPatch = payloadOf(PatchBody)

const unavailable = ({ cause }: ResourceStoreFailed) =>
  Effect.zipRight(
    Effect.logError("What is stored of the platforms' limits cannot be used", Cause.fail(cause)),
    new ServiceUnavailable({ message: "The database does not answer. Nothing was changed; try again later." })
  )

/** The endpoints of limits and queues. */
export const endpoints = Endpoints.of(
  ResourcesGroup,
  Effect.gen(function* () {
    const manager = yield* ResourceManager

    const check = (id: PlatformId): Effect.Effect<void, NotFound> =>
      Effect.flatMap(manager.view, ({ platforms }) =>
        platforms.some(({ platform }) => platform === id)
          ? Effect.void
          : noSuchPlatform(
              id,
              platforms.map(({ platform }) => platform)
            )
      )

    return {
      show: () => manager.view,
      history: ({ path: { id }, urlParams: { before, limit = defaultPage } }) =>
        Effect.gen(function* () {
          yield* check(id)
          // One more than asked for tells whether there is a next page.
          const found = yield* Effect.catchTag(
            manager.history(id, { before, limit: limit + 1 }),
            "ResourceStoreFailed",
            unavailable
          )
          const events = found.slice(0, limit)
          return { events, next: found.length > limit ? events.at(-1)?.id : undefined }
        }),
      patch: ({ body, path: { id }, tenant }) =>
        Effect.gen(function* () {
          yield* check(id)
          const patch = yield* readPatch(body)
          return yield* Effect.catchTags(manager.patch(id, patch, tenant), {
            LimitsInvalid: ({ message, problems }) => new InvalidRequest({ message, problems }),
            ResourceStoreFailed: unavailable
          })
        })
    }
  })
)
