import { Effect } from "effect"
import { NotFound } from "../Domain/ApiError.js"
import type { PlatformView } from "../Domain/Lease.js"
import type { PlatformId } from "../Domain/Platform.js"
import * as Endpoints from "../Http/Endpoints.js"
import { PlatformDetector } from "../PlatformDetector.js"
import { PlatformsGroup } from "./Api.js"

export const noSuchPlatform = (id: PlatformId, known: ReadonlyArray<PlatformId>): NotFound =>
  new NotFound({ message: `There is no platform ${id}, only ${known.join(", ") || "none at all"}` })

/** The endpoints of the platforms. */
export const endpoints = Endpoints.of(
  PlatformsGroup,
  Effect.gen(function* () {
    const detector = yield* PlatformDetector

    const viewOf = (id: PlatformId): Effect.Effect<PlatformView, NotFound> =>
      Effect.flatMap(detector.view, (views) => {
        const view = views.find((candidate) => candidate.id === id)
        return view === undefined
          ? noSuchPlatform(
              id,
              views.map((known) => known.id)
            )
          : Effect.succeed(view)
      })

    return {
      list: () => Effect.map(detector.view, (platforms) => ({ platforms })),
      get: ({ path }) => viewOf(path.id),
      check: ({ path }) =>
        viewOf(path.id).pipe(Effect.zipRight(detector.check(path.id)), Effect.zipRight(viewOf(path.id)))
    }
  })
)
