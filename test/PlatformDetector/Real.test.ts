import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger, Option, Schedule, type Scope } from "effect"
import { Benchmark } from "../../src/Benchmark.js"
import type { PlatformEventBody } from "../../src/Domain/Event.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { TenantId } from "../../src/Domain/Task.js"
import { PlatformDetector } from "../../src/PlatformDetector.js"
import { layer as transportLayer } from "../../src/Platforms/Transport.js"
import { type PlatformClient, Platforms } from "../../src/Platforms.js"
import { ResourceManager } from "../../src/ResourceManager.js"
import { Settings } from "../../src/Settings.js"
import { Simulator } from "../../src/Simulator.js"

const codex = PlatformId.make("codex")

/** So short that a test sees several checks; the machine may be slow, so what is waited for may take its time. */
const health = { intervalMs: 100, timeoutMs: 1_000 }

const startSimulator = () => Simulator.make(Simulator.instant)

/** Fibers that wrote into a platform's history: its health fiber is the first. */
interface World {
  readonly simulator: Effect.Effect.Success<ReturnType<typeof startSimulator>>
  readonly writers: Array<Fiber.Fiber<unknown, unknown>>
  readonly notes: Array<PlatformEventBody>
}

/** A detector that checks the simulator's codex over real HTTP, by the real clock. */
const real = <A, E>(
  body: (world: World) => Effect.Effect<A, E, PlatformDetector | ResourceManager | Scope.Scope>,
  checkWith: (client: PlatformClient) => PlatformClient["check"] = ({ check }) => check
) =>
  Effect.gen(function* () {
    const simulator = yield* startSimulator()
    const settings = Settings.make({
      platforms: [
        Settings.platformDefaults("codex", {
          apiKey: simulator.apiKeys.codex,
          baseUrl: simulator.baseUrls.codex
        })
      ],
      health
    })
    const world: World = { simulator, writers: [], notes: [] }
    const checking = Layer.effect(
      Platforms,
      Effect.map(Platforms, ({ all }) => {
        const clients = all.map((client) => ({ ...client, check: checkWith(client) }))
        return { all: clients, get: () => Option.fromNullable(clients[0]) }
      })
    ).pipe(Layer.provide(Platforms.layer), Layer.provide(transportLayer))
    const resources = Layer.effect(
      ResourceManager,
      Effect.map(ResourceManager, (manager) => ({
        ...manager,
        note: (platform: PlatformId, event: PlatformEventBody) =>
          Effect.withFiberRuntime<void>((fiber) => {
            world.writers.push(fiber)
            world.notes.push(event)
            return manager.note(platform, event)
          })
      }))
    ).pipe(Layer.provide(ResourceManager.layer))
    return yield* body(world).pipe(
      Effect.provide(
        PlatformDetector.layer.pipe(
          Layer.provide([Benchmark.layer, checking]),
          Layer.provideMerge(resources),
          Layer.provide(Settings.layer(settings))
        )
      )
    )
  }).pipe(Effect.scoped, Effect.provide(Logger.remove(Logger.defaultLogger)))

/** Waits until the platform's status is `status`, and `reason` is part of its reasons. */
const becomes = (status: string, reason = "") =>
  Effect.flatMap(PlatformDetector, ({ health }) => health(codex)).pipe(
    Effect.filterOrFail(
      (found) => found.status === status && found.reasons.join("; ").includes(reason),
      (found) => `it is ${found.status} (${found.reasons.join("; ")}), not ${status} (${reason})`
    ),
    Effect.retry(Schedule.intersect(Schedule.spaced("20 millis"), Schedule.recurs(1_000)))
  )

describe("health fibers over real HTTP", () => {
  it.live("a platform that hangs is out, and back with the first check that is answered", () =>
    real(({ notes, simulator }) =>
      Effect.gen(function* () {
        yield* becomes("available")
        yield* simulator.fault({ fault: "hang", platform: "codex", routes: "all" })
        yield* becomes("unavailable", "no answer to the health check within 1000 ms")
        const { reasons } = yield* Effect.flip(
          Effect.scoped(
            Effect.flatMap(ResourceManager, ({ acquire }) =>
              acquire({
                candidates: [{ platform: codex, model: "m", weight: 1 }],
                tokens: { input: 1, maxOutput: 1 },
                type: "analysis",
                priority: "HIGH",
                tenant: TenantId.make("t"),
                maxWaitMs: 0
              })
            )
          )
        )
        assert.include(reasons[0]?.reason, "its health checks fail")
        yield* simulator.clearFaults()
        yield* becomes("available")
        assert.includeMembers(
          notes.map((event) => (event.type === "platform.status" ? event.to : "")),
          ["available", "unavailable"]
        )
      })
    )
  )

  it.live("a platform that answers garbage is out, and back with the first whole answer", () =>
    real(({ simulator }) =>
      Effect.gen(function* () {
        yield* becomes("available")
        yield* simulator.fault({ fault: "malformed", platform: "codex", routes: "all" })
        yield* becomes("unavailable", "health checks in a row failed")
        yield* simulator.clearFaults()
        yield* becomes("available")
      })
    )
  )

  it.live("a client that dies, or whose fiber is killed, is a failed check and no end of the checks", () => {
    let broken: Effect.Effect<never> | undefined
    return real(
      () =>
        Effect.gen(function* () {
          yield* becomes("available")
          for (const how of [Effect.die(new Error("a bug in the client")), Effect.interrupt]) {
            broken = how
            yield* becomes("unavailable", "the health check broke")
            broken = undefined
            yield* becomes("available")
          }
        }),
      ({ check }) => Effect.suspend(() => broken ?? check)
    )
  })

  it.live("a health fiber that is killed in the middle of a check counts it as failed and comes back", () => {
    let started = 0
    return real(
      ({ notes, simulator, writers }) =>
        Effect.gen(function* () {
          yield* becomes("available")
          const [killed] = writers
          if (killed === undefined) return yield* Effect.dieMessage("nothing was written down")
          yield* simulator.fault({ fault: "hang", platform: "codex", routes: "all" })
          const before = started
          yield* Effect.repeat(Effect.sleep("5 millis"), { until: () => started > before })
          yield* Fiber.interrupt(killed)
          yield* becomes("unavailable")
          assert.include(JSON.stringify(notes), "its last health check failed: the health check was cut off")
          assert.notInclude(writers.slice(1), killed)
          yield* simulator.clearFaults()
          yield* becomes("available")
        }),
      ({ check }) =>
        Effect.suspend(() => {
          started += 1
          return check
        })
    )
  })
})
