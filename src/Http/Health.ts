import { Duration, Effect, Option } from "effect"
import { Coordinator } from "../Coordinator.js"
import { localTenant } from "../Domain/Access.js"
import { NotReady, type ReadinessCheck } from "../Domain/ApiError.js"
import { PlatformDetector } from "../PlatformDetector.js"
import { SqlWriter } from "../Sql/Writer.js"
import * as Endpoints from "./Endpoints.js"
import { HealthGroup } from "./HealthApi.js"
import { Shutdown } from "./Shutdown.js"

const databaseTimeout = Duration.seconds(2)

/** Health endpoints. */
export const endpoints = Endpoints.of(
  HealthGroup,
  Effect.gen(function* () {
    const coordinator = yield* Coordinator
    const detector = yield* PlatformDetector
    const shutdown = yield* Shutdown
    const { refusal } = yield* SqlWriter

    const running: Effect.Effect<ReadinessCheck> = Effect.sync(() =>
      shutdown.hasBegun() ? { name: "running", ok: false, message: "shutting down" } : { name: "running", ok: true }
    )

    const database: Effect.Effect<ReadinessCheck> = coordinator.list(localTenant, { limit: 1 }).pipe(
      Effect.zipRight(refusal),
      Effect.map(
        Option.match({
          onNone: (): ReadinessCheck => ({ name: "database", ok: true }),
          onSome: ({ message }): ReadinessCheck => ({ name: "database", ok: false, message })
        })
      ),
      Effect.timeoutTo({
        duration: databaseTimeout,
        onSuccess: (check): ReadinessCheck => check,
        onTimeout: (): ReadinessCheck => ({
          name: "database",
          ok: false,
          message: `no answer within ${Duration.toSeconds(databaseTimeout)} s`
        })
      }),
      Effect.catchAll((error) => Effect.succeed({ name: "database", ok: false, message: error.message }))
    )

    const platforms: Effect.Effect<ReadinessCheck> = Effect.map(detector.view, (views) => ({
      name: "platforms",
      ok: true,
      message: `${views.filter(({ status }) => status !== "unavailable").length} of ${views.length} usable`
    }))

    return {
      live: () => Effect.succeed({ status: "live" as const }),
      ready: () =>
        Effect.gen(function* () {
          const checks = yield* Effect.all([running, database, platforms])
          const failed = checks.filter(({ ok }) => !ok)
          return failed.length === 0
            ? { status: "ready" as const, checks }
            : yield* new NotReady({
                message: `Not ready: ${failed.map(({ name, message }) => `${name} (${message})`).join(", ")}`,
                checks
              })
        })
    }
  })
)
